"""The items of the feed: what somebody broadcast, who died, what the server said, what an operator did.

An event is kept as it was stored and read when somebody looks at it: of the thousands that can come in a second hardly any
is ever on a screen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from console.monitor.advisories import Advisory
from console.text.safe import clean
from patterns import Message, Names
from patterns.message import decode_stored
from patterns.stored import StoredMessage

BODY_LIMIT: Final = 1_000
"""Characters of a body that one line can show, wrapped."""

KEPT: Final = (
    "Nats-Msg-Id",
    "ce-specversion",
    "ce-id",
    "ce-type",
    "ce-source",
    "ce-correlationid",
    "ce-datacontenttype",
    "Content-Type",
)
"""Headers kept of an event whose headers are too long to be kept."""
HEADER_KEPT: Final = 256
"""Characters kept of each of them."""

Tone = Literal["plain", "good", "warn", "bad", "accent"]
Opens = Literal["event", "letter", "message", "row", "details", "jobs"]
"""What enter goes to."""


@dataclass(slots=True, eq=False)
class Told:
    """An item that is no event: a death, an advisory, what this console did; all texts are safe to show."""

    id: int
    """Grows by one with each item."""
    at: datetime
    topic: str
    source: str
    body: str
    tone: Tone
    opens: Opens
    letter: int | None = None
    """Sequence of the dead letter it speaks of."""
    advisory: Advisory | None = None

    @property
    def message(self) -> None:
        """There is none."""


class _Line(NamedTuple):
    topic: str
    source: str
    body: str
    tone: Tone


class EventItem:
    """A broadcast; all texts are safe to show.

    Args:
        id: Grows by one with each item.
        stored: The event, as it was stored.
        names: Of the organization.
        stream: Where it is stored.
        room: Bytes of body, and of headers, that are kept; of what is longer, the beginning.
    """

    __slots__ = ("_line", "_names", "cut", "id", "size", "stored", "stream")

    def __init__(self, id: int, stored: StoredMessage, names: Names, stream: str, room: int) -> None:
        self.id = id
        self.stored = stored
        self.stream = stream
        self.cut = False
        """Whether only its beginning is kept: the whole is in the stream, as long as it stands there."""
        self.size = -1
        """Bytes of the whole, if it was cut."""
        self._names = names
        self._line: _Line | None = None
        headers = sum(map(len, stored.headers.values())) + 32 * len(stored.headers)
        if len(stored.body) > room or headers > room:
            self._cut(room, headers)

    def _cut(self, room: int, headers: int) -> None:
        stored = self.stored
        self.cut, self.size = True, decode_stored(stored, names=self._names, stream=self.stream).size
        self.stored = StoredMessage(
            subject=stored.subject,
            seq=stored.seq,
            stored_ns=stored.stored_ns,
            headers=stored.headers
            if headers <= room
            else {name: stored.headers[name][:HEADER_KEPT] for name in KEPT if name in stored.headers},
            body=stored.body[:room],
        )

    @property
    def at(self) -> datetime:
        """When it was stored."""
        return self.stored.stored_at

    @property
    def message(self) -> Message:
        """The event, as far as it is kept; read anew each time."""
        return decode_stored(self.stored, names=self._names, stream=self.stream)

    @property
    def line(self) -> _Line:
        """What is shown of it; remembered."""
        if self._line is None:
            self._line = _line_of(self.message)
        return self._line

    @property
    def topic(self) -> str:
        """Its type."""
        return self.line.topic

    @property
    def source(self) -> str:
        """Who broadcast it."""
        return self.line.source

    @property
    def body(self) -> str:
        """Its body, on one line."""
        return self.line.body

    @property
    def tone(self) -> Tone:
        """By the last word of its type."""
        return self.line.tone

    @property
    def opens(self) -> Opens:
        """An operator's action is a job's."""
        return "jobs" if self.tone == "accent" and is_action(self._names, self.stored.subject) else "event"


FeedItem = EventItem | Told
"""One line of the feed."""


def is_action(names: Names, subject: str) -> bool:
    """Whether an event on this subject tells what an operator did."""
    return names.local(subject).startswith("events.console.")


def _line_of(message: Message) -> _Line:
    operator = message.type.startswith("console.")
    body = _action_line(message) if operator else one_line(message)
    return _Line(clean(message.type), clean(message.source), body, "accent" if operator else _tone(message.type))


def one_line(message: Message) -> str:
    """The body on one line, safe and short."""
    if message.data is not None and not isinstance(message.data, bytes):
        try:
            return clean(json.dumps(message.data, ensure_ascii=False, separators=(",", ":")), limit=BODY_LIMIT)
        except (TypeError, ValueError, RecursionError):
            # RecursionError: what was nested just short of too deep to be read can be too deep to be written.
            return clean(message.text, limit=BODY_LIMIT)
    return clean(message.text, limit=BODY_LIMIT)


def action_text(job: str, action: str, done: object, planned: object, operator: object) -> str:
    """What an operator did, in one line."""
    by = f" by {operator}" if operator else ""
    return clean(f"job {job}  {action}: {done} of {planned} done{by}", limit=BODY_LIMIT)


def _action_line(message: Message) -> str:
    """What an operator did, as this console's own jobs tell it."""
    data = message.data
    # Anybody may broadcast under this name: what a job does not say is shown like any other body.
    if not isinstance(data, dict) or not isinstance(data.get("job"), str):
        return one_line(message)
    if not all(isinstance(data.get(key), str | int | None) for key in ("operator", "done", "planned")):
        return one_line(message)
    verb = message.type.rpartition(".")[2]
    return action_text(data["job"], verb, data.get("done"), data.get("planned"), data.get("operator"))


def _tone(type: str) -> Tone:
    last = type.rpartition(".")[2].lower()
    if last in ("completed", "done", "resolved", "launched", "succeeded", "recovered"):
        return "good"
    if last in ("failed", "error", "crashed", "down", "breach"):
        return "bad"
    if last in ("alert", "warning", "degraded", "delayed", "slow"):
        return "warn"
    return "accent"
