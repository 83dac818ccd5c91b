"""Writing the messages of a job to its spill file, before the first of them is removed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from console.operations.errors import OperationError
from console.operations.ledger import JobLedger, JobRecord, LedgerItem
from console.operations.spill import SpillWriter
from patterns import Fleet
from patterns.stored import StoredMessage

AT_ONCE = 16
"""Messages read at a time, each with its raw headers, which only the single get tells: what bounds the memory."""


async def spill(
    fleet: Fleet, ledger: JobLedger, record: JobRecord, directory: str, cancelled: asyncio.Event
) -> tuple[Path | None, list[tuple[int, int]]]:
    """Write all waiting items of a job to a new file and see it onto the disk.

    Args:
        fleet: The connection.
        ledger: Where the items are.
        record: The job.
        directory: Where the file goes.
        cancelled: Ends it; nothing is kept then.

    Returns:
        The file, None if it was cancelled; and number and sequence of the items that were gone already.

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
    gone: list[tuple[int, int]] = []
    try:
        after = -1
        while page := ledger.items(record.id, "waiting", after=after, limit=AT_ONCE):
            if cancelled.is_set():
                break
            after = page[-1].n
            found = await asyncio.gather(*(_read(fleet, record.stream, entry) for entry in page))
            kept = [message for message in found if message is not None]
            gone += [(e.n, e.item.seq) for e, message in zip(page, found, strict=True) if message is None]
            await asyncio.to_thread(file.write_all, kept)
        else:
            await asyncio.to_thread(file.complete)
            return file.path, gone
    except BaseException:
        _discard(file)
        raise
    _discard(file)
    return None, []


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
