"""Taking a job's items to their end: one at a time or several, in order, at its pace, and finding out what nobody saw."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import nats.errors
from nats.js.errors import APIError

from console.operations import acts
from console.operations.acts import Act
from console.operations.errors import OperationError
from console.operations.items import ItemResult, Outcome
from console.operations.journal import BETWEEN, TRIES
from console.operations.ledger import LedgerBusy, LedgerItem
from console.text.safe import clean
from patterns import LetterStays, PatternError, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from console.operations.job import Job

log = logging.getLogger("console.operations")

SILENCES = 3
"""Items without an answer one after the other, after which a job stops: each has waited out its time-outs."""
PAGE = 500
"""Items that are read from the ledger at a time."""
LOOK = 0.2
"""Seconds between two looks whether the connection is back."""
LATE = 0.05
"""Seconds of delay that are made up for: timers wake up late, and at 500 a second each time by half an interval."""
WIDE, WIDTH = 100.0, 16
"""Above this rate so many items are in work at a time; below, one: a cancellation then ends within one item."""
CHECKPOINT = 5000
"""Items after which the ledger's log is folded into its file."""


class Runner:
    """Runs the items of one job.

    Args:
        job: Whose.
        act: What is done to each.
    """

    def __init__(self, job: Job, act: Act) -> None:
        self._job = job
        self._act = act
        self._silences = 0
        self._broken: BaseException | None = None
        """What ends the job at once."""

    async def find_out(self) -> None:
        """What became of items that an earlier run had begun."""
        for begun in self._job.ledger.items(self._job.id, "sending") if self._job.recorded else ():
            verdict = await self._verdict(begun)
            # What may be sent again is looked at once more when its turn comes: the server may have forgotten it by then.
            if verdict != "again":
                self._job.note(begun.n, verdict)
        self._job.settle()

    async def _verdict(self, begun: LedgerItem) -> ItemResult | Literal["again"]:
        """`again`, or the result."""
        seq = begun.item.seq
        for _ in range(SILENCES):
            await self._connected()
            try:
                verdict = await self._act.verdict(begun)
            except PermissionDenied as error:
                return ItemResult(seq, "in doubt", clean(f"not confirmed, and it cannot be found out: {error}"))
            except acts.SILENCE:
                continue
            self._silences = 0
            if verdict == "unknown":
                return ItemResult(
                    seq, "in doubt", "sent, but not confirmed: it may or may not have got there; say what is true"
                )
            return verdict
        self._silences += 1
        return ItemResult(seq, "in doubt", "sent, but not confirmed, and the server does not answer")

    async def work(self, most: int | None = None) -> int:
        """Do what is waiting, in order; returns how many were begun.

        Args:
            most: So many at the most; None for all.

        Raises:
            OperationError: The ledger cannot be written: nothing is sent that is not on record.
        """
        slots, before, under_way = _Slots(), None, set[asyncio.Task[None]]()
        due, after, begun = time.monotonic(), -1, 0
        try:
            while page := self._waiting(after, PAGE if most is None else min(PAGE, most - begun)):
                for entry in page:
                    after = entry.n
                    self._act.hurries = wide = self._job.rate is None or self._job.rate > WIDE
                    await slots.take((self._act.at_once or WIDTH) if wide else 1)
                    await self._wait_until(due)
                    if self._job.cancelled.is_set() or self._silences >= SILENCES or self._broken is not None:
                        slots.give()
                        break
                    # From now, not from the start: what a stall held up must not come down on a server that just returned.
                    due = max(due, time.monotonic() - LATE) + (1 / self._job.rate if self._job.rate else 0)
                    passed = asyncio.Event()
                    task = asyncio.create_task(self._one(entry, before, passed, slots))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    before, begun = passed, begun + 1
                    if begun % CHECKPOINT == 0:
                        # While somebody writes, the log is never folded whole and would only grow.
                        if under_way:
                            await asyncio.wait(under_way)
                        await asyncio.to_thread(self._job.ledger.checkpoint)
                else:
                    continue
                break
        finally:
            while under_way:
                await asyncio.wait(under_way)
            self._job.settle()
        if self._broken is not None:
            raise self._broken
        return begun

    def _waiting(self, after: int, limit: int) -> Sequence[LedgerItem]:
        return self._job.ledger.items(self._job.id, "waiting", "sending", after=after, limit=limit) if limit else ()

    async def _one(self, entry: LedgerItem, before: asyncio.Event | None, passed: asyncio.Event, slots: _Slots) -> None:
        async def sending(mark: str = "") -> None:
            # What goes out, goes out in the order of the plan, however many are in work.
            if before is not None:
                await before.wait()
            await self._mark(entry.n, f"{acts.run_of(self._job.fleet)} {mark}")
            passed.set()

        if entry.at is not None:
            self._act.begun_before(entry.item)
        try:
            result = await self._found_out(entry) if entry.state == "sending" else None
            if result is None:
                result = await self._tried(entry, sending, passed)
        except Exception as error:
            if isinstance(error, OperationError):
                self._broken = self._broken or error
                result = None
            else:
                log.exception("job %s, sequence %d", self._job.id, entry.item.seq)
                outcome: Outcome = "in doubt" if passed.is_set() else "failed"
                result = ItemResult(entry.item.seq, outcome, clean(f"{type(error).__name__}: {error}"))
        except BaseException as error:
            self._broken = self._broken or error
            result = None
        finally:
            slots.give()
        if result is not None:
            try:
                self._job.note(entry.n, result)
            except OperationError as error:
                self._broken = self._broken or error
        if not passed.is_set():
            if before is not None:
                await before.wait()
            passed.set()

    async def _found_out(self, begun: LedgerItem) -> ItemResult | None:
        """What became of an item that an earlier run had begun; None if it may be done again."""
        verdict = await self._verdict(begun)
        return None if verdict == "again" else verdict

    async def _mark(self, n: int, mark: str) -> None:
        """Put it on record that an item is begun; another console that writes is waited for."""
        for _ in range(TRIES):
            try:
                self._job.ledger.sending(self._job.id, n, mark)
            except LedgerBusy:
                await asyncio.sleep(BETWEEN)
            else:
                return
        self._job.ledger.sending(self._job.id, n, mark)

    async def _tried(self, entry: LedgerItem, sending: acts.Sending, passed: asyncio.Event) -> ItemResult | None:
        """One item to its end; what was not confirmed is found out, and done once more where that is safe.

        None if nothing was sent and the server does not answer: it stays waiting, to be resumed.
        """
        seq = entry.item.seq
        for _ in range(SILENCES):
            try:
                result = await self._act.do(entry.item, sending)
            except PermissionDenied as error:
                return acts.failure_of(error, seq)
            except LetterStays as error:
                return ItemResult(seq, "in doubt", clean(str(error)))
            except (Unavailable, nats.errors.Error, OSError) as error:
                if isinstance(error, APIError):
                    return acts.failure_of(error, seq)
                if not passed.is_set():
                    await self._connected()
                    if self._job.cancelled.is_set():
                        return None
                    continue
                verdict = await self._verdict(LedgerItem(entry.n, entry.item, "sending", *self._begun(entry.n)))
                if verdict != "again":
                    return verdict
            except PatternError as error:
                return acts.failure_of(error, seq)
            else:
                self._silences = 0
                return result
        self._silences += 1
        return ItemResult(seq, "in doubt", "sent, but not confirmed, several times") if passed.is_set() else None

    def _begun(self, n: int) -> tuple[str, float | None]:
        found = self._job.ledger.items(self._job.id, "sending", after=n - 1, limit=1)
        return (found[0].detail, found[0].at) if found else ("", None)

    async def _wait_until(self, due: float) -> None:
        """Keep the pace, the pause, and wait out a lost connection: nothing is sent into the dark."""
        while not self._job.cancelled.is_set():
            await self._job.going.wait()
            wait = due - time.monotonic() if self._job.fleet.nc.is_connected or self._job.fleet.nc.is_closed else LOOK
            if wait <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, LOOK)):
                    await self._job.cancelled.wait()

    async def _connected(self) -> None:
        nc = self._job.fleet.nc
        while not (nc.is_connected or nc.is_closed or self._job.cancelled.is_set()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._job.cancelled.wait()


class _Slots:
    """Items in work at a time; how many there may be can change."""

    def __init__(self) -> None:
        self._taken = 0
        self._given = asyncio.Event()

    async def take(self, width: int) -> None:
        """Wait until fewer than `width` are taken, and take one."""
        while self._taken >= width:
            self._given.clear()
            await self._given.wait()
        self._taken += 1

    def give(self) -> None:
        """Give one back."""
        self._taken -= 1
        self._given.set()
