"""Batch direct get (ADR-31): many messages with one request, without a consumer; nats-py has only the single one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from patterns.errors import Unavailable
from patterns.stored import Page, StoredMessage, from_direct

PATIENCE = 5.0
"""Seconds to wait for each message."""


async def batch(nc: Client, subject: str, request: Mapping[str, Any]) -> Page | None:
    """One batch from `$JS.API.DIRECT.GET.<stream>`; None where the stream does not allow it.

    Raises:
        Unavailable: No answer within five seconds, or the answers broke off.
    """
    replies: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox, cb=replies.put)
    found: list[StoredMessage] = []
    try:
        await nc.publish(subject, json.dumps(request).encode(), reply=inbox)
        while True:
            async with asyncio.timeout(PATIENCE):
                msg = await replies.get()
            headers = msg.headers or {}
            # A stored message may carry a header of this name; only the server's own word has no sequence.
            status = None if "Nats-Sequence" in headers else headers.get("Status")
            if status == "503":
                return None
            if status == "404":
                return Page(tuple(found), 0)
            if status is not None:
                return Page(tuple(found), int(headers.get("Nats-Num-Pending", -1)))
            found.append(from_direct(headers, msg.data))
    except TimeoutError:
        raise Unavailable(f"no answer to {subject} within {PATIENCE:g} s") from None
    finally:
        if not nc.is_closed:
            await subscription.unsubscribe()
