"""The plan: what an action will do, shown before anything is sent. Every change goes through it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from console.operations.oversight import FEWEST
from console.operations.plan import SAMPLE, Plan
from console.screens.base import clear_notices
from console.screens.rows import sources_text
from console.text import units
from console.text.safe import clean
from console.widgets.tick import Tick

LABEL = 8
BODY = 24
"""Rows of the plan at the most."""
SHORT = 20
"""Below this height the dialog does without its blank lines."""
ROOMY = 30
"""From this height on there is room for a reason that nobody asked for."""
DAY = 43_200.0
"""Seconds from which on the end of a pause needs its day."""
VERBS = {"edit": "Edit and replay"}
HELD = ("pause", "resume")
"""What takes no messages: it has no count, no source and no plural."""


def _whom(holds: Sequence[tuple[str, str]]) -> str:
    return clean(holds[0][1], limit=40) if len(holds) == 1 else f"{len(holds)} consumers"


class PlanDialog(ModalScreen[Plan | None]):
    """Shows a plan and returns it as it was confirmed, with the reason given for it; None if it was not confirmed.

    One item: Enter confirms. Up to a hundred: the focus is on Cancel and `y` confirms. More: the count has to be typed; for
    all of a stream its name. On production a reason has to be given. A large one offers to pause its consumers meanwhile.

    Args:
        plan: What would be done.
        hidden: How many of its items are marked but not visible at the moment.
    """

    CSS_PATH = "../styles/plan_dialog.tcss"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="plan.cancel"),
        Binding("y", "confirm", "confirm", id="plan.confirm"),
        Binding("enter", "enter", "confirm", show=False, id="plan.enter"),
        Binding("left,right", "switch", "switch", show=False, id="plan.switch"),
        Binding("up", "scroll_plan(-1)", "scroll up", show=False, id="plan.up"),
        Binding("down", "scroll_plan(1)", "scroll down", show=False, id="plan.down"),
        Binding("pageup", "scroll_plan(-8)", "page up", show=False, id="plan.page-up"),
        Binding("pagedown", "scroll_plan(8)", "page down", show=False, id="plan.page-down"),
    ]

    def __init__(self, plan: Plan, *, hidden: int = 0) -> None:
        super().__init__()
        self.plan = plan
        self._hidden = hidden

    @property
    def verb(self) -> str:
        """Verb and count, as the button says it."""
        verb = VERBS.get(self.plan.action, self.plan.action.capitalize())
        return verb if self.plan.action in HELD else f"{verb} {units.count(self.plan.count)}"

    def compose(self) -> ComposeResult:
        """The plan, how to confirm it, and the two buttons."""
        plan = self.plan
        with Vertical(id="plan") as box:
            many = f"{units.count(plan.count)} {plan.noun}{'' if plan.count == 1 else 's'}"
            left_out = f", {units.count(len(plan.skipped))} skipped" if plan.skipped else ""
            what = plan.noun if plan.action in HELD else f"{many}{left_out}"
            box.border_title = Text(clean(f"{plan.action} {what}", limit=76))
            with VerticalScroll(id="plan-body", can_focus=False):
                yield Static(self._text(), id="plan-text", markup=False)
            if plan.count and plan.typed:
                restrict = r"[0-9]*" if plan.gate == "count" else None
                told = f"type {clean(plan.typed, limit=60)} to confirm"
                yield Input(placeholder=told, id="plan-count", restrict=restrict, compact=True)
            if plan.offers_hold:
                yield Tick(f"pause {_whom(plan.holds)} meanwhile (tab, space)", plan.hold, id="plan-hold")
            if plan.count and not plan.reason:
                told = "why (required here, it is audited)" if plan.needs_reason else "why (audited; may stay empty)"
                yield Input(placeholder=told, id="plan-reason", max_length=200, compact=True)
            with Horizontal(id="plan-buttons"):
                yield Static(self._hint(), id="plan-hint", markup=False)
                yield Button("Cancel", id="plan-cancel", compact=True)
                yield Button(
                    self.verb, id="plan-confirm", variant="primary", compact=True, disabled=not self._may_confirm()
                )

    def on_mount(self) -> None:
        """The safe choice has the focus, unless one harmless item that can be seen is all there is."""
        # A notice of what was before stands where the buttons are.
        clear_notices(self.app)
        if self.query("#plan-count"):
            self.query_one("#plan-count").focus()
        elif self.plan.count and self.plan.needs_reason:
            self.query_one("#plan-reason").focus()
        elif self.plan.count and self.plan.gate == "enter" and not self._hidden:
            self.query_one("#plan-confirm").focus()
        else:
            self.query_one("#plan-cancel").focus()

    def on_resize(self, event: events.Resize) -> None:
        """What is typed into and the buttons stay in sight: what does not fit of the plan scrolls."""
        height = event.size.height
        short = height < SHORT
        self.set_class(short, "-short")
        for box in self.query("#plan-reason").results(Input):
            box.display = self.plan.needs_reason or height >= ROOMY or bool(box.value) or box.has_focus
        gap = 0 if short else 1
        boxes = sum(box.display for box in self.query("Input, Tick"))
        around = 2 + 2 * gap + (1 + gap) * (boxes + 1)
        room = (height if short else height * 92 // 100) - around
        self.query_one("#plan-body").styles.max_height = max(1, min(BODY, room))
        self.query_one("#plan-text", Static).update(self._text())

    def action_scroll_plan(self, lines: int) -> None:
        """Read the rest of the plan, wherever the focus is."""
        self.query_one("#plan-body", VerticalScroll).scroll_relative(y=lines, animate=False)

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
        if self.plan.typed:
            why = " and why" if self.plan.needs_reason else ""
            return f"type {clean(self.plan.typed, limit=24)}{why}, then enter"
        if self.plan.needs_reason:
            return "say why, then enter"
        return "enter or y confirms" if self.plan.gate == "enter" and not self._hidden else "y confirms"

    def _tell(self, text: str) -> None:
        """Say what is wrong with what was typed, where the hint stands: a notice would cover the buttons."""
        self.query_one("#plan-hint", Static).update(Text(text, self.app.theme_variables["error"]))

    def _chosen(self) -> str:
        """How the items were chosen, in two lines at the most."""
        plan, width = self.plan, min(84, self.app.size.width * 96 // 100) - 6 - LABEL
        text = clean(plan.selection)
        if text == "all":
            text = f"all of {clean(plan.stream)}"
        lines = textwrap.wrap(text, max(width, 20), max_lines=2, placeholder="…", break_on_hyphens=False)
        return f"\n{'':<{LABEL}}".join(lines)

    def _text(self) -> Text:
        plan, text = self.plan, Text()
        dim = self.app.theme_variables["text-muted"]
        warn = self.app.theme_variables["warning"]

        def line(label: str, value: str, style: str = "") -> None:
            text.append(f"{label:<{LABEL}}", dim)
            text.append(value + "\n", style)

        line("chosen", self._chosen())
        if plan.count and plan.action in HELD:
            self._append_held(line)
        elif plan.count:
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
            self._append_care(line)
        if plan.looked and plan.count > 1:
            line("looked", plan.looked.removeprefix("looked "), dim)
        if self._hidden:
            line("hidden", f"{self._hidden} of them are marked but not visible", warn)
        for warning in plan.warnings:
            line("careful", warning, warn)
        self._append_diff(text, dim)
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

    def _append_held(self, line: Callable[[str, str], None]) -> None:
        seconds = float(self.plan.settings.get("seconds") or 0.0)
        if not seconds:
            line("then", "what waits there is delivered again at once")
            return
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        shown = f"{until:%H:%M:%S}" if seconds < DAY else f"{until:%Y-%m-%d %H:%M:%S}"
        line("until", f"{shown} UTC ({units.age(seconds)}), then it goes on by itself")
        line("keeps", self.plan.keeps)

    def _append_care(self, line: Callable[[str, str], None]) -> None:
        plan = self.plan
        if plan.canary is not None:
            rest = "then you are asked (C) before the rest is sent"
            all_of_it = "it is all there is, so nobody is asked"
            line("canary", f"{plan.canary.text}; {rest if plan.count > plan.canary.count else all_of_it}")
        if plan.offers_hold:
            line("offers", f"a pause of {_whom(plan.holds)}: it goes on at the end, or within 60s after a crash")
        if plan.stop_ratio is not None and plan.stop_ratio < 1 and plan.count >= FEWEST:
            line("stops", f"by itself when more than {plan.stop_ratio:.0%} of what it sent died again")
        if plan.edit is not None:
            line("edit", clean(plan.edit.describe(), limit=200))

    def _append_diff(self, text: Text, dim: str) -> None:
        if not self.plan.diff:
            return
        text.append("\nwhat changes in the first:\n" if self.plan.count > 1 else "\nwhat changes:\n", dim)
        styles = {"+": self.app.theme_variables["success"], "-": self.app.theme_variables["error"], "@": dim}
        for changed in self.plan.diff:
            text.append(changed + "\n", styles.get(changed[:1], ""))

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
        self.query_one("#plan-hint", Static).update(self._hint())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        plan = self.plan
        if plan.typed and self._value("count") != plan.typed:
            self._tell(f"that is not {clean(plan.typed, limit=24)}")
            self.query_one("#plan-count").focus()
        elif not self._may_confirm():
            self._tell("a reason is required")
            self.query_one("#plan-reason").focus()
        elif plan.typed or plan.needs_reason:
            self.action_confirm()
        else:
            # A reason that nobody asked for: enter ends it, and does not confirm what asks for more than enter.
            self.query_one("#plan-confirm").focus()

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
            hold = any(box.value for box in self.query(Tick)) if self.plan.offers_hold else self.plan.hold
            self.dismiss(replace(self.plan, reason=self._value("reason") or self.plan.reason, hold=hold))

    def action_enter(self) -> None:
        """Enter on the tick, where no box or button takes it: it ends the ticking, and confirms only what was typed."""
        if not isinstance(self.focused, Tick):
            return
        if self.plan.typed and self._may_confirm():
            self.action_confirm()
        else:
            self.query("Input").first(Input).focus()

    def action_switch(self) -> None:
        """Move between the buttons."""
        self.focus_next("Button")
