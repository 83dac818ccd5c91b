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

from console.operations.errors import OperationError
from console.operations.items import Item, ItemResult
from console.operations.ledger import JobRecord, LedgerItem
from console.operations.places import Destinations
from console.text.safe import clean
from patterns import Fleet, PatternError, Unavailable, UnknownDeadLetter
from patterns.rescue import Stranded, ensure_dead_letters, rescue
from patterns.stored import StoredMessage

log = logging.getLogger("console.operations")

Sending = Callable[[], Awaitable[None]]
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
        self._destinations = Destinations(fleet)
        self._ahead = ReadAhead(fleet, fleet.dead_letters.stream)

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Publish, see it stored, leave the receipt, delete: `DeadLetters.replay`."""
        try:
            receipt = await self.fleet.dead_letters.replay(
                item.seq,
                by=self.record.actor,
                to=self._to,
                force=self._force,
                stored_ns=item.stored_ns,
                before_publish=sending,
                # Where a second copy would be handled, nothing is sent twice across a restart that may have forgotten it.
                insist=await self._destinations.guarded(item.destination),
                read=await self._ahead.get(item) if self.hurries else None,
            )
        except UnknownDeadLetter:
            return ItemResult(item.seq, "skipped", GONE)
        where = f"{receipt.stream} {receipt.seq}"
        if receipt.duplicate:
            return ItemResult(item.seq, "duplicate", f"was replayed before to {where}; only the letter was removed")
        return ItemResult(item.seq, "done", f"to {clean(item.destination)}, {where}")

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """Gone is done; else it may be repeated where a second copy would be dropped, by the consumer or the server."""
        item = begun.item
        stored = await self.fleet.jetstream.get(self.fleet.dead_letters.stream, item.seq)
        if stored is None or stored.stored_ns != item.stored_ns:
            return ItemResult(item.seq, "done", "was replayed before the job broke off")
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
        self._reading = asyncio.Lock()

    async def get(self, item: Item) -> StoredMessage | None:
        """The message of an item, None if it has to be read singly."""
        if not self._fleet.jetstream.standalone:
            return None
        async with self._reading:
            if item.seq not in self._held or time.monotonic() - self._read_at > FRESH:
                page = await self._fleet.jetstream.read(self._stream, start=item.seq, limit=AHEAD)
                self._read_at = time.monotonic()
                self._held = {message.seq: message for message in page.messages}
            found = self._held.pop(item.seq, None)
        return found if found is not None and found.stored_ns == item.stored_ns else None


class Discard(Act):
    """Dead letters, away."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Leave the receipt, delete."""
        await sending()
        try:
            await self.fleet.dead_letters.discard(item.seq, by=self.record.actor, stored_ns=item.stored_ns)
        except UnknownDeadLetter:
            return ItemResult(item.seq, "skipped", GONE)
        return ItemResult(item.seq, "done", "removed")

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """Gone is done."""
        stored = await self.fleet.jetstream.get(self.record.stream, begun.item.seq)
        return (
            "again"
            if stored is not None
            else ItemResult(begun.item.seq, "done", "was removed before the job broke off")
        )


class Remove(Discard):
    """Messages of an inbox, a queue or the events, away; sequences of a stream name one message for ever."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Delete."""
        await sending()
        if await self.fleet.jetstream.delete(self.record.stream, item.seq):
            return ItemResult(item.seq, "done", "removed")
        return ItemResult(item.seq, "skipped", "gone: handled, removed or expired meanwhile")


class Rescue(Act):
    """Messages that exhausted their deliveries, to the dead letters; one by one, for their order is that of their deaths."""

    at_once = 1

    async def prepare(self) -> None:
        """Make the DLQ where there is none; the plan said so."""
        await ensure_dead_letters(self.fleet)

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Copy, see it stored, delete; a message that somebody revived meanwhile is left alone."""
        await sending()
        stream, _, durable = item.source.partition(" ")
        found = Stranded(stream=stream, durable=durable, seq=item.seq, stored_ns=item.stored_ns)
        if await rescue(self.fleet, found):
            return ItemResult(item.seq, "done", f"moved from {clean(stream)}")
        return ItemResult(item.seq, "skipped", "not stranded any more")


class Pause(Act):
    """The consumer of an inbox or a queue, paused or resumed."""

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """One call; repeating it changes nothing."""
        await sending()
        spec = self.record.spec
        await self.fleet.jetstream.pause(self.record.stream, spec["durable"], float(spec["seconds"]))
        return ItemResult(item.seq, "done", f"{clean(spec['durable'])} {self.record.action}d")


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
    same_run = bool(begun.detail) and begun.detail == run_of(fleet)
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


REFUSALS = (PatternError, APIError, OperationError)
"""What says that nothing was done; `Unavailable` and a lost connection do not."""
SILENCE = (Unavailable, nats.errors.Error, OSError)
