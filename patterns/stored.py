"""What a stream holds and answers: messages as they are stored, pages of them, confirmations."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from nats.aio.msg import Msg

from patterns.headers import parse_time_ns, time_of_ns

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
