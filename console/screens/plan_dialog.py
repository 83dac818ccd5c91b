"""The plan: what an action will do, shown before anything is sent. Every change goes through it."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.letters import cleaned
from console.operations.plan import SAMPLE, Plan
from console.screens.rows import sources_text
from console.text import units
from console.text.safe import clean

LABEL = 8


class PlanDialog(ModalScreen[bool]):
    """Shows a plan and returns whether it was confirmed.

    One item: Enter confirms. Up to a hundred: the focus is on Cancel and `y` confirms. More: the count has to be typed.

    Args:
        plan: What would be done.
        hidden: How many of its items are marked but not visible at the moment.
    """

    CSS_PATH = "../styles/plan_dialog.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="plan.cancel"),
        Binding("y", "confirm", "confirm", id="plan.confirm"),
        Binding("left,right", "switch", "switch", show=False, id="plan.switch"),
    ]

    def __init__(self, plan: Plan, *, hidden: int = 0) -> None:
        super().__init__()
        self.plan = plan
        self._hidden = hidden

    @property
    def verb(self) -> str:
        """Verb and count, as the button says it."""
        return f"{self.plan.action.capitalize()} {self.plan.count}"

    def compose(self) -> ComposeResult:
        """The plan, how to confirm it, and the two buttons."""
        with Vertical(id="plan") as box:
            noun = "dead letter" if self.plan.count == 1 else "dead letters"
            box.border_title = Text(f"{self.plan.action} {units.count(self.plan.count)} {noun}")
            with VerticalScroll(id="plan-body", can_focus=False):
                yield Static(self._text(), id="plan-text", markup=False)
            if self.plan.count and self.plan.gate == "count":
                yield Input(placeholder=f"type {self.plan.count} to confirm", id="plan-count", restrict=r"[0-9]*")
            with Horizontal(id="plan-buttons"):
                yield Static(self._hint(), id="plan-hint", markup=False)
                yield Button("Cancel", id="plan-cancel", compact=True)
                yield Button(
                    self.verb, id="plan-confirm", variant="primary", compact=True, disabled=not self._may_confirm()
                )

    def on_mount(self) -> None:
        """The safe choice has the focus, unless one harmless item that can be seen is all there is."""
        if self.plan.count and self.plan.gate == "count":
            self.query_one("#plan-count").focus()
        elif self.plan.count and self.plan.gate == "enter" and not self._hidden:
            self.query_one("#plan-confirm").focus()
        else:
            self.query_one("#plan-cancel").focus()

    def _may_confirm(self) -> bool:
        if not self.plan.count:
            return False
        if self.plan.gate != "count":
            return True
        inputs = self.query("#plan-count").results(Input)
        return any(box.value == str(self.plan.count) for box in inputs)

    def _hint(self) -> str:
        if not self.plan.count:
            return "nothing to do"
        return {"enter": "enter or y confirms", "key": "y confirms", "count": "type the count, then enter"}[
            self.plan.gate
        ]

    def _text(self) -> Text:
        plan, text = self.plan, Text()
        dim = self.app.theme_variables["text-muted"]
        warn = self.app.theme_variables["warning"]

        def line(label: str, value: str, style: str = "") -> None:
            text.append(f"{label:<{LABEL}}", dim)
            text.append(value + "\n", style)

        line("chosen", clean(plan.selection))
        if plan.items:
            line("from", sources_text(plan.by_origin))
            line("to", sources_text(plan.by_destination))
            line("keeps", "each letter until the server has confirmed its replay")
            if plan.count > 1:
                line("pace", f"{plan.rate:g}/s, about {units.age(plan.duration)}")
        if self._hidden:
            line("hidden", f"{self._hidden} of them are marked but not visible", warn)
        for warning in plan.warnings:
            line("careful", warning, warn)
        if plan.items:
            text.append("\n")
            for item in plan.items[:SAMPLE]:
                safe = cleaned(item.letter)
                text.append(f"{safe.seq:>7}  ", dim)
                text.append(f"{safe.type}  {safe.id}")
                text.append(f"  → {clean(item.destination)}\n", dim)
            if plan.count > SAMPLE:
                text.append(f"{'':>7}  and {units.count(plan.count - SAMPLE)} more\n", dim)
        if plan.skipped:
            text.append("\n")
            line("skipped", f"{len(plan.skipped)}", warn)
            for skip in plan.skipped[:SAMPLE]:
                text.append(f"{skip.seq:>7}  ", dim)
                text.append(f"{clean(skip.reason)}\n")
        if commands := plan.nats_commands():
            text.append("\nroughly the same by hand, for the first:\n", dim)
            text.append(clean(commands[0], limit=400) + "\n", dim)
        return text

    @on(Input.Changed, "#plan-count")
    def _typed(self) -> None:
        self.query_one("#plan-confirm", Button).disabled = not self._may_confirm()

    @on(Input.Submitted, "#plan-count")
    def _submitted(self) -> None:
        self.action_confirm()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "plan-confirm":
            self.action_confirm()
        else:
            self.action_cancel()

    def action_cancel(self) -> None:
        """Do nothing."""
        self.dismiss(False)

    def action_confirm(self) -> None:
        """Do it, if it may be confirmed."""
        if self._may_confirm():
            self.dismiss(True)

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
