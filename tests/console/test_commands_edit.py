"""`dlq edit`: what is changed is checked first, planned with its diff, and sent with the id the message had."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patterns import Fleet
from patterns.server import LocalServer
from patterns.stored import StoredMessage
from tests.support.commandline import CommandLine, counts, letter, looked, prepared, stored
from tests.support.fleets import connected
from tests.support.terminal import Terminal

BODY = b'{"spec":{"model":"small","price":1.10},"debug":true}'


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


async def letters(fleet: Fleet) -> None:
    """Two of the inbox of `ceo` with a JSON body, and one of a task that is no JSON."""
    for number in (1, 2):
        await letter(fleet, "inbox", "ceo", number=number, body=BODY, ce_id=f"m-{number}", X_Tenant="acme")
    await letter(fleet, number=3, body=b"text")


async def inbox(fleet: Fleet) -> list[StoredMessage]:
    return await stored(fleet, "INBOX_CEO")


def test_one_letter_is_changed_and_sent(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letters)
    done = command(
        "dlq", "edit", "1", "--set", 'spec.model="large"', "--remove", "debug", "--header", "X-Note=a b",
        "--drop-header", "X-Tenant", "--yes", "--json",
    )  # fmt: skip
    assert (done.status, done.json["done"], done.err) == (0, 1, "")
    (message,) = looked(server.url, inbox)
    assert message.body == b'{"spec":{"model":"large","price":1.10}}'
    assert message.headers["ce-id"] == "m-1"
    assert message.headers["Nats-Msg-Id"] == "inbox.ceo.1-a1:r1"
    assert message.headers["X-Note"] == "a b"
    assert "X-Tenant" not in message.headers
    assert looked(server.url, counts)[0] == 2


def test_the_plan_shows_the_change_and_nothing_is_sent(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letters)
    for more, status in ((("--dry-run",), 0), ((), 4)):
        plan = command("dlq", "edit", "1", "2", "--set", 'spec.model="large"', *more)
        assert plan.status == status
        for part in ('-    "model": "small",', '+    "model": "large",', "$.spec.model", "2 dead letters"):
            assert part in plan.out
    assert looked(server.url, counts) == (3, 0, 0)


def test_what_a_change_does_not_fit_is_left_alone(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letters)
    done = command("dlq", "edit", "--all", "--remove", "debug", "--yes", "--json")
    assert (done.json["done"], done.json["skipped"]) == (2, 1)
    (skipped,) = (item for item in done.json["items"] if item["outcome"] == "skipped")
    assert skipped["seq"] == 3
    assert "no JSON" in skipped["detail"]
    assert [message.body for message in looked(server.url, inbox)] == [BODY.replace(b',"debug":true', b"")] * 2
    assert looked(server.url, counts)[0] == 1


@pytest.mark.parametrize("standard_input", [True, False])
def test_a_whole_new_body(
    command: CommandLine,
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    standard_input: bool,
) -> None:
    prepared(server.url, letters)
    body = b'{"all": "new",\n "n": 1.10}\n'
    (tmp_path / "body").write_bytes(body)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(body), isatty=lambda: False))
    name = "-" if standard_input else str(tmp_path / "body")
    done = command("dlq", "edit", "2", "--body", name, "--yes", "--json")
    assert (done.status, done.json["done"]) == (0, 1)
    assert [message.body for message in looked(server.url, inbox)] == [body]


def test_a_body_that_is_no_json_any_more_is_told_with_its_place(
    command: CommandLine, server: LocalServer, tmp_path: Path
) -> None:
    prepared(server.url, letters)
    (tmp_path / "body").write_bytes(b'{"a":\n nope}')
    done = command("dlq", "edit", "1", "--body", str(tmp_path / "body"), "--yes", "--json")
    assert "line 2 column 2: no JSON" in json.dumps(done.json["items"])
    assert looked(server.url, counts) == (3, 0, 0)
    gone = command("dlq", "edit", "1", "--body", str(tmp_path / "gone"), "--yes")
    assert (gone.status, gone.out) == (2, "")
    assert "No such file" in gone.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("1",), "say what to change: --set"),
        (("--set", "a=1"), "say which dead letters"),
        (("1", "--set", "spec=hello"), "--set: the value for spec is no JSON: expecting value; text is quoted"),
        (("1", "--set", "spec=hello"), "'spec=\"hello\"'"),
        (("1", "--set", "a"), "--set: 'a': expected PATH=JSON"),
        (("1", "--remove", "$["), "--remove: $[ is no JSON path"),
        (("1", "--header", "ce-id=1"), "--header: header ce-id is locked"),
        (("1", "--drop-header", "Nats-Msg-Id"), "--drop-header: header Nats-Msg-Id is locked"),
        (("1", "--header", "X=1", "--drop-header", "X"), "a header is named twice"),
        (("1", "--header", "X=\x1b[2J"), "--header: a value must be one line"),
        (("1", "2", "--body", "-"), "--body is for one letter: give exactly one SEQ"),
        (("--all", "--body", "-"), "--body is for one letter"),
        (("1", "2", "--editor"), "--editor is for one letter"),
        (("1", "--editor", "--set", "a=1"), "--editor takes no other change"),
        (("1", "--editor"), "--editor needs a terminal"),
        (("1", "--set", "a=1", "--rate", "0"), "rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(command: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    result = command("dlq", "edit", *arguments)
    assert (result.status, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert "\x1b" not in result.err


def test_read_only_refuses(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letters)
    assert command("dlq", "edit", "1", "--remove", "debug", "--yes", "--read-only").status == 5
    assert looked(server.url, counts) == (3, 0, 0)


# -- in an editor, on a real terminal


def in_terminal(server: LocalServer, tmp_path: Path, code: str, *more: str) -> Terminal:
    editor = tmp_path / "editor.py"
    editor.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\ntext = path.read_text()\n{code}\n")
    environ = {**os.environ, "VISUAL": f"{sys.executable} {editor}", "XDG_STATE_HOME": str(tmp_path / "state")}
    arguments = ["-m", "console", "dlq", "edit", "1", "--editor", *more, "--server", server.url]
    return Terminal([sys.executable, *arguments], environ=environ)


async def at(server: LocalServer, work: Any) -> Any:
    async with Fleet.connect(server.url) as fleet:
        return await work(fleet)


@pytest.mark.parametrize(("answer", "status"), [("y\r", 0), ("n\r", 4)])
async def test_what_was_edited_is_shown_and_sent_after_a_yes(
    server: LocalServer, tmp_path: Path, answer: str, status: int
) -> None:
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await letters(fleet)
    terminal = in_terminal(server, tmp_path, "path.write_text(text.replace('small', 'large'))")
    try:
        await terminal.sees('-    "model": "small",', '+    "model": "large",', "send it so?")
        terminal.type(answer)
        assert await terminal.ends() == status
    finally:
        terminal.close()
    sent = [message.body for message in await at(server, inbox)]
    assert sent == ([BODY.replace(b"small", b"large")] if not status else [])


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        ("pass", "nothing was changed", 0),
        ("sys.exit(2)", "nothing was changed: the editor", 1),
        ("path.write_text(text.replace('true', 'tru'))", "no JSON: expecting value", 1),
        ("import os, signal; os.kill(os.getppid(), signal.SIGINT)", "nothing was changed", 0),
    ],
)
async def test_an_editor_that_changes_nothing_sends_nothing(
    server: LocalServer, tmp_path: Path, code: str, said: str, status: int
) -> None:
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await letters(fleet)
    terminal = in_terminal(server, tmp_path, code, "--yes")
    try:
        await terminal.sees(said)
        assert await terminal.ends() == status
    finally:
        terminal.close()
    assert await at(server, counts) == (3, 0, 0)
