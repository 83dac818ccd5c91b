"""A pane over the screen: one agent, one queue, or one message, read without touching anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import ClassVar, Final

import nats.errors
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from console.messages import place_of
from console.monitor.feed import one_line
from console.monitor.inflight import Hands, InFlight, Stage, in_flight
from console.monitor.view import Flow, Subscription
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from patterns import PatternError
from patterns.message import decode

PEEK = 20
LABEL = 14
STAGES: Final[dict[Stage, str]] = {
    "working": "at work",
    "retrying": "waits for its next attempt",
    "settling": "ended, to be acknowledged",
    "delivered": "delivered",
}
"""What is said of each."""


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
    """One agent's inbox or one role's queue: counters, findings, what is in flight, and its oldest messages."""
    fleet, kind = runtime.fleet, "inbox" if inbox else "queue"
    place = place_of(fleet.names, "inbox" if inbox else "queue", flow.name)

    async def load() -> Text:
        text = Text()
        try:
            hands = await in_flight(fleet, place, durable=flow.depth.durable)
        except (PatternError, nats.errors.Error) as error:
            hands = Hands(unseen=f"what is in flight cannot be read: {error}")
        _facts(text, flow, hands, colours)
        _add_hands(text, hands, datetime.now(UTC), colours)
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


def subscription_pane(subscription: Subscription, colours: dict[str, str]) -> InspectPane:
    """One durable subscription: its counters, which is all that can be known of what it has in flight."""
    depth = subscription.depth

    async def load() -> Text:
        text = Text()
        for label, value in (
            ("topics", "  ".join(clean(topic, limit=120) for topic in subscription.topics) or "all"),
            ("behind", f"{units.count(depth.pending)} not yet delivered"),
            ("ack pending", f"{units.count(depth.ack_pending)} delivered, not acknowledged"),
            ("redelivered", _of(depth.redelivered, depth.ack_pending)),
            ("waiting pulls", units.count(depth.waiting)),
            ("oldest", f"{units.age(subscription.oldest_age)}, the first event not acknowledged"),
            ("lease", f"{units.age(depth.ack_wait)} (ack_wait)"),
            ("consumer", clean(depth.durable or "none")),
        ):
            _line(text, label, value, colours)
        return text

    name = "-".join(part for part in (subscription.agent, subscription.name) if part)
    return InspectPane(f"subscription {name}", load)


def _line(text: Text, label: str, value: str, colours: dict[str, str]) -> None:
    text.append(f"{label:<{LABEL}}", colours["dim"])
    text.append(value + "\n")


def _facts(text: Text, flow: Flow, hands: Hands, colours: dict[str, str]) -> None:
    depth = flow.depth
    text.append(f"{flow.state.glyph} {flow.state.value}\n\n", colours["bright"])
    limits = f", at most {units.count(hands.max_ack_pending)} in flight" if hands.max_ack_pending else ""
    limits += f", delivered at most {units.count(hands.max_deliver)}×" if hands.max_deliver else ""
    rows = [
        ("messages", units.count(depth.messages)),
        ("pending", f"{units.count(depth.pending)} not yet delivered"),
        ("ack pending", f"{units.count(depth.ack_pending)} delivered, not acknowledged"),
        ("redelivered", units.count(depth.redelivered)),
        ("stranded", _stranded(flow, hands)),
        ("waiting pulls", units.count(depth.waiting)),
        ("oldest", units.age(flow.oldest_age)),
        ("last ack", f"{units.age(flow.last_ack_age)} ago" if flow.last_ack_age is not None else "–"),
        ("in / ack", f"{units.rate(flow.in_rate)}/s  {units.rate(flow.ack_rate)}/s"),
        ("drain in", _drain(flow)),
        ("stored", units.size(depth.bytes)),
        ("lease", f"{units.age(depth.ack_wait)} (ack_wait){limits}"),
        ("dead letters", f"{units.count(flow.dead_letters)}{_again(flow.redeaths)}"),
        ("consumer", clean(depth.durable or "none")),
    ]
    for label, value in rows:
        _line(text, label, value, colours)
    for finding in flow.findings:
        glyph = "✖" if finding.severity == "critical" else "▲"
        text.append(f"{glyph} {clean(finding.text, limit=400)}\n", colours["bad"])


def _of(part: int, whole: int) -> str:
    return units.count(part) if not part or not whole else f"{units.count(part)} of {units.count(whole)} in flight"


def _stranded(flow: Flow, hands: Hands) -> str:
    if flow.stranded is None:
        return "counted by the library"
    if not hands.stranded:
        return units.count(flow.stranded)
    more = " and more" if hands.more_stranded else ""
    return f"{units.count(len(hands.stranded))}{more}: seq {', '.join(map(str, hands.stranded))}"


def _drain(flow: Flow) -> str:
    if not flow.depth.messages:
        return "nothing to drain"
    return units.age(flow.drain_eta) if flow.drain_eta is not None else "not at this pace"


def _again(redeaths: int) -> str:
    return f", {units.count(redeaths)} died again after a replay" if redeaths else ""


def _add_hands(text: Text, hands: Hands, now: datetime, colours: dict[str, str]) -> None:
    if not hands.total and not hands.unseen:
        return
    text.append("\nin flight\n", colours["dim"])
    if hands.unseen:
        text.append(f"▲ {clean(hands.unseen, limit=160)}\n", colours["bad"])
    if hands.candidates:
        text.append(f"{units.count(hands.total)} of these; the others are stranded, the server does not say which\n")
    for each in hands.items:
        _add_item(text, each, hands, now, colours)
    more = hands.total - len(hands.items)
    if more > 0:
        text.append(f"and {units.count(more)} more\n" if hands.items else f"{units.count(more)}, not told which\n")


def _add_item(text: Text, each: InFlight, hands: Hands, now: datetime, colours: dict[str, str]) -> None:
    message = each.message

    def ago(moment: datetime | None) -> str:
        return units.age((now - moment).total_seconds()) if moment is not None else ""

    text.append(f"{each.seq:>7}  ", colours["dim"])
    text.append(f"{clean(message.type, limit=40)}  {clean(message.id, limit=40)}  ")
    text.append(f"{ago(message.stored_at)} old\n", colours["dim"])
    parts = [f"{clean(each.agent, limit=40)} {STAGES[each.stage]}".strip()]
    if each.delivery is None:
        parts.append("which delivery is not known")
    else:
        word = "delivery" if each.stage == "delivered" else "attempt"
        most = f" of {units.count(hands.max_deliver)}" if hands.max_deliver else ""
        parts.append(f"{word} {units.count(each.delivery)}{most}")
    if each.since is not None:
        parts.append(f"for {ago(each.since)}")
    elif each.seen is not None:
        parts.append(f"last sign of life {ago(each.seen)} ago")
    elif each.stage == "delivered":
        parts.append("no sign of life is known")
    if each.note:
        parts.append(clean(" ".join(each.note.split()), limit=120))
    text.append(f"{'':>9}{', '.join(parts)}\n", colours["dim"])
