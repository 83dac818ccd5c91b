"""What the screens and the headless commands show: one immutable view of a fleet at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from console.monitor.states import State
from console.monitor.track import Track
from patterns import QueueDepth, ServerInfo

Severity = Literal["critical", "warning", "info"]
"""`info` is worth knowing and no reason for an alarm: it is not counted, and `check` does not judge by it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at."""

    severity: Severity
    subject: str
    """What it is about: `inbox.ceo`, `tasks.backend`, `dlq`, ..."""
    text: str
    since: datetime | None = field(default=None, compare=False)
    """When it was first seen; None where nobody keeps count."""
    place: tuple[str, str] | None = None
    """Where it can be looked at: a kind (inbox, tasks, events, dlq) and a name; None where there is no such place."""
    trouble: str = ""
    """What kind of trouble it is: stays the same while its numbers change."""
    amount: float = 0.0
    """How much of it: messages or seconds, to be compared within one kind of trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One inbox or queue: counters, and what follows from several reads of them."""

    name: str
    """Agent or role."""
    state: State
    depth: QueueDepth
    stranded: int | None
    """Confirmed over two reads; None where it cannot be known."""
    in_rate: float | None
    """Messages stored a second; None before the second read."""
    ack_rate: float | None
    """Messages that left a second."""
    oldest_age: float | None
    """Seconds since the oldest message was stored; None if there is none."""
    dead_letters: int
    findings: tuple[Finding, ...]
    track: Track = field(repr=False, compare=False)
    """Its last minute, up to the newest look: also of a row that has not changed for several looks."""
    redeaths: int = 0
    """Dead letters of it that had been replayed before."""
    stranded_seqs: tuple[int, ...] = ()
    """Which messages are stranded, the first of them; empty until they were looked up."""
    workers: int = 0
    """Who waits for work or has some in flight, as far as the counters tell."""
    order: tuple[int, int, str] = (0, 0, "")
    """Sorts the worst first."""

    @property
    def history(self) -> tuple[int, ...]:
        """Messages there, one value a second, newest last, at most 60."""
        return self.track.history()

    @property
    def last_ack_age(self) -> float | None:
        """Seconds since the consumer last acknowledged, at the newest look."""
        return age(self.depth.last_acked_at, self.track.moment)

    @property
    def drain_eta(self) -> float | None:
        """Seconds until it is empty at this pace; None while it does not shrink."""
        if not self.depth.messages or self.in_rate is None or self.ack_rate is None:
            return None
        net = self.ack_rate - self.in_rate
        return self.depth.messages / net if net > 0.01 else None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One durable subscription to events."""

    agent: str
    name: str
    topics: tuple[str, ...]
    depth: QueueDepth
    oldest_age: float | None = None
    """Seconds since the first event was stored that it has not acknowledged; None if there is none or it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """Everything, at one moment."""

    taken_at: datetime
    took: float
    """Seconds the read took."""
    server: ServerInfo
    agents: tuple[Flow, ...] = ()
    queues: tuple[Flow, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    dead_letters: dict[str, int] = field(default_factory=dict)
    """By `<kind>.<name>`."""
    findings: tuple[Finding, ...] = ()
    """Worst first."""
    missing: tuple[str, ...] = ()
    """What could not be read, in words."""
    way: str = ""
    """What was asked, as `Snapshot.way` has it."""
    requests: int = 0
    """How many requests it took."""
    inbox_peak: int = 0
    """The most messages any inbox held within the last minute: the scale of their histories."""
    queue_peak: int = 0
    """The same of the queues."""

    @property
    def dead_letter_total(self) -> int | None:
        """All dead letters; None if they cannot be read."""
        return (
            None if any(text.startswith("dead letters") for text in self.missing) else sum(self.dead_letters.values())
        )


def age(moment: datetime | None, now: datetime) -> float | None:
    """Seconds since a moment, 0 for one to come; None for none."""
    return None if moment is None else max(0.0, (now - moment).total_seconds())


def order_of(state: State, messages: int, name: str) -> tuple[int, int, str]:
    """Sorts the worst first: of the troubled the fullest, of the healthy by name, so that nothing jumps."""
    return state.rank, -messages if state.rank < State.BUSY.rank else 0, name
