"""A fleet where everything could be changed: for tests that nothing is."""

from __future__ import annotations

from pathlib import Path

from console.messages import place_of
from console.operations.guard import WriteGuard
from console.operations.items import ItemResult
from console.operations.job import Job
from console.operations.ledger import JobLedger, JobRecord
from console.operations.plan_streams import plan_purge
from console.operations.selection import choose
from patterns import Fleet
from tests.support.commandline import fill, strand, three
from tests.support.fleets import fast
from tests.support.plans import plan_replay

BRIEF = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})
"""A message of an inbox is stranded by one delivery that nobody answers."""
AGENTS = ("ceo", "cfo")


async def populate(fleet: Fleet) -> None:
    """Something for every action: letters, a stranded message, messages and tasks of a paused inbox and queue."""
    await three(fleet)
    await strand(fleet, "cfo")
    await fill(fleet)
    await fill(fleet, "queue")
    await fleet.jetstream.pause("INBOX_CEO", fleet.names.inbox_durable("ceo"), 3600.0)
    await fleet.jetstream.pause("TASKS_BACKEND", fleet.names.tasks_durable("backend"), 3600.0)


async def broken_job(fleet: Fleet, ledger: JobLedger) -> str:
    """A replay that broke off: letter 1 in doubt, letter 3 not begun; its id."""
    plan = await plan_replay(fleet, choose("dead letters", seqs=[1, 3]), rate=None)
    record = Job.of(fleet, plan, WriteGuard(True)).record
    values = {name: getattr(record, name) for name in JobRecord.__slots__}
    ledger.add(JobRecord(**(values | {"state": "interrupted"})), plan.items)
    ledger.settle(record.id, [(0, ItemResult(1, "in doubt", "not confirmed"))])
    return record.id


async def spilled(fleet: Fleet, ledger: JobLedger, directory: Path) -> Path:
    """A purge of task 1 that can be undone; its file."""
    plan = await plan_purge(
        fleet, place_of(fleet.names, "queue", "backend"), choose("messages", up_to=1), spill=directory
    )
    job = Job.of(fleet, plan, WriteGuard(True), ledger=ledger)
    await job.run()
    assert job.spill is not None
    return Path(job.spill)
