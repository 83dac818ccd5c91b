"""What is in flight: which messages, in whose hands, for how long and in which delivery, as far as it can be known.

A server tells of a consumer how many messages are in flight and never which. Of one that takes one at a time it is the
message delivered last; of a role's queue the tasks themselves say it, in the ledger; beyond that there are counters.
Looking only: consumers are read by their info, streams by direct get, the ledger by key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import nats.errors

from console.messages import Place, standing_of
from patterns import Fleet, Message, PatternError
from patterns.depth import depth_of
from patterns.ledger import TaskStatus
from patterns.message import decode_stored
from patterns.stored import StoredMessage

SHOWN: Final = 20
"""Messages in flight that a look names, the oldest."""
STRANDED: Final = 100
"""Stranded messages that a look names, the oldest."""
PAGE_BYTES: Final = 2 << 20
"""Bytes of one page: bodies are read with their messages, the server has no other way."""

Stage = Literal["working", "retrying", "settling", "delivered"]
"""A handler is at it; given back, and waiting for its next attempt; ended, and not yet acknowledged; delivered, and no more
is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """One message that was delivered and is not acknowledged."""

    seq: int
    message: Message
    stage: Stage = "delivered"
    agent: str = ""
    """Who works or worked on it; empty if nobody said so."""
    delivery: int | None = None
    """Which delivery this is, of a task which attempt, 1 the first; None where it cannot be known."""
    since: datetime | None = None
    """When the attempt began; None where it cannot be known."""
    seen: datetime | None = None
    """Last sign of life: delivery, heartbeat or progress; None if there was none since the server started."""
    note: str = ""
    """What its handler said last: progress, or the error of the attempt before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What is in flight from one inbox or queue, and what is out of deliveries."""

    total: int = 0
    """Messages in flight, as the server counts them."""
    items: tuple[InFlight, ...] = ()
    """The oldest of them; empty where it cannot be known which they are."""
    candidates: bool = False
    """The items are more than are in flight: some of them are stranded, and nobody knows which."""
    stranded: tuple[int, ...] = ()
    """The oldest sequences that used up their deliveries: exactly these, for a consumer that takes one at a time."""
    more_stranded: bool = False
    """There are more of them."""
    max_deliver: int = 0
    """Deliveries that the server allows; 0 for any number, where the library counts for itself."""
    max_ack_pending: int = 0
    """Messages that may be in flight at a time."""
    unseen: str = ""
    """Why less is told than could be."""


async def in_flight(fleet: Fleet, place: Place, *, durable: str | None = None, shown: int = SHOWN) -> Hands:
    """Look at what is in flight, without a consumer and without moving a counter.

    Args:
        fleet: The connection.
        place: An inbox or a queue; of all events nothing is told, each subscription has its own.
        durable: The consumer, where it has another name than the library's.
        shown: Messages to name at the most.

    Raises:
        Unavailable: No answer; `PermissionDenied` where the server does not let this user see it.
    """
    name = durable or place.durable
    info = await fleet.jetstream.consumer_info(place.stream, name) if name else None
    if info is None:
        return Hands()
    # What stands in the stream after the consumer was asked has not been acknowledged before: this order is exact.
    standing, total = standing_of(info), int(info.get("num_ack_pending", 0))
    config = info.get("config", {})
    dead: tuple[int, ...] = ()
    more = False
    if standing.stranded_to:
        page = await fleet.jetstream.read(place.stream, limit=STRANDED + 1, max_bytes=PAGE_BYTES)
        dead = tuple(stored.seq for stored in page.messages if stored.seq <= standing.stranded_to)
        more = len(dead) > STRANDED or (len(dead) == len(page.messages) > 0 and page.remaining != 0)
        dead = dead[:STRANDED]
    found: Sequence[StoredMessage] = ()
    if total:
        page = await fleet.jetstream.read(
            place.stream, start=standing.stranded_to + 1, limit=shown + 1, max_bytes=PAGE_BYTES
        )
        found = [stored for stored in page.messages if stored.seq <= standing.delivered]
    items, unseen = await _items(fleet, place, info, found[:shown])
    return Hands(
        total=total,
        items=items,
        candidates=len(found) > total,
        stranded=dead,
        more_stranded=more,
        max_deliver=max(0, int(config.get("max_deliver", 0))),
        max_ack_pending=max(0, int(config.get("max_ack_pending", 0))),
        unseen=unseen,
    )


def delivery_of(info: Mapping[str, Any], seq: int) -> int | None:
    """Which delivery the message in flight from a consumer is in; None where its counters do not tell.

    The server counts deliveries in `delivered.consumer_seq`, and up to which of them all is settled in `ack_floor`. What lies
    between belongs to the one message in flight if nothing else was delivered since: neither a message that used up its
    deliveries, which does not move the floor, nor one that was deleted meanwhile.

    Args:
        info: As CONSUMER.INFO tells it.
        seq: Sequence of the message in its stream.
    """
    if not int(info.get("num_redelivered", 0)):
        return 1
    delivered, floor = info.get("delivered", {}), info.get("ack_floor", {})
    if int(info.get("num_ack_pending", 0)) != 1 or int(info.get("config", {}).get("max_ack_pending", 0)) != 1:
        return None
    if int(delivered.get("stream_seq", 0)) != seq or int(floor.get("stream_seq", 0)) != seq - 1:
        return None
    count = int(delivered.get("consumer_seq", 0)) - int(floor.get("consumer_seq", 0))
    return count if count >= 1 else None


async def _items(
    fleet: Fleet, place: Place, info: Mapping[str, Any], found: Sequence[StoredMessage]
) -> tuple[tuple[InFlight, ...], str]:
    records: Sequence[TaskStatus | None] = [None] * len(found)
    messages = [decode_stored(stored, names=fleet.names, stream=place.stream) for stored in found]
    unseen = ""
    if place.kind == "tasks" and found:
        try:
            records = await asyncio.gather(*(fleet.ledger.read(place.name, message.id) for message in messages))
        except (PatternError, nats.errors.Error) as error:
            unseen = f"who works on what is not readable: {error}"
    alone = len(found) == 1 and int(info.get("num_ack_pending", 0)) == 1
    seen = depth_of({}, info).last_delivered_at if alone else None
    items = []
    for stored, message, record in zip(found, messages, records, strict=True):
        if record is not None and (record.seq, record.stored_ns) == (stored.seq, stored.stored_ns):
            items.append(_of_record(stored.seq, message, record))
            continue
        agent = place.name if place.kind == "inbox" else ""
        delivery = delivery_of(info, stored.seq)
        items.append(InFlight(seq=stored.seq, message=message, agent=agent, delivery=delivery, seen=seen))
    return tuple(items), unseen


def _of_record(seq: int, message: Message, record: TaskStatus) -> InFlight:
    stage: Stage = "working" if record.state == "working" else "settling" if record.final else "retrying"
    return InFlight(
        seq=seq,
        message=message,
        stage=stage,
        agent=record.agent,
        delivery=record.attempts or None,
        # A note was written after the beginning, or outlived an earlier attempt.
        since=record.updated_at if stage == "working" and not record.note else None,
        seen=record.updated_at,
        note=record.error if stage == "retrying" else record.note,
    )
