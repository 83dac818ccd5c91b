"""Reading the job ledger for the screen: in a thread, because the disk may take its time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import time
from typing import Final

from console.operations.errors import OperationError
from console.operations.items import ItemResult
from console.operations.job import result_of
from console.operations.ledger import JobLedger, JobRecord, LedgerItem
from console.operations.plan import SENDS
from console.screens.job_rows import Entry, Facts, JobView, entry_of
from patterns import DeadLetter

JOBS: Final = 500
"""Jobs that are listed, the newest."""
ITEMS: Final = 5000
"""Items of one job that are listed."""
PAGE: Final = 1000
UNREADABLE: Final = (OperationError, sqlite3.Error, OSError, ValueError)
"""What reading the ledger raises where the disk or the file is broken."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the ledger said."""

    at: float
    """When it was asked, in seconds since the epoch."""
    entries: tuple[Entry, ...]
    """The newest first."""
    facts: Facts | None
    problem: str = ""
    """Why nothing could be read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The job whose card is shown."""

    job: str
    letters: tuple[DeadLetter, ...] = ()
    identity: str = ""
    """The stream that those letters are in, see `ledger.identity_of`; a job of another server has none of them."""


class JobBook:
    """The jobs of a ledger; remembers what does not change. For one thread at a time.

    Args:
        ledger: Where they are kept.
    """

    def __init__(self, ledger: JobLedger) -> None:
        self._ledger = ledger
        self._counted: dict[str, tuple[JobRecord, Mapping[str, int]]] = {}
        self._troubles: tuple[object, ItemResult | None] = (None, None)
        self._again: tuple[object, int] = (None, 0)

    def look(
        self, wanted: Wanted | None, known: Collection[str] = (), away: Callable[[JobRecord], str] | None = None
    ) -> Look:
        """Read the jobs, and what the card of one of them tells besides.

        Args:
            wanted: The job of the card.
            known: Jobs whose counts nobody needs: they are under way in this session, which knows better.
            away: Where a job belongs, if not here; None where nobody knows.
        """
        at, today = time(), datetime.now().astimezone().date()
        try:
            records = self._ledger.jobs(limit=JOBS)
            self._counted = {record.id: (record, self._counts(record, wanted, known)) for record in records}
            found = self._counted.get(wanted.job) if wanted is not None else None
            facts = self._facts(*found, wanted) if found is not None and wanted is not None else None
        except UNREADABLE as error:
            return Look(at, (), None, f"the job ledger cannot be read: {error}")
        entries = tuple(
            entry_of(JobView(record, counts, away=away(record) if away is not None else ""), today)
            for record, counts in self._counted.values()
        )
        return Look(at, entries, facts)

    def _counts(self, record: JobRecord, wanted: Wanted | None, known: Collection[str]) -> Mapping[str, int]:
        """Counted anew where it can have changed: while somebody works on it, and by an answer."""
        before = self._counted.get(record.id)
        if wanted is None or wanted.job != record.id:
            if record.id in known:
                return {}
            if before is not None and before[0] == record and record.state not in ("running", "paused"):
                return before[1]
        return _by_state(self._ledger, record.id)

    def _facts(self, record: JobRecord, counts: Mapping[str, int], wanted: Wanted) -> Facts:
        mark = (record.id, counts.get("failed", 0), counts.get("in doubt", 0))
        if mark != self._troubles[0]:
            self._troubles = (mark, self._last_trouble(record.id) if mark[1] or mark[2] else None)
        again = None
        if record.action in SENDS and record.started and record.identity == wanted.identity:
            # Those that were replayed once more since, or removed, are no letters any more: the job has counted them.
            again = max(self._died_again(record, wanted.letters), int(record.spec.get("redied", 0)))
        return Facts(record.id, self._troubles[1], again)

    def _last_trouble(self, job: str) -> ItemResult | None:
        found = self._ledger.items(job, "failed", "in doubt", limit=PAGE)
        last = max(found, key=lambda entry: entry.at or 0.0, default=None)
        return result_of(last) if last is not None else None

    def _died_again(self, record: JobRecord, letters: Sequence[DeadLetter]) -> int:
        mark = (record.id, len(letters), letters[-1].seq if letters else 0)
        if mark == self._again[0]:
            return self._again[1]
        self._again = (mark, sum(letter.replay_job == record.id for letter in letters))
        return self._again[1]


def _by_state(ledger: JobLedger, job: str) -> Mapping[str, int]:
    return dict(ledger.counts(job).items())


@dataclass(frozen=True, slots=True)
class ItemsLook:
    """The items of one job, those that need somebody first."""

    record: JobRecord | None
    counts: Mapping[str, int]
    items: tuple[LedgerItem, ...] = ()
    problem: str = ""

    @property
    def total(self) -> int:
        """How many the job has."""
        return sum(self.counts.values())


def read_items(ledger: JobLedger, job: str, before: ItemsLook | None) -> ItemsLook:
    """The items of a job, `ITEMS` at the most; `before` itself if nothing has changed since."""
    try:
        record, counts = ledger.job(job), _by_state(ledger, job)
        if before is not None and not before.problem and (record, counts) == (before.record, before.counts):
            return before
        found: dict[int, LedgerItem] = {}
        going = record is not None and record.state in ("running", "paused")
        waiting = ("waiting", "not started")
        for state in (
            "in doubt", "failed", "sending", *(() if going else waiting), "skipped", "duplicate", "done",
            *(waiting if going else ()),
        ):  # fmt: skip
            after = -1
            while (room := ITEMS - len(found)) and (
                page := ledger.items(job, state, after=after, limit=min(PAGE, room))
            ):
                # By number: one that was done between two pages is in both.
                found.update((entry.n, entry) for entry in page)
                after = page[-1].n
    except UNREADABLE as error:
        return ItemsLook(None, {}, (), f"the job ledger cannot be read: {error}")
    return ItemsLook(record, counts, tuple(found.values()))
