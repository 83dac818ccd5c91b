"""Which messages: a selection is resolved once and frozen, so that what was seen is what is acted on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from console.filters import Filter, parse
from console.letters import record_of
from console.operations.errors import UsageError
from patterns import DeadLetter, Fleet, UnknownDeadLetter

PAGE = 500
NEWEST = 2**64 - 1
"""The largest sequence there can be; beyond, the server answers with an error instead of "not there"."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Dead letters, frozen."""

    letters: tuple[DeadLetter, ...]
    """In the order of their deaths."""
    missing: tuple[int, ...]
    """Sequences that were asked for and are not there."""
    text: str
    """How they were chosen, in words."""


def read_choice(seqs: Sequence[int], expression: str | None, *, everything: bool) -> Filter | None:
    """Check a choice without a server; the filter, if that is the choice.

    Raises:
        UsageError: None or more than one of the three, or an empty filter.
        FilterError: The filter cannot be read.
    """
    if sum((bool(seqs), expression is not None, everything)) != 1:
        raise UsageError("say which dead letters: SEQ..., --filter EXPR or --all (one of them)")
    if expression is None:
        return None
    if not expression.strip():
        raise UsageError("an empty filter would select everything: say --all if you mean it")
    return parse(expression)


async def select(
    fleet: Fleet, *, seqs: Sequence[int] = (), expression: str | None = None, everything: bool = False
) -> Selection:
    """Resolve a choice of dead letters.

    Args:
        fleet: The connection.
        seqs: Sequences; or
        expression: a filter; or
        everything: all of them.

    Raises:
        UsageError: None or more than one of the three, or an empty filter.
        FilterError: The filter cannot be read.
    """
    wanted = read_choice(seqs, expression, everything=everything)
    if seqs:
        return await _by_sequence(fleet, seqs)
    if wanted is None:
        return Selection(tuple([letter async for letter in _all(fleet)]), (), "all")
    letters = [letter async for letter in _all(fleet) if wanted.matches(record_of(letter))]
    return Selection(tuple(letters), (), wanted.describe())


def freeze(letters: Iterable[DeadLetter], text: str) -> Selection:
    """A selection of letters that are on the screen."""
    return Selection(tuple(sorted(letters, key=lambda letter: letter.seq)), (), text)


async def _by_sequence(fleet: Fleet, seqs: Sequence[int]) -> Selection:
    letters, missing = [], []
    for seq in dict.fromkeys(seqs):
        if not 1 <= seq <= NEWEST:
            missing.append(seq)
            continue
        try:
            letters.append(await fleet.dead_letters.get(seq))
        except UnknownDeadLetter:
            missing.append(seq)
    letters.sort(key=lambda letter: letter.seq)
    return Selection(tuple(letters), tuple(missing), "seq:" + ",".join(str(seq) for seq in seqs))


async def _all(fleet: Fleet) -> AsyncIterator[DeadLetter]:
    after = 0
    while page := await fleet.dead_letters.list(after=after, limit=PAGE):
        for letter in page:
            yield letter
        after = page[-1].seq
