"""Edits of dead letters: a new body, changes at paths of it, other headers; the same for one letter or for a selection."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import humanize

from console.operations.edit_diff import diff
from console.operations.edit_rules import (
    Edited,
    EditError,
    body_text,
    free_headers,
    is_cut,
    locked_headers,
    require_free,
    require_json,
    require_readable,
    require_value,
    wire_value,
)
from console.text import json_path, json_text
from console.text.safe import clean
from patterns.replaying import RESERVED
from patterns.stored import StoredMessage

__all__ = [
    "RESERVED",
    "Change",
    "Edit",
    "EditError",
    "Edited",
    "Remove",
    "Set",
    "diff",
    "free_headers",
    "locked_headers",
    "parse_edit",
    "parse_header",
    "parse_set",
]

AT_ONCE: Final = 4096
"""Bytes of a body that is edited without a thread: some 3 ms a change."""
MOST_CHANGES: Final = 100
"""Changes of one edit: each reads the whole body."""


@dataclass(frozen=True, slots=True)
class Set:
    """Put a value where a path points."""

    path: str
    value: str
    """JSON, as it was written."""

    def __str__(self) -> str:
        return f"set {clean(self.path, limit=80)}"

    def apply(self, text: str) -> str:
        """The body with the value in it."""
        return json_path.replace(text, self.path, self.value)


@dataclass(frozen=True, slots=True)
class Remove:
    """Take away what a path selects."""

    path: str

    def __str__(self) -> str:
        return f"remove {clean(self.path, limit=80)}"

    def apply(self, text: str) -> str:
        """The body without it."""
        return json_path.remove(text, self.path)


Change = Set | Remove


@dataclass(frozen=True, slots=True)
class Edit:
    """What is changed before a letter is sent back; it keeps its `ce-id` in any case."""

    body: bytes | None = None
    """A whole new body; the changes are then made in it."""
    changes: tuple[Change, ...] = ()
    """Made one after the other, each in what the one before has left."""
    headers: tuple[tuple[str, str | None], ...] = ()
    """Headers to set, as their receiver reads them, or with None to drop."""

    def __bool__(self) -> bool:
        return self.body is not None or bool(self.changes or self.headers)

    def apply(self, stored: StoredMessage) -> Edited:
        """What this makes of one letter.

        Raises:
            EditError: It cannot be made of this one, or would leave it as it is.
        """
        if is_cut(stored) and self.body is None:
            raise EditError("it holds only a part of its body: it needs a whole new one")
        headers = self._headers(stored)
        body = stored.body if self.body is None else self.body
        if self.changes:
            body = _changed(body, self.changes)
        same = body == stored.body
        if same and not headers and not is_cut(stored):
            raise EditError("nothing was changed")
        if not same or is_cut(stored):
            require_readable(stored, body)
            return Edited(body, headers)
        return Edited(None, headers)

    async def applied(self, stored: StoredMessage) -> Edited:
        """The same for an event loop: a large body is worked on in a thread.

        Raises:
            EditError: As `apply`.
        """
        if len(stored.body) <= AT_ONCE:
            return self.apply(stored)
        return await asyncio.to_thread(self.apply, stored)

    def _headers(self, stored: StoredMessage) -> dict[str, str | None]:
        free, changed = free_headers(stored), dict[str, str | None]()
        for name, value in self.headers:
            require_free(name)
            if name in stored.headers and name not in free:
                raise EditError(f"header {name} is locked: its value cannot be shown as it is")
            if name not in free and (other := _spelled(name, stored.headers)):
                raise EditError(f"there is no header {name}, but {clean(other, limit=80)}: case matters")
            if value is None:
                if name not in free:
                    raise EditError(f"there is no header {name}")
                changed[name] = None
            elif free.get(name) != require_value(value):
                changed[name] = wire_value(stored, value)
        return changed

    def describe(self) -> str:
        """In one line: `set $.spec, remove $.debug, header X-Tenant`."""
        parts = [] if self.body is None else [f"new body of {humanize.naturalsize(len(self.body))}"]
        parts += [str(change) for change in self.changes]
        parts += [f"{'drop' if value is None else 'header'} {clean(name, limit=80)}" for name, value in self.headers]
        return ", ".join(parts)

    def spec(self) -> dict[str, Any]:
        """As JSON can carry it, for the ledger of jobs."""
        return {
            "body": None if self.body is None else base64.b64encode(self.body).decode(),
            "changes": [
                {"set": change.path, "value": change.value} if isinstance(change, Set) else {"remove": change.path}
                for change in self.changes
            ],
            "headers": [[name, value] for name, value in self.headers],
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """The reverse of `spec`.

        Raises:
            EditError: It is none of ours.
        """
        try:
            body = spec["body"]
            return cls(
                body=None if body is None else base64.b64decode(body, validate=True),
                changes=tuple(
                    Set(str(each["set"]), str(each["value"])) if "set" in each else Remove(str(each["remove"]))
                    for each in spec["changes"]
                ),
                headers=tuple((str(name), None if value is None else str(value)) for name, value in spec["headers"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise EditError(f"the edit cannot be read: {clean(repr(error), limit=200)}") from None


def parse_edit(text: str) -> Edit:
    """Read an edit for many letters, one change a line.

    `set PATH = JSON`, `remove PATH`, `header NAME: value` and `drop NAME`; empty lines and those that begin with `#` count
    for nothing.

    Raises:
        EditError: A line is none of them, with its number.
    """
    changes: list[Change] = []
    headers: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        verb, _, rest = line.strip().partition(" ")
        if not verb or verb.startswith("#"):
            continue
        try:
            match verb:
                case "set":
                    changes.append(parse_set(rest))
                case "remove":
                    changes.append(parse_remove(rest))
                case "header":
                    name, value = parse_header(rest, ":")
                    _once(headers, name)[name] = value
                case "drop":
                    name = require_free(rest.strip())
                    _once(headers, name)[name] = None
                case _:
                    raise EditError(f"{clean(verb, limit=40)!r} is none of set, remove, header and drop")  # noqa: TRY301
        except EditError as error:
            raise EditError(error.problem, line=number) from None
        if len(changes) > MOST_CHANGES:
            raise EditError(f"more than {MOST_CHANGES} changes", line=number)
    edit = Edit(changes=tuple(changes), headers=tuple(headers.items()))
    if not edit:
        raise EditError("no change is given")
    return edit


def parse_set(text: str) -> Set:
    """Read `PATH=JSON`; the path may hold `=` itself.

    Raises:
        EditError: The path is none, or the value is no JSON.
    """
    first: EditError | None = None
    for at, character in enumerate(text):
        if character != "=":
            continue
        path, value = text[:at].strip(), text[at + 1 :].strip()
        try:
            return Set(_path(path), _value(path, value))
        except EditError as error:
            # Of several `=` the first that a path stands before tells most.
            if first is None or (_is_path(path) and not _is_path(text[: text.index("=")].strip())):
                first = error
    raise first or EditError(f"{clean(text.strip(), limit=80)!r}: expected PATH=JSON")


def parse_remove(text: str) -> Remove:
    """Read a path.

    Raises:
        EditError: It is none.
    """
    return Remove(_path(text))


def parse_header(text: str, separator: str) -> tuple[str, str]:
    """Read `NAME: value` or `NAME=value`.

    Raises:
        EditError: It is neither, the header is locked, or the value cannot be one.
    """
    name, found, value = text.partition(separator)
    if not found:
        raise EditError(f"{clean(text.strip(), limit=80)!r}: expected NAME{separator}value")
    return require_free(name.strip()), require_value(value.strip())


def _changed(body: bytes, changes: tuple[Change, ...]) -> bytes:
    text = body_text(body)
    if text is None:
        raise EditError("its body is not UTF-8: a path selects nothing in it")
    if not text:
        raise EditError("its body is empty: a path selects nothing in it")
    for change in changes:
        try:
            text = change.apply(text)
        except json_text.NotJson as error:
            raise EditError(f"its body is no JSON: {error}") from None
        except json_path.PathError as error:
            raise EditError(str(error)) from None
    return text.encode()


def _spelled(name: str, headers: Mapping[str, str]) -> str | None:
    """Another spelling of a header that is there: NATS tells them apart, people do not."""
    return next((each for each in headers if each != name and each.lower() == name.lower()), None)


def _once(headers: dict[str, str | None], name: str) -> dict[str, str | None]:
    if name in headers:
        raise EditError(f"header {name} is named twice")
    return headers


def _path(text: str) -> str:
    try:
        return json_path.normal(text)
    except json_path.PathError as error:
        raise EditError(str(error)) from None


def _is_path(text: str) -> bool:
    try:
        json_path.normal(text)
    except json_path.PathError:
        return False
    return True


def _value(path: str, text: str) -> str:
    try:
        require_json(text)
        text.encode()
    except EditError as error:
        quoted = (
            ""
            if '"' in text or not text
            else f"; text is quoted: '{clean(path, limit=40)}=\"{clean(text, limit=40)}\"'"
        )
        raise EditError(f"the value for {clean(path, limit=80)} is {error.problem}{quoted}") from None
    except UnicodeEncodeError:
        raise EditError(f"the value for {clean(path, limit=80)} is not Unicode") from None
    return text
