"""What a stream holds and answers: messages as they are stored, pages of them, confirmations."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from nats.aio.msg import Msg

from patterns.errors import InvalidMessage
from patterns.headers import parse_time_ns, time_of_ns

_VERSION = b"NATS/1.0"
SENDABLE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Header names that nats-py sends."""

_DIRECT_HEADERS = frozenset(
    {
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
        "Nats-UpTo-Sequence",
    }
)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as a stream holds it, not interpreted."""

    subject: str
    seq: int
    stored_ns: int
    """Nanoseconds since the epoch."""
    headers: Mapping[str, str]
    body: bytes
    header_block: bytes = field(default=b"", compare=False, repr=False)
    """The headers as they are stored, `NATS/1.0` line included, for `header_lines`; empty if it has none, and if it was read
    by a batch direct get or from a delivery."""

    @property
    def stored_at(self) -> datetime:
        """When the stream stored it."""
        return time_of_ns(self.stored_ns)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a stream."""

    messages: tuple[StoredMessage, ...]
    remaining: int
    """Messages behind the page that match, as the server counts them; -1 if it did not say."""

    @property
    def next_seq(self) -> int:
        """Where the next page starts; 0 for an empty page."""
        return self.messages[-1].seq + 1 if self.messages else 0


@dataclass(frozen=True, slots=True)
class PublishAck:
    """The server's confirmation."""

    stream: str
    seq: int
    duplicate: bool


class HeaderLines:
    """Header lines to publish exactly: in this order, with repeated names, whatever bytes the values are.

    nats-py takes one text a name, strips it and encodes it. It asks `items()` of what it is given for the names and values,
    and a value for what it does to a text, so this is the one place that can hand it bytes.

    Args:
        lines: Names and values.

    Raises:
        InvalidMessage: nats-py refuses or would change a name, or a value holds the end of a line.
    """

    __slots__ = ("lines",)

    def __init__(self, lines: Iterable[tuple[str, bytes]] = ()) -> None:
        self.lines = tuple(lines)
        for name, value in self.lines:
            if not SENDABLE.fullmatch(name):
                raise InvalidMessage(f"no client can send a header named {name[:60]!r}")
            if b"\r\n" in value:
                raise InvalidMessage(f"the value of header {name[:60]!r} holds the end of a line")

    def __len__(self) -> int:
        return len(self.lines)

    def items(self) -> Iterator[tuple[str, _Exact]]:
        """What nats-py iterates over."""
        return ((name, _Exact(value)) for name, value in self.lines)

    @property
    def block(self) -> bytes:
        """The header block that goes over the wire; nothing for no lines."""
        if not self.lines:
            return b""
        lines = (name.encode("ascii") + b": " + value for name, value in self.lines)
        return b"\r\n".join((_VERSION, *lines, b"", b""))

    def replacing(self, headers: Mapping[str, str]) -> Self:
        """These lines without those named in `headers`, which then follow."""
        kept = [(name, value) for name, value in self.lines if name not in headers]
        return type(self)([*kept, *((name, value.encode()) for name, value in headers.items())])


class _Exact:
    """A header value that stays as it is through all that nats-py does to a text."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def strip(self) -> Self:
        return self

    def translate(self, _table: Mapping[int, str]) -> Self:
        return self

    def encode(self) -> bytes:
        return self._value


Headers = Mapping[str, str] | HeaderLines | Sequence[tuple[str, bytes]]
"""What can be published as headers: texts by name, or lines as `header_lines` reads them."""


def header_lines(block: bytes) -> list[tuple[str, bytes]]:
    """The lines of a raw header block in their order, repeated names too.

    Each byte of a value stays, but for one leading space. Left out is what has no colon or a name that is not ASCII.
    """
    found: list[tuple[str, bytes]] = []
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.isascii():
            found.append((name.decode("ascii"), value.removeprefix(b" ")))
    return found


def parse_headers(block: bytes) -> dict[str, str]:
    """Parse a raw header block, `NATS/1.0` line included; of a repeated name the last value stays."""
    found: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.isascii():
            found[name.strip().decode("ascii")] = value.strip().decode("utf-8", "replace")
    return found


def from_direct(headers: Mapping[str, str], body: bytes) -> StoredMessage:
    """Read a reply to a direct get, whose own headers tell where the message stands."""
    return StoredMessage(
        subject=headers.get("Nats-Subject", ""),
        seq=int(headers.get("Nats-Sequence", 0)),
        stored_ns=parse_time_ns(headers["Nats-Time-Stamp"]),
        headers={name: value for name, value in headers.items() if name not in _DIRECT_HEADERS},
        body=body,
    )


def unbase64(text: str | None) -> bytes:
    """Decode what STREAM.MSG.GET encodes; nothing for nothing, and for what is broken."""
    try:
        return base64.b64decode(text or "")
    except binascii.Error:
        return b""


def stored_ns_of(raw: Msg) -> int:
    """When the stream stored it, in nanoseconds since the epoch, as the acknowledgement subject tells.

    `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<consumer seq>.<time>.<pending>`; the second form has the domain and an
    account hash before the stream, and may have a token behind.
    """
    tokens = raw.reply.split(".")
    return int(tokens[7 if len(tokens) == 9 else 9])
