"""`FilterBar`: the line that `/` opens, which filters what is shown while it is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from console.filters import FilterError, parse
from console.text.safe import clean


class FilterBar(Horizontal):
    """An input that posts `Changed` for every expression that can be read, and says what is wrong with the others."""

    DEFAULT_CSS = """
    FilterBar {
        height: 1;
        display: none;
        background: $panel;
        &.-open { display: block; }
        & > #filter-sign { width: 3; color: $accent; text-style: bold; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
        & > Input:focus { border: none; }
        & > #filter-problem { width: auto; max-width: 60%; height: 1; color: $warning; padding: 0 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", "clear filter", id="filter.clear"),
    ]

    @dataclass
    class Changed(Message):
        """Another expression holds; empty means none."""

        expression: str

    @dataclass
    class Closed(Message):
        """The bar was left: the focus should go back."""

    def compose(self) -> ComposeResult:
        """Sign, input, complaint."""
        yield Static(" / ", id="filter-sign")
        yield Input(id="filter-input", select_on_focus=False)
        yield Static("", id="filter-problem", markup=False)

    @property
    def expression(self) -> str:
        """What stands in it."""
        return self.query_one(Input).value

    def open(self) -> None:
        """Show it and type into it."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def set_expression(self, expression: str) -> None:
        """Put an expression into it, as if it were typed."""
        self.query_one(Input).value = expression

    def action_clear(self) -> None:
        """Drop the filter and close."""
        self.query_one(Input).value = ""
        self._close()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        problem = self.query_one("#filter-problem", Static)
        try:
            if event.value.strip():
                parse(event.value)
        except FilterError as error:
            problem.update(Text(clean(str(error), limit=120)))
            return
        problem.update("")
        self.post_message(self.Changed(event.value.strip()))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._close()

    def _close(self) -> None:
        self.set_class(bool(self.expression.strip()), "-open")
        self.post_message(self.Closed())
