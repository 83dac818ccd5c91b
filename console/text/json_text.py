"""JSON as text: indented for people, compact for the wire, and what is written in it stays as it is written.

A decoder and an encoder would lose what is no difference in JavaScript and one to somebody else: `1.10`, `1e400`, the order
of keys, a key that is there twice, an escape. So the text is only cut into its tokens, and what stands between them replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from console.text.safe import escape_json

DEEPEST_INDENT: Final = 32
"""Levels that are indented: a body of nothing but brackets would else become a text of its size squared."""

_LOOKED: Final = 64 * 1024
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_TOKEN: Final = re.compile(_STRING.pattern + r'|[][{},:]|[^][{},:"\s]+')
_INDENTED: Final = re.compile(r"[\[{][ \t\r]*\n([ \t]*)")
_SPACED: Final = re.compile("[,:]( ?)")
_OPENING: Final = frozenset("[{")
_CLOSING: Final = frozenset("]}")


class NotJson(ValueError):
    """A text is no JSON; says where, in one line.

    Attributes:
        problem: What is wrong.
        line: Where, from 1.
        column: Character of the line, from 1.
    """

    def __init__(self, problem: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line} column {column}: {problem}")
        self.problem = problem
        self.line = line
        self.column = column


def check(text: str) -> None:
    """Do nothing if this is JSON.

    Raises:
        NotJson: It is not; `NaN` and `Infinity`, which Python reads, are none either.
    """
    read(text)


def is_json(text: str) -> bool:
    """Whether this is JSON."""
    try:
        read(text)
    except NotJson:
        return False
    return True


def read(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text, for looking at: numbers no Python int can be made of are infinite floats.

    Args:
        text: Anything.
        pairs: Makes an object of its members, instead of a dict in which the last of two equal keys wins.

    Raises:
        NotJson: As `check`; and whatever `pairs` raises.
    """
    decoder = _DECODER if pairs is None else _decoder(pairs)
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at").removesuffix(" starting")
        raise NotJson(problem[:1].lower() + problem[1:], error.lineno, error.colno) from None
    except _Constant as error:
        raise NotJson(f"{error} is not JSON", *_place(text, _first(text, str(error)))) from None
    except RecursionError:
        raise NotJson("nested too deeply") from None


def tokens(text: str) -> Iterator[re.Match[str]]:
    """The tokens of a valid JSON text: brackets, commas, colons, whole strings, and the literals."""
    return _TOKEN.finditer(text)


def pretty(text: str, *, indent: str = "  ", limit: int | None = None) -> str:
    r"""Indent a JSON text, one member a line; what is dangerous on a terminal becomes its escape (``\u001b``).

    Args:
        text: JSON; all its tokens stay as they are written, but for those escapes.
        indent: What one level is indented by, as far as `DEEPEST_INDENT` levels.
        limit: Characters of the result at the most, if that matters.

    Raises:
        NotJson: It is none, or it is longer than `limit` when indented.
    """
    check(text)
    parts: list[str] = []
    length = depth = 0
    opened = False
    for match in tokens(text):
        token = match[0]
        closing, was_opened, opened = token in _CLOSING, opened, token in _OPENING
        depth -= closing
        if token[0] == '"':
            token = escape_json(token)
        if was_opened != closing:
            token = _line(indent, depth) + token
        depth += opened
        if token == ",":
            token += _line(indent, depth)
        elif token == ":":
            token += " "
        parts.append(token)
        length += len(token)
        if limit is not None and length > limit:
            raise NotJson(f"longer than {limit:,} characters when it is indented")
    return "".join(parts)


def compact(text: str) -> str:
    """Strip the white space of a JSON text, and change nothing else.

    Raises:
        NotJson: It is none.
    """
    check(text)
    return "".join(match[0] for match in tokens(text))


@dataclass(frozen=True, slots=True)
class Style:
    """How a JSON text is written."""

    indent: str | None
    """What one level is indented by; None for a text in one line."""
    spaced: bool
    """Whether a space follows commas and colons."""

    @classmethod
    def of(cls, text: str) -> Self:
        """The style of a JSON text, as its beginning tells."""
        start = text[:_LOOKED].lstrip(" \t\r\n")
        indent = _INDENTED.match(start)
        separator = _SPACED.search(_STRING.sub("", start))
        return cls(indent[1] or None if indent else None, separator is not None and bool(separator[1]))

    def write(self, text: str) -> str:
        """A JSON text in this style.

        Raises:
            NotJson: It is none.
        """
        if self.indent is not None:
            return pretty(text, indent=self.indent)
        if not self.spaced:
            return compact(text)
        check(text)
        spaced = {",": ", ", ":": ": "}
        return "".join(spaced.get(match[0], match[0]) for match in tokens(text))


def _line(indent: str, depth: int) -> str:
    return "\n" + indent * min(depth, DEEPEST_INDENT)


class _Constant(Exception):
    """`NaN`, `Infinity` or `-Infinity`."""


def _constant(name: str) -> Any:
    raise _Constant(name)


def _integer(literal: str) -> int | float:
    try:
        return int(literal)
    except ValueError:  # Python converts 4,300 digits at the most.
        return float(literal)


def _decoder(pairs: Callable[[list[tuple[str, Any]]], Any] | None) -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_constant, parse_int=_integer, object_pairs_hook=pairs)


_DECODER: Final = _decoder(None)


def _first(text: str, token: str) -> int:
    return next((match.start() for match in tokens(text) if match[0] == token), 0)


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
