"""The dead letters a console holds: tailed, not read again and again."""

from __future__ import annotations

from console.causes import cause_of
from patterns import DeadLetter, Fleet

PAGE = 500
CAPACITY = 20_000
"""Letters held at most, the newest; beyond, the screen says how many it does not show."""


class LetterStore:
    """All dead letters of a fleet, by sequence; `refresh` costs what changed, not what there is.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._letters: dict[int, DeadLetter] = {}
        self._mark: tuple[object, ...] = ()
        self._last = 0
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

    async def refresh(self) -> bool:
        """Read what is new, forget what is gone; whether anything changed.

        Raises:
            Unavailable: The DLQ cannot be read.
        """
        js, stream = self._fleet.jetstream, self._fleet.dead_letters.stream
        self.fresh = []
        info = await js.stream_info(stream)
        if info is None:
            changed = bool(self._letters)
            self._forget_all()
            return changed
        state = info["state"]
        mark = (
            info.get("created"),
            state["messages"],
            state["first_seq"],
            state["last_seq"],
            state.get("num_deleted", 0),
        )
        if mark == self._mark:
            return False
        if self._mark and self._mark[0] != mark[0]:
            self._forget_all()
        await self._read_new(int(state["first_seq"]), int(state["last_seq"]))
        await self._drop_gone(int(state["first_seq"]))
        self.total, self._mark = int(state["messages"]), mark
        return True

    async def _read_new(self, first: int, last: int) -> None:
        after = max(self._last, last - CAPACITY, first - 1)
        while page := await self._fleet.dead_letters.list(after=after, limit=PAGE):
            self._letters.update((letter.seq, letter) for letter in page)
            for letter in page:
                # Remembered a page at a time: 20,000 different errors would hold the first paint for half a second.
                cause_of(letter)
            if self._mark:
                self.fresh += page
            after = page[-1].seq
        self._last = max(self._last, after, last)
        for seq in list(self._letters)[: max(0, len(self._letters) - CAPACITY)]:
            del self._letters[seq]

    async def _drop_gone(self, first: int) -> None:
        info = await self._fleet.jetstream.api(
            f"STREAM.INFO.{self._fleet.dead_letters.stream}", {"deleted_details": True}, timeout=10.0
        )
        for seq in info["state"].get("deleted") or []:
            self._letters.pop(seq, None)
        for seq in [seq for seq in self._letters if seq < first]:
            del self._letters[seq]

    def _forget_all(self) -> None:
        self._letters.clear()
        self._mark, self._last, self.total = (), 0, 0
