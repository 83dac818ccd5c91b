"""One look at a fleet: what it finds, what it asks, and what it leaves alone."""

from __future__ import annotations

import time

import nats
import pytest
from nats.js.api import StreamConfig

from console.monitor.asking import ByJsz, ByList
from console.monitor.mux import Mux
from console.monitor.reader import LEAST_ASKED, Reader
from patterns import Fleet, Unavailable
from patterns.server import LocalServer
from tests.support.fleets import connected

ACCOUNTS = """
    jetstream {}
    accounts {
      APP { jetstream: enabled, users: [{ user: app, password: a }, { user: looker, password: l, permissions: { publish: {
              allow: [%s] } } }]
            %s }
      SYS { users: [{ user: sys, password: s }]
            exports: [{ service: "$SYS.REQ.SERVER.PING.JSZ", accounts: [APP] }] }
    }
    system_account: SYS
"""
IMPORT = 'imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ" } }]'
READ = ", ".join(
    f'"{subject}"'
    for subject in (
        "$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.DIRECT.GET.*",
        "$SYS.REQ.USER.INFO",
    )
)  # fmt: skip


def login(server: LocalServer, user: str) -> str:
    return server.url.replace("//", f"//{user}@")


async def counts(fleet: Fleet, reader: Reader) -> dict[str, int]:
    return {name: depth.messages for name, depth in (await reader.read()).inboxes.items()}


async def test_more_streams_than_one_answer_holds_are_all_found(server):
    async with connected(server.url) as fleet:
        for number in range(300):
            await fleet.js.add_stream(
                StreamConfig(name=f"INBOX_A{number}", subjects=[f"agents.a{number}.inbox.>"], storage="memory")
            )
        reader = Reader(fleet)
        assert len((await reader.read()).inboxes) == 300
        assert len((await reader.read()).inboxes) == 300


async def test_agents_and_messages_that_come_and_go_are_noticed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        reader = Reader(fleet)
        assert await counts(fleet, reader) == {"ceo": 0}
        await fleet.provision(agents=["dev"])
        await fleet.inbox("dev").send("note", {})
        assert await counts(fleet, reader) == {"ceo": 0, "dev": 1}
        await fleet.js.delete_stream("INBOX_DEV")
        assert await counts(fleet, reader) == {"ceo": 0}


async def test_a_consumer_that_goes_is_noticed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        reader = Reader(fleet)
        assert (await reader.read()).inboxes["ceo"].durable == "ceo-processor"
        await fleet.js.delete_consumer("INBOX_CEO", "ceo-processor")
        assert (await reader.read()).inboxes["ceo"].durable is None


async def test_what_has_not_changed_for_two_looks_is_the_same_object(server):
    async with connected(server.url, agents=["ceo", "dev"]) as fleet:
        reader = Reader(fleet)
        looks = [(await reader.read()).inboxes for _ in range(4)]
        assert looks[3]["ceo"] is looks[2]["ceo"]
        await fleet.inbox("dev").send("note", {})
        after = (await reader.read()).inboxes
        assert after["ceo"] is looks[3]["ceo"]
        assert after["dev"].messages == 1


async def test_empty_inboxes_are_asked_in_turn_and_full_ones_each_time(server):
    agents = [f"a{number}" for number in range(LEAST_ASKED + 16)]
    async with connected(server.url, agents=agents) as fleet:
        await fleet.inbox("a0").send("note", {})
        reader = Reader(fleet)
        assert not (await reader.read()).still, "who was never asked is asked at once"
        asked: set[str] = set()
        for _ in range(2):
            look = await reader.read()
            assert ("inbox", "a0") not in look.still
            assert len(look.still) == len(agents) - 1 - LEAST_ASKED
            asked |= {agent for agent in agents if ("inbox", agent) not in look.still}
        assert asked == set(agents)
        assert not (await Reader(fleet, thorough=True).read()).still


async def test_lists_and_jsz_find_the_same(tmp_path):
    with LocalServer(config=ACCOUNTS % (READ, IMPORT)) as server:
        async with connected(login(server, "app:a"), agents=["ceo", "dev"], roles=["backend"]) as fleet:
            await fleet.inbox("dev").send("note", {})
            await fleet.events.subscription("dev", "security.>")
            await fleet.events.broadcast("security.alert", {})
            reader = Reader(fleet)
            by_jsz = await reader.read()
            assert reader.way == by_jsz.way == ByJsz.name
            reader._jsz, reader._jsz_due = None, float("inf")
            by_list = await reader.read()
            assert reader.way == ByList.name
            assert by_jsz.inboxes == by_list.inboxes
            assert by_jsz.queues == by_list.queues
            assert by_jsz.subscriptions == by_list.subscriptions
            assert by_list.subscriptions["dev-events"].oldest_at is not None
            assert by_list.inboxes["dev"].ack_wait > 0


async def test_a_connection_of_the_system_account_is_used(tmp_path):
    with LocalServer(config=ACCOUNTS % (READ, "")) as server:
        system = await nats.connect(login(server, "sys:s"))
        try:
            async with connected(login(server, "app:a"), agents=["ceo"]) as fleet:
                reader = Reader(fleet, system=system)
                assert await counts(fleet, reader) == {"ceo": 0}
                assert reader.way == ByJsz.name
                await fleet.inbox("ceo").send("note", {})
                assert await counts(fleet, reader) == {"ceo": 1}
                await system.close()
                assert await counts(fleet, reader) == {"ceo": 1}
                assert reader.way == ByList.name
        finally:
            if not system.is_closed:
                await system.close()


async def test_without_the_right_to_one_consumer_their_list_is_read():
    with LocalServer(config=ACCOUNTS % (READ, "")) as server:
        async with (
            connected(login(server, "app:a"), agents=["ceo"]) as fleet,
            Fleet.connect(login(server, "looker:l")) as looker,
        ):
            await fleet.inbox("ceo").send("note", {})
            look = await Reader(looker).read()
            assert look.inboxes["ceo"].durable == "ceo-processor"
            assert not look.hidden


async def test_a_refusal_is_named_at_once():
    with LocalServer(config=ACCOUNTS % ('"$JS.API.INFO"', "")) as server:
        async with Fleet.connect(login(server, "looker:l")) as looker:
            started = time.monotonic()
            with pytest.raises(Unavailable, match=r"STREAM\.LIST"):
                await Reader(looker).read()
            assert time.monotonic() - started < 4, "not the time that silence would be waited for"


async def test_answers_come_in_the_order_of_the_requests(server):
    async with Fleet.connect(server.url) as fleet:

        async def echo(msg):
            await msg.respond(msg.data)

        await fleet.nc.subscribe("echo", cb=echo)
        mux = Mux(fleet.nc)
        asked = [("echo", b"%d" % number) for number in range(1500)]
        assert await mux.ask(asked) == [payload for _, payload in asked]
        assert await mux.ask([("nobody", b""), ("echo", b"x")]) == [None, b"x"]
        await mux.close()
