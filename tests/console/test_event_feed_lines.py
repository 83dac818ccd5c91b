"""The lines of the event feed: wrapped, marked, timed otherwise, and made only where somebody sees them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.widgets.feed_paint import MAX_ROWS, FeedLine, FeedPaint
from console.widgets.feed_ring import FeedRing
from console.widgets.feed_rows import FeedRows
from tests.console.test_event_feed import FeedApp, line, lines, screen_lines, shows
from tests.support.waiting import until

LONG = "".join(f"<{n:04d}>" for n in range(30))
"""180 characters, each six of which say where they stand."""


def long_lines(count, start=0):
    return [line(at, body=f"body-{at}." + LONG) for at in range(start, start + count)]


def shown(app, cut=97):
    return [each[:cut] for each in screen_lines(app)]


async def wrapped(app, pilot, items, seen):
    app.feed.extend(items)
    await until(lambda: shows(app, seen))
    app.feed.action_toggle_wrap()
    await pilot.pause()


async def test_a_long_line_goes_on_below():
    app = FeedApp()
    async with app.run_test(size=(100, 20)) as pilot:
        await wrapped(app, pilot, [line(0), *long_lines(1, 1), line(2)], 2)
        rows = screen_lines(app)
        # 100 cells, of which the scrollbar's gutter takes one: the body has 48.
        assert "body-0." in rows[0]
        column = rows[0].index("body-0.")
        parts = [row[column:].rstrip() for row in rows[1:5]]
        assert "".join(parts) == "body-1." + LONG
        assert all(row[:column].strip() == "" for row in rows[2:5])
        assert "body-2." in rows[5]
        assert {len(row) for row in rows} == {100}
        app.feed.action_toggle_wrap()
        await pilot.pause()
        assert "body-2." in screen_lines(app)[2]


async def test_the_end_of_the_newest_stays_in_view():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        await wrapped(app, pilot, long_lines(50), 49)
        assert "<0029>" in screen_lines(app)[-1]
        assert shows(app, 49)
        app.feed.extend(long_lines(1, 50))
        await until(lambda: shows(app, 50))
        assert "<0029>" in screen_lines(app)[-1]
        # Four rows each, so two whole ones and a half.
        assert "<0029>" in screen_lines(app)[1]
        assert not shows(app, 48)


async def test_wrapped_lines_stand_still_while_the_ring_turns():
    app = FeedApp(capacity=100)
    async with app.run_test(size=(100, 10)) as pilot:
        await wrapped(app, pilot, long_lines(100), 99)
        before = shown(app)
        await pilot.press("s")
        assert app.feed.paused
        assert [row[1:] for row in shown(app)] == [row[1:] for row in before], "not when it stops, but for the cursor"
        before = shown(app)
        for start in (100, 130):
            app.feed.extend(long_lines(30, start))
            assert [app.feed.render_line(y).text[:97] for y in range(10)] == before, "not between two frames"
            await until(lambda: app.feed._ring.gone == 0)
            await pilot.pause()
            assert shown(app) == before
        assert app.feed.cursor_line.key == 99
        assert app.feed.unseen == 60
        await pilot.press("G")
        assert shows(app, 159)


async def test_the_cursor_moves_over_wrapped_lines():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        await wrapped(app, pilot, long_lines(20), 19)
        for key in (18, 17, 16, 15):
            await pilot.press("up")
            assert app.feed.cursor_line.key == key
            assert shows(app, key)
            rows = [y for y, row in enumerate(screen_lines(app)) if row[0] == "▎"]
            assert rows == list(range(rows[0], rows[0] + 4)), "all its rows are on the screen"
        for key in (16, 17, 18, 19):
            await pilot.press("down")
            assert app.feed.cursor_line.key == key
            rows = [y for y, row in enumerate(screen_lines(app)) if row[0] == "▎"]
            assert len(rows) == 4
        await pilot.press("g")
        assert (app.feed.cursor_line.key, "body-0." in screen_lines(app)[0]) == (0, True)
        await pilot.press("pagedown")
        assert 1 <= app.feed.cursor_line.key <= 3
        assert shows(app, app.feed.cursor_line.key)
        await pilot.click("EventFeed", offset=(5, 9))
        at = app.feed.cursor_line.key
        assert "<" in screen_lines(app)[9]
        assert screen_lines(app)[9][0] == "▎"
        await pilot.press("enter")
        assert app.heard[-1] == at


async def test_a_line_longer_than_the_screen_is_cut_with_a_sign():
    app = FeedApp()
    async with app.run_test(size=(60, 8)) as pilot:
        app.feed.extend([line(1, body="body-1." + "x" * 5_000)])
        await until(lambda: shows(app, 1))
        app.feed.action_toggle_wrap()
        await pilot.pause()
        rows = screen_lines(app)
        assert "body-1." in rows[0]
        assert rows[-1].rstrip().endswith("…")
        assert all("x" in row for row in rows)


async def test_few_wrapped_lines_do_not_scroll():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        await wrapped(app, pilot, long_lines(2), 1)
        assert app.feed.max_scroll_y == 0
        assert "body-0." in screen_lines(app)[0]


@pytest.mark.parametrize("width", [120, 80, 59, 30, 10])
async def test_every_width_wraps(width):
    app = FeedApp()
    async with app.run_test(size=(width, 6)) as pilot:
        app.feed.extend([line(1, body="東京" * 100), line(2, body=LONG)])
        await until(lambda: app.feed.total == 2)
        app.feed.action_toggle_wrap()
        await pilot.press("g", "j", "k", "G")
        await pilot.pause()
        assert {app.feed.render_line(y).cell_length for y in range(6)} == {width}


async def test_marks_stay_with_their_lines():
    app = FeedApp(capacity=50)
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(line(at, "task.failed" if at % 2 else "task.done") for at in range(50))
        await until(lambda: shows(app, 49))
        await pilot.press("k", "k", "k", "space", "space")
        assert app.feed.paused
        assert app.feed.cursor_line.key == 48
        assert [each.key for each in app.feed.marked] == [46, 47]
        assert [row[0] for row in screen_lines(app)[6:10]] == ["■", "■", "▎", " "]
        app.feed.set_filter(lambda each: each.kind == "task.failed")
        await pilot.pause()
        assert [each.key for each in app.feed.marked] == [46, 47], "those that the filter hides too"
        app.feed.set_filter(None)
        await pilot.pause()
        assert [each.key for each in app.feed.marked] == [46, 47]
        await pilot.press("k", "k", "space")
        assert [each.key for each in app.feed.marked] == [46], "once more takes the mark away"
        app.feed.extend(lines(46, start=50))
        assert app.feed.mark_count == 1
        app.feed.extend(lines(1, start=96))
        assert app.feed.mark_count == 0, "it left the ring"
        await pilot.press("G", "space", "ctrl+backslash")
        assert app.feed.mark_count == 0


async def test_the_time_is_told_in_four_ways():
    app = FeedApp()
    async with app.run_test(size=(120, 6)) as pilot:
        app.feed.extend([line(1)._replace(at=datetime.now(UTC) - timedelta(days=3, hours=4, seconds=5))])
        await until(lambda: shows(app, 1))
        clock = screen_lines(app)[0]
        looks = []
        for _ in range(4):
            app.feed.action_next_stamp()
            await pilot.pause()
            looks.append(screen_lines(app)[0])
        moment = (datetime.now(UTC) - timedelta(days=3, hours=4, seconds=5)).astimezone()
        assert looks[0].lstrip().startswith(f"{moment:%Y-%m-%d }")
        assert looks[1].split()[0] == "3d4h"
        assert looks[2].split()[0] == "task.done"
        assert looks[3] == clock
        assert app.feed.stamp == "time"


async def test_lines_are_made_only_of_what_is_seen():
    made = []

    def line_of(item):
        made.append(item)
        return line(item)

    app = FeedApp()
    app.feed.line_of = line_of
    async with app.run_test(size=(100, 10)):
        app.feed.extend(range(3_000))
        await until(lambda: shows(app, 2_999))
        assert len(set(made)) < 60, "the first and the last"


async def test_a_filter_takes_turns():
    app = FeedApp()
    async with app.run_test(size=(100, 10)):
        now, asked = [0.0], []
        app.feed._ring._clock = lambda: now[0]

        def slow(each):
            now[0] += 0.001
            asked.append(each.key)
            return each.key % 100 == 0

        app.feed.extend(lines(1_000))
        app.feed.set_filter(slow)
        assert 0 < len(asked) < 100, "the rest is for later"
        assert app.feed.sifting
        await until(lambda: not app.feed.sifting)
        assert asked == list(range(1_000))
        assert [each.key for each in app.feed.lines] == list(range(0, 1_000, 100))


async def test_the_cursors_line_is_found_again_once_the_filter_has_come_to_it():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        now = [0.0]
        app.feed._ring._clock = lambda: now[0]

        def slow(each):
            now[0] += 0.001
            return each.key % 10 == 0

        app.feed.extend(lines(501))
        await until(lambda: shows(app, 500))
        await pilot.press(*["k"] * 10)
        assert app.feed.cursor_line.key == 490
        app.feed.set_filter(slow)
        await until(lambda: not app.feed.sifting)
        await pilot.pause()
        assert app.feed.cursor_line.key == 490
        assert shows(app, 490)


# -- without a screen


@given(st.lists(st.integers(0, 9)), st.integers(1, 8), st.sampled_from([None, 2, 3]), st.data())
def test_the_ring_keeps_the_newest_and_shows_what_matches(values, capacity, modulus, data):
    ring = FeedRing(capacity)
    items, shown, gone = [], [], 0
    wanted = None if modulus is None else (lambda item: item[0] % modulus == 0)
    ring.set_filter(wanted)
    ring.gone = 0
    for at, value in enumerate(values):
        item = (value, at)
        new = ring.extend([item]) + ring.sift()
        items.append(item)
        if wanted is None or wanted(item):
            shown.append(item)
            assert new == 1
            gone += len(shown) > capacity
        if data.draw(st.booleans()):
            ring.toggle(item)
        assert list(ring.items) == items[-capacity:]
        assert list(ring.shown) == shown[-capacity:]
        assert ring.gone == gone
        assert set(ring.marks) <= {*ring.items, *ring.shown}
    ring.set_filter(None)
    assert list(ring.shown) == items[-capacity:]
    assert set(ring.marks) <= set(ring.items)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(5, 12), st.data())
def test_rows_are_consecutive_and_the_last_one_is_at_the_bottom(heights, height, data):
    rows = FeedRows(heights.__getitem__)
    rows.fit(len(heights), height, wrapped=True)
    every = [(at, part) for at, count in enumerate(heights) for part in range(count)]
    scroll = data.draw(st.integers(0, rows.last_top))
    on_screen = [rows.at(y, scroll, 0) for y in range(height)]
    real = [each for each in on_screen if each[0] < len(heights)]
    start = every.index(real[0])
    assert real == every[start : start + len(real)]
    assert len(real) == min(height, len(every) - start)
    assert [rows.at(y, rows.last_top, 0) for y in range(min(height, len(every)))] == every[-height:]
    at = data.draw(st.integers(0, len(heights) - 1))
    there = rows.bring_into_view(at, scroll)
    visible = [rows.at(y, there, 0) for y in range(height)]
    assert [(at, part) for part in range(heights[at])] == [each for each in visible if each[0] == at]


@given(st.text(max_size=300), st.integers(8, 140), st.integers(1, 30))
def test_no_part_is_wider_than_the_screen(body, width, height):
    paint = FeedPaint(lambda _names, _on_cursor: None)
    paint.width, paint.wrap = width, True
    given_line = FeedLine(1, None, "k", None, "s", body)
    parts = paint.parts(given_line, height)
    assert 1 <= len(parts) <= max(min(MAX_ROWS, height), 1)
    for part in range(len(parts)):
        segments = paint.segments(given_line, parts, part, on_cursor=False, marked=False)
        if width >= 40:
            assert sum(segment.cell_length for segment in segments) == width
