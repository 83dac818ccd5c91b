"""How a line of a `RowTable` is drawn; knows columns, rows and styles, and nothing of keys, scrolling and snapshots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from console.text.safe import clean, fit, is_clean
from console.widgets.row_model import GAP, AnyRow, Column, Placed, arrange

MARK: Final = "\u25a0"
CURSOR: Final = "\u258e"
"""Before the cursor's line: in 16 colours, and to some eyes, its background alone does not show."""

PREFIX: Final = 3
"""Cells before the first column: a margin, the glyph, a space."""

_ASCENDING: Final = "\u25b2"
_DESCENDING: Final = "\u25bc"
_SPACES: Final = " " * GAP
_DIM: Final = re.compile(r"\bdim\b")


COMPONENTS: Final = {
    f"row-table--{part}"
    for part in ("dim", "bright", "good", "warn", "bad", "accent", "bold", "header", "mark", "empty")
} | {"row-table--cursor", "row-table--cursor-bar", "row-table--cursor-dim"}
"""The component classes of the table, which a theme or a style sheet may change."""

STYLE: Final = """
RowTable {
    height: 1fr;
    overflow-x: hidden;
    overflow-y: auto;
    scrollbar-gutter: stable;
    scrollbar-size-vertical: 1;
    & > .row-table--dim, & > .row-table--empty { color: $text-muted; }
    & > .row-table--bright { color: $text; }
    & > .row-table--good { color: $success; }
    & > .row-table--warn { color: $warning; }
    & > .row-table--bad { color: $error; }
    & > .row-table--accent, & > .row-table--mark { color: $accent; }
    & > .row-table--bold { text-style: bold; }
    & > .row-table--header { color: $text-muted; text-style: bold; }
    & > .row-table--cursor { background: $block-cursor-blurred-background; }
    & > .row-table--cursor-bar { color: $text-muted; }
    & > .row-table--cursor-dim { color: $foreground 60%; }
    &:focus > .row-table--cursor-bar { color: $accent; }
    &:focus > .row-table--cursor { background: $block-cursor-background; }
}
"""


class RowPainter:
    """Lays rows out and draws them.

    Args:
        columns: The column sets, by the name of the variant of a row; the empty name is the table's own.
        style_of: Gives the style of a component, by its name.
    """

    def __init__(self, columns: Mapping[str, Sequence[Column]], style_of: Callable[[str], Style]) -> None:
        self._columns = columns
        self._style_of = style_of
        self._width = 0
        self._layouts: dict[tuple[str, int], tuple[Placed, ...]] = {}
        self._styles: dict[tuple[str, bool], Style] = {}

    def set_width(self, width: int) -> None:
        """Lay out for this many cells from now on."""
        if width != self._width:
            self._width = width
            self._layouts.clear()

    def forget_styles(self) -> None:
        """Ask for the styles again, which another theme or the focus has changed."""
        self._styles.clear()

    def layout(self, variant: str = "", indent: int = 0) -> tuple[Placed, ...]:
        """The columns that fit, with their places counted from the end of the prefix."""
        known = self._layouts.get((variant, indent))
        if known is None:
            known = arrange(self._columns[variant], self._width - PREFIX - 2 * indent)
            self._layouts[variant, indent] = known
        return known

    def style(self, names: str | None = None, *, on_cursor: bool = False) -> Style:
        """The style of a cell that asks for these names, all of which must be components of the table."""
        names = names or ""
        style = self._styles.get((names, on_cursor))
        if style is None:
            # On the cursor's background the dim colour is hard to read, and in 16 colours they are the same.
            style = self._style_of(_DIM.sub("cursor-dim", names) if on_cursor else names)
            if on_cursor:
                style += Style(bgcolor=self._style_of("cursor").bgcolor)
            self._styles[names, on_cursor] = style
        return style

    def header(self, sort: tuple[str, bool] | None) -> list[Segment]:
        """The titles, with the sign of the order behind the one sorted by."""
        sorted_id, reverse = sort or ("", False)
        parts = [" " * PREFIX]
        for placed in self.layout():
            column, width = placed.column, placed.width
            sign = (_DESCENDING if reverse else _ASCENDING) if column.id == sorted_id else ""
            if sign and column.align == "left" and cell_len(column.title) + 2 <= width:
                parts.append(fit(f"{column.title} {sign}", width + GAP))
            else:
                # In the gap, so that the sign never costs the title a letter.
                parts.append(fit(column.title, width, column.align) + fit(sign, GAP))
        return [Segment("".join(parts), self.style("header"))]

    def row(self, row: AnyRow, *, on_cursor: bool, marked: bool) -> list[Segment]:
        """One row: margin, glyph and cells. A mark takes the place of a missing glyph, or else the margin."""
        margin, margin_style = (CURSOR, self.style("cursor-bar", on_cursor=True)) if on_cursor else (" ", self.style())
        glyph, glyph_style = row.glyph or " ", self.style(row.glyph_style, on_cursor=on_cursor)
        if marked:
            mark_style = self.style("mark", on_cursor=on_cursor)
            if row.glyph:
                margin, margin_style = MARK, mark_style
            else:
                glyph, glyph_style = MARK, mark_style
        segments = [
            Segment(margin + "  " * row.indent, margin_style),
            Segment(fit(_inert(glyph), 1) + " ", glyph_style),
        ]
        cells = row.cells
        for placed in self.layout(row.variant, row.indent):
            if placed.cell < len(cells):
                text, names, _ = cells[placed.cell]
                text = fit(_inert(text), placed.width, placed.column.align)
            else:
                text, names = " " * placed.width, None
            segments.append(Segment(text + _SPACES, self.style(names, on_cursor=on_cursor)))
        return segments

    def empty(self, text: str, line: int) -> list[Segment]:
        """One line of what stands where there are no rows, below a blank one."""
        lines = text.split("\n")
        return [Segment(" " * PREFIX + (lines[line - 1] if 1 <= line <= len(lines) else ""), self.style("empty"))]


def _inert(text: str) -> str:
    # Text is cleaned where it enters the program; this is the lock behind that door (0.1 us for plain ASCII).
    return text if is_clean(text) else clean(text)
