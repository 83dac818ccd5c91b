"""Event broadcasting: something happened, whoever cares listens.

Guarantees: each durable subscription gets each matching event at least once, in order while `concurrency` is 1 and nothing
is retried, as long as it comes back before the event's age limit. Not for work that must be done by exactly one (tasks).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from nats.js import api
from nats.js.errors import APIError

from patterns import names
from patterns.bell import Bell
from patterns.consumer import Consumer
from patterns.errors import InvalidName, Unavailable, UnknownDestination
from patterns.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
from patterns.lane import Lane
from patterns.message import Message, Receipt, decode_stored, encode
from patterns.names import Entry

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


class Watch:
    """A live tail of events for screens; iterate it. Makes no consumer and never blocks a publisher.

    A core subscription rings, a direct get reads: events come in stream order with sequence and time, none twice.

    Args:
        fleet: The connection.
        topics: Topics, wildcards allowed; none for all.
        since: Start with what was stored at or after this moment; None starts now.
        backlog: Events it may lag behind before it skips ahead and counts what it dropped.
    """

    def __init__(self, fleet: Fleet, topics: tuple[str, ...], since: datetime | None, *, backlog: int = 5_000) -> None:
        self._fleet = fleet
        self._filters = tuple(fleet.names.event_filter(topic) for topic in (topics or (">",)))
        self._since = since
        self._backlog = backlog
        self.dropped = 0
        """Events skipped because the reader was too slow."""
        self.caught_up = asyncio.Event()
        """Set whenever everything stored so far has been handed out."""
        self.on_trouble: Callable[[Exception], None] | None = None
        """Called with what kept a read from succeeding, for a reader who wants to say so; the watch goes on by itself."""

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._run()

    async def _run(self) -> AsyncIterator[Message]:
        fleet, stream = self._fleet, self._fleet.names.events_stream
        bell = Bell()
        subscriptions = [await fleet.nc.subscribe(pattern, cb=bell.ring) for pattern in self._filters]
        single = self._filters[0] if len(self._filters) == 1 else fleet.names.event_filter(">")
        try:
            position = await self._start(stream)
            while True:
                try:
                    page = await fleet.jetstream.read(stream, start=position, limit=500, subject=single)
                except (Unavailable, APIError) as error:
                    log.debug("events not read, trying again: %s", error)
                    if self.on_trouble is not None:
                        self.on_trouble(error)
                    await bell.wait(fleet.config.poll)
                    continue
                if page.remaining > self._backlog:
                    position = await self._skip(stream, single, position, len(page.messages) + page.remaining)
                    continue
                for message in page.messages:
                    position = message.seq + 1
                    if any(names.subject_matches(pattern, message.subject) for pattern in self._filters):
                        yield decode_stored(message, names=fleet.names, stream=stream)
                if page.messages and page.remaining != 0:
                    continue
                self.caught_up.set()
                if await bell.wait(fleet.config.poll):
                    self.caught_up.clear()
                elif not page.messages:
                    position = await self._back(stream, position)
        finally:
            for subscription in subscriptions:
                if not fleet.nc.is_closed:
                    await subscription.unsubscribe()

    async def _back(self, stream: str, position: int) -> int:
        """Where to go on while nothing comes: at the beginning of a stream that was deleted and made again."""
        info = await self._fleet.jetstream.stream_info(stream)
        made_again = info is not None and int(info["state"]["last_seq"]) + 1 < position
        return int(info["state"]["first_seq"]) if info is not None and made_again else position

    async def _start(self, stream: str) -> int:
        info = await self._fleet.jetstream.stream_info(stream)
        last = int(info["state"]["last_seq"]) if info else 0
        if self._since is None or info is None:
            return last + 1
        low, high = int(info["state"]["first_seq"]), last + 1
        while low < high:
            middle = (low + high) // 2
            page = await self._fleet.jetstream.read(stream, start=middle, limit=1)
            if page.messages and page.messages[0].stored_at < self._since:
                low = page.messages[0].seq + 1
            else:
                high = middle
        return low

    async def _skip(self, stream: str, pattern: str, position: int, behind: int) -> int:
        """Where to go on after leaving out most of the `behind` events from `position` on."""
        info = await self._fleet.jetstream.stream_info(stream)
        last = int(info["state"]["last_seq"]) if info else position
        ahead = max(position + 1, last - self._backlog // 2)
        page = await self._fleet.jetstream.read(stream, start=ahead, limit=1, subject=pattern)
        self.dropped += max(0, behind - len(page.messages) - page.remaining)
        return ahead


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
