"""Inboxes: one message at a time, in order, for an agent that may be away."""

from __future__ import annotations

import asyncio
import time

import pytest

from patterns import InvalidMessage, InvalidName, QueueFull, Reject, Retry, StreamLimits, UnknownDestination
from patterns.lane import Lane
from tests.support.fleets import LONG_LEASE, connected, fast, publish, running
from tests.support.waiting import until


async def fill(fleet, count, agent="ceo"):
    for n in range(count):
        await fleet.inbox(agent).send("note", n, id=f"m-{n}")


async def emptied(inbox):
    async def nothing_left():
        depth = await inbox.depth()
        return depth.messages == 0 and depth.ack_pending == 0

    await until(nothing_left)


async def test_in1_an_agent_that_was_away_gets_everything_in_order(server):
    async with connected(server.url, agents=["ceo"]) as sender:
        await fill(sender, 20)
    async with connected(server.url) as fleet:
        seen = []

        async def read(message):
            seen.append((message.data, message.attempt))

        async with running(fleet.inbox("ceo").consumer(), read):
            await emptied(fleet.inbox("ceo"))
        assert seen == [(n, 1) for n in range(20)]


async def test_in3_an_unknown_recipient_is_an_error(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        with pytest.raises(UnknownDestination, match=r"agents\.ghost\.inbox\.note"):
            await fleet.inbox("ghost").send("note")
        with pytest.raises(UnknownDestination, match="INBOX_GHOST"):
            await fleet.inbox("ghost").depth()


async def test_in3_a_stream_that_merely_covers_the_subject_is_no_inbox(server):
    async with connected(server.url) as fleet:
        await fleet.js.add_stream(name="EVERYTHING", subjects=["agents.>"])
        with pytest.raises(UnknownDestination):
            await fleet.inbox("ghost").send("note")
        assert (await fleet.js.stream_info("EVERYTHING")).state.messages == 0


async def test_in4_a_message_that_fails_twice_holds_up_the_ones_behind_it(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        seen = []

        async def read(message):
            seen.append((message.data, message.attempt))
            if message.data == 0 and message.attempt < 3:
                raise Retry("not yet") if message.attempt == 1 else ValueError("not yet")

        await fill(fleet, 3)
        async with running(fleet.inbox("ceo").consumer(), read):
            await emptied(fleet.inbox("ceo"))
        assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1)]
        assert await fleet.dead_letters.list() == []


async def test_in5_poison_dies_after_three_attempts_and_the_rest_proceeds(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        seen = []

        async def read(message):
            seen.append((message.data, message.attempt))
            if message.data == 0:
                raise RuntimeError("poison")

        await fill(fleet, 2)
        async with running(fleet.inbox("ceo").consumer(), read):
            await emptied(fleet.inbox("ceo"))
        (letter,) = await fleet.dead_letters.list()
        assert seen == [(0, 1), (0, 2), (0, 3), (1, 1)]
        assert (letter.kind, letter.name, letter.reason, letter.deliveries) == ("inbox", "ceo", "max-deliver", 3)
        assert (letter.error_type, letter.error) == ("RuntimeError", "poison")
        assert (await fleet.inbox("ceo").depth()).stranded == 0


async def test_in7_two_processes_of_one_agent_never_hold_two_messages(server):
    async with connected(server.url, agents=["ceo"]) as one, connected(server.url) as two:
        in_work, most, seen, by = 0, 0, [], set()

        def reader(name):
            async def read(message):
                nonlocal in_work, most
                in_work += 1
                most = max(most, in_work)
                await asyncio.sleep(0.002)
                seen.append(message.data)
                by.add(name)
                in_work -= 1

            return read

        await fill(one, 30)
        async with (
            running(one.inbox("ceo").consumer(), reader("one")),
            running(two.inbox("ceo").consumer(), reader("two")),
        ):
            await emptied(one.inbox("ceo"))
        assert most == 1
        assert seen == list(range(30))
        assert by == {"one", "two"}


async def test_in7_the_second_process_takes_over_at_once_when_the_first_stops(server):
    async with connected(server.url, agents=["ceo"]) as one, connected(server.url) as two:
        started, seen = asyncio.Event(), []

        async def hang(message):
            started.set()
            await asyncio.Event().wait()

        async def read(message):
            seen.append((message.data, message.attempt))

        await fill(one, 2)
        async with running(one.inbox("ceo").consumer(), hang):
            await asyncio.wait_for(started.wait(), 20)
            standby = two.inbox("ceo").consumer()
            loop = asyncio.create_task(standby.run(read))
            await until(lambda: _waiting(one.inbox("ceo")))
            assert seen == []
        await until(lambda: len(seen) == 2)
        await standby.stop()
        await loop
        assert seen == [(0, 2), (1, 1)]


async def test_in7_a_process_that_stops_while_it_waits_leaves_the_next_message_to_the_other(server):
    config = fast(poll=LONG_LEASE)
    async with connected(server.url, agents=["ceo"], config=config) as one, connected(server.url) as two:
        seen = []

        async def read(message):
            seen.append(message.data)

        consumer = one.inbox("ceo").consumer()
        loop = asyncio.create_task(consumer.run(read))
        await until(lambda: _waiting(two.inbox("ceo")))
        await consumer.stop(0)
        await two.inbox("ceo").send("note", 1)
        message = await two.inbox("ceo").next(LONG_LEASE / 2)
        assert message is not None
        assert (message.data, message.attempt) == (1, 1)
        await asyncio.wait_for(loop, 20)
        assert seen == []


async def _waiting(inbox):
    return (await inbox.depth()).waiting


async def test_in8_looking_changes_nothing_about_delivery(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        await fill(fleet, 5)
        before = await fleet.jetstream.consumer_info(inbox.stream, inbox.durable)
        peeked = await inbox.peek(3)
        assert [m.data for m in peeked] == [0, 1, 2]
        assert [m.seq for m in await inbox.peek()] == [1, 2, 3, 4, 5]
        await inbox.depth()
        after = await fleet.jetstream.consumer_info(inbox.stream, inbox.durable)
        watched = ("delivered", "ack_floor", "num_pending", "num_ack_pending", "num_redelivered", "num_waiting")
        assert {key: before[key] for key in watched} == {key: after[key] for key in watched}
        assert len(await fleet.jetstream.consumers(inbox.stream)) == 1

        seen = []

        async def read(message):
            await inbox.peek()
            await inbox.depth()
            seen.append((message.data, message.attempt))

        async with running(inbox.consumer(), read):
            await emptied(inbox)
        assert seen == [(n, 1) for n in range(5)]


async def test_in8_peek_shows_a_message_as_it_was_sent(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        receipt = await fleet.inbox("ceo").send("a.b", {"ä": [1]}, id="m", source="cto", headers={"x": "50%\n"})
        (message,) = await fleet.inbox("ceo").peek()
        assert (message.id, message.type, message.source, message.data) == ("m", "a.b", "cto", {"ä": [1]})
        assert (message.stream, message.seq, message.headers["x"]) == ("INBOX_CEO", receipt.seq, "50%\n")
        delivered = (await fleet.inbox("ceo").next(20)).message
        assert delivered == message


async def test_in9_next_on_an_empty_inbox_is_none_and_leaves_no_pull_behind(server):
    async with connected(server.url, agents=["ceo"]) as one, connected(server.url) as other:
        for n, timeout in enumerate((0.05,) * 9 + (0.7,)):
            began = time.monotonic()
            assert await one.inbox("ceo").next(timeout) is None
            assert time.monotonic() - began >= 0.9 * timeout
            await other.inbox("ceo").send("note", n)
            # Another process asks, and the first one has nothing in its hands.
            async with await other.inbox("ceo").next(LONG_LEASE / 2) as message:
                assert (message.data, message.attempt) == (n, 1)


async def test_in9_a_message_that_arrives_while_waiting_is_returned_at_once(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        waiting = asyncio.create_task(fleet.inbox("ceo").next(timeout=LONG_LEASE))
        await until(lambda: _waiting(fleet.inbox("ceo")))
        await fleet.inbox("ceo").send("note", 1)
        assert (await asyncio.wait_for(waiting, LONG_LEASE / 2)).data == 1


async def test_in9_a_process_that_closes_leaves_the_next_message_to_others(server):
    async with connected(server.url, agents=["ceo"]) as other:
        async with connected(server.url) as one:
            waiting = asyncio.create_task(one.inbox("ceo").next(timeout=LONG_LEASE))
            await until(lambda: _waiting(other.inbox("ceo")))
        assert await waiting is None
        await other.inbox("ceo").send("note", 1)
        message = await other.inbox("ceo").next(LONG_LEASE / 2)
        assert (message.data, message.attempt) == (1, 1)


async def test_in10_a_purge_does_not_disturb_the_one_in_flight(server, monkeypatch, caplog):
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"heartbeat": 0.05})) as fleet:
        inbox, started, purged, done, beats = fleet.inbox("ceo"), asyncio.Event(), asyncio.Event(), [], []
        extend = Lane.extend

        async def counted(lane, delivery):
            await extend(lane, delivery)
            beats.append(delivery.seq)

        monkeypatch.setattr(Lane, "extend", counted)

        async def read(message):
            started.set()
            await purged.wait()
            done.append(message.data)

        await fill(fleet, 3)
        consumer = inbox.consumer()
        async with running(consumer, read):
            await asyncio.wait_for(started.wait(), 20)
            assert await fleet.jetstream.purge(inbox.stream, everything=True) == 3
            beats.clear()
            # Its lease is extended as if nothing had happened.
            await until(lambda: len(beats) >= 3)
            purged.set()
            await until(lambda: done and not consumer.running)
            depth = await inbox.depth()
            assert (depth.messages, depth.pending, depth.ack_pending, depth.redelivered) == (0, 0, 0, 0)
            assert depth.stranded == 0
            await inbox.send("note", "next")
            await until(lambda: len(done) == 2)
        assert done == [0, "next"]
        assert await fleet.dead_letters.list() == []
        assert [record.getMessage() for record in caplog.records if record.name == "patterns"] == []


async def test_in11_a_full_inbox_refuses(server):
    async with connected(server.url, agents=["ceo"], config=fast(limits=StreamLimits(max_msgs=2))) as fleet:
        await fill(fleet, 2)
        with pytest.raises(QueueFull, match=r"agents\.ceo\.inbox"):
            await fleet.inbox("ceo").send("note", 2)
        assert [m.data for m in await fleet.inbox("ceo").peek()] == [0, 1]
        async with await fleet.inbox("ceo").next(20):
            pass
        await fleet.inbox("ceo").send("note", 2)
        assert [m.data for m in await fleet.inbox("ceo").peek()] == [1, 2]


async def test_the_announced_shape_is_what_stands_on_the_server(server):
    async with connected(server.url, agents=["back_end-1"], config=fast(inbox={"ack_wait": 300.0})) as fleet:
        stream = (await fleet.jetstream.stream_info("INBOX_BACK_END-1"))["config"]
        consumer = (await fleet.jetstream.consumer_info("INBOX_BACK_END-1", "back_end-1-processor"))["config"]
        assert (stream["retention"], stream["storage"], stream["discard"]) == ("workqueue", "file", "new")
        assert stream["subjects"] == ["agents.back_end-1.inbox.>"]
        assert (consumer["ack_policy"], consumer["max_deliver"], consumer["max_ack_pending"]) == ("explicit", 3, 1)
        assert consumer["ack_wait"] == 300_000_000_000


async def test_provisioning_again_changes_nothing(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fill(fleet, 2)
        before = await fleet.jetstream.stream_info("INBOX_CEO")
        await fleet.provision(agents=["ceo"])
        after = await fleet.jetstream.stream_info("INBOX_CEO")
        assert (before["config"], before["state"]) == (after["config"], after["state"])


async def test_sending_twice_with_one_id_is_one_message(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        first = await fleet.inbox("ceo").send("note", 1, id="same")
        second = await fleet.inbox("ceo").send("note", 2, id="same")
        assert (first.duplicate, second.duplicate, second.seq) == (False, True, first.seq)
        assert [m.data for m in await fleet.inbox("ceo").peek()] == [1]


async def test_what_cannot_be_sent_is_refused(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        for kind, options in (
            ("note.*", {}),
            ("note", {"id": "a b"}),
            ("note", {"headers": {"Nats-Msg-Id": "x"}}),
            ("note", {"headers": {"bad name": "x"}}),
        ):
            with pytest.raises(InvalidName):
                await inbox.send(kind, **options)
        with pytest.raises(InvalidMessage):
            await inbox.send("note", float("nan"))
        with pytest.raises(InvalidName):
            fleet.inbox("CEO")
        assert (await inbox.depth()).messages == 0


async def test_a_paused_inbox_delivers_nothing_until_it_is_resumed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        await inbox.pause(600)
        await fill(fleet, 1)
        assert await inbox.next(0.3) is None
        depth = await inbox.depth()
        assert (depth.paused, depth.pending) == (True, 1)
        await inbox.resume()
        assert (await inbox.next(LONG_LEASE / 2)).data == 0


async def test_a_rejected_and_a_broken_message_do_not_stop_the_inbox(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        seen = []

        async def read(message):
            seen.append(message.type)
            if message.type == "bad":
                raise Reject("no")

        await publish(fleet, "agents.ceo.inbox.broken", b"{")
        await fleet.inbox("ceo").send("bad")
        await fleet.inbox("ceo").send("good")
        async with running(fleet.inbox("ceo").consumer(), read):
            await emptied(fleet.inbox("ceo"))
        assert seen == ["bad", "good"]
        assert [letter.reason for letter in await fleet.dead_letters.list()] == ["invalid", "rejected"]


async def test_a_cancelled_next_does_not_strand_a_message(server):
    """The server counts an inbox's deliveries: what is given back on the last one would be hidden."""
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 200})) as fleet:
        inbox, seen, rounds = fleet.inbox("ceo"), [], 0
        await fill(fleet, 10)
        while len(seen) < 10:
            rounds += 1
            taking = asyncio.create_task(inbox.next(LONG_LEASE / 2))
            if rounds % 4:
                await asyncio.sleep(rounds % 30 * 0.0001)
                taking.cancel()
            (message,) = await asyncio.gather(taking, return_exceptions=True)
            assert message is not None, "a message is held by nobody"
            if not isinstance(message, asyncio.CancelledError):
                async with message:
                    seen.append(message.data)
        assert seen == list(range(10))
