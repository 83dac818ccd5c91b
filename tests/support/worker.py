"""A worker in a process of its own, for tests that kill it: `python -m tests.support.worker URL MODE`.

Modes: `run` lives as `Agent.run` does; `die` is killed in each handler; `die-once` in the first handler that finds no
file named by the third argument, which it makes; `die-after-result` when its first result is sent and not acknowledged;
`die-inbox` in each handler of the inbox of `ceo`; `work` completes what it gets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from patterns import Delivery, Fleet
from patterns.lane import Lane
from tests.support.fleets import fast

SHORT_LEASE = 1.0
"""Seconds after which a task of a killed worker comes again."""


def die() -> NoReturn:
    """End without a word, as the kernel's out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def first_time(marker: str) -> bool:
    """Whether the file was not there; it is now."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def main(url: str, mode: str, marker: str = "") -> None:
    """Work on the role `backend` until somebody ends it."""
    lease = 60.0 if mode == "run" else SHORT_LEASE
    config = fast(inbox={"ack_wait": lease}, tasks={"ack_wait": lease}, drain_grace=0.0)

    async def work(delivery: Delivery) -> str:
        if delivery.type == "wait-for-ever":
            await asyncio.Event().wait()
        if mode in ("die", "die-inbox"):
            die()
        if mode == "die-once" and first_time(marker):
            die()
        return f"done by {os.getpid()}"

    if mode == "die-after-result":

        async def lose(lane: Lane, delivery: Delivery) -> None:
            die()

        Lane.confirm = lose  # type: ignore[method-assign]  # the step before the acknowledgement

    async with Fleet.connect(url, config=config) as fleet:
        agent = fleet.agent("ceo" if mode == "die-inbox" else f"w-{os.getpid()}", role="backend")
        (agent.on_message if mode == "die-inbox" else agent.on_task)()(work)
        await agent.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
