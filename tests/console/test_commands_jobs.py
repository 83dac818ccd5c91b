"""`jobs`: what was begun from this machine, going on with it, and answering for what is in doubt."""

from __future__ import annotations

import contextlib
import json
import signal
import stat
from typing import Any

import pytest
from nats.js.api import ConsumerConfig

from console.commands.acting import opened_ledger
from console.commands.logs import state_dir
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.selection import choose
from patterns import Fleet, StreamLimits, Unavailable
from patterns.jetstream import JetStream
from patterns.server import LocalServer
from tests.support.commandline import (
    HOSTILE,
    RESULT,
    CommandLine,
    account_state,
    counts,
    fill,
    letter,
    looked,
    prepared,
    start,
    three,
)
from tests.support.fleets import fast
from tests.support.letters import forge
from tests.support.plans import plan_replay
from tests.support.waiting import until

JOB = {
    *("job", "state", "action", "stream", "context", "actor", "mode", "selector", "reason", "rate", "planned", "done"),
    *(
        "duplicates",
        "skipped",
        "failed",
        "in_doubt",
        "not_started",
        "left",
        "created_at",
        "started_at",
        "ended_at",
        "spill",
        "error",
    ),
    *("edit", "canary", "canary_verdict", "stop_ratio", "pauses", "died_again_while_running", "overridden"),
}
FORGETFUL = fast(limits=StreamLimits(duplicate_window=0.1))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def moved(url: str, count: int) -> None:
    """Wait until so many are in the queue of `backend`."""

    async def begun(fleet: Fleet) -> None:
        async def enough() -> bool:
            return (await counts(fleet))[1] >= count

        await until(enough)

    looked(url, begun)


def broken_off(url: str, number: signal.Signals, count: int = 12) -> None:
    """A replay whose program is ended after its first letters."""

    async def many(fleet: Fleet) -> None:
        for n in range(1, count + 1):
            await letter(fleet, number=n)

    prepared(url, many)
    with start(
        "dlq", "replay", "--all", "--yes", "--rate", "2", "--reason", "model is back", "--server", url
    ) as process:
        moved(url, 1)
        process.send_signal(number)
        process.communicate(timeout=30)


def in_doubt(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job with letter 2 in doubt: its consumer keeps no receipts, its server forgets ids, nobody saw it arrive."""
    real, met = JetStream.publish, list[str]()

    async def publish(self: JetStream, subject: str, *args: Any, **options: Any) -> Any:
        if subject == "orders.new":
            met.append(subject)
            if len(met) == 2:
                raise Unavailable("no answer")
        return await real(self, subject, *args, **options)

    async def work(fleet: Fleet) -> str:
        await fleet.js.add_stream(name="ORDERS", subjects=["orders.>"], duplicate_window=0.1)
        await fleet.js.add_consumer("ORDERS", ConsumerConfig(durable_name="worker"))
        for n in (1, 2, 3):
            await forge(fleet, f"tasks.orders.{n}-{n}", "orders.new", Message_Id=f"m-{n}")
        plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=100.0)
        job = Job.of(fleet, plan, WriteGuard(True), ledger=opened_ledger())
        await job.run()
        job.ledger.close()
        return job.id

    with monkeypatch.context() as patch:
        patch.setattr(JetStream, "publish", publish)
        return str(prepared(url, work, config=FORGETFUL))


# -- the list


def test_no_job_is_said(command: CommandLine) -> None:
    assert command("jobs", "--json").json == []
    result = command("jobs")
    assert (result.status, result.out) == (0, "")
    assert "no job" in result.err


def test_jobs_have_the_fields_of_the_contract_newest_first(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    prepared(server.url, fill)
    replayed = command("dlq", "replay", "1", "77", "--yes", "--reason", "model is back", "--json").json
    purged = command("inbox", "purge", "ceo", "--keep", "4", "--yes", "--json").json
    result = command("jobs", "--json")
    assert (result.status, result.err) == (0, "")
    second, first = result.json
    assert {frozenset(each) for each in (first, second)} == {frozenset(JOB)}
    assert (first["job"], second["job"]) == (replayed["job"], purged["job"])
    assert (first["action"], first["state"], first["stream"], first["mode"]) == ("replay", "completed", "DLQ", "cli")
    assert (first["planned"], first["done"], first["skipped"], first["failed"]) == (1, 1, 1, 0)
    assert (first["in_doubt"], first["left"], first["duplicates"]) == (0, 0, 0)
    assert (first["selector"], first["reason"], first["rate"], first["spill"]) == (
        "seq:1,77",
        "model is back",
        20.0,
        None,
    )
    assert (second["action"], second["stream"], second["rate"], second["reason"]) == ("purge", "INBOX_CEO", None, None)
    assert (second["spill"], second["error"]) == (purged["spill"], None)
    assert all(
        each[name].endswith("Z") for each in (first, second) for name in ("created_at", "started_at", "ended_at")
    )
    assert "@" in first["actor"]
    table = command("jobs").out
    assert replayed["job"] in table
    assert "completed" in table
    assert stat.S_IMODE((state_dir() / "jobs.db").stat().st_mode) == 0o600


def test_a_plan_is_no_job(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    command("dlq", "replay", "--all")
    command("dlq", "purge", "--all", "--dry-run")
    command("dlq", "replay", "--filter", "nobody", "--yes")
    assert command("jobs", "--json").json == []


def test_show_tells_each_item(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    told = command("dlq", "replay", "--all", "--yes", "--uncapped", "--json").json
    shown = command("jobs", "show", told["job"], "--json")
    assert (shown.status, shown.json.keys()) == (0, JOB | {"items"})
    assert shown.json["items"] == told["items"]
    text = command("jobs", "show", told["job"])
    assert text.status == 0
    assert "INBOX_CEO" in text.out


@pytest.mark.parametrize("line", [("show",), ("resume", "--yes"), ("answer", "--again", "--yes")], ids=" ".join)
def test_a_job_nobody_knows_is_1(command: CommandLine, line: tuple[str, ...]) -> None:
    result = command("jobs", line[0], "no\x1b[31mbody", *line[1:])
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert "there is no job" in result.err
    assert "\x1b" not in result.err


def test_hostile_words_are_inert(command: CommandLine, server: LocalServer) -> None:
    words = HOSTILE.replace("\ud800", "")

    async def hostile(fleet: Fleet) -> None:
        await letter(fleet, Error="\\u001b[31m", ce_type="x")

    prepared(server.url, hostile)
    job = command("dlq", "replay", "--filter", f'!"{words[:20]}"', "--yes", "--reason", words, "--json").json["job"]
    for line in (("jobs",), ("jobs", "show", job), ("audit",), ("jobs", "--json"), ("jobs", "show", job, "--json")):
        result = command(*line)
        assert result.status == 0
        assert not set(result.out) & set("\x1b\x07\x9b\u202e\u2066")
    assert command("jobs", "--json").json[0]["reason"] == words


# -- resume


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_job_that_broke_off_goes_on_without_a_second_copy(
    command: CommandLine, server: LocalServer, number: signal.Signals
) -> None:
    broken_off(server.url, number)
    (job,) = command("jobs", "--json").json
    assert (job["state"], job["planned"], job["reason"]) == ("interrupted", 12, "model is back")
    assert 0 < job["left"] < 12
    before = looked(server.url, account_state)
    asked = command("jobs", "resume", job["job"])
    assert (asked.status, asked.err.count("\n")) == (4, 1)
    assert "add --yes" in asked.err
    assert job["job"] in asked.out
    refused = command("--read-only", "jobs", "resume", job["job"], "--yes")
    assert (refused.status, refused.out, refused.err.count("\n")) == (5, "", 1)
    assert looked(server.url, account_state) == before
    # The rest at the same pace of two a second would be most of a minute.
    with contextlib.closing(opened_ledger()) as ledger:
        ledger.update(job["job"], rate=None)
    resumed = command("jobs", "resume", job["job"], "--yes", "--json")
    assert (resumed.status, resumed.err, resumed.json.keys()) == (0, "", RESULT)
    assert (resumed.json["job"], resumed.json["planned"], resumed.json["done"]) == (job["job"], 12, 12)
    (after,) = command("jobs", "--json").json
    assert (after["state"], after["done"], after["left"]) == ("completed", 12, 0)

    async def ids(fleet: Fleet) -> list[str]:
        page = await fleet.jetstream.read("TASKS_BACKEND", limit=100)
        return sorted(message.headers["ce-id"] for message in page.messages)

    assert looked(server.url, ids) == sorted(f"id-{n}" for n in range(1, 13))
    assert looked(server.url, counts) == (0, 12, 0)
    again = command("jobs", "resume", job["job"], "--yes")
    assert (again.status, again.out, again.err.count("\n")) == (1, "", 1)
    assert "nothing left to resume" in again.err
    assert [line["event"] for line in command("audit", "--json").json][-2:] == ["start", "end"]


def test_a_job_of_another_server_is_not_resumed_here(command: CommandLine, server: LocalServer) -> None:
    broken_off(server.url, signal.SIGKILL, count=6)
    (job,) = command("jobs", "--json").json
    with LocalServer() as other:
        prepared(other.url, three)
        before = looked(other.url, account_state)
        result = CommandLine(command._capsys, other.url)("jobs", "resume", job["job"], "--yes")
        assert (result.status, result.err.count("\n")) == (1, 1)
        assert "another server" in result.err
        assert looked(other.url, account_state) == before
    assert command("jobs", "--json").json[0]["state"] == "interrupted"


def test_resume_and_answer_are_refused_read_only_as_every_change_is_and_keep_to_json(
    command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = in_doubt(server.url, monkeypatch)
    for line in (("jobs", "resume", job), ("jobs", "answer", job, "--again")):
        asked = command(*line, "--json")
        assert asked.status == 4
        assert json.loads(asked.out), "a document, as every command with --json prints"
        # As `dlq replay 1 --read-only` is: before anything is planned.
        assert command(*line, "--read-only").status == 5


# -- answer


def test_a_job_in_doubt_says_how_to_answer(
    command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = in_doubt(server.url, monkeypatch)
    (told,) = command("jobs", "--json").json
    assert (told["done"], told["in_doubt"], told["failed"], told["left"]) == (2, 1, 0, 0)
    assert [item["outcome"] for item in command("jobs", "show", job, "--json").json["items"]] == [
        "done", "in doubt", "done"
    ]  # fmt: skip
    before = looked(server.url, account_state)
    asked = command("jobs", "answer", job, "--again")
    assert (asked.status, asked.err.count("\n")) == (4, 1)
    assert "in doubt" in asked.out
    assert command("jobs", "answer", job, "--again", "--yes", "--read-only").status == 5
    for more in ((), ("--again", "--leave"), ("--arrived", "--again", "--leave")):
        assert command("jobs", "answer", job, *more, "--yes").status == 2
    assert command("jobs", "answer", job, "1", "--again", "--yes").status == 2, "1 is not in doubt"
    assert command("jobs", "answer", job, "0", "--again", "--yes").status == 2
    assert looked(server.url, account_state) == before
    assert command("jobs", "--json").json[0]["in_doubt"] == 1


@pytest.mark.parametrize(
    ("said", "letters", "orders", "outcome"),
    [("--arrived", [], 2, "done"), ("--again", [], 3, "done"), ("--leave", [2], 2, "skipped")],
)
def test_what_the_operator_says_is_done(
    command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch, said: str, letters: list[int], orders: int,
    outcome: str,
) -> None:  # fmt: skip
    job = in_doubt(server.url, monkeypatch)
    result = command("jobs", "answer", job, "2", said, "--yes", "--json")
    assert (result.status, result.json) == (0, {"job": job, "answered": 1})
    if said == "--again":
        assert command("jobs", "--json").json[0]["left"] == 1
        assert command("jobs", "resume", job, "--yes", "--json").json["done"] == 3
    assert [each["seq"] for each in command("dlq", "list", "--json").json] == letters

    async def there(fleet: Fleet) -> int:
        info = await fleet.jetstream.stream_info("ORDERS")
        return int(info["state"]["messages"]) if info else -1

    assert looked(server.url, there) == orders
    items = command("jobs", "show", job, "--json").json["items"]
    assert [item["outcome"] for item in items] == ["done", outcome, "done"]
    assert command("jobs", "--json").json[0]["in_doubt"] == 0
    assert any(line["action"].startswith("answer") for line in command("audit", "--json").json)
    again = command("jobs", "answer", job, said, "--yes", "--json")
    assert again.json["answered"] == 0


def test_the_json_of_jobs_is_one_document(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    command("dlq", "replay", "1", "--yes")
    for line in (("jobs", "--json"), ("audit", "--json")):
        assert isinstance(json.loads(command(*line).out), list)
