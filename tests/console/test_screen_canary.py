"""The canary, the edit and the pause by keys: on a real fleet whose agents have recovered, or have not."""

from __future__ import annotations

import json

import pytest
from textual.widgets import TextArea

from console.operations.canary import Canary
from console.operations.selection import choose
from console.screens.canary_dialog import CanaryDialog
from console.screens.edit import BulkEditPane, EditScreen
from console.screens.plan_dialog import PlanDialog
from console.settings import ContextSettings, ReplayPolicy, Settings, TargetSettings, TypeSettings
from console.widgets.tick import Tick
from patterns import Reject
from tests.support.fleets import connected, running
from tests.support.letters import forge, forge_many
from tests.support.plans import plan_replay
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


async def test_screen_6_asks_too_and_production_wants_the_count(server):
    settings = Settings(refresh=0.2, contexts={"live": ContextSettings(prod=True)})
    async with (
        connected(server.url, agents=["ceo"]) as fleet,
        desk(fleet, settings=settings, name="live", size=(80, 24)) as console,
    ):
        await forge_many(fleet, 6)
        await console.press("3")
        await console.sees("m-6")
        async with running(fleet.inbox("ceo").consumer(), accept):
            await canary(console, *"2 30s")
            await console.sees("type 6 to confirm")
            job = await begun(console, *"6", "tab", *"why", "enter")
            await console.sees("canary? C")
            await console.press("R")
            await console.holds(lambda: [n for n in console.app._notifications if "your answer to its" in n.message])
            await console.press("6")
            await console.sees("canary?", job.id)
            await console.press("P")
            shown = await console.sees("2 of 2 acknowledged", "4 are left", "tab to Stop, esc decides later", "Send 4")
            assert "type 4 and enter" in shown
            await console.press("y")
            await console.holds(lambda: isinstance(console.app.screen, CanaryDialog))
            assert job.state == "paused"
            await console.press(*"3", "enter")
            assert job.state == "paused"
            await console.press("backspace", *"4", "enter")
            await console.holds(lambda: job.state == "completed")
        assert job.outcomes == {"done": 6}


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 16)])
async def test_the_question_fits(server, size):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, size=size) as console:
        await forge_many(fleet, 3)
        job = await canary_at_its_question(console, fleet)
        console.app.push_screen(CanaryDialog(job, prod=True))
        await console.sees("1 of 1 acknowledged", "2 are left", "type 2 and enter sends the rest")
        screen, box = console.app.screen.region, console.app.screen.query_one("#confirm").region
        assert screen.contains_region(box)
        assert abs((screen.width - box.width) // 2 - box.x) <= 1, "in the middle"
        for widget in console.app.screen.query("Button, Input"):
            assert box.contains_region(widget.region), widget.id
        job.cancel()
        await console.holds(lambda: not job.running)


async def canary_at_its_question(console, fleet):
    """A job whose canary of one was acknowledged."""
    async with running(fleet.inbox("ceo").consumer(), accept):
        plan = await plan_replay(fleet, choose("dead letters", everything=True), canary=Canary(1, 30.0))
        job, _ = console.runtime.start(plan, asked=lambda _: None)
        await console.holds(lambda: job.asks)
    return job


async def test_what_was_typed_stays_until_it_is_sent(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        for number in (1, 2):
            await forge(fleet, f"inbox.ceo.{number}-{number}", body=b'{"model":"small"}', Message_Id=f"m-{number}")
        await console.press("3")
        await console.sees("m-2")
        await console.press("ctrl+a", "E")
        await console.holds(lambda: isinstance(console.app.screen, BulkEditPane))
        await console.sees("the first of them, 1", '"model": "small"')
        console.app.screen.query(TextArea).first().text = "remove $.nothing"
        await console.press("ctrl+s")
        await console.sees("nothing to do")
        await console.press("escape")
        await console.holds(lambda: isinstance(console.app.screen, BulkEditPane))
        assert console.app.screen.query(TextArea).first().text == "remove $.nothing"
        console.app.screen.query(TextArea).first().text = 'set $.model = "large"'
        await console.press("ctrl+s")
        await console.sees("edit 2 dead letters")
        job = await begun(console, "y")
        await console.holds(lambda: job.state == "completed" and not isinstance(console.app.screen, BulkEditPane))
        assert [message.data for message in await fleet.inbox("ceo").peek()] == [{"model": "large"}] * 2


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
        await console.sees("[ ] pause ceo-processor meanwhile", "a pause of ceo-processor")
        await console.press(*"101", "tab", "space")
        await console.sees("[x] pause ceo-processor meanwhile")
        assert console.app.screen.query_one(Tick).value
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
