"""Stored messages of inboxes, queues and events as the filter language, the commands and the screens see them.

Looking only: streams are read by batch direct get and consumers by their info. Nothing here creates a consumer, delivers
a message or moves a counter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from console.filters import Record
from console.text.safe import clean
from patterns import Fleet, Message, Names, PatternError, UnknownDestination
from patterns.message import decode_stored
from patterns.names import Kind
from patterns.stored import Page

Shown = Literal["inbox", "queue", "events"]
"""What can be looked at: an agent's inbox, a role's queue, all events."""

MessageState = Literal["pending", "in flight", "stranded"]
"""Not yet delivered; delivered and not acknowledged; out of deliveries, which the server keeps, hides and counts nowhere."""

MOST_ROWS: Final = 5_000
"""Messages one look holds at the most."""

MOST_BYTES: Final = 16 << 20
"""Bytes of headers and bodies one look holds at the most: a filter reads all of it at each key."""

PREVIEW: Final = 200
"""Characters of a body on one line."""

_NAMED_AT_MOST: Final = 8
_PAGE: Final = 250
_PAGE_BYTES: Final = 1 << 20
"""A look decodes page by page: so much takes less than a frame."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where messages stand."""

    kind: Kind
    """As dead letters and filters name it: a queue is `tasks`."""
    name: str
    """Agent or role; empty for the events."""
    stream: str
    durable: str | None
    """The consumer whose progress tells the state of a message; None for the events, which every subscriber has in another."""

    @property
    def title(self) -> str:
        """`inbox.ceo`, `tasks.backend`, `events`."""
        return f"{self.kind}.{self.name}" if self.name else self.kind

    @property
    def absence(self) -> str:
        """What to say when there is no such stream."""
        if self.kind == "events":
            return f"there is no stream {self.stream} here: nothing was ever broadcast in this fleet"
        return f"no inbox for agent {self.name!r}" if self.kind == "inbox" else f"no queue for role {self.name!r}"


def place_of(names: Names, kind: Shown, name: str = "") -> Place:
    """Where the messages of an agent's inbox, of a role's queue or all events stand.

    Raises:
        InvalidName: `name` is no agent or role.
    """
    if kind == "inbox":
        return Place("inbox", name, names.inbox_stream(name), names.inbox_durable(name))
    if kind == "queue":
        return Place("tasks", name, names.tasks_stream(name), names.tasks_durable(name))
    return Place("events", "", names.events_stream, None)


async def absent(fleet: Fleet, place: Place) -> UnknownDestination:
    """The error for a place that does not exist; it names those that do, as far as they can be read."""
    names = fleet.names
    pattern = {"inbox": "agents.*.inbox.>", "tasks": "tasks.*.>"}.get(place.kind)
    try:
        streams = (
            await fleet.jetstream.stream_names(f"{names.org}.{pattern}" if names.org else pattern) if pattern else []
        )
    except PatternError:
        streams = []
    found = (names.place_of(stream) for stream in streams)
    existing = sorted(each.name for each in found if each is not None and each.kind == place.kind)
    if not existing:
        return UnknownDestination(place.absence)
    more = len(existing) - _NAMED_AT_MOST
    shown = ", ".join(existing[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")
    return UnknownDestination(
        f"{place.absence}; there are {shown}" if len(existing) > 1 else f"{place.absence}; there is {shown}"
    )


# -- one message


def record_of(message: Message, *, kind: Kind, name: str) -> Record:
    """A stored message as the filter language sees it.

    Deliveries are not stored with a message, so `attempts` is 0; `replays` is known of a replayed one.

    Args:
        message: As it was read.
        kind: What it belongs to.
        name: Agent, role or durable it belongs to; empty for an event as such.
    """
    return Record(
        seq=message.seq,
        subject=message.subject,
        type=message.type,
        kind=kind,
        name=name,
        agent=message.source,
        error=message.problem or "",
        id=message.id,
        correlation_id=message.correlation_id,
        replays=_count(message.headers.get("Dead-Letter-Replays", "")) if message.replay_of else 0,
        at=message.stored_at,
        size=message.size,
        headers=message.headers,
        data=message.data,
        text=message.text,
    )


def preview(message: Message) -> str:
    """The body on one line, safe and short; nothing of it is parsed or encoded, so it costs the same for any size."""
    return clean(" ".join(message.text[: PREVIEW * 4].split()), limit=PREVIEW)


# -- how far a consumer is


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the consumer of a stream is, at one moment.

    What is read from the stream after that moment and is `stranded` by it is so: had it been acknowledged since, it would
    not be there. (A replica that lags behind its leader may show an acknowledged message a moment longer.)
    """

    durable: str | None = None
    """The consumer; None if there is none, and then everything is pending."""
    delivered: int = 0
    """Highest sequence that was delivered."""
    stranded_to: int = 0
    """What stands there up to this sequence is in nobody's hands and will not be delivered; 0 for nothing."""

    def of(self, seq: int) -> MessageState:
        """The state of a message that stands in the stream."""
        if seq > self.delivered:
            return "pending"
        return "stranded" if seq <= self.stranded_to else "in flight"


async def standing(fleet: Fleet, stream: str, durable: str) -> Standing:
    """Read once how far a consumer is.

    A fleet that other code made may name its consumer otherwise: the only one of the stream is taken for it.

    Raises:
        Unavailable: No answer; `PermissionDenied` where the server does not let this user see it.
    """
    info = await fleet.jetstream.consumer_info(stream, durable)
    if info is None and await fleet.jetstream.stream_info(stream) is not None:
        others = await fleet.jetstream.consumers(stream)
        info = others[0] if len(others) == 1 else None
    return standing_of(info)


def standing_of(info: Mapping[str, Any] | None) -> Standing:
    """How far a consumer is by its info; None where there is no consumer.

    With work in flight the server tells only how many, not which: of an inbox it is the one delivered last, of a wider
    consumer nothing beyond the ack floor is certain. A consumer without a delivery limit strands nothing.
    """
    if info is None:
        return Standing()
    config = info.get("config", {})
    delivered = int(info.get("delivered", {}).get("stream_seq", 0))
    if int(config.get("max_deliver", -1)) <= 0:
        highest = 0
    elif not int(info.get("num_ack_pending", 0)):
        highest = delivered
    elif int(config.get("max_ack_pending", 0)) == 1:
        highest = delivered - 1
    else:
        highest = int(info.get("ack_floor", {}).get("stream_seq", 0))
    return Standing(str(info.get("name", "")) or None, delivered, max(0, highest))


# -- reading a stream


async def stored_pages(
    fleet: Fleet,
    stream: str,
    *,
    start: int = 1,
    subject: str | None = None,
    size: int = 500,
    max_bytes: int = 4 << 20,
) -> AsyncIterator[Page]:
    """The pages of a stream from sequence `start` to its end, as they are stored; see `pages`."""
    while True:
        page = await fleet.jetstream.read(stream, start=start, limit=size, subject=subject, max_bytes=max_bytes)
        if not page.messages:
            return
        yield page
        if page.remaining == 0:
            return
        start = page.next_seq


async def pages(
    fleet: Fleet,
    stream: str,
    *,
    start: int = 1,
    subject: str | None = None,
    size: int = 500,
    max_bytes: int = 4 << 20,
) -> AsyncIterator[list[Message]]:
    """The decoded messages of a stream, page by page, oldest first, without a consumer; none for a stream that is not there.

    Args:
        fleet: The connection.
        stream: Its name.
        start: First sequence.
        subject: Only messages on this subject, wildcards allowed.
        size: Messages a page, at the most 1,024.
        max_bytes: The server ends a page early past this size.

    Raises:
        Unavailable: No answer.
    """
    async for page in stored_pages(fleet, stream, start=start, subject=subject, size=size, max_bytes=max_bytes):
        yield [decode_stored(stored, names=fleet.names, stream=stream) for stored in page.messages]


# -- a look that a screen can hold


@dataclass(frozen=True, slots=True)
class Held:
    """A message that a screen holds, ready for filters and rows."""

    seq: int
    stored_ns: int
    """Nanoseconds since the epoch: with the sequence it names the message even where a stream was made anew."""
    message: Message
    record: Record
    preview: str


@dataclass(frozen=True, slots=True)
class Glance:
    """What tells cheaply whether another look would show something else."""

    total: int
    """Messages in the stream."""
    first_seq: int
    last_seq: int
    standing: Standing | None
    """None for events, and where the consumer cannot be seen."""
    unseen: str = ""
    """Why the consumer cannot be seen."""

    @property
    def stream(self) -> tuple[int, int, int]:
        """The part that is the stream's; the rest is its consumer's."""
        return self.total, self.first_seq, self.last_seq


@dataclass(frozen=True, slots=True)
class Look:
    """The messages of a place at one moment: the oldest ones, of events the newest, as many as may be held."""

    glance: Glance
    held: tuple[Held, ...]
    """In the order of their sequences."""
    complete: bool
    """Whether these are all."""


async def glance(fleet: Fleet, place: Place) -> Glance:
    """Read the state of a stream and of its consumer.

    Raises:
        UnknownDestination: There is no such stream.
        Unavailable: No answer.
    """
    info = await fleet.jetstream.stream_info(place.stream)
    if info is None:
        raise await absent(fleet, place)
    state = info.get("state", {})
    progress, unseen = None, ""
    if place.durable is not None:
        try:
            progress = await standing(fleet, place.stream, place.durable)
        except PatternError as error:
            unseen = clean(str(error))
    return Glance(
        int(state.get("messages", 0)), int(state.get("first_seq", 0)), int(state.get("last_seq", 0)), progress, unseen
    )


async def look(
    fleet: Fleet,
    place: Place,
    *,
    known: Look | None = None,
    most: int = MOST_ROWS,
    most_bytes: int = MOST_BYTES,
) -> Look:
    """Read the messages of a place.

    Args:
        fleet: The connection.
        place: Where.
        known: An earlier look: what is still there is not decoded again.
        most: Messages to hold.
        most_bytes: Bytes to hold; one message is held whatever its size.

    Raises:
        UnknownDestination: There is no such stream.
        Unavailable: No answer.
    """
    at = await glance(fleet, place)
    newest = place.kind == "events"
    start = max(at.first_seq, at.last_seq - most + 1) if newest else at.first_seq
    before = {each.seq: each for each in known.held} if known else {}
    kept: deque[Held] = deque()
    size = 0
    full = start > at.first_seq
    async for page in stored_pages(fleet, place.stream, start=max(1, start), size=_PAGE, max_bytes=_PAGE_BYTES):
        for stored in page.messages:
            each = before.get(stored.seq)
            if each is None or each.stored_ns != stored.stored_ns:
                message = decode_stored(stored, names=fleet.names, stream=place.stream)
                record = record_of(message, kind=place.kind, name=place.name)
                each = Held(stored.seq, stored.stored_ns, message, record, preview(message))
            kept.append(each)
            size += each.message.size
            while len(kept) > 1 and (len(kept) > most or size > most_bytes):
                size -= (kept.popleft() if newest else kept.pop()).message.size
                full = True
            if full and not newest:
                return Look(at, tuple(kept), complete=False)
        if page.next_seq > at.last_seq:
            # What comes in the meantime is for the next look: a fast stream has no end.
            break
    return Look(at, tuple(kept), complete=not full)


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
