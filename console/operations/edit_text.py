"""A dead letter as a text that a person edits, in the console or in an editor of their own, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from console.operations.edit_rules import (
    TEXT_LIMIT,
    EditError,
    body_text,
    free_headers,
    is_cut,
    locked_headers,
    must_be_json,
    require_free,
    require_json,
    require_value,
)
from console.operations.edits import Edit
from console.text import json_text
from console.text.safe import is_clean
from patterns.message import CE_CONTENT_TYPE
from patterns.stored import StoredMessage

_HINT = (
    "# What begins with # is locked and not read. Headers that may be changed follow, then",
    "# an empty line, then the body. To leave the letter as it is, change nothing.",
)


class BodyError(EditError):
    """What is wrong with an edited body; the place is counted from its first line."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One letter, laid out to be edited."""

    stored: StoredMessage
    headers: str
    """The headers that may be edited, one a line."""
    body: str
    """Indented JSON, or what the body says."""
    is_json: bool
    """Whether the body is edited as JSON: it is JSON, and does not say that it is something else."""

    @classmethod
    def of(cls, stored: StoredMessage, *, limit: int = TEXT_LIMIT) -> Self:
        """Lay a letter out.

        Args:
            stored: The letter.
            limit: Bytes of a body, and characters of it indented, that are not too many.

        Raises:
            EditError: Its body cannot be edited as text; says what can be done instead.
        """
        headers = "\n".join(f"{name}: {value}" for name, value in free_headers(stored).items())
        way_out = f"`agent-console dlq edit {stored.seq} --body FILE` replaces it as a whole"
        if is_cut(stored):
            raise EditError(f"only a part of its body was kept: {way_out}")
        if len(stored.body) > limit:
            raise EditError(f"its body of {len(stored.body):,} bytes is too long to edit here: {way_out}")
        text = body_text(stored.body)
        if text is None:
            raise EditError(f"its body is no text in UTF-8: {way_out}")
        declared = CE_CONTENT_TYPE in stored.headers or "Content-Type" in stored.headers
        if (must_be_json(stored) or not declared) and json_text.is_json(text):
            try:
                return cls(stored, headers, json_text.pretty(text, limit=limit), is_json=True)
            except json_text.NotJson as error:
                raise EditError(f"its body cannot be edited here, {error.problem}: {way_out}") from None
        if unsafe_place(text):
            raise EditError(f"its body holds characters that are not safe to show: {way_out}")
        return cls(stored, headers, text, is_json=False)

    def text(self, headers: str, body: str) -> str:
        """One text of it all: locked headers as comments, the others, an empty line, the body."""
        locked = (f"# {name}: {value}" for name, value in locked_headers(self.stored).items())
        # The last newline is the file's: an editor adds one where there is none.
        return "\n".join((*_HINT, *locked, *([headers] if headers else []), "", body, ""))

    def split(self, text: str) -> tuple[str, str, int]:
        """The headers of such a text, its body, and how many lines stand before that.

        Raises:
            EditError: There is no empty line between them.
        """
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        if "" not in lines and self.body:
            raise EditError("there is no empty line between headers and body")
        ends = lines.index("") if "" in lines else len(lines)
        return "\n".join(lines[:ends]), "\n".join(lines[ends + 1 :]), ends + 1

    def read(self, headers: str, body: str) -> Edit:
        """What was changed in the headers and in the body.

        Raises:
            BodyError: The body cannot be sent so.
            EditError: The headers cannot, or nothing was changed.
        """
        edit = Edit(self.read_body(body), (), self.read_headers(headers))
        if not edit:
            raise EditError("nothing was changed")
        edit.apply(self.stored)
        return edit

    def read_headers(self, text: str) -> tuple[tuple[str, str | None], ...]:
        """The headers that differ from those of the letter; those whose line is gone as None.

        Raises:
            EditError: A line is no header, or a locked one.
        """
        found: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, value = line.partition(":")
            try:
                if not colon:
                    raise EditError("expected NAME: value")  # noqa: TRY301
                if require_free(name.strip()) in found:
                    raise EditError(f"header {name.strip()} is named twice")  # noqa: TRY301
                found[name.strip()] = require_value(value.strip())
            except EditError as error:
                raise EditError(error.problem, line=number) from None
        free = free_headers(self.stored)
        changed = [(name, value) for name, value in found.items() if free.get(name) != value]
        return (*changed, *((name, None) for name in free if name not in found))

    def check_body(self, text: str) -> None:
        """Do nothing if a body can be sent as it stands there.

        Raises:
            BodyError: It is not safe to show, or no JSON although it should be, with the place.
        """
        if place := unsafe_place(text):
            line, column, character = place
            raise BodyError(unsafe_problem(character), line=line, column=column)
        if not self.is_json and not must_be_json(self.stored):
            return
        if not text.strip():
            raise BodyError("the body is empty, and the message is JSON: empty JSON is null", line=1)
        try:
            require_json(text)
        except EditError as error:
            raise BodyError(error.problem, line=error.line, column=error.column) from None

    def read_body(self, text: str) -> bytes | None:
        """The edited body as it is sent; None if it stays. JSON is written as it was: in one line, or indented by as much.

        Raises:
            BodyError: As `check_body`.
        """
        if text == self.body:
            return None
        self.check_body(text)
        if self.is_json:
            if json_text.compact(text) == json_text.compact(self.body):
                return None
            old = self.stored.body.decode()
            text = json_text.Style.of(old).write(text) + old[len(old.rstrip()) :]
        return text.encode()


def as_text(stored: StoredMessage) -> str:
    """The letter as one text; see `Sheet`.

    Raises:
        EditError: Its body cannot be edited as text, and what can be done instead.
    """
    sheet = Sheet.of(stored)
    return sheet.text(sheet.headers, sheet.body)


def from_text(stored: StoredMessage, text: str) -> Edit:
    """What was changed in the text of `as_text`.

    Raises:
        EditError: Nothing was changed; or it cannot be sent so, with the place.
    """
    sheet = Sheet.of(stored)
    headers, body, before = sheet.split(text)
    try:
        return sheet.read(headers, body)
    except BodyError as error:
        raise error.moved(before) from None


def unsafe_place(text: str) -> tuple[int, int, str] | None:
    """Line, column and character of the first that is not safe to show, or None; newlines and tabs are."""
    if is_clean(text.replace("\t", " "), multiline=True):
        return None
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.replace("\t", " ")
        if is_clean(plain, multiline=True):
            continue
        # The shortest beginning that is not clean ends with the culprit.
        low, high = 1, len(plain)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if is_clean(plain[:middle], multiline=True) else (low, middle)
        return number, low, line[low - 1]
    return None


def unsafe_problem(character: str) -> str:
    """What to say of such a character."""
    return f"character U+{ord(character):04X} is not safe to show; in JSON write its escape"
