"""What is in flight, on real servers: which message, which delivery, in whose hands, and that looking disturbs nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from console.messages import place_of
from console.monitor.inflight import Hands, in_flight
from console.monitor.view import Subscription
from console.screens.inspect import subscription_pane
from patterns import Fleet, PatternError, RetryPolicy
from patterns.server import LocalServer
from tests.console.test_monitor_live import counters
from tests.console.test_monitor_states import depth
from tests.support.fleets import connected, fast, running, take
from tests.support.screens import desk
from tests.support.waiting import until

SOON = {"ack_wait": 0.3}
"""A lease that runs out while a test looks on."""


class Worker:
    """A client that pulls from the inbox of `ceo` and settles as it is told."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def next(self) -> Msg:
        """The next delivery."""
        subscription = await self.fleet.js.pull_subscribe_bind("ceo-processor", stream="INBOX_CEO")
        (message,) = await subscription.fetch(1, timeout=20)
        await subscription.unsubscribe()
        return message

    async def exhaust(self, deliveries: int) -> None:
        """Take a message and give it back until its deliveries are used up; the next pull leaves it stranded."""
        for _ in range(deliveries):
            await (await self.next()).nak()


async def look(fleet: Fleet, kind: Any = "inbox", name: str = "ceo", **options: Any) -> Hands:
    """What is in flight there."""
    return await in_flight(fleet, place_of(fleet.names, kind, name), **options)


async def delivery(fleet: Fleet) -> int | None:
    """Which delivery the only message in flight is in."""
    (item,) = (await look(fleet)).items
    return item.delivery


class TestInbox:
    async def test_nothing_is_in_flight_where_nobody_pulls(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            assert (await look(fleet)).items == ()
            await fleet.inbox("ceo").send("note", {})
            hands = await look(fleet)
            assert (hands.total, hands.items, hands.stranded) == (0, (), ())
            assert (hands.max_deliver, hands.max_ack_pending) == (3, 1)

    async def test_it_is_the_message_delivered_last(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            for number in range(3):
                await fleet.inbox("ceo").send("note", {}, id=f"m-{number}")
            worker = Worker(fleet)
            await (await worker.next()).ack_sync()
            await worker.next()
            hands = await look(fleet)
            (item,) = hands.items
            assert (hands.total, item.seq, item.message.id, item.agent) == (1, 2, "m-1", "ceo")
            assert (item.delivery, item.stage, hands.stranded) == (1, "delivered", ())
            info = await fleet.jetstream.consumer_info("INBOX_CEO", "ceo-processor")
            assert item.seen is not None
            assert info["delivered"]["last_active"].startswith(f"{item.seen:%Y-%m-%dT%H:%M:%S}")

    async def test_a_heartbeat_is_a_sign_of_life_and_no_delivery(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await fleet.inbox("ceo").send("note", {})
            message = await Worker(fleet).next()
            before = (await look(fleet)).items[0]

            async def seen_later() -> bool:
                await message.in_progress()
                return (await look(fleet)).items[0].seen > before.seen

            await until(seen_later)
            assert await delivery(fleet) == 1

    async def test_each_nak_and_each_lease_that_runs_out_is_one_delivery_more(self, server):
        config = fast(inbox={"max_deliver": 10, **SOON})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            for number in range(1, 6):
                message = await worker.next()
                assert message.metadata.num_delivered == number
                assert await delivery(fleet) == number
                if number % 2:
                    await message.nak()

    async def test_after_an_acknowledgement_a_term_and_a_deletion_counting_begins_anew(self, server):
        async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 10})) as fleet:
            for _ in range(4):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            for ending in ("ack", "term", "delete", "end"):
                await (await worker.next()).nak()
                message = await worker.next()
                assert (message.metadata.num_delivered, await delivery(fleet)) == (2, 2), ending
                if ending == "ack":
                    await message.ack_sync()
                elif ending == "term":
                    await message.term()
                elif ending == "delete":
                    await fleet.jetstream.delete("INBOX_CEO", message.metadata.sequence.stream)

    async def test_behind_a_stranded_message_only_a_first_delivery_can_be_known(self, server):
        config = fast(inbox={"max_deliver": 2})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            for _ in range(3):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            await worker.exhaust(2)
            message = await worker.next()
            assert message.metadata.sequence.stream == 2, "the first is stranded"
            hands = await look(fleet)
            assert (hands.stranded, [item.seq for item in hands.items]) == ((1,), [2])
            # The server counts the stranded one as redelivered, so that nothing is certain of the other.
            assert hands.items[0].delivery is None
            await message.ack_sync()
            await (await worker.next()).nak()
            assert await delivery(fleet) == 1, "an acknowledgement settles what was before"
            message = await worker.next()
            assert (message.metadata.num_delivered, await delivery(fleet)) == (2, 2)
            assert (await look(fleet)).stranded == (1,)

    async def test_a_stranded_message_that_is_taken_away_leaves_it_unknown(self, server):
        config = fast(inbox={"max_deliver": 3})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            for _ in range(2):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            await worker.exhaust(3)
            await (await worker.next()).nak()
            message = await worker.next()
            assert message.metadata.sequence.stream == 2
            await fleet.jetstream.delete("INBOX_CEO", 1)
            told = await delivery(fleet)
            assert told in (None, message.metadata.num_delivered)

    async def test_of_deliveries_that_begin_with_one_nothing_is_redelivered(self, server):
        async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 1})) as fleet:
            for _ in range(2):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            await worker.exhaust(1)
            message = await worker.next()
            assert message.metadata.sequence.stream == 2
            hands = await look(fleet)
            assert (hands.stranded, hands.items[0].delivery) == ((1,), 1)

    async def test_a_restart_forgets_the_sign_of_life_and_not_the_deliveries(self, server: LocalServer):
        config = fast(inbox={"max_deliver": 10, **SOON})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            await (await worker.next()).nak()
            await worker.next()
            server.kill()
            server.restart()

            async def back() -> Hands | None:
                try:
                    hands = await look(fleet)
                except (nats.errors.Error, PatternError):
                    return None
                return hands if hands.total else None

            (item,) = (await until(back)).items
            assert item.seen is None
            # Killed, it may have forgotten its last moments; what it counts is what it goes on from.
            assert item.delivery is not None
            assert (await worker.next()).metadata.num_delivered == item.delivery + 1

    async def test_exactly_what_is_stranded_is_named(self, server):
        async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 1})) as fleet:
            for _ in range(5):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            await worker.exhaust(1)
            await (await worker.next()).ack_sync()
            await worker.exhaust(1)
            await worker.next()
            hands = await look(fleet)
            assert (hands.stranded, [item.seq for item in hands.items]) == ((1, 3), [4])
            await fleet.jetstream.purge("INBOX_CEO", everything=True)
            hands = await look(fleet)
            assert (hands.total, hands.items, hands.stranded) == (0, (), ())

    async def test_where_several_are_in_flight_they_are_those_behind_the_last_settled_one(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            info = await fleet.jetstream.consumer_info("INBOX_CEO", "ceo-processor")
            assert info is not None
            config = {**info["config"], "max_ack_pending": 3}
            await fleet.jetstream.api(
                "CONSUMER.CREATE.INBOX_CEO.ceo-processor", {"stream_name": "INBOX_CEO", "config": config}
            )
            for _ in range(5):
                await fleet.inbox("ceo").send("note", {})
            worker = Worker(fleet)
            for _ in range(3):
                await worker.next()
            hands = await look(fleet)
            assert [(item.seq, item.delivery, item.seen) for item in hands.items] == [
                (1, 1, None),
                (2, 1, None),
                (3, 1, None),
            ]
            assert (hands.total, hands.candidates) == (3, False)


class TestQueue:
    async def test_the_ledger_says_who_is_at_work_since_when_and_for_which_time(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            queue = fleet.tasks("backend")
            for number in range(3):
                await queue.submit("code.feature", {}, id=f"t-{number}")
            begun, go = asyncio.Event(), asyncio.Event()

            async def work(task: Any) -> None:
                if task.id == "t-1":
                    await task.progress("half way")
                    begun.set()
                await go.wait()

            async with running(queue.worker("backend-1", concurrency=2), work):
                await begun.wait()
                hands = await look(fleet, "queue", "backend")
                told = {item.message.id: item for item in hands.items}
                assert (hands.total, sorted(told)) == (2, ["t-0", "t-1"])
                first, second = told["t-0"], told["t-1"]
                assert (first.stage, first.agent, first.delivery, first.note) == ("working", "backend-1", 1, "")
                assert first.since == first.seen == (await queue.status("t-0")).updated_at
                assert (second.note, second.since) == ("half way", None), "the note was written after the beginning"
                assert second.seen == (await queue.status("t-1")).updated_at
                go.set()

    async def test_one_that_waits_for_its_next_attempt_says_why(self, server):
        slow = RetryPolicy(base=600.0, factor=1.0, max=600.0, jitter=0.0)
        async with connected(server.url, roles=["backend"], config=fast(tasks={"retry": slow})) as fleet:
            queue = fleet.tasks("backend")
            await queue.submit("code.feature", {}, id="t-1")

            async def fail(task: Any) -> None:
                raise TimeoutError("no model")

            async with running(queue.worker("backend-1"), fail):

                async def given_back() -> bool:
                    return [item.stage for item in (await look(fleet, "queue", "backend")).items] == ["retrying"]

                await until(given_back)
                (item,) = (await look(fleet, "queue", "backend")).items
                assert (item.delivery, item.note) == (1, "TimeoutError: no model")

    async def test_of_a_task_that_nobody_began_the_counters_tell(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            await fleet.tasks("backend").submit("code.feature", {}, id="t-1")
            await take(fleet, "TASKS_BACKEND", fleet.names.tasks_durable("backend"))
            (item,) = (await look(fleet, "queue", "backend")).items
            assert (item.delivery, item.agent) == (1, "")

    async def test_of_many_the_oldest_are_named(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            queue = fleet.tasks("backend")
            for number in range(12):
                await queue.submit("code.feature", {}, id=f"t-{number}")
            subscription = await fleet.js.pull_subscribe_bind(
                fleet.names.tasks_durable("backend"), stream="TASKS_BACKEND"
            )
            await subscription.fetch(10, timeout=20)
            await subscription.unsubscribe()
            hands = await look(fleet, "queue", "backend", shown=4)
            assert (hands.total, [item.seq for item in hands.items]) == (10, [1, 2, 3, 4])

    async def test_without_a_ledger_the_rest_is_told(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            await fleet.tasks("backend").submit("code.feature", {}, id="t-1")
            await take(fleet, "TASKS_BACKEND", fleet.names.tasks_durable("backend"))
            await fleet.js.delete_stream(fleet.ledger.bucket.stream)
            hands = await look(fleet, "queue", "backend")
            assert (hands.total, [item.seq for item in hands.items]) == (1, [1])


async def test_a_consumer_of_another_name_is_asked_by_it(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", {})
        await take(fleet, "INBOX_CEO", "ceo-processor")
        assert (await look(fleet, durable="other")).total == 0
        assert (await look(fleet, durable="ceo-processor")).total == 1


async def test_looking_moves_no_counter(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        for number in range(3):
            await fleet.inbox("ceo").send("note", {})
            await fleet.tasks("backend").submit("code", {}, id=f"t-{number}")
        await take(fleet, "INBOX_CEO", "ceo-processor")
        await take(fleet, "TASKS_BACKEND", fleet.names.tasks_durable("backend"))
        before = await counters(fleet)
        async with Fleet.connect(server.url) as looker:
            for _ in range(3):
                assert (await look(looker)).total == (await look(looker, "queue", "backend")).total == 1
        assert await counters(fleet) == before


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
class TestPane:
    async def test_of_an_inbox(self, server, size):
        async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 1})) as fleet:
            for number in range(4):
                await fleet.inbox("ceo").send("note", {}, id=f"m-{number}")
            worker = Worker(fleet)
            await worker.exhaust(1)
            await worker.exhaust(1)
            await worker.next()
            async with desk(fleet, size=size) as console:
                await console.sees("ceo")
                await console.press("enter")
                text = await console.sees("stranded", "seq 1, 2", "drain in", "at most 1 in flight")
                await console.press("end")
                text += await console.sees("in flight", "m-2", "ceo delivered, delivery 1 of 1, last sign of life")
                assert "not at this pace" in text

    async def test_of_a_queue(self, server, size):
        async with connected(server.url, roles=["backend"]) as fleet:
            queue = fleet.tasks("backend")
            for number in range(2):
                await queue.submit("code.feature", {}, id=f"t-{number}")
            begun, go = asyncio.Event(), asyncio.Event()

            async def work(task: Any) -> None:
                await task.progress("\x1b[31mred [/x]")
                begun.set()
                await go.wait()

            async with running(queue.worker("backend-1"), work), desk(fleet, size=size) as console:
                await begun.wait()
                await console.press("2")
                await console.sees("backend", "busy")
                await console.press("enter")
                await console.sees("queue backend", "messages")
                for _ in range(4):
                    await console.press("j")
                text = await console.sees("backend-1 at work, attempt 1", "␛[31mred [/x]")
                assert "\x1b" not in text
                go.set()


async def test_of_a_subscription_the_counters_are_told():
    given = depth(7, ack_pending=3, redelivered=2, durable="ceo-alerts", ack_wait=60.0)
    colours = dict.fromkeys(("bright", "dim", "bad", "accent"), "")
    pane = subscription_pane(Subscription("ceo", "alerts", ("security.\x1b>",), given, 65.0), colours)
    text = (await pane._load()).plain
    for line in ("topics        security.␛>", "behind        7 not", "ack pending   3 delivered", "redelivered   2 of 3",
                 "oldest        1m5s", "lease         1m", "consumer      ceo-alerts"):  # fmt: skip
        assert line in text


async def test_enter_on_a_subscription_tells_its_counters(server):
    async with connected(server.url, agents=["dev"]) as fleet:
        await fleet.events.subscription("dev", "security.>", name="alerts")
        await fleet.events.broadcast("security.alert", {})
        async with desk(fleet) as console:
            await console.press("2")
            await console.sees("alerts", "security.>")
            await console.press("tab", "enter")
            await console.sees("behind", "1 not yet delivered")
