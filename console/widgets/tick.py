"""A box to tick that says by its sign, and not by its colour alone, whether it is ticked."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Checkbox

from console.text.safe import clean


class Tick(Checkbox, inherit_bindings=False):
    """`[x]` or `[ ]` and a label. Space ticks; enter is left to the dialog, where it confirms.

    Args:
        label: What is ticked; text of others is made safe.
        value: Whether it is, to begin with.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "toggle_button", "tick", show=False, id="tick.toggle")]

    def __init__(self, label: str, value: bool = False, *, id: str | None = None) -> None:
        self._words = clean(label)
        super().__init__(Content(self._words), value, id=id, compact=True)

    def render(self) -> Content:
        """Sign and label."""
        return Content(f"[{'x' if self.value else ' '}] {self._words}")
