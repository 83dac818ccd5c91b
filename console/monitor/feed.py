"""The live feed: broadcasts, new dead letters and operator actions in one bounded list."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import nats.errors

from console.text.safe import clean
from patterns import DeadLetter, Fleet, Message, PatternError

log = logging.getLogger("console.monitor")

BACKFILL = timedelta(minutes=10)
"""How much of the stored past a new feed shows."""
RATE_WINDOW = timedelta(seconds=10)
BODY_LIMIT = 400
"""Characters of a body that one line can show."""

Tone = Literal["plain", "good", "warn", "bad", "accent"]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One line of the feed; all texts are safe to show."""

    id: int
    """Grows by one with each item."""
    at: datetime
    topic: str
    source: str
    body: str
    tone: Tone
    message: Message | None = None
    """The event, as it was stored."""
    letter: int | None = None
    """Sequence of the dead letter it speaks of."""


class Feed:
    """Collects items; screens read `since(id)` on their own tick.

    Args:
        fleet: The connection.
        since: Start of the stored past to show; None takes ten minutes.
        capacity: Items kept.
    """

    def __init__(self, fleet: Fleet, *, since: datetime | None = None, capacity: int = 5_000) -> None:
        self._fleet = fleet
        self._since = since
        self.items: deque[FeedItem] = deque(maxlen=capacity)
        self.dropped = 0
        """Events skipped because they came faster than they could be read."""
        self._next = 1
        self._arrivals: deque[float] = deque(maxlen=1000)

    @property
    def rate(self) -> float:
        """Items a second over the last ten seconds."""
        now = time.monotonic()
        window = RATE_WINDOW.total_seconds()
        return sum(1 for moment in self._arrivals if now - moment <= window) / window

    def since(self, last: int) -> list[FeedItem]:
        """Items that came after item `last`, oldest first."""
        fresh: list[FeedItem] = []
        for item in reversed(self.items):
            if item.id <= last:
                break
            fresh.append(item)
        return fresh[::-1]

    async def run(self) -> None:
        """Follow the events until cancelled; a broken connection is waited out."""
        last = self._since or datetime.now(UTC) - BACKFILL
        pause = 0.5
        while True:
            watch = self._fleet.events.watch(since=last)
            try:
                async for message in watch:
                    self.add_event(message)
                    # The moment alone would bring this event back after a reconnect.
                    last = (message.stored_at or last) + timedelta(microseconds=1)
                    self.dropped += watch.dropped
                    watch.dropped = 0
                    pause = 0.5
            except (PatternError, nats.errors.Error, OSError) as error:
                log.debug("feed: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def add_event(self, message: Message) -> None:
        """Add a broadcast."""
        operator = message.type.startswith("console.")
        self._add(
            message.stored_at or datetime.now(UTC),
            topic=clean(message.type),
            source=clean(message.source),
            body=_action_line(message) if operator else one_line(message),
            tone="accent" if operator else _tone(message.type),
            message=message,
        )

    def add_letter(self, letter: DeadLetter) -> None:
        """Add a death."""
        self._add(
            letter.died_at,
            topic=f"{'task.failed' if letter.kind == 'tasks' else 'dead letter'}",
            source=clean(letter.agent or letter.name),
            body=clean(f"{letter.type} {letter.id}  {letter.error_text or letter.reason}", limit=BODY_LIMIT),
            tone="bad",
            letter=letter.seq,
        )

    def _add(
        self,
        at: datetime,
        *,
        topic: str,
        source: str,
        body: str,
        tone: Tone,
        message: Message | None = None,
        letter: int | None = None,
    ) -> None:
        self.items.append(FeedItem(self._next, at, topic, source, body, tone, message, letter))
        self._next += 1
        if datetime.now(UTC) - at < RATE_WINDOW:  # what is read from the past says nothing about the rate now
            self._arrivals.append(time.monotonic())


def one_line(message: Message) -> str:
    """The body on one line, safe and short."""
    if message.data is not None and not isinstance(message.data, bytes):
        try:
            return clean(json.dumps(message.data, ensure_ascii=False, separators=(",", ":")), limit=BODY_LIMIT)
        except (TypeError, ValueError, RecursionError):
            # RecursionError: what was nested just short of too deep to be read can be too deep to be written.
            return clean(message.text, limit=BODY_LIMIT)
    return clean(message.text, limit=BODY_LIMIT)


def _action_line(message: Message) -> str:
    """What an operator did, as this console's own jobs tell it."""
    data = message.data
    # Anybody may broadcast under this name: what a job does not say is shown like any other body.
    if not isinstance(data, dict) or not isinstance(data.get("job"), str):
        return one_line(message)
    if not all(isinstance(data.get(key), str | int | None) for key in ("operator", "done", "planned")):
        return one_line(message)
    by = f" by {data.get('operator')}" if data.get("operator") else ""
    verb = message.type.rpartition(".")[2]
    return clean(f"job {data['job']}  {verb}: {data.get('done')} of {data.get('planned')} done{by}", limit=BODY_LIMIT)


def _tone(type: str) -> Tone:
    last = type.rpartition(".")[2].lower()
    if last in ("completed", "done", "resolved", "launched", "succeeded", "recovered"):
        return "good"
    if last in ("failed", "error", "crashed", "down", "breach"):
        return "bad"
    if last in ("alert", "warning", "degraded", "delayed", "slow"):
        return "warn"
    return "accent"
