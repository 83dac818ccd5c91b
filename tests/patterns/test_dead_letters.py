"""Dead letters: nothing is lost or doubled on the way in, on the way back, or by a process that dies on the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

import patterns.inbox
from patterns import (
    AlreadyReplayed,
    DeadLetterConfig,
    Reject,
    ReplayLimit,
    Unavailable,
    UnknownDeadLetter,
    UnknownDestination,
)
from patterns.jetstream import JetStream
from patterns.lane import Lane
from patterns.message import decode
from patterns.names import Entry
from patterns.stored import StoredMessage
from tests.support.fleets import connected, fast, publish, running, take
from tests.support.letters import forge, forge_many
from tests.support.waiting import until


class Killed(BaseException):
    """The process ends here: nothing in the library may catch it."""


def kill(monkeypatch, target, name, when, matches=lambda *args: True):
    """Let the next matching call of a library step die, before or after it has happened; later ones work."""
    real = getattr(target, name)
    died = []

    async def step(*args, **options):
        if died or not matches(*args):
            return await real(*args, **options)
        died.append(name)
        if when == "after":
            await real(*args, **options)
        raise Killed(name)

    monkeypatch.setattr(target, name, step)
    return died


async def letters(fleet, count=1):
    """The dead letters, as soon as there are `count`."""

    async def enough():
        found = await fleet.dead_letters.list()
        return found if len(found) == count else None

    return await until(enough)


async def bury(fleet, agent="ceo", text="poison", **options):
    """Send a message to an inbox, let it be rejected, and return its letter."""
    receipt = await fleet.inbox(agent).send("note", {"n": 1}, **options)
    async with await fleet.inbox(agent).next(20) as message:
        assert message.seq == receipt.seq
        await message.reject(text)
    return (await fleet.dead_letters.list(limit=1000))[-1]


async def bury_task(fleet, id="t", **options):
    """Submit a task, let it be rejected, and return its letter."""
    queue = fleet.tasks("backend")
    await queue.submit("code", {"n": 1}, id=id, **options)
    async with await queue.next("w", 20) as task:
        await task.reject("no")
    return (await fleet.dead_letters.list(limit=1000))[-1]


async def strand(fleet, agent="ceo", count=1):
    """Leave messages behind that used up their only delivery: `max_deliver=1` and a worker that died each time."""
    inbox = fleet.inbox(agent)
    for n in range(count):
        await inbox.send("note", n)
    for _ in range(count):
        await take(fleet, inbox.stream, inbox.durable)

    async def hidden():
        # The server notices that a lease is over when somebody pulls.
        await fleet.nc.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{inbox.stream}.{inbox.durable}", b'{"batch":1,"no_wait":true}'
        )
        return (await inbox.depth()).stranded == count

    await until(hidden)


BRIEF = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})


# -- dying


async def test_dl1_two_that_sweep_at_once_make_one_letter_a_message(server):
    async with connected(server.url, agents=["ceo"], config=BRIEF) as one, connected(server.url) as other:
        await strand(one, count=3)
        inbox = one.inbox("ceo")
        moved = await asyncio.gather(*(f.dead_letters.sweep(inbox.stream, inbox.durable) for f in (one, other, one)))
        # One that finds a message gone already does not count it, so none need have moved them all.
        assert sum(moved) >= 3
        found = await one.dead_letters.list()
        assert sorted(letter.message.data for letter in found) == [0, 1, 2]
        assert {(letter.reason, letter.deliveries, letter.name) for letter in found} == {("crash", 1, "ceo")}
        assert (await inbox.depth()).messages == 0
        assert await one.dead_letters.sweep(inbox.stream, inbox.durable) == 0


async def test_dl1_a_sweep_finishes_what_another_one_left_half_moved(server, monkeypatch):
    async with connected(server.url, agents=["ceo"], config=BRIEF) as fleet:
        await strand(fleet)
        inbox = fleet.inbox("ceo")
        with monkeypatch.context() as patch:
            kill(patch, fleet.jetstream, "delete", "before")
            with pytest.raises(Killed):
                await fleet.dead_letters.sweep(inbox.stream, inbox.durable)
        (letter,) = await fleet.dead_letters.list()
        assert (await inbox.depth()).messages == 1
        assert await fleet.dead_letters.sweep(inbox.stream, inbox.durable) == 1
        assert await fleet.dead_letters.list() == [letter]
        assert (await inbox.depth()).messages == 0


async def test_dl11_a_running_consumer_finds_what_died_while_nobody_listened(server):
    async with connected(server.url, agents=["ceo"], config=BRIEF) as fleet:
        await strand(fleet, count=2)

        async def work(message):
            raise AssertionError("a stranded message is not delivered")

        async with running(fleet.inbox("ceo").consumer(), work):
            found = await letters(fleet, 2)
        assert [letter.reason for letter in found] == ["crash", "crash"]
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_a_sweep_leaves_what_waits_and_what_is_in_flight(server):
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 1})) as fleet:
        inbox = fleet.inbox("ceo")
        for n in range(3):
            await inbox.send("note", n)
        async with await inbox.next(20):
            assert await fleet.dead_letters.sweep(inbox.stream, inbox.durable) == 0
            assert (await inbox.depth()).messages == 3
        assert await fleet.dead_letters.list() == []


async def test_dl2_a_full_dlq_keeps_the_message_where_it_is(server):
    config = fast(inbox={"ack_wait": 0.3}, dead_letters=DeadLetterConfig(max_msgs=1))
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        await bury(fleet)
        inbox, attempts = fleet.inbox("ceo"), []

        async def work(message):
            attempts.append(message.attempt)
            raise Reject("no")

        await inbox.send("second")
        async with running(inbox.consumer(), work):
            await until(lambda: len(attempts) >= 2)
            assert (await inbox.depth()).messages == 1
            await fleet.dead_letters.purge()
            (letter,) = await letters(fleet)
        assert letter.type == "second"
        assert (await inbox.depth()).messages == 0


@pytest.mark.parametrize("dlq", ["full", "gone"])
async def test_dl2_what_the_dlq_did_not_take_on_the_last_attempt_is_moved_by_a_later_sweep(server, monkeypatch, dlq):
    monkeypatch.setattr(patterns.inbox, "SWEEP_INTERVAL", 0.1)
    config = fast(inbox={"ack_wait": 0.3, "max_deliver": 1}, dead_letters=DeadLetterConfig(max_msgs=1))
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        await bury(fleet)
        inbox, attempts = fleet.inbox("ceo"), []
        if dlq == "gone":
            await fleet.js.delete_stream("DLQ")

        async def work(message):
            attempts.append(message.attempt)
            raise Reject("no")

        async def stranded():
            return (await inbox.depth()).stranded == 1

        receipt = await inbox.send("second")
        async with running(inbox.consumer(), work):
            await until(stranded)
            assert await fleet.dead_letters.sweep(inbox.stream, inbox.durable) == 0
            assert [message.seq for message in await inbox.peek()] == [receipt.seq]
            await (fleet.provision() if dlq == "gone" else fleet.dead_letters.purge())
            (letter,) = await letters(fleet)
            await until(lambda: _empty(inbox))
        assert attempts == [1]
        assert (letter.type, letter.origin_seq) == ("second", receipt.seq)


async def _empty(queue):
    depth = await queue.depth()
    return depth.messages == 0 and depth.ack_pending == 0


async def test_dl9_headers_that_tell_the_server_something_are_not_repeated(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        info = await fleet.jetstream.stream_info(inbox.stream)
        await fleet.jetstream.api(f"STREAM.UPDATE.{inbox.stream}", info["config"] | {"allow_msg_ttl": True})
        headers = {
            "Nats-TTL": "1h",
            "Nats-Expected-Stream": inbox.stream,
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Msg-Id": "original",
            "X-Own": "kept",
        }
        await publish(fleet, "agents.ceo.inbox.note", b"1", headers)
        async with await inbox.next(20) as message:
            await message.reject("no")
        (letter,) = await fleet.dead_letters.list()
        assert letter.id == "original"
        assert letter.message.headers["X-Own"] == "kept"
        assert letter.message.headers.keys().isdisjoint({"Nats-TTL", "Nats-Msg-Id"})
        assert letter.message.headers["Nats-Expected-Stream"] == "DLQ"
        # The copy was stored because its subject was empty; the replay's subject is not.
        await publish(fleet, "agents.ceo.inbox.note", b"2")
        receipt = await fleet.dead_letters.replay(letter.seq, by="test")
        assert not receipt.duplicate
        _, again = await inbox.peek()
        assert (again.id, again.data, again.headers["X-Own"]) == ("original", 1, "kept")
        assert again.headers.keys().isdisjoint({"Nats-TTL", "Nats-Expected-Last-Subject-Sequence"})


async def test_dl10_a_foreign_message_at_the_limit_is_stored_and_its_cut_is_said(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        body = b'"' + b"x" * (fleet.nc.max_payload - 2) + b'"'
        await publish(fleet, "agents.ceo.inbox.note", body)
        async with await fleet.inbox("ceo").next(20) as message:
            await message.reject("ä" * 512)
        (letter,) = await fleet.dead_letters.list()
        assert letter.message.headers["Dead-Letter-Truncated"] == str(len(body))
        assert body.startswith(letter.message.body)
        assert len(letter.message.body) > len(body) // 2
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_an_agent_stopped_during_the_last_attempt_interrupts_it(server):
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"max_deliver": 1})) as fleet:
        started = asyncio.Event()

        async def hang(message):
            started.set()
            await asyncio.Event().wait()

        await fleet.inbox("ceo").send("note", 1)
        async with running(fleet.inbox("ceo").consumer(), hang):
            await asyncio.wait_for(started.wait(), 20)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.reason, letter.deliveries) == ("interrupted", 1)
        assert (await fleet.inbox("ceo").depth()).messages == 0


MOVE_STEPS = [
    ("jetstream", "publish", "before"),
    ("jetstream", "publish", "after"),
    ("ledger", "write", "before"),
    ("ledger", "write", "after"),
    ("lane", "confirm", "before"),
    ("lane", "confirm", "after"),
]


@pytest.mark.parametrize(("target", "step", "when"), MOVE_STEPS)
async def test_a_mover_killed_at_any_step_leaves_one_letter_and_tells_once(server, monkeypatch, target, step, when):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks={"ack_wait": 0.5})) as fleet:
        queue, ran = fleet.tasks("backend"), []
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        task = await queue.next("w-1", 20)
        matches = {"publish": lambda subject, *_: subject.startswith("dlq.")}.get(step, lambda *_: True)
        victim = task._lane if target == "lane" else getattr(fleet, target)
        died = kill(monkeypatch, victim, step, when, matches)
        with pytest.raises(Killed):
            await task.reject("no")
        assert died == [step]

        async def work(task):
            ran.append(task.attempt)
            raise Reject("no")

        async with running(queue.worker("w-2"), work):
            status = await queue.wait("a", 20)

            async def settled():
                return (await queue.depth()).messages == 0 and len(await fleet.inbox("ceo").peek()) == 1

            await until(settled)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.reason, letter.id) == ("rejected", "a")
        # Until the copy exists nobody knows that it is dead; from then on no handler may see it.
        assert ran == ([2] if (step, when) == ("publish", "before") else [])
        assert status.state == "rejected"


@pytest.mark.parametrize(("target", "step", "when"), [m for m in MOVE_STEPS if m[1] != "write"])
async def test_a_mover_of_an_inbox_killed_at_any_step_leaves_one_letter(server, monkeypatch, target, step, when):
    async with connected(server.url, agents=["ceo"], config=fast(inbox={"ack_wait": 0.5})) as fleet:
        inbox, ran = fleet.inbox("ceo"), []
        await inbox.send("note", id="a")
        message = await inbox.next(20)
        victim = message._lane if target == "lane" else getattr(fleet, target)
        kill(monkeypatch, victim, step, when)
        with pytest.raises(Killed):
            await message.reject("no")

        async def work(message):
            ran.append(message.id)
            if message.id == "a":
                raise Reject("no")

        await inbox.send("note", id="sentinel")
        async with running(inbox.consumer(), work):
            await until(lambda: "sentinel" in ran)
        (letter,) = await letters(fleet)
        assert letter.reason == "rejected"
        assert ran == (["a", "sentinel"] if (step, when) == ("publish", "before") else ["sentinel"])


async def test_a_task_is_not_both_completed_and_dead(server):
    """Two workers on one task, as after a lost lease: whoever completes it takes the letter back."""
    config = fast(tasks={"ack_wait": 0.5, "max_deliver": 2})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        first, second = await queue.next("w-1", 20), await queue.next("w-2", 20)
        assert (first.attempt, second.attempt) == (1, 2)
        async with second:
            raise ValueError("no luck")
        (letter,) = await fleet.dead_letters.list()
        assert letter.reason == "max-deliver"
        first.result = "done"
        await first.ack()
        assert (await queue.status("a")).result == "done"
        assert await fleet.dead_letters.list() == []


async def test_a_task_completed_while_its_copy_was_on_its_way_is_not_dead(server, monkeypatch):
    config = fast(tasks={"ack_wait": 0.5})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        first, second = await queue.next("w-1", 20), await queue.next("w-2", 20)
        real = fleet.burials.bury

        async def slow(*args, **options):
            second.result = "done"
            await second.ack()
            return await real(*args, **options)

        monkeypatch.setattr(fleet.burials, "bury", slow)
        await first.reject("no luck")
        assert (await queue.status("a")).state == "completed"
        assert await fleet.dead_letters.list() == []
        assert [m.type for m in await fleet.inbox("ceo").peek()] == ["task.completed"]


@pytest.mark.parametrize("end", ["rejected", "completed", "canceled"])
async def test_a_task_that_ended_while_another_worker_was_about_to_begin_is_not_run(server, monkeypatch, end):
    config = fast(tasks={"ack_wait": 0.5})
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        first = await queue.next("w-1", 20)
        real = Lane.finish_burial

        async def slow(lane, delivery, letter):
            found = await real(lane, delivery, letter)
            if delivery.id != "a":
                return found
            monkeypatch.setattr(Lane, "finish_burial", real)
            await {
                "rejected": lambda: first.reject("no"),
                "completed": first.ack,
                "canceled": lambda: queue.cancel("a"),
            }[end]()
            return found

        monkeypatch.setattr(Lane, "finish_burial", slow)
        ran = []

        async def work(task):
            ran.append(task.id)

        await queue.submit("code", id="sentinel")
        async with running(queue.worker("w-2"), work):
            await queue.wait("sentinel", 20)
            # The sentinel waited for nobody; now the first one's lease is over.
            await until(lambda: Lane.finish_burial is real)

            async def drained():
                return (await queue.depth()).messages == 0

            await until(drained)
        assert ran == ["sentinel"]
        assert (await queue.status("a")).state == end
        assert len(await fleet.dead_letters.list()) == (end == "rejected")
        told = [m.type for m in await fleet.inbox("ceo").peek()]
        assert told == {"rejected": ["task.failed"], "completed": ["task.completed"], "canceled": []}[end]


async def test_a_canceled_task_does_not_die(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="a")
        async with await queue.next("w", 20):
            await queue.cancel("a", reason="enough")
            raise Reject("no")
        assert (await queue.status("a")).state == "canceled"
        assert await fleet.dead_letters.list() == []
        assert (await queue.depth()).messages == 0


# -- looking


async def test_letters_are_listed_in_pages_and_by_place(server):
    async with connected(server.url, agents=["ceo", "cto"], roles=["backend"]) as fleet:
        for agent in ("ceo", "cto", "ceo"):
            await bury(fleet, agent)
        await bury_task(fleet)
        dead = fleet.dead_letters
        everything = await dead.list()
        assert [letter.source for letter in everything] == ["inbox.ceo", "inbox.cto", "inbox.ceo", "tasks.backend"]
        assert [letter.seq for letter in await dead.list("inbox", "ceo")] == [everything[0].seq, everything[2].seq]
        assert [letter.name for letter in await dead.list("tasks")] == ["backend"]
        assert await dead.list("events") == []
        first = await dead.list(limit=3)
        rest = await dead.list(after=first[-1].seq, limit=3)
        assert first + rest == everything
        assert await dead.get(everything[1].seq) == everything[1]


async def test_listing_needs_no_dlq(server):
    async with connected(server.url) as fleet:
        await fleet.js.delete_stream("DLQ")
        assert await fleet.dead_letters.list() == []
        assert await fleet.dead_letters.count() == {}


async def test_a_letter_that_is_not_there_is_an_error(server):
    async with connected(server.url) as fleet:
        for call in (
            fleet.dead_letters.get(7),
            fleet.dead_letters.replay(7, by="x"),
            fleet.dead_letters.discard(7, by="x"),
        ):
            with pytest.raises(UnknownDeadLetter, match="7"):
                await call


async def test_a_letter_tells_the_whole_story(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        before = datetime.now(UTC)
        letter = await bury(fleet, text="50% wrong\nvery\tÄ", id="m-1", source="cto", headers={"x-k": "v"})
        stored = (await fleet.jetstream.get("DLQ", letter.seq)).subject
        assert stored == f"dlq.{letter.entry}"
        assert Entry.parse(letter.entry).seq == letter.origin_seq == 1
        assert (letter.id, letter.type, letter.correlation_id) == ("m-1", "note", "m-1")
        assert (letter.error, letter.error_text) == ("50% wrong\nvery\tÄ", "Reject: 50% wrong\nvery\tÄ")
        assert (letter.stream, letter.subject, letter.agent) == ("INBOX_CEO", "agents.ceo.inbox.note", "ceo")
        assert letter.message.headers["Dead-Letter-Consumer"] == "ceo-processor"
        assert (letter.message.source, letter.message.data, letter.message.headers["x-k"]) == ("cto", {"n": 1}, "v")
        assert letter.first_at == letter.died_at
        assert before <= letter.died_at <= datetime.now(UTC)
        assert letter.replays == 0


async def test_count_follows_every_change(server):
    async with connected(server.url, agents=["ceo", "cto"]) as fleet:
        dead = fleet.dead_letters
        assert await dead.count() == {}
        first = await bury(fleet)
        await bury(fleet, "cto")
        assert await dead.count() == {("inbox", "ceo"): 1, ("inbox", "cto"): 1}
        await bury(fleet)
        assert await dead.count() == {("inbox", "ceo"): 2, ("inbox", "cto"): 1}
        await dead.discard(first.seq, by="test")
        assert await dead.count() == {("inbox", "ceo"): 1, ("inbox", "cto"): 1}
        await dead.purge()
        assert await dead.count() == {}


async def test_watch_gives_what_is_there_and_then_what_comes(server):
    async with connected(server.url, agents=["ceo"], config=fast(poll=30.0)) as fleet:
        first = await bury(fleet)
        watching = fleet.dead_letters.watch()
        assert await asyncio.wait_for(anext(watching), 20) == first
        coming = asyncio.create_task(anext(watching))
        second = await bury(fleet)
        assert await asyncio.wait_for(coming, 20) == second
        await watching.aclose()


async def test_dl16_a_watch_reads_each_letter_once(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 600)
        watching = fleet.dead_letters.watch()
        seen = [(await asyncio.wait_for(anext(watching), 20)).seq for _ in range(600)]
        received = fleet.nc.stats["in_msgs"]
        seen.append(await forge(fleet, "inbox.ceo.601-259"))
        assert (await asyncio.wait_for(anext(watching), 20)).seq == seen[-1]
        await watching.aclose()
        assert seen == list(range(1, 602))
        assert fleet.nc.stats["in_msgs"] - received < 100


async def test_a_foreign_message_in_the_dlq_is_listed_as_far_as_it_can_be_read(server):
    async with connected(server.url) as fleet:
        await publish(fleet, "dlq.strange", b"1")
        seq = await publish(
            fleet, "dlq.inbox.ceo.5-ff", b"\xff", {"Dead-Letter-Reason": "50%zz", "Dead-Letter-Seq": "-1"}
        )
        (letter,) = await fleet.dead_letters.list()
        assert (letter.seq, letter.reason, letter.origin_seq, letter.name) == (seq, "50%zz", 5, "ceo")
        with pytest.raises(UnknownDestination, match="Subject"):
            await fleet.dead_letters.replay(seq, by="test")
        assert await fleet.dead_letters.list() == [letter]


# -- coming back


async def test_dl3_a_replay_within_the_duplicate_window_is_stored_and_handled(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet, id="m-1")
        receipt = await fleet.dead_letters.replay(letter.seq, by="ann")
        assert (receipt.duplicate, receipt.stream, receipt.id) == (False, "INBOX_CEO", "m-1")
        assert await fleet.dead_letters.list() == []
        async with await fleet.inbox("ceo").next(20) as again:
            assert (again.seq, again.id, again.data, again.attempt) == (receipt.seq, "m-1", {"n": 1}, 1)
            assert again.message.replay_of == letter.entry
            assert again.headers["Dead-Letter-Replayed-By"] == "ann"
            assert "Dead-Letter-Reason" not in again.headers


async def test_dl4_a_double_replay_is_one_message(server):
    async with connected(server.url, agents=["ceo"]) as fleet, connected(server.url) as other:
        letter = await bury(fleet)
        outcomes = await asyncio.gather(
            *(f.dead_letters.replay(letter.seq, by="x") for f in (fleet, other, fleet)), return_exceptions=True
        )
        assert all(isinstance(o, UnknownDeadLetter) or o.seq == 2 for o in outcomes), outcomes
        assert sum(not isinstance(o, UnknownDeadLetter) and not o.duplicate for o in outcomes) == 1
        assert len(await fleet.inbox("ceo").peek()) == 1
        assert await fleet.dead_letters.list() == []


async def test_dl5_a_replay_that_dies_again_is_one_letter_with_its_history(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        first = await bury(fleet, id="m-1")
        await fleet.dead_letters.replay(first.seq, by="ann")
        async with await fleet.inbox("ceo").next(20) as again:
            await again.reject("still poison")
        (second,) = await fleet.dead_letters.list()
        assert (second.replays, second.id, second.error) == (1, "m-1", "still poison")
        assert second.first_at == first.first_at
        assert second.died_at > first.died_at
        assert second.entry != first.entry
        assert second.message.headers["Dead-Letter-Replayed-From"] == str(first.seq)
        assert second.subject == first.subject
        receipt = await fleet.dead_letters.replay(second.seq, by="ann")
        assert not receipt.duplicate


async def test_a_letter_is_not_replayed_for_ever(server):
    config = fast(dead_letters=DeadLetterConfig(warn_replays=1, max_replays=2))
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        letter = await bury(fleet)
        for n in (1, 2):
            await fleet.dead_letters.replay(letter.seq, by="x")
            async with await fleet.inbox("ceo").next(20) as again:
                await again.reject("no")
            (letter,) = await fleet.dead_letters.list()
            assert letter.replays == n
        with pytest.raises(ReplayLimit, match="2 times"):
            await fleet.dead_letters.replay(letter.seq, by="x")
        assert await fleet.dead_letters.list() == [letter]
        await fleet.dead_letters.replay(letter.seq, by="x", force=True)
        assert await fleet.dead_letters.list() == []


async def test_dl6_a_replayed_task_that_had_expired_runs(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []

        async def work(task):
            ran.append((task.id, task.message.expires_at))
            return "done"

        await queue.submit("code", id="a", expires_in=0.01)
        (stored,) = (await fleet.jetstream.read(queue.stream)).messages
        await until(lambda: datetime.now(UTC) > datetime.fromisoformat(stored.headers["ce-expirytime"]))
        async with running(queue.worker("w"), work):
            (letter,) = await letters(fleet)
            assert letter.reason == "expired"
            await fleet.dead_letters.replay(letter.seq, by="x")
            status = await until(lambda: _state(queue, "a", "completed"))
        assert ran == [("a", None)]
        assert status.result == "done"


async def _state(queue, task, state):
    status = await queue.status(task)
    return status if status is not None and status.state == state else None


async def test_dl6_a_replay_may_set_a_new_deadline(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet, expires_in=3600)
        before = datetime.now(UTC)
        await fleet.dead_letters.replay(letter.seq, by="x", expires_in=60)
        again = await fleet.inbox("ceo").next(20)
        assert 55 < (again.message.expires_at - before).total_seconds() < 80


async def test_a_replay_may_change_the_body(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet, id="m-1")
        await fleet.dead_letters.replay(letter.seq, by="x", data={"n": 2})
        again = await fleet.inbox("ceo").next(20)
        assert (again.id, again.data) == ("m-1", {"n": 2})
        await again.reject("no")
        (letter,) = await fleet.dead_letters.list()
        await fleet.dead_letters.replay(letter.seq, by="x", data=None)
        assert (await fleet.inbox("ceo").next(20)).data is None


async def test_a_replay_may_go_elsewhere(server):
    async with connected(server.url, agents=["ceo", "cto"]) as fleet:
        letter = await bury(fleet)
        receipt = await fleet.dead_letters.replay(letter.seq, by="x", to="agents.cto.inbox.note")
        assert receipt.stream == "INBOX_CTO"
        assert (await fleet.inbox("cto").next(20)).data == {"n": 1}
        assert (await fleet.inbox("ceo").depth()).messages == 0


@pytest.mark.parametrize("to", ["agents.*.inbox.note", "agents.ghost.inbox.note", "a..b", "a b", ""])
async def test_a_replay_to_nowhere_changes_nothing(server, to):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        with pytest.raises(UnknownDestination):
            await fleet.dead_letters.replay(letter.seq, by="x", to=to)
        assert await fleet.dead_letters.list() == [letter]
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_a_bare_message_keeps_its_id_through_a_replay(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await publish(fleet, "tasks.backend.code", b"1")
        async with await queue.next("w", 20) as task:
            await task.reject("no")
        (letter,) = await fleet.dead_letters.list()
        await fleet.dead_letters.replay(letter.seq, by="x")
        again = await queue.next("w", 20)
        assert again.id == letter.id == "TASKS_BACKEND-1"


async def test_a_replayed_task_starts_afresh_in_the_ledger_and_completes(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        letter = await bury_task(fleet, reply_to="agents.ceo.inbox")
        queue = fleet.tasks("backend")
        assert (await queue.status("t")).state == "rejected"
        await fleet.dead_letters.replay(letter.seq, by="x")
        status = await queue.status("t")
        assert (status.state, status.attempts) == ("submitted", 0)
        async with await queue.next("w", 20) as task:
            task.result = "better"
        assert (await queue.status("t")).state == "completed"
        assert [m.type for m in await fleet.inbox("ceo").peek()] == ["task.failed", "task.completed"]


async def test_a_task_that_fails_again_tells_its_submitter_again(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        letter = await bury_task(fleet, reply_to="agents.ceo.inbox")
        await fleet.dead_letters.replay(letter.seq, by="x")
        async with await fleet.tasks("backend").next("w", 20) as task:
            await task.reject("again")
        assert [m.data["error"] for m in await fleet.inbox("ceo").peek()] == ["Reject: no", "Reject: again"]


async def test_dl8_a_replay_to_a_vanished_agent_keeps_the_letter(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        await fleet.js.delete_stream("INBOX_CEO")
        with pytest.raises(UnknownDestination, match=r"agents\.ceo\.inbox\.note"):
            await fleet.dead_letters.replay(letter.seq, by="x")
        assert await fleet.dead_letters.list() == [letter]
        await fleet.provision(agents=["ceo"])
        await fleet.dead_letters.replay(letter.seq, by="x")
        assert (await fleet.inbox("ceo").next(20)).data == {"n": 1}


REPLAY_STEPS = [
    (target, step, when)
    for target, step in (
        ("burials", "finish"),
        ("ledger", "change"),
        ("jetstream", "publish"),
        ("burials", "resolve"),
        ("jetstream", "delete"),
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize(("target", "step", "when"), REPLAY_STEPS)
async def test_dl7_a_replay_killed_at_any_step_can_be_repeated(server, monkeypatch, target, step, when):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []
        letter = await bury_task(fleet)
        matches = {"publish": lambda subject, *_: subject.startswith("tasks.")}.get(step, lambda *_: True)
        died = kill(monkeypatch, getattr(fleet, target), step, when, matches)
        with pytest.raises(Killed):
            await fleet.dead_letters.replay(letter.seq, by="x")
        assert died == [step]
        gone = (step, when) == ("delete", "after")
        stored = gone or (step, when) in {
            ("publish", "after"),
            ("resolve", "before"),
            ("resolve", "after"),
            ("delete", "before"),
        }
        assert len(await fleet.dead_letters.list()) == (0 if gone else 1)
        if not gone:
            receipt = await fleet.dead_letters.replay(letter.seq, by="x")
            assert receipt.duplicate == stored
        assert await fleet.dead_letters.list() == []

        async def work(task):
            ran.append((task.id, task.attempt))

        async with running(queue.worker("w"), work):
            await queue.submit("code", id="sentinel")
            await queue.wait("sentinel", 20)
        assert ran == [("t", 1), ("sentinel", 1)]


async def test_an_edit_that_comes_after_an_interrupted_replay_is_not_lost_without_a_word(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        with monkeypatch.context() as patch:
            kill(patch, fleet.burials, "resolve", "before")
            with pytest.raises(Killed):
                await fleet.dead_letters.replay(letter.seq, by="x")
        with pytest.raises(AlreadyReplayed, match="INBOX_CEO 2"):
            await fleet.dead_letters.replay(letter.seq, by="x", data={"spec": "better"})
        assert await fleet.dead_letters.list() == [letter]
        receipt = await fleet.dead_letters.replay(letter.seq, by="x")
        assert receipt.duplicate
        assert await fleet.dead_letters.list() == []
        assert len(await fleet.inbox("ceo").peek()) == 1


async def test_an_interrupted_edit_can_be_repeated(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        with monkeypatch.context() as patch:
            kill(patch, fleet.burials, "resolve", "before")
            with pytest.raises(Killed):
                await fleet.dead_letters.replay(letter.seq, by="x", data={"spec": "better"})
        receipt = await fleet.dead_letters.replay(letter.seq, by="x", data={"spec": "better"})
        assert receipt.duplicate
        assert [m.data for m in await fleet.inbox("ceo").peek()] == [{"spec": "better"}]
        assert await fleet.dead_letters.list() == []


@pytest.mark.parametrize("step", ["finish", "resolve"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_discard_killed_at_any_step_can_be_repeated(server, monkeypatch, step, when):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        kill(monkeypatch, fleet.burials, step, when)
        with pytest.raises(Killed):
            await fleet.dead_letters.discard(letter.seq, by="x")
        await fleet.dead_letters.discard(letter.seq, by="x")
        assert await fleet.dead_letters.list() == []
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_dl13_a_second_copy_of_a_replay_is_dropped_and_counted(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []
        letter = await bury_task(fleet)
        await fleet.dead_letters.replay(letter.seq, by="x")
        (copy,) = (await fleet.jetstream.read(queue.stream)).messages
        # What a replay repeated after a restart stores: the same message, its id forgotten by the work queue.
        headers = {name: value for name, value in copy.headers.items() if not name.startswith("Nats-")}
        await publish(fleet, copy.subject, copy.body, headers | {"Nats-Msg-Id": "forgotten"})
        await queue.submit("code", id="sentinel")

        async def work(task):
            ran.append(task.seq)
            raise Reject("dies again, so that the ledger cannot tell the copies apart")

        consumer = queue.worker("w")
        async with running(consumer, work):
            await queue.wait("sentinel", 20)
            await until(lambda: _empty(queue))
        assert len(ran) == 2
        assert ran[0] == copy.seq
        assert consumer.duplicates == 1
        assert len(await fleet.dead_letters.list()) == 2


async def test_a_redelivery_of_a_replay_is_not_its_second_copy(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        await fleet.dead_letters.replay(letter.seq, by="x")
        async with await fleet.inbox("ceo").next(20) as again:
            await again.retry(0)
        async with await fleet.inbox("ceo").next(20) as again:
            assert (again.attempt, again.message.replay_of) == (2, letter.entry)


# -- half-moved


async def half_moved(fleet, monkeypatch):
    """A letter whose mover died before it removed the origin."""
    inbox = fleet.inbox("ceo")
    await inbox.send("note", {"n": 1})
    message = await inbox.next(20)
    with monkeypatch.context() as patch:
        kill(patch, message._lane, "confirm", "before")
        with pytest.raises(Killed):
            await message.reject("no")
    (letter,) = await fleet.dead_letters.list()
    assert (await inbox.depth()).messages == 1
    return letter


@pytest.mark.parametrize("way", ["discard", "replay", "purge"])
async def test_dl14_a_half_moved_letter_that_was_resolved_does_not_come_back(server, monkeypatch, way):
    async with connected(server.url, agents=["ceo"], config=BRIEF) as fleet:
        inbox = fleet.inbox("ceo")
        letter = await half_moved(fleet, monkeypatch)
        entry = Entry.parse(letter.entry)
        origin = await fleet.jetstream.get(inbox.stream, entry.seq)
        if way == "purge":
            assert await fleet.dead_letters.purge() == 1
        elif way == "discard":
            await fleet.dead_letters.discard(letter.seq, by="x")
        else:
            await fleet.dead_letters.replay(letter.seq, by="x")
        # 1: the origin went with the letter, so a sweep finds nothing.
        assert await fleet.jetstream.get(inbox.stream, entry.seq) is None
        await fleet.dead_letters.sweep(inbox.stream, inbox.durable)
        assert await fleet.dead_letters.list() == []
        # 2: a mover that read the origin before all that, and slept, brings nothing back.
        await _late_mover(fleet, entry, origin)
        assert await fleet.dead_letters.list() == []
        left = [m.replay_of for m in await inbox.peek()]
        assert left == ([letter.entry] if way == "replay" else [])


async def _late_mover(fleet, entry, origin: StoredMessage):
    message = decode(origin.subject, origin.headers, origin.body, names=fleet.names, stream="INBOX_CEO", seq=origin.seq)
    await fleet.burials.bury(entry, origin, reason="crash", stream="INBOX_CEO", deliveries=1, message=message)


async def test_dl14_a_late_mover_does_not_turn_a_replayed_task_back_to_failed(server, monkeypatch):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", id="t", reply_to="agents.ceo.inbox")
        task = await queue.next("w", 20)
        asleep, awake = asyncio.Event(), asyncio.Event()
        real = fleet.burials._publish_once

        async def sleeping(*args):
            monkeypatch.setattr(fleet.burials, "_publish_once", real)
            asleep.set()
            await awake.wait()
            return await real(*args)

        monkeypatch.setattr(fleet.burials, "_publish_once", sleeping)
        late = asyncio.create_task(task.reject("by the sleeper"))
        await asyncio.wait_for(asleep.wait(), 20)
        # Its lease is over and another worker moves the same delivery meanwhile; an operator replays the letter.
        entry = Entry("tasks", "backend", task.seq, int(task.raw.reply.split(".")[-2]))
        origin = await fleet.jetstream.get(queue.stream, task.seq)
        await fleet.burials.bury(entry, origin, reason="crash", stream=queue.stream, deliveries=3, message=task.message)
        (letter,) = await fleet.dead_letters.list()
        await fleet.dead_letters.replay(letter.seq, by="x")
        awake.set()
        await late
        assert await fleet.dead_letters.list() == []
        assert (await queue.status("t")).state == "submitted"
        assert await fleet.inbox("ceo").peek() == []


async def test_a_sequence_that_now_holds_another_message_is_left_alone(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        await fleet.js.delete_stream("INBOX_CEO")
        await fleet.provision(agents=["ceo"])
        receipt = await fleet.inbox("ceo").send("new")
        assert receipt.seq == letter.origin_seq
        await fleet.dead_letters.discard(letter.seq, by="x")
        assert [m.type for m in await fleet.inbox("ceo").peek()] == ["new"]


# -- getting rid of them


async def test_a_discarded_letter_is_gone(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        one, other = await bury(fleet), await bury(fleet)
        await fleet.dead_letters.discard(one.seq, by="ann")
        assert await fleet.dead_letters.list() == [other]
        with pytest.raises(UnknownDeadLetter):
            await fleet.dead_letters.discard(one.seq, by="ann")


async def test_purge_takes_what_was_named(server):
    async with connected(server.url, agents=["ceo", "cto"], roles=["backend"]) as fleet:
        dead = fleet.dead_letters
        for agent in ("ceo", "ceo", "cto"):
            await bury(fleet, agent)
        await bury_task(fleet)
        assert await dead.purge("inbox", "ceo") == 2
        assert [letter.source for letter in await dead.list()] == ["inbox.cto", "tasks.backend"]
        assert await dead.purge("events") == 0
        assert await dead.purge() == 2
        assert await dead.list() == []


async def test_purge_leaves_what_dies_meanwhile(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        first = await bury(fleet)
        real, late = fleet.burials.resolve, []

        async def slow(entry, how):
            late.append(await bury(fleet, "ceo"))
            await real(entry, how)

        monkeypatch.setattr(fleet.burials, "resolve", slow)
        assert await fleet.dead_letters.purge() == 1
        assert await fleet.dead_letters.list() == late
        assert first not in late


async def test_purge_of_more_than_a_page(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1100)
        assert await fleet.dead_letters.purge("inbox") == 1100
        assert await fleet.dead_letters.list() == []


async def test_purge_takes_what_died_before_a_moment(server):
    async with connected(server.url, agents=["ceo", "cto"]) as fleet:
        dead = fleet.dead_letters
        await bury(fleet)
        await bury(fleet, "cto")
        third = await bury(fleet)
        assert await dead.purge("inbox", "ceo", before=third.died_at) == 1
        assert [letter.source for letter in await dead.list()] == ["inbox.cto", "inbox.ceo"]
        assert third in await dead.list()


async def test_an_unconfirmed_replay_keeps_the_letter(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await bury(fleet)
        real = JetStream.publish

        async def lost(js, subject, *args, **options):
            await real(js, subject, *args, **options)
            raise Unavailable("not confirmed")

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "publish", lost)
            with pytest.raises(Unavailable):
                await fleet.dead_letters.replay(letter.seq, by="x")
        assert await fleet.dead_letters.list() == [letter]
        assert (await fleet.dead_letters.replay(letter.seq, by="x")).duplicate
        assert len(await fleet.inbox("ceo").peek()) == 1
