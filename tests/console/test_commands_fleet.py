"""`fleet` and `check` on real fleets: made by the library, and by nothing but nats-py."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from datetime import UTC, datetime

import pytest
from rich.console import Console

from console import report
from console.commands import shapes
from console.commands.fleet import verdict
from console.monitor.view import Finding, FleetView
from patterns import Fleet, ServerInfo
from patterns.server import LocalServer
from tests.support.commandline import HOSTILE, CommandLine, foreign_fleet, letter, prepared, program, start
from tests.support.letters import forge

AGENT = {"agent", "state", "inbox", "dead_letters", "findings"}
INBOX = {
    *("stream", "depth", "pending", "ack_pending", "redelivered", "stranded", "waiting"),
    *("oldest_age", "last_ack_age", "in_rate", "ack_rate"),
}
QUEUE = {
    *(
        "role",
        "state",
        "backlog",
        "ack_pending",
        "redelivered",
        "stranded",
        "waiting",
        "oldest_age",
        "in_rate",
        "ack_rate",
    ),
    *("drain_eta", "paused", "dead_letters", "findings"),
}
SUBSCRIPTION = {"agent", "name", "topics", "lag", "ack_pending", "redelivered", "stranded", "waiting"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


async def furnish(fleet: Fleet) -> None:
    """Work nobody takes, a subscription, and a dead letter that means harm."""
    for number in range(3):
        await fleet.inbox("ceo").send("note", {"n": number})
    await fleet.tasks("backend").submit("code.feature", {})
    await fleet.events.subscription("ceo", "deployment.>")
    await letter(fleet, Error="%1B]52;c;cHdu%1B\\", Error_Type="%E2%80%AE[/x]")


def test_fleet_json_has_the_fields_of_the_contract(server: LocalServer) -> None:
    prepared(server.url, furnish)
    result = program("fleet", "--server", server.url, "--json")
    told = result.json

    assert (result.status, result.err) == (0, "")
    assert told.keys() == {
        "taken_at",
        "took_ms",
        "server",
        "agents",
        "queues",
        "subscriptions",
        "dead_letters",
        "findings",
    }
    assert told["taken_at"].endswith("Z")
    assert told["server"].keys() == {"name", "version", "url", "cluster"}
    (agent,), (queue,), (subscription,) = told["agents"], told["queues"], told["subscriptions"]
    assert agent.keys() == AGENT
    assert agent["inbox"].keys() == INBOX
    assert (agent["agent"], agent["state"]) == ("ceo", "no worker")
    assert (agent["inbox"]["stream"], agent["inbox"]["depth"], agent["inbox"]["pending"]) == ("INBOX_CEO", 3, 3)
    assert (agent["inbox"]["in_rate"], agent["inbox"]["last_ack_age"]) == (0.0, None)
    assert queue.keys() == QUEUE
    assert (queue["role"], queue["state"], queue["backlog"], queue["dead_letters"]) == ("backend", "no worker", 1, 1)
    assert subscription.keys() == SUBSCRIPTION
    assert (subscription["agent"], subscription["topics"]) == ("ceo", ["deployment.>"])
    assert told["dead_letters"] == {"total": 1, "by_source": {"tasks.backend": 1}}
    assert {finding["severity"] for finding in told["findings"]} == {"critical", "warning"}
    assert agent["findings"] == [finding for finding in told["findings"] if finding["subject"] == "inbox.ceo"]


def test_fleet_shows_people_what_is_wrong(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, furnish)
    result = command("fleet")
    assert (result.status, result.err) == (0, "")
    for word in ("✖ ceo", "✖ backend", "no worker", "deployment.>", "inbox.ceo", "3 waiting and nobody pulls", "DLQ 1"):
        assert word in result.out
    assert "\x1b" not in result.out


def test_a_fleet_made_by_other_code_is_seen_as_well(command: CommandLine, server: LocalServer) -> None:
    asyncio.run(foreign_fleet(server.url))
    told = command("fleet", "--json").json
    (agent,), (queue,) = told["agents"], told["queues"]
    assert (agent["agent"], agent["state"], agent["inbox"]["pending"], agent["inbox"]["stranded"]) == (
        *("ceo", "no worker"),
        *(2, 0),
    )
    assert (queue["role"], queue["backlog"]) == ("backend", 1)
    assert told["dead_letters"] == {"total": 1, "by_source": {"inbox.ceo": 1}}
    assert command("check").status == 2


def test_an_empty_server_is_a_fleet_of_nobody(command: CommandLine) -> None:
    told = command("fleet", "--json").json
    assert (told["agents"], told["queues"], told["subscriptions"], told["findings"]) == ([], [], [], [])
    assert "no agents" in command("fleet").out
    assert command("check").status == 0


def test_another_organization_is_another_fleet(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, furnish, org="acme")
    assert command("fleet", "--json").json["agents"] == []
    told = command("--org", "acme", "fleet", "--json").json
    assert told["agents"][0]["inbox"]["stream"] == "ACME_INBOX_CEO"


def test_watch_prints_one_object_a_line_until_interrupted(server: LocalServer) -> None:
    prepared(server.url, furnish)
    with start("fleet", "--watch", "--json", "--server", server.url) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    times = [json.loads(line)["taken_at"] for line in lines]
    assert times == sorted(set(times))


def test_watch_repeats_tables_where_there_is_no_terminal(server: LocalServer) -> None:
    prepared(server.url, furnish)
    with start("fleet", "--watch", "--server", server.url) as process:
        seen = 0
        while seen < 2:
            seen += process.stdout.readline().startswith("AGENT ")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, "")


def test_watch_ends_when_nobody_reads(server: LocalServer) -> None:
    with start("fleet", "--watch", "--json", "--server", server.url) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_watch_survives_a_restart_of_the_server(server: LocalServer) -> None:
    with start("fleet", "--watch", "--json", "--server", server.url) as process:
        before = json.loads(process.stdout.readline())
        server.kill()
        told = process.stderr.readline()
        server.restart()
        after = before
        while after["server"]["name"] == before["server"]["name"]:
            after = json.loads(process.stdout.readline())
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert told.startswith("agent-console: ")
    assert told.endswith("trying again\n")
    assert process.returncode == 130


def test_check_tells_a_healthy_fleet(command: CommandLine, server: LocalServer) -> None:
    async def nothing(_: Fleet) -> None: ...

    prepared(server.url, nothing)
    result = command("check", "--json")
    assert (result.status, result.json) == (0, {"status": "healthy", "findings": []})
    assert command("check").out.startswith("● healthy: 1 agent, 1 queue, DLQ 0")


def test_check_tells_a_warning(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, letter)
    result = command("check", "--json")
    assert result.status == 1
    assert result.json["status"] == "warning"
    assert [finding.keys() for finding in result.json["findings"]] == [{"severity", "subject", "text"}]
    assert command("check").out.startswith("▲ warning")


def test_check_tells_what_is_critical(server: LocalServer) -> None:
    prepared(server.url, furnish)
    result = program("check", "--json", "--server", server.url)
    assert (result.status, result.json["status"]) == (2, "critical")


def test_check_is_unknown_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    result = CommandLine(capsys, "nats://127.0.0.1:1")("check", "--json")
    assert (result.status, result.json["status"]) == (3, "unknown")
    assert "127.0.0.1:1" in result.json["findings"][0]["text"]
    assert result.err.count("\n") == 1


def test_thresholds_come_from_the_settings(command: CommandLine, server: LocalServer, tmp_path) -> None:
    prepared(server.url, letter)
    file = tmp_path / "settings.toml"
    file.write_text("[thresholds]\ndead_letters_warn = 2\n")
    assert command("check", "--config", str(file)).status == 0


def test_hostile_names_of_sources_reach_people_clean(command: CommandLine, server: LocalServer) -> None:
    async def hostile(fleet: Fleet) -> None:
        await letter(fleet)
        await fleet.js.publish("dlq.inbox.\x1b[31m\u202ex.1-2", b"")

    prepared(server.url, hostile)
    for line in (("fleet",), ("check",), ("dlq", "list")):
        result = command(*line)
        assert "\x1b" not in result.out
        assert "\u202e" not in result.out
    assert "\x1b" in HOSTILE


async def _two_sources(fleet: Fleet) -> None:
    """Two dead letters of an agent that is known for them, and one of another."""
    for number in range(2):
        await forge(fleet, f"inbox.noisy.{number}-{number}")
    await forge(fleet, "inbox.ceo.9-9", Replays="1")


def test_check_judges_by_thresholds_of_patterns_and_names(command: CommandLine, server: LocalServer, tmp_path) -> None:
    prepared(server.url, _two_sources, agents=("ceo", "noisy"))
    file = tmp_path / "settings.toml"

    def texts(toml: str) -> tuple[int, list[str]]:
        file.write_text(toml)
        result = command("check", "--json", "--config", str(file))
        assert {frozenset(finding) for finding in result.json["findings"]} <= {
            frozenset({"severity", "subject", "text"})
        }
        return result.status, [f"{finding['subject']}: {finding['text']}" for finding in result.json["findings"]]

    again = "inbox.ceo: 1 dead letter died again after a replay: find out why before the next"
    assert texts("") == (1, ["dlq: 3 dead letters, most of them from inbox.noisy", again])
    noisy = "[agents.noisy]\nthresholds = { dead_letters_warn = 3 }\n"
    assert texts(noisy) == (1, ["dlq: 1 dead letter from inbox.ceo", again])
    assert texts("[thresholds]\nredeaths_warn = 0\n" + noisy) == (1, ["dlq: 1 dead letter from inbox.ceo"])
    quiet = "[patterns.inbox]\nthresholds = { dead_letters_warn = 3, redeaths_warn = 2 }\n"
    assert texts(quiet) == (0, [])
    assert texts(quiet + "[agents.noisy]\nthresholds = { dead_letters_warn = 1, dead_letters_crit = 2 }\n") == (
        2,
        ["inbox.noisy: 2 dead letters"],
    )


def test_what_is_no_alarm_is_told_to_people_and_judged_by_nobody() -> None:
    slow = Finding("info", "read", "a read takes long")
    view = dataclasses.replace(_view(), findings=(slow,))
    assert verdict(view) == 0
    assert shapes.check(0, view.findings) == {"status": "healthy", "findings": []}
    told = Console(width=120)
    with told.capture() as captured:
        for part in report.check("healthy", view):
            told.print(part)
    assert "○ info" in " ".join(captured.get().split())


def _view() -> FleetView:
    return FleetView(taken_at=datetime.now(UTC), took=0.0, server=ServerInfo("n", "2.15.1", "nats://x", None))
