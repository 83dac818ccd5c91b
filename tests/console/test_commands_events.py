"""`events`: what is stored, what comes, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, Result, foreign_fleet, looked, prepared, program, start

EVENT = {"seq", "subject", "id", "type", "source", "correlation_id", "stored_at", "size", "headers", "data", "text"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


async def four(fleet: Fleet) -> None:
    for number, topic in enumerate(("deployment.started", "deployment.completed", "security.alert", "sprint.updated")):
        await fleet.events.broadcast(topic, {"n": number}, id=f"e-{number}", source="ops")


def types(result: Result) -> list[str]:
    return [line["type"] for line in result.lines]


def test_events_json_has_the_fields_of_the_contract(server: LocalServer) -> None:
    prepared(server.url, four)
    result = program("events", "--since", "10m", "--no-follow", "--json", "--server", server.url)
    assert (result.status, result.err) == (0, "")
    assert all(line.keys() == EVENT for line in result.lines)
    first = result.lines[0]
    assert (first["seq"], first["subject"], first["id"], first["type"]) == (
        *(1, "events.deployment.started"),
        *("e-0", "deployment.started"),
    )
    assert (first["source"], first["correlation_id"], first["data"], first["text"]) == (
        "ops",
        "e-0",
        {"n": 0},
        '{"n":0}',
    )
    assert first["stored_at"].endswith("Z")


def test_topics_narrow(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, four)
    line = ("events", "--no-follow", "--json")
    assert len(types(command(*line))) == 4
    assert types(command(*line, "deployment.>")) == ["deployment.started", "deployment.completed"]
    assert types(command(*line, "*.alert", "sprint.updated")) == ["security.alert", "sprint.updated"]
    assert types(command(*line, "nothing.>")) == []


def test_since_leaves_out_what_is_older(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, four)

    async def newer(fleet: Fleet) -> None:
        await asyncio.sleep(1.1)
        await fleet.events.broadcast("late", {})

    looked(server.url, newer)
    assert types(command("events", "--no-follow", "--json", "--since", "1s")) == ["late"]
    assert len(types(command("events", "--no-follow", "--json", "--since", "9999d"))) == 5


def test_no_event_is_left_out_of_a_long_past(command: CommandLine, server: LocalServer) -> None:
    async def many(fleet: Fleet) -> None:
        for _ in range(65):
            await asyncio.gather(*(fleet.js.publish("events.tick", b"{}") for _ in range(100)))

    prepared(server.url, many)
    result = command("events", "--no-follow", "--json")
    assert [line["seq"] for line in result.lines] == list(range(1, 6501))


def test_events_for_people_are_lines(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, four)
    result = command("events", "--no-follow", "--since", "1h")
    lines = result.out.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[1:] == ["deployment.completed", "ops", '{"n":1}']


def test_hostile_events_reach_people_inert_and_scripts_exact(command: CommandLine, server: LocalServer) -> None:
    async def hostile(fleet: Fleet) -> None:
        await fleet.js.publish(
            "events.x\x1b[31m",
            json.dumps(HOSTILE).encode(),
            headers={"ce-source": "agents/%1B%5B2J", "ce-type": "%E2%80%AE"},
        )

    prepared(server.url, hostile)
    shown = command("events", "--no-follow")
    assert not set(shown.out) & {"\x1b", "\x9b", "\u202e", "\u2066"}
    assert len(shown.out.splitlines()) == 1
    told = command("events", "--no-follow", "--json")
    assert told.out.isascii()
    (event,) = told.lines
    assert (event["data"], event["source"], event["type"]) == (HOSTILE, "\x1b[2J", "\u202e")


def test_events_follow_what_comes_until_interrupted(server: LocalServer) -> None:
    prepared(server.url, four)

    async def more(fleet: Fleet) -> None:
        await fleet.events.broadcast("fifth", {})

    with start("events", "--since", "1h", "--json", "--server", server.url) as process:
        stored = [json.loads(process.stdout.readline())["type"] for _ in range(4)]
        looked(server.url, more)
        fresh = json.loads(process.stdout.readline())["type"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert stored == ["deployment.started", "deployment.completed", "security.alert", "sprint.updated"]
    assert fresh == "fifth"
    assert (process.returncode, out, err) == (130, "", "")


def test_without_since_only_what_comes_is_followed(server: LocalServer) -> None:
    prepared(server.url, four)

    async def until_seen(fleet: Fleet) -> str:
        """Broadcast until the program, which starts in its own time, prints one."""
        reading = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
        while not reading.done():
            await fleet.events.broadcast("fresh", {})
            await asyncio.wait({reading}, timeout=0.1)
        return reading.result()

    with start("events", "--json", "--server", server.url) as process:
        line = looked(server.url, until_seen)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert json.loads(line)["type"] == "fresh"
    assert process.returncode == 143


def test_events_go_on_after_a_lost_connection_and_none_comes_twice(server: LocalServer) -> None:
    prepared(server.url, four)

    async def more(fleet: Fleet) -> None:
        await fleet.events.broadcast("after", {})

    with start("events", "--since", "1h", "--json", "--server", server.url) as process:
        before = [json.loads(process.stdout.readline())["seq"] for _ in range(4)]
        server.kill()
        told = process.stderr.readline()
        server.restart()
        looked(server.url, more)
        after = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert before == [1, 2, 3, 4]
    assert told.endswith("trying again\n")
    assert (after["seq"], after["type"]) == (5, "after")


def test_events_end_when_nobody_reads(server: LocalServer) -> None:
    prepared(server.url, four)

    async def until_ended(fleet: Fleet) -> int:
        while process.poll() is None:
            await fleet.events.broadcast("more", {})
            await asyncio.sleep(0.05)
        return process.returncode

    with start("events", "--since", "1h", "--json", "--server", server.url) as process:
        process.stdout.readline()
        process.stdout.close()
        assert looked(server.url, until_ended) == 0
        assert process.stderr.read() == ""


def test_a_fleet_without_events_is_an_error(command: CommandLine) -> None:
    result = command("events", "--no-follow")
    assert (result.status, result.out) == (1, "")
    assert "no stream EVENTS" in result.err


def test_events_of_a_fleet_made_by_other_code(command: CommandLine, server: LocalServer) -> None:
    async def bare(fleet: Fleet) -> None:
        await fleet.js.publish("events.deploy", b"not json")

    asyncio.run(foreign_fleet(server.url))
    looked(server.url, bare)
    (event,) = command("events", "--no-follow", "--json").lines
    assert (event["type"], event["source"], event["data"], event["text"]) == ("deploy", "unknown", None, "not json")
