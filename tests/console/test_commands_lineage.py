"""`dlq lineage`: exact for scripts, inert for people."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import pytest

from patterns import DeadLetter, Fleet
from patterns.headers import escape, format_time
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, letter, prepared, program

FIELDS = {
    *("n", "entry", "seq", "source", "died_at", "reason", "error_type", "error", "agent", "deliveries"),
    *("replayed_by", "replayed_at", "job", "edited"),
}
AT = "2026-03-01T09:12:44.201877Z"
BACK = "2026-03-01T09:40:02Z"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def told(**fields: str) -> str:
    """One earlier death as its header tells it."""
    story = {"at": AT, "entry": "tasks.backend.1-a", "seq": "7", "tries": "3", "reason": "max-deliver"}
    return urlencode(story | {"error": "no model", "by": "ann", "replayed": BACK} | fields)


async def twice(fleet: Fleet) -> DeadLetter:
    """A task that died, came back, and died again."""
    queue = fleet.tasks("backend")
    await queue.submit("code.feature", {"n": 1}, id="t-1")
    for error in ("no spec", "still no spec"):
        async with await asyncio.wait_for(queue.next("backend-1", 20), 20) as task:
            await task.reject(error)
        (found,) = await fleet.dead_letters.list()
        if error == "no spec":
            await fleet.dead_letters.replay(found.seq, by="ann@ops-1", job="7f3a01c2", data={"n": 2})
    return found


def test_json_has_the_fields_of_the_contract(server: LocalServer) -> None:
    last = prepared(server.url, twice)
    result = program("dlq", "lineage", str(last.seq), "--json", "--server", server.url)
    assert (result.status, result.err) == (0, "")
    first, second = result.json
    assert first.keys() == second.keys() == FIELDS
    assert (first["n"], first["source"], first["error"], first["agent"]) == (1, "tasks.backend", "no spec", "backend-1")
    assert (first["replayed_by"], first["job"], first["edited"]) == ("ann@ops-1", "7f3a01c2", True)
    assert first["entry"] == last.first_entry
    assert first["died_at"] < first["replayed_at"] < second["died_at"] == format_time(last.died_at)
    assert (second["n"], second["seq"], second["entry"], second["error"]) == (2, last.seq, last.entry, "still no spec")
    assert (second["replayed_by"], second["replayed_at"], second["job"], second["edited"]) == (None, None, None, False)


def test_a_first_death_is_a_chain_of_one(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letter)
    (only,) = command("dlq", "lineage", "1", "--json").json
    assert (only["n"], only["deliveries"], only["replayed_by"]) == (1, 3, None)
    out = command("dlq", "lineage", "1").out
    assert "never replayed" in out
    assert "still dead" in out


def test_the_table_tells_each_death_and_what_is_missing(command: CommandLine, server: LocalServer) -> None:
    async def some(fleet: Fleet) -> None:
        await letter(fleet, Replays="4", Death_3=told(job="7f3a01c2", edited="1"), Replayed_By="bob", Replay_Job="j-4")

    prepared(server.url, some)
    result = command("dlq", "lineage", "1")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "dead letter 1   tasks.backend   id-1   replayed 4×"
    assert lines[1] == "first failure not on record"
    gap, third, latest, present = lines[-4:]
    assert gap.split()[0] == "1–2"
    assert "2 earlier deaths are not on record" in gap
    for word in ("2026-03-01T09:12:44Z", "no model", "2026-03-01T09:40:02Z", "ann", "7f3a01c2", "edited"):
        assert word in third
    assert latest.split() == ["4", "1", "earlier", "death", "is", "not", "on", "record", "bob", "j-4"]
    assert present.split()[0] == "5"
    assert "still dead" in present
    assert [each["n"] for each in command("dlq", "lineage", "1", "--json").json] == [3, 5]


def test_an_unknown_sequence_is_an_error_in_one_line(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letter)
    for seq in ("2", "9" * 30):
        result = command("dlq", "lineage", seq)
        assert (result.status, result.out) == (1, "")
        assert result.err.count("\n") == 1
        assert "no dead letter" in result.err
    assert command("dlq", "lineage").status == 2
    assert command("dlq", "lineage", "0").status == 2


def test_what_others_wrote_is_exact_in_json_and_inert_in_the_table(command: CommandLine, server: LocalServer) -> None:
    hostile = HOSTILE.replace("\ud800", "")
    death = urlencode({"at": AT, "entry": "inbox.ceo.1-a", "error": hostile, "by": hostile, "agent": hostile})

    async def one(fleet: Fleet) -> None:
        await letter(fleet, Replays="2", Death_1=death, Replayed_By=escape(hostile), Replay_Job=escape(hostile))

    prepared(server.url, one)
    first, _ = command("dlq", "lineage", "1", "--json").json
    assert (first["error"], first["replayed_by"]) == (hostile, hostile)
    out = command("dlq", "lineage", "1").out
    assert not set("\x1b\x9b\u202e\u2066") & set(out)
    assert "[@click=app.quit]go[/]" in out
