"""How flows look as rows of a table: pure, so that it can be tested without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from console.monitor.states import State
from console.monitor.view import Flow, Subscription
from console.settings import Thresholds
from console.text import units
from console.text.safe import clean
from console.widgets.row_model import Cell, Column, Row
from console.widgets.sparkline import spark

ZERO = Cell("·", "dim", 0)
"""A zero is a dim dot: what needs no attention takes none."""
_NO_AGE = Cell("·", "dim", -1.0)
SPARK_WIDTH = 20
QUEUE_SPARK_WIDTH = 14
"""The queues have one column more in the same 120 cells."""

FLEET_COLUMNS = (
    Column("agent", "AGENT", 14, min_width=12, priority=100),
    Column("state", "STATE", 9, priority=99),
    Column("inbox", "INBOX", 6, align="right", priority=98, reverse_first=True),
    Column("ack-pending", "ACK PEND", 8, align="right", priority=90, reverse_first=True),
    Column("oldest", "OLDEST", 6, align="right", priority=85, reverse_first=True),
    Column("in-rate", "IN/s", 5, align="right", priority=70, reverse_first=True),
    Column("ack-rate", "ACK/s", 5, align="right", priority=69, reverse_first=True),
    Column("redelivered", "REDEL", 5, align="right", priority=50, reverse_first=True),
    Column("stranded", "STRANDED", 8, align="right", priority=60, reverse_first=True),
    Column("dead", "DLQ", 4, align="right", priority=95, reverse_first=True),
    Column("history", "LAST 60 s", SPARK_WIDTH, priority=40, sortable=False),
)
QUEUE_COLUMNS = (
    Column("role", "ROLE", 12, min_width=10, priority=100),
    Column("state", "STATE", 9, priority=99),
    Column("backlog", "BACKLOG", 7, align="right", priority=98, reverse_first=True),
    Column("ack-pending", "ACK PEND", 8, align="right", priority=90, reverse_first=True),
    Column("workers", "WORKERS", 7, align="right", priority=88, reverse_first=True),
    Column("oldest", "OLDEST", 6, align="right", priority=85, reverse_first=True),
    Column("in-rate", "IN/s", 5, align="right", priority=70, reverse_first=True),
    Column("ack-rate", "ACK/s", 5, align="right", priority=69, reverse_first=True),
    Column("drain", "DRAIN IN", 8, align="right", priority=60, reverse_first=True),
    Column("redelivered", "REDEL", 5, align="right", priority=50, reverse_first=True),
    Column("dead", "DLQ", 4, align="right", priority=95, reverse_first=True),
    Column("history", "LAST 60 s", QUEUE_SPARK_WIDTH, priority=40, sortable=False),
)
SUBSCRIPTION_COLUMNS = (
    Column("agent", "AGENT", 14, min_width=10, priority=100),
    Column("name", "NAME", 10, min_width=6, priority=45),
    Column("topics", "TOPICS", 26, min_width=22, flexible=True, priority=90),
    Column("lag", "LAG", 6, align="right", priority=99, reverse_first=True),
    Column("ack-pending", "ACK PEND", 8, align="right", priority=95, reverse_first=True),
    Column("redelivered", "REDEL", 5, align="right", priority=70, reverse_first=True),
    Column("waiting", "PULLS", 5, align="right", priority=80, reverse_first=True),
)


class FlowRow:
    """A row whose cells are made when they are looked at: of 5,000 rows a screen shows thirty.

    Args:
        flow: What it shows.
        cells: Make a cell each, in the order of the columns.
        scale: What they are drawn by.
    """

    __slots__ = ("_cells", "_flow", "_made", "_scale", "key")

    indent = 0
    variant = ""
    markable = True

    def __init__(self, flow: Flow, cells: tuple[CellOf, ...], scale: Scale) -> None:
        self.key = flow.name
        self._flow = flow
        self._cells = cells
        self._scale = scale
        self._made: tuple[Cell, ...] | None = None

    @property
    def glyph(self) -> str:
        """Of its state."""
        return self._flow.state.glyph

    @property
    def glyph_style(self) -> str:
        """Of its state."""
        return self._flow.state.style

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them."""
        if self._made is None:
            self._made = tuple(cell(self._flow, self._scale) for cell in self._cells)
        return self._made

    def sort_value(self, index: int) -> Any:
        """What the row sorts by in a column, without making the other cells."""
        return self._cells[index](self._flow, self._scale).sort_value if index < len(self._cells) else None

    def __eq__(self, other: object) -> bool:
        """Whether both look the same."""
        if not isinstance(other, FlowRow):
            return NotImplemented
        same_state = self._flow.state is other._flow.state
        return self is other or (self.key == other.key and same_state and self.cells == other.cells)

    __hash__ = None  # type: ignore[assignment]


class Scale(NamedTuple):
    """What the rows of one table are drawn by."""

    thresholds: Thresholds
    top: float
    """A full block of their histories."""


CellOf = Callable[[Flow, Scale], Cell]


def fleet_rows(flows: Iterable[Flow], thresholds: Thresholds, peak: int | None = None) -> tuple[FlowRow, ...]:
    """Rows of the fleet table, the worst first.

    Args:
        flows: The inboxes.
        thresholds: From where on something is coloured.
        peak: The most messages in any history; found out if not given.
    """
    return _rows(flows, FLEET_CELLS, thresholds, thresholds.inbox_backlog, peak)


def queue_rows(flows: Iterable[Flow], thresholds: Thresholds, peak: int | None = None) -> tuple[FlowRow, ...]:
    """Rows of the queue table, the worst first; see `fleet_rows`."""
    return _rows(flows, QUEUE_CELLS, thresholds, thresholds.queue_backlog, peak)


def _rows(
    flows: Iterable[Flow], cells: tuple[CellOf, ...], thresholds: Thresholds, least: int, peak: int | None
) -> tuple[FlowRow, ...]:
    ordered = sorted(flows, key=_ORDER)
    if peak is None:
        peak = max((flow.track.peak for flow in ordered), default=0)
    scale = Scale(thresholds, max(peak, least))
    return tuple([FlowRow(flow, cells, scale) for flow in ordered])


_ORDER = attrgetter("order")


def subscription_key(subscription: Subscription) -> str:
    """What names the row of a subscription."""
    return subscription.depth.durable or f"{subscription.agent}-{subscription.name}"


def subscription_rows(subscriptions: Iterable[Subscription]) -> tuple[Row, ...]:
    """Rows of the subscriptions, the one furthest behind first."""
    ordered = sorted(subscriptions, key=lambda each: (-each.depth.pending, each.agent, each.name))
    return tuple(
        Row(
            key=subscription_key(each),
            cells=(
                Cell(each.agent),
                Cell(each.name, "dim"),
                Cell("  ".join(each.topics)),
                _number(each.depth.pending),
                _number(each.depth.ack_pending),
                _number(each.depth.redelivered),
                _number(each.depth.waiting),
            ),
        )
        for each in ordered
    )


def _state(state: State) -> Cell:
    style = {"bad": "bad", "warn": "warn", "accent": None, "good": "dim", "dim": "dim"}[state.style]
    return Cell(state.value, style, state.rank)


def _number(value: int | None, style: str | None = None) -> Cell:
    if value is None:
        return Cell("–", "dim")
    return ZERO if value == 0 else Cell(units.count(value, compact=True), style, value)


def _rate(value: float | None, *, bad: bool = False) -> Cell:
    if value is None:
        return Cell("–", "dim")
    style = "bad" if bad and value < 0.05 else ("dim" if value < 0.05 else None)
    return Cell(units.rate(value), style, value)


def _age(seconds: float | None, thresholds: Thresholds) -> Cell:
    if seconds is None:
        return _NO_AGE
    style = "bad" if seconds >= thresholds.oldest_crit else "warn" if seconds >= thresholds.oldest_warn / 2 else None
    return Cell(units.age(seconds), style, seconds)


def _history(flow: Flow, top: float, width: int = SPARK_WIDTH) -> Cell:
    history = flow.history
    style = {"bad": "bad", "warn": "warn"}.get(flow.state.style, "accent" if any(history) else "dim")
    return Cell(spark(history, width, top), style)


def _waiting(flow: Flow, threshold: int) -> Cell:
    return _number(flow.depth.messages, "warn" if flow.depth.messages > threshold else None)


def _acks(flow: Flow) -> Cell:
    return _rate(flow.ack_rate, bad=flow.state in (State.NO_WORKER, State.STALLED))


def _name_cell(flow: Flow, _: Scale) -> Cell:
    return Cell(clean(flow.name))


def _state_cell(flow: Flow, _: Scale) -> Cell:
    return _state(flow.state)


def _ack_pending_cell(flow: Flow, _: Scale) -> Cell:
    return _number(flow.depth.ack_pending)


def _oldest_cell(flow: Flow, scale: Scale) -> Cell:
    return _age(flow.oldest_age, scale.thresholds)


_RATES: tuple[CellOf, ...] = (lambda flow, _: _rate(flow.in_rate), lambda flow, _: _acks(flow))


def _redelivered_cell(flow: Flow, scale: Scale) -> Cell:
    return _number(flow.depth.redelivered, "warn" if flow.depth.redelivered >= scale.thresholds.redelivered else None)


def _dead_cell(flow: Flow, _: Scale) -> Cell:
    return _number(flow.dead_letters, "warn")


FLEET_CELLS: tuple[CellOf, ...] = (
    _name_cell,
    _state_cell,
    lambda flow, scale: _waiting(flow, scale.thresholds.inbox_backlog),
    _ack_pending_cell,
    _oldest_cell,
    *_RATES,
    _redelivered_cell,
    lambda flow, _: _number(flow.stranded, "bad"),
    _dead_cell,
    lambda flow, scale: _history(flow, scale.top),
)
"""In the order of `FLEET_COLUMNS`."""
QUEUE_CELLS: tuple[CellOf, ...] = (
    _name_cell,
    _state_cell,
    lambda flow, scale: _waiting(flow, scale.thresholds.queue_backlog),
    _ack_pending_cell,
    lambda flow, _: _number(flow.workers),
    _oldest_cell,
    *_RATES,
    lambda flow, _: Cell(units.age(flow.drain_eta), None if flow.drain_eta is not None else "dim", flow.drain_eta),
    _redelivered_cell,
    _dead_cell,
    lambda flow, scale: _history(flow, scale.top, QUEUE_SPARK_WIDTH),
)
"""In the order of `QUEUE_COLUMNS`."""


def sources_text(sources: Mapping[str, int], limit: int = 4) -> str:
    """`tasks.backend 12, inbox.ceo 3, …`, the largest first."""
    ordered = sorted(sources.items(), key=lambda pair: -pair[1])
    shown = [f"{clean(name)} {units.count(count)}" for name, count in ordered[:limit]]
    more = len(ordered) - limit
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")
