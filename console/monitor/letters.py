"""The dead letters a console holds: tailed, not read again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from console.causes import cause_of
from patterns import DeadLetter, Fleet

PAGE = 500
CAPACITY = 20_000
"""Letters held at most, the newest; beyond, the screen says how many it does not show."""
MOST_BYTES = 64 << 20
"""Bytes of headers and bodies held at most, the newest letters'; each is in memory as bytes, as text and decoded."""
SHARED = 8_192
"""Texts that are remembered to be kept once."""


class LetterStore:
    """All dead letters of a fleet, by sequence; `refresh` costs what changed, not what there is.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._letters: dict[int, DeadLetter] = {}
        self._bytes = 0
        self._redeaths: dict[tuple[str, str], int] = {}
        self._mark: tuple[object, ...] = ()
        self._last = 0
        self._texts = _Texts()
        self.total = 0
        """Letters on the server."""
        self.fresh: list[DeadLetter] = []
        """Those that died between the last two reads; empty after the first, which finds the past."""

    def all(self) -> tuple[DeadLetter, ...]:
        """Letters in the order of their deaths."""
        return tuple(self._letters.values())

    def get(self, seq: int) -> DeadLetter | None:
        """One letter, None if it is not held."""
        return self._letters.get(seq)

    @property
    def redeaths(self) -> Mapping[tuple[str, str], int]:
        """How many of the letters held died again after a replay, by kind and name of where they died."""
        return self._redeaths

    async def refresh(self, info: Mapping[str, Any] | None = None) -> bool:
        """Read what is new, forget what is gone; whether anything changed.

        Args:
            info: Answer of STREAM.INFO or entry of STREAM.LIST for the dead letters, if it has just been read; it is read
                if omitted.

        Raises:
            Unavailable: The DLQ cannot be read.
        """
        self.fresh = []
        if info is None:
            info = await self._fleet.jetstream.stream_info(self._fleet.dead_letters.stream)
        if info is None:
            changed = bool(self._letters)
            self._forget_all()
            return changed
        state, before = info["state"], self._mark
        first, deleted = state["first_seq"], state.get("num_deleted", 0)
        mark = (info.get("created"), first, deleted, state["messages"], state["last_seq"])
        if mark == before:
            return False
        if before and before[0] != mark[0]:
            self._forget_all()
        await self._read_new(state)
        # What was deleted stays so: where neither their number nor the beginning changed, it is the same letters.
        if before[1:3] != (first, deleted):
            await self._drop_gone(int(first))
        self.total, self._mark = int(state["messages"]), mark
        return True

    async def _read_new(self, state: Mapping[str, Any]) -> None:
        messages, last = int(state["messages"]), int(state["last_seq"])
        fitting = CAPACITY
        if not self._mark:
            # By their average: to read gigabytes of which a little is kept helps nobody.
            fitting = min(CAPACITY, max(1, MOST_BYTES * messages // max(int(state.get("bytes", 0)), 1)))
        after = max(self._last, last - fitting, int(state["first_seq"]) - 1)
        while page := await self._fleet.dead_letters.list(after=after, limit=PAGE):
            for letter in page:
                self._hold(self._texts.shared(letter))
                # Remembered a page at a time: 20,000 different errors would hold the first paint for half a second.
                cause_of(letter)
            if self._mark:
                self.fresh += page
            after = page[-1].seq
            while len(self._letters) > CAPACITY or (self._bytes > MOST_BYTES and len(self._letters) > 1):
                self._drop(next(iter(self._letters)))
        self._last = max(self._last, after, last)

    async def _drop_gone(self, first: int) -> None:
        info = await self._fleet.jetstream.api(
            f"STREAM.INFO.{self._fleet.dead_letters.stream}", {"deleted_details": True}, timeout=10.0
        )
        for seq in info["state"].get("deleted") or []:
            self._drop(seq)
        for seq in [seq for seq in self._letters if seq < first]:
            self._drop(seq)

    def _hold(self, letter: DeadLetter) -> None:
        self._drop(letter.seq)
        self._letters[letter.seq] = letter
        self._bytes += letter.size
        if letter.replays > 0:
            source = (letter.kind, letter.name)
            self._redeaths[source] = self._redeaths.get(source, 0) + 1

    def _drop(self, seq: int) -> None:
        letter = self._letters.pop(seq, None)
        if letter is None:
            return
        self._bytes -= letter.size
        if letter.replays > 0:
            source = (letter.kind, letter.name)
            self._redeaths[source] -= 1
            if not self._redeaths[source]:
                del self._redeaths[source]

    def _forget_all(self) -> None:
        self._letters.clear()
        self._redeaths.clear()
        self._bytes = 0
        self._mark, self._last, self.total = (), 0, 0


class _Texts:
    """Keeps texts that many letters have in common once: most of a letter is names of headers and places, and ids thrice."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def shared(self, letter: DeadLetter) -> DeadLetter:
        """The same letter."""
        once, message = self._once, letter.message
        if len(self._known) > SHARED:
            self._known.clear()
        return replace(
            letter,
            name=once(letter.name),
            subject=once(letter.subject),
            id=once(letter.id),
            type=once(letter.type),
            reason=once(letter.reason),
            error_type=once(letter.error_type),
            error=once(letter.error),
            agent=once(letter.agent),
            stream=once(letter.stream),
            correlation_id=once(letter.correlation_id),
            message=replace(
                message,
                id=once(message.id),
                type=once(message.type),
                source=once(message.source),
                subject=once(message.subject),
                correlation_id=once(message.correlation_id),
                headers={once(name): once(value) for name, value in message.headers.items()},
            ),
        )

    def _once(self, text: str) -> str:
        return self._known.setdefault(text, text)
