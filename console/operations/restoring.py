"""Putting back what a discard or purge removed, message by message out of its spill file."""

from __future__ import annotations

from pathlib import Path

from nats.js.errors import APIError

from console.operations.acts import Act, Sending, Verdict, verdict_by_id
from console.operations.errors import OperationError
from console.operations.items import Item, ItemResult
from console.operations.ledger import JobRecord, LedgerItem
from console.operations.spill import SpillFile
from patterns import Fleet, InvalidName
from patterns.jetstream import WRONG_LAST_SEQUENCE
from patterns.names import Entry
from patterns.stored import HeaderLines, StoredMessage, header_lines

MSG_ID = "Nats-Msg-Id"


class Restore(Act):
    """Each message goes back to its subject with its body and all its header lines but the server's own.

    It gets an id of its own, so that a duplicate window that still knows the old one does not swallow it.
    """

    def __init__(self, fleet: Fleet, record: JobRecord) -> None:
        super().__init__(fleet, record)
        self._file = SpillFile(Path(record.spec["source"]))
        self._same_stream = self._file.head.get("identity") == record.identity

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def do(self, item: Item, sending: Sending) -> ItemResult:
        """Publish, unless it is there (again) or a copy of it was handled."""
        message = self._file.message(item.seq)
        if message is None or message.stored_ns != item.stored_ns:
            raise OperationError(f"{self._file.path} has changed since the plan was made")
        if self._same_stream:
            there = await self.fleet.jetstream.get(self._file.stream, item.seq)
            if there is not None and there.stored_ns == item.stored_ns:
                return ItemResult(item.seq, "skipped", "still there: it was never removed")
        entry = self._entry(message)
        if entry is not None:
            if not await self.fleet.burials.reopen(entry):
                return ItemResult(item.seq, "skipped", "was replayed meanwhile")
        elif await self.fleet.burials.unclaim(message.headers, self._file.stream, item.seq) == "handled":
            return ItemResult(item.seq, "skipped", "a second copy of what was handled already")
        lines = [(name, value) for name, value in header_lines(message.header_block) if not name.startswith("Nats-")]
        headers = HeaderLines([*lines, (MSG_ID, self._id(item.seq).encode())])
        await sending("")
        try:
            ack = await self.fleet.jetstream.publish(
                message.subject, message.body, headers, stream=self._file.stream, headroom=0,
                timeout=self.fleet.config.publish_timeout, expect_empty_subject=entry is not None,
                # A letter's subject must be empty: that is as good as a window that forgets nothing.
                insist=entry is not None,
            )  # fmt: skip
        except APIError as error:
            if entry is not None and error.err_code in WRONG_LAST_SEQUENCE:
                return ItemResult(item.seq, "duplicate", "is there again already")
            raise
        return ItemResult(item.seq, "duplicate" if ack.duplicate else "done", f"is {ack.stream} {ack.seq} now")

    async def verdict(self, begun: LedgerItem) -> Verdict:
        """A letter may be put back again; another message if its id is remembered, or stored."""
        message = self._file.message(begun.item.seq)
        if message is None:
            return "unknown"
        if self._entry(message) is not None:
            return "again"
        return await verdict_by_id(self.fleet, begun, self._file.stream, message.subject, self._id(begun.item.seq))

    def _id(self, seq: int) -> str:
        return f"restore.{self._file.id}.{seq}"

    def _entry(self, message: StoredMessage) -> Entry | None:
        """The death a spilled letter stands for; None for any other message."""
        if self._file.stream != self.fleet.dead_letters.stream:
            return None
        try:
            return self.fleet.names.entry_of(message.subject)
        except InvalidName:
            return None
