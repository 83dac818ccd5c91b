"""The live feed: broadcasts, new dead letters, advisories and operator actions in one bounded list."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import nats.errors

from console.monitor.advisories import PREFIX, Advisories, Advisory
from console.monitor.feed_items import BODY_LIMIT, EventItem, FeedItem, Opens, Told, action_text, is_action, one_line
from console.text.safe import clean
from patterns import DeadLetter, Fleet, PatternError
from patterns.stored import StoredMessage
from patterns.watch import Watch

__all__ = ["BACKFILL", "BODY_LIMIT", "EventItem", "Feed", "FeedItem", "Told", "one_line"]

log = logging.getLogger("console.monitor")

BACKFILL: Final = timedelta(minutes=10)
"""How much of the stored past a new feed shows."""
RATE_WINDOW: Final = 10
"""Seconds over which the rate is told."""
SHARE: Final = 0.2
"""Part of a core that may go into reading events: 10,000 a second take that on a machine of two cores."""
MEMORY: Final = 32 << 20
"""Bytes of bodies and headers that all items together are kept in, as long as each has `SMALLEST`."""
SMALLEST: Final = 1 << 10
REMEMBERED: Final = 1_000
"""Actions whose broadcast is waited for, or was there first; characters of their names."""
LONGEST: Final = 64 << 10
"""Bytes of the broadcast of an action, at the most: those of this program have some hundred."""
FRESH: Final = 60.0
"""Seconds after which a broadcast is of an earlier run of its job."""


class Feed:
    """Collects items; screens read `since(id)` on their own tick.

    Args:
        fleet: The connection.
        since: Start of the stored past to show; None takes ten minutes.
        capacity: Items kept.
        event_prefix: Prefix of advisories in this account.
        share: Part of a core that may go into reading events, see `Watch`.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        since: datetime | None = None,
        capacity: int = 5_000,
        event_prefix: str | None = None,
        share: float = SHARE,
    ) -> None:
        self._fleet = fleet
        self._begin: datetime | None = since or datetime.now(UTC) - BACKFILL
        self._share = share
        self._room = max(SMALLEST, MEMORY // capacity)
        self._advisories = Advisories(fleet, self.add_advisory, prefix=event_prefix or PREFIX)
        self.items: deque[FeedItem] = deque(maxlen=capacity)
        self.window: timedelta | None = None if since else BACKFILL
        """How far back it was told to begin; None if it shows what comes, or begins where it was made to."""
        self.generation = 1
        """Grows when another window was chosen: what was read before is shown no more."""
        self._skipped = 0
        self._next = 1
        self._arrivals: deque[list[int]] = deque()
        self._aside: deque[Told] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._unheard: Counter[tuple[str, str]] = Counter()
        """By job and action: how often it was told here and its broadcast not heard; below 0 the other way round."""

    @property
    def dropped(self) -> int:
        """Events and advisories left out because they came faster than they could be read."""
        return self._skipped + self._advisories.dropped

    @property
    def refused(self) -> tuple[str, ...]:
        """Subjects of advisories that this user may not subscribe to."""
        return self._advisories.refused

    @property
    def rate(self) -> float:
        """Items a second over the last ten seconds, those left out too."""
        now = int(time.time())
        return sum(number for second, number in self._arrivals if 0 <= now - second < RATE_WINDOW) / RATE_WINDOW

    def since(self, last: int) -> list[FeedItem]:
        """Items that came after item `last`, oldest first."""
        fresh: list[FeedItem] = []
        for item in reversed(self.items):
            if item.id <= last:
                break
            fresh.append(item)
        return fresh[::-1]

    # -- following

    async def run(self) -> None:
        """Follow events and advisories until cancelled; a broken connection is waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._hear())

    def look_back(self, window: timedelta | None) -> None:
        """Begin anew with what was stored within `window`; None shows only what comes from now on.

        What is no event is not stored: what is held of it stays, as far as it lies in the window.
        """
        now = datetime.now(UTC)
        try:
            self._begin = now - window if window else None
        except OverflowError:
            self._begin = datetime.min.replace(tzinfo=UTC)
        self.window = window or None
        begin = self._begin or now
        self._aside = deque(item for item in self.items if isinstance(item, Told) and item.at >= begin)
        self.items.clear()
        self._skipped = self._advisories.dropped = 0
        self.generation += 1
        if self._reader is not None:
            self._reader.cancel()

    async def _follow(self) -> None:
        while True:
            self._reader = asyncio.ensure_future(self._read())
            try:
                # Another window cancels the reader, not this.
                await asyncio.wait((self._reader,))
            finally:
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
            if not self._reader.cancelled():
                self._reader.result()

    async def _read(self) -> None:
        """Read the events of the window; returns never."""
        last, seen, pause = self._begin, 0, 0.5
        backlog = max(self.items.maxlen or 0, 1)
        while True:
            watch = Watch(self._fleet, (), last, backlog=backlog, share=self._share)
            try:
                async with contextlib.aclosing(watch.pages()) as pages:
                    if last is None:
                        last = datetime.now(UTC)
                    filler = asyncio.create_task(self._fill_up(watch))
                    try:
                        async for page in pages:
                            self._skip(watch)
                            # By its time alone the last event would come back after a lost connection.
                            self.add_events(stored for stored in page if stored.seq > seen or stored.stored_at > last)
                            last, seen, pause = page[-1].stored_at, page[-1].seq, 0.5
                    finally:
                        filler.cancel()
            except (PatternError, nats.errors.Error, OSError) as error:
                log.debug("feed: %s", error)
            finally:
                self._skip(watch)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _fill_up(self, watch: Watch) -> None:
        """When all events of the window are there, what happened since then follows."""
        await watch.caught_up.wait()
        while self._aside:
            self._add(self._aside.popleft())

    def _skip(self, watch: Watch) -> None:
        if watch.dropped:
            self._arrived(time.time(), watch.dropped)
            self._skipped += watch.dropped
            watch.dropped = 0

    async def _hear(self) -> None:
        while True:
            try:
                await self._advisories.run()
            except (nats.errors.Error, OSError) as error:
                log.debug("advisories: %s", error)
            await asyncio.sleep(5.0)

    # -- adding

    def add_events(self, events: Iterable[StoredMessage]) -> None:
        """Add broadcasts, in the order of the stream."""
        names, stream, room = self._fleet.names, self._fleet.names.events_stream, self._room
        items, now = self.items, time.time()
        fresh: Counter[int] = Counter()
        for stored in events:
            while self._aside and self._aside[0].at <= stored.stored_at:
                self._add(self._aside.popleft())
            if is_action(names, stored.subject) and self._was_told(stored):
                continue
            items.append(EventItem(self._next, stored, names, stream, room))
            self._next += 1
            fresh[stored.stored_ns // 1_000_000_000] += 1
        for second, number in fresh.items():
            # What is read from the past says nothing about the rate now.
            if now - second < RATE_WINDOW:
                self._arrived(second, number)

    def add_letter(self, letter: DeadLetter) -> None:
        """Add a death."""
        self._add(
            Told(
                0,
                letter.died_at,
                "task.failed" if letter.kind == "tasks" else "dead letter",
                clean(letter.agent or letter.name),
                clean(f"{letter.type} {letter.id}  {letter.error_text or letter.reason}", limit=BODY_LIMIT),
                "bad",
                "letter",
                letter=letter.seq,
            )
        )

    def add_advisory(self, advisory: Advisory) -> None:
        """Add what the server said."""
        opens: Opens = "message" if advisory.seq else "row" if advisory.place.name else "details"
        self._add(
            Told(
                0, datetime.now(UTC), advisory.kind, advisory.source, advisory.text, advisory.tone, opens,
                advisory=advisory,
            )
        )  # fmt: skip

    def add_action(self, job: str, action: str, *, done: int, planned: int, operator: str) -> None:
        """Add what was done here, which is broadcast only where there are events and rights for it.

        Its broadcast, once it comes, is not shown as well; nor is this, if it has come already.
        """
        key = (job[:REMEMBERED], action[:REMEMBERED])
        if self._unheard[key] < 0:
            self._unheard[key] += 1
            return
        if len(self._unheard) > REMEMBERED:
            self._unheard.clear()
        self._unheard[key] += 1
        text = action_text(job, action, done, planned, operator)
        self._add(Told(0, datetime.now(UTC), f"console.{clean(action)}", "console", text, "accent", "jobs"))

    def _was_told(self, stored: StoredMessage) -> bool:
        """Whether this broadcast is of an action that is in the feed already."""
        if len(stored.body) > LONGEST:
            return False
        try:
            data = json.loads(stored.body)
        except (ValueError, RecursionError):
            return False
        job, action = (data.get("job"), data.get("action")) if isinstance(data, dict) else (None, None)
        if not isinstance(job, str) or not isinstance(action, str):
            return False
        key = (job[:REMEMBERED], action[:REMEMBERED])
        if self._unheard.get(key, 0) > 0:
            self._unheard[key] -= 1
            return True
        if time.time() - stored.stored_ns / 1e9 < FRESH:
            if len(self._unheard) > REMEMBERED:  # anybody can broadcast any number of them
                self._unheard.clear()
            self._unheard[key] -= 1
        return False

    def _add(self, item: Told) -> None:
        item.id = self._next
        self._next += 1
        self.items.append(item)
        self._arrived(item.at.timestamp(), 1)

    def _arrived(self, moment: float, number: int) -> None:
        second = int(moment)
        if time.time() - second >= RATE_WINDOW:
            return
        for each in self._arrivals:
            if each[0] == second:
                each[1] += number
                return
        if len(self._arrivals) > 2 * RATE_WINDOW:
            self._arrivals.popleft()
        self._arrivals.append([second, number])
