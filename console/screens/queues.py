"""Screen 2: every role's task queue."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from console.messages import Place, place_of
from console.monitor.view import Flow, Subscription
from console.operations.selection import choose
from console.screens.base import label
from console.screens.inspect import flow_pane, subscription_pane
from console.screens.messages import MessagesScreen
from console.screens.operate import OperatingScreen
from console.screens.rows import QUEUE_COLUMNS, SUBSCRIPTION_COLUMNS, queue_rows, subscription_key, subscription_rows
from console.widgets.row_table import RowTable


class QueuesScreen(OperatingScreen):
    """The task queues."""

    tab = "queues"
    CSS_PATH = "../styles/queues.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("R", "replay", "replay DLQ", id="queues.replay"),
        Binding("x", "letters", "its dead letters", id="queues.letters"),
        Binding("i", "messages", "messages", id="queues.messages"),
        Binding("P", "pause", "pause/resume", id="queues.pause"),
        Binding("X", "purge", "purge…", id="queues.purge"),
        Binding("U", "undo", "undo", show=False, id="queues.undo"),
    ]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._flows: dict[str, Flow] = {}

    def body(self) -> ComposeResult:
        """Queues above, event subscriptions below."""
        with Vertical(id="queues-card", classes="card"):
            yield RowTable(*QUEUE_COLUMNS, empty="reading the queues…", markable=False, id="queues-table")
        with Vertical(id="subscriptions-card", classes="card"):
            yield RowTable(
                *SUBSCRIPTION_COLUMNS, empty="nobody subscribes to events", markable=False, id="subscriptions-table"
            )

    def home(self) -> Widget:
        """The table."""
        return self.query_one("#queues-table", RowTable)

    def paint(self) -> None:
        """Show the view."""
        view, table = self.runtime.monitor.view, self.query_one("#queues-table", RowTable)
        if view is None:
            return
        self._flows = {flow.name: flow for flow in view.queues}
        word = self.expression.lower()
        shown = [flow for flow in view.queues if not word or word in f"{flow.name} {flow.state.value}".lower()]
        table.empty = (
            "no role has a queue here\n\nFleet.provision(roles=[...]) makes one."
            if not view.queues
            else "no role matches the filter"
        )
        table.set_rows(queue_rows(shown, self.runtime.session.settings.thresholds, view.queue_peak))
        self._paint_subscriptions(view.subscriptions)
        card = self.query_one("#queues-card")
        card.styles.height = max(len(view.queues), 5) + 3
        some = f"{len(shown)} of {len(view.queues)}" if len(shown) != len(view.queues) else f"{len(view.queues)}"
        noun = "role" if len(view.queues) == 1 else "roles"
        label(card, f"queues  {some} {noun}", "sorted by state" if table.sort is None else f"sorted by {table.sort[0]}")

    def _paint_subscriptions(self, subscriptions: tuple[Subscription, ...]) -> None:
        word = self.expression.lower()
        shown = [each for each in subscriptions if not word or word in f"{each.agent} {' '.join(each.topics)}".lower()]
        self.query_one("#subscriptions-table", RowTable).set_rows(subscription_rows(shown))
        label(self.query_one("#subscriptions-card"), f"event subscriptions  {len(shown)}")

    @on(RowTable.Selected, "#queues-table")
    def _inspect(self, event: RowTable.Selected) -> None:
        event.stop()
        flow = self._flows.get(event.key)
        if flow is not None:
            self.app.push_screen(flow_pane(self.runtime, flow, inbox=False, colours=self.colours()))

    @on(RowTable.Selected, "#subscriptions-table")
    def _inspect_subscription(self, event: RowTable.Selected) -> None:
        event.stop()
        view = self.runtime.monitor.view
        found = (each for each in (view.subscriptions if view else ()) if subscription_key(each) == event.key)
        if (subscription := next(found, None)) is not None:
            self.app.push_screen(subscription_pane(subscription, self.colours()))

    def action_replay(self) -> None:
        """Replay the dead letters of the role under the cursor."""
        name = self.query_one("#queues-table", RowTable).cursor_key
        if name is None:
            return
        letters = [
            letter for letter in self.runtime.monitor.letters.all() if letter.kind == "tasks" and letter.name == name
        ]
        self.replay_letters(letters, f"all dead letters of role {name}")

    def _place(self) -> Place | None:
        name = self.query_one("#queues-table", RowTable).cursor_key
        return place_of(self.runtime.fleet.names, "queue", name) if name is not None else None

    def action_messages(self) -> None:
        """Show its tasks."""
        if (place := self._place()) is not None:
            self.app.push_screen(MessagesScreen(self.runtime, "queue", place.name))

    def action_pause(self) -> None:
        """Pause it, or resume a paused one."""
        if (place := self._place()) is not None:
            self.pause_place(place)

    def action_purge(self) -> None:
        """Remove all of its tasks."""
        if (place := self._place()) is not None:
            self.purge_messages(place, choose("messages", everything=True))

    async def action_letters(self) -> None:
        """Show its dead letters on their screen."""
        name = self.query_one("#queues-table", RowTable).cursor_key
        if name is not None:
            await self.app.run_action(f"app.letters_of('role:{name}')")
