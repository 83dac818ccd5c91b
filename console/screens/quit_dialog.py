"""Yes or no, with Cancel in the focus; and what is asked before the console is left while a job is running."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.screens.base import clear_notices, job_progress
from console.session import Runtime
from console.text.safe import clean

LOOK = 0.2
"""Seconds between two looks at the jobs: they go on while the question is open."""
TOLD = 5
"""Running jobs that are told one by one."""


class ConfirmDialog(ModalScreen[bool]):
    """Says what will happen and returns whether to do it.

    Args:
        title: What it is about.
        text: What will happen, in a sentence or two.
        verb: What the button that does it says.
        typed: What has to be typed first; nothing if empty.
    """

    CSS_PATH = "../styles/confirm.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="confirm.cancel"),
        Binding("y", "confirm", "confirm", id="confirm.confirm"),
        Binding("left,right", "switch", "switch", show=False, id="confirm.switch"),
    ]

    def __init__(self, title: str, text: str, verb: str, *, typed: str = "") -> None:
        super().__init__()
        self._typed = typed
        self._title = clean(title, limit=70)
        self._words = clean(text, multiline=True)
        self._verb = clean(verb, limit=24)

    def compose(self) -> ComposeResult:
        """What will happen, and the two buttons."""
        with Vertical(id="confirm") as box:
            box.border_title = Text(self._title)
            yield Static(self.text(), id="confirm-text", markup=False)
            if self._typed:
                yield Input(placeholder=f"type {self._typed} to confirm", id="confirm-typed", compact=True)
            with Horizontal(id="confirm-buttons"):
                hint = f"type {self._typed}, then enter" if self._typed else "y confirms, esc cancels"
                yield Static(hint, id="confirm-hint", markup=False)
                yield Button("Cancel", id="confirm-no", compact=True)
                yield Button(self._verb, id="confirm-yes", variant="primary", compact=True, disabled=bool(self._typed))

    def text(self) -> Text:
        """What will happen."""
        return Text(self._words)

    def on_mount(self) -> None:
        """The safe choice has the focus, and no notice covers it."""
        clear_notices(self.app)
        self.query_one("#confirm-typed" if self._typed else "#confirm-no").focus()

    def _may_confirm(self) -> bool:
        return not self._typed or self.query_one("#confirm-typed", Input).value == self._typed

    @on(Input.Changed)
    def _typing(self) -> None:
        self.query_one("#confirm-yes", Button).disabled = not self._may_confirm()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_confirm()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "confirm-yes")

    def action_cancel(self) -> None:
        """Leave it."""
        self.dismiss(False)

    def action_confirm(self) -> None:
        """Do it, if what has to be typed was typed."""
        if self._may_confirm():
            self.dismiss(True)

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")


class QuitDialog(ConfirmDialog):
    """Says what runs and returns whether to quit.

    Args:
        runtime: Whose jobs they are.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("quit while a job is running", "", "Quit")
        self._runtime = runtime

    def on_mount(self) -> None:
        """Keep telling how far they are."""
        self.set_interval(LOOK, self._tell)

    def text(self) -> Text:
        """What runs, and what becomes of it."""
        running = [job_progress(job) for job in self._runtime.jobs if job.running]
        if not running:
            return Text("The job has ended meanwhile: quitting stops nothing.")
        after = (
            "the demo ends with it." if self._runtime.session.demo else "what is left can be resumed later on screen 6."
        )
        if len(running) == 1:
            return Text(f"1 job is running: {running[0]}.\n\nQuit: it stops after the item in work; {after}")
        lines = [f"  {each}" for each in running[:TOLD]]
        if len(running) > TOLD:
            lines.append(f"  and {len(running) - TOLD} more")
        told = "\n".join(lines)
        after = after.replace("with it", "with them")
        return Text(f"{len(running)} jobs are running:\n{told}\n\nQuit: each stops after the item in work; {after}")

    def _tell(self) -> None:
        self.query_one("#confirm-text", Static).update(self.text())
