"""`dlq replay`: a plan before anything happens, every letter accounted for, and nothing changed by a slip."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from console.operations.places import Destinations
from patterns import Fleet, Reject
from patterns.server import LocalServer
from tests.support.commandline import (
    CommandLine,
    counts,
    foreign_fleet,
    letter,
    looked,
    prepared,
    program,
    start,
    three,
)
from tests.support.fleets import running
from tests.support.waiting import until

PLAN = {"plan", "count", "by_origin", "by_destination", "sample", "skipped", "spill", "nats"}
RESULT = {"job", "planned", "done", "skipped", "failed", "duplicates", "spill", "items"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


# -- replay: the plan


def test_without_yes_the_plan_is_printed_and_nothing_changes(server: LocalServer) -> None:
    prepared(server.url, three)
    before = looked(server.url, counts)
    asked = program("dlq", "replay", "1", "2", "--server", server.url, "--json")
    dry = program("dlq", "replay", "1", "2", "--server", server.url, "--json", "--dry-run", "--yes")
    assert (asked.status, dry.status) == (4, 0)
    assert asked.err.startswith("agent-console: nothing was changed: add --yes to replay 2 dead letters")
    assert dry.err == ""
    assert asked.json == dry.json
    plan = asked.json
    assert plan.keys() == PLAN
    assert (plan["plan"], plan["count"], plan["skipped"], plan["spill"]) == ("replay", 2, [], None)
    assert plan["by_origin"] == {"tasks.backend": 1, "inbox.ceo": 1}
    assert plan["by_destination"] == {"tasks.backend.code.feature": 1, "agents.ceo.inbox.note": 1}
    assert [item["seq"] for item in plan["sample"]] == [1, 2]
    assert all("nats pub" in line for line in plan["nats"])
    assert looked(server.url, counts) == before == (3, 0, 0)


def test_the_plan_for_people(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    result = command("dlq", "replay", "--filter", "kind:tasks", "--rate", "5")
    assert result.status == 4
    for word in ("replay 2 dead letters", "kind:tasks", "5 a second", "tasks.backend.code.feature", "nats pub"):
        assert word in result.out


def test_a_letter_that_nobody_would_store_is_skipped(command: CommandLine, server: LocalServer) -> None:
    async def lost(fleet: Fleet) -> None:
        await letter(fleet, Subject="tasks.ghost.code")
        await letter(fleet, number=2, Subject="")

    prepared(server.url, lost)
    plan = command("dlq", "replay", "--all", "--dry-run", "--json")
    assert (plan.status, plan.json["count"]) == (0, 0)
    assert [skip["seq"] for skip in plan.json["skipped"]] == [1, 2]
    assert "no stream stores it" in plan.json["skipped"][0]["reason"]
    assert "say where it should go" in plan.json["skipped"][1]["reason"]
    done = command("dlq", "replay", "--all", "--yes", "--json")
    assert (done.status, done.json["planned"], done.json["skipped"], done.err) == (0, 0, 2, "")
    assert looked(server.url, counts) == (2, 0, 0)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("--all", "--rate", "0"), 2, "rate 0 is out of range"),
        (("--all", "--rate", "nan"), 2, "out of range"),
        (("--all", "--to", "nowhere.at.all"), 2, "--to nowhere.at.all"),
        (("--all", "--to", "tasks.*.x"), 2, "not a subject"),
        (("--filter", "age:10m"), 2, "a duration like"),
    ],
)
def test_a_replay_that_cannot_be_meant_is_refused(
    command: CommandLine, server: LocalServer, line: tuple[str, ...], code: int, said: str
) -> None:
    prepared(server.url, three)
    result = command("dlq", "replay", *line, "--yes")
    assert (result.status, result.out) == (code, "")
    assert said in result.err
    assert looked(server.url, counts) == (3, 0, 0)


@pytest.mark.parametrize("dry", [(), ("--yes",), ("--dry-run",)])
def test_a_selection_that_matches_nothing_is_done(
    command: CommandLine, server: LocalServer, dry: tuple[str, ...]
) -> None:
    prepared(server.url, three)
    for selection in (("--filter", "agent:nobody"), ("41",)):
        result = command("dlq", "replay", *selection, *dry, "--json")
        assert (result.status, result.err) == (0, "")
        assert result.json.get("count", result.json.get("planned")) == 0


# -- replay: the deed


def test_a_replay_moves_the_letter_to_where_it_came_from(server: LocalServer) -> None:
    prepared(server.url, three)
    result = program("dlq", "replay", "1", "--yes", "--json", "--reason", "model is back", "--server", server.url)
    told = result.json
    assert (result.status, result.err) == (0, "")
    assert told.keys() == RESULT
    assert (told["planned"], told["done"], told["skipped"], told["failed"], told["duplicates"]) == (1, 1, 0, 0, 0)
    assert told["spill"] is None
    assert [item.keys() for item in told["items"]] == [{"seq", "outcome", "detail"}]
    assert (told["items"][0]["seq"], told["items"][0]["outcome"]) == (1, "done")
    assert looked(server.url, counts) == (2, 1, 0)

    async def stored(fleet: Fleet) -> tuple[Any, Any]:
        page = await fleet.jetstream.read("TASKS_BACKEND")
        events = await fleet.jetstream.read("EVENTS")
        return page.messages[0], events.messages[-1]

    message, event = looked(server.url, stored)
    assert (message.subject, message.body) == ("tasks.backend.code.feature", b'{"n":1}')
    assert message.headers["Dead-Letter-Replays"] == "1"
    assert json.loads(event.body)["reason"] == "model is back"


def test_a_second_replay_of_the_same_letter_is_skipped(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    assert command("dlq", "replay", "1", "--yes").status == 0
    again = command("dlq", "replay", "1", "--yes", "--json")
    assert (again.status, again.json["skipped"], again.json["items"][0]["outcome"]) == (0, 1, "skipped")
    assert looked(server.url, counts) == (2, 1, 0)


def test_a_replay_takes_a_filter_or_all(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    first = command("dlq", "replay", "--filter", "reason:rejected", "--yes", "--rate", "500")
    assert first.status == 0
    assert "planned 1   done 1" in first.out
    assert looked(server.url, counts) == (2, 0, 1)
    assert command("--write", "dlq", "replay", "--all", "--yes", "--rate", "500", "--json").json["done"] == 2
    assert looked(server.url, counts) == (0, 2, 1)


def test_a_replay_can_go_elsewhere(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    assert command("dlq", "replay", "1", "--to", "agents.ceo.inbox.failed", "--yes").status == 0
    assert looked(server.url, counts) == (2, 0, 1)


def test_a_letter_replayed_too_often_needs_force(command: CommandLine, server: LocalServer) -> None:
    async def worn(fleet: Fleet) -> None:
        await letter(fleet, Replays="5")

    prepared(server.url, worn)
    refused = command("dlq", "replay", "1", "--yes", "--json")
    assert (refused.status, refused.json["skipped"]) == (5, 1)
    assert "--force" in refused.json["items"][0]["detail"]
    forced = command("dlq", "replay", "1", "--yes", "--json", "--force")
    assert (forced.status, forced.json["done"]) == (0, 1)


def test_a_letter_that_died_in_a_handler_comes_back(command: CommandLine, server: LocalServer) -> None:
    async def die(fleet: Fleet) -> None:
        async def refuse(_: Any) -> None:
            raise Reject("no spec")

        async with running(fleet.tasks("backend").worker("backend-1"), refuse):
            await fleet.tasks("backend").submit("code.feature", {"spec": 1}, id="feat-1")
            await until(fleet.dead_letters.list)

    prepared(server.url, die)
    listed = command("dlq", "list", "--json").json
    assert [(each["id"], each["reason"], each["error"]) for each in listed] == [("feat-1", "rejected", "no spec")]
    assert command("dlq", "replay", str(listed[0]["seq"]), "--yes").status == 0

    async def status(fleet: Fleet) -> str:
        record = await fleet.tasks("backend").status("feat-1")
        return record.state if record else ""

    assert looked(server.url, counts) == (0, 1, 0)
    assert looked(server.url, status) == "submitted"


def test_a_letter_of_a_fleet_made_by_other_code_comes_back(command: CommandLine, server: LocalServer) -> None:
    asyncio.run(foreign_fleet(server.url))
    (listed,) = command("dlq", "list", "--json").json
    assert (listed["source"], listed["error"], listed["error_type"]) == ("inbox.ceo", "boom", None)
    result = command("dlq", "replay", "--all", "--yes", "--json")
    assert (result.status, result.json["done"]) == (0, 1)
    assert looked(server.url, counts) == (0, 1, 3)


def test_failed_items_make_it_3(command: CommandLine, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(*_: object) -> str:
        return ""

    async def lost(fleet: Fleet) -> None:
        await letter(fleet, Subject="tasks.ghost.code")
        await letter(fleet, number=2)

    prepared(server.url, lost)
    # As if the stream were deleted between the plan and the deed.
    monkeypatch.setattr(Destinations, "problem", fine)
    result = command("dlq", "replay", "--all", "--yes", "--json")
    assert result.status == 3
    assert [item["outcome"] for item in result.json["items"]] == ["failed", "done"]
    assert result.err.count("\n") == 1
    assert looked(server.url, counts) == (1, 1, 0)


def test_an_interrupt_stops_after_the_letter_in_work(server: LocalServer) -> None:
    async def many(fleet: Fleet) -> None:
        for number in range(1, 31):
            await letter(fleet, number=number)

    prepared(server.url, many)
    with start("dlq", "replay", "--all", "--yes", "--rate", "2", "--json", "--server", server.url) as process:

        async def begun(fleet: Fleet) -> None:
            await until(lambda: moved(fleet))

        async def moved(fleet: Fleet) -> bool:
            return (await counts(fleet))[1] > 0

        looked(server.url, begun)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    told = json.loads(out)
    assert process.returncode == 130
    assert 0 < told["done"] < 30
    assert told["done"] + told["failed"] == told["planned"] == 30
    assert {item["outcome"] for item in told["items"]} == {"done", "not started"}
    assert looked(server.url, counts) == (30 - told["done"], told["done"], 0)


# -- replay: refused


def test_read_only_refuses_but_still_plans(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, three)
    for line in (("--read-only", "dlq", "replay", "1", "--yes"), ("dlq", "replay", "1", "--read-only")):
        result = command(*line)
        assert (result.status, result.out) == (5, "")
        assert "read-only" in result.err
    assert command("dlq", "replay", "1", "--dry-run", "--read-only", "--json").json["count"] == 1
    assert looked(server.url, counts) == (3, 0, 0)


@pytest.mark.parametrize("write", [(), ("--write",)])
def test_read_only_settings_refuse(
    command: CommandLine, server: LocalServer, tmp_path: Path, write: tuple[str, ...]
) -> None:
    prepared(server.url, three)
    file = tmp_path / "settings.toml"
    file.write_text("read_only = true\n")
    assert command("dlq", "replay", "1", "--yes", "--config", str(file), *write).status == 5
    assert looked(server.url, counts) == (3, 0, 0)


def test_a_read_only_context_refuses(command: CommandLine, server: LocalServer, tmp_path: Path) -> None:
    prepared(server.url, three)
    contexts = tmp_path / "xdg" / "config" / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "prod.json").write_text(json.dumps({"url": server.url}))
    file = tmp_path / "settings.toml"
    file.write_text("[contexts.prod]\nread_only = true\n")
    line = ("dlq", "replay", "1", "--yes", "--config", str(file))
    assert command(*line, "--context", "prod").status == 5
    assert looked(server.url, counts) == (3, 0, 0)
    assert command(*line).status == 0
