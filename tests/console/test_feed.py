"""The feed against a real server: what is in it, in which order, how much of it is kept, and what is left out."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.monitor import feed_items
from console.monitor.feed import BODY_LIMIT, EventItem, Feed, FeedItem, Told
from console.operations.guard import WriteGuard
from console.screens.feed_lines import item_filter, item_pane, record_of
from console.session import Runtime, Session
from console.settings import Settings
from console.text.safe import is_clean
from patterns import Fleet, Unavailable
from tests.support.fleets import connected, fast, publish
from tests.support.letters import kill_tasks
from tests.support.waiting import until

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\r\n\x9b2J"
COLOURS = {"bright": "", "dim": "", "bad": "", "accent": ""}


@asynccontextmanager
async def following(feed: Feed) -> AsyncIterator[Feed]:
    """Let a feed run for the length of the block."""
    loop = asyncio.create_task(feed.run())
    try:
        yield feed
        assert not loop.done(), "nothing ends a feed"
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def events(feed: Feed) -> list[EventItem]:
    """Without what the server said of its streams."""
    return [item for item in feed.items if isinstance(item, EventItem)]


def bodies(feed: Feed) -> list[str]:
    return [item.body for item in events(feed)]


def handed(feed: Feed) -> int:
    """How many items there have ever been."""
    return feed._next - 1


async def test_the_feed_begins_in_the_past_and_goes_on_in_order(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(5):
            await fleet.events.broadcast("deployment.completed", number, source="backend-1")
        async with following(Feed(fleet)) as feed:
            await until(lambda: len(feed.items) == 5)
            last = feed.items[-1].id
            await asyncio.gather(*(fleet.events.broadcast("security.alert", 5 + n) for n in range(20)))
            await until(lambda: len(feed.items) == 25)
            assert bodies(feed)[:5] == ["0", "1", "2", "3", "4"]
            stored = await fleet.jetstream.read("EVENTS", limit=100)
            assert bodies(feed) == [message.body.decode() for message in stored.messages], "in the stream's order"
            assert [item.id for item in feed.items] == list(range(1, 26))
            assert feed.since(last) == list(feed.items)[5:]
            assert feed.since(25) == []
            assert [(item.topic, item.source, item.tone) for item in (feed.items[0], feed.items[-1])] == [
                ("deployment.completed", "backend-1", "good"),
                ("security.alert", "unknown", "warn"),
            ]
            assert feed.rate == pytest.approx(2.5)
            assert feed.dropped == 0


async def test_the_feed_begins_where_it_is_told_to(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(6):
            await fleet.events.broadcast("x", number)
        stored = (await fleet.jetstream.read("EVENTS")).messages
        async with following(Feed(fleet, since=stored[3].stored_at)) as feed:
            await until(lambda: len(feed.items) >= 3)
            assert bodies(feed) == ["3", "4", "5"]


async def test_a_clock_that_is_ahead_of_the_server_does_not_silence_the_feed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.events.broadcast("x", "before")
        async with following(Feed(fleet, since=datetime.now(UTC) + timedelta(hours=1))) as feed:

            async def heard() -> bool:
                await fleet.events.broadcast("x", "now")
                return len(feed.items) > 0

            await until(heard)
            assert set(bodies(feed)) == {'"now"'}


async def test_the_feed_keeps_only_the_newest_and_the_past_is_no_rate(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.events.broadcast("x", 0)
        (stored,) = (await fleet.jetstream.read("EVENTS")).messages
        feed = Feed(fleet, capacity=10)
        now = int(datetime.now(UTC).timestamp()) * 1_000_000_000
        feed.add_events([dataclasses.replace(stored, stored_ns=now)])
        feed.add_events(dataclasses.replace(stored, stored_ns=now - 300_000_000_000) for _ in range(30))
        assert (len(feed.items), feed.items[-1].id) == (10, 31)
        assert feed.rate == pytest.approx(0.1)


async def test_a_restart_of_the_server_doubles_and_loses_no_event(server):
    async with connected(server.url, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        for number in range(5):
            await fleet.events.broadcast("x", number)
        await until(lambda: len(feed.items) == 5)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        for number in range(5, 10):
            await fleet.events.broadcast("x", number)
        await until(lambda: len(feed.items) >= 10)
        assert bodies(feed) == [str(number) for number in range(10)]


async def test_a_read_without_an_answer_doubles_and_loses_no_event(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        for number in range(5):
            await fleet.events.broadcast("x", number)
        await until(lambda: len(feed.items) == 5)
        real, failed = fleet.jetstream.read, []

        async def read(*args: Any, **options: Any) -> Any:
            """Once, what an outage of five seconds leads to."""
            if not failed:
                failed.append(True)
                raise Unavailable("no answer to a read of EVENTS within 5 s")
            return await real(*args, **options)

        monkeypatch.setattr(fleet.jetstream, "read", read)
        await until(lambda: failed)
        for number in range(5, 10):
            await fleet.events.broadcast("x", number)
        await until(lambda: len(feed.items) >= 10)
        assert bodies(feed) == [str(number) for number in range(10)]


async def test_a_feed_without_events_waits_for_them(server):
    async with Fleet.connect(server.url, config=fast()) as fleet, following(Feed(fleet)) as feed:
        await fleet.provision()
        await fleet.events.broadcast("x", 1)
        await until(lambda: events(feed))
        assert bodies(feed) == ["1"]


async def test_the_feed_tells_what_operators_did(server):
    async with connected(server.url, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        told = {"job": "ab12", "operator": "ann@desk", "planned": 12, "done": 11, "reason": "model is back"}
        await fleet.events.broadcast("console.replay", told, source="console")
        await fleet.events.broadcast("console.replay", {"something": "else"})
        await fleet.events.broadcast("console.replay", [1])
        await until(lambda: len(feed.items) == 3)
        assert bodies(feed) == [
            "job ab12  replay: 11 of 12 done by ann@desk",
            '{"something":"else"}',
            "[1]",
        ]
        assert {item.tone for item in feed.items} == {"accent"}


async def test_a_death_in_the_feed_names_its_letter(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        (letter,) = await kill_tasks(fleet, 1)
        feed = Feed(fleet)
        feed.add_letter(letter)
        (item,) = feed.items
        assert (item.topic, item.source, item.tone, item.letter) == ("task.failed", "backend-1", "bad", letter.seq)
        assert "t-0" in item.body
        assert "no model" in item.body
        assert item.at == letter.died_at


async def test_nothing_that_is_broadcast_ends_the_feed(server):
    async with connected(server.url, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        deep = [b"[" * depth + b"]" * depth for depth in (*range(150, 900, 50), *range(900, 1001))]
        for body in deep:
            await fleet.nc.publish("events.deep", body)
            await fleet.nc.publish("events.console.replay", b'{"job":' + body + b',"operator":' + body + b"}")
        for body in (b"1" * 5_000, b"NaN", b"\xff", b'"\\ud800"', b"{", b"null"):
            await fleet.nc.publish("events.odd", body)
        await fleet.events.broadcast("x", "the last")
        await until(lambda: feed.items and feed.items[-1].body == '"the last"')
        assert len(feed.items) == 2 * len(deep) + 7
        assert all(is_clean(item.body) for item in feed.items)


async def test_hostile_texts_come_out_clean(server):
    evil = "\x1b[31mevil\u202e"
    quoted = "".join(f"%{byte:02X}" for byte in HOSTILE.encode())
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.events.broadcast("x", {"a": HOSTILE, HOSTILE: 1}, headers={"x": HOSTILE})
        await publish(fleet, f"events.{evil}", HOSTILE.encode(), {"ce-source": quoted, "ce-type": quoted})
        await fleet.events.broadcast("console.replay", {"job": HOSTILE, "operator": HOSTILE, "done": 1, "planned": 1})
        await fleet.events.broadcast("console.replay", {"job": [HOSTILE], "operator": {HOSTILE: 1}})
        await publish(fleet, "events.long", b"x" * 5_000, {"ce-datacontenttype": "text/plain"})
        async with following(Feed(fleet)) as feed:
            feed.add_action(HOSTILE, HOSTILE, done=1, planned=1, operator=HOSTILE)
            await until(lambda: len(feed.items) == 6)
            for item in feed.items:
                assert is_clean(item.topic)
                assert is_clean(item.source)
                assert is_clean(item.body)
                assert len(item.body) <= BODY_LIMIT


# -- what it costs


async def test_events_are_read_only_when_somebody_looks(server, monkeypatch):
    async with connected(server.url) as fleet:
        for number in range(200):
            await fleet.nc.publish("events.x", str(number).encode())
        decoded, real = [], feed_items.decode_stored
        monkeypatch.setattr(
            feed_items, "decode_stored", lambda stored, **options: decoded.append(stored.seq) or real(stored, **options)
        )
        async with following(Feed(fleet)) as feed:
            await until(lambda: len(feed.items) == 200)
            assert decoded == []
            item = feed.items[-1]
            assert (item.topic, item.source, item.body, item.tone) == ("x", "unknown", "199", "accent")
            assert decoded == [200], "and then once"


async def test_what_is_kept_of_large_events_is_bounded_and_opened_from_the_stream(server):
    async with connected(server.url) as fleet:
        body = b'{"text":"' + b"y" * 900_000 + b'"}'
        for _ in range(5):
            await publish(
                fleet, "events.large", body, {"ce-type": "large", "ce-source": "agents/ops", "x": "1" * 60_000}
            )
        await publish(fleet, "events.small", b"1")
        async with following(Feed(fleet, capacity=1000)) as feed:
            await until(lambda: len(feed.items) == 6)
            item = feed.items[0]
            assert isinstance(item, EventItem)
            assert item.cut
            assert not feed.items[-1].cut
            kept = sum(len(each.stored.body) + sum(map(len, each.stored.headers.values())) for each in events(feed))
            assert kept < 5 * 2 * (32 << 20) // 1000
            assert (item.topic, item.source) == ("large", "ops")
            assert item.body.startswith('{"text":"yyy')
            assert item.body.endswith("…")
            assert record_of(item).size == item.size > 900_000
            wanted = item_filter("size:>500k subject:events.large")
            assert [wanted(each) for each in feed.items] == [True] * 5 + [False]
            runtime = Runtime(Session(fleet=fleet, settings=Settings(), guard=WriteGuard(False), spill=None))
            text = (await item_pane(runtime, item, COLOURS)._load()).plain
            assert "Not stored any more" not in text
            assert "x: 111" in text
            await fleet.jetstream.delete("EVENTS", item.stored.seq)
            text = (await item_pane(runtime, item, COLOURS)._load()).plain
            assert text.startswith("Not stored any more")
            assert "yyyy" in text


async def test_dropped_events_are_counted_to_the_last_one(server):
    async with (
        connected(server.url) as fleet,
        connected(server.url) as other,
        following(Feed(fleet, capacity=300, share=0.02)) as feed,
    ):
        for _ in range(20):
            for number in range(500):
                await other.nc.publish("events.x", str(number).encode())
            await other.nc.flush()
        last = await other.events.broadcast("last")
        await until(lambda: events(feed) and events(feed)[-1].topic == "last")
        assert last.seq == 10_001
        assert feed.dropped > 0
        assert handed(feed) + feed.dropped == 10_001
        assert len(feed.items) <= 300


# -- another window


async def test_a_window_begins_anew_with_what_is_stored(server):
    async with connected(server.url) as fleet:
        for number in range(5):
            await fleet.events.broadcast("x", number)
        async with following(Feed(fleet, since=datetime.now(UTC) + timedelta(hours=1))) as feed:
            feed.look_back(timedelta(minutes=5))
            assert feed.window == timedelta(minutes=5)
            await until(lambda: len(feed.items) == 5)
            assert bodies(feed) == ["0", "1", "2", "3", "4"]
            last, generation = feed.items[-1].id, feed.generation
            feed.look_back(None)
            assert (feed.window, len(feed.items), feed.generation) == (None, 0, generation + 1)

            async def heard() -> bool:
                await fleet.events.broadcast("x", "now")
                return len(feed.items) > 0

            await until(heard)
            assert set(bodies(feed)) == {'"now"'}
            assert feed.items[0].id > last, "what a screen has read is not read again"
            feed.look_back(timedelta(days=100_000_000))
            await until(lambda: len(feed.items) >= 6)
            assert bodies(feed)[:5] == ["0", "1", "2", "3", "4"]


async def test_what_is_no_event_stands_in_a_new_window_where_it_happened(server):
    async with connected(server.url) as fleet:
        for number in range(4):
            await fleet.events.broadcast("x", number)
        stored = (await fleet.jetstream.read("EVENTS")).messages
        feed = Feed(fleet, since=datetime.now(UTC))
        for name, moment in (
            ("old", stored[0].stored_at - timedelta(hours=2)),
            ("between", stored[2].stored_at),
            ("late", datetime.now(UTC) + timedelta(minutes=1)),
        ):
            feed._add(Told(0, moment, name, "", name, "plain", "jobs"))
        async with following(feed):
            feed.look_back(timedelta(hours=1))
            await until(lambda: len(feed.items) == 6)
            assert [item.body for item in feed.items] == ["0", "1", "between", "2", "3", "late"]
            ids = [item.id for item in feed.items]
            assert ids == sorted(ids)


# -- what operators do


def told(fleet: Fleet, *items: FeedItem) -> list[str]:
    return [item.body for item in items if item.topic.startswith("console.")]


ACTION = {"job": "ab12", "action": "replay", "operator": "ann@desk", "planned": 2, "done": 2}


@pytest.mark.parametrize("first", ["here", "broadcast"])
async def test_an_action_of_this_console_is_told_once(server, first):
    async with connected(server.url) as fleet, following(Feed(fleet)) as feed:

        def ended() -> None:
            feed.add_action("ab12", "replay", done=2, planned=2, operator="ann@desk")

        if first == "here":
            ended()
        await fleet.events.broadcast("console.replay", ACTION, source="console")
        await fleet.events.broadcast("x", "then")
        await until(lambda: '"then"' in bodies(feed))
        if first == "broadcast":
            ended()
        line = "job ab12  replay: 2 of 2 done by ann@desk"
        assert told(fleet, *feed.items) == [line]
        # It was resumed, and ends once more.
        ended()
        await fleet.events.broadcast("console.replay", ACTION, source="console")
        await fleet.events.broadcast("x", "at last")
        await until(lambda: '"at last"' in bodies(feed))
        assert told(fleet, *feed.items) == [line, line]
        # That of somebody else is another.
        await fleet.events.broadcast("console.replay", {**ACTION, "job": "cd34"}, source="console")
        await until(lambda: len(told(fleet, *feed.items)) == 3)


async def test_an_action_is_told_where_it_cannot_be_broadcast(server):
    async with Fleet.connect(server.url, config=fast()) as fleet, following(Feed(fleet)) as feed:
        feed.add_action("ab12", "purge", done=1, planned=3, operator="ann@desk")
        (item,) = feed.items
        assert (item.topic, item.body, item.opens) == (
            "console.purge",
            "job ab12  purge: 1 of 3 done by ann@desk",
            "jobs",
        )
        assert feed.rate == pytest.approx(0.1)


async def test_actions_that_anybody_broadcasts_are_not_remembered_for_ever(server, monkeypatch):
    monkeypatch.setattr("console.monitor.feed.REMEMBERED", 50)
    async with connected(server.url) as fleet, following(Feed(fleet)) as feed:
        for number in range(300):
            body = f'{{"job":"j{number}","action":"replay"}}'
            await fleet.nc.publish("events.console.replay", body.encode())
        await until(lambda: len(feed.items) == 300)
        assert len(feed._unheard) <= 51
