"""Rescuing what exhausted its deliveries in any stream, also in those of other code: found by the server's counters alone.

JetStream keeps such a message in a work queue or interest stream, delivers it no more and counts it nowhere. What is not
certain is left alone: a message that is listed here but acknowledged meanwhile is gone when it is to be moved.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats.js.errors import APIError

from patterns import provision
from patterns.errors import InvalidName, Unavailable
from patterns.message import decode_stored
from patterns.names import Entry, Names, filters_overlap, is_agent_id, subject_matches
from patterns.sweeping import filters_of, settled_up_to

if TYPE_CHECKING:
    from patterns.fleet import Fleet

PAGE = 500
"""Messages read at a time."""

LOOK_AGAIN = 0.3
"""Seconds between two looks: an acknowledged message leaves the stream just after the counters moved."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """A message that exhausted its deliveries, as it was seen; without its body."""

    stream: str
    durable: str
    """Name of the consumer that gave it up."""
    seq: int
    stored_ns: int
    """When the stream stored it, in nanoseconds since the epoch."""
    subject: str = ""
    deliveries: int = 0
    """How often it was delivered: the limit of the consumer."""


async def find_stranded(
    fleet: Fleet, *, stream: str | None = None, skipped: list[str] | None = None
) -> AsyncIterator[Stranded]:
    """Messages that exhausted their deliveries, consumer by consumer; at most a page of them is in memory.

    Left out are the dead letters, events, buckets and object stores, and other organizations.

    Args:
        fleet: The connection.
        stream: Only this one.
        skipped: Gets a line for each stream and consumer with a delivery limit that could not be judged, with the reason.

    Raises:
        Unavailable: The streams cannot be listed, or the server stopped answering.
    """
    said = skipped if skipped is not None else []
    if stream is not None:
        one = await fleet.jetstream.stream_info(stream)
        streams, missing = [one] if one is not None else [], list[str]()
    else:
        streams, missing = await fleet.jetstream.streams()
    said += [f"stream {name} did not answer" for name in missing]
    for info in sorted(streams, key=lambda info: str(info["config"]["name"])):
        config = info["config"]
        if not _looked_at(fleet.names, config) or not info["state"]["messages"]:
            continue
        try:
            consumers = await fleet.jetstream.consumers(config["name"])
        except (APIError, Unavailable) as error:
            said.append(f"stream {config['name']}: its consumers cannot be read: {error}")
            continue
        for consumer in consumers:
            if consumer["config"].get("max_deliver", -1) <= 0:
                continue
            obstacle = _obstacle(config, consumer, consumers)
            if obstacle is not None:
                said.append(f"consumer {consumer['name']} of {config['name']}: {obstacle}")
                continue
            async for found in _of_consumer(fleet, config["name"], consumer):
                yield found


async def rescue(fleet: Fleet, stranded: Stranded) -> bool:
    """Move one stranded message to the dead letters, if it still is that message and still stranded.

    Args:
        fleet: The connection.
        stranded: Stream, consumer, sequence and time say which message; the rest is read anew.

    Returns:
        Whether its letter stands now. False if somebody acknowledged, moved or replayed it meanwhile, or if its consumer was
        reset or made anew, or is not there, so that it may be delivered again.

    Raises:
        Unavailable: Not confirmed, or there are no dead letters (`ensure_dead_letters`); nothing was lost, do it again.
        QueueFull: The dead letters are full; the message stays where it is.
    """
    js, names = fleet.jetstream, fleet.names
    state = await js.stream_info(stranded.stream)
    if state is None or not _looked_at(names, state["config"]):
        return False
    # The counters first: read after the message, they would call one dead that was acknowledged in between.
    consumer = await _giving_up(fleet, state["config"], stranded)
    stored = await js.get(stranded.stream, stranded.seq) if consumer is not None else None
    if consumer is None or stored is None or stored.stored_ns != stranded.stored_ns:
        return False
    filters = filters_of(consumer)
    if filters and not any(subject_matches(each, stored.subject) for each in filters):
        return False
    place = names.place_of(stranded.stream)
    if place is not None and place.kind == "inbox":
        entry = Entry("inbox", place.name, stored.seq, stored.stored_ns)
    else:
        role = place.name if place is not None and place.kind == "tasks" else letter_name(stranded.durable)
        entry = Entry("tasks", role, stored.seq, stored.stored_ns)
    return await fleet.burials.bury(
        entry,
        stored,
        reason="crash",
        error="no attempt was settled: each was given back or ran out of time, and the server delivers it no more",
        agent=entry.name,
        stream=stranded.stream,
        consumer=stranded.durable,
        deliveries=int(consumer["max_deliver"]),
        message=decode_stored(stored, names=names, stream=stranded.stream),
    )


async def ensure_dead_letters(fleet: Fleet) -> bool:
    """Create the stream of the dead letters as `provision()` does, but nothing else; whether it had to be created.

    One that exists is neither changed nor compared.

    Raises:
        ConfigMismatch: Another stream stores its subjects.
        Unavailable: Not confirmed; do it again.
    """
    if await fleet.jetstream.stream_info(fleet.names.dlq_stream) is not None:
        return False
    await provision.dead_letters(fleet)
    return True


def letter_name(durable: str) -> str:
    """The name that the letters of a foreign consumer bear: its own, or one made of it where that cannot be one.

    Then a hash tells apart what would look alike.
    """
    if is_agent_id(durable):
        return durable
    plain = re.sub(r"[^a-z0-9_-]+", "-", durable.lower()).strip("-_")[:48].rstrip("-_")
    digest = hashlib.sha256(durable.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


async def _of_consumer(fleet: Fleet, stream: str, first: Mapping[str, Any]) -> AsyncIterator[Stranded]:
    """The stranded messages of one consumer, whose state was `first`."""
    js, name, config = fleet.jetstream, str(first["name"]), first["config"]
    highest, subjects = settled_up_to(first), filters_of(config) or (None,)
    if not [s for s in subjects if await _any_up_to(fleet, stream, s, highest)]:
        return
    await asyncio.sleep(LOOK_AGAIN)
    for subject in subjects:
        after = 0
        while after < highest:
            # Again for each page: an operator may have reset the consumer, or deleted it, and what was dead is delivered.
            now = await js.consumer_info(stream, name)
            if now is None or (now["created"], filters_of(now["config"])) != (first["created"], filters_of(config)):
                return
            highest = min(highest, settled_up_to(now))
            page = await js.read(stream, start=after + 1, limit=PAGE, subject=subject)
            for message in page.messages:
                if message.seq <= highest:
                    yield Stranded(
                        stream, name, message.seq, message.stored_ns, message.subject, int(config["max_deliver"])
                    )
            if not page.messages:
                break
            after = page.messages[-1].seq


async def _any_up_to(fleet: Fleet, stream: str, subject: str | None, highest: int) -> bool:
    page = await fleet.jetstream.read(stream, limit=1, subject=subject)
    return any(message.seq <= highest for message in page.messages)


async def _giving_up(fleet: Fleet, config: Mapping[str, Any], stranded: Stranded) -> Mapping[str, Any] | None:
    """Configuration of the consumer, if its counters still say that it delivers nothing any more up to this sequence."""
    info = await fleet.jetstream.consumer_info(stranded.stream, stranded.durable)
    if info is None or info["config"].get("max_deliver", -1) <= 0:
        return None
    others = await fleet.jetstream.consumers(stranded.stream) if config.get("retention") == "interest" else []
    if _obstacle(config, info, others) is not None or stranded.seq > settled_up_to(info):
        return None
    return dict(info["config"])


def _obstacle(config: Mapping[str, Any], consumer: Mapping[str, Any], others: list[dict[str, Any]]) -> str | None:
    """Why the counters of a consumer do not tell which messages are dead, or why they cannot be moved; None if they do."""
    own = consumer["config"]
    if config.get("mirror"):
        return "the stream is a mirror"
    if config.get("deny_delete") or config.get("sealed"):
        return "the stream lets nobody delete a message"
    if own.get("deliver_policy", "all") != "all":
        return f"it began with deliver policy {own['deliver_policy']}, so older messages were never meant for it"
    if own.get("ack_policy") != "explicit":
        return f"its ack policy is {own.get('ack_policy', 'none')}"
    if config.get("retention") != "interest":
        return None
    # There a message that one consumer acknowledged stays for the others.
    for other in others:
        if other["name"] != consumer["name"] and _share(own, other["config"]):
            return f"{other['name']} reads the same subjects, and a message stays until both are done with it"
    return None


def _share(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return any(filters_overlap(a, b) for a in filters_of(one) or (">",) for b in filters_of(other) or (">",))


def _looked_at(names: Names, config: Mapping[str, Any]) -> bool:
    """Whether messages can be stranded in this stream, and it may be this organization's."""
    name = str(config["name"])
    if config.get("retention") not in ("workqueue", "interest") or name.startswith(("KV_", "OBJ_")):
        return False
    if names.org is not None and not name.startswith(f"{names.org.upper()}_"):
        return False
    place = names.place_of(name)
    return (place is None or place.kind in ("inbox", "tasks")) and not (place is None and _of_another(names, config))


def _of_another(names: Names, config: Mapping[str, Any]) -> bool:
    """Whether a stream has the name and the subjects of another organization's."""
    prefix, _, rest = str(config["name"]).partition("_")
    try:
        other = Names(prefix.lower())
        place = other.place_of(str(config["name"])) if rest and other.org != names.org else None
        return place is not None and sorted(config.get("subjects") or []) == sorted(
            other.stream_subjects(place.kind, place.name)
        )
    except InvalidName:
        return False
