"""Waiting for a change that a publish announces and a read has to find."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

ECHOES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Seconds after a ring at which to look again."""


class Bell:
    """Rung by a core subscription on the subjects of a stream; whoever waits for it reads the stream then.

    A subscriber hears a message a moment before the stream has stored it, so a ring is followed by a few echoes. And what
    was stored while the client was reconnecting rings no bell: give `wait` a timeout and look then, too.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._echoes: deque[float] = deque()

    async def ring(self, _: Any) -> None:
        """Callback of a subscription."""
        self._echoes = deque(ECHOES)
        self._rung.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for a ring, for the echo of one, or `timeout` seconds; returns whether it was rung."""
        if not self._rung.is_set() and self._echoes:
            timeout = min(timeout, self._echoes.popleft())
        try:
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True
