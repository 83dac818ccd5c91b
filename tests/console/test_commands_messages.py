"""`inbox peek` and `queue peek`: exact for scripts, inert for people, and nothing is touched."""

from __future__ import annotations

import pytest

from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, foreign_fleet, looked, prepared, program
from tests.support.fleets import publish, take

FIELDS = {
    *("seq", "subject", "id", "type", "source", "correlation_id", "stored_at", "size", "headers", "data", "text"),
    "state",
}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


async def notes(fleet: Fleet) -> None:
    """Three messages for the ceo, the first of them in flight; 25 tasks."""
    for number in range(3):
        await fleet.inbox("ceo").send(
            "alert.cve", {"n": number}, id=f"cve-{number}", source="security", headers={"X-Tenant": "acme"}
        )
    await take(fleet, "INBOX_CEO", "ceo-processor")
    for number in range(25):
        await fleet.tasks("backend").submit("code.feature", {"n": number}, id=f"t{number}", source="ceo")


async def consumers(fleet: Fleet) -> list[object]:
    return [
        (stream, each["name"], each["delivered"], each["ack_floor"], each["num_pending"], each["num_ack_pending"])
        for stream in ("INBOX_CEO", "TASKS_BACKEND")
        for each in await fleet.jetstream.consumers(stream)
    ]


def test_json_has_the_fields_of_the_contract_and_nothing_is_touched(server: LocalServer) -> None:
    prepared(server.url, notes)
    before = looked(server.url, consumers)
    result = program("inbox", "peek", "ceo", "--json", "--server", server.url)
    assert (result.status, result.err) == (0, "")
    assert [each["state"] for each in result.json] == ["in flight", "pending", "pending"]
    first = result.json[0]
    assert first.keys() == FIELDS
    assert (first["seq"], first["subject"], first["id"]) == (1, "agents.ceo.inbox.alert.cve", "cve-0")
    assert (first["type"], first["source"], first["correlation_id"]) == ("alert.cve", "security", "cve-0")
    assert first["stored_at"].endswith("Z")
    assert (first["data"], first["text"], first["headers"]["X-Tenant"]) == ({"n": 0}, '{"n":0}', "acme")
    assert first["size"] > 50
    assert looked(server.url, consumers) == before


def test_limit_is_twenty_unless_asked(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, notes)
    assert len(command("queue", "peek", "backend", "--json").json) == 20
    assert len(command("queue", "peek", "backend", "--json", "--limit", "100").json) == 25
    assert [each["seq"] for each in command("queue", "peek", "backend", "--limit", "2", "--json").json] == [1, 2]
    assert command("queue", "peek", "backend", "--limit", "0").status == 2


def test_filter_narrows(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, notes)
    found = command("queue", "peek", "backend", "--filter", "body.n:>=23 role:backend agent:ceo", "--json").json
    assert [each["id"] for each in found] == ["t23", "t24"]
    assert command("inbox", "peek", "ceo", "--filter", "type:nothing", "--json").json == []
    assert command("inbox", "peek", "ceo", "--filter", " ").status == 2
    assert command("inbox", "peek", "ceo", "--filter", "nosuch:1").status == 2


def test_table_for_people(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, notes)
    result = command("inbox", "peek", "ceo", "--limit", "2")
    assert result.status == 0
    for word in (
        "SEQ",
        "STATE",
        "in flight",
        "pending",
        "alert.cve",
        "cve-1",
        "security",
        '{"n":1}',
        "the first 2: --",
    ):
        assert word in result.out
    assert "cve-2" not in result.out
    assert "--limit" not in command("inbox", "peek", "ceo").out
    assert "no message matches" in command("inbox", "peek", "ceo", "--filter", "seq:99").out


def test_an_empty_one_is_no_error(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, lambda _: _nothing())
    assert command("inbox", "peek", "ceo", "--json").json == []
    assert "inbox.ceo: no messages" in command("inbox", "peek", "ceo").out


async def _nothing() -> None:
    pass


def test_an_unknown_one_is_one_line_that_names_what_exists(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, lambda _: _nothing())
    result = command("inbox", "peek", "x", "--json")
    assert (result.status, result.out) == (1, "")
    assert result.err == "agent-console: no inbox for agent 'x'; there is ceo\n"
    assert command("queue", "peek", "x").err == "agent-console: no queue for role 'x'; there is backend\n"
    strange = command("inbox", "peek", "Not An Id")
    assert (strange.status, strange.err.count("\n")) == (1, 1)


def test_a_group_alone_says_what_it_can_do(command: CommandLine) -> None:
    for group in ("inbox", "queue"):
        result = command(group)
        assert result.status == 2
        assert f"{group}: say what to do: " in result.err
        assert "peek" in result.err


def test_hostile_messages_are_inert_for_people_and_exact_in_json(command: CommandLine, server: LocalServer) -> None:
    evil = HOSTILE.encode("utf-8", "replace")

    async def send(fleet: Fleet) -> None:
        await publish(fleet, "agents.ceo.inbox.note", evil, headers={"ce-type": "%1B[31m[/x]", "ce-source": "\u202ex"})

    prepared(server.url, send)
    shown = command("inbox", "peek", "ceo")
    assert shown.status == 0
    assert not {"\x1b", "\x9b", "\u202e", "\u2066"} & set(shown.out)
    assert "[/x]" in shown.out
    (exact,) = command("inbox", "peek", "ceo", "--json").json
    assert (exact["type"], exact["text"], exact["data"]) == ("\x1b[31m[/x]", evil.decode(), None)


async def test_a_fleet_of_other_code(server: LocalServer) -> None:
    await foreign_fleet(server.url)
    found = program("inbox", "peek", "ceo", "--json", "--server", server.url).json
    assert [(each["data"], each["source"], each["state"]) for each in found] == [
        ({"n": 0}, "unknown", "pending"),
        ({"n": 1}, "unknown", "pending"),
    ]
    assert len(program("queue", "peek", "backend", "--json", "--server", server.url).json) == 1, "no direct get there"
