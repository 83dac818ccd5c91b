"""Faults of a three-node cluster under load, every stream with three replicas: nothing is lost, doubled or stuck."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress

from nats.js.errors import APIError

from patterns import Fleet, FleetConfig, Reject, StreamLimits, Unavailable
from tests.support.fleets import drained, fast, running
from tests.support.waiting import until

LEASE = {"ack_wait": 4.0}
CONFIG = fast(tasks=LEASE, inbox=LEASE, events=LEASE, limits=StreamLimits(replicas=3), publish_timeout=40.0)
PACE = 0.03
"""Seconds between two messages of a sender: work is under way at any moment, and a slow machine keeps up."""

ELECTIONS = 40.0
"""Seconds: a cluster that lost a node may need ten until all of its leaders are elected and known."""


class Load:
    """Senders, two workers, a reader and two subscribers on three connections, until `finish` settles the account.

    What happens to a task is decided by its number: it completes, completes at its second attempt, or is rejected.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.tasks, self.notes, self.events = [], [], []
        """Ids whose storing was confirmed to the sender."""
        self.ran = Counter()
        self.read = []
        self.heard = {"audit": [], "security": []}
        self._over = asyncio.Event()
        self._stack = AsyncExitStack()
        self._senders = []

    async def __aenter__(self):
        self.sender, self.one, self.other = [
            await self._stack.enter_async_context(Fleet.connect(self.cluster.urls, config=CONFIG)) for _ in range(3)
        ]
        await self.sender.provision(agents=["ceo", "boss"], roles=["backend"])
        self.queue = self.sender.tasks("backend")
        for fleet, name in ((self.one, "audit"), (self.other, "security")):
            await self._consume(fleet.tasks("backend").worker(f"w-{name}", concurrency=3), self._work)
            await self._consume(await fleet.events.subscription(name, "news.>"), self._listener(self.heard[name]))
        await self._consume(self.other.inbox("ceo").consumer(), self._read)
        self._senders = [asyncio.create_task(send()) for send in (self._submit, self._send, self._broadcast)]
        await self.progress()
        return self

    async def __aexit__(self, *error):
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        await self._stack.aclose()

    async def _consume(self, consumer, handler):
        await self._stack.enter_async_context(running(consumer, handler))

    async def _work(self, task):
        self.ran[task.id] += 1
        await asyncio.sleep(PACE)
        if task.data % 5 == 0:
            raise Reject("poison")
        if task.data % 5 == 1 and task.attempt == 1:
            raise ValueError("flaky")
        return task.id

    async def _read(self, message):
        self.read.append(message.id)

    @staticmethod
    def _listener(heard):
        async def listen(event):
            heard.append(event.id)

        return listen

    async def _paced(self, ids, send):
        n = 0
        while not self._over.is_set():
            n += 1
            ids.append((await send(n)).id)
            await asyncio.sleep(PACE)

    async def _submit(self):
        await self._paced(self.tasks, lambda n: self.queue.submit("code", n, id=f"t-{n}", reply_to="agents.boss.inbox"))

    async def _send(self):
        await self._paced(self.notes, lambda n: self.sender.inbox("ceo").send("note", n, id=f"m-{n}"))

    async def _broadcast(self):
        await self._paced(self.events, lambda n: self.sender.events.broadcast("news.today", n, id=f"e-{n}"))

    def confirmed(self):
        """How much of each kind the senders know to be stored."""
        return [len(self.tasks), len(self.notes), len(self.events)]

    async def progress(self, count=10):
        """Wait until so much more of everything has been sent and handled."""
        handled = (self.ran, self.read, *self.heard.values(), self.tasks, self.notes, self.events)
        goals = [len(things) + count for things in handled]
        await until(lambda: all(len(things) >= goal for things, goal in zip(handled, goals, strict=True)), ELECTIONS)

    async def finish(self):
        """Stop sending, let everything come to its end, and hold it against what was promised."""
        self._over.set()
        await asyncio.gather(*self._senders)
        inbox, boss = self.sender.inbox("ceo"), self.sender.inbox("boss")
        for task in self.tasks:
            await self.queue.wait(task, ELECTIONS)
        await asyncio.gather(drained(self.queue, ELECTIONS), drained(inbox, ELECTIONS))
        await until(lambda: all(set(self.events) <= set(heard) for heard in self.heard.values()), ELECTIONS)

        # Tasks: completed xor dead, told exactly once, none stuck, and dead only for a reason of their own.
        ended = {task: (await self.queue.status(task)).state for task in self.tasks}
        expected = {task: "rejected" if n % 5 == 0 else "completed" for n, task in enumerate(self.tasks, 1)}
        assert ended == expected
        letters = await self.sender.dead_letters.list(limit=1000)
        dead = [task for task in self.tasks if ended[task] == "rejected"]
        assert sorted((letter.kind, letter.id, letter.reason) for letter in letters) == sorted(
            ("tasks", task, "rejected") for task in dead
        )
        told = Counter((m.data["task"], m.type) for m in await boss.peek(1000))
        kinds = {"completed": "task.completed", "rejected": "task.failed"}
        assert told == Counter((task, kinds[state]) for task, state in ended.items())
        # Messages: each was handled, and for the first time in the order of sending. One may be handled again whose
        # acknowledgement went down with its server.
        assert list(dict.fromkeys(self.read)) == self.notes
        for heard in self.heard.values():
            assert set(heard) == set(self.events)


async def leader(fleet, stream):
    """Number of the node that leads a stream; None during an election."""
    try:
        info = await fleet.jetstream.stream_info(stream)
    except (Unavailable, APIError):
        return None
    name = info["cluster"].get("leader", "")
    return int(name.removeprefix("node-")) if name else None


async def led(fleet, stream):
    """Number of the node that leads a stream, once there is one."""

    async def known():
        node = await leader(fleet, stream)
        return None if node is None else (node,)  # node 0 counts, too

    (node,) = await until(known, ELECTIONS)
    return node


async def hand_over(fleet, stream, node):
    """Let the leaders of a stream and of its consumers step down in favour of `node`, until it leads the stream."""
    js, wish = fleet.jetstream, {"placement": {"preferred": f"node-{node}"}}
    for consumer in await js.consumers(stream):
        if consumer["cluster"].get("leader") != f"node-{node}":
            await js.api(f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer['name']}", wish)

    async def handed_over():
        now = await leader(fleet, stream)
        if now is not None and now != node:
            # Asked again where the wish was not granted: the node may lag behind for a moment.
            with suppress(Unavailable, APIError):
                await js.api(f"STREAM.LEADER.STEPDOWN.{stream}", wish)
        return now == node

    await until(handed_over, ELECTIONS, every=0.3)


STREAMS = ("TASKS_BACKEND", "INBOX_CEO", "INBOX_BOSS", "EVENTS", "DLQ", "KV_TASKS", "KV_RECEIPTS")


async def test_the_leader_of_every_stream_killed_under_load_loses_doubles_and_holds_up_nothing(cluster):
    async with Load(cluster) as load:
        killed = await led(load.sender, "TASKS_BACKEND")
        for stream in STREAMS:
            await hand_over(load.sender, stream, killed)
        cluster.kill(killed)
        await load.progress()
        # The others went on without it.
        for stream in STREAMS:
            assert await led(load.sender, stream) != killed
        await asyncio.to_thread(cluster.restart, killed)
        await load.progress()
        await load.finish()


async def test_leaders_that_step_down_under_load_lose_double_and_hold_up_nothing(cluster):
    async with Load(cluster) as load:
        for _ in range(2):
            for stream in STREAMS:
                await hand_over(load.sender, stream, (await led(load.sender, stream) + 1) % 3)
            await load.progress()
        await load.finish()


async def test_the_node_of_a_client_killed_under_load_costs_nothing(cluster):
    async with Load(cluster) as load:
        lost = load.sender.server_info().name
        killed = int(lost.removeprefix("node-"))
        cluster.kill(killed)
        await until(lambda: load.sender.nc.is_connected and load.sender.server_info().name != lost, ELECTIONS)
        await load.progress()
        await asyncio.to_thread(cluster.restart, killed)
        await load.finish()


async def test_without_a_quorum_for_a_while_nothing_is_lost_doubled_or_stuck(cluster):
    async with Load(cluster) as load:
        for node in (0, 1):
            cluster.kill(node)
        # One node is left: it has all the clients, and may store nothing.
        await until(lambda: all(fleet.nc.is_connected for fleet in (load.sender, load.one, load.other)), ELECTIONS)
        before = load.confirmed()
        await asyncio.sleep(3.0)
        # Of each kind one may have been confirmed just before, to a sender that had not come round to noting it.
        assert all(now <= then + 1 for now, then in zip(load.confirmed(), before, strict=True))
        for node in (0, 1):
            await asyncio.to_thread(cluster.restart, node)
        await load.progress()
        await load.finish()


async def test_a_message_waits_for_the_leader_of_the_dead_letters_not_for_its_lease(cluster):
    announced = FleetConfig(limits=StreamLimits(replicas=3))  # a lease of five minutes
    async with Fleet.connect(cluster.urls, config=announced) as sender:
        await sender.provision(agents=["ceo"])
        await sender.inbox("ceo").send("note", id="m-1")
        frozen = int(sender.server_info().name.removeprefix("node-"))
    others = [url for node, url in enumerate(cluster.urls) if node != frozen]
    async with Fleet.connect(others, config=announced) as fleet:
        await hand_over(fleet, "DLQ", frozen)
        await hand_over(fleet, "INBOX_CEO", (frozen + 1) % 3)
        cluster.nodes[frozen].pause()
        heard = []

        async def listen(message):
            heard.append((message.id, message.attempt))

        try:
            # Stored before the connection began: whether it has a letter is asked, and nobody answers for a while.
            async with running(fleet.inbox("ceo").consumer(), listen):
                await until(lambda: heard == [("m-1", 1)], ELECTIONS)
        finally:
            cluster.nodes[frozen].resume()
