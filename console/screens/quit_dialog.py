"""Asked before the console is left while a job is running: leaving stops it."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from console.screens.base import job_progress
from console.session import Runtime

LOOK = 0.2
"""Seconds between two looks at the job: it goes on while the question is open."""


class QuitDialog(ModalScreen[bool]):
    """Says what runs and returns whether to quit.

    Args:
        runtime: Whose job it is.
    """

    CSS = """
    QuitDialog {
        align: center middle;
        background: $background 60%;
        & #quit {
            width: 76;
            max-width: 96%;
            height: auto;
            max-height: 92%;
            border: round $accent;
            border-title-color: $text;
            border-title-style: bold;
            background: $surface;
            padding: 1 2;
        }
        & #quit-text { width: 1fr; height: auto; }
        & #quit-buttons { height: 1; margin: 1 0 0 0; align-horizontal: right; }
        & #quit-hint { width: 1fr; color: $text-muted; }
        & #quit-buttons Button { margin: 0 0 0 2; }
        & #quit-buttons Button, & #quit-buttons Button:hover {
            background: $panel;
            color: $foreground;
            text-style: none;
        }
        & #quit-buttons Button:focus {
            background: $accent;
            color: $background;
            text-style: bold;
            background-tint: transparent;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="quit.cancel"),
        Binding("y", "confirm", "quit", id="quit.confirm"),
        Binding("left,right", "switch", "switch", show=False, id="quit.switch"),
    ]

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    def compose(self) -> ComposeResult:
        """What runs, and the two buttons."""
        with Vertical(id="quit") as box:
            box.border_title = Text("quit while a job is running")
            yield Static(self._text(), id="quit-text", markup=False)
            with Horizontal(id="quit-buttons"):
                yield Static("y quits, esc cancels", id="quit-hint", markup=False)
                yield Button("Cancel", id="quit-cancel", compact=True)
                yield Button("Quit", id="quit-confirm", variant="primary", compact=True)

    def on_mount(self) -> None:
        """The safe choice has the focus."""
        self.query_one("#quit-cancel").focus()
        self.set_interval(LOOK, self._tell)

    def _text(self) -> Text:
        job = self._runtime.busy
        if job is None:
            return Text("The job has ended meanwhile: quitting stops nothing.")
        return Text(
            f"1 job is running: {job_progress(job)}.\n\n"
            "Quit: it stops after the item in work and can be resumed on screen 6."
        )

    def _tell(self) -> None:
        self.query_one("#quit-text", Static).update(self._text())

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "quit-confirm")

    def action_cancel(self) -> None:
        """Stay."""
        self.dismiss(False)

    def action_confirm(self) -> None:
        """Quit."""
        self.dismiss(True)

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
