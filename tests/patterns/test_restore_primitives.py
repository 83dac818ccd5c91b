"""What an operator's restore stands on: exact headers, receipts that can be taken back, guards, and an order to keep."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import nats.errors
import pytest

from patterns import (
    DeadLetterConfig,
    InvalidMessage,
    MessageTooLarge,
    Unavailable,
    UnknownDeadLetter,
    UnknownDestination,
)
from patterns.jetstream import JetStream
from patterns.message import EXPECTED_LAST_SUBJECT_SEQUENCE, EXPECTED_STREAM, OUTCOME_OF, REPLAY_OF
from patterns.names import Entry
from patterns.replaying import STREAMS_KNOWN
from patterns.stored import HeaderLines, header_lines
from tests.support.fleets import connected, fast, publish, running, take
from tests.support.letters import forge
from tests.support.waiting import until

ENTRY = Entry("inbox", "ceo", 7, 0xABC)

ODD_LINES = [
    ("X-Twice", b"one"),
    ("X-Latin", b"caf\xe9 \xff\x00"),
    ("X-Twice", b"two"),
    ("X-Blank", b"  both ends \t"),
    ("X-Empty", b""),
    ("x-twice", b"three"),
    ("X-Colon", b"a: b\rc"),
]


async def bury(fleet, *, type="note", agent="ceo"):
    """Send a message to an inbox, let it be rejected, and return its letter."""
    await fleet.inbox(agent).send(type, {"n": 1})
    async with await fleet.inbox(agent).next(20) as message:
        await message.reject("poison")
    return (await fleet.dead_letters.list(limit=1000))[-1]


async def store(fleet, block, body=b"{}", subject="agents.ceo.inbox.note"):
    """Publish a raw header block as no client library would; its sequence."""
    answer = fleet.nc.new_inbox()
    subscription = await fleet.nc.subscribe(answer)
    head = f"HPUB {subject} {answer} {len(block)} {len(block) + len(body)}\r\n".encode()
    await fleet.nc._send_command(head + block + body + b"\r\n")
    await fleet.nc._flush_pending()
    await subscription.next_msg(5)
    return (await fleet.jetstream.last("INBOX_CEO", subject)).seq


# -- header lines


async def test_a_header_block_is_read_as_it_is_stored(server):
    block = b"NATS/1.0\r\nA: 1\r\nB:2\r\nA:  3 \r\nno colon\r\nn\xe4me: x\r\nC: \xff\xfe\r\n\r\n"
    async with connected(server.url, agents=["ceo"]) as fleet:
        seq = await store(fleet, block)
        got = await fleet.jetstream.get("INBOX_CEO", seq)
        assert got.header_block == block
        assert (await fleet.jetstream.last("INBOX_CEO", got.subject)).header_block == block
        assert header_lines(block) == [("A", b"1"), ("B", b"2"), ("A", b" 3 "), ("C", b"\xff\xfe")]
        (read,) = (await fleet.jetstream.read("INBOX_CEO")).messages
        assert read.header_block == b""
        assert (read.seq, read.stored_ns, read.body) == (got.seq, got.stored_ns, got.body)
        await fleet.js.publish("agents.ceo.inbox.bare", b"{}")
        assert (await fleet.jetstream.get("INBOX_CEO", seq + 1)).header_block == b""
        assert header_lines(b"") == []


@pytest.mark.parametrize("wrapped", [True, False], ids=["HeaderLines", "plain lines"])
async def test_lines_go_through_a_publish_byte_for_byte(server, wrapped):
    async with connected(server.url, agents=["ceo"]) as fleet:
        js = fleet.jetstream
        lines = HeaderLines(ODD_LINES) if wrapped else ODD_LINES
        first = await js.publish("agents.ceo.inbox.note", b"body", lines)
        got = await js.get("INBOX_CEO", first.seq)
        assert header_lines(got.header_block) == ODD_LINES
        assert got.header_block == HeaderLines(ODD_LINES).block
        # Once more through all of it, now with what the publish itself adds.
        again = await js.publish(
            "agents.ceo.inbox.copy", got.body, HeaderLines(header_lines(got.header_block)), stream="INBOX_CEO",
            expect_empty_subject=True,
        )  # fmt: skip
        copy = await js.get("INBOX_CEO", again.seq)
        added = [(EXPECTED_STREAM, b"INBOX_CEO"), (EXPECTED_LAST_SUBJECT_SEQUENCE, b"0")]
        assert [line for line in header_lines(copy.header_block) if line not in added] == ODD_LINES
        assert copy.body == b"body"


async def test_an_expectation_of_old_is_replaced_and_not_sent_beside_the_new_one(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        old = [(EXPECTED_STREAM, b"GONE"), ("X", b"1"), (EXPECTED_LAST_SUBJECT_SEQUENCE, b"9")]
        ack = await fleet.jetstream.publish("agents.ceo.inbox.note", b"", old, stream="INBOX_CEO", last_seq=0)
        assert ack.stream == "INBOX_CEO"
        with pytest.raises(UnknownDestination):
            await fleet.jetstream.publish("agents.ceo.inbox.note", b"", HeaderLines(old))


async def test_no_lines_are_no_headers(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        ack = await fleet.jetstream.publish("agents.ceo.inbox.note", b"x", HeaderLines())
        assert (await fleet.jetstream.get("INBOX_CEO", ack.seq)).header_block == b""


@pytest.mark.parametrize("name", ["", " X", "X ", "a b", "ä", "X\r\nY", "X:"])
async def test_a_name_that_cannot_be_sent_is_refused_before_anything_is_sent(server, name):
    async with connected(server.url, agents=["ceo"]) as fleet:
        sent = fleet.nc.stats["out_msgs"]
        with pytest.raises(InvalidMessage):
            HeaderLines([(name, b"v")])
        with pytest.raises(InvalidMessage):
            await fleet.jetstream.publish("agents.ceo.inbox.note", b"", [("X", b"1"), (name, b"v")])
        if name.strip() not in ("", "X"):  # these nats-py itself makes a name of, or leaves out
            with pytest.raises(InvalidMessage):
                await fleet.jetstream.publish("agents.ceo.inbox.note", b"", {name: "v"})
        assert fleet.nc.stats["out_msgs"] == sent


def test_a_value_cannot_begin_another_line():
    with pytest.raises(InvalidMessage):
        HeaderLines([("X", b"1\r\nNats-Rollup: all")])


async def test_the_size_of_lines_is_counted_to_the_byte(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        js, most = fleet.jetstream, fleet.nc.max_payload
        lines = HeaderLines(ODD_LINES)
        room = most - len(lines.replacing({EXPECTED_STREAM: "INBOX_CEO"}).block)
        options = {"stream": "INBOX_CEO", "headroom": 0}
        ack = await js.publish("agents.ceo.inbox.note", b"x" * room, lines, **options)
        stored = await js.get("INBOX_CEO", ack.seq)
        assert len(stored.header_block) + len(stored.body) == most
        with pytest.raises(MessageTooLarge):
            await js.publish("agents.ceo.inbox.note", b"x" * (room + 1), lines, **options)


# -- the moment before a replay


async def test_replays_at_once_keep_their_order(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letters = [await bury(fleet, type=f"n{n}") for n in range(30)]
        turns = [asyncio.Event() for _ in range(31)]
        turns[0].set()
        begun = []

        async def replay(n):
            async def mine():
                await turns[n].wait()
                begun.append(n)
                turns[n + 1].set()

            await asyncio.sleep(random.random() * 0.05)
            await fleet.dead_letters.replay(letters[n].seq, by="x", before_publish=mine)

        await asyncio.gather(*map(replay, reversed(range(30))))
        assert begun == list(range(30))
        assert [m.type for m in await fleet.inbox("ceo").peek(40)] == [f"n{n}" for n in range(30)]


async def test_nothing_else_runs_between_the_gate_and_the_publish(server, monkeypatch):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await fleet.tasks("backend").submit("code", id="t")
        async with await fleet.tasks("backend").next("w", 20) as task:
            await task.reject("no")
        (letter,) = await fleet.dead_letters.list()
        steps = []
        write = fleet.nc._send_command

        async def written(command, *args, **options):
            if b"PUB tasks.backend." in command:
                steps.append("written")
            await write(command, *args, **options)

        monkeypatch.setattr(fleet.nc, "_send_command", written)

        async def gate():
            assert (await fleet.tasks("backend").status("t")).state == "submitted", "it is repaired before"
            asyncio.get_running_loop().call_soon(steps.append, "something else")
            steps.append("gate")

        await fleet.dead_letters.replay(letter.seq, by="x", before_publish=gate)
        assert steps == ["gate", "written", "something else"]


async def test_a_gate_that_refuses_leaves_everything_as_it_was(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="t")
        async with await queue.next("w", 20) as task:
            await task.reject("no")
        (letter,) = await fleet.dead_letters.list()

        async def gate():
            raise RuntimeError("the disk is full")

        with pytest.raises(RuntimeError):
            await fleet.dead_letters.replay(letter.seq, by="x", before_publish=gate)
        assert await fleet.dead_letters.list() == [letter]
        assert (await queue.status("t")).state == "rejected"
        assert (await queue.depth()).messages == 0


async def test_a_gate_is_not_asked_for_what_is_not_sent(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        asked = []

        async def gate():
            asked.append(1)

        seq = await forge(fleet, "inbox.ceo.1-1", "nowhere.at.all")
        with pytest.raises(UnknownDestination):
            await fleet.dead_letters.replay(seq, by="x", before_publish=gate)
        with pytest.raises(UnknownDeadLetter):
            await fleet.dead_letters.replay(seq + 1, by="x", before_publish=gate)
        assert asked == []


# -- the letter that is meant


async def test_only_the_copy_that_is_meant_is_replayed_or_discarded(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        dead, letter = fleet.dead_letters, await bury(fleet)
        at = (await fleet.jetstream.get("DLQ", letter.seq)).stored_ns
        other = str(Entry("inbox", "ceo", 99, 1))
        for wrong in ({"stored_ns": at + 1}, {"entry": other}, {"stored_ns": at, "entry": other}):
            with pytest.raises(UnknownDeadLetter):
                await dead.discard(letter.seq, by="x", **wrong)
            with pytest.raises(UnknownDeadLetter):
                await dead.replay(letter.seq, by="x", **wrong)
        assert await dead.list() == [letter]
        await dead.replay(letter.seq, by="x", entry=letter.entry, stored_ns=at)
        second = await bury(fleet)
        at = (await fleet.jetstream.get("DLQ", second.seq)).stored_ns
        await dead.discard(second.seq, by="x", entry=second.entry, stored_ns=at)
        assert await dead.list() == []


# -- what a replay costs, and what is remembered


async def test_a_replay_costs_five_requests(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letters = [await bury(fleet) for _ in range(3)]
        asked = []
        real = fleet.nc.request

        async def request(subject, *args, **options):
            asked.append(subject)
            return await real(subject, *args, **options)

        await fleet.dead_letters.replay(letters[0].seq, by="x")
        monkeypatch.setattr(fleet.nc, "request", request)
        for letter in letters[1:]:
            asked.clear()
            await fleet.dead_letters.replay(letter.seq, by="x")
            assert asked == [
                "$JS.API.STREAM.MSG.GET.DLQ",
                "$JS.API.STREAM.MSG.GET.INBOX_CEO",
                "agents.ceo.inbox.note",
                f"$KV.RECEIPTS.resolved.{letter.entry}",
                "$JS.API.STREAM.MSG.DELETE.DLQ",
            ]
        assert len(await fleet.inbox("ceo").peek()) == 3


async def renamed(fleet, name):
    """Let the inbox of `ceo` be another stream than before."""
    config = (await fleet.jetstream.stream_info("INBOX_CEO"))["config"]
    await fleet.js.delete_stream("INBOX_CEO")
    if name:
        await fleet.jetstream.api(f"STREAM.CREATE.{name}", {**config, "name": name})


@pytest.mark.parametrize("to", [None, "agents.ceo.inbox.moved"])
async def test_a_stream_that_was_made_anew_under_another_name_is_found(server, to):
    async with connected(server.url, agents=["ceo"]) as fleet:
        one, other = await bury(fleet), await bury(fleet)
        assert (await fleet.dead_letters.replay(one.seq, by="x", to=to)).stream == "INBOX_CEO"
        await renamed(fleet, "MAIL_CEO")
        asked = []

        async def gate():
            asked.append(1)

        receipt = await fleet.dead_letters.replay(other.seq, by="x", to=to, before_publish=gate)
        assert (receipt.stream, asked) == ("MAIL_CEO", [1])
        assert await fleet.dead_letters.list() == []


async def test_a_stream_that_is_gone_is_not_remembered(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        one, other = await bury(fleet), await bury(fleet)
        await fleet.dead_letters.replay(one.seq, by="x")
        await renamed(fleet, None)
        with pytest.raises(UnknownDestination):
            await fleet.dead_letters.replay(other.seq, by="x")
        assert await fleet.dead_letters.list() == [other]


async def test_what_is_remembered_of_destinations_is_bounded(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        dead = fleet.dead_letters

        async def names(js, subject):
            return ["INBOX_CEO"]

        monkeypatch.setattr(JetStream, "stream_names", names)
        for n in range(STREAMS_KNOWN + 5):
            await dead._replayer._destination_stream(f"a.{n}", None)
        assert len(dead._replayer._streams) == STREAMS_KNOWN
        assert ("a.4", None) not in dead._replayer._streams
        assert ("a.5", None) in dead._replayer._streams


# -- receipts that are taken back


async def test_a_deleted_key_can_be_created_again(server):
    async with connected(server.url) as fleet:
        bucket = fleet.burials.receipts
        assert not await bucket.delete("never.there")
        assert await bucket.create("some.key", b"1")
        assert await bucket.create("some.key.below", b"2")
        assert not await bucket.create("some.key", b"x")
        assert await bucket.delete("some.key")
        assert await bucket.get("some.key") is None
        assert not await bucket.delete("some.key")
        assert await bucket.create("some.key", b"3")
        assert await bucket.get("some.key") == b"3"
        assert await bucket.get("some.key.below") == b"2"


async def test_a_key_that_is_written_while_it_is_deleted_stays(server, monkeypatch):
    async with connected(server.url) as fleet:
        bucket = fleet.burials.receipts
        await bucket.create("k", b"1")
        real = JetStream.publish

        async def late(js, subject, body, headers, **options):
            if "KV-Operation" in headers:
                await bucket.update("k", b"2", (await bucket.look("k"))[1])
            return await real(js, subject, body, headers, **options)

        monkeypatch.setattr(JetStream, "publish", late)
        assert not await bucket.delete("k")
        assert await bucket.get("k") == b"2"


async def test_without_a_bucket_there_is_nothing_to_take_back(server):
    async with connected(server.url) as fleet:
        await fleet.js.delete_stream("KV_RECEIPTS")
        assert not await fleet.burials.receipts.delete("k")
        await fleet.burials.reopen(ENTRY)
        assert await fleet.burials.unclaim({REPLAY_OF: str(ENTRY)}, "INBOX_CEO", 1) == "free"


@pytest.mark.parametrize("reopened", [True, False])
async def test_a_mover_that_slept_takes_no_restored_letter_for_its_own(server, reopened):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", {"n": 1})
        origin = await fleet.jetstream.get("INBOX_CEO", 1)
        async with await fleet.inbox("ceo").next(20) as message:
            await message.reject("poison")
        (letter,) = await fleet.dead_letters.list()
        entry = Entry.parse(letter.entry)
        copy = await fleet.jetstream.get("DLQ", letter.seq)
        await fleet.dead_letters.discard(letter.seq, by="x")
        # What the operator's restore does.
        if reopened:
            await fleet.burials.reopen(entry)
        lines = HeaderLines(header_lines(copy.header_block))
        await fleet.jetstream.publish(copy.subject, copy.body, lines, stream="DLQ", expect_empty_subject=True)
        stands = await fleet.burials.bury(
            entry, origin, reason="crash", stream="INBOX_CEO", deliveries=3, message=letter.message
        )
        assert stands == reopened
        assert [one.entry for one in await fleet.dead_letters.list()] == ([letter.entry] if reopened else [])
        if reopened:
            # And it can be discarded like any other.
            (restored,) = await fleet.dead_letters.list()
            await fleet.dead_letters.discard(restored.seq, by="x")
            assert b"discarded" in await fleet.burials.receipts.get(f"resolved.{entry}")


async def test_a_message_that_was_delivered_before_its_purge_may_be_handled_after_its_restore(server):
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"ack_wait": 1.0})) as fleet:
        letter = await bury(fleet)
        receipt = await fleet.dead_letters.replay(letter.seq, by="x")
        inbox = fleet.inbox("ceo")
        # Delivered, its receipt is written, and its worker dies.
        message = await take(fleet, inbox.stream, inbox.durable)
        assert await fleet.burials.claim(message.headers, inbox.stream, receipt.seq)
        purged = await fleet.jetstream.get(inbox.stream, receipt.seq)
        await fleet.jetstream.delete(inbox.stream, receipt.seq)

        assert await fleet.burials.unclaim(purged.headers, inbox.stream, receipt.seq) == "free"
        lines = [line for line in header_lines(purged.header_block) if not line[0].startswith("Nats-")]
        await fleet.jetstream.publish(purged.subject, purged.body, lines, stream=inbox.stream)
        handled = []

        async def handle(message):
            handled.append(message.seq)

        async with running(inbox.consumer(), handle):
            await until(lambda: handled)
        assert handled == [receipt.seq + 1]


@pytest.mark.parametrize(
    "headers",
    [{REPLAY_OF: str(ENTRY), "Dead-Letter-Replays": "2"}, {OUTCOME_OF: f"{ENTRY} failed"}],
    ids=["replay", "outcome"],
)
async def test_a_second_copy_of_something_handled_is_not_to_be_restored(server, headers):
    async with connected(server.url, agents=["ceo"]) as fleet:
        burials = fleet.burials
        assert await burials.unclaim(headers, "INBOX_CEO", 5) == "free"
        assert await burials.claim(headers, "INBOX_CEO", 4)
        for stream, seq in (("INBOX_CEO", 5), ("INBOX_CTO", 4)):
            assert await burials.unclaim(headers, stream, seq) == "handled"
        assert not await burials.claim(headers, "INBOX_CEO", 5), "its receipt is still there"
        assert await burials.unclaim(headers, "INBOX_CEO", 4) == "free"
        assert await burials.claim(headers, "INBOX_CEO", 6)


@pytest.mark.parametrize("headers", [{}, {REPLAY_OF: "nonsense"}, {OUTCOME_OF: f"{ENTRY} maybe"}])
async def test_what_needs_no_receipt_is_free(server, headers):
    async with connected(server.url) as fleet:
        assert await fleet.burials.unclaim(headers, "INBOX_CEO", 1) == "free"


# -- whether there is a second line of defence


async def test_a_stream_is_guarded_if_all_its_consumers_look_for_receipts(server):
    async with connected(server.url, agents=["ceo", "cto"], roles=["backend"]) as fleet:
        dead = fleet.dead_letters
        for stream in ("INBOX_CEO", "TASKS_BACKEND"):
            assert await dead.guarded(stream)
        assert not await dead.guarded("NOT_THERE")
        await fleet.js.add_stream(name="PLAIN", subjects=["plain.>"], retention="workqueue")
        assert await dead.guarded("PLAIN"), "nobody is there who could handle a copy twice"
        await fleet.jetstream.api(
            "CONSUMER.CREATE.PLAIN.mine.plain.a",
            {
                "stream_name": "PLAIN",
                "config": {
                    "durable_name": "mine", "ack_policy": "explicit", "filter_subject": "plain.a",
                    "metadata": {"agents.receipts": "1"},
                },
            },
        )  # fmt: skip
        assert await dead.guarded("PLAIN")
        await fleet.js.pull_subscribe("plain.b", durable="theirs", stream="PLAIN")
        assert not await dead.guarded("PLAIN")
        await fleet.js.delete_stream("KV_RECEIPTS")
        assert not await dead.guarded("INBOX_CEO")
        await fleet.js.delete_consumer("INBOX_CTO", "cto-processor")
        assert not await dead.guarded("INBOX_CTO")


# -- together


async def test_many_replays_at_once_with_guards_handle_each_message_once(server):
    config = fast(dead_letters=DeadLetterConfig(max_replays=50))
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        letters = [await bury(fleet, type=f"n{n}") for n in range(20)]
        stored = {letter.seq: (await fleet.jetstream.get("DLQ", letter.seq)).stored_ns for letter in letters}

        async def replay(letter):
            try:
                await fleet.dead_letters.replay(letter.seq, by="x", entry=letter.entry, stored_ns=stored[letter.seq])
            except UnknownDeadLetter:
                return

        handled = Counter()

        async def handle(message):
            handled[message.type] += 1

        async with running(fleet.inbox("ceo").consumer(), handle):
            await asyncio.gather(*(replay(letter) for letter in letters * 2))
            await until(lambda: len(handled) == 20)
        assert set(handled.values()) == {1}
        assert await publish(fleet, "agents.ceo.inbox.after", b"{}")


@pytest.mark.parametrize("insist", [True, False])
async def test_who_does_not_insist_sends_nothing_twice_to_a_server_that_has_forgotten(server, monkeypatch, insist):
    async with connected(server.url) as fleet:
        await fleet.js.add_stream(name="PLAIN", subjects=["plain.>"], retention="workqueue")
        await forge(fleet, "tasks.worker.1-1", "plain.job", Stream="PLAIN")
        real, copies = fleet.nc.request, 0

        async def request(subject, *args, **options):
            nonlocal copies
            answer = await real(subject, *args, **options)
            if subject == "plain.job":
                # Stored, consumed, and the server dies before it can say so.
                copies += 1
                if copies == 1:
                    await fleet.jetstream.purge("PLAIN", everything=True)
                    connections = fleet.nc.stats["reconnects"]
                    server.kill()
                    server.restart()
                    await until(lambda: fleet.nc.is_connected and fleet.nc.stats["reconnects"] > connections)
                    raise nats.errors.TimeoutError
            return answer

        monkeypatch.setattr(fleet.nc, "request", request)
        if insist:
            assert not (await fleet.dead_letters.replay(1, by="test")).duplicate
        else:
            with pytest.raises(Unavailable, match="may or may not"):
                await fleet.dead_letters.replay(1, by="test", insist=False)
        assert copies == (2 if insist else 1)
        assert len(await fleet.dead_letters.list()) == (0 if insist else 1)
