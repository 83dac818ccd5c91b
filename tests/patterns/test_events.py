"""Events: everybody who subscribes gets each one, however long they were away, and nobody disturbs anybody."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import nats.errors
import pytest

from patterns import InvalidName, Reject, StreamLimits, UnknownDestination
from patterns.watch import Watch
from tests.support.fleets import connected, fast, offline, publish, running
from tests.support.waiting import until


async def history(fleet, consumer, until_id="end"):
    """What a subscription is given up to the event `until_id`, which is broadcast now."""
    seen = []

    async def note(event):
        seen.append(event)

    await fleet.events.broadcast("end", id=until_id)
    async with running(consumer, note):
        await until(lambda: seen and seen[-1].id == until_id)
    return [event.id for event in seen[:-1]]


async def next_id(events):
    return (await asyncio.wait_for(anext(events), 20)).id


# -- broadcasting and subscribing


async def test_ev1_an_event_without_subscribers_is_stored(server):
    async with connected(server.url) as fleet:
        receipt = await fleet.events.broadcast("deployment.completed", {"service": "api"}, id="e-1", source="backend-1")
        assert (receipt.stream, receipt.duplicate) == ("EVENTS", False)
        stored = await fleet.jetstream.get("EVENTS", receipt.seq)
        assert stored.subject == "events.deployment.completed"
        assert stored.headers["ce-source"] == "agents/backend-1"


async def test_ev1_without_a_stream_the_broadcast_is_an_error(server):
    async with connected(server.url) as fleet:
        await fleet.js.delete_stream("EVENTS")
        with pytest.raises(UnknownDestination):
            await fleet.events.broadcast("deployment.completed")


async def test_ev2_a_subscriber_that_was_away_catches_up_in_order(server):
    async with connected(server.url) as fleet:
        await fleet.events.subscription("security", "deployment.>")
    async with connected(server.url) as fleet:
        for n in range(20):
            await fleet.events.broadcast("deployment.completed", n, id=f"e-{n}")
        await fleet.events.broadcast("other.topic", id="not-for-us")
        consumer = await fleet.events.subscription("security", "deployment.>", "end")
        assert await history(fleet, consumer) == [f"e-{n}" for n in range(20)]
        assert consumer.gap is None
        # However long it was away: a durable that nobody uses is kept.
        info = await fleet.jetstream.consumer_info("EVENTS", "security-events")
        assert not info["config"].get("inactive_threshold")


async def test_ev2_what_was_acknowledged_does_not_come_again(server):
    async with connected(server.url) as fleet:
        await fleet.events.subscription("security", ">")
        await fleet.events.broadcast("a", id="first")
        assert await history(fleet, await fleet.events.subscription("security", ">"), "end-1") == ["first"]
        await fleet.events.broadcast("a", id="second")
        assert await history(fleet, await fleet.events.subscription("security", ">"), "end-2") == ["second"]
        # Not because their leases last longer than this test.
        depth = (await fleet.snapshot()).subscriptions["security-events"]
        assert (depth.pending, depth.ack_pending) == (0, 0)


async def test_ev3_a_new_subscriber_starts_now_or_where_it_says(server):
    async with connected(server.url) as fleet:
        await fleet.events.broadcast("a", id="old")
        middle = datetime.now(UTC)
        receipt = await fleet.events.broadcast("a", id="middle")
        # The server's clock stamps an event; both run on this machine.
        assert (await fleet.jetstream.get("EVENTS", receipt.seq)).stored_at >= middle
        now = await fleet.events.subscription("one", ">")
        everything = await fleet.events.subscription("two", ">", since="all")
        recent = await fleet.events.subscription("three", ">", since=middle)
        await fleet.events.broadcast("a", id="new")
        assert await history(fleet, now, "end-1") == ["new"]
        assert await history(fleet, everything, "end-2") == ["old", "middle", "new", "end-1"]
        assert await history(fleet, recent, "end-3") == ["middle", "new", "end-1", "end-2"]
        with pytest.raises(InvalidName, match="since"):
            await fleet.events.subscription("four", ">", since="yesterday")


async def test_ev4_a_subscriber_that_fails_does_not_disturb_the_other(server):
    async with connected(server.url) as fleet:
        good, attempts = [], []

        async def fine(event):
            good.append(event.id)

        async def broken(event):
            attempts.append(event.attempt)
            raise ValueError("cannot read this")

        receipt = None
        async with (
            running(await fleet.events.subscription("one", ">"), fine),
            running(await fleet.events.subscription("two", ">", name="audit"), broken),
        ):
            receipt = await fleet.events.broadcast("deployment.completed", {"n": 1}, id="e")
            (letter,) = await until(fleet.dead_letters.list)
        assert (good, attempts) == (["e"], [1, 2, 3])
        assert (letter.kind, letter.name, letter.reason) == ("events", "two-audit", "max-deliver")
        assert (letter.type, letter.deliveries, letter.agent) == ("deployment.completed", 3, "two")
        assert (await fleet.jetstream.get("EVENTS", receipt.seq)).subject == "events.deployment.completed"
        depth = (await fleet.snapshot()).subscriptions["two-audit"]
        assert (depth.pending, depth.ack_pending) == (0, 0)


async def test_ev5_malformed_and_overlapping_topics_are_refused_before_any_call():
    fleet = offline()
    for topics in (
        (),
        ("",),
        ("a..b",),
        ("a.*b",),
        ("a.>.b",),
        ("a b",),
        (">", "a"),
        ("a.*", "*.b"),
        ("a.b", "a.b"),
        ("a.>", "a.b.c"),
        (".".join("abcdefghi"),),
    ):
        with pytest.raises(InvalidName):
            await fleet.events.subscription("security", *topics)
    for agent, name in (("Security", "events"), ("security", "my-events"), ("a.b", "events"), ("security", "")):
        with pytest.raises(InvalidName):
            await fleet.events.subscription(agent, "a", name=name)
    for topic in ("a.*", ">", "", "a b"):
        with pytest.raises(InvalidName):
            await fleet.events.broadcast(topic)
    with pytest.raises(InvalidName):
        fleet.events.watch("a..b")
    # What is well-formed does reach the server, so the ones above did not.
    with pytest.raises((nats.errors.Error, AssertionError)):
        await fleet.events.subscription("security", "a.>", "b.*")


async def test_ev6_changed_topics_are_updated_and_nothing_comes_again(server, caplog):
    caplog.set_level("INFO", "patterns")
    async with connected(server.url) as fleet:
        await fleet.events.subscription("security", "a", "end")
        await fleet.events.broadcast("a", id="a-1")
        await fleet.events.broadcast("b", id="b-1")
        assert await history(fleet, await fleet.events.subscription("security", "a", "end"), "end-1") == ["a-1"]
        caplog.clear()
        await fleet.events.broadcast("a", id="a-2")
        consumer = await fleet.events.subscription("security", "a", "b", "end")
        assert "topics change" in caplog.text
        await fleet.events.broadcast("b", id="b-2")
        await fleet.events.broadcast("a", id="a-3")
        assert await history(fleet, consumer, "end-2") == ["a-2", "b-2", "a-3"]
        info = await fleet.jetstream.consumer_info("EVENTS", "security-events")
        assert sorted(info["config"]["filter_subjects"]) == [
            "events.a",
            "events.b",
            "events.end",
            "redeliver.security.events.>",
        ]
        caplog.clear()
        await fleet.events.subscription("security", "end", "b", "a")
        assert "topics change" not in caplog.text


async def test_ev9_the_same_id_is_one_event_for_every_subscriber(server):
    async with connected(server.url) as fleet:
        one = await fleet.events.subscription("one", ">")
        two = await fleet.events.subscription("two", ">")
        first = await fleet.events.broadcast("a", 1, id="same", source="x")
        second = await fleet.events.broadcast("b", 2, id="same", source="y")
        assert (first.duplicate, second.duplicate, second.seq) == (False, True, first.seq)
        assert await history(fleet, one, "end-1") == ["same"]
        assert await history(fleet, two, "end-2") == ["same", "end-1"]


async def test_ev10_unsubscribe_deletes_the_durable(server):
    async with connected(server.url) as fleet:
        await fleet.events.subscription("security", ">")
        await fleet.events.subscription("security", ">", name="audit")
        await fleet.events.unsubscribe("security")
        assert [c["name"] for c in await fleet.jetstream.consumers("EVENTS")] == ["security-audit"]
        await fleet.events.unsubscribe("security")
        await fleet.events.unsubscribe("security", "audit")
        assert await fleet.jetstream.consumers("EVENTS") == []


async def test_ev11_a_replayed_event_goes_to_the_one_that_failed(server):
    async with connected(server.url) as fleet:
        one, two, healed = [], [], False

        async def note(event):
            one.append(event.id)

        async def broken(event):
            two.append((event.id, event.attempt, event.message.type, event.subject))
            if not healed and event.id == "e":
                raise Reject("not yet")

        async with (
            running(await fleet.events.subscription("one", ">"), note),
            running(await fleet.events.subscription("two", "deployment.>", "end"), broken),
        ):
            await fleet.events.broadcast("deployment.completed", {"n": 1}, id="e")
            (letter,) = await until(fleet.dead_letters.list)
            healed = True
            receipt = await fleet.dead_letters.replay(letter.seq, by="ann")
            assert (receipt.stream, receipt.duplicate) == ("EVENTS", False)
            await until(lambda: len(two) == 2)
            await fleet.events.broadcast("end", id="end")
            await until(lambda: len(one) == len(two) - 1 and one[-1] == "end")
        assert one == ["e", "end"]
        assert two == [
            ("e", 1, "deployment.completed", "events.deployment.completed"),
            ("e", 1, "deployment.completed", "redeliver.two.events.deployment.completed"),
            ("end", 1, "end", "events.end"),
        ]
        assert await fleet.dead_letters.list() == []


async def test_ev11_a_replayed_event_that_dies_again_can_be_replayed_again(server):
    async with connected(server.url) as fleet:
        consumer = await fleet.events.subscription("two", "a.b")
        await fleet.events.broadcast("a.b", id="e")
        for n in range(3):
            async with await consumer.next(20) as event:
                assert (event.id, event.type) == ("e", "a.b")
                await event.reject("no")
            (letter,) = await fleet.dead_letters.list()
            assert letter.replays == n
            await fleet.dead_letters.replay(letter.seq, by="x")
        async with await consumer.next(20) as event:
            assert event.subject == "redeliver.two.events.a.b"
        await consumer.stop()
        assert await fleet.dead_letters.list() == []


async def test_a_durable_says_that_it_keeps_receipts_and_who_counts(server):
    async with connected(server.url) as fleet:
        await fleet.events.subscription("two", "a")
        config = (await fleet.jetstream.consumer_info("EVENTS", "two-events"))["config"]
        assert config["metadata"]["agents.receipts"] == "1"
        assert config["metadata"]["agents.max-deliver"] == "3"
        assert config.get("max_deliver", -1) == -1


async def test_ev8_a_gap_is_reported(server):
    config = fast(limits=StreamLimits(events_max_age=1.0, duplicate_window=0.5))
    async with connected(server.url, config=config) as fleet:
        await fleet.events.subscription("security", ">")
        await fleet.events.broadcast("a", id="seen")
        consumer = await fleet.events.subscription("security", ">")
        assert await history(fleet, consumer, "end-1") == ["seen"]
        assert consumer.gap is None
        for n in range(5):
            await fleet.events.broadcast("a", id=f"lost-{n}")

        async def expired():
            return (await fleet.jetstream.stream_info("EVENTS"))["state"]["messages"] == 0

        await until(expired)
        await fleet.events.broadcast("a", id="kept")
        consumer = await fleet.events.subscription("security", ">")
        assert consumer.gap == 5
        assert (await consumer.next(20)).id == "kept"
        await consumer.stop()


# -- watching


async def test_watch_starts_now_and_has_sequence_and_time(server):
    async with connected(server.url, config=fast(poll=30.0)) as fleet:
        await fleet.events.broadcast("a", id="before")
        watch = fleet.events.watch()
        events = aiter(watch)
        coming = asyncio.create_task(anext(events))
        await asyncio.wait_for(watch.caught_up.wait(), 20)
        receipt = await fleet.events.broadcast("deployment.completed", {"n": 1}, id="e", source="backend-1")
        event = await asyncio.wait_for(coming, 20)
        assert (event.id, event.seq, event.stream) == ("e", receipt.seq, "EVENTS")
        assert (event.type, event.source, event.data) == ("deployment.completed", "backend-1", {"n": 1})
        assert abs((datetime.now(UTC) - event.stored_at).total_seconds()) < 60
        await events.aclose()
        assert await fleet.jetstream.consumers("EVENTS") == []


async def test_watch_since_a_moment_gives_what_was_stored_then_and_what_comes(server):
    async with connected(server.url) as fleet:
        # Sequences with holes, as a stream has after purges and deletes.
        for n in range(12):
            await fleet.events.broadcast("a", n, id=f"e-{n}")
        for seq in (2, 7, 8, 9):
            await fleet.jetstream.delete("EVENTS", seq)
        sixth = (await fleet.jetstream.get("EVENTS", 6)).stored_at
        events = aiter(fleet.events.watch(since=sixth))
        first = await next_id(events)
        # Events stored within one microsecond of each other share their `since`.
        assert first in ("e-4", "e-5")
        rest = [first] + [await next_id(events) for _ in range(3 + (first == "e-4"))]
        assert rest[-4:] == ["e-5", "e-9", "e-10", "e-11"]
        await fleet.events.broadcast("a", id="new")
        assert await next_id(events) == "new"
        await events.aclose()

        from_the_beginning = aiter(fleet.events.watch(since=datetime(2000, 1, 1, tzinfo=UTC)))
        assert await next_id(from_the_beginning) == "e-0"
        await from_the_beginning.aclose()


async def test_watch_filters_by_topics(server):
    async with connected(server.url) as fleet:
        beginning = datetime(2000, 1, 1, tzinfo=UTC)
        for topic in ("a.x", "b.x", "a.y.z", "c", "a"):
            await fleet.events.broadcast(topic, id=topic)
        single = aiter(fleet.events.watch("a.>", since=beginning))
        several = aiter(fleet.events.watch("a.*", "c", since=beginning))
        await fleet.events.broadcast("c", id="c-2")
        await fleet.events.broadcast("a.end", id="end")
        assert [await next_id(single) for _ in range(3)] == ["a.x", "a.y.z", "end"]
        assert [await next_id(several) for _ in range(4)] == ["a.x", "c", "c-2", "end"]
        for events in (single, several):
            await events.aclose()


async def test_watch_does_not_show_what_is_redelivered_to_one_subscriber(server):
    async with connected(server.url) as fleet:
        events = aiter(fleet.events.watch(since=datetime(2000, 1, 1, tzinfo=UTC)))
        await publish(fleet, "redeliver.two.events.a", b"1")
        await fleet.events.broadcast("a", id="e")
        assert await next_id(events) == "e"
        await events.aclose()


async def test_two_watches_each_get_everything_once(server):
    async with connected(server.url) as fleet:
        beginning = datetime(2000, 1, 1, tzinfo=UTC)
        watches = [aiter(fleet.events.watch(since=beginning)) for _ in range(2)]
        for n in range(30):
            await fleet.events.broadcast("a", id=f"{n}")
        for events in watches:
            assert [await next_id(events) for _ in range(30)] == [str(n) for n in range(30)]
            await events.aclose()


async def test_ev7_a_slow_watch_skips_and_counts_and_blocks_nobody(server):
    async with connected(server.url) as fleet:
        watch = Watch(fleet, (), datetime(2000, 1, 1, tzinfo=UTC), backlog=100)
        events = aiter(watch)
        await fleet.events.broadcast("a", id="first")
        assert await next_id(events) == "first"
        # Nobody reads now.
        for start in range(0, 1200, 100):
            await asyncio.gather(*(fleet.events.broadcast("a", id=f"e-{n}") for n in range(start, start + 100)))
        await fleet.events.broadcast("a", id="end")
        seen = []
        while not seen or seen[-1] != "end":
            seen.append(await next_id(events))
        assert watch.dropped > 0
        assert len(seen) >= 40
        assert watch.dropped + len(seen) == 1201
        await events.aclose()


async def test_a_watch_that_is_cancelled_leaves_no_subscription(server):
    async with connected(server.url) as fleet:
        before = len(fleet.nc._subs)

        async def follow():
            async for _ in fleet.events.watch("a", "b"):
                pass

        following = asyncio.create_task(follow())
        await until(lambda: len(fleet.nc._subs) > before + 1)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await until(lambda: len(fleet.nc._subs) <= before + 1)
