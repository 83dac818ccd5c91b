"""How full a stream is and what its consumer is doing, from the server's own counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from patterns.errors import UnknownDestination
from patterns.headers import parse_time
from patterns.jetstream import JetStream


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """Counters of one stream and its durable, at one moment."""

    messages: int = 0
    """Messages in the stream; for a subscription those it has not acknowledged."""
    pending: int = 0
    """Not yet delivered."""
    ack_pending: int = 0
    """Delivered and not acknowledged: in flight, or waiting for a delayed retry."""
    redelivered: int = 0
    """Delivered more than once and still not acknowledged."""
    waiting: int = 0
    """Open pull requests: somebody is there and has a free slot."""
    stranded: int | None = None
    """Messages that used up their deliveries and that the server hides; None where the library counts for itself."""
    paused_until: datetime | None = None
    oldest_at: datetime | None = None
    """When the oldest message still there was stored; None if there is none."""
    last_seq: int = 0
    """Newest sequence: its growth is the inflow."""
    bytes: int = 0
    ack_wait: float = 0.0
    """Lease in seconds."""
    last_delivered_at: datetime | None = None
    last_acked_at: datetime | None = None
    durable: str | None = None
    """The consumer these counters are from; None if the stream has none."""
    topics: tuple[str, ...] = ()
    """Subjects the durable filters by."""

    @property
    def paused(self) -> bool:
        """Whether deliveries are suspended now."""
        return self.paused_until is not None and self.paused_until > datetime.now(UTC)


async def queue_depth(js: JetStream, stream: str, durable: str) -> QueueDepth:
    """Depth of one stream.

    Raises:
        UnknownDestination: The stream does not exist.
    """
    info = await js.stream_info(stream)
    if info is None:
        raise UnknownDestination(f"there is no stream {stream}: provision() creates it")
    return depth_of(info, await js.consumer_info(stream, durable))


def depth_of(
    stream: Mapping[str, Any], consumer: Mapping[str, Any] | None, *, server_counts: bool = True
) -> QueueDepth:
    """Derive the depth from a stream's and its consumer's info.

    Args:
        stream: Answer of STREAM.INFO.
        consumer: Answer of CONSUMER.INFO, None if there is no consumer.
        server_counts: Whether the stream is a work queue, so that what is neither pending nor in flight but still stored is
            stranded (unless the consumer has no delivery limit).
    """
    state = stream.get("state", {})
    messages = int(state.get("messages", 0))
    of_stream: dict[str, Any] = {
        "messages": messages,
        "bytes": int(state.get("bytes", 0)),
        "oldest_at": _moment(state.get("first_ts")) if messages else None,
        "last_seq": int(state.get("last_seq", 0)),
    }
    if consumer is None:
        return unattended(**of_stream)
    config = consumer.get("config", {})
    filters = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    return attended(
        **of_stream,
        pending=int(consumer.get("num_pending", 0)),
        ack_pending=int(consumer.get("num_ack_pending", 0)),
        redelivered=int(consumer.get("num_redelivered", 0)),
        waiting=int(consumer.get("num_waiting", 0)),
        pause_remaining=int(consumer.get("pause_remaining", 0)) if consumer.get("paused") else 0,
        ack_wait=int(config.get("ack_wait", 0)),
        max_deliver=int(config.get("max_deliver", -1)),
        last_delivered_at=_moment(consumer.get("delivered", {}).get("last_active")),
        last_acked_at=_moment(consumer.get("ack_floor", {}).get("last_active")),
        durable=consumer.get("name"),
        topics=tuple(filters),
        server_counts=server_counts,
    )


def unattended(*, messages: int, bytes: int, oldest_at: datetime | None, last_seq: int) -> QueueDepth:
    """The depth of a stream that nobody consumes."""
    return QueueDepth(messages=messages, pending=messages, oldest_at=oldest_at, last_seq=last_seq, bytes=bytes)


def attended(
    *,
    messages: int,
    bytes: int,
    oldest_at: datetime | None,
    last_seq: int,
    pending: int,
    ack_pending: int,
    redelivered: int,
    waiting: int,
    pause_remaining: int,
    ack_wait: int,
    max_deliver: int,
    last_delivered_at: datetime | None,
    last_acked_at: datetime | None,
    durable: str | None,
    topics: tuple[str, ...],
    server_counts: bool = True,
) -> QueueDepth:
    """The depth of a stream with a consumer, from the server's counters; the rule of what counts as stranded is here.

    Args:
        messages: In the stream.
        bytes: In the stream.
        oldest_at: When its first message was stored; None if it is empty.
        last_seq: Its newest sequence.
        pending: Not yet delivered.
        ack_pending: Delivered and not acknowledged.
        redelivered: Of those, delivered more than once.
        waiting: Open pull requests.
        pause_remaining: Nanoseconds for which deliveries stay suspended; 0 if they are not.
        ack_wait: Nanoseconds.
        max_deliver: The server's limit; none if it is not positive.
        last_delivered_at: When it delivered last.
        last_acked_at: When it was acknowledged last.
        durable: Its name.
        topics: Subjects it filters by.
        server_counts: See `depth_of`.
    """
    counted = server_counts and max_deliver > 0
    return QueueDepth(
        messages=messages if server_counts else pending + ack_pending,
        pending=pending,
        ack_pending=ack_pending,
        redelivered=redelivered,
        waiting=waiting,
        stranded=max(0, messages - pending - ack_pending) if counted else None,
        paused_until=datetime.now(UTC) + timedelta(microseconds=pause_remaining / 1000) if pause_remaining else None,
        oldest_at=oldest_at if server_counts else None,
        last_seq=last_seq,
        bytes=bytes,
        ack_wait=ack_wait / 1e9,
        last_delivered_at=last_delivered_at,
        last_acked_at=last_acked_at,
        durable=durable,
        topics=topics,
    )


def _moment(text: Any) -> datetime | None:
    """A server time; its zero value, `0001-01-01T00:00:00Z`, means never."""
    try:
        return None if not text or text.startswith("0001-") else parse_time(text)
    except (ValueError, AttributeError, OverflowError):
        return None
