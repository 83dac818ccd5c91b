"""Spill files: what a discard or purge removes is written here first, whole, so that it can be put back.

JSON lines, one object each:

1. the head: `spill` (format, 1), `id`, `holds`, `action`, `job`, `stream`, `server`, `by`, `at`, `reason`, `selection`;
2. a message each: `seq`, `subject`, `time` (RFC 3339, nanoseconds), `headers` (the raw header block, base64, or null),
   `data` (base64);
3. `{"complete": n}` after the last message: on the disk before the first one is removed; without it nothing was;
4. `{"kept": [seq...]}` when its job has ended: what it did not remove, because it was gone (somebody handled it), because the
   job was cancelled before it, or because it failed; the last such line holds. Putting these back could double them.
5. `{"restored": [seq...]}` for each restore: what was put back.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from console.operations.errors import OperationError
from patterns.headers import parse_time_ns
from patterns.stored import StoredMessage, parse_headers

FORMAT: Final = 1
HOLDS: Final = "message bodies and headers, as they were stored: keep it as confidential as the messages"
LONGEST_LINE = 256 << 20
"""Bytes; the server takes 64 MiB at the most, which is 86 in base64."""


class SpillWriter:
    """Writes one spill file, readable by this user only.

    Args:
        directory: Where; it is made if it is not there.
        head: What its first line says besides format, id and time; `action`, `stream` and `job` name the file.

    Raises:
        OperationError: It cannot be written: nothing may be removed then.
    """

    def __init__(self, directory: Path, head: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        words = [now.strftime("%Y%m%dT%H%M%SZ"), *(str(head.get(key, "")) for key in ("action", "stream", "job"))]
        name = "-".join(re.sub(r"[^A-Za-z0-9_]", "_", word)[:64] for word in words if word)
        self.path = directory / f"{name}.jsonl"
        self.count = 0
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._file: IO[bytes] = os.fdopen(descriptor, "wb")
            first = {"spill": FORMAT, "id": secrets.token_hex(8), "holds": HOLDS, "at": _stamp(now)}
            self._line(first | dict(head))
        except OSError as error:
            raise self._problem(error) from None

    def write(self, message: StoredMessage) -> None:
        """Append one message; it needs its raw header block."""
        try:
            self._line(
                {
                    "seq": message.seq,
                    "subject": message.subject,
                    "time": format_ns(message.stored_ns),
                    "headers": base64.b64encode(message.header_block).decode() if message.header_block else None,
                    "data": base64.b64encode(message.body).decode(),
                }
            )
        except OSError as error:
            raise self._problem(error) from None
        self.count += 1

    def write_all(self, messages: Iterable[StoredMessage]) -> None:
        """Append some messages."""
        for message in messages:
            self.write(message)

    def complete(self) -> None:
        """All of it is written: see it onto the disk, the name of the file included. Only now may anything be removed."""
        try:
            self._line({"complete": self.count})
            self._file.flush()
            os.fsync(self._file.fileno())
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._problem(error) from None
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")

    def _problem(self, error: OSError) -> OperationError:
        return OperationError(
            f"the spill {self.path} cannot be written ({error.strerror}): nothing was removed; make room, set XDG_STATE_HOME, "
            "or go without undo by --no-spill"
        )


def tell_kept(path: Path, seqs: list[int]) -> None:
    """Append which messages its job did not remove; the last such line holds. Raises OSError."""
    _append(path, {"kept": seqs})


def tell_restored(path: Path, seqs: list[int]) -> None:
    """Append which messages were put back: a second restore leaves them alone. Raises OSError."""
    if seqs:
        _append(path, {"restored": seqs})


def is_complete(path: Path) -> bool:
    """Whether a job can rely on its spill file; blocking."""
    try:
        with SpillFile(path) as file:
            return file.finished
    except OperationError:
        return False


def _append(path: Path, value: Mapping[str, Any]) -> None:
    # On a line of its own even if a full disk has cut off the one before.
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        cut_off = file.read(1) != b"\n"
        file.write(b"\n" * cut_off + json.dumps(value).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class _Where:
    seqs: array[int]
    offsets: array[int]


class SpillFile:
    """A spill file that is read: its head, and its messages in any order without holding their bodies.

    Args:
        path: The file.

    Raises:
        OperationError: It is not there, or is no spill file, or a line of it is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head: dict[str, Any] = {}
        self.kept: set[int] | None = None
        """What its job did not remove; None if the job did not come to its end."""
        self.restored: set[int] = set()
        """What was put back already."""
        self.finished = False
        """Whether all was written; if not, nothing was removed after it."""
        self._where = _Where(array("Q"), array("Q"))
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise OperationError(f"{path}: {error.strerror}") from None
        try:
            self._scan()
        except BaseException:
            self._file.close()
            raise

    @property
    def id(self) -> str:
        """Its id: what is put back from it twice gets the same message ids."""
        return str(self.head["id"])

    @property
    def stream(self) -> str:
        """The stream its messages were removed from."""
        return str(self.head.get("stream", ""))

    def __len__(self) -> int:
        return len(self._where.seqs)

    def messages(self) -> Iterator[StoredMessage]:
        """All messages in the order of the file."""
        for offset in self._where.offsets:
            yield self._read(offset)

    def message(self, seq: int) -> StoredMessage | None:
        """The message of one sequence."""
        at = bisect_left(self._where.seqs, seq)
        if at == len(self._where.seqs) or self._where.seqs[at] != seq:
            return None
        return self._read(self._where.offsets[at])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scan(self) -> None:
        offset, last = 0, 0
        for number, line in enumerate(iter(lambda: self._file.readline(LONGEST_LINE), b""), 1):
            if not line.endswith(b"\n"):
                break  # cut off by a kill: it was never complete, or said only that something was gone
            if number % 100 == 0:
                # In a thread beside an event loop: lets it have the interpreter.
                time.sleep(0)
            if self.finished and not line.strip():
                offset += len(line)
                continue
            value = self._tolerantly(line, number) if self.finished else self._parse(line, number)
            if number == 1:
                if value.get("spill") != FORMAT or not isinstance(value.get("id"), str):
                    raise OperationError(f"{self.path} is not a spill file of this program")
                self.head = value
            elif "complete" in value:
                self.finished = value["complete"] == len(self._where.seqs)
            elif isinstance(value.get("kept"), list):
                self.kept = {seq for seq in value["kept"] if isinstance(seq, int)}
            elif isinstance(value.get("restored"), list):
                self.restored.update(seq for seq in value["restored"] if isinstance(seq, int))
            elif not self.finished:
                message = self._message(value, number)
                if message.seq <= last:
                    raise OperationError(f"{self.path}, line {number}: sequences must rise")
                last = message.seq
                self._where.seqs.append(message.seq)
                self._where.offsets.append(offset)
            offset += len(line)
        if not self.head:
            raise OperationError(f"{self.path} is not a spill file of this program")

    def _read(self, offset: int) -> StoredMessage:
        self._file.seek(offset)
        return self._message(self._parse(self._file.readline(LONGEST_LINE), 0), 0)

    def _tolerantly(self, line: bytes, number: int) -> dict[str, Any]:
        """Behind the last message a line that was cut off says nothing."""
        try:
            return self._parse(line, number)
        except OperationError:
            return {}

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise OperationError(f"{self.path}, line {number}: not a line of a spill file")
        return value

    def _message(self, value: Mapping[str, Any], number: int) -> StoredMessage:
        try:
            block = base64.b64decode(value["headers"] or "", validate=True)
            seq, subject = value["seq"], value["subject"]
            return StoredMessage(
                subject=_text(subject),
                seq=_sequence(seq),
                stored_ns=parse_time_ns(value["time"]),
                headers=parse_headers(block),
                body=base64.b64decode(value["data"], validate=True),
                header_block=block,
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise OperationError(f"{self.path}, line {number}: not a message of a spill file") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _sequence(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**64:
        raise TypeError
    return value


def format_ns(ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    whole = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
