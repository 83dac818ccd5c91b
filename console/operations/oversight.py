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
from console.operations.holding import Hold, Shared
from console.operations.ledger import ItemState
from console.operations.plan import SENDS
from console.operations.redeaths import Redeaths
from patterns import PatternError
from patterns.consumer import end

if TYPE_CHECKING:
    from console.operations.job import Job

log = logging.getLogger("console.operations")

LOOK = 0.5
"""Seconds between two looks at what died."""
TRIES = 6
"""Looks for the place from which deaths are followed, before a job gives up: without it none could be told to be its own."""
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
            self._hold = Hold(
                job.fleet, consumers, known=spec.get("held"), remember=self._remember_held, shared=self._shared
            )
        self._redeaths = Redeaths(job.fleet, job.id, after=spec.get("dlq_after")) if job.action in SENDS else None
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
        # Shielded: whatever ends the job, its consumers go on.
        await asyncio.shield(asyncio.create_task(self._end(), name=f"end of oversight of job {self._job.id}"))

    async def _end(self) -> None:
        await end(*self._tasks, every=LOOK)
        if self._hold is not None:
            await self._hold.end()
        if self._job.redied:
            with contextlib.suppress(OperationError):
                await self._job.remember(redied=self._job.redied)

    # -- consumers

    async def _remember_held(self, held: Mapping[str, str]) -> None:
        self._job.held = tuple(held)
        await self._job.remember(held=dict(held))

    async def _shared(self, consumer: str) -> Shared:
        try:
            found = await asyncio.to_thread(self._job.ledger.jobs, limit=100)
        except OperationError:
            return Shared()
        others = [record for record in found if record.id != self._job.id]
        until = frozenset(each for record in others for each in record.spec.get("held", {}).get(consumer, "").split())
        wanted = any(
            record.state in ("running", "paused") and consumer.split(" ") in record.spec.get("hold", ())
            for record in others
        )
        return Shared(until, wanted)

    # -- deaths

    async def _begin_following(self, redeaths: Redeaths) -> None:
        """Mark from where on deaths are this job's.

        Raises:
            OperationError: The dead letters cannot be read.
        """
        for left in reversed(range(TRIES)):
            try:
                await redeaths.look()
                break
            except (PatternError, nats.errors.Error) as error:
                if not left or self._job.cancelled.is_set():
                    raise OperationError(f"the dead letters cannot be followed: {error}") from None
                await asyncio.sleep(LOOK)
        if "dlq_after" not in self._job.record.spec:
            await self._job.remember(dlq_after=redeaths.after)
        self._job.redied = redeaths.count

    async def _follow(self, redeaths: Redeaths) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await redeaths.look()
                if redeaths.count != self._job.redied:
                    self._job.redied = redeaths.count
                    self._judge(redeaths)
            except (PatternError, nats.errors.Error, OperationError) as error:
                log.debug("job %s: deaths are not read, trying again: %s", self._job.id, error)

    def _judge(self, redeaths: Redeaths) -> None:
        """Stop a job most of whose letters die again: the cause is not gone.

        What was sent after the last one that died has not had its chance yet, and does not count; nor does what an earlier
        run sent: whoever goes on has seen what came of it.
        """
        job, limit = self._job, self._job.record.spec.get("stop_ratio")
        if limit is None or job.cancelled.is_set():
            return
        sent = frozenset(job.sent_now)
        died = [seq for origin in redeaths.letters if (seq := int(origin)) in sent]
        if len(died) < FEWEST:
            return
        chances = sum(seq <= max(died) for seq in sent)
        if len(died) > float(limit) * chances:
            job.stop(
                f"{len(died)} of the first {chances} died again, more than {float(limit):.0%}: the cause is not gone. What is "
                "left was not sent"
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
        try:
            outcome = await self._tried(canary, self._redeaths, send)
        finally:
            job.phase = ""
        if outcome is None or job.cancelled.is_set():
            return
        await job.remember(canary_verdict=outcome.text)
        if job.planned - job.processed and not outcome.passed and job.ask is None:
            job.stop(f"canary: {outcome.text}. What is left was not sent; resuming the job sends it all the same")
        elif job.planned - job.processed and job.ask is not None:
            job.phase, job.asks = "canary waits for an answer", True
            # It is paused although another console keeps the record of it from being written.
            with contextlib.suppress(OperationError):
                job.pause()
            try:
                job.ask(job)
                await job.going.wait()
            finally:
                job.phase, job.asks = "", False

    async def _tried(self, canary: Canary, redeaths: Redeaths, send: Callable[[int], Awaitable[int]]) -> Outcome | None:
        """Send and watch; None if nothing was sent."""
        job = self._job
        watch = Watch(job.fleet, redeaths)
        # One that cannot be sent is answer enough: the next ones would fail alike.
        while (missing := canary.count - job.count("done", "duplicate")) > 0 and not job.count("failed", "in doubt"):
            coming = await asyncio.to_thread(job.ledger.items, job.id, "waiting", "sending", limit=missing)
            await watch.prepare({entry.item.destination for entry in coming})
            if job.cancelled.is_set() or not await send(missing):
                break
        if job.cancelled.is_set() or not job.count("done", "duplicate", "failed", "in doubt"):
            return None
        await job.settle_all()
        watch.follow(await asyncio.to_thread(job.ledger.items, job.id, *TRIED))
        deadline = asyncio.get_running_loop().time() + canary.watch
        while not job.cancelled.is_set():
            with contextlib.suppress(PatternError, nats.errors.Error):
                await watch.look()
            job.canary, job.redied = watch.outcome, redeaths.count
            left = deadline - asyncio.get_running_loop().time()
            if watch.outcome.decided or left <= 0:
                break
            job.phase = f"canary: {watch.outcome.acknowledged}/{watch.outcome.sent}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await job.cancelled.wait()
        return watch.outcome
