"""The facade: one name that answers, works, reads and listens."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from patterns import Delivery, InvalidName, NoResponders, Reject, current
from patterns.message import Message
from tests.support.fleets import LONG_LEASE, connected, fast
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


async def stored(fleet, stream):
    return (await fleet.jetstream.stream_info(stream))["state"]["messages"]


async def test_co1_one_conversation_through_all_four_patterns(server):
    async with connected(server.url, org="acme", agents=["ceo"], roles=["backend"]) as fleet:
        devops, ceo, security = fleet.agent("devops"), fleet.agent("ceo"), fleet.agent("security")
        backend = fleet.agent("backend-1", role="backend")
        results, events = [], []

        @devops.on_request("db.pool-size")
        async def pool(request):
            return {"size": 20}

        @backend.on_task("scale")
        async def scale(task):
            state = await backend.request("devops", "db.pool-size", timeout=20, fallback={"size": 10})
            await backend.broadcast("deployment.completed", task.data, id=f"{task.id}.deployed")
            return {"pool": state.data["size"], "pool_source": state.source}

        @ceo.on_message("task.completed")
        async def done(message):
            results.append((message.data["result"], message.source, message.correlation_id, message.subject))

        @security.on_event("deployment.>")
        async def audit(event):
            events.append((event.data, event.source, event.correlation_id, event.message.causation_id, event.subject))

        async with devops, backend, ceo, security:
            await ceo.submit("backend", "scale", {"service": "api"}, id="scale-1")
            await until(lambda: results and events)
        told, heard = "acme.agents.ceo.inbox.task.completed", "acme.events.deployment.completed"
        assert results == [({"pool": 20, "pool_source": "live"}, "backend-1", "scale-1", told)]
        assert events == [({"service": "api"}, "backend-1", "scale-1", "scale-1", heard)]
        assert await fleet.dead_letters.list() == []
        assert [await stored(fleet, name) for name in ("ACME_TASKS_BACKEND", "ACME_INBOX_CEO")] == [0, 0]


async def test_co2_without_the_responder_the_work_completes_with_the_fallback(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        backend, ceo = fleet.agent("backend-1", role="backend"), fleet.agent("ceo")

        @backend.on_task()
        async def scale(task):
            state = await backend.request("devops", "db.pool-size", timeout=20, fallback={"size": 10})
            return {"pool": state.data["size"], "pool_source": state.source}

        async with backend:
            await ceo.submit("backend", "scale", id="s")
            status = await fleet.tasks("backend").wait("s", 20)
        assert status.result == {"pool": 10, "pool_source": "fallback"}


async def test_co5_fleets_on_one_server_hear_nothing_of_each_other(server):
    orgs, heard = ("", "acme", "acme-2"), {"": [], "acme": [], "acme-2": []}

    def member(fleet, org):
        agent = fleet.agent("ceo", role="backend")

        @agent.on_request("who")
        async def who(request):
            return org

        @agent.on_task()
        async def work(task):
            heard[org].append(("task", task.data))
            raise Reject(f"no task for {task.data}")

        @agent.on_message()
        async def read(message):
            heard[org].append((message.type, message.data if message.type == "note" else message.data["error"]))

        @agent.on_event(">")
        async def listen(event):
            heard[org].append(("event", event.data))

        return agent

    async with AsyncExitStack() as stack:
        fleets, agents = {}, {}
        for org in orgs:
            made = connected(server.url, org=org or None, agents=["ceo"], roles=["backend"])
            fleets[org] = await stack.enter_async_context(made)
            agents[org] = await stack.enter_async_context(member(fleets[org], org))
        for org, agent in agents.items():
            for _ in range(5):
                assert (await agent.request("ceo", "who")).data == org
                assert (await agent.request(role="backend", method="who")).data == org
            await agent.submit("backend", "code", org, id="same")
            await agent.send("ceo", "note", org, id="same")
            await agent.broadcast("news", org, id="same")
        await until(lambda: all(len(seen) >= 4 for seen in heard.values()))
        for org, fleet in fleets.items():
            refused = f"no task for {org}"
            expected = [("event", org), ("note", org), ("task", org), ("task.failed", f"Reject: {refused}")]
            assert sorted(heard[org]) == expected
            assert [letter.error for letter in await fleet.dead_letters.list()] == [refused]
            assert (await fleet.tasks("backend").status("same")).error == f"Reject: {refused}"
            seen = await fleet.snapshot()
            assert [*seen.inboxes, *seen.queues, *seen.subscriptions] == ["ceo", "backend", "ceo-events"]
            assert seen.dead_letters == {"tasks.backend": 1}


async def test_the_most_specific_handler_wins(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        ceo, by = fleet.agent("ceo"), {}

        def register(pattern):
            @ceo.on_message(pattern)
            async def handler(message):
                by[message.type] = pattern

        for pattern in (">", "alert.>", "alert.*", "alert.cve", "*.cve", "alert.*.high", "alert.cve.>"):
            register(pattern)
        expected = {
            "note": ">",
            "alert.cve": "alert.cve",
            "alert.other": "alert.*",
            "other.cve": "*.cve",
            "alert.x.high": "alert.*.high",
            "alert.cve.low": "alert.cve.>",
            "alert.x.low": "alert.>",
        }
        async with ceo:
            for kind in expected:
                await ceo.send("ceo", kind)
            await until(lambda: len(by) == len(expected))
        assert by == expected


async def test_a_message_nobody_handles_is_dead_as_unhandled(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        ceo, seen = fleet.agent("ceo"), []

        @ceo.on_message("alert.*")
        async def alert(message):
            seen.append(message.type)

        async with ceo:
            await ceo.send("ceo", "note")
            await ceo.send("ceo", "alert.cve")
            await until(lambda: seen)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.type, letter.reason, letter.source) == ("note", "unhandled", "inbox.ceo")
        assert seen == ["alert.cve"]


async def test_a_stop_hands_everything_back_at_once(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        first, started = fleet.agent("ceo", role="backend"), []

        @first.on_task()
        @first.on_message()
        @first.on_event("deployment.>")
        async def hang(delivery):
            started.append(delivery.stream)
            await asyncio.Event().wait()

        async with first:
            for _ in range(2):
                await first.submit("backend", "code", reply_to=None)
            await first.send("ceo", "note")
            await first.broadcast("deployment.completed")
            await until(lambda: len(started) == 3)
            await first.stop(grace=0)
        assert sorted(started) == ["EVENTS", "INBOX_CEO", "TASKS_BACKEND"]

        second, seen = fleet.agent("ceo", role="backend"), []

        @second.on_task()
        @second.on_message()
        @second.on_event("deployment.>")
        async def note(delivery):
            seen.append((delivery.stream, delivery.attempt))

        async with second:
            await until(lambda: len(seen) == 4, LONG_LEASE / 2)
        # Tasks do not count a hand-back; where the server counts, it is the second attempt.
        assert sorted(seen) == [("EVENTS", 2), ("INBOX_CEO", 2), ("TASKS_BACKEND", 1), ("TASKS_BACKEND", 1)]
        assert await fleet.dead_letters.list() == []


async def test_a_stop_lets_running_handlers_finish_within_the_grace(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        worker, started, finish = fleet.agent("w", role="backend", concurrency=2), [], asyncio.Event()

        @worker.on_task()
        async def work(task):
            started.append(task.id)
            await finish.wait()

        async with worker:
            for name in "abc":
                await fleet.tasks("backend").submit("code", id=name)
            await until(lambda: len(started) == 2)
            stopping = asyncio.create_task(worker.stop(20))
            await asyncio.sleep(0)
            finish.set()
            await stopping
        assert sorted(started) == ["a", "b"]
        states = [(await fleet.tasks("backend").status(name)).state for name in "abc"]
        assert states == ["completed", "completed", "submitted"]


async def test_a_stopped_agent_answers_no_requests(server):
    async with connected(server.url) as fleet:
        devops = fleet.agent("devops", role="ops")

        @devops.on_request("ping")
        async def ping(request):
            assert isinstance(request, Message)
            return "pong"

        async with devops:
            assert (await fleet.agent("a").request("devops", "ping")).data == "pong"
            assert (await fleet.agent("a").request(role="ops", method="ping")).data == "pong"
        with pytest.raises(NoResponders):
            await fleet.agent("a").request("devops", "ping")


async def test_an_agent_that_cannot_start_leaves_nothing_running(server):
    async with connected(server.url) as fleet:
        agent = fleet.agent("devops")

        @agent.on_request("ping")
        async def ping(request):
            return "pong"

        @agent.on_event("a")
        async def note(event):
            pass

        await fleet.js.delete_stream("EVENTS")
        with pytest.raises(Exception, match="provision"):
            await agent.__aenter__()
        with pytest.raises(NoResponders):
            await fleet.agent("a").request("devops", "ping")


async def test_several_subscriptions_of_one_agent(server):
    async with connected(server.url) as fleet:
        agent, seen = fleet.agent("security"), []

        @agent.on_event("deployment.>")
        async def deployments(event):
            seen.append(("deployments", event.type))

        @agent.on_event("alert.*", "cve", name="alerts")
        async def alerts(event):
            seen.append(("alerts", event.type))

        with pytest.raises(InvalidName, match="already"):
            agent.on_event("other")
        async with agent:
            for topic in ("deployment.completed", "alert.high", "cve", "other"):
                await agent.broadcast(topic)
            await until(lambda: len(seen) == 3)
            durables = [c["name"] for c in await fleet.jetstream.consumers("EVENTS")]
        assert sorted(durables) == ["security-alerts", "security-events"]
        assert sorted(seen) == [("alerts", "alert.high"), ("alerts", "cve"), ("deployments", "deployment.completed")]


async def test_one_item_at_a_time_for_agents_with_a_fresh_context(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        ceo, worker = fleet.agent("ceo"), fleet.agent("w", role="backend")
        await fleet.agent("cso").send("ceo", "alert.cve", {"severity": "high"}, id="m")
        async with await ceo.next_message(20) as message:
            assert (message.type, message.source, message.id) == ("alert.cve", "cso", "m")
            assert current() is message.message
            await ceo.submit("backend", "fix", id="t")
        async with await worker.next_task(20) as task:
            assert (task.type, task.message.causation_id, task.message.source) == ("fix", "m", "ceo")
            task.result = "fixed"
        assert current() is None
        async with await ceo.next_message(20) as told:
            assert (told.type, told.data["result"], told.correlation_id) == ("task.completed", "fixed", "m")
        assert await ceo.next_message(0.05) is None
        assert await worker.next_task(0.05) is None


async def test_what_an_agent_may_not_register(server):
    async with connected(server.url) as fleet:
        agent = fleet.agent("a")
        for register in (
            lambda: agent.on_task("code"),
            lambda: agent.on_request("a.*"),
            lambda: agent.on_message("a..b"),
            agent.on_event,
            lambda: agent.on_event("a", ">"),
            lambda: agent.on_event("a", name="my-events"),
            lambda: fleet.agent("Bad"),
            lambda: fleet.agent("a", role="Bad Role"),
        ):
            with pytest.raises(InvalidName):
                register()
        with pytest.raises(InvalidName):
            await agent.next_task()
        agent.on_message("a")
        agent.on_message("b")


async def test_the_same_filter_has_one_handler(server):
    async with connected(server.url) as fleet:
        agent = fleet.agent("a")

        @agent.on_message("note")
        async def first(message):
            pass

        with pytest.raises(InvalidName, match="already"):
            agent.on_message("note")


async def test_a_handler_can_be_tested_with_a_delivery_made_by_hand():
    message = Message(
        id="m", type="note", source="ceo", subject="agents.a.inbox.note", data=1, text="1", headers={}, time=None,
        correlation_id="m", causation_id=None, expires_at=None, replay_of=None, stream=None, seq=None, stored_at=None,
        size=1,
    )  # fmt: skip
    for error, settled in ((None, "acked"), (Reject("no"), "dead"), (ValueError("x"), "retried")):
        delivery = Delivery(message)
        async with delivery:
            await delivery.progress("half")
            if error is not None:
                raise error
        assert delivery.settled == settled


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_lives_until_a_signal_and_stops_gracefully(server, number):
    async with connected(server.url, roles=["backend"], config=fast()) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("wait-for-ever", id="a")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.worker", server.url, "run", cwd=ROOT
        )
        try:

            async def working():
                return (await queue.status("a")).state == "working"

            await until(working)
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), 20) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        # Handed back, not left to a lease of a minute.
        task = await queue.next("other", LONG_LEASE / 2)
        assert (task.id, task.attempt) == ("a", 1)
