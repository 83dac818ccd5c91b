"""`KeyHints`: the bottom line, made from the bindings that work at the moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.screen import Screen
from textual.widget import Widget

from console.text.safe import clean

_GAP: Final = 3


class _Hint(NamedTuple):
    key: str
    """The key that a click presses."""
    display: str
    description: str
    enabled: bool

    @property
    def cells(self) -> int:
        return cell_len(self.display) + 1 + cell_len(self.description)


class KeyHints(Widget):
    """The keys with `show=True` of the focused widget, its screen and the app, as many as fit.

    One key is shown for each action, the nearest to the focus first.

    Args:
        keep: Keys whose hints stay, at the end, when the line is too short for all.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-hints--key", "key-hints--description", "key-hints--disabled"}
    DEFAULT_CSS = """
    KeyHints {
        dock: bottom;
        height: 1;
        width: 1fr;
        background: $footer-background;
        & > .key-hints--key { color: $footer-key-foreground; text-style: bold; }
        & > .key-hints--description { color: $footer-description-foreground; }
        & > .key-hints--disabled { color: $text-disabled; }
    }
    """

    def __init__(
        self, *, keep: Collection[str] = ("question_mark",), id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._keep = frozenset(keep)

    def on_mount(self) -> None:
        """Listen for a change of the bindings: of focus, screen, keymap or of what an action allows."""
        self.screen.bindings_updated_signal.subscribe(self, self._on_bindings_updated)

    def _on_bindings_updated(self, _screen: Screen[object]) -> None:
        self.refresh()

    def render(self) -> Text:
        """Draw what fits."""
        text = Text(" ", no_wrap=True, end="")
        for at, hint in enumerate(self._fitting()):
            text.append(" " * (_GAP if at else 0))
            style = "key" if hint.enabled else "disabled"
            text.append(hint.display, self.get_component_rich_style(f"key-hints--{style}"))
            style = "description" if hint.enabled else "disabled"
            text.append(f" {hint.description}", self.get_component_rich_style(f"key-hints--{style}"))
        return text

    def on_click(self, event: events.Click) -> None:
        """Press the key that was clicked."""
        offset = event.get_content_offset(self)
        x = 1
        for hint in self._fitting():
            if offset is not None and hint.enabled and x <= offset.x < x + hint.cells:
                event.stop()
                self.app.simulate_key(hint.key)
            x += hint.cells + _GAP

    def _hints(self) -> list[_Hint]:
        hints: dict[str, _Hint] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and binding.description and binding.action not in hints:
                hints[binding.action] = _Hint(binding.key, self._display(binding), binding.description, active.enabled)
        return list(hints.values())

    def _display(self, binding: Binding) -> str:
        # The keymap comes from the user's settings.
        return clean(self.app.get_key_display(binding), limit=20)

    def _fitting(self) -> list[_Hint]:
        hints = self._hints()
        room = self.size.width - 2
        if _cells(hints) <= room:
            return hints
        kept = [hint for hint in hints if hint.key in self._keep]
        fitting: list[_Hint] = []
        for hint in hints:
            if hint.key in self._keep:
                continue
            if _cells([*fitting, hint, *kept]) > room:
                break
            fitting.append(hint)
        return [*fitting, *kept]


def _cells(hints: list[_Hint]) -> int:
    return sum(hint.cells for hint in hints) + _GAP * max(len(hints) - 1, 0)
