"""Fleets with short delays, and consumers that run for the length of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import nats.aio.client
import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import APIError

from patterns import Consumer, DeliveryConfig, Fleet, FleetConfig, RetryPolicy, Unavailable
from patterns.consumer import Handler
from patterns.inbox import Inbox
from patterns.tasks import TaskQueue
from tests.support.waiting import until

QUICK = RetryPolicy(base=0.05, factor=1.0, max=0.05, jitter=0.0)
"""Attempts follow each other at once."""

LONG_LEASE = 40.0
"""Seconds: beyond the patience of any test, so that nothing passes because a lease happened to expire."""


def delivery(**changes: Any) -> DeliveryConfig:
    """Delivery of tasks and events: long lease, quick retries."""
    return DeliveryConfig(**{"ack_wait": LONG_LEASE, "max_ack_pending": 64, "retry": QUICK, **changes})


def fast(
    *,
    inbox: dict[str, Any] | None = None,
    tasks: dict[str, Any] | None = None,
    events: dict[str, Any] | None = None,
    **changes: Any,
) -> FleetConfig:
    """A configuration for tests; the tables change single values of a pattern's delivery."""
    return FleetConfig(
        inbox=delivery(max_ack_pending=1, **(inbox or {})),
        tasks=delivery(**(tasks or {})),
        events=delivery(**(events or {})),
        **{"poll": 0.5, "drain_grace": 5.0, "publish_timeout": 20.0, **changes},
    )


@asynccontextmanager
async def connected(
    url: str,
    *,
    agents: Iterable[str] = (),
    roles: Iterable[str] = (),
    org: str | None = None,
    config: FleetConfig | None = None,
) -> AsyncIterator[Fleet]:
    """A connected and provisioned fleet."""
    async with Fleet.connect(url, org=org, config=config or fast()) as fleet:
        await fleet.provision(agents=agents, roles=roles)
        yield fleet


@asynccontextmanager
async def running(consumer: Consumer, handler: Handler) -> AsyncIterator[Consumer]:
    """Let a consumer work for the length of the block; what it works on at the end is handed back."""
    loop = asyncio.create_task(consumer.run(handler))
    try:
        yield consumer
    finally:
        await consumer.stop(0)
        await loop


async def publish(fleet: Fleet, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    """Publish as any other NATS client would, and return the sequence."""
    return (await fleet.js.publish(subject, body, headers=headers)).seq


async def take(fleet: Fleet, stream: str, durable: str) -> Msg:
    """Take one message as a client that will never answer: a worker that dies without a word."""
    subscription = await fleet.js.pull_subscribe_bind(durable, stream=stream)
    (msg,) = await subscription.fetch(1, timeout=20)
    await subscription.unsubscribe()
    return msg


def offline() -> Fleet:
    """A fleet on a client that never connected: any server call raises `ConnectionClosedError`."""
    return Fleet(nats.aio.client.Client(), config=fast())


async def drained(queue: TaskQueue | Inbox, timeout: float = 40.0) -> None:
    """Wait until nothing is stored in a queue or inbox and nothing is in flight; a server that is away is waited for."""

    async def empty() -> bool:
        try:
            depth = await queue.depth()
        except (Unavailable, APIError, nats.errors.Error):
            return False
        return depth.messages == 0 and depth.ack_pending == 0

    await until(empty, timeout)
