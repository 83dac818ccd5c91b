"""`jobs` and `restore`: what was begun, going on with it, answering for what is in doubt, and putting back."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import acting, audit, running
from console.commands.acting import Asked, DryRun, Force, Json, Rate, Reason, Uncapped, Yes
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from console.commands.opening import Place
    from console.commands.running import Interrupt
    from console.operations.ledger import ItemState, JobRecord
    from console.operations.plan import Plan
    from patterns import Fleet

SHOWN = 50
"""Jobs a table shows; JSON has all of them."""

JOBS_EPILOG = """\b
A job whose program was killed is `interrupted`: `jobs resume` goes on with what
is left and sends nothing twice. What was sent and never confirmed, to consumers
that keep no receipts, is `in doubt`: look whether it got there and say so with
`jobs answer`.

\b
Examples:
  agent-console jobs
  agent-console jobs show 4f1c22aa
  agent-console jobs resume 4f1c22aa --yes
  agent-console jobs answer 4f1c22aa 1042 --arrived --yes
"""
RESTORE_EPILOG = """\b
Messages get ids of their own, so that a duplicate window does not swallow them.
What is still there, or was handled meanwhile, is not put back a second time.

\b
Examples:
  agent-console restore FILE --dry-run
  agent-console restore FILE --yes
"""

app = typer.Typer(help="What was begun from this machine: list, resume, answer.", rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="JOB", help="Its id, from `agent-console jobs`.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="jobs", epilog=JOBS_EPILOG)
    root.command("restore", epilog=RESTORE_EPILOG)(restore)


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context, json: Json = False) -> None:
    """What was begun from this machine: list, resume, answer."""
    if context.invoked_subcommand is not None:
        return
    from console import report_jobs

    out = Output()
    with contextlib.closing(acting.opened_ledger()) as ledger:
        found = [(record, ledger.counts(record.id)) for record in ledger.jobs(limit=10_000 if json else SHOWN)]
    if json:
        out.json([shape(record, counts) for record, counts in found])
    elif found:
        out.show(report_jobs.jobs(found))
    else:
        tell("no job was begun from here yet")
    raise typer.Exit(running.OK)


@app.command("show")
def show(context: typer.Context, job: Id, json: Json = False) -> int:
    """Show one job with what became of each of its items."""
    del context
    from console import report_jobs
    from console.operations.job import result_of
    from console.operations.resuming import known

    out = Output()
    with contextlib.closing(acting.opened_ledger()) as ledger:
        record = known(ledger, job)
        counts = ledger.counts(job)
        results = [result_of(entry) for entry in ledger.all_items(job)]
    if json:
        items = [{"seq": each.seq, "outcome": each.outcome, "detail": each.detail} for each in results]
        out.json(shape(record, counts) | {"items": items})
    else:
        out.show(report_jobs.jobs([(record, counts)]), "", report_jobs.items(results))
    return running.OK


@app.command("resume")
def resume(
    context: typer.Context,
    job: Id,
    rate: Rate = None,
    uncapped: Uncapped = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Go on with a job that broke off, at its pace or at another."""
    options: GlobalOptions = context.obj
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force, rate=rate, uncapped=uncapped)
    return running.run(lambda interrupt: _resume(options, job, interrupt, asked))


@app.command("answer")
def answer(
    context: typer.Context,
    job: Id,
    seqs: Annotated[list[int] | None, typer.Argument(metavar="SEQ", min=1, help="Which; all in doubt if none.")] = None,
    arrived: Annotated[
        bool, typer.Option("--arrived", help="They got there: remove what is left of them here.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="They did not: the next resume sends them once more.")] = False,
    leave: Annotated[bool, typer.Option("--leave", help="Leave them where they are.")] = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Say what is true of items in doubt."""
    options: GlobalOptions = context.obj
    if arrived + again + leave != 1:
        raise UsageError("jobs answer: say --arrived, --again or --leave (one of them)")
    said = "done" if arrived else "again" if again else "leave"
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force)
    return running.run(lambda _: _answer(options, job, seqs or [], said, asked))


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What a discard or purge wrote.")],
    rate: Rate = None,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Put back what a discard or purge removed."""
    options: GlobalOptions = context.obj
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, force=force)
    path = file.absolute()

    async def planned(fleet: Fleet, place: Place) -> Plan:
        from console.operations.plan_streams import plan_restore

        with contextlib.closing(acting.opened_ledger()) as ledger:
            return await plan_restore(
                fleet, path, ledger=ledger, force=force, rate=asked.pace(None), reason=reason, prod=place.prod
            )

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, "restore", planned))


async def _resume(options: GlobalOptions, job_id: str, interrupt: Interrupt, asked: Asked) -> int:
    from console import report_jobs
    from console.commands import opening
    from console.operations.resuming import known
    from console.operations.resuming import resume as resumed

    place, out = opening.find(options), Output()
    acting.require_allowed(place, asked, "jobs resume")
    with contextlib.closing(acting.opened_ledger()) as ledger:
        record, counts = known(ledger, job_id), ledger.counts(job_id)
        if asked.dry_run or not asked.yes:
            if asked.as_json:
                out.json(shape(record, counts))
            else:
                out.show(report_jobs.jobs([(record, counts)]), *report_jobs.left_of(record))
            return _unconfirmed(asked, f"resume job {job_id}")
        async with place.connected() as fleet:
            written = await audit.opened(fleet, context=place.target.name, mode="cli")
            job = await resumed(fleet, ledger, job_id, place.command_guard, audit=written)
            job.set_rate(asked.pace(job.rate))
            await acting.run(job, interrupt)
            if asked.as_json:
                out.json(job.as_json())
            else:
                out.show(*report_jobs.result(job))
            acting.tell_unfinished(job)
            return job.exit_code


async def _answer(options: GlobalOptions, job: str, seqs: list[int], said: Any, asked: Asked) -> int:
    from console import report_jobs
    from console.commands import opening
    from console.operations import resuming
    from console.operations.job import result_of

    place, out = opening.find(options), Output()
    acting.require_allowed(place, asked, "jobs answer")
    with contextlib.closing(acting.opened_ledger()) as ledger:
        record = resuming.known(ledger, job)
        if asked.dry_run or not asked.yes:
            doubtful = [result_of(entry) for entry in ledger.items(job, "in doubt")]
            chosen = [each for each in doubtful if not seqs or each.seq in seqs]
            if asked.as_json:
                items = [{"seq": each.seq, "outcome": each.outcome, "detail": each.detail} for each in chosen]
                out.json(shape(record, ledger.counts(job)) | {"items": items})
            else:
                out.show(report_jobs.items(chosen))
            if not chosen:
                tell(f"nothing is in doubt in job {job}")
                return running.OK
            return _unconfirmed(asked, f"answer for {acting.many(len(chosen), 'item')} of job {job}")
        async with place.connected() as fleet:
            written = await audit.opened(fleet, context=place.target.name, mode="cli")
            number = await resuming.answer(
                fleet, ledger, job, seqs, said, place.command_guard, audit=written, reason=asked.reason
            )
        if asked.as_json:
            out.json({"job": job, "answered": number})
        else:
            tell(f"answered for {acting.many(number, 'item')} of job {job}")
    return running.OK


def _unconfirmed(asked: Asked, what: str) -> int:
    if asked.dry_run:
        return running.OK
    tell(f"nothing was changed: add --yes to {what}, or --dry-run to just look")
    return running.UNCONFIRMED


def shape(record: JobRecord, counts: Mapping[ItemState, int]) -> dict[str, Any]:
    """One job, as `jobs --json` has it."""
    from datetime import UTC, datetime

    from console.commands.shapes import moment
    from console.operations.edits import Edit

    def at(seconds: float | None) -> str | None:
        return None if seconds is None else moment(datetime.fromtimestamp(seconds, UTC))

    return {
        "job": record.id,
        "state": record.state,
        "action": record.action,
        "stream": record.stream,
        "context": record.context or None,
        "actor": record.actor,
        "mode": record.mode,
        "selector": record.selection,
        "reason": record.reason or None,
        "rate": record.rate,
        "planned": record.planned,
        "done": counts.get("done", 0) + counts.get("duplicate", 0),
        "duplicates": counts.get("duplicate", 0),
        "skipped": counts.get("skipped", 0) + sum(record.skipped.values()),
        "failed": counts.get("failed", 0),
        "in_doubt": counts.get("in doubt", 0),
        "not_started": counts.get("not started", 0),
        "left": counts.get("waiting", 0) + counts.get("sending", 0),
        "created_at": at(record.created),
        "started_at": at(record.started),
        "ended_at": at(record.ended),
        "spill": record.spill,
        "error": record.error or None,
        "edit": Edit.from_spec(record.spec["edit"]).describe() if "edit" in record.spec else None,
        "canary": record.spec.get("canary"),
        "canary_verdict": record.spec.get("canary_verdict"),
        "stop_ratio": record.spec.get("stop_ratio"),
        "pauses": [" ".join(each) for each in record.spec.get("hold", ())],
        "died_again_while_running": record.spec.get("redied", 0),
        "overridden": record.spec.get("overridden", {}),
    }
