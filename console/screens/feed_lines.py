"""From feed items to lines of the feed widget, shared by the screens that show events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import nats.errors
from rich.text import Text
from textual.widget import Widget

from console.filters import FilterError, Record, parse
from console.monitor.advisories import Advisory
from console.monitor.feed import EventItem, Feed, FeedItem, Told
from console.screens.base import label
from console.screens.inspect import InspectPane
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from console.widgets.details import letter_text, message_text
from console.widgets.event_feed import EventFeed, FeedLine
from patterns import Fleet, Message, PatternError
from patterns.message import decode_stored


class FeedPainter:
    """Hands a feed's new items to a widget, each once.

    Args:
        feed: Where the items come from.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._last = 0
        self._generation = feed.generation
        self._title = ""

    def extend(self, widget: EventFeed) -> None:
        """Append what came since the last call; begin anew if another window was chosen."""
        widget.line_of = line_of
        if self._generation != self._feed.generation:
            self._generation = self._feed.generation
            widget.clear()
        items = self._feed.since(self._last)
        if items:
            self._last = items[-1].id
            widget.extend(items)

    def title(self, card: Widget, widget: EventFeed, *, name: str = "events", suffix: str = "") -> None:
        """Name, rate and what is not shown, in the card's border."""
        feed = self._feed
        state = "following" if widget.following else f"paused, {units.count(widget.unseen)} new"
        dropped = f"  {units.count(feed.dropped)} dropped" if feed.dropped else ""
        refused = "  no right to advisories" if feed.refused else ""
        subtitle = f"{state}  {units.rate(feed.rate)}/s{dropped}{refused}"
        if (name + suffix + subtitle) != self._title:
            self._title = name + suffix + subtitle
            label(card, name + suffix, subtitle)


def line_of(item: FeedItem) -> FeedLine:
    """One item as a line."""
    tone = None if item.tone == "plain" else item.tone
    loud = isinstance(item, Told) and item.letter is not None
    return FeedLine(item.id, item.at, item.topic, tone, item.source, item.body, None if loud else "dim")


def item_filter(expression: str) -> Callable[[FeedItem], bool] | None:
    """The predicate of a filter expression over items; None for no filter, and for one that cannot be read."""
    try:
        wanted = parse(expression) if expression else None
    except FilterError:
        return None
    if wanted is None or wanted.is_empty:
        return None

    def matches(item: FeedItem) -> bool:
        return wanted.matches(record_of(item))

    return matches


def record_of(item: FeedItem) -> Record:
    """An item as the filter language sees it; of an event too large to be kept, what is kept of it."""
    message = item.message
    if message is None:
        place = item.advisory.place if isinstance(item, Told) and item.advisory is not None else None
        seq = item.advisory.seq if isinstance(item, Told) and item.advisory is not None else None
        return Record(
            seq=seq,
            type=item.topic,
            kind=place.kind if place else "",
            name=place.name if place else "",
            agent=item.source,
            at=item.at,
            text=item.body,
        )
    return Record(
        seq=message.seq,
        subject=message.subject,
        type=message.type,
        kind="events",
        agent=message.source,
        id=message.id,
        correlation_id=message.correlation_id,
        at=item.at,
        size=item.size if isinstance(item, EventItem) and item.cut else message.size,
        headers=message.headers,
        data=message.data,
        text=message.text,
    )


def find(feed: Feed, line: FeedLine) -> FeedItem | None:
    """The item of a line, if the feed still holds it."""
    return next((item for item in reversed(feed.items) if item.id == line.key), None)


def line_pane(runtime: Runtime, line: FeedLine, colours: Mapping[str, str]) -> InspectPane | None:
    """A pane with what a line is about; None if it is gone."""
    item = find(runtime.feed, line)
    return None if item is None else item_pane(runtime, item, colours)


def item_pane(runtime: Runtime, item: FeedItem, colours: Mapping[str, str]) -> InspectPane | None:
    """A pane with the whole event, the dead letter, or the message that an advisory names; None if it is gone."""
    if isinstance(item, EventItem):
        return _event_pane(runtime.fleet, item, colours)
    if not isinstance(item, Told):
        return None
    if item.letter is not None:
        letter = runtime.monitor.letters.get(item.letter)
        if letter is None:
            return None

        async def load_letter() -> Text:
            return letter_text(letter, datetime.now(UTC), colours)

        return InspectPane(f"dead letter {letter.seq}", load_letter)

    async def load() -> Text:
        message = await named_message(runtime.fleet, item.advisory) if item.advisory else None
        text = Text(f"{item.body}\n", colours["bright"])
        text.append(f"{item.at.astimezone():%Y-%m-%d %H:%M:%S}\n\n", colours["dim"])
        if message is not None:
            text.append_text(message_text(message, colours))
        elif item.advisory is not None and item.advisory.seq:
            text.append("The message is not in its stream any more.\n", colours["dim"])
        return text

    return InspectPane(item.topic, load)


def _event_pane(fleet: Fleet, item: EventItem, colours: Mapping[str, str]) -> InspectPane:
    async def load() -> Text:
        message = await _whole(fleet, item)
        if message is not None:
            return message_text(message, colours)
        text = Text(f"Not stored any more; of {units.size(item.size)}, this is the beginning.\n\n", colours["bad"])
        return text.append_text(message_text(item.message, colours))

    return InspectPane(f"event {item.topic}", load)


async def _whole(fleet: Fleet, item: EventItem) -> Message | None:
    """The event; None if only its beginning is kept and the rest is gone.

    Raises:
        Unavailable: It cannot be read now.
    """
    if not item.cut:
        return item.message
    stored = await fleet.jetstream.get(item.stream, item.stored.seq)
    # A stream that was made anew has other events under the same sequences.
    if stored is None or stored.stored_ns != item.stored.stored_ns:
        return None
    return decode_stored(stored, names=fleet.names, stream=item.stream)


async def named_message(fleet: Fleet, advisory: Advisory) -> Message | None:
    """The message that an advisory names; None if it is in its stream no more, or cannot be read."""
    if not advisory.seq:
        return None
    try:
        stored = await fleet.jetstream.get(advisory.stream, advisory.seq)
    except (PatternError, nats.errors.Error, OSError):
        return None
    return None if stored is None else decode_stored(stored, names=fleet.names, stream=advisory.stream)


def copied(line: FeedLine) -> str:
    """A line as text for somewhere else."""
    at = "" if line.at is None else line.at.astimezone().isoformat(sep=" ", timespec="milliseconds")
    return clean("  ".join(part for part in (at, line.kind, line.source, line.body) if part))
