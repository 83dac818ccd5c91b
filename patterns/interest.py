"""Interest in subjects: making it known to the server, and ending it, so that nothing falls between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from nats.aio.client import Client
from nats.aio.subscription import Subscription

PATIENCE = 5.0
"""Seconds for the server's answer."""


async def registered(nc: Client) -> None:
    """Wait until the server knows what was subscribed: a request sent right after could find nobody listening.

    Twice: nats-py writes the PING of a flush past commands that wait for its flusher, so only the second follows them.
    """
    await nc.flush(timeout=int(PATIENCE))
    await nc.flush(timeout=int(PATIENCE))


async def withdraw(nc: Client, subscriptions: Iterable[Subscription]) -> None:
    """End subscriptions; what was already on its way to them still reaches their callbacks.

    Not `unsubscribe()`: the client would drop what arrives until the server has heard of it. Nor `drain()` alone, whose
    PING can overtake its UNSUB (nats-py 2.16).

    Raises:
        nats.errors.Error, OSError, TimeoutError: The server did not confirm; messages may have been dropped.
    """
    found = list(subscriptions)
    if not found or nc.is_closed:
        return
    if not nc.is_connected:
        for subscription in found:
            await subscription.unsubscribe()
        return
    async with asyncio.timeout(PATIENCE):
        for subscription in found:
            await nc._send_unsubscribe(subscription._id)
        await nc.flush(timeout=int(PATIENCE))
        for subscription in found:
            await subscription.drain()  # type: ignore[no-untyped-call]
