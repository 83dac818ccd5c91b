"""What the screens and the headless commands show: one immutable view of a fleet at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from console.monitor.states import State
from patterns import QueueDepth, ServerInfo

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at."""

    severity: Severity
    subject: str
    """What it is about: `inbox.ceo`, `tasks.backend`, `dlq`, ..."""
    text: str


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
    last_ack_age: float | None
    """Seconds since the consumer last acknowledged."""
    dead_letters: int
    history: tuple[int, ...]
    """Messages there, one value a second, newest last, at most 60."""
    findings: tuple[Finding, ...]
    workers: int = 0
    """Who waits for work or has some in flight, as far as the counters tell."""

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

    @property
    def dead_letter_total(self) -> int | None:
        """All dead letters; None if they cannot be read."""
        return (
            None if any(text.startswith("dead letters") for text in self.missing) else sum(self.dead_letters.values())
        )
