"""What a job writes down while it works: its items as they end, and what its record says of it."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from console.operations.audit import Audit
from console.operations.items import ItemResult
from console.operations.ledger import JobLedger, JobRecord, LedgerBusy
from console.operations.progress import Progress

SETTLE = 16
"""Results that are written down at a time, at the most; the rest a kill leaves to be found out."""
TRIES, BETWEEN = 50, 0.2
"""Times that a ledger in use is tried again, and seconds between them: as long as it takes a large job to be begun."""


class Journal(Progress):
    """How far a job has come, and the writing down of it.

    Args:
        record: The job, as it was begun.
        ledger: Where it is kept; in memory if none is given.
        audit: Where it is written down for people.
    """

    def __init__(self, record: JobRecord, ledger: JobLedger | None, audit: Audit | None) -> None:
        super().__init__(record)
        self.ledger = ledger if ledger is not None else JobLedger()
        self.audit = audit
        self.sent_now = array("Q")
        """Sequences of the items that were done in this run."""
        self._unsettled: list[tuple[int, ItemResult]] = []
        self._writing_spec = threading.Lock()

    async def remember(self, **spec: Any) -> None:
        """Change what its record says of it; another console that writes is waited for.

        Raises:
            OperationError: The ledger cannot be written.
        """
        self.record = replace(self.record, spec={**self.record.spec, **spec})
        # A cancelled wait leaves its thread to go on: none may write what is older over what is newer.
        await asyncio.to_thread(self._write_spec)

    def _write_spec(self) -> None:
        with self._writing_spec:
            patiently(self.ledger.update, self.id, spec=dict(self.record.spec))

    def note(self, n: int, result: ItemResult) -> None:
        """An item has come to an end."""
        self.finished(result)
        if result.outcome == "done":
            self.sent_now.append(result.seq)
        self._unsettled.append((n, result))
        if self.audit is not None and result.outcome in ("failed", "in doubt"):
            self.audit.note("item", self.action, self.id, seq=result.seq, result=result.outcome, error=result.detail)
        if len(self._unsettled) >= SETTLE or self.rate is not None:
            self.settle()

    def settle(self) -> None:
        """Write down what has come to an end."""
        done, self._unsettled = self._unsettled, []
        try:
            if done:
                self.ledger.settle(self.id, done)
        except LedgerBusy:
            # Until somebody else has written; what a kill leaves unwritten is found out.
            self._unsettled = [*done, *self._unsettled]

    async def settle_all(self) -> None:
        """Write down everything that has come to an end; another console that writes is waited for.

        Raises:
            OperationError: The ledger cannot be written.
        """
        await asyncio.to_thread(self.settle_patiently)

    def settle_patiently(self) -> None:
        """The same, blocking."""
        while self._unsettled:
            patiently(self.settle)


def patiently(write: Callable[..., None], *args: Any, **options: Any) -> None:
    """In a thread: write to the ledger, waiting for others as long as it takes a large job to be begun."""
    for _ in range(TRIES):
        try:
            write(*args, **options)
        except LedgerBusy:
            time.sleep(BETWEEN)
        else:
            return
    write(*args, **options)
