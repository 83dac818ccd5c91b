"""What an edit changes, as lines for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

from console.operations.edit_rules import TEXT_LIMIT, Edited, body_text, read_value
from console.text import json_text
from console.text.safe import clean, is_clean
from patterns.stored import StoredMessage

MOST_LINES: Final = 400
"""Lines of a diff; one more says how many follow."""

LONGEST_LINE: Final = 400
"""Characters of a line; of two long ones the part is shown in which they differ."""

CONTEXT: Final = 3
_LEAD: Final = 60
_COMPARED: Final = 2000
"""Lines that are compared one by one; matching more of them takes seconds."""
_HEX: Final = 32
_NEXT: Final = re.compile(r"@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@")


def diff(stored: StoredMessage, edited: Edited, *, limit: int = MOST_LINES) -> list[str]:
    """A unified diff of the headers and of the body, JSON indented; each line safe to show.

    Args:
        stored: The letter.
        edited: What becomes of it.
        limit: Lines at the most; a last one then says how many are missing.
    """
    lines = list(_headers(stored, edited))
    if edited.body is not None:
        lines += _body(stored.body, edited.body)
    if len(lines) > limit:
        lines[limit:] = [f"… {len(lines) - limit:,} more lines"]
    return lines


def _headers(stored: StoredMessage, edited: Edited) -> Iterator[str]:
    if not edited.headers:
        return
    yield from ("--- headers", "+++ headers, edited")
    for name, value in edited.headers.items():
        old = stored.headers.get(name)
        lines = [] if old is None else [f"-{name}: {read_value(stored, old)}"]
        lines += [] if value is None else [f"+{name}: {read_value(stored, value)}"]
        yield from (_line(line, at) for line, at in zip(lines, _starts(*lines), strict=True))


def _body(old: bytes, new: bytes) -> list[str]:
    before, after = _shown(old), _shown(new)
    if before == after:
        # Only of JSON: what is no text is shown with its size and bytes, and text with all of its characters.
        change = "differs in white space and spelling only" if body_text(new) is not None else "differs further on"
        return ["--- body", "+++ body, edited", f" ({len(old):,} bytes → {len(new):,} bytes, {change})"]
    return ["--- body", "+++ body, edited", *_unified(before, after)]


def _shown(body: bytes) -> list[str]:
    text = body_text(body)
    if text is None or "\0" in text:
        more = "…" if len(body) > _HEX else ""
        return [f"({len(body):,} bytes: {body[:_HEX].hex(' ')}{more})"]
    try:
        return json_text.pretty(text, limit=TEXT_LIMIT * 4).split("\n")
    except json_text.NotJson:
        return text.split("\n") if text else []


def _unified(before: list[str], after: list[str]) -> Iterator[str]:
    head = _same(before, after)
    tail = _same(before[head:][::-1], after[head:][::-1])
    start, end = max(head - CONTEXT, 0), max(tail - CONTEXT, 0)
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    if max(len(before), len(after)) > _COMPARED:
        yield f"@@ -{start + 1},{len(before)} +{start + 1},{len(after)} @@"
        yield from (_line(f"-{line}", 0) for line in before)
        yield from (_line(f"+{line}", 0) for line in after)
        return
    lines = difflib.unified_diff(before, after, n=CONTEXT, lineterm="")
    removed: list[str] = []
    added: list[str] = []
    for line in (*list(lines)[2:], ""):
        if line.startswith("-"):
            removed.append(line)
            continue
        if line.startswith("+"):
            added.append(line)
            continue
        yield from _replaced(removed, added)
        removed, added = [], []
        if line.startswith("@@"):
            yield _NEXT.sub(lambda match: _place(match, start), line)
        elif line:
            yield _line(line, 0)


def _replaced(removed: list[str], added: list[str]) -> Iterator[str]:
    """Lines that stand for each other; long ones from where they begin to differ."""
    starts = [0] * max(len(removed), len(added))
    if len(removed) == len(added):
        starts = [_starts(old, new)[0] for old, new in zip(removed, added, strict=True)]
    for lines in (removed, added):
        yield from (_line(line, at) for line, at in zip(lines, starts, strict=False))


def _starts(*lines: str) -> list[int]:
    """Where to begin to show lines: shortly before they differ, if that is too far to the right."""
    if len(lines) < 2 or max(map(len, lines)) <= LONGEST_LINE:
        return [0] * len(lines)
    old, new = lines
    # Not by character: a body of 1 MB may be one string.
    low, high = 1, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[1:middle] == new[1:middle] else (low, middle - 1)
    at = low - _LEAD
    return [at if at > _LEAD else 0] * 2


def _line(line: str, at: int) -> str:
    if at:
        line = f"{line[0]}…{line[at:]}"
    shown = line.replace("\t", "    ")
    return shown if len(shown) <= LONGEST_LINE and is_clean(shown) else clean(shown, limit=LONGEST_LINE)


def _same(before: list[str], after: list[str]) -> int:
    """Lines that are equal at the beginning."""
    count = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        count += 1
    return count


def _place(match: re.Match[str], lines: int) -> str:
    return f"@@ -{int(match[1]) + lines}{match[2] or ''} +{int(match[3]) + lines}{match[4] or ''} @@"
