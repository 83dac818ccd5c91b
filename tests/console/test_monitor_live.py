"""The monitor against a real server: what it shows, what it survives, and that it touches nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from console.letters import cleaned, record_of
from console.monitor.engine import Monitor, observe
from console.monitor.feed import Feed
from console.monitor.letters import LetterStore
from console.monitor.states import State
from console.operations.selection import choose
from console.settings import Settings
from console.text.safe import is_clean
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.fleets import connected, delivery, fast, publish, running, take
from tests.support.letters import forge, forge_many, kill_tasks
from tests.support.plans import plan_replay
from tests.support.waiting import until

SETTINGS = Settings(refresh=0.2)
HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\r\n\x9b2J"


def flow(monitor: Monitor, name: str, *, queue: bool = False) -> Any:
    """The row of an agent or a role in the newest view."""
    assert monitor.view is not None
    rows = monitor.view.queues if queue else monitor.view.agents
    return next(row for row in rows if row.name == name)


async def twice(monitor: Monitor) -> None:
    """Two reads, as confirmation needs."""
    assert await monitor.read()
    assert await monitor.read()


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Any]:
    """JetStream of nats-py, as a fleet uses it that has never heard of this project."""
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


@asynccontextmanager
async def requests_of(fleet: Fleet, url: str) -> AsyncIterator[Counter[str]]:
    """Every JetStream API request of anybody for the length of the block, as the server saw them."""
    client = await nats.connect(url)
    seen: Counter[str] = Counter()

    async def note(msg: Any) -> None:
        seen[msg.subject.removeprefix("$JS.API.")] += 1

    await client.subscribe("$JS.API.>", cb=note)
    await client.flush()
    try:
        yield seen
        await fleet.nc.flush()
        await client.flush()
    finally:
        await client.close()


# -- reading


async def test_an_empty_account_is_an_empty_view(server):
    async with Fleet.connect(server.url) as fleet:
        monitor = Monitor(fleet, SETTINGS)
        assert monitor.view is None
        assert await monitor.read()
        view = monitor.view
        assert view is not None
        assert (view.agents, view.queues, view.subscriptions, view.findings, view.missing) == ((), (), (), (), ())
        assert (view.dead_letter_total, monitor.letters.all(), monitor.letters.total) == (0, (), 0)
        assert view.server.version.startswith("2.")
        assert view.server.url == server.url
        assert monitor.health.error == ""
        assert monitor.health.rtt is not None
        assert 0 < monitor.health.rtt < 5


async def test_a_fleet_shows_its_agents_queues_subscriptions_and_letters(server):
    async with connected(server.url, agents=["ceo", "dev"], roles=["backend"]) as fleet:
        await kill_tasks(fleet, 2)
        await forge(fleet, "events.dev-alerts.7-7", "events.security.alert")
        await fleet.events.subscription("dev", "security.>", name="alerts")
        for _ in range(3):
            await fleet.inbox("dev").send("note", {})
        await fleet.events.broadcast("security.alert", {})
        monitor = Monitor(fleet, SETTINGS)
        await twice(monitor)
        view = monitor.view
        assert view is not None
        assert [agent.name for agent in view.agents] == ["ceo", "dev"]
        assert [queue.name for queue in view.queues] == ["backend"]
        assert (flow(monitor, "ceo").depth.messages, flow(monitor, "dev").depth.messages) == (0, 3)
        assert flow(monitor, "dev").dead_letters == 1
        assert flow(monitor, "backend", queue=True).dead_letters == 2
        assert view.dead_letters == {"tasks.backend": 2, "events.dev-alerts": 1}
        (subscription,) = view.subscriptions
        assert (subscription.agent, subscription.name, subscription.topics) == ("dev", "alerts", ("security.>",))
        assert subscription.depth.pending == 1
        assert [letter.seq for letter in monitor.letters.all()] == [1, 2, 3]
        assert monitor.version == 2
        assert flow(monitor, "dev").oldest_age is not None


async def test_states_follow_the_work(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        monitor = Monitor(fleet, SETTINGS)
        await twice(monitor)
        assert flow(monitor, "ceo").state is State.OFFLINE
        await fleet.inbox("ceo").send("note", {})
        await twice(monitor)
        assert flow(monitor, "ceo").state is State.NO_WORKER
        (finding,) = flow(monitor, "ceo").findings
        assert (finding.severity, finding.subject) == ("critical", "inbox.ceo")
        assert "1 waiting" in finding.text

        release = asyncio.Event()

        async def work(_):
            await release.wait()

        async def state(wanted: State) -> bool:
            assert await monitor.read()
            return flow(monitor, "ceo").state is wanted

        async with running(fleet.inbox("ceo").consumer(), work):
            await until(lambda: state(State.BUSY))
            release.set()
            await until(lambda: state(State.IDLE))
            await fleet.inbox("ceo").pause(60)
            await fleet.inbox("ceo").send("note", {})
            await until(lambda: state(State.PAUSED))
            assert [found.severity for found in flow(monitor, "ceo").findings] == ["warning"]
            await fleet.inbox("ceo").resume()
            await until(lambda: state(State.IDLE))
        await until(lambda: state(State.OFFLINE))


async def test_a_long_task_with_heartbeats_is_busy_and_without_them_stalled(server):
    config = fast(inbox={"ack_wait": 1.0, "heartbeat": 0.2})
    async with connected(server.url, agents=["ceo", "dead"], config=config) as fleet:
        for _ in range(3):
            await fleet.inbox("ceo").send("long", {})
        await fleet.inbox("dead").send("long", {})
        monitor = Monitor(fleet, SETTINGS)
        delivery = await fleet.inbox("ceo").next(20)
        assert delivery is not None
        async with delivery:
            await take(fleet, "INBOX_DEAD", "dead-processor")

            async def seen() -> bool:
                assert await monitor.read()
                assert flow(monitor, "ceo").state is State.BUSY, "its lease is kept alive"
                return flow(monitor, "dead").state is State.STALLED

            await until(seen)
        assert [finding.severity for finding in flow(monitor, "dead").findings] == ["critical"]


async def test_a_stranded_message_shows_within_two_reads_of_its_death(server):
    config = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        inbox = fleet.inbox("ceo")
        monitor = Monitor(fleet, SETTINGS)
        await inbox.send("note", {})
        await take(fleet, inbox.stream, inbox.durable)

        async def dead() -> bool:
            """Somebody pulls again, which is when the server notices."""
            pull = f"$JS.API.CONSUMER.MSG.NEXT.{inbox.stream}.{inbox.durable}"
            await fleet.nc.publish(pull, b'{"batch":1,"no_wait":true}')
            return (await inbox.depth()).stranded == 1

        assert await monitor.read()
        await until(dead)
        assert await monitor.read()
        assert flow(monitor, "ceo").stranded == 0, "one read alone may have caught an acknowledgement in flight"
        assert await monitor.read()
        assert flow(monitor, "ceo").stranded == 1
        assert [finding.severity for finding in flow(monitor, "ceo").findings] == ["critical"]
        assert "stranded" in flow(monitor, "ceo").findings[0].text
        # And it is gone again once somebody has moved it.
        assert await fleet.dead_letters.sweep(inbox.stream, inbox.durable) == 1
        assert await monitor.read()
        assert flow(monitor, "ceo").stranded == 0
        assert [letter.reason for letter in monitor.letters.all()] == ["crash"]


async def test_work_that_is_acknowledged_all_the_time_is_never_stranded(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        monitor = Monitor(fleet, SETTINGS)

        async def work(_):
            pass

        async with running(fleet.inbox("ceo").consumer(), work):
            for _ in range(40):
                await fleet.inbox("ceo").send("note", {})
                assert await monitor.read()
                assert not flow(monitor, "ceo").stranded


async def test_a_look_from_several_reads_knows_rates_and_absence(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", {})
        once = await observe(fleet, SETTINGS, reads=1)
        assert (once.agents[0].in_rate, once.agents[0].state) == (None, State.BUSY)
        looking = asyncio.create_task(observe(fleet, SETTINGS, reads=3, apart=0.1))
        await fleet.inbox("ceo").send("note", {})
        view = await looking
        assert view.agents[0].state is State.NO_WORKER
        assert view.agents[0].in_rate is not None
        assert view.agents[0].ack_rate == pytest.approx(0, abs=0.01)


async def test_a_killed_server_costs_one_clean_line_and_it_comes_back_by_itself(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        monitor = Monitor(fleet, SETTINGS)
        reads = asyncio.Event()
        monitor.on_change = reads.set
        loop = asyncio.create_task(monitor.run())
        try:
            await until(lambda: monitor.view is not None)
            await asyncio.to_thread(server.kill)
            await until(lambda: monitor.health.error)
            shown, version = monitor.view, monitor.version
            assert is_clean(monitor.health.error)
            assert len(monitor.health.error.splitlines()) == 1
            await until(lambda: monitor.version > version)
            assert monitor.view is shown, "what was last seen stays"
            assert monitor.health.age > 0
            assert not loop.done()
            await asyncio.to_thread(server.restart)
            await until(lambda: not monitor.health.error)
            assert monitor.view is not shown
            assert [agent.name for agent in monitor.view.agents] == ["ceo"]
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        assert loop.cancelled()
        assert reads.is_set()


async def test_refresh_reads_now(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        monitor = Monitor(fleet, Settings(refresh=3600))
        loop = asyncio.create_task(monitor.run())
        try:
            await until(lambda: monitor.version == 1)
            await fleet.inbox("ceo").send("note", {})
            monitor.refresh()
            await until(lambda: flow(monitor, "ceo").depth.messages == 1)
            assert monitor.version == 2
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


async def test_an_inbox_whose_consumers_may_not_be_seen_is_unknown_and_the_rest_is_shown():
    config = """
        authorization { users: [
            { user: admin, password: a }
            { user: looker, password: b, permissions: { publish: {
                deny: ["$JS.API.CONSUMER.*.INBOX_CEO", "$JS.API.CONSUMER.INFO.INBOX_CEO.*", "$JS.API.STREAM.INFO.DLQ"] } } } ] }
    """
    with LocalServer(config=config) as server:
        # A server with accounts refuses a client without credentials: the tests' own are in the URL.
        admin, looker = (server.url.replace("//", f"//{login}@") for login in ("admin:a", "looker:b"))
        async with connected(admin, agents=["ceo", "dev"]) as fleet, Fleet.connect(looker) as restricted:
            for agent in ("ceo", "dev"):
                await fleet.inbox(agent).send("note", {})
            await forge_many(fleet, 1)
            impatient(restricted)
            monitor = Monitor(restricted, SETTINGS)
            await twice(monitor)
            assert flow(monitor, "ceo").state is State.UNKNOWN
            assert flow(monitor, "ceo").depth.messages == 1
            assert flow(monitor, "dev").state is State.NO_WORKER
            view = monitor.view
            assert view is not None
            assert len(view.missing) == 2
            assert {finding.severity for finding in view.findings if finding.subject == "read"} - {"info"} == {
                "warning"
            }
            assert not [finding for finding in view.findings if finding.subject == "inbox.ceo"]
            assert monitor.health.error == ""


def impatient(fleet: Fleet) -> None:
    """Wait 0.3 s instead of 5 for what a server that refuses will never answer."""
    real = fleet.jetstream.api

    async def api(call: str, request: Any = None, *, timeout: float = 5.0) -> Any:
        return await real(call, request, timeout=min(timeout, 0.3))

    fleet.jetstream.api = api  # type: ignore[method-assign]


@pytest.mark.parametrize("durable", ["ceo-processor", "whoever"])
@pytest.mark.parametrize("direct", [True, False])
async def test_a_fleet_made_by_other_code_shows_up(server, durable, direct):
    async with plain(server.url) as js:
        inbox = StreamConfig(
            name="INBOX_CEO",
            subjects=["agents.ceo.inbox.>"],
            retention=RetentionPolicy.WORK_QUEUE,
            allow_direct=direct,
        )
        await js.add_stream(inbox)
        consumer = ConsumerConfig(
            name=durable,
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=300,
            max_deliver=3,
            max_ack_pending=1,
            filter_subject="agents.ceo.inbox.>",
        )
        await js.add_consumer("INBOX_CEO", consumer)
        await js.add_stream(StreamConfig(name="DLQ", subjects=["dlq.>"], allow_direct=direct))
        for number in range(3):
            await js.publish("agents.ceo.inbox.note", b"not json %d" % number)
        for number in range(1, 6):
            headers = {"Dead-Letter-Subject": "agents.ceo.inbox.note", "Dead-Letter-Reason": "gave up"}
            await js.publish(f"dlq.inbox.ceo.{number}-{number}", b"x", headers=headers)
        subscription = await js.pull_subscribe_bind(durable, stream="INBOX_CEO")
        (taken,) = await subscription.fetch(1, timeout=20)
        async with Fleet.connect(server.url) as fleet:
            monitor = Monitor(fleet, SETTINGS)
            await twice(monitor)
            row = flow(monitor, "ceo")
            assert (row.depth.messages, row.depth.pending, row.depth.ack_pending) == (3, 2, 1)
            assert row.depth.durable == durable
            assert (row.state, row.stranded, row.dead_letters) == (State.BUSY, 0, 5)
            assert [(letter.seq, letter.reason) for letter in monitor.letters.all()] == [
                (number, "gave up") for number in range(1, 6)
            ]
            await fleet.dead_letters.discard(3, by="test")
            assert await monitor.read()
            assert [letter.seq for letter in monitor.letters.all()] == [1, 2, 4, 5]
        await taken.ack_sync()
        await subscription.unsubscribe()


# -- look without touching


async def counters(fleet: Fleet) -> dict[str, Any]:
    """Every stream, every consumer, and every counter of both, without the time of the answer."""
    streams, _ = await fleet.jetstream.streams()
    found: dict[str, Any] = {}
    for info in streams:
        name = info["config"]["name"]
        found[name] = (info["config"], info["state"])
        for consumer in await fleet.jetstream.consumers(name):
            found[f"{name}/{consumer['name']}"] = {key: consumer[key] for key in consumer if key != "ts"}
    return found


async def test_looking_touches_nothing(server):
    config = dataclasses.replace(fast(), inbox=delivery(max_ack_pending=3))
    async with connected(server.url, agents=["ceo", "dev"], roles=["backend"], config=config) as fleet:
        await kill_tasks(fleet, 3)
        for agent in ("ceo", "dev"):
            for number in range(5):
                await fleet.inbox(agent).send("note", number)
        await fleet.tasks("backend").submit("code", {})
        await fleet.events.subscription("dev", "security.>", since="all")
        await fleet.events.broadcast("security.alert", {})
        await take(fleet, "INBOX_DEV", "dev-processor")
        before = await counters(fleet)
        assert "INBOX_DEV/dev-processor" in before
        assert before["INBOX_DEV/dev-processor"]["num_ack_pending"] == 1
        async with Fleet.connect(server.url) as looker:
            monitor, feed = Monitor(looker, SETTINGS), Feed(looker)
            following = asyncio.create_task(feed.run())
            for _ in range(20):
                assert await monitor.read()
            await observe(looker, SETTINGS, apart=0.01)
            for agent in ("ceo", "dev"):
                assert len(await looker.inbox(agent).peek()) == 5
            assert (await plan_replay(looker, choose("dead letters", everything=True), rate=20)).count == 3
            await until(lambda: feed.items)
            assert await counters(fleet) == before, "also while the feed is open"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert await counters(fleet) == before


# -- letters


async def test_the_store_follows_what_comes_and_goes(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        store = LetterStore(fleet)
        assert not await store.refresh() or store.all() == ()

        def held() -> list[int]:
            return [letter.seq for letter in store.all()]

        await forge_many(fleet, 4)
        assert await store.refresh()
        assert (held(), store.total) == ([1, 2, 3, 4], 4)
        await fleet.jetstream.delete("DLQ", 2)
        assert await store.refresh()
        assert (held(), store.total) == ([1, 3, 4], 3)
        assert store.get(2) is None
        assert store.get(3) is not None
        await fleet.jetstream.delete("DLQ", 1)
        await fleet.jetstream.delete("DLQ", 4)
        await forge(fleet, "inbox.ceo.9-9")
        assert await store.refresh()
        assert (held(), store.total) == ([3, 5], 2)
        await fleet.jetstream.purge("DLQ", everything=True)
        assert await store.refresh()
        assert (held(), store.total) == ([], 0)
        await forge(fleet, "inbox.ceo.9-9", Message_Id="after the purge")
        assert await store.refresh()
        assert [letter.id for letter in store.all()] == ["after the purge"]


@pytest.mark.parametrize("seen_without_it", [True, False])
async def test_the_store_notices_a_stream_that_was_made_anew(server, seen_without_it):
    async with connected(server.url, agents=["ceo"]) as fleet:
        store = LetterStore(fleet)
        await forge_many(fleet, 3, Error="old")
        assert await store.refresh()
        await fleet.js.delete_stream("DLQ")
        if seen_without_it:
            assert await store.refresh()
            assert (store.all(), store.total) == ((), 0)
            assert not await store.refresh()
        await fleet.provision()
        # As many, under the same sequences: nothing but the stream's own birthday tells them apart.
        await forge_many(fleet, 3, Error="new")
        assert await store.refresh()
        assert [(letter.seq, letter.error) for letter in store.all()] == [(1, "new"), (2, "new"), (3, "new")]


async def test_nothing_new_costs_one_request(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        store = LetterStore(fleet)
        await forge_many(fleet, 700)
        async with requests_of(fleet, server.url) as first:
            assert await store.refresh()
        assert len(store.all()) == 700
        assert first["DIRECT.GET.DLQ"] <= 3, "two pages, and one look behind them"
        async with requests_of(fleet, server.url) as second:
            assert not await store.refresh()
        assert second == {"STREAM.INFO.DLQ": 1}
        await forge(fleet, "inbox.ceo.999-999")
        async with requests_of(fleet, server.url) as third:
            assert await store.refresh()
        assert third["DIRECT.GET.DLQ"] <= 2
        assert third["STREAM.INFO.DLQ"] == 1
        assert len(store.all()) == 701


async def test_what_is_no_letter_is_passed_over(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for subject in ("dlq.x", "dlq.a.b.c.d", "dlq.nokind.ceo.1-1"):
            await publish(fleet, subject, b"x")
        await forge(fleet, "inbox.ceo.1-1", At="99999-01-01T00:00:00Z", Replays="-1", Deliveries="x", First_At="now")
        await forge(fleet, "inbox.ceo.2-2", body=b"[" * 900 + b"]" * 900)
        await forge(fleet, "inbox.ceo.3-3", body=b"\xff\xfe", headers={"ce-expiry": "never", "Agent-Hops": "many"})
        monitor = Monitor(fleet, SETTINGS)
        assert await monitor.read()
        assert [letter.seq for letter in monitor.letters.all()] == [4, 5, 6]
        assert (monitor.letters.all()[0].replays, monitor.letters.all()[0].first_at) == (0, None)
        assert monitor.letters.total == 6


# -- hostile texts


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a view, except the counters' own names, which are the server's words and not for the screen."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_of(key)
            yield from texts_of(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from texts_of(inner)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "depth":
                yield from texts_of(getattr(value, field.name))


async def test_hostile_texts_come_out_clean(server):
    evil = "\x1b[31mevil\u202e"
    async with connected(server.url, agents=["ceo"]) as fleet:
        for name in (evil, "\x1b[32m"):
            await publish(fleet, f"dlq.inbox.{name}.1-1")
        config = {"durable_name": f"{evil}-x", "ack_policy": "explicit", "filter_subject": f"events.{evil}.>"}
        request = {"stream_name": "EVENTS", "config": config}
        await fleet.jetstream.api(f"CONSUMER.DURABLE.CREATE.EVENTS.{evil}-x", request)
        told = ("Error", "Error_Type", "Agent", "Reason", "Stream", "Message_Id")
        # A header ends with its line; what is percent-encoded in it comes out as it was.
        quoted = "".join(f"%{byte:02X}" for byte in HOSTILE.encode())
        await forge(fleet, "inbox.ceo.5-5", HOSTILE[:-6].replace("\r\n", ""), **dict.fromkeys(told, quoted))
        monitor = Monitor(fleet, SETTINGS)
        await twice(monitor)
        shown = list(texts_of(monitor.view))
        assert [text for text in shown if not is_clean(text)] == []
        assert sum("evil" in text for text in shown) >= 2, "cleaned and not left out"
        assert monitor.view is not None
        assert monitor.view.dead_letter_total == 3
        for letter in monitor.letters.all():
            safe = cleaned(letter)
            texts = [getattr(safe, name.lower()) for name in told if name != "Message_Id"]
            texts += [safe.id, safe.type, safe.name, safe.subject, safe.correlation_id, safe.error_text]
            assert [text for text in texts if not is_clean(text)] == []
            assert record_of(letter).seq == letter.seq
        assert any(HOSTILE in letter.error for letter in monitor.letters.all()), "the letter itself stays as it was"
        monitor.fleet.nc._server_info["server_name"] = HOSTILE
        assert await monitor.read()
        assert is_clean(monitor.view.server.name)
