"""Screen 4: the live events, all of them."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from console.filters import parse_duration
from console.monitor.advisories import Advisory
from console.monitor.feed import FeedItem, Told
from console.operations.errors import OperationError
from console.screens.base import ConsoleScreen
from console.screens.feed_lines import FeedPainter, copied, item_filter, item_pane, named_message
from console.screens.messages import MessagesScreen
from console.text import units
from console.text.safe import clean
from console.widgets.command_line import CommandLine
from console.widgets.event_feed import EventFeed
from console.widgets.row_table import RowTable

_OPENS: Final = {
    "event": "the event",
    "letter": "its letter",
    "message": "its message",
    "row": "its row",
    "details": "details",
    "jobs": "the jobs",
}
_TABLES: Final = {"inbox": ("fleet", "#fleet-table"), "tasks": ("queues", "#queues-table")}
_COPIED: Final = 1 << 20
"""Characters that are copied at the most: terminals take no more at once, most of them less."""


class EventsScreen(ConsoleScreen):
    """The live events."""

    tab = "events"
    CSS_PATH = "../styles/events.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "wrap", "wrap", id="events.wrap"),
        Binding("i", "stamp", "time", id="events.stamp"),
        Binding("c", "copy", "copy", id="events.copy"),
        Binding("colon", "command", "since…", key_display=":", id="events.command"),
        Binding("m", "messages", "stored events", id="events.messages"),
        Binding("ctrl+l", "clear", "clear the view", show=False, id="events.clear"),
    ]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._painter = FeedPainter(self.runtime.feed)

    def body(self) -> ComposeResult:
        """One feed, and the line for commands."""
        with Vertical(id="feed-card", classes="card"):
            yield EventFeed(
                capacity=self.runtime.session.settings.feed_lines, empty="no events in the last ten minutes", id="feed"
            )
        yield CommandLine("since 10m: begin ten minutes ago; since: only what comes")

    def home(self) -> Widget:
        """The feed."""
        return self.feed

    @property
    def feed(self) -> EventFeed:
        """The widget."""
        return self.query_one("#feed", EventFeed)

    def paint_feed(self) -> None:
        """Append what came."""
        feed = self.feed
        self._painter.extend(feed)
        window = self.runtime.feed.window
        parts = [f"since {units.age(window.total_seconds())}" if window else "live"]
        if self.expression:
            counted = "…" if feed.sifting else f"{units.count(feed.shown)} of {units.count(feed.total)}"
            parts.append(f"[{counted}]  /{clean(self.expression, limit=40)}")
        if marked := feed.mark_count:
            parts.append(f"{units.count(marked)} marked")
        if feed.paused and isinstance(item := feed.cursor_item, FeedItem):
            parts.append(f"enter: {_OPENS[item.opens]}")
        self._painter.title(self.query_one("#feed-card"), feed, suffix="".join(f"  {part}" for part in parts))

    def filter_changed(self) -> None:
        """Show only what matches."""
        self.feed.set_filter(item_filter(self.expression))

    # -- keys

    def action_messages(self) -> None:
        """Show the events that are stored."""
        self.app.push_screen(MessagesScreen(self.runtime, "events"))

    def action_wrap(self) -> None:
        """Let long lines go on below."""
        self.feed.action_toggle_wrap()

    def action_stamp(self) -> None:
        """Tell the time otherwise."""
        self.feed.action_next_stamp()

    def action_clear(self) -> None:
        """Forget what is shown; what comes is shown again."""
        self.feed.clear()

    def action_copy(self) -> None:
        """Copy the marked lines, or the one under the cursor."""
        line = self.feed.cursor_line
        lines = self.feed.marked or ((line,) if line is not None else ())
        if lines:
            self.app.copy_to_clipboard("\n".join(map(copied, lines))[:_COPIED])
            what = "1 line" if len(lines) == 1 else f"{units.count(len(lines))} lines"
            self.app.notify(f"{what} copied", markup=False, timeout=2)

    # -- commands

    def action_command(self) -> None:
        """Type a command."""
        self.query_one(CommandLine).open()

    @on(CommandLine.Submitted)
    def _commanded(self, event: CommandLine.Submitted) -> None:
        event.stop()
        try:
            window = window_of(event.command)
        except ValueError as error:
            event.line.complain(str(error))
            return
        self.runtime.feed.look_back(window)
        length = units.age(window.total_seconds()) if window else ""
        self.feed.set_empty(f"no events in the last {length}" if window else "no events since then")
        event.line.action_close()

    @on(CommandLine.Closed)
    def _command_closed(self, event: CommandLine.Closed) -> None:
        event.stop()
        self.home().focus()

    # -- opening

    @on(EventFeed.Selected)
    def _open(self, event: EventFeed.Selected) -> None:
        event.stop()
        item = event.item
        if not isinstance(item, FeedItem):
            return
        if isinstance(item, Told) and item.opens == "jobs":
            self.run_worker(
                self.app.run_action("app.screen('jobs')"), exit_on_error=False, description="go to the jobs"
            )
        elif item.opens == "jobs" or (isinstance(item, Told) and item.advisory is not None):
            self.run_worker(
                self._go(item), group="open", exclusive=True, exit_on_error=False, description="open a line"
            )
        else:
            self._inspect(item)

    async def _go(self, item: FeedItem) -> None:
        """Open what has to be looked for first."""
        if isinstance(item, Told) and item.advisory is not None:
            if await named_message(self.runtime.fleet, item.advisory) is None and await self._go_to(item.advisory):
                return
        elif await asyncio.to_thread(self._knows_job, item):
            await self.app.run_action("app.screen('jobs')")
            return
        if self.is_current:
            self._inspect(item)

    def _inspect(self, item: FeedItem) -> None:
        pane = item_pane(self.runtime, item, self.colours())
        if pane is not None:
            self.app.push_screen(pane)
        else:
            self.app.notify("it is gone: replayed, discarded or expired", markup=False)

    async def _go_to(self, advisory: Advisory) -> bool:
        """Go to the row of the agent or role that an advisory speaks of; False if it speaks of none."""
        target = _TABLES.get(advisory.place.kind)
        if target is None or not self.is_current:
            return False
        name, table = target
        await self.app.run_action(f"app.screen('{name}')")
        screen = self.app.screen
        screen.call_after_refresh(lambda: _put_cursor(screen.query(table), advisory.place.name))
        return True

    def _knows_job(self, item: FeedItem) -> bool:
        """Whether the jobs of this machine hold that of an action; another operator's they do not."""
        message = item.message
        job = message.data.get("job") if message is not None and isinstance(message.data, dict) else None
        try:
            return isinstance(job, str) and self.runtime.session.ledger.job(job) is not None
        except (OperationError, sqlite3.Error, OSError, ValueError):
            return False


def _put_cursor(tables: object, key: str) -> None:
    for table in tables:  # type: ignore[attr-defined]
        if isinstance(table, RowTable):
            table.move_cursor(key)
            table.focus()


def window_of(command: str) -> timedelta | None:
    """How far back `since 10m` begins; None for `since` alone, which shows only what comes.

    Raises:
        ValueError: It is no such command; one line that says what is expected.
    """
    verb, *rest = command.split()
    if verb != "since" or len(rest) > 1:
        raise ValueError("no such command: since 10m, or since")
    if not rest or rest[0] == "0":
        return None
    try:
        seconds = parse_duration(rest[0])
        return timedelta(seconds=seconds) if seconds else None
    except (ValueError, OverflowError):
        raise ValueError("no duration: since 90s, 10m, 1h30m or 2d") from None
