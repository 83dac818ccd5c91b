"""`dlq list` and `dlq show`: exact for scripts, inert for people."""

from __future__ import annotations

import base64
import json

import pytest

from patterns import Fleet
from patterns.headers import escape
from patterns.server import LocalServer
from tests.support.commandline import (
    HOSTILE,
    CommandLine,
    Result,
    letter,
    prepared,
    program,
    three,
)

LETTER = {
    *(
        "seq",
        "source",
        "kind",
        "name",
        "subject",
        "type",
        "reason",
        "error_type",
        "error",
        "agent",
        "deliveries",
        "replays",
    ),
    *("id", "correlation_id", "first_at", "died_at", "size"),
}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def seqs(result: Result) -> list[int]:
    return [each["seq"] for each in result.json]


# -- list


def test_list_json_has_the_fields_of_the_contract(server: LocalServer) -> None:
    prepared(server.url, three)
    result = program("dlq", "list", "--json", "--server", server.url)
    assert (result.status, result.err) == (0, "")
    assert seqs(result) == [1, 2, 3]
    first = result.json[0]
    assert first.keys() == LETTER
    assert (first["source"], first["kind"], first["name"]) == ("tasks.backend", "tasks", "backend")
    assert (first["subject"], first["type"]) == ("tasks.backend.code.feature", "code.feature")
    assert (first["reason"], first["error_type"], first["error"]) == (
        *("max-deliver", "TimeoutError"),
        "model did not answer",
    )
    assert (first["agent"], first["deliveries"], first["replays"], first["id"]) == ("backend-1", 3, 0, "id-1")
    assert first["first_at"] is None
    assert first["died_at"].endswith("Z")


def test_list_narrows(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    assert seqs(command("dlq", "list", "--json", "--limit", "2")) == [1, 2]
    assert seqs(command("dlq", "list", "--json", "--filter", "kind:tasks")) == [1, 3]
    assert seqs(command("dlq", "list", "--json", "--filter", "role:backend", "--limit", "1")) == [1]
    assert seqs(command("dlq", "list", "--json", "--filter", "!reason:rejected another")) == [3]
    assert command("dlq", "list", "--json", "--filter", "agent:nobody").json == []


def test_list_is_a_table_for_people(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    result = command("dlq", "list", "--limit", "2")
    assert result.status == 0
    for word in ("SEQ", "tasks.backend", "inbox.ceo", "TimeoutError: model did not answer", "the first 2: --limit"):
        assert word in result.out
    assert "another" not in result.out
    assert "--limit" not in command("dlq", "list").out


def test_a_server_without_dead_letters_has_an_empty_list(command: CommandLine) -> None:
    assert command("dlq", "list", "--json").json == []
    assert command("dlq", "list").out == "no dead letters\n"


def test_list_reads_beyond_a_page(command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.commands.dlq.PAGE", 2)
    prepared(server.url, three)
    assert seqs(command("dlq", "list", "--json")) == [1, 2, 3]


# -- show


def test_show_json_adds_headers_and_the_exact_body(server: LocalServer) -> None:
    body = b'{"spec": "\\u001b[31m", "n": [1, 2.5, null]}'

    async def one(fleet: Fleet) -> None:
        await letter(fleet, body=body, X_Tenant="acme")

    prepared(server.url, one)
    result = program("dlq", "show", "1", "--server", server.url, "--json")
    told = result.json
    assert (result.status, result.err) == (0, "")
    assert told.keys() == LETTER | {"headers", "data", "text", "base64"}
    assert told["headers"]["X-Tenant"] == "acme"
    assert told["data"] == json.loads(body)
    assert told["text"] == body.decode()
    assert base64.b64decode(told["base64"]) == body


def test_show_tells_people_the_story(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    result = command("dlq", "show", "2")
    for word in ("inbox.ceo", "Reject: no spec", "agents.ceo.inbox.note", "Dead-Letter-Reason", '"n": 1'):
        assert word in result.out


def test_show_of_a_body_that_is_no_json(command: CommandLine, server: LocalServer) -> None:
    async def two(fleet: Fleet) -> None:
        await letter(fleet, number=1, body=b"plain\n\x1b[31mtext")
        await letter(fleet, number=2, body=b"\x00\xff\x1b")

    prepared(server.url, two)
    assert "plain\n␛[31mtext" in command("dlq", "show", "1").out
    assert "00 ff 1b" in command("dlq", "show", "2").out
    told = command("dlq", "show", "2", "--json").json
    assert (told["data"], base64.b64decode(told["base64"])) == (None, b"\x00\xff\x1b")


@pytest.mark.parametrize("seq", ["41", "99999999999999999999999"])
def test_show_of_a_letter_that_is_not_there(command: CommandLine, seq: str) -> None:
    result = command("dlq", "show", seq)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"agent-console: no dead letter {seq}")


# -- hostile content


@pytest.mark.parametrize(
    "line",
    [("list",), ("show", "1"), ("replay", "1"), ("replay", "--all", "--dry-run"), ("replay", "1", "--yes")],
    ids=" ".join,
)
def test_hostile_letters_reach_people_inert(command: CommandLine, server: LocalServer, line: tuple[str, ...]) -> None:
    bad = escape(HOSTILE)

    async def hostile(fleet: Fleet) -> None:
        await letter(
            fleet,
            body=json.dumps({HOSTILE: HOSTILE}).encode(),
            **dict.fromkeys(("Error", "Error_Type", "Agent", "Message_Id", "Reason", "Stream"), bad),
            ce_type=bad,
            ce_correlationid=bad,
            Subject=escape("tasks.backend.\x1b[31m\u202e"),
        )

    prepared(server.url, hostile)
    result = command("dlq", *line)
    text = result.out + result.err
    assert result.status in (0, 4)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ud800"}
    if line[0] != "replay":
        assert "[/x] [@click=app.quit]go[/]" in text
    assert line[:1] != ("list",) or len(text.splitlines()) == 2


def test_json_of_a_hostile_letter_is_exact_and_still_ascii(command: CommandLine, server: LocalServer) -> None:
    async def hostile(fleet: Fleet) -> None:
        await letter(
            fleet, Error=escape(HOSTILE), Message_Id=escape(HOSTILE), Subject=escape(f"tasks.backend.{HOSTILE}")
        )

    prepared(server.url, hostile)
    for result in (command("dlq", "list", "--json"), command("dlq", "show", "1", "--json")):
        assert result.out.isascii()
        assert result.out.rstrip("\n").isprintable()
        told = result.json if isinstance(result.json, dict) else result.json[0]
        assert (told["error"], told["id"], told["subject"]) == (HOSTILE, HOSTILE, f"tasks.backend.{HOSTILE}")
    plan = command("dlq", "replay", "1", "--dry-run", "--json")
    assert plan.out.isascii()
    assert (plan.json["count"], [skip["seq"] for skip in plan.json["skipped"]]) == (0, [1])
