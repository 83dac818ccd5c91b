"""`?`: the keys that work right now, generated from the live bindings of the screen it was opened on."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from console.text.safe import clean


class HelpPane(ModalScreen[None]):
    """A list of keys.

    Args:
        screen: The screen whose bindings are told.
        note: What to say first, such as why nothing can be changed.
    """

    CSS_PATH = "../styles/inspect.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "close", "close", key_display="esc", id="help.close"),
    ]

    def __init__(self, screen: Screen[object], note: str = "") -> None:
        super().__init__()
        self._rows = _rows(screen)
        self._note = note

    def compose(self) -> ComposeResult:
        """A scrolling text."""
        with VerticalScroll(id="inspect") as box:
            box.border_title = "keys"
            box.border_subtitle = "esc closes"
            yield Static(self._text(), id="inspect-text", markup=False)

    def on_mount(self) -> None:
        """Let arrows scroll."""
        self.query_one("#inspect").focus()

    def _text(self) -> Text:
        text = Text(f"{clean(self._note)}\n\n" if self._note else "")
        accent, dim = self.app.theme_variables["accent"], self.app.theme_variables["text-muted"]
        for section, rows in self._rows:
            text.append(f"{section}\n", dim)
            for keys, description in rows:
                text.append(f"  {keys:<22}", accent)
                text.append(f"{description}\n")
            text.append("\n")
        return text

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss()


def _rows(screen: Screen[object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of keys and what they do, one row an action."""
    sections: dict[str, dict[str, tuple[list[str], str]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        # Keys without an id are Textual's own plumbing (scrolling a pane, moving the focus).
        if not binding.description or not binding.id:
            continue
        section = "this screen" if active.node is screen else "everywhere" if active.node is screen.app else "list"
        keys, _ = sections.setdefault(section, {}).setdefault(binding.action, ([], binding.description))
        shown = clean(screen.app.get_key_display(binding), limit=20)
        if shown not in keys:
            keys.append(shown)
    return [
        (section, [(" ".join(keys), clean(description)) for keys, description in sections[section].values()])
        for section in ("this screen", "list", "everywhere")
        if section in sections
    ]
