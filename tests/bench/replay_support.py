"""What the two benches of replaying share: dead letters made fast, agents that count, and the console as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import APIError

from patterns import (
    DeadLetterConfig,
    Delivery,
    DeliveryConfig,
    Fleet,
    FleetConfig,
    PatternError,
    RetryPolicy,
    StreamLimits,
    TaskStatus,
)
from patterns.letter import death_headers
from patterns.message import decode, encode
from patterns.names import Entry
from patterns.stored import StoredMessage

AGENT, ROLE = "ceo", "backend"
INBOX, QUEUE = "INBOX_CEO", "TASKS_BACKEND"
LEASE = 2.0
"""Seconds after which what an agent held when the server was killed comes again."""
BORN = 1_700_000_000_000_000_000
"""When the first of the dead was stored, in nanoseconds since the epoch: long before the server was started."""
AT_ONCE = 64
"""Round trips that are under way while letters are made."""
AWAY = (PatternError, APIError, nats.errors.Error, OSError)
"""What a call raises while the server is away."""


def configuration(most: int = 10_000) -> FleetConfig:
    """Short leases and no second death, so that what an outage held up is handled and counted soon.

    Args:
        most: Messages that a stream takes.
    """
    quick = RetryPolicy(base=0.1, factor=2.0, max=1.0, jitter=0.2)
    return FleetConfig(
        inbox=DeliveryConfig(ack_wait=LEASE, max_ack_pending=1, max_deliver=50, retry=quick),
        tasks=DeliveryConfig(ack_wait=LEASE, max_ack_pending=64, max_deliver=50, retry=quick),
        dead_letters=DeadLetterConfig(max_msgs=2 * most),
        limits=StreamLimits(max_msgs=2 * most),
        poll=1.0,
        drain_grace=1.0,
        publish_timeout=20.0,
    )


async def insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call that may be repeated until a server that is away has answered it."""
    while True:
        try:
            return await call()
        except AWAY:
            await asyncio.sleep(0.05)


# -- the dead


def death(number: int, kind: str = "") -> tuple[Entry, StoredMessage]:
    """The name of a death and the message that died: `m-<number>` of the inbox or the role, in turn if not said."""
    kind = kind or ("inbox" if number % 2 else "tasks")
    inbox = kind == "inbox"
    subject = f"agents.{AGENT}.inbox.note" if inbox else f"tasks.{ROLE}.code.feature"
    sent = encode("note" if inbox else "code.feature", {"n": number, "text": "x" * 200}, id=f"m-{number}")
    entry = Entry("inbox", AGENT, number, BORN + number) if inbox else Entry("tasks", ROLE, number, BORN + number)
    return entry, StoredMessage(subject, entry.seq, entry.stored_ns, sent.headers, sent.body)


async def bury(fleet: Fleet, number: int) -> str:
    """Bury one message, and for a task leave the record of its failure; doing it again changes nothing. Its entry."""
    entry, origin = death(number)
    inbox = entry.kind == "inbox"
    stream = INBOX if inbox else QUEUE
    message = decode(origin.subject, origin.headers, origin.body, names=fleet.names, stream=stream, seq=origin.seq)
    if not inbox:
        failed = TaskStatus(
            id=message.id, role=ROLE, state="failed", agent="backend-1", attempts=3,
            error="TimeoutError: no answer", seq=entry.seq, stored_ns=entry.stored_ns,
        )  # fmt: skip
        await fleet.ledger.change(ROLE, message.id, lambda record: failed if record is None else None)
    await fleet.burials.bury(
        entry, origin, reason="max-deliver", error_type="TimeoutError", error="no answer", agent="backend-1",
        stream=stream, consumer="inbox" if inbox else "pool", deliveries=3, message=message, remove_origin=False,
    )  # fmt: skip
    return str(entry)


async def bury_all(fleet: Fleet, numbers: Iterable[int]) -> dict[str, str]:
    """Bury many messages; the ids and their entries."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[str, str]:
        async with slots:
            return f"m-{number}", await bury(fleet, number)

    return dict(await asyncio.gather(*map(one, numbers)))


async def store_copies(fleet: Fleet, count: int, kind: str) -> None:
    """Store dead letters as fast as it goes, without the receipts and records of `bury`."""
    slots = asyncio.Semaphore(1000)
    for number in range(count):
        entry, origin = death(number, kind)
        stream = INBOX if kind == "inbox" else QUEUE
        message = decode(origin.subject, origin.headers, origin.body, names=fleet.names, stream=stream, seq=origin.seq)
        headers = death_headers(
            origin, message, reason="max-deliver", error_type="TimeoutError", error="no answer", error_line="",
            agent=AGENT, stream=stream, consumer=kind, subject=origin.subject, deliveries=3,
        )  # fmt: skip
        await slots.acquire()
        stored = await fleet.js.publish_async(
            fleet.names.dlq_subject(entry), origin.body, headers=headers, wait_stall=60.0
        )
        stored.add_done_callback(lambda _: slots.release())
    await fleet.js.publish_async_completed()


async def stored_in(fleet: Fleet, stream: str) -> int | None:
    """Messages of a stream; None while nobody can tell."""
    try:
        info = await fleet.jetstream.api(f"STREAM.INFO.{stream}", timeout=1.0)
    except AWAY:
        return None
    return int(info["state"]["messages"])


# -- the agents


class Tally:
    """What was handled: for each id the sequences under which a handler saw it, and how often."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[tuple[str, int]]] = {}

    def add(self, id: str, stream: str, seq: int) -> None:
        """A handler saw a message."""
        self.seen.setdefault(id, Counter())[stream, seq] += 1

    @property
    def doubled(self) -> list[str]:
        """Ids of which a second copy was handled."""
        return [f"{name} as {sorted(copies)}" for name, copies in self.seen.items() if len(copies) > 1]

    @property
    def again(self) -> int:
        """Deliveries of a copy that had been handled already: its acknowledgement died with the server."""
        return sum(count - 1 for copies in self.seen.values() for count in copies.values())


@asynccontextmanager
async def agents(fleet: Fleet, tally: Tally) -> AsyncIterator[None]:
    """The inbox and a worker of the library, for the length of the block."""

    async def handle(delivery: Delivery) -> None:
        tally.add(delivery.id, delivery.stream, delivery.seq)

    consumers = [fleet.inbox(AGENT).consumer(), fleet.tasks(ROLE).worker("backend-1", concurrency=16)]
    loops = [asyncio.create_task(consumer.run(handle)) for consumer in consumers]
    try:
        yield
    finally:
        await asyncio.gather(*(consumer.stop(1.0) for consumer in consumers))
        await asyncio.gather(*loops)


async def make_plain(nc: Client) -> None:
    """The inbox and the queue as other code makes them: work queues whose consumers keep no receipts."""
    js = nc.jetstream()
    for stream, subject in ((INBOX, f"agents.{AGENT}.inbox.>"), (QUEUE, f"tasks.{ROLE}.>")):
        await js.add_stream(StreamConfig(stream, subjects=[subject], retention=RetentionPolicy.WORK_QUEUE))
        await js.add_consumer(
            stream, ConsumerConfig(durable_name="plain", ack_policy=AckPolicy.EXPLICIT, ack_wait=LEASE)
        )


@asynccontextmanager
async def plain_agents(url: str, tally: Tally) -> AsyncIterator[None]:
    """Two loops of nats-py that acknowledge what they take at once, for the length of the block."""
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_hush)
    js = nc.jetstream()

    async def take(stream: str) -> None:
        pulling = await js.pull_subscribe_bind("plain", stream=stream)
        while True:
            try:
                for msg in await pulling.fetch(16, timeout=1.0):
                    tally.add((msg.headers or {})["ce-id"], stream, msg.metadata.sequence.stream)
                    await msg.ack()
            except (TimeoutError, *AWAY):
                await asyncio.sleep(0.02)

    loops = [asyncio.create_task(take(stream)) for stream in (INBOX, QUEUE)]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await nc.close()


async def _hush(_: Exception) -> None:
    """nats-py prints every lost connection otherwise."""


# -- the console


class Process:
    """One run of the console."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = asyncio.create_task(process.communicate())

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._said.done()

    async def kill(self) -> bool:
        """SIGKILL it and wait for its end; whether it had not come to its own end before."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._said
        return self._process.returncode == -9

    async def end(self, timeout: float = 120.0) -> tuple[int, str, str]:
        """Wait for its end: exit code, standard output, standard error; one that hangs is killed."""
        done, _ = await asyncio.wait([self._said], timeout=timeout)
        if not done:
            await self.kill()
        out, err = await self._said
        return self._process.returncode or 0, out.decode(), err.decode()


class ConsoleProgram:
    """The console as a program, with files of its own.

    Args:
        url: The server.
        state: Its state directory: ledger and audit.
    """

    def __init__(self, url: str, state: Path) -> None:
        self._url = url
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
        for name in ("CONFIG", "STATE", "DATA", "CACHE"):
            self._environment[f"XDG_{name}_HOME"] = str(state / name.lower())

    async def start(self, *arguments: str) -> Process:
        """Start it on the server."""
        return Process(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "console", "--server", self._url, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
        )

    async def said(self, *arguments: str) -> Any:
        """What it says in JSON; it must come to a good end."""
        status, out, err = await (await self.start(*arguments, "--json")).end()
        if status not in (0, 3):
            raise RuntimeError(f"{' '.join(arguments)} ended with {status}: {err.strip()}")
        return json.loads(out)

    async def newest_job(self) -> dict[str, Any] | None:
        """What was begun last, as `jobs --json` tells it; None if the kill came before that."""
        found: Sequence[dict[str, Any]] = await self.said("jobs")
        return found[0] if found else None


async def wait_for(predicate: Callable[[], Awaitable[bool]], timeout: float) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + timeout
    while not await predicate():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.05)
    return True
