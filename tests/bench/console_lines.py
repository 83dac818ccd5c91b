"""What the bench of the console prints: its lines, how much of each is measured, and the few statistics it needs."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    agents: tuple[int, ...] = (1_000, 5_000)
    """Fleets of the snapshots; the largest is shown on the screen too."""
    rounds: int = 15
    """Reads of each side."""
    presses: int = 300
    refresh_s: float = 60.0
    feed_s: float = 60.0
    idle_s: float = 30.0
    memory_s: float = 600.0
    letters: int = 100_000
    letters_s: float = 60.0
    starts: int = 5
    events_rate: int = 10_000
    """Events a second."""
    churn_rate: int = 300
    """Inboxes a second that get a message, and as many that lose one."""


QUICK = Scale(
    agents=(300, 1_000),
    rounds=7,
    presses=80,
    refresh_s=12.0,
    feed_s=10.0,
    idle_s=8.0,
    memory_s=15.0,
    letters=20_000,
    letters_s=8.0,
    starts=3,
)
"""All lines in less than three minutes; too short for the flatness of memory to say much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table."""

    what: str
    ours: str
    against: str = ""
    """What the figure beside ours belongs to."""
    floor: str = ""
    ratio: float | None = None
    """Ours as a multiple of the figure beside it."""
    target: str = ""
    met: bool | None = None
    """None where there is no target."""
    notes: tuple[str, ...] = field(default=())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all values does not exceed (nearest rank); nan for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def spread(values: Sequence[float], unit: str = "ms") -> str:
    """`p50 / p99 / max unit`."""
    shown = (percentile(values, 0.5), percentile(values, 0.99), max(values, default=math.nan))
    return " / ".join(f"{value:.1f}" for value in shown) + f" {unit}"


def growth(values: Sequence[float], warm: int) -> float:
    """By which part the mean of the last third exceeds that of the first, the `warm` first values left out."""
    rest = values[warm:] if len(values) - warm >= 3 else values
    third = max(1, len(rest) // 3)
    return statistics.fmean(rest[-third:]) / statistics.fmean(rest[:third]) - 1


def missing(what: str, target: str, why: str) -> Line:
    """The line of something that could not be measured."""
    return Line(what=what, ours="not measured", target=target, notes=(why,))


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(f"  {text}", file=sys.stderr, flush=True)


def show(lines: Sequence[Line], title: str) -> None:
    """Print the table, and its notes below."""
    out = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(title=title)
    for column in ("", "console", "floor or peer", "", "ratio", "target", "met"):
        table.add_column(column, justify="left" if column in ("", "floor or peer", "target") else "right")
    notes: list[str] = []
    for line in lines:
        marks = []
        for note in line.notes:
            if note not in notes:
                notes.append(note)
            marks.append(str(notes.index(note) + 1))
        table.add_row(
            line.what + (f"  ({', '.join(marks)})" if marks else ""),
            line.ours,
            line.against,
            line.floor,
            "" if line.ratio is None else f"{line.ratio:.2f}",
            line.target,
            "" if line.met is None else "yes" if line.met else "NO",
        )
    out.print(table)
    for number, note in enumerate(notes, 1):
        out.print(f"({number}) {note}", markup=False, highlight=False)
