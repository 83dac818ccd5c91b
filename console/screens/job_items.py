"""The items of one job, those that need somebody first, and the answers for what is in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from console.operations import resuming
from console.operations.job import result_of
from console.operations.ledger import LedgerItem
from console.operations.plan import PAST
from console.operations.resuming import Answer
from console.screens.audit import PlainFilterBar
from console.screens.base import label
from console.screens.inspect import InspectPane
from console.screens.job_book import ITEMS, ItemsLook, read_items
from console.screens.job_rows import JobView, clock
from console.screens.job_verbs import UNDOABLE, JobScreen
from console.screens.quit_dialog import ConfirmDialog
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import Cell, Column, Row, RowTable

LOOK: Final = 1.0
"""Seconds between two looks at the ledger."""
SHARE: Final = 5
"""A look may take this part (one fifth) of the time to the next; a slower one stretches it."""
CELL: Final = 200
"""Characters of one value in the table."""
NAMED: Final = 6
"""Sequences that a question names."""

COLUMNS: Final = (
    Column("seq", "SEQ", 8, min_width=6, align="right", priority=100),
    Column("outcome", "OUTCOME", 11, priority=99),
    Column("source", "FROM", 16, min_width=12, priority=70),
    Column("detail", "DETAIL", 30, min_width=20, flexible=True, priority=90),
)
OUTCOMES: Final = {
    "in doubt": ("▲", "warn"),
    "failed": ("✖", "bad"),
    "in work": ("▸", "accent"),
    "not started": ("○", "warn"),
    "waiting": ("○", "dim"),
    "skipped": ("–", "dim"),
    "duplicate": ("●", "dim"),
    "done": ("●", "good"),
}
"""Glyph and style."""
VERBS: Final[dict[Answer, str]] = {"again": "Send again", "done": "Take as done", "leave": "Leave"}


class ItemsScreen(JobScreen):
    """The items of one job, to be pushed over the list of jobs.

    Args:
        runtime: What it reads and acts through.
        view: The job as it was when it was opened.
    """

    tab = "jobs"
    pushed = True
    CSS_PATH = "../styles/jobs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        # The same keys as in the list; the line of hints is for the answers.
        Binding("P", "pause", "pause/go on", show=False, id="jobs.pause"),
        Binding("plus,equals_sign", "faster", "rate", key_display="+/-", show=False, id="jobs.faster"),
        Binding("X", "cancel", "cancel", show=False, id="jobs.cancel"),
        Binding("R", "answer('again')", "again", id="items.again"),
        Binding("A", "answer('done')", "arrived", id="items.arrived"),
        Binding("L", "answer('leave')", "leave", id="items.leave"),
        Binding("ctrl+a", "mark_all", "mark all in doubt", show=False, id="items.mark-all"),
        Binding("q", "back", "back", id="items.back"),
    ]

    def __init__(self, runtime: Runtime, view: JobView) -> None:
        super().__init__(runtime)
        self._view = view
        self._look: ItemsLook | None = None
        self._live: bool | None = None
        self._by_key: dict[str, LedgerItem] = {}
        self._entries: tuple[tuple[Row, str], ...] = ()
        self._reading = False
        self._due = 0.0

    def body(self) -> ComposeResult:
        """One table."""
        with Vertical(id="items-card", classes="card"):
            yield RowTable(*COLUMNS, empty="reading the items…", id="items-table")

    def filter_bar(self) -> FilterBar:
        """One that takes any words."""
        return PlainFilterBar()

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of items."""
        return self.query_one("#items-table", RowTable)

    def current(self) -> JobView:
        """The job."""
        job = next((job for job in self.runtime.jobs if job.id == self._view.id), None)
        if job is not None and job.running:
            return JobView.of(job)
        if self._look is not None and self._look.record is not None:
            return JobView(self._look.record, self._look.counts, away=self._view.away)
        return self._view

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where nothing is in doubt nothing is answered for, and no key is shown for it."""
        if (
            action == "answer"
            and self._look is not None
            and not any(map(self._look.counts.get, ("in doubt", "sending")))
        ):
            return False
        return super().check_action(action, parameters)

    # -- reading

    def look_soon(self) -> None:
        """Read the ledger at the next tick."""
        self._due = 0.0

    def action_refresh(self) -> None:
        """Read the fleet and the ledger now."""
        self.look_soon()
        super().action_refresh()

    def paint_feed(self) -> None:
        """Look at the ledger now and then, one look at a time."""
        if not self._reading and time.monotonic() >= self._due:
            self._reading = True
            self.run_worker(self._read(), group="ledger", exit_on_error=False, description="read the items of a job")

    async def _read(self) -> None:
        began = time.monotonic()
        self._due = began + LOOK
        try:
            live, before = self.live() is not None, self._look
            found, entries = await asyncio.to_thread(self._fresh, before, live)
            if found is not before or live != self._live:
                self._look, self._live, self._entries = found, live, entries
                self._by_key = {str(entry.n): entry for entry in found.items}
                self.repaint()
                self.refresh_bindings()
        finally:
            self._reading = False
            ended = time.monotonic()
            if self._due:
                self._due = max(self._due, ended + (ended - began) * SHARE)

    def _fresh(self, before: ItemsLook | None, live: bool) -> tuple[ItemsLook, tuple[tuple[Row, str], ...]]:
        """Read the items and make their rows; runs in a thread."""
        found = read_items(self.runtime.session.ledger, self._view.id, before)
        if found is before and live == self._live:
            return found, self._entries
        rows = [_row(entry, live=live) for entry in found.items]
        return found, tuple((row, " ".join(cell.text for cell in row.cells).lower()) for row in rows)

    # -- showing

    def repaint(self) -> None:
        """Show the items that match."""
        look, table = self._look, self.table
        if look is None:
            return
        wanted = self.expression.lower().split()
        shown = [row for row, words in self._entries if all(word in words for word in wanted)]
        table.empty = self._why_empty(look)
        table.set_rows(shown)
        table.keep_marks({key for key, entry in self._by_key.items() if entry.state == "in doubt"})
        self._paint_labels(len(shown))

    def _why_empty(self, look: ItemsLook) -> str:
        if look.problem:
            return look.problem
        if self._by_key:
            return "no item matches the filter"
        return f"it was not begun: {self._view.error}" if self._view.error else "it has no items"

    @on(RowTable.Marked)
    def _marked(self) -> None:
        self._paint_labels(len(self.table.rows))

    def _paint_labels(self, shown: int) -> None:
        look, view = self._look, self.current()
        if look is None:
            return
        total = look.total
        held = min(total, ITEMS)
        count = f"{units.count(shown)} of {units.count(held)}" if shown != len(look.items) else units.count(held)
        first = f"  the first {count} of {units.count(total)}" if held < total else f"  {count}"
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        marked, doubt = len(self.table.marks), view.count("in doubt")
        parts = (
            clean(look.problem, limit=80) if self._by_key else "",
            f"{units.count(marked)} marked" if marked else "",
            f"{units.count(doubt)} in doubt: R again, A arrived, L leave"
            if doubt and self.runtime.guard.allowed
            else "",
            clean(view.state),
        )
        noun = "item" if total == 1 else "items"
        title = f"job {clean(view.id, limit=20)}  {clean(view.record.action, limit=20)}{first} {noun}{suffix}"
        label(self.query_one("#items-card"), title, "   ".join(part for part in parts if part))

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        entry = self._by_key.get(event.key)
        if entry is None:
            return
        colours, outcome = self.colours(), _outcome(entry, live=bool(self._live))

        async def load() -> Text:
            return item_text(entry, outcome, colours)

        self.app.push_screen(InspectPane(f"job {self._view.id}  seq {entry.item.seq}", load))

    # -- answering

    def action_mark_all(self) -> None:
        """Mark all that are in doubt and match the filter."""
        self.table.set_marks(self.table.marks | {row.key for row in self.table.rows if row.markable})

    def action_answer(self, said: Answer) -> None:
        """Say what is true of the marked items, or of the one under the cursor."""
        table = self.table
        keys = table.marks or ({table.cursor_key} if table.cursor_key else frozenset())
        asked = [entry for key in keys if key and (entry := self._by_key.get(key)) is not None]
        chosen = [entry for entry in asked if entry.state == "in doubt"]
        if not asked or not self.may():
            return
        if self.current().under_way:
            self.say("it is under way: answer when it has ended", bad=True)
        elif not chosen and asked[0].state == "sending":
            self.say("it was begun when the job broke off: P resumes the job, and finds out")
        elif not chosen:
            self.say(f"seq {asked[0].item.seq} is {_outcome(asked[0], live=False)}: there is nothing to answer for")
        else:
            seqs = sorted({entry.item.seq for entry in chosen})
            self.run_worker(
                self._answer(seqs, said), group="job", exclusive=True, exit_on_error=False, description="answer"
            )

    async def _answer(self, seqs: Sequence[int], said: Answer) -> None:
        runtime, session, view, verb = self.runtime, self.runtime.session, self.current(), VERBS[said]
        text = consequence(view, seqs, said, letters=view.record.stream == runtime.fleet.dead_letters.stream)
        question = ConfirmDialog(f"{verb.lower()}: job {view.id}", text, f"{verb} {units.count(len(seqs))}")
        if not await self.app.push_screen_wait(question):
            return
        try:
            number = await resuming.answer(
                runtime.fleet, session.ledger, view.id, seqs, said, runtime.guard, audit=session.audit
            )
        except UNDOABLE as error:
            self.say(str(error), bad=True)
        else:
            self.table.set_marks(())
            many = f"{units.count(number)} {'item' if number == 1 else 'items'}"
            self.say(f"{many} will be sent again: P resumes the job" if said == "again" else f"answered for {many}")
        self.look_soon()


def consequence(view: JobView, seqs: Sequence[int], said: Answer, *, letters: bool) -> str:
    """What an answer does, and what it costs if it is wrong, in one sentence.

    Args:
        view: The job.
        seqs: What is answered for.
        said: The answer.
        letters: Whether they are dead letters.
    """
    one = len(seqs) == 1
    named = ", ".join(map(str, seqs[:NAMED])) + ("…" if len(seqs) > NAMED else "")
    what = f"Seq {named}" if one else f"{units.count(len(seqs))} items (seq {named})"
    past = PAST.get(view.record.action, "done")
    it, is_ = ("it", "is") if one else ("one", "are")
    if said == "again":
        return f"{what} {is_} sent once more when the job is resumed: if {it} got there after all, it is there twice."
    if said == "done":
        rest = f"{'its letter is' if one else 'their letters are'} removed" if letters else "nothing more is done"
        return f"{what} {'counts' if one else 'count'} as {past} and {rest}: if {it} did not get there, it is lost."
    stays = "among the dead letters" if letters else "as things are"
    return (
        f"{what} {'stays' if one else 'stay'} {stays} and {'counts' if one else 'count'} as skipped: if {it} got there, "
        f"doing it once more doubles it, and if not, nobody does it."
    )


def _outcome(entry: LedgerItem, *, live: bool) -> str:
    if live and entry.state in ("waiting", "sending"):
        return "in work" if entry.state == "sending" else "waiting"
    return result_of(entry).outcome


def _row(entry: LedgerItem, *, live: bool) -> Row:
    outcome = _outcome(entry, live=live)
    glyph, style = OUTCOMES.get(outcome, ("?", "warn"))
    detail = "" if live and entry.state in ("waiting", "sending") else result_of(entry).detail
    return Row(
        key=str(entry.n),
        cells=(
            Cell(str(entry.item.seq), "dim", entry.item.seq),
            Cell(outcome, style, list(OUTCOMES).index(outcome) if outcome in OUTCOMES else -1),
            Cell(clean(entry.item.source, limit=CELL), "dim"),
            Cell(clean(detail, limit=CELL)),
        ),
        glyph=glyph,
        glyph_style=style,
        markable=entry.state == "in doubt",
    )


def item_text(entry: LedgerItem, outcome: str, colours: dict[str, str]) -> Text:
    """Everything the ledger knows of one item.

    Args:
        entry: The item.
        outcome: What became of it, in words.
        colours: The screen's styles for texts.
    """
    text = Text()
    rows = (
        ("seq", str(entry.item.seq)),
        ("outcome", outcome),
        ("from", entry.item.source),
        ("to", entry.item.destination or units.NOTHING),
        ("stored", clock(entry.item.stored_ns / 1e9)),
        ("changed", clock(entry.at)),
        ("detail", result_of(entry).detail or units.NOTHING),
    )
    for name, value in rows:
        text.append(f"{name:<10}", colours["dim"])
        text.append(clean(value) + "\n")
    return text
