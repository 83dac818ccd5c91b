"""What the tables of headless output are made of: columns, lines and numbers as `Text`, every value through `text.safe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from console.text import units
from console.text.safe import clean

Parts = list[RenderableType]
"""What is printed one below the other."""


def table(*headers: str) -> Table:
    """A table without lines; a header that begins with `>` stands on the right, as numbers do."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        right = header.startswith(">")
        found.add_column(
            Text(header.removeprefix(">")), justify="right" if right else "left", no_wrap=True, overflow="ellipsis"
        )
    return found


def line(value: Any, style: str = "", *, limit: int = 1_000) -> Text:
    """A value on one line, safe to show."""
    return Text(clean(str(value), limit=limit), style=style)


def number(value: int | None, style: str = "") -> Text:
    """A zero is a dim dot: what is not zero is what one looks for."""
    return Text("·", style="dim") if value == 0 else Text(units.count(value), style=style if value else "dim")


def fields(named: Mapping[str, Any]) -> Table:
    """Names and values, one below the other; what is missing is a dash."""
    found = Table.grid(padding=(0, 2))
    found.add_column(style="dim", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in named.items():
        found.add_row(line(name), line(value if value not in (None, "") else units.NOTHING))
    return found
