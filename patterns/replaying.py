"""Sending a dead letter back: its ledger record, its publish, its receipt, and only then its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from nats.js.errors import APIError

from patterns.burials import COPY_HEADROOM
from patterns.errors import (
    AlreadyReplayed,
    InvalidMessage,
    LetterStays,
    MessageTooLarge,
    PermissionDenied,
    QueueFull,
    UnknownDestination,
)
from patterns.headers import encodable, format_time
from patterns.ledger import TaskStatus
from patterns.letter import PREFIX, DeadLetter, replay_headers
from patterns.lineage import lighten
from patterns.message import CE_CONTENT_TYPE, CE_EXPIRY, Receipt, encode_data
from patterns.names import Entry, Place, is_literal
from patterns.stored import SENDABLE, PublishAck, StoredMessage

if TYPE_CHECKING:
    from patterns.fleet import Fleet

STREAMS_KNOWN = 1000
"""Destinations whose stream is remembered; the publish says which one it expects, so an old entry does no harm."""


class _Unchanged:
    def __repr__(self) -> str:
        return "UNCHANGED"


RESUBMITTED = "replayed"
"""Note in the ledger of a task between its replay and its next worker."""

UNCHANGED: Final = _Unchanged()
"""Replay with the body it died with."""


class Replayer:
    """Sends the letters of a fleet back.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._js = fleet.jetstream
        self._names = fleet.names
        self._streams: dict[tuple[str, str | None], str] = {}

    async def replay(
        self,
        stored: StoredMessage,
        letter: DeadLetter,
        subject: str,
        *,
        by: str,
        data: Any,
        body: bytes | None,
        headers: Mapping[str, str | None],
        job: str,
        resent: bool,
        back: bool,
        expires_in: float | None,
        before_publish: Callable[[], Awaitable[None]] | None,
        insist: bool,
    ) -> Receipt:
        """Send one letter; see `DeadLetters.replay`.

        Args:
            stored: The letter as it is stored.
            letter: The same, read.
            subject: Where it goes.
            by: Who replays.
            data: Its new body, or `UNCHANGED`.
            body: Its new body as bytes, its content type kept.
            headers: Headers of its sender to set, or with None to remove.
            job: What it is replayed by, if that has a name.
            resent: This same edit was sent before, without a confirmation.
            back: Whether that is where it came from.
            expires_in: A new deadline in seconds.
            before_publish: Awaited immediately before the publish.
            insist: Repeat the publish even to a server that may have forgotten it.
        """
        require_literal(subject)
        require_free(headers)
        seq, recorded = letter.seq, letter.stream if back else None
        stream = await self._destination_stream(subject, recorded)
        stored_in = self._names.dlq_stream
        death = Entry.parse(letter.entry)
        await self._fleet.burials.finish(letter, death)
        content_type = ""
        if not isinstance(data, _Unchanged):
            body, content_type = encode_data(data)
        if body is None and f"{PREFIX}Truncated" in stored.headers:
            raise InvalidMessage(
                f"dead letter {seq} holds only a part of its body: replay it with new data, or discard it"
            )
        edited = body is not None or bool(headers)
        generation = letter.replays + 1
        before: TaskStatus | None = None
        # One that was delivered already has had a life of its own since: what is sent now is dropped as its second copy.
        if back and self._has_record(letter) and not await self._fleet.burials.delivered(death, generation):
            before = await self._resubmit(letter)
        sent = replay_headers(stored.headers, letter, death, generation, by, job=job, edited=edited, changes=headers)
        if expires_in is not None:
            sent[CE_EXPIRY] = format_time(datetime.now(UTC) + timedelta(seconds=expires_in))
        if content_type:
            sent[CE_CONTENT_TYPE] = content_type
        if body is None:
            body = stored.body
        sent = lighten(sent, self._fleet.nc.max_payload - COPY_HEADROOM - len(body))
        if before_publish is not None:
            try:
                await before_publish()
            except Exception:
                await self._undo_resubmit(letter, before)
                raise
        try:
            ack = await self._send(subject, body, sent, stream, recorded, insist=insist)
        except (UnknownDestination, QueueFull, MessageTooLarge, APIError):
            await self._undo_resubmit(letter, before)
            raise
        if ack.duplicate:
            # The replay of before got there, and its task has had a life of its own since.
            await self._undo_resubmit(letter, before)
            if edited:
                await self._require_sent(letter, ack, body, headers, resent=resent)
        try:
            await self._fleet.burials.resolve(death, f"replayed by {by}")
            await self._js.delete(stored_in, seq)
        except (PermissionDenied, APIError) as error:
            raise LetterStays(f"was sent as {ack.stream} {ack.seq}, but its letter stays: {error}") from None
        return Receipt(id=letter.id, stream=ack.stream, seq=ack.seq, duplicate=ack.duplicate)

    def _has_record(self, letter: DeadLetter) -> bool:
        """Whether it can have a ledger record: what was rescued from a foreign stream bears a consumer's name."""
        place = self._names.place_of(letter.stream)
        return letter.kind == "tasks" and (not letter.stream or place == Place("tasks", letter.name))

    async def _send(
        self, subject: str, body: bytes, headers: Mapping[str, str], stream: str, recorded: str | None, *, insist: bool
    ) -> PublishAck:
        timeout = self._fleet.config.publish_timeout
        options: dict[str, Any] = {"timeout": timeout, "headroom": COPY_HEADROOM, "insist": insist}
        try:
            return await self._js.publish(subject, body, headers, stream=stream, **options)
        except UnknownDestination:
            # What was remembered may be of a time before the stream was made anew under another name.
            self._streams.pop((subject, recorded), None)
            now = await self._destination_stream(subject, recorded)
            if now == stream:
                raise
        return await self._js.publish(subject, body, headers, stream=now, **options)

    async def _resubmit(self, letter: DeadLetter) -> TaskStatus | None:
        """Set the ledger record of a dead task back to `submitted`; returns the one of before if it was changed."""
        before: TaskStatus | None = None
        died = Entry.parse(letter.entry).stored_ns

        def change(record: TaskStatus | None) -> TaskStatus | None:
            nonlocal before
            # A completed one stays, its worker then drops the replay; one in work is that of another copy.
            ended = record is not None and record.state in ("failed", "rejected", "canceled")
            of_it = record is not None and (record.seq, record.stored_ns) == (letter.origin_seq, died)
            same = record is not None and record.state != "completed" and of_it
            before = record if ended or same else None
            if before is None:
                return None
            return dataclasses.replace(
                before, state="submitted", attempts=0, handbacks=0, seq=0, stored_ns=0, note=RESUBMITTED
            )

        await self._fleet.ledger.change(letter.name, letter.id, change)
        return before

    async def _undo_resubmit(self, letter: DeadLetter, before: TaskStatus | None) -> None:
        """Put the record back if nothing was replayed and nobody has written it since."""
        if before is None:
            return
        untouched = ("submitted", RESUBMITTED, 0)
        await self._fleet.ledger.change(
            letter.name,
            letter.id,
            lambda record: before if record and (record.state, record.note, record.seq) == untouched else None,
        )

    async def _require_sent(
        self, letter: DeadLetter, ack: PublishAck, body: bytes, headers: Mapping[str, str | None], *, resent: bool
    ) -> None:
        """The server took this edit for the attempt of before: whether that one had the same body and headers."""
        sent = await self._js.get(ack.stream, ack.seq)
        if sent is None and resent:
            # Handled meanwhile; whoever sent it before sent this very edit.
            return
        same = sent is not None and all(sent.headers.get(name) == value for name, value in headers.items())
        if sent is None or sent.body != body or not same:
            how = "not with this edit" if sent is not None else "nobody can tell any more with which edit"
            raise AlreadyReplayed(
                f"dead letter {letter.seq} was replayed by an interrupted attempt already, as {ack.stream} {ack.seq}, and {how}: "
                "look whether the work was done; replaying it without an edit just closes it"
            )

    async def _destination_stream(self, subject: str, recorded: str | None) -> str:
        key = subject, recorded
        if (known := self._streams.get(key)) is not None:
            return known
        streams = await self._js.stream_names(subject)
        if recorded in streams and recorded is not None:
            streams = [recorded]
        if len(streams) != 1:
            raise UnknownDestination(
                f"{'no stream' if not streams else 'more than one stream'} stores {subject!r}; the dead letter stays"
            )
        if len(self._streams) >= STREAMS_KNOWN:
            del self._streams[next(iter(self._streams))]
        self._streams[key] = streams[0]
        return streams[0]


RESERVED: Final = (
    "nats-",
    "ce-",
    "agent-",
    "dead-letter-",
    "traceparent",
    "tracestate",
    "content-type",
    "status",
    "description",
)
"""How the names of headers begin, in lower case, that nobody edits: they are the server's, the envelope's or the story's."""


def is_reserved(name: str) -> bool:
    """Whether a header is none of its sender's own."""
    return name.lower().startswith(RESERVED)


def require_free(headers: Mapping[str, str | None]) -> None:
    """Raise InvalidMessage unless all of these are headers that an edit may set, in a form that can be sent."""
    for name, value in headers.items():
        if is_reserved(name):
            raise InvalidMessage(f"header {name!r} is reserved and cannot be edited")
        if not SENDABLE.fullmatch(name):
            raise InvalidMessage(f"header name {name!r} cannot be sent")
        if value is not None and (encodable(value) != value or any(c in value for c in "\r\n\0")):
            raise InvalidMessage(f"header {name!r}: its value must be one line of text")


def require_literal(subject: str) -> None:
    """Raise UnknownDestination unless one can publish to `subject`; a letter's own header decides, so it may be anything."""
    if not is_literal(subject):
        raise UnknownDestination(f"{subject!r} is not a subject to publish to")
