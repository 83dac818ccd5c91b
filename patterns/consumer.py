"""One delivery and the loop that pulls them, shared by inbox, tasks and events.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import APIError

from patterns.errors import PatternError, Reject, Retry, Unavailable
from patterns.message import Message, decode, enter_handling, leave_handling
from patterns.pull import Pull

if TYPE_CHECKING:
    from typing import Self

    from patterns.lane import Lane

log = logging.getLogger("patterns")

TRANSIENT = (Unavailable, APIError, nats.errors.Error, OSError)
"""What a server that is away, restarting or electing a leader makes us see."""


async def end(*tasks: asyncio.Task[Any], every: float) -> None:
    """Cancel tasks and wait for their end, again each `every` seconds.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which nats-py builds on, swallows a cancellation that meets the
    arrival of what was waited for.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=every)


Handler = Callable[["Delivery"], Awaitable[Any]]
"""A coroutine function; what it returns is a task's result."""


class Delivery:
    """One message in the hands of one handler; settle it once, by leaving `async with` or by hand.

    Leaving the block: without an exception acknowledges; `Retry` gives back; `Reject` moves to the dead letters; any other
    `Exception` is retried by policy and then dead-lettered. None of these leaves the block: they are settled and logged.
    Cancellation hands the message back and goes on.

    Args:
        message: What was delivered.
        attempt: 1 on the first delivery.
        max_attempts: Attempts before it becomes a dead letter.
        lane: Where it came from; None for a delivery built by hand to test a handler, which then settles nothing.
        raw: The client's message, needed to acknowledge.
    """

    def __init__(
        self,
        message: Message,
        *,
        attempt: int = 1,
        max_attempts: int = 1,
        lane: Lane | None = None,
        raw: Msg | None = None,
    ) -> None:
        self.message = message
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.result: Any = None
        """What a task answers; set it, or return it from a handler that `Consumer.run` calls."""
        self.settled: Literal["", "acked", "retried", "dead", "handed back", "dropped"] = ""
        """How it ended; empty while it is open."""
        self.raw = raw
        self.deliveries = raw.metadata.num_delivered if raw is not None else attempt
        """The server's count, hand-backs included."""
        self._lane = lane
        self._owner: asyncio.Task[Any] | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._interrupted: Literal["", "max_runtime", "canceled"] = ""
        self._token: Any = None

    # -- the message, readable directly

    @property
    def id(self) -> str:
        """Id of the message."""
        return self.message.id

    @property
    def type(self) -> str:
        """Type of the message."""
        return self.message.type

    @property
    def data(self) -> Any:
        """Its decoded body."""
        return self.message.data

    @property
    def text(self) -> str:
        """Its body as text."""
        return self.message.text

    @property
    def source(self) -> str:
        """Who sent it."""
        return self.message.source

    @property
    def subject(self) -> str:
        """The subject it was stored under."""
        return self.message.subject

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        return self.message.headers

    @property
    def correlation_id(self) -> str:
        """Id of the conversation."""
        return self.message.correlation_id

    @property
    def stream(self) -> str:
        """The stream it is stored in."""
        return self.message.stream or ""

    @property
    def seq(self) -> int:
        """Its sequence there."""
        return self.message.seq or 0

    @property
    def stored_at(self) -> datetime:
        """When it was stored."""
        return self.message.stored_at or datetime.now(UTC)

    # -- settling

    async def ack(self) -> None:
        """Done: record the result where there is one, then remove the message by a double ack."""
        if self._settle("acked") and self._lane is not None:
            await self._lane.complete(self)

    async def retry(self, after: float | None = None, *, reason: str = "") -> None:
        """Not now: deliver again after `after` seconds (None: by policy); on the last attempt it becomes a dead letter."""
        if self._settle("retried") and self._lane is not None:
            await self._lane.retry(self, after, "Retry", reason)

    async def reject(self, reason: str) -> None:
        """Never: move it to the dead letters with reason `rejected`."""
        if self._settle("dead") and self._lane is not None:
            await self._lane.bury(self, "rejected", "Reject", reason)

    async def hand_back(self) -> None:
        """Somebody else, now: not counted as an attempt where that can be helped."""
        if self._settle("handed back") and self._lane is not None:
            await self._lane.hand_back(self)

    async def progress(self, note: str) -> None:
        """Extend the lease and leave a note for the operator (and, for a task, in the ledger)."""
        if not self.settled and self._lane is not None:
            await self._lane.extend(self)
            await self._lane.progress(self, note)

    def _settle(self, how: Literal["acked", "retried", "dead", "handed back"]) -> bool:
        if self.settled:
            return False
        self.settled = how
        return True

    # -- the block

    async def __aenter__(self) -> Self:
        self._token = enter_handling(self.message)
        if self._lane is not None:
            self._owner = asyncio.current_task()
            self._heartbeat = asyncio.create_task(self._keep_lease(self._lane), name=f"lease {self.stream} {self.seq}")
        return self

    async def __aexit__(
        self, exc_type: builtins.type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        leave_handling(self._token)
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if isinstance(exc, asyncio.CancelledError):
            if not self._interrupted or (self._owner is not None and self._owner.uncancel() > 0):
                await asyncio.shield(self._guarded(self.hand_back()))
                return False
            await self._settle_interrupted()
            return True
        if exc is not None and not isinstance(exc, Exception):
            await asyncio.shield(self._guarded(self.hand_back()))
            return False
        settling = asyncio.ensure_future(self._settle_by(exc))
        # If this block is cancelled nobody awaits the rest any more, and asyncio would print the trace of its error.
        settling.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(settling)
        return exc is not None

    async def _settle_by(self, error: Exception | None) -> None:
        if error is None:
            await self.ack()
        elif isinstance(error, Retry):
            await self.retry(error.after, reason=error.reason)
        elif isinstance(error, Reject):
            await self.reject(error.reason)
        else:
            log.warning(
                "%s failed on attempt %d of %d: %s: %s",
                self,
                self.attempt,
                self.max_attempts,
                type(error).__name__,
                error,
            )
            if self._settle("retried") and self._lane is not None:
                await self._lane.retry(self, None, type(error).__name__, str(error), error)

    async def _settle_interrupted(self) -> None:
        lane = self._lane
        if lane is None or not self._settle("retried" if self._interrupted == "max_runtime" else "dropped"):  # type: ignore[arg-type]
            return
        if self._interrupted == "max_runtime":
            limit = lane.delivery.max_runtime
            log.warning("%s was cancelled after %g s (max_runtime)", self, limit)
            await lane.retry(self, None, "TimeoutError", f"handler still running after {limit:g} s (max_runtime)")
        else:
            log.info("%s was canceled", self)
            await lane.confirm(self)

    async def _guarded(self, settlement: Awaitable[None]) -> None:
        try:
            await settlement
        except (PatternError, *TRANSIENT) as error:
            log.warning("%s could not be handed back, its lease will expire instead: %s", self, error)

    async def _keep_lease(self, lane: Lane) -> None:
        """Extend the lease and watch for cancellation and `max_runtime` until the handler ends."""
        started = time.monotonic()
        interval = lane.delivery.heartbeat_interval
        while not self.settled:
            left = started + lane.delivery.max_runtime - time.monotonic()
            await asyncio.sleep(max(0.0, min(interval, left)))
            if left <= interval:
                return self._interrupt("max_runtime")
            try:
                await lane.extend(self)
                if await lane.canceled(self):
                    return self._interrupt("canceled")
            except (PatternError, *TRANSIENT) as error:
                log.warning("%s: lease not extended: %s", self, error)
        return None

    def _interrupt(self, why: Literal["max_runtime", "canceled"]) -> None:
        if self._owner is not None and not self.settled:
            self._interrupted = why
            self._owner.cancel()

    def __str__(self) -> str:
        return f"{self.type} {self.id} ({self.stream} {self.seq})"


class Consumer:
    """Takes messages of one durable, `concurrency` at a time; also an async iterator and an async context manager.

    Nothing is prefetched: a pull is sent only when a slot is free. Every running inbox consumer also sweeps its stream
    for messages that exhausted their deliveries without reaching the dead letters.

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
        """Messages that expired unseen before this consumer came back; None where that cannot happen."""
        self.duplicates = 0
        """Second copies of replayed messages that were dropped."""
        self.running: set[asyncio.Task[None]] = set()
        self._pull: Pull | None = None
        self._stopping = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._stopped = False

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
            task = asyncio.create_task(self._handle(raw, handler), name=f"handler {self.lane.durable}")
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            task.add_done_callback(lambda _: slots.release())

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
        pause, deadline = 0.1, time.monotonic() + timeout
        while not self._stopping.is_set():
            if self._pull is None:
                self._pull = self.lane.pull()
            pull = self._pull
            try:
                return await pull.next(max(0.05, deadline - time.monotonic()))
            except nats.errors.ConnectionClosedError:
                raise
            except TRANSIENT as error:
                log.warning("%s: %s; trying again", self.lane.durable, error)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                try:
                    async with asyncio.timeout(min(pause, left)):
                        await self._stopping.wait()
                except TimeoutError:
                    pause = min(pause * 2, 5.0)
        return None

    async def _handle(self, raw: Msg, handler: Handler) -> None:
        try:
            delivery = await self._admit_or_return(raw)
            if delivery is not None:
                async with delivery:
                    delivery.result = await handler(delivery)
        except (PatternError, *TRANSIENT) as error:
            # The lease expires and the message comes again: nothing is lost by going on.
            log.warning("%s: message not settled, it will be delivered again: %s", self.lane.durable, error)

    async def _admit_or_return(self, raw: Msg) -> Delivery | None:
        """As `_admit`; cancelled, it hands the message back instead of leaving it to its lease."""
        try:
            return await self._admit(raw)
        except asyncio.CancelledError:
            await asyncio.shield(self._return(raw))
            raise

    def _delivery(self, raw: Msg) -> Delivery:
        meta = raw.metadata
        stored_ns = int(raw.reply.split(".")[-2])
        message = decode(
            raw.subject,
            raw.headers,
            raw.data,
            names=self.lane.names,
            stream=meta.stream,
            seq=meta.sequence.stream,
            stored_at=datetime.fromtimestamp(stored_ns // 10**9, UTC)
            + timedelta(microseconds=stored_ns % 10**9 // 1000),
        )
        return Delivery(
            message, attempt=meta.num_delivered, max_attempts=self.lane.delivery.max_deliver, lane=self.lane, raw=raw
        )

    async def _admit(self, raw: Msg) -> Delivery | None:
        """Turn a raw message into a delivery, or settle it here if no handler may see it."""
        delivery = self._delivery(raw)
        if await self.lane.is_second_copy(delivery):
            self.duplicates += 1
            delivery.settled = "dropped"
            await self.lane.confirm(delivery)
            return None
        if not await self.lane.admit(delivery):
            delivery.settled = delivery.settled or "dropped"
            return None
        if await self.lane.finish_burial(delivery):
            return None
        reason, error = self._unfit(delivery)
        if reason:
            delivery.settled = "dead"
            await self.lane.bury(delivery, reason, "", error)
            return None
        if not await self.lane.begin(delivery, self.agent):
            delivery.settled = "dropped"
            if await self.lane.admit(delivery) and not await self.lane.finish_burial(delivery):
                await self.lane.confirm(delivery)
            return None
        return delivery

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
