"""`dlq edit`: dead letters changed and sent back, beside the replay of `dlq`."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import acting, running
from console.commands.acting import (
    Asked,
    CanaryCount,
    DryRun,
    Force,
    Json,
    Pause,
    Rate,
    Reason,
    StopRatio,
    Uncapped,
    WatchFor,
    Yes,
)
from console.commands.dlq import FILTER_HELP, All, Expression, Seqs, read_choice
from console.commands.dlq import app as dlq_app
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.opening import Place
    from console.commands.running import Interrupt
    from console.operations.edits import Edit
    from console.operations.plan import Plan
    from patterns import Fleet
    from patterns.stored import StoredMessage

EPILOG = (
    FILTER_HELP
    + """
\b
PATH is a JSON path (RFC 9535); the $ in front may be left out. --set replaces
all that it selects, or adds one member to an object that is there; sets are made
before removals. A letter that a change does not fit is left alone and told. The
headers of the server and the envelope are locked; the message keeps its ce-id.
--editor opens VISUAL, EDITOR or vi, shows what was changed, and asks.

\b
Examples:
  agent-console dlq edit 1042 --set 'spec.model="large"' --dry-run
  agent-console dlq edit --filter role:backend --remove debug --yes
  agent-console dlq edit --all --header X-Tenant=acme --drop-header X-Test --yes
  agent-console dlq edit 1042 --body fixed.json --yes
  agent-console dlq edit 1042 --editor
"""
)


def register() -> None:
    """Importing this module has added its command to the group of `dlq`."""


@dlq_app.command("edit", epilog=EPILOG)
def edit_letters(
    context: typer.Context,
    seqs: Seqs = None,
    expression: Expression = None,
    everything: All = False,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=JSON", help="Put a value there.")] = None,
    removals: Annotated[
        list[str] | None, typer.Option("--remove", metavar="PATH", help="Take away what it selects.")
    ] = None,
    headers: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Set a header.")] = None,
    drops: Annotated[list[str] | None, typer.Option("--drop-header", metavar="NAME", help="Drop a header.")] = None,
    body: Annotated[
        str | None, typer.Option("--body", metavar="FILE", help="A whole new body; - reads standard input.")
    ] = None,
    editor: Annotated[bool, typer.Option("--editor", help="Change one letter in an editor.")] = False,
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
    """Change dead letters and send them back to where they came from."""
    options: GlobalOptions = context.obj
    asked = Asked(
        dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, uncapped=uncapped, force=force, pause=pause
    )  # fmt: skip
    choice = read_choice(seqs, expression, everything=everything)
    given = bool(sets or removals or headers or drops or body is not None)
    _require_sense(seqs, given=given, body=body, editor=editor, asks=not (yes or dry_run), as_json=json)
    edit = None if editor else _read(sets or [], removals or [], headers or [], drops or [], body)

    async def work(interrupt: Interrupt) -> int:
        from console.commands import opening

        chosen, made = choice, edit
        if made is None:
            meant = asked if asked.dry_run else dataclasses.replace(asked, yes=True)
            acting.require_allowed(opening.find(options), meant, "dlq edit")
            stored, made = await _in_editor(options, next(iter(choice.seqs)), interrupt)
            if made is None:
                return running.OK
            # What was edited is what is sent, and not another letter of that sequence.
            chosen = dataclasses.replace(choice, seqs={stored.seq: stored.stored_ns})

        async def planned(fleet: Fleet, place: Place) -> Plan:
            return await acting.plan_sending(
                fleet, place, chosen, asked, to=to, edit=made, canary=canary, watch=watch, stop_ratio=stop_ratio
            )

        wanted = asked
        if editor and not (asked.yes or asked.dry_run):
            said = await _confirmed(options, planned)
            if said is False:
                tell("nothing was changed")
                return running.UNCONFIRMED
            wanted = dataclasses.replace(asked, yes=bool(said))
        return await acting.change(options, wanted, interrupt, "dlq edit", planned)

    return running.run(work)


def _require_sense(
    seqs: list[int] | None, *, given: bool, body: str | None, editor: bool, asks: bool, as_json: bool
) -> None:
    if not given and not editor:
        raise UsageError("say what to change: --set, --remove, --header, --drop-header, --body or --editor")
    if given and editor:
        raise UsageError("--editor takes no other change with it: make them all in the editor")
    if (body is not None or editor) and len(set(seqs or ())) != 1:
        raise UsageError(f"{'--editor' if editor else '--body'} is for one letter: give exactly one SEQ")
    if editor and asks and as_json:
        raise UsageError("--editor asks a person: leave --json out, or add --yes or --dry-run")
    if editor and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--editor needs a terminal: use --set, --remove, --header, --drop-header or --body instead")


def _read(sets: list[str], removals: list[str], headers: list[str], drops: list[str], body: str | None) -> Edit:
    """The edit that the options describe."""
    from console.operations.edit_rules import require_free
    from console.operations.edits import Edit, parse_header, parse_remove, parse_set

    with _usage("--set"):
        changed = [parse_set(text) for text in sets]
    with _usage("--remove"):
        removed = [parse_remove(text) for text in removals]
    with _usage("--header"):
        named: list[tuple[str, str | None]] = [parse_header(text, "=") for text in headers]
    with _usage("--drop-header"):
        named += [(require_free(text.strip()), None) for text in drops]
    if len({name for name, _ in named}) < len(named):
        raise UsageError("a header is named twice")
    return Edit(None if body is None else _body(body), (*changed, *removed), tuple(named))


@contextlib.contextmanager
def _usage(option: str) -> Iterator[None]:
    from console.operations.edit_rules import EditError

    try:
        yield
    except EditError as error:
        raise UsageError(f"{option}: {error}") from None


def _body(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--body {name}: {error.strerror}") from None


async def _in_editor(options: GlobalOptions, seq: int, interrupt: Interrupt) -> tuple[StoredMessage, Edit | None]:
    """Let a person change a letter; the letter as it was, and what was changed, if anything was."""
    from console.commands import opening
    from console.operations.edit_file import edited_in, editor_of
    from console.operations.edit_text import as_text, from_text
    from patterns import UnknownDeadLetter

    editor = editor_of(os.environ)
    async with opening.find(options).connected() as fleet:
        stored = await fleet.jetstream.get(fleet.dead_letters.stream, seq)
    if stored is None:
        raise UnknownDeadLetter(f"no dead letter {seq}: replayed, discarded, expired, or never there")
    text = as_text(stored)
    with interrupt.left_to_others():
        back = await edited_in(editor, text)
    if back == text:
        tell("nothing was changed")
        return stored, None
    return stored, from_text(stored, back)


async def _confirmed(options: GlobalOptions, planned: Callable[[Fleet, Place], Awaitable[Plan]]) -> bool | None:
    """What the person says to the plan of what was made in the editor: it would be lost if that were only printed.

    None if there is nothing to say yes to.
    """
    from console import report_jobs
    from console.commands import opening

    place = opening.find(options)
    async with place.connected() as fleet:
        plan = await planned(fleet, place)
    if not plan.count:
        return None
    Output().show(*report_jobs.plan(plan))
    return typer.confirm("send it so?", err=True)
