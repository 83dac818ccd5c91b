"""Screen 1: every agent's inbox, the worst first, with the live events below."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from console.messages import place_of
from console.monitor.view import Flow
from console.screens.base import label
from console.screens.feed_lines import FeedPainter, line_pane
from console.screens.inspect import flow_pane
from console.screens.messages import MessagesScreen
from console.screens.operate import OperatingScreen
from console.screens.rows import FLEET_COLUMNS, fleet_rows
from console.text.safe import clean
from console.widgets.event_feed import EventFeed
from console.widgets.row_table import RowTable


class FleetScreen(OperatingScreen):
    """The fleet."""

    tab = "fleet"
    CSS_PATH = "../styles/fleet.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("R", "replay", "replay DLQ", id="fleet.replay"),
        Binding("x", "letters", "its dead letters", show=False, id="fleet.letters"),
        Binding("i", "messages", "inbox", id="fleet.messages"),
        Binding("P", "pause", "pause/resume", id="fleet.pause"),
        Binding("S", "rescue", "rescue stranded", show=False, id="fleet.rescue"),
        Binding("U", "undo", "undo", show=False, id="fleet.undo"),
    ]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._flows: dict[str, Flow] = {}
        self._feed = FeedPainter(self.runtime.feed)

    def body(self) -> ComposeResult:
        """Table above, feed below."""
        with Vertical(id="fleet-card", classes="card"):
            yield RowTable(*FLEET_COLUMNS, empty="reading the fleet…", markable=False, id="fleet-table")
        with Vertical(id="events-card", classes="card"):
            yield EventFeed(empty="no events in the last ten minutes", id="fleet-feed")

    def home(self) -> Widget:
        """The table."""
        return self.query_one("#fleet-table", RowTable)

    def paint(self) -> None:
        """Show the view."""
        view, table = self.runtime.monitor.view, self.query_one("#fleet-table", RowTable)
        if view is None:
            return
        self._flows = {flow.name: flow for flow in view.agents}
        word = self.expression.lower()
        shown = [flow for flow in view.agents if not word or word in f"{flow.name} {flow.state.value}".lower()]
        table.empty = (
            "no agent has an inbox here\n\nFleet.provision(agents=[...]) makes one; `agent-console demo` shows how it looks."
            if not view.agents
            else "no agent matches the filter"
        )
        table.set_rows(fleet_rows(shown, self.runtime.session.settings.thresholds, view.inbox_peak))
        card = self.query_one("#fleet-card")
        # As tall as the whole fleet, not as what a filter leaves: the feed below must not jump.
        card.styles.height = max(len(view.agents), 5) + 3
        some = f"{len(shown)} of {len(view.agents)}" if len(shown) != len(view.agents) else f"{len(view.agents)}"
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        order = "sorted by state" if table.sort is None else f"sorted by {table.sort[0]}"
        noun = "agent" if len(view.agents) == 1 else "agents"
        label(card, f"fleet  {some} {noun}", f"{view.way}  {order}{suffix}")

    def paint_feed(self) -> None:
        """Append what came."""
        feed = self.query_one("#fleet-feed", EventFeed)
        self._feed.extend(feed)
        self._feed.title(self.query_one("#events-card"), feed)

    @on(RowTable.Selected)
    def _inspect(self, event: RowTable.Selected) -> None:
        event.stop()
        flow = self._flows.get(event.key)
        if flow is not None:
            self.app.push_screen(flow_pane(self.runtime, flow, inbox=True, colours=self.colours()))

    @on(EventFeed.Selected)
    def _open_event(self, event: EventFeed.Selected) -> None:
        event.stop()
        if pane := line_pane(self.runtime, event.line, self.colours()):
            self.app.push_screen(pane)

    def action_replay(self) -> None:
        """Replay the dead letters of the agent under the cursor: of its inbox and its subscriptions."""
        name = self.query_one("#fleet-table", RowTable).cursor_key
        if name is None:
            return
        letters = [
            letter
            for letter in self.runtime.monitor.letters.all()
            if (letter.kind == "inbox" and letter.name == name)
            or (letter.kind == "events" and letter.name.rpartition("-")[0] == name)
        ]
        self.replay_letters(letters, f"all dead letters of {name}")

    async def action_letters(self) -> None:
        """Show its dead letters on their screen."""
        name = self.query_one("#fleet-table", RowTable).cursor_key
        if name is not None:
            await self.app.run_action(f"app.letters_of('agent:{name}')")

    def action_messages(self) -> None:
        """Show the messages of its inbox."""
        name = self.query_one("#fleet-table", RowTable).cursor_key
        if name is not None:
            self.app.push_screen(MessagesScreen(self.runtime, "inbox", name))

    def action_pause(self) -> None:
        """Pause its inbox, or resume a paused one."""
        flow = self._flows.get(self.query_one("#fleet-table", RowTable).cursor_key or "")
        if flow is not None:
            self.pause_place(place_of(self.runtime.fleet.names, "inbox", flow.name))

    def action_rescue(self) -> None:
        """Move what is stranded, anywhere, to the dead letters."""
        self.rescue_stranded()
