"""`TabStrip`: one line that names the screens by their digits, with a count where something waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from console.text import units

_GAPS: Final = (3, 2, 1)


@dataclass(frozen=True, slots=True)
class Tab:
    """A screen in the strip."""

    id: str
    title: str
    """A literal of the program, never a name from outside."""
    key: str = ""
    """The key shown before the title; empty is its number, counted from 1."""


class TabStrip(Widget):
    """The screens, the active one bold and underlined; when the line is too short only the active one keeps its title.

    Args:
        tabs: From left to right.
        active: The id of the active one.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"tab-strip--{part}" for part in ("key", "title", "active-key", "active-title", "count")
    }
    DEFAULT_CSS = """
    TabStrip {
        height: 1;
        width: 1fr;
        & > .tab-strip--key, & > .tab-strip--title { color: $text-muted; }
        & > .tab-strip--active-key { color: $accent; }
        & > .tab-strip--active-title { color: $text; text-style: bold underline; }
        & > .tab-strip--count { color: $error; }
    }
    """

    active: reactive[str] = reactive("")
    """The id of the active tab."""
    counts: reactive[dict[str, int]] = reactive(dict)
    """What waits, by tab id; zero is not shown. Set a new mapping to change it."""

    @dataclass
    class Activated(Message):
        """A tab was clicked."""

        strip: TabStrip
        id: str

        @property
        def control(self) -> TabStrip:
            """The strip, for `on` selectors."""
            return self.strip

    def __init__(self, *tabs: Tab, active: str = "", id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._tabs = tabs
        self.set_reactive(TabStrip.active, active or (tabs[0].id if tabs else ""))

    def render(self) -> Text:
        """Draw every tab, in the roomiest way that fits."""
        text = Text(no_wrap=True, end="")
        end = 0
        for tab, start, parts in self._placed():
            text.append(" " * (start - end))
            end = start
            prefix = "active-" if tab.id == self.active else ""
            for content, style in zip(parts, (f"{prefix}key", f"{prefix}title", "count"), strict=True):
                lead = " " if end > start and content else ""
                text.append(lead)
                text.append(content, self.get_component_rich_style(f"tab-strip--{style}"))
                end += len(lead + content)
        return text

    def on_click(self, event: events.Click) -> None:
        """Tell which tab was clicked."""
        offset = event.get_content_offset(self)
        if offset is not None:
            for tab, start, parts in self._placed():
                if start <= offset.x < start + _length(parts):
                    event.stop()
                    self.post_message(self.Activated(self, tab.id))

    def _placed(self) -> list[tuple[Tab, int, tuple[str, str, str]]]:
        """Every tab with its first cell and its key, title and count."""
        full = [self._parts(at, tab, titled=True) for at, tab in enumerate(self._tabs)]
        brief = [self._parts(at, tab, titled=tab.id == self.active) for at, tab in enumerate(self._tabs)]
        choices = [(parts, gap) for parts in (full, brief) for gap in _GAPS]
        needed = [1 + sum(map(_length, parts)) + gap * (len(parts) - 1) for parts, gap in choices]
        fitting = (choice for choice, cells in zip(choices, needed, strict=True) if cells <= self.size.width)
        parts_of, gap = next(fitting, choices[-1])
        placed = []
        x = 1
        for tab, parts in zip(self._tabs, parts_of, strict=True):
            placed.append((tab, x, parts))
            x += _length(parts) + gap
        return placed

    def _parts(self, at: int, tab: Tab, *, titled: bool) -> tuple[str, str, str]:
        waiting = self.counts.get(tab.id, 0)
        return (
            tab.key or str(at + 1),
            tab.title if titled else "",
            units.count(waiting, compact=True) if waiting else "",
        )


def _length(parts: tuple[str, str, str]) -> int:
    shown = [part for part in parts if part]
    return sum(map(len, shown)) + max(len(shown) - 1, 0)
