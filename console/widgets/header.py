"""`ConsoleHeader`: the top line. Where the console is connected, how fresh what it shows is, and what needs attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from console.text import units
from console.text.safe import clean, fit

_LEFT_GAP: Final = 2
_RIGHT_GAP: Final = 3
_NAME_LIMIT: Final = 24
_SERVER_LIMIT: Final = 32
_ALWAYS: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderState:
    """What the header says. Names from outside need not be cleaned before."""

    app: str = "agent-console"
    context: str = ""
    """The nats context, or `demo`."""
    context_style: Literal["bold", "good", "warn", "bad", "accent"] = "bold"
    """The colour of the environment: `bad` for production, say."""
    server: str = ""
    """Host and port."""
    version: str = ""
    """Of nats-server."""
    rtt_s: float | None = None
    link: Literal["live", "stale", "paused", "connecting", "offline"] = "connecting"
    age_s: float | None = None
    """Age of the snapshot shown."""
    findings: int = 0
    critical: bool = False
    """Whether a finding is critical."""
    dead_letters: int | None = None
    """None where they cannot be counted."""
    job: str = ""
    """The running job, in a few words."""
    writable: bool | None = None
    """None while it is not known."""


class _Part(NamedTuple):
    text: str
    style: str
    keep: int = _ALWAYS


_LINKS: Final = {
    "live": ("\u25cf live", "good"),
    "stale": ("\u25cb stale", "bad"),
    "paused": ("\u2016 paused", "warn"),
    "connecting": ("\u25cb connecting", "dim"),
    "offline": ("\u2716 offline", "bad"),
}


class ConsoleHeader(Widget):
    """One line: identity on the left, freshness and alarms on the right; what does not fit drops by importance."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"console-header--{part}" for part in ("chip", "bold", "dim", "good", "warn", "bad", "accent")
    }
    DEFAULT_CSS = """
    ConsoleHeader {
        dock: top;
        height: 1;
        width: 1fr;
        background: $panel;
        color: $foreground;
        & > .console-header--chip { background: $accent; color: $background; text-style: bold; }
        & > .console-header--bold { color: $text; text-style: bold; }
        & > .console-header--dim { color: $text-muted; }
        & > .console-header--good { color: $success; }
        & > .console-header--warn { color: $warning; }
        & > .console-header--bad { color: $error; text-style: bold; }
        & > .console-header--accent { color: $accent; }
    }
    """

    state: reactive[HeaderState] = reactive(HeaderState())
    """What it says; set a new one to change it."""

    def render(self) -> Text:
        """Draw what fits."""
        left, right = _left(self.state), _right(self.state)
        width = self.size.width
        while _width(left, _LEFT_GAP) + _width(right, _RIGHT_GAP) + _RIGHT_GAP > width:
            droppable = [part for side in (left, right) for group in side for part in group if part.keep < _ALWAYS]
            if not droppable:
                break
            least = min(droppable, key=lambda part: part.keep)
            left, right = _without(left, least), _without(right, least)
        text = Text(no_wrap=True, end="")
        for at, group in enumerate(left):
            text.append(" " * (_LEFT_GAP if at else 0))
            self._append(text, group)
        text.append(" " * max(width - _width(left, _LEFT_GAP) - _width(right, _RIGHT_GAP) - 1, 1))
        for at, group in enumerate(right):
            text.append(" " * (_RIGHT_GAP if at else 0))
            self._append(text, group)
        return text

    def _append(self, text: Text, group: list[_Part]) -> None:
        for part in group:
            text.append(part.text, self.get_component_rich_style(f"console-header--{part.style}"))


def _left(state: HeaderState) -> list[list[_Part]]:
    groups = [[_Part(f" {clean(state.app, limit=_NAME_LIMIT)} ", "chip", 60)]]
    if state.context:
        groups.append([_Part(_short(state.context, _NAME_LIMIT), state.context_style, 95)])
    if state.server:
        groups.append([_Part(_short(state.server, _SERVER_LIMIT), "dim", 50)])
    if state.version:
        groups.append([_Part(f"nats {_short(state.version, 12)}", "dim", 20)])
    if state.rtt_s is not None:
        groups.append([_Part(f"rtt {units.rtt(state.rtt_s)}", "dim", 10)])
    return groups


def _right(state: HeaderState) -> list[list[_Part]]:
    groups = []
    if state.job:
        groups.append([_Part(_short(state.job, _SERVER_LIMIT), "accent", 55)])
    word, style = _LINKS[state.link]
    age_style = "bad" if state.link in {"stale", "offline"} else "dim"
    age = [_Part(f" {units.age(state.age_s)}", age_style, _ALWAYS if age_style == "bad" else 40)]
    groups.append([_Part(word, style), *(age if state.age_s is not None else [])])
    if state.findings:
        style = "bad" if state.critical else "warn"
        noun = " finding" if state.findings == 1 else " findings"
        groups.append([_Part(f"\u25b2 {units.count(state.findings, compact=True)}", style), _Part(noun, style, 30)])
    if state.dead_letters is not None:
        style = "bad" if state.dead_letters else "dim"
        groups.append([_Part(f"DLQ {units.count(state.dead_letters, compact=True)}", style)])
    if state.writable is not None:
        groups.append([_Part("[RW]", "warn") if state.writable else _Part("[RO]", "dim")])
    return groups


def _short(text: str, limit: int) -> str:
    text = clean(text, limit=limit)
    return fit(text, limit) if cell_len(text) > limit else text


def _width(groups: list[list[_Part]], gap: int) -> int:
    return sum(cell_len(part.text) for group in groups for part in group) + gap * max(len(groups) - 1, 0)


def _without(groups: list[list[_Part]], dropped: _Part) -> list[list[_Part]]:
    kept = [[part for part in group if part is not dropped] for group in groups]
    return [group for group in kept if group]
