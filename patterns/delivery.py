"""One message in the hands of one handler: its lease, and the one way it is settled."""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import APIError

from patterns.errors import PatternError, Reject, Retry, Unavailable
from patterns.ledger import Known
from patterns.message import Message, decode, encode, enter_handling, leave_handling
from patterns.names import Names
from patterns.stored import stored_ns_of

if TYPE_CHECKING:
    from typing import Self

    from patterns.lane import Lane

log = logging.getLogger("patterns")

TRANSIENT = (Unavailable, APIError, nats.errors.Error, OSError)
"""What a server that is away, restarting or electing a leader makes us see."""


class Delivery:
    """One message in the hands of one handler; settle it once, by leaving `async with` or by hand.

    Leaving the block: without an exception acknowledges; `Retry` gives back; `Reject` moves to the dead letters; any other
    `Exception` is retried by policy and then dead-lettered. None of these leaves the block: they are settled and logged. What
    can leave it is `Unavailable`, if the settlement was not confirmed; the message is then delivered again.
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
        self.known: Known | None = None
        """What the ledger was last seen to say of it."""
        self.stored_ns = stored_ns_of(raw) if raw is not None else 0
        """When it was stored, in nanoseconds since the epoch."""
        self.deliveries = raw.metadata.num_delivered if raw is not None else attempt
        """The server's count, hand-backs included."""
        self.on_handled: Callable[[], None] | None = None
        """Called when the handler has ended, before what it did is settled."""
        self._lane = lane
        self._owner: asyncio.Task[Any] | None = None
        self._began = 0.0
        self._first_beat: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._interrupted: Literal["", "max_runtime", "canceled"] = ""
        self._cancels = 0
        self._token: Any = None

    @classmethod
    def of(
        cls,
        type: str,
        data: Any = None,
        *,
        id: str | None = None,
        source: str | None = None,
        headers: Mapping[str, str] | None = None,
        attempt: int = 1,
        max_attempts: int = 3,
    ) -> Self:
        """A delivery built by hand, to test a handler without a server: it looks like a real one and settles nothing.

        Raises:
            InvalidMessage: `data` is not JSON.
        """
        sent = encode(type, data, id=id, source=source, headers=headers)
        message = decode(type, sent.headers, sent.body, names=Names(), stored_at=datetime.now(UTC))
        return cls(message, attempt=attempt, max_attempts=max_attempts)

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
            self._began = time.monotonic()
            # A timer costs a tenth of a task, and most handlers have ended before the first beat is due.
            delivery = self._lane.delivery
            first = min(delivery.heartbeat_interval, delivery.max_runtime)
            self._first_beat = asyncio.get_running_loop().call_later(first, self._begin_lease, self._lane)
        return self

    async def __aexit__(
        self, exc_type: builtins.type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        leave_handling(self._token)
        if self._first_beat is not None:
            self._first_beat.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self.on_handled is not None:
            self.on_handled()
        if isinstance(exc, asyncio.CancelledError):
            if not self._interrupted or self._cancelled_from_outside():
                if not self._interrupted and not _is_cancelled():
                    # The handler awaited something that somebody else cancelled: its own failure. Handed back, which is no
                    # attempt, it would come again at once and for ever.
                    await self._finish(self._settle_by(exc))
                    return True
                await self._finish(self._guarded(self.hand_back()))
                return False
            await self._finish(self._settle_interrupted())
            return True
        if isinstance(exc, SystemExit):
            # What ends the process each time it is handled is poison, too.
            await self._finish(self._guarded(self._settle_by(exc)))
            return False
        if exc is not None and not isinstance(exc, Exception):
            await self._finish(self._guarded(self.hand_back()))
            return False
        await self._finish(self._settle_by(exc))
        return exc is not None

    def _cancelled_from_outside(self) -> bool:
        """Take back our own cancellations; whether there was another."""
        left = 0
        for _ in range(self._cancels):
            left = self._owner.uncancel() if self._owner is not None else 0
        return left > 0

    async def _finish(self, settlement: Coroutine[Any, Any, None]) -> None:
        """Settle to the end even if this block is cancelled meanwhile; a stop of the consumer waits for it."""
        settling = asyncio.ensure_future(settlement)
        if self._lane is not None:
            self._lane.settling.add(settling)
            settling.add_done_callback(self._lane.settling.discard)
        # Cancelled, nobody awaits the rest any more, and asyncio would print the trace of its error.
        settling.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(settling)

    async def _settle_by(self, error: BaseException | None) -> None:
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

    def _begin_lease(self, lane: Lane) -> None:
        if not self.settled:
            self._heartbeat = asyncio.create_task(self._keep_lease(lane), name=f"lease {self.stream} {self.seq}")

    async def _keep_lease(self, lane: Lane) -> None:
        """Extend the lease and watch for cancellation and `max_runtime` until the handler ends."""
        interval = lane.delivery.heartbeat_interval
        while not self.settled:
            left = self._began + lane.delivery.max_runtime - time.monotonic()
            if left <= 0:
                self._interrupt("max_runtime")
            try:
                await lane.extend(self)
                if self._interrupted != "max_runtime" and await lane.canceled(self):
                    self._interrupt("canceled")
            except (PatternError, *TRANSIENT) as error:
                log.warning("%s: lease not extended: %s", self, error)
            # A handler can swallow a cancellation (`asyncio.wait_for` of Python 3.11 does, now and then): as long as it
            # runs its lease is kept, and it is told again.
            await asyncio.sleep(min(interval, 1.0) if self._interrupted else max(0.0, min(interval, left)))

    def _interrupt(self, why: Literal["max_runtime", "canceled"]) -> None:
        if self._owner is not None and not self.settled:
            self._interrupted = why
            self._cancels += 1
            self._owner.cancel()

    def __str__(self) -> str:
        return f"{self.type} {self.id} ({self.stream} {self.seq})"


def _is_cancelled() -> bool:
    """Whether somebody cancelled the task that runs this."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
