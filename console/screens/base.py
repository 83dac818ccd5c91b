"""What every screen of the console has: header, tabs, key hints, a tick, a filter line and the verbs that are global."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from console.monitor.findings import alarms, of_failure
from console.monitor.view import Finding
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.header import ConsoleHeader, HeaderState
from console.widgets.key_hints import KeyHints
from console.widgets.tab_strip import Tab, TabStrip

if TYPE_CHECKING:
    from console.operations.job import Job

TICK = 0.1
"""Seconds between two looks at the store: callbacks only fill it, screens paint what changed."""
HEADER_TICK = 1.0
STALE_AFTER = 3.0
"""Reads missed in a row before what is shown is called stale."""

TABS = (
    Tab("fleet", "Fleet", "1"),
    Tab("queues", "Queues", "2"),
    Tab("letters", "Dead letters", "3"),
    Tab("events", "Events", "4"),
    Tab("jobs", "Jobs", "6"),
    Tab("audit", "Audit", "7"),
)
"""The screens; 5 is kept for one more."""


def label(card: Widget, title: str, subtitle: str = "") -> None:
    """Set the texts in a card's border; as `Text`, because a plain string would be parsed as markup."""
    card.border_title, card.border_subtitle = Text(title), Text(subtitle)


def job_progress(job: Job) -> str:
    """What a job does and how far it has come: `replay 412/1,000`."""
    if job.asks:
        return "canary? C"
    paused = " paused" if job.state == "paused" else ""
    return f"{clean(job.phase or job.action)} {units.count(job.processed)}/{units.count(job.planned)}{paused}"


class ConsoleScreen(Screen[None]):
    """A top-level screen. Subclasses give `tab`, `body()` and `paint()`.

    Args:
        runtime: What it reads and acts through.
    """

    tab: ClassVar[str] = ""
    """Its id among the tabs."""
    pushed: ClassVar[bool] = False
    """Whether it stands over another screen, to which escape goes back."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/", id="console.filter"),
        Binding("ctrl+r", "refresh", "refresh", show=False, id="console.refresh"),
        Binding("escape", "clear_filter", "clear filter", show=False, id="console.escape"),
    ]

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime
        self.expression = ""
        """The filter that holds; empty is none."""
        self._seen = -1
        self._header_due = 0
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        """The widgets between tabs and hints."""
        yield from ()

    def paint(self) -> None:
        """Show the store as it is now; called when it changed."""

    def paint_feed(self) -> None:
        """Show what came into the feed; called at each tick."""

    def filter_bar(self) -> FilterBar:
        """The line that `/` opens."""
        return FilterBar()

    def home(self) -> Widget:
        """The widget that has the focus when nothing else asks for it."""
        return self

    def compose(self) -> ComposeResult:
        """Furniture around the body."""
        yield ConsoleHeader()
        yield TabStrip(*TABS, active=self.tab)
        yield Static("", id="banner", markup=False)
        yield from self.body()
        yield self.filter_bar()
        yield KeyHints()

    def on_mount(self) -> None:
        """Start ticking."""
        self._timer = self.set_interval(TICK, self._tick)
        self.home().focus()
        self._tick()

    def on_screen_suspend(self) -> None:
        """Timers of hidden screens would go on ticking."""
        if self._timer is not None:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        """Catch up and tick again."""
        if self._timer is not None:
            self._timer.resume()
            self._seen = -1
            self._tick()

    def _tick(self) -> None:
        self.paint_feed()
        changed = self.runtime.monitor.version != self._seen
        self._header_due -= 1
        if changed or self._header_due <= 0:
            self._header_due = round(HEADER_TICK / TICK)
            self._paint_furniture()
        if changed:
            self._seen = self.runtime.monitor.version
            self.paint()

    def repaint(self) -> None:
        """Paint now, changed or not (another filter, another fold)."""
        self.paint()

    def _paint_furniture(self) -> None:
        monitor, session = self.runtime.monitor, self.runtime.session
        view, health = monitor.view, monitor.health
        jobs = [job for job in self.runtime.jobs if job.running]
        stale = bool(health.error) or (view is not None and health.age > STALE_AFTER * health.interval + 1)
        found = alarms(self.findings())
        self.query_one(ConsoleHeader).state = HeaderState(
            context=session.name,
            server=session.address,
            version=view.server.version if view else "",
            rtt_s=health.rtt,
            link="connecting" if view is None else "stale" if stale else "live",
            age_s=health.age if stale else health.interval,
            findings=len(found),
            # The worst stands first.
            critical=bool(found) and found[0].severity == "critical",
            dead_letters=view.dead_letter_total if view else None,
            job=f"{job_progress(jobs[0])}{f' +{len(jobs) - 1}' if jobs[1:] else ''}" if jobs else "",
            writable=session.guard.allowed,
        )
        self.query_one(TabStrip).counts = {"letters": (view.dead_letter_total if view else 0) or 0}
        banner = self.query_one("#banner", Static)
        missing = view.missing if view else ()
        banner.display = bool(health.error or missing)
        if health.error:
            shown = f"what is shown is {int(health.age)} s old; " if view else ""
            banner.update(Text(f" ▲ {shown}{clean(health.error)}", no_wrap=True, overflow="ellipsis"))
        elif missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            banner.update(Text(f" ▲ not readable: {clean(missing[0])}{more}", no_wrap=True, overflow="ellipsis"))
        self.set_class(stale, "-stale")

    def findings(self) -> tuple[Finding, ...]:
        """What a person should look at, the worst first; that nothing can be read before anything that was."""
        monitor = self.runtime.monitor
        view, health = monitor.view, monitor.health
        failure = of_failure(health.error, health.age if view is not None else None)
        return (*failure, *view.findings) if view is not None else failure

    def now(self) -> datetime:
        """The moment ages are told against: that of the data, so that a stale screen does not age by itself."""
        view = self.runtime.monitor.view
        return view.taken_at if view else datetime.now(UTC)

    def colours(self) -> dict[str, str]:
        """Styles for texts that are no widget of their own, from the theme."""
        variables = self.app.theme_variables
        return {
            "bright": f"bold {variables['text']}" if variables["text"].startswith("#") else "bold",
            "dim": variables["text-muted"] if variables["text-muted"].startswith("#") else "dim",
            "bad": f"bold {variables['error']}",
            "accent": variables["accent"],
        }

    # -- filter

    def action_filter(self) -> None:
        """Type a filter."""
        self.query_one(FilterBar).open()

    def action_clear_filter(self) -> None:
        """Drop the filter; if there is none, go back to the screen below."""
        bar = self.query_one(FilterBar)
        if self.expression or bar.expression:
            bar.action_clear()
        elif self.pushed:
            self.action_back()

    def action_back(self) -> None:
        """Back to the screen below."""
        self.dismiss()

    @on(FilterBar.Changed)
    def _filter_changed(self, event: FilterBar.Changed) -> None:
        event.stop()
        self.expression = event.expression
        self.filter_changed()
        self.repaint()

    def filter_changed(self) -> None:
        """Another filter holds."""

    @on(FilterBar.Closed)
    def _filter_closed(self, event: FilterBar.Closed) -> None:
        event.stop()
        self.home().focus()

    def action_refresh(self) -> None:
        """Read now."""
        self.runtime.monitor.refresh()

    @on(TabStrip.Activated)
    async def _tab_clicked(self, event: TabStrip.Activated) -> None:
        event.stop()
        await self.app.run_action(f"app.screen({event.id!r})")


def clear_notices(app: App[Any]) -> None:
    """Take away the notices of what was before: they stand where a dialog has its buttons."""
    app.clear_notifications()
    # Those of the screen below stay in sight otherwise.
    for screen in app.screen_stack:
        screen.query("Toast").remove()
