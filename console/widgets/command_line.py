"""`CommandLine`: the line that `:` opens, which takes a command and says what is wrong with it."""

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

from console.text.safe import clean


class CommandLine(Horizontal):
    """An input that posts `Submitted`; whoever takes the command closes it, or complains and leaves it open.

    Args:
        hint: What may be typed, shown while nothing is.
    """

    DEFAULT_CSS = """
    CommandLine {
        height: 1;
        display: none;
        background: $panel;
        &.-open { display: block; }
        & > #command-sign { width: 3; color: $accent; text-style: bold; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
        & > Input:focus { border: none; }
        & > #command-problem { width: auto; max-width: 60%; height: 1; color: $warning; padding: 0 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="command.close"),
    ]

    @dataclass
    class Submitted(Message):
        """A command was entered."""

        line: CommandLine
        command: str

    @dataclass
    class Closed(Message):
        """The line was left: the focus should go back."""

    def __init__(self, hint: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Sign, input, complaint."""
        yield Static(" : ", id="command-sign")
        yield Input(id="command-input", placeholder=self._hint, select_on_focus=False)
        yield Static("", id="command-problem", markup=False)

    def open(self) -> None:
        """Show it, empty, and type into it."""
        self.query_one(Input).value = ""
        self.complain("")
        self.add_class("-open")
        self.query_one(Input).focus()

    def complain(self, problem: str) -> None:
        """Say what is wrong with the command; it stays there to be mended."""
        self.query_one("#command-problem", Static).update(Text(clean(problem, limit=120)))

    def action_close(self) -> None:
        """Leave it."""
        self.remove_class("-open")
        self.post_message(self.Closed())

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.complain("")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if command := event.value.strip():
            self.post_message(self.Submitted(self, command))
        else:
            self.action_close()
