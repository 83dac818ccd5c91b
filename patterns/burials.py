"""Burying: moving what no handler could finish to the dead letters, so that any step can be killed and repeated.

A move publishes the copy under a subject of its own that must be empty, and only then the origin goes. Receipts tell a
mover that slept that its letter was replayed or discarded meanwhile, and the consumer of a replayed message that it holds
the second copy of two.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from nats.js.errors import APIError

from patterns.bucket import Bucket
from patterns.errors import InvalidName, PermissionDenied, Unavailable, UnknownDestination
from patterns.headers import header_size, number
from patterns.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from patterns.letter import PREFIX, DeadLetter, death_headers, read_letter
from patterns.lineage import lighten
from patterns.message import OUTCOME_OF, REPLAY_OF, Message
from patterns.names import Entry
from patterns.stored import PublishAck, StoredMessage

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

MISSES = 8
"""Origins that are not there, after which it is worth a request to learn where their stream begins."""

COPY_HEADROOM = 512
"""Bytes a dead-letter copy stays below the server's limit; its body is cut to fit."""


class Burials:
    """Moves messages to the dead letters of a fleet and keeps the receipts of what came of them.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._js = fleet.jetstream
        self._names = fleet.names
        self.stream = fleet.names.dlq_stream
        self._first: dict[str, int] = {}
        """First sequence of streams that many letters came from, as far as it is known; it only grows."""
        self._misses: Counter[str] = Counter()
        self.receipts = Bucket(fleet.jetstream, fleet.names.receipts_bucket)

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
        body, most = origin.body, self._fleet.nc.max_payload - COPY_HEADROOM
        headers = lighten(headers, most - len(body))
        room = most - header_size(headers)
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
        return None if stored is None else read_letter(stored, names=self._names, stream=self.stream)

    async def withdraw(self, entry: Entry) -> None:
        """Take back the letter of a message that turned out to be finished."""
        letter = await self.find(entry)
        if letter is not None:
            await self.resolve(entry, "finished after all")
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

    async def claim(self, headers: Mapping[str, str], stream: str, seq: int) -> bool:
        """For the consumer of a replayed message or of an outcome: whether this sequence is the one copy to handle."""
        key = self._receipt_of(headers)
        if key is None:
            return True
        mine = f"{stream}:{seq}".encode()
        try:
            if await self.receipts.create(key, mine):
                return True
        except (UnknownDestination, PermissionDenied):
            # A fleet made by other code has no receipts, and nobody may write those of another's origin, as after a replay
            # to somebody else: this line of defence is absent there.
            return True
        value = await self.receipts.get(key)
        return value is None or value == mine

    async def unclaim(self, headers: Mapping[str, str], stream: str, seq: int) -> Literal["free", "handled"]:
        """Before a purged message is stored again, under another sequence: whether a consumer may handle it then.

        Args:
            headers: Of the purged message.
            stream: Stream it was purged from.
            seq: Its sequence there.

        Returns:
            `handled` if it is the second copy of a replayed message or of an outcome, and another copy was delivered: do not
            put it back. Else `free`; a receipt that it had left itself, delivered but not acknowledged, is gone then.

        Raises:
            Unavailable: The receipt cannot be read or removed.
        """
        key = self._receipt_of(headers)
        value = None if key is None else await self.receipts.get(key)
        if key is None or value is None:
            return "free"
        if value != f"{stream}:{seq}".encode():
            return "handled"
        await self.receipts.delete(key)
        return "free"

    async def guarded(self, stream: str) -> bool:
        """Whether the consumers of a stream look for receipts; see `DeadLetters.guarded`."""
        if await self._js.stream_info(self.receipts.stream) is None:
            return False
        try:
            consumers = await self._js.consumers(stream)
        except APIError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return False
            raise
        return all((each["config"].get("metadata") or {}).get("agents.receipts") == "1" for each in consumers)

    async def delivered(self, entry: Entry, generation: int) -> bool:
        """Whether a replay of this letter has reached its consumer already."""
        return await self.delivery(entry, generation) is not None

    async def delivery(self, entry: Entry, generation: int) -> str | None:
        """Which message of a replay has reached its consumer first, `<stream>:<sequence>`; None if none has."""
        value = await self.receipts.get(self._names.replay_key(entry, generation))
        return value.decode("utf-8", "replace") if value is not None else None

    def _receipt_of(self, headers: Mapping[str, str]) -> str | None:
        """Key of the receipt that the first delivery of this message leaves; None for one that needs none."""
        try:
            if replayed := headers.get(REPLAY_OF):
                generation = number(headers.get(f"{PREFIX}Replays", ""), 1)
                return self._names.replay_key(Entry.parse(replayed), generation)
            entry, _, fate = headers.get(OUTCOME_OF, "").partition(" ")
            return self._names.outcome_key(Entry.parse(entry), fate) if fate in ("completed", "failed") else None
        except InvalidName:
            return None

    async def finish(self, letter: DeadLetter, entry: Entry) -> None:
        """Remove an origin that a mover left behind, if that sequence still holds that message."""
        if letter.kind == "events" or not letter.stream or not entry.seq:
            return
        if entry.seq < self._first.get(letter.stream, 0):
            return
        origin = await self._js.get(letter.stream, entry.seq)
        if origin is not None and origin.stored_ns == entry.stored_ns:
            await self._js.delete(letter.stream, entry.seq)
        elif origin is None:
            await self._learn_first(letter.stream)

    async def _learn_first(self, stream: str) -> None:
        """After some misses ask where the stream begins: below, nothing is left to look for, and no sequence comes again.

        In a stream that was made anew neither: what it stores has other times.
        """
        self._misses[stream] += 1
        if self._misses[stream] % MISSES == 0:
            info = await self._js.stream_info(stream)
            if info is not None:
                self._first[stream] = max(self._first.get(stream, 0), int(info["state"]["first_seq"]))

    async def resolve(self, entry: Entry, how: str) -> None:
        """Leave the receipt that this death was replayed, discarded or taken back; before its letter goes."""
        try:
            await self.receipts.create(self._names.resolved_key(entry), how.encode("utf-8", "replace"))
        except UnknownDestination:
            # A fleet made by other code has no receipts; its movers do not look for them either.
            log.debug("no bucket %s: %s left no receipt", self.receipts.name, entry)

    async def resolution(self, entry: Entry) -> str | None:
        """What became of a letter, as its receipt says: `replayed by ...`, `discarded by ...`; None if it has none."""
        value = await self.receipts.get(self._names.resolved_key(entry))
        return None if value is None else value.decode("utf-8", "replace")

    async def reopen(self, entry: Entry) -> bool:
        """Remove the receipt of a discard or purge, before that letter is put back; False if it was replayed meanwhile.

        With it a mover that slept would take the letter for one of its own making, and delete it. Nothing happens where there
        is no receipt, or no bucket.

        Raises:
            Unavailable: The receipt cannot be read or removed; do not put the letter back yet.
        """
        how = await self.resolution(entry)
        if how is not None and not how.startswith(("discarded", "purged")):
            return False
        await self.receipts.delete(self._names.resolved_key(entry))
        return True

    async def _resolved(self, entry: Entry) -> bool:
        try:
            return await self.receipts.get(self._names.resolved_key(entry)) is not None
        except APIError:
            return False
