"""Screen 7: what operators did from this machine, as the audit file tells it, the newest line first."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input

from console.monitor.audit_tail import AuditLine, AuditTail, Tail, text_of
from console.screens.base import ConsoleScreen, label
from console.screens.inspect import InspectPane
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import Cell, Column, Row, RowTable

LOOK: Final = 1.0
"""Seconds between two looks at the file while the screen is shown."""
CELL: Final = 200
"""Characters of one value in the table."""
NAMES: Final = 24
FIELDS: Final = 100
"""Fields of one line that its pane shows."""
LARGEST: Final = 10**12
"""More than this is no count of messages."""

COLUMNS = (
    Column("time", "TIME", 11, priority=100, reverse_first=True),
    Column("actor", "WHO", 14, min_width=12, priority=90),
    Column("event", "EVENT", 5, priority=97),
    Column("action", "ACTION", 7, priority=95),
    Column("job", "JOB", 8, priority=80),
    Column("planned", "PLANNED", 7, align="right", priority=70, reverse_first=True),
    Column("done", "DONE", 5, align="right", priority=88, reverse_first=True),
    Column("failed", "FAILED", 6, align="right", priority=92, reverse_first=True),
    Column("result", "RESULT", 16, min_width=9, flexible=True, priority=96),
    Column("reason", "REASON", 15, min_width=10, priority=60),
)


class Entry(NamedTuple):
    """A line of the audit, ready to be shown and searched."""

    line: AuditLine
    row: Row
    words: str
    """Everything it says and what its row shows, in lower case."""


class PlainFilterBar(FilterBar):
    """A filter without grammar: its words stand in the lines, and a colon among them is a colon."""

    @on(Input.Changed)
    def _plainly_typed(self, event: Input.Changed) -> None:
        event.stop()
        # Or the bar's own handler would read it as an expression over messages.
        event.prevent_default()
        self.post_message(self.Changed(event.value.strip()))


class AuditScreen(ConsoleScreen):
    """The audit."""

    tab = "audit"
    CSS_PATH = "../styles/audit.tcss"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        audit = self.runtime.session.audit
        self._file = AuditTail(audit.path) if audit is not None else None
        self._tail: Tail | None = None
        self._entries: tuple[Entry, ...] = ()
        self._shown: dict[str, AuditLine] = {}
        self._looking = False
        self._due = 0.0

    def body(self) -> ComposeResult:
        """One table."""
        with Vertical(id="audit-card", classes="card"):
            yield RowTable(*COLUMNS, empty="reading the audit…", markable=False, id="audit-table")

    def filter_bar(self) -> FilterBar:
        """One that takes any words."""
        return PlainFilterBar()

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of lines."""
        return self.query_one("#audit-table", RowTable)

    def on_mount(self) -> None:
        """Say at once where nothing is to be read."""
        self._show()

    def paint_feed(self) -> None:
        """Look at the file now and then; the disk may take its time, so in a thread, and one look at a time."""
        if self._file is None or self._looking or time.monotonic() < self._due:
            return
        self._looking = True
        self.run_worker(self._look(self._file), group="audit", exit_on_error=False, description="read the audit")

    async def _look(self, file: AuditTail) -> None:
        try:
            tail, entries = await asyncio.to_thread(_read, file)
            if tail is not None:
                self._tail, self._entries = tail, entries
                self._show()
        finally:
            self._looking, self._due = False, time.monotonic() + LOOK

    def filter_changed(self) -> None:
        """Show only what matches."""
        self._show()

    def _show(self) -> None:
        wanted = self.expression.lower().split()
        shown = [entry for entry in self._entries if all(word in entry.words for word in wanted)]
        self._shown = {entry.row.key: entry.line for entry in shown}
        table = self.table
        table.empty = self._why_empty()
        table.set_rows(entry.row for entry in shown)
        label(self.query_one("#audit-card"), f"audit  {self._title(len(shown))}".rstrip(), self._where())

    def _title(self, shown: int) -> str:
        tail = self._tail
        if tail is None or tail.problem or tail.missing:
            return ""
        total = len(self._entries)
        count = f"{units.count(shown)} of " if shown != total else ""
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        if tail.older:
            return f"{count}the last {units.count(total)} lines, older not shown{suffix}"
        return f"{count}{units.count(total)} {'line' if total == 1 else 'lines'}{suffix}"

    def _where(self) -> str:
        if self._file is None:
            return ""
        path = clean(str(self._file.path))
        room = max(self.size.width - 8, 20)
        return path if len(path) <= room else f"…{path[1 - room :]}"

    def _why_empty(self) -> str:
        guard, tail = self.runtime.guard, self._tail
        if self._file is None:
            why = "this session keeps no audit" if guard.allowed else f"no audit: {guard.reason}"
            return clean(
                f"{why}\n\n`agent-console audit` lists what was done from this machine before.", multiline=True
            )
        if tail is None:
            return "reading the audit…"
        if tail.problem:
            return f"the audit cannot be read: {tail.problem}"
        if self._entries:
            return "no line matches the filter"
        if tail.older:
            return "its last line is too long to be shown"
        return "nothing was done from here yet\n\nEvery change is written down here before it begins."

    def action_refresh(self) -> None:
        """Read the fleet and the file now."""
        self._due = 0.0
        super().action_refresh()

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        line = self._shown.get(event.key)
        if line is None:
            return
        colours = self.colours()

        async def load() -> Text:
            return fields_text(line, colours)

        fields = line.fields or {}
        words = [clean(text_of(fields[name]), limit=40) for name in ("action", "job", "event") if fields.get(name)]
        self.app.push_screen(InspectPane(f"audit  {'  '.join(words)}" if words else "audit line", load))


def _read(file: AuditTail) -> tuple[Tail | None, tuple[Entry, ...]]:
    """Read the file if it has changed, and make its rows; runs in a thread."""
    tail = file.read()
    if tail is None:
        return None, ()
    today = datetime.now().astimezone().date()
    return tail, tuple(entry_of(line, today) for line in tail.lines)


def entry_of(line: AuditLine, today: date) -> Entry:
    """A line as a row, with what a filter searches.

    Args:
        line: The line.
        today: Lines of this day show their time only.
    """
    row = _broken_row(line) if line.fields is None else _row(line.at, line.fields, today)
    return Entry(line, row, f"{' '.join(cell.text for cell in row.cells)} {line.words()}".lower())


def _row(at: int, fields: dict[str, Any], today: date) -> Row:
    result = clean(" ".join(filter(None, (_seq(fields), _came_of(fields)))), limit=CELL)
    glyph, style = _weight(fields)
    return Row(
        key=str(at),
        cells=(
            _time(fields.get("time"), today),
            _text(fields.get("actor")),
            _text(fields.get("event"), "dim"),
            _text(fields.get("action")),
            _text(fields.get("job"), "dim"),
            _number(fields.get("planned")),
            _number(fields.get("done")),
            _number(fields.get("failed"), "bad"),
            Cell(result, None if fields.get("result") == "completed" else style),
            _text(fields.get("reason"), "dim"),
        ),
        glyph=glyph,
        glyph_style=style,
    )


def _broken_row(line: AuditLine) -> Row:
    """A line that is damaged is part of what an audit tells."""
    nothing = Cell("")
    return Row(
        key=str(line.at),
        cells=(
            Cell("?", "dim", math.nan),
            *(nothing for _ in range(7)),
            Cell(clean(f"not readable: {line.raw}", limit=CELL), "warn"),
            nothing,
        ),
        glyph="?",
        glyph_style="warn",
    )


def _came_of(fields: dict[str, Any]) -> str:
    return ": ".join(text_of(fields[name]) for name in ("result", "error") if fields.get(name))


def _seq(fields: dict[str, Any]) -> str:
    return f"seq {text_of(fields['seq'])}" if fields.get("seq") else ""


def _weight(fields: dict[str, Any]) -> tuple[str, str]:
    """The glyph of a line and its style: how it ended."""
    if fields.get("event") == "start":
        return "▸", "dim"
    result = fields.get("result")
    if result == "failed" or fields.get("failed"):
        return "✖", "bad"
    if (
        result in ("cancelled", "interrupted", "in doubt", "not started")
        or fields.get("in_doubt")
        or fields.get("error")
    ):
        return "▲", "warn"
    return ("●", "good") if result == "completed" else ("", "dim")


def _time(value: object, today: date) -> Cell:
    """The local time of a line of today, the day before it for others."""
    try:
        moment = datetime.fromisoformat(value).astimezone() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None:
        return Cell(clean(text_of(value), limit=CELL), "dim", math.nan)
    if moment.date() == today:
        shown = units.clock(moment)[:8]
    else:
        shown = f"{moment:%m-%d %H:%M}" if moment.year == today.year else f"{moment:%Y-%m-%d}"
    return Cell(shown, "dim", moment.timestamp())


def _text(value: object, style: str | None = None) -> Cell:
    return Cell("" if value is None else clean(text_of(value), limit=CELL), style)


def _number(value: object, style: str | None = None) -> Cell:
    if value is None:
        return Cell("")
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST:
        return Cell(clean(text_of(value), limit=CELL), "dim", math.nan)
    return Cell("·", "dim", 0) if value == 0 else Cell(clean(units.count(value, compact=True)), style, value)


def fields_text(line: AuditLine, colours: dict[str, str]) -> Text:
    """Every field of a line in the order of the file, one a row.

    Args:
        line: The line.
        colours: The screen's styles for texts.
    """
    text = Text()
    if line.fields is None:
        text.append("this line of the file cannot be read\n\n", colours["bad"])
        text.append(clean(line.raw) + "\n")
        return text
    names = [clean(name, limit=NAMES) for name in line.fields]
    width = max(map(len, names[:FIELDS]), default=0) + 2
    for name, value in list(zip(names, line.fields.values(), strict=True))[:FIELDS]:
        text.append(f"{name:<{width}}", colours["dim"])
        text.append(clean(text_of(value)) + "\n", colours["dim"] if value is None else "")
    if len(names) > FIELDS:
        text.append(f"and {units.count(len(names) - FIELDS)} more fields\n", colours["dim"])
    return text
