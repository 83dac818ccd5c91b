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
    first = _moment(state.get("first_ts")) if messages else None
    if consumer is None:
        return QueueDepth(
            messages=messages,
            pending=messages,
            oldest_at=first,
            last_seq=int(state.get("last_seq", 0)),
            bytes=int(state.get("bytes", 0)),
        )
    config = consumer.get("config", {})
    pending, in_flight = int(consumer.get("num_pending", 0)), int(consumer.get("num_ack_pending", 0))
    counted = server_counts and int(config.get("max_deliver", -1)) > 0
    filters = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    return QueueDepth(
        messages=messages if server_counts else pending + in_flight,
        pending=pending,
        ack_pending=in_flight,
        redelivered=int(consumer.get("num_redelivered", 0)),
        waiting=int(consumer.get("num_waiting", 0)),
        stranded=max(0, messages - pending - in_flight) if counted else None,
        paused_until=_paused_until(consumer),
        oldest_at=first if server_counts else None,
        last_seq=int(state.get("last_seq", 0)),
        bytes=int(state.get("bytes", 0)),
        ack_wait=int(config.get("ack_wait", 0)) / 1e9,
        last_delivered_at=_moment(consumer.get("delivered", {}).get("last_active")),
        last_acked_at=_moment(consumer.get("ack_floor", {}).get("last_active")),
        durable=consumer.get("name"),
        topics=tuple(filters),
    )


def _paused_until(consumer: Mapping[str, Any]) -> datetime | None:
    remaining = int(consumer.get("pause_remaining", 0))
    return (
        datetime.now(UTC) + timedelta(microseconds=remaining / 1000) if consumer.get("paused") and remaining else None
    )


def _moment(text: Any) -> datetime | None:
    """A server time; its zero value, `0001-01-01T00:00:00Z`, means never."""
    try:
        return None if not text or text.startswith("0001-") else parse_time(text)
    except (ValueError, AttributeError, OverflowError):
        return None
