"""The loop that pulls deliveries, shared by inbox, tasks and events.

Guarantees: a handler sees one message at a time per free slot; what it returns from is acknowledged by a double ack;
what it raises from is retried by policy and then moved to the dead letters, never dropped. A running handler extends its
lease by a heartbeat and is cancelled after `max_runtime`. A graceful stop withdraws the pull without losing a message and
hands running work back at once. A handler that blocks the event loop loses its lease: use `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.msg import Msg

from patterns.delivery import TRANSIENT, Delivery
from patterns.errors import PatternError, PermissionDenied, Unavailable
from patterns.headers import time_of_ns
from patterns.message import decode
from patterns.pull import Pull
from patterns.stored import stored_ns_of

if TYPE_CHECKING:
    from typing import Self

    from patterns.lane import Lane
    from patterns.letter import DeadLetter

log = logging.getLogger("patterns")

FIRST_PAUSE = 0.1
"""Seconds before the second try at a server that is away; doubled up to 5."""

SETTLING = 10.0
"""Seconds a stop waits for settlements that are under way, at the most."""

Handler = Callable[["Delivery"], Awaitable[Any]]
"""A coroutine function; what it returns is a task's result."""


class Consumer:
    """Takes messages of one durable, `concurrency` at a time; also an async iterator and an async context manager.

    Nothing is prefetched: a pull is sent only when a slot is free, that is, when a handler has ended. Every running inbox
    consumer also sweeps its stream for messages that exhausted their deliveries without reaching the dead letters.

    Args:
        lane: Where from, and what settling means there.
        agent: Who handles, for the ledger and the dead letters.
        concurrency: Handlers at a time.
    """

    def __init__(self, lane: Lane, *, agent: str = "", concurrency: int = 1) -> None:
        self.lane = lane
        self.agent = agent
        self.concurrency = max(1, concurrency)
        self.accepts: Callable[[str], bool] | None = None
        """Whether a type has a handler; what it refuses becomes a dead letter (`unhandled`). None accepts all."""
        self.gap: int | None = None
        """At most so many events expired unseen before this subscription came back: the server counts those of other topics
        too and cannot say which they were. None if none did, and where nothing expires."""
        self.duplicates = 0
        """Second copies of replayed messages and of outcomes that were dropped."""
        self.running: set[asyncio.Task[None]] = set()
        """Handlers, and settlements that follow them."""
        self.settling = 0
        """Settlements that hold no slot."""
        self._pull: Pull | None = None
        self._stopping = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE

    async def run(self, handler: Handler) -> None:
        """Handle messages until `stop()`; errors of the server are waited out with back-off.

        Raises:
            nats.errors.ConnectionClosedError: The connection was closed for good.
        """
        slots = asyncio.Semaphore(self.concurrency)
        self._start_background()
        while not self._stopping.is_set():
            await slots.acquire()
            try:
                raw = await self._next_raw(self.lane.poll)
            except BaseException:
                slots.release()
                await asyncio.shield(self._close_pull())
                raise
            if raw is None:
                slots.release()
                continue
            slot = _Slot(self, slots)
            task = asyncio.create_task(self._handle(raw, handler, slot), name=f"handler {self.lane.durable}")
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            task.add_done_callback(slot.close)

    async def next(self, timeout: float = 30.0) -> Delivery | None:
        """Take one message; None if there is none within `timeout` seconds. A cancelled call loses nothing."""
        deadline = time.monotonic() + timeout
        self._start_background()
        try:
            while not self._stopping.is_set():
                raw = await self._next_raw(max(0.05, deadline - time.monotonic()))
                if raw is not None:
                    delivery = await self._admit_or_return(raw)
                    if delivery is not None:
                        return delivery
                if time.monotonic() >= deadline:
                    return None
        except asyncio.CancelledError:
            await asyncio.shield(self._close_pull())
            raise
        return None

    async def stop(self, grace: float | None = None) -> None:
        """Stop taking messages, wait `grace` seconds for running handlers, hand back what is still in work."""
        self._stopping.set()
        await self._close_pull()
        if self._background is not None:
            await end(self._background, every=0.2)
            self._background = None
        if self.running:
            await asyncio.wait(self.running, timeout=self.lane.drain_grace if grace is None else grace)
        await end(*self.running, every=5.0)
        if self.lane.settling:
            await asyncio.wait(self.lane.settling, timeout=SETTLING)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: builtins.type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while not self._stopping.is_set():
            delivery = await self.next(self.lane.poll)
            if delivery is not None:
                yield delivery

    # -- internals

    def _start_background(self) -> None:
        if self._background is None and not self._stopping.is_set():
            self._background = asyncio.create_task(self.lane.housekeeping(self), name=f"sweep {self.lane.durable}")

    async def _close_pull(self) -> None:
        pull, self._pull = self._pull, None
        for raw in await pull.close() if pull is not None else ():
            await self._return(raw)

    async def _return(self, raw: Msg) -> None:
        """Hand back a message that no handler has seen; it counts as little as any hand-back."""
        delivery = self._delivery(raw)
        await delivery._guarded(delivery.hand_back())

    async def _next_raw(self, timeout: float) -> Msg | None:
        """One message off the wire, or None; a server that is away is waited for with growing pauses."""
        deadline = time.monotonic() + timeout
        while not self._stopping.is_set():
            await self.lane.adopt()
            if self._stopping.is_set():
                return None  # a stop came meanwhile: it would neither close a new pull nor wait for what that brings
            if self._pull is None:
                self._pull = self.lane.pull()
            pull = self._pull
            try:
                raw = await pull.next(max(0.05, deadline - time.monotonic()))
            except nats.errors.ConnectionClosedError:
                raise
            except TRANSIENT as error:
                self.lane.disown()
                log.log(
                    logging.WARNING if self._pause <= FIRST_PAUSE else logging.DEBUG,
                    "%s: %s; trying again",
                    self.lane.durable,
                    error,
                )
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                try:
                    async with asyncio.timeout(min(self._pause, left)):
                        await self._stopping.wait()
                except TimeoutError:
                    self._pause = min(self._pause * 2, 5.0)
            else:
                self._pause = FIRST_PAUSE
                return raw
        return None

    async def _handle(self, raw: Msg, handler: Handler, slot: _Slot) -> None:
        try:
            delivery = await self._admit_or_return(raw)
            if delivery is not None:
                delivery.on_handled = slot.handled
                async with delivery:
                    delivery.result = await handler(delivery)
        except (PatternError, *TRANSIENT) as error:
            # The lease expires and the message comes again: nothing is lost by going on.
            log.warning("%s: message not settled, it will be delivered again: %s", self.lane.durable, error)
        except Exception:
            log.exception("%s: message not settled, it will be delivered again", self.lane.durable)

    async def _admit_or_return(self, raw: Msg) -> Delivery | None:
        """As `_admit`; cancelled, it hands the message back instead of leaving it to its lease."""
        delivery = self._delivery(raw)
        try:
            return delivery if await self._admit(delivery) else None
        except asyncio.CancelledError:
            await asyncio.shield(delivery._guarded(delivery.hand_back()))
            raise

    def _delivery(self, raw: Msg) -> Delivery:
        meta = raw.metadata
        stored_ns = stored_ns_of(raw)
        message = decode(
            raw.subject,
            raw.headers,
            raw.data,
            names=self.lane.names,
            stream=meta.stream,
            seq=meta.sequence.stream,
            stored_at=time_of_ns(stored_ns),
        )
        return Delivery(
            message, attempt=meta.num_delivered, max_attempts=self.lane.delivery.max_deliver, lane=self.lane, raw=raw
        )

    async def _admit(self, delivery: Delivery) -> bool:
        """Whether a handler may see it; it is settled here if not."""
        second_copy, letter = await self._recall(delivery)
        if second_copy:
            self.duplicates += 1
            delivery.settled = "dropped"
            await self.lane.confirm(delivery)
            return False
        if not await self.lane.admit(delivery):
            delivery.settled = delivery.settled or "dropped"
            return False
        if await self.lane.finish_burial(delivery, letter):
            return False
        reason, error = self._unfit(delivery)
        if reason == "crash" and self.lane.at_work(delivery):
            delivery.settled = "retried"
            await self.lane.give_back(delivery, self.lane.delivery.ack_wait)
            return False
        if reason:
            delivery.settled = "dead"
            await self.lane.bury(delivery, reason, "", error)
            return False
        if not await self.lane.begin(delivery, self.agent):
            delivery.settled = "dropped"
            if await self.lane.admit(delivery):
                letter = await self.lane.letter_of(delivery)
                if not await self.lane.finish_burial(delivery, letter):
                    await self.lane.confirm(delivery)
            return False
        return True

    async def _recall(self, delivery: Delivery) -> tuple[bool, DeadLetter | None]:
        """Whether it is a second copy, and the letter it may have; an election over there is waited out.

        For as long as the lease is surely ours: left to its end, a healthy message would lose the five minutes of an
        inbox's lease and one of its attempts.
        """
        deadline = time.monotonic() + self.lane.delivery.ack_wait / 2
        pause = FIRST_PAUSE
        while True:
            try:
                if await self.lane.is_second_copy(delivery):
                    return True, None
                return False, await self.lane.recall(delivery)
            except PermissionDenied:
                raise
            except Unavailable as error:
                if time.monotonic() + pause >= deadline:
                    raise
                log.debug("%s: %s; asking again", delivery, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _unfit(self, delivery: Delivery) -> tuple[str, str]:
        """Reason and text why no handler may see this delivery; two empty strings if one may."""
        message = delivery.message
        if delivery.attempt > delivery.max_attempts:
            return "crash", f"no attempt of {delivery.max_attempts} ended: the process died or lost its lease each time"
        if message.problem is not None:
            return "invalid", message.problem
        if message.expired():
            return "expired", f"expired at {message.expires_at:%Y-%m-%d %H:%M:%S} UTC, before it was delivered"
        if message.hops > self.lane.max_hops:
            return (
                "max-hops",
                f"{message.hops} delegations, more than {self.lane.max_hops}: agents delegate in a circle",
            )
        if self.accepts is not None and not self.accepts(message.type):
            return "unhandled", f"no handler for type {message.type!r}"
        return "", ""


class _Slot:
    """One of the places in which handlers run.

    It is free again as soon as its handler has ended: the next message is asked for while the last one is acknowledged,
    which saves a round trip. Of those, too, no more than handlers are let run on: a server that confirms nothing must
    not collect what was handled.
    """

    def __init__(self, consumer: Consumer, slots: asyncio.Semaphore) -> None:
        self._consumer = consumer
        self._slots = slots
        self._settles = False

    def handled(self) -> None:
        """Its handler has ended, its settlement begins."""
        if not self._settles and self._consumer.settling < self._consumer.concurrency:
            self._settles = True
            self._consumer.settling += 1
            self._slots.release()

    def close(self, _: asyncio.Task[None]) -> None:
        """All is done."""
        if self._settles:
            self._consumer.settling -= 1
        else:
            self._slots.release()


async def end(*tasks: asyncio.Task[Any], every: float) -> None:
    """Cancel tasks and wait for their end, again each `every` seconds.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which nats-py builds on, swallows a cancellation that meets the
    arrival of what was waited for.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=every)
