"""What an operator changes by keys: each through a plan, each undone where it can be, nothing by a slip of the finger."""

from __future__ import annotations

from contextlib import asynccontextmanager

from console.app import ConsoleApp
from console.operations.guard import WriteGuard
from console.operations.ledger import JobLedger
from console.operations.places import Stream
from console.screens.messages import MessagesScreen
from console.screens.plan_dialog import PlanDialog
from console.session import Runtime, Session
from console.settings import ContextSettings, Settings
from tests.support.fleets import connected, fast, take
from tests.support.letters import forge, forge_many
from tests.support.screens import Desk


@asynccontextmanager
async def operating(fleet, tmp_path, *, prod=False, rate=20.0):
    """A console that keeps its jobs and spills in a directory of the test."""
    session = Session(
        fleet=fleet,
        settings=Settings(refresh=0.2, replay_rate=rate, contexts={"live": ContextSettings(prod=prod)}),
        guard=WriteGuard(True),
        name="live",
        address="127.0.0.1:4222",
        ledger=JobLedger(tmp_path / "state"),
        spill=tmp_path / "spill",
    )
    runtime = Runtime(session)
    async with runtime.running():
        app = ConsoleApp(runtime)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            desk = Desk(app, pilot, runtime)
            await desk.holds(lambda: runtime.monitor.view is not None)
            yield desk


async def confirmed(desk, *keys):
    """Press keys on the plan that is shown, and wait until its job has ended."""
    jobs = len(desk.runtime.jobs)
    await desk.holds(lambda: isinstance(desk.app.screen, PlanDialog))
    await desk.press(*keys)
    return await desk.holds(
        lambda: len(desk.runtime.jobs) > jobs and not desk.runtime.jobs[-1].running and desk.runtime.jobs[-1]
    )


async def told(desk, text):
    """Wait for a notice; on the screen its lines are broken."""
    await desk.holds(lambda: [each for each in desk.app._notifications if text in each.message])


async def seqs(fleet):
    return [letter.seq for letter in await fleet.dead_letters.list(limit=1000)]


async def test_a_letter_is_discarded_and_u_puts_it_back(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        await forge(fleet, "inbox.ceo.1-1", Error="boom")
        await desk.press("3")
        await desk.sees("boom")
        await desk.press("down", "D")
        shown = await desk.sees("discard 1 dead letter", "spill file", "nats stream rmm -f DLQ 1")
        assert "Discard 1" in shown
        job = await confirmed(desk, "enter")
        assert (job.outcomes, await seqs(fleet)) == ({"done": 1}, [])
        await desk.sees("1 discarded", "U puts them back")
        await desk.press("U")
        await desk.sees("restore 1 message", "inbox.ceo")
        job = await confirmed(desk, "y")
        assert (job.action, job.outcomes, await seqs(fleet)) == ("restore", {"done": 1}, [2])
        await desk.press("U")
        await told(desk, "back already")


async def test_what_matches_is_purged_and_only_that(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        await forge(fleet, "inbox.ceo.1-1", Error="boom")
        await forge(fleet, "inbox.ceo.2-2", Error="other")
        await forge(fleet, "inbox.ceo.3-3", Error="boom")
        await desk.press("3")
        await desk.sees("boom", "other")
        await desk.press("slash", *"error:boom", "enter", "X")
        await desk.sees("purge 2 dead letters", "error:boom")
        job = await confirmed(desk, "y")
        assert (job.action, job.outcomes, await seqs(fleet)) == ("purge", {"done": 2}, [2])


async def test_all_of_them_go_only_by_their_name(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        await forge_many(fleet, 3)
        await desk.press("3")
        await desk.sees("m-1")
        await desk.press("X")
        await desk.sees("type DLQ to confirm")
        await desk.press("y", "enter")
        await desk.sees("purge 3 dead letters")
        assert await seqs(fleet) == [1, 2, 3]
        await desk.press("backspace")
        job = await confirmed(desk, "D", "L", "Q", "enter")
        assert (job.outcomes, await seqs(fleet)) == ({"done": 3}, [])


async def test_letters_are_moved_to_where_the_operator_says(server, tmp_path):
    async with connected(server.url, agents=["ceo", "boss"]) as fleet, operating(fleet, tmp_path) as desk:
        await forge_many(fleet, 2)
        await desk.press("3")
        await desk.sees("m-1")
        await desk.press("ctrl+a")
        await desk.sees("2 marked")
        await desk.press("M")
        await desk.sees("move to which subject?", "agents.ceo.inbox.note")
        await desk.press("ctrl+u", *"nowhere.at.all", "enter")
        shown = await desk.sees("nowhere.at.all: vanished, no stream stores it", "move to which subject?")
        assert "--to" not in shown
        await desk.press("ctrl+u", *"agents.boss.inbox.note", "enter")
        await desk.sees("move 2 dead letters", "agents.boss.inbox.note 2")
        job = await confirmed(desk, "y")
        assert (job.action, job.outcomes, await seqs(fleet)) == ("move", {"done": 2}, [])
        assert len(await fleet.inbox("boss").peek()) == 2


async def test_stranded_messages_are_rescued(server, tmp_path):
    config = fast(inbox={"ack_wait": 0.3, "max_deliver": 1})
    async with connected(server.url, agents=["ceo"], config=config) as fleet, operating(fleet, tmp_path) as desk:
        await fleet.inbox("ceo").send("lost", id="m-1")
        await take(fleet, "INBOX_CEO", "ceo-processor")
        await fleet.inbox("ceo").send("next", id="m-2")
        # A pull after the lease is what the server notices the death by.
        message = await take(fleet, "INBOX_CEO", "ceo-processor")
        await message.ack_sync()
        await desk.press("S")
        await desk.sees("rescue 1 stranded message", "INBOX_CEO ceo-processor")
        job = await confirmed(desk, "y")
        assert job.outcomes == {"done": 1}
        (letter,) = await fleet.dead_letters.list()
        assert (letter.id, letter.reason, await fleet.inbox("ceo").peek()) == ("m-1", "crash", [])


async def test_an_inbox_and_a_queue_are_paused_and_resumed(server, tmp_path):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet, operating(fleet, tmp_path) as desk:
        for key, durable, place in (
            ("1", "ceo-processor", fleet.inbox("ceo")),
            ("2", "backend-workers", fleet.tasks("backend")),
        ):
            await desk.press(key)
            await desk.sees("ceo" if key == "1" else "backend")
            for verb, paused in (("pause", True), ("resume", False)):
                await desk.press("P")
                await desk.sees(f"nats consumer {verb}", durable)
                assert (await confirmed(desk, "enter")).action == verb
                assert (await place.depth()).paused is paused


async def test_a_queue_is_purged_by_its_streams_name_and_put_back(server, tmp_path):
    async with connected(server.url, roles=["backend"]) as fleet, operating(fleet, tmp_path) as desk:
        for n in range(3):
            await fleet.tasks("backend").submit("code", n, id=f"t-{n}")
        await desk.press("2")
        await desk.sees("backend")
        await desk.press("X")
        await desk.sees("purge 3 messages", "type TASKS_BACKEND to confirm")
        job = await confirmed(desk, *"TASKS_BACKEND", "enter")
        assert (job.outcomes, (await fleet.tasks("backend").depth()).messages) == ({"done": 3}, 0)
        await desk.press("U")
        await desk.sees("restore 3 messages")
        await confirmed(desk, "y")
        page = await fleet.jetstream.read("TASKS_BACKEND")
        assert [message.headers["ce-id"] for message in page.messages] == ["t-0", "t-1", "t-2"]


async def test_marked_messages_of_an_inbox_are_removed_and_no_others(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        for n in range(4):
            await fleet.inbox("ceo").send("note", n, id=f"m-{n}")
        await desk.sees("ceo")
        await desk.press("i")
        await desk.holds(lambda: isinstance(desk.app.screen, MessagesScreen))
        await desk.sees("m-0", "m-3")
        await desk.press("space", "space")  # each goes on to the next row
        await desk.sees("2 marked")
        await fleet.inbox("ceo").send("note", 9, id="m-9")
        await desk.press("D")
        await desk.sees("discard 2 messages", "m-0", "m-1")
        job = await confirmed(desk, "y")
        assert job.outcomes == {"done": 2}
        assert [message.id for message in await fleet.inbox("ceo").peek()] == ["m-2", "m-3", "m-9"]
        await desk.press("slash", *"m-3", "enter", "X")
        await desk.sees("purge 1 message", "m-3")
        await confirmed(desk, "enter")
        assert [message.id for message in await fleet.inbox("ceo").peek()] == ["m-2", "m-9"]
        await desk.press("escape", "escape")
        await desk.holds(lambda: not isinstance(desk.app.screen, MessagesScreen))


async def test_production_asks_for_the_count_and_a_reason(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path, prod=True) as desk:
        await forge_many(fleet, 2)
        await desk.press("3")
        await desk.sees("m-1")
        await desk.press("ctrl+a", "R")
        await desk.sees("type 2 to confirm", "why (required here")
        await desk.press("2", "enter")
        assert await seqs(fleet) == [1, 2]
        job = await confirmed(desk, *"fixed", "enter")
        assert (job.outcomes, job.record.reason) == ({"done": 2}, "fixed")


async def test_a_second_job_on_the_same_stream_waits_for_the_first(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path, rate=1.0) as desk:
        await forge_many(fleet, 4)
        await fleet.inbox("ceo").send("note", id="mine")
        await desk.press("3")
        await desk.sees("m-1")
        await desk.press("ctrl+a", "R")
        await desk.sees("replay 4 dead letters", "1/s")
        await desk.press("y")
        await desk.holds(lambda: desk.runtime.busy)
        await desk.press("D")
        await desk.sees("still works on DLQ")
        await desk.press("1")
        await desk.sees("ceo")
        await desk.press("P")
        await confirmed(desk, "enter")
        assert (await fleet.inbox("ceo").depth()).paused, "another stream is free"
        desk.runtime.jobs[0].cancel()
        await desk.holds(lambda: not desk.runtime.busy)


async def test_another_process_on_the_stream_is_told_before_the_plan_is_asked(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        await forge_many(fleet, 2)
        stream = await Stream.of(fleet, "DLQ")
        await desk.press("3")
        await desk.sees("m-1")
        lock = JobLedger(tmp_path / "state").hold(stream.identity)
        await desk.press("ctrl+a", "R")
        await told(desk, "another agent-console works on stream DLQ: wait for its end")
        assert not isinstance(desk.app.screen, PlanDialog)
        lock.release()
        await desk.press("R")
        await desk.sees("replay 2 dead letters")
        lock = JobLedger(tmp_path / "state").hold(stream.identity)
        await desk.press("y")
        await told(desk, "has begun to work on stream DLQ: nothing was sent")
        assert await seqs(fleet) == [1, 2]
        lock.release()


async def test_a_pause_says_how_long_it_lasts_and_a_resume_that_it_goes_on(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet, operating(fleet, tmp_path) as desk:
        await desk.sees("ceo")
        await desk.press("P")
        await desk.sees("pause inbox.ceo", "UTC (10m), then it goes on by itself")
        await confirmed(desk, "enter")
        await told(desk, "inbox.ceo paused for 10m, P resumes")
        await desk.press("P")
        shown = await desk.sees("resume inbox.ceo")
        assert "messages stay" not in shown
        await confirmed(desk, "enter")
        await told(desk, "inbox.ceo resumed")
