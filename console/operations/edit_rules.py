"""What may be edited of a dead letter, and what stands in the way of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from console.operations.errors import OperationError
from console.text import json_text
from console.text.safe import clean, is_clean
from patterns.headers import escape, unescape
from patterns.letter import PREFIX
from patterns.message import CE_CONTENT_TYPE, JSON_TYPE
from patterns.replaying import is_reserved
from patterns.stored import SENDABLE, StoredMessage

TEXT_LIMIT: Final = 1_000_000
"""Bytes of a body that is edited as text, and characters it may have when it is indented."""

LONGEST_VALUE: Final = 8192
"""Characters of a header value in an edit; the server takes 64 KiB of headers in all."""


class EditError(OperationError):
    """An edit that cannot be made, in one line; where it is about a text, with the place in it.

    Attributes:
        problem: What is wrong, without the place.
        line: Of the text, from 1; 0 if it is about no place.
        column: Character of the line, from 1; 0 for the line as a whole.
    """

    def __init__(self, problem: str, *, line: int = 0, column: int = 0) -> None:
        place = f"line {line}" + (f" column {column}" if column else "") + ": " if line else ""
        super().__init__(place + problem)
        self.problem = problem
        self.line = line
        self.column = column

    def moved(self, lines: int) -> EditError:
        """The same, of a text that so many lines stand before."""
        return EditError(self.problem, line=self.line + lines if self.line else 0, column=self.column)


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit makes of one letter."""

    body: bytes | None
    """The new body; None if it stays."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers to set, as they go over the wire, and those to remove, as None."""


def free_headers(stored: StoredMessage) -> dict[str, str]:
    """The headers that may be edited, as their receiver reads them."""
    found = {}
    for name, value in stored.headers.items():
        shown = read_value(stored, value)
        if (
            not is_reserved(name)
            and not name.startswith("#")
            and SENDABLE.fullmatch(name)
            and value_problem(shown) is None
        ):
            found[name] = shown
    return found


def locked_headers(stored: StoredMessage) -> dict[str, str]:
    """The headers that may not be edited, safe to show: those of the server, the envelope and the story of the death.

    So is one that cannot be shown as it is: nobody could tell what an edit would keep of it.
    """
    free = free_headers(stored)
    return {clean(name, limit=128): clean(value) for name, value in stored.headers.items() if name not in free}


def require_free(name: str) -> str:
    """The name of a header that an edit may set or drop.

    Raises:
        EditError: It is locked, or cannot be sent.
    """
    if is_reserved(name):
        raise EditError(f"header {clean(name, limit=80)} is locked: the server or the library sets it")
    if not SENDABLE.fullmatch(name) or len(name) > 128:
        raise EditError(f"{clean(name, limit=80)!r} is no name of a header: letters, digits and -_.!#$&'*+^`|~")
    if name.startswith("#"):
        raise EditError(f"header {clean(name, limit=80)} cannot be edited: a line that starts with # is a comment")
    return name


def require_value(value: str) -> str:
    """A header value as it may be typed.

    Raises:
        EditError: It is no single line that can be shown.
    """
    if problem := value_problem(value):
        raise EditError(problem)
    return value


def value_problem(value: str) -> str | None:
    """Why a text cannot be edited as a header value, or None."""
    if len(value) > LONGEST_VALUE:
        return f"a value of {len(value):,} characters is longer than {LONGEST_VALUE:,}"
    if value != value.strip():
        return "a value cannot begin or end with white space"
    if not is_clean(value):
        return "a value must be one line without control, zero-width or direction characters"
    return None


def read_value(stored: StoredMessage, value: str) -> str:
    """A header value as its receiver reads it: CloudEvents are percent-encoded, other messages are as they are."""
    return unescape(value) if "ce-specversion" in stored.headers else value


def wire_value(stored: StoredMessage, value: str) -> str:
    """The reverse of `read_value`."""
    return escape(value) if "ce-specversion" in stored.headers else value


def is_cut(stored: StoredMessage) -> bool:
    """Whether the letter holds only a part of its body."""
    return f"{PREFIX}Truncated" in stored.headers


def must_be_json(stored: StoredMessage) -> bool:
    """Whether its receiver reads the body as JSON: it says so, or says nothing and it was JSON."""
    declared = stored.headers.get(CE_CONTENT_TYPE) or stored.headers.get("Content-Type")
    if not declared:
        return body_is_json(stored.body)
    media = unescape(declared).split(";", maxsplit=1)[0].strip().lower()
    return media == JSON_TYPE or media.endswith("+json")


def body_is_json(body: bytes) -> bool:
    """Whether a body is JSON in UTF-8."""
    text = body_text(body)
    return text is not None and json_text.is_json(text)


def body_text(body: bytes) -> str | None:
    """A body as text; None if it is not UTF-8."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def require_readable(stored: StoredMessage, body: bytes) -> None:
    """Do nothing if the receiver can read a new body.

    Raises:
        EditError: The message is JSON and this is none.
    """
    if not must_be_json(stored):
        return
    if not body:
        raise EditError("the body is empty, and the message is JSON: empty JSON is null")
    text = body_text(body)
    if text is None:
        raise EditError("the body is not UTF-8, and the message is JSON")
    require_json(text)


def require_json(text: str) -> None:
    """Do nothing if this is JSON.

    Raises:
        EditError: It is none, with the place.
    """
    try:
        json_text.check(text)
    except json_text.NotJson as error:
        raise EditError(f"no JSON: {error.problem}", line=error.line, column=error.column) from None
