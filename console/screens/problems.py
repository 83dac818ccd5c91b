"""`z`: everything that a person should look at, the worst first, over the screen it was opened from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from console.monitor.findings import alarms
from console.monitor.view import Finding, Severity
from console.screens.base import ConsoleScreen, label
from console.screens.messages import MessagesScreen
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import Cell, Column, Row, RowTable

COLUMNS: Final = (
    Column("severity", "FINDING", 8, priority=90),
    Column("subject", "ABOUT", 20, min_width=14, priority=100),
    Column("text", "WHAT", 24, flexible=True, priority=99, sortable=False),
    Column("since", "FOR", 6, align="right", priority=80, reverse_first=True),
)
MOST_ROWS: Final = 1_000
"""Findings shown at the most, the worst: where more is wrong, a filter says of what."""

SEVERITIES: Final[dict[Severity, tuple[str, str, int]]] = {
    "critical": ("✖", "bad", 0),
    "warning": ("▲", "warn", 1),
    "info": ("○", "dim", 2),
}
"""Glyph, style and rank."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a finding is looked into."""

    text: str
    """In a few words."""
    go: Callable[[App[Any], Runtime], Awaitable[None]]


class ProblemsScreen(ConsoleScreen):
    """All findings, to be pushed over the current screen.

    Args:
        runtime: What it reads.
        tab: The tab of the screen it was opened from.
    """

    pushed = True
    CSS_PATH = "../styles/problems.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("z,q", "back", "back", id="problems.back"),
    ]

    def __init__(self, runtime: Runtime, tab: str = "") -> None:
        super().__init__(runtime)
        self.tab = tab  # type: ignore[misc]  # of the screen below: one class for all of them
        self._by_key: dict[str, Finding] = {}
        self._found: tuple[Finding, ...] = ()

    def body(self) -> ComposeResult:
        """One table, and the whole text of the finding under the cursor."""
        with Vertical(id="problems-card", classes="card"):
            yield RowTable(*COLUMNS, empty="reading the fleet…", markable=False, id="problems-table")
        yield Static("", id="problem-text", markup=False)

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of findings."""
        return self.query_one("#problems-table", RowTable)

    def paint_feed(self) -> None:
        """Tell how old the last look is, while there is nothing else to tell."""
        if not self._by_key:
            self._describe()

    def paint(self) -> None:
        """Show the findings of the last look."""
        found, word = self.findings(), self.expression.lower()
        fitting = [each for each in found if not word or word in f"{each.severity} {each.subject} {each.text}".lower()]
        shown, self._found = fitting[:MOST_ROWS], found
        self._by_key = {key_of(each): each for each in shown}
        self._describe()
        self.table.set_rows(problem_rows(shown, self.now()))
        counted = len(alarms(found))
        some = f"{len(alarms(shown)):,} of {counted:,}" if len(shown) != len(found) else f"{counted:,}"
        noun = "finding" if counted == 1 else "findings"
        suffix = f"/{clean(self.expression, limit=40)}" if self.expression else "worst first"
        label(self.query_one("#problems-card"), f"problems  {some} {noun}", suffix)
        self._paint_text()

    def _describe(self) -> None:
        health = self.runtime.monitor.health
        if self.runtime.monitor.view is None:
            text = "reading the fleet…"
        elif self._found:
            text = "no finding matches the filter"
        else:
            text = f"nothing is wrong\n\nlast look {units.age(health.age)} ago"
        if self.table.empty != text:
            self.table.empty = text

    def _paint_text(self) -> None:
        finding = self._by_key.get(self.table.cursor_key or "")
        text = Text()
        if finding is not None:
            style = {"bad": "bad", "warn": "bright", "dim": "dim"}[SEVERITIES[finding.severity][1]]
            colours = self.colours()
            text.append(f"{clean(finding.subject)}  ", colours[style])
            text.append(clean(finding.text, limit=600))
            if (way := way_to(finding)) is not None:
                text.append(f"\nenter: {clean(way.text, limit=80)}", colours["accent"])
        self.query_one("#problem-text", Static).update(text)

    @on(RowTable.Highlighted)
    def _walked(self, event: RowTable.Highlighted) -> None:
        event.stop()
        self._paint_text()

    @on(RowTable.Selected)
    def _go(self, event: RowTable.Selected) -> None:
        event.stop()
        finding = self._by_key.get(event.key)
        way = way_to(finding) if finding is not None else None
        if way is not None:
            # A worker of the app: this screen is not there any more when it arrives.
            self.app.run_worker(
                way.go(self.app, self.runtime), group="screen", exit_on_error=False, description="go to a problem"
            )


def key_of(finding: Finding) -> str:
    """What stays the same of a finding while its numbers change."""
    return f"{finding.subject}\n{finding.trouble}"


def problem_rows(findings: Iterable[Finding], now: datetime) -> tuple[Row, ...]:
    """Rows of the table of findings.

    Args:
        findings: In the order shown.
        now: What ages are told against.
    """
    return tuple(_row(each, now) for each in findings)


def _row(finding: Finding, now: datetime) -> Row:
    glyph, style, rank = SEVERITIES[finding.severity]
    lasts = (now - finding.since).total_seconds() if finding.since is not None else None
    return Row(
        key_of(finding),
        (
            Cell(finding.severity, style, rank),
            Cell(clean(finding.subject, limit=80), "bright"),
            Cell(clean(finding.text, limit=400)),
            Cell(units.age(lasts), "dim", lasts),
        ),
        glyph,
        style,
    )


def way_to(finding: Finding) -> Way | None:
    """Where a finding is looked into; None for what is nowhere to be seen."""
    if finding.place is None:
        return None
    kind, name = finding.place
    if kind == "dlq":
        expression = _letters(name, redeaths=finding.trouble == "redeaths")
        return Way(f"dead letters {expression}".rstrip(), lambda app, _: _to_letters(app, expression))
    if kind == "events":
        return Way(f"Queues, subscription {name}", lambda app, _: _to_row(app, "queues", "#subscriptions-table", name))
    table = ("queues", "#queues-table") if kind == "tasks" else ("fleet", "#fleet-table")
    screen = "Queues" if kind == "tasks" else "Fleet"
    if finding.trouble == "stranded":
        return Way(f"the messages of {finding.subject}", lambda app, runtime: _to_messages(app, runtime, kind, name))
    return Way(f"{screen}, {name}", lambda app, _: _to_row(app, *table, name))


def _letters(source: str, *, redeaths: bool) -> str:
    kind, _, name = source.partition(".")
    words = [f"{'role' if kind == 'tasks' else 'agent'}:{name}"] if name else []
    return " ".join([*words, "replays:>0"] if redeaths else words)


async def _to_tab(app: App[Any], mode: str) -> None:
    # The first brings its screen, the second whatever is above it out of the way.
    for _ in range(2):
        await app.run_action(f"app.screen({mode!r})")


async def _to_letters(app: App[Any], expression: str) -> None:
    await _to_tab(app, "letters")
    if expression:
        await app.run_action(f"app.letters_of({expression!r})")


async def _to_row(app: App[Any], mode: str, table_id: str, key: str) -> None:
    await _to_tab(app, mode)
    screen = app.screen
    if not isinstance(screen, ConsoleScreen):
        return
    table = screen.query_one(table_id, RowTable)
    table.focus()
    if screen.expression:
        screen.query_one(FilterBar).action_clear()
        # It tells the screen by a message; the row comes back when that has been handled.
        screen.expression = ""
    screen.repaint()
    table.move_cursor(key)


async def _to_messages(app: App[Any], runtime: Runtime, kind: str, name: str) -> None:
    mode, table = ("queues", "#queues-table") if kind == "tasks" else ("fleet", "#fleet-table")
    await _to_row(app, mode, table, name)
    await app.push_screen(MessagesScreen(runtime, "queue" if kind == "tasks" else "inbox", name))
