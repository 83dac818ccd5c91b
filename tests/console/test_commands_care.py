"""`dlq replay` with care: canary, limit of deaths, pauses and policies by flags; what was forced stands in the audit."""

from __future__ import annotations

import asyncio
import json

import pytest

from patterns import Reject
from tests.support.commandline import PLAN, RESULT, CommandLine, program
from tests.support.fleets import connected, running
from tests.support.letters import forge, forge_many


async def accept(delivery):
    pass


async def refuse(delivery):
    raise Reject("still broken")


async def run(server, *arguments):
    """Run the program beside the fleet of this process."""
    return await asyncio.to_thread(program, *arguments, "--server", server.url)


def audited():
    """The lines of the audit."""
    return json.loads(program("audit", "--json").out)


async def test_a_canary_decides_by_itself(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 5)
        planned = await run(
            server, "dlq", "replay", "--all", "--canary", "2", "--watch-for", "30s", "--json", "--dry-run"
        )
        assert planned.json.keys() == PLAN | {"canary"}
        assert planned.json["canary"] == {"count": 2, "watch": 30.0}
        async with running(fleet.inbox("ceo").consumer(), refuse):
            died = await run(server, "dlq", "replay", "--all", "--canary", "2", "--watch-for", "30s", "--yes", "--json")
        assert (died.status, died.json["done"], died.json["canary"]["passed"]) == (3, 2, False)
        assert died.json.keys() == RESULT | {"canary"}
        assert "died again (Reject: still broken)" in died.err
        assert "jobs resume" in died.err
        async with running(fleet.inbox("ceo").consumer(), accept):
            done = await run(server, "dlq", "replay", "--all", "--canary", "2", "--watch-for", "30s", "--yes")
        assert (done.status, done.err) == (0, "")
        assert "canary: 2 of 2 acknowledged" in done.out
        assert await fleet.dead_letters.list() == []
    ends = [line for line in await asyncio.to_thread(audited) if line["event"] == "end"]
    assert [(line["canary"][:1], line["died_again"]) for line in ends] == [("0", ends[0]["died_again"]), ("2", 0)]
    assert ends[0]["died_again"] >= 1


async def test_the_plan_for_people_tells_the_care(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 6)
        asked = await run(server, "dlq", "replay", "--all", "--canary", "2", "--stop-ratio", "0.2")
        assert (asked.status, "canary: 2 first, watched for 30s" in asked.out) == (4, True)
        assert "more than 20% of what it sent died again" in asked.out
        paused = await run(server, "dlq", "replay", "--all", "--pause", "--dry-run")
        assert "pauses meanwhile: ceo-processor on INBOX_CEO" in paused.out
        as_json = await run(server, "dlq", "replay", "--all", "--pause", "--dry-run", "--json")
        assert as_json.json["pauses"] == ["INBOX_CEO ceo-processor"]


async def test_consumers_are_paused_while_it_runs_and_go_on(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        paused = []
        real = await fleet.nc.subscribe("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.INBOX_CEO.ceo-processor")
        done = await run(server, "dlq", "replay", "--all", "--pause", "--yes", "--uncapped", "--json")
        assert (done.status, done.json["done"]) == (0, 3)
        for _ in range(2):
            paused.append(json.loads((await real.next_msg(timeout=20)).data)["paused"])
        assert paused == [True, False]
        for group, name in (("inbox", "ceo"), ("queue", "backend")):
            help_text = (await asyncio.to_thread(program, group, "purge", "--help")).out
            assert "--pause" in help_text, name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--watch-for", "5s"], "--canary N"),
        (["--canary", "0"], "1 to 100"),
        (["--canary", "2", "--watch-for", "soon"], "expected a time"),
        (["--canary", "2", "--watch-for", "2h"], "watched for 1s to"),
        (["--canary", "2", "--pause"], "paused"),
        (["--stop-ratio", "1.5"], "between 0 and 1"),
    ],
)
def test_slips_are_refused(capsys, server, arguments, told):
    result = CommandLine(capsys, server.url)("dlq", "replay", "--all", "--yes", *arguments)
    assert (result.status, result.out) == (2, "")
    assert told in result.err
    assert len(result.err.splitlines()) == 1


async def test_never_is_overridden_from_here_and_that_is_audited(server, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[agents.ceo]\npolicy = "confirm"\nreason = "signs contracts"\n'
        '[types."wire.*"]\npolicy = "never"\nreason = "moves money"\n'
    )
    config = ("--config", str(settings))
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", headers={"ce-type": "wire.out"})
        await forge(fleet, "inbox.ceo.2-2", headers={"ce-type": "note"}, Replays="5")
        refused = await run(server, "dlq", "replay", "--all", "--yes", "--json", *config)
        assert (refused.status, refused.json["done"]) == (5, 0)
        assert {skip["detail"] for skip in refused.json["items"]} == {
            "policy never for inbox.ceo wire.out: moves money; only the command line overrides it, by --force",
            "replay limit: replayed 5 times, needs --force",
        }
        asked = await run(server, "dlq", "replay", "--all", "--force", *config)
        assert "signs contracts" in asked.out
        assert "1 of them only by force: policy never for inbox.ceo wire.out" in asked.out
        forced = await run(server, "dlq", "replay", "--all", "--force", "--yes", "--json", *config)
        assert (forced.status, forced.json["done"]) == (0, 2)
    begun = [line for line in await asyncio.to_thread(audited) if line["event"] == "start"][-1]
    assert begun["force"] is True
    assert begun["overridden"] == {"policy never for inbox.ceo wire.out": 1, "replay limit": 1}
    (job,) = [each for each in json.loads(program("jobs", "--json").out) if each["overridden"]]
    assert job["overridden"] == begun["overridden"]
