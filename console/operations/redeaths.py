"""Deaths after replay: which letters are the doing of one job, told by the job's name that a replayed message carries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from patterns import DeadLetter, Fleet

PAGE = 500
REPLAYED_FROM = "Dead-Letter-Replayed-From"


class Redeaths:
    """Follows the dead letters from a moment on, for those that one job had replayed.

    Args:
        fleet: The connection.
        job: Its id.
        after: The last sequence of the dead letters when the job began; None to begin now.
    """

    def __init__(self, fleet: Fleet, job: str, *, after: int | None = None) -> None:
        self._fleet = fleet
        self._job = job
        self._looking = asyncio.Lock()
        self.after = after
        """The last sequence that was looked at."""
        self.letters: dict[str, DeadLetter] = {}
        """Those that died again, by the sequence of the letter they were replayed from."""

    @property
    def count(self) -> int:
        """How many died again."""
        return len(self.letters)

    async def look(self) -> None:
        """Read what died since the last look; without a place to begin the first look only marks one.

        Raises:
            Unavailable: They cannot be read.
        """
        dead = self._fleet.dead_letters
        async with self._looking:
            if self.after is None:
                info = await self._fleet.jetstream.stream_info(dead.stream)
                self.after = int(info["state"]["last_seq"]) if info is not None else 0
                return
            info = await self._fleet.jetstream.stream_info(dead.stream)
            last = int(info["state"]["last_seq"]) if info is not None else 0
            while self.after < last and (page := await dead.list(after=self.after, limit=PAGE)):
                self.after = page[-1].seq
                self._take(page)
            # A replica that lags has not got the newest yet; the leader, which said how many there are, has.
            while self.after < last:
                stored = await self._fleet.jetstream.following(
                    dead.stream, self.after + 1, self._fleet.names.dlq_filter()
                )
                letter = dead.decode(stored) if stored is not None else None
                self._take([letter] if letter is not None else [])
                self.after = stored.seq if stored is not None else last

    def _take(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            origin = letter.message.headers.get(REPLAYED_FROM, "")
            if origin.isdecimal() and letter.replay_job == self._job:
                self.letters[origin] = letter
