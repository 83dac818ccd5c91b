"""How a line of an `EventFeed` is drawn, on one line of the screen or wrapped; knows nothing of keys and scrolling."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from rich.cells import chop_cells
from rich.segment import Segment
from rich.style import Style

from console.text import units
from console.text.safe import clean, fit, is_clean
from console.widgets.row_paint import CURSOR, MARK

BODY_LIMIT: Final = 1000
"""Characters of a body that are drawn: more than any terminal is wide. The message itself is the screen's to keep."""
MAX_ROWS: Final = 12
"""Screen lines of one wrapped line, at the most: what is longer is to be opened."""

COMPONENTS: Final = frozenset(
    f"event-feed--{part}"
    for part in ("dim", "bright", "good", "warn", "bad", "accent", "bold", "cursor", "cursor-bar", "cursor-dim")
)
"""The component classes of the feed, which a theme or a style sheet may change."""

STYLE: Final = """
EventFeed {
    height: 1fr;
    overflow-x: hidden;
    overflow-y: auto;
    scrollbar-gutter: stable;
    scrollbar-size-vertical: 1;
    & > .event-feed--dim { color: $text-muted; }
    & > .event-feed--bright { color: $text; }
    & > .event-feed--good { color: $success; }
    & > .event-feed--warn { color: $warning; }
    & > .event-feed--bad { color: $error; }
    & > .event-feed--accent { color: $accent; }
    & > .event-feed--bold { text-style: bold; }
    & > .event-feed--cursor { background: $block-cursor-blurred-background; }
    & > .event-feed--cursor-bar { color: $text-muted; }
    & > .event-feed--cursor-dim { color: $foreground 60%; }
    &:focus > .event-feed--cursor-bar { color: $accent; }
    &:focus > .event-feed--cursor { background: $block-cursor-background; }
}
"""

GAP: Final = "  "
_NARROW: Final = 60
_ROOM: Final = 30
"""Cells of a body below which its second line begins further left."""

Stamp = Literal["time", "date", "age", "off"]
STAMPS: Final[tuple[Stamp, ...]] = ("time", "date", "age", "off")
"""Time of day, date and time, age, nothing."""


class FeedLine(NamedTuple):
    """One line."""

    key: str | int
    """What the screen finds the event by."""
    at: datetime | None
    kind: str
    kind_style: str | None
    """Names from `dim bright good warn bad accent bold`, separated by spaces."""
    source: str
    body: str
    body_style: str | None = "dim"


class FeedPaint:
    """Draws lines.

    Args:
        style: Gives the style of component names (without `event-feed--`), and whether it is for the cursor's line.
        now: What ages count from.
    """

    def __init__(
        self, style: Callable[[str, bool], Style], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._style = style
        self._now = now
        self.width = 0
        """Cells of a line."""
        self.wrap = False
        self.stamp: Stamp = "time"

    def parts(self, line: FeedLine, height: int) -> list[str]:
        """The body, as what stands of it on each line of the screen.

        Args:
            line: What is drawn.
            height: Lines there are, at least 1.
        """
        body = line.body if is_clean(line.body) else clean(line.body)
        body = body if len(body) <= BODY_LIMIT else clean(body, limit=BODY_LIMIT)
        column = self._column()
        room = max(self.width - column, 1)
        if not self.wrap or not body:
            return [body]
        first = _chop(body, room)
        if len(first) <= 1:
            return [body]
        if room < _ROOM:
            rest = _chop(body[len(first[0]) :], max(self.width - self._indent(), 1))
            first = [first[0], *rest]
        most = max(min(MAX_ROWS, height), 1)
        if len(first) > most:
            first = first[:most]
            first[-1] = fit(first[-1] + "…", max(self.width - self._indent() if most > 1 else room, 1)).rstrip()
            if not first[-1].endswith("…"):
                first[-1] = first[-1][:-1] + "…"
        return first

    def segments(self, line: FeedLine, parts: list[str], part: int, *, on_cursor: bool, marked: bool) -> list[Segment]:
        """One line of the screen.

        Args:
            line: What is drawn.
            parts: What `parts` says of it.
            part: Which of them.
            on_cursor: Whether it is on the cursor's line.
            marked: Whether it is marked.
        """
        plain = self._style("", on_cursor)
        sign = MARK if marked else CURSOR if on_cursor else " "
        segments = [
            Segment(sign, self._style("accent" if marked else "cursor-bar", on_cursor) if sign != " " else plain)
        ]
        if part:
            indent = self._indent()
            segments.append(Segment(" " * (indent - 1), plain))
            room = self.width - indent
        else:
            segments += self._prefix(line, on_cursor)
            room = self.width - sum(segment.cell_length for segment in segments)
        segments.append(Segment(fit(parts[part], max(room, 0)), self._style(line.body_style or "", on_cursor)))
        return segments

    def _prefix(self, line: FeedLine, on_cursor: bool) -> list[Segment]:
        stamp, kind, source = self._widths()
        found = []
        if stamp:
            found.append(Segment(_fit(self._when(line.at), stamp), self._style("dim", on_cursor)))
        found.append(Segment(_fit(line.kind, kind), self._style(line.kind_style or "", on_cursor)))
        if source:
            found.append(Segment(_fit(line.source, source), self._style("", on_cursor)))
        return found

    def _widths(self) -> tuple[int, int, int]:
        wide = self.width >= _NARROW
        stamp = {"time": 12 if wide else 8, "date": 19 if wide else 11, "age": 6, "off": 0}[self.stamp]
        return stamp, min(max(self.width // 5, 14), 26), min(max(self.width // 8, 9), 16) if wide else 0

    def _column(self) -> int:
        return 1 + sum(width + len(GAP) for width in self._widths() if width)

    def _indent(self) -> int:
        column = self._column()
        return column if self.width - column >= _ROOM else 3

    def _when(self, at: datetime | None) -> str:
        if at is None:
            return ""
        if self.stamp == "age":
            return units.age((self._now() - at).total_seconds())
        if self.stamp == "date":
            local = at.astimezone()
            return f"{local:%Y-%m-%d %H:%M:%S}" if self.width >= _NARROW else f"{local:%m-%d %H:%M}"
        return units.clock(at) if self.width >= _NARROW else units.clock(at)[:8]


def _chop(text: str, width: int) -> list[str]:
    if text.isascii():  # nearly always, and in a hundredth of the time
        return [text[at : at + width] for at in range(0, len(text), width)]
    return chop_cells(text, width)


def _fit(text: str, width: int) -> str:
    # Text is cleaned where it enters the program; this is the lock behind that door.
    return fit(text if is_clean(text) else clean(text), width) + GAP
