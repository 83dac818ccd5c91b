"""What a job tells: its lines in the audit, and its event to the fleet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import nats.errors

from console.operations.edits import Edit
from console.operations.items import TROUBLE
from console.operations.plan import SENDS
from patterns import PatternError

if TYPE_CHECKING:
    from console.operations.job import Job

SEQS = 1000
"""Sequences that the line of a job's beginning names at the most; the ledger has them all."""


def begins(job: Job, *, resumed: bool) -> None:
    """Write the line before the first item, and see it onto the disk; blocking.

    Raises:
        OperationError: It cannot be written: the job must not begin.
    """
    if job.audit is None:
        return
    spec = job.record.spec
    job.audit.write(
        "start",
        job.action,
        job.id,
        selector=job.record.selection,
        reason=job.record.reason or None,
        planned=job.planned,
        skipped=sum(job.record.skipped.values()),
        stream=job.record.stream,
        seqs=[entry.item.seq for entry in job.ledger.items(job.id, limit=SEQS)],
        destinations=spec.get("destinations", {}),
        rate=job.rate,
        force=bool(spec.get("force")),
        overridden=spec.get("overridden"),
        edit=Edit.from_spec(spec["edit"]).describe() if "edit" in spec else None,
        canary=spec.get("canary"),
        pauses=[" ".join(each) for each in spec["hold"]] if "hold" in spec else None,
        confirmation=job.confirmation,
        resumed=resumed,
        spill=job.spill or spec.get("spill"),
    )


def ended(job: Job) -> None:
    """Write the line after the last item."""
    if job.audit is None:
        return
    job.audit.note(
        "end",
        job.action,
        job.id,
        selector=job.record.selection,
        reason=job.record.reason or None,
        planned=job.planned,
        done=job.count("done", "duplicate"),
        duplicates=job.count("duplicate"),
        skipped=job.count("skipped") + sum(job.record.skipped.values()),
        failed=job.count("failed"),
        in_doubt=job.count("in doubt"),
        not_started=job.count("not started"),
        destinations=job.record.spec.get("destinations", {}),
        died_again=job.redied if job.action in SENDS else None,
        canary=job.record.spec.get("canary_verdict"),
        result=job.state,
        error=job.error or (job.troubles[0].detail if job.troubles else None),
        spill=job.spill,
    )


async def announce(job: Job) -> None:
    """Tell the fleet, where it has events and the rights allow; a job does not fail over it."""
    data = {
        "job": job.id,
        "action": job.action,
        "operator": job.record.actor,
        "selection": job.record.selection,
        "reason": job.record.reason,
        "planned": job.planned,
        "done": job.count("done", "duplicate"),
        "failed": job.count(*TROUBLE),
    }
    with contextlib.suppress(PatternError, nats.errors.Error, TimeoutError, OSError):
        async with asyncio.timeout(2.0):
            await job.fleet.events.broadcast(f"console.{job.action}", data, source="console")
