"""`EventFeed`: a bounded view of what streams by.

Lines go into a ring and are drawn only when they are on the screen, at most ten times a second, so the cost depends on
the size of the terminal and not on the rate of the events (Textual's own logs render every line they are given).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar, Final, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from console.text.safe import clean, fit, is_clean
from console.widgets.row_paint import CURSOR

CAPACITY: Final = 5000
"""Lines kept: 5 MB of ASCII when every body is as long as it may be."""

BODY_LIMIT: Final = 1000
"""Characters of a body kept for the line: more than any terminal is wide. The message itself is the screen's to keep."""

FRAME: Final = 0.1
"""Seconds between two frames."""

_NARROW: Final = 60
_GAP: Final = "  "


class FeedLine(NamedTuple):
    """One event. A named tuple, because thousands a second are made."""

    key: str | int
    """What the screen finds the event by."""
    time: str
    kind: str
    kind_style: str | None
    """Names from `dim bright good warn bad accent bold`, separated by spaces."""
    source: str
    body: str
    body_style: str | None = "dim"


class EventFeed(ScrollView, can_focus=True):
    """The newest lines at the bottom; going up stops following them, `G` or `end` follows again.

    Args:
        capacity: Lines kept; older ones are dropped.
        empty: What to show when there is no line; may be several lines.
        clock: Seconds of a monotonic clock, for the frame rate.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"event-feed--{part}"
        for part in (
            *("dim", "bright", "good", "warn", "bad", "accent", "bold"),
            *("cursor", "cursor-bar", "cursor-dim"),
        )
    }
    DEFAULT_CSS = """
    EventFeed {
        height: 1fr;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        & > .event-feed--dim { color: $text-muted; }
        & > .event-feed--bright { color: $text; }
        & > .event-feed--good { color: $success; }
        & > .event-feed--warn { color: $warning; }
        & > .event-feed--bad { color: $error; }
        & > .event-feed--accent { color: $accent; }
        & > .event-feed--bold { text-style: bold; }
        & > .event-feed--cursor { background: $block-cursor-blurred-background; }
        & > .event-feed--cursor-bar { color: $text-muted; }
        & > .event-feed--cursor-dim { color: $foreground 60%; }
        &:focus > .event-feed--cursor-bar { color: $accent; }
        &:focus > .event-feed--cursor { background: $block-cursor-background; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "open", key_display="enter", id="event-feed.select"),
        Binding("s", "toggle_follow", "follow", id="event-feed.follow"),
        Binding("up,k", "move(-1)", "up", show=False, id="event-feed.up"),
        Binding("down,j", "move(1)", "down", show=False, id="event-feed.down"),
        Binding("home,g", "first", "oldest", show=False, id="event-feed.first"),
        Binding("end,G", "follow", "newest", show=False, id="event-feed.last"),
        Binding("pageup,ctrl+b", "move_page(-1)", "page up", show=False, id="event-feed.page-up"),
        Binding("pagedown,ctrl+f", "move_page(1)", "page down", show=False, id="event-feed.page-down"),
    ]

    following: reactive[bool] = reactive(True, init=False)
    """Whether the newest line is kept in view. While it is not, what is on the screen stands still."""

    @dataclass
    class Selected(Message):
        """A line was opened."""

        feed: EventFeed
        line: FeedLine

        @property
        def control(self) -> EventFeed:
            """The feed, for `on` selectors."""
            return self.feed

    @dataclass
    class FollowChanged(Message):
        """The feed started or stopped following."""

        feed: EventFeed
        following: bool

        @property
        def control(self) -> EventFeed:
            """The feed, for `on` selectors."""
            return self.feed

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        empty: str = "Nothing yet.",
        clock: Callable[[], float] = monotonic,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: deque[FeedLine] = deque(maxlen=capacity)
        self._shown: deque[FeedLine] = self._lines
        self._filter: Callable[[FeedLine], bool] | None = None
        self._empty = clean(empty, multiline=True)
        self._clock = clock
        self._cursor = 0
        self._gone = 0  # shown lines that fell out at the top since the last frame
        self._unseen = 0
        self._drawn_at = -FRAME
        self._frame: Timer | None = None
        self._styles: dict[tuple[str, bool], Style] = {}

    # -- What it shows ------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """The opposite of `following`."""
        return not self.following

    @property
    def lines(self) -> tuple[FeedLine, ...]:
        """The lines that pass the filter, oldest first."""
        return tuple(self._shown)

    @property
    def total(self) -> int:
        """How many lines are kept, filtered or not."""
        return len(self._lines)

    @property
    def unseen(self) -> int:
        """How many shown lines have come since following stopped."""
        return self._unseen

    @property
    def cursor_line(self) -> FeedLine | None:
        """The line that enter opens; the newest one while following."""
        if not self._shown:
            return None
        return self._shown[-1 if self.following else min(max(self._cursor - self._gone, 0), len(self._shown) - 1)]

    def extend(self, lines: Iterable[FeedLine]) -> None:
        """Add lines, oldest first; they are drawn with the next frame."""
        for line in lines:
            if len(line.body) > BODY_LIMIT:
                line = line._replace(body=clean(line.body, limit=BODY_LIMIT))  # noqa: PLW2901  bounds what is kept
            if self._filter is None:
                self._count()
            self._lines.append(line)
            if self._filter is not None and self._filter(line):
                self._count()
                self._shown.append(line)
        self._draw_soon()

    def set_filter(self, predicate: Callable[[FeedLine], bool] | None) -> None:
        """Show only the lines for which `predicate` is true, those already there included; None shows all."""
        held = self.cursor_line
        self._filter = predicate
        self._shown = self._lines if predicate is None else deque(filter(predicate, self._lines), self._lines.maxlen)
        self._gone = self._unseen = 0
        if not self.following:
            at = next((at for at, line in enumerate(self._shown) if line is held), len(self._shown) - 1)
            self._set_lines_shown()
            self._put_cursor(at)
        self._draw()

    def clear(self) -> None:
        """Forget every line and follow again."""
        self._lines.clear()
        self._shown.clear()
        self._gone = self._unseen = self._cursor = 0
        self.following = True
        self._draw()

    def _count(self) -> None:
        self._gone += len(self._shown) == self._shown.maxlen
        self._unseen += not self.following

    # -- Frames -------------------------------------------------------------------------------------------------------

    def _draw_soon(self) -> None:
        if self._frame is None and self.is_attached:
            wait = self._drawn_at + FRAME - self._clock()
            self._frame = self.set_timer(min(max(wait, 0.001), FRAME), self._draw)

    def _draw(self, *, to_end: bool = False) -> None:
        if not self.is_attached:
            return
        if self._frame is not None:
            self._frame.stop()
            self._frame = None
        self._drawn_at = self._clock()
        gone, self._gone = self._gone, 0
        top = self.scroll_offset.y
        self._set_lines_shown()
        if self.following or to_end:
            self._cursor = max(len(self._shown) - 1, 0)
            self.scroll_to(y=len(self._shown), animate=False, force=True)
        elif gone:
            # What the operator reads stays at its height while the ring moves under it.
            self._cursor = max(self._cursor - gone, 0)
            self.scroll_to(y=max(top - gone, 0), animate=False, force=True)
        self.refresh()

    def _set_lines_shown(self) -> None:
        self.virtual_size = Size(0, len(self._shown) or self._empty.count("\n") + 2)

    def on_mount(self) -> None:
        """Draw what came before there was a screen."""
        self._draw()

    def on_resize(self) -> None:
        """Keep the newest line in view."""
        self._draw()

    def watch_following(self, following: bool) -> None:
        """Say so; the newest line is in view, now and then either way."""
        self._unseen = 0
        self._draw(to_end=True)
        self.post_message(self.FollowChanged(self, following))

    def notify_style_update(self) -> None:
        """Forget the styles of another theme or focus state."""
        self._styles.clear()
        super().notify_style_update()

    # -- Drawing ------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Draw one line of the visible part."""
        # Between two frames lines may have left the ring: what is on the screen stands where it stood.
        moved = 0 if self.following else self._gone
        at = y + self.scroll_offset.y - moved
        on_cursor = not self.following and at == self._cursor - moved
        segments: list[Segment] = []
        if 0 <= at < len(self._shown):
            segments = self._segments(self._shown[at], on_cursor)
        elif not self._shown:
            lines = ["", *self._empty.split("\n")]
            segments = [Segment(_GAP + lines[y] if y < len(lines) else "", self._style("dim", False))]
        return Strip(segments).adjust_cell_length(self.size.width, self._style("", on_cursor))

    def _segments(self, line: FeedLine, on_cursor: bool) -> list[Segment]:
        width = self.scrollable_content_region.width  # without the gutter, which stays free for a scrollbar
        plain = self._style("", on_cursor)
        kind_width = min(max(width // 5, 14), 26)
        parts = [
            (CURSOR, self._style("cursor-bar", True)) if on_cursor else (" ", plain),
            (_fit(*((line.time, 12) if width >= _NARROW else (line.time[:8], 8))), self._style("dim", on_cursor)),
            (_fit(line.kind, kind_width), self._style(line.kind_style or "", on_cursor)),
        ]
        if width >= _NARROW:
            parts.append((_fit(line.source, min(max(width // 8, 9), 16)), plain))
        segments = [Segment(text, style) for text, style in parts]
        room = width - sum(segment.cell_length for segment in segments)
        body = line.body if is_clean(line.body) else clean(line.body)
        segments.append(Segment(fit(body, room), self._style(line.body_style or "", on_cursor)))
        return segments

    def _style(self, names: str, on_cursor: bool) -> Style:
        style = self._styles.get((names, on_cursor))
        if style is None:
            parts = [f"event-feed--{name}" for name in names.split()]
            if on_cursor:  # where the dim colour is hard to read, and in 16 colours is that of the background
                parts = ["event-feed--cursor-dim" if part == "event-feed--dim" else part for part in parts]
            style = self.get_component_rich_style(*parts) if parts else self.rich_style
            if on_cursor:
                style += Style(bgcolor=self.get_component_rich_style("event-feed--cursor").bgcolor)
            self._styles[names, on_cursor] = style
        return style

    # -- Mouse and keys -----------------------------------------------------------------------------------------------

    def on_mouse_scroll_up(self) -> None:
        """Stop following: the user looks at what was."""
        if self.max_scroll_y:
            self.following = False

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on a line, which stops following; a click on the cursor's line opens it."""
        self._draw()
        offset = event.get_content_offset(self)
        at = -1 if offset is None else offset.y + self.scroll_offset.y
        if 0 <= at < len(self._shown):
            event.stop()
            if not self.following and at == self._cursor:
                self.action_select()
            self.following = False
            self._put_cursor(at)

    def _put_cursor(self, at: int) -> None:
        at = min(max(at, 0), max(len(self._shown) - 1, 0))
        self._cursor = at
        top = self.scroll_offset.y
        y = min(max(top, at - self.size.height + 1), at)
        if y != top:
            self.scroll_to(y=y, animate=False, force=True)
        self.refresh()

    def action_select(self) -> None:
        """Open the line under the cursor."""
        line = self.cursor_line
        if line is not None:
            self.post_message(self.Selected(self, line))

    def action_toggle_follow(self) -> None:
        """Stop or start following."""
        self.following = not self.following

    def action_follow(self) -> None:
        """Go to the newest line and follow."""
        self.following = True

    def action_first(self) -> None:
        """Go to the oldest line."""
        self.following = False
        self._put_cursor(0)

    def action_move(self, by: int) -> None:
        """Move the cursor by some lines; up stops following."""
        if by < 0:
            self.following = False
        if not self.following:
            self._draw()
            top = self.scroll_offset.y
            visible = min(max(self._cursor, top), top + max(self.size.height - 1, 0))
            self._put_cursor(visible + by)

    def action_move_page(self, by: int) -> None:
        """Move the cursor by some pages; up stops following."""
        self.action_move(by * max(self.size.height - 1, 1))


def _fit(text: str, width: int) -> str:
    # Text is cleaned where it enters the program; this is the lock behind that door.
    return fit(text if is_clean(text) else clean(text), width) + _GAP
