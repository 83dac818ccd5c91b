"""`dlq`: dead letters, listed, shown and sent back."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import acting, running
from console.commands.acting import (
    Asked,
    CanaryCount,
    DryRun,
    Force,
    Json,
    NoSpill,
    Pause,
    Rate,
    Reason,
    StopRatio,
    Uncapped,
    WatchFor,
    Yes,
)
from console.commands.options import GlobalOptions
from console.commands.output import Output
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.opening import Place
    from console.filters import Filter
    from console.operations.plan import Plan
    from console.operations.selection import Choice
    from patterns import DeadLetter, Fleet

PAGE = 500

TABLE_LIMIT = 100
"""Letters a table shows unless asked for more; JSON has all of them."""

FILTER_HELP = """\b
A filter narrows: words match anywhere, field:value in one place, space is AND,
comma is OR, ! inverts. Fields: agent role kind subject type reason error cause
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
its stream. Ctrl-C stops after the letter in work. A job stops by itself when
too many of its letters die again (--stop-ratio, replay_stop_ratio).

\b
Examples:
  agent-console dlq replay 1042 1043 --dry-run
  agent-console dlq replay --filter 'role:backend reason:max-deliver' --yes
  agent-console dlq replay --filter 'role:backend' --canary 3 --watch-for 1m --yes
  agent-console dlq replay --all --rate 50 --reason 'model is back' --yes --json
"""
)

PURGE_EPILOG = (
    FILTER_HELP
    + """
\b
What is removed is written to a file first (agent-console info says where), and
`agent-console restore FILE` puts it back; --no-spill leaves no way back.

\b
Examples:
  agent-console dlq purge 1042 --dry-run
  agent-console dlq purge --filter 'role:backend error:"no spec"' --yes
  agent-console dlq purge --older-than 14d --reason 'kept long enough' --yes
"""
)

RESCUE_EPILOG = """\b
Looks at every work queue of the account, also at those that other programs
made; where there is no DLQ stream it is created.

\b
Examples:
  agent-console dlq rescue --dry-run
  agent-console dlq rescue --yes --json
"""

app = typer.Typer(help="Dead letters: what no handler could finish, and the way back.", rich_markup_mode=None)

Seqs = Annotated[list[int] | None, typer.Argument(metavar="SEQ", min=1, help="Sequences.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]
Expression = Annotated[str | None, typer.Option("--filter", metavar="EXPR", help="Only letters that match.")]


@app.callback(invoke_without_command=True)
def dlq(context: typer.Context) -> None:
    """Dead letters: what no handler could finish, and the way back."""
    if context.invoked_subcommand is None:
        raise UsageError("dlq: say what to do: list, show, causes, note, lineage, replay, edit, purge or rescue")


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
    seqs: Seqs = None,
    expression: Expression = None,
    everything: All = False,
    to: Annotated[str | None, typer.Option("--to", metavar="SUBJECT", help="Instead of where each came from.")] = None,
    canary: CanaryCount = None,
    watch: WatchFor = None,
    stop_ratio: StopRatio = None,
    pause: Pause = False,
    rate: Rate = None,
    uncapped: Uncapped = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Send dead letters back to where they came from."""
    options: GlobalOptions = context.obj
    asked = Asked(
        dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, uncapped=uncapped, force=force, pause=pause
    )  # fmt: skip
    # A choice that cannot be meant is refused without asking a server.
    read_choice(seqs, expression, everything=everything)

    async def planned(fleet: Fleet, place: Place) -> Plan:
        choice = read_choice(seqs, expression, everything=everything)
        return await acting.plan_sending(
            fleet, place, choice, asked, to=to, canary=canary, watch=watch, stop_ratio=stop_ratio
        )

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, "dlq replay", planned))


@app.command("purge", epilog=PURGE_EPILOG)
def purge_letters(
    context: typer.Context,
    seqs: Seqs = None,
    expression: Expression = None,
    everything: All = False,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="S", help="Only on this subject of the DLQ, wildcards allowed.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="All but the newest N of what is chosen.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Only what died longer ago, such as 2h.")
    ] = None,
    up_to_seq: Annotated[int | None, typer.Option("--up-to-seq", metavar="N", help="Only up to this sequence.")] = None,
    rate: Rate = None,
    no_spill: NoSpill = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Remove dead letters; they are written to a file first."""
    options: GlobalOptions = context.obj
    asked = Asked(
        dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, force=force, no_spill=no_spill
    )  # fmt: skip

    def choice() -> Choice:
        return read_choice(
            seqs, expression, everything=everything, subject=subject, keep=keep, older_than=older_than, up_to=up_to_seq
        )

    choice()

    async def planned(fleet: Fleet, place: Place) -> Plan:
        from console.operations.plan_letters import plan_discard

        return await plan_discard(
            fleet, choice(), spill=asked.spill, purge=not seqs, rate=asked.pace(None), reason=reason, prod=place.prod
        )

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, "dlq purge", planned))


@app.command("rescue", epilog=RESCUE_EPILOG)
def rescue_messages(
    context: typer.Context,
    rate: Rate = None,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Move stranded messages, which exhausted their deliveries and which the server hides, into the DLQ."""
    options: GlobalOptions = context.obj
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, force=force)

    async def planned(fleet: Fleet, place: Place) -> Plan:
        from console.operations.plan_streams import plan_rescue

        return await plan_rescue(fleet, rate=asked.pace(None), reason=reason, prod=place.prod)

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, "dlq rescue", planned))


def read_choice(
    seqs: list[int] | None,
    expression: str | None,
    *,
    everything: bool,
    subject: str | None = None,
    keep: int | None = None,
    older_than: str | None = None,
    up_to: int | None = None,
) -> Choice:
    """Which letters the options choose.

    Raises:
        UsageError: None, or in ways that exclude each other.
    """
    from console.operations.selection import choose

    return choose(
        "dead letters",
        seqs=tuple(seqs or ()),
        expression=expression,
        everything=everything,
        subject=subject,
        keep=keep,
        older_than=older_than,
        up_to=up_to,
    )


async def _list(options: GlobalOptions, expression: str | None, limit: int | None, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes

    # An empty filter is a slip in a script here too: a variable that was not set.
    wanted = None if expression is None else read_choice(None, expression, everything=False).wanted
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


async def letter_of(fleet: Fleet, seq: int) -> DeadLetter:
    """One letter.

    Raises:
        UnknownDeadLetter: There is none with this sequence, or there can be none.
    """
    from console.operations.selection import NEWEST
    from patterns import UnknownDeadLetter

    if seq > NEWEST:
        raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")
    return await fleet.dead_letters.get(seq)


async def _show(options: GlobalOptions, seq: int, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes, triage

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        letter = await letter_of(fleet, seq)
        if as_json:
            out.json(shapes.letter_in_full(letter))
        else:
            out.show(*report.letter(letter), *await triage.notes_on(fleet, letter))
    return running.OK
