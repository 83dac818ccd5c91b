"""`dlq causes` and `dlq note`: groups for scripts and for people, and what is noted for the next operator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.causes import cause_id
from console.notes import LONGEST
from patterns import DeadLetter, Fleet
from patterns.headers import escape
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, letter, looked, prepared

CAUSE = {
    *("cause", "by", "source", "text", "count", "first_at", "last_at", "deliveries", "replays", "agents", "types"),
    *("note", "seqs"),
}
ALIKE = ("no ami", "no anv")
"""Two errors of the queue of `backend` whose causes begin with the same four digits."""
NOTE = {"about", "seq", "cause", "text", "author", "at"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


async def five(fleet: Fleet) -> list[DeadLetter]:
    """Letters 1 to 5: three of a queue that timed out, two of an inbox without a spec."""
    for number in range(1, 4):
        await letter(
            fleet, number=number, Error=f"no answer within {number} s", Deliveries=str(number), Agent=f"b-{number % 2}"
        )
    for number in range(4, 6):
        await letter(
            fleet, "inbox", "ceo", number=number, Error_Type="Reject", Error="no spec", Replays=str(number - 3)
        )
    return await fleet.dead_letters.list()


def state(*parts: str) -> Path:
    return Path(os.environ["XDG_STATE_HOME"], "agent-console", *parts)


# -- causes


def test_causes_json_has_the_fields_of_the_contract(command: CommandLine, server: LocalServer) -> None:
    letters = prepared(server.url, five)
    result = command("dlq", "causes", "--json")
    assert (result.status, result.err) == (0, "")
    timeouts, specs = result.json
    assert timeouts.keys() == specs.keys() == CAUSE
    assert (timeouts["cause"], timeouts["by"], timeouts["source"]) == (cause_id(letters[0]), "cause", "tasks.backend")
    assert (timeouts["text"], timeouts["count"]) == ("TimeoutError: no answer within # s", 3)
    assert timeouts["deliveries"] == {"min": 1, "max": 3}
    assert timeouts["replays"] == {"max": 0, "letters": 0}
    assert specs["replays"] == {"max": 2, "letters": 2}
    assert timeouts["agents"] == {"b-1": 2, "b-0": 1}
    assert timeouts["types"] == {"code.feature": 3}
    assert timeouts["note"] is None
    assert (timeouts["seqs"], specs["seqs"]) == ([3, 2, 1], [5, 4])
    assert timeouts["first_at"] <= timeouts["last_at"]
    assert timeouts["first_at"].endswith("Z")


def test_causes_narrows_groups_otherwise_and_stops(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, five)
    assert [each["count"] for each in command("dlq", "causes", "--json", "--filter", "error:spec").json] == [2]
    assert [each["count"] for each in command("dlq", "causes", "--json", "--limit", "1").json] == [3]
    by_agent = command("dlq", "causes", "--json", "--by", "agent").json
    assert [(each["source"], each["count"], each["cause"], each["by"]) for each in by_agent] == [
        *(("b-1", 2, None, "agent"), ("ceo", 2, None, "agent"), ("b-0", 1, None, "agent")),
    ]
    assert [each["source"] for each in command("dlq", "causes", "--json", "--by", "subject").json] == [
        *("tasks.backend.code.feature", "agents.ceo.inbox.note"),
    ]
    assert [each["source"] for each in command("dlq", "causes", "--json", "--by", "type").json] == [
        "code.feature",
        "note",
    ]


def test_the_id_of_a_cause_selects_its_letters_everywhere(command: CommandLine, server: LocalServer) -> None:
    letters = prepared(server.url, five)
    known = cause_id(letters[0])
    assert [each["seq"] for each in command("dlq", "list", "--json", "--filter", f"cause:{known}").json] == [1, 2, 3]
    assert command("dlq", "replay", "--filter", f"cause:{known[:4]}", "--dry-run", "--json").json["count"] == 3
    assert command("dlq", "purge", "--filter", f"!cause:{known}", "--dry-run", "--json").json["count"] == 2
    done = command("dlq", "replay", "--filter", f"cause:{known}", "--yes", "--json")
    assert (done.status, done.json["done"]) == (0, 3)


def test_causes_for_people(command: CommandLine, server: LocalServer) -> None:
    letters = prepared(server.url, five)
    assert command("dlq", "note", "--cause", cause_id(letters[-1]), "ask bob").status == 0
    result = command("dlq", "causes")
    for part in ("LETTERS", "CAUSE", cause_id(letters[0]), "tasks.backend", "1…3", "no answer within # s", "✎ ask bob"):
        assert part in result.out
    assert "1 more group: --limit shows them" in command("dlq", "causes", "--limit", "1").out
    assert "AGENT" in command("dlq", "causes", "--by", "agent").out
    assert "ask bob" not in command("dlq", "causes", "--by", "agent").out


def test_causes_of_nothing(command: CommandLine, server: LocalServer) -> None:
    assert command("dlq", "causes", "--json").json == []
    assert command("dlq", "causes").out == "no dead letters\n"
    assert not state("jobs.db").exists(), "looking writes nothing"


@pytest.mark.parametrize("line", [("--filter", ""), ("--filter", "colour:red"), ("--by", "none"), ("--limit", "0")])
def test_causes_refuses_what_cannot_be_meant(command: CommandLine, line: tuple[str, ...]) -> None:
    result = command("dlq", "causes", *line)
    assert result.status == 2
    assert len(result.err.splitlines()) == 1


def test_causes_are_exact_for_scripts_and_inert_for_people(command: CommandLine, server: LocalServer) -> None:
    hostile = HOSTILE.replace("\ud800", "")

    async def write(fleet: Fleet) -> None:
        await letter(fleet, Error=escape(hostile), Error_Type="", Agent=escape(hostile))

    prepared(server.url, write)
    (group,) = command("dlq", "causes", "--json").json
    assert group["agents"] == {hostile: 1}
    assert group["text"] == hostile
    for by in ("cause", "agent"):
        out = command("dlq", "causes", "--by", by).out
        assert not set(out) & set("\x1b\x9b\u202e\u2066")
        assert "click=app.quit" in out


# -- note


def test_a_note_on_a_letter_is_written_shown_and_removed(command: CommandLine, server: LocalServer) -> None:
    letters = prepared(server.url, five)
    nothing = command("dlq", "note", "1")
    assert (nothing.status, nothing.out, nothing.err) == (0, "", "agent-console: nothing is noted about it\n")
    assert command("dlq", "note", "1", "--json").json == []
    (written,) = command("dlq", "note", "1", "ask  bob", "--json").json
    assert written.keys() == NOTE
    assert (written["about"], written["seq"], written["cause"], written["text"]) == ("letter", 1, None, "ask bob")
    assert "@" in written["author"]
    assert written["at"].endswith("Z")
    (of_cause,) = command("dlq", "note", "--cause", cause_id(letters[0])[:5], "the quota", "--json").json
    assert (of_cause["about"], of_cause["seq"], of_cause["cause"]) == ("cause", None, cause_id(letters[0]))
    assert [each["text"] for each in command("dlq", "note", "1", "--json").json] == ["ask bob", "the quota"]
    assert [each["text"] for each in command("dlq", "note", "2", "--json").json] == ["the quota"]
    assert command("dlq", "causes", "--json").json[0]["note"] == "the quota"
    shown = command("dlq", "show", "1").out
    assert "✎  letter" in shown
    assert "the quota" in shown
    assert "notes" not in command("dlq", "show", "1", "--json").json
    assert "ask bob" in command("dlq", "note", "1").out
    assert [each["text"] for each in command("dlq", "note", "1", "--delete", "--json").json] == ["the quota"]
    assert command("dlq", "note", "--cause", cause_id(letters[0]), "--delete").status == 0
    assert command("dlq", "note", "1", "--json").json == []
    assert "✎" not in command("dlq", "show", "1").out


def test_a_note_changes_nothing_on_the_server_and_is_audited(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, five)

    async def told(fleet: Fleet) -> object:
        info = await fleet.jetstream.stream_info("DLQ")
        return info["state"] if info else None

    before = looked(server.url, told)
    assert command("dlq", "note", "1", "ask bob", "--read-only").status == 0
    assert looked(server.url, told) == before
    (line,) = command("audit", "--json").json
    assert (line["action"], line["mode"], line["reason"]) == ("note", "cli", "ask bob")
    assert line["selector"].startswith("letter tasks.backend.1-")
    assert "1 of letter tasks.backend.1-a1 (ask bob)" in command("audit").out


def test_a_cause_whose_letters_are_gone_keeps_its_note_until_it_is_removed(
    command: CommandLine, server: LocalServer
) -> None:
    letters = prepared(server.url, five)
    known = cause_id(letters[0])
    assert command("dlq", "note", "--cause", known, "the quota").status == 0
    assert command("dlq", "purge", "--filter", f"cause:{known}", "--yes").status == 0
    assert "the quota" in command("dlq", "note", "--cause", known).out
    gone = command("dlq", "note", "--cause", known, "another")
    assert (gone.status, gone.err.count("\n")) == (1, 1)
    assert "no dead letters of cause" in gone.err
    assert command("dlq", "note", "--cause", known, "--delete").status == 0
    assert command("dlq", "note", "--cause", known, "--json").json == []


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("ask",),
        ("0", "ask"),
        ("1", "ask", "bob"),
        ("1", ""),
        ("1", "ask", "--delete"),
        ("--cause", "3fa"),
        ("--cause", "xyzw", "ask"),
        ("--cause", "3fa9c1d2", "1", "ask"),
        ("1", "x" * (LONGEST + 1)),
    ],
)
def test_note_refuses_what_cannot_be_meant(command: CommandLine, server: LocalServer, line: tuple[str, ...]) -> None:
    prepared(server.url, five)
    result = command("dlq", "note", *line)
    assert result.status == 2
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("line", [("99",), (str(2**64 - 1), "ask"), (str(2**64), "ask"), ("--cause", "0000", "ask")])
def test_note_on_what_is_not_there(command: CommandLine, server: LocalServer, line: tuple[str, ...]) -> None:
    prepared(server.url, five)
    result = command("dlq", "note", *line)
    assert result.status == 1
    assert len(result.err.splitlines()) == 1


def test_a_prefix_of_several_causes_names_them(command: CommandLine, server: LocalServer) -> None:
    async def many(fleet: Fleet) -> list[DeadLetter]:
        for number, error in enumerate(ALIKE, 1):
            await letter(fleet, number=number, Error_Type="", Error=error)
        return await fleet.dead_letters.list()

    first, second = map(cause_id, prepared(server.url, many))
    assert first[:4] == second[:4]
    result = command("dlq", "note", "--cause", first[:4], "ask")
    assert result.status == 2
    assert first in result.err
    assert second in result.err


def test_a_broken_ledger_costs_the_notes_only(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, five)
    state().mkdir(parents=True)
    state("jobs.db").write_bytes(b"no database" * 1000)
    result = command("dlq", "causes", "--json")
    assert (result.status, len(result.json)) == (0, 2)
    assert "notes cannot be read" in result.err
    assert command("dlq", "show", "1").status == 0
    assert command("dlq", "note", "1", "ask").status == 1
