"""Dead letters: where messages go that no handler could finish, and the way back.

Every step can be killed at any point and repeated. A move publishes the copy under a subject of its own that must be
empty, and removes the origin only then. A replay publishes under a deterministic id, leaves a receipt, and deletes the
letter only then; the consumer of the replayed message drops a second copy by its receipt.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from nats.js.errors import APIError

from patterns import sweeping
from patterns.bell import Bell
from patterns.bucket import Bucket
from patterns.errors import (
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    QueueFull,
    ReplayLimit,
    Unavailable,
    UnknownDeadLetter,
    UnknownDestination,
)
from patterns.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from patterns.ledger import TaskStatus
from patterns.letter import PREFIX, DeadLetter, death_headers, number, read_letter, replay_headers
from patterns.message import (
    CE_CONTENT_TYPE,
    CE_EXPIRY,
    REPLAY_OF,
    Message,
    Receipt,
    encode_data,
    format_time,
    header_size,
)
from patterns.names import Entry, is_literal
from patterns.stored import PublishAck, StoredMessage

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

COPY_HEADROOM = 512
"""Bytes a dead-letter copy stays below the server's limit; its body is cut to fit."""


class _Unchanged:
    def __repr__(self) -> str:
        return "UNCHANGED"


RESUBMITTED = "replayed"
"""Note in the ledger of a task between its replay and its next worker."""

UNCHANGED: Final = _Unchanged()
"""Replay with the body it died with."""


class DeadLetters:
    """The dead letters of a fleet.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._js = fleet.jetstream
        self._names = fleet.names
        self.stream = fleet.names.dlq_stream
        self.receipts = Bucket(fleet.jetstream, fleet.names.receipts_bucket)
        self._counted: tuple[tuple[Any, ...], dict[tuple[str, str], int]] | None = None

    # -- looking

    async def list(self, kind: str = "*", name: str = "*", *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Letters in the order of their deaths, read without a consumer.

        Args:
            kind: inbox, tasks, events or `*`.
            name: Agent, role, durable or `*`.
            after: Only sequences above this one: the last of the page before.
            limit: Letters at the most.
        """
        found: list[DeadLetter] = []
        pattern = self._names.dlq_filter(kind, name)
        while len(found) < limit:
            try:
                page = await self._js.read(self.stream, start=after + 1, limit=limit - len(found), subject=pattern)
            except APIError as error:
                if error.err_code == STREAM_NOT_FOUND:
                    break
                raise
            found += [letter for message in page.messages if (letter := self.decode(message)) is not None]
            if not page.messages or page.remaining == 0:
                break
            after = page.messages[-1].seq
        return found

    async def get(self, seq: int) -> DeadLetter:
        """One letter.

        Raises:
            UnknownDeadLetter: There is none with this sequence.
        """
        stored = await self._js.get(self.stream, seq)
        letter = self.decode(stored) if stored is not None else None
        if letter is None:
            raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")
        return letter

    async def watch(self) -> AsyncIterator[DeadLetter]:
        """New letters as they arrive, and first those that are there. Ends never; makes no consumer."""
        last = 0
        bell = Bell()
        subscription = await self._fleet.nc.subscribe(self._names.dlq_filter(), cb=bell.ring)
        try:
            while True:
                try:
                    letters = await self.list(after=last, limit=500)
                except (Unavailable, APIError) as error:
                    log.debug("dead letters not read, trying again: %s", error)
                    letters = []
                for letter in letters:
                    last = letter.seq
                    yield letter
                if not letters:
                    await bell.wait(self._fleet.config.poll)
        finally:
            if not self._fleet.nc.is_closed:
                await subscription.unsubscribe()

    async def count(self) -> dict[tuple[str, str], int]:
        """Letters for each kind and name; asks the server to count again only after something changed."""
        info = await self._js.stream_info(self.stream)
        if info is None:
            return {}
        state = info.get("state", {})
        marks = ("messages", "first_seq", "last_seq", "num_deleted")
        mark = (info.get("created"), *(state.get(key) for key in marks))
        if self._counted is None or self._counted[0] != mark:
            found: dict[tuple[str, str], int] = {}
            if state.get("messages"):
                for subject, messages in (await self._js.subjects(self.stream, self._names.dlq_filter())).items():
                    parts = self._names.local(subject).split(".")
                    key = (parts[1], parts[2])
                    found[key] = found.get(key, 0) + messages
            self._counted = (mark, found)
        return dict(self._counted[1])

    def decode(self, stored: StoredMessage) -> DeadLetter | None:
        """Read a letter from its stored message; None if its subject does not name a death."""
        return read_letter(stored, names=self._names, stream=self.stream)

    # -- dying

    async def bury(
        self,
        entry: Entry,
        origin: StoredMessage,
        *,
        reason: str,
        error_type: str = "",
        error: str = "",
        error_line: str = "",
        agent: str = "",
        stream: str,
        consumer: str = "",
        deliveries: int,
        message: Message,
        subject: str | None = None,
        remove_origin: bool = True,
    ) -> bool:
        """Move one message here; repeating it, by whomever, changes nothing.

        Args:
            entry: Names the death.
            origin: The message as it is stored.
            reason: One of `REASONS`.
            error_type: Class of the last error.
            error: Its text; cut to 512 characters.
            error_line: `file.py:42 in function`.
            agent: Who failed.
            stream: Stream it dies in.
            consumer: Durable it dies in.
            deliveries: Attempts made.
            message: `origin`, decoded.
            subject: Where a replay goes, if not to `origin.subject`.
            remove_origin: Whether to delete it from `stream`; not if the caller acknowledges it, or an event, which stays.

        Returns:
            Whether the letter stands; False if it was replayed or discarded already and this mover came too late.

        Raises:
            Unavailable: The copy or the removal was not confirmed; nothing was lost, do it again.
            QueueFull: The DLQ is full; the origin stays where it is.
        """
        headers = death_headers(
            origin,
            message,
            reason=reason,
            error_type=error_type,
            error=error,
            error_line=error_line,
            agent=agent,
            stream=stream,
            consumer=consumer,
            subject=subject or origin.subject,
            deliveries=deliveries,
        )
        body = origin.body
        room = self._fleet.nc.max_payload - COPY_HEADROOM - header_size(headers)
        if len(body) > room:
            headers[f"{PREFIX}Truncated"] = str(len(body))
            body = body[: max(0, room - 64)]
        await self._publish_once(self._names.dlq_subject(entry), headers, body)
        gone = True
        if remove_origin and entry.seq:
            gone = not await self._js.delete(stream, entry.seq)
        # A mover that slept while the letter was replayed or discarded has just brought it back: take it out again.
        # Also if the copy was there already: the first confirmation of a mover's own publish may have got lost.
        if gone and await self._resolved(entry):
            ghost = await self._js.last(self.stream, self._names.dlq_subject(entry))
            if ghost is not None:
                await self._js.delete(self.stream, ghost.seq)
            return False
        return True

    async def find(self, entry: Entry) -> DeadLetter | None:
        """The letter of one death, None if that message did not die or its letter is gone again."""
        stored = await self._js.last(self.stream, self._names.dlq_subject(entry))
        return None if stored is None else self.decode(stored)

    async def withdraw(self, entry: Entry) -> None:
        """Take back the letter of a message that turned out to be finished."""
        letter = await self.find(entry)
        if letter is not None:
            await self._resolve(entry, "finished after all")
            await self._js.delete(self.stream, letter.seq)

    async def _publish_once(self, subject: str, headers: Mapping[str, str], body: bytes) -> PublishAck | None:
        """Store a copy under its own subject; None if it is there already."""
        try:
            return await self._js.publish(
                subject, body, headers, stream=self.stream, expect_empty_subject=True, headroom=0,
                timeout=self._fleet.config.publish_timeout,
            )  # fmt: skip
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                return None
            raise
        except UnknownDestination:
            raise Unavailable(
                f"there is no stream {self.stream}: provision() creates it; the message stays where it is"
            ) from None

    # -- coming back

    async def replay(
        self,
        seq: int,
        *,
        by: str,
        data: Any = UNCHANGED,
        to: str | None = None,
        expires_in: float | None = None,
        force: bool = False,
        entry: str | None = None,
    ) -> Receipt:
        """Send a letter back to where it came from, and delete it here once that is confirmed.

        Args:
            seq: The letter.
            by: Who replays; stays with the message.
            data: A new body, if given.
            to: Another destination subject.
            expires_in: A new deadline in seconds; the old one is removed in any case.
            force: Replay beyond `max_replays`.
            entry: Replay only if the sequence still names this death (the DLQ stream may have been made anew).

        Returns:
            The receipt of the publish; `duplicate` means an earlier, interrupted replay of this letter had got that far.

        Raises:
            UnknownDeadLetter: It is not there (any more).
            ReplayLimit: It was replayed as often as allowed.
            InvalidMessage: Its body was cut when it died, and no other was given.
            UnknownDestination: Nothing stores its subject; the letter stays.
            Unavailable: Not confirmed; the letter stays, and replaying it again stores no second copy that anybody handles.
        """
        stored = await self._js.get(self.stream, seq)
        letter = self.decode(stored) if stored is not None else None
        if stored is None or letter is None or (entry is not None and letter.entry != entry):
            raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")
        limit = self._fleet.config.dead_letters.max_replays
        if letter.replays >= limit and not force:
            raise ReplayLimit(
                f"dead letter {seq} was replayed {letter.replays} times (limit {limit}); find out why it dies, or force it"
            )
        subject = _literal(self.destination(letter) if to is None else to)
        stream = await self._destination_stream(subject, letter.stream if to is None else None)
        death = Entry.parse(letter.entry)
        await self._finish_move(letter, death)
        if not isinstance(data, _Unchanged):
            replaced = encode_data(data)
        elif f"{PREFIX}Truncated" in stored.headers:
            raise InvalidMessage(
                f"dead letter {seq} holds only a part of its body: replay it with new data, or discard it"
            )
        else:
            replaced = None
        before = await self._resubmit(letter) if letter.kind == "tasks" and to is None else None
        generation = letter.replays + 1
        headers = replay_headers(stored.headers, letter, death, generation, by)
        if expires_in is not None:
            headers[CE_EXPIRY] = format_time(datetime.now(UTC) + timedelta(seconds=expires_in))
        body = stored.body
        if replaced is not None:
            body, headers[CE_CONTENT_TYPE] = replaced
        timeout = self._fleet.config.publish_timeout
        try:
            ack = await self._js.publish(subject, body, headers, stream=stream, timeout=timeout, headroom=COPY_HEADROOM)
        except (UnknownDestination, QueueFull, MessageTooLarge, APIError):
            await self._undo_resubmit(letter, before)
            raise
        if ack.duplicate:
            # The replay of before got there, and its task has had a life of its own since.
            await self._undo_resubmit(letter, before)
        await self._resolve(death, f"replayed by {by}")
        await self._js.delete(self.stream, seq)
        return Receipt(id=letter.id, stream=ack.stream, seq=ack.seq, duplicate=ack.duplicate)

    async def discard(self, seq: int, *, by: str) -> None:
        """Delete a letter for good.

        Raises:
            UnknownDeadLetter: It is not there (any more).
        """
        letter = await self.get(seq)
        entry = Entry.parse(letter.entry)
        await self._finish_move(letter, entry)
        await self._resolve(entry, f"discarded by {by}")
        await self._js.delete(self.stream, seq)

    async def purge(self, kind: str = "*", name: str = "*", *, before: datetime | None = None) -> int:
        """Delete all letters of a kind and name, or those that died before a moment; returns how many went."""
        if before is None:
            return await self._js.purge(self.stream, subject=self._names.dlq_filter(kind, name))
        after, purged = 0, 0
        while page := await self.list(kind, name, after=after, limit=500):
            for letter in page:
                purged += letter.died_at < before and await self._js.delete(self.stream, letter.seq)
            after = page[-1].seq
        return purged

    def destination(self, letter: DeadLetter) -> str:
        """The subject a replay goes to: the recorded one, for an event the one of its single subscription.

        Raises:
            UnknownDestination: The letter does not say where it came from.
        """
        if (
            letter.kind == "events"
            and (owner := self._names.subscription_of(letter.name)) is not None
            and letter.subject
        ):
            return f"{self._names.redeliver_prefix(*owner)}.{self._names.topic_of(letter.subject)}"
        if not letter.subject:
            raise UnknownDestination(f"dead letter {letter.seq} has no {PREFIX}Subject header: say where it should go")
        return letter.subject

    async def claim(self, headers: Mapping[str, str], stream: str, seq: int) -> bool:
        """For the consumer of a replayed message: whether this sequence is the one copy to handle."""
        try:
            entry = Entry.parse(headers.get(REPLAY_OF, ""))
        except InvalidName:
            return True
        key = self._names.replay_key(entry, number(headers.get(f"{PREFIX}Replays", ""), 1))
        mine = f"{stream}:{seq}".encode()
        try:
            if await self.receipts.create(key, mine):
                return True
        except UnknownDestination:
            # A fleet made by other code has no receipts: this line of defence is absent there.
            return True
        value = await self.receipts.get(key)
        return value is None or value.data == mine

    async def sweep(self, stream: str, durable: str) -> int:
        """Move messages that exhausted their deliveries, and that the server hides, here; returns how many.

        Only for durables with `max_ack_pending=1` (inboxes), where the dead are exactly those stored below the one in
        flight; found twice, because an acknowledged message leaves the stream just after the counters moved.
        """
        return await sweeping.sweep(self, self._js, self._names, stream, durable)

    async def stranded(self, stream: str, durable: str, *, limit: int = 1000) -> Sequence[StoredMessage]:
        """One look at the messages that exhausted their deliveries; an acknowledgement in flight can make one appear."""
        return await sweeping.stranded(self._js, stream, durable, limit=limit)

    # -- internals

    async def _resubmit(self, letter: DeadLetter) -> TaskStatus | None:
        """Set the ledger record of a dead task back to `submitted`; returns the one of before if it was changed."""
        before: TaskStatus | None = None

        def change(record: TaskStatus | None) -> TaskStatus | None:
            nonlocal before
            # A completed one stays, its worker then drops the replay; one in work is that of another copy.
            ended = record is not None and record.state in ("failed", "rejected", "canceled")
            same = record is not None and record.state != "completed" and record.seq == letter.origin_seq
            before = record if ended or same else None
            if before is None:
                return None
            return dataclasses.replace(before, state="submitted", attempts=0, handbacks=0, seq=0, note=RESUBMITTED)

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

    async def _destination_stream(self, subject: str, recorded: str | None) -> str:
        streams = await self._js.stream_names(subject)
        if recorded in streams and recorded is not None:
            return recorded
        if len(streams) != 1:
            raise UnknownDestination(
                f"{'no stream' if not streams else 'more than one stream'} stores {subject!r}; the dead letter stays"
            )
        return streams[0]

    async def _finish_move(self, letter: DeadLetter, entry: Entry) -> None:
        """Remove an origin that a mover left behind, if that sequence still holds that message."""
        if letter.kind == "events" or not letter.stream or not entry.seq:
            return
        origin = await self._js.get(letter.stream, entry.seq)
        if origin is not None and origin.stored_ns == entry.stored_ns:
            await self._js.delete(letter.stream, entry.seq)

    async def _resolve(self, entry: Entry, how: str) -> None:
        try:
            await self.receipts.create(self._names.resolved_key(entry), how.encode("utf-8", "replace"))
        except UnknownDestination:
            # A fleet made by other code has no receipts; its movers do not look for them either.
            log.debug("no bucket %s: %s left no receipt", self.receipts.name, entry)

    async def _resolved(self, entry: Entry) -> bool:
        try:
            return await self.receipts.get(self._names.resolved_key(entry)) is not None
        except APIError:
            return False


def _literal(subject: str) -> str:
    """`subject` if one can publish to it; a letter's own header decides, so it may be anything."""
    if not is_literal(subject):
        raise UnknownDestination(f"{subject!r} is not a subject to publish to")
    return subject
