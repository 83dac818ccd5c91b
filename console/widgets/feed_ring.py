"""`FeedRing`: what an event feed keeps, shows and has marked; knows nothing of the screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from time import perf_counter
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

SLICE: Final = 0.004
"""Seconds that a filter looks at items in one go: it may have to decode each."""
CHUNK: Final = 16
"""Items between two looks at the clock."""


class FeedRing(Generic[T]):
    """The newest items, and of those the ones that a filter leaves.

    What passed a filter stays shown while the filter holds, as long as there is room for it, though it has left the ring:
    of ten thousand events a second the one looked for would be gone after half of one.

    Args:
        capacity: Items kept, and items shown.
        clock: Seconds, for the length of a slice.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = perf_counter) -> None:
        self.items: deque[T] = deque(maxlen=capacity)
        self.shown: deque[T] = self.items
        self.waiting: deque[T] = deque(maxlen=capacity)
        """Items that the filter has not looked at yet."""
        self.gone = 0
        """Shown items that fell out at the top; whoever draws takes it and sets it to 0."""
        self.marks: dict[T, None] = {}
        """The marked ones, in the order in which they were marked."""
        self._filter: Callable[[T], bool] | None = None
        self._clock = clock

    def extend(self, items: Iterable[T]) -> int:
        """Add items, oldest first; returns how many are shown at once. With a filter `sift` decides about them."""
        if self._filter is not None:
            for item in items:
                self._append(self.items, item)
                self.waiting.append(item)
            return 0
        fresh, before = list(items), len(self.items)
        if self.marks:
            for item in fresh:
                self._append(self.items, item)
        else:
            self.items.extend(fresh)
        self.gone += before + len(fresh) - len(self.items)
        return len(fresh)

    def sift(self) -> int:
        """Let the filter look at some of what waits; returns how many of them are shown now."""
        wanted = self._filter
        if wanted is None:
            return 0
        began, new = self._clock(), 0
        while self.waiting:
            for _ in range(min(CHUNK, len(self.waiting))):
                item = self.waiting.popleft()
                if wanted(item):
                    self.gone += len(self.shown) == self.shown.maxlen
                    self._append(self.shown, item)
                    new += 1
            if self._clock() - began > SLICE:
                break
        return new

    def set_filter(self, wanted: Callable[[T], bool] | None) -> None:
        """Show only the items for which `wanted` is true, those already there included; None shows all."""
        self._filter = wanted
        self.gone = 0
        self.waiting.clear()
        if wanted is None:
            self.shown = self.items
            kept = set(self.items) if self.marks else ()
            self.marks = {item: None for item in self.marks if item in kept}
        else:
            self.shown = deque(maxlen=self.items.maxlen)
            self.waiting.extend(self.items)
            self.sift()

    def clear(self) -> None:
        """Forget everything but the filter."""
        for each in (self.items, self.shown, self.waiting):
            each.clear()
        self.marks.clear()
        self.gone = 0

    def toggle(self, item: T) -> None:
        """Mark an item, or take its mark away."""
        if item in self.marks:
            del self.marks[item]
        else:
            self.marks[item] = None

    def _append(self, ring: deque[T], item: T) -> None:
        """Append; a mark goes with its item, when it has left what is kept and what is shown."""
        if self.marks and len(ring) == ring.maxlen and (first := ring[0]) in self.marks:
            other = self.shown if ring is self.items else self.items
            if other is ring or first not in other:
                del self.marks[first]
        ring.append(item)
