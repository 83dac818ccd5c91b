"""What a `RowTable` shows: rows, cells and columns, and the arithmetic of laying and sorting them.

Plain values and pure functions; the widget that draws them is in `row_table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

GAP: Final = 2
"""Cells between two columns."""


class Cell(NamedTuple):
    """One value of a row. A named tuple, because a frame builds thousands: 0.3 us against 1 us for a dataclass."""

    text: str
    """What is shown: one line, cleaned where it entered the program."""
    style: str | None = None
    """Names from `dim bright good warn bad accent bold`, separated by spaces; None is plain text."""
    sort: Any = None
    """What the row sorts by in this column; None sorts by the text. NaN sorts last in either direction."""

    @property
    def sort_value(self) -> Any:
        """The value this cell sorts by."""
        return self.text if self.sort is None else self.sort


class Row(NamedTuple):
    """One line of a table. The key names it through refresh, sort and filter, and must be unique in its table."""

    key: str
    cells: tuple[Cell, ...]
    """In the order of the columns; missing ones stay empty."""
    glyph: str = ""
    """One character before the first column: a state, or the fold mark of a group."""
    glyph_style: str | None = None
    indent: int = 0
    """Levels of two cells by which the row is moved to the right."""
    variant: str = ""
    """The column set that lays this row out; empty for the table's own."""
    markable: bool = True

    def sort_value(self, index: int) -> Any:
        """What the row sorts by in a column; None if it has no such cell."""
        return self.cells[index].sort_value if index < len(self.cells) else None


class AnyRow(Protocol):
    """What a table shows: a `Row`, or something that makes its cells when they are looked at."""

    @property
    def key(self) -> str:
        """Names it."""
        ...

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of the columns."""
        ...

    @property
    def glyph(self) -> str:
        """Before the first column."""
        ...

    @property
    def glyph_style(self) -> str | None:
        """Of the glyph."""
        ...

    @property
    def indent(self) -> int:
        """Levels to the right."""
        ...

    @property
    def variant(self) -> str:
        """The column set that lays it out."""
        ...

    @property
    def markable(self) -> bool:
        """Whether it can be marked."""
        ...

    def sort_value(self, index: int) -> Any:
        """What it sorts by in a column."""
        ...


R = TypeVar("R", bound=AnyRow)


@dataclass(frozen=True, slots=True)
class Column:
    """How a table lays out and sorts one value of its rows."""

    id: str
    title: str = ""
    width: int = 8
    """Cells wanted; the least a flexible column gets is `min_width`, or else this."""
    _: KW_ONLY
    min_width: int | None = None
    """Cells to which the column shrinks before any column is dropped; None does not shrink."""
    max_width: int | None = None
    """Most cells a flexible column takes."""
    flexible: bool = False
    """Takes the cells that the others leave. One column of a set is flexible."""
    align: Literal["left", "right"] = "left"
    priority: int = 50
    """What does not fit is dropped, lowest priority first, the rightmost of equals first."""
    sortable: bool = True
    reverse_first: bool = False
    """Whether sorting by this column begins with the largest value."""

    @property
    def least(self) -> int:
        """The fewest cells the column is shown with."""
        return self.width if self.min_width is None else min(self.min_width, self.width)


class Placed(NamedTuple):
    """A column with its place on the line."""

    cell: int
    """Which cell of the row."""
    column: Column
    x: int
    width: int


def arrange(columns: Sequence[Column], available: int) -> tuple[Placed, ...]:
    """Choose the columns that fit in `available` cells and give each its width.

    Columns are dropped by priority until the rest fits at its least widths; the last one stays however narrow it gets.
    What is left over grows shrunken columns back to their width, from the left, and then the flexible one.
    """
    chosen = list(range(len(columns)))

    def needed() -> int:
        return sum(columns[index].least for index in chosen) + GAP * (len(chosen) - 1)

    while len(chosen) > 1 and needed() > available:
        chosen.remove(min(chosen, key=lambda index: (columns[index].priority, -index)))
    if not chosen:
        return ()
    widths = {index: columns[index].least for index in chosen}
    spare = available - needed()
    if spare < 0:
        widths[chosen[0]] = max(1, available)
    for index in chosen:
        grown = min(max(spare, 0), columns[index].width - widths[index])
        widths[index] += max(grown, 0)
        spare -= max(grown, 0)
    for index in chosen:
        column = columns[index]
        if column.flexible and spare > 0:
            most = spare if column.max_width is None else max(column.max_width - widths[index], 0)
            grown = min(spare, most)
            widths[index] += grown
            spare -= grown
    placed: list[Placed] = []
    x = 0
    for index in chosen:
        placed.append(Placed(index, columns[index], x, widths[index]))
        x += widths[index] + GAP
    return tuple(placed)


def sort_rows(rows: Sequence[R], index: int, *, reverse: bool) -> tuple[R, ...]:
    """Sort rows by their cell at `index`: numbers before texts, texts without case, rows without a value last."""
    valued: list[tuple[Any, R]] = []
    valueless: list[R] = []
    kinds: set[int] = set()
    for row in rows:
        value = row.sort_value(index)
        if value is None or value == "" or value != value:  # noqa: PLR0124  NaN alone differs from itself
            valueless.append(row)
        else:
            kinds.add(_kind(value))
            valued.append((value.casefold() if isinstance(value, str) else value, row))
    try:
        # One kind is the rule, and sorts three times faster without its rank.
        key = _first if len(kinds) <= 1 else _ranked
        valued.sort(key=key, reverse=reverse)
    except TypeError:
        # Values that cannot be compared: any fixed order is better than none.
        valued.sort(key=lambda pair: (_kind(pair[0]), str(pair[0])), reverse=reverse)
    return (*(row for _, row in valued), *valueless)


def follow(cursor: str | None, before: Sequence[AnyRow], after: Mapping[str, int]) -> str | None:
    """The key that the cursor is on after a change of the rows.

    Args:
        cursor: The key it was on.
        before: The rows as they were.
        after: The keys of the rows as they are, in their order.

    Returns:
        The same key if its row still exists, else that of the next row below which does, else of the next above, else
        of the first row; None when there are no rows.
    """
    if cursor in after:
        return cursor
    place = next((at for at, row in enumerate(before) if row.key == cursor), 0)
    candidates: Iterable[AnyRow] = chain(before[place:], reversed(before[:place]))
    for row in candidates:
        if row.key in after:
            return row.key
    return next(iter(after), None)


def _kind(value: Any) -> int:
    if isinstance(value, int | float):
        return 0
    return 2 if isinstance(value, str) else 1


def _first(pair: tuple[Any, AnyRow]) -> Any:
    return pair[0]


def _ranked(pair: tuple[Any, AnyRow]) -> tuple[int, Any]:
    return _kind(pair[0]), pair[0]
