"""What a look at a fleet costs beside the bare requests it consists of, and beside nats-py doing the same.

The floor sends exactly the requests of the look before it, in the same order and as much at once, and decodes nothing. It
is recorded and not written down here, so it stays right whatever the reader asks for. Before each look some counters are
changed, because the reader keeps what is unchanged. Its first look, which keeps nothing yet, is told by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from console.monitor.mux import Mux
from console.monitor.reader import Reader
from patterns import Fleet
from tests.bench.console_fleet import BigFleet, agent_name, send, take
from tests.bench.console_lines import Line, progress

MOVED = 48
"""Inboxes that change before each look."""
PEER_WINDOW = 64
PEER_ROUNDS = 5
NO_DECODING = "the same requests, nothing decoded"


@dataclass(slots=True)
class Step:
    """One call that sends requests."""

    again: Callable[[], Awaitable[Any]]
    begun: float
    requests: int
    ended: float = 0.0


class Recorder:
    """Notes what is asked of a server while it is switched on."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.on = False
        self._inside: ContextVar[bool] = ContextVar("inside", default=False)

    async def _note(
        self, call: Callable[[], Awaitable[Any]], again: Callable[[], Awaitable[Any]], requests: int
    ) -> Any:
        if not self.on or self._inside.get():
            return await call()
        step = Step(again, time.perf_counter(), requests)
        self.steps.append(step)
        token = self._inside.set(True)
        try:
            return await call()
        finally:
            self._inside.reset(token)
            step.ended = time.perf_counter()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what goes through any `Mux` and any client, for the length of the block."""
        many, collected, one = Mux.ask_messages, Mux.gather, Client.request
        recorder = self

        async def ask_messages(mux: Mux, requests: Any, *rest: Any, **named: Any) -> Any:
            def call() -> Awaitable[Any]:
                return many(mux, requests, *rest, **named)

            return await recorder._note(call, call, len(requests))

        async def gather(mux: Mux, subject: str, payload: bytes, **named: Any) -> Any:
            def again() -> Awaitable[Any]:
                # One server answers: the client's own request is the least there is.
                return one(mux._nc, subject, payload, timeout=10.0)

            return await recorder._note(lambda: collected(mux, subject, payload, **named), again, 1)

        async def request(client: Client, *rest: Any, **named: Any) -> Any:
            def call() -> Awaitable[Any]:
                return one(client, *rest, **named)

            return await recorder._note(call, call, 1)

        Mux.ask_messages, Mux.gather, Client.request = ask_messages, gather, request  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            Mux.ask_messages, Mux.gather, Client.request = many, collected, one  # type: ignore[method-assign]

    async def repeat(self) -> None:
        """Send what was noted once more; what was under way at the same time is again."""
        groups: list[list[Step]] = []
        end = 0.0
        for step in self.steps:
            if groups and step.begun < end:
                groups[-1].append(step)
            else:
                groups.append([step])
            end = max(end, step.ended)
        for group in groups:
            await asyncio.gather(*(step.again() for step in group))

    @property
    def requests(self) -> int:
        """How many requests were noted."""
        return sum(step.requests for step in self.steps)


@dataclass(slots=True)
class Sides:
    """What was measured of one way of reading."""

    way: str
    cold: float
    ours: list[float]
    floor: list[float]
    peer: list[float]
    requests: int
    agents: int


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds of one call."""
    gc.collect()
    begun = time.perf_counter()
    await call()
    return time.perf_counter() - begun


async def move(fleet: Fleet, agents: int) -> None:
    """Change the counters of some inboxes."""
    chosen = random.sample(range(agents), min(MOVED, agents))
    await asyncio.gather(*(send(fleet, agent_name(number)) for number in chosen))
    await asyncio.gather(*(take(fleet, agent_name(number)) for number in chosen[: MOVED // 2]))


async def idiomatic(fleet: Fleet, agents: int) -> None:
    """What nats-py offers: the pages of `streams_info`, and `consumer_info` of every inbox and queue."""
    streams: list[Any] = []
    while page := await fleet.js.streams_info(offset=len(streams)):
        streams += page
    slots = asyncio.Semaphore(PEER_WINDOW)
    seen = 0

    async def consumer(stream: str, durable: str) -> None:
        nonlocal seen
        async with slots:
            await fleet.js.consumer_info(stream, durable)
            seen += 1

    names = fleet.names
    calls = []
    for info in streams:
        place = names.place_of(info.config.name)
        if place is not None and place.kind in ("inbox", "tasks"):
            durable = names.inbox_durable(place.name) if place.kind == "inbox" else names.tasks_durable(place.name)
            calls.append(consumer(info.config.name, durable))
    await asyncio.gather(*calls)
    if seen < agents:
        raise RuntimeError(f"nats-py saw {seen} consumers of {agents} agents")


@contextlib.asynccontextmanager
async def reader_of(big: BigFleet, fleet: Fleet, *, system: bool) -> AsyncIterator[Reader]:
    """The reader under test."""
    if system:
        async with big.system() as client:
            yield Reader(fleet, system=client)
    else:
        yield Reader(fleet)


async def measure(big: BigFleet, *, system: bool, rounds: int) -> Sides:
    """Let reader, floor and peer take turns on one fleet."""
    recorder = Recorder()
    with recorder.listening():
        async with big.connect() as fleet, big.connect() as mover, reader_of(big, fleet, system=system) as reader:
            cold = await timed(reader.read)
            sides = Sides(reader.way, cold, [], [], [], 0, big.agents)

            async def ours() -> None:
                recorder.steps = []
                recorder.on = True
                snapshot = await reader.read()
                recorder.on = False
                if len(snapshot.inboxes) != big.agents or snapshot.missing:
                    raise RuntimeError(f"{len(snapshot.inboxes)} of {big.agents} agents read, {snapshot.missing}")

            # A row counts as unchanged after two equal reads: the first looks are on the way there and warm up.
            for _ in range(3):
                await ours()
            for number in range(rounds):
                await move(mover, big.agents)
                # The floor repeats the look before it: who goes first changes, as the other's traffic warms the server.
                for side in ("ours", "floor") if number % 2 else ("floor", "ours"):
                    if side == "ours":
                        sides.ours.append(await timed(ours))
                    else:
                        sides.floor.append(await timed(recorder.repeat))
                if not system and number < PEER_ROUNDS:
                    sides.peer.append(await timed(lambda: idiomatic(mover, big.agents)))
            sides.requests = recorder.requests
    return sides


def lines(big: BigFleet, *, system: bool, rounds: int) -> list[Line]:
    """The lines of one way of reading one fleet."""
    access = "system account" if system else "no system account"
    progress(f"snapshot of {big.agents:,} agents, {access}")
    sides = asyncio.run(measure(big, system=system, rounds=rounds))
    what = f"snapshot, {big.agents:,} agents, {access}"
    ours, floor = statistics.median(sides.ours), statistics.median(sides.floor)
    limit = 1.25 if system else 1.5
    note = f"medians of {rounds} looks after {MOVED} inboxes changed; {sides.way or 'way not told'}"
    found = [
        Line(
            what=what,
            ours=f"{ours * 1000:.1f} ms",
            against=f"{NO_DECODING} ({sides.requests:,})",
            floor=f"{floor * 1000:.1f} ms",
            ratio=ours / floor,
            target=f"≤ {limit} x",
            met=ours <= limit * floor,
            notes=(note,),
        )
    ]
    if sides.peer:
        peer = statistics.median(sides.peer)
        found.append(
            Line(
                what=what,
                ours=f"{ours * 1000:.1f} ms",
                against=f"nats-py: streams_info, consumer_info x {PEER_WINDOW}",
                floor=f"{peer * 1000:.1f} ms",
                ratio=ours / peer,
                target="≤ 0.25 x",
                met=ours <= 0.25 * peer,
            )
        )
    found.append(
        Line(
            what="… its first look",
            ours=f"{sides.cold * 1000:.1f} ms",
            against=NO_DECODING,
            floor=f"{floor * 1000:.1f} ms",
            ratio=sides.cold / floor,
        )
    )
    return found
