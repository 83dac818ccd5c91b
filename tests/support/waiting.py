"""Waiting for something to become true, with a deadline instead of a guess."""

from __future__ import annotations

import inspect
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE = 20.0
"""Seconds: far beyond what a healthy run needs, so that a slow machine does not fail, and below the timeout of a test."""


async def until(
    predicate: Callable[[], Any | Awaitable[Any]], timeout: float = PATIENCE, *, every: float = 0.02
) -> Any:
    """Poll a plain or coroutine function until its result is true, and return that result.

    Args:
        predicate: What to ask.
        timeout: Seconds until the test fails.
        every: Seconds between two questions.

    Raises:
        AssertionError: The result was never true; the text shows the last one.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {timeout:g} s: {inspect.getsource(predicate).strip()} is {value!r}")
        await sleep(every)
