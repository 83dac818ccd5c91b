"""The event feed: bounded, as cheap as its frames, and still while somebody reads it."""

from datetime import datetime

import pytest
from textual import events
from textual.app import App, ComposeResult

from console.widgets.event_feed import EventFeed, FeedLine
from tests.support.waiting import until


def line(at, kind="task.done", body=None):
    moment = datetime(2026, 1, 1, 12, 3, 4, at % 1000 * 1000).astimezone()
    return FeedLine(at, moment, kind, "good", "backend-1", f"body-{at}." if body is None else body)


def lines(count, start=0):
    return [line(at) for at in range(start, start + count)]


class FeedApp(App[None]):
    def __init__(self, **options):
        super().__init__()
        self.feed = EventFeed(**options)
        self.heard = []

    def compose(self) -> ComposeResult:
        yield self.feed

    def on_event_feed_selected(self, message: EventFeed.Selected) -> None:
        self.heard.append(message.line.key)

    def on_event_feed_follow_changed(self, message: EventFeed.FollowChanged) -> None:
        self.heard.append(message.following)


def screen_lines(app):
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def shows(app, at):
    return any(f"body-{at}." in each for each in screen_lines(app))


async def test_the_newest_line_stays_in_view():
    app = FeedApp()
    async with app.run_test(size=(100, 10)):
        app.feed.extend(lines(3))
        await until(lambda: shows(app, 2))
        assert "12:03:04.002  task.done" in screen_lines(app)[2]
        app.feed.extend(lines(200, start=3))
        await until(lambda: shows(app, 202))
        assert shows(app, 193)
        assert not shows(app, 192)
        assert (app.feed.following, app.feed.paused, app.feed.unseen) == (True, False, 0)


async def test_going_up_stops_and_the_end_resumes():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(50))
        await until(lambda: shows(app, 49))
        await pilot.press("up")
        assert (app.feed.following, app.feed.paused) == (False, True)
        assert app.feed.cursor_line.key == 48
        before = screen_lines(app)
        app.feed.extend(lines(500, start=50))
        await until(lambda: app.feed.virtual_size.height == 550)
        await pilot.pause()
        assert [each[:90] for each in screen_lines(app)] == [each[:90] for each in before]
        assert app.feed.unseen == 500
        await pilot.press("G")
        assert app.feed.following
        assert shows(app, 549)
        assert app.feed.unseen == 0
        assert app.heard == [False, True]


@pytest.mark.parametrize(
    ("keys", "following", "key"),
    [
        (("s",), False, 49),
        (("s", "s"), True, 49),
        (("k", "k", "j"), False, 48),
        (("g",), False, 0),
        (("home", "down"), False, 1),
        (("pageup",), False, 40),
        (("ctrl+b", "ctrl+b", "ctrl+f"), False, 40),
        (("g", "end"), True, 49),
        (("down",), True, 49),
    ],
)
async def test_keys(keys, following, key):
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(50))
        await until(lambda: shows(app, 49))
        await pilot.press(*keys)
        assert app.feed.following is following
        assert app.feed.cursor_line.key == key
        assert shows(app, key)
        await pilot.press("enter")
        assert app.heard[-1] == key


async def test_the_wheel_and_the_mouse_stop_it():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(50))
        await until(lambda: shows(app, 49))
        app.feed.post_message(events.MouseScrollUp(app.feed, 5, 5, 0, 0, 0, False, False, False))
        await until(lambda: not app.feed.following)
        await pilot.pause()
        assert not shows(app, 49)
        assert shows(app, 39)
        await pilot.press("up")
        assert shows(app, 39)
        await pilot.press("G")
        await pilot.click(EventFeed, offset=(5, 4))
        assert not app.feed.following
        assert app.feed.cursor_line.key == 44
        await pilot.click(EventFeed, offset=(5, 4))
        await until(lambda: 44 in app.heard)


async def test_the_cursor_is_seen_only_when_not_following():
    app = FeedApp()
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(5))
        await until(lambda: shows(app, 4))

        def backgrounds():
            return [app.feed.render_line(y)._segments[0].style.bgcolor for y in range(5)]

        assert len(set(backgrounds())) == 1
        assert {each[0] for each in screen_lines(app)} == {" "}
        await pilot.press("up")
        assert [each[0] for each in screen_lines(app)[:5]] == [" ", " ", " ", "▎", " "]
        assert len(set(backgrounds())) == 2
        assert backgrounds()[3] != backgrounds()[4]


async def test_it_is_bounded():
    app = FeedApp(capacity=100)
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(1000))
        assert (app.feed.total, len(app.feed.lines)) == (100, 100)
        assert app.feed.lines[0].key == 900
        await until(lambda: shows(app, 999))
        assert app.feed.virtual_size.height == 100
        await pilot.pause()
    assert EventFeed()._ring.items.maxlen == 5000


async def test_what_is_read_stands_still_while_the_ring_turns():
    app = FeedApp(capacity=100)
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(100))
        await until(lambda: shows(app, 99))
        await pilot.press("up")
        before = [each[:90] for each in screen_lines(app)]
        app.feed.extend(lines(60, start=100))
        assert app.feed.cursor_line.key == 98
        assert [each.text[:90] for each in map(app.feed.render_line, range(10))] == before
        await until(lambda: app.feed._ring.gone == 0)
        await pilot.pause()
        assert [each[:90] for each in screen_lines(app)] == before
        assert app.feed.cursor_line.key == 98
        app.feed.extend(lines(200, start=160))
        await until(lambda: shows(app, 260))
        assert app.feed.cursor_line.key == 260


async def test_frames_are_limited():
    drawn = []
    now = [0.0]

    class Counting(EventFeed):
        def _draw(self, *, to_end=False):
            drawn.append(now[0])
            super()._draw(to_end=to_end)

    class CountingApp(App[None]):
        def compose(self) -> ComposeResult:
            yield Counting(clock=lambda: now[0])

    app = CountingApp()
    async with app.run_test(size=(100, 10)):
        feed = app.query_one(Counting)
        now[0] = 10.0
        drawn.clear()
        for at in range(500):
            feed.extend([line(at)])
        await until(lambda: shows(app, 499))
        assert len(drawn) == 1
        now[0] = 10.02
        feed.extend([line(500)])
        feed.extend([line(501)])
        await until(lambda: shows(app, 501))
        assert len(drawn) == 2


async def test_a_filter_applies_to_what_is_there_and_what_comes():
    app = FeedApp(capacity=100)
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(line(at, "task.failed" if at % 10 == 0 else "task.done") for at in range(100))
        app.feed.set_filter(lambda each: each.kind == "task.failed")
        assert [each.key for each in app.feed.lines] == list(range(0, 100, 10))
        app.feed.extend([line(100, "task.failed"), line(101)])
        assert app.feed.lines[-1].key == 100
        await until(lambda: shows(app, 100))
        assert not shows(app, 101)
        await pilot.press("up", "up")
        assert app.feed.cursor_line.key == 80
        app.feed.extend([line(102), line(103, "task.failed")])
        assert app.feed.unseen == 1
        app.feed.set_filter(None)
        await pilot.pause()
        assert app.feed.cursor_line.key == 80
        assert shows(app, 80)
        assert app.feed.total == len(app.feed.lines) == 100
        app.feed.set_filter(lambda _: False)
        await pilot.pause()
        assert app.feed.cursor_line is None
        assert "Nothing yet." in screen_lines(app)[1]


async def test_clearing():
    app = FeedApp(empty="Quiet.\n[/x]\x1b")
    async with app.run_test(size=(100, 10)) as pilot:
        app.feed.extend(lines(50))
        await pilot.press("g")
        app.feed.clear()
        await pilot.pause()
        assert (app.feed.total, app.feed.lines, app.feed.following) == (0, (), True)
        assert [each.strip() for each in screen_lines(app)[:3]] == ["", "Quiet.", "[/x]␛"]
        await pilot.press("enter", "up", "pageup", "G", "s", "down")
        assert app.feed.cursor_line is None


async def test_lines_may_come_before_the_first_frame():
    app = FeedApp()
    app.feed.extend(lines(30))
    app.feed.set_filter(lambda each: each.key != 29)
    async with app.run_test(size=(100, 10)):
        await until(lambda: shows(app, 28))


async def test_hostile_lines_are_inert():
    app = FeedApp()
    async with app.run_test(size=(100, 10)):
        bad = "\x1b]52;c;aGk=\x07[@click=app.quit][/x]\u202e\x9b\n"
        app.feed.extend([FeedLine("id", None, bad, None, bad, bad), line(1)])
        await until(lambda: shows(app, 1))
        shown = "".join(screen_lines(app))
        assert not {"\x1b", "\x07", "\u202e", "\x9b", "\n"} & set(shown)
        assert "␛]52;c;aGk=␇[@click=app.quit][/x]" in shown
        assert {len(each) for each in screen_lines(app)} == {100}


@pytest.mark.parametrize("width", [120, 80, 59, 30, 10])
async def test_every_width(width):
    app = FeedApp()
    async with app.run_test(size=(width, 6)) as pilot:
        app.feed.extend([line(1, body="東京" * 100)])
        await until(lambda: "12:0" in screen_lines(app)[0])
        await pilot.pause()
        assert app.feed.render_line(0).cell_length == width
        assert ("backend-1" in screen_lines(app)[0]) is (width >= 80)


async def test_a_theme_changes_the_colours():
    app = FeedApp()
    async with app.run_test(size=(80, 6)) as pilot:
        app.feed.extend([line(1)])
        await until(lambda: shows(app, 1))
        before = app.feed.render_line(0)._segments[2].style
        app.theme = "textual-light"
        await pilot.pause()
        assert app.feed.render_line(0)._segments[2].style != before
