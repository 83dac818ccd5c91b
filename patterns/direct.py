"""Batch direct get (ADR-31): many messages with one request, without a consumer; nats-py has only the single one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from patterns.errors import Unavailable
from patterns.headers import number
from patterns.stored import Page, StoredMessage, from_direct

PATIENCE = 5.0
"""Seconds to wait for each message."""


async def batch(nc: Client, subject: str, request: Mapping[str, Any]) -> Page | None:
    """One batch from `$JS.API.DIRECT.GET.<stream>`; None where the stream does not allow it.

    Raises:
        Unavailable: No answer within five seconds, or the answers broke off.
    """
    inbox, answer = nc.new_inbox(), _Answer()
    subscription = await nc.subscribe(inbox, cb=answer.take)
    try:
        await nc.publish(subject, json.dumps(request).encode(), reply=inbox)
        return await answer.page(subject)
    finally:
        answer.ended.cancel()
        if not nc.is_closed:
            await subscription.unsubscribe()


async def counts(nc: Client, subject: str, starts: Sequence[int], pattern: str) -> list[int]:
    """How many messages stand from each of these sequences on, asked in this order and answered in it by a lone server.

    Args:
        nc: The connection.
        subject: `$JS.API.DIRECT.GET.<stream>` of a stream that allows it.
        starts: The sequences.
        pattern: Only messages on this subject, wildcards allowed.

    Raises:
        Unavailable: No answer within five seconds.
    """
    inbox = nc.new_inbox()
    answers = {f"{inbox}.{n}": _Answer() for n in range(len(starts))}

    async def take(msg: Msg) -> None:
        await answers[msg.subject].take(msg)

    subscription = await nc.subscribe(f"{inbox}.*", cb=take)
    try:
        for start, reply in zip(starts, answers, strict=True):
            request = {"seq": max(1, start), "batch": 1, "next_by_subj": pattern}
            await nc.publish(subject, json.dumps(request).encode(), reply=reply)
        return [await answer.count(subject) for answer in answers.values()]
    finally:
        for answer in answers.values():
            answer.ended.cancel()
        if not nc.is_closed:
            await subscription.unsubscribe()


class _Answer:
    """What comes back. The waiter is woken once, at the end: to wake it, and to time it, for each message doubles the cost."""

    __slots__ = ("behind_first", "clock", "ended", "found", "heard")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = loop.time
        self.heard = self.clock()
        """When the last message came, by the loop's clock."""
        self.ended: asyncio.Future[Page | None] = loop.create_future()
        self.found: list[StoredMessage] = []
        self.behind_first = 0
        """Messages behind the first one, at the moment it was read."""

    async def page(self, subject: str) -> Page | None:
        """Wait for the end.

        Raises:
            Unavailable: It does not come, and nothing else for five seconds.
        """
        while not self.ended.done():
            silence = self.clock() - self.heard
            if silence >= PATIENCE:
                raise Unavailable(f"no answer to {subject} within {PATIENCE:g} s")
            await asyncio.wait((self.ended,), timeout=PATIENCE - silence)
        return self.ended.result()

    async def count(self, subject: str) -> int:
        """Wait for the end of a batch of one; how many there are with those behind it.

        Raises:
            Unavailable: It does not come.
        """
        await self.page(subject)
        return len(self.found) + self.behind_first

    async def take(self, msg: Msg) -> None:
        """Callback of the subscription."""
        self.heard = self.clock()
        headers = msg.headers or {}
        try:
            # A stored message may carry a header of this name; only the server's own word has no sequence.
            if "Nats-Sequence" in headers or "Status" not in headers:
                if not self.found:
                    self.behind_first = number(headers.get("Nats-Num-Pending", ""))
                self.found.append(from_direct(headers, msg.data))
            elif not self.ended.done():
                self.ended.set_result(self._result(headers))
        except Exception as error:
            if not self.ended.done():
                self.ended.set_exception(error)

    def _result(self, headers: Mapping[str, str]) -> Page | None:
        status = headers["Status"]
        if status == "503":
            return None
        remaining = 0 if status == "404" else int(headers.get("Nats-Num-Pending", -1))
        return Page(tuple(self.found), remaining)
