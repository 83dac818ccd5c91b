"""Read-only means read-only: no command and no call within the program changes anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from console.commands import root
from console.commands.acting import opened_ledger, spill_dir
from console.commands.audit import path as audit_path
from console.messages import place_of
from console.operations import resuming
from console.operations.errors import Refused
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.plan import Plan
from console.operations.plan_letters import plan_discard
from console.operations.plan_streams import plan_pause, plan_purge, plan_rescue, plan_restore
from console.operations.selection import choose
from console.session import Runtime, Session
from console.settings import Settings
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import CommandLine, account_state, looked, prepared
from tests.support.fleets import connected
from tests.support.guarded import AGENTS, BRIEF, broken_job, populate, spilled
from tests.support.plans import plan_replay

READ_ONLY = WriteGuard(False)
EVERYTHING = choose("dead letters", everything=True)
MESSAGES = choose("messages", everything=True)

LOOKING = {
    *("demo", "fleet", "check", "info", "events", "audit"),
    *("inbox peek", "queue peek", "dlq list", "dlq show", "jobs show"),
    *("dlq causes", "dlq note", "dlq lineage"),
}
"""Commands that change nothing on a server that is not their own."""
CHANGING = {
    *("inbox purge", "inbox pause", "inbox resume", "queue purge", "queue pause", "queue resume"),
    *("dlq replay", "dlq edit", "dlq purge", "dlq rescue", "restore", "jobs resume", "jobs answer"),
}


# -- the command line


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """All commands of a group that do something, with the words that call them."""
    for name, each in getattr(command, "commands", {}).items():
        if getattr(each, "commands", None):
            yield from commands(each, *path, name)
        else:
            yield " ".join((*path, name)), each


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in getattr(parameter, "opts", ())}


ALL_COMMANDS = dict(commands(typer.main.get_command(root.app)))
MUTATING = {name: command for name, command in ALL_COMMANDS.items() if "--yes" in options_of(command)}


def test_every_command_is_known_to_look_or_to_ask_for_yes() -> None:
    assert set(MUTATING) == CHANGING
    assert set(ALL_COMMANDS) - set(MUTATING) == LOOKING


def everything_here() -> dict[str, Any]:
    """What this machine holds of jobs, spills and audit."""
    with contextlib.closing(opened_ledger()) as ledger:
        jobs = {record.id: (record, ledger.counts(record.id)) for record in ledger.jobs()}
    spills = {file.name: file.read_bytes() for file in spill_dir().glob("*")}
    return {"jobs": jobs, "spills": spills, "audit": audit_path().read_bytes() if audit_path().exists() else b""}


@pytest.mark.parametrize("name", sorted(MUTATING))
def test_a_read_only_command_changes_nothing_and_the_same_without_it_does(
    capsys: pytest.CaptureFixture[str], server: LocalServer, name: str
) -> None:
    async def made(fleet: Fleet) -> tuple[str, Path]:
        await populate(fleet)
        with contextlib.closing(opened_ledger()) as ledger:
            return await broken_job(fleet, ledger), await spilled(fleet, ledger, spill_dir())

    job, file = prepared(server.url, made, agents=AGENTS, config=BRIEF)
    known = {"AGENT": "ceo", "ROLE": "backend", "JOB": job, "FILE": str(file)}
    command = MUTATING[name]
    line = name.split()
    line += [known[each.metavar] for each in command.params if each.param_type_name == "argument" and each.required]
    line += [option for option in ("--all", "--again") if option in options_of(command)]
    line += [word for word in ("--header", "X-Guard=1") if "--header" in options_of(command)]
    before, here = looked(server.url, account_state), everything_here()
    run = CommandLine(capsys, server.url)
    more = [option for option in ("--force", "--no-spill") if option in options_of(command)]
    for words in (
        ["--read-only", *line, "--yes"],
        [*line, "--yes", "--read-only"],
        [*line, *more, "--yes", "--json", "--read-only"],
    ):
        result = run(*words)
        assert (result.status, result.out, result.err.count("\n")) == (5, "", 1), words
        assert "read-only" in result.err
    settings = Path(file).with_name("settings.toml")
    settings.write_text("read_only = true\n")
    for words in ([*line, "--yes", "--config", str(settings)], ["--write", *line, "--yes", "--config", str(settings)]):
        assert run(*words).status == 5
    settings.unlink()
    assert looked(server.url, account_state) == before
    assert everything_here() == here

    assert run(*line, "--yes").status in (0, 3)
    assert (looked(server.url, account_state), everything_here()) != (before, here), "the test would notice a change"


# -- within the program


async def plans(fleet: Fleet, spill: Path, file: Path) -> list[Plan]:
    """One of each action."""
    inbox, queue = place_of(fleet.names, "inbox", "ceo"), place_of(fleet.names, "queue", "backend")
    return [
        await plan_replay(fleet, EVERYTHING, rate=None),
        await plan_replay(fleet, EVERYTHING, rate=None, to="agents.cfo.inbox.note"),
        await plan_discard(fleet, EVERYTHING, spill=spill),
        await plan_discard(fleet, EVERYTHING, spill=None, purge=True),
        await plan_purge(fleet, inbox, MESSAGES, spill=spill),
        await plan_purge(fleet, queue, MESSAGES, spill=None, chosen=True),
        await plan_rescue(fleet),
        await plan_restore(fleet, file),
        await plan_pause(fleet, inbox, 0.0),
        await plan_pause(fleet, queue, 600.0),
    ]


async def test_no_job_runs_against_the_guard(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=AGENTS, roles=["backend"], config=BRIEF) as fleet:
        await populate(fleet)
        ledger = JobLedger(tmp_path / "ledger")
        file = await spilled(fleet, ledger, tmp_path / "spilled")
        known = len(ledger.jobs())
        made = await plans(fleet, tmp_path / "spill", file)
        assert {plan.action for plan in made} == {
            *("replay", "move", "discard", "purge", "rescue", "restore", "pause", "resume")
        }
        assert all(plan.count for plan in made)
        before = await account_state(fleet)
        session = Session(fleet=fleet, settings=Settings(), guard=WriteGuard(False), ledger=ledger, spill=spill_dir())
        runtime = Runtime(session)
        for plan in made:
            lifted = WriteGuard(True)
            late = Job.of(fleet, plan, lifted, ledger=ledger)
            lifted.allowed = False
            for job in (Job.of(fleet, replace(plan, force=True), READ_ONLY, ledger=ledger), late):
                with pytest.raises(Refused) as refused:
                    await job.run()
                assert refused.value.exit_code == 5
                assert plan.action in str(refused.value)
                assert (job.results, job.processed, job.running) == ([], 0, False)
            with pytest.raises(Refused):
                runtime.start(plan)
            with pytest.raises(Refused):
                runtime.run(late)
        assert runtime.jobs == []
        assert await account_state(fleet) == before
        assert len(ledger.jobs()) == known
        assert not (tmp_path / "spill").exists()
        ledger.close()


async def test_nothing_is_resumed_or_answered_against_the_guard(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=AGENTS, roles=["backend"], config=BRIEF) as fleet:
        await populate(fleet)
        ledger = JobLedger(tmp_path)
        job = await broken_job(fleet, ledger)
        before, counts = await account_state(fleet), ledger.counts(job)
        assert counts == {"in doubt": 1, "waiting": 1}
        with pytest.raises(Refused):
            await resuming.resume(fleet, ledger, job, READ_ONLY)
        for said in ("again", "done", "leave"):
            with pytest.raises(Refused):
                await resuming.answer(fleet, ledger, job, [], said, READ_ONLY)  # type: ignore[arg-type]
        # What may be resumed when it is asked for may be forbidden when it runs.
        guard = WriteGuard(True)
        ready = await resuming.resume(fleet, ledger, job, guard)
        guard.allowed = False
        with pytest.raises(Refused):
            await ready.run()
        assert await account_state(fleet) == before
        assert ledger.counts(job) == counts
        assert (await resuming.resume(fleet, ledger, job, WriteGuard(True))).planned == 2
        ledger.close()
