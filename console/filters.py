"""The filter language, one for the terminal UI, the command line and the service layer.

A filter is a list of terms; an item must satisfy all of them:

    timeout  agent:planner-*  !reason:rejected,expired  error:"did not answer"  attempts:>3  age:1h..1d  seq:100..200

- A bare word is looked for in subject, type, name, agent, reason, error, id, correlation and text.
- `field:value` looks in one place; a comma is OR, `!` before a term inverts it, double quotes keep spaces and commas.
- `*` stands for any run of characters; a value of `*` alone means "there is one", `""` means "there is none".
- Names and ids (`agent role subject type correlation body`) are case-sensitive, as in NATS; words that people wrote
  (bare words, `kind reason error hdr`) are not.
- `agent` (who failed, or whose inbox), `role` (whose queue), `type` and `reason` compare the whole value,
  `error` and `hdr.NAME` any part of it, `correlation` its beginning.
- `subject` with `*` or `>` is a NATS pattern, where each stands for whole tokens; without them it is any part of the
  subject, because that is what narrows a list while it is being typed.
- `cause` is the id of a group of dead letters that died alike, or its beginning: four hex digits at least.
- `attempts`, `replays`, `seq`, `size` and `age` take `3`, `>3`, `>=3`, `<3`, `<=3`, `2..5`, `2..` and `..5`;
  `age` needs a comparison or a range, because no message is exactly ten minutes old.
- `body.path.to.key` walks decoded JSON, with numbers for list positions. A value that is a list matches if one of its
  elements does; numbers also take the comparisons.

An age is turned into a time once, when the filter is parsed: the same filter selects the same items later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from console._filter_fields import FIELDS, KINDS, Filterable, Predicate, age_predicate, build_predicate
from console._filter_parser import FilterError, Span, parse_duration, parse_size, tokenize

__all__ = [
    "FIELDS",
    "KINDS",
    "Filter",
    "FilterError",
    "Filterable",
    "Record",
    "Term",
    "parse",
    "parse_duration",
    "parse_size",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A dead letter, a message or an event as filters see it; the fields are those of `Filterable`."""

    seq: int | None = None
    subject: str = ""
    type: str = ""
    kind: str = ""
    name: str = ""
    agent: str = ""
    reason: str = ""
    error: str = ""
    id: str = ""
    correlation_id: str = ""
    attempts: int = 0
    replays: int = 0
    at: datetime | None = None
    size: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    data: Any = field(default=None, hash=False)
    text: str = ""
    dead: bool = False
    """Whether it is a dead letter: only those have a cause."""

    @property
    def cause(self) -> str:
        """The id of what it died of; found out when it is asked for."""
        from console.causes import identify  # noqa: PLC0415 - brings Rich along, which other filters do without

        return identify(f"{self.kind}.{self.name}", self.error, self.reason) if self.dead else ""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a filter: alternatives, of which one must match, or none if inverted."""

    alternatives: tuple[Predicate, ...]
    inverted: bool
    description: str

    def matches(self, item: Filterable) -> bool:
        """Tell whether the item satisfies this term."""
        return any(alternative(item) for alternative in self.alternatives) is not self.inverted


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; see the module for the language. Two are equal if text and time are."""

    text: str
    """As it was written."""
    now: datetime
    """The moment that ages were counted from (aware)."""
    terms: tuple[Term, ...] = field(compare=False, repr=False)

    @property
    def is_empty(self) -> bool:
        """True if it has no term and so matches everything; what destroys refuses such a filter."""
        return not self.terms

    def matches(self, item: Filterable) -> bool:
        """Tell whether the item satisfies every term."""
        return all(term.matches(item) for term in self.terms)

    def describe(self) -> str:
        """Say in one line what it selects, with ages as absolute UTC times; for a plan and for the audit."""
        return " and ".join(term.description for term in self.terms) or "everything"


def parse(expression: str, *, now: datetime | None = None) -> Filter:
    """Parse a filter expression.

    Args:
        expression: the text; empty or blank gives a filter that matches everything and says so in `is_empty`.
        now: the moment that ages count from (timezone-aware); the clock if omitted.

    Raises:
        FilterError: one line that says what is wrong and what is expected.
    """
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    return Filter(expression, moment, tuple(_term(span, source, moment) for span, source in tokenize(expression)))


def _term(span: Span, source: str, now: datetime) -> Term:
    bangs = 0
    while span.cut(bangs, bangs + 1).chars == (("!", False),):
        bangs += 1
    body, written = span.cut(bangs), source[bangs:]
    if body.is_missing:
        raise FilterError("'!' inverts the term after it, without a space: !agent:ceo")
    name, argument, values = _split_field(body)
    for value in values:
        if value.is_missing:
            raise FilterError(f"empty value in {written!r}: expected {FIELDS.get(name, 'a word')}")
        if name and value.find("!") == 0:
            raise FilterError("'!' stands before the field, as in !agent:ceo (or quote the value)")
    if name == "age":
        ages = [age_predicate(value, now) for value in values]
        predicates: tuple[Predicate, ...] = tuple(predicate for predicate, _ in ages)
        written += f" ({' or '.join(words for _, words in ages)})"
    else:
        predicates = tuple(build_predicate(name, value, argument) for value in values)
    inverted = bangs % 2 == 1
    return Term(predicates, inverted, f"not {written}" if inverted else written)


def _split_field(span: Span) -> tuple[str, Span, list[Span]]:
    """Return the key in `FIELDS` (empty for a bare word), what follows its first dot, and the alternatives."""
    colon = span.find(":")
    head = span.cut(0, max(colon, 0))
    stem, _, _ = head.text.partition(".")
    if not stem[:1].isalpha() or head.cut(0, len(stem)).has_quoted():
        return "", Span(()), span.split(",")
    values = span.cut(colon + 1).split(",")
    name, argument = stem.lower(), head.cut(len(stem) + 1)
    if name in ("hdr", "body"):
        name = "hdr.NAME" if name == "hdr" else "body.PATH"
        if not all(part.text for part in argument.split(".")):
            raise FilterError(f"{name.partition('.')[0]} needs a name: expected {FIELDS[name]}")
        return name, argument, values
    if name not in FIELDS or head.text != stem:
        raise FilterError(f'unknown field {head.text!r}; known: {" ".join(FIELDS)} (for plain text quote it: "a:b")')
    return name, argument, values
