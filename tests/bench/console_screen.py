"""The fleet table under load: what a refresh takes of the event loop, and how long a key waits for its picture."""

from __future__ import annotations

import contextlib
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.console_fleet import BigFleet, big_fleet
from tests.bench.console_lines import Line, Scale, percentile, progress, spread
from tests.bench.console_process import helper
from tests.bench.console_terminal import LINES, CursorFinder, RawTerminal, console

WARM_S = 5.0
WARM_REFRESHES = 2
"""Refreshes that do not count: the first paints lay the table out."""
SMALL = 40
"""Agents of the small fleet beside the large one's refresh: more than the screen shows."""
LOST_S = 2.0
"""Seconds after which a key press counts as unanswered."""
WALK = 4
"""Rows that the cursor goes up and down from where it began."""
_TABLE_ENDS = LINES * 65 // 100
"""The table is above this line of the screen, the feed below."""


@contextlib.contextmanager
def sample_file() -> Iterator[Path]:
    """Where a console writes what it measures of itself."""
    with tempfile.TemporaryDirectory(prefix="console-samples-") as folder:
        yield Path(folder) / "samples.jsonl"


def read_samples(path: Path) -> list[dict[str, Any]]:
    """What it has written; a line that is just being written does not count."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


# -- refresh


def refreshes(big: BigFleet, seconds: float, churn: int) -> list[dict[str, float]]:
    """What each refresh of the table took while the fleet moves."""
    with (
        sample_file() as path,
        helper("console_traffic", "churn", big.url, str(big.agents), str(churn)),
        console(big.url, samples=path) as screen,
    ):
        screen.drain(WARM_S)
        before = len(read_samples(path))
        screen.drain(seconds)
        found = read_samples(path)[max(before, WARM_REFRESHES) :]
    if not found or any(sample["rows"] != big.agents for sample in found):
        raise RuntimeError(f"{len(found)} refreshes of {big.agents} rows seen")
    return found


def refresh_lines(big: BigFleet, scale: Scale) -> list[Line]:
    """The refresh of a large table beside that of a small one."""
    progress(f"refresh of {big.agents:,} rows, {scale.refresh_s:.0f} s")
    ours = refreshes(big, scale.refresh_s, scale.churn_rate)
    with big_fleet(SMALL) as small:
        floor = refreshes(small, scale.refresh_s / 3, SMALL)
    cpu, small_cpu = [s["cpu_ms"] for s in ours], [s["cpu_ms"] for s in floor]
    held = [s["block_ms"] for s in ours]
    apart = [s["apart_ms"] for s in ours]
    worst, least = percentile(cpu, 0.99), percentile(small_cpu, 0.99)
    return [
        Line(
            what=f"refresh of the fleet table, {big.agents:,} rows, p50 / p99 / max",
            ours=spread(cpu),
            against=f"the same, {SMALL} rows",
            floor=spread(small_cpu),
            ratio=worst / least,
            target="p99 ≤ 16 ms",
            met=worst <= 16,
            notes=(
                f"time of the event loop's thread from paint to the end of the redraw; {len(cpu)} refreshes in "
                f"{scale.refresh_s:.0f} s while {scale.churn_rate} inboxes a second gain a message and as many lose one",
            ),
        ),
        Line(
            what="… longest the loop is held around a refresh",
            ours=spread(held),
            against=f"the same, {SMALL} rows",
            floor=spread([s["block_ms"] for s in floor]),
            ratio=percentile(held, 0.99) / percentile([s["block_ms"] for s in floor], 0.99),
            target="max ≤ 50 ms",
            met=max(held) <= 50,
        ),
        Line(
            what="… longest it is held between two refreshes: reading",
            ours=spread(apart),
            against=f"the same, {SMALL} rows",
            floor=spread([s["apart_ms"] for s in floor]),
            ratio=percentile(apart, 0.99) / percentile([s["apart_ms"] for s in floor], 0.99),
            target="max ≤ 50 ms",
            met=max(apart) <= 50,
        ),
    ]


# -- keys


class Walker:
    """Presses keys that move the cursor by a row and waits for the picture.

    Args:
        screen: The console, on the fleet.
    """

    def __init__(self, screen: RawTerminal) -> None:
        self._screen = screen
        self._cursor = CursorFinder()
        self._offset = 0
        self.lost = 0
        """Presses that no picture followed in time."""

    def settle(self, seconds: float) -> None:
        """Follow the cursor for some time without pressing."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            self._cursor.feed(self._screen.read(until))

    def go(self, keys: str, pause: float = 0.2) -> None:
        """Press keys one after the other, without a watch."""
        for key in keys:
            self._screen.type(key)
            self.settle(pause)
        if not 0 < self._cursor.line <= _TABLE_ENDS:
            raise RuntimeError(f"the cursor is on line {self._cursor.line} of the screen, not in the table")

    def press(self) -> float:
        """Seconds from one key to the first output that shows the cursor on another line."""
        down = self._offset < WALK and (self._offset <= -WALK or random.random() < 0.5)
        self._offset += 1 if down else -1
        begun = time.perf_counter()
        self._screen.type("j" if down else "k")
        until = begun + LOST_S
        while data := self._screen.read(until):
            if self._cursor.feed(data):
                return time.perf_counter() - begun
        self.lost += 1
        return LOST_S


def presses(big: BigFleet, count: int, keys: str) -> tuple[list[float], int]:
    """Milliseconds of so many key presses at random moments, and how many were not answered.

    Args:
        big: The fleet that is shown.
        count: How many.
        keys: What brings the cursor to a row with room above and below.
    """
    with console(big.url) as screen:
        walker = Walker(screen)
        walker.settle(WARM_S)
        walker.go(keys)
        walker.settle(1.0)
        taken = []
        for _ in range(count):
            walker.settle(random.uniform(0.02, 0.25))
            taken.append(walker.press() * 1000)
    return taken, walker.lost


def key_lines(big: BigFleet, scale: Scale) -> list[Line]:
    """A key on a busy console beside one on a console with nothing to do."""
    progress(f"{scale.presses} key presses with {big.agents:,} agents and {scale.events_rate:,} events/s")
    with (
        helper("console_traffic", "churn", big.url, str(big.agents), str(scale.churn_rate)) as churn,
        helper("console_traffic", "events", big.url, str(scale.events_rate)) as events,
    ):
        begun = time.perf_counter()
        # From the top some pages down, off the rows that are sorted anew at each read, and up from the edge of the page.
        ours, lost = presses(big, scale.presses, "g" + "\x06" * 8 + "k" * 8)
        seconds = time.perf_counter() - begun
        sent = events.stop()["sent"]
        churn.stop()
    with big_fleet(10) as small:
        floor, none = presses(small, max(30, scale.presses // 3), "gjjjjj")
    worst, least = percentile(ours, 0.99), percentile(floor, 0.99)
    return [
        Line(
            what=f"key press to repaint, {big.agents:,} agents, {scale.events_rate:,} events/s, p50 / p99 / max",
            ours=spread(ours),
            against="10 agents, no events",
            floor=spread(floor),
            ratio=worst / least if least else math.nan,
            target="p99 ≤ 50 ms",
            met=worst <= 50,
            notes=(
                f"{len(ours)} presses of j or k at random moments, seen from the terminal; {sent / seconds:,.0f} events/s "
                f"sent, {scale.churn_rate} inboxes a second change; {lost} of them and {none} of the "
                f"floor's unanswered in {LOST_S:.0f} s",
            ),
        )
    ]
