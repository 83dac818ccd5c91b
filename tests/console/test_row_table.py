"""The table for what refreshes: the cursor belongs to a row, and nothing moves that the user did not move."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from console.widgets.row_model import GAP, arrange, follow, sort_rows
from console.widgets.row_table import Cell, Column, Row, RowTable
from console.widgets.sparkline import spark

COLUMNS = (
    Column("agent", "AGENT", 12, min_width=8, flexible=True, max_width=20, priority=90),
    Column("state", "STATE", 10, priority=80),
    Column("depth", "INBOX", 6, align="right", priority=70, reverse_first=True),
    *(Column(f"extra{at}", f"EXTRA {at}", 9, align="right", priority=10 + at) for at in range(6)),
    Column("spark", "LAST 60 s", 16, priority=5, sortable=False),
)
HOSTILE = "\x1b]52;c;aGk=\x07[@click=app.quit]x[/x]\u202e\x9b"


def row(at, *, depth=None, **options):
    depth = at if depth is None else depth
    cells = (Cell(f"agent-{at}"), Cell("busy", "warn"), Cell(str(depth), None, depth))
    return Row(f"key-{at}", cells, **options)


def rows(count, start=0):
    return tuple(row(at) for at in range(start, start + count))


class TableApp(App[None]):
    def __init__(self, *columns, **options):
        super().__init__()
        self.table = RowTable(*(columns or COLUMNS), **options)
        self.heard = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_row_table_highlighted(self, message: RowTable.Highlighted) -> None:
        self.heard.append(("highlighted", message.key))

    def on_row_table_selected(self, message: RowTable.Selected) -> None:
        self.heard.append(("selected", message.key))

    def on_row_table_marked(self, message: RowTable.Marked) -> None:
        self.heard.append(("marked", message.keys))

    def on_row_table_sorted(self, message: RowTable.Sorted) -> None:
        self.heard.append(("sorted", message.column_id, message.reverse))

    def take(self):
        heard, self.heard = self.heard, []
        return heard


def screen_lines(app):
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def line_of(app, key_text):
    return next(y for y, line in enumerate(screen_lines(app)) if f" {key_text} " in line)


async def test_the_cursor_stays_on_its_row_through_refresh_sort_and_filter():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(50))
        await pilot.press(*["down"] * 20)
        assert app.table.cursor_key == "key-20"
        app.take()
        height = line_of(app, "agent-20")

        app.table.set_rows((row(100), row(101), row(102), *rows(50)))
        await pilot.pause()
        assert (app.table.cursor_key, line_of(app, "agent-20")) == ("key-20", height)

        app.table.sort_by("depth", reverse=True)
        await pilot.pause()
        assert (app.table.cursor_key, line_of(app, "agent-20")) == ("key-20", height)

        app.table.set_rows(each for each in rows(50) if int(each.cells[2].text) % 2 == 0)
        await pilot.pause()
        assert app.table.cursor_key == "key-20"
        assert app.table.rows[app.table.cursor_index].key == "key-20"
        assert app.take() == []


async def test_when_its_row_vanishes_the_cursor_goes_to_the_nearest_neighbour():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(6))
        app.table.move_cursor("key-3")
        app.table.set_rows(each for each in rows(6) if each.key not in {"key-3", "key-4"})
        await pilot.pause()
        assert app.table.cursor_key == "key-5"
        app.table.set_rows(rows(3))
        await pilot.pause()
        assert app.table.cursor_key == "key-2"
        app.table.set_rows(())
        assert (app.table.cursor_key, app.table.cursor_index) == (None, None)
        app.table.set_rows(rows(6))
        await pilot.pause()
        assert app.table.cursor_key == "key-2"
        assert [key for _, key in app.take()] == ["key-0", "key-3", "key-5", "key-2", None, "key-2"]
        assert not app.table.move_cursor("key-77")


async def test_what_was_scrolled_to_stays_in_view_when_the_cursor_is_elsewhere():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(60))
        await pilot.pause()
        app.table.scroll_to(y=30, animate=False, force=True)
        await pilot.pause()
        assert line_of(app, "agent-30") == 1
        app.table.set_rows((row(100), row(101), *rows(60)))
        await pilot.pause()
        assert line_of(app, "agent-30") == 1
        assert app.table.cursor_key == "key-0"


async def test_a_table_nobody_touched_stays_at_its_top():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(60))
        await pilot.pause()
        app.table.set_rows((row(100), *rows(60)))
        await pilot.pause()
        assert line_of(app, "agent-100") == 1
        assert app.table.cursor_key == "key-0"


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (("j", "j", "k"), "key-1"),
        (("G",), "key-39"),
        (("end", "up"), "key-38"),
        (("end", "g"), "key-0"),
        (("end", "home"), "key-0"),
        (("pagedown",), "key-11"),
        (("ctrl+f", "ctrl+f"), "key-22"),
        (("G", "pageup"), "key-28"),
        (("G", "ctrl+b", "down"), "key-29"),
        (("up",), "key-0"),
    ],
)
async def test_movement(keys, key):
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(40))
        await pilot.press(*keys)
        assert app.table.cursor_key == key
        assert any(f"agent-{key[4:]} " in line for line in screen_lines(app)[1:])


async def test_enter_selects_and_space_marks_and_moves_on():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows((row(0), row(1, markable=False), row(2), row(3)))
        await pilot.press("space", "space", "space", "enter")
        assert app.table.marks == {"key-0", "key-2"}
        assert app.table.cursor_key == "key-3"
        assert ("selected", "key-3") in app.take()
        assert [line[1] for line in screen_lines(app)[1:5]] == ["■", " ", "■", " "]
        await pilot.press("g", "space")
        assert app.take()[-2:] == [("marked", frozenset({"key-2"})), ("highlighted", "key-1")]


async def test_marks_outlive_a_filter_and_are_dropped_on_request():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(5))
        app.table.set_marks(["key-1", "key-4"])
        app.table.set_rows(rows(2))
        assert app.table.marks == {"key-1", "key-4"}
        app.table.keep_marks({"key-0", "key-1"})
        assert app.table.marks == {"key-1"}
        await pilot.press("ctrl+backslash")
        assert app.table.marks == frozenset()


async def test_ranges_of_marks():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(9))
        await pilot.press("space", "down", "down", "v")
        assert app.table.marks == {f"key-{at}" for at in range(4)}
        await pilot.press("G", "shift+up", "shift+up")
        assert app.table.marks == {f"key-{at}" for at in (0, 1, 2, 3, 7, 8)}
        await pilot.press("shift+down")
        assert app.table.cursor_key == "key-7"


async def test_a_mark_stands_beside_a_glyph():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows((row(0, glyph="●", glyph_style="good"), row(1, glyph="▲"), row(2, indent=1)))
        app.table.set_marks(["key-0", "key-2"])
        await pilot.pause()
        assert [line[:6] for line in screen_lines(app)[1:4]] == ["■● age", " ▲ age", "   ■ a"]


async def test_without_marks_the_keys_do_nothing():
    app = TableApp(markable=False)
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(3))
        await pilot.press("space", "v")
        assert app.table.marks == frozenset()
        assert "space" not in app.screen.active_bindings
        assert "enter" in app.screen.active_bindings


async def test_keys_choose_the_order():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows((row(0, depth=5), row(1, depth=9), row(2, depth=7)))
        await pilot.press(">")
        assert app.table.sort == ("agent", False)
        assert "AGENT ▲" in screen_lines(app)[0]
        await pilot.press(">", ">")
        assert app.table.sort == ("depth", True)
        assert [each.key for each in app.table.rows] == ["key-1", "key-2", "key-0"]
        assert "INBOX▼" in screen_lines(app)[0]
        await pilot.press("o")
        assert [each.key for each in app.table.rows] == ["key-0", "key-2", "key-1"]
        await pilot.press("<")
        assert app.table.sort == ("state", False)
        assert app.take()[-1] == ("sorted", "state", False)
        app.table.sort_by(None)
        assert [each.key for each in app.table.rows] == ["key-0", "key-1", "key-2"]
        with pytest.raises(KeyError):
            app.table.sort_by("no such column")


async def test_the_order_holds_for_later_snapshots():
    app = TableApp()
    async with app.run_test(size=(100, 12)):
        app.table.sort_by("depth", reverse=True)
        app.table.set_rows((row(0, depth=5), row(1, depth=9)))
        assert [each.key for each in app.table.rows] == ["key-1", "key-0"]


async def test_mouse():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(40))
        await pilot.pause()
        assert await pilot.click(RowTable, offset=(5, 4))
        assert app.table.cursor_key == "key-3"
        assert ("selected", "key-3") not in app.take()
        assert await pilot.click(RowTable, offset=(5, 4))
        await pilot.pause()
        assert ("selected", "key-3") in app.take()
        header = screen_lines(app)[0]
        assert await pilot.click(RowTable, offset=(header.index("INBOX") + 2, 0))
        assert app.table.sort == ("depth", True)
        assert app.table.cursor_key == "key-3"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, ["agent", "state", "depth", *(f"extra{at}" for at in range(6)), "spark"]),
        (80, ["agent", "state", "depth", "extra2", "extra3", "extra4", "extra5"]),
        (40, ["agent", "state", "depth"]),
        (10, ["agent"]),
    ],
)
async def test_columns_are_dropped_by_priority(width, expected):
    app = TableApp()
    async with app.run_test(size=(width, 24)) as pilot:
        app.table.set_rows(rows(3))
        await pilot.pause()
        assert list(app.table.visible_columns) == expected
        lines = screen_lines(app)
        assert all(len(line) == width for line in lines)
        assert "agent" in lines[1]


async def test_a_scrollbar_moves_no_column():
    app = TableApp()
    async with app.run_test(size=(80, 12)) as pilot:
        app.table.set_rows(rows(3))
        await pilot.pause()
        before = screen_lines(app)[0]
        app.table.set_rows(rows(300))
        await pilot.pause()
        assert app.table.show_vertical_scrollbar
        assert screen_lines(app)[0][:79] == before[:79]


async def test_hostile_cells_are_inert():
    app = TableApp(Column("a", "A", 60), Column("b", "B", 10))
    async with app.run_test(size=(80, 6)) as pilot:
        app.table.set_rows((Row("x", (Cell(HOSTILE), Cell("a\nb\tc")), glyph="\x1b"), Row("y", ())))
        await pilot.pause()
        shown = "\n".join(screen_lines(app))
        assert not {"\x1b", "\x07", "\u202e", "\x9b", "\t"} & set(shown)
        assert "␛]52;c;aGk=␇[@click=app.quit]x[/x]" in shown
        assert "a␊b␉c" in shown
        assert all(len(line) == 80 for line in shown.split("\n"))


async def test_the_cursor_is_seen_without_colour():
    app = TableApp()
    async with app.run_test(size=(100, 12)) as pilot:
        app.table.set_rows(rows(3))
        await pilot.press("down")
        assert [line[0] for line in screen_lines(app)[1:4]] == [" ", "▎", " "]


async def test_wide_glyphs_keep_the_columns_aligned():
    app = TableApp(Column("a", "A", 7), Column("b", "B", 6, align="right"))
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.set_rows((Row("x", (Cell("東京都庁舎"), Cell("1"))), Row("y", (Cell("plain"), Cell("2")))))
        await pilot.pause()
        first, second = (app.table.render_line(y) for y in (1, 2))
        assert first.cell_length == second.cell_length == 40
        assert first.text.startswith("▎  東京都…       1")
        assert second.text.startswith("   plain         2")


async def test_groups_have_columns_of_their_own():
    group = (
        Column("source", width=16),
        Column("error", width=10, flexible=True),
        Column("count", width=4, align="right"),
    )
    app = TableApp(variants={"group": group}, show_header=False)
    async with app.run_test(size=(60, 6)) as pilot:
        cells = (Cell("tasks.backend"), Cell("TimeoutError: model did not answer"), Cell("12", "bold bad"))
        app.table.set_rows((Row("g", cells, "▾", "accent", variant="group", markable=False), row(1, indent=1)))
        await pilot.pause()
        lines = screen_lines(app)
        assert lines[0].startswith("▎▾ tasks.backend     TimeoutError: model did ")
        assert lines[0].rstrip().endswith("12")
        assert lines[1].startswith("     agent-1")


async def test_the_empty_text_may_have_lines_and_is_inert():
    app = TableApp(empty="No dead letters.\nThat is \x1b[31mgood.")
    async with app.run_test(size=(60, 8)) as pilot:
        await pilot.pause()
        assert [line.strip() for line in screen_lines(app)[2:4]] == ["No dead letters.", "That is ␛[31mgood."]
        app.table.empty = "No permission:\n[/x]\x9b"
        await pilot.pause()
        assert [line.strip() for line in screen_lines(app)[2:4]] == ["No permission:", "[/x]\ufffd"]
        await pilot.press("enter", "space", "down", "G", "v")
        assert app.take() == []
        app.table.set_rows(rows(1))
        await pilot.pause()
        assert "No permission" not in "\n".join(screen_lines(app))


async def test_a_snapshot_may_come_before_the_first_frame():
    app = TableApp()
    app.table.set_rows(rows(30))
    app.table.set_rows((row(99), *rows(30)))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.pause()
        assert "agent-99" in screen_lines(app)[1]
        assert app.table.cursor_key == "key-0"


async def test_fewer_rows_than_were_scrolled_past():
    app = TableApp()
    async with app.run_test(size=(80, 12)) as pilot:
        app.table.set_rows(rows(500))
        await pilot.press("G")
        app.table.set_rows(rows(3))
        app.table.set_rows(rows(2))
        await pilot.pause()
        assert app.table.cursor_key == "key-1"
        assert "agent-0" in screen_lines(app)[1]


async def test_resizing_keeps_the_cursor_in_view():
    app = TableApp()
    async with app.run_test(size=(80, 30)) as pilot:
        app.table.set_rows(rows(100))
        await pilot.press("G")
        await pilot.resize_terminal(60, 8)
        await pilot.pause()
        assert any("agent-99" in line for line in screen_lines(app))


async def test_a_change_redraws_only_the_lines_that_differ():
    drawn = []

    class Watched(RowTable):
        def render_line(self, y):
            drawn.append(y)
            return super().render_line(y)

    class WatchedApp(App[None]):
        def compose(self) -> ComposeResult:
            yield Watched(*COLUMNS)

    app = WatchedApp()
    async with app.run_test(size=(80, 20)) as pilot:
        table = app.query_one(Watched)
        table.set_rows(rows(100))
        await pilot.pause()
        drawn.clear()
        table.set_rows((*rows(5), row(5, depth=77), *rows(94, start=6)))
        await pilot.pause()
        assert set(drawn) == {6}
        assert "77" in screen_lines(app)[6]


async def test_themes_and_focus_change_the_colours():
    app = TableApp()
    async with app.run_test(size=(80, 12)) as pilot:
        app.table.set_rows(rows(3))
        await pilot.pause()

        def background():
            return app.table.render_line(1)._segments[2].style.bgcolor

        focused = background()
        app.set_focus(None)
        await pilot.pause()
        blurred = background()
        assert focused != blurred
        app.theme = "textual-light"
        await pilot.pause()
        assert background() != blurred


async def test_ten_thousand_rows_are_swapped_within_a_frame():
    app = TableApp()
    async with app.run_test(size=(120, 40)) as pilot:
        first, second = rows(10_000), rows(10_000, start=1)
        app.table.set_rows(first)
        await pilot.pause()
        best = math.inf
        for snapshot in (second, first, second, first, second):
            started = time.process_time()
            app.table.set_rows(snapshot)
            for y in range(40):
                app.table.render_line(y)
            best = min(best, time.process_time() - started)
        assert app.table.cursor_key == "key-1"
        assert best < 0.05  # 3 ms where it was written; the rest is for machines that are busy


# -- The arithmetic ---------------------------------------------------------------------------------------------------

WIDTHS = st.builds(
    Column,
    st.just("id"),
    st.just("T"),
    st.integers(1, 30),
    min_width=st.none() | st.integers(1, 30),
    flexible=st.booleans(),
    priority=st.integers(0, 5),
)


@given(st.lists(WIDTHS, max_size=8), st.integers(-5, 120))
def test_columns_never_overlap_or_leave_the_line(columns, available):
    placed = arrange(columns, available)
    assert bool(placed) == bool(columns)
    end = 0
    for each in placed:
        assert each.x >= end
        assert each.width >= 1
        end = each.x + each.width + GAP
    if len(placed) > 1 or (placed and available >= placed[0].column.least):
        assert end - GAP <= available


VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.tuples(st.integers())


@given(st.lists(VALUES, max_size=20), st.booleans())
def test_sorting_loses_nothing_and_puts_missing_values_last(values, reverse):
    given_rows = [Row(str(at), (Cell("", None, value),)) for at, value in enumerate(values)]
    result = sort_rows(given_rows, 0, reverse=reverse)
    assert sorted(each.key for each in result) == sorted(each.key for each in given_rows)
    missing = [each.cells[0].sort in (None, "") or each.cells[0].sort != each.cells[0].sort for each in result]
    assert missing == sorted(missing)


def test_sorting():
    def order(*values, reverse=False):
        some = [
            Row(
                str(at),
                (Cell(value if isinstance(value, str) else "", None, None if isinstance(value, str) else value),),
            )
            for at, value in enumerate(values)
        ]
        return [int(each.key) for each in sort_rows(some, 0, reverse=reverse)]

    assert order(10, 9, 100) == [1, 0, 2]
    assert order(10, math.nan, 100, reverse=True) == [2, 0, 1]
    assert order("b", "A", "c") == [1, 0, 2]
    assert order("b", 3, "a") == [1, 2, 0]
    assert order((1,), ("x",), (2,)) in ([0, 2, 1], [1, 0, 2])
    assert sort_rows([Row("short", ())], 3, reverse=False) == (Row("short", ()),)


def test_following_a_cursor():
    before = rows(5)
    assert follow("key-2", before, {"key-2": 0}) == "key-2"
    assert follow("key-2", before, {"key-1": 0, "key-4": 1}) == "key-4"
    assert follow("key-2", before, {"key-0": 0, "key-1": 1}) == "key-1"
    assert follow("key-2", before, {"other": 0}) == "other"
    assert follow(None, (), {"first": 0, "second": 1}) == "first"
    assert follow("key-2", before, {}) is None


# -- Sparklines -------------------------------------------------------------------------------------------------------


def test_sparks_share_a_scale():
    assert spark([0, 1, 4, 8, 99], 5, 8) == "▁▂▅██"
    assert spark([0.001], 3, 1000) == "▁▁▂"
    assert spark([0] * 5, 5, 8) == "▁" * 5
    assert spark([], 3, 8) == "▁▁▁"
    assert spark([1, 2], 2, 0) == "██"
    assert spark([0, 0, 9, 0, 0, 0], 3, 9) == "▁█▁"
    assert spark([1], 0, 1) == ""


@given(st.lists(st.floats()), st.integers(0, 40), st.floats())
def test_a_spark_is_as_wide_as_asked(values, width, top):
    assert len(spark(values, width, top)) == width
