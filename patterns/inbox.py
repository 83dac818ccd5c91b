"""A durable inbox for each agent: strict order, one message at a time, waits while the agent is away.

Guarantees: what `send` returned a receipt for is stored and is handed to one process at a time until it is acknowledged or
dead. Not for sharing load (tasks) nor for high volume: a failing message holds up the ones behind it, by design.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patterns.consumer import Consumer
from patterns.delivery import TRANSIENT, Delivery
from patterns.depth import QueueDepth, queue_depth
from patterns.errors import PatternError
from patterns.lane import Lane
from patterns.message import Message, Receipt, decode_stored, encode

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

SWEEP_INTERVAL = 30.0
"""Seconds between two looks for messages that exhausted their deliveries; an advisory brings the next look forward."""


class InboxLane(Lane):
    """Settling in an inbox: the server counts deliveries, and hides a message whose deliveries are used up."""

    async def housekeeping(self, consumer: Consumer) -> None:
        """Sweep at once, every 30 s, and when the server says that a message exhausted its deliveries."""
        exhausted = asyncio.Event()

        async def ring(_: Any) -> None:
            exhausted.set()

        advisory = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self.stream}.{self.durable}"
        subscription = await self.fleet.nc.subscribe(advisory, queue="sweep", cb=ring)
        try:
            while True:
                exhausted.clear()
                try:
                    moved = await self.fleet.dead_letters.sweep(self.stream, self.durable)
                    if moved:
                        log.warning("%s: moved %d exhausted messages to the dead letters", self.durable, moved)
                except (PatternError, *TRANSIENT) as error:
                    log.debug("%s: sweep failed, the next one tries again: %s", self.durable, error)
                except Exception:
                    log.exception("%s: sweep failed, the next one tries again", self.durable)
                try:
                    async with asyncio.timeout(SWEEP_INTERVAL):
                        await exhausted.wait()
                except TimeoutError:
                    continue
        finally:
            if not self.fleet.nc.is_closed:
                await subscription.unsubscribe()


class Inbox:
    """The inbox of one agent.

    Args:
        fleet: The connection.
        agent_id: Whose inbox.

    Raises:
        InvalidName: `agent_id` is not an agent id.
    """

    def __init__(self, fleet: Fleet, agent_id: str) -> None:
        self._fleet = fleet
        self.agent_id = agent_id
        self.stream = fleet.names.inbox_stream(agent_id)
        self.durable = fleet.names.inbox_durable(agent_id)
        self._puller: Consumer | None = None

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        id: str | None = None,
        expires_in: float | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Receipt:
        """Store a message in the inbox.

        Args:
            type: 1 to 8 tokens joined by dots.
            data: JSON data or bytes.
            id: Makes sending again within the duplicate window a no-op.
            expires_in: Seconds after which it must not be handled any more.
            headers: The caller's own headers.
            source: Id of the sending agent.

        Raises:
            UnknownDestination: The agent has no inbox.
            QueueFull: The inbox is at its limit.
            MessageTooLarge: Body and headers exceed the server's limit.
            Unavailable: Not confirmed; repeat it with the same id.
        """
        subject = self._fleet.names.inbox_subject(self.agent_id, type)
        outgoing = encode(type, data, source=source, id=id, expires_in=expires_in, headers=headers)
        ack = await self._fleet.publish(subject, outgoing, stream=self.stream)
        return Receipt(id=outgoing.id, stream=ack.stream, seq=ack.seq, duplicate=ack.duplicate)

    def consumer(self) -> Consumer:
        """A consumer of this inbox; a second one anywhere stands by until the first stops."""
        lane = InboxLane(
            self._fleet,
            "inbox",
            self.agent_id,
            stream=self.stream,
            durable=self.durable,
            delivery=self._fleet.config.inbox,
        )
        return Consumer(lane, agent=self.agent_id)

    async def next(self, timeout: float = 30.0) -> Delivery | None:
        """Take one message, or None if none comes within `timeout` seconds: for agents with a fresh context each time."""
        if self._puller is None:
            self._puller = self.consumer()
            self._fleet.on_close(self._puller.stop)
        return await self._puller.next(timeout)

    async def peek(self, limit: int = 20) -> list[Message]:
        """The oldest messages, read without a consumer: nothing is delivered and no counter moves."""
        page = await self._fleet.jetstream.read(self.stream, limit=limit)
        return [decode_stored(m, names=self._fleet.names, stream=self.stream) for m in page.messages]

    async def pause(self, seconds: float) -> None:
        """Deliver nothing for `seconds`; what is in flight may still be acknowledged."""
        await self._fleet.jetstream.pause(self.stream, self.durable, seconds)

    async def resume(self) -> None:
        """End a pause."""
        await self._fleet.jetstream.pause(self.stream, self.durable, 0)

    async def depth(self) -> QueueDepth:
        """How full it is and what is in flight."""
        return await queue_depth(self._fleet.jetstream, self.stream, self.durable)
