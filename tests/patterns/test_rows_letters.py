"""Dead letters that are hard to find and dead letters in masses: each is found, and looking stays cheap."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import patterns.inbox
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.fleets import connected, drained, fast, running, take
from tests.support.waiting import until

MAX_DELIVERIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"

RESTRICTED = f"""
authorization {{ users: [
    {{ user: agent, password: agent, permissions: {{ subscribe: {{ deny: "{MAX_DELIVERIES}" }} }} }}
] }}
"""
"""An agent with the rights it needs and no more: it hears no advisory."""


# -- found while others keep the consumer busy


@pytest.mark.parametrize("heard", [True, False], ids=["by its advisory", "by the next sweep"])
async def test_dl12_an_exhausted_message_is_found_while_the_one_above_it_runs_for_long(monkeypatch, heard):
    if not heard:
        monkeypatch.setattr(patterns.inbox, "SWEEP_INTERVAL", 0.3)
    config = fast(inbox={"ack_wait": 1.0, "max_deliver": 1})
    async with (
        LocalServer(config="" if heard else RESTRICTED) as server,
        Fleet.connect(server.url, config=config, user="agent", password="agent") as fleet,
    ):
        await fleet.provision(agents=["ceo"])
        inbox, seen, free = fleet.inbox("ceo"), [], asyncio.Event()
        await inbox.send("note", id="exhausted")
        await inbox.send("note", id="long")
        # Its only reader dies without a word. Nothing is dead yet when the next one starts, and sweeps.
        await take(fleet, inbox.stream, inbox.durable)

        async def read(message):
            seen.append((message.id, message.attempt))
            await free.wait()

        async with running(inbox.consumer(), read):
            (letter,) = await until(fleet.dead_letters.list)
            await until(lambda: seen)
            assert (letter.id, letter.reason, letter.deliveries) == ("exhausted", "crash", 1)
            depth = await inbox.depth()
            assert (depth.messages, depth.ack_pending, depth.stranded) == (1, 1, 0)
            assert await fleet.dead_letters.sweep(inbox.stream, inbox.durable) == 0, "it took the one in flight"
            free.set()
            await drained(inbox)
        assert seen == [("long", 1)]
        assert len(await fleet.dead_letters.list()) == 1


async def test_dl15_a_message_that_dies_in_a_busy_role_is_dead_with_its_next_delivery(server):
    """No advisory is needed and none is sent: whoever gets the delivery beyond the limit moves the message."""
    config = fast(tasks={"ack_wait": 1.0})
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        queue, runs, advisories = fleet.tasks("backend"), Counter(), []

        async def hear(msg):
            advisories.append(msg.data)

        await fleet.nc.subscribe(MAX_DELIVERIES, cb=hear)
        free, found = asyncio.Event(), asyncio.Event()

        async def work(task):
            runs[task.id] += 1
            if task.id == "long":
                await free.wait()

        async def feed():
            n = 0
            while not found.is_set():
                n += 1
                await queue.submit("code", id=f"t-{n}")
                await until(lambda n=n: len(runs) >= n - 20 or found.is_set())
            return n

        # Stored before the poison: as long as it runs, the ack floor of the consumer stays below both.
        await queue.submit("code", id="long")
        async with running(queue.worker("slow"), work):
            await until(lambda: runs)
            await queue.submit("code", {"n": 1}, id="poison")
            for _ in range(3):
                assert (await take(fleet, queue.stream, queue.durable)).headers["ce-id"] == "poison"
            async with running(queue.worker("busy", concurrency=2), work):
                feeding = asyncio.create_task(feed())
                (letter,) = await until(fleet.dead_letters.list)
                assert not free.is_set()
                found.set()
                fed = await feeding
                free.set()
                await drained(queue)
        assert (letter.id, letter.reason, letter.deliveries, letter.name) == ("poison", "crash", 3, "backend")
        assert letter.message.data == {"n": 1}
        assert runs == Counter({f"t-{n}": 1 for n in range(1, fed + 1)} | {"long": 1})
        assert (await queue.status("poison")).state == "failed"
        assert advisories == []


# -- many


async def fill(fleet, count):
    """Write letters of three origins as any client could, pipelined; returns when they are stored."""
    origins = ("inbox.ceo", "tasks.backend", "events.security-events")
    body = b'{"spec":"rate limiting"}'
    for n in range(1, count + 1):
        headers = {"Dead-Letter-Subject": "agents.ceo.inbox.note", "Dead-Letter-Reason": "rejected"}
        await fleet.nc.publish(f"dlq.{origins[n % 3]}.{n}-{n:x}", body, headers=headers)
    await fleet.nc.flush(timeout=20)

    async def stored():
        return (await fleet.jetstream.stream_info("DLQ"))["state"]["messages"] == count

    await until(stored, 30)


FEW, MANY = 10, 20_000
"""What grows with the letters has grown beyond doubt at 20,000; writing 100,000 would take five times as long."""


class Meter:
    """What looking at the dead letters asks and gets over the wire, by what was looked at."""

    def __init__(self, fleet):
        self.nc = fleet.nc
        self.messages = {}
        self.bytes = {}

    async def __call__(self, what, looking):
        before = dict(self.nc.stats)
        seen = await looking
        after = self.nc.stats
        self.messages[what] = after["out_msgs"] - before["out_msgs"], after["in_msgs"] - before["in_msgs"]
        self.bytes[what] = after["in_bytes"] - before["in_bytes"]
        return seen


async def compared(look):
    """Let `look` measure a fleet with few letters and one with many; nothing may cost more there."""
    meters = []
    for count in (FEW, MANY):
        async with LocalServer() as server, connected(server.url) as fleet:
            await fill(fleet, count)
            # The first look is the one that may be long.
            assert sum((await fleet.dead_letters.count()).values()) == count
            meters.append(Meter(fleet))
            await look(fleet, meters[-1], count)
    few, many = meters
    assert many.messages == few.messages
    # Numbers have more digits there; that is all.
    grown = {
        what: (few.bytes[what], many.bytes[what]) for what in few.bytes if many.bytes[what] > few.bytes[what] + 100
    }
    assert grown == {}


async def test_dl16_a_refresh_costs_the_same_with_many_letters_as_with_few():
    async def look(fleet, meter, count):
        letters = fleet.dead_letters
        page = await meter("first page", letters.list(limit=FEW))
        assert [letter.seq for letter in page] == list(range(1, FEW + 1))
        page = await meter("page of one origin", letters.list("inbox", "ceo", limit=3))
        assert [letter.seq for letter in page] == [3, 6, 9]
        page = await meter("last page", letters.list(after=count - FEW))
        assert [letter.seq for letter in page] == list(range(count - FEW + 1, count + 1))
        assert await meter("nothing new", letters.list(after=count)) == []
        counts = await meter("count again", letters.count())
        assert sum(counts.values()) == count
        snapshot = await meter("snapshot", fleet.snapshot())
        assert sum(snapshot.dead_letters.values()) == count
        await fleet.js.publish(f"dlq.inbox.ceo.{count + 1}-abc", b"{}")
        page = await meter("the new one", letters.list(after=count))
        assert [letter.seq for letter in page] == [count + 1]

    await compared(look)


async def test_dl16_counting_after_a_change_costs_the_same_with_many_letters_as_with_few():
    async def look(fleet, meter, count):
        letters = fleet.dead_letters
        expected = await letters.count()
        await fleet.js.publish(f"dlq.inbox.ceo.{count + 1}-abc", b"{}")
        expected["inbox", "ceo"] += 1
        assert await meter("one died", letters.count()) == expected
        await fleet.js.publish(f"dlq.inbox.cso.{count + 1}-abc", b"{}")
        expected["inbox", "cso"] = 1
        assert await meter("one died elsewhere", letters.count()) == expected
        await fleet.jetstream.delete(letters.stream, 2)
        expected["events", "security-events"] -= 1
        assert await meter("one was discarded", letters.count()) == expected
        # As many went as came: nothing but the sequence tells.
        await fleet.jetstream.delete(letters.stream, 4)
        await fleet.js.publish(f"dlq.inbox.cso.{count + 2}-abc", b"{}")
        expected["tasks", "backend"] -= 1
        expected["inbox", "cso"] += 1
        assert await meter("one went and one came", letters.count()) == expected
        assert await meter("nothing happened", letters.count()) == expected

    await compared(look)
