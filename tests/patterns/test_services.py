"""Responders as every tool of the NATS services protocol finds them (ADR-32)."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from patterns import Fleet, NoResponders, Reject, RemoteError
from patterns.server import LocalServer
from tests.support.fleets import connected
from tests.support.waiting import until


async def ask(fleet, subject, *, answers=1):
    """What so many services answer to one question, and no more than these."""
    inbox, found = fleet.nc.new_inbox(), []

    async def receive(msg):
        # The server itself says so where nobody listens at all.
        if (msg.headers or {}).get("Status") != "503":
            found.append(json.loads(msg.data))

    subscription = await fleet.nc.subscribe(inbox, cb=receive)
    await fleet.nc.publish(subject, b"", reply=inbox)
    await until(lambda: len(found) >= answers)
    # Whoever else would answer has done so before the server answers this.
    await fleet.nc.flush()
    await subscription.drain()
    assert len(found) == answers
    return found


async def echo(request):
    return request.data


async def picky(request):
    raise Reject("no such database")


def devops(fleet, **options):
    made = fleet.requests.responder("devops", **options)
    made.handle("ping", echo)
    made.handle("db.pool-size", picky)
    return made


async def test_a_responder_is_found_by_ping_of_all_of_its_name_and_of_its_instance(server):
    async with connected(server.url) as fleet, devops(fleet):
        (everybody,) = await ask(fleet, "$SRV.PING")
        found = ServicePing.from_dict(everybody)
        assert (found.name, everybody["type"]) == ("devops", "io.nats.micro.v1.ping_response")
        assert found.metadata["agent"] == "devops"
        assert await ask(fleet, "$SRV.PING.devops") == [everybody]
        assert await ask(fleet, f"$SRV.PING.devops.{found.id}") == [everybody]


async def test_instances_of_one_agent_answer_each_for_itself(server):
    async with connected(server.url) as fleet, devops(fleet), devops(fleet, role="infra"):
        found = await ask(fleet, "$SRV.PING.devops", answers=2)
        assert len({answer["id"] for answer in found}) == 2


async def test_info_names_every_method_of_agent_and_role_with_its_subject(server):
    async with connected(server.url, org="acme") as fleet, devops(fleet, role="infra"):
        (answer,) = await ask(fleet, "$SRV.INFO.ACME_devops")
        found = ServiceInfo.from_dict(answer)
        assert {(e.name, e.subject, e.queue_group, e.metadata["method"]) for e in found.endpoints} == {
            ("ping", "acme.agents.devops.rpc.ping", "q", "ping"),
            ("ping", "acme.roles.infra.rpc.ping", "q", "ping"),
            ("db_pool-size", "acme.agents.devops.rpc.db.pool-size", "q", "db.pool-size"),
            ("db_pool-size", "acme.roles.infra.rpc.db.pool-size", "q", "db.pool-size"),
        }
        assert found.metadata == {"agent": "devops", "role": "infra", "org": "acme", "concurrency": "16"}
        assert found.description == "agent devops, role infra"


async def test_stats_count_requests_errors_and_time_for_each_method(server):
    async with connected(server.url) as fleet, devops(fleet, role="infra") as made:
        for number in range(3):
            await fleet.requests.request("ping", number, to="devops")
        await fleet.requests.request("ping", 1, role="infra")
        with pytest.raises(RemoteError, match="422"):
            await fleet.requests.request("db.pool-size", {}, to="devops")
        await until(lambda: made.stats.processing_time > 0)
        (answer,) = await ask(fleet, "$SRV.STATS")
        found = {endpoint.subject: endpoint for endpoint in ServiceStats.from_dict(answer).endpoints}
        own = found["agents.devops.rpc.ping"]
        assert (own.num_requests, own.num_errors, own.last_error) == (3, 0, "")
        assert own.processing_time >= 3 * own.average_processing_time > 0
        assert found["roles.infra.rpc.ping"].num_requests == 1
        failing = found["agents.devops.rpc.db.pool-size"]
        assert (failing.num_requests, failing.num_errors) == (1, 1)
        assert failing.last_error == "422: no such database"


async def test_a_late_and_a_refused_request_are_counted_where_they_came_in(server):
    async with connected(server.url) as fleet:
        started, go = asyncio.Event(), asyncio.Event()

        async def slow(request):
            started.set()
            await go.wait()

        made = fleet.requests.responder("devops", concurrency=1)
        made.handle("slow", slow)
        async with made:
            first = asyncio.create_task(fleet.requests.request("slow", to="devops", timeout=20))
            await started.wait()
            with pytest.raises(RemoteError, match="429"):
                await fleet.requests.request("slow", to="devops")
            go.set()
            await first
            past = {"ce-expirytime": "2020-01-01T00:00:00Z", "ce-specversion": "1.0", "ce-id": "late"}
            await fleet.nc.publish("agents.devops.rpc.slow", b"", headers=past)
            await until(lambda: made.stats.expired)
            ((endpoint,),) = [answer["endpoints"] for answer in await ask(fleet, "$SRV.STATS.devops")]
            assert (endpoint["num_requests"], endpoint["num_errors"]) == (3, 1)
            assert endpoint["data"] == {"expired": 1, "busy": 1}


async def test_discovery_does_not_echo_the_headers_of_whoever_asks(server):
    async with connected(server.url) as fleet, devops(fleet):
        msg = await fleet.nc.request("$SRV.PING", headers={"Authorization": "secret"})
        assert not msg.headers


async def test_a_responder_that_stopped_is_not_found_any_more(server):
    async with connected(server.url) as fleet:
        async with devops(fleet):
            await ask(fleet, "$SRV.PING")
        for subject in ("$SRV.PING", "$SRV.STATS.devops"):
            assert await ask(fleet, subject, answers=0) == []
        with pytest.raises(NoResponders):
            await fleet.requests.request("ping", to="devops")


async def test_requests_on_their_way_at_the_stop_are_answered(server):
    async with connected(server.url) as fleet, connected(server.url) as asker:
        async with devops(fleet):
            asking = [
                asyncio.create_task(asker.requests.request("ping", n, to="devops", timeout=20)) for n in range(200)
            ]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        # Whoever came after the end was told so at once; nobody waits out a time-out.
        assert {type(answer).__name__ for answer in answers} <= {"Reply", "NoResponders", "RemoteError"}


async def test_a_responder_without_the_right_to_be_found_answers_all_the_same():
    config = """
    authorization { users: [
        { user: agent, password: a, permissions: { subscribe: { deny: ["$SRV.>"] } } }
        { user: admin, password: b }
    ] }
    jetstream: enabled
    """
    with LocalServer(config=config) as server:
        async with (
            Fleet.connect(server.url, user="agent", password="a") as fleet,
            Fleet.connect(server.url, user="admin", password="b") as asker,
            devops(fleet),
        ):
            assert (await asker.requests.request("ping", 7, to="devops")).data == 7
            assert await ask(asker, "$SRV.PING", answers=0) == []
