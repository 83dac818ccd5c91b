"""What a group of dead letters looks like in words, and the notes on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from console.causes import Group
from console.operations.ledger import Note
from console.screens.letter_rows import NOTED, spread
from console.screens.note_book import signed
from console.screens.rows import sources_text
from console.text import units
from console.text.safe import clean
from console.widgets.details import LABEL, letter_text
from patterns import DeadLetter


def group_text(group: Group, note: Note | None, now: datetime, colours: Mapping[str, str]) -> Text:
    """A group: how many, since when, how often, whose; what was noted; and below, its newest letter.

    Args:
        group: The group.
        note: What was noted of its cause.
        now: For the ages.
        colours: Styles by the names `bright dim bad accent`.
    """
    count = len(group.letters)
    noted = [note] if note is not None else []
    if count == 1:
        # The letter says it all.
        return noted_letter_text(group.newest, noted, now, colours)
    text = Text(no_wrap=False)
    text.append(f"{units.count(count)} dead letters", colours["bright"])
    text.append(f"  {group.source}\n")
    text.append(f"{group.text}\n", colours["bad"])
    text.append_text(notes_text(noted, now, colours))
    times = "once" if group.replays == 1 else f"up to {group.replays} times"
    rows = (
        ("first seen", _moment(group.first_at, now)),
        ("last seen", _moment(group.last_at, now)),
        ("tries", spread(group.deliveries)),
        ("replayed", f"{units.count(group.replayed)} of them, {times}" if group.replayed else "none of them"),
        ("agents", _counted(letter.agent for letter in group.letters)),
        ("types", _counted(letter.type for letter in group.letters)),
    )
    for label, value in rows:
        text.append(f"{label:<{LABEL}}", colours["dim"])
        text.append(value + "\n")
    text.append(f"\nthe newest of them, seq {group.newest.seq}\n", colours["dim"])
    return text.append_text(letter_text(group.newest, now, colours))


def noted_letter_text(letter: DeadLetter, notes: Sequence[Note], now: datetime, colours: Mapping[str, str]) -> Text:
    """A letter below what was noted of it and of its cause."""
    text = notes_text(notes, now, colours)
    if notes:
        text.append("\n")
    return text.append_text(letter_text(letter, now, colours))


def notes_text(notes: Sequence[Note], now: datetime, colours: Mapping[str, str]) -> Text:
    """Notes with author and age, each on a line of its own."""
    text = Text(no_wrap=False)
    for note in notes:
        of = " of the cause" if note.about.startswith("cause ") and len(notes) > 1 else ""
        text.append(f"{NOTED} {clean(note.text)}", colours["accent"])
        text.append(f"  {signed(note, now)}{of}\n", colours["dim"])
    return text


def _moment(at: datetime, now: datetime) -> str:
    local, today = at.astimezone(), now.astimezone().date()
    day = "" if local.date() == today else f"{local.date()} "
    return f"{units.ago(at, now)}, {day}{local:%H:%M:%S}"


def _counted(names: Iterable[str]) -> str:
    counted = Counter(name or units.NOTHING for name in names)
    return sources_text(counted) if len(counted) > 1 else clean(next(iter(counted)))
