"""Notes on dead letters: written to the job ledger of this machine, and changing nothing on the server.

That is why a read-only session may write them, and nobody is asked for `--yes`: a note is what one wants to leave behind
where one may only look. The audit tells of each all the same.
"""

from __future__ import annotations

import asyncio
import time

from console.notes import LONGEST
from console.operations.audit import Audit
from console.operations.errors import OperationError, UsageError
from console.operations.ledger import JobLedger, Note
from console.operations.places import Stream
from console.operations.records import operator_name
from patterns import Fleet


async def letters_identity(fleet: Fleet) -> str:
    """Names the stream of the dead letters that is there now; empty if there is none."""
    stream = await Stream.of(fleet, fleet.dead_letters.stream)
    return stream.identity if stream is not None else ""


async def write_note(
    fleet: Fleet, ledger: JobLedger, about: str, text: str, *, audit: Audit | None = None, context: str = ""
) -> Note:
    """Write a note, replace it, or with an empty text remove it.

    Args:
        fleet: The connection: notes belong to the dead letters of one server.
        ledger: Where they are kept.
        about: What it is about, see `console.notes`.
        text: One line; blanks at its ends and runs of them are dropped.
        audit: Where it is written down.
        context: The nats context, for the audit of a session that only looks.

    Raises:
        UsageError: It is too long.
        OperationError: There are no dead letters it could be about, or the ledger cannot be written.
    """
    note = Note(about, " ".join(text.split()), operator_name(), time.time())
    if len(note.text) > LONGEST:
        raise UsageError(f"a note has at most {LONGEST:,} characters, this one {len(note.text):,}")
    identity = await letters_identity(fleet)
    if not identity:
        raise OperationError(f"there is no stream {fleet.dead_letters.stream}: nothing to note anything about")
    await asyncio.to_thread(ledger.write_note, identity, note)
    if audit is not None:
        action = "note" if note.text else "remove note"
        who = {"actor": note.author, **({"context": context} if context else {})}
        # The fields of the end of a job, so that whoever lists the audit needs to know no other.
        became = {"selector": about, "reason": note.text or None, "planned": 1, "done": 1, "failed": 0}
        await asyncio.to_thread(audit.note, "end", action, "", **who, **became, result="completed")
    return note
