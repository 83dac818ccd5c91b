"""Groups of dead letters and the notes on them, for people: as in `report`, every value through `text.safe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from console.causes import TITLE, Group
from console.notes import about_cause
from console.operations.ledger import Note
from console.report_parts import Parts, line, number, table
from console.text import units
from console.text.safe import clean

NOTED: Final = "✎"


def groups(found: Sequence[Group], notes: Mapping[str, Note], *, left: int = 0, now: datetime | None = None) -> Parts:
    """Groups of dead letters, a line each; below a noted one what was noted.

    Args:
        found: What is shown.
        notes: By what they are about.
        left: How many groups are not shown.
        now: What ages count from; the clock if omitted.
    """
    if not found:
        return [line("no dead letters", "dim")]
    by = found[0].by
    head = {"cause": "FROM", "agent": "AGENT", "subject": "SUBJECT", "type": "TYPE"}[by]
    named = ("CAUSE",) if by == "cause" else ()
    shown = table(">LETTERS", *named, head, ">TRIES", ">REPLAYED", ">FIRST", ">LAST", "ERROR")
    moment = now or datetime.now(UTC)
    for group in found:
        note = notes.get(about_cause(group.cause)) if group.cause else None
        error = line(group.text, limit=TITLE)
        if note is not None:
            error.append(f"\n{NOTED} {clean(note.text, limit=TITLE)}", "cyan")
        low, high = group.deliveries
        shown.add_row(
            number(len(group.letters)),
            *((line(group.cause, "dim"),) if named else ()),
            line(group.source, limit=60),
            line(low if low == high else f"{low}…{high}"),
            number(group.replayed, "yellow"),
            line(units.ago(group.first_at, moment)),
            line(units.ago(group.last_at, moment)),
            error,
        )
    more = f"{left:,} more {'group' if left == 1 else 'groups'}: --limit shows them"
    return [shown, line(more, "dim")] if left else [shown]


def notes(found: Iterable[Note], now: datetime | None = None) -> Table:
    """Notes with what they are about, author and age."""
    shown = Table.grid(padding=(0, 2))
    moment = now or datetime.now(UTC)
    for note in found:
        of = f"cause {note.about.removeprefix('cause ')}" if note.about.startswith("cause ") else "letter"
        told = f"{clean(note.author, limit=64)}, {units.ago(datetime.fromtimestamp(note.at, UTC), moment)}"
        shown.add_row(Text(NOTED, "cyan"), line(of, "dim"), line(note.text), line(told, "dim"))
    return shown
