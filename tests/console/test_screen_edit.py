"""Editing on the screen: one letter, the same change in many, an editor of one's own, and nothing unsafe in or out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events

from console.operations.edits import Edit, EditError
from console.screens.edit import BulkEditPane, EditScreen
from console.widgets.safe_area import SafeArea
from patterns import DeadLetter, Fleet
from patterns.server import LocalServer
from patterns.stored import StoredMessage
from tests.support.fleets import connected
from tests.support.letters import forge
from tests.support.screens import Desk, desk
from tests.support.terminal import Terminal
from tests.support.waiting import until

BODY = b'{"spec":{"model":"small","price":1.10},"note":"\xe2\x80\xae\\u001b[2J"}'
NOT_LEFT = object()


async def read(fleet: Fleet, seq: int) -> tuple[StoredMessage, DeadLetter]:
    stored = await fleet.jetstream.get(fleet.dead_letters.stream, seq)
    assert stored is not None
    return stored, await fleet.dead_letters.get(seq)


class Open(Desk):
    """A desk with an editing screen on it."""

    result: Any = NOT_LEFT

    def area(self, name: str) -> SafeArea:
        return self.app.screen.query_one(name, SafeArea)

    async def left(self) -> Any:
        await self.holds(lambda: self.result is not NOT_LEFT)
        return self.result

    async def paste(self, text: str) -> None:
        self.app.post_message(events.Paste(text))
        await self.pilot.pause()


@asynccontextmanager
async def editing(
    server: LocalServer, *, size: tuple[int, int] = (120, 40), bulk: int = 0, body: bytes = BODY, **headers: str
) -> AsyncIterator[Open]:
    async with connected(server.url, agents=["ceo"]) as fleet:
        named = {name.replace("_", "-"): value for name, value in {"X_Tenant": "acme", **headers}.items()}
        seq = await forge(fleet, "inbox.ceo.7-a", body=body, headers=named, Message_Id="m-7", Error="\x1b[31mred")
        stored, letter = await read(fleet, seq)
        async with desk(fleet, size=size) as found:
            opened = Open(found.app, found.pilot, found.runtime)
            screen = BulkEditPane(bulk, stored) if bulk else EditScreen(stored, letter)

            def take(edit: Edit | None) -> None:
                opened.result = edit

            found.app.push_screen(screen, take)
            await opened.sees("check and plan…")
            yield opened


# -- one letter


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_body_and_headers_are_edited_and_returned(server: LocalServer, size: tuple[int, int]) -> None:
    async with editing(server, size=size) as screen:
        shown = await screen.sees("Dead-Letter-Error", "X-Tenant: acme", '"price": 1.10', "JSON ok", "f2", "leave")
        assert "\\u202e\\u001b[2J" in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        area = screen.area("#edit-body")
        area.move_cursor((2, area.document.lines[2].index("small")))
        await screen.press(*"very-")
        await screen.press("shift+tab", "end", "enter", *"X-New:", "space", *"1")
        await screen.sees("changed")
        await screen.press("ctrl+s")
        edit = await screen.left()
        assert edit.body == BODY.replace(b"\xe2\x80\xae", b"\\u202e").replace(b"small", b"very-small")
        assert edit.headers == (("X-New", "1"),)


async def test_what_is_wrong_is_told_live_and_the_cursor_is_put_there(server: LocalServer) -> None:
    async with editing(server) as screen:
        await screen.sees("JSON ok")
        await screen.press("pagedown", "end", *"x")
        await screen.sees("line 7 column 2: no JSON: extra data")
        screen.area("#edit-body").move_cursor((0, 0))
        await screen.press("ctrl+s")
        await screen.holds(lambda: screen.area("#edit-body").cursor_location == (6, 1))
        assert screen.result is NOT_LEFT
        await screen.press("delete")
        await screen.sees("JSON ok")
        await screen.press("shift+tab", "home", *"ce-id:", "space", *"1", "enter")
        await screen.sees("headers, line 1: header ce-id is locked")
        await screen.press("tab", "ctrl+s")
        await screen.holds(lambda: screen.app.focused is screen.area("#edit-headers"))
        assert screen.area("#edit-headers").cursor_location == (0, 0)


async def test_nothing_is_sent_that_was_not_changed(server: LocalServer) -> None:
    async with editing(server) as screen:
        await screen.sees("not changed")
        await screen.press("ctrl+s")
        await screen.sees("nothing was changed")
        assert screen.result is NOT_LEFT
        await screen.press("escape")
        assert await screen.left() is None


async def test_changes_are_not_lost_by_one_key(server: LocalServer) -> None:
    async with editing(server) as screen:
        await screen.press("space", "escape")
        await screen.sees("What was changed here is lost")
        await screen.press("escape")
        await screen.misses("What was changed here is lost")
        assert screen.result is NOT_LEFT
        await screen.press("escape")
        await screen.sees("What was changed here is lost")
        await screen.press("y")
        assert await screen.left() is None


async def test_typing_is_typing(server: LocalServer) -> None:
    async with editing(server) as screen:
        await screen.press("q", "1", "question_mark", "slash", "R", "X", "E")
        await screen.sees("q1?/RXE{")
        assert isinstance(screen.app.screen, EditScreen)


@pytest.mark.parametrize(
    "hostile",
    ["\x1b]52;c;cHduZWQ=\x1b\\", "\x9b2J", "a\u202eb", "\u200b", "\x00", "\U000e0041"],
    ids=ascii,
)
async def test_what_is_not_safe_to_show_is_not_taken(server: LocalServer, hostile: str) -> None:
    async with editing(server) as screen:
        before = screen.area("#edit-body").text
        await screen.paste(f"fine {hostile}")
        await screen.sees("not taken: character U+")
        assert screen.area("#edit-body").text == before
        await screen.paste("[/x]\r[@click=app.quit]go[/]")
        await screen.sees("[/x]", "[@click=app.quit]go[/]{")
        assert screen.area("#edit-body").text == "[/x]\n[@click=app.quit]go[/]" + before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xff", "no text in UTF-8"),
        (b"a\x1b[2J", "not safe to show"),
        (b'"%s"' % (b"x" * 140_000), "too long to edit here"),
    ],
    ids=("bytes", "controls", "long"),
)
async def test_what_cannot_be_edited_here_names_the_way_out(server: LocalServer, body: bytes, said: str) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        stored, letter = await read(fleet, await forge(fleet, "inbox.ceo.7-a", body=body))
        with pytest.raises(EditError, match=said) as raised:
            EditScreen(stored, letter)
        assert "--body FILE" in str(raised.value)


async def test_a_terminal_that_cannot_be_given_away_is_told(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", sys.executable)
    async with editing(server) as screen:
        await screen.press("f2")
        await screen.sees("this terminal cannot be given to an editor")
        monkeypatch.setenv("VISUAL", "no-such-editor")
        await screen.press("f2")
        await screen.sees("there is no editor 'no-such-editor'")


# -- many letters


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_one_change_for_many_is_shown_in_the_first(server: LocalServer, size: tuple[int, int]) -> None:
    async with editing(server, size=size, bulk=12) as screen:
        await screen.sees("edit 12 dead letters", "set $.path = JSON", "say what to change")
        await screen.paste("set spec.model = large")
        await screen.sees("line 1: the value for spec.model is no JSON")
        await screen.press("ctrl+s")
        assert screen.result is NOT_LEFT
        area = screen.area("#bulk-changes")
        area.move_cursor((0, area.text.index("large")))
        await screen.press('"', "end", '"', "enter", *"drop", "space", *"X-Tenant")
        await screen.sees('-    "model": "small",', '+    "model": "large",', "-X-Tenant: acme", "drop X-Tenant")
        await screen.press("ctrl+s")
        edit = await screen.left()
        assert edit.describe() == "set $.spec.model, drop X-Tenant"


async def test_what_does_not_fit_the_first_may_fit_the_others(server: LocalServer) -> None:
    async with editing(server, bulk=2) as screen:
        await screen.paste("remove gone")
        await screen.sees("$.gone selects nothing")
        await screen.press("escape")
        await screen.sees("What was changed here is lost")
        await screen.press("escape", "ctrl+s")
        assert (await screen.left()).describe() == "remove $.gone"


# -- an editor of one's own, in a real terminal

PROGRAM = """
import asyncio, pathlib, sys
from console.app import ConsoleApp
from console.operations.guard import WriteGuard
from console.screens.edit import EditScreen
from console.session import Runtime, Session
from console.settings import Settings
from patterns import Fleet

async def main():
    async with Fleet.connect(sys.argv[1]) as fleet:
        stored = await fleet.jetstream.get(fleet.dead_letters.stream, 1)
        screen = EditScreen(stored, await fleet.dead_letters.get(1))
        session = Session(
            fleet=fleet, settings=Settings(), guard=WriteGuard(True), name="demo", address="here",
            spill=pathlib.Path(sys.argv[0]).parent,
        )
        runtime = Runtime(session)
        async with runtime.running():
            app = ConsoleApp(runtime)
            edits = []
            app.call_later(lambda: app.push_screen(screen, lambda edit: (edits.append(edit), app.exit(0))))
            await app.run_async()
    print("EDITED", edits)

asyncio.run(main())
"""


@asynccontextmanager
async def in_terminal(server: LocalServer, tmp_path: Path, code: str) -> AsyncIterator[Terminal]:
    editor, program = tmp_path / "editor.py", tmp_path / "program.py"
    editor.write_text(f"import pathlib, sys, time\npath = pathlib.Path(sys.argv[1])\ntext = path.read_text()\n{code}\n")
    program.write_text(PROGRAM)
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.7-a", body=b'{"model":"small"}', headers={"X-Tenant": "acme"}, Message_Id="m-7")
    private = tmp_path / "private"
    private.mkdir()
    environ = {
        **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
        "VISUAL": f"{sys.executable} {editor}",
        "TMPDIR": str(private),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    terminal = Terminal([sys.executable, str(program), server.url], environ=environ)
    try:
        await terminal.sees("JSON ok", "X-Tenant: acme")
        yield terminal
        assert list(private.iterdir()) == []
    finally:
        terminal.close()


async def test_an_editor_of_ones_own(server: LocalServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = f"""
print("IN THE EDITOR", flush=True)
while not pathlib.Path({str(gate)!r}).exists():
    time.sleep(0.02)
path.write_text(text.replace("small", "large").replace("acme", "other"))
"""
    async with in_terminal(server, tmp_path, code) as terminal:
        terminal.type("\x1bOQ")
        await terminal.sees("IN THE EDITOR")
        size = len(terminal.raw)
        # The console is still connected, and paints nothing meanwhile.
        async with connected(server.url, agents=["ceo"]) as fleet:
            await forge(fleet, "inbox.ceo.8-b")
        assert len(terminal.raw) == size
        gate.touch()
        await terminal.sees("X-Tenant: other", '"model": "large"', "JSON ok")
        terminal.type("\x13")
        assert await terminal.ends() == 0
        assert 'EDITED [Edit(body=b\'{"model":"large"}\'' in terminal.raw.decode("utf-8", "replace")


async def test_an_editor_that_fails_or_leaves_what_is_unsafe(server: LocalServer, tmp_path: Path) -> None:
    times = tmp_path / "times"
    code = f"""
times = pathlib.Path({str(times)!r})
times.write_text(times.read_text() + "x" if times.exists() else "x")
if len(times.read_text()) == 1:
    path.write_text("gone")
    sys.exit(7)
hostile = "\\x1b]52;c;cHduZWQ=\\x07"
path.write_text(text.replace("small", hostile) if "small" in text else text.replace(hostile, "fine"))
"""
    async with in_terminal(server, tmp_path, code) as terminal:
        terminal.type("\x1bOQ")
        await terminal.sees("nothing was changed: the editor", "ended with 7", '"model": "small"')
        terminal.type("\x1bOQ")
        await terminal.sees("f2 opens it again: line 8 column 13: character U+001B", '"model": "small"')
        assert b"52;c" not in terminal.raw
        terminal.type("\x1bOQ")
        await terminal.sees('"model": "fine"', "JSON ok")
        terminal.type("\x1b")
        await terminal.sees("What was changed here is lost")
        terminal.type("y")
        assert await terminal.ends() == 0
        await until(lambda: b"EDITED [None]" in terminal.raw)


async def test_a_signal_while_the_editor_is_open_ends_both(server: LocalServer, tmp_path: Path) -> None:
    async with in_terminal(server, tmp_path, "print('IN THE EDITOR', flush=True)\ntime.sleep(600)") as terminal:
        terminal.type("\x1bOQ")
        await terminal.sees("IN THE EDITOR")
        terminal.signal(signal.SIGTERM)
        await terminal.ends()
        # Alternate screen and mouse are off, and were not switched on again after the editor.
        for mode in (b"1049", b"1000"):
            assert terminal.raw.rindex(b"\x1b[?%sl" % mode) > terminal.raw.rindex(b"\x1b[?%sh" % mode)
