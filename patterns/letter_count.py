"""Counting dead letters by where they died, at a cost that does not grow with their number.

Every letter has a subject of its own, so the server's list of subjects is as long as the letters are many. It is read
once. After that new letters are counted as they come, and only when some went each known origin is asked for its number
anew, which the server tells with the first of its letters.
"""

from __future__ import annotations

import asyncio
from typing import Any

from patterns.jetstream import JetStream
from patterns.names import Names

TAIL = 500
"""New letters that are read one by one; of more the list of subjects is read again."""

AT_ONCE = 16
"""Origins asked for at a time."""

Counts = dict[tuple[str, str], int]
"""Letters by kind and name."""


class LetterCount:
    """The count of one fleet's dead letters, kept up to date by asking.

    Args:
        js: The JetStream to ask.
        names: Names of the organization.
        stream: The stream of the dead letters.
    """

    def __init__(self, js: JetStream, names: Names, stream: str) -> None:
        self._js = js
        self._names = names
        self._stream = stream
        self._counts: Counts = {}
        self._mark: tuple[Any, ...] = ()
        self._last = 0
        self._doubtful = False
        """Whether the origins were counted while letters came or went."""

    async def read(self) -> Counts:
        """Letters for each kind and name that has any.

        Raises:
            Unavailable, APIError: The stream cannot be read.
        """
        info = await self._js.stream_info(self._stream)
        if info is None:
            return {}
        state = info["state"]
        marks = ("messages", "first_seq", "last_seq", "num_deleted")
        mark = (info.get("created"), *(state.get(key) for key in marks))
        if mark != self._mark:
            last, known = int(state["last_seq"]), bool(self._mark) and self._mark[0] == mark[0]
            if not known or not 0 <= last - self._last <= TAIL or not await self._follow(last, int(state["messages"])):
                self._counts = await self._everything()
                self._doubtful = False
            self._last, self._mark = last, mark
        return {origin: count for origin, count in self._counts.items() if count}

    async def _follow(self, last: int, messages: int) -> bool:
        """Count what came up to `last`, and again what some went from; False if only the long way is left."""
        counts, position = dict(self._counts), self._last + 1
        while position <= last:
            page = await self._js.read(self._stream, start=position, limit=TAIL, subject=self._names.dlq_filter())
            for message in page.messages:
                if message.seq <= last and (origin := self._origin(message.subject)) is not None:
                    counts[origin] = counts.get(origin, 0) + 1
            if not page.messages or page.remaining == 0:
                break
            position = page.messages[-1].seq + 1
        if self._doubtful or sum(counts.values()) != messages:
            slots = asyncio.Semaphore(AT_ONCE)
            numbers = await asyncio.gather(*(self._number(origin, slots) for origin in counts))
            if None in numbers:
                return False
            counts = {origin: number or 0 for origin, number in zip(counts, numbers, strict=True)}
            self._doubtful = sum(counts.values()) != messages
        self._counts = counts
        return True

    async def _number(self, origin: tuple[str, str], slots: asyncio.Semaphore) -> int | None:
        """Letters of one origin, None where the server does not tell it with the first of them."""
        async with slots:
            page = await self._js.read(self._stream, limit=1, subject=self._names.dlq_filter(*origin))
        return None if page.remaining < 0 else len(page.messages) + page.remaining

    async def _everything(self) -> Counts:
        found: Counts = {}
        for subject, messages in (await self._js.subjects(self._stream, self._names.dlq_filter())).items():
            if (origin := self._origin(subject)) is not None:
                found[origin] = found.get(origin, 0) + messages
        return found

    def _origin(self, subject: str) -> tuple[str, str] | None:
        parts = self._names.local(subject).split(".")
        return (parts[1], parts[2]) if len(parts) == 4 else None
