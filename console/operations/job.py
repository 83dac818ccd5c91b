"""Doing what a plan says, item by item, and telling what became of each.

The order of steps that loses and doubles nothing is `DeadLetters.replay`'s own; a job adds the pace, the stop button and
the truth about each item. An item whose publish was not confirmed is in doubt, never guessed: its letter is still there,
and replaying it again stores no second copy that anybody handles.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import nats.errors
from nats.js.errors import APIError

from console.operations.audit import Audit
from console.operations.errors import OperationError
from console.operations.guard import WriteGuard
from console.operations.plan import Plan, PlannedItem
from console.text.safe import clean
from patterns import Fleet, PatternError, ReplayLimit, Unavailable, UnknownDeadLetter, UnknownDestination

log = logging.getLogger("console.operations")

SILENCES = 3
"""Items in doubt one after the other, after which a job stops: each has waited out its time-outs."""

RECONNECT_LOOK = 0.2
"""Seconds between two looks whether the connection is back."""

Outcome = Literal["done", "duplicate", "skipped", "failed", "in doubt", "not started"]
JobState = Literal["planned", "running", "completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item."""

    seq: int
    outcome: Outcome
    detail: str
    """One safe line."""


@dataclass(slots=True)
class Job:
    """One execution of a plan.

    Args:
        fleet: The connection.
        plan: What to do.
        guard: Asked again before the first item.
        actor: Who does it; stays with the messages.
    """

    fleet: Fleet
    plan: Plan
    guard: WriteGuard
    audit: Audit | None = None
    """Where it is written down, before and after."""
    confirmation: str = ""
    """How the plan was confirmed."""
    actor: str = field(default_factory=lambda: operator_name())  # noqa: PLW0108 - defined below
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    state: JobState = "planned"
    results: list[ItemResult] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    _cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self) -> None:
        """Stop after the item in work."""
        self._cancelled.set()

    def count(self, *outcomes: Outcome) -> int:
        """Items with one of these outcomes."""
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 if every item ended well, 3 if some failed or are in doubt."""
        return 3 if self.count("failed", "in doubt", "not started") else 0

    async def run(self) -> None:
        """Replay the items in their order at the plan's rate.

        Raises:
            Refused: The guard forbids it; nothing was sent.
            OperationError: It cannot be written down; nothing was sent.
        """
        self.guard.require(self.plan.action)
        try:
            # The disk may take its time over it.
            await asyncio.to_thread(self._write_down)
        except OperationError as error:
            self.state = "failed"
            self.results = [ItemResult(item.letter.seq, "not started", clean(str(error))) for item in self.plan.items]
            raise
        self.state, self.started = "running", time.monotonic()
        begun = 0
        try:
            due, silences = self.started, 0
            for item in self.plan.items:
                await self._wait_until(due)
                if self._cancelled.is_set() or silences >= SILENCES:
                    break
                # From now, not from the start: what a stall held up must not come down on a server that just returned.
                due = max(due, time.monotonic()) + 1 / self.plan.rate
                begun += 1
                self.results.append(await self._replay(item))
                self._write_trouble(self.results[-1])
                silences = silences + 1 if self.results[-1].outcome == "in doubt" else 0
        finally:
            broken = begun > len(self.results)
            self.results += [
                ItemResult(item.letter.seq, "in doubt", "the job broke off within it")
                for item in self.plan.items[len(self.results) : begun]
            ]
            self.results += [
                ItemResult(item.letter.seq, "not started", "the job was stopped before it")
                for item in self.plan.items[begun:]
            ]
            stopped = self._cancelled.is_set() or begun < self.plan.count
            self.state = "failed" if broken else "cancelled" if stopped else "completed"
            self.ended = time.monotonic()
            self._write_result()
        await self._announce()

    async def _wait_until(self, due: float) -> None:
        """Keep the pace, and wait out a lost connection: nothing is sent into the dark; a cancellation ends it."""
        while not self._cancelled.is_set():
            wait = due - time.monotonic() if self.fleet.nc.is_connected or self.fleet.nc.is_closed else RECONNECT_LOOK
            if wait <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._cancelled.wait()

    async def _replay(self, item: PlannedItem) -> ItemResult:
        letter = item.letter
        try:
            receipt = await self.fleet.dead_letters.replay(
                letter.seq, by=self.actor, to=self.plan.to, force=self.plan.force, entry=letter.entry
            )
        except UnknownDeadLetter:
            return ItemResult(letter.seq, "skipped", "gone: replayed, discarded or expired meanwhile")
        except (UnknownDestination, ReplayLimit) as error:
            return ItemResult(letter.seq, "failed", clean(str(error)))
        except (Unavailable, nats.errors.Error, OSError) as error:
            if isinstance(error, APIError):
                return ItemResult(letter.seq, "failed", clean(str(error.description or error)))
            return ItemResult(letter.seq, "in doubt", clean(f"not confirmed: {error}"))
        except PatternError as error:
            return ItemResult(letter.seq, "failed", clean(str(error)))
        where = f"{receipt.stream} {receipt.seq}"
        if receipt.duplicate:
            return ItemResult(letter.seq, "duplicate", f"was replayed before to {where}; only the letter was removed")
        return ItemResult(letter.seq, "done", f"to {clean(item.destination)}, {where}")

    def _write_down(self) -> None:
        """What is about to be done, on the disk before the first item."""
        if self.audit is None:
            return
        self.audit.write(
            "start",
            self.plan.action,
            self.id,
            selector=self.plan.selection,
            reason=self.plan.reason or None,
            planned=self.plan.count,
            skipped=len(self.plan.skipped),
            seqs=[item.letter.seq for item in self.plan.items],
            destinations=self.plan.by_destination,
            rate=self.plan.rate,
            force=self.plan.force,
            confirmation=self.confirmation or self.plan.gate,
            spill=None,
        )

    def _write_trouble(self, result: ItemResult) -> None:
        if self.audit is not None and result.outcome in ("failed", "in doubt"):
            self.audit.note(
                "item", self.plan.action, self.id, seq=result.seq, result=result.outcome, error=result.detail
            )

    def _write_result(self) -> None:
        if self.audit is None:
            return
        first = next(
            (result for result in self.results if result.outcome in ("failed", "in doubt", "not started")), None
        )
        self.audit.note(
            "end",
            self.plan.action,
            self.id,
            selector=self.plan.selection,
            reason=self.plan.reason or None,
            planned=self.plan.count,
            done=self.count("done", "duplicate"),
            duplicates=self.count("duplicate"),
            skipped=self.count("skipped") + len(self.plan.skipped),
            failed=self.count("failed"),
            in_doubt=self.count("in doubt"),
            not_started=self.count("not started"),
            result=self.state,
            error=first.detail if first is not None else None,
            spill=None,
        )

    async def _announce(self) -> None:
        """Tell the fleet what an operator did; a fleet without events, or without the right, is fine too."""
        data = {
            "job": self.id,
            "operator": self.actor,
            "planned": self.plan.count,
            "done": self.count("done", "duplicate"),
            "failed": self.count("failed", "in doubt", "not started"),
            "selection": self.plan.selection,
            "reason": self.plan.reason,
        }
        with contextlib.suppress(PatternError, nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self.fleet.events.broadcast(f"console.{self.plan.action}", data, source="console")

    def as_json(self) -> dict[str, Any]:
        """The contract's form of a result."""
        return {
            "job": self.id,
            "planned": self.plan.count,
            "done": self.count("done", "duplicate"),
            "skipped": self.count("skipped") + len(self.plan.skipped),
            "failed": self.count("failed", "in doubt", "not started"),
            "duplicates": self.count("duplicate"),
            "spill": None,
            "items": [
                {"seq": result.seq, "outcome": result.outcome, "detail": result.detail}
                for result in sorted(
                    [*self.results, *(ItemResult(skip.seq, "skipped", skip.reason) for skip in self.plan.skipped)],
                    key=lambda result: result.seq,
                )
            ],
        }


def operator_name() -> str:
    """`user@host`, as a replayed message remembers its operator."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return clean(f"{user}@{socket.gethostname()}", limit=64)
