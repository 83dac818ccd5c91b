"""What the patterns cost: each beside raw nats-py that does the same with the same guarantees, in one run.

`python -m tests.bench.patterns` prints the table of the README. Both sides talk to one fresh nats-server with file storage
over connections of their own, take turns in short rounds, and the medians of the rounds are compared, so that a machine
that slows down slows both. One message after the other, nothing in parallel: that is the latency an agent sees.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from rich.console import Console
from rich.table import Table

from patterns import Delivery, Fleet
from patterns.server import LocalServer

BODY = {"spec": "rate limiting", "priority": 3, "text": "x" * 200}
"""What a message carries: 250 bytes of JSON."""

SENT_AHEAD = 5_000
"""Messages for the row that takes them one by one."""

Side = Callable[[int], Awaitable[None]]
"""Does so many messages, one after the other."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    raw: list[float]
    """Seconds a message, one value a round."""
    ours: list[float]
    target: str

    @property
    def ratio(self) -> float:
        """Our rate as a part of the raw one."""
        return statistics.median(self.raw) / statistics.median(self.ours)


async def compare(name: str, raw: Side, ours: Side, *, rounds: int, messages: int, target: str) -> Row:
    """Let both sides take turns; the first round of each warms up and does not count."""
    row = Row(name, [], [], target)
    for number in range(rounds + 1):
        # Who goes first changes, so that neither always meets the server just after the other's writes.
        sides = [(raw, row.raw), (ours, row.ours)]
        for side, seconds in sides if number % 2 else reversed(sides):
            gc.collect()
            begun = time.perf_counter()
            await side(messages)
            if number:
                seconds.append((time.perf_counter() - begun) / messages)
    return row


# -- the pairs


def encoded() -> bytes:
    """The body as raw nats-py sends it: encoding is part of the work on both sides."""
    return json.dumps(BODY).encode()


async def inbox_send(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """Publish with an id, awaited."""
    js = nc.jetstream()
    await js.add_stream(name="RAW_INBOX", subjects=["raw.inbox.>"], retention=api.RetentionPolicy.WORK_QUEUE)

    async def raw(messages: int) -> None:
        for _ in range(messages):
            await js.publish("raw.inbox.note", encoded(), headers={"Nats-Msg-Id": uuid4().hex})

    async def ours(messages: int) -> None:
        for _ in range(messages):
            await fleet.inbox("ceo").send("note", BODY)

    return raw, ours


def raw_receive(pulling: JetStreamContext.PullSubscription) -> Side:
    """Fetch one, look at it, double ack."""

    async def raw(messages: int) -> None:
        for _ in range(messages):
            (msg,) = await pulling.fetch(1, timeout=5)
            json.loads(msg.data)
            await msg.ack_sync()

    return raw


async def inbox_receive(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """Handle one after the other, each acknowledged with a double ack; what the row before has sent."""
    js = nc.jetstream()
    await js.add_consumer("RAW_INBOX", durable_name="raw", max_ack_pending=1, ack_policy=api.AckPolicy.EXPLICIT)
    pulling = await js.pull_subscribe_bind(durable="raw", stream="RAW_INBOX")

    raw = raw_receive(pulling)

    async def ours(messages: int) -> None:
        left, done = messages, asyncio.Event()

        async def handle(message: Delivery) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()

        consumer = fleet.inbox("ceo").consumer()
        running = asyncio.create_task(consumer.run(handle))
        await done.wait()
        await consumer.stop()
        await running

    return raw, ours


async def inbox_take(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """As before, but each message asked for by itself, as an agent with a fresh context does."""
    js = nc.jetstream()
    for _ in range(SENT_AHEAD):
        await js.publish("raw.inbox.note", encoded(), headers={"Nats-Msg-Id": uuid4().hex})
        await fleet.inbox("ceo").send("note", BODY)
    pulling = await js.pull_subscribe_bind(durable="raw", stream="RAW_INBOX")

    raw = raw_receive(pulling)

    async def ours(messages: int) -> None:
        for _ in range(messages):
            message = await fleet.inbox("ceo").next(5)
            assert message is not None
            async with message:
                pass

    return raw, ours


async def task(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """Submit, work, result recorded, acknowledged: the same server calls in the same order on both sides."""
    js = nc.jetstream()
    await js.add_stream(
        name="RAW_TASKS", subjects=["raw.tasks.>"], retention=api.RetentionPolicy.WORK_QUEUE, allow_direct=True
    )
    ledger = await js.create_key_value(bucket="RAW_LEDGER")
    await js.add_consumer("RAW_TASKS", durable_name="raw", ack_policy=api.AckPolicy.EXPLICIT)
    pulling = await js.pull_subscribe_bind(durable="raw", stream="RAW_TASKS")

    async def raw(messages: int) -> None:
        for _ in range(messages):
            name = uuid4().hex
            await js.publish("raw.tasks.code", encoded(), headers={"Nats-Msg-Id": name, "id": name})
            await ledger.create(name, json.dumps({"id": name, "state": "submitted"}).encode())
            (msg,) = await pulling.fetch(1, timeout=5)
            json.loads(msg.data)
            entry = await ledger.get(name)
            record = json.loads(entry.value or b"{}")
            revision = await ledger.update(name, json.dumps(record | {"state": "working"}).encode(), entry.revision)
            await ledger.update(name, json.dumps(record | {"state": "completed", "result": 1}).encode(), revision)
            await msg.ack_sync()

    async def ours(messages: int) -> None:
        queue = fleet.tasks("backend")
        for _ in range(messages):
            await queue.submit("code", BODY)
            delivery = await queue.next("w", 5)
            assert delivery is not None
            async with delivery:
                delivery.result = 1

    return raw, ours


async def request(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """Ask and be answered, both ends in this process."""

    async def answer(msg: nats.aio.msg.Msg) -> None:
        await msg.respond(json.dumps({"got": json.loads(msg.data)["priority"]}).encode())

    await nc.subscribe("raw.rpc.size", queue="q", cb=answer)
    responder = fleet.requests.responder("devops")

    async def size(request: object) -> dict[str, object]:
        return {"got": request.data["priority"]}  # type: ignore[attr-defined]

    responder.handle("size", size)
    await responder.__aenter__()

    async def raw(messages: int) -> None:
        for _ in range(messages):
            json.loads((await nc.request("raw.rpc.size", encoded(), timeout=5)).data)

    async def ours(messages: int) -> None:
        for _ in range(messages):
            await fleet.requests.request("size", BODY, to="devops", timeout=5)

    return raw, ours


async def broadcast(fleet: Fleet, nc: Client) -> tuple[Side, Side]:
    """Store an event and handle it in one durable subscription, acknowledged with a double ack."""
    js = nc.jetstream()
    await js.add_stream(name="RAW_EVENTS", subjects=["raw.events.>"])
    await js.add_consumer("RAW_EVENTS", durable_name="raw", ack_policy=api.AckPolicy.EXPLICIT)
    pulling = await js.pull_subscribe_bind(durable="raw", stream="RAW_EVENTS")
    subscription = await fleet.events.subscription("security", "deployment.>")

    async def raw(messages: int) -> None:
        for _ in range(messages):
            await js.publish("raw.events.deployment", encoded(), headers={"Nats-Msg-Id": uuid4().hex})
            (msg,) = await pulling.fetch(1, timeout=5)
            json.loads(msg.data)
            await msg.ack_sync()

    async def ours(messages: int) -> None:
        for _ in range(messages):
            await fleet.events.broadcast("deployment.completed", BODY)
            delivery = await subscription.next(5)
            assert delivery is not None
            async with delivery:
                pass

    return raw, ours


PAIRS: dict[str, tuple[Callable[[Fleet, Client], Awaitable[tuple[Side, Side]]], str]] = {
    "inbox: send": (inbox_send, "≥ 0.85"),
    "inbox: receive and acknowledge": (inbox_receive, "≥ 0.85"),
    "inbox: take one by one": (inbox_take, ""),
    "task: submit to completed": (task, "≥ 0.40"),
    "request and reply": (request, "≥ 0.85"),
    "event: broadcast to handled": (broadcast, ""),
}


# -- memory


def resident() -> float:
    """Megabytes this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def memory(fleet: Fleet, messages: int) -> list[tuple[int, float]]:
    """Memory after each tenth of so many messages sent to and handled by one inbox."""
    seen, found, done, room = 0, [], asyncio.Event(), asyncio.Semaphore(2_000)

    async def handle(delivery: Delivery) -> None:
        nonlocal seen
        seen += 1
        room.release()
        if seen % (messages // 10) == 0:
            gc.collect()
            found.append((seen, resident()))
        if seen == messages:
            done.set()

    consumer = fleet.inbox("ceo").consumer()
    running = asyncio.create_task(consumer.run(handle))

    async def send() -> None:
        for _ in range(messages // 50):
            await room.acquire()
            await fleet.inbox("ceo").send("note", BODY)

    await asyncio.gather(*(send() for _ in range(50)))
    await done.wait()
    await consumer.stop()
    await running
    return found


# -- the program


async def main(rounds: int, messages: int, remembered: int) -> None:
    """Measure and print."""
    out = Console(width=None if sys.stdout.isatty() else 110)
    with LocalServer() as server:
        nc = await nats.connect(server.url)
        async with Fleet.connect(server.url) as fleet:
            await fleet.provision(agents=["ceo", "devops"], roles=["backend"])
            # A consumer trusts the counts of deliveries of what was stored once it had been connected for a second.
            await asyncio.sleep(1.5)
            table = Table(title=f"{rounds} rounds of {messages} messages each, medians")
            for column in ("", "nats-py", "patterns", "rate", "target", "rounds"):
                table.add_column(column, justify="right" if column else "left")
            for name, (pair, target) in PAIRS.items():
                row = await compare(name, *await pair(fleet, nc), rounds=rounds, messages=messages, target=target)
                ratios = sorted(a / b for a, b in zip(row.raw, row.ours, strict=True))
                table.add_row(
                    name,
                    f"{statistics.median(row.raw) * 1e6:.0f} µs",
                    f"{statistics.median(row.ours) * 1e6:.0f} µs",
                    f"{row.ratio:.2f}",
                    target,
                    f"{ratios[0]:.2f} – {ratios[-1]:.2f}",
                )
            out.print(table)
            if remembered:
                steps = await memory(fleet, remembered)
                out.print(
                    f"memory over {remembered:,} inbox messages: "
                    + ", ".join(f"{megabytes:.0f}" for _, megabytes in steps)
                    + " MB"
                )
        await nc.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each side")
    parser.add_argument("--messages", type=int, default=200, help="messages a round")
    parser.add_argument("--memory", type=int, default=100_000, help="messages of the memory run, 0 for none")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.messages, given.memory))
