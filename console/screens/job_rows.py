"""Jobs as the screen shows them: what this session and the ledger know of each, as rows and as one card; no widgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple

from console.operations.items import ItemResult
from console.operations.job import Job
from console.operations.ledger import TO_BE_MADE, JobRecord, identity_of
from console.text import units
from console.text.safe import clean
from console.widgets.row_model import Cell, Column, Row

BAR: Final = 6
"""Cells of a progress bar in the table."""
CELL: Final = 120
"""Characters of one value in the table."""
SEARCHED: Final = 400
"""Characters of one value that the filter looks at."""

COLUMNS: Final = (
    Column("state", "STATE", 11, priority=100),
    Column("action", "ACTION", 7, priority=99),
    Column("progress", "PROGRESS", BAR + 5, priority=98, reverse_first=True),
    Column("done", "DONE", 11, align="right", priority=97, reverse_first=True),
    Column("failed", "FAILED", 6, align="right", priority=96, reverse_first=True),
    Column("doubt", "DOUBT", 5, align="right", priority=95, reverse_first=True),
    Column("rate", "RATE/s", 8, align="right", priority=90, reverse_first=True),
    Column("eta", "ETA", 6, align="right", priority=85, reverse_first=True),
    Column("started", "STARTED", 8, align="right", priority=80, reverse_first=True),
    Column("actor", "WHO", 16, min_width=8, priority=60),
    Column("selection", "SELECTED", 14, min_width=11, flexible=True, priority=70),
    Column("job", "JOB", 8, priority=40),
)
STATES: Final[Mapping[str, tuple[str, str]]] = {
    "running": ("▸", "accent"),
    "paused": ("○", "warn"),
    "canary?": ("▲", "warn"),
    "stopping": ("▸", "warn"),
    "planned": ("○", "dim"),
    "completed": ("●", "good"),
    "cancelled": ("▲", "warn"),
    "interrupted": ("▲", "warn"),
    "failed": ("✖", "bad"),
}
"""Glyph and style; `stopping` is a job that was cancelled and has an item in work."""
UNDER_WAY: Final = frozenset({"running", "paused", "stopping", "canary?"})
_PARTS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class JobView:
    """One job at one moment.

    Args:
        record: What it is to do.
        counts: Items by outcome, and where the ledger told them by state.
        job: The job itself, if this session runs it.
        away: Where it belongs, if that is not here: another server, or a stream that is no more.
    """

    record: JobRecord
    counts: Mapping[str, int]
    job: Job | None = None
    away: str = ""

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def state(self) -> str:
        """Its state; `canary?` while it waits for an answer, `stopping` between a cancellation and the last item."""
        if self.job is None:
            return self.record.state
        if self.job.asks:
            return "canary?"
        return "stopping" if self.job.running and self.job.cancelled.is_set() else self.job.state

    @property
    def under_way(self) -> bool:
        """Whether somebody works on it, paused or not."""
        return self.state in UNDER_WAY

    @property
    def resumable(self) -> bool:
        """Whether it broke off here, with items left."""
        left = self.count("waiting", "sending") if self.job is None else self.left if self.job.recorded else 0
        return self.state in ("interrupted", "failed") and bool(left) and not self.away

    @property
    def done(self) -> int:
        """Items that are done, those that turned out to have been done before among them."""
        return self.count("done", "duplicate")

    @property
    def processed(self) -> int:
        """Items that have come to an end."""
        return self.count("done", "duplicate", "skipped", "failed", "in doubt")

    @property
    def left(self) -> int:
        """Items that have not."""
        return max(0, self.record.planned - self.processed)

    @property
    def rate(self) -> float | None:
        """The rate that is asked for; None for as fast as it goes."""
        return self.record.rate if self.job is None else self.job.rate

    @property
    def started(self) -> float | None:
        """When it began, in seconds since the epoch."""
        return (self.record.started if self.job is None else self.job.started) or None

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since the epoch."""
        if self.under_way:
            return None
        return (self.record.ended if self.job is None else self.job.ended) or None

    @property
    def spill(self) -> str | None:
        """The file of what it removed."""
        return self.record.spill if self.job is None else self.job.spill

    @property
    def error(self) -> str:
        """Why it did not go on."""
        return self.record.error if self.job is None else self.job.error

    def count(self, *outcomes: str) -> int:
        """Items with one of these outcomes."""
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)

    @classmethod
    def of(cls, job: Job) -> JobView:
        """A job of this session."""
        return cls(job.record, dict(job.outcomes.items()), job)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card tells besides, which takes a while to find out."""

    job: str
    """The job it is about."""
    trouble: ItemResult | None = None
    """The last item that failed or is in doubt."""
    again: int | None = None
    """Messages of it that are dead letters once more; None where that is not to be known."""


class Entry(NamedTuple):
    """A job, ready to be shown and searched."""

    view: JobView
    row: Row
    words: str
    """Everything its row and card say of what it is, in lower case."""


def entry_of(view: JobView, today: date) -> Entry:
    """A job as a row, with what a filter searches.

    Args:
        view: The job.
        today: Jobs of this day show their time only.
    """
    record, state = view.record, view.state
    row = _row(view, today)
    more = (view.away, record.stream, record.context, record.reason, record.id, view.spill or "", view.error, state)
    words = " ".join((*(cell.text for cell in row.cells), *(clean(part, limit=SEARCHED) for part in more)))
    return Entry(view, row, words.lower())


def _row(view: JobView, today: date) -> Row:
    record, over = view.record, not view.under_way
    glyph, style = STATES.get(view.state, ("?", "warn"))
    share = share_of(view)
    eta = view.job.eta if view.job is not None else None
    actual = view.job.actual_rate if view.job is not None and not over else None
    rate = pace(view.rate) if actual is None else f"{pace(view.rate)}/{units.rate(actual)}"
    started = moment_of(view.started or record.created)
    cells: tuple[Cell, ...] = (
        Cell(clean(view.state), None if view.state == "completed" else style),
        Cell(clean(record.action, limit=CELL)),
        Cell(f"{bar(share, BAR)} {percent(share):>4}", "dim" if over else style, share),
        Cell(f"{_compact(view.done)}/{_compact(record.planned)}", None, view.done),
        _number(view.count("failed"), "bad"),
        _number(view.count("in doubt"), "warn"),
        Cell(rate, "dim" if over else None, view.rate or 0.0),
        Cell(units.age(eta) if eta is not None else "", None, eta if eta is not None else -1.0),
        Cell(_short(started, today), "dim", view.started or record.created),
        Cell(clean(record.actor, limit=CELL), "dim"),
        Cell(clean(record.selection, limit=CELL)),
        Cell(clean(record.id, limit=CELL), "dim"),
    )
    if view.away:
        cells, style = tuple(cell._replace(style="dim") for cell in cells), "dim"
    return Row(key=view.id, cells=cells, glyph=glyph, glyph_style=style)


def away_of(record: JobRecord, identities: Mapping[str, str], context: str) -> str:
    """Where a job belongs, if not here; empty as well while that is not known.

    Args:
        record: The job.
        identities: The streams of this server, those that were asked for; an empty text for one that there is not.
        context: The name of this session's own.
    """
    identity = identities.get(record.stream)
    if identity is None or record.identity.endswith(TO_BE_MADE):
        return ""
    if record.action in ("pause", "resume"):
        identity = identity_of(f"{record.stream} {record.spec.get('durable', '')}", identity)
    if identity == record.identity:
        return ""
    if record.context and record.context != context:
        return f"another server: context {record.context}"
    return f"another server, or an earlier stream {record.stream}"


def bar(share: float, width: int) -> str:
    """A bar of block characters, as many as `width`.

    Args:
        share: 0 to 1; only 1 fills it.
        width: Cells.
    """
    eighths = min(int(max(share, 0.0) * width * 8), width * 8)
    full, part = divmod(eighths, 8)
    blocks = "█" * full + (_PARTS[part] if part else "")
    return blocks.ljust(width, "░")


def percent(share: float) -> str:
    """A share as a whole percentage, rounded down: `100%` is all of it."""
    return f"{int(min(max(share, 0.0), 1.0) * 100)}%"


def pace(rate: float | None) -> str:
    """A rate that is asked for."""
    return "max" if rate is None else f"{rate:g}"


def share_of(view: JobView) -> float:
    """How much of a job has come to an end, 0 to 1."""
    return view.processed / view.record.planned if view.record.planned else 1.0


def _compact(number: int) -> str:
    return units.count(number, compact=True)


def _number(value: int, style: str) -> Cell:
    return Cell(_compact(value), style, value) if value else Cell("·", "dim", 0)


def moment_of(seconds: float | None) -> datetime | None:
    """A moment in seconds since the epoch, on this machine's clock; None for none."""
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds).astimezone()
    except (OverflowError, OSError, ValueError):
        return None


def _short(moment: datetime | None, today: date) -> str:
    if moment is None:
        return units.NOTHING
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%y-%m-%d}"


def long_time(moment: datetime) -> str:
    """Day and time."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def clock(seconds: float | None) -> str:
    """Day and time of a moment, in seconds since the epoch, on this machine's clock."""
    moment = moment_of(seconds)
    return long_time(moment) if moment is not None else units.NOTHING
