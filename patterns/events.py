"""Event broadcasting: something happened, whoever cares listens.

Guarantees: each durable subscription gets each matching event at least once, in order while `concurrency` is 1 and nothing
is retried, as long as it comes back before the event's age limit. Not for work that must be done by exactly one (tasks).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from nats.js import api
from nats.js.errors import APIError

from patterns import names
from patterns.consumer import Consumer
from patterns.errors import InvalidName, UnknownDestination
from patterns.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
from patterns.lane import Lane
from patterns.message import Message, Receipt, encode
from patterns.names import Entry
from patterns.watch import Watch

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

ATTEMPTS_KEY = "agents.max-deliver"
"""Consumer metadata: the delivery limit that the library counts for itself."""


class EventLane(Lane):
    """Settling an event: it stays in the stream, only this subscription moves on."""

    def entry(self, message: Message, stored_ns: int) -> Entry:
        """Entries of a subscription are named by its durable."""
        return Entry("events", self.durable, message.seq or 0, stored_ns)


class EventBus:
    """Broadcasts and subscriptions of a fleet.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.stream = fleet.names.events_stream

    async def broadcast(
        self,
        topic: str,
        data: Any = None,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Receipt:
        """Store an event for whoever subscribes to its topic; nobody is fine too.

        Args:
            topic: 1 to 8 tokens joined by dots.
            data: JSON data or bytes.
            id: The same id within the duplicate window is one event, whoever broadcasts it.
            headers: The caller's own headers.
            source: Id of the broadcasting agent.

        Raises:
            UnknownDestination: The fleet was not provisioned.
            MessageTooLarge: Body and headers exceed the server's limit.
            Unavailable: Not confirmed; repeat it with the same id.
        """
        outgoing = encode(topic, data, source=source, id=id, headers=headers)
        ack = await self._fleet.publish(self._fleet.names.event_subject(topic), outgoing, stream=self.stream)
        return Receipt(id=outgoing.id, stream=ack.stream, seq=ack.seq, duplicate=ack.duplicate)

    async def subscription(
        self,
        agent_id: str,
        *topics: str,
        name: str = "events",
        since: Literal["new", "all"] | datetime = "new",
        concurrency: int = 1,
    ) -> Consumer:
        """A durable subscription: created on first use, continued where it stood after that.

        Args:
            agent_id: Who subscribes.
            topics: Topics, `*` for one token, a last `>` for the rest; they must not overlap.
            name: Tells several subscriptions of one agent apart.
            since: Where a new subscription begins.
            concurrency: Handlers at a time.

        Raises:
            InvalidName: A name or topic is malformed, or topics overlap; before any server call.
        """
        checked = names.topic_filters(topics)
        durable = self._fleet.names.subscription_durable(agent_id, name)
        filters = [self._fleet.names.event_filter(topic) for topic in checked]
        filters.append(f"{self._fleet.names.redeliver_prefix(agent_id, name)}.>")
        delivery = self._fleet.config.events
        gap = await self._ensure(durable, filters, since)
        lane = EventLane(self._fleet, "events", durable, stream=self.stream, durable=durable, delivery=delivery)
        lane.agent = agent_id
        consumer = Consumer(lane, agent=agent_id, concurrency=concurrency)
        consumer.gap = gap
        return consumer

    def watch(self, *topics: str, since: datetime | None = None) -> Watch:
        """A live tail for screens: no consumer, no acknowledgement, drops with a counter when the reader is too slow."""
        for topic in topics:
            names.topic_filter(topic)
        return Watch(self._fleet, topics, since)

    async def unsubscribe(self, agent_id: str, name: str = "events") -> None:
        """Delete a durable subscription; it is fine if there is none."""
        durable = self._fleet.names.subscription_durable(agent_id, name)
        try:
            await self._fleet.jetstream.api(f"CONSUMER.DELETE.{self.stream}.{durable}")
        except APIError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise

    async def _ensure(self, durable: str, filters: list[str], since: Literal["new", "all"] | datetime) -> int | None:
        """Create the durable or bring its topics up to date; returns the gap of one that was away too long."""
        js = self._fleet.jetstream
        info = await js.consumer_info(self.stream, durable)
        if info is None:
            try:
                await js.context.add_consumer(self.stream, self._consumer_config(durable, filters, since))
            except APIError as error:
                if error.err_code == STREAM_NOT_FOUND:
                    raise UnknownDestination(f"there is no stream {self.stream}: provision() creates it") from None
                raise
            return None
        stream = await js.stream_info(self.stream)
        missed = int(stream["state"]["first_seq"]) - int(info["ack_floor"]["stream_seq"]) - 1 if stream else 0
        gap = missed if missed > 0 and stream is not None and int(info["ack_floor"]["stream_seq"]) > 0 else None
        if gap:
            log.warning("%s was away too long: up to %d events expired unseen", durable, gap)
        given = info["config"].get("filter_subjects") or [info["config"].get("filter_subject", "")]
        if sorted(given) != sorted(filters):
            log.info("%s: topics change from %s to %s", durable, given, filters)
            config = {**info["config"], "filter_subjects": filters}
            config.pop("filter_subject", None)
            await js.api(
                f"CONSUMER.CREATE.{self.stream}.{durable}",
                {"stream_name": self.stream, "config": config, "action": "update"},
            )
        return gap

    def _consumer_config(
        self, durable: str, filters: list[str], since: Literal["new", "all"] | datetime
    ) -> api.ConsumerConfig:
        delivery = self._fleet.config.events
        config = api.ConsumerConfig(
            name=durable,
            durable_name=durable,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=delivery.ack_wait,
            max_ack_pending=delivery.max_ack_pending,
            max_deliver=-1,
            filter_subjects=filters,
            deliver_policy=api.DeliverPolicy.ALL if since == "all" else api.DeliverPolicy.NEW,
            metadata={ATTEMPTS_KEY: str(delivery.max_deliver), "agents.receipts": "1"},
        )
        if isinstance(since, datetime):
            config.deliver_policy = api.DeliverPolicy.BY_START_TIME
            config.opt_start_time = since.astimezone(UTC)
        elif since not in ("new", "all"):
            raise InvalidName(f"since={since!r} must be 'new', 'all' or a datetime")
        return config
