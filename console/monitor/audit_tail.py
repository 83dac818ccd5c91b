"""The newest lines of the audit file, read from its end: the file only grows, and a screen needs no more than a few pages.

The file is somebody's disk and may hold anything: a line that cannot be read is told as such and never an exception.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

LINES: Final = 2_000
"""Lines shown at most."""
MOST: Final = 4 * 1024 * 1024
"""Bytes read at most: a line names every letter of its job, so that lines may be long."""
BLOCK: Final = 128 * 1024
NO_FILE: Final = "it is not a regular file"

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the file."""

    at: int
    """Where it begins, in bytes: its name, because the file only grows."""
    fields: dict[str, Any] | None
    """What it says, with values of any type; None when it cannot be read."""
    raw: str
    """The line itself when it cannot be read, else empty."""

    def words(self) -> str:
        """Its values as one lower-case text to search in."""
        if self.fields is None:
            return self.raw.lower()
        return " ".join(text_of(value) for value in self.fields.values() if value is not None).lower()


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the file at one moment."""

    lines: tuple[AuditLine, ...] = ()
    """Newest first."""
    older: bool = False
    """Whether lines before these exist."""
    missing: bool = False
    """There is no file yet."""
    problem: str = ""
    """Why it cannot be read; not yet safe to show."""


class AuditTail:
    """Reads the end of a file again when it has changed. It waits for the disk: not for an event loop.

    Args:
        path: The file; it need not exist.
        limit: Lines kept at most.
        most: Bytes read at most.
    """

    def __init__(self, path: Path, *, limit: int = LINES, most: int = MOST) -> None:
        self.path = path
        self._limit = limit
        self._most = most
        self._seen: Stamp | str | None = None

    def read(self) -> Tail | None:
        """The end of the file; None if nothing has changed since the last call."""
        try:
            now: Stamp | str = _stamp(self.path.stat())
            if now == self._seen:
                return None
            # A pipe would be waited for, a device has no end.
            if not stat.S_ISREG(self.path.stat().st_mode):
                now = NO_FILE
                tail = Tail(problem=NO_FILE)
            else:
                with self.path.open("rb") as file:
                    # The size before it is read: what is appended meanwhile is seen next time.
                    status = os.fstat(file.fileno())
                    now, tail = _stamp(status), self._end(file, status.st_size)
        except FileNotFoundError:
            now, tail = "", Tail(missing=True)
        except OSError as error:
            now = error.strerror or str(error)
            tail = Tail(problem=now)
        if now == self._seen:
            return None
        self._seen = now
        return tail

    def _end(self, file: BinaryIO, size: int) -> Tail:
        start, data = size, b""
        # One newline more than lines are wanted: the one before the first of them.
        while start and data.count(b"\n") <= self._limit and len(data) < self._most:
            step = min(BLOCK, start)
            start -= step
            file.seek(start)
            data = file.read(step) + data
        if start:
            cut = data.find(b"\n") + 1
            start, data = start + cut, data[cut:] if cut else b""
        lines: list[AuditLine] = []
        at = start
        for raw in _split(data):
            if line := _line(at, raw):
                lines.append(line)
            at += len(raw)
        older = start > 0 or len(lines) > self._limit
        return Tail(tuple(reversed(lines[-self._limit :])), older)


def text_of(value: Any) -> str:
    """A value of a line in words: texts as they are, nothing as a dash, the rest as JSON. Not yet safe to show."""
    if isinstance(value, str):
        return value
    if value is None:
        return "–"
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply)"


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _split(data: bytes) -> list[bytes]:
    """Lines by newline alone, their ends kept."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts


def _line(at: int, raw: bytes) -> AuditLine | None:
    """A line; None for an empty one, and for an unfinished last one that is still being written."""
    text = raw.decode("utf-8", "replace").strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return AuditLine(at, None, text) if raw.endswith(b"\n") else None
    return AuditLine(at, found, "") if isinstance(found, dict) else AuditLine(at, None, text)
