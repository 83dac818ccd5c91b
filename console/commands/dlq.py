"""`dlq`: dead letters, listed, shown and sent back."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import audit, running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.running import Interrupt
    from console.filters import Filter
    from console.operations.job import Job
    from console.operations.plan import Plan
    from patterns import DeadLetter, Fleet

PAGE = 500

TABLE_LIMIT = 100
"""Letters a table shows unless asked for more; JSON has all of them."""

FILTER_HELP = """\b
A filter narrows: words match anywhere, field:value in one place, space is AND,
comma is OR, ! inverts. Fields: agent role kind subject type reason error
correlation attempts replays age size hdr.NAME body.PATH seq.
"""

LIST_EPILOG = (
    FILTER_HELP
    + """
\b
Examples:
  agent-console dlq list
  agent-console dlq list --filter 'role:backend attempts:>3 age:<1d'
  agent-console dlq list --json | jq -r '.[] | [.seq, .source, .error] | @tsv'
"""
)

SHOW_EPILOG = """\b
Examples:
  agent-console dlq show 1042
  agent-console dlq show 1042 --json | jq -r .base64 | base64 -d > body
"""

REPLAY_EPILOG = (
    FILTER_HELP
    + """
\b
Without --yes the plan is printed and nothing changes (exit code 4; with
--dry-run 0). A letter is removed only after the server confirmed the message in
its stream. Ctrl-C stops after the letter in work.

\b
Examples:
  agent-console dlq replay 1042 1043 --dry-run
  agent-console dlq replay --filter 'role:backend reason:max-deliver' --yes
  agent-console dlq replay --all --rate 50 --reason 'model is back' --yes --json
"""
)

app = typer.Typer(help="Dead letters: what no handler could finish, and the way back.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Expression = Annotated[str | None, typer.Option("--filter", metavar="EXPR", help="Only letters that match.")]


@app.callback(invoke_without_command=True)
def dlq(context: typer.Context) -> None:
    """Dead letters: what no handler could finish, and the way back."""
    if context.invoked_subcommand is None:
        raise UsageError("dlq: say what to do: list, show or replay")


@app.command("list", epilog=LIST_EPILOG)
def list_letters(
    context: typer.Context,
    expression: Expression = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help=f"So many at most (in a table {TABLE_LIMIT} without it)."),
    ] = None,
    json: Json = False,
) -> int:
    """List dead letters in the order of their deaths."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _list(options, expression, limit, as_json=json))


@app.command("show", epilog=SHOW_EPILOG)
def show_letter(
    context: typer.Context,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="Its sequence, from dlq list.")],
    json: Json = False,
) -> int:
    """Show one dead letter with its headers and its body."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _show(options, seq, as_json=json))


@app.command("replay", epilog=REPLAY_EPILOG)
def replay_letters(
    context: typer.Context,
    seqs: Annotated[list[int] | None, typer.Argument(metavar="SEQ", min=1, help="Sequences.")] = None,
    expression: Expression = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    to: Annotated[str | None, typer.Option("--to", metavar="SUBJECT", help="Instead of where each came from.")] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="Letters a second, 1 to 500 (20, or the settings').")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; announced to the fleet.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also those replayed as often as allowed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    json: Json = False,
) -> int:
    """Send dead letters back to where they came from."""
    options: GlobalOptions = context.obj
    asked = Request(
        seqs=tuple(seqs or ()),
        expression=expression,
        everything=everything,
        to=to,
        rate=rate,
        reason=reason,
        force=force,
        dry_run=dry_run,
        yes=yes,
        as_json=json,
    )
    return running.run(lambda interrupt: _replay(options, asked, interrupt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A replay as it was asked for."""

    seqs: tuple[int, ...]
    expression: str | None
    everything: bool
    to: str | None
    rate: float | None
    reason: str
    force: bool
    dry_run: bool
    yes: bool
    as_json: bool


async def _list(options: GlobalOptions, expression: str | None, limit: int | None, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes
    from console.operations.selection import read_choice

    # An empty filter is a slip in a script here too: a variable that was not set.
    wanted = None if expression is None else read_choice((), expression, everything=False)
    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        if as_json:
            out.json([shapes.letter(letter) async for letter in _letters(fleet, wanted, limit)])
            return running.OK
        shown = limit or TABLE_LIMIT
        letters = [letter async for letter in _letters(fleet, wanted, shown + 1)]
        out.show(*report.letters(letters[:shown], more=len(letters) > shown))
    return running.OK


async def _letters(fleet: Fleet, wanted: Filter | None, limit: int | None) -> AsyncIterator[DeadLetter]:
    from console.letters import record_of

    found, after = 0, 0
    while page := await fleet.dead_letters.list(after=after, limit=PAGE):
        for letter in page:
            if wanted is not None and not wanted.matches(record_of(letter)):
                continue
            yield letter
            found += 1
            if found == limit:
                return
        after = page[-1].seq


async def _show(options: GlobalOptions, seq: int, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes
    from console.operations.selection import select
    from patterns import UnknownDeadLetter

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        for letter in (await select(fleet, seqs=[seq])).letters:
            if as_json:
                out.json(shapes.letter_in_full(letter))
            else:
                out.show(*report.letter(letter))
            return running.OK
    raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")


async def _replay(options: GlobalOptions, asked: Request, interrupt: Interrupt) -> int:
    from console import report
    from console.commands import opening
    from console.operations.job import Job
    from console.operations.plan import plan_replay, policy_of
    from console.operations.selection import read_choice, select

    # A choice that cannot be meant is refused without asking a server.
    read_choice(asked.seqs, asked.expression, everything=asked.everything)
    place, out = opening.find(options), Output()
    guard = place.command_guard
    if not asked.dry_run:
        guard.require("dlq replay")
    async with place.connected() as fleet:
        chosen = await select(fleet, seqs=asked.seqs, expression=asked.expression, everything=asked.everything)
        rate = asked.rate if asked.rate is not None else place.settings.replay_rate
        policy = policy_of(place.settings)
        plan = await plan_replay(
            fleet, chosen, rate=rate, policy=policy, to=asked.to, force=asked.force, reason=asked.reason
        )
        if asked.dry_run or not asked.yes:
            if asked.as_json:
                out.json(plan.as_json())
            else:
                out.show(*report.plan(plan))
            return _unconfirmed(plan, asked)
        written = await audit.opened(fleet, context=place.target.name, mode="cli")
        job = Job(fleet, plan, guard, audit=written, confirmation="--yes")
        if plan.count:
            with interrupt.softened(job.cancel):
                async with _progress(job):
                    await job.run()
        if asked.as_json:
            out.json(job.as_json())
        else:
            out.show(*report.result(job))
        return _ended(job)


def _unconfirmed(plan: Plan, asked: Request) -> int:
    if asked.dry_run:
        return running.OK
    if not plan.count:
        return _nothing_left(plan)
    tell(f"nothing was changed: add --yes to {plan.action} {_letters_text(plan.count)}, or --dry-run to just look")
    return running.UNCONFIRMED


def _nothing_left(plan: Plan) -> int:
    """Exit code of a plan without items: refused if a policy took the last one."""
    from console.operations.errors import Refused

    if plan.refused:
        tell(f"refused: a policy protects {_letters_text(plan.refused)} from being repeated, --force overrides it")
        return Refused.exit_code
    return running.OK


def _ended(job: Job) -> int:
    if not job.plan.count:
        return _nothing_left(job.plan)
    if job.exit_code:
        unfinished = job.count("failed", "in doubt", "not started")
        tell(
            f"{unfinished:,} of {_letters_text(job.plan.count)} failed, are in doubt or were not started; they are still there"
        )
    return job.exit_code


def _letters_text(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


@contextlib.asynccontextmanager
async def _progress(job: Job) -> AsyncIterator[None]:
    """A bar on a terminal's standard error for the length of the block; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job.plan.action, total=job.plan.count)

        async def follow() -> None:
            while True:
                bar.update(task, completed=len(job.results))
                await asyncio.sleep(0.2)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
