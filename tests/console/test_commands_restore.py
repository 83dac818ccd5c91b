"""What a purge writes down first, and `restore`: all of it back, exactly, once."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import APIError

from patterns import Fleet
from patterns.jetstream import JetStream
from patterns.server import LocalServer
from patterns.stored import HeaderLines, StoredMessage, header_lines
from tests.support.commandline import (
    PLACES,
    PLAN,
    RESULT,
    CommandLine,
    account_state,
    counts,
    fill,
    letter,
    looked,
    prepared,
    publish_raw,
    seqs_of,
    stored,
    three,
)
from tests.support.fleets import running
from tests.support.waiting import until

ODD_LINES = [
    ("X-Twice", b"one"), ("X-Latin", b"caf\xe9 \xff\x00"), ("X-Twice", b"two"), ("X-Blank", b"  both ends \t"),
    ("X-Empty", b""), ("x-twice", b"three"), ("X-Colon", b"a: b"),
]  # fmt: skip


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def kept(message: StoredMessage) -> tuple[str, list[tuple[str, bytes]], bytes]:
    """What a restore has to bring back: all but the server's own header lines."""
    lines = [(name, value) for name, value in header_lines(message.header_block) if not name.startswith("Nats-")]
    return message.subject, lines, message.body


def all_of(url: str, stream: str) -> list[StoredMessage]:
    found: list[StoredMessage] = looked(url, lambda fleet: stored(fleet, stream))
    return found


# -- the file


def test_a_purge_writes_everything_down_first_for_its_user_alone(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    before = all_of(server.url, "INBOX_CEO")
    result = command("inbox", "purge", "ceo", "--keep", "2", "--yes", "--reason", "poison", "--json")
    file = Path(result.json["spill"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    head, *messages, end, told = (json.loads(line) for line in file.read_text().splitlines())
    assert head["spill"] == 1
    assert (head["action"], head["stream"], head["job"]) == ("purge", "INBOX_CEO", result.json["job"])
    assert (head["reason"], "@" in head["by"], bool(head["at"])) == ("poison", True, True)
    assert "confidential" in head["holds"]
    assert (end, told) == ({"complete": 4}, {"kept": []})
    assert [(line["seq"], line["subject"]) for line in messages] == [(each.seq, each.subject) for each in before[:4]]
    for line, message in zip(messages, before, strict=False):
        assert base64.b64decode(line["headers"]) == message.header_block
        assert base64.b64decode(line["data"]) == message.body


def test_the_result_tells_how_to_undo_it(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    result = command("inbox", "purge", "ceo", "--all", "--yes")
    assert result.status == 0
    assert "purge" in result.out
    (undo,) = (line for line in result.out.splitlines() if "agent-console restore" in line)
    assert Path(undo.rpartition(" ")[2]).is_file()


def test_no_spill_writes_nothing(command: CommandLine, server: LocalServer, tmp_path: Path) -> None:
    prepared(server.url, fill)
    result = command("inbox", "purge", "ceo", "--all", "--yes", "--no-spill", "--json")
    assert (result.status, result.json["done"], result.json["spill"]) == (0, 6, None)
    assert list(tmp_path.rglob("*spill*")) == []
    bodies = [file for file in tmp_path.rglob("*") if file.is_file() and b'"n": 1' in file.read_bytes()]
    assert bodies == []


def test_what_cannot_be_written_down_is_not_removed(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    file = Path(command("inbox", "purge", "ceo", "--up-to-seq", "1", "--yes", "--json").json["spill"])
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the directory should be")
    result = command("inbox", "purge", "ceo", "--all", "--yes", "--json")
    assert result.status in (1, 3)
    assert "spill" in result.err
    assert looked(server.url, lambda fleet: seqs_of(fleet, "INBOX_CEO")) == [2, 3, 4, 5, 6]


# -- putting back


@pytest.mark.parametrize("group", ["inbox", "queue"])
def test_a_restore_puts_it_back(command: CommandLine, server: LocalServer, group: str) -> None:
    name, stream, _ = PLACES[group]
    prepared(server.url, lambda fleet: fill(fleet, group))
    before = all_of(server.url, stream)
    spill = command(group, "purge", name, "--all", "--yes", "--json").json["spill"]
    assert all_of(server.url, stream) == []
    asked, dry = command("restore", spill, "--json"), command("restore", spill, "--dry-run", "--json")
    assert (asked.status, dry.status, asked.json, asked.json.keys()) == (4, 0, dry.json, PLAN)
    assert (asked.json["plan"], asked.json["count"], sum(asked.json["by_destination"].values())) == ("restore", 6, 6)
    assert all_of(server.url, stream) == []
    result = command("restore", spill, "--yes", "--json")
    assert (result.status, result.err, result.json.keys()) == (0, "", RESULT)
    assert (result.json["planned"], result.json["done"], result.json["failed"]) == (6, 6, 0)
    assert [kept(message) for message in all_of(server.url, stream)] == [kept(message) for message in before]


def test_what_was_restored_is_handled(command: CommandLine, server: LocalServer) -> None:
    async def submit(fleet: Fleet) -> None:
        await fleet.inbox("ceo").send("note", {"n": 1}, id="feat-1")

    prepared(server.url, submit)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    assert command("restore", spill, "--yes").status == 0

    async def handled(fleet: Fleet) -> list[tuple[str, Any]]:
        async with await fleet.inbox("ceo").next(20) as message:
            return [(message.id, message.data)]

    assert looked(server.url, handled) == [("feat-1", {"n": 1})]


def test_headers_and_bodies_come_back_byte_by_byte(command: CommandLine, server: LocalServer) -> None:
    """Repeated lines, values that are no text, and a body of any bytes, as only a raw client sends them."""
    block = b"NATS/1.0\r\nA: 1\r\nB:2\r\nA:  3 \r\na: 4\r\nC: \xff\xfe caf\xe9\r\n\r\n"

    async def odd(fleet: Fleet) -> None:
        await fleet.jetstream.publish("agents.ceo.inbox.note", bytes(range(256)), HeaderLines(ODD_LINES))
        await publish_raw(fleet, b"agents.ceo.inbox.raw", block, b"\x00\xff\r\n\x1b[31m")
        await fleet.js.publish("agents.ceo.inbox.bare", b"")

    prepared(server.url, odd)
    before = all_of(server.url, "INBOX_CEO")
    assert header_lines(before[1].header_block) == [
        ("A", b"1"), ("B", b"2"), ("A", b" 3 "), ("a", b"4"), ("C", b"\xff\xfe caf\xe9")
    ]  # fmt: skip
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    assert command("restore", spill, "--yes", "--json").json["done"] == 3
    assert [kept(message) for message in all_of(server.url, "INBOX_CEO")] == [kept(message) for message in before]


def test_a_subject_that_is_no_text_is_not_purged_for_it_could_not_be_put_back(
    command: CommandLine, server: LocalServer
) -> None:
    prepared(server.url, lambda fleet: publish_raw(fleet, b"agents.ceo.inbox.caf\xe9", b"NATS/1.0\r\n\r\n", b"{}"))
    result = command("inbox", "purge", "ceo", "--all", "--yes", "--json")
    assert (result.status, result.json["done"], result.json["skipped"]) == (0, 0, 1)
    assert "no UTF-8" in result.json["items"][0]["detail"]
    assert len(all_of(server.url, "INBOX_CEO")) == 1
    result = command("inbox", "purge", "ceo", "--all", "--no-spill", "--yes", "--json")
    assert (result.status, result.json["done"], result.json["spill"]) == (0, 1, None)
    assert all_of(server.url, "INBOX_CEO") == []


def test_a_duplicate_window_that_knows_the_message_swallows_nothing(command: CommandLine, server: LocalServer) -> None:
    async def sent(fleet: Fleet) -> None:
        await fleet.js.publish("agents.ceo.inbox.note", b"{}", headers={"Nats-Msg-Id": "known"})
        assert (await fleet.js.publish("agents.ceo.inbox.note", b"{}", headers={"Nats-Msg-Id": "known"})).duplicate

    prepared(server.url, sent)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    back = command("restore", spill, "--yes", "--json")
    assert (back.status, back.json["done"], back.json["duplicates"]) == (0, 1, 0)
    assert len(all_of(server.url, "INBOX_CEO")) == 1


def test_header_lines_that_command_the_server_do_not_come_back(command: CommandLine, server: LocalServer) -> None:
    async def sent(fleet: Fleet) -> None:
        config = (await fleet.jetstream.stream_info("INBOX_CEO"))["config"]  # type: ignore[index]
        await fleet.jetstream.api("STREAM.UPDATE.INBOX_CEO", {**config, "allow_rollup_hdrs": True})
        await fleet.js.publish("agents.ceo.inbox.note", b"1", headers={"Nats-Rollup": "sub", "X": "1"})
        await fleet.js.publish("agents.ceo.inbox.note", b"2", headers={"Nats-Expected-Last-Sequence": "1"})

    prepared(server.url, sent)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]

    async def other(fleet: Fleet) -> None:
        await fleet.js.publish("agents.ceo.inbox.note", b"new")

    looked(server.url, other)
    assert command("restore", spill, "--yes", "--json").json["done"] == 2
    assert [message.body for message in all_of(server.url, "INBOX_CEO")] == [b"new", b"1", b"2"]


def test_restoring_twice_puts_nothing_back_twice(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    assert command("restore", spill, "--yes", "--json").json["done"] == 6
    again = command("restore", spill, "--yes", "--json")
    assert (again.status, again.json["failed"]) == (0, 0)
    assert {item["outcome"] for item in again.json["items"]} <= {"duplicate", "skipped"}
    assert len(all_of(server.url, "INBOX_CEO")) == 6


def test_what_is_still_there_is_not_put_back_beside_it(
    command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(server.url, fill)
    real = JetStream.delete

    async def delete(self: JetStream, stream: str, seq: int) -> bool:
        if (stream, seq) == ("INBOX_CEO", 2):
            raise APIError(code=500, err_code=10_000, description="not today")
        return await real(self, stream, seq)

    with monkeypatch.context() as patch:
        patch.setattr(JetStream, "delete", delete)
        purged = command("inbox", "purge", "ceo", "--up-to-seq", "3", "--yes", "--json")
    assert (purged.status, purged.json["done"], purged.json["failed"]) == (3, 2, 1)
    assert "not today" in purged.json["items"][1]["detail"]
    assert purged.err.count("\n") == 1
    back = command("restore", purged.json["spill"], "--yes", "--json")
    assert (back.status, back.json["done"], back.json["skipped"], back.json["failed"]) == (0, 2, 1, 0)
    assert [item["outcome"] for item in back.json["items"]] == ["done", "skipped", "done"]
    numbers = sorted(json.loads(message.body)["n"] for message in all_of(server.url, "INBOX_CEO"))
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_stream_that_is_gone_is_1_and_nothing_is_put_elsewhere(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    looked(server.url, lambda fleet: fleet.js.delete_stream("INBOX_CEO"))
    result = command("restore", spill, "--yes")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert "INBOX_CEO" in result.err


def test_a_restore_is_refused_read_only_and_needs_a_file(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    spill = command("inbox", "purge", "ceo", "--all", "--yes", "--json").json["spill"]
    before = looked(server.url, account_state)
    for line in (("restore", spill, "--yes", "--read-only"), ("--read-only", "restore", spill)):
        assert command(*line).status == 5
    assert command("restore", spill, "--dry-run", "--read-only").status == 0
    assert command("restore").status == 2
    assert looked(server.url, account_state) == before


# -- dead letters


def test_purged_letters_are_there_again_and_replayed_once(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    listed = command("dlq", "list", "--json").json
    before = all_of(server.url, "DLQ")
    spill = command("dlq", "purge", "--all", "--yes", "--json").json["spill"]
    assert command("dlq", "list", "--json").json == []
    assert command("restore", spill, "--yes", "--json").json["done"] == 3
    assert [kept(message) for message in all_of(server.url, "DLQ")] == [kept(message) for message in before]
    again = command("dlq", "list", "--json").json
    # These were written without a time of death, and what the server needs to store each once stays with it.
    varying = {"seq", "died_at", "size"}
    assert [{k: v for k, v in each.items() if k not in varying} for each in again] == [
        {k: v for k, v in each.items() if k not in varying} for each in listed
    ]
    twice = command("restore", spill, "--yes", "--json").json
    assert (twice["done"], twice["skipped"]) == (0, 3)
    assert command("restore", spill, "--force", "--yes", "--json").json["duplicates"] == 3
    assert looked(server.url, counts) == (3, 0, 0)
    replayed = command("dlq", "replay", "--all", "--yes", "--uncapped", "--json")
    assert (replayed.status, replayed.json["done"]) == (0, 3)
    assert looked(server.url, counts) == (0, 2, 1)


def test_a_real_death_that_was_purged_and_restored_is_handled_once(command: CommandLine, server: LocalServer) -> None:
    async def die(fleet: Fleet) -> None:
        async def refuse(task: Any) -> None:
            await task.reject("no spec")

        async with running(fleet.tasks("backend").worker("backend-1"), refuse):
            await fleet.tasks("backend").submit("code.feature", {"spec": 1}, id="feat-1")
            await until(fleet.dead_letters.list)

    prepared(server.url, die)
    spill = command("dlq", "purge", "--all", "--yes", "--json").json["spill"]
    assert command("restore", spill, "--yes", "--json").json["done"] == 1
    (back,) = command("dlq", "list", "--json").json
    assert (back["id"], back["error"]) == ("feat-1", "no spec")
    assert command("dlq", "replay", str(back["seq"]), "--yes", "--json").json["done"] == 1
    # The file knows a letter that was replayed since; putting it back again must not double the work.
    later = command("restore", spill, "--yes", "--json")
    if later.json["done"]:
        command("dlq", "replay", "--all", "--yes", "--uncapped")

    async def work(fleet: Fleet) -> list[str]:
        handled: list[str] = []

        async def handle(task: Any) -> None:
            handled.append(task.id)

        queue = fleet.tasks("backend")
        async with running(queue.worker("backend-1"), handle):

            async def empty() -> bool:
                return bool(handled) and (await queue.depth()).messages == 0

            await until(empty)
        return handled

    assert looked(server.url, work) == ["feat-1"]


def test_a_letter_that_somebody_put_back_meanwhile_is_a_duplicate(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letter)
    spill = command("dlq", "purge", "--all", "--yes", "--json").json["spill"]
    looked(server.url, letter)
    back = command("restore", spill, "--yes", "--json")
    assert (back.status, back.json["done"], back.json["failed"]) == (0, 1, 0)
    assert back.json["items"][0]["outcome"] == "duplicate"
    assert looked(server.url, counts) == (1, 0, 0)


# -- files that are none


def test_a_file_that_cannot_be_used_is_told_in_one_line(
    command: CommandLine, server: LocalServer, tmp_path: Path
) -> None:
    prepared(server.url, fill)
    good = Path(command("inbox", "purge", "ceo", "--up-to-seq", "2", "--yes", "--json").json["spill"])
    head, first, second, end, *_ = good.read_bytes().splitlines(keepends=True)
    before = looked(server.url, account_state)
    broken = {
        "missing": None,
        "empty": b"",
        "text": b"what is this\n",
        "binary": bytes(range(256)),
        "json": b"[1]\n",
        "other": b'{"spill": 2, "id": "x"}\n',
        "audit": b'{"time": "2026-01-01T00:00:00Z", "event": "start"}\n',
        "no head": first + second + end,
        "unfinished": head + first,
        "cut off": head + first + second[:-20],
        "cut end": head + first + second + end[:-3],
        "miscounted": head + first + end,
        "no base64": head + first.replace(b'"data": "', b'"data": "!!') + second + end,
        "no number": head + first.replace(b'"seq": 1', b'"seq": "1"') + second + end,
        "negative": head + first.replace(b'"seq": 1', b'"seq": -1') + second + end,
        "no time": head + first.replace(b'"time": "', b'"time": "x') + second + end,
        "huge time": head + first.replace(b'"time": "2', b'"time": "99999992') + second + end,
        "wrong order": head + second + first + end,
        "deep": b"[" * 100_000 + b"\n",
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.jsonl"
        if content is not None:
            path.write_bytes(content)
        for more in (("--yes",), ("--dry-run",)):
            result = command("restore", str(path), *more)
            assert (name, result.status, result.out, result.err.count("\n")) == (name, 1, "", 1)
            assert path.name in result.err
            assert "unexpected" not in result.err
    directory = command("restore", str(tmp_path), "--yes")
    assert (directory.status, directory.err.count("\n")) == (1, 1)
    assert looked(server.url, account_state) == before


@pytest.mark.parametrize(
    "subject",
    ["", "a b", "agents.*.inbox", ">", "$JS.API.STREAM.DELETE.INBOX_CEO", "nowhere.at.all", "dlq.inbox.ceo.1-1"],
)
def test_a_forged_line_goes_nowhere_but_into_its_stream(
    command: CommandLine, server: LocalServer, tmp_path: Path, subject: str
) -> None:
    prepared(server.url, fill)
    good = Path(command("inbox", "purge", "ceo", "--up-to-seq", "1", "--yes", "--json").json["spill"])
    head, first, end, *_ = (json.loads(line) for line in good.read_text().splitlines())
    forged = tmp_path / "forged.jsonl"
    forged.write_text("".join(json.dumps(line) + "\n" for line in (head, {**first, "subject": subject}, end)))
    before = looked(server.url, account_state)
    result = command("restore", str(forged), "--yes", "--json")
    assert result.status in (0, 1, 3)
    if result.out:
        assert result.json["done"] == 0
    after = looked(server.url, account_state)
    # What a job tells the fleet is all that is stored.
    assert {name: each for name, each in after.items() if name != "EVENTS"} == {
        name: each for name, each in before.items() if name != "EVENTS"
    }
