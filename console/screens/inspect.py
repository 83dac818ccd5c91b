"""A pane over the screen: one agent, one queue, or one message, read without touching anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import nats.errors
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from console.monitor.feed import one_line
from console.monitor.view import Flow
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from patterns import PatternError
from patterns.message import decode

PEEK = 20
LABEL = 14


class InspectPane(ModalScreen[None]):
    """Shows a text that may still be loading.

    Args:
        title: What it shows.
        load: Makes the text; what it cannot read it says in words.
    """

    CSS_PATH = "../styles/inspect.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "close", "close", key_display="esc", id="inspect.close"),
        Binding("j", "scroll(1)", "down", show=False, id="inspect.down"),
        Binding("k", "scroll(-1)", "up", show=False, id="inspect.up"),
    ]

    def __init__(self, title: str, load: Callable[[], Awaitable[Text]]) -> None:
        super().__init__()
        self._title = clean(title, limit=80)
        self._load = load

    def compose(self) -> ComposeResult:
        """A scrolling text."""
        with VerticalScroll(id="inspect") as box:
            box.border_title = Text(self._title)
            box.border_subtitle = "esc closes"
            yield Static("reading…", id="inspect-text", markup=False)

    def on_mount(self) -> None:
        """Read in a worker: the screen behind stays live."""
        self.query_one("#inspect").focus()
        self.run_worker(self._fill(), group="inspect", exclusive=True, exit_on_error=False, description=self._title)

    async def _fill(self) -> None:
        try:
            text = await self._load()
        except (PatternError, nats.errors.Error, OSError) as error:
            text = Text(clean(f"cannot be read: {error}"))
        self.query_one("#inspect-text", Static).update(text)

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines."""
        self.query_one("#inspect", VerticalScroll).scroll_relative(y=lines, animate=False)


def flow_pane(runtime: Runtime, flow: Flow, *, inbox: bool, colours: dict[str, str]) -> InspectPane:
    """One agent's inbox or one role's queue: counters, findings, and its oldest messages."""
    fleet = runtime.fleet
    place = fleet.inbox(flow.name) if inbox else fleet.tasks(flow.name)
    kind = "inbox" if inbox else "queue"

    async def load() -> Text:
        text = Text()
        _facts(text, flow, colours)
        page = await fleet.jetstream.read(place.stream, limit=PEEK)
        text.append(f"\noldest messages of {clean(place.stream)}, read without a consumer\n", colours["dim"])
        if not page.messages:
            text.append("none\n")
        for stored in page.messages:
            message = decode(
                stored.subject, stored.headers, stored.body, names=fleet.names, stream=place.stream,
                seq=stored.seq, stored_at=stored.stored_at,
            )  # fmt: skip
            text.append(f"{stored.seq:>7}  ", colours["dim"])
            text.append(f"{clean(message.type, limit=40)}  {clean(message.id, limit=40)}  ")
            text.append(f"{clean(message.source, limit=40)}  {units.clock(message.stored_at)}\n", colours["dim"])
            text.append(f"{'':>9}{clean(one_line(message), limit=160)}\n", colours["dim"])
        return text

    return InspectPane(f"{kind} {flow.name}", load)


def _facts(text: Text, flow: Flow, colours: dict[str, str]) -> None:
    depth = flow.depth
    text.append(f"{flow.state.glyph} {flow.state.value}\n\n", colours["bright"])
    rows = [
        ("messages", units.count(depth.messages)),
        ("pending", f"{units.count(depth.pending)} not yet delivered"),
        ("ack pending", f"{units.count(depth.ack_pending)} delivered, not acknowledged"),
        ("redelivered", units.count(depth.redelivered)),
        ("stranded", "counted by the library" if flow.stranded is None else units.count(flow.stranded)),
        ("waiting pulls", units.count(depth.waiting)),
        ("oldest", units.age(flow.oldest_age)),
        ("last ack", f"{units.age(flow.last_ack_age)} ago" if flow.last_ack_age is not None else "–"),
        ("in / ack", f"{units.rate(flow.in_rate)}/s  {units.rate(flow.ack_rate)}/s"),
        ("stored", units.size(depth.bytes)),
        ("lease", f"{units.age(depth.ack_wait)} (ack_wait)"),
        ("dead letters", units.count(flow.dead_letters)),
        ("consumer", clean(depth.durable or "none")),
    ]
    for label, value in rows:
        text.append(f"{label:<{LABEL}}", colours["dim"])
        text.append(value + "\n")
    for finding in flow.findings:
        text.append(f"▲ {clean(finding.text)}\n", colours["bad"])
