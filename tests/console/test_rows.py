"""How flows become rows: order, styles and sanitised texts. Pure: no terminal, no server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from console.monitor.states import State
from console.monitor.view import Flow, Subscription, order_of
from console.screens import rows
from console.screens.rows import (
    FLEET_COLUMNS,
    QUEUE_COLUMNS,
    SUBSCRIPTION_COLUMNS,
    fleet_rows,
    queue_rows,
    sources_text,
    subscription_rows,
)
from console.settings import Thresholds
from console.text.safe import is_clean
from console.widgets.row_model import Cell, Column, Row, sort_rows
from patterns import QueueDepth
from tests.support.flows import past

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\r\n"
LIMITS = Thresholds()


def flow(name: str = "ceo", state: State = State.IDLE, **fields: Any) -> Flow:
    """A row's worth of facts; counters by their own names."""
    counters = {key: fields.pop(key) for key in ("messages", "ack_pending", "redelivered", "waiting") if key in fields}
    filled = {
        "stranded": 0,
        "in_rate": 0.0,
        "ack_rate": 0.0,
        "oldest_age": None,
        "dead_letters": 0,
        "findings": (),
        "track": past(*fields.pop("history", ())),
        **fields,
    }
    depth = QueueDepth(**counters)
    return Flow(name=name, state=state, depth=depth, order=order_of(state, depth.messages, name), **filled)


def cell(row: Row, columns: tuple[Column, ...], id: str) -> Cell:
    """The cell of one column."""
    return row.cells[[column.id for column in columns].index(id)]


def fleet_cell(given: Flow, id: str, thresholds: Thresholds = LIMITS) -> Cell:
    (row,) = fleet_rows([given], thresholds)
    return cell(row, FLEET_COLUMNS, id)


def names(found: tuple[Row, ...]) -> list[str]:
    return [row.key for row in found]


class TestOrder:
    def test_the_worst_first(self):
        flows = [flow(state.name, state) for state in sorted(State, key=lambda each: each.value)]
        wanted = ["NO_WORKER", "STALLED", "BACKLOG", "PAUSED", "UNKNOWN", "BUSY", "IDLE", "OFFLINE"]
        assert names(fleet_rows(flows, LIMITS)) == wanted
        assert names(queue_rows(flows, LIMITS)) == wanted

    def test_the_fullest_of_the_troubled_first_and_the_healthy_by_name_so_that_nothing_jumps(self):
        flows = [
            flow("b", State.BACKLOG, messages=20),
            flow("a", State.BACKLOG, messages=30),
            flow("d", State.BACKLOG, messages=20),
            flow("z", State.BUSY, messages=9),
            flow("y", State.BUSY, messages=1),
        ]
        assert names(fleet_rows(flows, LIMITS)) == ["a", "b", "d", "y", "z"]

    def test_sorting_by_a_column_puts_numbers_by_size_and_states_by_their_rank(self):
        flows = [
            flow("a", State.BUSY, messages=9, in_rate=None, oldest_age=3.0),
            flow("b", State.IDLE, messages=12_345, in_rate=0.01, oldest_age=None),
            flow("c", State.STALLED, messages=100, in_rate=20.0, oldest_age=4000.0),
        ]
        found = fleet_rows(flows, LIMITS)
        ids = [column.id for column in FLEET_COLUMNS]

        def order(id: str) -> str:
            return "".join(names(sort_rows(found, ids.index(id), reverse=False)))

        assert order("inbox") == "acb"
        assert order("state") == "cab"
        assert order("oldest") == "bac", "nothing is younger than anything"
        assert order("in-rate") == "bca", "what is not known yet is last"

    def test_who_is_furthest_behind_is_the_first_subscription(self):
        given = [
            Subscription("dev", "events", ("x",), QueueDepth(pending=1)),
            Subscription("ceo", "events", ("security.>", "deployment.>"), QueueDepth(pending=500, ack_pending=2)),
            Subscription("ceo", "alerts", ("x",), QueueDepth(pending=1)),
        ]
        found = subscription_rows(given)
        assert names(found) == ["ceo-events", "ceo-alerts", "dev-events"]
        assert cell(found[0], SUBSCRIPTION_COLUMNS, "lag") == Cell("500", None, 500)
        assert cell(found[0], SUBSCRIPTION_COLUMNS, "topics").text == "security.>  deployment.>"
        assert cell(found[0], SUBSCRIPTION_COLUMNS, "redelivered") == rows.ZERO


class TestCells:
    def test_every_row_has_a_cell_for_each_column(self):
        assert len(fleet_rows([flow()], LIMITS)[0].cells) == len(FLEET_COLUMNS)
        assert len(queue_rows([flow()], LIMITS)[0].cells) == len(QUEUE_COLUMNS)
        given = Subscription("dev", "events", (), QueueDepth())
        assert len(subscription_rows([given])[0].cells) == len(SUBSCRIPTION_COLUMNS)

    @pytest.mark.parametrize("id", ["inbox", "ack-pending", "redelivered", "stranded", "dead"])
    def test_a_zero_is_a_dim_dot(self, id):
        assert fleet_cell(flow(), id) == Cell("·", "dim", 0)

    def test_what_is_not_known_is_a_dash_and_not_a_zero(self):
        unknown = flow(stranded=None, in_rate=None, ack_rate=None)
        for column in ("stranded", "in-rate", "ack-rate"):
            assert fleet_cell(unknown, column).text == "–"
        assert fleet_cell(flow(), "in-rate").text == "0.0"

    @pytest.mark.parametrize("state", State)
    def test_a_state_is_a_glyph_and_a_word(self, state):
        (row,) = fleet_rows([flow(state=state)], LIMITS)
        assert (row.glyph, row.glyph_style) == (state.glyph, state.style)
        shown = cell(row, FLEET_COLUMNS, "state")
        assert (shown.text, shown.sort) == (state.value, state.rank)
        assert (shown.style == "bad") is (state in (State.NO_WORKER, State.STALLED))

    def test_colour_only_where_something_needs_attention(self):
        calm = flow(messages=10, ack_pending=1, redelivered=9, in_rate=2.0, ack_rate=2.0, oldest_age=3.0)
        (row,) = fleet_rows([calm], LIMITS)
        assert {each.style for each in row.cells} <= {None, "dim"}
        assert fleet_cell(flow(messages=11), "inbox").style == "warn"
        assert fleet_cell(flow(redelivered=10), "redelivered").style == "warn"
        assert fleet_cell(flow(stranded=1), "stranded") == Cell("1", "bad", 1)
        assert fleet_cell(flow(dead_letters=1), "dead").style == "warn"
        assert fleet_cell(flow(oldest_age=45.0), "oldest") == Cell("45s", "warn", 45.0)
        assert fleet_cell(flow(oldest_age=600.0), "oldest").style == "bad"
        assert fleet_cell(flow(messages=11), "inbox", Thresholds(inbox_backlog=11)).style is None

    def test_nothing_goes_where_somebody_should_work_is_bad_and_elsewhere_is_not(self):
        assert fleet_cell(flow(state=State.NO_WORKER), "ack-rate").style == "bad"
        assert fleet_cell(flow(state=State.IDLE), "ack-rate").style == "dim"
        assert fleet_cell(flow(state=State.STALLED, ack_rate=3.0), "ack-rate").style is None

    def test_a_queue_tells_its_workers_and_when_it_is_empty(self):
        given = flow("backend", messages=60, workers=3, in_rate=1.0, ack_rate=2.0)
        (row,) = queue_rows([given], LIMITS)
        assert cell(row, QUEUE_COLUMNS, "workers").text == "3"
        assert cell(row, QUEUE_COLUMNS, "drain") == Cell("1m", None, 60.0)
        assert cell(row, QUEUE_COLUMNS, "backlog").style == "warn"
        (row,) = queue_rows([flow("backend", messages=50, in_rate=2.0, ack_rate=2.0)], LIMITS)
        assert cell(row, QUEUE_COLUMNS, "drain") == Cell("–", "dim", None)
        assert cell(row, QUEUE_COLUMNS, "backlog").style is None

    def test_large_numbers_stay_narrow(self):
        given = flow(messages=1_234_567)
        assert len(fleet_cell(given, "inbox").text) <= 6

    def test_sparklines_are_on_one_scale_so_that_idle_rows_stay_flat(self):
        quiet, loud = flow("quiet", history=(0, 1, 0)), flow("loud", history=(0, 500, 1000))
        found = {row.key: cell(row, FLEET_COLUMNS, "history") for row in fleet_rows([quiet, loud], LIMITS)}
        assert found["loud"].text[-1] == "█"
        assert set(found["quiet"].text) == {"▁", "▂"}
        assert {len(each.text) for each in found.values()} == {rows.SPARK_WIDTH}
        alone = fleet_cell(quiet, "history")
        assert "█" not in alone.text, "one message in an empty fleet is no peak"
        assert fleet_cell(flow(history=(0, 0)), "history").style == "dim"
        assert fleet_cell(flow(state=State.STALLED, history=(1,)), "history").style == "bad"


class TestHostileTexts:
    def test_no_cell_lets_them_through(self):
        found = [*fleet_rows([flow(HOSTILE)], LIMITS), *queue_rows([flow(HOSTILE)], LIMITS)]
        shown = [each.text for row in found for each in row.cells]
        assert [text for text in shown if not is_clean(text)] == []
        assert any("click=app.leave" in text for text in shown), "sanitised and not left out"


class TestSources:
    def test_the_largest_first_and_the_rest_counted(self):
        given = {"inbox.ceo": 3, "tasks.backend": 1200, "tasks.a": 2, "tasks.b": 1, "tasks.c": 1, "tasks.d": 1}
        assert sources_text(given) == "tasks.backend 1,200, inbox.ceo 3, tasks.a 2, tasks.b 1, and 2 more"
        assert sources_text(given, limit=1) == "tasks.backend 1,200, and 5 more"

    def test_few_are_named_all_and_none_is_nothing(self):
        assert sources_text({"inbox.ceo": 1}) == "inbox.ceo 1"
        assert sources_text({}) == ""

    def test_names_are_cleaned(self):
        assert is_clean(sources_text({f"inbox.{HOSTILE}": 1}))


def test_the_facts_of_a_row_are_those_of_its_flow():
    given = flow("dev", State.BUSY, messages=3, ack_pending=1, redelivered=2, dead_letters=4, stranded=5)
    (row,) = fleet_rows([given], LIMITS)
    shown = {column.id: each.text for column, each in zip(FLEET_COLUMNS, row.cells, strict=True)}
    assert {key: shown[key] for key in ("agent", "inbox", "ack-pending", "redelivered", "dead", "stranded")} == {
        "agent": "dev",
        "inbox": "3",
        "ack-pending": "1",
        "redelivered": "2",
        "dead": "4",
        "stranded": "5",
    }
    (other,) = fleet_rows([replace(given, name="ops")], LIMITS)
    assert other.key == "ops"
