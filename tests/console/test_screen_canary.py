"""The canary, the edit and the pause by keys: on a real fleet whose agents have recovered, or have not."""

from __future__ import annotations

import json

from textual.widgets import Checkbox, TextArea

from console.screens.canary_dialog import CanaryDialog
from console.screens.edit import BulkEditPane, EditScreen
from console.screens.plan_dialog import PlanDialog
from console.settings import ReplayPolicy, Settings, TargetSettings, TypeSettings
from patterns import Reject
from tests.support.fleets import connected, running
from tests.support.letters import forge, forge_many
from tests.support.screens import desk
from tests.support.waiting import until


async def accept(delivery):
    pass


async def refuse(delivery):
    raise Reject("still broken")


async def begun(console, *keys):
    """Confirm the plan that is shown; its job."""
    jobs = len(console.runtime.jobs)
    await console.holds(lambda: isinstance(console.app.screen, PlanDialog))
    await console.press(*keys)
    return await console.holds(lambda: len(console.runtime.jobs) > jobs and console.runtime.jobs[-1])


async def canary(console, *said):
    """Ask for a canary of all letters."""
    await console.press("ctrl+a", "C")
    await console.sees("canary: how many first")
    await console.press("ctrl+u", *said, "enter")


async def test_a_canary_that_is_well_is_asked_about_and_the_rest_goes(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge_many(fleet, 6)
        await console.press("3")
        await console.sees("m-6")
        async with running(fleet.inbox("ceo").consumer(), accept):
            await canary(console, *"2 30s")
            await console.sees("replay 6 dead letters", "2 first, watched for 30s")
            job = await begun(console, "y")
            await console.sees("2 of 2 acknowledged")
            assert (job.state, job.count("done")) == ("paused", 2)
            await console.press("C")
            await console.sees("4 are left", "Send 4")
            await console.press("escape")
            await console.holds(lambda: not isinstance(console.app.screen, CanaryDialog))
            assert job.state == "paused"
            await console.press("C", "enter")
            await console.holds(lambda: not isinstance(console.app.screen, CanaryDialog))
            assert job.state == "paused", "the focus is on what changes nothing"
            await console.press("C", "y")
            await console.holds(lambda: job.state == "completed")
        assert job.outcomes == {"done": 6}


async def test_a_canary_that_dies_is_told_and_the_rest_stays(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge_many(fleet, 6)
        await console.press("3")
        await console.sees("m-6")
        async with running(fleet.inbox("ceo").consumer(), refuse):
            await canary(console, *"1 30s")
            job = await begun(console, "y")
            await console.sees("1 died again")
            await console.press("6")
            await console.sees("0 of 1 acknowledged, 1 died again (Reject: still broken)")
            await console.press("3", "C", "X")
            await console.holds(lambda: job.state == "cancelled")
        assert (job.count("done"), job.count("not started"), job.redied) == (1, 5, 1)
        await console.sees("replays 1")


async def test_a_job_that_was_left_at_its_question_tells_its_canary_when_it_is_resumed(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge_many(fleet, 6)
        await console.press("3")
        await console.sees("m-6")
        async with running(fleet.inbox("ceo").consumer(), refuse):
            await canary(console, *"1 30s")
            job = await begun(console, "y")
            await console.sees("1 died again")
        job.leave()
        await console.holds(lambda: job.state == "interrupted")
        await console.press("6")
        await console.sees("interrupted")
        await console.press("P")
        await console.sees("Its canary: 0 of 1 acknowledged, 1 died again", "Resume 5")
        await console.press("escape")
        assert len(console.runtime.jobs) == 1


async def test_a_slip_in_the_question_is_asked_again(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge_many(fleet, 2)
        await console.press("3")
        await console.sees("m-2")
        await canary(console, *"many")
        await console.sees("say how many and how long, such as 3 30s")
        await console.press("ctrl+u", *"0 30s", "enter")
        await console.sees("a canary sends 1 to 100 letters first")
        await console.press("escape")
        await console.misses("a canary sends")
        assert console.runtime.jobs == []


async def test_one_letter_is_edited_and_replayed(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge(fleet, "inbox.ceo.1-1", body=b'{"spec":null}', Message_Id="m-1", headers={"X-Tenant": "acme"})
        await console.press("3")
        await console.sees("m-1")
        await console.press("down", "E")
        await console.holds(lambda: isinstance(console.app.screen, EditScreen))
        body = console.app.screen.query("#edit-body").first(TextArea)
        body.text = body.text.replace("null", '"rate limiting"')
        await console.press("ctrl+s")
        await console.sees("edit 1 dead letter", '-  "spec": null', '+  "spec": "rate limiting"', "Edit and replay 1")
        assert (await fleet.inbox("ceo").peek()) == []
        job = await begun(console, "enter")
        await console.holds(lambda: job.state == "completed")
        (message,) = await fleet.inbox("ceo").peek()
        assert (message.id, message.data, message.headers["X-Tenant"]) == ("m-1", {"spec": "rate limiting"}, "acme")
        assert message.headers["Nats-Msg-Id"] == "inbox.ceo.1-1:r1"
        assert message.headers["Agent-Replay-Of"] == "inbox.ceo.1-1"
        await console.press("6")
        await console.sees("edit", job.id)


async def test_the_same_edit_of_those_that_are_marked(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        for number in range(1, 4):
            body = json.dumps({"n": number, "debug": True}).encode() if number < 3 else b"no json"
            await forge(fleet, f"inbox.ceo.{number}-{number}", body=body, Message_Id=f"m-{number}")
        await console.press("3")
        await console.sees("m-3")
        await console.press("ctrl+a", "E")
        await console.holds(lambda: isinstance(console.app.screen, BulkEditPane))
        text = console.app.screen.query(TextArea).first()
        text.text = 'remove $.debug\nset $.model = "large"'
        await console.press("ctrl+s")
        await console.sees("edit 2 dead letters", "cannot be edited so")
        job = await begun(console, "y")
        await console.holds(lambda: job.state == "completed")
        found = [message.data for message in await fleet.inbox("ceo").peek()]
        assert found == [{"n": 1, "model": "large"}, {"n": 2, "model": "large"}]


async def test_a_large_replay_offers_to_pause_its_consumers(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, size=(80, 24)) as console:
        await forge_many(fleet, 101)
        await console.press("3")
        await console.sees("dead letters  101")
        await console.press("ctrl+a", "R")
        await console.sees("pause ceo-processor while it runs")
        await console.press("tab", "space")
        assert console.app.screen.query_one(Checkbox).value
        await console.press("shift+tab", *"101")
        job = await begun(console, "enter")
        info = await until(lambda: _paused(fleet))
        assert info["paused"]
        assert job.record.spec["hold"] == [["INBOX_CEO", "ceo-processor"]]
        job.set_rate(None)
        await console.holds(lambda: job.state == "completed")
        assert not await _paused(fleet)


async def _paused(fleet):
    info = await fleet.jetstream.consumer_info("INBOX_CEO", "ceo-processor")
    return info if info.get("paused") else None


async def test_policies_are_shown_with_their_reasons(server):
    settings = Settings(
        refresh=0.2,
        agents={"ceo": TargetSettings(policy=ReplayPolicy.CONFIRM, reason="signs contracts")},
        types={"wire.*": TypeSettings(policy=ReplayPolicy.NEVER, reason="moves money")},
    )
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, settings=settings) as console:
        await forge(fleet, "inbox.ceo.1-1", Message_Id="m-1")
        await forge(
            fleet, "inbox.ceo.2-2", "agents.ceo.inbox.wire.out", Message_Id="m-2", headers={"ce-type": "wire.out"}
        )
        await console.press("3")
        await console.sees("m-2")
        await console.press("ctrl+a", "R")
        shown = await console.sees("replay 1 dead letter", "signs contracts", "moves money", "only the command")
        assert "type 1 to confirm" in shown
        await console.press("y", "enter", "escape")
        assert console.runtime.jobs == []
