"""Screen 6: the jobs, those of this session as they run and those that the ledger remembers."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import ClassVar, Final

import nats.errors
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from console.operations.places import Stream
from console.screens.audit import PlainFilterBar
from console.screens.base import label
from console.screens.job_book import JOBS, JobBook, Look, Wanted
from console.screens.job_card import card_text
from console.screens.job_items import ItemsScreen
from console.screens.job_rows import COLUMNS, Entry, Facts, JobView, away_of, entry_of
from console.screens.job_verbs import JobScreen
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import RowTable
from patterns import PatternError

LOOK: Final = 1.0
"""Seconds between two looks at the ledger while the screen is shown."""
SETTLED: Final = 1.0
"""Seconds after the end of a job from which on the ledger knows more of it: answers are written there."""
PACE: Final = 0.5
"""Seconds after which rates and times of a running job are told anew, however little it did."""


STALE: Final = 15.0
"""Seconds after which the server is asked once more whether a stream is still the one it was."""
ASKED: Final = 10
"""Streams that are asked for at a look, at the most."""


class JobsScreen(JobScreen):
    """The jobs."""

    tab = "jobs"
    CSS_PATH = "../styles/jobs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other_pane", "read", show=False, id="jobs.pane"),
    ]

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._book = JobBook(self.runtime.session.ledger)
        self._look: Look | None = None
        self._facts: Facts | None = None
        self._shown: dict[str, JobView] = {}
        self._mark: tuple[object, ...] = ()
        self._begun: frozenset[int] = frozenset()
        self._card = Text()
        self._card_of: str | None = None
        self._looking = False
        self._due = 0.0
        self._wanted_job: str | None = None
        self._here: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    def body(self) -> ComposeResult:
        """The list above, the job under the cursor below."""
        with Vertical(id="jobs-card", classes="card"):
            yield RowTable(*COLUMNS, empty="reading the jobs…", markable=False, id="jobs-table")
        with VerticalScroll(id="job-card", classes="card"):
            yield Static("", id="job-text", markup=False)

    def filter_bar(self) -> FilterBar:
        """One that takes any words."""
        return PlainFilterBar()

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of jobs."""
        return self.query_one("#jobs-table", RowTable)

    def current(self) -> JobView | None:
        """The job under the cursor."""
        return self._shown.get(self.table.cursor_key or "")

    def show_job(self, job: str) -> None:
        """Put the cursor on a job, as soon as it is in the list, and drop a filter that may hide it."""
        self._wanted_job = job
        if self.expression:
            self.query_one(FilterBar).action_clear()
        self.look_soon()
        self.repaint()

    # -- reading

    def look_soon(self) -> None:
        """Read the ledger at the next tick."""
        self._due = 0.0

    def action_refresh(self) -> None:
        """Read the fleet and the ledger now."""
        self.look_soon()
        super().action_refresh()

    def paint_feed(self) -> None:
        """Show what the jobs of this session did since, and look at the ledger now and then, one look at a time."""
        if (mark := self._moved()) != self._mark:
            self._mark = mark
            self.repaint()
        if not self._looking and time.monotonic() >= self._due:
            self._looking = True
            self.run_worker(self._read(), group="ledger", exit_on_error=False, description="read the job ledger")

    def _moved(self) -> tuple[object, ...]:
        """Changes whenever a job of this session looks different."""
        return tuple(
            (
                job.id, job.state, job.processed, job.rate, job.phase, job.spill, job.cancelled.is_set(),
                int(time.monotonic() / PACE) if job.running else 0,
            )
            for job in self.runtime.jobs
        )  # fmt: skip

    async def _read(self) -> None:
        self._due = time.monotonic() + LOOK
        try:
            wanted = await self._wanted()
            known = frozenset(job.id for job in self.runtime.jobs if job.running)
            here, context = await self._identities(), self.runtime.session.name
            look = await asyncio.to_thread(
                self._book.look, wanted, known, lambda record: away_of(record, here, context)
            )
            if look.problem and self._look is not None:
                look = Look(self._look.at, self._look.entries, self._look.facts, look.problem)
            self._look, self._facts = look, look.facts
            self.repaint()
            if (job := self._wanted_job) and not look.problem and all(entry.view.id != job for entry in look.entries):
                self._wanted_job = None
                self.app.notify(
                    clean(f"job {job} is not among the newest {units.count(JOBS)}", limit=100), markup=False
                )
        finally:
            self._looking = False

    async def _wanted(self) -> Wanted | None:
        """What the card is about; asks the server only for jobs of dead letters."""
        view = self.current()
        if view is None:
            return None
        runtime = self.runtime
        if view.record.action not in ("replay", "move") or not runtime.fleet.nc.is_connected:
            return Wanted(view.id)
        stream = runtime.fleet.dead_letters.stream
        await self._ask(stream)
        return Wanted(view.id, runtime.monitor.letters.all(), self._here.get(stream, ""))

    async def _identities(self) -> dict[str, str]:
        """The streams of this server that jobs are about, as far as they are known; asks for some of them anew."""
        entries = self._look.entries if self._look is not None else ()
        streams = {entry.view.record.stream for entry in entries}
        now = time.monotonic()
        due = sorted(stream for stream in streams if now - self._asked.get(stream, -STALE) >= STALE)
        for stream in due[:ASKED]:
            await self._ask(stream)
        return dict(self._here)

    async def _ask(self, stream: str) -> None:
        fleet = self.runtime.fleet
        self._asked[stream] = time.monotonic()
        if not fleet.nc.is_connected:
            return
        try:
            found = await Stream.of(fleet, stream)
        except (PatternError, nats.errors.Error, OSError):
            self._here.pop(stream, None)
        else:
            self._here[stream] = found.identity if found is not None else ""
            self.look_soon()

    # -- showing

    def _entries(self) -> list[Entry]:
        """Every job once: those under way on top, then those that can go on, the newest first."""
        look, today = self._look, datetime.now().astimezone().date()
        found = {entry.view.id: entry for entry in look.entries} if look is not None else {}
        for job in self.runtime.jobs:
            known = look is not None and job.id in found and look.at > job.ended + SETTLED
            if job.running or not known:
                found[job.id] = entry_of(JobView.of(job), today)
        return sorted(found.values(), key=_order)

    def repaint(self) -> None:
        """Show the jobs that match."""
        entries, table = self._entries(), self.table
        wanted = self.expression.lower().split()
        shown = [entry for entry in entries if all(word in entry.words for word in wanted)]
        self._shown = {entry.view.id: entry.view for entry in shown}
        table.empty = self._why_empty(any_jobs=bool(entries))
        table.set_rows(entry.row for entry in shown)
        self._follow_new()
        if self._wanted_job and table.move_cursor(self._wanted_job):
            self._wanted_job = None
        label(self.query_one("#jobs-card"), self._title(len(shown), len(entries)), self._trouble())
        self._paint_card()

    def _follow_new(self) -> None:
        """Go to what was begun since: keys that are pressed now are meant for it."""
        begun = frozenset(id(job) for job in self.runtime.jobs)
        new = [job.id for job in self.runtime.jobs if id(job) not in self._begun and job.running]
        self._begun = begun
        if new:
            self.table.move_cursor(new[-1])

    def _title(self, shown: int, total: int) -> str:
        count = f"{units.count(shown)} of {units.count(total)}" if shown != total else units.count(total)
        newest = "the newest " if total >= JOBS else ""
        running = sum(view.under_way for view in self._shown.values())
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        return f"jobs  {newest}{count}{suffix}{f'  {running} under way' if running else ''}"

    def _trouble(self) -> str:
        return clean(self._look.problem, limit=100) if self._look is not None else ""

    def _why_empty(self, *, any_jobs: bool) -> str:
        if any_jobs:
            return "no job matches the filter"
        if self._look is None:
            return "reading the jobs…"
        if self._look.problem:
            return self._look.problem
        guard = self.runtime.guard
        what = (
            "Mark dead letters on screen 3 and press R: what is begun is listed here,\n"
            "can be paused and cancelled, and resumed after a crash."
            if guard.allowed
            else guard.reason
        )
        return f"no job was begun from here yet\n\n{what}"

    @on(RowTable.Highlighted)
    def _cursor_moved(self, event: RowTable.Highlighted) -> None:
        event.stop()
        self.look_soon()
        self._paint_card()

    def _paint_card(self) -> None:
        view, card = self.current(), self.query_one("#job-card", VerticalScroll)
        if view is None:
            text = Text()
            label(card, "")
        else:
            text = card_text(view, self._facts, self.colours(), wide=not self.app.screen.has_class("-narrow"))
            state = f"{clean(view.record.action, limit=20)}   {clean(view.state)}"
            label(card, f"job {clean(view.id, limit=20)}", state)
        of = view.id if view is not None else None
        if of != self._card_of:
            self._card_of = of
            card.scroll_home(animate=False)
        if text != self._card:
            self._card = text
            self.query_one("#job-text", Static).update(text)

    # -- going elsewhere

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        view = self._shown.get(event.key)
        if view is not None:
            self.app.push_screen(ItemsScreen(self.runtime, view))

    def action_other_pane(self) -> None:
        """Between the list and the card."""
        card = self.query_one("#job-card")
        (self.table if card.has_focus else card).focus()


def _order(entry: Entry) -> tuple[int, float]:
    view = entry.view
    return (0 if view.under_way else 1 if view.resumable else 2), -view.record.created
