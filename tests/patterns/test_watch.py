"""The live tail of events: nothing twice, nothing lost unless counted, and exactly counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from patterns import Unavailable, direct
from patterns.headers import parse_fields
from patterns.watch import BUSY, Watch
from tests.support.fleets import connected, fast, publish
from tests.support.waiting import until

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
CALM = fast(poll=30.0)
"""Beyond the patience of a test: what comes, comes because it rang."""


@contextlib.asynccontextmanager
async def read(watch):
    """Let a watch run for the length of the block; gives the sequences it hands out."""
    seqs = []

    async def follow():
        async for page in watch.pages():
            seqs.extend(stored.seq for stored in page)

    following = asyncio.create_task(follow())
    try:
        yield seqs
        assert not following.done(), "nothing ends a watch"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def burst(fleet, count, subject="events.a"):
    """As fast as it goes: none is confirmed by itself."""
    for _ in range(count):
        await fleet.nc.publish(subject, b"1")
    await fleet.nc.flush()


async def stored(fleet):
    return (await fleet.jetstream.stream_info("EVENTS"))["state"]["messages"]


def bells(fleet):
    return [sub.subject for sub in fleet.nc._subs.values() if sub.subject == "events.>"]


async def test_it_does_without_the_bell_while_events_come_and_takes_it_up_again(server):
    async with connected(server.url, config=CALM) as fleet:
        watch = Watch(fleet, (), None)
        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            assert bells(fleet) == ["events.>"]
            # Each reading finds many, so that the next is not rung for.
            heard = []

            async def busy():
                await burst(fleet, 5 * BUSY)
                heard.append(bells(fleet))
                return not bells(fleet)

            await until(busy)
            await until(lambda: bells(fleet) == ["events.>"])
            count = await stored(fleet)
            await until(lambda: len(seqs) == count)
            await fleet.events.broadcast("quiet")
            await until(lambda: len(seqs) == count + 1)
            assert seqs == list(range(1, count + 2))
        assert bells(fleet) == []


async def test_what_comes_at_the_change_to_the_bell_is_neither_lost_nor_doubled(server, monkeypatch):
    async with connected(server.url, config=CALM) as fleet:
        watch = Watch(fleet, (), None)
        real, changes = watch._listen, []

        async def listen():
            if changes or not watch._listening:
                # Stored while nothing is subscribed, and then while it is, but before the next read.
                await fleet.events.broadcast("before")
                await real()
                await fleet.events.broadcast("after")
                changes.append(len(seqs))

        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            monkeypatch.setattr(watch, "_listen", listen)
            await burst(fleet, 5 * BUSY)
            await until(lambda: changes)
            await until(lambda: len(seqs) == 5 * BUSY + 2 * len(changes))
            assert seqs == list(range(1, len(seqs) + 1))
            assert watch.dropped == 0


async def test_what_is_left_out_is_counted_exactly_while_more_comes(server, monkeypatch):
    async with connected(server.url) as fleet:
        await burst(fleet, 700)
        real, rounds = direct.counts, []

        async def counts(nc, subject, starts, pattern):
            """For some rounds, events are stored between the answers."""
            rounds.append(starts)
            found = []
            for start in starts:
                found += await real(nc, subject, [start], pattern)
                for _ in range(2 if len(rounds) < 5 else 0):
                    await publish(fleet, "events.meanwhile")
            return found

        monkeypatch.setattr(direct, "counts", counts)
        watch = Watch(fleet, (), BEGINNING, backlog=100)
        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            await fleet.events.broadcast("last")
            count = await stored(fleet)
            await until(lambda: seqs and seqs[-1] == count)
            assert len(rounds) >= 5, "as long as something comes, one round is not enough"
            assert watch.dropped > 500
            assert len(seqs) + watch.dropped == count
            assert seqs == sorted(set(seqs))


async def test_what_is_no_event_of_the_watch_is_not_counted(server):
    async with connected(server.url) as fleet:
        for n in range(1_600):
            await fleet.nc.publish("events.a" if n % 4 else "redeliver.two.events.a", b"1")
        await fleet.nc.flush()
        await until(lambda: stored_is(fleet, 1_600))
        for seq in (2, 3, 50, 1_599):
            await fleet.jetstream.delete("EVENTS", seq)
        watch = Watch(fleet, (), BEGINNING, backlog=20)
        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            assert watch.dropped > 1_000
            assert len(seqs) + watch.dropped == 1_200 - 4


async def stored_is(fleet, count):
    return await stored(fleet) == count


@pytest.mark.parametrize("share", [0.01, 1.0])
async def test_under_a_flood_what_is_handed_out_and_dropped_is_what_is_stored(server, share):
    async with connected(server.url) as fleet, connected(server.url) as other:
        watch = Watch(fleet, (), BEGINNING, backlog=200, share=share)
        async with read(watch) as seqs:
            for _ in range(40):
                await burst(other, 250)
                await asyncio.sleep(0)
            await until(lambda: stored_is(fleet, 10_000))
            await until(lambda: seqs and seqs[-1] == 10_000)
            assert len(seqs) + watch.dropped == 10_000
            assert seqs == sorted(set(seqs))
            if share < 1:
                assert watch.dropped > 0


async def test_a_part_of_a_core_is_enough_for_what_is_not_too_far_behind(server):
    async with connected(server.url) as fleet:
        await burst(fleet, 3_000)
        watch = Watch(fleet, (), BEGINNING, backlog=100_000, share=0.05)
        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            assert seqs == list(range(1, 3_001))
            assert watch.dropped == 0


async def test_events_that_do_not_match_are_not_handed_out_and_end_no_wait(server):
    async with connected(server.url, config=CALM) as fleet:
        watch = Watch(fleet, ("a.>", "b"), None)
        async with read(watch) as seqs:
            await until(watch.caught_up.is_set)
            await burst(fleet, 30, "events.c")
            await publish(fleet, "events.a.x")
            await until(lambda: seqs == [31])


async def test_a_stream_that_was_made_again_is_read_from_its_beginning(server):
    async with connected(server.url, config=fast(poll=0.1)) as fleet:
        await burst(fleet, 20)
        watch = Watch(fleet, (), BEGINNING)
        async with read(watch) as seqs:
            await until(lambda: len(seqs) == 20)
            await fleet.jetstream.api("STREAM.DELETE.EVENTS")
            await fleet.provision()
            await burst(fleet, 3)
            await until(lambda: seqs[20:] == [1, 2, 3])


async def test_a_watch_waits_out_what_keeps_it_from_beginning(server, monkeypatch):
    async with connected(server.url, config=fast(poll=0.05)) as fleet:
        await burst(fleet, 3)
        watch, told = Watch(fleet, (), BEGINNING), []
        watch.on_trouble = told.append
        real = fleet.jetstream.stream_info

        async def info(stream):
            if len(told) < 2:
                raise Unavailable("no answer")
            return await real(stream)

        monkeypatch.setattr(fleet.jetstream, "stream_info", info)
        async with read(watch) as seqs:
            await until(lambda: seqs == [1, 2, 3])
        assert [str(error) for error in told] == ["no answer", "no answer"]


# -- the batch direct get


def stored_headers(seq):
    return {"Nats-Sequence": str(seq), "Nats-Subject": "x", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"}


async def test_a_batch_waits_as_long_as_something_comes(server, monkeypatch):
    monkeypatch.setattr(direct, "PATIENCE", 0.4)
    async with connected(server.url) as fleet:

        async def answer(msg):
            for seq in range(1, 6):
                await asyncio.sleep(0.1)
                await fleet.nc.publish(msg.reply, b"body", headers=stored_headers(seq))
            await fleet.nc._send_publish(msg.reply, "", b"", 0, {"Status": "204", "Nats-Num-Pending": "7"})

        await fleet.nc.subscribe("fake.get", cb=answer)
        page = await direct.batch(fleet.nc, "fake.get", {})
        assert [message.seq for message in page.messages] == [1, 2, 3, 4, 5]
        assert page.remaining == 7


async def test_a_batch_that_breaks_off_is_told(server, monkeypatch):
    monkeypatch.setattr(direct, "PATIENCE", 0.2)
    async with connected(server.url) as fleet:
        before = len(fleet.nc._subs)

        async def answer(msg):
            await fleet.nc.publish(msg.reply, b"body", headers=stored_headers(1))

        subscription = await fleet.nc.subscribe("fake.get", cb=answer)
        with pytest.raises(Unavailable, match=r"no answer to fake\.get within 0\.2 s"):
            await direct.batch(fleet.nc, "fake.get", {})
        await subscription.unsubscribe()
        assert len(fleet.nc._subs) == before


async def test_an_answer_that_cannot_be_read_is_the_askers(server):
    async with connected(server.url) as fleet:

        async def answer(msg):
            await fleet.nc.publish(msg.reply, b"", headers={**stored_headers(1), "Nats-Time-Stamp": "yesterday"})

        await fleet.nc.subscribe("fake.get", cb=answer)
        with pytest.raises(ValueError, match="yesterday"):
            await direct.batch(fleet.nc, "fake.get", {})


async def test_counts_are_of_what_stands_from_a_sequence_on(server):
    async with connected(server.url) as fleet:
        for n in range(10):
            await publish(fleet, "events.a" if n % 2 else "events.b", json.dumps(n).encode())
        asked = await direct.counts(fleet.nc, "$JS.API.DIRECT.GET.EVENTS", (1, 5, 10, 11), "events.a")
        assert asked == [5, 3, 1, 0]
        assert await direct.counts(fleet.nc, "$JS.API.DIRECT.GET.EVENTS", (0,), "events.>") == [10]


# -- header lines

FIELDS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"ce-id: 1", b"Nats-Msg-Id:x", b" a b : c", b"\xc3\xa9: v", b"x:\t \xff ", b"a\x1cb: c", b":v"]
        ),
    ),
    max_size=8,
)


@given(FIELDS)
def test_header_lines_are_read_as_nats_py_reads_them(lines):
    raw = b"\r\n".join(lines)
    assert parse_fields(raw) == Client._parse_header_lines(raw)


async def test_a_fleets_connection_reads_them_so(server):
    async with connected(server.url) as fleet:
        assert fleet.nc._parse_header_lines is parse_fields
        await publish(fleet, "events.a", b"", {"x": "ü", "y": " padded "})
        (message,) = (await fleet.jetstream.read("EVENTS")).messages
        assert (message.headers["x"], message.headers["y"]) == ("ü", "padded")
