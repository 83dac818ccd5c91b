"""`RowTable`: the table for everything that refreshes.

Textual's DataTable keeps its cursor by position and measures every cell of every change; here a snapshot of rows is
swapped whole, only the visible lines are drawn, and the cursor belongs to a key: after a refresh, a sort or a filter it
is on the same row, at the same height of the screen where there is room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.text.safe import clean
from console.widgets.row_model import AnyRow, Cell, Column, Row, follow, sort_rows
from console.widgets.row_paint import COMPONENTS, PREFIX, STYLE, RowPainter

__all__ = ["Cell", "Column", "Row", "RowTable"]


@dataclass
class _TableMessage(Message):
    table: RowTable

    @property
    def control(self) -> RowTable:
        """The table, for `on` selectors."""
        return self.table


class RowTable(ScrollView, can_focus=True):
    """A table of rows that do not change, with a sticky header, marks, and a cursor that follows its row.

    Args:
        columns: From left to right.
        variants: Other column sets, by the name that a row gives in `Row.variant`; for groups among rows.
        empty: What to show when there are no rows; may be several lines.
        show_header: Whether the titles are shown.
        markable: Whether rows can be marked.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = COMPONENTS
    DEFAULT_CSS = STYLE
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "open", key_display="enter", id="row-table.select"),
        Binding("space", "toggle_mark", "mark", id="row-table.mark"),
        Binding("up,k", "move(-1)", "up", show=False, id="row-table.up"),
        Binding("down,j", "move(1)", "down", show=False, id="row-table.down"),
        Binding("home,g", "move_to_end(-1)", "top", show=False, id="row-table.top"),
        Binding("end,G", "move_to_end(1)", "bottom", show=False, id="row-table.bottom"),
        Binding("pageup,ctrl+b", "move_page(-1)", "page up", show=False, id="row-table.page-up"),
        Binding("pagedown,ctrl+f", "move_page(1)", "page down", show=False, id="row-table.page-down"),
        Binding("v", "mark_range", "mark range", show=False, id="row-table.mark-range"),
        Binding("shift+up", "mark_and_move(-1)", "mark up", show=False, id="row-table.mark-up"),
        Binding("shift+down", "mark_and_move(1)", "mark down", show=False, id="row-table.mark-down"),
        Binding("ctrl+backslash", "clear_marks", "clear marks", show=False, id="row-table.clear-marks"),
        Binding("<", "step_sort(-1)", "sort column left", show=False, id="row-table.sort-left"),
        Binding(">", "step_sort(1)", "sort column right", show=False, id="row-table.sort-right"),
        Binding("o", "reverse_sort", "reverse order", show=False, id="row-table.sort-reverse"),
    ]

    empty: reactive[str] = reactive("", init=False)
    """The text shown when there are no rows."""

    @dataclass
    class Highlighted(_TableMessage):
        """The cursor is on another row, or on none (key None). A refresh that keeps the row posts nothing."""

        key: str | None

    @dataclass
    class Selected(_TableMessage):
        """A row was opened: with enter, or with a click while it had the cursor."""

        key: str

    @dataclass
    class Marked(_TableMessage):
        """The set of marked rows changed."""

        keys: frozenset[str]

    @dataclass
    class Sorted(_TableMessage):
        """The user chose another order."""

        column_id: str
        reverse: bool

    def __init__(
        self,
        *columns: Column,
        variants: Mapping[str, Sequence[Column]] | None = None,
        empty: str = "Nothing here.",
        show_header: bool = True,
        markable: bool = True,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._columns = {column.id: column for column in columns}
        self._paint = RowPainter({**(variants or {}), "": columns}, self._component_style)
        self._header_lines = 1 if show_header else 0
        self._markable = markable
        self._given: tuple[AnyRow, ...] = ()
        self._rows: tuple[AnyRow, ...] = ()
        self._index: dict[str, int] = {}
        self._cursor_key: str | None = None
        self._wanted_key: str | None = None  # outlives the rows: they come back after a lost connection
        self._marks: frozenset[str] = frozenset()
        self._range_start: str | None = None
        self._sort: tuple[str, bool] | None = None
        self._was_used = False
        self.set_reactive(RowTable.empty, clean(empty, multiline=True))

    # -- What it shows ------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> tuple[AnyRow, ...]:
        """The rows in the order shown."""
        return self._rows

    @property
    def cursor_key(self) -> str | None:
        """The key of the row under the cursor; None when there are no rows."""
        return self._cursor_key

    @property
    def cursor_index(self) -> int | None:
        """The position of the cursor among `rows`."""
        return None if self._cursor_key is None else self._index[self._cursor_key]

    @property
    def marks(self) -> frozenset[str]:
        """The keys of the marked rows, of those not shown at the moment too (see `keep_marks`)."""
        return self._marks

    @property
    def sort(self) -> tuple[str, bool] | None:
        """The column sorted by and whether in reverse; None is the order in which the rows were given."""
        return self._sort

    @property
    def visible_columns(self) -> tuple[str, ...]:
        """The ids of the columns that fit."""
        self._paint.set_width(self.scrollable_content_region.width)
        return tuple(placed.column.id for placed in self._paint.layout())

    def set_rows(self, rows: Iterable[AnyRow]) -> None:
        """Show another snapshot, keeping cursor, marks, order and what is at which height of the screen."""
        self._given = tuple(rows)
        self._show()

    def sort_by(self, column_id: str | None, reverse: bool = False) -> None:
        """Sort by a column, now and at every snapshot; None restores the order in which the rows are given.

        Raises:
            KeyError: There is no such column.
        """
        self._sort = None if column_id is None else (self._columns[column_id].id, reverse)
        self._show()
        self.refresh()

    def move_cursor(self, key: str) -> bool:
        """Put the cursor on a row and bring it into view; False when there is no such row."""
        if key not in self._index:
            return False
        self._was_used = True
        self._redraw_row(self._cursor_key)
        self._place_cursor(key)
        self._redraw_row(key)
        self._scroll_to_cursor()
        return True

    def set_marks(self, keys: Iterable[str]) -> None:
        """Mark exactly these rows."""
        marks = frozenset(keys)
        if marks != self._marks:
            for key in marks ^ self._marks:
                self._redraw_row(key)
            self._marks = marks
            self.post_message(self.Marked(self, marks))

    def keep_marks(self, existing: Collection[str]) -> None:
        """Drop the marks of rows that are no more. A filter or a closed group hides rows, and keeps their marks."""
        self.set_marks(key for key in self._marks if key in existing)

    # -- Cursor and scroll --------------------------------------------------------------------------------------------

    @property
    def _page(self) -> int:
        return max(1, self.size.height - self._header_lines)

    def _ordered(self) -> tuple[AnyRow, ...]:
        if self._sort is None:
            return self._given
        column_id, reverse = self._sort
        return sort_rows(self._given, list(self._columns).index(column_id), reverse=reverse)

    def _show(self) -> None:
        before, places, top, cursor = self._rows, self._index, self.scroll_offset.y, self._cursor_key
        rows = self._ordered()
        index = {row.key: at for at, row in enumerate(rows)}
        key = follow(self._wanted_key, before, index)
        # What stays at its height of the screen: the cursor, or the top line when the cursor was scrolled out of view.
        held, height = key, 0
        if cursor is not None:
            height = places[cursor] - top
            if not 0 <= height < self._page and top < len(before) and before[top].key in index:
                held, height = before[top].key, 0
        self._rows, self._index = rows, index
        self._update_virtual_size()
        self._place_cursor(key)
        at = 0 if held is None else index[held]
        # A table that nobody has touched stays at its top, where the worst rows are, while its cursor is in view.
        if self.size.height and (self._was_used or top or at >= self._page):
            self.scroll_to(y=at - height, animate=False, force=True)
        self._redraw_changes(before, top, cursor)

    def _redraw_changes(self, before: tuple[AnyRow, ...], top: int, cursor: str | None) -> None:
        """Redraw the lines that differ: in most refreshes of a large table nearly none of the visible ones does."""
        rows = self._rows
        if len(before) != len(rows) or not rows or self.scroll_offset.y != top:
            self.refresh()
            return
        moved = {cursor, self._cursor_key} if cursor != self._cursor_key else frozenset[str | None]()
        for at in range(top, min(top + self._page, len(rows))):
            if rows[at] != before[at] or rows[at].key in moved:
                self.refresh_line(at + self._header_lines)

    def _redraw_row(self, key: str | None) -> None:
        if key in self._index:
            self.refresh_line(self._index[key] + self._header_lines)

    def _place_cursor(self, key: str | None) -> None:
        self._wanted_key = key or self._wanted_key
        if key != self._cursor_key:
            self._cursor_key = key
            self.post_message(self.Highlighted(self, key))

    def _update_virtual_size(self) -> None:
        lines = len(self._rows) or self.empty.count("\n") + 2
        self.virtual_size = Size(0, lines + self._header_lines)

    def _scroll_to_cursor(self) -> None:
        index, top = self.cursor_index, self.scroll_offset.y
        if index is not None and self.size.height:
            y = min(max(top, index - self._page + 1), index)
            if y != top:
                self.scroll_to(y=y, animate=False, force=True)

    # -- Drawing ------------------------------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        """Forget the styles of another theme or focus state."""
        self._paint.forget_styles()
        super().notify_style_update()

    def validate_empty(self, empty: str) -> str:
        """Keep the text inert."""
        return clean(empty, multiline=True)

    def watch_empty(self) -> None:
        """Make room for the text."""
        self._update_virtual_size()

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self._scroll_to_cursor()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the visible part."""
        # Not in on_resize: a frame may come before it. The gutter stays free for a scrollbar, so that it moves nothing.
        self._paint.set_width(self.scrollable_content_region.width)
        at = y - self._header_lines + self.scroll_offset.y
        on_cursor = False
        if y < self._header_lines:
            segments = self._paint.header(self._sort)
        elif not self._rows:
            segments = self._paint.empty(self.empty, y - self._header_lines)
        elif at < len(self._rows):
            row = self._rows[at]
            on_cursor = row.key == self._cursor_key
            segments = self._paint.row(row, on_cursor=on_cursor, marked=row.key in self._marks)
        else:
            segments = []
        return Strip(segments).adjust_cell_length(self.size.width, self._paint.style(on_cursor=on_cursor))

    def _component_style(self, names: str) -> Style:
        return (
            self.get_component_rich_style(*(f"row-table--{name}" for name in names.split()))
            if names
            else self.rich_style
        )

    # -- Mouse and keys -----------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """Sort by a title, or put the cursor on a row; a click on the cursor's row opens it."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        event.stop()
        if offset.y < self._header_lines:
            for placed in self._paint.layout():
                x = placed.x + PREFIX
                if placed.column.sortable and x - 1 <= offset.x <= x + placed.width:
                    self._choose_sort(placed.column)
            return
        at = offset.y - self._header_lines + self.scroll_offset.y
        if at < len(self._rows):
            if self._rows[at].key == self._cursor_key:
                self.action_select()
            self.move_cursor(self._rows[at].key)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Switch off the mark keys where nothing can be marked."""
        return self._markable if "mark" in action else True

    def action_select(self) -> None:
        """Open the row under the cursor."""
        if self._cursor_key is not None:
            self.post_message(self.Selected(self, self._cursor_key))

    def action_move(self, by: int) -> None:
        """Move the cursor by some rows, down when positive."""
        if self._rows:
            at = min(max((self.cursor_index or 0) + by, 0), len(self._rows) - 1)
            self.move_cursor(self._rows[at].key)

    def action_move_page(self, by: int) -> None:
        """Move the cursor by some pages."""
        self.action_move(by * self._page)

    def action_move_to_end(self, direction: int) -> None:
        """Move the cursor to the first (-1) or the last (1) row."""
        self.action_move(direction * len(self._rows))

    def action_toggle_mark(self) -> None:
        """Mark or unmark the row under the cursor and go to the next."""
        if self._cursor_key is not None:
            self._mark([self._cursor_key], on=self._cursor_key not in self._marks)
            self.action_move(1)

    def action_mark_and_move(self, by: int) -> None:
        """Mark the row under the cursor and move."""
        if self._cursor_key is not None:
            self._mark([self._cursor_key], on=True)
            self.action_move(by)

    def action_mark_range(self) -> None:
        """Mark from the row marked last to the cursor."""
        index = self.cursor_index
        if index is not None:
            low, high = sorted((self._index.get(self._range_start or "", index), index))
            self._mark([row.key for row in self._rows[low : high + 1]], on=True)

    def action_clear_marks(self) -> None:
        """Unmark everything."""
        self.set_marks(())

    def _mark(self, keys: Sequence[str], *, on: bool) -> None:
        markable = {key for key in keys if self._rows[self._index[key]].markable}
        if markable:
            self._range_start = keys[-1]
            self.set_marks(self._marks | markable if on else self._marks - markable)

    def action_step_sort(self, by: int) -> None:
        """Sort by the column to the left (-1) or right (1) of the one sorted by."""
        columns = [placed.column for placed in self._paint.layout() if placed.column.sortable]
        if columns:
            ids = [column.id for column in columns]
            at = ids.index(self._sort[0]) + by if self._sort and self._sort[0] in ids else min(by, 0)
            self._choose_sort(columns[at % len(columns)])

    def action_reverse_sort(self) -> None:
        """Reverse the order."""
        if self._sort:
            self._choose_sort(self._columns[self._sort[0]])
        else:
            self.action_step_sort(1)

    def _choose_sort(self, column: Column) -> None:
        reverse = not self._sort[1] if self._sort and self._sort[0] == column.id else column.reverse_first
        self.sort_by(column.id, reverse)
        self.post_message(self.Sorted(self, column.id, reverse))
