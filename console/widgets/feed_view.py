"""`FeedView`: the picture of what streams by, without its keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from time import monotonic
from typing import Any, ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from console.text.safe import clean
from console.widgets.feed_paint import COMPONENTS, GAP, FeedLine, FeedPaint, Stamp
from console.widgets.feed_ring import FeedRing
from console.widgets.feed_rows import FeedRows

CAPACITY: Final = 5000
"""Items kept."""

FRAME: Final = 0.1
"""Seconds between two frames."""
PAUSE: Final = 0.01
"""Seconds between two slices of a filter's work."""
REMEMBERED: Final = 500
"""Lines that are not made anew for each frame."""


class FeedView(ScrollView):
    """The newest lines at the bottom, or those that somebody looks at, which stand still.

    Args:
        capacity: Items kept; older ones are dropped.
        empty: What to show when there is no line; may be several lines.
        clock: Seconds of a monotonic clock, for the frame rate.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS)

    following: reactive[bool] = reactive(True, init=False)
    """Whether the newest line is kept in view. While it is not, what is on the screen stands still."""

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
        self.line_of: Callable[[Any], FeedLine] = _itself
        """Makes a line of an item; asked only for what is on the screen."""
        self._ring: FeedRing[Hashable] = FeedRing(capacity)
        self._paint = FeedPaint(self._style)
        self._rows = FeedRows(self._parts_at)
        self._empty = clean(empty, multiline=True)
        self._clock = clock
        self._cursor = 0
        self._unseen = 0
        self._drawn_at = -FRAME
        self._frame: Timer | None = None
        self._ageing: Timer | None = None
        self._sifting: Timer | None = None
        self._wanted: Hashable | None = None  # where the cursor goes once the filter has come to it
        self._styles: dict[tuple[str, bool], Style] = {}
        self._made: dict[Hashable, tuple[FeedLine, list[str]]] = {}

    # -- What it shows ------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """The opposite of `following`."""
        return not self.following

    @property
    def lines(self) -> tuple[FeedLine, ...]:
        """The lines that pass the filter, oldest first."""
        return tuple(self.line_of(item) for item in self._ring.shown)

    @property
    def total(self) -> int:
        """How many items are kept, filtered or not."""
        return len(self._ring.items)

    @property
    def shown(self) -> int:
        """How many of them pass the filter."""
        return len(self._ring.shown)

    @property
    def sifting(self) -> bool:
        """Whether the filter has still to look at some."""
        return bool(self._ring.waiting)

    @property
    def unseen(self) -> int:
        """How many shown lines have come since following stopped."""
        return self._unseen

    @property
    def marked(self) -> tuple[FeedLine, ...]:
        """The marked lines in their order, those that a filter hides too."""
        marks = self._ring.marks
        # What left the ring and is held by the filter alone is older than what is in the ring.
        inside = set(self._ring.items)
        older = [item for item in self._ring.shown if item in marks and item not in inside]
        return tuple(map(self.line_of, (*older, *(item for item in self._ring.items if item in marks))))

    @property
    def mark_count(self) -> int:
        """How many lines are marked."""
        return len(self._ring.marks)

    @property
    def cursor_line(self) -> FeedLine | None:
        """The line that enter opens; the newest one while following."""
        item = self.cursor_item
        return None if item is None else self.line_of(item)

    @property
    def cursor_item(self) -> Hashable | None:
        """What that line is of."""
        shown = self._ring.shown
        if not shown:
            return None
        return shown[-1 if self.following else min(max(self._cursor - self._ring.gone, 0), len(shown) - 1)]

    @property
    def wrap(self) -> bool:
        """Whether long lines go on below."""
        return self._paint.wrap

    @property
    def stamp(self) -> Stamp:
        """How the time is told."""
        return self._paint.stamp

    def extend(self, items: Iterable[Hashable]) -> None:
        """Add items, oldest first; they are drawn with the next frame."""
        new = self._ring.extend(items)
        if not self.following:
            self._unseen += new
        self._sift()
        self._draw_soon()

    def set_filter(self, predicate: Callable[[Any], bool] | None) -> None:
        """Show only the items for which `predicate` is true, those already there included; None shows all.

        A few at a time, so that nothing else has to wait: the oldest show up first.
        """
        held = self.cursor_item
        self._ring.set_filter(predicate)
        self._unseen = 0
        if not self.following:
            shown = self._ring.shown
            at = next((at for at, item in enumerate(shown) if item is held), len(shown) - 1)
            self._set_virtual_size()
            self._put_cursor(at)
            self._wanted = held if self.sifting else None
        self._sift()
        self._draw()

    def set_empty(self, text: str) -> None:
        """What to show when there is no line."""
        self._empty = clean(text, multiline=True)
        self._draw_soon()

    def clear(self) -> None:
        """Forget every line and follow again."""
        self._ring.clear()
        self._made.clear()
        self._unseen = self._cursor = 0
        self.following = True
        self._draw()

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
        gone, self._ring.gone = self._ring.gone, 0
        self._measure()
        if self.following or to_end:
            self._set_virtual_size()
            self._cursor = max(self.shown - 1, 0)
            self.scroll_to(y=self._rows.last_top, animate=False, force=True)
        if not self.following:
            # What the operator reads stays at its height while the ring moves under it.
            top = self.scroll_offset.y
            y = self._rows.hold(top, 0 if to_end else gone)
            self._set_virtual_size()
            if not to_end:
                self._cursor = max(self._cursor - gone, 0)
            if y != top:
                self.scroll_to(y=y, animate=False, force=True)
        self.refresh()

    def _sift(self) -> None:
        """Let the filter go on; between two slices others have their turn."""
        if self._sifting is not None:
            self._sifting.stop()
            self._sifting = None
        new = self._ring.sift()
        if not self.following:
            self._unseen += new
        if self._ring.waiting and self.is_attached:
            self._sifting = self.set_timer(PAUSE, self._sift)
        elif self._wanted is not None and self._wanted in self._ring.shown:
            self._draw()
            self._put_cursor(self._ring.shown.index(self._wanted))
        if new:
            self._draw_soon()

    def _measure(self) -> None:
        width = self.scrollable_content_region.width  # without the gutter, which stays free for a scrollbar
        if width != self._paint.width or len(self._made) > REMEMBERED:
            self._made.clear()
        self._paint.width = width

    def _set_virtual_size(self) -> None:
        self._rows.fit(self.shown, self.size.height, wrapped=self.wrap)
        lines = self._rows.last_top + self.size.height if self.wrap and self.shown else self.shown
        self.virtual_size = Size(0, lines or self._empty.count("\n") + 2)

    def on_mount(self) -> None:
        """Draw what came before there was a screen."""
        self._sift()
        self._draw()

    def on_resize(self) -> None:
        """Keep the newest line in view."""
        self._laid_out_anew()

    def notify_style_update(self) -> None:
        """Forget the styles of another theme or focus state."""
        self._styles.clear()
        super().notify_style_update()

    def _put_cursor(self, at: int) -> None:
        at = min(max(at, 0), max(self.shown - 1, 0))
        self._cursor, self._wanted = at, None
        top = self.scroll_offset.y
        y = self._rows.bring_into_view(at, top)
        if y != top:
            self.scroll_to(y=y, animate=False, force=True)
        self.refresh()

    def _laid_out_anew(self) -> None:
        self._made.clear()
        self._rows.forget()
        self._draw()
        if not self.following:
            self._put_cursor(self._cursor)

    # -- Drawing ------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Draw one line of the visible part."""
        # Between two frames lines may have left the ring: what is on the screen stands where it stood.
        moved = 0 if self.following else self._ring.gone
        at, part = self._rows.at(y, self.scroll_offset.y, moved)
        on_cursor = not self.following and at == self._cursor - moved
        segments: list[Segment] = []
        if 0 <= at < self.shown:
            item = self._ring.shown[at]
            line, parts = self._line(item)
            segments = self._paint.segments(
                line, parts, min(part, len(parts) - 1), on_cursor=on_cursor, marked=item in self._ring.marks
            )
        elif not self._ring.shown:
            lines = ["", *self._empty.split("\n")]
            segments = [Segment(GAP + lines[y] if y < len(lines) else "", self._style("dim", False))]
            on_cursor = False
        return Strip(segments).adjust_cell_length(self.size.width, self._style("", on_cursor))

    def _line(self, item: Hashable) -> tuple[FeedLine, list[str]]:
        made = self._made.get(item)
        if made is None:
            self._measure()
            line = self.line_of(item)
            made = self._made[item] = (line, self._paint.parts(line, self.size.height))
        return made

    def _parts_at(self, at: int) -> int:
        shown = self._ring.shown
        return len(self._line(shown[at])[1]) if 0 <= at < len(shown) else 1

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


def _itself(item: FeedLine) -> FeedLine:
    return item
