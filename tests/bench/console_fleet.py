"""A large fleet on a private server with a system account, made in seconds.

The first agent, the queues and the streams of which a fleet has one are made by `Fleet.provision`; the streams and
consumers of all other agents are copies of the first agent's, as the server tells its configuration, created by requests
that are sent without waiting for each other. Only their storage differs: memory, because each file stream costs an fsync
and an open file, and no read of a fleet looks at storage. A third of the inboxes holds one to three messages.

The server is killed at the end: a clean stop takes a minute at 5,000 agents.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client

from patterns import DeadLetterConfig, Fleet, FleetConfig
from patterns.message import encode
from patterns.names import Names
from patterns.server import LocalServer
from tests.bench import replay_support
from tests.bench.console_lines import progress

ROLES = 20
AT_ONCE = 256
"""Requests under way: at 10,000 waiting ones the server drops everybody's."""
SERVER = """
    accounts {
        APP { jetstream: enabled, users: [{ user: app, password: app }] }
        SYS { users: [{ user: sys, password: sys }] }
    }
    system_account: SYS
    no_auth_user: app
"""
"""Whoever connects without a name is in APP, as with a server without accounts."""
NAMES = Names()
CONFIG = FleetConfig(dead_letters=DeadLetterConfig(max_msgs=250_000), publish_timeout=30.0)


def agent_name(number: int) -> str:
    """`agent-0042`."""
    return f"agent-{number:04d}"


@dataclass(frozen=True, slots=True)
class BigFleet:
    """A fleet that is there."""

    server: LocalServer
    agents: int

    @property
    def url(self) -> str:
        """Where its clients connect."""
        return self.server.url

    def connect(self) -> AbstractAsyncContextManager[Fleet]:
        """A connection of its own."""
        return Fleet.connect(self.url, config=CONFIG)

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Client]:
        """A client of the system account."""
        client = await nats.connect(self.url, user="sys", password="sys")
        try:
            yield client
        finally:
            await client.close()

    def stored(self, stream: str) -> int:
        """Messages that a stream has taken so far."""
        return asyncio.run(self._stored(stream))

    async def _stored(self, stream: str) -> int:
        async with self.connect() as fleet:
            info = await fleet.jetstream.stream_info(stream)
            return int(info["state"]["last_seq"]) if info else 0


@contextlib.contextmanager
def big_fleet(agents: int, *, letters: int = 0) -> Iterator[BigFleet]:
    """A fleet of so many agents, with so many dead letters, for the length of the block."""
    _allow_open_files()
    begun = time.monotonic()
    with LocalServer(config=SERVER, ready_timeout=30.0) as server:
        fleet = BigFleet(server, agents)
        try:
            asyncio.run(_build(fleet, letters))
            progress(f"fleet of {agents:,} agents made in {time.monotonic() - begun:.1f} s")
            yield fleet
        finally:
            server.kill()


def _allow_open_files() -> None:
    """As many as this user may have; the server inherits it and keeps a file open for each stream on the disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _build(big: BigFleet, letters: int) -> None:
    first = agent_name(0)
    async with big.connect() as fleet:
        await fleet.provision(agents=[first], roles=[f"role-{number:02d}" for number in range(ROLES)])
        stream = await fleet.jetstream.stream_info(NAMES.inbox_stream(first))
        consumer = await fleet.jetstream.consumer_info(NAMES.inbox_stream(first), NAMES.inbox_durable(first))
        if stream is None or consumer is None:
            raise RuntimeError("the first agent has no inbox although it was provisioned")
        rest = [agent_name(number) for number in range(1, big.agents)]

        async def make_stream(agent: str) -> None:
            name = NAMES.inbox_stream(agent)
            subjects = NAMES.stream_subjects("inbox", agent)
            config = {**_own(stream["config"]), "name": name, "subjects": subjects, "storage": "memory"}
            await fleet.jetstream.api(f"STREAM.CREATE.{name}", config, timeout=60.0)

        async def make_consumer(agent: str) -> None:
            name, durable = NAMES.inbox_stream(agent), NAMES.inbox_durable(agent)
            (subject,) = NAMES.stream_subjects("inbox", agent)
            config = {**_own(consumer["config"]), "name": durable, "durable_name": durable, "filter_subject": subject}
            request = {"stream_name": name, "config": config, "action": "create"}
            await fleet.jetstream.api(f"CONSUMER.CREATE.{name}.{durable}.{subject}", request, timeout=60.0)

        await gathered(make_stream, rest)
        await gathered(make_consumer, rest)
        await gathered(lambda number: _fill(fleet, number), range(0, big.agents, 3))
        if letters:
            await replay_support.store_copies(fleet, letters, "inbox")


async def gathered(call: Callable[[Any], Coroutine[Any, Any, Any]], items: Iterable[Any]) -> list[Any]:
    """Call it for all items, `AT_ONCE` at a time; the results."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with slots:
            return await call(item)

    return await asyncio.gather(*map(one, items))


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what the server itself has written into it."""
    metadata = config.get("metadata") or {}
    return {**config, "metadata": {key: value for key, value in metadata.items() if not key.startswith("_nats.")}}


async def _fill(fleet: Fleet, number: int) -> None:
    for _ in range(1 + number // 3 % 3):
        await send(fleet, agent_name(number))


async def send(fleet: Fleet, agent: str) -> None:
    """Put one message into an inbox."""
    outgoing = encode("note", {"text": "x" * 200}, source="bench")
    await fleet.js.publish(NAMES.inbox_subject(agent, "note"), outgoing.body, headers=outgoing.headers, timeout=30.0)


async def take(fleet: Fleet, agent: str) -> None:
    """Take one message out of an inbox, if there is one."""
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{NAMES.inbox_stream(agent)}.{NAMES.inbox_durable(agent)}"
    inbox = fleet.nc.new_inbox()
    subscription = await fleet.nc.subscribe(inbox)
    await fleet.nc.publish(subject, b'{"batch":1,"no_wait":true}', reply=inbox)
    msg = await subscription.next_msg(timeout=10.0)
    if msg.reply:
        await fleet.nc.request(msg.reply, b"+ACK", timeout=10.0)
    await subscription.unsubscribe()
