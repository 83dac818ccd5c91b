"""What the headless commands show of the deaths of a letter; every value through `text.safe`."""

from __future__ import annotations

from datetime import datetime

from console.letters import Gap, chain
from console.report_parts import Parts, line, number, table
from console.text import units
from patterns import DeadLetter
from patterns.headers import format_time


def lineage(letter: DeadLetter) -> Parts:
    """All deaths of a letter, oldest first, the present one last, and how it came back from each."""
    again = f"replayed {units.count(letter.replays)}×" if letter.replays else "never replayed"
    parts: Parts = [line(f"dead letter {letter.seq}   {letter.source}   {letter.id}   {again}", "bold")]
    if letter.replays:
        first = letter.first_entry or "not on record"
        parts.append(line(f"first failure {first}", "dim"))
    shown = table(">#", "DIED", "WHERE", ">SEQ", "REASON", ">TRIES", "AGENT", "ERROR", "CAME BACK", "BY", "JOB", "")
    for link in chain(letter):
        if isinstance(link, Gap):
            numbers = f"{link.first}" if link.first == link.last else f"{link.first}–{link.last}"
            empty = [line("")] * 5
            shown.add_row(
                line(numbers, "dim"), line(""), *empty, line(link.text, "dim"), line(""),
                line(link.replayed_by, "dim"), line(link.job, "dim"),
            )  # fmt: skip
            continue
        present = link.n == letter.replays + 1
        shown.add_row(
            line(link.n),
            line(_time(link.at)),
            line(link.source),
            line(link.seq or units.NOTHING),
            line(link.reason or units.NOTHING),
            number(link.deliveries),
            line(link.agent or units.NOTHING),
            line(link.error_text or units.NOTHING, limit=200),
            line("still dead", "red") if present else line(_time(link.replayed_at)),
            line(link.replayed_by),
            line(link.job),
            line("edited" if link.edited else "", "cyan"),
        )
    return [*parts, "", shown]


def _time(moment: datetime | None) -> str:
    return f"{format_time(moment)[:19]}Z" if moment is not None else units.NOTHING
