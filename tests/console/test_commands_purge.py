"""`inbox purge`, `queue purge` and `dlq purge`: exactly what was chosen, never by a slip, and refused where it must be."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from console.operations.job import Job
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import (
    PLACES,
    PLAN,
    RESULT,
    CommandLine,
    account_state,
    fill,
    foreign_fleet,
    looked,
    prepared,
    production,
    program,
    seqs_of,
    three,
)
from tests.support.fleets import take

GROUPS = pytest.mark.parametrize("group", ["inbox", "queue"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def left(url: str, stream: str) -> list[int]:
    return looked(url, lambda fleet: seqs_of(fleet, stream))


def purge(group: str) -> tuple[str, str, str]:
    return group, "purge", PLACES[group][0]


# -- what is chosen


@GROUPS
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (("--all",), [1, 2, 3, 4, 5, 6]),
        (("--filter", "seq:2..3"), [2, 3]),
        (("--filter", "body.n:5"), [5]),
        (("--filter", "hdr.X-Number:4"), [4]),
        (("--filter", "nobody"), []),
        (("--subject", "{prefix}.alert"), [2, 4, 6]),
        (("--subject", "{prefix}.*"), [1, 2, 3, 4, 5, 6]),
        (("--keep", "2"), [1, 2, 3, 4]),
        (("--keep", "6"), []),
        (("--up-to-seq", "3"), [1, 2, 3]),
        (("--up-to-seq", "99"), [1, 2, 3, 4, 5, 6]),
        (("--older-than", "1h"), []),
        (("--older-than", "0.001s"), [1, 2, 3, 4, 5, 6]),
        (("--subject", "{prefix}.alert", "--keep", "1"), [2, 4]),
        (("--subject", "{prefix}.note", "--up-to-seq", "4"), [1, 3]),
        (("--filter", "seq:1..5", "--subject", "{prefix}.note", "--older-than", "0.001s"), [1, 3, 5]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_a_purge_takes_what_was_chosen_and_nothing_else(
    command: CommandLine, server: LocalServer, group: str, options: tuple[str, ...], gone: list[int]
) -> None:
    name, stream, prefix = PLACES[group]
    prepared(server.url, lambda fleet: fill(fleet, group))
    line = (group, "purge", name, *(option.format(prefix=prefix) for option in options), "--json")
    dry = command(*line, "--dry-run")
    assert (dry.status, dry.err, dry.json.keys()) == (0, "", PLAN)
    assert (dry.json["plan"], dry.json["count"]) == ("purge", len(gone))
    assert [sample["seq"] for sample in dry.json["sample"]] == gone[:5]
    done = command(*line, "--yes")
    assert (done.status, done.err, done.json.keys()) == (0, "", RESULT)
    told = done.json
    assert (told["planned"], told["done"], told["failed"]) == (len(gone), len(gone), 0)
    assert [(item["seq"], item["outcome"]) for item in told["items"]] == [(seq, "done") for seq in gone]
    assert left(server.url, stream) == [seq for seq in range(1, 7) if seq not in gone]


@GROUPS
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--filter", ""),
        ("--filter", "  "),
        ("--subject", ""),
        ("--keep", "0"),
        ("--keep", "-1"),
        ("--up-to-seq", "0"),
        ("--older-than", ""),
        ("--older-than", "0s"),
        ("--older-than", "soon"),
        ("--filter", "colour:red"),
        ("--filter", "", "--keep", "3"),
        ("--all", "--filter", "x"),
        ("--all", "--keep", "3"),
        ("--all", "--subject", "x.>"),
        ("--all", "--older-than", "1h"),
        ("--all", "--up-to-seq", "3"),
        ("--keep", "3", "--up-to-seq", "3"),
        ("--keep", "many"),
        ("--all", "--rate", "0"),
        ("--all", "--rate", "501"),
        ("1", "2"),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_a_purge_that_cannot_be_meant_is_2_and_changes_nothing(
    command: CommandLine, server: LocalServer, group: str, options: tuple[str, ...]
) -> None:
    prepared(server.url, lambda fleet: fill(fleet, group))
    before = looked(server.url, account_state)
    result = command(*purge(group), *options, "--yes")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("agent-console: ")
    assert result.err.count("\n") == 1
    assert looked(server.url, account_state) == before


def test_what_is_missing_is_said(command: CommandLine, server: LocalServer) -> None:
    assert "say which messages" in command("inbox", "purge", "ceo", "--yes").err
    assert "empty filter" in command("queue", "purge", "backend", "--filter", "", "--yes").err
    assert "--all" in command("inbox", "purge", "ceo", "--keep", "0", "--yes").err


# -- the plan


@GROUPS
def test_without_yes_the_plan_is_printed_and_nothing_changes(server: LocalServer, group: str) -> None:
    name, stream, _ = PLACES[group]
    prepared(server.url, lambda fleet: fill(fleet, group))
    before = looked(server.url, account_state)
    line = (group, "purge", name, "--all", "--server", server.url, "--json")
    asked, dry = program(*line), program(*line, "--dry-run", "--yes")
    assert (asked.status, dry.status) == (4, 0)
    assert asked.err.startswith("agent-console: nothing was changed: add --yes to purge 6 messages")
    assert (dry.err, asked.err.count("\n")) == ("", 1)
    assert asked.json == dry.json
    plan = asked.json
    assert plan.keys() == PLAN
    assert (plan["plan"], plan["count"], plan["skipped"], plan["by_destination"]) == ("purge", 6, [], {})
    assert sum(plan["by_origin"].values()) == 6
    assert plan["spill"]
    assert any("nats stream purge" in each and stream in each for each in plan["nats"])
    assert looked(server.url, account_state) == before


def test_the_plan_for_people(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    result = command("inbox", "purge", "ceo", "--filter", "type:alert")
    assert result.status == 4
    for word in ("purge 3 messages", "type:alert", "looked at 6 messages", "keeps all of them", "nats stream rmm"):
        assert word in result.out
    gone_for_good = command("inbox", "purge", "ceo", "--all", "--no-spill")
    assert "▲" in gone_for_good.out
    assert "no way back" in gone_for_good.out


def test_a_plan_warns_of_what_is_in_flight(command: CommandLine, server: LocalServer) -> None:
    async def taken(fleet: Fleet) -> None:
        await fill(fleet)
        await take(fleet, "INBOX_CEO", "ceo-processor")

    prepared(server.url, taken)
    assert "1 in flight" in command("inbox", "purge", "ceo", "--all", "--dry-run").out


# -- refused


@GROUPS
@pytest.mark.parametrize("more", [("--yes",), (), ("--yes", "--force", "--no-spill")], ids=" ".join)
def test_read_only_refuses(command: CommandLine, server: LocalServer, group: str, more: tuple[str, ...]) -> None:
    prepared(server.url, lambda fleet: fill(fleet, group))
    before = looked(server.url, account_state)
    for line in (("--read-only", *purge(group), "--all", *more), (*purge(group), "--all", *more, "--read-only")):
        result = command(*line)
        assert (result.status, result.out) == (5, "")
        assert "read-only" in result.err
    assert looked(server.url, account_state) == before
    assert command(*purge(group), "--all", "--dry-run", "--read-only", "--json").json["count"] == 6


@GROUPS
def test_a_name_nobody_has_is_1_and_said_in_one_line(command: CommandLine, server: LocalServer, group: str) -> None:
    prepared(server.url, lambda fleet: fill(fleet, group))
    for verb, more in (("purge", ("--all",)), ("pause", ()), ("resume", ())):
        result = command(group, verb, "ghost", *more, "--yes")
        assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
        assert "'ghost'" in result.err


@GROUPS
def test_a_name_that_cannot_be_is_2(command: CommandLine, server: LocalServer, group: str) -> None:
    for verb, more in (("purge", ("--all",)), ("pause", ()), ("resume", ())):
        result = command(group, verb, "no.such>", *more, "--yes")
        assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("flag", ["sealed", "deny_delete", "deny_purge"])
@pytest.mark.parametrize("stream", ["INBOX_CEO", "TASKS_BACKEND", "DLQ"])
def test_a_stream_that_denies_it_refuses(command: CommandLine, server: LocalServer, flag: str, stream: str) -> None:
    async def denied(fleet: Fleet) -> None:
        await fill(fleet)
        await fill(fleet, "queue")
        await three(fleet)
        config = (await fleet.jetstream.stream_info(stream))["config"]  # type: ignore[index]
        await fleet.jetstream.api(f"STREAM.UPDATE.{stream}", {**config, flag: True})

    prepared(server.url, denied)
    before = looked(server.url, account_state)
    line = (*purge({"INBOX_CEO": "inbox", "TASKS_BACKEND": "queue"}[stream]),) if stream != "DLQ" else ("dlq", "purge")
    for more in (("--yes",), ("--yes", "--force"), ()):
        result = command(*line, "--all", *more)
        assert (result.status, result.out, result.err.count("\n")) == (5, "", 1)
        assert flag in result.err
        assert stream in result.err
    assert looked(server.url, account_state) == before


def test_missing_rights_are_told_before_anything_is_written_or_removed(capsys: pytest.CaptureFixture[str]) -> None:
    config = """
    accounts { A { jetstream: enabled, users: [
        { user: admin, password: a }
        { user: viewer, password: v, permissions: { publish: { deny: ["$JS.API.STREAM.MSG.DELETE.INBOX_CEO"] } } }
    ] } }
    """
    with LocalServer(config=config) as server:
        admin, viewer = (server.url.replace("nats://", f"nats://{who}@") for who in ("admin:a", "viewer:v"))
        prepared(admin, fill)
        result = CommandLine(capsys, viewer)("inbox", "purge", "ceo", "--all", "--yes")
        assert (result.status, result.out, result.err.count("\n")) == (5, "", 1)
        assert "$JS.API.STREAM.MSG.DELETE.INBOX_CEO" in result.err
        assert left(admin, "INBOX_CEO") == [1, 2, 3, 4, 5, 6]


def test_production_wants_a_reason(capsys: pytest.CaptureFixture[str], server: LocalServer, tmp_path: Any) -> None:
    command = CommandLine(capsys)
    prepared(server.url, fill)
    line = ("inbox", "purge", "ceo", "--keep", "4", *production(tmp_path, server.url))
    for more in ((), ("--reason", " ")):
        refused = command(*line, "--yes", *more)
        assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "--reason" in refused.err
    assert command(*line).status == 4
    assert command(*line, "--dry-run").status == 0
    assert left(server.url, "INBOX_CEO") == [1, 2, 3, 4, 5, 6]
    done = command(*line, "--yes", "--reason", "poisoned by a bad deploy", "--json")
    assert (done.status, done.json["done"]) == (0, 2)
    start, end = command("audit", "--json").json
    for each in (start, end):
        assert (each["action"], each["reason"], each["context"]) == ("purge", "poisoned by a bad deploy", "live")
    assert (start["seqs"], end["done"]) == ([1, 2], 2)


# -- frozen


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets something happen between the plan and the deed."""
    real = Job.run

    def happens(what: Any) -> None:
        async def run(self: Job) -> None:
            await what(self.fleet)
            await real(self)

        monkeypatch.setattr(Job, "run", run)

    return happens


@GROUPS
def test_what_arrives_after_the_plan_is_not_touched(
    command: CommandLine, server: LocalServer, meanwhile: Any, group: str
) -> None:
    _, stream, prefix = PLACES[group]
    prepared(server.url, lambda fleet: fill(fleet, group))
    meanwhile(lambda fleet: fleet.js.publish(f"{prefix}.note", b'{"n":"late"}'))
    result = command(*purge(group), "--all", "--yes", "--json")
    assert (result.status, result.json["planned"], result.json["done"]) == (0, 6, 6)
    assert left(server.url, stream) == [7]


def test_what_was_handled_meanwhile_is_skipped_and_not_put_back(
    command: CommandLine, server: LocalServer, meanwhile: Any
) -> None:
    prepared(server.url, fill)

    async def handled(fleet: Fleet) -> None:
        await (await take(fleet, "INBOX_CEO", "ceo-processor")).ack_sync()

    meanwhile(handled)
    result = command("inbox", "purge", "ceo", "--all", "--yes", "--json")
    told = result.json
    assert (result.status, told["done"], told["skipped"], told["failed"]) == (0, 5, 1, 0)
    assert [(item["seq"], item["outcome"]) for item in told["items"]][:2] == [(1, "skipped"), (2, "done")]
    meanwhile(lambda fleet: fleet.nc.flush())
    back = command("restore", told["spill"], "--yes", "--json").json
    assert (back["done"], back["failed"]) == (5, 0)

    async def numbers(fleet: Fleet) -> list[int]:
        return [json.loads(each.body)["n"] for each in (await fleet.jetstream.read("INBOX_CEO")).messages]

    assert looked(server.url, numbers) == [2, 3, 4, 5, 6]


# -- other fleets, dead letters


def test_inbox_and_queue_of_other_code_are_purged_too(command: CommandLine, server: LocalServer) -> None:
    asyncio.run(foreign_fleet(server.url))
    for line, stream in ((("inbox", "purge", "ceo"), "INBOX_CEO"), (("queue", "purge", "backend"), "TASKS_BACKEND")):
        result = command(*line, "--all", "--yes", "--json")
        assert (result.status, result.json["failed"]) == (0, 0)
        assert left(server.url, stream) == []


def test_an_organization_of_its_own(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)

    async def other(fleet: Fleet) -> None:
        await fleet.inbox("ceo").send("note", {})

    prepared(server.url, other, org="acme")
    result = command("--org", "acme", "inbox", "purge", "ceo", "--all", "--yes", "--json")
    assert (result.status, result.json["done"]) == (0, 1)
    assert (left(server.url, "INBOX_CEO"), left(server.url, "ACME_INBOX_CEO")) == ([1, 2, 3, 4, 5, 6], [])


@pytest.mark.parametrize(
    ("options", "gone", "plan"),
    [
        (("1", "3"), [1, 3], "discard"),
        (("3", "3", "1"), [1, 3], "discard"),
        (("--filter", "kind:tasks"), [1, 3], "purge"),
        (("--all",), [1, 2, 3], "purge"),
        (("--older-than", "0.001s"), [1, 2, 3], "purge"),
        (("--older-than", "1h"), [], "purge"),
        (("--keep", "1"), [1, 2], "purge"),
        (("--up-to-seq", "2"), [1, 2], "purge"),
        (("--subject", "dlq.inbox.>"), [2], "purge"),
        (("--filter", "kind:tasks", "--keep", "1"), [1], "purge"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_dead_letters_are_purged(
    command: CommandLine, server: LocalServer, options: tuple[str, ...], gone: list[int], plan: str
) -> None:
    prepared(server.url, three)
    asked = command("dlq", "purge", *options, "--json")
    assert (asked.status, asked.json.keys()) == (4 if gone else 0, PLAN)
    assert (asked.json["plan"], asked.json["count"]) == (plan, len(gone))
    assert left(server.url, "DLQ") == [1, 2, 3]
    done = command("dlq", "purge", *options, "--yes", "--json")
    assert (done.status, done.err, done.json.keys(), done.json["done"]) == (0, "", RESULT, len(gone))
    assert left(server.url, "DLQ") == [seq for seq in (1, 2, 3) if seq not in gone]


def test_a_sequence_that_is_not_there_is_skipped(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    result = command("dlq", "purge", "2", "99", "--yes", "--json")
    assert (result.status, result.json["done"], result.json["skipped"]) == (0, 1, 1)
    assert [(item["seq"], item["outcome"]) for item in result.json["items"]] == [(2, "done"), (99, "skipped")]


@pytest.mark.parametrize(
    "options",
    [(), ("--filter", ""), ("1", "--all"), ("1", "--keep", "2"), ("--all", "--keep", "2"), ("0",), ("--keep", "0")],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_a_purge_of_letters_that_cannot_be_meant_is_2(
    command: CommandLine, server: LocalServer, options: tuple[str, ...]
) -> None:
    prepared(server.url, three)
    result = command("dlq", "purge", *options, "--yes")
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert left(server.url, "DLQ") == [1, 2, 3]


@pytest.mark.parametrize("option", ["--reason", "--filter"])
def test_bytes_that_are_no_text_on_the_command_line_break_nothing(server: LocalServer, option: str) -> None:
    prepared(server.url, fill)
    choice = ("--filter", "!\udcff") if option == "--filter" else ("--all", "--reason", "caf\udce9")
    result = program("inbox", "purge", "ceo", *choice, "--yes", "--json", "--server", server.url)
    assert (result.status, result.err) == (0, "")
    assert result.json["done"] == 6
