"""How flows look as rows of a table: pure, so that it can be tested without a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from console.monitor.states import State
from console.monitor.view import Flow, Subscription
from console.settings import Thresholds
from console.text import units
from console.text.safe import clean
from console.widgets.row_model import Cell, Column, Row
from console.widgets.sparkline import spark

ZERO = Cell("·", "dim", 0)
"""A zero is a dim dot: what needs no attention takes none."""
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


def fleet_rows(flows: Iterable[Flow], thresholds: Thresholds) -> tuple[Row, ...]:
    """Rows of the fleet table, the worst first."""
    ordered = sorted(
        flows, key=lambda flow: (flow.state.rank, -flow.depth.messages if flow.state.rank < 5 else 0, flow.name)
    )
    top = max((max(flow.history, default=0) for flow in ordered), default=0)
    return tuple(_fleet_row(flow, thresholds, max(top, thresholds.inbox_backlog)) for flow in ordered)


def queue_rows(flows: Iterable[Flow], thresholds: Thresholds) -> tuple[Row, ...]:
    """Rows of the queue table, the worst first."""
    ordered = sorted(flows, key=lambda flow: (flow.state.rank, flow.name))
    top = max((max(flow.history, default=0) for flow in ordered), default=0)
    return tuple(_queue_row(flow, thresholds, max(top, thresholds.queue_backlog)) for flow in ordered)


def subscription_rows(subscriptions: Iterable[Subscription]) -> tuple[Row, ...]:
    """Rows of the subscriptions, the one furthest behind first."""
    ordered = sorted(subscriptions, key=lambda each: (-each.depth.pending, each.agent, each.name))
    return tuple(
        Row(
            key=each.depth.durable or f"{each.agent}-{each.name}",
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


def _fleet_row(flow: Flow, thresholds: Thresholds, top: float) -> Row:
    depth = flow.depth
    return Row(
        key=flow.name,
        cells=(
            Cell(clean(flow.name)),
            _state(flow.state),
            _number(depth.messages, "warn" if depth.messages > thresholds.inbox_backlog else None),
            _number(depth.ack_pending),
            _age(flow.oldest_age, thresholds),
            _rate(flow.in_rate),
            _rate(flow.ack_rate, bad=flow.state in (State.NO_WORKER, State.STALLED)),
            _number(depth.redelivered, "warn" if depth.redelivered >= thresholds.redelivered else None),
            _number(flow.stranded, "bad"),
            _number(flow.dead_letters, "warn"),
            _history(flow, top),
        ),
        glyph=flow.state.glyph,
        glyph_style=flow.state.style,
    )


def _queue_row(flow: Flow, thresholds: Thresholds, top: float) -> Row:
    depth = flow.depth
    return Row(
        key=flow.name,
        cells=(
            Cell(clean(flow.name)),
            _state(flow.state),
            _number(depth.messages, "warn" if depth.messages > thresholds.queue_backlog else None),
            _number(depth.ack_pending),
            _number(flow.workers),
            _age(flow.oldest_age, thresholds),
            _rate(flow.in_rate),
            _rate(flow.ack_rate, bad=flow.state in (State.NO_WORKER, State.STALLED)),
            Cell(units.age(flow.drain_eta), None if flow.drain_eta is not None else "dim", flow.drain_eta),
            _number(depth.redelivered, "warn" if depth.redelivered >= thresholds.redelivered else None),
            _number(flow.dead_letters, "warn"),
            _history(flow, top, QUEUE_SPARK_WIDTH),
        ),
        glyph=flow.state.glyph,
        glyph_style=flow.state.style,
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
        return ZERO._replace(sort=-1.0)
    style = "bad" if seconds >= thresholds.oldest_crit else "warn" if seconds >= thresholds.oldest_warn / 2 else None
    return Cell(units.age(seconds), style, seconds)


def _history(flow: Flow, top: float, width: int = SPARK_WIDTH) -> Cell:
    style = {"bad": "bad", "warn": "warn"}.get(flow.state.style, "accent" if any(flow.history) else "dim")
    return Cell(spark(flow.history, width, top), style)


def sources_text(sources: Mapping[str, int], limit: int = 4) -> str:
    """`tasks.backend 12, inbox.ceo 3, …`, the largest first."""
    ordered = sorted(sources.items(), key=lambda pair: -pair[1])
    shown = [f"{clean(name)} {units.count(count)}" for name, count in ordered[:limit]]
    more = len(ordered) - limit
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")
