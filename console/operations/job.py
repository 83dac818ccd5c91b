"""Doing what a plan says, item by item, and telling what became of each.

The ledger knows every item before the first one is touched, and that an item is begun before its first byte leaves: a job
whose process was killed goes on where it was. A job adds the pace, the pause, the stop and the truth about each item; the
order of steps that loses and doubles nothing is that of its act.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nats.errors

from console.operations import acts, telling
from console.operations.acts import Act
from console.operations.audit import Audit
from console.operations.errors import OperationError
from console.operations.guard import WriteGuard
from console.operations.items import TROUBLE, Item, ItemResult
from console.operations.journal import Journal, patiently
from console.operations.ledger import (
    SLICE,
    ItemState,
    JobLedger,
    JobRecord,
    JobState,
    LedgerItem,
)
from console.operations.oversight import Oversight
from console.operations.places import require_home, require_rate
from console.operations.plan import Plan
from console.operations.records import record_of
from console.operations.restoring import Restore
from console.operations.runner import Runner
from console.operations.spill import is_complete, tell_kept, tell_restored
from console.operations.spilling import spill
from console.text.safe import clean
from patterns import Fleet, PatternError

log = logging.getLogger("console.operations")

_ACTS: dict[str, Callable[[Fleet, JobRecord], Act]] = {
    "replay": acts.Replay,
    "edit": acts.Replay,
    "move": acts.Replay,
    "rescue": acts.Rescue,
    "restore": Restore,
    "pause": acts.Pause,
    "resume": acts.Pause,
}


class Job(Journal):
    """One execution of a plan.

    Args:
        fleet: The connection.
        record: What to do; its items are in the ledger, or are `items`.
        guard: Asked again before the first item.
        ledger: Where it is kept; in memory if none is given.
        audit: Where it is written down for people, before and after.
        confirmation: How the plan was confirmed.
        items: The items of a job that the ledger does not know yet.
    """

    def __init__(
        self,
        fleet: Fleet,
        record: JobRecord,
        guard: WriteGuard,
        *,
        ledger: JobLedger | None = None,
        audit: Audit | None = None,
        confirmation: str = "",
        items: Sequence[Item] | None = None,
    ) -> None:
        super().__init__(record, ledger, audit)
        self.fleet = fleet
        self.guard = guard
        self.confirmation = confirmation
        self._items = items
        self.recorded = items is None
        """Whether the ledger knows it."""
        self.cancelled = asyncio.Event()
        """To stop after the item in work."""
        self.going = asyncio.Event()
        """Not paused."""
        self.going.set()
        self.ask: Callable[[Job], None] | None = None
        """Called when its canary has been watched and somebody has to say how it goes on; without it the canary decides."""
        self._keeps_rest = False
        """Whether what is left when it stops can be resumed."""
        if self.recorded:
            self._count(self.ledger.counts(record.id))

    def _count(self, counts: Mapping[ItemState, int]) -> None:
        for state, number in counts.items():
            if state != "waiting" and state != "sending":  # noqa: PLR1714 - which mypy understands
                self.outcomes[state] += number

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        plan: Plan,
        guard: WriteGuard,
        *,
        ledger: JobLedger | None = None,
        audit: Audit | None = None,
        confirmation: str = "",
        context: str = "",
        mode: str = "cli",
    ) -> Job:
        """A new job for a confirmed plan."""
        record = record_of(plan, context=context, mode=mode)
        return cls(
            fleet, record, guard, ledger=ledger, audit=audit, confirmation=confirmation or plan.gate,
            items=plan.items,
        )  # fmt: skip

    @property
    def results(self) -> list[ItemResult]:
        """What became of every item, in the order of the plan."""
        return [result_of(entry) for entry in self.ledger.all_items(self.id)]

    # -- the wheel

    def cancel(self) -> None:
        """Stop after the item in work, for good."""
        self.cancelled.set()
        self.going.set()

    def leave(self) -> None:
        """Stop after the item in work because the program ends: it can be resumed."""
        # One that was cancelled before stays cancelled.
        self._keeps_rest = not self.cancelled.is_set()
        self.cancel()

    def stop(self, why: str) -> None:
        """Stop after the item in work because going on would do harm: it can be resumed by whoever knows better."""
        if not self.cancelled.is_set():
            self.error = clean(why)
            self.leave()

    def pause(self) -> None:
        """Stop after the item in work until `go_on`."""
        if self.state == "running":
            self.going.clear()
            self._change("paused")

    def go_on(self) -> None:
        """End a pause."""
        if self.state == "paused":
            # Whatever the ledger says: it goes on.
            self.going.set()
            self._change("running")

    def set_rate(self, rate: float | None) -> None:
        """Change the pace from now on.

        Raises:
            UsageError: It is out of range.
        """
        require_rate(rate)
        self.rate = rate
        self.ledger.update(self.id, rate=rate)

    # -- running

    async def run(self) -> None:
        """Do the items in their order; of a job that broke off, what is left.

        Raises:
            Refused: The guard forbids it; nothing was sent.
            OperationError: It cannot be written down, or another job works on the stream; nothing was sent.
        """
        try:
            self.guard.require(self.action)
            lock = self.ledger.hold(self.record.identity, self.id)
        except OperationError as error:
            self._refuse(error)
            raise
        try:
            await self._run()
        finally:
            lock.release()
        await telling.announce(self)

    async def _run(self) -> None:
        if self.recorded:
            self._look_again()
        # From here on it is under way for everybody who looks, before the disk has had its say.
        self.state, self.started, self.error = "running", self.started or time.time(), ""
        try:
            # The disk may take its time over both.
            await asyncio.to_thread(self._write_down)
        except OperationError as error:
            self._refuse(error)
            raise
        act = None
        try:
            await require_home(self.fleet, self.record)
            act = await asyncio.to_thread(self.act)
            await act.prepare()
            async with Oversight(self) as oversight:
                runner = Runner(self, act)
                await runner.find_out()
                if await self._spill():
                    await oversight.canary(runner.work)
                    await runner.work()
            # All items of a large job are many: not on the event loop.
            await asyncio.to_thread(self._round_off)
        except (OperationError, PatternError, nats.errors.Error, OSError) as error:
            self.error = clean(str(error))
            log.warning("job %s: %s", self.id, error)
        except BaseException as error:
            self.error = f"broke off: {type(error).__name__}"
            raise
        finally:
            if act is not None:
                act.close()
            self._end()

    def _look_again(self) -> None:
        """Since it was read another console may have gone on with it.

        Raises:
            OperationError: Nothing is left.
        """
        counts = self.ledger.counts(self.id)
        if not counts.get("waiting", 0) + counts.get("sending", 0):
            raise OperationError(f"job {self.id} has come to its end meanwhile: there is nothing left to resume")
        self.outcomes.clear()
        self._count(counts)

    def act(self) -> Act:
        """What it does to one item."""
        if self.action in _ACTS:
            return _ACTS[self.action](self.fleet, self.record)
        of_letters = self.record.stream == self.fleet.dead_letters.stream
        return (acts.Discard if of_letters else acts.Remove)(self.fleet, self.record)

    async def _spill(self) -> bool:
        """Write what will be removed to a file first; whether to go on."""
        directory = self.record.spec.get("spill")
        if directory is None or (self.spill is not None and await asyncio.to_thread(is_complete, Path(self.spill))):
            return True
        self.phase = "writing the spill"
        try:
            path, gone = await spill(self.fleet, self.ledger, self.record, directory, self.cancelled)
        finally:
            self.phase = ""
        if path is None:
            return False
        self.spill = str(path)
        self.ledger.update(self.id, spill=self.spill)
        for part in range(0, len(gone), SLICE):
            results = [(n, ItemResult(seq, "skipped", why)) for n, seq, why in gone[part : part + SLICE]]
            for _, result in results:
                self.finished(result)
            await asyncio.to_thread(patiently, self.ledger.settle, self.id, results)
        return True

    # -- writing down

    def _change(self, state: JobState) -> None:
        self.state = state
        self.ledger.update(self.id, state=state)

    def _refuse(self, error: OperationError) -> None:
        """It has not begun: that stands in the ledger only if the ledger knows it."""
        self.state, self.error, self.ended = "failed", clean(str(error)), time.time()
        if self.recorded:
            with contextlib.suppress(OperationError):
                self.ledger.update(self.id, error=self.error)

    def _write_down(self) -> None:
        """What is about to be done, on the disk before the first item."""
        resumed = self.recorded
        if self._items is not None:
            self.ledger.add(
                JobRecord(**{**_fields(self.record), "state": self.state, "started": self.started, "rate": self.rate}),
                self._items,
            )
            self._items, self.recorded = None, True
        else:
            self.ledger.update(self.id, state=self.state, rate=self.rate, ended=None, error="")
        try:
            telling.begins(self, resumed=resumed)
        except OperationError:
            with contextlib.suppress(OperationError):
                self.ledger.update(self.id, state="failed", ended=time.time(), error="the audit cannot be written")
            raise

    def _end(self) -> None:
        self.ended = time.time()
        left = self.planned - self.processed
        if left and not self.error and not self.cancelled.is_set():
            self.error = "the server did not answer several times: what is left can be resumed"
        if self.error:
            self.state = "failed"
        elif left and self._keeps_rest:
            self.state = "interrupted"
        else:
            self.state = "cancelled" if left else "completed"
        with contextlib.suppress(OperationError):
            self.settle()
            whole = self.action == "restore" and self.state == "completed" and not self.count(*TROUBLE)
            if whole and (undone := self.record.spec.get("undoes")):
                self.ledger.update(undone, undone_by=self.id)
            self.ledger.update(
                self.id, state=self.state, ended=self.ended, error=self.error, rate=self.rate, spill=self.spill
            )
        telling.ended(self)

    def _round_off(self) -> None:
        """What was cancelled is given up; what turned out to be gone must not be put back."""
        self.settle_patiently()
        if self.cancelled.is_set() and not self._keeps_rest:
            patiently(self.ledger.abandon, self.id)
        self.ledger.checkpoint()
        if self.spill is not None:
            try:
                kept = [entry.item.seq for entry in self.ledger.all_items(self.id) if entry.state != "done"]
                tell_kept(Path(self.spill), kept)
            except OSError as error:
                log.warning("the spill %s cannot be written: %s", self.spill, error)
        if self.action == "restore" and self.record.spec.get("source"):
            back = (entry.item.seq for entry in self.ledger.all_items(self.id) if entry.state in ("done", "duplicate"))
            with contextlib.suppress(OSError):
                tell_restored(Path(self.record.spec["source"]), list(back))

    def as_json(self, skipped: Sequence[Any] = ()) -> dict[str, Any]:
        """The contract's form of a result; with what its plan skipped."""
        results = [*self.results, *(ItemResult(skip.seq, "skipped", skip.reason) for skip in skipped)]
        told: dict[str, Any] = {} if self.canary is None else {"canary": self.canary.as_json()}
        return told | {
            "job": self.id,
            "planned": self.planned,
            "done": self.count("done", "duplicate"),
            "skipped": self.count("skipped") + len(skipped),
            "failed": self.count(*TROUBLE),
            "duplicates": self.count("duplicate"),
            "spill": self.spill,
            "items": [
                {"seq": result.seq, "outcome": result.outcome, "detail": result.detail}
                for result in sorted(results, key=lambda result: result.seq)
            ],
        }


def result_of(entry: LedgerItem) -> ItemResult:
    """What became of an item, as far as is known."""
    if entry.state == "waiting":
        return ItemResult(entry.item.seq, "not started", "the job did not get to it")
    if entry.state == "sending":
        return ItemResult(entry.item.seq, "in doubt", "begun when the job broke off: resuming it finds out")
    return ItemResult(entry.item.seq, entry.state, entry.detail)


def _fields(record: JobRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in JobRecord.__slots__}
