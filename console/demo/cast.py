"""The agents of the demo on their stage: starting, stopping, going away and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import nats.errors

from console.demo.agents import Stage, build
from console.demo.organization import Organization
from console.demo.traffic import Absence, absences
from patterns import Agent, Fleet, PatternError
from patterns.pull import Pull

log = logging.getLogger(__name__)

FAREWELL = 2.0
"""Seconds all agents together get to stop."""

TROUBLE = (PatternError, nats.errors.Error, OSError)
"""What an outage of the server, or an operator who deletes things, makes us see; the demo goes on."""


class Cast:
    """All members of an organization, as running agents.

    Args:
        fleet: The connection they share.
        organization: Who they are.
        stage: What their behaviours share.
    """

    def __init__(self, fleet: Fleet, organization: Organization, stage: Stage) -> None:
        self._fleet = fleet
        self._organization = organization
        self._stage = stage
        self._agents: dict[str, Agent] = {}
        self._returning: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all."""
        await each(self._start, self._organization.agents)

    async def _start(self, id: str) -> None:
        agent = build(self._fleet, self._organization.by_id[id], self._stage)
        # Known before it runs: a start that is cancelled half way is stopped like any other.
        self._agents[id] = agent
        await agent.__aenter__()

    async def stop(self) -> None:
        """Stop all within `FAREWELL` seconds, whatever they are doing."""
        for task in self._returning:
            task.cancel()
        await asyncio.gather(*self._returning, return_exceptions=True)
        agents, self._agents = self._agents, {}
        stopping = [asyncio.create_task(agent.stop(grace=0.5)) for agent in agents.values()]
        if stopping:
            _, late = await asyncio.wait(stopping, timeout=FAREWELL)
            for task in late:
                task.cancel()
            await asyncio.gather(*stopping, return_exceptions=True)

    async def come_and_go(self) -> None:
        """Send members away and take them back, until cancelled."""
        for absence in absences(self._organization, self._stage.seed):
            await asyncio.sleep(absence.after)
            with contextlib.suppress(*TROUBLE):
                await self._be_away(absence)

    async def _be_away(self, absence: Absence) -> None:
        until = time.monotonic() + absence.seconds
        try:
            await self._agents[absence.agent].stop(grace=0.5)
            if absence.crashes and self._stage.failure_rate > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._crash_loop(absence.agent), absence.seconds)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        finally:
            # Whatever ends the absence: somebody has to drain its inbox.
            back = asyncio.create_task(self._come_back(absence.agent), name=f"demo return of {absence.agent}")
            self._returning.add(back)
            back.add_done_callback(self._returning.discard)

    async def _come_back(self, agent: str) -> None:
        while True:
            try:
                return await self._start(agent)
            except TROUBLE as error:
                log.info("%s cannot start yet: %s", agent, error)
                await self._agents[agent].stop(grace=0.0)
                await asyncio.sleep(1.0)

    async def _crash_loop(self, agent: str) -> None:
        """Restart and crash on one message until the server hides it: stranded, until the agent's next sweep finds it."""
        fleet, inbox = self._fleet, self._fleet.inbox(agent)
        while not (pending := (await inbox.depth()).pending):  # noqa: ASYNC110 - nothing rings when an inbox fills
            await asyncio.sleep(0.2)
        if pending > 1:
            # The pull after the last crash would take the second message, and an inbox with one in flight has a worker.
            return
        pull = Pull(fleet.jetstream, inbox.stream, inbox.durable)
        try:
            # One more than there are attempts: the server counts a message out when the next pull comes.
            for _ in range(fleet.config.inbox.max_deliver + 1):
                message = await pull.next(0.2)
                if message is not None:
                    await message.nak()
        finally:
            await pull.close()


async def each(action: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
    """Do it for all, a few at a time; the first error ends them all."""
    limit = asyncio.Semaphore(16)

    async def act(name: str) -> None:
        async with limit:
            await action(name)

    try:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(act(name))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
