"""Finding what exhausted its deliveries: JetStream keeps such a message, hides it and counts it nowhere.

Its advisory comes only when somebody pulls again and only if somebody listens then: a hint. Looking is the truth.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nats.js.errors import APIError

from patterns.errors import PatternError
from patterns.jetstream import JetStream
from patterns.message import decode_stored
from patterns.names import Entry, Names
from patterns.stored import StoredMessage

if TYPE_CHECKING:
    from patterns.burials import Burials

log = logging.getLogger("patterns")


async def sweep(burials: Burials, js: JetStream, names: Names, stream: str, durable: str) -> int:
    """Move the stranded messages of one inbox; see `DeadLetters.sweep`."""
    first = await stranded(js, stream, durable)
    if not first:
        return 0
    await asyncio.sleep(0.3)
    again = {message.seq for message in await stranded(js, stream, durable)}
    info = await js.consumer_info(stream, durable) or {}
    place = names.place_of(stream)
    moved = 0
    for stored in first:
        if stored.seq not in again or place is None:
            continue
        # The page may come from a replica that lags behind an acknowledgement; the leader knows.
        current = await js.get(stream, stored.seq)
        if current is None or current.stored_ns != stored.stored_ns:
            continue
        message = decode_stored(stored, names=names, stream=stream)
        try:
            await burials.bury(
                Entry("inbox", place.name, stored.seq, stored.stored_ns),
                stored,
                reason="crash",
                error="no attempt was settled: the process died or lost its lease each time, or its burial was not confirmed",
                agent=place.name,
                stream=stream,
                consumer=durable,
                deliveries=int(info.get("config", {}).get("max_deliver", 0)),
                message=message,
            )
        except (PatternError, APIError) as error:
            # One that cannot be moved must not keep the others stranded.
            log.warning("%s %d stays stranded: %s", stream, stored.seq, error)
            continue
        moved += 1
    return moved


async def stranded(js: JetStream, stream: str, durable: str, *, limit: int = 1000) -> Sequence[StoredMessage]:
    """One look; see `DeadLetters.stranded`."""
    info = await js.consumer_info(stream, durable)
    state = await js.stream_info(stream)
    if info is None or state is None:
        return []
    highest = settled_up_to(info)
    # Not by counting: under traffic the two answers are of two moments, and one sweep in three missed what was there.
    if not state["state"]["messages"] or state["state"]["first_seq"] > highest:
        return []
    found: list[StoredMessage] = []
    for subject in filters_of(info["config"]) or (None,):
        page = await js.read(stream, limit=limit, subject=subject)
        found += [message for message in page.messages if message.seq <= highest]
    return sorted(found, key=lambda message: message.seq)[:limit]


def settled_up_to(info: Mapping[str, Any]) -> int:
    """The sequence up to which nothing is in flight to a consumer, nor will be.

    What it should have had up to there and what is still stored has exhausted its deliveries, or was acknowledged just now.

    Args:
        info: As CONSUMER.INFO tells it.
    """
    delivered, in_flight = int(info["delivered"]["stream_seq"]), info["num_ack_pending"]
    if not in_flight:
        return delivered
    # More than one in flight: the limit was lowered since, and which they are is anybody's guess.
    if info["config"].get("max_ack_pending") == 1 and in_flight == 1:
        return delivered - 1
    return int(info["ack_floor"]["stream_seq"])


def filters_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The subjects a consumer filters by; none if it takes everything."""
    one = config.get("filter_subject")
    return tuple(config.get("filter_subjects") or ((one,) if one else ()))
