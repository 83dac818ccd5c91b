"""Stored messages as filters see them, their states, and looks that touch nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from nats.js.api import ConsumerConfig

from console.filters import parse
from console.messages import Place, Standing, glance, look, pages, place_of, preview, record_of, standing, standing_of
from patterns import Fleet, InvalidName, Names, UnknownDestination
from patterns.message import decode
from tests.support.commandline import HOSTILE
from tests.support.fleets import connected, fast, publish, take
from tests.support.waiting import until

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def info(*, delivered: int, floor: int = 0, in_flight: int = 0, limit: int = 3, wide: int = 1) -> dict[str, object]:
    return {
        "name": "c",
        "config": {"max_deliver": limit, "max_ack_pending": wide},
        "delivered": {"stream_seq": delivered},
        "ack_floor": {"stream_seq": floor},
        "num_ack_pending": in_flight,
    }


def states(found: Standing, *seqs: int) -> list[str]:
    return [found.of(seq) for seq in seqs]


async def counters(fleet: Fleet, stream: str) -> object:
    """What a reader could have moved."""
    keys = ("name", "delivered", "ack_floor", "num_pending", "num_ack_pending", "num_redelivered", "num_waiting")
    return [{key: each.get(key) for key in keys} for each in await fleet.jetstream.consumers(stream)]


class TestRecord:
    def test_has_what_the_filter_language_asks_for(self):
        message = decode(
            "agents.ceo.inbox.alert.cve",
            {"ce-source": "agents/security", "ce-id": "cve-1", "ce-correlationid": "conv-7", "X-Tenant": "acme"},
            b'{"severity": "high", "list": [1, 2]}',
            names=Names(), stream="INBOX_CEO", seq=7, stored_at=NOW,
        )  # fmt: skip
        record = record_of(message, kind="inbox", name="ceo")
        for expression in (
            "agent:ceo", "agent:security", "kind:inbox", "type:alert.*", "subject:agents.*.inbox.>", "correlation:conv",
            "hdr.X-Tenant:acme", "body.severity:high", "body.list:2", "seq:5..9", "cve-1", "replays:0", "size:>20",
        ):  # fmt: skip
            assert parse(expression).matches(record), expression
        assert not parse("role:ceo").matches(record)
        assert parse("age:>10m", now=NOW.replace(hour=6)).matches(record)

    def test_what_no_handler_could_take_and_what_was_replayed(self):
        headers = {"Agent-Replay-Of": "tasks.backend.1-2a", "Dead-Letter-Replays": "2"}
        message = decode("tasks.backend.code", headers, b"{broken", names=Names(), stream="TASKS_BACKEND", seq=1)
        record = record_of(message, kind="tasks", name="backend")
        assert parse("role:backend replays:2 error:JSON").matches(record)
        claimed = decode("tasks.backend.code", {"Dead-Letter-Replays": "2"}, b"", names=Names())
        assert record_of(claimed, kind="tasks", name="backend").replays == 0, "a claim of its sender"

    def test_preview_is_inert_and_short(self):
        message = decode("a.b", {}, (HOSTILE + "\n" + "x" * 5_000).encode("utf-8", "replace"), names=Names())
        shown = preview(message)
        assert len(shown) <= 200
        assert not {"\x1b", "\x9b", "\u202e", "\n"} & set(shown)


class TestPlace:
    def test_names_streams_and_durables(self):
        names = Names("acme")
        assert place_of(names, "inbox", "ceo") == Place("inbox", "ceo", "ACME_INBOX_CEO", "ceo-processor")
        assert place_of(names, "queue", "backend").title == "tasks.backend"
        assert place_of(names, "events").title == "events"
        with pytest.raises(InvalidName):
            place_of(names, "inbox", "no such*")


class TestStanding:
    def test_without_a_consumer_everything_is_pending(self):
        assert states(standing_of(None), 1, 99) == ["pending", "pending"]

    def test_an_inbox_with_one_in_flight(self):
        assert states(standing_of(info(delivered=5, in_flight=1)), 4, 5, 6) == ["stranded", "in flight", "pending"]

    def test_nothing_in_flight_strands_all_that_was_delivered(self):
        assert states(standing_of(info(delivered=5, wide=64)), 5, 6) == ["stranded", "pending"]

    def test_a_wide_consumer_is_certain_up_to_its_ack_floor_only(self):
        found = standing_of(info(delivered=9, floor=4, in_flight=2, wide=64))
        assert states(found, 4, 5, 9, 10) == ["stranded", "in flight", "in flight", "pending"]

    def test_without_a_delivery_limit_nothing_is_stranded(self):
        assert states(standing_of(info(delivered=5, limit=-1)), 1, 5, 6) == ["in flight", "in flight", "pending"]

    async def test_follows_a_real_inbox_to_a_stranded_message(self, server):
        config = fast(inbox={"max_deliver": 1, "ack_wait": 0.5})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            for number in range(3):
                await fleet.inbox("ceo").send("note", {"n": number})
            place = place_of(fleet.names, "inbox", "ceo")
            assert states(await standing(fleet, place.stream, "ceo-processor"), 1, 2, 3) == ["pending"] * 3
            await take(fleet, place.stream, "ceo-processor")
            assert states(await standing(fleet, place.stream, "ceo-processor"), 1, 2) == ["in flight", "pending"]

            async def pulled_again() -> bool:
                # The server counts a death only when somebody pulls again; this one takes number 2 then.
                subscription = await fleet.js.pull_subscribe_bind("ceo-processor", stream=place.stream)
                try:
                    return bool(await subscription.fetch(1, timeout=1))
                except TimeoutError:
                    return False
                finally:
                    await subscription.unsubscribe()

            await until(pulled_again)
            found = await standing(fleet, place.stream, "ceo-processor")
            assert states(found, 1, 2, 3) == ["stranded", "in flight", "pending"]

    async def test_takes_the_only_consumer_of_a_fleet_that_other_code_made(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await fleet.js.delete_consumer("INBOX_CEO", "ceo-processor")
            assert (await standing(fleet, "INBOX_CEO", "ceo-processor")).durable is None
            await fleet.js.add_consumer("INBOX_CEO", ConsumerConfig(durable_name="mine"))
            assert (await standing(fleet, "INBOX_CEO", "ceo-processor")).durable == "mine"


class TestPages:
    async def test_reads_all_of_it_in_order_and_moves_no_counter(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            for number in range(25):
                await fleet.tasks("backend").submit("code.feature", {"n": number}, id=f"t{number}")
            await take(fleet, "TASKS_BACKEND", "backend-workers")
            before = await counters(fleet, "TASKS_BACKEND")
            found = [page async for page in pages(fleet, "TASKS_BACKEND", size=10)]
            assert [len(page) for page in found] == [10, 10, 5]
            assert [message.data["n"] for page in found for message in page] == list(range(25))
            assert await counters(fleet, "TASKS_BACKEND") == before

    async def test_narrows_by_subject_start_and_size(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            for number in range(6):
                await publish(fleet, f"tasks.backend.{'code' if number % 2 else 'review'}", b"x" * 2_000)
            only = [m.seq async for page in pages(fleet, "TASKS_BACKEND", subject="tasks.backend.code") for m in page]
            assert only == [2, 4, 6]
            assert [m.seq async for page in pages(fleet, "TASKS_BACKEND", start=5) for m in page] == [5, 6]
            assert len([page async for page in pages(fleet, "TASKS_BACKEND", max_bytes=3_000)]) > 1

    async def test_a_stream_that_is_not_there_has_no_pages(self, server):
        async with Fleet.connect(server.url) as fleet:
            assert [page async for page in pages(fleet, "INBOX_CEO")] == []


class TestLook:
    async def test_holds_the_oldest_and_says_that_there_is_more(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            for number in range(6):
                await fleet.inbox("ceo").send("note", {"n": number})
            place = place_of(fleet.names, "inbox", "ceo")
            whole = await look(fleet, place)
            assert whole.complete
            assert [each.seq for each in whole.held] == [1, 2, 3, 4, 5, 6]
            few = await look(fleet, place, most=4)
            assert ([each.seq for each in few.held], few.complete, few.glance.total) == ([1, 2, 3, 4], False, 6)
            small = await look(fleet, place, most_bytes=whole.held[0].message.size * 2 + 1)
            assert ([each.seq for each in small.held], small.complete) == ([1, 2], False)

    async def test_holds_the_newest_events(self, server):
        async with connected(server.url) as fleet:
            for number in range(6):
                await fleet.events.broadcast("deployment.completed", {"n": number})
            found = await look(fleet, place_of(fleet.names, "events"), most=4)
            assert ([each.seq for each in found.held], found.complete) == ([3, 4, 5, 6], False)
            small = await look(fleet, place_of(fleet.names, "events"), most_bytes=found.held[0].message.size + 1)
            assert ([each.seq for each in small.held], small.complete) == ([6], False)

    async def test_decodes_again_only_what_is_new_and_names_messages_by_time_too(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            place = place_of(fleet.names, "inbox", "ceo")
            for number in range(3):
                await fleet.inbox("ceo").send("note", {"n": number})
            first = await look(fleet, place)
            stored = await fleet.jetstream.get(place.stream, 2)
            assert stored is not None
            assert first.held[1].stored_ns == stored.stored_ns
            await fleet.jetstream.delete(place.stream, 1)
            await fleet.inbox("ceo").send("note", {"n": 3})
            second = await look(fleet, place, known=first)
            assert [each.seq for each in second.held] == [2, 3, 4]
            assert second.held[0] is first.held[1]
            await fleet.js.delete_stream(place.stream)
            await fleet.provision(agents=["ceo"])
            for number in range(2):
                await fleet.inbox("ceo").send("other", {"n": number})
            third = await look(fleet, place, known=second)
            assert [each.message.type for each in third.held] == ["other", "other"]

    async def test_a_glance_changes_with_the_stream_and_with_its_consumer(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            place = place_of(fleet.names, "inbox", "ceo")
            await fleet.inbox("ceo").send("note", {})
            first = await glance(fleet, place)
            assert await glance(fleet, place) == first
            await take(fleet, place.stream, "ceo-processor")
            second = await glance(fleet, place)
            assert second.stream == first.stream
            assert second.standing != first.standing
            await fleet.inbox("ceo").send("note", {})
            assert (await glance(fleet, place)).stream != first.stream

    async def test_an_unknown_place_is_an_error_that_names_what_exists(self, server):
        async with connected(server.url, agents=["ceo", "security"], roles=["backend"]) as fleet:
            with pytest.raises(UnknownDestination, match="no inbox for agent 'x'; there are ceo, security"):
                await look(fleet, place_of(fleet.names, "inbox", "x"))
            with pytest.raises(UnknownDestination, match="no queue for role 'x'; there is backend"):
                await glance(fleet, place_of(fleet.names, "queue", "x"))

    async def test_looking_moves_no_counter(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            for number in range(30):
                await fleet.inbox("ceo").send("note", {"n": number})
            await take(fleet, "INBOX_CEO", "ceo-processor")
            before = await counters(fleet, "INBOX_CEO")
            place = place_of(fleet.names, "inbox", "ceo")
            await asyncio.gather(*(look(fleet, place) for _ in range(5)))
            assert await counters(fleet, "INBOX_CEO") == before
