"""What a job looks after besides its items: the consumers it holds, deaths after its replays, and its canary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import nats.errors

from console.operations.canary import Canary, Outcome, Watch
from console.operations.errors import OperationError
from console.operations.holding import Hold
from console.operations.ledger import ItemState
from console.operations.plan import SENDS
from console.operations.redeaths import Redeaths
from patterns import PatternError

if TYPE_CHECKING:
    from console.operations.job import Job

log = logging.getLogger("console.operations")

LOOK = 0.5
"""Seconds between two looks at what died."""
FEWEST = 5
"""Deaths after replay from which on their share is told from chance."""
TRIED: tuple[ItemState, ...] = ("done", "duplicate", "failed", "in doubt")


class Oversight:
    """Looks after one run of a job, for the length of a block.

    Args:
        job: Whose.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        spec = job.record.spec
        self._hold: Hold | None = None
        if spec.get("hold"):
            consumers = [(str(stream), str(durable)) for stream, durable in spec["hold"]]
            self._hold = Hold(job.fleet, consumers, known=spec.get("held"), remember=self._remember_held)
        self._redeaths = Redeaths(job.fleet, job.id, after=spec.get("dlq_after")) if job.action in SENDS else None
        self._before = (0, 0)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Oversight:
        if self._redeaths is not None:
            await self._begin_following(self._redeaths)
        if self._hold is not None:
            self._job.phase = "pausing consumers"
            try:
                await self._hold.begin()
            finally:
                self._job.phase = ""
            self._tasks.append(asyncio.create_task(self._hold.keep(), name=f"hold of job {self._job.id}"))
        if self._redeaths is not None:
            self._tasks.append(asyncio.create_task(self._follow(self._redeaths), name=f"deaths of job {self._job.id}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._job.redied:
            with contextlib.suppress(OperationError):
                await self._job.remember(redied=self._job.redied)
        if self._hold is not None:
            await self._hold.end()

    # -- consumers

    async def _remember_held(self, held: Mapping[str, str]) -> None:
        self._job.held = tuple(held)
        await self._job.remember(held=dict(held))

    # -- deaths

    async def _begin_following(self, redeaths: Redeaths) -> None:
        with contextlib.suppress(PatternError, nats.errors.Error):
            await redeaths.look()
            if "dlq_after" not in self._job.record.spec:
                await self._job.remember(dlq_after=redeaths.after)
            self._before = (redeaths.count, self._job.count("done"))
            self._job.redied = redeaths.count

    async def _follow(self, redeaths: Redeaths) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await redeaths.look()
            except (PatternError, nats.errors.Error) as error:
                log.debug("job %s: deaths are not read, trying again: %s", self._job.id, error)
                continue
            self._job.redied = redeaths.count
            self._judge(redeaths.count)

    def _judge(self, count: int) -> None:
        """Stop a job most of whose letters die again: the cause is not gone."""
        limit = self._job.record.spec.get("stop_ratio")
        died, done = count - self._before[0], self._job.count("done") - self._before[1]
        if limit is None or died < FEWEST or not done or self._job.cancelled.is_set():
            return
        if died / done > float(limit):
            self._job.stop(
                f"{died} of {done} died again, more than {float(limit):.0%}: the cause is not gone. What is left was not sent"
            )

    # -- canary

    async def canary(self, send: Callable[[int], Awaitable[int]]) -> None:
        """Send the first few and watch them; afterwards the job goes on, waits for an answer, or has been stopped.

        Args:
            send: Sends so many more items of the job and tells how many it began.
        """
        job = self._job
        canary = Canary.from_spec(job.record.spec.get("canary"))
        if canary is None or job.record.spec.get("canary_verdict") or self._redeaths is None:
            return
        job.phase = "canary"
        # One that cannot be sent is answer enough: the next ones would fail alike.
        while (missing := canary.count - job.count("done")) > 0 and not job.count("failed", "in doubt"):
            if job.cancelled.is_set() or not await send(missing):
                break
        if job.cancelled.is_set() or not job.count("done", "failed", "in doubt"):
            job.phase = ""
            return
        outcome = await self._watched(canary, self._redeaths)
        job.phase = ""
        if job.cancelled.is_set():
            return
        await job.remember(canary_verdict=outcome.text)
        left = job.planned - job.processed
        if not left:
            return
        if job.ask is not None:
            job.phase = "canary waits for an answer"
            job.pause()
            job.ask(job)
            await job.going.wait()
            job.phase = ""
        elif not outcome.passed:
            job.stop(f"canary: {outcome.text}. What is left was not sent; resuming the job sends it all the same")

    async def _watched(self, canary: Canary, redeaths: Redeaths) -> Outcome:
        job = self._job
        tried = await asyncio.to_thread(lambda: job.ledger.items(job.id, *TRIED))
        watch, loop = Watch(job.fleet, redeaths, tried), asyncio.get_running_loop()
        deadline = loop.time() + canary.watch
        outcome = Outcome(sum(bool(entry.sent) for entry in tried), 0, 0)
        while not job.cancelled.is_set():
            with contextlib.suppress(PatternError, nats.errors.Error):
                outcome = await watch.look()
            job.canary = outcome
            job.redied = redeaths.count
            left = deadline - loop.time()
            if outcome.decided or left <= 0:
                break
            job.phase = f"canary: {outcome.acknowledged}/{outcome.sent}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await job.cancelled.wait()
        return outcome
