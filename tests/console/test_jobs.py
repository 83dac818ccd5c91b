"""Jobs: they outlive their process, send nothing twice, guess nothing, and obey the wheel."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter

import pytest

from console.messages import place_of
from console.operations import resuming
from console.operations.errors import OperationError, Refused, UsageError
from console.operations.guard import WriteGuard
from console.operations.items import ItemResult
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.plan_letters import plan_discard
from console.operations.plan_streams import plan_purge, plan_restore
from console.operations.selection import choose
from patterns import Fleet
from tests.support.fleets import connected, drained, fast, running
from tests.support.letters import forge, forge_many, kill_tasks
from tests.support.plans import plan_replay
from tests.support.waiting import until

WRITE = WriteGuard(True)
ALL = choose("dead letters", everything=True)


async def replay_of(fleet, ledger, *, rate=None, **options):
    plan = await plan_replay(fleet, ALL, rate=rate, **options)
    return Job.of(fleet, plan, WRITE, ledger=ledger)


async def left(fleet):
    return sum((await fleet.dead_letters.count()).values())


async def inbox(fleet, agent="ceo"):
    return [message.id for message in await fleet.inbox(agent).peek(1000)]


class Broken(BaseException):
    """Stands for a kill: nothing of ours handles it."""


def break_at(monkeypatch, fleet, call, at):
    """Let the connection die for this process at the n-th call of a kind, as if it was killed there."""
    seen = Counter()
    real = getattr(fleet.jetstream, call)

    async def wrapped(*args, **kwargs):
        seen[call] += 1
        if seen[call] >= at:
            raise Broken
        return await real(*args, **kwargs)

    monkeypatch.setattr(fleet.jetstream, call, wrapped)


async def killed(job):
    """Run a job that breaks off within, and leave the ledger as a kill leaves it: nothing more is written."""
    settle, update = job.ledger.settle, job.ledger.update
    job.ledger.settle = lambda *_: None
    task = asyncio.create_task(job.run())
    with contextlib.suppress(Broken):
        await task
    job.ledger.settle, job.ledger.update = settle, update


async def test_a_replay_keeps_the_order_of_the_plan_however_many_are_in_work(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 200)
        wanted = [letter.id for letter in await fleet.dead_letters.list(limit=300)]
        job = await replay_of(fleet, JobLedger(tmp_path))
        await job.run()
        assert (job.state, job.outcomes, await left(fleet)) == ("completed", {"done": 200}, 0)
        assert await inbox(fleet) == wanted


async def test_every_item_is_on_record_before_its_first_byte_leaves(server, tmp_path, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 20)
        job = await replay_of(fleet, JobLedger(tmp_path))
        unrecorded = []
        real = fleet.jetstream.publish

        async def publish(subject, *args, **kwargs):
            if subject.startswith("agents."):
                begun = len(job.ledger.items(job.id, "sending", "done"))
                stored = len(await inbox(fleet))
                if begun <= stored:
                    unrecorded.append(subject)
            return await real(subject, *args, **kwargs)

        monkeypatch.setattr(fleet.jetstream, "publish", publish)
        await job.run()
        assert job.outcomes == {"done": 20}
        assert unrecorded == []


@pytest.mark.parametrize(("call", "at"), [("publish", 7), ("publish", 8), ("delete", 1), ("delete", 5), ("get", 11)])
async def test_a_job_that_was_killed_anywhere_goes_on_without_a_second_copy(server, tmp_path, monkeypatch, call, at):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 12)
        wanted = sorted(letter.id for letter in await fleet.dead_letters.list(limit=300))
        job = await replay_of(fleet, ledger, rate=100)
        with monkeypatch.context() as patch:
            break_at(patch, fleet, call, at)
            await killed(job)
        ledger.update(job.id, state="running", ended=None)
        assert ledger.job(job.id).state == "interrupted"
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert (again.state, again.count("failed", "in doubt", "not started"), await left(fleet)) == ("completed", 0, 0)
        assert sorted(await inbox(fleet)) == wanted
        assert ledger.job(job.id).state == "completed"
        with pytest.raises(OperationError, match="nothing left"):
            await resuming.resume(fleet, ledger, job.id, WRITE)


async def test_a_replay_into_consumers_without_receipts_that_was_cut_off_is_in_doubt_after_a_restart(tmp_path, server):
    """A restarted server has forgotten the id of what was consumed: nobody can tell, so nobody guesses."""
    ledger = JobLedger(tmp_path)
    async with connected(server.url) as fleet:
        job = await cut_off_among_plain_consumers(fleet, ledger)
        await restarted(fleet, server)
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert again.outcomes == {"done": 2, "in doubt": 1}
        assert again.exit_code == 3
        (doubtful,) = ledger.items(job.id, "in doubt")
        assert await left(fleet) == 1, "its letter stays"
        assert await consumed(fleet) == ["2"], "and it was not sent a second time"

        assert await resuming.answer(fleet, ledger, job.id, [doubtful.item.seq], "done", WRITE) == 1
        assert await left(fleet) == 0
        assert ledger.counts(job.id) == {"done": 3}
        assert await consumed(fleet) == []


async def test_within_the_memory_of_the_same_server_a_cut_off_replay_is_repeated_without_doubt(tmp_path, server):
    ledger = JobLedger(tmp_path)
    async with connected(server.url) as fleet:
        job = await cut_off_among_plain_consumers(fleet, ledger)
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert again.outcomes == {"done": 2, "duplicate": 1}
        assert await left(fleet) == 0
        assert await consumed(fleet) == ["2"]


async def test_a_copy_that_still_waits_is_found_and_settles_the_doubt(tmp_path, server):
    ledger = JobLedger(tmp_path)
    async with connected(server.url) as fleet:
        job = await cut_off_among_plain_consumers(fleet, ledger, consume=False)
        await restarted(fleet, server)
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert again.outcomes == {"done": 2, "duplicate": 1}
        assert (await left(fleet), await consumed(fleet)) == (0, ["0", "1", "2"])


@pytest.mark.parametrize("said", ["again", "leave"])
async def test_what_is_in_doubt_is_sent_once_more_or_left_as_the_operator_says(server, tmp_path, said):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        job = await replay_of(fleet, ledger, rate=1)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 1)
        job.leave()
        await task
        (waiting,) = ledger.items(job.id, "waiting")
        ledger.settle(job.id, [(waiting.n, ItemResult(waiting.item.seq, "in doubt", "nobody knows"))])
        with pytest.raises(UsageError, match="not in doubt"):
            await resuming.answer(fleet, ledger, job.id, [99], said, WRITE)
        with pytest.raises(Refused):
            await resuming.answer(fleet, ledger, job.id, [], said, WriteGuard(False))
        assert await resuming.answer(fleet, ledger, job.id, [], said, WRITE) == 1
        if said == "again":
            await (await resuming.resume(fleet, ledger, job.id, WRITE)).run()
        assert await left(fleet) == (0 if said == "again" else 1)
        assert len(await inbox(fleet)) == (2 if said == "again" else 1)


async def restarted(fleet, server):
    """Kill the server, start it again on its store, and wait until the client has noticed both."""
    connections = fleet.nc.stats["reconnects"]
    server.kill()
    server.restart()
    await until(lambda: fleet.nc.is_connected and fleet.nc.stats["reconnects"] > connections)


async def cut_off_among_plain_consumers(fleet: Fleet, ledger: JobLedger, *, consume: bool = True) -> Job:
    """Three letters for a work queue of other code; the second one was stored there when the job was killed."""
    await fleet.js.add_stream(name="PLAIN", subjects=["plain.>"], retention="workqueue")
    await fleet.js.add_consumer("PLAIN", durable_name="worker", ack_policy="explicit")
    for n in range(3):
        await forge(fleet, f"tasks.worker.{n + 1}-{n:x}", f"plain.{n}", body=str(n).encode(), Stream="PLAIN")
    job = await replay_of(fleet, ledger, rate=50)
    real = fleet.jetstream.delete
    removed = 0

    async def delete(stream, seq):
        nonlocal removed
        removed += 1
        if removed == 2:
            raise Broken
        return await real(stream, seq)

    fleet.jetstream.delete = delete
    await killed(job)
    del fleet.jetstream.delete
    ledger.settle(job.id, [(0, ItemResult(1, "done", "before the kill"))])
    ledger.update(job.id, state="running", ended=None)
    if consume:
        assert await consumed(fleet) == ["0", "1"]
    return job


async def consumed(fleet):
    """What a plain nats-py consumer finds, acknowledged."""
    subscription = await fleet.js.pull_subscribe_bind("worker", stream="PLAIN")
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            (message,) = await subscription.fetch(1, timeout=0.5)
            await message.ack_sync()
            found.append(message.data.decode())
    await subscription.unsubscribe()
    return found


# -- the wheel


async def test_pause_go_on_and_another_rate(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        job = await replay_of(fleet, JobLedger(tmp_path), rate=1)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 1)
        job.pause()
        assert (job.state, job.ledger.job(job.id).state) == ("paused", "paused")
        job.set_rate(500)
        await asyncio.sleep(1.2)  # a second and more, in which a job that runs would do the next at either rate
        assert job.processed == 1
        assert job.eta is None
        with pytest.raises(UsageError, match="1 to 500"):
            job.set_rate(501)
        job.go_on()
        await task
        assert (job.state, job.outcomes, job.ledger.job(job.id).rate) == ("completed", {"done": 6}, 500)


async def test_a_cancellation_ends_within_one_item_and_for_good(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        job = await replay_of(fleet, JobLedger(tmp_path), rate=2)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed >= 2)
        before = job.processed
        job.cancel()
        await task
        assert job.state == "cancelled"
        assert job.processed <= before + 1
        assert job.count("not started") == 6 - job.processed
        assert len(await inbox(fleet)) == job.count("done") == 6 - await left(fleet)
        with pytest.raises(OperationError, match="nothing left"):
            await resuming.resume(fleet, job.ledger, job.id, WRITE)


async def test_of_a_cancelled_job_only_what_is_to_be_sent_again_is_sent(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)
        job = await replay_of(fleet, ledger, rate=1)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 1)
        job.cancel()
        job.leave()
        await task
        assert ledger.job(job.id).state == "cancelled", "leaving afterwards does not make it one to resume"
        (first, *_) = ledger.items(job.id, "not started")
        ledger.settle(job.id, [(first.n, ItemResult(first.item.seq, "in doubt", "nobody knows"))])
        await resuming.answer(fleet, ledger, job.id, [], "again", WRITE)
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert again.outcomes == {"done": 2, "not started": 2}
        assert len(await inbox(fleet)) == 2


async def test_leaving_the_program_keeps_the_job_for_later(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        job = await replay_of(fleet, JobLedger(tmp_path), rate=1)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 1)
        job.leave()
        await task
        assert (job.state, job.ledger.job(job.id).state) == ("interrupted", "interrupted")
        again = await resuming.resume(fleet, job.ledger, job.id, WRITE)
        again.set_rate(None)
        await again.run()
        assert (again.state, again.outcomes, len(await inbox(fleet))) == ("completed", {"done": 3}, 3)


async def test_a_job_belongs_to_its_very_stream(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        job = await replay_of(fleet, JobLedger(tmp_path), rate=1)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 1)
        job.leave()
        await task
        await fleet.js.delete_stream("DLQ")
        await fleet.provision()
        with pytest.raises(OperationError, match="another server or to an earlier stream"):
            await resuming.resume(fleet, job.ledger, job.id, WRITE)


async def test_one_job_at_a_time_on_a_stream_and_several_on_several(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        await fleet.inbox("ceo").send("note", 1, id="other")
        slow = await replay_of(fleet, ledger, rate=1)
        second = await replay_of(fleet, ledger)
        task = asyncio.create_task(slow.run())
        await until(lambda: slow.processed == 1)
        with pytest.raises(OperationError, match="another job works on stream DLQ"):
            await second.run()
        assert second.state == "failed"
        assert ledger.job(second.id) is None
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", expression="other"), spill=None
        )
        other = Job.of(fleet, plan, WRITE, ledger=ledger)
        await other.run()
        assert other.outcomes == {"done": 1}
        slow.cancel()
        await task


async def test_what_dies_during_a_job_is_untouched_by_it(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 40)
        for action in ("replay", "discard"):
            plan = (
                await plan_replay(fleet, ALL, rate=None)
                if action == "replay"
                else await plan_discard(fleet, ALL, spill=tmp_path / "spill", purge=True)
            )
            assert "later ones are not touched" in plan.looked
            new = [await forge(fleet, f"inbox.ceo.{n}-{action.encode().hex()}") for n in range(900, 903)]
            job = Job.of(fleet, plan, WRITE)
            await job.run()
            assert job.outcomes == {"done": plan.count}
            assert [letter.seq for letter in await fleet.dead_letters.list()] == new


# -- purge, spill, restore


async def test_nothing_is_removed_before_the_spill_is_complete_and_a_killed_purge_goes_on(
    server, tmp_path, monkeypatch
):
    ledger, spills = JobLedger(tmp_path / "state"), tmp_path / "spill"
    async with connected(server.url, agents=["ceo"]) as fleet:
        box = fleet.inbox("ceo")
        for n in range(30):
            await box.send("note", {"n": n}, id=f"m-{n}")
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", everything=True), spill=spills
        )
        assert (plan.gate, plan.typed) == ("name", "INBOX_CEO")
        job = Job.of(fleet, plan, WRITE, ledger=ledger)
        unfinished = []
        real, removed = fleet.jetstream.delete, 0

        async def delete(stream, seq):
            nonlocal removed
            (path,) = spills.iterdir()
            if b'"complete": 30' not in path.read_bytes():
                unfinished.append(seq)
            removed += 1
            if removed == 10:
                raise Broken
            return await real(stream, seq)

        with monkeypatch.context() as patch:
            patch.setattr(fleet.jetstream, "delete", delete)
            await killed(job)
        ledger.update(job.id, state="running", ended=None)
        assert unfinished == []
        path = next(spills.iterdir())
        assert (await plan_restore(fleet, path, ledger=ledger)).count == 0, "nothing is known to be removed yet"
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert (again.state, await inbox(fleet)) == ("completed", [])
        # Begun and gone: it was the job, or their agent; only the operator knows that nobody was there.
        doubtful = again.count("in doubt")
        assert 9 <= doubtful <= 25, "those in work at the kill, and those whose end was not written down"
        assert again.count("done") == 30 - doubtful
        assert await resuming.answer(fleet, ledger, job.id, [], "done", WRITE) == doubtful
        assert list(spills.iterdir()) == [path], "the file of before holds it all"

        restored = Job.of(fleet, await plan_restore(fleet, path, ledger=ledger), WRITE, ledger=ledger)
        await restored.run()
        assert restored.outcomes == {"done": 30}
        assert await inbox(fleet) == [f"m-{n}" for n in range(30)]
        assert ledger.job(job.id).undone_by == restored.id


async def test_what_was_handled_while_the_purge_ran_is_not_put_back(server, tmp_path, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for n in range(4):
            await fleet.inbox("ceo").send("note", id=f"m-{n}")
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", everything=True), spill=tmp_path
        )
        job, real = Job.of(fleet, plan, WRITE), fleet.jetstream.delete

        async def delete(stream, seq):
            if seq == 2:  # its agent was quicker
                await real(stream, seq)
            return await real(stream, seq)

        with monkeypatch.context() as patch:
            patch.setattr(fleet.jetstream, "delete", delete)
            await job.run()
        assert job.outcomes == {"done": 3, "skipped": 1}
        plan = await plan_restore(fleet, next(tmp_path.iterdir()))
        assert [(skip.seq, skip.reason.partition(":")[0]) for skip in plan.skipped] == [
            (2, "was not removed by its job")
        ]
        await Job.of(fleet, plan, WRITE).run()
        assert await inbox(fleet) == ["m-0", "m-2", "m-3"]


async def test_a_purged_and_restored_dead_letter_is_replayed_once_and_no_sleeping_mover_takes_it(server, tmp_path):
    handled = Counter()
    async with connected(server.url, roles=["backend"]) as fleet:
        await kill_tasks(fleet, 3)
        purge = Job.of(fleet, await plan_discard(fleet, ALL, spill=tmp_path, purge=True), WRITE)
        await purge.run()
        assert await left(fleet) == 0
        restore = Job.of(fleet, await plan_restore(fleet, next(tmp_path.iterdir())), WRITE)
        await restore.run()
        again = await plan_restore(fleet, next(tmp_path.glob("*.jsonl")))
        assert (again.count, {skip.reason for skip in again.skipped}) == (0, {"was put back before, needs --force"})
        twice = Job.of(fleet, await plan_restore(fleet, next(tmp_path.glob("*.jsonl")), force=True), WRITE)
        await twice.run()
        assert (restore.outcomes, twice.outcomes) == ({"done": 3}, {"duplicate": 3})
        replay = await replay_of(fleet, JobLedger(tmp_path / "state"))
        await replay.run()
        assert replay.outcomes == {"done": 3}

        async def handle(task):
            handled[task.id] += 1

        async with running(fleet.tasks("backend").worker("backend-1"), handle):
            await until(lambda: len(handled) == 3)
            await drained(fleet.tasks("backend"))
        assert set(handled.values()) == {1}


async def test_a_cancelled_spill_removes_nothing_and_leaves_no_file(server, tmp_path):
    async with connected(server.url, agents=["ceo"], config=fast()) as fleet:
        await fleet.inbox("ceo").send("note")
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", everything=True), spill=tmp_path / "spill"
        )
        job = Job.of(fleet, plan, WRITE)
        job.cancel()
        await job.run()
        assert (job.state, job.spill, len(await inbox(fleet))) == ("cancelled", None, 1)
        assert list((tmp_path / "spill").iterdir()) == []


async def test_what_a_cancelled_purge_left_and_its_agent_handled_is_not_put_back(server, tmp_path):
    ledger = JobLedger(tmp_path / "state")
    async with connected(server.url, agents=["ceo"]) as fleet:
        for n in range(5):
            await fleet.inbox("ceo").send("note", id=f"m-{n}")
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", everything=True), spill=tmp_path, rate=2
        )
        job = Job.of(fleet, plan, WRITE, ledger=ledger)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed == 2)
        job.cancel()
        await task
        handled = []

        async def handle(message):
            handled.append(message.id)

        async with running(fleet.inbox("ceo").consumer(), handle):
            await drained(fleet.inbox("ceo"))
        (path,) = tmp_path.glob("*.jsonl")
        for known in (ledger, None):  # on this machine, and on another one
            plan = await plan_restore(fleet, path, ledger=known)
            assert plan.count == 5 - len(handled) == job.count("done")
            assert plan.warnings == ()


async def test_messages_of_a_stream_that_was_made_anew_are_not_those_of_the_plan(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", id="planned")
        plan = await plan_purge(
            fleet, place_of(fleet.names, "inbox", "ceo"), choose("messages", everything=True), spill=None
        )
        await fleet.js.delete_stream("INBOX_CEO")
        await fleet.provision(agents=["ceo"])
        await fleet.inbox("ceo").send("note", id="new")
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert (job.state, await inbox(fleet)) == ("failed", ["new"])
        assert "earlier stream INBOX_CEO" in job.error


async def test_a_letter_that_a_colleague_discarded_is_not_called_replayed(server, tmp_path, monkeypatch):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        job = await replay_of(fleet, ledger, rate=50)
        with monkeypatch.context() as patch:
            break_at(patch, fleet, "publish", 1)
            await killed(job)
        ledger.update(job.id, state="running", ended=None)
        await fleet.dead_letters.discard(1, by="a colleague")
        again = await resuming.resume(fleet, ledger, job.id, WRITE)
        await again.run()
        assert again.outcomes == {"skipped": 1}
        assert "discarded by a colleague" in again.results[0].detail


async def test_a_ledger_that_somebody_else_writes_to_is_waited_for(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 5)
        job = await replay_of(fleet, JobLedger(tmp_path), rate=100)
        task = asyncio.create_task(job.run())
        await until(lambda: job.processed >= 1)
        other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        before = job.processed
        await asyncio.sleep(0.5)  # longer than a call waits
        assert job.processed <= before + 1
        other.execute("ROLLBACK")
        other.close()
        await task
        assert (job.state, job.outcomes, job.ledger.counts(job.id)) == ("completed", {"done": 5}, {"done": 5})
