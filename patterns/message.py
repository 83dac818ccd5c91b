"""The envelope: CloudEvents 1.0 in binary mode, metadata in headers and the body as it is.

Header values are percent-encoded as the CloudEvents bindings ask, so that newlines and any Unicode text survive a
protocol whose headers are lines. Messages without any of our headers (`nats pub agents.ceo.inbox.note '{"a":1}'`) are
accepted: id from `Nats-Msg-Id` or stream and sequence, type from the subject, source `unknown`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from patterns import names as _names
from patterns.errors import InvalidMessage, InvalidName
from patterns.headers import escape, format_time, header_size, parse_time, unescape
from patterns.lineage import DEATH
from patterns.names import Names

if TYPE_CHECKING:
    from patterns.stored import StoredMessage

MSG_ID = "Nats-Msg-Id"
EXPECTED_STREAM = "Nats-Expected-Stream"
EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
CE_ID = "ce-id"
CE_TYPE = "ce-type"
CE_SOURCE = "ce-source"
CE_TIME = "ce-time"
CE_CONTENT_TYPE = "ce-datacontenttype"
CE_CORRELATION = "ce-correlationid"
CE_CAUSATION = "ce-causationid"
CE_EXPIRY = "ce-expirytime"
TRACEPARENT = "traceparent"
REPLY_TO = "Agent-Reply-To"
HOPS = "Agent-Hops"
REPLAY_OF = "Agent-Replay-Of"
OUTCOME_OF = "Agent-Outcome-Of"
"""`<entry> <completed|failed>` of the stored task whose outcome a message is; of two copies its reader handles one."""

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
UNKNOWN_SOURCE = "unknown"
LONGEST_LINEAGE = 1024
"""Characters of a foreign id that messages made from its message repeat; the server takes 64 KiB of headers."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]{1,128}")
_OWN_HEADERS = ("nats-", "ce-", "agent-", "dead-letter-", "status", "description")
_CALLERS_CE = frozenset({"ce-dataschema", "ce-subject", "ce-dataref"})
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# CloudEvents: everything but printable ASCII, and of that space, the double quote and the percent sign, is encoded.


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as it was stored or delivered."""

    id: str
    """`ce-id`, else `Nats-Msg-Id`, else `<stream>-<seq>`."""
    type: str
    source: str
    """Id of the agent that claims to have sent it; a URI for other CloudEvents sources, `unknown` for bare messages."""
    subject: str
    data: Any
    """The decoded JSON body, or the bytes of a body that is declared not to be JSON; None for an empty body."""
    text: str
    """The body as text, undecodable bytes replaced."""
    headers: Mapping[str, str]
    """All headers, percent-decoded where the library or a CloudEvents producer wrote them; earlier deaths stay encoded."""
    time: datetime | None
    """When the sender made it."""
    correlation_id: str
    """Id of the message that began the conversation."""
    causation_id: str | None
    """Id of the message whose handling sent this one."""
    expires_at: datetime | None
    replay_of: str | None
    """Name of the dead letter this is a replay of."""
    stream: str | None
    seq: int | None
    stored_at: datetime | None
    size: int
    """Bytes of body and headers."""
    body: bytes = b""
    hops: int = 0
    """Delegations since the conversation began."""
    reply_to: str | None = None
    """Subject prefix for the outcome of a task."""
    problem: str | None = None
    """Why the message cannot be handled (broken JSON, a malformed header), or None."""

    @property
    def trace_id(self) -> str | None:
        """W3C trace id of the conversation, or None."""
        match = _TRACEPARENT.fullmatch(self.headers.get(TRACEPARENT, ""))
        return match[1] if match else None

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its deadline has passed."""
        return self.expires_at is not None and (now or datetime.now(UTC)) >= self.expires_at


_current: ContextVar[Message | None] = ContextVar("patterns_current_message", default=None)


def current() -> Message | None:
    """The message whose handler is running, from which correlation, trace and hops are inherited; None outside."""
    return _current.get()


@contextmanager
def handling(message: Message) -> Iterator[None]:
    """Make `message` the current one for the block."""
    token = _current.set(message)
    try:
        yield
    finally:
        _current.reset(token)


def enter_handling(message: Message) -> Any:
    """Make `message` the current one; give the returned token to `leave_handling`."""
    return _current.set(message)


def leave_handling(token: Any) -> None:
    """Undo `enter_handling`."""
    _current.reset(token)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An encoded message that has no subject yet."""

    id: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server's confirmation that a message is stored."""

    id: str
    stream: str
    seq: int
    duplicate: bool
    """Whether it was stored before under the same id."""


def new_id() -> str:
    """A fresh, unguessable id."""
    return secrets.token_hex(12)


def encode(
    type: str,
    data: Any = None,
    *,
    source: str | None = None,
    id: str | None = None,
    expires_in: float | None = None,
    reply_to: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Outgoing:
    """Encode a message; correlation, causation, trace and hops come from the message being handled.

    Args:
        type: `ce-type`.
        data: Anything JSON can carry (dataclasses and objects with `model_dump()` too), or bytes.
        source: Agent id, or None for `unknown`.
        id: `ce-id` and `Nats-Msg-Id`; a fresh one if None.
        expires_in: Seconds after which it must not be handled any more.
        reply_to: Subject prefix for the outcome.
        headers: The caller's own headers; not those the library sets.

    Raises:
        InvalidMessage: `data` is not JSON (NaN included).
        InvalidName: An id or header name NATS would misread.
    """
    body, content_type = encode_data(data)
    parent = current()
    given = new_id() if id is None else _names.message_id(id)
    now = datetime.now(UTC)
    result = {
        MSG_ID: given,
        "ce-specversion": "1.0",
        CE_ID: given,
        CE_TYPE: type,
        CE_SOURCE: f"agents/{source}" if source else UNKNOWN_SOURCE,
        CE_TIME: format_time(now),
        CE_CONTENT_TYPE: content_type,
        CE_CORRELATION: _lineage(parent.correlation_id) if parent else given,
        TRACEPARENT: f"00-{(parent.trace_id if parent else None) or secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
    }
    if parent is not None:
        result[CE_CAUSATION] = _lineage(parent.id)
        result[HOPS] = str(parent.hops + 1)
    if expires_in is not None:
        result[CE_EXPIRY] = format_time(now + timedelta(seconds=expires_in))
    if reply_to is not None:
        result[REPLY_TO] = reply_to
    for name, value in (headers or {}).items():
        result[_callers_header(name)] = escape(value)
    return Outgoing(given, result, body)


def encode_answer(data: Any, *, source: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an answer: who gives it, and what is not JSON.

    An answer is no event: nobody stores it, and who asked knows what it is about. Each header has its price.

    Raises:
        InvalidMessage: `data` is not JSON.
    """
    body, content_type = encode_data(data)
    headers = {CE_SOURCE: f"agents/{source}"}
    if content_type != JSON_TYPE:
        headers[CE_CONTENT_TYPE] = content_type
    return body, headers


def decode_answer(headers: Mapping[str, str], body: bytes) -> tuple[Any, str]:
    """Data and source of an answer; what is no JSON although it should be is None."""
    data, _ = _decode_body(body, headers.get(CE_CONTENT_TYPE) or headers.get("Content-Type") or JSON_TYPE)
    source = unescape(headers.get(CE_SOURCE, UNKNOWN_SOURCE))
    return data, source.removeprefix("agents/") or UNKNOWN_SOURCE


def decode(
    subject: str,
    headers: Mapping[str, str] | None,
    body: bytes,
    *,
    names: Names,
    stream: str | None = None,
    seq: int | None = None,
    stored_at: datetime | None = None,
) -> Message:
    """Decode any message; never raises, what is wrong with it stands in `Message.problem`."""
    raw = dict(headers or {})
    # Only our own and other CloudEvents producers' headers are percent-encoded; a foreign '100%25' means itself.
    decoded = raw
    if "%" in "".join(raw.values()):
        encoded = ("",) if "ce-specversion" in raw else ("ce-", "Agent-", "Dead-Letter-")
        decoded = {
            name: unescape(value) if name.startswith(encoded) and not name.startswith(("Nats-", DEATH)) else value
            for name, value in raw.items()
        }
    problem: str | None = None

    time, _ = _read_time(decoded.get(CE_TIME))
    expires_at, bad_expiry = _read_time(decoded.get(CE_EXPIRY))
    if bad_expiry:
        problem = f"header {CE_EXPIRY} is not a time"
    hops = decoded.get(HOPS, "0")
    if not (hops.isascii() and hops.isdigit() and len(hops) <= 9):
        problem = f"header {HOPS} is not a number"
        hops = "0"
    data, bad_body = _decode_body(body, decoded.get(CE_CONTENT_TYPE) or decoded.get("Content-Type") or JSON_TYPE)
    given = decoded.get(CE_ID) or decoded.get(MSG_ID) or (f"{stream}-{seq}" if stream and seq else "")
    return Message(
        id=given,
        type=decoded.get(CE_TYPE) or names.type_of(subject),
        source=decoded.get(CE_SOURCE, UNKNOWN_SOURCE).removeprefix("agents/") or UNKNOWN_SOURCE,
        subject=subject,
        data=data,
        text=body.decode("utf-8", "replace"),
        headers=decoded,
        time=time,
        correlation_id=decoded.get(CE_CORRELATION) or given,
        causation_id=decoded.get(CE_CAUSATION) or None,
        expires_at=expires_at,
        replay_of=decoded.get(REPLAY_OF) or None,
        stream=stream,
        seq=seq,
        stored_at=stored_at,
        size=len(body) + header_size(raw),
        body=body,
        hops=int(hops),
        reply_to=decoded.get(REPLY_TO) or None,
        problem=problem or bad_body,
    )


def decode_stored(stored: StoredMessage, *, names: Names, stream: str, subject: str | None = None) -> Message:
    """As `decode`, for a message read from a stream; `subject` is where it was published, if it was moved since."""
    return decode(
        subject or stored.subject,
        stored.headers,
        stored.body,
        names=names,
        stream=stream,
        seq=stored.seq,
        stored_at=stored.stored_at,
    )


def _lineage(id: str) -> str:
    """Another message's id as a header; a very long one as its hash, else what follows from it could not be sent."""
    escaped = escape(id)
    return escaped if len(escaped) <= LONGEST_LINEAGE else _names.derived_id(id)


def encode_data(data: Any) -> tuple[bytes, str]:
    """Body and content type of `data`; None is an empty body.

    Raises:
        InvalidMessage: Not JSON and not bytes.
    """
    if data is None:
        return b"", JSON_TYPE
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), BYTES_TYPE
    try:
        return _ENCODER.encode(data).encode(), JSON_TYPE
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"data cannot be sent as JSON: {error}") from None


def _read_time(text: str | None) -> tuple[datetime | None, bool]:
    if not text:
        return None, False
    try:
        return parse_time(text), False
    except (ValueError, OverflowError):
        return None, True


def _decode_body(body: bytes, content_type: str) -> tuple[Any, str | None]:
    if not body:
        return None, None
    media = content_type.split(";", maxsplit=1)[0].strip().lower()
    if media != JSON_TYPE and not media.endswith("+json"):
        return body, None
    try:
        # As json.loads does, but with a decoder that is made once.
        return _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass")), None
    except (ValueError, RecursionError) as error:
        return None, f"body is not JSON: {error}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _callers_header(name: str) -> str:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise InvalidName(f"header name {name!r} must be 1 to 128 letters, digits and -_.!#$&'*+^`|~")
    lower = name.lower()
    if lower not in _CALLERS_CE and lower.startswith(_OWN_HEADERS):
        raise InvalidName(f"header {name!r} is set by the library or the server, use one of your own")
    return name
