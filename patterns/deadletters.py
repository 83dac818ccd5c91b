"""Dead letters: where messages go that no handler could finish, and the way back.

Every step can be killed at any point and repeated. A move publishes the copy under a subject of its own that must be
empty, and removes the origin only then. A replay publishes under a deterministic id, leaves a receipt, and deletes the
letter only then; the consumer of the replayed message drops a second copy by its receipt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nats.js.errors import APIError

from patterns import sweeping
from patterns.bell import Bell
from patterns.errors import (
    ReplayLimit,
    Unavailable,
    UnknownDeadLetter,
    UnknownDestination,
)
from patterns.jetstream import STREAM_NOT_FOUND
from patterns.letter import PREFIX, DeadLetter, read_letter
from patterns.letter_count import LetterCount
from patterns.message import Receipt
from patterns.names import Entry
from patterns.replaying import UNCHANGED, Replayer
from patterns.stored import StoredMessage

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

PURGE_AT_ONCE = 16
"""Letters a purge has in work at a time."""


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
        self._replayer = Replayer(fleet)
        self._count = LetterCount(fleet.jetstream, fleet.names, self.stream)

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
        return (await self._stored(seq))[1]

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
        """Letters for each kind and name; after the first time at a cost that does not grow with their number."""
        return await self._count.read()

    def decode(self, stored: StoredMessage) -> DeadLetter | None:
        """Read a letter from its stored message; None if its subject does not name a death."""
        return read_letter(stored, names=self._names, stream=self.stream)

    # -- coming back

    async def replay(
        self,
        seq: int,
        *,
        by: str,
        data: Any = UNCHANGED,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        job: str = "",
        resent: bool = False,
        to: str | None = None,
        expires_in: float | None = None,
        force: bool = False,
        entry: str | None = None,
        stored_ns: int | None = None,
        before_publish: Callable[[], Awaitable[None]] | None = None,
        insist: bool = True,
        read: tuple[StoredMessage, DeadLetter] | None = None,
    ) -> Receipt:
        """Send a letter back to where it came from, and delete it here once that is confirmed.

        Args:
            seq: The letter.
            by: Who replays; stays with the message.
            data: A new body, if given.
            body: A new body as bytes, instead of `data`; the content type stays what it was.
            headers: Headers of its sender to set, or with None to remove; those of the envelope cannot be edited.
            job: Name of what it is replayed by; stays with the message, so that a new death can be told to be its doing.
            resent: The caller sent this very edit before, without a confirmation: if its message has been handled meanwhile,
                that one is taken for the edit.
            to: Another destination subject.
            expires_in: A new deadline in seconds; the old one is removed in any case.
            force: Replay beyond `max_replays`.
            entry: Replay only if the sequence still names this death (the DLQ stream may have been made anew).
            stored_ns: Replay only the copy that the DLQ stream stored at this nanosecond since the epoch.
            before_publish: Awaited once when everything is read and repaired; nothing comes between its return and the
                publish, so whoever replays many at a time can keep their order.
            insist: As for `JetStream.publish`; False where consumers keep no receipts, and would handle a second copy.
            read: The letter, as it is stored and decoded, if whoever replays many has just read it; it is not read again.

        Returns:
            The receipt of the publish; `duplicate` means an earlier, interrupted replay of this letter had got that far.

        Raises:
            UnknownDeadLetter: It is not there (any more), or it is another one.
            AlreadyReplayed: An interrupted attempt sent it with another body before this edit; the letter stays.
            ReplayLimit: It was replayed as often as allowed.
            InvalidMessage: Its body was cut when it died, and no other was given; or a header cannot be edited so.
            UnknownDestination: Nothing stores its subject; the letter stays.
            Unavailable: Not confirmed; the letter stays, and replaying it again stores no second copy that anybody handles.
        """
        stored, letter = await self._stored(seq, entry, stored_ns, read)
        limit = self._fleet.config.dead_letters.max_replays
        if letter.replays >= limit and not force:
            raise ReplayLimit(
                f"dead letter {seq} was replayed {letter.replays} times (limit {limit}); find out why it dies, or force it"
            )
        return await self._replayer.replay(
            stored,
            letter,
            self.destination(letter) if to is None else to,
            by=by,
            data=data,
            body=body,
            headers=headers or {},
            job=job,
            resent=resent,
            back=to is None,
            expires_in=expires_in,
            before_publish=before_publish,
            insist=insist,
        )

    async def discard(
        self,
        seq: int,
        *,
        by: str,
        entry: str | None = None,
        stored_ns: int | None = None,
        read: tuple[StoredMessage, DeadLetter] | None = None,
    ) -> None:
        """Delete a letter for good.

        Args:
            seq: The letter.
            by: Who discards; stays in the receipt.
            entry: Discard only if the sequence still names this death, as in `replay`.
            stored_ns: Discard only the copy that the DLQ stream stored at this nanosecond since the epoch.
            read: The letter as the caller has just read it, as in `replay`.

        Raises:
            UnknownDeadLetter: It is not there (any more), or it is another one.
        """
        _, letter = await self._stored(seq, entry, stored_ns, read)
        await self._remove(letter, f"discarded by {by}")

    async def purge(self, kind: str = "*", name: str = "*", *, before: datetime | None = None) -> int:
        """Discard all letters of a kind and name, or those of them that died before a moment; returns how many went.

        What dies meanwhile is not touched. As with one discard, a move that broke off is finished first and a receipt left,
        so that no mover brings a purged letter back: three round trips a letter, sixteen letters at a time.
        """
        info = await self._js.stream_info(self.stream)
        last = int(info["state"]["last_seq"]) if info else 0
        after, purged, slots = 0, 0, asyncio.Semaphore(PURGE_AT_ONCE)

        async def discard(letter: DeadLetter) -> bool:
            async with slots:
                return await self._remove(letter, "purged")

        while page := [letter for letter in await self.list(kind, name, after=after, limit=500) if letter.seq <= last]:
            chosen = [letter for letter in page if before is None or letter.died_at < before]
            purged += sum(await asyncio.gather(*map(discard, chosen)))
            after = page[-1].seq
        return purged

    def destination(self, letter: DeadLetter) -> str:
        """The subject a replay goes to: the recorded one, for an event the one of its single subscription.

        Raises:
            UnknownDestination: The letter does not say where it came from.
        """
        owner = self._names.subscription_of(letter.name) if letter.kind == "events" else None
        if owner is not None and letter.subject:
            return self._names.redeliver_subject(*owner, self._names.topic_of(letter.subject))
        if not letter.subject:
            raise UnknownDestination(f"dead letter {letter.seq} has no {PREFIX}Subject header: say where it should go")
        return letter.subject

    async def guarded(self, stream: str) -> bool:
        """Whether a second copy of a replay into this stream would be dropped: all its consumers look for receipts."""
        return await self._fleet.burials.guarded(stream)

    async def sweep(self, stream: str, durable: str) -> int:
        """Move messages that exhausted their deliveries, and that the server hides, here; returns how many.

        Only for durables with `max_ack_pending=1` (inboxes), where the dead are exactly those stored below the one in
        flight; found twice, because an acknowledged message leaves the stream just after the counters moved.
        """
        return await sweeping.sweep(self._fleet.burials, self._js, self._names, stream, durable)

    async def stranded(self, stream: str, durable: str, *, limit: int = 1000) -> Sequence[StoredMessage]:
        """One look at the messages that exhausted their deliveries; an acknowledgement in flight can make one appear."""
        return await sweeping.stranded(self._js, stream, durable, limit=limit)

    # -- internals

    async def _stored(
        self,
        seq: int,
        entry: str | None = None,
        stored_ns: int | None = None,
        read: tuple[StoredMessage, DeadLetter] | None = None,
    ) -> tuple[StoredMessage, DeadLetter]:
        """The letter of this sequence, if it is the one that is meant."""
        stored: StoredMessage | None
        letter: DeadLetter | None
        if read is not None:
            stored, letter = read
        else:
            stored = await self._js.get(self.stream, seq)
            letter = self.decode(stored) if stored is not None else None
        if stored is None or letter is None:
            raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")
        if (entry is not None and letter.entry != entry) or (stored_ns is not None and stored.stored_ns != stored_ns):
            raise UnknownDeadLetter(f"dead letter {seq} is another one now: the one that was meant is gone")
        return stored, letter

    async def _remove(self, letter: DeadLetter, how: str) -> bool:
        """Delete a letter so that no mover brings it back; whether it was there."""
        entry = Entry.parse(letter.entry)
        await self._fleet.burials.finish(letter, entry)
        await self._fleet.burials.resolve(entry, how)
        return await self._js.delete(self.stream, letter.seq)
