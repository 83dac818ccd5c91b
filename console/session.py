"""One console session: the connection, the picture of the fleet that is kept fresh, and the jobs that run on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nats.aio.client import Client

from console.monitor.engine import Monitor
from console.monitor.feed import Feed
from console.operations.audit import Audit
from console.operations.errors import OperationError
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.plan import Plan
from console.settings import Settings
from console.text.safe import clean
from patterns import Fleet

log = logging.getLogger("console")

LEAVING = 0.2
"""Seconds after which a task that has not ended is cancelled once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a console is started with."""

    fleet: Fleet
    settings: Settings
    guard: WriteGuard
    name: str = ""
    """The nats context, or `demo`."""
    address: str = ""
    """Host and port, without credentials."""
    system: Client | None = None
    """A connection of the system account, where the settings name one: the fleet is then read by JSZ."""
    demo: bool = False
    audit: Audit | None = None
    """Where what is done here is written down."""
    ledger: JobLedger = field(default_factory=JobLedger)
    """Where jobs are kept, so that one that breaks off can be resumed."""
    event_prefix: str | None = None
    """Prefix of JetStream advisories instead of `$JS.EVENT`."""
    spill: Path
    """Directory of what is removed, for the way back."""

    @property
    def prod(self) -> bool:
        """Whether the settings call this context production."""
        return self.settings.context(self.name).prod


@dataclass(slots=True)
class Runtime:
    """A session in motion: what the screens read and act through."""

    session: Session
    monitor: Monitor = field(init=False)
    feed: Feed = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _running: dict[asyncio.Task[None], Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.session.fleet, self.session.settings, system=self.session.system)
        self.feed = Feed(
            self.session.fleet,
            capacity=self.session.settings.feed_lines,
            event_prefix=self.session.event_prefix,
        )
        self.monitor.on_death = self.feed.add_letter

    @property
    def fleet(self) -> Fleet:
        """The connection."""
        return self.session.fleet

    @property
    def guard(self) -> WriteGuard:
        """Whether changes are allowed."""
        return self.session.guard

    @property
    def busy(self) -> Job | None:
        """A job that is under way, if any."""
        return next((job for job in self.jobs if job.running), None)

    def working_on(self, stream: str) -> Job | None:
        """The job that is under way on a stream, if any."""
        return next((job for job in self.jobs if job.running and job.record.stream == stream), None)

    async def held_by_another(self, identity: str) -> bool:
        """Whether another process works on a stream; what a job of this session still holds at its end is not meant.

        Args:
            identity: Which stream, see `ledger.identity_of`; nothing holds one that is still to be made.
        """
        if not identity or any(job.record.identity == identity for job in self._running.values()):
            return False
        return await asyncio.to_thread(self.session.ledger.is_held, identity)

    def start(
        self,
        plan: Plan,
        *,
        ended: Callable[[Job], None] | None = None,
        asked: Callable[[Job], None] | None = None,
    ) -> tuple[Job, asyncio.Task[None]]:
        """Run a confirmed plan; it goes on when the screen changes.

        Args:
            plan: What was confirmed.
            ended: Called whatever becomes of it.
            asked: Called when its canary has been watched and it waits to be told how it goes on.

        Raises:
            Refused: The guard forbids it.
            OperationError: Another job works on the same stream; two at once on the same messages help nobody.
        """
        session = self.session
        job = Job.of(
            self.fleet, plan, self.guard, ledger=session.ledger, audit=session.audit, context=session.name,
            mode="demo" if session.demo else "ui",
        )  # fmt: skip
        return job, self.run(job, ended=ended, asked=asked)

    def run(
        self, job: Job, *, ended: Callable[[Job], None] | None = None, asked: Callable[[Job], None] | None = None
    ) -> asyncio.Task[None]:
        """Run a job that is new or was resumed; see `start`."""
        self.guard.require(job.action)
        other = self.working_on(job.record.stream)
        if other is not None and job.action not in ("pause", "resume"):
            raise OperationError(f"job {other.id} still works on {clean(job.record.stream)}: wait for its end")
        job.state = "running"
        job.ask = asked
        self.jobs = [*(each for each in self.jobs if each.id != job.id), job]
        # Not a worker of a screen: a cancelled publish has an unknown outcome.
        task = asyncio.create_task(self._run(job, ended), name=f"job {job.id}")
        self._running[task] = job
        task.add_done_callback(lambda done: self._running.pop(done, None))
        return task

    async def _run(self, job: Job, ended: Callable[[Job], None] | None) -> None:
        try:
            await job.run()
        except OperationError as error:
            # What kept it from beginning stands in its results, and `ended` tells it.
            log.warning("job %s: %s", job.id, error)
        finally:
            self.monitor.refresh()
            self.feed.add_action(
                job.id,
                job.action,
                done=job.count("done", "duplicate"),
                planned=job.planned,
                operator=job.record.actor,
            )
            if ended is not None:
                ended(job)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """Keep the picture fresh for the block; at its end running jobs stop after the item in work."""
        self._tasks = [
            asyncio.create_task(self.monitor.run(), name="monitor"),
            asyncio.create_task(self.feed.run(), name="feed"),
        ]
        try:
            yield self
        finally:
            for job in self.jobs:
                if job.running:
                    job.leave()
            await asyncio.gather(*self._running, return_exceptions=True)
            while left := [task for task in self._tasks if not task.done()]:
                # Once is not enough: `asyncio.wait_for` of Python 3.11 swallows a cancellation that meets the arrival of
                # what was waited for, and the end of a job has just woken the monitor.
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=LEAVING)
