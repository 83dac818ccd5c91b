"""Writing the messages of a job to its spill file, before the first of them is removed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from console.operations.errors import OperationError
from console.operations.ledger import JobLedger, JobRecord, LedgerItem
from console.operations.spill import SpillWriter
from patterns import Fleet
from patterns.stored import SENDABLE, StoredMessage, header_lines

AT_ONCE, BYTES = 16, 16 << 20
"""Messages, and bytes of the largest there may be, read at a time: the single get, which alone tells the raw headers, comes in
base64, and the server drops a client that more than 64 MiB wait for."""
OWN_HEADERS = 256
"""Bytes of headers that a restored message has of its own."""


async def spill(
    fleet: Fleet, ledger: JobLedger, record: JobRecord, directory: str, cancelled: asyncio.Event
) -> tuple[Path | None, list[tuple[int, int, str]]]:
    """Write all waiting items of a job to a new file and see it onto the disk.

    Args:
        fleet: The connection.
        ledger: Where the items are.
        record: The job.
        directory: Where the file goes.
        cancelled: Ends it; nothing is kept then.

    Returns:
        The file, None if it was cancelled; and number and sequence of the items that are not in it, and why: gone, or such
        that they could not be put back.

    Raises:
        OperationError: It cannot be written.
        Unavailable: A message cannot be read.
    """
    head = {
        "action": record.action,
        "job": record.id,
        "stream": record.stream,
        "identity": record.identity,
        "server": fleet.server_info().name,
        "context": record.context,
        "by": record.actor,
        "reason": record.reason,
        "selection": record.selection,
    }
    _forget_unfinished(Path(directory), record)
    file = await asyncio.to_thread(SpillWriter, Path(directory), head)
    left: list[tuple[int, int, str]] = []
    at_once = max(1, min(AT_ONCE, BYTES // fleet.nc.max_payload))
    try:
        after = -1
        while page := ledger.items(record.id, "waiting", "sending", after=after, limit=at_once):
            if cancelled.is_set():
                break
            after = page[-1].n
            found = await asyncio.gather(*(_read(fleet, record.stream, entry) for entry in page))
            whys = [_unfit(message, fleet.nc.max_payload) for message in found]
            left += [
                (entry.n, entry.item.seq, why)
                for entry, why in zip(page, whys, strict=True)
                if why and entry.state == "waiting"
            ]
            fit = [message for message, why in zip(found, whys, strict=True) if message is not None and not why]
            await asyncio.to_thread(file.write_all, fit)
        else:
            await asyncio.to_thread(file.complete)
            return file.path, left
    except BaseException:
        _discard(file)
        raise
    _discard(file)
    return None, []


def _unfit(message: StoredMessage | None, most: int) -> str:
    """Why a message is not in the file, and must not be removed; empty if it is."""
    if message is None:
        return "gone before it could be written down: handled or expired"
    lines = header_lines(message.header_block)
    if not all(SENDABLE.fullmatch(name) for name, _ in lines) or len(lines) < message.header_block.count(b"\r\n") - 2:
        return "has a header that no client can send: it could not be put back, needs --no-spill"
    if len(message.body) + len(message.header_block) + OWN_HEADERS > most:
        return "is as large as the server takes: it could not be put back, needs --no-spill"
    return ""


async def _read(fleet: Fleet, stream: str, entry: LedgerItem) -> StoredMessage | None:
    stored = await fleet.jetstream.get(stream, entry.item.seq)
    return stored if stored is not None and stored.stored_ns == entry.item.stored_ns else None


def _discard(file: SpillWriter) -> None:
    with contextlib.suppress(OSError):
        file.close()
        file.path.unlink()


def _forget_unfinished(directory: Path, record: JobRecord) -> None:
    """What an earlier run of this job began to write and did not finish: nothing was removed after it."""
    with contextlib.suppress(OSError, OperationError):
        for path in directory.glob(f"*-{record.id}.jsonl"):
            path.unlink()
