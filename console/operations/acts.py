"""What each action does to one item, in an order of steps that may be killed at any point and repeated.

An act calls `sending` immediately before the step that cannot be taken back unseen: from then on the ledger calls the item
begun. What became of a begun item that nobody saw the end of is found out by `verdict`, and where it cannot be found out
it is in doubt, never guessed.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import nats.errors
from nats.js.errors import APIError

from console.operations.edits import Edit, EditError
from console.operations.holding import server_time
from console.operations.items import Item, ItemResult
from console.operations.ledger import JobRecord, LedgerItem
from console.operations.places import Destinations
from console.text.safe import clean
from patterns import Fleet, InvalidName, Unavailable, UnknownDeadLetter
from patterns.names import Entry
from patterns.rescue import Stranded, ensure_dead_letters, rescue
from patterns.stored import StoredMessage

log = logging.getLogger("console.operations")

Sending = Callable[[str], Awaitable[None]]
"""Called with what will tell, after a kill, which item this was; the ledger keeps it."""
AHEAD, FRESH = 64, 0.25
"""Messages that are read ahead at a time, and seconds for which they count as read just now."""
MARGIN = 5.0
"""Seconds before the end of a duplicate window in which it is not relied on any more."""
GONE = "gone: replayed, discarded or expired meanwhile"
Verdict = ItemResult | Literal["again", "unknown"]
"""What became of a begun item: known, or it may be done again without a second copy, or nobody can tell."""


class Act(abc.ABC):
    """One action, for the items of one job.

    Args:
        fleet: The connection.
        record: The job.
    """

    def __init__(self, fleet: Fleet, record: JobRecord) -> None:
        self.fleet = fleet
        self.record = record

    hurries = False
    """Whether several items are in work at a time; the job says so."""
    at_once: int | None = None
    """Items that may be in work at a time; None for as many as the job likes."""

    async def prepare(self) -> None:  # noqa: B027 - most need nothing
        """What comes before the first item."""

    @abc.abstractmethod
    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Do it to one item.

        Raises:
            Unavailable: Not confirmed; `verdict` finds out.
        """

    def begun_before(self, item: Item) -> None:  # noqa: B027 - most steps may just be repeated
        """An item was begun once, and the operator says that it is to be done again."""

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """What became of an item that was begun; most steps may just be repeated."""
        return "again"

    async def take_as_done(self, item: Item) -> ItemResult:
        """The operator knows that it got there: do the rest."""
        return ItemResult(item.seq, "done", f"taken as done by {clean(self.record.actor)}")

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds."""


class Replay(Act):
    """Dead letters back to where they came from, or all to another subject."""

    def __init__(self, fleet: Fleet, record: JobRecord) -> None:
        super().__init__(fleet, record)
        self._to: str | None = record.spec.get("to")
        self._force = bool(record.spec.get("force"))
        self._edit = Edit.from_spec(record.spec["edit"]) if "edit" in record.spec else None
        self._destinations = Destinations(fleet)
        self._letters = ReadAhead(fleet, fleet.dead_letters.stream)
        self._begun: set[int] = set()
        """Sequences of letters that were sent once, without a confirmation."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Publish, see it stored, leave the receipt, delete: `DeadLetters.replay`."""
        dead = self.fleet.dead_letters
        read = await self._letters.get(item, ahead=self.hurries)
        letter = dead.decode(read) if read is not None else None
        if read is None or letter is None:
            return ItemResult(item.seq, "skipped", GONE)
        entry = letter.entry
        try:
            edited = await self._edit.applied(read) if self._edit is not None else None
        except EditError as error:
            return ItemResult(item.seq, "failed", clean(str(error)))

        async def begin() -> None:
            await sending(entry)
            self._begun.add(item.seq)

        receipt = await dead.replay(
            item.seq,
            by=self.record.actor,
            job=self.record.id,
            body=edited.body if edited is not None else None,
            headers=edited.headers if edited is not None else None,
            to=self._to,
            force=self._force,
            resent=item.seq in self._begun,
            before_publish=begin,
            # Where a second copy would be handled, nothing is sent twice across a restart that may have forgotten it.
            insist=await self._destinations.guarded(item.destination),
            read=(read, letter),
        )
        where = f"{receipt.stream} {receipt.seq}"
        sent = f"{where} {entry}:r{letter.replays + 1}"
        if receipt.duplicate:
            return ItemResult(
                item.seq, "duplicate", f"was replayed before to {where}; only the letter was removed", sent
            )
        return ItemResult(item.seq, "done", f"to {clean(item.destination)}, {where}", sent)

    def begun_before(self, item: Item) -> None:
        """It may have been sent: an edit that is a duplicate is then its own."""
        self._begun.add(item.seq)

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """Gone, its receipt tells how; else it may be repeated where a second copy would be dropped."""
        item = begun.item
        self._begun.add(item.seq)
        stored = await self.fleet.jetstream.get(self.fleet.dead_letters.stream, item.seq)
        if stored is None or stored.stored_ns != item.stored_ns:
            return await resolved(self.fleet, begun, "replayed by", "was replayed before the job broke off")
        if await self._destinations.guarded(item.destination):
            return "again"
        letter = self.fleet.dead_letters.decode(stored)
        if letter is None:
            return "unknown"
        stream = await self._destinations.stream(item.destination)
        message_id = f"{letter.entry}:r{letter.replays + 1}"
        found = await verdict_by_id(self.fleet, begun, stream, item.destination, message_id)
        if isinstance(found, ItemResult):
            await self.take_as_done(item)
        return found

    async def take_as_done(self, item: Item) -> ItemResult:
        """Remove the letter, with its receipt."""
        try:
            await self.fleet.dead_letters.discard(item.seq, by=self.record.actor, stored_ns=item.stored_ns)
        except UnknownDeadLetter:
            return ItemResult(item.seq, "done", "the letter was gone already")
        return ItemResult(item.seq, "done", f"taken as replayed by {clean(self.record.actor)}; the letter was removed")


class ReadAhead:
    """The next messages of a stream by one request, for a job in a hurry: a fifth of its requests, one for each letter.

    Only from the server that keeps the stream, as a replica may lag behind, and only as long as they are fresh: what
    somebody else removes in that quarter of a second is replayed all the same, as it would be in the moment of a single one.
    """

    def __init__(self, fleet: Fleet, stream: str) -> None:
        self._fleet = fleet
        self._stream = stream
        self._held: dict[int, StoredMessage] = {}
        self._read_at = 0.0
        self._worth = True
        self._reading = asyncio.Lock()

    async def get(self, item: Item, *, ahead: bool) -> StoredMessage | None:
        """The message of an item, None if it is gone or another one; `ahead` if the next ones will be asked for at once."""
        found = None
        if ahead and self._worth and self._fleet.jetstream.standalone:
            async with self._reading:
                if item.seq not in self._held or time.monotonic() - self._read_at > FRESH:
                    # Few of many: what is read in between costs more than it saves.
                    self._worth = len(self._held) <= AHEAD * 3 // 4
                    page = await self._fleet.jetstream.read(self._stream, start=item.seq, limit=AHEAD)
                    self._read_at = time.monotonic()
                    self._held = {message.seq: message for message in page.messages}
                found = self._held.pop(item.seq, None)
        if found is None:
            found = await self._fleet.jetstream.get(self._stream, item.seq)
        return found if found is not None and found.stored_ns == item.stored_ns else None


class Discard(Act):
    """Dead letters, away."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Leave the receipt, delete."""
        dead = self.fleet.dead_letters
        read = await self.fleet.jetstream.get(dead.stream, item.seq)
        letter = dead.decode(read) if read is not None and read.stored_ns == item.stored_ns else None
        if read is None or letter is None:
            return ItemResult(item.seq, "skipped", GONE)
        await sending(letter.entry)
        await dead.discard(item.seq, by=self.record.actor, read=(read, letter))
        return ItemResult(item.seq, "done", "removed")

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """Gone, its receipt tells how."""
        stored = await self.fleet.jetstream.get(self.record.stream, begun.item.seq)
        if stored is not None and stored.stored_ns == begun.item.stored_ns:
            return "again"
        return await resolved(self.fleet, begun, "discarded by", "was removed before the job broke off")


class Remove(Act):
    """Messages of an inbox, a queue or the events, away."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Delete, if it is that message still: a stream that was made anew counts from 1 again."""
        js, stream = self.fleet.jetstream, self.record.stream
        there = await js.get(stream, item.seq)
        if there is not None and there.stored_ns == item.stored_ns:
            await sending("")
            if await js.delete(stream, item.seq):
                return ItemResult(item.seq, "done", "removed")
        return ItemResult(item.seq, "skipped", "gone: handled, removed or expired meanwhile")

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """Gone, it was removed by this job or handled by its agent: what is right to put back, only a person can say."""
        there = await self.fleet.jetstream.get(self.record.stream, begun.item.seq)
        return "again" if there is not None and there.stored_ns == begun.item.stored_ns else "unknown"


class Rescue(Act):
    """Messages that exhausted their deliveries, to the dead letters; one by one, for their order is that of their deaths."""

    at_once = 1

    async def prepare(self) -> None:
        """Make the DLQ where there is none; the plan said so."""
        await ensure_dead_letters(self.fleet)

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Copy, see it stored, delete; a message that somebody revived meanwhile is left alone."""
        await sending("")
        stream, _, durable = item.source.partition(" ")
        found = Stranded(stream=stream, durable=durable, seq=item.seq, stored_ns=item.stored_ns)
        if await rescue(self.fleet, found):
            return ItemResult(item.seq, "done", f"moved from {clean(stream)}")
        return ItemResult(item.seq, "skipped", "not stranded any more")


class Pause(Act):
    """The consumer of an inbox or a queue, paused or resumed."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """One call; repeating it changes nothing."""
        await sending("")
        spec = self.record.spec
        js, seconds = self.fleet.jetstream, float(spec["seconds"])
        info = await js.consumer_info(self.record.stream, spec["durable"]) if seconds else None
        now = server_time(info) if info is not None else None
        await js.pause(self.record.stream, spec["durable"], seconds, now=now)
        return ItemResult(item.seq, "done", f"{clean(spec['durable'])} {self.record.action}d")


async def resolved(fleet: Fleet, begun: LedgerItem, ours: str, done: str) -> Verdict:
    """What became of a letter that is gone, as its receipt says: not all that is gone is our doing."""
    entry = begun.detail.partition(" ")[2]
    try:
        how = await fleet.burials.resolution(Entry.parse(entry)) if entry else None
    except InvalidName:
        how = None
    if how is None:
        return "unknown"
    if how.startswith(ours):
        return ItemResult(begun.item.seq, "done", done)
    return ItemResult(begun.item.seq, "skipped", clean(f"gone: {how}"))


async def verdict_by_id(fleet: Fleet, begun: LedgerItem, stream: str, subject: str, message_id: str) -> Verdict:
    """Whether a message with an id of its own got there, or may be sent again because the server would recognise it.

    A server that was restarted, and any of a cluster, may have forgotten the ids of what was consumed meanwhile.
    """
    info = await fleet.jetstream.stream_info(stream) if stream else None
    if info is None:
        return "unknown"
    window = int(info["config"].get("duplicate_window", 0)) / 1e9
    if begun.at is None:
        return "unknown"
    run = begun.detail.partition(" ")[0]
    same_run = bool(run) and run == run_of(fleet)
    if same_run and time.time() - begun.at < window - MARGIN:
        return "again"
    start = 1
    while True:
        page = await fleet.jetstream.read(stream, start=start, limit=500, subject=subject)
        for stored in page.messages:
            if stored.headers.get("Nats-Msg-Id") == message_id:
                return ItemResult(begun.item.seq, "duplicate", f"is stored as {clean(stream)} {stored.seq} already")
        if not page.messages or page.remaining == 0:
            return "unknown"
        start = page.next_seq


def run_of(fleet: Fleet) -> str:
    """What names this run of the server, if it is the one that remembers ids; empty if that cannot be known."""
    return str(fleet.nc._server_info.get("server_id", "")) if fleet.jetstream.standalone else ""


def failure_of(error: Exception, seq: int) -> ItemResult:
    """The result of an item that the server refused."""
    if isinstance(error, APIError):
        return ItemResult(seq, "failed", clean(str(error.description or error)))
    return ItemResult(seq, "failed", clean(str(error)))


SILENCE = (Unavailable, nats.errors.Error, OSError)
