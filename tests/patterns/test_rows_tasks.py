"""Tasks while slots, the network or the queue itself are gone: work waits, is done once, and goes on afterwards."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

import patterns.interest
from patterns import Fleet, Reject, Retry, UnknownDestination
from tests.support.fleets import connected, drained, fast, running
from tests.support.proxy import Proxy
from tests.support.waiting import until

STREAM, DURABLE = "TASKS_BACKEND", "backend-workers"


async def waiting(fleet):
    """Pull requests that wait on the server."""
    return (await fleet.jetstream.consumer_info(STREAM, DURABLE))["num_waiting"]


# -- failing tasks in every slot


async def test_tq17_failing_tasks_in_every_slot_stall_the_role_until_their_delays_are_over(server):
    """A delayed retry keeps its place among `max_ack_pending`: later tasks wait, as `depth()` shows, and then go on."""
    config = fast(tasks={"max_ack_pending": 3})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, order = fleet.tasks("backend"), []

        async def work(task):
            order.append((task.id, task.attempt))
            if task.id.startswith("failing") and task.attempt == 1:
                raise Retry("the model is overloaded", after=4.0)

        for n in range(3):
            await queue.submit("code", id=f"failing-{n}")
        for n in range(2):
            await queue.submit("code", id=f"healthy-{n}")
        worker = queue.worker("w", concurrency=5)
        async with running(worker, work):
            await until(lambda: len(order) >= 3 and not worker.running)
            depth = await queue.depth()
            # Nobody works, slots of the worker are free, and yet two tasks wait: the role itself is full.
            assert (depth.ack_pending, depth.pending, depth.messages) == (3, 2, 5)
            assert depth.waiting == 1
            await drained(queue)
        assert sorted(order[:3]) == [(f"failing-{n}", 1) for n in range(3)]
        assert order[3][0].startswith("failing"), "a healthy task overtook although no place was free"
        assert sorted(order[3:]) == [*((f"failing-{n}", 2) for n in range(3)), ("healthy-0", 1), ("healthy-1", 1)]
        assert await fleet.dead_letters.list() == []


# -- a network that falls silent


@pytest.mark.parametrize("ending", ["result", "error", "rejection"])
@pytest.mark.parametrize("moment", ["while it is cut off", "when it is back"])
async def test_tq19_a_worker_cut_off_for_longer_than_its_lease_changes_nothing_when_it_is_back(server, moment, ending):
    config = fast(tasks={"ack_wait": 1.0})
    async with (
        connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet,
        Proxy(server.port) as proxy,
        Fleet.connect(proxy.url, config=config) as far,
    ):
        queue, runs, end = fleet.tasks("backend"), [], asyncio.Event()

        async def late(task):
            runs.append(("cut off", task.attempt))
            await end.wait()
            if ending == "error":
                raise ValueError("late")
            if ending == "rejection":
                raise Reject("late")
            return "by the one cut off"

        async def other(task):
            runs.append(("other", task.attempt))
            return "by the other"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        cut_off = far.tasks("backend").worker("cut-off")
        async with running(cut_off, late):
            await until(lambda: runs)
            proxy.pause()
            if moment == "while it is cut off":
                end.set()
            async with running(queue.worker("other"), other):
                assert (await queue.wait("a", 20)).state == "completed"
                await drained(queue)
            proxy.resume()
            end.set()
            await until(lambda: not cut_off.running)
        assert runs == [("cut off", 1), ("other", 2)]
        status = await queue.status("a")
        assert (status.state, status.agent, status.result) == ("completed", "other", "by the other")
        told = [(m.type, m.data["result"]) for m in await fleet.inbox("ceo").peek()]
        assert told == [("task.completed", "by the other")]
        assert await fleet.dead_letters.list() == []
        assert (await queue.depth()).messages == 0


@pytest.mark.parametrize("noticed", [False, True], ids=["half open", "given up"])
async def test_tq19_a_worker_that_was_cut_off_takes_work_again(server, monkeypatch, caplog, noticed):
    """Whether its client never noticed, or gave the connection up and tried in vain for new ones."""
    caplog.set_level(logging.DEBUG, "patterns")
    monkeypatch.setattr(patterns.interest, "PATIENCE", 1.0)
    options = {"ping_interval": 0.3, "max_outstanding_pings": 1, "connect_timeout": 0.3} if noticed else {}
    config = fast(tasks={"ack_wait": 1.0})
    async with (
        connected(server.url, roles=["backend"], config=config) as fleet,
        Proxy(server.port) as proxy,
        Fleet.connect(proxy.url, config=config, **options) as far,
    ):
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append((task.id, task.attempt))
            if task.id == "a":
                proxy.pause()

        def gave_up():
            if noticed:
                return proxy.taken >= 5
            # A question of the client that is answered too late ends its reader, and it does not say so.
            return [r for r in caplog.records if "withdrawing a pull failed" in r.getMessage()]

        await queue.submit("code", id="a")
        cut_off = far.tasks("backend").worker("cut-off", concurrency=2)
        async with running(cut_off, work):
            await until(lambda: runs)
            # The handler has returned, its worker cannot say so: another one gets the task.
            async with await queue.next("other", 20) as task:
                assert (task.id, task.attempt) == ("a", 2)
            await until(gave_up)
            proxy.resume()
            await queue.submit("code", id="b")
            assert (await queue.wait("b", 20)).agent == "cut-off"
            await drained(queue)
        assert runs == [("a", 1), ("b", 1)]
        assert (await queue.status("a")).state == "completed"
        assert await fleet.dead_letters.list() == []


# -- a queue that is deleted


async def delete(fleet, what):
    if what == "consumer":
        await fleet.js.delete_consumer(STREAM, DURABLE)
    else:
        await fleet.js.delete_stream(STREAM)


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_tq22_a_worker_whose_queue_is_deleted_waits_without_spinning_and_goes_on(server, caplog, what):
    """Only provision() makes queues. Until an operator calls it the worker says so once and asks now and then."""
    async with connected(server.url, roles=["backend"]) as fleet, Fleet.connect(server.url, config=fast()) as far:
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append(task.id)

        worker = far.tasks("backend").worker("w")
        loop = asyncio.create_task(worker.run(work))
        await queue.submit("code", id="before")
        await until(lambda: runs)
        await drained(queue)
        caplog.set_level(logging.DEBUG, "patterns")
        await delete(fleet, what)

        def said():
            return [r for r in caplog.records if r.levelno == logging.WARNING and DURABLE in r.getMessage()]

        await until(said)
        if what == "stream":
            with pytest.raises(UnknownDestination):
                await queue.submit("code", id="refused")
        else:
            await queue.submit("code", id="meanwhile")
        sent, since = far.nc.stats["out_msgs"], time.monotonic()
        await asyncio.sleep(1.5)
        # Without pauses a pull on a durable that is gone is refused thousands of times a second. The bound is a rate: a
        # slow machine only asks less often.
        assert far.nc.stats["out_msgs"] - sent <= 10 + 20 * (time.monotonic() - since)
        assert len(said()) <= 2
        assert not loop.done()
        assert runs == ["before"]

        # An operator, on a connection of its own.
        async with connected(server.url, roles=["backend"]) as operator:
            await operator.tasks("backend").submit("code", id="after")
            assert (await operator.tasks("backend").wait("after", 20)).state == "completed"
            await drained(queue)
        assert runs == ["before", *(["meanwhile"] if what == "consumer" else []), "after"]
        await worker.stop(0)
        await loop


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_tq22_next_on_a_deleted_queue_is_none_and_works_once_it_is_back(server, what):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        assert await queue.next("w", 0.1) is None
        await delete(fleet, what)
        assert await queue.next("w", 0.5) is None
        await fleet.provision(roles=["backend"])
        await queue.submit("code", id="a")
        async with await queue.next("w", 20) as task:
            assert (task.id, task.attempt) == ("a", 1)
        await drained(queue)


async def test_tq22_a_task_held_while_its_consumer_is_made_anew_ends_once(server):
    """A new consumer delivers what another one had in flight: two run it, one result counts."""
    config = fast(tasks={"ack_wait": 2.0})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue, runs, free = fleet.tasks("backend"), [], asyncio.Event()

        async def work(task):
            runs.append(task.attempt)
            number = len(runs)
            if number == 1:
                await free.wait()
            return f"run {number}"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w", concurrency=2), work):
            await until(lambda: runs)
            await delete(fleet, "consumer")
            await fleet.provision(roles=["backend"])
            assert (await queue.wait("a", 20)).state == "completed"
            free.set()
            await drained(queue)
        assert runs == [1, 2]
        assert (await queue.status("a")).result == "run 2"
        told = [(m.type, m.data["result"]) for m in await fleet.inbox("ceo").peek()]
        assert told == [("task.completed", "run 2")]
        assert await fleet.dead_letters.list() == []


async def test_tq22_a_failed_task_submitted_again_to_a_queue_made_anew_runs(server):
    """Sequences begin at 1 again: the record of a task of the queue before must not pass for that of the new one."""
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append(task.id)
            if len(runs) == 1:
                raise Reject("no spec")

        async with running(queue.worker("w"), work):
            first = await queue.submit("code", id="a")
            assert (await queue.wait("a", 20)).state == "rejected"
            await drained(queue)
            await delete(fleet, "stream")
            await fleet.provision(roles=["backend"])
            again = await queue.submit("code", id="a")
            assert (again.seq, again.duplicate) == (first.seq, False)
            await drained(queue)
        assert runs == ["a", "a"]
        assert (await queue.status("a")).state == "completed"


@pytest.mark.parametrize("before", ["no queue", "a queue with a long lease"])
async def test_tq22_a_worker_keeps_the_lease_that_its_queue_has_when_it_is_made_anew(server, caplog, before):
    """What held before must not outlive the queue: with a heartbeat longer than the new lease each task runs twice."""
    async with (
        Fleet.connect(server.url, config=fast()) as fleet,
        connected(server.url, config=fast(tasks={"ack_wait": 1.0})) as operator,
    ):
        queue, runs, free = fleet.tasks("backend"), [], asyncio.Event()
        if before != "no queue":
            await fleet.provision(roles=["backend"])

        async def slow(task):
            runs.append(task.attempt)
            await free.wait()

        worker = queue.worker("w", concurrency=2)
        async with running(worker, slow):
            if before != "no queue":
                await until(lambda: waiting(fleet))
                await delete(fleet, "stream")
            # The worker has been told that its durable is not there.
            await until(lambda: [r for r in caplog.records if DURABLE in r.getMessage()])
            await operator.provision(roles=["backend"])
            await queue.submit("code", id="a")
            await until(lambda: runs)
            await asyncio.sleep(2.5)  # two leases and a half
            free.set()
            await drained(queue)
        assert runs == [1]
