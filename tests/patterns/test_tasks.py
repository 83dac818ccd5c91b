"""Task queues: what is queued runs, ends once, and its submitter hears of it."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from nats.js import api

from patterns import (
    ConfigMismatch,
    Fleet,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    QueueFull,
    Reject,
    Retry,
    RetryPolicy,
    StreamLimits,
    Unavailable,
    UnknownDestination,
)
from patterns.config import DeliveryConfig
from patterns.lane import Lane
from patterns.ledger import RESULT_LIMIT
from tests.support.fleets import LONG_LEASE, connected, drained, fast, publish, running
from tests.support.waiting import until

STREAM = "TASKS_BACKEND"


async def letters(fleet, count=1):
    """The dead letters, as soon as there are `count`."""

    async def enough():
        found = await fleet.dead_letters.list()
        return found if len(found) >= count else None

    return await until(enough)


async def outcomes(fleet, agent="ceo", count=1):
    """The outcomes in an agent's inbox, as soon as there are `count`."""

    async def enough():
        found = await fleet.inbox(agent).peek()
        return found if len(found) >= count else None

    return await until(enough)


# -- submitting


async def test_tq1_the_same_id_twice_is_one_task(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        first = await queue.submit("code", {"n": 1}, id="feat-1")
        second = await queue.submit("code", {"n": 2}, id="feat-1")
        assert (first.duplicate, second.duplicate) == (False, True)
        assert second.seq == first.seq
        await queue.submit("code", id="sentinel")
        ran = []

        async def work(task):
            ran.append((task.id, task.data))

        async with running(queue.worker("w"), work):
            await queue.wait("sentinel", 20)
        assert ran == [("feat-1", {"n": 1}), ("sentinel", None)]


async def test_tq1_a_completed_task_submitted_again_beyond_the_window_sends_its_result_again(server):
    config = fast(limits=StreamLimits(duplicate_window=0.2))
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append(task.id)
            return len(ran)

        async with running(queue.worker("w"), work):
            await queue.submit("code", id="feat-1")
            await queue.wait("feat-1", 20)

            async def stored_again():
                return not (await queue.submit("code", id="feat-1", reply_to="agents.ceo.inbox")).duplicate

            await until(stored_again, every=0.1)
            (told,) = await outcomes(fleet)
            await drained(queue)
        assert ran == ["feat-1"]
        assert told.data["result"] == 1


async def test_tq12_data_that_is_not_json_is_refused_before_anything_is_sent(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        for data in (float("nan"), {"x": float("inf")}, object(), "\ud800"):
            with pytest.raises(InvalidMessage):
                await queue.submit("code", data)
        for bad in ("", "a.b", "a b", "x" * 129, "a\n"):
            with pytest.raises(InvalidName):
                await queue.submit("code", id=bad)
        for bad in ("", "a.*", ">", "a..b", "a b", ".".join("abcdefghi")):
            with pytest.raises(InvalidName):
                await queue.submit(bad)
        assert (await queue.depth()).messages == 0


async def test_tq15_a_full_queue_refuses_and_loses_nothing(server):
    async with connected(server.url, roles=["backend"], config=fast(limits=StreamLimits(max_msgs=3))) as fleet:
        queue, ran = fleet.tasks("backend"), []
        for name in "abc":
            await queue.submit("code", id=name)
        with pytest.raises(QueueFull):
            await queue.submit("code", id="d")
        assert (await queue.depth()).messages == 3
        assert await queue.status("d") is None

        async def work(task):
            ran.append(task.id)

        async with running(queue.worker("w"), work):
            await drained(queue)
            await queue.submit("code", id="d")
            await queue.wait("d", 20)
        assert ran == ["a", "b", "c", "d"]


async def test_tq16_a_message_over_the_limit_is_refused_here_and_the_connection_lives(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        largest = fleet.nc.max_payload
        for options in (
            {"data": b"x" * largest},
            {"headers": {"x-big": "h" * largest}},
            # The server would take this one, but not its dead letter.
            {"data": b"x" * (largest - 4096)},
        ):
            with pytest.raises(MessageTooLarge):
                await queue.submit("code", id="big", **options)
        assert fleet.nc.is_connected
        assert not (await queue.submit("code", id="big")).duplicate


async def test_tq16_the_largest_message_still_fits_the_dead_letters_whole(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, body = fleet.tasks("backend"), b"x" * (fleet.nc.max_payload - 8192 - 512)
        await queue.submit("code", body, id="big")

        async def work(task):
            raise Reject("ä" * 600)

        async with running(queue.worker("w"), work):
            (letter,) = await letters(fleet)
        assert letter.message.data == body
        assert "Dead-Letter-Truncated" not in letter.message.headers
        assert letter.error == "ä" * 512


async def test_an_unknown_role_is_an_error(server):
    async with connected(server.url) as fleet:
        with pytest.raises(UnknownDestination):
            await fleet.tasks("nobody").submit("code")


# -- failing


async def test_tq9_a_failing_task_is_retried_by_policy_and_then_dead(server):
    retry = RetryPolicy(base=0.2, factor=3.0, max=5.0, jitter=0.0)
    config = fast(tasks={"retry": retry})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue, at = fleet.tasks("backend"), []

        async def work(task):
            at.append((task.attempt, time.monotonic()))
            raise TimeoutError(f"no answer {task.attempt}")

        await queue.submit("code.feature", {"spec": 1}, id="f", reply_to="agents.ceo.inbox", source="ceo")
        async with running(queue.worker("w-1"), work):
            status = await queue.wait("f", 20)
            (told,) = await outcomes(fleet)
            await drained(queue)
        assert [attempt for attempt, _ in at] == [1, 2, 3]
        assert at[1][1] - at[0][1] >= 0.19
        assert at[2][1] - at[1][1] >= 0.59
        assert (status.state, status.error, status.agent, status.attempts) == (
            "failed",
            "TimeoutError: no answer 3",
            "w-1",
            3,
        )
        (letter,) = await fleet.dead_letters.list()
        assert (letter.kind, letter.name, letter.reason, letter.deliveries) == ("tasks", "backend", "max-deliver", 3)
        assert (letter.error_type, letter.error, letter.agent) == ("TimeoutError", "no answer 3", "w-1")
        assert (letter.id, letter.type, letter.subject) == ("f", "code.feature", "tasks.backend.code.feature")
        assert letter.message.data == {"spec": 1}
        assert letter.message.source == "ceo"
        assert letter.message.headers["Dead-Letter-Error-At-Line"].startswith("test_tasks.py:")
        assert told.type == "task.failed"
        assert told.data["reason"] == "max-deliver"
        assert told.data["error"] == "TimeoutError: no answer 3"


async def test_tq9_each_delay_is_that_of_the_policy_give_or_take_its_jitter(server, monkeypatch):
    config = fast(tasks={"max_deliver": 4, "retry": RetryPolicy(base=0.01, factor=4.0, max=0.1, jitter=0.5)})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, asked = fleet.tasks("backend"), {1: [], 2: [], 3: []}
        give_back = Lane.give_back

        async def noted(lane, delivery, after):
            asked[delivery.attempt].append(after)
            await give_back(lane, delivery, after)

        monkeypatch.setattr(Lane, "give_back", noted)

        async def fail(task):
            raise ValueError("no luck")

        for n in range(30):
            await queue.submit("code", id=str(n))
        async with running(queue.worker("w", concurrency=10), fail):
            await drained(queue)
        assert {attempt: len(delays) for attempt, delays in asked.items()} == {1: 30, 2: 30, 3: 30}
        for attempt, plain in ((1, 0.01), (2, 0.04), (3, 0.1)):
            delays = asked[attempt]
            assert plain * 0.5 <= min(delays) < max(delays) <= plain * 1.5
            # 30 random ones do not all lie in the middle fifth.
            assert max(delays) - min(delays) > plain * 0.2


async def test_tq10_retry_after_is_honoured(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, at = fleet.tasks("backend"), []

        async def work(task):
            at.append(time.monotonic())
            if task.attempt == 1:
                raise Retry("rate limited", after=1.0)

        await queue.submit("code", id="a")
        async with running(queue.worker("w"), work):
            status = await until(lambda: queue.status("a")) and await queue.wait("a", 20)
        assert at[1] - at[0] >= 0.99
        assert (status.state, status.attempts) == ("completed", 2)


async def test_tq11_a_rejected_task_is_dead_at_once(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, attempts = fleet.tasks("backend"), []

        async def work(task):
            attempts.append(task.attempt)
            raise Reject("no spec")

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (told,) = await outcomes(fleet)
            await drained(queue)
        (letter,) = await fleet.dead_letters.list()
        assert attempts == [1]
        assert (letter.reason, letter.error, letter.deliveries) == ("rejected", "no spec", 1)
        assert status.state == "rejected"
        assert (told.type, told.data["reason"], told.correlation_id) == ("task.failed", "rejected", "a")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"a":', {}),
        (b"[NaN]", {}),
        (b"\xff\xfe", {}),
        (b"{}", {"ce-expirytime": "soon"}),
        (b"{}", {"Agent-Hops": "-1"}),
    ],
)
async def test_tq12_a_message_that_cannot_be_read_is_dead_without_an_attempt(server, body, headers):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append(task.id)

        seq = await publish(fleet, "tasks.backend.code", body, headers)
        async with running(queue.worker("w"), work):
            (letter,) = await letters(fleet)
            await drained(queue)
        assert ran == []
        assert (letter.reason, letter.id, letter.deliveries) == ("invalid", f"{STREAM}-{seq}", 1)
        assert letter.message.body == body


async def test_tq12_a_bare_message_is_processed(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, seen = fleet.tasks("backend"), []

        async def work(task):
            seen.append(task.message)
            return "ok"

        seq = await publish(fleet, "tasks.backend.code.review", b'{"a":1}')
        async with running(queue.worker("w"), work):
            status = await queue.wait(f"{STREAM}-{seq}", 20)
        assert (seen[0].type, seen[0].source, seen[0].data) == ("code.review", "unknown", {"a": 1})
        assert status.result == "ok"


async def test_tq12_an_id_that_is_no_key_is_kept_and_has_a_ledger_record(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            return task.id

        await publish(fleet, "tasks.backend.code", b"", {"Nats-Msg-Id": "foreign.id with > dots"})
        async with running(queue.worker("w"), work):
            status = await queue.wait("foreign.id with > dots", 20)
        assert status.result == "foreign.id with > dots"


async def test_tq13_a_type_nobody_handles_is_dead_as_unhandled(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        worker = fleet.agent("w", role="backend")

        @worker.on_task("code.*")
        async def code(task):
            return "done"

        queue = fleet.tasks("backend")
        async with worker:
            await queue.submit("docs.write", id="a")
            await queue.submit("code.write", id="b")
            assert (await queue.wait("b", 20)).state == "completed"
            (letter,) = await letters(fleet)
        assert (letter.id, letter.reason) == ("a", "unhandled")
        assert "docs.write" in letter.error


async def test_tq14_an_expired_task_is_dead_and_not_run(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append(task.id)

        await queue.submit("code", id="late", expires_in=0.05, reply_to="agents.ceo.inbox")
        await queue.submit("code", id="in-time", expires_in=600)
        deadline = (await fleet.jetstream.read(STREAM, limit=1)).messages[0].headers["ce-expirytime"]
        await until(lambda: datetime.now(UTC) > datetime.fromisoformat(deadline))
        async with running(queue.worker("w"), work):
            await queue.wait("in-time", 20)
            (told,) = await outcomes(fleet)
        (letter,) = await fleet.dead_letters.list()
        assert ran == ["in-time"]
        assert (letter.id, letter.reason) == ("late", "expired")
        assert (told.type, told.data["reason"]) == ("task.failed", "expired")


async def test_a_delegation_circle_ends_among_the_dead(server):
    async with connected(server.url, roles=["backend"], config=fast(max_hops=3)) as fleet:
        queue, hops = fleet.tasks("backend"), []

        async def work(task):
            hops.append(task.message.hops)
            await queue.submit("code", {"again": True})

        await queue.submit("code")
        async with running(queue.worker("w"), work):
            (letter,) = await letters(fleet)
            await drained(queue)
        assert hops == [0, 1, 2, 3]
        assert letter.reason == "max-hops"


async def test_a_result_that_is_not_json_fails_like_an_error_of_the_handler(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, attempts = fleet.tasks("backend"), []

        async def work(task):
            attempts.append(task.attempt)
            return {"score": float("nan")}

        await queue.submit("code", id="a")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            await drained(queue)
        (letter,) = await fleet.dead_letters.list()
        assert attempts == [1, 2, 3]
        assert (letter.reason, letter.error_type) == ("max-deliver", "InvalidMessage")
        assert status.state == "failed"


# -- leases, stopping, cancelling


async def test_tq6_a_task_longer_than_its_lease_runs_once(server):
    async with connected(server.url, roles=["backend"], config=fast(tasks={"ack_wait": 1.0})) as fleet:
        queue, attempts = fleet.tasks("backend"), []

        async def work(task):
            attempts.append(task.attempt)
            await asyncio.sleep(2.5)

        await queue.submit("code", id="a")
        async with running(queue.worker("w-1"), work), running(queue.worker("w-2"), work):
            await queue.wait("a", 20)
            await drained(queue)
        assert attempts == [1]


async def test_tq7_a_hanging_handler_is_cancelled_and_finally_dead(server):
    config = fast(tasks={"max_runtime": 0.2, "max_deliver": 2})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, cancelled = fleet.tasks("backend"), []

        async def work(task):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(task.attempt)
                raise

        await queue.submit("code", id="a")
        async with running(queue.worker("w"), work):
            await queue.wait("a", 20)
            await drained(queue)
        (letter,) = await fleet.dead_letters.list()
        assert cancelled == [1, 2]
        assert (letter.reason, letter.error_type) == ("max-deliver", "TimeoutError")
        assert "max_runtime" in letter.error


async def test_tq8_of_two_that_finish_the_first_decides_the_result(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks={"ack_wait": 1.0})) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        slow = await queue.next("slow", 20)
        # `slow` is not entered: it has no heartbeat, as if it blocked the event loop.
        fast_one = await queue.next("fast", 20)
        assert (slow.attempt, fast_one.attempt) == (1, 2)
        async with fast_one:
            fast_one.result = "from fast"
        slow.result = "from slow"
        await slow.ack()
        status = await queue.status("a")
        (told,) = await outcomes(fleet)
        assert (status.result, told.data["result"], told.data["agent"]) == ("from fast", "from fast", "fast")
        await drained(queue)
        assert await fleet.dead_letters.list() == []


async def test_tq8_a_handler_that_blocks_its_event_loop_loses_the_task_and_its_late_end_changes_nothing(server):
    config = fast(tasks={"ack_wait": 1.0})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue, runs = fleet.tasks("backend"), []
        blocked, free = threading.Event(), threading.Event()

        async def live():
            async with Fleet.connect(server.url, config=config) as other:

                async def block(task):
                    runs.append(("slow", task.attempt))
                    blocked.set()
                    free.wait(30)
                    return "from slow"

                consumer = other.tasks("backend").worker("slow")
                async with running(consumer, block):
                    await until(lambda: runs and not consumer.running)

        async def work(task):
            runs.append(("fast", task.attempt))
            return "from fast"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        # A process of its own, as far as an event loop can tell.
        living = asyncio.create_task(asyncio.to_thread(asyncio.run, live()))
        try:
            await until(blocked.is_set)
            async with running(queue.worker("fast"), work):
                assert (await queue.wait("a", 20)).result == "from fast"
        finally:
            free.set()
            await living
        await drained(queue)
        assert runs == [("slow", 1), ("fast", 2)]
        assert (await queue.status("a")).result == "from fast"
        assert [told.data["result"] for told in await fleet.inbox("ceo").peek()] == ["from fast"]
        assert await fleet.dead_letters.list() == []


async def test_tq20_a_graceful_stop_hands_the_task_back_at_once(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, started, attempts = fleet.tasks("backend"), asyncio.Event(), []

        async def hang(task):
            started.set()
            await asyncio.Event().wait()

        async def work(task):
            attempts.append(task.attempt)

        await queue.submit("code", id="a")
        async with running(queue.worker("w-1"), hang):
            await asyncio.wait_for(started.wait(), 20)
        async with running(queue.worker("w-2"), work):
            status = await queue.wait("a", LONG_LEASE / 2)
        assert attempts == [1]
        assert (status.agent, status.attempts) == ("w-2", 1)


async def test_tq20_a_stop_waits_for_running_tasks_as_long_as_the_grace(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, started, finish = fleet.tasks("backend"), asyncio.Event(), asyncio.Event()

        async def work(task):
            started.set()
            await finish.wait()
            return "done"

        await queue.submit("code", id="a")
        worker = queue.worker("w")
        loop = asyncio.create_task(worker.run(work))
        await asyncio.wait_for(started.wait(), 20)
        stopping = asyncio.create_task(worker.stop(20))
        await queue.submit("code", id="b")
        for _ in range(50):
            # Round trips behind those of the stop: one that waited for nobody has cancelled the handler by now.
            await fleet.nc.flush()
        finish.set()
        await stopping
        await loop
        assert (await queue.status("a")).state == "completed"
        assert (await queue.status("b")).state == "submitted"
        assert (await queue.depth()).ack_pending == 0


async def test_tq27_five_restarts_of_its_worker_do_not_kill_a_task(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, attempts = fleet.tasks("backend"), []
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        for n in range(5):
            started = asyncio.Event()

            async def hang(task, started=started):
                attempts.append(task.attempt)
                started.set()
                await asyncio.Event().wait()

            async with running(queue.worker(f"w-{n}"), hang):
                await asyncio.wait_for(started.wait(), 20)

        async def work(task):
            attempts.append(task.attempt)
            return "done"

        async with running(queue.worker("last"), work):
            status = await queue.wait("a", 20)
            await outcomes(fleet)
            await drained(queue)
        assert attempts == [1] * 6
        assert (status.state, status.attempts) == ("completed", 1)
        assert len(await fleet.inbox("ceo").peek()) == 1
        assert await fleet.dead_letters.list() == []


async def test_tq21_a_queued_task_that_is_canceled_never_runs(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []
        await queue.submit("code", id="a")
        await queue.submit("code", id="sentinel")
        assert await queue.cancel("a", reason="changed our mind")
        assert not await queue.cancel("nobody")

        async def work(task):
            ran.append(task.id)

        async with running(queue.worker("w"), work):
            await queue.wait("sentinel", 20)
            await drained(queue)
        status = await queue.status("a")
        assert ran == ["sentinel"]
        assert (status.state, status.note) == ("canceled", "changed our mind")
        assert not await queue.cancel("sentinel")
        assert await fleet.dead_letters.list() == []


async def test_tq21_a_running_task_that_is_canceled_ends_at_the_next_heartbeat(server):
    # A heartbeat of a third of this lease would come after the test has given up.
    config = fast(tasks={"heartbeat": 0.1, "ack_wait": 3 * LONG_LEASE})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, started, cancelled = fleet.tasks("backend"), asyncio.Event(), asyncio.Event()

        async def hang(task):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await queue.submit("code", id="a")
        async with running(queue.worker("w"), hang):
            await asyncio.wait_for(started.wait(), 20)
            assert await queue.cancel("a")
            await asyncio.wait_for(cancelled.wait(), 20)
            await drained(queue)
        assert (await queue.status("a")).state == "canceled"
        assert await fleet.dead_letters.list() == []


async def test_tq23_a_lost_acknowledgement_of_the_last_delivery_makes_no_dead_letter(server, monkeypatch):
    config = fast(tasks={"ack_wait": 0.5, "max_deliver": 1})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue, ran, lost = fleet.tasks("backend"), [], []
        confirm = Lane.confirm

        async def lossy(lane, delivery):
            if not lost:
                lost.append(delivery.id)
                raise Unavailable("the acknowledgement got lost")
            await confirm(lane, delivery)

        monkeypatch.setattr(Lane, "confirm", lossy)

        async def work(task):
            ran.append(task.id)
            return "done"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            await drained(queue)
        assert lost == ran == ["a"]
        assert (await queue.status("a")).state == "completed"
        assert len(await fleet.inbox("ceo").peek()) == 1
        assert await fleet.dead_letters.list() == []


async def test_tq24_a_paused_role_gets_nothing_until_it_is_resumed(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.pause(600)
        await queue.submit("code", id="a")
        assert await queue.next("w", timeout=0.5) is None
        depth = await queue.depth()
        assert (depth.paused, depth.pending) == (True, 1)
        await queue.resume()
        assert not (await queue.depth()).paused
        task = await queue.next("w", timeout=20)
        assert (task.id, task.attempt) == ("a", 1)


# -- provisioning


async def test_tq25_another_lease_is_updated(server):
    async with connected(server.url, roles=["backend"], config=fast(tasks={"ack_wait": 30.0})) as fleet:
        await fleet.tasks("backend").submit("code", id="a")
    async with connected(
        server.url, roles=["backend"], config=fast(tasks={"ack_wait": 7.0, "max_deliver": 9})
    ) as fleet:
        info = await fleet.jetstream.consumer_info(STREAM, "backend-workers")
        assert info["config"]["ack_wait"] == 7_000_000_000
        assert info["config"]["metadata"]["agents.max-deliver"] == "9"
        assert (await fleet.tasks("backend").depth()).messages == 1


async def test_tq25_another_shape_is_refused(server):
    async with connected(server.url) as fleet:
        await fleet.js.add_stream(
            name=STREAM, subjects=["tasks.backend.>"], retention=api.RetentionPolicy.LIMITS, discard="new"
        )
        with pytest.raises(ConfigMismatch, match=r"TASKS_BACKEND.*retention.*limits.*workqueue"):
            await fleet.provision(roles=["backend"])
        assert await fleet.jetstream.consumer_info(STREAM, "backend-workers") is None


async def test_tq25_other_limits_are_updated(server):
    async with connected(server.url, roles=["backend"], config=fast(limits=StreamLimits(max_msgs=5))) as fleet:
        await fleet.tasks("backend").submit("code", id="a")
    limits = StreamLimits(max_msgs=7, duplicate_window=60.0)
    async with connected(server.url, roles=["backend"], config=fast(limits=limits)) as fleet:
        config = (await fleet.jetstream.stream_info(STREAM))["config"]
        assert (config["max_msgs"], config["duplicate_window"]) == (7, 60_000_000_000)
        assert (await fleet.tasks("backend").depth()).messages == 1


async def test_tq25_a_consumer_of_another_shape_is_refused(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        await fleet.js.delete_consumer(STREAM, "backend-workers")
        narrow = api.ConsumerConfig(
            durable_name="backend-workers", ack_policy=api.AckPolicy.EXPLICIT, filter_subject="tasks.backend.code"
        )
        await fleet.js.add_consumer(STREAM, narrow)
        with pytest.raises(ConfigMismatch, match=r"backend-workers.*filter_subject.*'tasks\.backend\.code'"):
            await fleet.provision(roles=["backend"])


async def test_tq25_a_stream_that_takes_the_subjects_already_is_named(server):
    async with connected(server.url) as fleet:
        await fleet.js.add_stream(name="OTHER", subjects=["tasks.>"])
        with pytest.raises(ConfigMismatch, match="TASKS_BACKEND"):
            await fleet.provision(roles=["backend"])


async def test_tq25_a_role_has_its_own_delivery(server):
    roles = {"devops": DeliveryConfig(ack_wait=11.0, max_ack_pending=1)}
    async with connected(server.url, roles=["backend", "devops"], config=fast(roles=roles)) as fleet:
        info = await fleet.jetstream.consumer_info("TASKS_DEVOPS", "devops-workers")
        assert (info["config"]["ack_wait"], info["config"]["max_ack_pending"]) == (11_000_000_000, 1)
        other = await fleet.jetstream.consumer_info(STREAM, "backend-workers")
        assert other["config"]["max_ack_pending"] == 64
        # The library counts a task's deliveries itself.
        assert info["config"].get("max_deliver", -1) == other["config"].get("max_deliver", -1) == -1


# -- results


async def test_the_result_reaches_the_submitters_inbox_in_one_conversation(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        ceo, worker = fleet.agent("ceo"), fleet.agent("w", role="backend")

        @worker.on_task()
        async def work(task):
            return {"pr": 247}

        async with worker:
            await ceo.submit("backend", "code", {"spec": "x"}, id="feat-12")
            told = await ceo.next_message(20)
            status = await fleet.tasks("backend").wait("feat-12", 20)
        assert (told.type, told.source) == ("task.completed", "w")
        assert told.data == {
            "task": "feat-12",
            "role": "backend",
            "type": "code",
            "agent": "w",
            "attempts": 1,
            "result": {"pr": 247},
        }
        assert (told.correlation_id, told.message.causation_id) == ("feat-12", "feat-12")
        assert (status.state, status.result, status.agent) == ("completed", {"pr": 247}, "w")


async def test_without_a_reply_address_nobody_is_told(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        ceo, worker = fleet.agent("ceo"), fleet.agent("w", role="backend")

        @worker.on_task("good")
        async def good(task):
            return 1

        async with worker:
            await ceo.submit("backend", "good", id="a", reply_to=None)
            await ceo.submit("backend", "bad", id="b", reply_to=None)
            await ceo.submit("backend", "good", id="c")
            await outcomes(fleet)
        assert [m.data["task"] for m in await fleet.inbox("ceo").peek()] == ["c"]


async def test_tq26_one_id_in_two_roles_is_two_tasks_with_two_results(server):
    async with connected(server.url, agents=["ceo"], roles=["backend", "frontend"]) as fleet:
        ceo = fleet.agent("ceo")

        async def work(task):
            return task.subject

        for role in ("backend", "frontend"):
            await ceo.submit(role, "code", id="same")
            async with running(fleet.tasks(role).worker("w"), work):
                status = await fleet.tasks(role).wait("same", 20)
                assert status.result == f"tasks.{role}.code"
        told = await outcomes(fleet, count=2)
        assert sorted(m.data["role"] for m in told) == ["backend", "frontend"]


@pytest.mark.parametrize("reply_to", ["agents.ghost.inbox", "nowhere.at.all", "not a subject", "agents.*.inbox"])
async def test_tq28_an_outcome_nobody_takes_is_dead_itself(server, reply_to):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append(task.id)
            return 42

        await queue.submit("code", id="a", reply_to=reply_to)
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (letter,) = await letters(fleet)
            await drained(queue)
        assert ran == ["a"]
        assert (status.state, status.result) == ("completed", 42)
        assert (letter.reason, letter.type, letter.subject) == (
            "undeliverable",
            "task.completed",
            f"{reply_to}.task.completed",
        )
        assert letter.message.data["result"] == 42
        assert "not delivered" in (await queue.status("a")).note


async def test_tq28_an_undeliverable_outcome_can_be_replayed_once_the_inbox_exists(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            return 42

        await queue.submit("code", id="a", reply_to="agents.ghost.inbox")
        async with running(queue.worker("w"), work):
            (letter,) = await letters(fleet)
        assert (letter.kind, letter.name) == ("inbox", "ghost")
        await fleet.provision(agents=["ghost"])
        await fleet.dead_letters.replay(letter.seq, by="test")
        told = await fleet.inbox("ghost").next(20)
        assert (told.type, told.data["result"]) == ("task.completed", 42)


async def test_a_result_over_the_ledgers_limit_is_sent_and_only_noted_there(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, large = fleet.tasks("backend"), "x" * (RESULT_LIMIT + 1)

        async def work(task):
            return large

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (told,) = await outcomes(fleet)
        assert told.data["result"] == large
        assert status.result is None
        assert "bytes" in status.note


async def test_a_result_over_the_servers_limit_completes_the_task_without_it(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append(task.attempt)
            return "x" * fleet.nc.max_payload

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (told,) = await outcomes(fleet)
            await drained(queue)
        assert ran == [1]
        assert status.state == "completed"
        assert told.data["result"] is None
        assert "bytes" in told.data["note"]


async def test_whatever_json_can_carry_is_a_result(server):
    @dataclass
    class Point:
        x: int

    class Model:
        def model_dump(self, mode):
            return {"mode": mode}

    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            return {"point": Point(1), "model": Model(), "text": "\N{SNOWMAN}"}

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (told,) = await outcomes(fleet)
        assert (
            status.result
            == told.data["result"]
            == {"point": {"x": 1}, "model": {"mode": "json"}, "text": "\N{SNOWMAN}"}
        )


async def test_bytes_are_no_result_but_the_task_is_complete(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            return b"\x00\x01"

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            status = await queue.wait("a", 20)
            (told,) = await outcomes(fleet)
        assert (status.state, told.data["result"]) == ("completed", None)
        assert "2 bytes" in told.data["note"]


async def test_wait_times_out_and_says_so(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        assert await queue.status("a") is None
        await queue.submit("code", id="a")
        assert (await queue.status("a")).state == "submitted"
        with pytest.raises(TimeoutError, match="task a of backend"):
            await queue.wait("a", 0.1)


async def test_wait_returns_when_the_task_ends(server):
    async with connected(server.url, roles=["backend"], config=fast(poll=30.0)) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        waiting = asyncio.create_task(queue.wait("a", 20))
        async with await queue.next("w", 20) as task:
            assert not waiting.done()
            task.result = 1
        assert (await waiting).result == 1


async def test_progress_stands_in_the_ledger(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        async with await queue.next("w", 20) as task:
            await task.progress("tests written")
            status = await queue.status("a")
        assert (status.state, status.agent, status.note) == ("working", "w", "tests written")


async def test_depth_counts_what_waits_and_what_is_in_flight(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        for n in range(3):
            await queue.submit("code", id=str(n))
        async with await queue.next("w", 20):
            depth = await queue.depth()
        assert (depth.messages, depth.pending, depth.ack_pending, depth.stranded) == (3, 2, 1, None)


# -- consuming


async def test_concurrency_is_used_and_not_exceeded(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, together, most, running_now = fleet.tasks("backend"), asyncio.Barrier(3), 0, 0

        async def work(task):
            nonlocal most, running_now
            running_now += 1
            most = max(most, running_now)
            await together.wait()
            running_now -= 1

        for n in range(9):
            await queue.submit("code", id=str(n))
        async with running(queue.worker("w", concurrency=3), work):
            await drained(queue)
        assert most == 3


async def test_a_worker_pulls_nothing_ahead_of_a_free_slot(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, started, finish = fleet.tasks("backend"), asyncio.Event(), asyncio.Event()

        async def work(task):
            started.set()
            await finish.wait()

        await queue.submit("code", id="a")
        await queue.submit("code", id="b")
        async with running(queue.worker("w"), work):
            await asyncio.wait_for(started.wait(), 20)
            assert (await queue.next("other", 20)).id == "b"
            finish.set()
            await queue.wait("a", 20)


async def test_a_worker_is_an_async_iterator(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, seen = fleet.tasks("backend"), []
        for name in "ab":
            await queue.submit("code", id=name)
        async with queue.worker("w") as worker:
            async for task in worker:
                async with task:
                    seen.append(task.id)
                if len(seen) == 2:
                    break
        await drained(queue)
        assert seen == ["a", "b"]


async def test_the_first_settlement_counts(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        async with await queue.next("w", 20) as task:
            await task.reject("by hand")
            await task.ack()
            await task.retry()
        (letter,) = await fleet.dead_letters.list()
        assert (letter.reason, letter.error, task.settled) == ("rejected", "by hand", "dead")
        await drained(queue)


async def test_a_cancelled_next_loses_no_task(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, seen, rounds = fleet.tasks("backend"), [], 0
        names = [str(n) for n in range(40)]

        async def submit():
            for name in names:
                await queue.submit("code", id=name)

        submitting = asyncio.create_task(submit())
        while len(seen) < len(names):
            rounds += 1
            taking = asyncio.create_task(queue.next("w", LONG_LEASE / 2))
            if rounds % 6:
                # Give up before, while and after the task arrives.
                await asyncio.sleep(rounds % 40 * 0.0002)
                taking.cancel()
            (task,) = await asyncio.gather(taking, return_exceptions=True)
            assert task is not None, "a task is held by nobody"
            if not isinstance(task, asyncio.CancelledError):
                async with task:
                    seen.append((task.id, task.attempt))
        await submitting
        # Given back and taken again, not once by a lease that expired; and a hand-back is not an attempt.
        assert sorted(seen) == sorted((name, 1) for name in names)
        assert await fleet.dead_letters.list() == []


async def test_a_next_cancelled_while_the_task_is_admitted_gives_it_back(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, reading, never = fleet.tasks("backend"), asyncio.Event(), asyncio.Event()
        await queue.submit("code", id="a")
        real = fleet.ledger.look

        async def slow(role, task):
            monkeypatch.setattr(fleet.ledger, "look", real)
            reading.set()
            await never.wait()

        monkeypatch.setattr(fleet.ledger, "look", slow)
        taking = asyncio.create_task(queue.next("w", 20))
        await asyncio.wait_for(reading.wait(), 20)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        task = await queue.next("w", LONG_LEASE / 2)
        assert task is not None
        assert (task.id, task.attempt) == ("a", 1)


async def test_a_record_that_was_deleted_by_hand_is_written_anew(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        bucket = await fleet.js.key_value("TASKS")
        await bucket.delete("backend.a")
        assert await queue.status("a") is None
        async with await queue.next("w", 20) as task:
            task.result = 1
        assert (await queue.status("a")).result == 1
