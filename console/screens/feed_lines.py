"""From feed items to lines of the feed widget, shared by the screens that show events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from rich.text import Text
from textual.widget import Widget

from console.filters import FilterError, Record, parse
from console.monitor.feed import Feed, FeedItem
from console.screens.base import label
from console.screens.inspect import InspectPane
from console.session import Runtime
from console.text import units
from console.widgets.details import letter_text, message_text
from console.widgets.event_feed import EventFeed, FeedLine


class FeedPainter:
    """Hands a feed's new items to a widget, each once.

    Args:
        feed: Where the items come from.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._last = 0
        self._title = ""

    def extend(self, widget: EventFeed) -> None:
        """Append what came since the last call."""
        items = self._feed.since(self._last)
        if items:
            self._last = items[-1].id
            widget.extend(line_of(item) for item in items)

    def title(self, card: Widget, widget: EventFeed, *, name: str = "events", suffix: str = "") -> None:
        """Name, rate and what is not shown, in the card's border."""
        state = "following" if widget.following else f"paused, {widget.unseen} new"
        dropped = f"  {self._feed.dropped} dropped" if self._feed.dropped else ""
        subtitle = f"{state}  {units.rate(self._feed.rate)}/s{dropped}"
        if (name + suffix + subtitle) != self._title:
            self._title = name + suffix + subtitle
            label(card, name + suffix, subtitle)


def line_of(item: FeedItem) -> FeedLine:
    """One item as a line."""
    tone = None if item.tone == "plain" else item.tone
    return FeedLine(
        item.id, units.clock(item.at), item.topic, tone, item.source, item.body, None if item.letter else "dim"
    )


def line_filter(feed: Feed, expression: str) -> Callable[[FeedLine], bool] | None:
    """The predicate of a filter expression over lines; None for no filter."""
    try:
        wanted = parse(expression) if expression else None
    except FilterError:
        return None
    if wanted is None:
        return None

    def matches(line: FeedLine) -> bool:
        item = find(feed, line)
        return item is not None and wanted.matches(record_of(item))

    return matches


def record_of(item: FeedItem) -> Record:
    """An item as the filter language sees it."""
    message = item.message
    if message is None:
        return Record(type=item.topic, agent=item.source, at=item.at, text=item.body)
    return Record(
        seq=message.seq,
        subject=message.subject,
        type=message.type,
        kind="events",
        agent=message.source,
        id=message.id,
        correlation_id=message.correlation_id,
        at=item.at,
        size=message.size,
        headers=message.headers,
        data=message.data,
        text=message.text,
    )


def find(feed: Feed, line: FeedLine) -> FeedItem | None:
    """The item of a line, if the feed still holds it."""
    if not feed.items or not isinstance(line.key, int):
        return None
    at = line.key - feed.items[0].id
    return feed.items[at] if 0 <= at < len(feed.items) else None


def line_pane(runtime: Runtime, line: FeedLine, colours: dict[str, str]) -> InspectPane | None:
    """A pane with the whole event or dead letter of a line; None if it is gone."""
    item = find(runtime.feed, line)
    if item is None:
        return None
    message, letter = item.message, runtime.monitor.letters.get(item.letter or 0)

    async def load() -> Text:
        if message is not None:
            return message_text(message, colours)
        return letter_text(letter, datetime.now(UTC), colours) if letter is not None else Text("gone")

    if message is not None:
        return InspectPane(f"event {message.type}", load)
    return InspectPane(f"dead letter {letter.seq}", load) if letter is not None else None
