"""Read-only means read-only on the screen: no key, no command of the palette and no action changes anything."""

from __future__ import annotations

import contextlib
import inspect
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.command import Provider
from textual.screen import Screen

from console.messages import place_of
from console.operations.ledger import JobLedger
from console.operations.selection import choose, freeze
from console.screens.ask import AskPane
from console.screens.base import TABS
from console.screens.job_items import ItemsScreen
from console.screens.messages import MessagesScreen
from console.screens.note_book import NotePane
from console.screens.operate import OperatingScreen
from console.screens.plan_dialog import PlanDialog
from console.screens.quit_dialog import ConfirmDialog
from console.widgets.row_table import RowTable
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import account_state
from tests.support.fleets import connected
from tests.support.guarded import AGENTS, BRIEF, broken_job, populate, spilled
from tests.support.screens import Desk, desk

SCREENS = [tab.id for tab in TABS]
PUSHED = ["inbox ceo", "queue backend", "events of the stream", "items of the job"]
"""What is pushed over a screen: the messages of a place, the items of a job."""
UNTYPED = {"ctrl+z"}
"""Would put the process to sleep wherever it is bound."""
ASKING = PlanDialog | AskPane | ConfirmDialog
"""Only a change asks, once the way out is closed; and a note, which stays on this machine."""


@dataclass
class Reader:
    """A read-only console on a fleet where everything could be changed."""

    console: Desk
    fleet: Fleet
    ledger: JobLedger
    job: str
    file: Path
    before: dict[str, Any]
    _pushed: Screen[Any] | None = field(default=None)

    def look(self, tried: object) -> None:
        """No dialog that asks, no plan or resumption in the making, no job."""
        app = self.console.app
        shown = [screen for stack in app._screen_stacks.values() for screen in stack]
        asking = [screen for screen in shown if isinstance(screen, ASKING) and not isinstance(screen, NotePane)]
        assert not asking, tried
        assert not [worker for worker in app.workers if worker.group in ("plan", "job")], tried
        assert self.console.runtime.jobs == [], tried

    async def unchanged(self) -> None:
        """The server and the ledger are as they were."""
        await self.console.pilot.pause()
        self.look("at the end")
        assert await account_state(self.fleet) == self.before
        assert len(self.ledger.jobs()) == 2
        assert self.ledger.counts(self.job) == {"in doubt": 1, "waiting": 1}

    async def open(self, name: str) -> Screen[Any]:
        """A screen with nothing over it and its own widget in focus; the same one as before unless it was left."""
        console, app = self.console, self.console.app
        mode = name if name in SCREENS else "jobs" if name.startswith("items") else "fleet"
        if app.current_mode != mode:
            await app.switch_mode(mode)
        while len(app.screen_stack) > 1 and (name in SCREENS or app.screen is not self._pushed):
            await app.pop_screen()
        if name not in SCREENS and app.screen is not self._pushed:
            if mode == "jobs":
                table: RowTable = app.screen.home()  # type: ignore[attr-defined]
                await console.holds(lambda: any(row.key == self.job for row in table.rows))
                table.move_cursor(self.job)
                table.focus()
                await console.press("enter")
                await console.holds(lambda: isinstance(app.screen, ItemsScreen))
                self._pushed = app.screen
                await console.sees("in doubt")
            else:
                kind, _, of = name.partition(" ")
                screen = MessagesScreen(console.runtime, kind, "" if kind == "events" else of)  # type: ignore[arg-type]
                await app.push_screen(screen)
                await console.holds(lambda: screen._look is not None)
                self._pushed = screen
        home = app.screen.home()  # type: ignore[attr-defined]
        if app.focused is not home:
            home.focus()
            await console.pilot.pause()
        return app.screen


@contextlib.asynccontextmanager
async def reader(server: LocalServer, tmp_path: Path) -> AsyncIterator[Reader]:
    """The console, its way out closed so that every key can be tried."""
    async with connected(server.url, agents=AGENTS, roles=["backend"], config=BRIEF) as fleet:
        await populate(fleet)
        ledger = JobLedger(tmp_path)
        job = await broken_job(fleet, ledger)
        file = await spilled(fleet, ledger, tmp_path)
        before = await account_state(fleet)
        async with desk(fleet, write=False, ledger=ledger, spill=tmp_path) as console:
            await console.sees("[RO]", "ceo")
            app = console.app
            app.exit = lambda *_, **__: None  # type: ignore[method-assign]
            app.deliver_screenshot = lambda *_, **__: None  # type: ignore[method-assign]
            await console.holds(lambda: len(console.runtime.monitor.letters.all()) == 3)
            yield Reader(console, fleet, ledger, job, file, before)
        ledger.close()


def bound(screen: Screen[Any]) -> dict[str, set[str]]:
    """Every key that is bound on a screen, its widgets or the app, with what it does; whether allowed or not."""
    found: dict[str, set[str]] = {}
    for node in (screen.app, screen, *screen.query("*")):
        for key, bindings in node._bindings.key_to_bindings.items():
            found.setdefault(key, set()).update(binding.action.partition("(")[0] for binding in bindings)
    return found


def every_key(screen: Screen[Any]) -> list[str]:
    """All bound keys, and all capitals, which is where changes stand."""
    return [key for key in dict.fromkeys([*bound(screen), *string.ascii_uppercase]) if key not in UNTYPED]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*SCREENS, *PUSHED])
async def test_no_key_of_a_read_only_screen_changes_anything(server: LocalServer, tmp_path: Path, name: str) -> None:
    async with reader(server, tmp_path) as found:
        for key in every_key(await found.open(name)):
            await found.console.press(key)
            found.look(key)
            await found.open(name)
        await found.unchanged()


async def test_the_keys_that_would_change_something_are_among_those_tried(server: LocalServer, tmp_path: Path) -> None:
    """Bound and pressed, and with the guard lifted they ask: so the test above can fail."""
    async with reader(server, tmp_path) as found:
        wanted = {
            "fleet": {"replay", "pause", "rescue", "undo"},
            "queues": {"replay", "pause", "purge", "undo"},
            "letters": {"replay", "discard", "purge", "move", "rescue", "undo"},
            "jobs": {"pause", "faster", "slower", "cancel", "undo"},
            "inbox ceo": {"discard", "purge"},
            "items of the job": {"answer", "pause", "faster", "cancel"},
        }
        for name, actions in wanted.items():
            base = await found.open(name)
            keys = {action: key for key, does in bound(base).items() for action in does & actions}
            assert keys.keys() == actions
            assert set(keys.values()) <= set(every_key(base))
            assert actions <= OperatingScreen.CHANGES
            live = {key.binding.action.partition("(")[0] for key in base.active_bindings.values() if key.node is base}
            assert live & OperatingScreen.CHANGES == set(), name
        base = await found.open("letters")
        found.console.runtime.guard.allowed = True
        for key, asks in (("R", PlanDialog), ("D", PlanDialog), ("X", PlanDialog), ("U", PlanDialog), ("M", AskPane)):
            await found.console.press(key)
            try:
                await found.console.holds(lambda asks=asks: isinstance(found.console.app.screen, asks))
            except AssertionError:
                raise AssertionError(f"{key} does not ask:\n{found.console.text()}") from None
            await found.console.press("escape")
            await found.console.holds(lambda: found.console.app.screen is base)


async def test_help_and_hints_of_a_read_only_screen_name_no_change(server: LocalServer, tmp_path: Path) -> None:
    async with reader(server, tmp_path) as found:
        for name in (*SCREENS, *PUSHED):
            await found.open(name)
            text = found.console.text().splitlines()[-1]
            await found.console.press("question_mark")
            text += await found.console.sees("read-only", "keys")
            for word in ("replay…", "replay DLQ", "discard…", "purge…", "purge matching", "move…", "rescue", "undo",
                         "pause/resume", "pause/go on", "faster", "cancel ", "arrived", "again"):  # fmt: skip
                assert word not in text, (name, word)


async def test_no_command_of_the_palette_changes_anything(server: LocalServer, tmp_path: Path) -> None:
    async with reader(server, tmp_path) as found:
        app = found.console.app
        for name in (*SCREENS, "inbox ceo", "items of the job"):
            base = await found.open(name)
            hits: dict[str, Any] = {each.title: each.callback for each in app.get_system_commands(base)}
            for source in {*app.COMMANDS, *base.COMMANDS}:
                kind = source if isinstance(source, type) and issubclass(source, Provider) else source()
                provider = kind(base)
                provider._post_init()
                hits |= {str(hit.text): hit.command async for hit in provider.discover()}
                for query in string.ascii_lowercase:
                    hits |= {str(hit.text): hit.command async for hit in provider.search(query)}
            assert hits
            for title, run in hits.items():
                answer = run()
                if inspect.isawaitable(answer):
                    await answer
                await found.console.pilot.pause()
                found.look((name, title))
                await found.open(name)
        await found.unchanged()


async def test_no_action_called_directly_changes_anything(server: LocalServer, tmp_path: Path) -> None:
    async with reader(server, tmp_path) as found:
        tried, place = set[str](), place_of(found.fleet.names, "inbox", "ceo")
        letters = found.console.runtime.monitor.letters.all()
        for name in (*SCREENS, *PUSHED):
            base = await found.open(name)
            if not isinstance(base, OperatingScreen):
                continue
            for action in sorted(base.CHANGES):
                assert base.check_action(action, ()) is False
                method = getattr(base, f"action_{action}", None)
                if method is None:
                    continue
                tried.add(action)
                for arguments in [("again",), ("done",), ("leave",)] if action == "answer" else [()]:
                    answer = method(*arguments)
                    if inspect.isawaitable(answer):
                        await answer
                    found.look((name, action))
                    await found.console.app.run_action(f"screen.{action}({', '.join(map(repr, arguments))})")
                    await found.console.pilot.pause()
                    found.look((name, action))
                    base = await found.open(name)  # type: ignore[assignment]
                    method = getattr(base, f"action_{action}")
            base.replay_letters(letters, "all")
            base.replay_letters(letters, "all", to="agents.cfo.inbox.note")
            base.discard_letters(freeze(letters, "all"))
            base.discard_letters(choose("dead letters", everything=True), purge=True)
            base.rescue_stranded()
            base.purge_messages(place, choose("messages", everything=True))
            base.pause_place(place)
            base.restore_file(found.file)
            await found.console.pilot.pause()
            found.look(name)
        assert tried == OperatingScreen.CHANGES - {"resume"}, "the one key P resumes a job, too"
        await found.unchanged()
