"""Many requests at once on one connection.

nats-py's `request` makes a future, a timer and a random inbox for each; here one wildcard subscription hears all answers
and a number tells whose they are, which takes a third of the time for the thousands of requests of one look at a fleet.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from patterns.denials import refused

WINDOW: Final = 512
"""Requests out at a time: at 10,000 queued ones the server drops everybody's."""

REFUSAL_POLL: Final = 0.05
"""Seconds between two looks for refusals while no answer comes: a refused request is never answered."""

Request = tuple[str, bytes]
"""Subject and payload."""


@dataclass(slots=True)
class _Round:
    """One call of `ask`: what is still out, and what came."""

    waiting: dict[int, int] = field(default_factory=dict)
    """Number of a request -> its place."""
    answers: list[Msg | None] = field(default_factory=list)
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    room: int = WINDOW
    """The waker is called when no more than this many are out."""


@dataclass(slots=True)
class _Gathering:
    """One call of `gather`."""

    answers: list[bytes] = field(default_factory=list)
    progress: asyncio.Event = field(default_factory=asyncio.Event)


class Mux:
    """Requests through one reply subscription.

    Args:
        nc: A connected client; it stays the caller's.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._numbers = itertools.count()
        self._open: dict[int, _Round | _Gathering] = {}
        self._prefix = ""
        self._subscription: Subscription | None = None

    async def ask(self, requests: Sequence[Request], timeout: float = 5.0) -> list[bytes | None]:
        """Send requests and return their answers, in the order of the requests.

        Args:
            requests: Subjects and payloads.
            timeout: Seconds without any answer after which the rest is given up.

        Returns:
            The payload of each answer; None where none came, nobody listens, or the server refused the request.

        Raises:
            nats.errors.Error: The connection is closed.
        """
        return [None if msg is None else msg.data for msg in await self.ask_messages(requests, timeout)]

    async def ask_messages(self, requests: Sequence[Request], timeout: float = 5.0) -> list[Msg | None]:
        """Like `ask`, with the headers of the answers."""
        if not requests:
            return []
        await self._listen()
        current = _Round(answers=[None] * len(requests))
        waiting, subjects, began = current.waiting, {}, time.monotonic()
        try:
            for place, (subject, payload) in enumerate(requests):
                number = next(self._numbers)
                waiting[number] = place
                subjects[number] = subject
                self._open[number] = current
                await self._nc.publish(subject, payload, reply=f"{self._prefix}{number}")
                if len(waiting) >= WINDOW and not await self._until(current, subjects, began, WINDOW // 2, timeout):
                    break
            await self._until(current, subjects, began, 0, timeout)
        finally:
            for number in waiting:
                self._open.pop(number, None)
        return current.answers

    async def _until(self, current: _Round, subjects: dict[int, str], began: float, room: int, timeout: float) -> bool:
        """Wait until no more than `room` requests are out; False if the answers stopped coming."""
        current.room, last = room, time.monotonic()
        while len(current.waiting) > room:
            before = len(current.waiting)
            current.progress.clear()
            try:
                async with asyncio.timeout(REFUSAL_POLL):
                    await current.progress.wait()
            except TimeoutError:
                for number in [number for number in current.waiting if refused(self._nc, subjects[number], began)]:
                    del current.waiting[number]
                    self._open.pop(number, None)
            if len(current.waiting) < before:
                last = time.monotonic()
            elif time.monotonic() - last > timeout:
                return False
        return True

    async def gather(
        self, subject: str, payload: bytes, *, expected: int, timeout: float = 5.0, patience: float = 1.0
    ) -> list[bytes]:
        """Ask everybody who listens and collect what they say.

        Args:
            subject: Where several answer, one message each.
            payload: The request.
            expected: Answers after which no more is waited for.
            timeout: Seconds until the first answer.
            patience: Seconds from one answer to the next.

        Returns:
            The payloads in the order of their arrival; none when nobody listens or may be asked.
        """
        await self._listen()
        current, number, began = _Gathering(), next(self._numbers), time.monotonic()
        self._open[number] = current
        try:
            await self._nc.publish(subject, payload, reply=f"{self._prefix}{number}")
            last = time.monotonic()
            while len(current.answers) < expected and number in self._open:
                heard = len(current.answers)
                current.progress.clear()
                try:
                    async with asyncio.timeout(REFUSAL_POLL):
                        await current.progress.wait()
                except TimeoutError:
                    if refused(self._nc, subject, began):
                        break
                if len(current.answers) > heard:
                    last = time.monotonic()
                elif time.monotonic() - last > (patience if current.answers else timeout):
                    break
        finally:
            self._open.pop(number, None)
        return current.answers

    async def close(self) -> None:
        """End the subscription."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._nc.is_closed:
            await subscription.unsubscribe()

    def refused(self, subjects: Iterable[str], since: float) -> list[str]:
        """Those subjects that this user may not publish to, as the server said since a moment of the monotonic clock."""
        return [subject for subject in subjects if refused(self._nc, subject, since)]

    async def _listen(self) -> None:
        if self._nc.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._subscription is None:
            self._prefix = f"{self._nc.new_inbox()}."
            self._subscription = await self._nc.subscribe(f"{self._prefix}*", cb=self._hear)

    async def _hear(self, msg: Msg) -> None:
        number = int(msg.subject.rpartition(".")[2])
        current = self._open.get(number)
        if current is None:
            return
        nobody = msg.headers is not None and not msg.data and msg.headers.get("Status") == "503"
        if isinstance(current, _Gathering):
            if nobody:
                del self._open[number]
            else:
                current.answers.append(msg.data)
            current.progress.set()
            return
        del self._open[number]
        place = current.waiting.pop(number)
        if not nobody:
            current.answers[place] = msg
        if len(current.waiting) <= current.room:
            current.progress.set()
