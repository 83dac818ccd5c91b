"""The running demo: provisions an organization, starts its agents, and keeps the traffic flowing.

What repeats with the same seed: every planned id, type, body, flaw and time, and the fate of each message at each attempt,
because they come from seeded generators and hashes. What does not: who of a role takes a task, the order in which things end,
who falls back because an agent happened to be away, and at the end of a run the few items around its last moment.
Counts of two runs of the same length therefore agree but for a few; more of them differ on a machine that is too slow. On a
store that saw this seed before, the ids carry the number of the run, and fates are drawn by id: only fresh stores repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from console.demo.agents import Stage
from console.demo.cast import TROUBLE, Cast, each
from console.demo.organization import Organization, fleet_config, organize
from console.demo.tally import Tally
from console.demo.traffic import Item, loads, plan, routes
from patterns import Fleet, Unavailable
from patterns.message import MSG_ID

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger(__name__)

DRAIN = 15.0
"""Seconds the queues get at most to drain after the traffic has stopped."""

MOST_AGENTS = 1000
"""Each has a stream, each stream an open file, and the usual limit of those is 1,024."""

_ATTEMPTS = 3

_AT_ONCE = 32
"""Publishes under way at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What can be asked of the demo."""

    agents: int = 11
    """Members; fewer than four are made four."""
    rate: float = 6.0
    """Tasks and inbox messages a second, overall; their outcomes and the events come on top."""
    failure_rate: float = 0.08
    """Share of messages that meet an error, 0 to 1. At 0 nothing fails, at 1 everything dies."""
    seed: int | None = None
    """The same gives the same traffic; None takes a fresh one."""
    duration: float | None = None
    """Seconds of traffic; None goes on until it is told to end."""

    def __post_init__(self) -> None:
        if not 1 <= self.agents <= MOST_AGENTS:
            raise ValueError(f"agents must be between 1 and {MOST_AGENTS}")
        if not 0 < self.rate < float("inf"):
            raise ValueError("rate must be above 0")
        if not 0 <= self.failure_rate <= 1:
            raise ValueError("failure rate must be between 0 and 1")
        if self.duration is not None and not 0 < self.duration < float("inf"):
            raise ValueError("duration must be above 0 seconds")


class Simulation:
    """An organization of agents on one connection; an async context manager.

    Entering provisions and starts all agents; leaving stops them within about two seconds, whatever they are doing. What
    was not handled yet stays in its queue or inbox.

    Args:
        url: The server.
        options: Size, rates, seed.
    """

    def __init__(self, url: str, options: DemoOptions) -> None:
        self.url = url
        self.options = options
        seed = secrets.randbelow(2**32) if options.seed is None else options.seed
        self.seed = str(seed)
        self.organization: Organization = organize(options.agents)
        self._stage = Stage(
            seed=self.seed,
            loads=loads(routes(self.organization), options.rate),
            workers={role: len(self.organization.workers(role)) for role in self.organization.roles},
            failure_rate=options.failure_rate,
        )
        self._run = 0
        self._stack = AsyncExitStack()
        self._publishing: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._fleet: Fleet | None = None
        self._tally: Tally | None = None
        self._cast: Cast | None = None
        self._began: float | None = None
        self._ended: float | None = None

    # -- what can be seen and turned

    @property
    def fleet(self) -> Fleet:
        """The connection all agents share."""
        if self._fleet is None:
            raise RuntimeError("the simulation is not entered")
        return self._fleet

    @property
    def tally(self) -> Tally:
        """Counts this run's tasks."""
        if self._tally is None:
            raise RuntimeError("the simulation is not entered")
        return self._tally

    @property
    def failure_rate(self) -> float:
        """Share of messages that meet an error; can be set while the demo runs."""
        return self._stage.failure_rate

    @failure_rate.setter
    def failure_rate(self, value: float) -> None:
        self._stage.failure_rate = min(1.0, max(0.0, value))

    def summary(self) -> dict[str, int | float]:
        """Counts since the start, at any time: tasks by their ledger records, everything else by its receipts.

        Returns:
            `submitted`, `completed` and `dead_lettered` tasks (a replayed one is open again until it ends), inbox messages
            `sent`, events `broadcast`, `requests` made, and `seconds` from the start of the traffic to its end or now.
        """
        tally, counts = self._tally, self._stage.counts
        until = time.monotonic() if self._ended is None else self._ended
        return {
            "submitted": tally.submitted if tally else 0,
            "completed": tally.completed if tally else 0,
            "dead_lettered": len(tally.dead) if tally else 0,
            "sent": counts["sent"],
            "broadcast": counts["broadcast"],
            "requests": counts["requests"],
            "seconds": round(0.0 if self._began is None else until - self._began, 2),
        }

    # -- living

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(_quiet())
            config = fleet_config(len(self.organization.agents), self.options.rate)
            connection = Fleet.connect(self.url, config=config, name="agent-console demo")
            self._fleet = await stack.enter_async_context(connection)
            await self._provision()
            await self._count_runs()
            self._tally = Tally(self._fleet)
            stack.push_async_callback(self._tally.stop)
            await self._tally.start()
            self._cast = Cast(self._fleet, self.organization, self._stage)
            stack.push_async_callback(self._cast.stop)
            await self._cast.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def run(self, duration: float | None) -> None:
        """Send traffic until cancelled, finished or `duration` seconds are over; then let the queues drain for a while.

        Args:
            duration: Seconds; None for no end.
        """
        self._began, self._ended = time.monotonic(), None
        if self._cast is None:
            raise RuntimeError("the simulation is not entered")
        coming_and_going = asyncio.create_task(self._cast.come_and_go(), name="demo absences")
        try:
            async for item in self._due(duration):
                await self._launch(item)
            coming_and_going.cancel()
            await asyncio.gather(coming_and_going, *self._publishing, return_exceptions=True)
            if not self._ending.is_set():
                await self._drain()
        finally:
            coming_and_going.cancel()
            for task in self._publishing:
                task.cancel()
            await asyncio.gather(coming_and_going, *self._publishing, return_exceptions=True)
            self._ended = time.monotonic()

    def finish(self) -> None:
        """End `run` early and without a drain."""
        self._ending.set()

    # -- traffic

    async def _due(self, duration: float | None) -> AsyncIterator[Item]:
        """The items of the plan, each when its time has come."""
        began, end = time.monotonic(), float("inf") if duration is None else duration
        for item in self._plan():
            wait = began + min(item.at, end) - time.monotonic()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), wait)
            # A machine that cannot keep up ends late by a second, not by its whole arrears.
            if self._ending.is_set() or item.at >= end or time.monotonic() > began + end + 1:
                return
            yield item

    def _plan(self) -> Iterator[Item]:
        return plan(self.organization, self.seed, self.options.rate, lambda: self._stage.failure_rate, run=self._run)

    async def _count_runs(self) -> None:
        """Find the number of this run: on a kept store the ids of an earlier one with this seed would all be duplicates."""
        while True:
            first = next(item for item in self._plan() if item.kind == "task")
            if await self.fleet.tasks(first.to).status(first.id) is None:
                break
            self._run += 1

    async def _launch(self, item: Item) -> None:
        while len(self._publishing) >= _AT_ONCE:
            await asyncio.wait(self._publishing, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._publish(item), name=f"demo {item.id}")
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, item: Item) -> None:
        if item.kind == "task":
            self.tally.expect(item.to, item.id)
        if item.outage:
            self._stage.outages.add(item.id)
        try:
            stored = await self._store(item)
        except TROUBLE as error:
            stored = False
            log.info("%s was not sent: %s", item.id, error)
        if item.kind == "task":
            if not stored:
                self.tally.forget(item.to, item.id)
        elif stored:
            self._stage.counts["sent" if item.kind == "message" else "broadcast"] += 1

    async def _store(self, item: Item) -> bool:
        """Publish an item until it is confirmed; returns whether this run stored it, and not an earlier one."""
        for attempt in range(_ATTEMPTS):
            try:
                return not await self._send(item) or attempt > 0
            except Unavailable as error:
                # Stored or not, nobody knows; the same id again is stored once.
                log.info("%s is not confirmed: %s", item.id, error)
        return False

    async def _send(self, item: Item) -> bool:
        """Publish one item; returns whether it was there before."""
        fleet, names = self.fleet, self.fleet.names
        if item.raw is not None:
            subject = {
                "task": lambda: names.task_subject(item.to, item.type),
                "message": lambda: names.inbox_subject(item.to, item.type),
                "event": lambda: names.event_subject(item.type),
            }[item.kind]()
            return (await fleet.jetstream.publish(subject, item.raw, {MSG_ID: item.id}, timeout=5.0)).duplicate
        if item.kind == "message":
            receipt = await fleet.inbox(item.to).send(item.type, item.data, id=item.id, source=item.sender)
        elif item.kind == "event":
            receipt = await fleet.events.broadcast(item.type, item.data, id=item.id, source=item.sender)
        else:
            outcome = None if item.sender is None else names.inbox_prefix(item.sender)
            receipt = await fleet.tasks(item.to).submit(
                item.type, item.data, id=item.id, expires_in=item.expires_in, reply_to=outcome, source=item.sender
            )
        return receipt.duplicate

    # -- before and after

    async def _provision(self) -> None:
        await self.fleet.provision()
        await self.fleet.provision(roles=self.organization.roles)
        await each(lambda agent: self.fleet.provision(agents=[agent]), self.organization.agents)

    async def _drain(self) -> None:
        """Wait until every task has ended and every queue and inbox is empty, for a bounded time."""
        self._stage.haste = 0.15
        until = time.monotonic() + DRAIN
        while time.monotonic() < until and not self._ending.is_set():
            with contextlib.suppress(*TROUBLE):
                await self.tally.reread()
                look = await self.fleet.snapshot()
                own = [look.inboxes.get(agent) for agent in self.organization.agents]
                own += [look.queues.get(role) for role in self.organization.roles]
                lag = sum(depth.messages for depth in look.subscriptions.values())
                if not self.tally.open and not lag and not any(depth and depth.messages for depth in own):
                    break
            await asyncio.sleep(0.25)
        self._stage.haste = 1.0


async def headless(url: str, options: DemoOptions) -> dict[str, int | float]:
    """Run the demo without a screen for `options.duration` seconds and return its summary.

    After the traffic the queues drain, so that completed and dead-lettered tasks add up to the submitted ones. Ctrl-C and
    SIGTERM end it early and without a drain; the summary then leaves out what is still open.

    Raises:
        ConnectError: No server answers.
        ConfigMismatch: The server holds streams of the same names and another shape.
    """
    loop, caught = asyncio.get_running_loop(), []
    async with Simulation(url, options) as simulation:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not off the main thread
                loop.add_signal_handler(number, simulation.finish)
                caught.append(number)
        try:
            await simulation.run(options.duration)
        finally:
            for number in caught:
                loop.remove_signal_handler(number)
        return simulation.summary()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Failures are what a demo is made of: without this, and without logging set up, each would print two warnings."""
    logger = logging.getLogger("patterns")
    before = logger.level
    if before == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
