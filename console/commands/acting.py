"""From a plan to its result on the command line, the same for every command that changes something."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import audit, logs, running
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.opening import Place
    from console.commands.options import GlobalOptions
    from console.commands.running import Interrupt
    from console.operations.edits import Edit
    from console.operations.guard import WriteGuard
    from console.operations.job import Job
    from console.operations.ledger import JobLedger
    from console.operations.plan import Plan
    from console.operations.plan_letters import Sending
    from console.operations.selection import Choice
    from console.settings import Settings
    from patterns import Fleet

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; audited and announced. Required on a production context.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it.")]
Force = Annotated[
    bool, typer.Option("--force", help="Also what a policy protects or what was replayed as often as allowed.")
]
NoSpill = Annotated[
    bool, typer.Option("--no-spill", help="Write nothing down first: what is removed is gone for good.")
]
Rate = Annotated[float | None, typer.Option("--rate", metavar="N", help="Messages a second, 1 to 500.")]
Pause = Annotated[
    bool,
    typer.Option(
        "--pause", help="Pause the consumers concerned while it runs; they go on at its end, or after a crash."
    ),
]
StopRatio = Annotated[
    float | None,
    typer.Option(
        "--stop-ratio", metavar="R", help="Stop when more than this share died again, 0 to 1 (1 never stops)."
    ),
]
CanaryCount = Annotated[
    int | None,
    typer.Option("--canary", metavar="N", help="Send N first; the rest only if all of them are acknowledged."),
]
WatchFor = Annotated[
    str | None, typer.Option("--watch-for", metavar="AGE", help="How long a canary is watched, such as 30s.")
]
Uncapped = Annotated[bool, typer.Option("--uncapped", help="As fast as it goes.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every change is asked with."""

    dry_run: bool = False
    yes: bool = False
    as_json: bool = False
    reason: str = ""
    rate: float | None = None
    uncapped: bool = False
    force: bool = False
    no_spill: bool = False
    pause: bool = False

    @property
    def spill(self) -> Path | None:
        """Where what is removed is written first; None for no way back."""
        return None if self.no_spill else spill_dir()

    def pace(self, default: float | None) -> float | None:
        """Messages a second; None for as fast as it goes.

        Raises:
            UsageError: Both were asked for.
        """
        if self.uncapped and self.rate is not None:
            raise UsageError("--rate and --uncapped exclude each other")
        if self.uncapped:
            return None
        return self.rate if self.rate is not None else default


async def plan_sending(fleet: Fleet, place: Place, choice: Choice, asked: Asked, **how: Any) -> Plan:
    """Plan to send letters as the options and the settings say; `how` are the options that `_sending` takes."""
    from console.operations.plan_letters import plan_replay, policy_of

    return await plan_replay(
        fleet,
        choice,
        _sending(asked, place.settings, **how),
        policy=policy_of(place.settings),
        reason=asked.reason,
        prod=place.prod,
    )


def _sending(
    asked: Asked, settings: Settings, *, to: str | None = None, edit: Edit | None = None, canary: int | None = None,
    watch: str | None = None, stop_ratio: float | None = None,
) -> Sending:  # fmt: skip
    """How letters are sent.

    Raises:
        UsageError: An option is out of range, or needs another.
    """
    from console.filters import parse_duration
    from console.operations.canary import Canary
    from console.operations.plan_letters import Sending

    if watch is not None and canary is None:
        raise UsageError("--watch-for is for a canary: say --canary N, too")
    try:
        seconds = settings.canary_watch if watch is None else parse_duration(watch)
    except ValueError:
        raise UsageError(f"--watch-for {watch!r}: expected a time like 30s or 5m") from None
    return Sending(
        rate=asked.pace(settings.replay_rate),
        to=to,
        edit=edit,
        canary=None if canary is None else Canary(canary, seconds),
        stop_ratio=settings.replay_stop_ratio if stop_ratio is None else stop_ratio,
        hold=asked.pause,
        force=asked.force,
    )


def spill_dir() -> Path:
    """The per-user directory of spill files."""
    return logs.state_dir() / "spill"


def opened_ledger() -> JobLedger:
    """The job ledger of this user."""
    from console.operations.ledger import JobLedger

    return JobLedger(logs.state_dir())


def ledger_of_screen(guard: WriteGuard) -> tuple[JobLedger, WriteGuard]:
    """The job ledger for a session on the screen, and its guard: without a ledger one may look, but change nothing."""
    from console.operations.errors import OperationError
    from console.operations.guard import WriteGuard
    from console.operations.ledger import JobLedger

    try:
        return opened_ledger(), guard
    except OperationError as error:
        return JobLedger(), WriteGuard(False, str(error)) if guard.allowed else guard


async def change(
    options: GlobalOptions,
    asked: Asked,
    interrupt: Interrupt,
    action: str,
    planned: Callable[[Fleet, Place], Awaitable[Plan]],
) -> int:
    """Connect, plan, and print the plan or do it; the exit code.

    Args:
        options: The global options.
        asked: How it was asked for.
        interrupt: Ctrl-C.
        action: The command, for errors.
        planned: Makes the plan.
    """
    from console.commands import opening

    place = opening.find(options)
    require_allowed(place, asked, action)
    async with place.connected() as fleet:
        return await carry_out(fleet, place, asked, await planned(fleet, place), interrupt)


def require_allowed(place: Place, asked: Asked, action: str) -> None:
    """Check what can be checked without a server.

    Raises:
        Refused: Nothing may be changed here.
        UsageError: On production without a reason.
    """
    if asked.dry_run:
        return
    place.command_guard.require(action)
    if place.prod and asked.yes and not asked.reason.strip():
        raise UsageError(f"{place.target.name} is a production context: say why with --reason TEXT")


async def carry_out(fleet: Fleet, place: Place, asked: Asked, plan: Plan, interrupt: Interrupt) -> int:
    """Print a plan, or run it and print its result; the exit code."""
    from console import report_jobs as report
    from console.operations.job import Job

    out = Output()
    if asked.dry_run or not asked.yes:
        if asked.as_json:
            out.json(plan.as_json())
        else:
            out.show(*report.plan(plan))
        return _unconfirmed(plan, asked)
    with contextlib.closing(opened_ledger()) as ledger:
        written = await audit.opened(fleet, context=place.target.name, mode="cli")
        job = Job.of(
            fleet, plan, place.command_guard, ledger=ledger, audit=written, confirmation="--yes",
            context=place.target.name, mode="cli",
        )  # fmt: skip
        if plan.count:
            await run(job, interrupt)
        if asked.as_json:
            out.json(job.as_json(plan.skipped))
        else:
            out.show(*report.result(job, plan.skipped))
        return _ended(job, plan)


async def run(job: Job, interrupt: Interrupt) -> None:
    """Run a job with a bar on the terminal; Ctrl-C stops it after the item in work, to be resumed."""
    with interrupt.softened(job.leave):
        async with _progress(job):
            await job.run()


def _unconfirmed(plan: Plan, asked: Asked) -> int:
    if asked.dry_run:
        return running.OK
    if not plan.count:
        return _nothing_left(plan)
    tell(f"nothing was changed: add --yes to {plan.action} {many(plan.count, plan.noun)}, or --dry-run to just look")
    return running.UNCONFIRMED


def _nothing_left(plan: Plan) -> int:
    """Exit code of a plan without items: refused if a policy took the last one."""
    from console.operations.errors import Refused

    if plan.refused:
        what = many(plan.refused, plan.noun)
        tell(f"refused: a policy or the replay limit protects {what} from being repeated, --force overrides it")
        return Refused.exit_code
    return running.OK


def _ended(job: Job, plan: Plan) -> int:
    if not plan.count:
        return _nothing_left(plan)
    tell_unfinished(job)
    return job.exit_code


def tell_unfinished(job: Job) -> None:
    """Say on standard error what is left, and how to go on."""
    if not job.exit_code:
        return
    parts = [
        f"{number:,} {outcome}" for outcome in ("failed", "in doubt", "not started") if (number := job.count(outcome))
    ]
    more = ""
    if job.count("in doubt"):
        more = f": say what is true with `agent-console jobs answer {job.id}`"
    elif job.count("not started") and job.state != "cancelled":
        more = f": `agent-console jobs resume {job.id} --yes` goes on"
    error = f" ({job.error})" if job.error else ""
    tell(f"of {many(job.planned, job.noun)}: {', '.join(parts)}{error}{more}")


def many(count: int, noun: str) -> str:
    """`1 dead letter`, `12 dead letters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@contextlib.asynccontextmanager
async def _progress(job: Job) -> AsyncIterator[None]:
    """A bar on a terminal's standard error for the length of the block; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job.action, total=job.planned)

        async def follow() -> None:
            while True:
                bar.update(task, completed=job.processed, description=job.phase or job.action)
                await asyncio.sleep(0.2)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
