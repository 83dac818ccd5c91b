"""`Watch`: a live tail of events for screens, which never blocks a publisher and knows exactly what it left out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import datetime
from time import thread_time
from typing import TYPE_CHECKING, Final

import nats.errors
from nats.aio.subscription import Subscription

from patterns import direct, names
from patterns.bell import Bell
from patterns.errors import PatternError
from patterns.message import Message, decode_stored
from patterns.stored import Page, StoredMessage

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

PERIOD: Final = 0.1
"""Seconds between two reads while events come."""
BUSY: Final = 10
"""Events in a period from which on the bell is given back: each would cost as much again as reading it does."""
PAGE: Final = 500
"""Events of one read: some 20 ms, in which the loop has other turns."""
ROUNDS: Final = 100
"""Times that a count is repeated because events came while it was taken."""


class Watch:
    """A live tail of events for screens; iterate it. Makes no consumer and never blocks a publisher.

    A core subscription rings, a direct get reads: events come in stream order with sequence and time, none twice. While
    they come fast it reads ten times a second and does without the bell; as only the position in the stream decides what is
    read, nothing is lost or doubled where the bell goes and comes.

    Args:
        fleet: The connection.
        topics: Topics, wildcards allowed; none for all.
        since: Start with what was stored at or after this moment; None starts now.
        backlog: Events it may lag behind before it skips ahead and counts what it dropped.
        share: Part of a core that it may take for reading, above 0; 1 and more for all there is. It lags behind what it
            cannot read in that, and skips.
    """

    def __init__(
        self,
        fleet: Fleet,
        topics: tuple[str, ...],
        since: datetime | None,
        *,
        backlog: int = 5_000,
        share: float = 1.0,
    ) -> None:
        self._fleet = fleet
        self._stream = fleet.names.events_stream
        self._filters = tuple(fleet.names.event_filter(topic) for topic in (topics or (">",)))
        self._single = self._filters[0] if len(self._filters) == 1 else fleet.names.event_filter(">")
        self._since = since
        self._backlog = backlog
        self._budget = share * PERIOD if share < 1 else float("inf")
        self._bell = Bell()
        self._listening: list[Subscription] = []
        self.dropped = 0
        """Events skipped because the reader was too slow; of several topics, what matched none of them counts too.

        What was handed out and what was dropped are together what was stored, to the last one: where one server answers. A
        replica that lags behind may put it off by as much.
        """
        self.caught_up = asyncio.Event()
        """Set whenever everything stored so far has been handed out."""
        self.on_trouble: Callable[[Exception], None] | None = None
        """Called with what kept a read from succeeding, for a reader who wants to say so; the watch goes on by itself."""

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages()

    async def _messages(self) -> AsyncGenerator[Message]:
        async with contextlib.aclosing(self.pages()) as pages:
            async for page in pages:
                for stored in page:
                    yield decode_stored(stored, names=self._fleet.names, stream=self._stream)

    async def pages(self) -> AsyncGenerator[tuple[StoredMessage, ...]]:
        """The same events some at a time and not decoded, for a reader who looks at few of them."""
        clock = asyncio.get_running_loop().time
        try:
            position: int | None = None
            reading = 0.0
            while True:
                began, found, at_end = clock(), 0, False
                # What the last period took too much is owed by this one.
                reading = max(0.0, reading - self._budget)
                try:
                    if position is None:
                        await self._listen()
                        position = await self._start()
                    while not at_end and reading < self._budget:
                        before = thread_time()
                        page, position = await self._read(position)
                        reading += thread_time() - before
                        at_end = not page.messages or page.remaining == 0
                        if page.messages:
                            found += len(page.messages)
                            position = page.next_seq
                            if wanted := self._matching(page):
                                self.caught_up.clear()
                                yield wanted
                    if at_end:
                        self.caught_up.set()
                    position = await self._rest(position, found, at_end=at_end, until=began + PERIOD)
                except (PatternError, nats.errors.Error) as error:
                    if self._fleet.nc.is_closed:
                        raise
                    await self._bear(error)
        finally:
            await self._stop_listening()

    def _matching(self, page: Page) -> tuple[StoredMessage, ...]:
        if len(self._filters) == 1:
            return page.messages
        return tuple(
            message
            for message in page.messages
            if any(names.subject_matches(pattern, message.subject) for pattern in self._filters)
        )

    async def _read(self, position: int) -> tuple[Page, int]:
        """What comes next, and from where it was read: from further on, if it lags too far behind."""
        read = self._fleet.jetstream.read
        page = await read(self._stream, start=position, limit=PAGE, subject=self._single)
        if page.remaining > self._backlog:
            position = await self._skip(position)
            # Handed out whatever came meanwhile: a flood must not keep it skipping.
            page = await read(self._stream, start=position, limit=PAGE, subject=self._single)
        return page, position

    async def _rest(self, position: int, found: int, *, at_end: bool, until: float) -> int:
        """Wait until there may be more; returns where to go on."""
        if found or not at_end:
            if found >= BUSY:
                await self._stop_listening()
            await asyncio.sleep(until - asyncio.get_running_loop().time())
        elif not self._listening:
            # The server takes this and the next read in their order: what is stored after that read, rings.
            await self._listen()
        elif await self._bell.wait(self._fleet.config.poll):
            self.caught_up.clear()
        else:
            return await self._back(position)
        return position

    async def _bear(self, error: Exception) -> None:
        log.debug("events not read, trying again: %s", error)
        if self.on_trouble is not None:
            self.on_trouble(error)
        await self._listen()
        await self._bell.wait(self._fleet.config.poll)

    # -- the bell

    async def _listen(self) -> None:
        if not self._listening:
            nc = self._fleet.nc
            self._listening = [await nc.subscribe(pattern, cb=self._bell.ring) for pattern in self._filters]

    async def _stop_listening(self) -> None:
        subscriptions, self._listening = self._listening, []
        for subscription in subscriptions:
            if not self._fleet.nc.is_closed:
                await subscription.unsubscribe()

    # -- positions

    async def _back(self, position: int) -> int:
        """Where to go on while nothing comes: at the beginning of a stream that was deleted and made again."""
        info = await self._fleet.jetstream.stream_info(self._stream)
        made_again = info is not None and int(info["state"]["last_seq"]) + 1 < position
        return int(info["state"]["first_seq"]) if info is not None and made_again else position

    async def _start(self) -> int:
        info = await self._fleet.jetstream.stream_info(self._stream)
        last = int(info["state"]["last_seq"]) if info else 0
        if self._since is None or info is None:
            return last + 1
        low, high = int(info["state"]["first_seq"]), last + 1
        while low < high:
            middle = (low + high) // 2
            page = await self._fleet.jetstream.read(self._stream, start=middle, limit=1)
            if page.messages and page.messages[0].stored_at < self._since:
                low = page.messages[0].seq + 1
            else:
                high = middle
        return low

    async def _skip(self, position: int) -> int:
        """Where to go on after leaving out most of what stands from `position` on."""
        info = await self._fleet.jetstream.stream_info(self._stream)
        last = int(info["state"]["last_seq"]) if info else position
        ahead = max(position, last + 1 - max(self._backlog // 2, 1))
        self.dropped += await self._between(position, ahead)
        return ahead

    async def _between(self, position: int, ahead: int) -> int:
        """How many events stand from `position` on and before `ahead`.

        The server tells how many stand behind a sequence, and events come between two such answers. So what stands from
        `ahead` on is counted before and after: if nothing came between the two, the difference is exact, else it lies between
        two bounds, which the next round narrows.
        """
        nc, subject = self._fleet.nc, f"{self._fleet.jetstream.prefix}.DIRECT.GET.{self._stream}"
        low, high = 0, ahead - position
        for _ in range(ROUNDS):
            if low >= high:
                break
            before, both, after = await direct.counts(nc, subject, (ahead, position, ahead), self._single)
            low, high = max(low, both - after), min(high, both - before)
            if low > high:  # something was deleted meanwhile, or replicas disagree
                low, high = 0, ahead - position
        return low
