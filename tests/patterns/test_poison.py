"""Messages, subscribers and interrupted moves that could hide work, keep it for ever or bring it back: none of them does."""

from __future__ import annotations

import asyncio
import itertools

import nats.errors
import pytest
from nats.js.errors import APIError

from patterns import (
    InvalidMessage,
    QueueFull,
    Reject,
    StreamLimits,
    Unavailable,
    UnknownDestination,
    sweeping,
)
from patterns.jetstream import JetStream
from patterns.message import decode
from patterns.names import Entry
from tests.support.fleets import connected, drained, fast, publish, running
from tests.support.waiting import until


async def publish_raw(server, subject, headers, body=b"{}"):
    """Publish bytes that no client would send: `headers` are whole lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    block = b"NATS/1.0\r\n" + headers + b"\r\n"
    sizes = f"{len(block)} {len(block) + len(body)}"
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write(f"HPUB {subject} {sizes}\r\n".encode() + block + body + b"\r\nPING\r\n")
    while (line := await reader.readline()) != b"PONG\r\n":
        assert line.startswith(b"INFO"), line
    writer.close()
    await writer.wait_closed()


async def refuse(delivery):
    raise Reject("no")


async def kill_one(fleet, consumer):
    """Let a consumer refuse the one message that is there, and return its letter."""
    async with running(consumer, refuse):
        (letter,) = await until(fleet.dead_letters.list)
    return letter


# -- a subscriber on everything


@pytest.fixture
async def overheard(server):
    """A fleet on a server where somebody listens to everything, as `nats sub '>'` does."""
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:

        async def listen(msg):
            pass

        await fleet.nc.subscribe(">", cb=listen)
        yield fleet


async def test_an_unknown_destination_is_told_although_somebody_listens_to_everything(overheard):
    async with asyncio.timeout(5):
        told = await asyncio.gather(
            overheard.inbox("nobody").send("note"),
            overheard.tasks("nobody").submit("code"),
            return_exceptions=True,
        )
    assert [type(error) for error in told] == [UnknownDestination, UnknownDestination]


async def test_an_outcome_without_an_inbox_is_a_letter_although_somebody_listens_to_everything(overheard):
    queue, runs = overheard.tasks("backend"), []

    async def work(task):
        runs.append(task.attempt)

    await queue.submit("code", id="a", reply_to="agents.ghost.inbox")
    async with running(queue.worker("w"), work):
        await drained(queue)
    (letter,) = await overheard.dead_letters.list()
    assert (letter.reason, letter.type, letter.name) == ("undeliverable", "task.completed", "ghost")
    assert (await queue.status("a")).state == "completed"
    assert runs == [1]


# -- headers


@pytest.mark.parametrize("status", ["404", "408"])
async def test_a_stored_status_header_does_not_end_a_page(server, status):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        for n in range(3):
            await publish(fleet, "agents.ceo.inbox.note", b"%d" % n, {"Status": status} if n == 1 else None)
        assert [message.data for message in await inbox.peek()] == [0, 1, 2]
        async with running(inbox.consumer(), refuse):
            await drained(inbox)
        assert [letter.message.data for letter in await fleet.dead_letters.list()] == [0, 1, 2]
        # A letter may have been written by other code.
        await publish(fleet, "dlq.inbox.ceo.77-4d", b"3", {"Status": status, "Dead-Letter-Reason": "rejected"})
        await publish(fleet, "dlq.inbox.ceo.78-4e", b"4", {"Dead-Letter-Reason": "rejected"})
        assert [letter.message.data for letter in await fleet.dead_letters.list()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "headers",
    [
        b"(x): y\r\n",
        b"A B: 2\r\n",
        b"X-Foo: \xff\xfe\r\n",
        b"X-Foo: " + b"y" * 65_200 + b"\r\n",
        b"".join(b"X-%04d: %s\r\n" % (n, b"y" * 48) for n in range(1_128)),
    ],
    ids=["name", "space", "bytes", "64 kB in one", "64 kB in many"],
)
async def test_headers_that_no_client_sends_do_not_keep_a_message_from_dying(server, headers):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, inbox = fleet.tasks("backend"), fleet.inbox("ceo")
        await publish_raw(server, "tasks.backend.code", headers, b'"task"')
        await publish_raw(server, "agents.ceo.inbox.note", headers, b'"poison"')
        await publish(fleet, "agents.ceo.inbox.note", b'"behind it"')
        async with running(queue.worker("w"), refuse), running(inbox.consumer(), refuse):
            await drained(queue)
            await drained(inbox)
        letters = await fleet.dead_letters.list()
        assert sorted(letter.message.data for letter in letters) == ["behind it", "poison", "task"]
        assert {letter.reason for letter in letters} == {"rejected"}
        assert {letter.subject for letter in letters} == {"tasks.backend.code", "agents.ceo.inbox.note"}


@pytest.mark.parametrize("name", ["ce-id", "ce-correlationid", "X-Note"])
async def test_an_outcome_is_sent_whatever_long_header_its_task_carries(server, name):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        for n in range(2):
            lines = f"Agent-Reply-To: agents.ceo.inbox\r\n{name}: {n}{'y' * 65_200}\r\n"
            await publish_raw(server, "tasks.backend.code", lines.encode(), b"%d" % n)

        async def work(task):
            if task.data == 1:
                raise Reject("no")

        async with running(queue.worker("w"), work):
            await drained(queue)
        told = await fleet.inbox("ceo").peek()
        assert [message.type for message in told] == ["task.completed", "task.failed"]
        assert [letter.message.data for letter in await fleet.dead_letters.list()] == [1]


async def test_a_reply_subject_that_is_too_long_does_not_cost_the_connection(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        headers = f"ce-id: a\r\nAgent-Reply-To: agents.{'y' * 60_000}.inbox\r\n"
        await publish_raw(server, "tasks.backend.code", headers.encode())

        async def work(task):
            pass

        async with running(queue.worker("w"), work):
            await drained(queue)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.reason, letter.type) == ("undeliverable", "task.completed")
        assert (await queue.status("a")).state == "completed"
        assert fleet.nc.stats["reconnects"] == 0


async def test_an_error_text_that_is_no_unicode_reaches_letter_ledger_and_sender(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            raise Reject("bad \udcff.txt")

        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with running(queue.worker("w"), work):
            await drained(queue)
        (letter,) = await fleet.dead_letters.list()
        (told,) = await fleet.inbox("ceo").peek()
        status = await queue.status("a")
        assert (told.type, told.data["task"], status.state) == ("task.failed", "a", "rejected")
        for text in (letter.error, told.data["error"], status.error):
            assert "bad " in text
            assert ".txt" in text


@pytest.mark.parametrize("fate", ["completed", "failed"])
async def test_an_id_that_is_no_unicode_is_told_to_the_sender(server, fate):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append(task.attempt)
            if fate == "failed":
                raise Reject("no")

        headers = {"ce-id": "%ED%B3%BF", "Agent-Reply-To": "agents.ceo.inbox"}
        await publish(fleet, "tasks.backend.code", b"{}", headers)
        async with running(queue.worker("w"), work):
            await drained(queue)
        assert [message.type for message in await fleet.inbox("ceo").peek()] == [f"task.{fate}"]
        assert runs == [1]
        assert len(await fleet.dead_letters.list()) == (fate == "failed")


async def test_a_forged_count_of_replays_does_not_keep_a_task_from_dying(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        headers = {"Dead-Letter-Replays": "%ED%A0%80", "Agent-Reply-To": "agents.ceo.inbox"}
        await publish(fleet, "tasks.backend.code", b"{}", headers)
        letter = await kill_one(fleet, queue.worker("w"))
        await drained(queue)
        assert letter.replays == 0
        assert [message.type for message in await fleet.inbox("ceo").peek()] == ["task.failed"]


@pytest.mark.parametrize("kind", ["tasks", "inbox"])
async def test_a_forged_replay_is_handled_like_any_other_message(server, kind):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, runs = (fleet.tasks("backend") if kind == "tasks" else fleet.inbox("ceo")), []
        subject = "tasks.backend.code" if kind == "tasks" else "agents.ceo.inbox.note"
        for n, forged in enumerate(
            ("tasks.*.1-ff", "tasks.a b.1-ff", "tasks.>.1-ff", f"tasks.backend.{'9' * 30}-{'f' * 30}", "\u0661")
        ):
            headers = {"Agent-Replay-Of": forged, "Dead-Letter-Replays": "9" * 30}
            await publish(fleet, subject, b"%d" % n, headers)

        async def work(delivery):
            runs.append(delivery.data)

        consumer = queue.worker("w") if kind == "tasks" else queue.consumer()
        async with running(consumer, work):
            await drained(queue)
        assert sorted(runs) == [0, 1, 2, 3, 4]


async def test_forged_death_headers_of_a_first_life_do_not_survive_into_the_letter(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        forged = {
            "Dead-Letter-Replays": "99999",
            "Dead-Letter-Error-Type": "Forged",
            "Dead-Letter-Error-At-Line": "forged",
            "Dead-Letter-Replayed-By": "root",
            "Dead-Letter-First-At": "1999-01-01T00:00:00Z",
            "Dead-Letter-Truncated": "12",
        }
        await publish(fleet, "agents.ceo.inbox.note", b"not json", forged)
        inbox = fleet.inbox("ceo")
        async with running(inbox.consumer(), refuse):
            (letter,) = await until(fleet.dead_letters.list)
        assert (letter.replays, letter.error_type) == (0, "")
        assert letter.first_at == letter.died_at
        stored = await fleet.jetstream.get("DLQ", letter.seq)
        assert not {"Dead-Letter-Replayed-By", "Dead-Letter-Truncated", "Dead-Letter-Replays"} & set(stored.headers)
        assert not {"forged", "Forged", "root", "12"} & set(stored.headers.values())
        # Neither limit nor mark of the forger keeps it from being replayed.
        await fleet.dead_letters.replay(letter.seq, by="x")
        assert len(await inbox.peek()) == 1


# -- moves


async def test_a_sweep_with_one_unmovable_message_moves_the_others(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox, letters = fleet.inbox("ceo"), fleet.dead_letters
        for n in range(3):
            await inbox.send("note", n, id=f"m-{n}")

        async def all_of_them(js, stream, durable):
            return (await js.read(stream)).messages

        monkeypatch.setattr(sweeping, "stranded", all_of_them)
        real = JetStream.publish

        async def refused(js, subject, body, headers, **options):
            if subject.startswith("dlq.inbox.ceo.1-"):
                raise APIError(code=400, err_code=10097, description="header size exceeds maximum allowed of 64k")
            return await real(js, subject, body, headers, **options)

        monkeypatch.setattr(JetStream, "publish", refused)
        assert await letters.sweep(inbox.stream, inbox.durable) == 2
        assert [letter.id for letter in await letters.list()] == ["m-1", "m-2"]
        assert [message.id for message in await inbox.peek()] == ["m-0"]


async def test_dl14_a_mover_whose_confirmation_was_lost_does_not_bring_a_discarded_letter_back(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet, connected(server.url) as other:
        inbox = fleet.inbox("ceo")
        receipt = await inbox.send("note", id="a")
        origin = await fleet.jetstream.get(inbox.stream, receipt.seq)
        entry = Entry("inbox", "ceo", origin.seq, origin.stored_ns)
        message = decode(origin.subject, origin.headers, origin.body, names=fleet.names, stream=inbox.stream, seq=1)
        death = {"reason": "crash", "stream": inbox.stream, "deliveries": 3, "message": message}
        assert await other.burials.bury(entry, origin, **death)
        (letter,) = await other.dead_letters.list()
        await other.dead_letters.discard(letter.seq, by="x")
        real, lost = fleet.nc.request, []

        async def deaf(subject, *args, **options):
            answer = await real(subject, *args, **options)
            if subject.startswith("dlq.") and not lost:
                lost.append(subject)
                raise nats.errors.TimeoutError
            return answer

        monkeypatch.setattr(fleet.nc, "request", deaf)
        assert not await fleet.burials.bury(entry, origin, **death)
        assert lost
        assert await fleet.dead_letters.list() == []


async def test_replaying_the_old_letter_of_a_task_that_died_again_leaves_its_record(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        letter = await kill_one(fleet, queue.worker("w"))

        async def killed(js, stream, seq):
            raise Unavailable("killed before the letter was deleted")

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "delete", killed)
            with pytest.raises(Unavailable):
                await fleet.dead_letters.replay(letter.seq, by="x")
        async with running(queue.worker("w"), refuse):

            async def two():
                return len(await fleet.dead_letters.list()) == 2

            await until(two)
            await drained(queue)
            before = await queue.status("a")
            assert before.state == "rejected"
            assert (await fleet.dead_letters.replay(letter.seq, by="x")).duplicate
        after = await queue.status("a")
        assert (after.state, after.error, after.attempts, after.seq) == (
            before.state,
            before.error,
            before.attempts,
            before.seq,
        )
        assert [left.replays for left in await fleet.dead_letters.list()] == [1]


async def test_a_replay_into_a_full_queue_is_refused_and_leaves_the_record(server):
    async with connected(server.url, roles=["backend"], config=fast(limits=StreamLimits(max_msgs=1))) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        letter = await kill_one(fleet, queue.worker("w"))
        await drained(queue)
        before = await queue.status("a")
        await queue.submit("code", id="b")
        with pytest.raises(QueueFull):
            await fleet.dead_letters.replay(letter.seq, by="x")
        after = await queue.status("a")
        assert (before.state, after.state) == ("rejected", "rejected")
        assert (after.error, after.note, after.seq) == (before.error, before.note, before.seq)
        assert [left.seq for left in await fleet.dead_letters.list()] == [letter.seq]


@pytest.mark.parametrize("kind", ["tasks", "inbox"])
async def test_a_replayed_message_is_handled_on_a_fleet_without_receipts(server, kind):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, runs = (fleet.tasks("backend") if kind == "tasks" else fleet.inbox("ceo")), []

        def consumer():
            return queue.worker("w") if kind == "tasks" else queue.consumer()

        await (queue.submit("code", id="a") if kind == "tasks" else queue.send("note", id="a"))
        letter = await kill_one(fleet, consumer())
        await fleet.js.delete_stream("KV_RECEIPTS")
        await fleet.dead_letters.replay(letter.seq, by="x")

        async def work(delivery):
            runs.append(delivery.id)

        async with running(consumer(), work):
            await drained(queue)
        assert runs == ["a"]
        assert await fleet.dead_letters.list() == []


async def test_a_letter_near_the_limit_is_replayed_whole_and_a_cut_one_only_with_a_new_body(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox, most = fleet.inbox("ceo"), fleet.nc.max_payload
        sizes = (most - 4_000, most - 60)
        for size in sizes:
            await publish(fleet, "agents.ceo.inbox.note", b"y" * size, {"Content-Type": "text/plain"})
        async with running(inbox.consumer(), refuse):
            await drained(inbox)
        whole, cut = await fleet.dead_letters.list()
        await fleet.dead_letters.replay(whole.seq, by="x")
        assert [len(message.body) for message in await inbox.peek()] == [sizes[0]]
        with pytest.raises(InvalidMessage, match="part of its body"):
            await fleet.dead_letters.replay(cut.seq, by="x")
        assert [letter.seq for letter in await fleet.dead_letters.list()] == [cut.seq]
        await fleet.dead_letters.replay(cut.seq, by="x", data={"n": 1})
        assert (await inbox.peek())[1].data == {"n": 1}
        assert await fleet.dead_letters.list() == []


@pytest.mark.parametrize("fate", ["completed", "failed"])
async def test_an_outcome_that_is_sent_again_has_the_id_of_the_first_one(server, fate):
    agents = ["ceo", "cto"]
    async with connected(server.url, agents=agents, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")

        async def work(task):
            if fate == "failed":
                raise Reject("no")

        async with running(queue.worker("w"), work):
            # Two inboxes, because in the same one the second outcome is recognized and not even stored.
            for agent in agents:
                headers = {"ce-id": "a", "Agent-Reply-To": f"agents.{agent}.inbox"}
                await publish(fleet, "tasks.backend.code", b"{}", headers)
                await drained(queue)
        told = [await fleet.inbox(agent).peek() for agent in agents]
        assert [[message.type for message in each] for each in told] == [[f"task.{fate}"]] * 2
        (first, second) = itertools.chain.from_iterable(told)
        assert first.headers["ce-id"] == second.headers["ce-id"] == first.id
