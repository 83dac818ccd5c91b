"""Request/reply: an answer says how far it can be trusted, and no answer says why."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from patterns import (
    ConfigMismatch,
    Fleet,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NoResponders,
    Reject,
    RemoteError,
    RequestConfig,
    RequestTimeout,
)
from patterns.message import encode
from tests.support.fleets import connected, fast
from tests.support.waiting import until


def responder(fleet, agent="devops", *, role=None, concurrency=None, **handlers):
    """A responder whose methods are the keywords, `_` for `.`."""
    made = fleet.requests.responder(agent, role=role, concurrency=concurrency)
    for method, handler in handlers.items():
        made.handle(method.replace("_", "."), handler)
    return made


async def echo(request):
    return request.data


# -- the answer


async def test_a_live_answer(server):
    async with connected(server.url) as fleet:

        async def pool_size(request):
            assert request.source == "backend-1"
            return {"size": 20, "db": request.data["db"]}

        async with responder(fleet, db_size=pool_size):
            reply = await fleet.requests.request("db.size", {"db": "main"}, to="devops", source="backend-1")
        assert (reply.data, reply.source, reply.responder) == ({"size": 20, "db": "main"}, "live", "devops")
        assert reply.error is None
        assert 0 < reply.latency < 20


async def test_rr1_nobody_there_is_known_at_once(server):
    async with connected(server.url, agents=["devops"]) as fleet:
        began = time.monotonic()
        with pytest.raises(NoResponders, match=r"agents\.devops\.rpc\.ping"):
            await fleet.requests.request("ping", to="devops", timeout=20)
        reply = await fleet.requests.request("ping", to="devops", timeout=20, fallback={"size": 10})
        # Far below the timeout.
        assert time.monotonic() - began < 5
        assert (reply.data, reply.source, reply.responder) == ({"size": 10}, "fallback", "")
        assert isinstance(reply.error, NoResponders)
        # The fastest of many: one can be late on a busy machine, all of them only if nobody knew at once.
        again = [await fleet.requests.request("ping", to="devops", timeout=20, fallback=None) for _ in range(50)]
        assert min(reply.latency for reply in again) < 0.05


async def test_rr1_attempts_wait_for_a_responder_that_is_just_starting(server):
    async with connected(server.url) as fleet:
        asking = asyncio.create_task(fleet.requests.request("ping", 1, to="devops", timeout=20, attempts=200))
        await asyncio.sleep(0)
        async with responder(fleet, ping=echo):
            assert (await asking).source == "live"


async def test_rr1_a_responder_that_has_started_is_heard_by_everybody(server):
    """The subscription is known to the server, not only on its way there."""
    async with connected(server.url) as fleet, connected(server.url) as asker:
        for n in range(300):
            async with responder(fleet, ping=echo):
                assert (await asker.requests.request("ping", n, to="devops")).data == n


async def test_rr2_a_slow_responder_is_cancelled_at_the_deadline_and_answers_nobody(server):
    async with connected(server.url) as fleet:
        cancelled, replies = asyncio.Event(), []

        async def slow(request):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async def count(msg):
            replies.append(msg)

        async with responder(fleet, slow=slow, ping=echo) as made:
            with pytest.raises(RequestTimeout, match=r"agents\.devops\.rpc\.slow"):
                await fleet.requests.request("slow", to="devops", timeout=0.2)
            # The same request, its reply subject under our eyes.
            inbox = fleet.nc.new_inbox()
            await fleet.nc.subscribe(inbox, cb=count)
            outgoing = encode("slow", None, expires_in=0.2)
            cancelled.clear()
            await fleet.nc.publish("agents.devops.rpc.slow", reply=inbox, headers=outgoing.headers)
            await asyncio.wait_for(cancelled.wait(), 20)
            await until(lambda: made.stats.expired == 2)
            # A request and its answer later the connection would have carried an answer to the first one.
            await fleet.requests.request("ping", to="devops")
        assert replies == []


async def test_rr2_a_timeout_is_not_repeated(server):
    async with connected(server.url) as fleet:
        asked = []

        async def slow(request):
            asked.append(request.id)
            await asyncio.Event().wait()

        async with responder(fleet, slow=slow) as made:
            with pytest.raises(RequestTimeout):
                await fleet.requests.request("slow", to="devops", timeout=0.2, attempts=5)
            # Nor does one come after its deadline, which would be skipped.
            assert made.stats.requests == 1
        assert len(asked) == 1


# -- errors


async def test_rr4_an_error_of_the_handler_is_told_without_its_trace_or_the_requests_headers(server):
    async with connected(server.url) as fleet:

        async def broken(request):
            raise KeyError("ü\nsecond line")

        async with responder(fleet, broken=broken) as made:
            with pytest.raises(RemoteError) as caught:
                await fleet.requests.request("broken", {"q": 1}, to="devops")
            assert (caught.value.code, caught.value.description) == (500, "KeyError: 'ü\\nsecond line'")
            msg = await fleet.nc.request(
                "agents.devops.rpc.broken", b"{}", headers={"Authorization": "Bearer s3cret", "X-Trace": "t"}
            )
            assert made.stats.errors == 2
        assert msg.headers["Nats-Service-Error-Code"] == "500"
        assert "Authorization" not in msg.headers
        assert "X-Trace" not in msg.headers
        assert b"Traceback" not in msg.data
        assert "test_requests.py" not in str(msg.headers) + msg.data.decode()


async def test_rr4_a_timeout_inside_the_handler_is_an_error_of_the_handler(server):
    async with connected(server.url) as fleet:

        async def query(request):
            raise TimeoutError("the database did not answer")

        async with responder(fleet, query=query):
            with pytest.raises(RemoteError, match="500 TimeoutError: the database did not answer"):
                await fleet.requests.request("query", to="devops", timeout=20)


async def test_rr4_a_live_answer_does_not_carry_the_requests_headers(server):
    async with connected(server.url) as fleet, responder(fleet, ping=echo):
        msg = await fleet.nc.request("agents.devops.rpc.ping", b"1", headers={"Authorization": "Bearer s3cret"})
        assert json.loads(msg.data) == 1
        assert "Authorization" not in msg.headers


async def test_rr5_reject_and_a_body_that_is_not_json(server):
    async with connected(server.url) as fleet:

        async def picky(request):
            raise Reject("no such database")

        async with responder(fleet, picky=picky, ping=echo):
            with pytest.raises(RemoteError) as caught:
                await fleet.requests.request("picky", to="devops")
            assert (caught.value.code, caught.value.description) == (422, "no such database")
            assert caught.value.data == {"code": 422, "error": "no such database"}
            msg = await fleet.nc.request("agents.devops.rpc.ping", b"{not json")
            assert msg.headers["Nats-Service-Error-Code"] == "400"
            with pytest.raises(RemoteError) as caught:
                await fleet.requests.request("nobody.home", to="devops")
            assert caught.value.code == 404


async def test_rr5_an_answer_that_is_not_json_is_a_500(server):
    async with connected(server.url) as fleet:

        async def strange(request):
            return object()

        async with responder(fleet, strange=strange):
            with pytest.raises(RemoteError, match="500 InvalidMessage"):
                await fleet.requests.request("strange", to="devops")


async def test_rr6_requests_are_handled_together_and_above_the_limit_refused_at_once(server):
    async with connected(server.url) as fleet:
        together, hold = asyncio.Barrier(5), asyncio.Event()

        async def meet(request):
            await together.wait()
            return "met"

        async def held(request):
            await hold.wait()
            return "held"

        async with responder(fleet, concurrency=5, meet=meet, held=held) as made:
            # They only get past the barrier if all five run at the same time.
            replies = await asyncio.gather(*(fleet.requests.request("meet", to="devops", timeout=20) for _ in range(5)))
            assert [reply.data for reply in replies] == ["met"] * 5
            asking = [asyncio.create_task(fleet.requests.request("held", to="devops", timeout=20)) for _ in range(5)]
            await until(lambda: made.stats.requests == 10)
            with pytest.raises(RemoteError) as caught:
                await fleet.requests.request("held", to="devops", timeout=20)
            assert (caught.value.code, made.stats.busy) == (429, 1)
            hold.set()
            assert [reply.data for reply in await asyncio.gather(*asking)] == ["held"] * 5
            assert (await fleet.requests.request("held", to="devops")).data == "held"


async def test_rr7_a_request_that_arrives_after_its_deadline_is_skipped_and_counted(server):
    async with connected(server.url) as fleet:
        asked = []

        async def note(request):
            asked.append(request.id)

        async with responder(fleet, note=note) as made:
            late = encode("note", None, id="late", expires_in=-1)
            await fleet.nc.publish("agents.devops.rpc.note", headers=late.headers)
            await fleet.requests.request("note", to="devops")
            assert (made.stats.expired, made.stats.requests) == (1, 2)
        assert "late" not in asked
        assert len(asked) == 1


async def test_rr8_one_member_of_a_role_answers(server):
    async with connected(server.url) as one, connected(server.url) as two:
        answered = []

        def named(name):
            async def answer(request):
                answered.append(name)
                return name

            return answer

        async with (
            responder(one, "devops-1", role="devops", ping=named("devops-1")),
            responder(two, "devops-2", role="devops", ping=named("devops-2")),
        ):
            replies = [await one.requests.request("ping", role="devops") for _ in range(60)]
            own = await one.requests.request("ping", to="devops-2")
        assert answered == [reply.data for reply in replies] + ["devops-2"]
        assert [reply.responder for reply in replies] == [reply.data for reply in replies]
        assert set(answered) == {"devops-1", "devops-2"}
        assert own.responder == "devops-2"


async def test_rr10_an_answer_over_the_limit_is_an_error_and_the_connection_survives(server):
    async with connected(server.url) as fleet, connected(server.url) as asker:

        async def large(request):
            return "x" * (fleet.nc.max_payload - request.data)

        async with responder(fleet, large=large):
            for spare in (0, 20):
                # 20 bytes below the limit the body fits, body and headers do not.
                with pytest.raises(RemoteError, match="500 MessageTooLarge"):
                    await asker.requests.request("large", spare, to="devops")
            assert len((await asker.requests.request("large", 2000, to="devops")).data) == fleet.nc.max_payload - 2000
        assert fleet.nc.stats["reconnects"] == 0
        assert fleet.nc.is_connected


async def test_rr10_a_request_over_the_limit_is_refused_here(server):
    async with connected(server.url) as fleet, responder(fleet, ping=echo):
        with pytest.raises(MessageTooLarge):
            await fleet.requests.request("ping", "x" * fleet.nc.max_payload, to="devops")
        with pytest.raises(InvalidMessage):
            await fleet.requests.request("ping", float("nan"), to="devops")
        assert (await fleet.requests.request("ping", 1, to="devops")).data == 1


@pytest.mark.parametrize("subject", ["agents.>", ">", "agents.*.rpc.>", "agents.devops.*.>", "roles.devops.rpc.ping"])
async def test_rr11_a_stream_that_would_answer_requests_is_refused(server, subject):
    async with Fleet.connect(server.url) as fleet:
        await fleet.js.add_stream(name="GREEDY", subjects=[subject], no_ack=subject == ">")
        with pytest.raises(ConfigMismatch, match="GREEDY"):
            await fleet.provision()
        assert await fleet.jetstream.stream_info("EVENTS") is None


async def test_rr11_inboxes_and_queues_cover_no_requests(server):
    async with connected(server.url, agents=["devops"], roles=["devops"]) as fleet:
        await fleet.provision(agents=["devops"], roles=["devops"])
        for options in ({"to": "devops"}, {"role": "devops"}):
            with pytest.raises(NoResponders):
                await fleet.requests.request("inbox", **options)


async def test_a_request_goes_to_an_agent_or_a_role(server):
    async with connected(server.url) as fleet:
        for options in ({}, {"to": "a", "role": "b"}):
            with pytest.raises(InvalidName):
                await fleet.requests.request("ping", **options)
        for options in ({"to": "A"}, {"role": "a.b"}, {"to": "*"}):
            with pytest.raises(InvalidName):
                await fleet.requests.request("ping", **options)
        with pytest.raises(InvalidName):
            await fleet.requests.request("ping.>", to="a")


# -- stale answers and fallbacks


async def test_the_last_good_answer_is_better_than_the_fallback_while_it_is_fresh(server):
    async with connected(server.url) as fleet:
        ask = fleet.requests.request
        async with responder(fleet, ping=echo):
            await ask("ping", {"q": 1}, to="devops")
        stale = await ask("ping", {"q": 1}, to="devops", stale_for=600, fallback="none")
        assert (stale.data, stale.source, stale.responder) == ({"q": 1}, "stale", "devops")
        assert isinstance(stale.error, NoResponders)
        # Another question, another agent, or an answer too old: not this answer.
        for data, to, stale_for in (({"q": 2}, "devops", 600), ({"q": 1}, "other", 600), ({"q": 1}, "devops", 0)):
            reply = await ask("ping", data, to=to, stale_for=stale_for, fallback="none")
            assert (reply.data, reply.source) == ("none", "fallback")
        with pytest.raises(NoResponders):
            await ask("ping", {"q": 2}, to="devops", stale_for=600)


async def test_an_error_answer_does_not_replace_the_last_good_one(server):
    async with connected(server.url) as fleet:
        healthy = True

        async def moody(request):
            if not healthy:
                raise ValueError("no")
            return "good"

        async with responder(fleet, moody=moody):
            await fleet.requests.request("moody", to="devops")
            healthy = False
            reply = await fleet.requests.request("moody", to="devops", stale_for=600)
            with pytest.raises(RemoteError):
                await fleet.requests.request("moody", to="devops")
        assert (reply.data, reply.source) == ("good", "stale")
        assert isinstance(reply.error, RemoteError)


async def test_a_fallback_may_be_a_function_or_a_coroutine_of_the_error(server):
    async with connected(server.url) as fleet:

        def plain(error):
            return type(error).__name__

        async def later(error):
            await asyncio.sleep(0)
            return type(error).__name__

        for fallback in (plain, later):
            reply = await fleet.requests.request("ping", to="devops", fallback=fallback)
            assert (reply.data, reply.source) == ("NoResponders", "fallback")
        reply = await fleet.requests.request("ping", to="devops", fallback=None)
        assert (reply.data, reply.source) == (None, "fallback")


async def test_the_configured_timeout_is_the_default_and_travels(server):
    async with connected(server.url, config=fast(requests=RequestConfig(timeout=0.3, concurrency=1))) as fleet:
        seen = []

        async def slow(request):
            seen.append(request.expires_at)
            await asyncio.Event().wait()

        async with responder(fleet, slow=slow):
            with pytest.raises(RequestTimeout):
                await fleet.requests.request("slow", to="devops")
        assert abs(seen[0].timestamp() - time.time()) < 20
        assert seen[0] is not None


async def test_a_conversation_goes_through_requests(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        seen = []

        async def note(request):
            seen.append((request.correlation_id, request.causation_id, request.hops))

        async def work(task):
            await fleet.requests.request("note", to="devops")

        async with responder(fleet, note=note):
            await fleet.tasks("backend").submit("code", id="feat-1")
            async with await fleet.tasks("backend").next("w", 20) as task:
                await work(task)
        assert seen == [("feat-1", "feat-1", 1)]


@pytest.mark.parametrize(
    "reply",
    ["$JS.API.STREAM.PURGE.INBOX_CEO", "agents.ceo.inbox.note", "tasks.backend.code", "events.a", "dlq.inbox.ceo.x"],
)
async def test_an_answer_goes_to_nothing_but_an_inbox_of_whoever_asks(server, reply):
    """The asker names the reply subject, the answer is sent with the responder's rights."""
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await fleet.inbox("ceo").send("note", 1)
        ran = []

        async def parrot(request):
            ran.append(request.data)
            return request.data

        made = responder(fleet, ping=parrot)
        async with made:
            await fleet.nc.publish("agents.devops.rpc.ping", b"{}", reply=reply)
            await fleet.nc.publish("$SRV.PING.devops", b"", reply=reply)
            await until(lambda: made.stats.requests == 1)
            await fleet.requests.request("ping", 1, to="devops")
        assert ran == [1]
        assert [m.data for m in await fleet.inbox("ceo").peek()] == [1]
        assert (await fleet.jetstream.stream_info("TASKS_BACKEND"))["state"]["messages"] == 0
        assert (await fleet.jetstream.stream_info("EVENTS"))["state"]["messages"] == 0
        assert await fleet.dead_letters.list() == []


async def test_a_request_without_a_reply_subject_is_handled(server):
    async with connected(server.url) as fleet:
        ran = []

        async def note(request):
            ran.append(request.data)

        async with responder(fleet, ping=note):
            await fleet.nc.publish("agents.devops.rpc.ping", b"7")
            await until(lambda: ran)
        assert ran == [7]
