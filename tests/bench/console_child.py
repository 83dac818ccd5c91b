"""The console with a stop watch inside: `python -m tests.bench.console_child --server URL`, arguments as `agent-console`.

It runs the real program and writes JSON lines into the file that `BENCH_SAMPLES` names. One for each refresh of the fleet
table, from the call of `FleetScreen.paint` to the moment after the redraw that follows it:

    cpu_ms     time of the event loop's thread; whatever else it did meanwhile counts too
    wall_ms    time that passed, the wait for the next frame included
    block_ms   longest time for which the loop ran nothing else
    rows       rows of the table
    apart_ms   longest time for which the loop ran nothing else between this refresh and the one before: the reading

and one at the end with what the feed has handed out and dropped. The loop is asked each millisecond whether it is held.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import IO, Any

import console.app
from console.__main__ import main
from console.screens.fleet import FleetScreen

PROBE_S = 0.001


class Probe:
    """How long the event loop is held, at the longest, since it was last asked."""

    def __init__(self) -> None:
        self._last = 0.0
        self._longest = 0.0

    def start(self) -> None:
        """Begin on the running loop."""
        self._last = time.perf_counter()
        asyncio.get_running_loop().call_later(PROBE_S, self._beat)

    def _beat(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last - PROBE_S)
        self._last = now
        asyncio.get_running_loop().call_later(PROBE_S, self._beat)

    def take(self) -> float:
        """The longest hold since the last call, in ms, the one that still lasts included."""
        now = time.perf_counter()
        longest, self._longest = max(self._longest, now - self._last - PROBE_S), 0.0
        # The time up to now is told; what follows is a hold of its own.
        self._last = now - PROBE_S
        return longest * 1000


def watch(out: IO[str]) -> None:
    """Put the stop watch in."""
    probe = Probe()
    paint, run_console, init = FleetScreen.paint, console.app.run_console, console.app.ConsoleApp.__init__

    def timed_paint(screen: FleetScreen) -> None:
        apart = probe.take()
        cpu, wall = time.thread_time(), time.perf_counter()
        paint(screen)

        def drawn() -> None:
            view = screen.runtime.monitor.view
            sample = {
                "cpu_ms": (time.thread_time() - cpu) * 1000,
                "wall_ms": (time.perf_counter() - wall) * 1000,
                "block_ms": probe.take(),
                "rows": len(view.agents) if view else 0,
                "apart_ms": apart,
            }
            print(json.dumps(sample), file=out)

        screen.call_after_refresh(drawn)

    def noted_init(app: console.app.ConsoleApp, runtime: Any) -> None:
        feeds.append(runtime.feed)
        init(app, runtime)

    async def probed(session: Any) -> int:
        probe.start()
        status = await run_console(session)
        for feed in feeds:
            handed = feed.items[-1].id if feed.items else 0
            print(json.dumps({"handed": handed, "dropped": feed.dropped}), file=out)
        return status

    feeds: list[Any] = []
    FleetScreen.paint = timed_paint  # type: ignore[method-assign]
    console.app.ConsoleApp.__init__ = noted_init  # type: ignore[method-assign]
    console.app.run_console = probed


if __name__ == "__main__":
    with open(os.environ["BENCH_SAMPLES"], "a", buffering=1, encoding="utf-8") as file:  # noqa: PTH123
        watch(file)
        status = main()
    sys.exit(status)
