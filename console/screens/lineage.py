"""The deaths of one letter, walked one by one: what killed it each time, who brought it back, and by which job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from console.letters import Gap, chain
from console.operations.ledger import JobLedger, JobRecord
from console.screens.base import ConsoleScreen, label
from console.screens.job_book import UNREADABLE
from console.screens.job_rows import clock
from console.screens.jobs import JobsScreen
from console.text import units
from console.text.safe import clean
from console.widgets.row_table import Cell, Column, Row, RowTable
from patterns import DeadLetter, Death

LABEL: Final = 12
CELL: Final = 120
"""Characters of one value in the table."""
LINE: Final = 400
"""Characters of one value in the story."""
STORY: Final = 16
"""Rows of a story, where there is room for so many."""
SHORT: Final = 30
"""Below this height the pane does without its blank lines."""

_NUMBER: Final = Column("n", "#", 4, align="right", priority=100, sortable=False)
_BACK: Final = (
    Column("by", "CAME BACK BY", 12, priority=95, sortable=False),
    Column("back", "WHEN", 7, align="right", priority=70, sortable=False),
    Column("job", "JOB", 8, priority=80, sortable=False),
    Column("edited", "", 1, priority=92, sortable=False),
)
COLUMNS: Final = (
    _NUMBER,
    Column("died", "DIED", 7, align="right", priority=90, sortable=False),
    Column("source", "WHERE", 14, min_width=9, priority=60, sortable=False),
    Column("cause", "WHY", 18, flexible=True, priority=99, sortable=False),
    Column("tries", "TRIES", 5, align="right", priority=65, sortable=False),
    *_BACK,
)
GAP_COLUMNS: Final = (_NUMBER, Column("cause", "", 18, flexible=True, priority=99, sortable=False), *_BACK)


@dataclass(frozen=True, slots=True)
class Jobs:
    """What the ledger of this machine knows of the jobs of a chain."""

    known: Mapping[str, tuple[JobRecord, Mapping[str, int]]]
    """The job and its items for each state, by its id."""
    problem: str = ""
    """Why it could not be read."""


class LineagePane(ModalScreen[str | None]):
    """All deaths of a letter; returns the job to go to, None if it was just closed.

    Args:
        letter: The letter, the last of its deaths.
        ledger: Where the jobs of this machine are kept.
        now: What ages are told against.
        colours: Styles by the names `bright dim bad accent`.
    """

    CSS_PATH = "../styles/lineage.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,a", "close", "close", key_display="esc", id="lineage.close"),
        Binding("tab", "other_pane", "read", show=False, id="lineage.pane"),
    ]

    def __init__(self, letter: DeadLetter, ledger: JobLedger, *, now: datetime, colours: Mapping[str, str]) -> None:
        super().__init__()
        self.letter = letter
        self._ledger = ledger
        self._now = now
        self._colours = colours
        self._links = {_key(link): link for link in chain(letter)}
        self._jobs: Jobs | None = None

    def compose(self) -> ComposeResult:
        """The deaths, and the story of the one under the cursor."""
        with Vertical(id="lineage") as box:
            many = self.letter.replays + 1
            label(
                box,
                f"dead letter {self.letter.seq}  {units.count(many)} {'death' if many == 1 else 'deaths'}",
                "esc closes",
            )
            yield RowTable(*COLUMNS, variants={"gap": GAP_COLUMNS}, markable=False, id="lineage-table")
            with VerticalScroll(id="lineage-story"):
                yield Static("", id="lineage-text", markup=False)

    def on_mount(self) -> None:
        """Begin with the present death, and read what the ledger knows."""
        table = self.table
        table.set_rows(link_row(link, self._now, present=link == self.letter.death) for link in self._links.values())
        table.move_cursor(_key(self.letter.death))
        table.focus()
        self._paint()
        self.run_worker(self._read(), group="lineage", exit_on_error=False, description="read the jobs of a letter")

    def on_resize(self, event: events.Resize) -> None:
        """The box keeps its height while the cursor walks, and most of it is for the story where there is not much."""
        short = event.size.height < SHORT
        self.set_class(short, "-short")
        frame = 3 if short else 5
        room = event.size.height * (100 if short else 92) // 100 - frame
        rows = min(len(self._links) + 1, max(4, room * 2 // 5, room - STORY))
        self.table.styles.height = rows
        self.query_one("#lineage-story").styles.height = max(3, min(STORY, room - rows))

    @property
    def table(self) -> RowTable:
        """The table of deaths."""
        return self.query_one("#lineage-table", RowTable)

    def current(self) -> Death | Gap | None:
        """The death under the cursor."""
        return self._links.get(self.table.cursor_key or "")

    async def _read(self) -> None:
        ids = sorted({link.job for link in self._links.values() if link.job})
        self._jobs = await asyncio.to_thread(read_jobs, self._ledger, ids)
        self._paint()

    def _paint(self) -> None:
        link = self.current()
        if link is not None:
            text = story(link, self.letter, self._jobs, self._now, self._colours)
            self.query_one("#lineage-text", Static).update(text)
        known = self._jobs is not None and link is not None and link.job in self._jobs.known
        box = self.query_one("#lineage")
        box.border_subtitle = Text("enter goes to its job, esc closes" if known else "esc closes")

    @on(RowTable.Highlighted)
    def _walked(self, event: RowTable.Highlighted) -> None:
        event.stop()
        self._paint()
        self.query_one("#lineage-story", VerticalScroll).scroll_home(animate=False)

    @on(RowTable.Selected)
    def _chosen(self, event: RowTable.Selected) -> None:
        event.stop()
        link = self._links.get(event.key)
        if link is not None and self._jobs is not None and link.job in self._jobs.known:
            self.dismiss(link.job)

    def action_other_pane(self) -> None:
        """Between the deaths and the story."""
        below = self.query_one("#lineage-story")
        (self.table if below.has_focus else below).focus()

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss(None)


def open_lineage(screen: ConsoleScreen, letter: DeadLetter) -> None:
    """Show the deaths of a letter over a screen, and then the job that was chosen there.

    Args:
        screen: Where it was asked for.
        letter: The letter.
    """
    app, ledger = screen.app, screen.runtime.session.ledger

    async def go(job: str) -> None:
        # The first brings the screen of jobs, the second whatever is above it out of the way.
        await app.run_action("app.screen('jobs')")
        await app.run_action("app.screen('jobs')")
        if isinstance(app.screen, JobsScreen):
            app.screen.call_after_refresh(app.screen.show_job, job)

    def closed(job: str | None) -> None:
        if job:
            app.run_worker(go(job), group="screen", exit_on_error=False, description="go to a job")

    app.push_screen(LineagePane(letter, ledger, now=screen.now(), colours=screen.colours()), closed)


def read_jobs(ledger: JobLedger, ids: Sequence[str]) -> Jobs:
    """What the ledger knows of these jobs; waits for the disk, so not on an event loop."""
    try:
        found = ((record, ledger.counts(record.id)) for job in ids if (record := ledger.job(job)) is not None)
        return Jobs({record.id: (record, {str(state): n for state, n in counts.items()}) for record, counts in found})
    except UNREADABLE as error:
        return Jobs({}, f"the job ledger cannot be read: {error}")


def link_row(link: Death | Gap, now: datetime, *, present: bool = False) -> Row:
    """One death as a line of the table.

    Args:
        link: The death, or those that are not on record.
        now: What ages are told against.
        present: Whether it is the one that the letter tells of itself.
    """
    if isinstance(link, Gap):
        numbers = f"{link.first}" if link.first == link.last else f"{link.first}–{link.last}"
        cells = (numbers, link.text, clean(link.replayed_by, limit=CELL), "", clean(link.job, limit=CELL))
        return Row(
            key=_key(link),
            cells=tuple(Cell(text, "dim") for text in cells),
            glyph="⋯",
            glyph_style="dim",
            variant="gap",
        )
    back = "still dead" if present else clean(link.replayed_by, limit=CELL) or units.NOTHING
    return Row(
        key=_key(link),
        cells=(
            Cell(str(link.n), "dim"),
            Cell(units.ago(link.at, now)),
            Cell(clean(link.source, limit=CELL), "dim"),
            Cell(clean(_cause(link), limit=CELL)),
            Cell(units.count(link.deliveries), "dim"),
            Cell(back, "bad" if present else None),
            Cell("" if present else units.ago(link.replayed_at, now), "dim"),
            Cell(clean(link.job, limit=CELL), "dim"),
            Cell("✎" if link.edited else "", "accent"),
        ),
        glyph="✖" if present else "↻",
        glyph_style="bad" if present else "dim",
    )


def story(link: Death | Gap, letter: DeadLetter, jobs: Jobs | None, now: datetime, colours: Mapping[str, str]) -> Text:
    """Everything that is known of one death, and of the job that brought the message back.

    Args:
        link: The death, or those that are not on record.
        letter: The letter it belongs to.
        jobs: What the ledger knows; None while it is being read.
        now: What ages are told against.
        colours: Styles by the names `bright dim bad accent`.
    """
    text = Text()

    def line(name: str, value: str, style: str = "") -> None:
        text.append(f"{name:<{LABEL}}", colours["dim"])
        text.append(clean(value, limit=LINE) + "\n", style)

    if isinstance(link, Gap):
        text.append(f"{link.text}\n", colours["bright"])
        text.append(
            "an older version or other code replayed it, or its headers had no room for them\n\n", colours["dim"]
        )
        if link.first == 1 and letter.first_at is not None:
            line("first died", _moment(letter.first_at, now))
        if link.replayed_by:
            line("came back", f"by {link.replayed_by}")
    else:
        present = link == letter.death
        text.append(f"death {units.count(link.n)} of {units.count(letter.replays + 1)}", colours["bright"])
        text.append(f"   in {clean(link.source, limit=CELL)}\n", colours["dim"])
        if link.error_text:
            text.append(f"{clean(link.error_text, limit=LINE)}\n", colours["bad"])
        text.append("\n")
        tries = f"{units.count(link.deliveries)} {'try' if link.deliveries == 1 else 'tries'}"
        line("died", _moment(link.at, now))
        line("after", f"{tries}{f' by {link.agent}' if link.agent else ''}")
        line("reason", link.reason or "none given")
        line("letter", f"{link.seq or units.NOTHING}   {link.entry}")
        if present:
            line("came back", "not yet")
        else:
            edited = ", edited ✎" if link.edited else ""
            when = _moment(link.replayed_at, now) if link.replayed_at else "nobody knows when"
            line("came back", f"{when}, by {link.replayed_by or 'nobody knows whom'}{edited}")
    if link.job:
        _append_job(text, link.job, jobs, colours)
    return text


def _append_job(text: Text, job: str, jobs: Jobs | None, colours: Mapping[str, str]) -> None:
    def line(name: str, value: str, style: str = "") -> None:
        text.append(f"{name:<{LABEL}}", colours["dim"])
        text.append(clean(value, limit=LINE) + "\n", style)

    if jobs is None or job not in jobs.known:
        where = "reading the ledger…" if jobs is None else jobs.problem or "not in this machine's ledger"
        line("job", f"{job}   {where}")
        return
    record, counts = jobs.known[job]
    line("job", f"{job}   {record.action}   begun {clock(record.started or record.created)}")
    line("  operator", f"{record.actor or units.NOTHING}   {record.mode}")
    line("  chosen", record.selection or units.NOTHING)
    line("  because", record.reason or "no reason given")
    told = ", ".join(f"{units.count(many)} {state}" for state, many in sorted(counts.items()) if many)
    line("  result", f"{record.state}{f': {told}' if told else ''}")
    if record.error:
        line("  error", record.error, colours["bad"])


def _key(link: Death | Gap) -> str:
    return str(link.first if isinstance(link, Gap) else link.n)


def _cause(death: Death) -> str:
    if death.reason and death.error_text:
        # The error first: it is what differs between deaths, and the end may be cut.
        return f"{death.error_text} ({death.reason})"
    return death.reason or death.error_text or "no reason given"


def _moment(at: datetime, now: datetime) -> str:
    return f"{clock(at.timestamp())}  ({units.ago(at, now)})"
