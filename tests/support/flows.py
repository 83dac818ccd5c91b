"""Rows of a fleet without a server."""

from __future__ import annotations

from console.monitor.track import Clock, Track
from patterns import QueueDepth


def past(*messages: int) -> Track:
    """A stream that held so many messages, second by second."""
    clock = Clock()
    track = Track(clock)
    for second, number in enumerate(messages, start=1):
        clock.before, clock.now = clock.now or None, float(second)
        track.add(QueueDepth(messages=number))
    return track
