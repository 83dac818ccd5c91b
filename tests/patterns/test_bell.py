"""The bell behind every live view: a ring is heard at once, and looked after for a while."""

from __future__ import annotations

import asyncio
import time

from patterns.bell import ECHOES, Bell


async def test_a_ring_ends_the_wait_and_is_heard_once():
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(30))
    await asyncio.sleep(0)
    await bell.ring(None)
    assert await asyncio.wait_for(waiting, 20) is True
    assert await bell.wait(0) is False


async def test_a_ring_before_the_wait_is_not_lost():
    bell = Bell()
    await bell.ring(None)
    await bell.ring(None)
    assert await bell.wait(30) is True


async def test_a_ring_has_echoes_because_the_stream_stores_a_moment_later():
    bell = Bell()
    await bell.ring(None)
    assert await bell.wait(30) is True
    began = time.monotonic()
    for _ in ECHOES:
        assert await bell.wait(30) is False
    assert sum(ECHOES) * 0.9 <= time.monotonic() - began < 20
    # The next one waits for as long as it was told.
    began = time.monotonic()
    assert await bell.wait(0.05) is False
    assert time.monotonic() - began >= 0.045
