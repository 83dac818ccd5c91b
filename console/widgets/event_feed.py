"""`EventFeed`: a bounded view of what streams by.

Items go into a ring and become lines only when they are on the screen, at most ten times a second, so the cost depends on
the size of the terminal and not on the rate of the events (Textual's own logs render every line they are given).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from console.widgets.feed_paint import STAMPS, STYLE, FeedLine
from console.widgets.feed_view import CAPACITY, FRAME, FeedView

__all__ = ["CAPACITY", "FRAME", "EventFeed", "FeedLine"]


class EventFeed(FeedView, can_focus=True):
    """The newest lines at the bottom; going up stops following them, `G` or `end` follows again.

    Args:
        capacity: Items kept; older ones are dropped.
        empty: What to show when there is no line; may be several lines.
        clock: Seconds of a monotonic clock, for the frame rate.
    """

    DEFAULT_CSS = STYLE
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "open", key_display="enter", id="event-feed.select"),
        Binding("s", "toggle_follow", "follow", id="event-feed.follow"),
        Binding("space", "mark", "mark", key_display="space", show=False, id="event-feed.mark"),
        Binding("ctrl+backslash", "clear_marks", "clear marks", show=False, id="event-feed.clear-marks"),
        Binding("up,k", "move(-1)", "up", show=False, id="event-feed.up"),
        Binding("down,j", "move(1)", "down", show=False, id="event-feed.down"),
        Binding("home,g", "first", "oldest", show=False, id="event-feed.first"),
        Binding("end,G", "follow", "newest", show=False, id="event-feed.last"),
        Binding("pageup,ctrl+b", "move_page(-1)", "page up", show=False, id="event-feed.page-up"),
        Binding("pagedown,ctrl+f", "move_page(1)", "page down", show=False, id="event-feed.page-down"),
    ]

    @dataclass
    class Selected(Message):
        """A line was opened."""

        feed: EventFeed
        line: FeedLine
        item: object
        """What the line is of, as it was given."""

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

    def watch_following(self, following: bool) -> None:
        """Say so; the newest line is in view, now and then either way."""
        self._unseen = 0
        self._draw(to_end=True)
        self.post_message(self.FollowChanged(self, following))

    def on_mouse_scroll_up(self) -> None:
        """Stop following: the user looks at what was."""
        if self.max_scroll_y:
            self.following = False

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on a line, which stops following; a click on the cursor's line opens it."""
        self._draw()
        offset = event.get_content_offset(self)
        at = -1 if offset is None else self._rows.at(offset.y, self.scroll_offset.y, 0)[0]
        if 0 <= at < self.shown:
            event.stop()
            if not self.following and at == self._cursor:
                self.action_select()
            self.following = False
            self._put_cursor(at)

    def action_select(self) -> None:
        """Open the line under the cursor."""
        item = self.cursor_item
        if item is not None:
            self.post_message(self.Selected(self, self.line_of(item), item))

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
            self._put_cursor(self._rows.nearest_visible(self._cursor, self.scroll_offset.y) + by)

    def action_move_page(self, by: int) -> None:
        """Move the cursor by some pages; up stops following."""
        self.action_move(by * self._rows.page(self.scroll_offset.y))

    def action_mark(self) -> None:
        """Mark the line under the cursor, or take its mark away, and go to the next one; stops following."""
        item = self.cursor_item
        if item is not None:
            self.following = False
            self._ring.toggle(item)
            self.action_move(1)

    def action_clear_marks(self) -> None:
        """Take all marks away."""
        self._ring.marks.clear()
        self.refresh()

    def action_toggle_wrap(self) -> None:
        """Let long lines go on below, or cut them at the edge."""
        self._paint.wrap = not self._paint.wrap
        self._laid_out_anew()

    def action_next_stamp(self) -> None:
        """Tell the time otherwise: time of day, date and time, age, not at all."""
        self._paint.stamp = STAMPS[(STAMPS.index(self._paint.stamp) + 1) % len(STAMPS)]
        if self._paint.stamp == "age" and self._ageing is None:
            self._ageing = self.set_interval(1.0, self._draw_soon)
        elif self._paint.stamp != "age" and self._ageing is not None:
            self._ageing.stop()
            self._ageing = None
        self._laid_out_anew()
