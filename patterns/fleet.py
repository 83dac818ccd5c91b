"""One connection to a fleet: connecting so that it stays, provisioning, and one look at everything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client

from patterns import provision
from patterns.agent import Agent
from patterns.bucket import Bucket
from patterns.burials import Burials
from patterns.config import FleetConfig
from patterns.connection import check_server, leave, open_client, watch_reader
from patterns.consumer import end
from patterns.deadletters import DeadLetters
from patterns.depth import QueueDepth, depth_of
from patterns.errors import PatternError
from patterns.events import EventBus
from patterns.inbox import Inbox
from patterns.jetstream import JetStream
from patterns.ledger import TaskLedger
from patterns.message import Outgoing
from patterns.names import Names
from patterns.requests import Requests
from patterns.stored import PublishAck
from patterns.tasks import TaskQueue

log = logging.getLogger("patterns")


LISTED_AT_ONCE = 256
"""Requests a snapshot has out: at 10,000 waiting ones the server drops everybody's."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server a connection is on."""

    name: str
    version: str
    url: str
    """Without credentials."""
    cluster: str | None


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything about a fleet at one moment."""

    taken_at: datetime
    took: float
    """Seconds the read took."""
    server: ServerInfo
    inboxes: Mapping[str, QueueDepth]
    """By agent."""
    queues: Mapping[str, QueueDepth]
    """By role."""
    subscriptions: Mapping[str, QueueDepth]
    """By durable."""
    dead_letters: Mapping[str, int]
    """By `<kind>.<name>`."""
    missing: tuple[str, ...]
    """What could not be read, in words."""


class Fleet:
    """The patterns on one connection.

    Args:
        nc: A connected client; stays reachable as `fleet.nc`, the library hides nothing.
        org: Prefix of all names, see `Names`.
        config: Configuration; the same for all agents of a fleet.
        domain: JetStream domain.
        api_prefix: Prefix of the JetStream API instead of `$JS.API`.
    """

    def __init__(
        self,
        nc: Client,
        *,
        org: str | None = None,
        config: FleetConfig | None = None,
        domain: str | None = None,
        api_prefix: str | None = None,
    ) -> None:
        self.nc = nc
        self.names = Names(org)
        self.config = config or FleetConfig()
        self.jetstream = JetStream(nc, domain=domain, api_prefix=api_prefix)
        self.js = self.jetstream.context
        self.ledger = TaskLedger(Bucket(self.jetstream, self.names.ledger_bucket), self.names)
        self.requests = Requests(self)
        self.events = EventBus(self)
        self.burials = Burials(self)
        self.dead_letters = DeadLetters(self)
        self._queues: dict[str, TaskQueue] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._closers: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    def connect(
        cls,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        org: str | None = None,
        config: FleetConfig | None = None,
        domain: str | None = None,
        api_prefix: str | None = None,
        **nats_options: Any,
    ) -> AbstractAsyncContextManager[Fleet]:
        """Connect: fails within a second if nobody answers, then reconnects for ever, drains on exit.

        Args:
            servers: One URL or several of a cluster.
            org: Prefix of all names.
            config: Configuration.
            domain: JetStream domain.
            api_prefix: Prefix of the JetStream API.
            nats_options: Passed on to `nats.connect` (user, password, tls, ...).

        Raises:
            ConnectError: No server answered, or it refused the credentials.
            UnsupportedServer: Older than 2.11 or without JetStream.
        """
        return _connected(cls, servers, org, config, domain, api_prefix, nats_options)

    async def provision(self, *, agents: Iterable[str] = (), roles: Iterable[str] = ()) -> None:
        """Create what is missing: EVENTS, DLQ, ledger and receipts always, an inbox an agent, a queue a role.

        What exists is compared: limits and leases are brought up to date, another shape is refused.

        Raises:
            ConfigMismatch: A stream or consumer exists with another shape, or a stream would answer RPC subjects.
        """
        await provision.provision(self, tuple(agents), tuple(roles))

    def agent(self, agent_id: str, *, role: str | None = None, concurrency: int = 1) -> Agent:
        """The facade for one agent."""
        return Agent(self, agent_id, role=role, concurrency=concurrency)

    def tasks(self, role: str) -> TaskQueue:
        """The task queue of a role."""
        if role not in self._queues:
            self._queues[role] = TaskQueue(self, role)
        return self._queues[role]

    def inbox(self, agent_id: str) -> Inbox:
        """The inbox of an agent."""
        if agent_id not in self._inboxes:
            self._inboxes[agent_id] = Inbox(self, agent_id)
        return self._inboxes[agent_id]

    async def publish(self, subject: str, outgoing: Outgoing, *, stream: str | None = None) -> PublishAck:
        """Publish an encoded message until it is confirmed; see `JetStream.publish`."""
        return await self.jetstream.publish(
            subject, outgoing.body, outgoing.headers, stream=stream, timeout=self.config.publish_timeout
        )

    def server_info(self) -> ServerInfo:
        """The server this connection is on."""
        info = self.nc._server_info
        url = self.nc.connected_url
        return ServerInfo(
            name=str(info.get("server_name", "")),
            version=str(info.get("version", "")),
            url=f"{url.scheme or 'nats'}://{url.hostname}:{url.port}" if url is not None else "",
            cluster=info.get("cluster") or None,
        )

    async def snapshot(self) -> FleetSnapshot:
        """Read all inboxes, queues, subscriptions and dead-letter counts; what cannot be read is said in `missing`.

        Raises:
            Unavailable: Not even the list of streams could be read.
        """
        started = time.monotonic()
        missing: list[str] = []
        streams, absent = await self.jetstream.streams()
        missing += [f"stream {name} did not answer" for name in absent]
        placed = [
            (place, info) for info in streams if (place := self.names.place_of(info["config"]["name"])) is not None
        ]
        slots = asyncio.Semaphore(LISTED_AT_ONCE)
        consumers = await asyncio.gather(
            *(
                self._consumers(info["config"]["name"], missing, slots)
                for place, info in placed
                if place.kind in ("inbox", "tasks", "events")
            )
        )
        found = dict(
            zip(
                (info["config"]["name"] for place, info in placed if place.kind in ("inbox", "tasks", "events")),
                consumers,
                strict=True,
            )
        )
        inboxes: dict[str, QueueDepth] = {}
        queues: dict[str, QueueDepth] = {}
        subscriptions: dict[str, QueueDepth] = {}
        for place, info in placed:
            name = info["config"]["name"]
            if place.kind == "inbox":
                inboxes[place.name] = depth_of(info, _pick(found[name], self.names.inbox_durable(place.name)))
            elif place.kind == "tasks":
                queues[place.name] = depth_of(info, _pick(found[name], self.names.tasks_durable(place.name)))
            elif place.kind == "events":
                for consumer in found[name]:
                    if consumer["config"].get("durable_name"):
                        subscriptions[consumer["name"]] = depth_of(info, consumer, server_counts=False)
        letters: dict[str, int] = {}
        try:
            letters = {f"{kind}.{name}": n for (kind, name), n in (await self.dead_letters.count()).items()}
        except (PatternError, nats.errors.Error) as error:
            missing.append(f"dead letters: {error}")
        return FleetSnapshot(
            taken_at=datetime.now(UTC),
            took=time.monotonic() - started,
            server=self.server_info(),
            inboxes=dict(sorted(inboxes.items())),
            queues=dict(sorted(queues.items())),
            subscriptions=dict(sorted(subscriptions.items())),
            dead_letters=dict(sorted(letters.items())),
            missing=tuple(missing),
        )

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await `closer` before the connection drains."""
        self._closers.append(closer)

    async def close(self) -> None:
        """Stop what pulls for this fleet; the connection itself belongs to whoever opened it."""
        closers, self._closers = self._closers, []
        await asyncio.gather(*(closer() for closer in closers), return_exceptions=True)

    async def _consumers(self, stream: str, missing: list[str], slots: asyncio.Semaphore) -> list[dict[str, Any]]:
        try:
            async with slots:
                return await self.jetstream.consumers(stream)
        except (PatternError, nats.errors.Error) as error:
            missing.append(f"consumers of {stream}: {error}")
            return []


def _pick(consumers: list[dict[str, Any]], durable: str) -> dict[str, Any] | None:
    """The consumer with the library's name, else the only one there is: fleets made by other code name theirs otherwise."""
    for consumer in consumers:
        if consumer["name"] == durable:
            return consumer
    return consumers[0] if len(consumers) == 1 else None


@asynccontextmanager
async def _connected(
    cls: type[Fleet],
    servers: str | Sequence[str],
    org: str | None,
    config: FleetConfig | None,
    domain: str | None,
    api_prefix: str | None,
    options: Mapping[str, Any],
) -> AsyncIterator[Fleet]:
    names = Names(org)
    nc = await open_client(servers, options)
    watchdog = asyncio.create_task(watch_reader(nc), name="patterns watchdog")
    fleet: Fleet | None = None
    try:
        fleet = cls(nc, org=names.org, config=config, domain=domain, api_prefix=api_prefix)
        await check_server(fleet.jetstream)
        yield fleet
    finally:
        await end(watchdog, every=0.2)
        if fleet is not None:
            await fleet.close()
        await leave(nc)
