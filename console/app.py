"""The Textual application: wiring of screens, themes and global keys, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from console.screens.audit import AuditScreen
from console.screens.base import ConsoleScreen
from console.screens.events import EventsScreen
from console.screens.fleet import FleetScreen
from console.screens.help import HelpPane
from console.screens.job_verbs import tell_interrupted
from console.screens.jobs import JobsScreen
from console.screens.letters import LettersScreen
from console.screens.problems import ProblemsScreen
from console.screens.queues import QueuesScreen
from console.screens.quit_dialog import QuitDialog
from console.session import Runtime, Session
from console.styles.theme import THEMES

__all__ = ["ConsoleApp", "Session", "run_console"]


class ConsoleApp(App[int]):
    """The console.

    Args:
        runtime: The session in motion; started and ended by whoever runs the app.
    """

    TITLE = "agent-console"
    CSS_PATH = "styles/app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "screen('fleet')", "fleet", show=False, id="app.fleet"),
        Binding("2", "screen('queues')", "queues", show=False, id="app.queues"),
        Binding("3", "screen('letters')", "dead letters", show=False, id="app.letters"),
        Binding("4", "screen('events')", "events", show=False, id="app.events"),
        Binding("6", "screen('jobs')", "jobs", show=False, id="app.jobs"),
        Binding("7", "screen('audit')", "audit", show=False, id="app.audit"),
        Binding("ctrl+t", "next_theme", "theme", show=False, id="app.theme"),
        Binding("z", "problems", "problems", id="app.problems"),
        Binding("question_mark", "help", "help", key_display="?", id="app.help"),
        Binding("q", "leave", "quit", id="app.quit"),
    ]

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime
        for theme in THEMES:
            self.register_theme(theme)
        wanted = runtime.session.settings.theme
        self.theme = wanted if wanted in self.available_themes else THEMES[0].name
        if runtime.session.settings.keys:
            self.set_keymap(dict(runtime.session.settings.keys))
        self._ended_by: int | None = None

    async def on_mount(self) -> None:
        """Add the screens and end cleanly by signals."""
        self.add_mode("fleet", lambda: FleetScreen(self.runtime))
        self.add_mode("queues", lambda: QueuesScreen(self.runtime))
        self.add_mode("letters", lambda: LettersScreen(self.runtime))
        self.add_mode("events", lambda: EventsScreen(self.runtime))
        self.add_mode("jobs", lambda: JobsScreen(self.runtime))
        self.add_mode("audit", lambda: AuditScreen(self.runtime))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end_by_signal, number)
        await self.switch_mode("fleet")
        if self.runtime.guard.allowed:
            self.run_worker(
                tell_interrupted(self, self.runtime), exit_on_error=False, description="look for interrupted jobs"
            )

    def _end_by_signal(self, number: int) -> None:
        self._ended_by = number
        self.exit(128 + number)

    async def action_screen(self, name: str) -> None:
        """Go to a screen."""
        if name not in self._modes or self.screen.is_modal:
            return
        while len(self.screen_stack) > 1:
            # Not awaited: it may be a handler of the screen that goes which asked for this.
            self.pop_screen()
        await self.switch_mode(name)

    async def action_letters_of(self, expression: str) -> None:
        """Go to the dead letters, filtered."""
        await self.switch_mode("letters")
        if isinstance(self.screen, LettersScreen):
            self.screen.call_after_refresh(self.screen.show_only, expression)

    def action_problems(self) -> None:
        """Show all findings, over the screen that is shown."""
        screen = self.screen
        if isinstance(screen, ConsoleScreen) and not isinstance(screen, ProblemsScreen):
            self.push_screen(ProblemsScreen(self.runtime, screen.tab))

    def action_help(self) -> None:
        """Show the keys."""
        if not self.screen.is_modal:
            guard = self.runtime.guard
            self.push_screen(HelpPane(self.screen, "" if guard.allowed else guard.reason))

    def action_next_theme(self) -> None:
        """The other theme."""
        names = [theme.name for theme in THEMES]
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]

    def action_leave(self) -> None:
        """Quit; while a job is running, ask first: it stops after the item in work."""
        if self.runtime.busy is None:
            self.exit(0)
        elif not isinstance(self.screen, QuitDialog):
            self.push_screen(QuitDialog(self.runtime), self._leave_if)

    def _leave_if(self, confirmed: bool | None) -> None:
        if confirmed:
            self.exit(0)

    async def action_quit(self) -> None:
        """Textual's own way out, ctrl+q and the command palette, asks too."""
        self.action_leave()


async def run_console(session: Session) -> int:
    """Show the console until it is left.

    Returns:
        Exit status: 0, or 128 plus the number of the signal that ended it, or 1 after a crash.
    """
    # A full collection holds the event loop for 100 ms at 5,000 agents: what is loaded by now is left out of it, and it
    # comes when hundreds of thousands of objects were made, not a few hundred.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    runtime = Runtime(session)
    async with runtime.running():
        app = ConsoleApp(runtime)
        status = await app.run_async()
        return status if isinstance(status, int) else (app.return_code or 0)
