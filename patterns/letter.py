"""The record of a dead letter and its headers: written at a death, read by people, reduced to the chain at a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from patterns.errors import InvalidName
from patterns.headers import escape, format_time, header_size, number, parse_time, unescape
from patterns.lineage import Death, continued, is_death, read_deaths
from patterns.message import CE_CORRELATION, CE_EXPIRY, CE_ID, CE_TYPE, MSG_ID, REPLAY_OF, Message, decode_stored
from patterns.names import Entry, Kind, Names
from patterns.stored import SENDABLE, StoredMessage

REASONS: Final = (
    "max-deliver",
    "rejected",
    "crash",
    "expired",
    "invalid",
    "unhandled",
    "max-hops",
    "interrupted",
    "undeliverable",
)
"""The closed list of `Dead-Letter-Reason`."""

ERROR_LIMIT = 512
"""Characters kept of an error text: headers are for triage, not for traces."""

PREFIX = "Dead-Letter-"
HEADERS_LIMIT = 48 * 1024
"""Bytes of original headers a copy keeps whole; the server takes 64 KiB in all (10097)."""

LONG_HEADER = 512
"""Of more than that, only values up to this many characters are kept."""

LONGEST_FACT = 2048
"""Characters of subject and message id: longer ones are left out, the rest of the story is bounded anyway."""

OPERATOR_LIMIT = 128
"""Characters of who replayed and by which job."""

_ENVELOPE = ("ce-", "Agent-", "Content-Type", "traceparent", PREFIX)
_KEPT_ON_REPLAY = frozenset(
    PREFIX + name for name in ("First-At", "First-Entry", "Replays", "Replayed-From", "Replayed-By", "Replay-Job")
)
"""What a replayed message carries besides its earlier deaths."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead message with the story of its death."""

    seq: int
    """Sequence in the DLQ stream."""
    entry: str
    """`<kind>.<name>.<origin seq>-<stored-at ns, hex>`: names this death for ever."""
    kind: Kind
    name: str
    """Agent, role, or durable of the subscription it died in."""
    subject: str
    """Where it was published, and where a replay goes."""
    id: str
    type: str
    reason: str
    """One of `REASONS`; whatever a foreign producer wrote."""
    error_type: str
    error: str
    agent: str
    """Who failed."""
    stream: str
    """Stream it died in."""
    origin_seq: int
    deliveries: int
    """Attempts before this death."""
    replays: int
    """Times it was replayed before this death."""
    first_at: datetime | None
    """Its first death."""
    died_at: datetime
    """This death."""
    size: int
    correlation_id: str
    message: Message

    @property
    def source(self) -> str:
        """`<kind>.<name>`, the group that counts and filters use."""
        return f"{self.kind}.{self.name}"

    @property
    def error_text(self) -> str:
        """`Type: text`, or whichever of the two there is."""
        return ": ".join(part for part in (self.error_type, self.error) if part)

    @property
    def death(self) -> Death:
        """This death as the last of the chain, from which it has not come back yet."""
        return Death(
            n=self.replays + 1,
            entry=self.entry,
            seq=self.seq,
            at=self.died_at,
            reason=self.reason,
            error_type=self.error_type,
            error=self.error,
            agent=self.agent,
            deliveries=self.deliveries,
        )

    @property
    def lineage(self) -> tuple[Death, ...]:
        """Its earlier deaths, oldest first, as far as they are on record: `Death.n` shows which are missing.

        There are as many as it was replayed, but older versions and other code keep none, and of many some are dropped.
        """
        return read_deaths(self.message.headers, self.replays)

    @property
    def first_entry(self) -> str:
        """`entry` of its first death; empty if that is not on record."""
        if not self.replays:
            return self.entry
        first = next((death.entry for death in self.lineage[:1] if death.n == 1), "")
        return self.message.headers.get(f"{PREFIX}First-Entry", "") or first

    @property
    def replayed_by(self) -> str:
        """Who replayed it before this death; empty for nobody."""
        return self.message.headers.get(f"{PREFIX}Replayed-By", "") if self.replays else ""

    @property
    def replay_job(self) -> str:
        """What replayed it before this death, as the console's jobs are named; empty for none and for what has no name."""
        return self.message.headers.get(f"{PREFIX}Replay-Job", "") if self.replays else ""


def read_letter(stored: StoredMessage, *, names: Names, stream: str) -> DeadLetter | None:
    """Read a letter from its stored message; None if its subject does not name a death."""
    entry = _entry(stored, names)
    if entry is None:
        return None
    headers = {name: unescape(value) for name, value in stored.headers.items()}

    def field(name: str) -> str:
        return headers.get(PREFIX + name, "")

    origin = field("Subject")
    message = decode_stored(stored, names=names, stream=stream, subject=origin)
    return DeadLetter(
        seq=stored.seq,
        entry=str(entry),
        kind=entry.kind,
        name=entry.name,
        subject=origin,
        id=field("Message-Id") or message.id,
        type=message.type if CE_TYPE in headers or origin else "",
        reason=field("Reason"),
        error_type=field("Error-Type"),
        error=field("Error"),
        agent=field("Agent"),
        stream=field("Stream"),
        origin_seq=number(field("Seq"), entry.seq),
        deliveries=number(field("Deliveries")),
        replays=number(field("Replays")),
        first_at=_time(field("First-At")),
        died_at=_time(field("At")) or stored.stored_at,
        size=message.size,
        correlation_id=headers.get(CE_CORRELATION) or field("Message-Id") or message.id,
        message=message,
    )


def _entry(stored: StoredMessage, names: Names) -> Entry | None:
    """The death a stored message stands for; other code may end its subjects otherwise, then its own place names it."""
    try:
        return names.entry_of(stored.subject)
    except InvalidName:
        match names.local(stored.subject).split("."):
            case ["dlq", ("inbox" | "tasks" | "events") as kind, name, _]:
                return Entry(kind, name, 0, stored.stored_ns)
        return None


def death_headers(
    origin: StoredMessage,
    message: Message,
    *,
    reason: str,
    error_type: str,
    error: str,
    error_line: str,
    agent: str,
    stream: str,
    consumer: str,
    subject: str,
    deliveries: int,
) -> dict[str, str]:
    """Headers of a dead letter: the original's without `Nats-*`, which would act again, and the story of this death."""
    now = format_time(datetime.now(UTC))
    died = {
        "Reason": reason,
        "Error-Type": error_type[:ERROR_LIMIT],
        "Error": error[:ERROR_LIMIT],
        "Error-At-Line": error_line[:ERROR_LIMIT],
        "Agent": agent,
        "Stream": stream,
        "Consumer": consumer,
        "Subject": subject,
        "Seq": str(origin.seq),
        "Stored-At": format_time(origin.stored_at),
        "Deliveries": str(deliveries),
        "Message-Id": message.id,
        "First-At": (message.headers.get(f"{PREFIX}First-At") if REPLAY_OF in origin.headers else "") or now,
        "At": now,
    }
    for name in ("Subject", "Message-Id"):
        if len(escape(died[name])) > LONGEST_FACT:
            died[name] = ""
    kept = _copied(origin.headers)
    if len(kept) < sum(not name.startswith(("Nats-", PREFIX, REPLAY_OF)) for name in origin.headers):
        died["Headers-Dropped"] = "some could not be stored again"
    return kept | {PREFIX + name: escape(value) for name, value in died.items() if value}


def _copied(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers a copy keeps: what would act again, what is forged and what no client can send is left out.

    `Dead-Letter-*` on a message that is no replay is a claim of its sender; on a replay the chain of its deaths is kept.
    """
    replayed = REPLAY_OF in headers
    kept = {
        name: value
        for name, value in headers.items()
        if SENDABLE.fullmatch(name)
        and name not in ("Status", "Description")
        and not name.startswith(("Nats-", REPLAY_OF))
        and (not name.startswith(PREFIX) or (replayed and _of_chain(name)))
    }
    if header_size(kept) <= HEADERS_LIMIT:
        return kept
    short = {name: value for name, value in kept.items() if len(value) <= LONG_HEADER}
    # The envelope first, then the sender's own as far as they fit.
    room, fitting = HEADERS_LIMIT - header_size({"": ""}), dict[str, str]()
    for name in sorted(short, key=lambda name: not name.startswith(_ENVELOPE)):
        room -= header_size({name: short[name]}) - 12
        if room >= 0:
            fitting[name] = short[name]
    return fitting


def replay_headers(
    stored: Mapping[str, str],
    letter: DeadLetter,
    entry: Entry,
    generation: int,
    by: str,
    *,
    job: str = "",
    edited: bool = False,
    changes: Mapping[str, str | None] = MappingProxyType({}),
) -> dict[str, str]:
    """Headers of the replayed message: the original's, the chain of its deaths, and a new deterministic id.

    Args:
        stored: Headers of the letter as they are stored.
        letter: The same, read.
        entry: Names its death.
        generation: How often it will have been replayed.
        by: Who replays.
        job: What it is replayed by, if that has a name.
        edited: Whether it goes back with another body or other headers.
        changes: Its sender's headers to set, as they go over the wire, or with None to remove.
    """
    kept = {
        name: value
        for name, value in stored.items()
        if not name.startswith(("Nats-", PREFIX)) and name not in (CE_EXPIRY, REPLAY_OF)
    }
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    if CE_ID not in kept and letter.id:
        # A bare message got its id from stream and sequence; both change now, the id must not.
        kept[CE_ID] = escape(letter.id)
    death = replace(letter.death, replayed_by=by, replayed_at=datetime.now(UTC), job=job, edited=edited)
    told = {
        "First-At": format_time(letter.first_at or letter.died_at),
        "First-Entry": escape(letter.first_entry),
        "Replays": str(generation),
        "Replayed-From": str(letter.seq),
        "Replayed-By": escape(by[:OPERATOR_LIMIT]),
        "Replay-Job": escape(job[:OPERATOR_LIMIT]),
    }
    return (
        kept
        | {MSG_ID: f"{entry}:r{generation}", REPLAY_OF: str(entry)}
        | {PREFIX + name: value for name, value in told.items() if value}
        | continued(stored, death)
    )


def _of_chain(name: str) -> bool:
    return name in _KEPT_ON_REPLAY or is_death(name)


def _time(text: str) -> datetime | None:
    try:
        return parse_time(text) if text else None
    except (ValueError, OverflowError):
        return None
