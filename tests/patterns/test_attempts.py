"""What counts as an attempt, and that nothing is delivered for ever or run beside its own letter."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import nats.errors
import pytest

from patterns import Unavailable
from patterns.jetstream import JetStream
from patterns.message import encode
from patterns.stored import StoredMessage
from tests.support.fleets import LONG_LEASE, connected, drained, fast, running, take
from tests.support.waiting import until


async def copied(fleet, lane, delivery, reason="rejected"):
    """Bury as a mover does that is killed right after its copy."""
    stored = StoredMessage(
        delivery.subject, delivery.seq, delivery.stored_ns, delivery.raw.headers or {}, delivery.raw.data
    )
    await fleet.burials.bury(
        lane.entry(delivery.message, delivery.stored_ns),
        stored,
        reason=reason,
        stream=delivery.stream,
        deliveries=1,
        message=delivery.message,
        remove_origin=False,
    )


async def test_a_handler_that_awaits_what_somebody_cancelled_has_failed(server):
    """Its own task was not cancelled: handed back, which is no attempt, it would come again at once and for ever."""
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, runs = fleet.tasks("backend"), []

        async def work(task):
            runs.append(task.attempt)
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other

        await queue.submit("code", id="a")
        async with running(queue.worker("w"), work):
            assert (await queue.wait("a", 20)).state == "failed"
        (letter,) = await fleet.dead_letters.list()
        assert (runs, letter.reason, letter.error_type) == ([1, 2, 3], "max-deliver", "CancelledError")


EXITS = """
import asyncio, sys
from patterns import Fleet
from tests.support.fleets import fast

async def main(url):
    async with Fleet.connect(url, config=fast(tasks={"ack_wait": 1.0})) as fleet:
        async def work(task):
            print(task.attempt, flush=True)
            sys.exit(3)
        await fleet.tasks("backend").worker("w").run(work)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_handler_that_ends_the_process_is_a_failed_attempt_each_time(server):
    async with connected(server.url, roles=["backend"], config=fast(tasks={"ack_wait": 1.0})) as fleet:
        queue, runs = fleet.tasks("backend"), []
        await queue.submit("code", id="a")
        while not ((status := await queue.status("a")) is not None and status.final):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                EXITS,
                server.url,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            ended = asyncio.create_task(process.communicate())

            async def over(ended=ended):
                status = await queue.status("a")
                return ended.done() or (status is not None and status.final)

            await until(over)
            if process.returncode is None:
                process.kill()
            out, _ = await ended
            runs += [int(line) for line in out.split()]
        assert runs == [1, 2, 3]
        assert (status.state, status.error) == ("failed", "SystemExit: 3")


async def test_no_handler_begins_after_a_stop_has_returned(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran, asked, go = fleet.tasks("backend"), [], asyncio.Event(), asyncio.Event()
        await queue.submit("code", id="a")
        worker, real = queue.worker("w"), fleet.jetstream.consumer_info

        async def slow(*args):
            asked.set()
            await go.wait()
            return await real(*args)

        async def work(task):
            ran.append(task.id)

        monkeypatch.setattr(fleet.jetstream, "consumer_info", slow)
        loop = asyncio.create_task(worker.run(work))
        await asked.wait()
        await worker.stop(0)
        go.set()
        await loop
        assert ran == []
        assert (await queue.depth()).waiting == 0


async def test_a_lost_confirmation_of_the_ledger_counts_no_attempt_twice(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, real, lost = fleet.tasks("backend"), fleet.nc.request, []

        async def request(subject, payload=b"", **options):
            answer = await real(subject, payload, **options)
            if subject.startswith("$KV.TASKS") and b'"working"' in payload and not lost:
                lost.append(subject)
                raise nats.errors.TimeoutError
            return answer

        monkeypatch.setattr(fleet.nc, "request", request)
        await queue.submit("code", id="a")
        async with await queue.next("w", 20) as task:
            assert task.attempt == 1
        assert lost
        assert (await queue.status("a")).attempts == 1


async def test_a_durable_made_anew_runs_nothing_beside_its_letter(server):
    """It counts deliveries from 1 again, so a first delivery proves nothing there."""
    async with connected(server.url, roles=["backend"]) as fleet:
        queue, ran = fleet.tasks("backend"), []
        worker = queue.worker("w")
        # Long enough connected to trust the server's counts.
        await until(lambda: fleet.jetstream.connected_for() > 0.1)
        assert await worker.next(0.05) is None
        await queue.submit("code", id="a")
        await copied(fleet, worker.lane, await worker.next(20))
        await fleet.js.delete_consumer(queue.stream, queue.durable)
        await fleet.provision(roles=["backend"])

        async def work(task):
            ran.append(task.id)

        async with running(worker, work):
            await drained(queue)
        assert ran == []
        assert (await queue.status("a")).state == "rejected"
        assert len(await fleet.dead_letters.list()) == 1


async def test_hand_backs_of_an_id_that_failed_before_cost_no_attempt(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        worker = queue.worker("w")
        await queue.submit("code", id="a")
        await (await worker.next(20)).reject("no spec")
        again = encode("code", {}, id="a")
        again.headers["Nats-Msg-Id"] = "other"
        await fleet.publish(fleet.names.task_subject("backend", "code"), again, stream=queue.stream)
        for _ in range(3):
            # What a stop does with a message that is on its way.
            await worker._return(await take(fleet, queue.stream, queue.durable))
        async with await worker.next(20) as task:
            assert (task.attempt, task.deliveries) == (1, 4)
        assert (await queue.status("a")).state == "completed"


async def test_what_reaches_no_handler_is_not_delivered_for_ever(server):
    """Something kills every process before a handler can begin, and the ledger never hears of it."""
    async with connected(server.url, roles=["backend"], config=fast(tasks={"ack_wait": 0.1})) as fleet:
        queue = fleet.tasks("backend")
        worker = queue.worker("w")
        await queue.submit("code", id="a")
        await (await worker.next(20)).retry(0, reason="once")

        async def work(task):
            raise AssertionError("it runs")

        for _ in range(31):
            await take(fleet, queue.stream, queue.durable)
        async with running(worker, work):
            (letter,) = await until(fleet.dead_letters.list)
        assert letter.reason == "crash"


async def test_a_worker_killed_between_its_end_and_taking_back_the_others_letter_leaves_none(server):
    async with connected(server.url, roles=["backend"], config=fast(tasks={"ack_wait": 0.5})) as fleet:
        queue, ran = fleet.tasks("backend"), []
        worker = queue.worker("w")
        await queue.submit("code", id="a")
        await copied(fleet, worker.lane, await worker.next(20), "crash")
        await fleet.ledger.change("backend", "a", lambda record: dataclasses.replace(record, state="completed"))

        async def work(task):
            ran.append(task.id)

        async with running(worker, work):
            await drained(queue)
        assert ran == []
        assert await fleet.dead_letters.list() == []


async def test_a_replay_repeated_after_its_task_died_again_leaves_the_record(server, monkeypatch):
    """The copy is dropped by its receipt: a record set back to `submitted` would wait for nobody."""
    async with connected(server.url, roles=["backend"]) as fleet:
        queue = fleet.tasks("backend")
        worker, real = queue.worker("w"), JetStream.delete
        await queue.submit("code", id="a")
        await (await worker.next(20)).reject("no spec")
        (letter,) = await fleet.dead_letters.list()

        async def killed(js, stream, seq):
            if stream == "DLQ":
                raise Unavailable("killed")
            return await real(js, stream, seq)

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "delete", killed)
            with pytest.raises(Unavailable):
                await fleet.dead_letters.replay(letter.seq, by="ann")
        await (await worker.next(20)).reject("no spec, still")
        publish = JetStream.publish

        async def forgotten(js, subject, body, headers, **options):
            # As after a restart of the server, which forgets the ids of consumed messages.
            fresh = {**headers, "Nats-Msg-Id": "forgotten"} if subject.startswith("tasks.") else headers
            return await publish(js, subject, body, fresh, **options)

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "publish", forgotten)
            await fleet.dead_letters.replay(letter.seq, by="ann")
        assert await worker.next(0.5) is None
        assert worker.duplicates == 1
        assert (await queue.status("a")).state == "rejected"


async def test_a_next_that_is_cancelled_while_its_pull_is_withdrawn_leaves_nothing_behind(server, monkeypatch):
    async with connected(server.url, roles=["backend"]) as fleet, connected(server.url) as other:
        queue = fleet.tasks("backend")
        worker = queue.worker("w")
        assert await worker.next(0.05) is None
        monkeypatch.setattr("patterns.pull.GRACE", -0.4)
        unsubscribe, process, armed = fleet.nc._send_unsubscribe, fleet.nc._process_msg, [True]

        async def late(*args):
            await asyncio.sleep(0.15)
            await process(*args)

        async def withdrawn(*args, **options):
            if armed:
                armed.clear()
                # The message is stored just before the server hears of the end, and takes its time to reach us.
                monkeypatch.setattr(fleet.nc, "_process_msg", late)
                await other.tasks("backend").submit("code", id="a")
                await unsubscribe(*args, **options)
                taking.cancel()
                return
            await unsubscribe(*args, **options)

        monkeypatch.setattr(fleet.nc, "_send_unsubscribe", withdrawn)
        taking = asyncio.create_task(worker.next(0.5))
        (first,) = await asyncio.gather(taking, return_exceptions=True)
        monkeypatch.setattr("patterns.pull.GRACE", 0.25)
        if isinstance(first, asyncio.CancelledError) or first is None:
            first = await worker.next(LONG_LEASE / 2)
        assert first is not None, "the task is held by nobody until its lease is over"
        assert (first.id, first.attempt) == ("a", 1)
