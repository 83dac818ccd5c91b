"""The items of a plan: which stored messages, and what becomes of each.

A plan may hold a hundred thousand: they are kept as numbers, 24 bytes each, and never with their bodies.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

Outcome = Literal["done", "duplicate", "skipped", "failed", "in doubt", "not started"]
TROUBLE: tuple[Outcome, ...] = ("failed", "in doubt", "not started")
"""Outcomes that leave something to do."""


@dataclass(frozen=True, slots=True)
class Item:
    """One stored message; sequence and time together name it for ever, even if its stream is made anew."""

    seq: int
    stored_ns: int
    """Nanoseconds since the epoch."""
    source: str
    """Where it belongs: `<kind>.<name>` of a dead letter, else its subject or stream."""
    destination: str = ""
    """Where it goes; empty where it just goes."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item."""

    seq: int
    outcome: Outcome
    detail: str
    """One safe line."""
    sent: str = ""
    """Where it was stored, `<stream> <sequence> <message id>`; empty if it was not sent anywhere, or nobody saw where."""


@dataclass(frozen=True, slots=True)
class Skip:
    """One message that is left alone, and why."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One item as a person sees it in a plan; its texts are as they were sent."""

    seq: int
    source: str
    type: str
    id: str
    reason: str = ""
    error: str = ""
    destination: str = ""


class Items(Sequence[Item]):
    """A sequence of items that only grows, in little memory."""

    def __init__(self, items: Sequence[Item] = ()) -> None:
        self._seqs = array("Q")
        self._times = array("Q")
        self._places = array("Q")
        self._known: dict[tuple[str, str], int] = {}
        self._names: list[tuple[str, str]] = []
        self._counts: list[int] = []
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        """Add one."""
        place = (item.source, item.destination)
        number = self._known.get(place)
        if number is None:
            number = self._known[place] = len(self._names)
            self._names.append(place)
            self._counts.append(0)
        self._counts[number] += 1
        self._seqs.append(item.seq)
        self._times.append(item.stored_ns)
        self._places.append(number)

    def __len__(self) -> int:
        return len(self._seqs)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        return Item(self._seqs[at], self._times[at], *self._names[self._places[at]])

    def __iter__(self) -> Iterator[Item]:
        for at in range(len(self._seqs)):
            yield self[at]

    @property
    def places(self) -> Sequence[tuple[str, str]]:
        """Each source with each destination that its items go to."""
        return self._names

    def spread(self, *, by: Literal["source", "destination"]) -> dict[str, int]:
        """How many items there are for each source or destination; those that go nowhere are not counted."""
        found: dict[str, int] = {}
        for place, count in zip(self._names, self._counts, strict=True):
            name = place[0 if by == "source" else 1]
            if name:
                found[name] = found.get(name, 0) + count
        return found
