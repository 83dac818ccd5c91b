"""The state of an inbox or a queue, from counters alone: no agent has to report anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from patterns import QueueDepth

RECENT = timedelta(seconds=60)
"""A consumer that acknowledged within this time is working its way through; one long task is not a backlog."""


class State(Enum):
    """What a person should know first. Value: the word; every state also has a glyph, never colour alone."""

    IDLE = "idle"
    """A worker waits, nothing to do."""
    BUSY = "busy"
    """In flight, and the lease is kept alive."""
    BACKLOG = "backlog"
    """More waits than the threshold allows, though work goes on."""
    STALLED = "stalled"
    """In flight, and no delivery, acknowledgement or heartbeat for longer than the lease."""
    NO_WORKER = "no worker"
    """Work waits, nothing is in flight and nobody pulls, in two reads."""
    PAUSED = "paused"
    """Deliveries are suspended."""
    OFFLINE = "offline"
    """Nobody pulls, and there is nothing to do."""
    UNKNOWN = "unknown"
    """The consumer cannot be seen."""

    @property
    def glyph(self) -> str:
        """One cell that tells the state without colour."""
        return _GLYPHS[self]

    @property
    def rank(self) -> int:
        """0 is the worst: the order of a table that shows trouble first."""
        return _RANKS[self]

    @property
    def style(self) -> str:
        """Name of the cell style: bad, warn, accent, good or dim."""
        return _STYLES[self]


_GLYPHS = {
    State.IDLE: "●",
    State.BUSY: "●",
    State.BACKLOG: "▲",
    State.STALLED: "✖",
    State.NO_WORKER: "✖",
    State.PAUSED: "■",
    State.OFFLINE: "○",
    State.UNKNOWN: "?",
}
_RANKS = {
    State.NO_WORKER: 0,
    State.STALLED: 1,
    State.BACKLOG: 2,
    State.PAUSED: 3,
    State.UNKNOWN: 4,
    State.BUSY: 5,
    State.IDLE: 6,
    State.OFFLINE: 7,
}
_STYLES = {
    State.IDLE: "good",
    State.BUSY: "accent",
    State.BACKLOG: "warn",
    State.STALLED: "bad",
    State.NO_WORKER: "bad",
    State.PAUSED: "dim",
    State.OFFLINE: "dim",
    State.UNKNOWN: "warn",
}


def classify(depth: QueueDepth, previous: QueueDepth | None, *, threshold: int, now: datetime) -> State:
    """The state of one inbox or queue.

    Args:
        depth: Counters of this read.
        previous: Counters of the read before; without one, absence of a worker cannot be told from a gap between two
            pulls, and counts as presence.
        threshold: Waiting messages beyond which it is a backlog.
        now: When `depth` was taken.
    """
    if depth.durable is None:
        return State.NO_WORKER if depth.messages else State.OFFLINE
    if depth.paused:
        return State.PAUSED
    if depth.ack_pending:
        active = max((moment for moment in (depth.last_delivered_at, depth.last_acked_at) if moment), default=None)
        if active is not None and now - active > timedelta(seconds=max(depth.ack_wait, 1.0)):
            return State.STALLED
        acked_recently = depth.last_acked_at is not None and now - depth.last_acked_at < RECENT
        return State.BACKLOG if depth.pending > threshold and acked_recently else State.BUSY
    # Between two pulls of a busy worker nobody waits either: what was delivered since the read before tells it is there.
    nobody = (
        previous is not None
        and depth.waiting == previous.waiting == previous.ack_pending == 0
        and depth.last_delivered_at == previous.last_delivered_at
    )
    if depth.pending:
        if nobody and previous is not None and previous.pending:
            return State.NO_WORKER
        return State.BACKLOG if depth.pending > threshold else State.BUSY
    return State.OFFLINE if nobody else State.IDLE
