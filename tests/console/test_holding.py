"""Consumers that are paused while a job works: they go on at its end, after a crash, and never against somebody's will."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import pytest

from console.messages import place_of
from console.operations import holding, resuming
from console.operations.errors import Refused
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.plan_streams import plan_purge
from console.operations.selection import choose
from patterns.headers import parse_time
from tests.support.fleets import connected, running
from tests.support.letters import forge, forge_many
from tests.support.plans import plan_replay
from tests.support.waiting import until

WRITE = WriteGuard(True)
ALL = choose("dead letters", everything=True)
EVERYTHING = choose("messages", everything=True)
CEO = ("INBOX_CEO", "ceo-processor")


async def state(fleet, consumer=CEO):
    """Whether it is paused, and until when."""
    info = await fleet.jetstream.consumer_info(*consumer)
    return bool(info.get("paused")), info["config"].get("pause_until")


async def is_paused(fleet, consumer=CEO):
    return (await state(fleet, consumer))[0]


async def job_of(fleet, ledger=None, **options):
    return Job.of(fleet, await plan_replay(fleet, ALL, hold=True, **options), WRITE, ledger=ledger)


@contextlib.asynccontextmanager
async def under_way(job):
    """Let a job run; at the end of the block it goes on as fast as it can, to its end."""
    task = asyncio.create_task(job.run())
    try:
        await until(lambda: job.count("done") > 0)
        yield
    finally:
        job.set_rate(None)
        await task


async def test_nothing_is_delivered_until_all_is_sent(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 30)
        handled = []

        async def handle(delivery):
            handled.append(delivery.id)

        async with running(fleet.inbox("ceo").consumer(), handle):
            job = await job_of(fleet, rate=100)
            assert job.record.spec["hold"] == [list(CEO)]
            async with under_way(job):
                assert await is_paused(fleet)
                assert job.held == ("INBOX_CEO ceo-processor",)
                assert handled == []
            assert (job.state, job.held) == ("completed", ())
            assert not await is_paused(fleet)
            await until(lambda: len(handled) == 30)


async def test_who_receives_is_known_for_every_kind(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await fleet.events.subscription("ceo", "security.>")
        await forge(fleet, "inbox.ceo.1-1")
        await forge(fleet, "tasks.backend.2-2", "tasks.backend.code")
        await forge(fleet, f"events.{fleet.names.subscription_durable('ceo')}.3-3", "events.security.alert")
        plan = await plan_replay(fleet, ALL, hold=True)
        assert {durable for _, durable in plan.holds} == {
            "ceo-processor", fleet.names.tasks_durable("backend"), fleet.names.subscription_durable("ceo"),
        }  # fmt: skip
        small = await plan_replay(fleet, ALL)
        assert (small.holds, small.offers_hold) == ((), False)


async def test_a_large_one_offers_it(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 101)
        plan = await plan_replay(fleet, ALL)
        assert (plan.holds, plan.offers_hold, plan.hold) == ((CEO,), True, False)


async def test_a_purge_takes_from_who_is_paused(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(3):
            await fleet.inbox("ceo").send("note", number)
        place = place_of(fleet.names, "inbox", "ceo")
        plan = await plan_purge(fleet, place, EVERYTHING, spill=tmp_path, hold=True, rate=20)
        job = Job.of(fleet, plan, WRITE)
        async with under_way(job):
            assert await is_paused(fleet)
        assert (job.outcomes, await is_paused(fleet)) == ({"done": 3}, False)


async def test_what_somebody_else_paused_stays_paused(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        await fleet.inbox("ceo").pause(600)
        before = await state(fleet)
        job = await job_of(fleet)
        await job.run()
        assert (job.outcomes, await state(fleet)) == ({"done": 3}, before)


@pytest.mark.parametrize("seconds", [0, 900])
async def test_what_somebody_changes_meanwhile_is_theirs(server, monkeypatch, seconds):
    monkeypatch.setattr(holding, "RENEW", 0.02)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        job = await job_of(fleet, rate=2)
        asked = []
        real = fleet.jetstream.consumer_info

        async def consumer_info(stream, consumer):
            asked.append(consumer)
            return await real(stream, consumer)

        async with under_way(job):
            await fleet.jetstream.pause(*CEO, seconds)
            theirs = await state(fleet)
            monkeypatch.setattr(fleet.jetstream, "consumer_info", consumer_info)
            await until(lambda: len(asked) > 3)
            monkeypatch.setattr(fleet.jetstream, "consumer_info", real)
            assert await state(fleet) == theirs
        assert await state(fleet) == theirs


async def test_a_pause_is_renewed_while_the_job_works(server, monkeypatch):
    monkeypatch.setattr(holding, "RENEW", 0.02)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        job = await job_of(fleet, rate=2)
        async with under_way(job):
            _, first = await state(fleet)

            async def renewed():
                paused, later = await state(fleet)
                return paused and parse_time(later) > parse_time(first)

            await until(renewed)
        assert not await is_paused(fleet)


@pytest.mark.parametrize("end", ["cancel", "leave"])
async def test_they_go_on_however_the_job_ends(server, end):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 10)
        job = await job_of(fleet, rate=5)
        async with under_way(job):
            getattr(job, end)()
        assert job.state == {"cancel": "cancelled", "leave": "interrupted"}[end]
        assert not await is_paused(fleet)


KILLED = """
import asyncio, sys
from pathlib import Path
from console.operations import holding
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.selection import choose
from patterns import Fleet
from tests.support.plans import plan_replay

async def main():
    holding.LEASE = float(sys.argv[3])
    async with Fleet.connect(sys.argv[1]) as fleet:
        plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=5, hold=True)
        job = Job.of(fleet, plan, WriteGuard(True), ledger=JobLedger(Path(sys.argv[2])))
        print(job.id, flush=True)
        await job.run()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def killed(fleet, url, tmp_path, lease):
    """A console that is killed while its job works; the job's id."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, url, str(tmp_path), str(lease), stdout=asyncio.subprocess.PIPE
    )
    try:
        job = (await child.stdout.readline()).decode().strip()
        await until(lambda: _sent(fleet))
        assert await is_paused(fleet)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        yield job
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _sent(fleet):
    return await fleet.inbox("ceo").peek(1)


async def test_they_go_on_by_themselves_after_a_crash(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 30)
        async with killed(fleet, server.url, tmp_path, 1.5):

            async def goes_on():
                return not await is_paused(fleet)

            await until(goes_on)


async def test_after_a_crash_a_resumed_job_ends_the_pause_of_its_earlier_run(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 10)
        async with killed(fleet, server.url, tmp_path, 600.0) as job_id:
            assert await is_paused(fleet)
            ledger = JobLedger(tmp_path)
            job = await resuming.resume(fleet, ledger, job_id, WRITE)
            job.set_rate(20)
            task = asyncio.create_task(job.run())
            await until(lambda: job.count("done") > 2)
            assert await is_paused(fleet)
            job.set_rate(None)
            await task
            assert (job.state, job.count("done"), await is_paused(fleet)) == ("completed", 10, False)


async def test_one_that_cannot_be_paused_keeps_the_job_from_beginning(server, monkeypatch):
    async with connected(server.url, agents=["ceo", "cfo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1")
        await forge(fleet, "inbox.cfo.2-2", "agents.cfo.inbox.note")
        job = await job_of(fleet)
        real = fleet.jetstream.pause

        async def pause(stream, consumer, seconds, **options):
            return None if stream == "INBOX_CFO" and seconds else await real(stream, consumer, seconds, **options)

        monkeypatch.setattr(fleet.jetstream, "pause", pause)
        await job.run()
        assert (job.state, job.outcomes) == ("failed", {})
        assert "cfo-processor on INBOX_CFO cannot be paused" in job.error
        assert not await is_paused(fleet)
        assert not await is_paused(fleet, ("INBOX_CFO", "cfo-processor"))


async def test_without_a_consumer_there_is_nothing_to_pause(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1")
        await fleet.js.delete_consumer(*CEO)
        with pytest.raises(Refused, match="no consumer to pause"):
            await job_of(fleet)


async def test_a_renewal_that_is_cut_off_leaves_nothing_paused(server, monkeypatch):
    """The job ends between what is written of a new pause and the pause itself."""
    monkeypatch.setattr(holding, "RENEW", 0.01)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        job = await job_of(fleet, rate=2)
        task = asyncio.create_task(job.run())
        await until(lambda: job.count("done") > 0)
        real, waiting = job.remember, asyncio.Event()

        async def remember(**spec):
            if "held" in spec and spec["held"] and not waiting.is_set():
                waiting.set()
                await asyncio.Event().wait()
            await real(**spec)

        job.remember = remember
        await waiting.wait()
        job.leave()
        await task
        assert not await is_paused(fleet)
        assert job.record.spec["held"] == {}


async def test_consumers_go_on_although_the_job_is_cancelled(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        job = await job_of(fleet, rate=2)
        task = asyncio.create_task(job.run())
        await until(lambda: job.count("done") > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async def goes_on():
            return not await is_paused(fleet)

        await until(goes_on)


async def test_two_jobs_hold_one_consumer_until_both_have_ended(server, tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "RENEW", 0.05)
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        for number in range(3):
            await fleet.inbox("ceo").send("note", number)
        place = place_of(fleet.names, "inbox", "ceo")
        plan = await plan_purge(fleet, place, EVERYTHING, spill=tmp_path, hold=True, rate=2)
        purge, replay = Job.of(fleet, plan, WRITE, ledger=ledger), await job_of(fleet, ledger, rate=2)
        async with under_way(purge):
            task = asyncio.create_task(replay.run())
            await until(lambda: replay.count("done") > 0)
            assert replay.held == ("INBOX_CEO ceo-processor",)
        assert purge.state == "completed"
        assert await is_paused(fleet)
        before = (await state(fleet))[1]

        async def renewed():
            paused, until_when = await state(fleet)
            return paused and until_when != before

        await until(renewed)
        replay.set_rate(None)
        await task
        assert (replay.state, await is_paused(fleet)) == ("completed", False)


async def test_what_was_left_to_a_job_is_ended_by_it(server, tmp_path):
    """Of two jobs with one consumer the one that renewed last ends first."""
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 40)
        await fleet.inbox("ceo").send("note", 1)
        place = place_of(fleet.names, "inbox", "ceo")
        plan = await plan_purge(fleet, place, EVERYTHING, spill=tmp_path, hold=True, rate=2)
        replay, purge = await job_of(fleet, ledger, rate=2), Job.of(fleet, plan, WRITE, ledger=ledger)
        async with under_way(replay):
            await purge.run()
            assert (purge.state, await is_paused(fleet)) == ("completed", True)
        assert (replay.state, await is_paused(fleet)) == ("completed", False)
