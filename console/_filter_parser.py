"""The text side of the filter language: words, quotes, and quantities such as `10m`, `64k` and `2..5`.

Nothing here knows what a message is; `console.filters` gives the fields their meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_DAY = 86_400
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": _DAY, "w": 7 * _DAY}
_SIZE_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

# Digits are bounded (and ASCII): int() refuses more than 4,300 of them with an error of its own, and no count needs 19.
_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw])")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(?:([kmg])(?:i?b)?|b)?")


class FilterError(ValueError):
    """A filter that cannot be understood; its text is one line that says what is expected."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a filter whose characters remember whether they were quoted, so that `"a,b"` is one value."""

    chars: tuple[tuple[str, bool], ...]
    """`(character, quoted)`; an opening quote leaves `("", True)`, which tells `""` from nothing at all."""

    @property
    def text(self) -> str:
        """The characters without their quotes."""
        return "".join(char for char, _ in self.chars)

    @property
    def is_missing(self) -> bool:
        """True if nothing was written, not even `""`."""
        return not self.chars

    def find(self, char: str) -> int:
        """Return the position in `chars` of the first unquoted `char`, or -1."""
        return next((at for at, pair in enumerate(self.chars) if pair == (char, False)), -1)

    def has_quoted(self) -> bool:
        """Tell whether any part was quoted."""
        return any(quoted for _, quoted in self.chars)

    def cut(self, start: int, end: int | None = None) -> Span:
        """Return the part between two positions in `chars`."""
        return Span(self.chars[start:end])

    def split(self, char: str) -> list[Span]:
        """Split at every unquoted `char`; always returns at least one span."""
        parts: list[Span] = []
        start = 0
        for at, pair in enumerate(self.chars):
            if pair == (char, False):
                parts.append(self.cut(start, at))
                start = at + 1
        parts.append(self.cut(start))
        return parts


def tokenize(expression: str) -> list[tuple[Span, str]]:
    r"""Split an expression at unquoted spaces.

    Double quotes keep spaces and take the meaning from `, : ! * >`; inside them `\"` and `\\` are a quote and a
    backslash.

    Returns:
        For each term its span and the text it was written as.

    Raises:
        FilterError: a quote is not closed.
    """
    tokens: list[tuple[Span, str]] = []
    chars: list[tuple[str, bool]] = []
    start, quote_at, at = 0, -1, 0
    while at < len(expression):
        char = expression[at]
        if quote_at >= 0:
            if char == "\\" and expression[at + 1 : at + 2] in ('"', "\\"):
                at += 1
                chars.append((expression[at], True))
            elif char == '"':
                quote_at = -1
            else:
                chars.append((char, True))
        elif char.isspace():
            if chars:
                tokens.append((Span(tuple(chars)), expression[start:at]))
            chars, start = [], at + 1
        elif char == '"':
            quote_at = at
            chars.append(("", True))
        else:
            chars.append((char, False))
        at += 1
    if quote_at >= 0:
        raise FilterError(f'unbalanced quote at character {quote_at + 1}: close it with "')
    if chars:
        tokens.append((Span(tuple(chars)), expression[start:]))
    return tokens


@dataclass(frozen=True, slots=True)
class TextPattern:
    """Literal pieces in a fixed order with anything between them: a glob that cannot backtrack.

    Each piece is searched once from where the last one ended, so the cost is bounded by pattern times text, whatever
    an operator types and a hostile message contains.
    """

    pieces: tuple[str, ...]
    """The literal text between the stars; one piece means there was no star."""
    at_start: bool
    """The first piece must begin the text."""
    at_end: bool
    """The last piece must end the text."""
    fold: bool
    """Ignore case."""

    @classmethod
    def of(cls, span: Span, *, at_start: bool, at_end: bool, fold: bool) -> TextPattern:
        """Build a pattern from a span whose unquoted `*` stand for any run of characters.

        An explicitly empty value (`""`) matches only what is empty, and stars alone only what is not.
        """
        pieces = tuple(part.text.casefold() if fold else part.text for part in span.split("*"))
        whole = pieces == ("",)
        return cls(pieces, at_start or whole, at_end or whole, fold)

    @property
    def is_any(self) -> bool:
        """True if it has no literal character but stars: "there is something"."""
        return len(self.pieces) > 1 and not any(self.pieces)

    def matches(self, text: str) -> bool:
        """Tell whether the text fits."""
        if self.is_any:
            return bool(text)
        if self.fold:
            text = text.casefold()
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1 and self.at_start and self.at_end:
            return text == first
        position, end = 0, len(text)
        middle = self.pieces
        if self.at_start:
            if not text.startswith(first):
                return False
            position, middle = len(first), middle[1:]
        if self.at_end:
            if not text.endswith(last):
                return False
            end, middle = end - len(last), middle[:-1]
        for piece in middle:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return position <= end


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of numbers or times; an end that is None is open to infinity."""

    low: Any = None
    high: Any = None
    low_open: bool = False
    """True if `low` itself is outside."""
    high_open: bool = False
    """True if `high` itself is outside."""

    def __contains__(self, value: Any) -> bool:
        if self.low is not None and (value <= self.low if self.low_open else value < self.low):
            return False
        return not (self.high is not None and (value >= self.high if self.high_open else value > self.high))


def parse_integer(text: str) -> int:
    """Read a count of at most 18 digits.

    Raises:
        ValueError: it is not one.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError("not a whole number")
    return int(text)


def parse_number(text: str) -> int | float:
    """Read a JSON number of at most 18 digits; whole numbers stay exact.

    Raises:
        ValueError: it is not one.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    try:
        return int(text)
    except ValueError:
        return float(text)


def parse_duration(text: str) -> float:
    """Read a duration such as `90s`, `10m`, `1h30m`, `1.5d` or `2w`, in seconds.

    Raises:
        ValueError: it is not one; the text says what is expected.
    """
    position, seconds = 0, 0.0
    lowered = text.strip().lower()
    while match := _DURATION.match(lowered, position):
        seconds += float(match[1]) * _DURATION_UNITS[match[2]]
        position = match.end()
    if not position or position != len(lowered):
        raise ValueError(f"{text!r} is not a duration: expected one like 90s, 10m, 1h30m or 2d")
    return seconds


def parse_size(text: str) -> int:
    """Read a size such as `512`, `64k`, `1.5mb` or `1g`, in bytes; units are powers of 1024.

    Raises:
        ValueError: it is not one; the text says what is expected.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size: expected one like 512, 64k, 1.5mb or 1g")
    return int(float(match[1]) * _SIZE_UNITS[match[2] or "b"])


def parse_interval(text: str, quantity: Callable[[str], Any]) -> Interval:
    """Read `3`, `=3`, `>3`, `>=3`, `<3`, `<=3`, `2..5`, `2..` or `..5` with a reader for the quantity.

    Raises:
        ValueError: it is none of them, or the range runs backwards.
    """
    for sign in (">=", "<=", ">", "<", "="):
        if text.startswith(sign):
            value = quantity(text[len(sign) :].strip())
            if sign == "=":
                return Interval(value, value)
            if sign[0] == ">":
                return Interval(low=value, low_open=sign == ">")
            return Interval(high=value, high_open=sign == "<")
    low, dots, high = text.partition("..")
    if not dots:
        value = quantity(text)
        return Interval(value, value)
    if not low and not high:
        raise ValueError("a range has at least one end")
    interval = Interval(quantity(low) if low else None, quantity(high) if high else None)
    if low and high and interval.low > interval.high:
        raise ValueError("the range runs backwards")
    return interval
