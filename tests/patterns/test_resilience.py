"""What is promised through pauses and outages of the server, drifted configuration, late workers and hard stops."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import nats.errors
import pytest

import patterns.inbox
from patterns import Fleet, Reject, Retry, RetryPolicy, StreamLimits, UnknownDestination
from patterns.lane import Lane
from tests.support.fleets import connected, drained, fast, running
from tests.support.waiting import until

STREAM, DURABLE = "TASKS_BACKEND", "backend-workers"


async def holds(condition, seconds):
    """Ask again and again for a while; the condition has to be true each time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert await condition()
        await asyncio.sleep(0.02)


async def waiting(fleet, stream=STREAM, durable=DURABLE):
    """Pull requests that wait on the server."""
    return (await fleet.jetstream.consumer_info(stream, durable))["num_waiting"]


async def paused(server, fleet):
    """Stop the server, and wait until it has stopped indeed."""
    server.pause()

    async def silent():
        try:
            await fleet.nc.request("$JS.API.INFO", timeout=0.1)
        except nats.errors.TimeoutError:
            return True
        return False

    await until(silent)


# -- pulls through a paused server


async def test_a_consumer_with_one_slot_holds_one_message_after_a_pause_of_the_server(server):
    config = fast(poll=0.6)
    async with (
        connected(server.url, roles=["backend"], config=config) as fleet,
        connected(server.url, config=config) as other,
    ):
        queue, free, seen = fleet.tasks("backend"), asyncio.Event(), []

        async def work(task):
            seen.append((task.id, task.attempt))
            await free.wait()

        async with running(queue.worker("w"), work):
            await until(lambda: waiting(other))
            server.pause()
            await asyncio.sleep(1.8)  # more than two pulls long
            server.resume()
            for n in range(3):
                await other.tasks("backend").submit("code", id=f"t-{n}")
            await until(lambda: seen)

            async def one_in_flight():
                return (await other.tasks("backend").depth()).ack_pending == 1

            await holds(one_in_flight, 0.7)
            assert seen == [("t-0", 1)]
            free.set()
            await drained(queue)
        assert seen == [(f"t-{n}", 1) for n in range(3)]


async def test_next_that_came_back_empty_from_a_pause_leaves_no_pull_behind(server):
    async with connected(server.url, agents=["ceo"]) as fleet, connected(server.url) as other:
        inbox = fleet.inbox("ceo")
        assert await inbox.next(0.05) is None
        await paused(server, other)
        asyncio.get_running_loop().call_later(1.6, server.resume)
        assert await inbox.next(1.0) is None
        server.resume()
        await other.inbox("ceo").send("note", id="a")

        async def nobody_holds_it():
            depth = await other.inbox("ceo").depth()
            return depth.messages == 1 and depth.ack_pending == 0

        await holds(nobody_holds_it, 0.5)
        async with await asyncio.wait_for(inbox.next(2), 1) as message:
            assert (message.id, message.attempt) == ("a", 1)


# -- leases and limits


async def test_the_lease_of_the_durable_holds_when_the_process_is_configured_otherwise(server):
    short = {"ack_wait": 1.0}
    async with (
        connected(server.url, agents=["ceo"], roles=["backend"], config=fast(inbox=short, tasks=short)),
        Fleet.connect(server.url, config=fast()) as fleet,
    ):
        runs = []

        async def slow(delivery):
            runs.append((delivery.stream, delivery.attempt))
            await asyncio.sleep(2.5)

        await fleet.tasks("backend").submit("code")
        await fleet.inbox("ceo").send("note")
        async with (
            running(fleet.tasks("backend").worker("w", concurrency=2), slow),
            running(fleet.tasks("backend").worker("v", concurrency=2), slow),
            running(fleet.inbox("ceo").consumer(), slow),
        ):
            await drained(fleet.tasks("backend"))
            await drained(fleet.inbox("ceo"))
        assert sorted(runs) == [("INBOX_CEO", 1), (STREAM, 1)]


async def test_the_attempts_of_the_durable_hold_when_the_process_is_configured_otherwise(server):
    two = {"max_deliver": 2}
    async with (
        connected(server.url, agents=["ceo"], roles=["backend"], config=fast(inbox=two, tasks=two)),
        Fleet.connect(server.url, config=fast(inbox={"max_deliver": 5}, tasks={"max_deliver": 5})) as fleet,
    ):

        async def fail(delivery):
            raise ValueError(delivery.attempt)

        await fleet.tasks("backend").submit("code")
        await fleet.inbox("ceo").send("note")
        async with (
            running(fleet.tasks("backend").worker("w"), fail),
            running(fleet.inbox("ceo").consumer(), fail),
        ):
            await drained(fleet.tasks("backend"))
            await drained(fleet.inbox("ceo"))
        letters = await fleet.dead_letters.list()
        assert sorted((m.kind, m.reason, m.deliveries) for m in letters) == [
            ("inbox", "max-deliver", 2),
            ("tasks", "max-deliver", 2),
        ]


async def test_a_handler_that_swallows_its_cancellation_keeps_its_lease_and_is_told_again(server):
    config = fast(tasks={"ack_wait": 1.0, "max_runtime": 0.3})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, told, running_now, most = fleet.tasks("backend"), [], set(), []

        async def deaf(task):
            running_now.add(task.attempt)
            most.append(len(running_now))
            began = time.monotonic()
            while time.monotonic() - began < 2.0:
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    told.append(task.attempt)
            running_now.discard(task.attempt)

        await queue.submit("code", id="a")
        async with running(queue.worker("w", concurrency=3), deaf):
            await drained(queue)
        assert most == [1]
        assert len(told) >= 3


async def test_a_worker_that_lost_its_lease_and_fails_late_takes_nothing_from_the_new_one(server, monkeypatch):
    config = fast(tasks={"ack_wait": 1.0})
    async with (
        connected(server.url, roles=["backend"], config=config) as fleet,
        connected(server.url, config=config) as other,
    ):
        queue, runs = fleet.tasks("backend"), []
        fail, finish = asyncio.Event(), asyncio.Event()

        async def late(task):
            runs.append(("late", task.attempt))
            await fail.wait()
            raise ValueError("late")

        async def new(task):
            runs.append(("new", task.attempt))
            await finish.wait()

        old = queue.worker("late")

        async def silent(delivery):
            """As a blocked event loop."""

        monkeypatch.setattr(old.lane, "extend", silent)
        await queue.submit("code", id="a")
        async with running(old, late):
            await until(lambda: runs)
            async with running(other.tasks("backend").worker("new", concurrency=2), new):
                await until(lambda: len(runs) == 2)
                fail.set()
                await until(lambda: not old.running)

                async def two_runs():
                    return runs == [("late", 1), ("new", 2)] and (await queue.status("a")).state == "working"

                await holds(two_runs, 0.6)
                finish.set()
                await drained(queue)
        status = await queue.status("a")
        assert (status.state, status.agent, status.attempts) == ("completed", "new", 2)
        assert len(runs) == 2
        assert await fleet.dead_letters.list() == []


async def test_a_cancellation_that_was_confirmed_stands_when_the_handler_finishes(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, started, finish = fleet.tasks("backend"), asyncio.Event(), asyncio.Event()

        async def work(task):
            started.set()
            await finish.wait()
            return "done"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            await asyncio.wait_for(started.wait(), 20)
            assert await queue.cancel("a", reason="not needed")
            finish.set()
            await drained(queue)
        status = await queue.status("a")
        assert (status.state, status.note, status.result) == ("canceled", "not needed", None)
        assert await fleet.inbox("ceo").peek() == []


# -- loops and stops


async def test_a_delay_that_is_none_is_replaced_by_the_policy(server):
    policy = RetryPolicy(base=0.4, factor=1.0, max=0.4, jitter=0.0)
    async with connected(server.url, roles=["backend"], config=fast(tasks={"retry": policy})) as fleet:
        queue, moments = fleet.tasks("backend"), defaultdict(list)
        delays = {"forever": float("inf"), "nothing": float("nan"), "before": -1.0}

        async def work(task):
            moments[task.id].append(time.monotonic())
            if task.attempt == 1:
                raise Retry("later", after=delays[task.id])

        async with running(queue.worker("w"), work):
            for task in delays:
                await queue.submit("code", id=task)
            for task in delays:
                status = await queue.wait(task, 5)
                assert (status.state, status.attempts) == ("completed", 2)
        assert all(second - first >= 0.35 for first, second in moments.values())


async def test_a_delay_beyond_what_the_server_counts_is_long_and_the_loop_goes_on(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append(task.id)
            if task.id == "a":
                raise Retry("in a long time", after=1e12)

        await queue.submit("code", id="a")
        await queue.submit("code", id="b")
        async with running(queue.worker("w"), work):
            assert (await queue.wait("b", 5)).state == "completed"

            async def delayed():
                return runs == ["a", "b"]

            await holds(delayed, 0.5)
            assert (await queue.depth()).messages == 1


async def test_an_unexpected_error_in_a_sweep_does_not_end_the_sweeping(server, monkeypatch):
    monkeypatch.setattr(patterns.inbox, "SWEEP_INTERVAL", 0.05)
    async with connected(server.url, agents=["ceo"]) as fleet:
        sweeps = []

        async def broken(stream, durable):
            sweeps.append(stream)
            raise KeyError("x")

        async def read(message):
            pass

        monkeypatch.setattr(fleet.dead_letters, "sweep", broken)
        async with running(fleet.inbox("ceo").consumer(), read):
            await until(lambda: len(sweeps) >= 3, 5)


async def test_an_agent_ends_when_its_connection_is_closed_for_good(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        agent = fleet.agent("ceo", role="backend")
        agent.on_message()(_nothing)
        agent.on_task()(_nothing)
        living = asyncio.create_task(agent.run())
        await until(lambda: waiting(fleet))
        await fleet.nc.close()
        with pytest.raises(nats.errors.ConnectionClosedError):
            await asyncio.wait_for(living, 5)


async def _nothing(delivery):
    pass


@pytest.mark.parametrize("kind", ["done", "rejected"])
async def test_a_graceful_stop_waits_for_a_settlement_under_way(server, monkeypatch, kind):
    async with connected(server.url, agents=["ceo"], config=fast(drain_grace=0.1)) as fleet:
        real, asked, answered = Lane._answer, asyncio.Event(), []

        async def slow(lane, delivery, body):
            asked.set()
            await asyncio.sleep(0.8)  # as a server that elects a leader
            await real(lane, delivery, body)
            answered.append(body)

        monkeypatch.setattr(Lane, "_answer", slow)

        async def read(message):
            if kind == "rejected":
                raise Reject("no")

        consumer = fleet.inbox("ceo").consumer()
        loop = asyncio.create_task(consumer.run(read))
        await fleet.inbox("ceo").send("note")
        await asyncio.wait_for(asked.wait(), 20)
        await consumer.stop()
        assert answered == [b"+ACK"]
        await loop
        await drained(fleet.inbox("ceo"))


# -- outages, unprovisioned servers, replicas


async def test_whoever_waits_or_watches_survives_an_outage(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(poll=0.2)) as fleet:
        queue, events, letters = fleet.tasks("backend"), [], []
        await queue.submit("code", id="a")

        async def watch_events():
            async for event in fleet.events.watch("news.>"):
                events.append(event.data)

        async def watch_letters():
            async for letter in fleet.dead_letters.watch():
                letters.append(letter.id)

        tasks = [asyncio.create_task(work) for work in (queue.wait("a", 30), watch_events(), watch_letters())]
        waiter = tasks[0]
        try:

            async def seen():
                await fleet.events.broadcast("news.x", "before")
                return events

            await until(seen)
            server.kill()
            await asyncio.sleep(5.3)  # longer than any single question is waited for
            await asyncio.to_thread(server.restart)
            await until(lambda: fleet.nc.is_connected)
            assert [task for task in tasks if task.done()] == []
            await fleet.events.broadcast("news.x", "after")
            delivery = await queue.next("w", 20)
            await delivery.reject("no")
            assert (await asyncio.wait_for(waiter, 5)).state == "rejected"
            await until(lambda: letters == ["a"] and events[-1] == "after", 5)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_subscribing_on_a_server_that_was_not_provisioned_says_so(server):
    async with Fleet.connect(server.url, config=fast()) as fleet:
        with pytest.raises(UnknownDestination, match="provision"):
            await fleet.events.subscription("sec", "news.>")


async def test_provisioning_with_fewer_replicas_takes_no_copies_away(cluster):
    three, one = fast(limits=StreamLimits(replicas=3)), fast()
    async with Fleet.connect(cluster.urls, config=three) as fleet, Fleet.connect(cluster.urls, config=one) as other:
        await fleet.provision(agents=["ceo"])
        await other.provision(agents=["ceo"])
        streams, _ = await fleet.jetstream.streams()
        assert {info["config"]["name"]: info["config"]["num_replicas"] for info in streams} == dict.fromkeys(
            ("EVENTS", "DLQ", "INBOX_CEO", "KV_TASKS", "KV_RECEIPTS"), 3
        )
