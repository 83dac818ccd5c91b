"""How a job goes on after its canary: asked when the operator is ready for it, never thrown over what they are at."""

from __future__ import annotations

import contextlib
from typing import ClassVar, Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.operations.errors import OperationError
from console.operations.job import Job
from console.screens.base import clear_notices
from console.text import units
from console.text.safe import clean

Answer = Literal["go", "stop"]


def answer(job: Job, said: Answer | None) -> None:
    """Let a job go on or stop as was said; one that nobody waits for any more is left alone."""
    if not job.asks:
        return
    if said == "go":
        with contextlib.suppress(OperationError):
            job.go_on()
    elif said == "stop":
        job.cancel()


class CanaryDialog(ModalScreen[Answer | None]):
    """Says what became of a canary and asks; None leaves the job waiting.

    Args:
        job: Whose canary it is.
        prod: Whether this is production: the count is typed before the rest is sent.
    """

    CSS_PATH = "../styles/confirm.tcss"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "later", "later", id="canary.later"),
        Binding("y", "go", "go on", id="canary.go"),
        Binding("X", "stop", "stop", id="canary.stop"),
        Binding("left,right", "switch", "switch", show=False, id="canary.switch"),
    ]

    def __init__(self, job: Job, *, prod: bool = False) -> None:
        super().__init__()
        self._job = job
        self._typed = str(job.planned - job.processed) if prod else ""

    def compose(self) -> ComposeResult:
        """What became of it, and the three ways on."""
        job, outcome = self._job, self._job.canary
        left = job.planned - job.processed
        passed = outcome is not None and outcome.passed
        told = clean(outcome.text, limit=300) if outcome is not None else ""
        rest = f"{units.count(left)} {'is' if left == 1 else 'are'} left."
        with Vertical(id="confirm") as box:
            box.border_title = Text(f"canary of job {clean(job.id, limit=20)}")
            yield Static(Text(f"{told}.\n\n{rest}"), id="confirm-text", markup=False)
            if self._typed:
                yield Input(
                    placeholder=f"type {self._typed} to send the rest",
                    id="canary-count",
                    restrict=r"[0-9]*",
                    compact=True,
                )
            sends = f"type {self._typed} and enter sends the rest" if self._typed else "y sends the rest"
            stops = "tab to Stop" if self._typed else "X stops for good"
            yield Static(f"{sends}, {stops}, esc decides later", id="canary-hint", markup=False)
            with Horizontal(id="confirm-buttons"):
                yield Button("Later", id="confirm-no", compact=True)
                yield Button("Stop", id="canary-stop", variant="default" if passed else "primary", compact=True)
                yield Button(
                    f"Send {units.count(left)}", id="confirm-yes", variant="primary" if passed else "default",
                    compact=True, disabled=bool(self._typed),
                )  # fmt: skip

    def on_mount(self) -> None:
        """The focus is on what changes nothing: the box that the count is typed into, or Later."""
        clear_notices(self.app)
        self.query_one("#canary-count" if self._typed else "#confirm-no").focus()

    @property
    def _may_go(self) -> bool:
        return not self._typed or self.query_one("#canary-count", Input).value == self._typed

    @on(Input.Changed)
    def _counted(self) -> None:
        self.query_one("#confirm-yes", Button).disabled = not self._may_go

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_go()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        {"confirm-yes": self.action_go, "canary-stop": self.action_stop}.get(event.button.id or "", self.action_later)()

    def action_later(self) -> None:
        """Leave the job waiting."""
        self.dismiss(None)

    def action_go(self) -> None:
        """Send the rest, if the count was typed where it has to be."""
        if self._may_go:
            self.dismiss("go")
        else:
            self.query_one("#canary-count").focus()

    def action_stop(self) -> None:
        """Send nothing more."""
        self.dismiss("stop")

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
