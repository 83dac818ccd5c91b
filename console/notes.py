"""What a note is about: a letter, or a group of letters with one cause.

Notes stand in the job ledger of this machine, under the stream whose letters they are about: what was noted of a demo is
not shown on production, and a DLQ stream that is made anew begins without notes.
"""

from __future__ import annotations

from console.causes import cause_id
from patterns import DeadLetter

LONGEST = 1000
"""Characters of a note."""


def about_letter(letter: DeadLetter) -> str:
    """The key of a note on one letter: its death, for ever."""
    return f"letter {letter.entry}"


def about_cause(cause: str) -> str:
    """The key of a note on a group, by its `cause_id`."""
    return f"cause {cause}"


def about(letter: DeadLetter) -> tuple[str, str]:
    """The keys under which there may be notes on a letter: its own, and its group's."""
    return about_letter(letter), about_cause(cause_id(letter))
