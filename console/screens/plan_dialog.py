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

from console.operations.plan import SAMPLE, Plan
from console.screens.rows import sources_text
from console.text import units
from console.text.safe import clean

LABEL = 8


class PlanDialog(ModalScreen[str | None]):
    """Shows a plan and returns the reason given for it, perhaps an empty one; None if it was not confirmed.

    One item: Enter confirms. Up to a hundred: the focus is on Cancel and `y` confirms. More: the count has to be typed; for
    all of a stream its name. On production a reason has to be given.

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
        verb = self.plan.action.capitalize()
        return verb if self.plan.action in ("pause", "resume") else f"{verb} {self.plan.count}"

    def compose(self) -> ComposeResult:
        """The plan, how to confirm it, and the two buttons."""
        plan = self.plan
        with Vertical(id="plan") as box:
            many = f"{units.count(plan.count)} {plan.noun}{'' if plan.count == 1 else 's'}"
            box.border_title = Text(
                clean(f"{plan.action} {plan.noun if plan.action in ('pause', 'resume') else many}", limit=76)
            )
            with VerticalScroll(id="plan-body", can_focus=False):
                yield Static(self._text(), id="plan-text", markup=False)
            if plan.count and plan.typed:
                restrict = r"[0-9]*" if plan.gate == "count" else None
                yield Input(placeholder=f"type {clean(plan.typed)} to confirm", id="plan-count", restrict=restrict)
            if plan.count and plan.needs_reason:
                yield Input(placeholder="why (required here, it is audited)", id="plan-reason", max_length=200)
            with Horizontal(id="plan-buttons"):
                yield Static(self._hint(), id="plan-hint", markup=False)
                yield Button("Cancel", id="plan-cancel", compact=True)
                yield Button(
                    self.verb, id="plan-confirm", variant="primary", compact=True, disabled=not self._may_confirm()
                )

    def on_mount(self) -> None:
        """The safe choice has the focus, unless one harmless item that can be seen is all there is."""
        inputs = list(self.query(Input))
        if inputs:
            inputs[0].focus()
        elif self.plan.count and self.plan.gate == "enter" and not self._hidden:
            self.query_one("#plan-confirm").focus()
        else:
            self.query_one("#plan-cancel").focus()

    def _value(self, which: str) -> str:
        return next((box.value.strip() for box in self.query(f"#plan-{which}").results(Input)), "")

    def _may_confirm(self) -> bool:
        plan = self.plan
        if not plan.count or (plan.typed and self._value("count") != plan.typed):
            return False
        return not plan.needs_reason or bool(self._value("reason"))

    def _hint(self) -> str:
        if not self.plan.count:
            return "nothing to do"
        what = {
            "enter": "enter or y confirms",
            "key": "y confirms",
            "count": "type the count, then enter",
            "name": "type the stream's name, then enter",
        }[self.plan.gate]
        if self.plan.needs_reason:
            what = f"{what.removesuffix(', then enter')} and say why, then enter" if self.plan.typed else "say why"
        return what

    def _text(self) -> Text:
        plan, text = self.plan, Text()
        dim = self.app.theme_variables["text-muted"]
        warn = self.app.theme_variables["warning"]

        def line(label: str, value: str, style: str = "") -> None:
            text.append(f"{label:<{LABEL}}", dim)
            text.append(value + "\n", style)

        line("chosen", clean(plan.selection))
        if plan.count:
            line("from", sources_text(plan.by_origin))
            if plan.by_destination:
                line("to", sources_text(plan.by_destination))
            line("keeps", plan.keeps)
            if plan.spill is not None:
                line("spill", clean(str(plan.spill), limit=200), dim)
            if plan.count > 1:
                pace = (
                    "as fast as it goes" if plan.rate is None else f"{plan.rate:g}/s, about {units.age(plan.duration)}"
                )
                line("pace", pace)
        if plan.looked and plan.count > 1:
            line("looked", plan.looked.removeprefix("looked "), dim)
        if self._hidden:
            line("hidden", f"{self._hidden} of them are marked but not visible", warn)
        for warning in plan.warnings:
            line("careful", warning, warn)
        self._append_sample(text, dim)
        if plan.skipped:
            text.append("\n")
            line("skipped", f"{len(plan.skipped)}", warn)
            for skip in plan.skipped[:SAMPLE]:
                text.append(f"{skip.seq:>7}  ", dim)
                text.append(f"{clean(skip.reason)}\n")
        if plan.commands:
            text.append("\nroughly the same by hand, for the first:\n", dim)
            text.append(clean(plan.commands[0], limit=400) + "\n", dim)
        return text

    def _append_sample(self, text: Text, dim: str) -> None:
        plan = self.plan
        if plan.sample:
            text.append("\n")
            for sample in plan.sample:
                text.append(f"{sample.seq:>7}  ", dim)
                text.append(f"{clean(sample.type, limit=60)}  {clean(sample.id, limit=60)}")
                text.append(f"  → {clean(sample.destination)}\n" if sample.destination else "\n", dim)
            if plan.count > SAMPLE:
                text.append(f"{'':>7}  and {units.count(plan.count - SAMPLE)} more\n", dim)

    @on(Input.Changed)
    def _typed(self) -> None:
        self.query_one("#plan-confirm", Button).disabled = not self._may_confirm()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._may_confirm():
            self.action_confirm()
        else:
            self.focus_next("Input")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "plan-confirm":
            self.action_confirm()
        else:
            self.action_cancel()

    def action_cancel(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def action_confirm(self) -> None:
        """Do it, if it may be confirmed."""
        if self._may_confirm():
            self.dismiss(self._value("reason") or self.plan.reason)

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
