"""Pull requests of one message that can be withdrawn without losing the message."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from patterns.errors import Unavailable
from patterns.interest import withdraw
from patterns.jetstream import JetStream

log = logging.getLogger("patterns")

GRACE = 0.25
"""Seconds the server's "nothing came" may be late."""


class Pull:
    """Pull requests of one message on a durable.

    Unlike a cancelled `fetch()`, a withdrawn request loses nothing: `close` unsubscribes, waits until the server knows,
    and returns whatever was already on its way.

    Args:
        api: The JetStream to ask.
        stream: Stream of the durable.
        durable: Name of the durable.
    """

    def __init__(self, api: JetStream, stream: str, durable: str) -> None:
        self._api = api
        self._subject = f"{api.prefix}.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._arrived: deque[Msg] = deque()
        self._wake = asyncio.Event()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._asked = False
        """Whether a request is out and unanswered."""
        self._cut = False
        self._closed = False
        self._withdrawing = asyncio.Lock()

    async def next(self, timeout: float) -> Msg | None:
        """Wait up to `timeout` seconds for one message; None if none came or `close` was called.

        Raises:
            Unavailable: The durable is gone or has no leader; try again later.
            nats.errors.ConnectionClosedError: The connection is closed for good.
        """
        nc = self._api.nc
        deadline = time.monotonic() + timeout
        while not self._closed:
            while self._arrived:
                msg = self._arrived.popleft()
                status = (msg.headers or {}).get("Status") if not msg.reply else None
                if status is None:
                    self._asked = False
                    return msg
                if status == "100":
                    continue
                self._asked = False
                if status not in ("404", "408"):
                    described = (msg.headers or {}).get("Description", "durable or leader is gone")
                    raise Unavailable(f"pull refused: {status} {described.partition(chr(10))[0].strip()}")
            if nc.is_closed:
                raise nats.errors.ConnectionClosedError
            if not nc.is_connected:
                # Nothing wakes us while disconnected; look again soon instead of buffering a pull for each round.
                self._cut = True
                if time.monotonic() >= deadline:
                    return None
                await self._woken(0.1)
                continue
            if self._cut:
                # A server that was not restarted may still hold the request of before.
                self._cut = False
                await self._withdraw()
                continue
            now = time.monotonic()
            if now >= deadline and not self._asked:
                return None
            if not self._asked:
                await self._request(deadline - now)
            if not await self._woken(max(0.01, deadline - now) + GRACE):
                # No message and no word: whoever asks again now would have two requests for one free place, and a
                # message nobody holds. So the old one goes first; what it brought after all is handed out above.
                await self._withdraw()
        return None

    async def _woken(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def close(self) -> list[Msg]:
        """Withdraw the request; returns the messages that were already on their way, which the caller has to give back."""
        self._closed = True
        self._wake.set()
        await self._withdraw()
        late = [msg for msg in self._arrived if msg.reply]
        self._arrived.clear()
        return late

    async def _withdraw(self) -> None:
        """Take the request back; what it brought meanwhile is in `_arrived` afterwards.

        Cancelled half-way it is not done: `close` then does it again, and waits for one that is under way.
        """
        async with self._withdrawing:
            self._asked = False
            if self._subscription is not None:
                try:
                    await withdraw(self._api.nc, [self._subscription])
                except (nats.errors.Error, OSError, TimeoutError) as error:
                    log.debug("withdrawing a pull failed, the lease will expire instead: %s", error)
                self._subscription = None

    async def _request(self, expires: float) -> None:
        if self._subscription is None:
            self._inbox = self._api.nc.new_inbox()
            self._subscription = await self._api.nc.subscribe(self._inbox, cb=self._receive)
        request = {"batch": 1, "expires": int(max(expires, 0.01) * 1e9)}
        await self._api.nc.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)
        self._asked = True

    async def _receive(self, msg: Msg) -> None:
        self._arrived.append(msg)
        self._wake.set()
