"""Few letters first, and jobs that stop by themselves: on a real server, with agents that recover and agents that do not."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from console.operations import oversight, resuming
from console.operations.canary import Canary
from console.operations.edits import parse_edit
from console.operations.errors import UsageError
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger, LedgerBusy
from console.operations.redeaths import Redeaths
from console.operations.selection import choose
from console.screens.canary_dialog import answer
from patterns import Fleet, PermissionDenied, Reject, Unavailable
from tests.support.fleets import connected, running
from tests.support.letters import forge, forge_many, kill_tasks
from tests.support.plans import plan_replay
from tests.support.waiting import until

WRITE = WriteGuard(True)
ALL = choose("dead letters", everything=True)


async def job_of(fleet, ledger=None, **options):
    plan = await plan_replay(fleet, ALL, **options)
    return Job.of(fleet, plan, WRITE, ledger=ledger)


class Killed(BaseException):
    """The process ends here: nothing of ours handles it."""


async def die(*args):
    raise Killed


def die_writing(*args):
    raise Killed


async def accept(delivery):
    pass


def refusing(*numbers):
    """A handler that refuses some messages, by the number that ends their id."""

    async def refuse(delivery):
        if int(delivery.id.rpartition("-")[2]) in numbers:
            raise Reject("still broken")

    return refuse


async def left(fleet):
    return sum((await fleet.dead_letters.count()).values())


async def test_what_is_acknowledged_lets_the_rest_go(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 8)
        async with running(fleet.inbox("ceo").consumer(), accept):
            job = await job_of(fleet, canary=Canary(3, 30.0))
            await job.run()
        assert (job.state, job.outcomes) == ("completed", {"done": 8})
        assert (job.canary.sent, job.canary.acknowledged, job.canary.passed) == (3, 3, True)
        assert job.record.spec["canary_verdict"] == "3 of 3 acknowledged"
        assert job.as_json()["canary"]["acknowledged"] == 3


async def test_one_that_dies_again_keeps_the_rest_where_it_is(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 8)
        async with running(fleet.inbox("ceo").consumer(), refusing(2)):
            job = await job_of(fleet, ledger, canary=Canary(3, 30.0), rate=100)
            await job.run()
        assert (job.state, job.exit_code, job.outcomes) == ("failed", 3, {"done": 3})
        assert "1 died again (Reject: still broken)" in job.error
        assert (job.redied, await left(fleet)) == (1, 6)
        assert ledger.job(job.id).state == "failed"
        async with running(fleet.inbox("ceo").consumer(), accept):
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            await again.run()
        assert (again.state, again.outcomes, again.count("not started")) == ("completed", {"done": 8}, 0)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.id, letter.replays, letter.replay_job) == ("m-2", 1, job.id)


async def test_one_that_nobody_takes_is_not_taken_for_well(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)
        job = await job_of(fleet, canary=Canary(2, 1.0))
        await job.run()
        assert (job.state, job.count("not started")) == ("failed", 2)
        assert "0 of 2 acknowledged, 2 still wait" in job.error


@pytest.mark.parametrize(("answer", "state", "sent"), [("go_on", "completed", 6), ("cancel", "cancelled", 2)])
async def test_where_somebody_is_there_they_are_asked(server, tmp_path, answer, state, sent):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        async with running(fleet.inbox("ceo").consumer(), accept):
            job = await job_of(fleet, ledger, canary=Canary(2, 30.0))
            job.ask = lambda _: None
            task = asyncio.create_task(job.run())
            await until(lambda: job.state == "paused")
            assert (job.canary.passed, job.count("done"), job.phase) == (True, 2, "canary waits for an answer")
            assert ledger.job(job.id).state == "paused"
            getattr(job, answer)()
            await task
        assert (job.state, job.count("done"), await left(fleet)) == (state, sent, 6 - sent)


async def test_a_canary_takes_the_next_where_one_is_gone(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 5)
        job = await job_of(fleet, canary=Canary(2, 30.0))
        await fleet.dead_letters.discard(1, by="somebody")
        async with running(fleet.inbox("ceo").consumer(), accept):
            await job.run()
        assert (job.outcomes, job.canary.sent) == ({"done": 4, "skipped": 1}, 2)


async def test_a_canary_of_all_there_are_is_just_watched(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        async with running(fleet.inbox("ceo").consumer(), refusing(1)):
            job = await job_of(fleet, canary=Canary(3, 30.0))
            await job.run()
        assert (job.state, job.outcomes, job.canary.died) == ("completed", {"done": 2}, 1)


async def test_one_that_cannot_be_sent_is_answer_enough(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        config = (await fleet.js.stream_info("INBOX_CEO")).config
        await fleet.js.update_stream(config, max_msgs=1, discard="new")
        job = await job_of(fleet, canary=Canary(3, 30.0), rate=100)
        await job.run()
        assert (job.state, job.count("done"), job.count("not started")) == ("failed", 1, 3)
        assert "could not be sent" in job.error


async def test_tasks_and_events_are_watched_by_what_their_consumers_say(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await kill_tasks(fleet, 2)
        async with running(fleet.tasks("backend").worker("backend-1"), accept):
            job = await job_of(fleet, canary=Canary(1, 30.0))
            await job.run()
        assert (job.state, job.canary.passed, await left(fleet)) == ("completed", True, 0)
        before = await fleet.events.subscription("ceo", "alerts.>")
        for number in range(2):
            await fleet.events.broadcast("alerts.fire", {"n": number}, id=f"e-{number}")
        async with running(before, refusing(0, 1)):
            await until(lambda: _has(fleet, 2))
        async with running(await fleet.events.subscription("ceo", "alerts.>"), accept):
            job = await job_of(fleet, canary=Canary(1, 30.0))
            await job.run()
        assert (job.state, job.canary.passed, await left(fleet)) == ("completed", True, 0)


async def _has(fleet, count):
    return await left(fleet) == count


async def test_a_console_that_died_while_watching_knows_what_died_meanwhile(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)
        job = await job_of(fleet, ledger, canary=Canary(2, 600.0))
        task = asyncio.create_task(job.run())
        await until(lambda: job.phase.startswith("canary: 0/2"))
        # As a kill leaves it: nothing more is written.
        job.ledger = JobLedger()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert ledger.job(job.id).state == "interrupted"
        async with running(fleet.inbox("ceo").consumer(), refusing(1)):
            await until(lambda: _has(fleet, 3))
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            await again.run()
        assert (again.state, again.canary.died, again.count("not started")) == ("failed", 1, 2)


async def test_a_job_stops_when_most_of_it_dies_again(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 200)
        async with running(fleet.inbox("ceo").consumer(), refusing(*range(201))):
            job = await job_of(fleet, ledger, rate=40, stop_ratio=0.5)
            await job.run()
        assert job.state == "failed"
        assert "died again, more than 50%" in job.error
        assert 5 <= job.redied <= job.count("done") < 200
        assert job.count("not started") == 200 - job.count("done")
        # Whoever goes on has seen it: only what dies from now on counts.
        async with running(fleet.inbox("ceo").consumer(), accept):
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            again.set_rate(None)
            await again.run()
        assert (again.state, again.count("done")) == ("completed", 200)


async def test_without_a_limit_it_goes_on(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        async with running(fleet.inbox("ceo").consumer(), refusing(*range(61))):
            job = await job_of(fleet, rate=60)
            await job.run()
        assert (job.state, job.count("done")) == ("completed", 60)


@pytest.mark.parametrize(("count", "watch"), [(0, 30.0), (101, 30.0), (1, 0.5), (1, 7200.0)])
def test_a_canary_out_of_range_is_a_slip(count, watch):
    with pytest.raises(UsageError, match="canary"):
        Canary(count, watch)


async def test_a_canary_is_not_sent_to_who_is_paused(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1")
        with pytest.raises(UsageError, match="paused"):
            await plan_replay(fleet, ALL, canary=Canary(1, 5.0), hold=True)


# -- what must not pass for an acknowledgement


async def watched(fleet, ledger=None, **options):
    """A job whose canary of two has been sent to nobody and is watched."""
    await forge_many(fleet, 6)
    job = await job_of(fleet, ledger, canary=Canary(2, 1.0), **options)
    task = asyncio.create_task(job.run())
    await until(lambda: job.phase == "canary: 0/2")
    return job, task


@pytest.mark.parametrize("how", ["purge", "delete the stream", "delete the messages"])
async def test_what_was_taken_away_was_not_acknowledged(server, how):
    async with connected(server.url, agents=["ceo"]) as fleet:
        job, task = await watched(fleet)
        if how == "purge":
            await fleet.js.purge_stream("INBOX_CEO")
        elif how == "delete the stream":
            await fleet.js.delete_stream("INBOX_CEO")
        else:
            for seq in (1, 2):
                await fleet.jetstream.delete("INBOX_CEO", seq)
        await task
        assert (job.state, job.canary.acknowledged, job.count("not started")) == ("failed", 0, 4)


@pytest.mark.parametrize("taken", [2, 1, 0])
async def test_of_foreign_consumers_the_deliveries_are_the_proof(server, taken):
    async with Fleet.connect(server.url) as fleet:
        queue = {"retention": "workqueue"}
        await fleet.js.add_stream(name="PLAIN", subjects=["plain.>"], **queue)
        await fleet.js.add_stream(name="DLQ", subjects=["dlq.>"], allow_direct=True)
        await fleet.js.add_consumer("PLAIN", durable_name="worker", ack_policy="explicit")
        for number in range(1, 5):
            await forge(fleet, f"tasks.plain.{number}-{number}", "plain.work", Stream="PLAIN")
        job = await job_of(fleet, canary=Canary(2, 20.0 if taken == 2 else 1.0))
        task = asyncio.create_task(job.run())
        await until(lambda: job.phase == "canary: 0/2")
        if taken < 2:
            await fleet.js.purge_stream("PLAIN")
            for _ in range(taken):
                # Not one of the canary, and delivered all the same.
                await fleet.js.publish("plain.work", b"other")
        if taken:
            subscription = await fleet.js.pull_subscribe_bind("worker", stream="PLAIN")
            for message in await subscription.fetch(taken, timeout=20):
                await message.ack_sync()
        await task
        assert (job.canary.passed, job.state) == ((True, "completed") if taken == 2 else (False, "failed"))


async def test_one_whose_end_nobody_saw_is_not_taken_for_well(server, tmp_path, monkeypatch):
    """A kill between the end of a letter and its record: what became of the message is not known."""
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        job = await job_of(fleet, ledger, canary=Canary(2, 600.0))

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "settle", die_writing)
            with contextlib.suppress(Killed):
                await job.run()
        assert (ledger.counts(job.id), await left(fleet)) == ({"sending": 2, "waiting": 4}, 4)
        ledger.update(job.id, state="running", ended=None, error="")
        async with running(fleet.inbox("ceo").consumer(), accept):
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            again.record.spec["canary"]["watch"] = 1.0
            await again.run()
        assert (again.state, again.canary.passed, again.canary.sent) == ("failed", False, 2)
        assert again.count("not started") == 4


async def test_without_a_place_to_follow_deaths_from_nothing_is_sent(server, monkeypatch):
    monkeypatch.setattr(oversight, "LOOK", 0.01)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        job = await job_of(fleet, canary=Canary(1, 5.0))

        async def away(self):
            raise Unavailable("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(Redeaths, "look", away)
            await job.run()
        assert (job.state, job.outcomes, await left(fleet)) == ("failed", {}, 3)
        assert "cannot be followed" in job.error


async def test_a_first_look_that_fails_is_made_again(server, monkeypatch):
    monkeypatch.setattr(oversight, "LOOK", 0.01)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        real, failed = Redeaths.look, []

        async def look(self):
            if not failed:
                failed.append(True)
                raise Unavailable("no answer")
            await real(self)

        monkeypatch.setattr(Redeaths, "look", look)
        async with running(fleet.inbox("ceo").consumer(), refusing(1)):
            job = await job_of(fleet, canary=Canary(1, 30.0))
            await job.run()
        assert (job.state, job.canary.died) == ("failed", 1)


async def test_a_canary_of_all_that_fails_is_told_by_the_exit_code(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        async with running(fleet.inbox("ceo").consumer(), refusing(1)):
            job = await job_of(fleet, canary=Canary(3, 30.0))
            await job.run()
        assert (job.state, job.exit_code) == ("completed", 3)


async def test_a_ledger_in_use_does_not_spoil_a_canary(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)
        async with running(fleet.inbox("ceo").consumer(), accept):
            job = await job_of(fleet, ledger, canary=Canary(2, 30.0))
            asked = asyncio.Event()
            job.ask = lambda _: asked.set()
            real = ledger.update

            def update(of, **columns):
                if columns.get("state") == "paused":
                    raise LedgerBusy("another agent-console")
                real(of, **columns)

            ledger.update = update
            task = asyncio.create_task(job.run())
            await asked.wait()
            assert job.state == "paused"
            job.go_on()
            await task
        assert (job.state, job.outcomes) == ("completed", {"done": 4})


async def test_what_dies_late_is_measured_by_what_had_its_chance(server):
    """Sent faster than it can die: of the first that were handled all died, however many were sent since."""
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 400)
        handled = 0

        async def slowly(delivery):
            nonlocal handled
            handled += 1
            await asyncio.sleep(0.05)
            raise Reject("still broken")

        async with running(fleet.inbox("ceo").consumer(), slowly):
            job = await job_of(fleet, rate=80, stop_ratio=0.5)
            await job.run()
        assert job.state == "failed"
        assert job.count("done") < 400
        assert job.redied < job.count("done") / 2


async def test_an_edit_that_was_sent_and_handled_is_not_sent_again_nor_called_failed(server, tmp_path, monkeypatch):
    """The console is killed between the publish and the end of the letter, and the agent is quick."""
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", body=b'{"x":0}')
        job = await job_of(fleet, ledger, edit=parse_edit("set $.x = 1"))

        with monkeypatch.context() as patch:
            patch.setattr(fleet.burials, "resolve", die)
            patch.setattr(ledger, "settle", lambda *_: None)
            with contextlib.suppress(Killed):
                await job.run()
        ledger.update(job.id, state="running", ended=None, error="")
        handled = []

        async def handle(delivery):
            handled.append(delivery.data)

        async with running(fleet.inbox("ceo").consumer(), handle):
            await until(lambda: handled)
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            await again.run()
        assert (again.state, again.outcomes, handled) == ("completed", {"duplicate": 1}, [{"x": 1}])
        assert await left(fleet) == 0


async def test_a_canary_looks_at_where_the_next_ones_go_when_the_first_is_gone(server):
    async with connected(server.url, agents=["ceo", "dev"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1")
        for number in (2, 3, 4):
            await forge(fleet, f"inbox.dev.{number}-{number}", "agents.dev.inbox.note")
        job = await job_of(fleet, canary=Canary(1, 30.0))
        await fleet.dead_letters.discard(1, by="somebody")
        async with running(fleet.inbox("dev").consumer(), accept):
            await job.run()
        assert (job.state, job.canary.passed) == ("completed", True)


async def test_what_an_earlier_attempt_had_sent_proves_nothing(server, monkeypatch):
    """It was sent under another name, handled, and died: the letter that stayed is only removed."""
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)

        with monkeypatch.context() as patch:
            patch.setattr(fleet.burials, "resolve", die)
            with pytest.raises(Killed):
                await fleet.dead_letters.replay(1, by="somebody")
        async with running(fleet.inbox("ceo").consumer(), refusing(1)):
            await until(lambda: _has(fleet, 5))
            job = await job_of(fleet, canary=Canary(1, 1.0))
            await job.run()
        assert (job.canary.passed, job.canary.acknowledged, job.state) == (False, 0, "failed")


async def test_deaths_of_an_earlier_run_do_not_stop_the_one_that_goes_on(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 60)
        job = await job_of(fleet, ledger, rate=100, stop_ratio=0.5)
        task = asyncio.create_task(job.run())
        await until(lambda: job.count("done") >= 20)
        job.leave()
        await task
        # Of those that were sent in the first run some die only now.
        async with running(fleet.inbox("ceo").consumer(), refusing(*range(1, 11))):
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            again.set_rate(20)
            await again.run()
        assert (again.state, again.count("done")) == ("completed", 60)
        assert again.redied == 10


async def test_a_busy_ledger_does_not_keep_a_job_from_going_on(server, tmp_path):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        async with running(fleet.inbox("ceo").consumer(), accept):
            job = await job_of(fleet, ledger, canary=Canary(1, 30.0))
            job.ask = lambda _: None
            task = asyncio.create_task(job.run())
            await until(lambda: job.asks)
            real = ledger.update

            def update(of, **columns):
                if columns.get("state") == "running":
                    raise LedgerBusy("another agent-console")
                real(of, **columns)

            ledger.update = update
            answer(job, "go")
            await task
        assert (job.state, job.outcomes) == ("completed", {"done": 3})


async def test_an_edit_in_doubt_that_is_sent_again_is_known_as_its_own(server, tmp_path, monkeypatch):
    ledger = JobLedger(tmp_path)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", body=b'{"x":0}')
        job = await job_of(fleet, ledger, edit=parse_edit("set $.x = 1"))

        async def denied(*args):
            raise PermissionDenied("no permission")

        with monkeypatch.context() as patch:
            patch.setattr(fleet.burials, "resolve", denied)
            await job.run()
        assert job.outcomes == {"in doubt": 1}
        handled = []

        async def handle(delivery):
            handled.append(delivery.data)

        async with running(fleet.inbox("ceo").consumer(), handle):
            await until(lambda: handled)
            await resuming.answer(fleet, ledger, job.id, (), "again", WRITE)
            again = await resuming.resume(fleet, ledger, job.id, WRITE)
            await again.run()
        assert (again.outcomes, handled, await left(fleet)) == ({"duplicate": 1}, [{"x": 1}], 0)
