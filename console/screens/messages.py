"""The messages of one inbox, one queue or all events, over the screen they were opened from; looked at, never consumed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final

import nats.errors
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget
from textual.worker import Worker

from console.filters import Filter, FilterError, parse
from console.messages import Held, Look, MessageState, Shown, Standing, glance, look, place_of
from console.operations.selection import Choice, choose
from console.screens.base import label
from console.screens.inspect import InspectPane
from console.screens.operate import OperatingScreen
from console.text import units
from console.text.safe import clean
from console.widgets.details import message_text
from console.widgets.row_table import Cell, Column, Row, RowTable
from patterns import PatternError, UnknownDestination

if TYPE_CHECKING:
    from console.session import Runtime

REFRESH: Final = 2.0
"""Seconds between two looks whether something changed."""

SHARE: Final = 5
"""A look may take this part (one fifth) of the time to the next; a slower one stretches it."""

ROWS_A_SECOND: Final = 500
"""Rows whose ages are told anew each second: a table of all that can be held repaints every ten."""

STATE_COLUMN: Final = Column("state", "STATE", 9, priority=99)
COLUMNS: Final = (
    Column("seq", "SEQ", 7, min_width=6, align="right", priority=100),
    STATE_COLUMN,
    Column("type", "TYPE", 20, min_width=12, priority=95),
    Column("id", "ID", 14, min_width=10, priority=60),
    Column("source", "SOURCE", 11, min_width=8, priority=80),
    Column("age", "AGE", 6, align="right", priority=90, reverse_first=True),
    Column("size", "SIZE", 8, align="right", priority=70, reverse_first=True),
    Column("preview", "BODY", 20, min_width=14, flexible=True, priority=85, sortable=False),
)
EVENT_COLUMNS: Final = tuple(column for column in COLUMNS if column is not STATE_COLUMN)
"""Each subscriber has an event in a state of its own: the stream has none."""

STATES: Final[dict[MessageState | None, tuple[str, str | None, int]]] = {
    "stranded": ("✖", "bad", 0),
    "in flight": ("●", "accent", 1),
    "pending": ("○", "dim", 2),
    None: ("?", "warn", 3),
}
"""Glyph, style and rank; None where the consumer cannot be seen."""

_TABS: Final = {"inbox": "fleet", "queue": "queues", "events": "events"}


class MessagesScreen(OperatingScreen):
    """The messages of one place, to be pushed over the current screen.

    Args:
        runtime: What it reads and acts through.
        kind: What is looked at.
        name: The agent or role; empty for the events.

    Raises:
        InvalidName: `name` is no agent or role.
    """

    pushed = True
    CSS_PATH = "../styles/messages.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("D", "discard", "discard…", id="messages.discard"),
        Binding("X", "purge", "purge matching…", id="messages.purge"),
        Binding("ctrl+a", "mark_all", "mark all that match", show=False, id="messages.mark-all"),
        Binding("q", "back", "back", id="messages.back"),
    ]

    def __init__(self, runtime: Runtime, kind: Shown, name: str = "") -> None:
        super().__init__(runtime)
        self.place = place_of(runtime.fleet.names, kind, name)
        self.tab = _TABS[kind]  # type: ignore[misc]  # the tab it came from: one class for three of them
        self._look: Look | None = None
        self._by_key: dict[str, Held] = {}
        self._wanted: Filter | None = None
        self._problem = ""
        self._reading: Worker[None] | None = None
        self._due = 0.0
        self._paint_due = 0.0
        self._title = ""
        self._coverage = ""
        self._marked_all: tuple[frozenset[str], str] = (frozenset(), "")

    def body(self) -> ComposeResult:
        """One table."""
        columns = COLUMNS if self.place.durable else EVENT_COLUMNS
        with Vertical(id="messages-card", classes="card"):
            yield RowTable(*columns, empty=f"reading {self.place.title}…", id="messages-table")

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of messages."""
        return self.query_one("#messages-table", RowTable)

    # -- reading

    def paint_feed(self) -> None:
        """Look again when it is time; what is marked stays as it is until it is acted on or unmarked."""
        reading = self._reading is not None and not self._reading.is_finished
        if time.monotonic() >= self._due and not reading and not (self._look and self.table.marks):
            self._start(again=False)

    def action_refresh(self) -> None:
        """Read now, changed or not."""
        super().action_refresh()
        self._start(again=True)

    def _start(self, *, again: bool) -> None:
        self._reading = self.run_worker(
            self._read(again=again),
            group="messages",
            exclusive=True,
            exit_on_error=False,
            description=f"read {self.place.title}",
        )

    async def _read(self, *, again: bool) -> None:
        started = time.monotonic()
        try:
            found = await self._fresh(again=again)
        except UnknownDestination as error:
            self._look, self._problem = None, clean(str(error))
        except (PatternError, nats.errors.Error, OSError) as error:
            # What was seen stays: it is still what an operator can act on when the server is back.
            self._problem = clean(f"not refreshed: {error}" if self._look else f"cannot be read: {error}")
        else:
            if self._look and self.table.marks and not again:
                return
            changed = bool(self._problem) or found is not self._look
            self._look, self._problem = found, ""
            if not changed:
                return
        finally:
            ended = time.monotonic()
            self._due = ended + max(REFRESH, (ended - started) * SHARE)
        self.repaint()

    async def _fresh(self, *, again: bool) -> Look:
        """A new look, or the one there is if nothing changed."""
        fleet, before = self.runtime.fleet, self._look
        if not fleet.nc.is_connected:
            raise ConnectionError("not connected, trying to reconnect")
        if again or before is None:
            return await look(fleet, self.place, known=before)
        now = await glance(fleet, self.place)
        if now.stream != before.glance.stream:
            return await look(fleet, self.place, known=before)
        return before if now == before.glance else replace(before, glance=now)

    # -- showing

    def paint(self) -> None:
        """Tell the ages anew, less often the more there are: the messages come by looks of their own."""
        if time.monotonic() >= self._paint_due:
            self.repaint()

    def filter_changed(self) -> None:
        """Ages of a filter count from the moment it was written."""
        try:
            self._wanted = parse(self.expression) if self.expression else None
        except FilterError:
            self._wanted = None

    def repaint(self) -> None:
        """Show what the filter leaves of the last look."""
        found, table, wanted = self._look, self.table, self._wanted
        held = found.held if found else ()
        shown = held if wanted is None else tuple(each for each in held if wanted.matches(each.record))
        self._paint_due = time.monotonic() + len(held) / ROWS_A_SECOND
        self._by_key = {str(each.seq): each for each in held}
        self._describe(found, len(shown))
        ordered: Iterable[Held] = shown if self.place.durable else reversed(shown)
        table.set_rows(message_rows(ordered, self._standing(), self.now(), states=bool(self.place.durable)))
        table.keep_marks(self._by_key)
        self._paint_labels()

    def _standing(self) -> Standing | None:
        return self._look.glance.standing if self._look else None

    def _describe(self, found: Look | None, shown: int) -> None:
        """Say what is there, how far was looked, and why nothing is shown."""
        self._coverage, name = "", self.place.title
        if found is None:
            self._title = name
            self.table.empty = self._problem or f"reading {name}…"
            return
        held = len(found.held)
        total = held if found.complete else max(found.glance.total, held)
        if not found.complete:
            which = "first" if self.place.durable else "newest"
            self._coverage = f"{which} {held:,} of {total:,}; filter looks at these"
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        self._title = f"{name}  [{f'{shown:,} of {total:,}' if shown != total else f'{total:,}'}]{suffix}"
        if held:
            among = "" if found.complete else f" among the {self._coverage.partition(';')[0]}"
            self.table.empty = f"no message matches the filter{among}"
        elif self.place.durable:
            self.table.empty = f"{name} is empty\n\nWhat was sent to it has been handled."
        else:
            self.table.empty = "no events are stored"

    @on(RowTable.Marked)
    def _paint_labels(self) -> None:
        marked = len(self.table.marks)
        unseen = self._look.glance.unseen if self._look else ""
        parts = (
            f"{marked:,} marked, refresh waits" if marked else "",
            clean(self._problem, limit=80) if self._look else "",
            f"states unknown: {clean(unseen, limit=60)}" if unseen else "",
            self._coverage,
        )
        label(self.query_one("#messages-card"), self._title, "   ".join(part for part in parts if part))

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        held = self._by_key.get(event.key)
        if held is None:
            return
        colours, state = self.colours(), _state(held, self._standing()) if self.place.durable else ""

        async def load() -> Text:
            return _in_full(held, state, colours)

        self.app.push_screen(InspectPane(f"{self.place.title}  seq {held.seq}", load))

    # -- acting

    def targets(self) -> tuple[list[tuple[int, int]], str, int]:
        """What an action is about: the marks, else the row under the cursor.

        Returns:
            Sequence and time of storage (nanoseconds) of each, in order; how they were chosen, in words; how many of them
            the filter hides.
        """
        marks = self.table.marks
        marked = sorted((held for key in marks if (held := self._by_key.get(key))), key=lambda held: held.seq)
        if marked:
            visible = {row.key for row in self.table.rows}
            hidden = sum(str(held.seq) not in visible for held in marked)
            text = self._marked_all[1] if marks == self._marked_all[0] else f"{len(marked):,} marked"
            return _named(marked), text, hidden
        held = self._by_key.get(self.table.cursor_key or "")
        return (_named([held]), f"seq:{held.seq}", 0) if held else ([], "", 0)

    def action_mark_all(self) -> None:
        """Mark all that match the filter, of what is held; what is marked already stays marked."""
        table, wanted = self.table, self._wanted
        keys = frozenset(row.key for row in table.rows)
        what = f"that match {wanted.describe()}" if wanted else f"of {self.place.title}"
        looked = f" among the {self._coverage.partition(';')[0]}" if self._coverage else ""
        self._marked_all = (keys, f"all {len(keys):,} {what}{looked}")
        table.set_marks(table.marks | keys)

    def action_discard(self) -> None:
        """Remove the marked messages, or the one under the cursor."""
        self.discard_targets()

    def action_purge(self) -> None:
        """Remove all messages that match the filter."""
        self.purge_matching()

    def discard_targets(self) -> None:
        """Plan the removal of `targets()` and ask."""
        chosen, text, hidden = self.targets()
        if chosen:
            self.purge_messages(self.place, Choice(text=text, seqs=dict(chosen)), chosen=True, hidden=hidden)

    def purge_matching(self) -> None:
        """Plan the removal of what the filter matches, of everything without one, and ask."""
        wanted = self.expression.strip()
        self.purge_messages(self.place, choose("messages", expression=wanted or None, everything=not wanted))


def message_rows(
    held: Iterable[Held], standing: Standing | None, now: datetime, *, states: bool = True
) -> tuple[Row, ...]:
    """Rows of the table of messages.

    Args:
        held: The messages, in the order shown.
        standing: How far their consumer is; None if that cannot be seen.
        now: What ages count from.
        states: Whether they have a state.
    """
    return tuple(_row(each, _state(each, standing), now, states) for each in held)


def _row(held: Held, state: MessageState | None, now: datetime, states: bool) -> Row:
    message = held.message
    age = (now - message.stored_at).total_seconds() if message.stored_at else None
    glyph, style, rank = STATES[state] if states else ("", None, 0)
    word = (Cell(state or units.NOTHING, style, rank),) if states else ()
    return Row(
        str(held.seq),
        (
            Cell(str(held.seq), "dim", held.seq),
            *word,
            Cell(clean(message.type, limit=80), "bright"),
            Cell(clean(message.id, limit=80)),
            Cell(clean(message.source, limit=80)),
            Cell(units.age(age), None, age),
            Cell(units.size(message.size), "dim", message.size),
            Cell(held.preview, "dim"),
        ),
        glyph,
        style,
    )


def _state(held: Held, standing: Standing | None) -> MessageState | None:
    return standing.of(held.seq) if standing else None


def _named(held: Sequence[Held]) -> list[tuple[int, int]]:
    return [(each.seq, each.stored_ns) for each in held]


def _in_full(held: Held, state: MessageState | str | None, colours: dict[str, str]) -> Text:
    """The whole message; before it what state it is in and why no handler could take it."""
    text = Text()
    if state != "":
        text.append(f"{state or 'state unknown'}\n", colours["bad"] if state == "stranded" else colours["dim"])
    if held.message.problem:
        text.append(f"▲ {clean(held.message.problem, limit=200)}\n", colours["bad"])
    return text.append_text(message_text(held.message, colours))
