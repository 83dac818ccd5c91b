"""Changes of a JSON text at a path: what the path selects is replaced or cut out, and every other character stays.

Paths are those of RFC 9535. The library finds the places in the decoded value; the change is made in the text, so that numbers,
escapes, the order of keys and the indentation of the rest are the sender's.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from jsonpath import JSONPath, JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.selectors import NameSelector

from console.text import json_text
from console.text.safe import clean, escape_json

LONGEST_PATH: Final = 1024
"""Characters of a path."""

_ENVIRONMENT: Final = JSONPathEnvironment(strict=True)
_Location = tuple[str | int, ...]


class PathError(ValueError):
    """A path that cannot be read, or that does not fit the text; one line."""


def normal(path: str) -> str:
    """The path with the `$` that may be left out.

    Raises:
        PathError: It is none.
    """
    text = path.strip()
    if not text:
        raise PathError("a path is missing")
    if not text.startswith("$"):
        text = f"${text}" if text.startswith(("[", ".")) else f"$.{text}"
    _compiled(text)
    return text


def replace(text: str, path: str, value: str) -> str:
    """Put `value` where the path points: on all that it selects, or as a new member of the object it leads to.

    Args:
        text: JSON.
        path: What is replaced. If it selects nothing, it must name one member of an object that is there.
        value: JSON, put there as it is written, its white space aside.

    Raises:
        PathError: It selects nothing and cannot be added, or a key stands twice in one object of the text.
        NotJson: The text or the value is no JSON.
    """
    document = _Document(text)
    query = _compiled(normal(path))
    found = document.select(query)
    if found:
        changes = [(node.start, node.end, document.formatted(value, node.start)) for node in found]
        return _spliced(text, changes)
    if not query.singular_query() or not query.segments:
        raise PathError(f"{_shown(path)} selects nothing")
    parents = document.select(JSONPath(env=_ENVIRONMENT, segments=query.segments[:-1]))
    last = query.segments[-1].selectors[0]
    if not parents or not isinstance(last, NameSelector) or parents[0].names is None:
        raise PathError(f"{_shown(path)} selects nothing, and there is no object to add it to")
    return _spliced(text, [document.added(parents[0], last.name, value)])


def remove(text: str, path: str) -> str:
    """Cut out all that the path selects.

    Args:
        text: JSON.
        path: What goes.

    Raises:
        PathError: It selects nothing or everything, or a key stands twice in one object of the text.
        NotJson: The text is no JSON.
    """
    document = _Document(text)
    found = document.select(_compiled(normal(path)))
    if not found:
        raise PathError(f"{_shown(path)} selects nothing")
    if any(node.parent is None for node in found):
        raise PathError(f"{_shown(path)} is the whole body, which cannot be removed")
    changes: list[tuple[int, int, str]] = []
    by_parent: dict[int, list[_Node]] = {}
    for node in found:
        by_parent.setdefault(id(node.parent), []).append(node)
    for siblings in by_parent.values():
        changes += _cuts(siblings)
    return _spliced(text, changes)


@dataclass(slots=True, eq=False)
class _Node:
    """A value in the text."""

    start: int
    """Of the value."""
    parent: _Node | None
    begins: int
    """Of the member: its key in an object, the value itself elsewhere."""
    end: int = 0
    children: list[_Node] = field(default_factory=list)
    names: dict[str, _Node] | None = None
    """The children of an object by their keys."""

    def child(self, part: str | int) -> _Node:
        return self.children[part] if isinstance(part, int) else (self.names or {})[part]


class _Document:
    """A JSON text and where its values stand in it.

    Args:
        text: JSON without a key that is there twice in one object: nobody could tell which is meant.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.value = json_text.read(text, _members)
        self.root = self._scan()
        self.style = json_text.Style.of(text)

    def select(self, query: JSONPath) -> list[_Node]:
        """The outermost nodes that a path selects, in the order of the text."""
        if not query.segments:
            return [self.root]
        if not isinstance(self.value, dict | list):
            return []
        try:
            places = {match.parts for match in query.finditer(self.value)}
        except (JSONPathError, RecursionError) as error:
            raise PathError(f"{_shown(str(query))}: {_reason(error)}") from None
        outermost = (place for place in places if not any(place[:n] in places for n in range(len(place))))
        return sorted((self._at(place) for place in outermost), key=lambda node: node.start)

    def formatted(self, value: str, at: int) -> str:
        """A value as it is written in this text, indented as the line of a position is."""
        return self.style.write(value).replace("\n", self._lead(at))

    def added(self, parent: _Node, name: str, value: str) -> tuple[int, int, str]:
        """The splice that adds a member at the end of an object, written as its last one is."""
        key = escape_json(json.dumps(name, ensure_ascii=False))
        if parent.children:
            last = parent.children[-1]
            before = self.text[: last.begins]
            gap = before[len(before.rstrip(" \t\r\n")) :] or " " * self.style.spaced
            key += self._after_key(last)
            return last.end, last.end, f",{gap}{key}{self.formatted(value, last.begins)}"
        inner = parent.start + 1
        value = self.formatted(value, inner)
        if self.style.indent is None:
            return inner, parent.end - 1, f"{key}:{' ' * self.style.spaced}{value}"
        lead = self._lead(inner)
        member = value.replace("\n", "\n" + self.style.indent)
        return inner, parent.end - 1, f"{lead}{self.style.indent}{key}: {member}{lead}"

    def _lead(self, at: int) -> str:
        """A new line, indented as that of a position."""
        line = self.text[self.text.rfind("\n", 0, at) + 1 : at]
        return "\n" + line[: len(line) - len(line.lstrip(" \t"))]

    def _after_key(self, node: _Node) -> str:
        """The colon between a member's key and value, with its white space."""
        between = self.text[node.begins : node.start]
        return between[between.rindex('"') + 1 :]

    def _at(self, place: _Location) -> _Node:
        node = self.root
        for part in place:
            node = node.child(part)
        return node

    def _scan(self) -> _Node:
        # Iterative: the decoder has set how deep the text may be, and its frames are smaller than ours.
        root: _Node | None = None
        inside: list[_Node] = []
        key: re.Match[str] | None = None
        pending = False
        for match in json_text.tokens(self.text):
            token = match[0]
            if token in "]}":
                inside.pop().end = match.end()
            elif token == ":":
                pending = False
            elif token == ",":
                pending = inside[-1].names is not None
            elif pending:
                key = match
            else:
                parent = inside[-1] if inside else None
                node = _Node(match.start(), parent, key.start() if key else match.start(), match.end())
                if parent is None:
                    root = node
                else:
                    parent.children.append(node)
                    if key is not None and parent.names is not None:
                        parent.names[json.loads(key[0])] = node
                key = None
                if token in "[{":
                    node.names = {} if token == "{" else None
                    pending = token == "{"
                    inside.append(node)
            if token == "}":
                pending = False
        if root is None:
            raise json_text.NotJson("expecting value")
        return root


def _cuts(removed: list[_Node]) -> Iterator[tuple[int, int, str]]:
    """The splices that cut members of one object or array out, each with one comma."""
    parent = removed[0].parent
    if parent is None:
        return
    gone, members = {id(node) for node in removed}, parent.children
    if len(gone) == len(members):
        yield parent.start + 1, parent.end - 1, ""
        return
    kept = False
    for number, node in enumerate(members):
        if id(node) not in gone:
            kept = True
        elif kept:
            yield members[number - 1].end, node.end, ""
        else:
            yield node.begins, members[number + 1].begins, ""


def _spliced(text: str, changes: list[tuple[int, int, str]]) -> str:
    parts, at = list[str](), 0
    for start, end, new in sorted(changes):
        parts += (text[at:start], new)
        at = end
    return "".join((*parts, text[at:]))


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise PathError(f"key {_shown(twice)} stands twice in one object: nobody can tell which is meant")
    return found


@functools.lru_cache(maxsize=256)
def _compiled(path: str) -> JSONPath:
    if len(path) > LONGEST_PATH:
        raise PathError(f"a path of {len(path):,} characters is longer than {LONGEST_PATH:,}")
    try:
        query = _ENVIRONMENT.compile(path)
    except (JSONPathError, RecursionError) as error:
        raise PathError(f"{_shown(path)} is no JSON path: {_reason(error)}") from None
    if not isinstance(query, JSONPath):
        raise PathError(f"{_shown(path)} is more than one JSON path")
    return query


def _reason(error: Exception) -> str:
    """What the library says is wrong, without its picture of the place, which fails to be drawn at the end of a path."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return clean(str(error.args[0] if error.args else type(error).__name__), limit=200)


def _shown(text: str) -> str:
    return clean(text, limit=80)
