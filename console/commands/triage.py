"""`dlq causes` and `dlq note`: what letters died of, group by group, and what an operator has to say about it."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console.commands import acting, logs, running
from console.commands.acting import Json
from console.commands.dlq import FILTER_HELP, Expression, letter_of
from console.commands.dlq import app as dlq_app
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from console.causes import Group
    from console.filters import Filter
    from console.operations.ledger import Note
    from console.report_parts import Parts
    from patterns import DeadLetter, Fleet

By = Literal["cause", "agent", "subject", "type"]

TABLE_LIMIT = 50
"""Groups a table shows unless asked for more; JSON has all of them."""
SEQS = 1000
"""Sequences that the JSON of a group has at the most, the newest."""

LONGEST_SEQ = 20
"""Digits of the largest sequence there can be."""

CAUSES_EPILOG = (
    FILTER_HELP
    + """
\b
Letters that died in one place of one error are one group, whatever numbers, ids
and addresses stand in the error. Its id selects it everywhere: cause:3fa9c1d2,
or its first four digits and more.

\b
Examples:
  agent-console dlq causes
  agent-console dlq causes --by agent --filter 'age:<1d' --json
  agent-console dlq replay --filter 'cause:3fa9c1d2' --dry-run
"""
)
NOTE_EPILOG = """\b
Notes stay on this machine, beside its jobs, and belong to the DLQ stream of one
server; the screen and `dlq show` tell them. Nothing changes on the server: no
--yes is needed, and a read-only session may write them. Each is audited.

\b
Examples:
  agent-console dlq note 1042
  agent-console dlq note 1042 'sent twice by the billing job, do not replay'
  agent-console dlq note --cause 3fa9c1d2 'fixed in 1.4.2, replay after Monday'
  agent-console dlq note --cause 3fa9c1d2 --delete
"""


def register() -> None:
    """Importing this module has added its commands to `dlq`."""


@dlq_app.command("causes", epilog=CAUSES_EPILOG)
def list_causes(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What the letters of a group have in common.")] = "cause",
    expression: Expression = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help=f"So many groups at most (in a table {TABLE_LIMIT} without it)."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Group dead letters by what they died of, the largest group first."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _causes(options, by, expression, limit, as_json=json))


@dlq_app.command("note", epilog=NOTE_EPILOG)
def note(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SEQ] [TEXT]", help="A sequence (not with --cause), and what to note."),
    ] = None,
    cause: Annotated[
        str | None, typer.Option("--cause", metavar="ID", help="A group instead of a letter, from dlq causes.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the note.")] = False,
    json: Json = False,
) -> int:
    """Show what was noted about a letter or a cause, or note something."""
    options: GlobalOptions = context.obj
    seq, text = _read_words(words or [], cause, delete=delete)
    return running.run(lambda _: _note(options, seq, cause, text, as_json=json))


def _read_words(words: list[str], cause: str | None, *, delete: bool) -> tuple[int | None, str | None]:
    """The sequence, None for a cause; and the text, None to look, empty to remove."""
    from console._filter_fields import CAUSE_DIGITS, CAUSE_LEAST

    seq: int | None = None
    rest = list(words)
    if cause is None:
        number = rest.pop(0) if rest else ""
        if not (number.isascii() and number.isdecimal() and len(number) <= LONGEST_SEQ and int(number)):
            raise UsageError(f"dlq note: say which: a SEQ or --cause ID{f', not {number!r}' if number else ''}")
        seq = int(number)
    elif not CAUSE_LEAST <= len(cause) <= CAUSE_DIGITS or any(each not in "0123456789abcdef" for each in cause.lower()):
        raise UsageError(f"--cause {cause!r}: expected {CAUSE_LEAST} to {CAUSE_DIGITS} hex digits, from dlq causes")
    if len(rest) > 1:
        raise UsageError("dlq note: one text, in quotes")
    if rest and delete:
        raise UsageError("dlq note: a TEXT or --delete (one of them)")
    if rest and not rest[0].strip():
        raise UsageError("an empty note would remove the one there is: say --delete if you mean it")
    return seq, rest[0] if rest else "" if delete else None


async def _causes(options: GlobalOptions, by: By, expression: str | None, limit: int | None, *, as_json: bool) -> int:
    from console import report_letters as report
    from console.causes import group_letters
    from console.commands import opening
    from console.operations.selection import choose

    # An empty filter is a slip in a script here too: a variable that was not set.
    wanted = None if expression is None else choose("dead letters", expression=expression).wanted
    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        groups = group_letters(await _letters(fleet, wanted), by)
        notes = await read_notes(fleet)
    shown = groups[: limit or (None if as_json else TABLE_LIMIT)]
    if as_json:
        out.json([shape(group, notes) for group in shown])
    else:
        out.show(*report.groups(shown, notes, left=len(groups) - len(shown)))
    return running.OK


async def _note(options: GlobalOptions, seq: int | None, cause: str | None, text: str | None, *, as_json: bool) -> int:
    from console import report_letters as report
    from console.commands import audit, opening
    from console.notes import about, about_cause
    from console.operations.noting import letters_identity, write_note

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        keys: tuple[str, ...]
        if seq is not None:
            keys = about(await letter_of(fleet, seq))
        else:
            keys = (about_cause(await _known_cause(fleet, cause or "", any_full=text in (None, ""))),)
        with contextlib.closing(acting.opened_ledger()) as ledger:
            known = await asyncio.to_thread(ledger.notes, await letters_identity(fleet))
            if text == "" and keys[0] not in known:
                raise OperationError("there is no note on it to remove")
            if text is not None:
                written = await audit.opened(fleet, context=place.target.name, mode="cli")
                await write_note(fleet, ledger, keys[0], text, audit=written)
            found = await asyncio.to_thread(ledger.notes, await letters_identity(fleet))
    notes = [found[key] for key in keys if key in found]
    if text == "":
        tell("the note was removed")
    if as_json:
        out.json([_note_shape(each, seq) for each in notes])
    elif notes:
        out.show(report.notes(notes))
    elif text is None:
        tell("nothing is noted about it")
    return running.OK


async def _known_cause(fleet: Fleet, cause: str, *, any_full: bool) -> str:
    """The whole id of a cause of which there are letters; one given whole may also be looked at when they are gone."""
    from console._filter_fields import CAUSE_DIGITS
    from console.causes import cause_id

    wanted = cause.lower()
    if any_full and len(wanted) == CAUSE_DIGITS:
        return wanted
    found = sorted({known for letter in await _letters(fleet, None) if (known := cause_id(letter)).startswith(wanted)})
    if not found:
        raise OperationError(
            f"there are no dead letters of cause {wanted}: `agent-console dlq causes` lists the causes"
        )
    if len(found) > 1:
        raise UsageError(f"--cause {wanted} is the beginning of {len(found)}: {', '.join(found[:5])}")
    return found[0]


async def _letters(fleet: Fleet, wanted: Filter | None) -> list[DeadLetter]:
    from console.commands.dlq import PAGE
    from console.letters import record_of

    found: list[DeadLetter] = []
    after = 0
    while page := await fleet.dead_letters.list(after=after, limit=PAGE):
        found += [letter for letter in page if wanted is None or wanted.matches(record_of(letter))]
        after = page[-1].seq
    return found


# -- notes for those who show letters


async def read_notes(fleet: Fleet) -> dict[str, Note]:
    """What was noted on this machine about the dead letters of a fleet; a ledger that cannot be read is told of once."""
    import nats.errors

    from console.operations.noting import letters_identity
    from patterns import PatternError

    # Looking at letters makes no ledger.
    if not (logs.state_dir() / "jobs.db").exists():
        return {}
    try:
        with contextlib.closing(acting.opened_ledger()) as ledger:
            identity = await letters_identity(fleet)
            return await asyncio.to_thread(ledger.notes, identity) if identity else {}
    except (OperationError, PatternError, nats.errors.Error) as error:
        tell(f"notes cannot be read: {error}")
        return {}


async def notes_on(fleet: Fleet, letter: DeadLetter) -> Parts:
    """What `dlq show` prints of the notes on a letter and on its cause; nothing where there are none."""
    from console import report_letters as report
    from console.notes import about

    found = await read_notes(fleet)
    notes = [found[key] for key in about(letter) if key in found]
    return ["", report.notes(notes)] if notes else []


# -- JSON


def shape(group: Group, notes: dict[str, Note]) -> dict[str, Any]:
    """One group, as `dlq causes --json` has it."""
    from console.commands.shapes import moment
    from console.notes import about_cause

    source, text = group.exact
    noted = notes.get(about_cause(group.cause)) if group.cause else None
    low, high = group.deliveries
    return {
        "cause": group.cause or None,
        "by": group.by,
        "source": source,
        "text": text,
        "count": len(group.letters),
        "first_at": moment(group.first_at),
        "last_at": moment(group.last_at),
        "deliveries": {"min": low, "max": high},
        "replays": {"max": group.replays, "letters": group.replayed},
        "agents": _counted(letter.agent for letter in group.letters),
        "types": _counted(letter.type for letter in group.letters),
        "note": noted.text if noted is not None else None,
        "seqs": [letter.seq for letter in group.letters[:SEQS]],
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _note_shape(found: Note, seq: int | None) -> dict[str, Any]:
    from console.commands.shapes import moment

    kind, _, name = found.about.partition(" ")
    return {
        "about": kind,
        "seq": seq if kind == "letter" else None,
        "cause": name if kind == "cause" else None,
        "text": found.text,
        "author": found.author,
        "at": moment(datetime.fromtimestamp(found.at, UTC)),
    }
