"""Processes and servers that are killed: what was promised holds afterwards."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import nats.errors
import pytest

from patterns import Reject, RequestTimeout, Unavailable
from patterns.jetstream import JetStream
from patterns.lane import Lane
from tests.support.fleets import connected, drained, fast, running
from tests.support.waiting import until
from tests.support.worker import SHORT_LEASE

ROOT = Path(__file__).parents[2]
BRIEF = {"ack_wait": SHORT_LEASE}


async def spawn(server, mode, *arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.worker", server.url, mode, *arguments, cwd=ROOT
    )


@asynccontextmanager
async def worker(server, mode, *arguments):
    """A worker process; it is killed at the end of the block."""
    process = await spawn(server, mode, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def immortal(server, mode, *arguments):
    """A worker that is started again whenever it dies, as a process manager does; yields the number of its deaths."""
    deaths = []

    async def keep():
        while True:
            async with worker(server, mode, *arguments) as process:
                deaths.append(await process.wait())

    keeping = asyncio.create_task(keep())
    try:
        yield deaths
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


# -- processes


async def test_tq3_a_task_whose_worker_was_killed_is_run_by_another(server, tmp_path):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks=BRIEF)) as fleet:
        queue, marker = fleet.tasks("backend"), tmp_path / "died"
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with worker(server, "die-once", str(marker)) as one:
            assert await asyncio.wait_for(one.wait(), 30) == -9
        async with worker(server, "die-once", str(marker)) as other:
            status = await queue.wait("a", 30)
            assert (status.state, status.attempts) == ("completed", 2)
            assert status.agent == f"w-{other.pid}"
            await drained(queue)
        assert [m.type for m in await fleet.inbox("ceo").peek()] == ["task.completed"]
        assert await fleet.dead_letters.list() == []


async def test_tq4_a_task_that_kills_its_worker_each_time_dies_of_it(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks=BRIEF)) as fleet:
        queue = fleet.tasks("backend")
        await queue.submit("code", {"n": 1}, id="a", reply_to="agents.ceo.inbox")
        async with immortal(server, "die") as deaths:
            status = await queue.wait("a", 50)
            await drained(queue)
        assert deaths[:3] == [-9] * 3
        (letter,) = await fleet.dead_letters.list()
        assert (letter.reason, letter.deliveries, letter.id) == ("crash", 3, "a")
        assert letter.message.data == {"n": 1}
        assert (status.state, status.attempts) == ("failed", 3)
        (told,) = await fleet.inbox("ceo").peek()
        assert (told.type, told.data["reason"], told.data["attempts"]) == ("task.failed", "crash", 3)


async def test_tq5_a_worker_killed_between_result_and_acknowledgement_did_its_work(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks=BRIEF)) as fleet:
        queue, ran = fleet.tasks("backend"), []
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with worker(server, "die-after-result") as one:
            assert await asyncio.wait_for(one.wait(), 30) == -9
        assert (await queue.depth()).messages == 1

        async def work(task):
            ran.append(task.id)

        async with running(queue.worker("w-2"), work):
            await drained(queue)
        assert ran == []
        status = await queue.status("a")
        assert (status.state, status.result) == ("completed", f"done by {one.pid}")
        (told,) = await fleet.inbox("ceo").peek()
        assert told.data["result"] == f"done by {one.pid}"


async def test_tq5_a_result_that_was_taken_is_not_taken_again_after_a_restart(server, monkeypatch):
    """The server forgets the ids of consumed messages then: the worker that takes over can store a second one."""
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(tasks=BRIEF)) as fleet:
        queue, inbox = fleet.tasks("backend"), fleet.inbox("ceo")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        task = await queue.next("w-1", 20)

        async def lost(delivery):
            raise Unavailable("never arrived")

        monkeypatch.setattr(task._lane, "confirm", lost)
        with pytest.raises(Unavailable):
            await task.ack()
        async with await inbox.next(20) as told:
            assert told.type == "task.completed"
        server.kill()
        await asyncio.to_thread(server.restart)
        async with running(queue.worker("w-2"), lambda task: None):
            await drained(queue)
        assert [m.id for m in await inbox.peek()] == [told.id]
        await inbox.send("note", 1)
        consumer, seen = inbox.consumer(), []

        async def read(message):
            seen.append(message.type)

        async with running(consumer, read):
            await until(lambda: seen)
        assert (seen, consumer.duplicates) == (["note"], 1)


async def test_tq5_an_outcome_that_died_with_its_reader_comes_back_by_replay(server):
    """Its receipt is that of the copy that died; the replayed copy has one of its own."""
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, inbox = fleet.tasks("backend"), fleet.inbox("ceo")
        await queue.submit("code", id="a", reply_to="agents.ceo.inbox")
        async with await queue.next("w", 20):
            pass
        async with await inbox.next(20):
            raise Reject("no time")
        (letter,) = await fleet.dead_letters.list()
        await fleet.dead_letters.replay(letter.seq, by="ann")
        async with await inbox.next(20) as told:
            assert told.type == "task.completed"


async def test_in6_a_message_whose_reader_was_killed_comes_again_after_the_lease(server):
    async with connected(server.url, agents=["ceo"], config=fast(inbox=BRIEF)) as fleet:
        inbox = fleet.inbox("ceo")
        await inbox.send("note", id="a")
        await inbox.send("note", id="b")
        async with worker(server, "die-inbox") as one:
            assert await asyncio.wait_for(one.wait(), 30) == -9
        taken = (await inbox.depth()).last_delivered_at
        # Strict order: while the lease of the first one lasts, nobody gets the second one.
        async with await inbox.next(20) as message:
            silence = datetime.now(UTC) - taken
            assert (message.id, message.attempt) == ("a", 2)
        assert silence.total_seconds() >= 0.9 * SHORT_LEASE
        async with await inbox.next(20) as message:
            assert (message.id, message.attempt) == ("b", 1)


async def test_in6_a_message_that_kills_its_reader_each_time_is_found_by_the_sweep(server):
    async with connected(server.url, agents=["ceo"], config=fast(inbox=BRIEF)) as fleet:
        inbox, seen = fleet.inbox("ceo"), []
        await inbox.send("note", id="poison")

        async with immortal(server, "die-inbox") as deaths:
            await until(lambda: len(deaths) >= 3, 40)

        async def read(message):
            seen.append(message.id)

        await inbox.send("note", id="healthy")
        async with running(inbox.consumer(), read):
            (letter,) = await until(fleet.dead_letters.list, 40)
            await until(lambda: seen)
        assert (letter.id, letter.reason, letter.deliveries, letter.name) == ("poison", "crash", 3, "ceo")
        assert seen == ["healthy"]


# -- the server


async def test_rr9_a_restart_between_request_and_answer_is_a_timeout_and_the_next_one_works(server):
    async with connected(server.url) as asker, connected(server.url) as answerer:
        asked = asyncio.Event()

        async def hang(request):
            asked.set()
            await asyncio.Event().wait()

        async def ping(request):
            return "pong"

        made = answerer.requests.responder("devops")
        made.handle("hang", hang)
        made.handle("ping", ping)
        async with made:
            asking = asyncio.create_task(asker.requests.request("hang", to="devops", timeout=2))
            await asyncio.wait_for(asked.wait(), 20)
            server.kill()
            await asyncio.to_thread(server.restart)
            with pytest.raises(RequestTimeout):
                await asking
            await until(lambda: asker.nc.is_connected and answerer.nc.is_connected)

            async def answered():
                reply = await asker.requests.request("ping", to="devops", timeout=2, fallback=None)
                return reply.data

            assert await until(answered) == "pong"


async def test_rr3_a_responder_that_falls_silent_leaves_the_last_good_answer(server):
    async with connected(server.url) as asker:
        async with connected(server.url) as answerer:
            healthy = True

            async def size(request):
                if not healthy:
                    await asyncio.Event().wait()
                return 20

            made = answerer.requests.responder("devops")
            made.handle("size", size)
            async with made:
                assert (await asker.requests.request("size", to="devops")).data == 20
                healthy = False
                stale = await asker.requests.request("size", to="devops", timeout=0.2, stale_for=600, fallback=1)
                other = await asker.requests.request("size", 2, to="devops", timeout=0.2, stale_for=600, fallback=1)
        assert (stale.data, stale.source) == (20, "stale")
        assert isinstance(stale.error, RequestTimeout)
        assert (other.data, other.source) == (1, "fallback")


RESPONDER = """
import asyncio, os, signal, sys
from patterns import Fleet

async def main():
    async with Fleet.connect(sys.argv[1]) as fleet:
        devops, asked = fleet.agent("devops"), []

        @devops.on_request("size")
        async def size(request):
            asked.append(request.id)
            if len(asked) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return 20

        await devops.run()

asyncio.run(main())
"""


@pytest.mark.parametrize(("stale_for", "source"), [(600, "stale"), (0.1, "fallback"), (0.1, None)])
async def test_rr3_a_responder_that_dies_of_a_request_is_replaced_by_what_is_known(server, stale_for, source):
    async with connected(server.url) as fleet:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", RESPONDER, server.url, cwd=ROOT)
        try:
            live = await fleet.requests.request("size", to="devops", timeout=20, attempts=1000)
            assert (live.data, live.source) == (20, "live")
            # The timeout alone makes the last good answer older than 0.1 s.
            options = {"to": "devops", "timeout": 0.5, "stale_for": stale_for}
            if source is None:
                with pytest.raises(RequestTimeout):
                    await fleet.requests.request("size", **options)
            else:
                reply = await fleet.requests.request("size", fallback=10, **options)
                assert (reply.data, reply.source) == ({"stale": 20, "fallback": 10}[source], source)
                assert isinstance(reply.error, RequestTimeout)
            assert await asyncio.wait_for(process.wait(), 20) == -9
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_tq2_a_publish_repeated_through_an_outage_is_stored_once(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, tries = fleet.tasks("backend"), []
        real = fleet.nc.request

        async def counted(subject, *args, **options):
            if subject.startswith("tasks."):
                tries.append(subject)
            return await real(subject, *args, **options)

        monkeypatch.setattr(fleet.nc, "request", counted)
        server.kill()
        await until(lambda: not fleet.nc.is_connected)
        submitting = asyncio.create_task(queue.submit("code", id="a"))
        # The first try waits in the client's buffer, its repetition behind it: the server gets both.
        await until(lambda: len(tries) == 2)
        await asyncio.to_thread(server.restart)
        receipt = await submitting
        assert receipt.id == "a"
        await fleet.nc.flush()
        again = await queue.submit("code", id="a")
        assert again.duplicate
        assert (await queue.depth()).messages == 1


async def test_tq2_a_publish_whose_answer_is_lost_is_stored_once(server, monkeypatch):
    async with connected(server.url, roles=["backend"], config=fast(publish_timeout=0.5)) as fleet:
        queue = fleet.tasks("backend")
        real = fleet.nc.request
        lost = []

        async def deaf(subject, *args, **options):
            answer = await real(subject, *args, **options)
            if subject.startswith("tasks.") and not lost:
                lost.append(subject)
                raise nats.errors.TimeoutError
            return answer

        monkeypatch.setattr(fleet.nc, "request", deaf)
        await queue.submit("code", id="a")
        assert lost
        assert (await queue.depth()).messages == 1
        monkeypatch.setattr(fleet.nc, "request", real)

        async def never(subject, *args, **options):
            raise nats.errors.TimeoutError

        monkeypatch.setattr(fleet.nc, "request", never)
        with pytest.raises(Unavailable, match="same id"):
            await queue.submit("code", id="b")


async def test_in2_unprocessed_messages_survive_a_restart(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        inbox = fleet.inbox("ceo")
        for n in range(10):
            await inbox.send("note", n)
        async with await inbox.next(20) as message:
            assert message.data == 0
        server.kill()
        await asyncio.to_thread(server.restart)
        await until(lambda: fleet.nc.is_connected)
        seen = []

        async def read(message):
            seen.append(message.data)

        async with running(inbox.consumer(), read):
            await until(lambda: seen and seen[-1] == 9, 40)
        # An acknowledgement may be lost with the server, so the first one may come twice; the rest is there, in order.
        assert [n for n in seen if n] == list(range(1, 10))


@pytest.mark.parametrize("kind", ["tasks", "inbox"])
async def test_dl13_a_restart_between_two_attempts_of_one_replay_makes_no_second_run(server, monkeypatch, kind):
    """A work queue forgets the ids of consumed messages at a restart: only the receipt tells the second copy."""
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        queue, inbox, ran = fleet.tasks("backend"), fleet.inbox("ceo"), []
        take = (lambda: queue.next("w", 20)) if kind == "tasks" else (lambda: inbox.next(20))
        await (queue.submit("code", id="a") if kind == "tasks" else inbox.send("note", id="a"))
        async with await take() as delivery:
            await delivery.reject("no")
        (letter,) = await fleet.dead_letters.list()
        real = JetStream.delete

        async def lost(js, stream, seq):
            raise Unavailable("killed before the letter was deleted")

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "delete", lost)
            with pytest.raises(Unavailable):
                await fleet.dead_letters.replay(letter.seq, by="x")
        assert JetStream.delete is real
        async with await take() as delivery:
            ran.append(delivery.message.replay_of)
            # Dies again, so that the ledger does not know it as completed.
            await delivery.reject("no")
        await asyncio.to_thread(server.terminate)
        await asyncio.to_thread(server.restart)
        await until(lambda: fleet.nc.is_connected)
        receipt = await fleet.dead_letters.replay(letter.seq, by="x")
        assert not receipt.duplicate, "the server still knows the id: this test shows nothing"

        async def work(delivery):
            ran.append(delivery.message.replay_of)

        consumer = queue.worker("w") if kind == "tasks" else inbox.consumer()
        async with running(consumer, work):
            await until(lambda: consumer.duplicates == 1)
            await drained(queue if kind == "tasks" else inbox)
        assert ran == [letter.entry]
        assert [left.replays for left in await fleet.dead_letters.list()] == [1]


async def test_tq18_through_two_kills_of_the_server_every_task_is_completed_or_dead(server, monkeypatch):
    """Flaky handlers, two workers, a server killed twice: completed xor dead-lettered, told once, nothing stuck."""
    chance = random.Random(4711)  # the faults are the same in each run; the interleaving is not
    tasks = [f"t-{n}" for n in range(60)]
    config = fast(tasks={"ack_wait": 1.5}, inbox={"ack_wait": 1.5})
    async with (
        connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet,
        connected(server.url, config=config) as other,
    ):
        queue, finished = fleet.tasks("backend"), Counter()

        async def flaky(task):
            await asyncio.sleep(chance.random() * 0.05)
            dice = chance.random()
            if dice < 0.15:
                raise ValueError("flaky")
            if dice < 0.2 or task.id.endswith("7"):
                raise Reject("poison")
            finished[task.id] += 1
            return task.id

        kills, confirm = [(10, "acked"), (25, "dead")], Lane.confirm

        async def fatal(lane, delivery):
            if kills and sum(finished.values()) >= kills[0][0] and delivery.settled == kills[0][1]:
                # The moment at which it hurts: told, and not acknowledged.
                kills.pop(0)
                server.kill()
                await asyncio.to_thread(server.restart)
                raise Unavailable("the acknowledgement went down with the server")
            await confirm(lane, delivery)

        monkeypatch.setattr(Lane, "confirm", fatal)

        async def submit():
            for task in tasks:
                await queue.submit("code", task, id=task, reply_to="agents.ceo.inbox")
                await asyncio.sleep(0.01)

        async with (
            running(queue.worker("w-1", concurrency=3), flaky),
            running(other.tasks("backend").worker("w-2", concurrency=3), flaky),
        ):
            await submit()
            for task in tasks:
                await queue.wait(task, 40)
            await drained(queue)
        assert kills == []
        ended = {task: (await queue.status(task)).state for task in tasks}
        told = Counter((m.data["task"], m.type) for m in await fleet.inbox("ceo").peek(1000))
        completed = {task for task, state in ended.items() if state == "completed"}
        assert set(ended.values()) <= {"completed", "failed", "rejected"}

        async def lettered():
            # A worker that gave up just when another one finished takes its letter back in the end.
            letters = Counter(letter.id for letter in await fleet.dead_letters.list(limit=1000))
            return letters == Counter(set(tasks) - completed)

        await until(lettered)
        assert {task for task, kind in told if kind == "task.completed"} == completed
        assert {task for task, kind in told if kind == "task.failed"} >= set(tasks) - completed
        assert set(told.values()) == {1}, "a result was doubled"
