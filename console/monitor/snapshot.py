"""What one look at a fleet found, and how it was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from console.monitor.answers import Consumer, StreamState
from patterns import FleetSnapshot

Key = tuple[str, str]
"""Kind and name of an inbox or a queue: `("inbox", "ceo")`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(FleetSnapshot):
    """A `FleetSnapshot` of the console's own reader.

    A depth is the same object as in the snapshot before where nothing about it has changed for two reads.
    """

    way: str = ""
    """What was asked: `STREAM.LIST + CONSUMER.INFO` or `JSZ`."""
    requests: int = 0
    """How many requests it took."""
    still: frozenset[Key] = frozenset()
    """Whose consumer was not asked this time: its counters are those of an earlier read."""
    hidden: frozenset[Key] = frozenset()
    """Whose counters cannot be told now: no right to see its consumer, or its server does not answer."""


class StreamInfo(Protocol):
    """A stream as either way tells it."""

    @property
    def created(self) -> str:
        """When it was made; tells a stream from another of the same name."""
        ...

    @property
    def state(self) -> StreamState:
        """Its counters."""
        ...


@dataclass(slots=True)
class Found:
    """What one way of asking brought."""

    streams: dict[str, StreamInfo] = field(default_factory=dict)
    """By name."""
    consumers: dict[str, list[Consumer]] = field(default_factory=dict)
    """By stream; of streams that were not asked for theirs nothing."""
    unseen: dict[str, str] = field(default_factory=dict)
    """Streams whose consumers could not be read, and why."""
    absent: list[str] = field(default_factory=list)
    """Streams that exist and did not answer."""
    notes: list[str] = field(default_factory=list)
    """What else is missing, in words."""
    requests: int = 0

    def words(self) -> Iterable[str]:
        """What is missing, in words; of many streams one line."""
        yield from self.notes
        if self.absent:
            yield _some("stream", self.absent, "did not answer")
        reasons: dict[str, list[str]] = {}
        for stream, reason in self.unseen.items():
            reasons.setdefault(reason, []).append(stream)
        for reason, streams in reasons.items():
            yield _some("consumers of", streams, reason, sign=": ")


def _some(what: str, names: list[str], says: str, *, sign: str = " ") -> str:
    names = sorted(names)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    plural = "s" if more and what == "stream" else ""
    return f"{what}{plural} {names[0]}{more}{sign}{says}"
