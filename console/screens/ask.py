"""A pane that asks for one line."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from console.text.safe import clean


class AskPane(ModalScreen[str | None]):
    """Asks for one line; None if it was left.

    Args:
        question: What is asked.
        proposal: What stands there to begin with; text of others is made safe.
        hint: What may be typed, and what the keys do.
    """

    CSS_PATH = "../styles/ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", id="ask.cancel")]

    def __init__(self, question: str, proposal: str = "", hint: str = "enter goes on, esc cancels") -> None:
        super().__init__()
        self._hint = hint
        self._question = question
        self._proposal = clean(proposal, limit=256)

    def compose(self) -> ComposeResult:
        """One input in a box."""
        with Vertical(id="ask") as box:
            box.border_title = Text(self._question)
            box.border_subtitle = Text(self._hint)
            yield Input(self._proposal, id="ask-input")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        """Leave it."""
        self.dismiss(None)
