"""Rescue on any fleet: exactly what exhausted its deliveries is found, moved, and can be brought back."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from nats.errors import TimeoutError as NothingThere
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

import patterns.rescue
from patterns import Fleet, Unavailable
from patterns.jetstream import JetStream
from patterns.names import Entry, Names
from patterns.rescue import Stranded, ensure_dead_letters, find_stranded, letter_name, rescue
from tests.support.fleets import connected, fast, running, take
from tests.support.waiting import until

BRIEF = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})


async def every(fleet, **options):
    return [found async for found in find_stranded(fleet, **options)]


async def foreign(fleet, *, stream="ORDERS", durable="Billing_Worker!", retention="workqueue", **config):
    """A stream and a consumer that other code made with nats-py."""
    if await fleet.jetstream.stream_info(stream) is None:
        prefix = stream.lower()
        await fleet.js.add_stream(name=stream, subjects=[f"{prefix}.>"], retention=retention)
    settings = {"ack_policy": AckPolicy.EXPLICIT, "max_deliver": 2, "ack_wait": 30.0, "max_ack_pending": 100, **config}
    await fleet.js.add_consumer(stream, ConsumerConfig(durable_name=durable, **settings))
    subscription = await fleet.js.pull_subscribe_bind(durable, stream=stream)
    fleet.on_close(subscription.unsubscribe)
    return subscription


async def nak_to_death(subscription, count, times=2):
    """Give messages back until the server delivers them no more, and let it notice."""
    for _ in range(times):
        left = count
        while left:
            batch = await subscription.fetch(left, timeout=5)
            left -= len(batch)
            for msg in batch:
                await msg.nak()
    with pytest.raises(NothingThere):
        await subscription.fetch(1, timeout=0.2)


async def fill(fleet, *subjects):
    return [(await fleet.js.publish(subject, f"body of {subject}".encode())).seq for subject in subjects]


# -- a work queue of other code


async def test_what_died_in_a_foreign_work_queue_is_found_moved_and_brought_back(server):
    async with Fleet.connect(server.url, config=fast()) as fleet:
        worker = await foreign(fleet)
        await fill(fleet, "orders.ok")
        (good,) = await worker.fetch(1, timeout=5)
        await good.ack_sync()
        dead = await fill(fleet, "orders.a", "orders.b", "orders.c")
        await nak_to_death(worker, 3)
        await fill(fleet, "orders.flying", "orders.pending")
        (flying,) = await worker.fetch(1, timeout=5)

        # Others in flight: the ack floor is all that is certain.
        certain = await every(fleet)
        assert {one.seq for one in certain} <= set(dead)
        await flying.ack_sync()

        found = await every(fleet)
        assert [(one.stream, one.durable, one.seq, one.subject, one.deliveries) for one in found] == [
            ("ORDERS", "Billing_Worker!", seq, subject, 2)
            for seq, subject in zip(dead, ["orders.a", "orders.b", "orders.c"], strict=True)
        ]
        for one in found:
            assert one.stored_ns == (await fleet.jetstream.get("ORDERS", one.seq)).stored_ns

        with pytest.raises(Unavailable):
            await rescue(fleet, found[0])  # there are no dead letters yet
        assert await ensure_dead_letters(fleet)
        assert not await ensure_dead_letters(fleet)
        assert await asyncio.gather(*(rescue(fleet, one) for one in found)) == [True] * 3
        assert await every(fleet) == []
        assert (await fleet.jetstream.stream_info("ORDERS"))["state"]["messages"] == 1, "the pending one stays"

        letters = await fleet.dead_letters.list()
        name = letter_name("Billing_Worker!")
        assert {(one.kind, one.name, one.agent, one.reason, one.stream, one.deliveries) for one in letters} == {
            ("tasks", name, name, "crash", "ORDERS", 2)
        }
        assert {one.subject for one in letters} == {"orders.a", "orders.b", "orders.c"}
        assert await fleet.dead_letters.count() == {("tasks", name): 3}
        assert not await fleet.dead_letters.guarded("ORDERS")

        # Neither ledger nor receipts are there, and a replay needs neither.
        for letter in letters:
            receipt = await fleet.dead_letters.replay(letter.seq, by="ann")
            assert receipt.stream == "ORDERS"
        assert await fleet.dead_letters.list() == []
        back = {}
        for _ in range(4):
            (msg,) = await worker.fetch(1, timeout=5)
            back[msg.subject] = msg.data
            await msg.ack_sync()
        assert back == {f"orders.{n}": f"body of orders.{n}".encode() for n in ("a", "b", "c", "pending")}


async def test_nothing_that_is_pending_or_in_flight_is_found(server):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet)
        await fill(fleet, *(f"orders.{n}" for n in range(6)))
        first, second, third = await worker.fetch(3, timeout=5)
        await second.nak(delay=30)
        assert await every(fleet) == []
        await third.ack_sync()
        await first.nak()
        assert await every(fleet) == []
        (again,) = await worker.fetch(1, timeout=5)
        assert again.metadata.num_delivered == 2, "in its last delivery"
        assert await every(fleet) == []


async def test_only_what_a_consumer_reads_is_its_dead(server):
    """Two consumers share a work queue by their filters: one has got further than the other."""
    async with Fleet.connect(server.url) as fleet:
        await fleet.js.add_stream(name="ORDERS", subjects=["orders.>"], retention="workqueue")
        ahead = await foreign(fleet, durable="ahead", filter_subjects=["orders.a", "orders.c.>"])
        await foreign(fleet, durable="behind", filter_subject="orders.b")
        await fill(fleet, "orders.b", "orders.a", "orders.b", "orders.c.x", "orders.b", "orders.b")
        await nak_to_death(ahead, 2)
        found = await every(fleet)
        assert [(one.durable, one.seq, one.subject) for one in found] == [
            ("ahead", 2, "orders.a"),
            ("ahead", 4, "orders.c.x"),
        ]
        assert [one.seq for one in await fleet.dead_letters.stranded("ORDERS", "ahead")] == [2, 4]
        assert await fleet.dead_letters.stranded("ORDERS", "behind") == []
        await ensure_dead_letters(fleet)
        # A message of somebody else, although the counters of this consumer are past it.
        other = await fleet.jetstream.get("ORDERS", 3)
        assert not await rescue(fleet, Stranded("ORDERS", "ahead", 3, other.stored_ns))
        assert await rescue(fleet, Stranded("ORDERS", "ahead", 2, found[0].stored_ns))


async def test_many_are_found_page_by_page(server, monkeypatch):
    monkeypatch.setattr(patterns.rescue, "PAGE", 7)
    read, sizes = JetStream.read, []

    async def counted(js, *args, **options):
        page = await read(js, *args, **options)
        sizes.append(len(page.messages))
        return page

    monkeypatch.setattr(JetStream, "read", counted)
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_deliver=1)
        seqs = await fill(fleet, *(f"orders.{n}" for n in range(40)))
        await nak_to_death(worker, 40, times=1)
        assert [one.seq for one in await every(fleet)] == seqs
        assert max(sizes) == 7


async def test_one_at_a_time_shows_the_dead_below_the_one_in_flight(server):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_ack_pending=1, max_deliver=1)
        await fill(fleet, "orders.dead", "orders.flying", "orders.pending")
        (dead,) = await worker.fetch(1, timeout=5)
        await dead.nak()
        await worker.fetch(1, timeout=5)
        assert [one.subject for one in await every(fleet)] == ["orders.dead"]


async def test_a_limit_that_was_lowered_while_several_are_in_flight_tells_nothing(server):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_deliver=1)
        await fill(fleet, "orders.a", "orders.b", "orders.c")
        await worker.fetch(3, timeout=5)
        await foreign(fleet, max_deliver=1, max_ack_pending=1)
        assert await every(fleet) == []


# -- what is not certain is left alone


async def test_what_came_to_life_again_is_left_alone(server):
    async with connected(server.url) as fleet:
        worker = await foreign(fleet)
        await fill(fleet, "orders.a", "orders.b")
        await nak_to_death(worker, 2)
        found = await every(fleet)
        assert len(found) == 2
        # Another message has its sequence, or it is gone.
        assert not await rescue(fleet, dataclasses.replace(found[0], stored_ns=found[0].stored_ns + 1))
        assert not await rescue(fleet, dataclasses.replace(found[0], seq=77))
        assert not await rescue(fleet, dataclasses.replace(found[0], stream="GONE"))
        # Its consumer is gone: the next one delivers it.
        await fleet.js.delete_consumer("ORDERS", "Billing_Worker!")
        assert not await rescue(fleet, found[0])
        worker = await foreign(fleet)
        assert not await rescue(fleet, found[0])
        await worker.fetch(2, timeout=5)
        assert not await rescue(fleet, found[0])
        assert await fleet.dead_letters.list() == []
        assert (await fleet.jetstream.stream_info("ORDERS"))["state"]["messages"] == 2


async def test_what_a_reset_revives_is_left_alone(server):
    async with connected(server.url) as fleet:
        worker = await foreign(fleet)
        await fill(fleet, "orders.a", "orders.b")
        await nak_to_death(worker, 2)
        first, second = await every(fleet)
        await fleet.jetstream.api("CONSUMER.RESET.ORDERS.Billing_Worker!", {"seq": second.seq})
        assert await every(fleet) == [first]
        assert [await rescue(fleet, one) for one in (first, second)] == [True, False]


@pytest.mark.parametrize("how", ["made anew", "reset"])
async def test_a_consumer_that_starts_again_between_the_two_looks_hides_nothing(server, monkeypatch, how):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_deliver=1)
        await fill(fleet, "orders.a", "orders.b")
        await nak_to_death(worker, 2, times=1)
        looks, real = [], JetStream.consumer_info

        async def again(js, *args):
            if not looks:
                looks.append(1)
                if how == "reset":
                    await js.api("CONSUMER.RESET.ORDERS.Billing_Worker!", {"seq": 1})
                    await worker.fetch(2, timeout=5)
                else:
                    # Dead once more, by the counters: but those of the new one were seen only once.
                    await fleet.js.delete_consumer("ORDERS", "Billing_Worker!")
                    await nak_to_death(await foreign(fleet, max_deliver=1), 2, times=1)
            return await real(js, *args)

        monkeypatch.setattr(JetStream, "consumer_info", again)
        assert await every(fleet) == []
        assert len(await every(fleet)) == (2 if how == "made anew" else 0)


async def test_an_acknowledgement_between_the_two_looks_takes_a_message_out(server, monkeypatch):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_deliver=1)
        await fill(fleet, "orders.a", "orders.b")
        late, other = await worker.fetch(2, timeout=5)
        await late.nak()
        await other.nak()
        with pytest.raises(NothingThere):
            await worker.fetch(1, timeout=0.2)
        sleep = asyncio.sleep

        async def between(seconds):
            if seconds == patterns.rescue.LOOK_AGAIN:
                monkeypatch.setattr(patterns.rescue.asyncio, "sleep", sleep)
                await fleet.jetstream.delete("ORDERS", 1)
            await sleep(seconds)

        monkeypatch.setattr(patterns.rescue.asyncio, "sleep", between)
        assert [one.subject for one in await every(fleet)] == ["orders.b"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"deliver_policy": DeliverPolicy.NEW}, "deliver policy new"),
        ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": 2}, "deliver policy by_start_sequence"),
    ],
)
async def test_a_consumer_that_began_later_is_skipped_and_said_so(server, settings, why):
    async with connected(server.url) as fleet:
        # A work queue takes no such consumer, an interest stream does.
        await foreign(fleet, retention="interest", durable="first")
        await fill(fleet, "orders.old")
        late = await foreign(fleet, durable="late", max_deliver=1, **settings)
        await fill(fleet, "orders.new", "orders.new")
        batch = await late.fetch(2, timeout=5)
        for msg in batch:
            await msg.nak()
        with pytest.raises(NothingThere):
            await late.fetch(1, timeout=0.2)
        skipped = []
        assert await every(fleet, skipped=skipped) == []
        assert [line for line in skipped if why in line and "late of ORDERS" in line]
        old = await fleet.jetstream.get("ORDERS", 1)
        assert not await rescue(fleet, Stranded("ORDERS", "late", 1, old.stored_ns))


async def test_on_an_interest_stream_what_another_reader_waits_for_stays(server):
    async with connected(server.url) as fleet:
        one = await foreign(fleet, retention="interest", durable="one", max_deliver=1, filter_subject="orders.>")
        other = await foreign(fleet, durable="other", filter_subject="orders.a")
        await fill(fleet, "orders.a", "orders.b")
        for msg in await one.fetch(2, timeout=5):
            await msg.ack_sync()
        # Acknowledged by the one, and still stored for the other.
        skipped = []
        assert await every(fleet, skipped=skipped) == []
        assert len(skipped) == 2
        assert all("reads the same subjects" in line for line in skipped)
        stored = await fleet.jetstream.get("ORDERS", 1)
        assert not await rescue(fleet, Stranded("ORDERS", "one", 1, stored.stored_ns))
        # Alone with its subjects, what it gave up is certain.
        await fleet.js.delete_consumer("ORDERS", "one")
        await nak_to_death(other, 1)
        (found,) = await every(fleet)
        assert (found.durable, found.subject) == ("other", "orders.a")
        assert await rescue(fleet, found)


async def test_a_message_that_a_limits_stream_keeps_is_never_taken(server):
    async with connected(server.url) as fleet:
        worker = await foreign(fleet, retention="limits")
        await fill(fleet, "orders.a")
        (msg,) = await worker.fetch(1, timeout=5)
        await msg.ack_sync()
        stored = await fleet.jetstream.get("ORDERS", 1)
        assert await every(fleet) == []
        assert not await rescue(fleet, Stranded("ORDERS", "Billing_Worker!", 1, stored.stored_ns))


async def test_a_consumer_without_a_limit_strands_nothing(server):
    async with Fleet.connect(server.url) as fleet:
        worker = await foreign(fleet, max_deliver=-1)
        await fill(fleet, "orders.a")
        (msg,) = await worker.fetch(1, timeout=5)
        skipped = []
        assert await every(fleet, skipped=skipped) == []
        assert skipped == []
        await msg.ack()


async def test_a_stream_that_forbids_deleting_is_skipped_and_said_so(server):
    async with Fleet.connect(server.url) as fleet:
        await fleet.js.add_stream(name="ORDERS", subjects=["orders.>"], retention="workqueue", deny_delete=True)
        worker = await foreign(fleet, max_deliver=1)
        await fill(fleet, "orders.a")
        await nak_to_death(worker, 1, times=1)
        skipped = []
        assert await every(fleet, skipped=skipped) == []
        assert len(skipped) == 1
        assert "delete" in skipped[0]


# -- whose streams


async def strand_inbox(fleet, agent):
    inbox = fleet.inbox(agent)
    await inbox.send("note", {"n": 1}, id=f"m-{agent}")
    await take(fleet, inbox.stream, inbox.durable)

    async def hidden():
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{inbox.stream}.{inbox.durable}"
        await fleet.nc.publish(pull, b'{"batch":1,"no_wait":true}')
        return (await inbox.depth()).stranded == 1

    await until(hidden)


async def test_an_inbox_letter_is_named_as_by_a_sweep(server):
    async with connected(server.url, agents=["ceo"], config=BRIEF) as fleet:
        await strand_inbox(fleet, "ceo")
        (found,) = await every(fleet)
        assert (found.stream, found.durable, found.deliveries) == ("INBOX_CEO", "ceo-processor", 1)
        origin = await fleet.jetstream.get("INBOX_CEO", found.seq)
        # The consumer's own sweep comes at the same time.
        moved, swept = await asyncio.gather(
            rescue(fleet, found), fleet.dead_letters.sweep("INBOX_CEO", "ceo-processor")
        )
        assert moved or swept
        (letter,) = await fleet.dead_letters.list()
        assert letter.entry == str(Entry("inbox", "ceo", origin.seq, origin.stored_ns))
        assert (letter.reason, letter.agent, letter.deliveries, letter.id) == ("crash", "ceo", 1, "m-ceo")
        seen = []

        async def handle(message):
            seen.append((message.id, message.data))

        await fleet.dead_letters.replay(letter.seq, by="x")
        async with running(fleet.inbox("ceo").consumer(), handle):
            await until(lambda: seen)
        assert seen == [("m-ceo", {"n": 1})]


async def test_a_role_queue_that_counts_on_the_server_is_named_by_its_role(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        await fleet.js.delete_consumer("TASKS_BACKEND", "backend-workers")
        worker = await foreign(fleet, stream="TASKS_BACKEND", durable="Their_Worker", max_deliver=1)
        await fleet.tasks("backend").submit("code", id="t")
        await nak_to_death(worker, 1, times=1)
        (found,) = await every(fleet)
        assert await rescue(fleet, found)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.source, letter.id) == ("tasks.backend", "t")


async def test_organizations_keep_out_of_each_others_streams(server):
    async with (
        connected(server.url, agents=["ceo"], config=BRIEF) as plain,
        connected(server.url, agents=["ceo"], org="acme", config=BRIEF) as acme,
    ):
        await strand_inbox(plain, "ceo")
        await strand_inbox(acme, "ceo")
        worker = await foreign(plain, stream="ACME_TOOLS", durable="tool", max_deliver=1)
        await fill(plain, "acme_tools.x")
        await nak_to_death(worker, 1, times=1)
        assert [one.stream for one in await every(plain)] == ["ACME_TOOLS", "INBOX_CEO"]
        assert [one.stream for one in await every(acme)] == ["ACME_INBOX_CEO", "ACME_TOOLS"]
        assert [one.stream for one in await every(plain, stream="INBOX_CEO")] == ["INBOX_CEO"]
        assert await every(acme, stream="INBOX_CEO") == []
        assert await every(plain, stream="NOT_THERE") == []
        (found,) = await every(acme, stream="ACME_INBOX_CEO")
        assert not await rescue(plain, found)
        assert await rescue(acme, found)
        (letter,) = await acme.dead_letters.list()
        assert letter.source == "inbox.ceo"
        assert await plain.dead_letters.list() == []


async def test_a_foreign_letter_does_not_touch_the_ledger_of_a_role_of_that_name(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="same")
        async with await queue.next("w", 20) as task:
            await task.reject("no")
        worker = await foreign(fleet, durable="backend", max_deliver=1)
        await fleet.js.publish("orders.a", b"{}", headers={"Nats-Msg-Id": "same"})
        await nak_to_death(worker, 1, times=1)
        (found,) = await every(fleet)
        assert await rescue(fleet, found)
        (letter,) = [one for one in await fleet.dead_letters.list() if one.stream == "ORDERS"]
        assert (letter.source, letter.id) == ("tasks.backend", "same")
        await fleet.dead_letters.replay(letter.seq, by="x")
        assert (await queue.status("same")).state == "rejected"


# -- names and the stream of the dead letters


def test_names_of_letters():
    durables = [
        "billing",
        "Billing",
        "BILLING",
        "billing-",
        "b!lling",
        "b?lling",
        "ä",
        "ö",
        "-",
        "x" * 64,
        "x" * 65,
        "x" * 66,
    ]
    names = [letter_name(durable) for durable in durables]
    assert names[0] == "billing"
    assert names[9] == "x" * 64
    assert len(set(names)) == len(names)
    for name in names:
        Names().tasks_stream(name)
        assert str(Entry.parse(f"tasks.{name}.1-1")) == f"tasks.{name}.1-1"


@pytest.mark.parametrize("org", [None, "acme"])
async def test_the_stream_of_the_dead_letters_is_that_of_provision(server, org):
    async with Fleet.connect(server.url, org=org) as fleet:
        assert await ensure_dead_letters(fleet)
        streams, _ = await fleet.jetstream.streams()
        assert [stream["config"]["name"] for stream in streams] == [fleet.names.dlq_stream]
        made = (await fleet.jetstream.stream_info(fleet.names.dlq_stream))["config"]
        await fleet.js.delete_stream(made["name"])
        await fleet.provision()
        assert (await fleet.jetstream.stream_info(fleet.names.dlq_stream))["config"] == made


async def test_dead_letters_that_exist_are_not_changed(server):
    async with Fleet.connect(server.url) as fleet:
        await fleet.js.add_stream(name="DLQ", subjects=["dlq.>"], max_msgs=5)
        before = (await fleet.jetstream.stream_info("DLQ"))["config"]
        assert not await ensure_dead_letters(fleet)
        assert (await fleet.jetstream.stream_info("DLQ"))["config"] == before
