"""Screen 4: the live events, all of them."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from console.screens.base import ConsoleScreen
from console.screens.feed_lines import FeedPainter, line_filter, line_pane
from console.screens.messages import MessagesScreen
from console.text.safe import clean
from console.widgets.event_feed import EventFeed


class EventsScreen(ConsoleScreen):
    """The live events."""

    tab = "events"
    CSS_PATH = "../styles/events.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("m", "messages", "stored events", id="events.messages")]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._feed = FeedPainter(self.runtime.feed)

    def body(self) -> ComposeResult:
        """One feed."""
        with Vertical(id="feed-card", classes="card"):
            yield EventFeed(
                capacity=self.runtime.session.settings.feed_lines, empty="no events in the last ten minutes", id="feed"
            )

    def action_messages(self) -> None:
        """Show the events that are stored."""
        self.app.push_screen(MessagesScreen(self.runtime, "events"))

    def home(self) -> Widget:
        """The feed."""
        return self.query_one("#feed", EventFeed)

    def paint_feed(self) -> None:
        """Append what came."""
        feed = self.query_one("#feed", EventFeed)
        self._feed.extend(feed)
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        self._feed.title(self.query_one("#feed-card"), feed, suffix=suffix)

    def filter_changed(self) -> None:
        """Show only what matches."""
        self.query_one("#feed", EventFeed).set_filter(line_filter(self.runtime.feed, self.expression))

    @on(EventFeed.Selected)
    def _open_event(self, event: EventFeed.Selected) -> None:
        event.stop()
        if pane := line_pane(self.runtime, event.line, self.colours()):
            self.app.push_screen(pane)
