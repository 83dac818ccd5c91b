"""How dead letters look as rows: groups with their letters below them, or all letters one by one. Pure, as `rows` is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Final

from console.causes import TITLE, Group, Grouping, group_letters
from console.filters import Filter, FilterError, parse
from console.letters import record_of
from console.notes import about_cause, about_letter
from console.operations.ledger import Note
from console.text import units
from console.text.safe import clean
from console.widgets.row_model import Cell, Column, Row
from patterns import DeadLetter

NOTED: Final = "✎"
"""There is a note on it."""
AGAIN: Final = "↻"
"""It was replayed, and died again."""

# None is sortable: a group and its letters have nothing to be compared by, and would not stay together.
LETTER_COLUMNS: Final = (
    Column("seq", "SEQ", 6, min_width=4, align="right", priority=100, sortable=False),
    Column("type", "TYPE", 16, min_width=12, priority=90, sortable=False),
    Column("id", "ID", 12, min_width=8, flexible=True, max_width=30, priority=80, sortable=False),
    Column("tries", "TRIES", 7, priority=60, sortable=False),
    Column("replays", "REPLAYS", 11, priority=70, sortable=False),
)
GROUP_COLUMNS: Final = (
    Column("source", "SOURCE", 15, min_width=13, priority=100),
    Column("cause", "CAUSE", 22, flexible=True, priority=90),
    Column("count", "COUNT", 5, align="right", priority=99),
    Column("tries", "TRIES", 9, min_width=7, priority=50),
    Column("replays", "REPLAYS", 3, align="right", priority=60),
    Column("seen", "SEEN", 11, align="right", priority=70),
)
NAMED_COLUMNS: Final = (
    # Subjects and types differ at their ends.
    Column("name", "NAME", 26, min_width=20, priority=100),
    Column("cause", "CAUSE", 15, flexible=True, priority=90),
    *GROUP_COLUMNS[2:],
)
FLAT_COLUMNS: Final = (
    Column("seq", "SEQ", 6, min_width=4, align="right", priority=100),
    Column("source", "SOURCE", 15, min_width=13, priority=95),
    Column("error", "ERROR", 24, flexible=True, priority=90),
    Column("id", "ID", 12, min_width=11, priority=70),
    Column("tries", "TRIES", 7, priority=40),
    Column("replays", "REPLAYS", 3, align="right", priority=60),
)
VARIANTS: Final = {"group": GROUP_COLUMNS, "named": NAMED_COLUMNS, "flat": FLAT_COLUMNS}

Notes = Mapping[str, Note]
"""Notes by what they are about."""
Memo = dict[int, tuple[DeadLetter, Row]]
"""Rows by sequence, with the letters they were made of: those change seldom, and there are thousands."""


def letter_rows(
    groups: Iterable[Group],
    closed: Collection[str],
    now: datetime,
    *,
    notes: Notes | None = None,
    marks: Collection[str] = (),
    memo: Memo | None = None,
) -> tuple[Row, ...]:
    """Rows of the dead-letter table: a row a group, and below it its letters unless it is folded.

    Args:
        groups: As `group_letters` gives them; letters that are not grouped have no row above them.
        closed: Keys of the groups that are folded.
        now: What ages count from.
        notes: What was noted.
        marks: Keys of the marked rows: a group tells how many of its letters are.
        memo: Rows of earlier calls for the same notes; what is missing is added.
    """
    known, noted = {} if memo is None else memo, notes or {}
    parts: list[Iterable[Row]] = []
    for group in groups:
        flat = group.by == "none"
        if not flat:
            parts.append((group_row(group, now, folded=group.key in closed, notes=noted, marks=marks),))
        if flat or group.key not in closed:
            parts.append(
                [_known_row(letter, known, noted, _flat_row if flat else _letter_row) for letter in group.letters]
            )
    return tuple(chain.from_iterable(parts))


def group_row(
    group: Group, now: datetime, *, folded: bool, notes: Notes | None = None, marks: Collection[str] = ()
) -> Row:
    """One group on one line, without a title above it: its cells explain themselves."""
    count = len(group.letters)
    marked = sum(str(letter.seq) in marks for letter in group.letters) if marks else 0
    noted = f"{NOTED} " if group.cause and about_cause(group.cause) in (notes or {}) else ""
    number = units.count(count, compact=True)
    return Row(
        key=group.key,
        cells=(
            Cell(group.source, "bright"),
            Cell(noted + group.text),
            Cell(f"{units.count(marked, compact=True)}/{number}" if 0 < marked < count else number, "bad", count),
            Cell(f"tries {spread(group.deliveries)}", "dim", group.deliveries[1]),
            _again(group.replays),
            Cell(seen(group, now), "dim"),
        ),
        glyph="▸" if folded else "▾",
        glyph_style="accent",
        variant="group" if group.by == "cause" else "named",
        markable=False,
    )


def seen(group: Group, now: datetime) -> str:
    """When the first and the last of a group died: `2h…3m ago`, `3m ago` if that says both."""
    first, last = units.ago(group.first_at, now), units.ago(group.last_at, now)
    return last if first == last else f"{first.removesuffix(' ago')}…{last}"


def spread(numbers: tuple[int, int]) -> str:
    """`3`, or `1…5`."""
    low, high = numbers
    return str(low) if low == high else f"{low}…{high}"


def _known_row(letter: DeadLetter, memo: Memo, notes: Notes, make: Callable[[DeadLetter, str], Row]) -> Row:
    found = memo.get(letter.seq)
    if found is None or found[0] is not letter:
        sign = f"{NOTED} " if notes and about_letter(letter) in notes else ""
        found = memo[letter.seq] = (letter, make(letter, sign))
    return found[1]


def _letter_row(letter: DeadLetter, sign: str) -> Row:
    return Row(
        key=(key := str(letter.seq)),
        cells=(
            Cell(key, "dim", letter.seq),
            _name(sign, letter.type),
            Cell(clean(letter.id)),
            _tries(letter.deliveries),
            _replays(letter.replays),
        ),
        indent=1,
    )


def _flat_row(letter: DeadLetter, sign: str) -> Row:
    return Row(
        key=(key := str(letter.seq)),
        cells=(
            Cell(key, "dim", letter.seq),
            Cell(clean(letter.source), "bright"),
            Cell(sign + clean(letter.error_text or letter.reason, limit=TITLE)),
            Cell(clean(letter.id), "dim"),
            _tries(letter.deliveries),
            _again(letter.replays),
        ),
        variant="flat",
    )


# Cells that thousands of rows have in common: made once, the first paint of 15,000 letters takes half as long.


@lru_cache(maxsize=256)
def _name(sign: str, name: str) -> Cell:
    return Cell(sign + clean(name))


@lru_cache(maxsize=256)
def _tries(number: int) -> Cell:
    return Cell(f"tries {number}", "dim", number)


@lru_cache(maxsize=256)
def _replays(number: int) -> Cell:
    return Cell(f"replays {number} {AGAIN}", "warn", number) if number else Cell("replays 0", "dim", 0)


@lru_cache(maxsize=256)
def _again(number: int) -> Cell:
    return Cell(f"{AGAIN}{number}" if number else "", "warn", number)


class LetterBook:
    """The letters of a screen: filtered, grouped and made into rows, each step again only where its input has changed."""

    def __init__(self) -> None:
        self._letters: tuple[DeadLetter, ...] = ()
        self._shown: tuple[DeadLetter, ...] = ()
        self._filtered: tuple[tuple[DeadLetter, ...], str] | None = None
        self._verdicts: dict[int, tuple[DeadLetter, bool]] = {}
        self._grouped: tuple[tuple[DeadLetter, ...], Grouping] | None = None
        self._noted: Notes | None = None
        self._rows: dict[bool, Memo] = {}
        self.groups: tuple[Group, ...] = ()
        """The largest first."""
        self.by_key: dict[str, Group] = {}
        self.by_seq: dict[str, DeadLetter] = {}
        """The letters that are shown, by the keys of their rows."""

    def update(self, letters: Sequence[DeadLetter], expression: str, by: Grouping) -> bool:
        """Take the letters as they are now; whether what is shown has changed.

        Args:
            letters: All that are held, in the order of their sequences.
            expression: The filter; one that cannot be read lets everything through.
            by: The grouping.
        """
        # Tuples compare their elements by identity first: 15,000 in 0.1 ms.
        if (held := tuple(letters)) != self._letters:
            self._letters = held
        shown = self._matching(expression)
        if shown != self._shown:
            self._shown = shown
        mark = (self._shown, by)
        if self._grouped is not None and self._grouped[0] is mark[0] and self._grouped[1] == by:
            return False
        self._grouped = mark
        self.groups = group_letters(self._shown, by)
        self.by_key = {} if by == "none" else {group.key: group for group in self.groups}
        self.by_seq = {str(letter.seq): letter for letter in self._shown}
        return True

    @property
    def all(self) -> tuple[DeadLetter, ...]:
        """What is held, filtered or not."""
        return self._letters

    def rows(self, closed: Collection[str], now: datetime, notes: Notes, marks: Collection[str]) -> tuple[Row, ...]:
        """The rows of the table."""
        flat = self._grouped is not None and self._grouped[1] == "none"
        if self._noted is not notes:
            self._noted, self._rows = notes, {True: {}, False: {}}
        if len(self._rows[flat]) > 2 * len(self._letters) + 1000:
            # Most are of letters that are gone.
            self._rows[flat] = {}
        return letter_rows(self.groups, closed, now, notes=notes, marks=marks, memo=self._rows[flat])

    def group_of(self, key: str | None) -> Group | None:
        """The group that a row names or stands in; None where letters are not grouped."""
        if key is None or key in self.by_key:
            return self.by_key.get(key or "")
        letter = self.by_seq.get(key)
        # By identity: comparing two letters compares their bodies.
        return next(
            (group for group in self.by_key.values() if any(letter is member for member in group.letters)), None
        )

    def _matching(self, expression: str) -> tuple[DeadLetter, ...]:
        if self._filtered is not None and self._filtered[0] is self._letters and self._filtered[1] == expression:
            return self._shown
        try:
            wanted = parse(expression) if expression else None
        except FilterError:
            wanted = None
        if wanted is None:
            self._filtered, self._verdicts = (self._letters, expression), {}
            return self._letters
        if "age" in expression.lower():
            # Counted from now: what matched a moment ago may not any more.
            self._filtered, self._verdicts = None, {}
            return tuple(letter for letter in self._letters if wanted.matches(record_of(letter)))
        if self._filtered is None or self._filtered[1] != expression:
            self._verdicts = {}
        self._filtered = (self._letters, expression)
        before, self._verdicts = self._verdicts, {}
        for letter in self._letters:
            known = before.get(letter.seq)
            self._verdicts[letter.seq] = known if known is not None and known[0] is letter else _judged(wanted, letter)
        return tuple(letter for letter, matches in self._verdicts.values() if matches)


def _judged(wanted: Filter, letter: DeadLetter) -> tuple[DeadLetter, bool]:
    return letter, wanted.matches(record_of(letter))
