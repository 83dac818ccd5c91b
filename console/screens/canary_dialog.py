"""How a job goes on after its canary: asked when the operator is ready for it, never thrown over what they are at."""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from console.operations.job import Job
from console.operations.oversight import WAITS
from console.screens.base import clear_notices
from console.text import units
from console.text.safe import clean

Answer = Literal["go", "stop"]


def waits_for_answer(job: Job) -> bool:
    """Whether a job has sent its canary and waits to be told how it goes on."""
    return job.state == "paused" and job.phase == WAITS and not job.cancelled.is_set()


class CanaryDialog(ModalScreen[Answer | None]):
    """Says what became of a canary and asks; None leaves the job waiting.

    Args:
        job: Whose canary it is.
    """

    CSS_PATH = "../styles/confirm.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "later", "later", id="canary.later"),
        Binding("y", "go", "go on", id="canary.go"),
        Binding("X", "stop", "stop", id="canary.stop"),
        Binding("left,right", "switch", "switch", show=False, id="canary.switch"),
    ]

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def compose(self) -> ComposeResult:
        """What became of it, and the three ways on."""
        job, outcome = self._job, self._job.canary
        left = units.count(job.planned - job.processed)
        with Vertical(id="confirm") as box:
            box.border_title = Text(f"canary of job {clean(job.id, limit=20)}")
            told = outcome.text if outcome is not None else ""
            yield Static(Text(f"{clean(told, limit=300)}.\n\n{left} are left."), id="confirm-text", markup=False)
            with Horizontal(id="confirm-buttons"):
                yield Static("y goes on, X stops, esc later", id="confirm-hint", markup=False)
                yield Button("Later", id="confirm-no", compact=True)
                yield Button("Stop", id="canary-stop", compact=True)
                yield Button(f"Send {left}", id="confirm-yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        """The focus is on what changes nothing."""
        clear_notices(self.app)
        self.query_one("#confirm-no").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        {"confirm-yes": self.action_go, "canary-stop": self.action_stop}.get(event.button.id or "", self.action_later)()

    def action_later(self) -> None:
        """Leave the job waiting."""
        self.dismiss(None)

    def action_go(self) -> None:
        """Send the rest."""
        self.dismiss("go")

    def action_stop(self) -> None:
        """Send nothing more."""
        self.dismiss("stop")

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
