"""Events and whole conversations whose processes die: each subscriber is served, each conversation ends.

This file is also the process that is killed: `python -m tests.patterns.test_rows_events ROLE URL`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

from patterns import Fleet
from tests.support.fleets import connected, drained, fast, running
from tests.support.waiting import until
from tests.support.worker import SHORT_LEASE, die

ROOT = Path(__file__).parents[2]
BRIEF = fast(events={"ack_wait": SHORT_LEASE}, tasks={"ack_wait": SHORT_LEASE})

MANY = 1_001
"""One more than the server's default limit of consumers a stream."""


@asynccontextmanager
async def process(server, role):
    """A process that is somebody else's to kill; at the end of the block it is gone."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.patterns.test_rows_events", role, server.url, cwd=ROOT
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


# -- events


async def test_ev12_each_of_1001_subscribers_gets_the_event(server):
    async with connected(server.url) as fleet:
        consumers = [await fleet.events.subscription(f"agent-{n}", "news.>") for n in range(MANY)]
        assert len(await fleet.jetstream.consumers("EVENTS")) == MANY
        await fleet.events.broadcast("news.today", {"n": 1}, id="e")
        served = Counter()

        async def serve(some):
            for consumer in some:
                async with await consumer.next(20) as event:
                    served[consumer.agent] += event.id == "e" and event.data == {"n": 1}
                await consumer.stop()

        await asyncio.gather(*(serve(consumers[start::50]) for start in range(50)))
        assert served == Counter(f"agent-{n}" for n in range(MANY))


async def test_ev13_an_event_that_kills_its_process_each_time_is_dead_after_the_limit(server):
    async with connected(server.url, config=BRIEF) as fleet:
        # The durable is made here, so that it begins before the event.
        await (await fleet.events.subscription("security", "deployment.>")).stop()
        other, seen, deaths = await fleet.events.subscription("audit", ">"), [], []

        async def note(event):
            seen.append(event.id)

        async with running(other, note):
            await fleet.events.broadcast("deployment.completed", {"n": 1}, id="poison")
            await fleet.events.broadcast("deployment.completed", {"n": 2}, id="healthy")
            # Started again whenever it dies, as a process manager does.
            while not (found := await fleet.dead_letters.list()):
                async with process(server, "security") as one:

                    async def over(one=one):
                        return one.returncode is not None or await fleet.dead_letters.list()

                    await until(over)
                    deaths.append(one.returncode)
                    assert len(deaths) <= 8
            async with process(server, "security"):
                await until(lambda: "healthy.seen" in seen)

                async def settled():
                    depth = (await fleet.snapshot()).subscriptions["security-events"]
                    return (depth.pending, depth.ack_pending) == (0, 0)

                await until(settled)
        (letter,) = found
        assert [code for code in deaths if code is not None] == [-9, -9, -9]
        assert (letter.kind, letter.name, letter.agent) == ("events", "security-events", "security")
        assert (letter.reason, letter.deliveries, letter.id) == ("crash", 3, "poison")
        assert letter.message.data == {"n": 1}
        assert sorted(seen) == ["healthy", "healthy.seen", "poison"]
        # An event is everybody's: it stays in the stream.
        assert (await fleet.jetstream.get("EVENTS", letter.origin_seq)).subject == "events.deployment.completed"


# -- conversations


async def test_co3_a_worker_killed_after_its_broadcast_makes_no_second_event_and_no_second_result(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=BRIEF) as fleet:
        ceo, backend = fleet.agent("ceo"), fleet.agent("backend-2", role="backend")
        seen = {"security": [], "audit": []}
        results, attempts = [], []

        @ceo.on_message("task.*")
        async def told(message):
            results.append((message.type, message.data["result"], message.data["attempts"]))

        @backend.on_task("deploy")
        async def deploy(task):
            attempts.append(task.attempt)
            await backend.broadcast("deployment.completed", {"by": "backend-2"}, id=f"{task.id}.deployed")
            return "deployed"

        for name, events in seen.items():

            async def note(event, events=events):
                events.append((event.id, event.data, event.correlation_id))

            listener = fleet.agent(name)
            listener.on_event("deployment.>", "end")(note)
            await listener.__aenter__()
            fleet.on_close(listener.stop)
        await ceo.submit("backend", "deploy", id="d-1")
        async with process(server, "backend") as one:
            await until(lambda: one.returncode is not None)
            assert one.returncode == -9
        assert (await fleet.tasks("backend").depth()).messages == 1
        async with ceo, backend:
            await until(lambda: results)
            await drained(fleet.tasks("backend"))
            await fleet.events.broadcast("end", id="end")
            await until(lambda: all(events and events[-1][0] == "end" for events in seen.values()))
        assert attempts == [2]
        assert results == [("task.completed", "deployed", 2)]
        for events in seen.values():
            assert events[:-1] == [("d-1.deployed", {"by": "backend-1"}, "d-1")]
        assert await fleet.dead_letters.list() == []
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_co4_two_agents_that_delegate_to_each_other_for_ever_end_among_the_dead_after_16_hops(server):
    async with connected(server.url, agents=["a", "b"], roles=["design", "build"]) as fleet:
        a, b = fleet.agent("a", role="design"), fleet.agent("b", role="build")
        assert fleet.config.max_hops == 16
        hops = []

        @a.on_task("code")
        async def to_b(task):
            hops.append(("a", task.message.hops, task.correlation_id))
            await a.submit("build", "code")

        @b.on_task("code")
        async def to_a(task):
            hops.append(("b", task.message.hops, task.correlation_id))
            await b.submit("design", "code")

        async with a, b:
            await fleet.tasks("design").submit("code", id="first")
            (letter,) = await until(fleet.dead_letters.list)
            await drained(fleet.tasks("design"))
            await drained(fleet.tasks("build"))
        assert hops == [("a" if n % 2 == 0 else "b", n, "first") for n in range(17)]
        assert (letter.kind, letter.name, letter.reason) == ("tasks", "build", "max-hops")
        assert letter.correlation_id == "first"
        # Who delegated once too often is told so.
        failed = [m for m in await fleet.inbox("a").peek(100) if m.type == "task.failed"]
        assert [(m.data["reason"], m.data["task"]) for m in failed] == [("max-hops", letter.id)]


async def test_co4_an_agent_that_answers_every_failure_with_another_try_comes_to_an_end(server):
    """The circle goes through inboxes and tasks; the outcome of the task beyond the limit must not begin a new one."""
    async with connected(server.url, agents=["a", "b"], roles=["build"]) as fleet:
        a, b = fleet.agent("a"), fleet.agent("b", role="build")
        hops, before = [], []

        @a.on_message("review")
        @a.on_message("task.failed")
        async def to_b(message):
            hops.append(message.message.hops)
            await a.submit("build", "code")

        @a.on_message("task.completed")
        async def thanks(message):
            pass

        @b.on_task("code")
        async def to_a(task):
            hops.append(task.message.hops)
            await b.send("a", "review")

        async def at_rest():
            # Two looks with the same sequences: what is handed on between two counts would be in neither.
            depths = [await fleet.inbox("a").depth(), await fleet.tasks("build").depth()]
            before.append([depth.last_seq for depth in depths])
            return sum(depth.messages for depth in depths) == 0 and before[-2:] == [before[-1]] * 2

        async with a, b:
            await a.send("a", "review")
            await until(at_rest)
        assert hops == list(range(17))
        letters = await fleet.dead_letters.list()
        assert letters[0].kind == "tasks"
        assert {letter.reason for letter in letters} == {"max-hops"}


# -- the process that is killed


async def main(role: str, url: str) -> None:
    """Listen as `security`, which an event kills, or work as `backend`, which dies right after its broadcast."""
    async with Fleet.connect(url, config=BRIEF) as fleet:
        agent = fleet.agent("security") if role == "security" else fleet.agent("backend-1", role="backend")
        if role == "security":

            @agent.on_event("deployment.>")
            async def listen(event):
                if event.id == "poison":
                    die()
                await agent.broadcast("seen", id=f"{event.id}.seen")

        else:

            @agent.on_task("deploy")
            async def deploy(task):
                await agent.broadcast("deployment.completed", {"by": agent.id}, id=f"{task.id}.deployed")
                die()

        await agent.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
