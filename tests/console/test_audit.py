"""The audit: written before and after, never silently left out, and readable."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from console.commands.audit import path
from console.operations.audit import Audit, read
from console.operations.errors import OperationError
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.selection import choose
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, prepared, three
from tests.support.fleets import connected
from tests.support.letters import forge_many
from tests.support.plans import plan_replay
from tests.support.screens import desk
from tests.support.waiting import until


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def written() -> list[dict[str, object]]:
    return list(read(path()))


async def planned(fleet):
    choice = choose("dead letters", everything=True)
    return await plan_replay(fleet, choice, rate=500, reason="model is back")


def test_a_replay_is_written_down_before_and_after(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    result = command("dlq", "replay", "1", "2", "--yes", "--reason", "model is back", "--json")
    assert result.status == 0
    start, end = written()
    assert (start["event"], end["event"]) == ("start", "end")
    for line in (start, end):
        assert line["action"] == "replay"
        assert line["job"] == result.json["job"]
        assert line["mode"] == "cli"
        assert line["reason"] == "model is back"
        assert line["selector"] == "seq:1,2"
        assert str(line["actor"]).count("@") == 1
        assert line["server_id"]
        assert line["account"] == "$G"
        assert str(line["time"]).endswith("Z")
    assert (start["planned"], start["seqs"], start["confirmation"]) == (2, [1, 2], "--yes")
    assert sum(start["destinations"].values()) == 2  # type: ignore[attr-defined]
    assert (end["result"], end["done"], end["failed"], end["in_doubt"], end["error"]) == ("completed", 2, 0, 0, None)


def test_a_look_a_dry_run_and_an_unconfirmed_plan_are_no_action(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    command("dlq", "list")
    command("dlq", "replay", "--all", "--dry-run")
    command("dlq", "replay", "--all")
    assert written() == []
    assert not path().exists()


def test_the_file_is_the_users_own(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    command("dlq", "replay", "1", "--yes")
    assert stat.S_IMODE(path().stat().st_mode) == 0o600


def test_what_cannot_be_written_down_is_not_done(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    path().mkdir(parents=True)
    result = command("dlq", "replay", "--all", "--yes")
    assert result.status == 1
    assert "audit" in result.err
    assert len(result.err.splitlines()) == 1
    assert [letter["seq"] for letter in command("dlq", "list", "--json").json] == [1, 2, 3]


def test_without_a_place_to_write_nothing_is_done(
    command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared(server.url, three)
    (tmp_path / "taken").write_text("a file where the directory should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "taken"))
    for line in (("replay", "--all"), ("purge", "--all"), ("purge", "--all", "--no-spill")):
        result = command("dlq", *line, "--yes")
        assert result.status == 1
        assert "XDG_STATE_HOME" in result.err
        assert len(result.err.splitlines()) == 1
    assert [letter["seq"] for letter in command("dlq", "list", "--json").json] == [1, 2, 3]


def test_the_command_lists_the_newest_last(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    for seq in ("1", "2"):
        command("dlq", "replay", seq, "--yes", "--reason", f"because of {seq}")
    lines = command("audit", "--json").json
    assert [(line["event"], line["selector"]) for line in lines] == [
        ("start", "seq:1"), ("end", "seq:1"), ("start", "seq:2"), ("end", "seq:2")
    ]  # fmt: skip
    assert command("audit", "--json", "--limit", "1").json == lines[-1:]
    shown = command("audit")
    assert shown.status == 0
    assert "because of 2" in shown.out
    assert "completed: 1 done" in shown.out


def test_an_empty_audit_is_said(command: CommandLine) -> None:
    result = command("audit")
    assert (result.status, result.out) == (0, "")
    assert "nothing was done" in result.err
    assert command("audit", "--json").json == []


def test_a_line_that_was_cut_off_is_left_out_and_a_hostile_one_is_inert(command: CommandLine, tmp_path: Path) -> None:
    audit = Audit(path(), {"actor": HOSTILE, "context": HOSTILE})
    audit.write("start", HOSTILE, "ab12", selector=HOSTILE, reason=HOSTILE, planned=1)
    with path().open("a", encoding="utf-8") as file:
        file.write('{"event": "end", "acti\n[1]\n')
    assert len(written()) == 1
    shown = command("audit").out
    assert not any(char in shown for char in "\x1b\x9b\u202e\u2066")
    assert json.loads(command("audit", "--json").out)[0]["actor"].startswith("\x1b]52")


async def test_what_fails_has_a_line_of_its_own(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        plan = await planned(fleet)
        await fleet.js.delete_stream("INBOX_CEO")
        job = Job.of(fleet, plan, WriteGuard(True), audit=await Audit.of(
            path(), fleet, actor="ann@here", version="1", context="lab", mode="ui"
        ))  # fmt: skip
        await job.run()
        start, first, second, end = written()
        assert (start["confirmation"], start["context"], start["actor"]) == ("key", "lab", "ann@here")
        assert [(line["seq"], line["result"]) for line in (first, second)] == [(1, "failed"), (2, "failed")]
        assert (end["done"], end["failed"]) == (0, 2)
        assert end["error"] == first["error"]


async def test_the_first_line_is_there_before_the_first_message(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        plan, seen = await planned(fleet), []
        real = fleet.dead_letters.replay

        async def replay(*args, **options):
            seen.append([line["event"] for line in written()])
            return await real(*args, **options)

        monkeypatch.setattr(fleet.dead_letters, "replay", replay)
        await Job.of(fleet, plan, WriteGuard(True), audit=Audit(path())).run()
        assert seen == [["start"]]


async def test_a_job_that_may_not_be_written_down_sends_nothing(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        job = Job.of(fleet, await planned(fleet), WriteGuard(True), audit=Audit(tmp_path))
        with pytest.raises(OperationError, match="cannot be written"):
            await job.run()
        assert (job.state, job.count("not started")) == ("failed", 2)
        assert len(await fleet.dead_letters.list()) == 2


async def test_the_screen_writes_down_what_it_does(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        audit = await Audit.of(path(), fleet, actor="ann@here", version="1", context="demo", mode="demo")
        async with desk(fleet, audit=audit) as console:
            await console.press("3")
            await console.sees("m-3")
            await console.press("R")
            await console.sees("replay 3 dead letters")
            assert written() == []
            await console.press("y")
            await until(lambda: len(written()) == 2)
        assert [(line["event"], line["mode"]) for line in written()] == [("start", "demo"), ("end", "demo")]


async def test_a_screen_whose_audit_cannot_be_written_says_so_and_does_nothing(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        async with desk(fleet, audit=Audit(tmp_path)) as console:
            await console.press("3")
            await console.sees("m-3")
            await console.press("R")
            await console.sees("replay 3 dead letters")
            await console.press("y")
            await console.sees("0 replayed", "3 not", "audit")
        assert len(await fleet.dead_letters.list()) == 3
