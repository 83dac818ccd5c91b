"""How far a job has come: what it looks like from outside, while it runs and afterwards."""

from __future__ import annotations

import time
from collections import Counter, deque

from console.operations.canary import Outcome as CanaryOutcome
from console.operations.items import TROUBLE, ItemResult, Outcome
from console.operations.ledger import JobRecord, JobState

LATELY = 50
"""Items over which the actual rate is told, and troubles that are remembered."""


class Progress:
    """How far a job has come.

    Args:
        record: The job, as it was begun.
    """

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.state: JobState = record.state
        self.phase = ""
        """What it does before the first item, such as `writing the spill`."""
        self.rate = record.rate
        """Messages a second; may be changed while it runs, None for as fast as it goes."""
        self.outcomes: Counter[Outcome] = Counter()
        self.troubles: deque[ItemResult] = deque(maxlen=LATELY)
        """The last that failed or are in doubt."""
        self.spill: str | None = record.spill
        self.started = record.started or 0.0
        self.ended = record.ended or 0.0
        """Seconds since the epoch."""
        self.error = record.error
        self.redied = 0
        """Letters that died again after this job had replayed them."""
        self.held: tuple[str, ...] = tuple(record.spec.get("held", ()))
        """Consumers that are paused while it works, `<stream> <durable>`."""
        self.canary: CanaryOutcome | None = None
        """What has become of its canary."""
        self.asks = False
        """Whether its canary has been watched and it waits to be told how it goes on."""
        self._finished_at: deque[float] = deque(maxlen=LATELY)

    def finished(self, result: ItemResult) -> None:
        """An item has come to an end."""
        self.outcomes[result.outcome] += 1
        self._finished_at.append(time.monotonic())
        if result.outcome in ("failed", "in doubt"):
            self.troubles.append(result)

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def action(self) -> str:
        """What it does."""
        return self.record.action

    @property
    def noun(self) -> str:
        """What one item is."""
        return str(self.record.spec.get("noun", "item"))

    @property
    def planned(self) -> int:
        """How many items it has."""
        return self.record.planned

    @property
    def processed(self) -> int:
        """How many items have come to an end."""
        return sum(self.outcomes.values())

    @property
    def running(self) -> bool:
        """Whether it is under way, paused or not."""
        return self.state in ("running", "paused")

    def count(self, *outcomes: Outcome) -> int:
        """Items with one of these outcomes; those not reached are `not started` once it has ended."""
        left = self.planned - self.processed if "not started" in outcomes and not self.running else 0
        return sum(self.outcomes[outcome] for outcome in outcomes) + max(0, left)

    @property
    def actual_rate(self) -> float | None:
        """Items a second over the last fifty; None until there are two."""
        times = self._finished_at
        if len(times) < 2 or times[-1] <= times[0]:
            return None
        until = times[-1] if not self.running else max(times[-1], time.monotonic() - 2.0)
        return (len(times) - 1) / (until - times[0])

    @property
    def eta(self) -> float | None:
        """Seconds it will still take at its pace; None if nobody can tell."""
        left = self.planned - self.processed
        if self.state != "running" or not left:
            return None
        rates = [rate for rate in (self.rate, self.actual_rate) if rate]
        return left / min(rates) if rates else None

    @property
    def exit_code(self) -> int:
        """0 if every item ended well, 3 if some failed, are in doubt or were not reached, or its canary was not acknowledged."""
        return 3 if self.count(*TROUBLE) or (self.canary is not None and not self.canary.passed) else 0
