"""The lines around the screens: header, tabs, key hints, and the themes that colour them."""

from dataclasses import replace

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.color import Color
from textual.screen import Screen
from textual.widget import Widget

from console.styles.theme import AGENT_DARK, AGENT_LIGHT, THEMES
from console.widgets.header import ConsoleHeader, HeaderState
from console.widgets.key_hints import KeyHints
from console.widgets.row_table import Cell, Column, Row, RowTable
from console.widgets.tab_strip import Tab, TabStrip

STATE = HeaderState(
    context="demo",
    server="127.0.0.1:41231",
    version="2.15.1",
    rtt_s=0.0003,
    link="live",
    age_s=1.2,
    findings=2,
    dead_letters=7,
    writable=True,
)
TABS = tuple(Tab(title.lower().replace(" ", "-"), title) for title in ("Fleet", "Queues", "Dead letters", "Events"))


class Furniture(App[None]):
    BINDINGS = [  # noqa: RUF012  Textual's own way
        Binding("R", "replay", "replay DLQ"),
        Binding("slash", "filter", "filter"),
        Binding("h", "hidden", "hidden", show=False),
        Binding("question_mark", "help", "help"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self):
        super().__init__()
        self.heard = []
        self.replayable = True

    def compose(self) -> ComposeResult:
        yield ConsoleHeader()
        yield TabStrip(*TABS)
        yield RowTable(Column("a", "A", 10), id="table")
        yield RowTable(Column("a", "A", 10), id="plain", markable=False)
        yield KeyHints()

    def check_action(self, action, parameters):
        return None if action == "replay" and not self.replayable else True

    def action_replay(self) -> None:
        self.heard.append("replay")

    def action_filter(self) -> None:
        self.heard.append("filter")

    def on_tab_strip_activated(self, message: TabStrip.Activated) -> None:
        self.heard.append(message.id)


def screen_lines(app):
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def style_of(app, y, text):
    strip = app.screen._compositor.render_strips()[y]
    return next(segment.style for segment in strip if text in segment.text)


async def show(app, pilot, **changes):
    app.query_one(ConsoleHeader).state = replace(STATE, **changes)
    await pilot.pause()
    return screen_lines(app)[0]


async def test_the_header_at_120_columns():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        top = await show(app, pilot)
        assert top.startswith(" agent-console   demo  127.0.0.1:41231  nats 2.15.1  rtt 0.3ms   ")
        assert top.endswith("   ● live 1s   ▲ 2 findings   DLQ 7   [RW] ")
        assert len(top) == 120


@pytest.mark.parametrize("width", [100, 80, 60, 40, 20])
async def test_the_header_drops_what_matters_least(width):
    app = Furniture()
    async with app.run_test(size=(width, 10)) as pilot:
        top = await show(app, pilot)
        assert len(top) == width
        assert ("nats 2.15.1" in top) is (width >= 100)
        assert ("127.0.0.1:41231" in top) is (width >= 80)
        assert ("2 findings" in top) is (width >= 80)
        assert ("agent-console" in top) is (width >= 60)
        if width >= 40:
            assert "demo" in top
            assert "● live" in top
            assert "▲ 2" in top
            assert top.endswith("   DLQ 7   [RW] ")


async def test_the_header_says_what_is_wrong():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        top = await show(app, pilot, link="stale", age_s=72, writable=False, findings=1, critical=True, dead_letters=0)
        assert "○ stale 1m12s   ▲ 1 finding   DLQ 0   [RO]" in top
        error = Color.parse(app.theme_variables["error"]).rich_color
        assert style_of(app, 0, "stale").color == error
        assert style_of(app, 0, "1m12s").color == error
        assert style_of(app, 0, "finding").color == error
        top = await show(app, pilot, link="offline", age_s=None, findings=0, dead_letters=None, writable=None)
        assert top.rstrip().endswith("✖ offline")
        assert "connecting" in await show(app, pilot, link="connecting")
        assert "job 7: 12 of 40" in await show(app, pilot, link="paused", job="job 7: 12 of 40")


async def test_names_in_the_header_are_inert():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        bad = "\x1b]52;c;x\x07[/x][@click=app.quit]\u202e"
        top = await show(app, pilot, context=bad * 9, server=bad, version=bad, job=bad)
        assert not {"\x1b", "\x07", "\u202e"} & set(top)
        assert "␛]52;c;x␇[/x]" in top
        assert "東京" in await show(app, pilot, context="東京" * 40)


async def test_the_tabs():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        strip = app.query_one(TabStrip)
        strip.counts = {"dead-letters": 7, "queues": 0}
        await pilot.pause()
        assert screen_lines(app)[1].rstrip() == " 1 Fleet   2 Queues   3 Dead letters 7   4 Events"
        assert style_of(app, 1, "Fleet").underline
        assert not style_of(app, 1, "Queues").underline
        assert style_of(app, 1, "7").color == Color.parse(app.theme_variables["error"]).rich_color
        strip.active = "queues"
        await pilot.pause()
        assert style_of(app, 1, "Queues").bold
        assert not style_of(app, 1, "Fleet").bold


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (47, " 1 Fleet  2 Queues  3 Dead letters 7  4 Events"),
        (44, " 1 Fleet 2 Queues 3 Dead letters 7 4 Events"),
        (30, " 1 Fleet   2   3 7   4"),
        (12, " 1 Fleet 2 3"),
    ],
)
async def test_tabs_on_a_narrow_screen(width, line):
    app = Furniture()
    async with app.run_test(size=(width, 10)) as pilot:
        app.query_one(TabStrip).counts = {"dead-letters": 7}
        await pilot.pause()
        assert screen_lines(app)[1].rstrip() == line


async def test_a_click_on_a_tab_says_which():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        app.query_one(TabStrip).counts = {"dead-letters": 7}
        await pilot.pause()
        shown = screen_lines(app)[1]
        for text in ("2 Q", "letters", "Events"):
            await pilot.click(TabStrip, offset=(shown.index(text), 0))
        await pilot.click(TabStrip, offset=(0, 0))
        await pilot.click(TabStrip, offset=(100, 0))
        await pilot.pause()
        assert app.heard == ["queues", "dead-letters", "events"]


async def test_hints_come_from_the_live_bindings():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        app.query_one("#table").focus()
        await pilot.pause()
        assert screen_lines(app)[-1].startswith(" enter open   space mark   R replay DLQ   / filter   ? help   q quit")
        assert "hidden" not in screen_lines(app)[-1]
        app.query_one("#plain").focus()
        await pilot.pause()
        assert screen_lines(app)[-1].startswith(" enter open   R replay DLQ   / filter")

        class Other(Screen[None]):
            BINDINGS = [Binding("x", "purge", "purge…")]  # noqa: RUF012  Textual's own way

            def compose(self) -> ComposeResult:
                yield KeyHints()

            def action_purge(self) -> None:
                """Only named."""

        app.push_screen(Other())
        await pilot.pause()
        assert screen_lines(app)[-1].startswith(" x purge…   R replay DLQ   / filter")


async def test_hints_show_what_fits_and_keep_help():
    app = Furniture()
    async with app.run_test(size=(40, 10)) as pilot:
        app.query_one("#table").focus()
        await pilot.pause()
        assert screen_lines(app)[-1].rstrip() == " enter open   space mark   ? help"


async def test_a_click_on_a_hint_presses_its_key():
    app = Furniture()
    async with app.run_test(size=(120, 10)) as pilot:
        app.query_one("#table").focus()
        await pilot.pause()
        shown = screen_lines(app)[-1]
        await pilot.click(KeyHints, offset=(shown.index("filter"), 0))
        await pilot.pause()
        assert app.heard == ["filter"]
        app.replayable = False
        app.screen.refresh_bindings()
        await pilot.pause()
        await pilot.click(KeyHints, offset=(shown.index("replay"), 0))
        await pilot.pause()
        assert app.heard == ["filter"]
        assert style_of(app, 9, "replay").color != style_of(app, 9, "filter").color


class Themed(App[None]):
    CSS = "Screen { background: $background; color: $foreground; }"

    def compose(self) -> ComposeResult:
        yield ConsoleHeader()
        yield RowTable(Column("a", "A", 10))
        yield KeyHints()


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
async def test_the_themes_reach_the_widgets(theme):
    app = Themed()
    async with app.run_test(size=(80, 12)) as pilot:
        for each in THEMES:
            app.register_theme(each)
        app.theme = theme.name
        styles = ("dim", "good", "warn", "bad", "accent", "bright", "cursor")
        table = app.query_one(RowTable)
        table.set_rows(Row(style, (Cell(style, None if style == "cursor" else style),)) for style in styles)
        table.move_cursor("cursor")
        await pilot.pause()
        tokens = [app.theme_variables[name] for name in ("text-muted", "success", "warning", "error", "accent", "text")]
        shown = [style_of(app, 2 + at, style).color for at, style in enumerate(styles[:-1])]
        assert shown == [Color.parse(token).rich_color for token in tokens]
        assert tokens[0] == theme.variables["text-muted"]
        cursor = Color.parse(theme.variables["block-cursor-background"]).rich_color
        assert style_of(app, 8, "cursor").bgcolor == cursor
        assert style_of(app, 0, "agent-console").bgcolor == Color.parse(theme.accent).rich_color


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_text_colour_can_be_read(theme):
    ground = Color.parse(theme.background)

    def contrast(colour):
        lighter, darker = sorted((_luminance(Color.parse(colour)), _luminance(ground)), reverse=True)
        return (lighter + 0.05) / (darker + 0.05)

    for colour in (theme.foreground, theme.accent, theme.success, theme.warning, theme.error, theme.variables["text"]):
        assert contrast(colour) >= 4.5, colour
    assert contrast(theme.variables["text-muted"]) >= 3


def _luminance(colour):
    def linear(channel):
        channel /= 255
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(colour.r) + 0.7152 * linear(colour.g) + 0.0722 * linear(colour.b)


def test_both_themes_set_the_same_tokens():
    assert set(AGENT_DARK.variables) == set(AGENT_LIGHT.variables)
    assert (AGENT_DARK.dark, AGENT_LIGHT.dark) == (True, False)


def test_no_widget_asks_for_a_token_that_other_themes_lack():
    known = App[None]().get_css_variables()
    for widget in (ConsoleHeader, TabStrip, KeyHints, RowTable):
        assert issubclass(widget, Widget)
        for word in widget.DEFAULT_CSS.replace(";", " ").split():
            assert not word.startswith("$") or word[1:] in known, word
