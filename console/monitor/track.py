"""The last minute of one stream: what rates, history and confirmation stand on. A quiet stream costs nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from patterns import QueueDepth

HISTORY: Final = 60
"""Seconds of history a row keeps."""

RATE_WINDOW: Final = 6.0
"""Seconds over which a rate is averaged: steady to read, quick enough to follow."""


@dataclass(slots=True)
class Clock:
    """When the newest look was taken, and the one before; shared by all tracks."""

    now: float = 0.0
    """Seconds since the epoch."""
    before: float | None = None

    @property
    def moment(self) -> datetime:
        """`now`, as a time."""
        return datetime.fromtimestamp(self.now, UTC)


class Track:
    """The last minute of one stream.

    Args:
        clock: Of the looks.
    """

    __slots__ = ("_changes", "_clock", "_samples", "_started", "last", "looked", "rates")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()
        self._changes: deque[tuple[int, int]] = deque()
        self._started = 0
        self.last: QueueDepth | None = None
        """The counters of the newest look."""
        self.looked: QueueDepth | None = None
        """Those of the look before the newest in which its consumer was asked: what absence is confirmed by."""
        self.rates: tuple[float | None, float | None] = (None, None)
        """Messages in and messages gone a second; None before two looks."""

    def add(self, depth: QueueDepth, *, asked: bool = True) -> QueueDepth | None:
        """Note one look; the counters to compare it with, None if there are none.

        Args:
            depth: Its counters.
            asked: Whether the consumer was asked in it, or its counters are older.
        """
        clock, samples = self._clock, self._samples
        now = clock.now
        if samples and (depth.last_seq < samples[-1][1] or now <= samples[-1][0]):
            # The stream was deleted and made again, or the clock was set back: the past says nothing about it.
            samples.clear()
            self._changes.clear()
            self.last = self.looked = None
        if asked:
            self.looked = self.last
        self.last = depth
        if not samples:
            self._started = int(now)
        elif clock.before is not None and samples[-1][0] < clock.before < now:
            # Looks that found nothing new were not noted.
            samples.append((clock.before, *samples[-1][1:]))
        samples.append((now, depth.last_seq, depth.messages))
        while len(samples) > 2 and samples[0][0] < now - RATE_WINDOW:
            samples.popleft()
        self._note(int(now), depth.messages)
        self.rates = self._averaged()
        return self.looked

    def _note(self, second: int, messages: int) -> None:
        changes = self._changes
        if changes and changes[-1][0] == second:
            changes[-1] = second, messages
        elif not changes or changes[-1][1] != messages:
            changes.append((second, messages))
        while len(changes) > 1 and changes[1][0] <= second - HISTORY + 1:
            changes.popleft()

    def _averaged(self) -> tuple[float | None, float | None]:
        if len(self._samples) < 2:
            return None, None
        start, end = self._samples[0], self._samples[-1]
        elapsed = max(end[0] - start[0], 1e-6)
        stored = (end[1] - start[1]) / elapsed
        return stored, max(0.0, stored - (end[2] - start[2]) / elapsed)

    @property
    def moment(self) -> datetime:
        """When the newest look was taken."""
        return self._clock.moment

    @property
    def peak(self) -> int:
        """The most messages there within the history."""
        return max((messages for _, messages in self._changes), default=0)

    def history(self) -> tuple[int, ...]:
        """Messages there at the end of each of the last 60 seconds, newest last; one without a look repeats the one before."""
        second = int(self._clock.now)
        first = max(self._started, second - HISTORY + 1)
        if not self._changes or second < first:
            return ()
        found: list[int] = []
        for (start, messages), (end, _) in pairwise((*self._changes, (second + 1, 0))):
            found += [messages] * (end - max(start, first))
        return tuple(found)
