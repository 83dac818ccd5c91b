"""Going on with a job that broke off, and answering for what is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from console.operations.audit import Audit
from console.operations.errors import OperationError, UsageError
from console.operations.guard import WriteGuard
from console.operations.items import ItemResult
from console.operations.job import Job
from console.operations.ledger import OPEN, JobLedger, JobRecord, LedgerItem
from console.operations.places import Stream, require_home
from console.operations.records import operator_name
from console.text.safe import clean
from patterns import Fleet

Answer = Literal["again", "done", "leave"]
"""What an operator says of an item in doubt: send it once more; it got there; leave it where it is."""


def known(ledger: JobLedger, job: str) -> JobRecord:
    """A job of the ledger.

    Raises:
        OperationError: There is none.
    """
    record = ledger.job(job)
    if record is None:
        raise OperationError(f"there is no job {clean(job)}: `agent-console jobs` lists them")
    return record


def resumable(ledger: JobLedger, record: JobRecord) -> bool:
    """Whether a job has items left and nobody works on it; those of a cancelled one were given up."""
    if record.state in ("running", "paused"):
        return False
    counts = ledger.counts(record.id)
    return bool(counts.get("waiting", 0) + counts.get("sending", 0))


async def last_undoable(fleet: Fleet, ledger: JobLedger) -> JobRecord:
    """The newest job that removed something from a stream of this server and was not undone.

    Raises:
        OperationError: There is none.
    """
    identities: dict[str, str] = {}
    for record in ledger.jobs(limit=500):
        if not record.spill or record.undone_by or record.state in OPEN:
            continue
        if record.stream not in identities:
            stream = await Stream.of(fleet, record.stream)
            identities[record.stream] = stream.identity if stream is not None else ""
        if identities[record.stream] == record.identity:
            return record
    raise OperationError("nothing was removed from here, or everything is back already")


async def resume(fleet: Fleet, ledger: JobLedger, job: str, guard: WriteGuard, *, audit: Audit | None = None) -> Job:
    """The job, ready to run on with what is left.

    Raises:
        OperationError: There is no such job, it has nothing left, or its stream is not on this server.
        Refused: The guard forbids it.
    """
    guard.require("resume")
    record = known(ledger, job)
    if not resumable(ledger, record):
        why = (
            "it works in another agent-console"
            if record.state in ("running", "paused")
            else "there is nothing left to resume"
        )
        raise OperationError(f"job {record.id} is {record.state}: {why}")
    await require_home(fleet, record)
    return Job(fleet, record, guard, ledger=ledger, audit=audit, confirmation="resumed")


async def answer(
    fleet: Fleet, ledger: JobLedger, job: str, seqs: Sequence[int], said: Answer, guard: WriteGuard, *,
    audit: Audit | None = None, reason: str = "",
) -> int:  # fmt: skip
    """Say what is true of items in doubt; `again` leaves them waiting for `resume`.

    Args:
        fleet: The connection.
        ledger: Where the job is.
        job: Its id.
        seqs: Their sequences; none for all that are in doubt.
        said: What is true.
        guard: Whether changes are allowed.
        audit: Where it is written down.
        reason: Why, for the record.

    Returns:
        How many items it was said of.

    Raises:
        OperationError: There is no such job, or it is running.
        UsageError: One of the sequences is not in doubt.
        Refused: The guard forbids it.
    """
    guard.require("answer for what is in doubt")
    record = known(ledger, job)
    if record.state in ("running", "paused"):
        raise OperationError(f"job {record.id} is {record.state}: wait for its end, or cancel it")
    await require_home(fleet, record)
    lock = ledger.hold(record.identity, record.id)
    try:
        doubtful = ledger.items(record.id, "in doubt")
        wanted = set(seqs)
        if strange := wanted - {entry.item.seq for entry in doubtful}:
            raise UsageError(f"not in doubt in job {record.id}: {', '.join(map(str, sorted(strange)))}")
        chosen = [entry for entry in doubtful if not wanted or entry.item.seq in wanted]
        if audit is not None and chosen:
            told = [entry.item.seq for entry in chosen]
            await asyncio.to_thread(
                audit.write, "start", f"answer {said}", record.id, planned=len(told), seqs=told, reason=reason or None
            )
        if said == "again":
            for entry in chosen:
                ledger.reopen(record.id, entry.n)
        elif said == "leave":
            left = f"left where it is by {operator_name()}"
            ledger.settle(record.id, [(entry.n, ItemResult(entry.item.seq, "skipped", left)) for entry in chosen])
        else:
            await _take_as_done(Job(fleet, record, guard, ledger=ledger), chosen)
    finally:
        lock.release()
    return len(chosen)


async def _take_as_done(job: Job, chosen: Sequence[LedgerItem]) -> None:
    act = await asyncio.to_thread(job.act)
    try:
        for entry in chosen:
            # One by one: what was said of those before holds if the server goes away now.
            job.ledger.settle(job.id, [(entry.n, await act.take_as_done(entry.item))])
    finally:
        act.close()
