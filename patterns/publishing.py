"""A publish that repeats itself with the same id until the server has confirmed or refused it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors
from nats.js.errors import APIError

from patterns import denials
from patterns.errors import InvalidMessage, MessageTooLarge, QueueFull, Unavailable, UnknownDestination
from patterns.headers import header_size
from patterns.message import EXPECTED_LAST_SUBJECT_SEQUENCE, EXPECTED_STREAM
from patterns.names import is_literal
from patterns.stored import SENDABLE, HeaderLines, Headers, PublishAck

if TYPE_CHECKING:
    from patterns.jetstream import JetStream

HEADROOM = 8192
"""Bytes kept free below the server's limit: a dead-letter copy carries more headers than the message itself, and a
message over the limit makes the server drop the connection."""

WRONG_STREAM = 10060
STORE_FAILED = 10077
DUPLICATE_IN_PROCESS = 10158
NO_QUORUM = 10008


async def publish(
    js: JetStream,
    subject: str,
    body: bytes,
    headers: Headers,
    *,
    stream: str | None,
    last_seq: int | None,
    timeout: float,
    headroom: int,
    insist: bool = True,
) -> PublishAck:
    """Publish until it is confirmed or refused; see `JetStream.publish`."""
    sent = _expecting(headers, stream, last_seq)
    if not is_literal(subject):
        raise UnknownDestination(f"{subject!r} is not a subject to publish to")
    size, most = len(body) + _size(sent), js.nc.max_payload - headroom
    if size > most:
        raise MessageTooLarge(
            f"{size} bytes of body and headers, the server takes {most}; store large data elsewhere and send a reference"
        )
    _require_sendable(sent)
    # nats-py would write a block without lines; and it asks no more than `items()` of what it takes for a dictionary.
    lines: Any = sent if len(sent) else None
    began = time.monotonic()
    deadline = began + timeout
    pause, patience, silences = 0.05, 2.0, 0
    connection = js.nc.stats["reconnects"]
    while True:
        in_doubt = False
        try:
            left = deadline - time.monotonic()
            msg = await js.nc.request(subject, body, timeout=max(0.05, min(left, patience)), headers=lines)
            answer = json.loads(msg.data)
            if "error" not in answer:
                return PublishAck(answer["stream"], answer["seq"], bool(answer.get("duplicate")))
            failure = _refusal(subject, api_error(answer["error"]))
        except nats.errors.NoRespondersError:
            failure, in_doubt = "the stream has no leader", True
        except nats.errors.TimeoutError:
            denials.require_permission(js.nc, subject, began)
            failure, in_doubt, silences, patience = "no answer", silences == 0, silences + 1, 5.0
            if not insist and not (js.standalone and js.nc.is_connected and js.nc.stats["reconnects"] == connection):
                raise Unavailable(f"publish to {subject!r} was not confirmed; it may or may not be stored") from None
        except nats.errors.OutboundBufferLimitError:
            failure = "not connected"
        except (ValueError, KeyError, TypeError):
            failure, in_doubt = "a responder that is not JetStream answered", True
        # Silence too: any subscriber on the subject, `nats sub '>'` for one, hides that no stream takes it.
        if in_doubt and await _nobody_stores(js, subject, stream):
            raise UnknownDestination(
                f"no stream stores {subject!r}: is the name right, has provision() created it?"
            ) from None
        if time.monotonic() + pause >= deadline:
            raise Unavailable(
                f"publish to {subject!r} was not confirmed within {timeout:g} s ({failure}); repeat it with the same id"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)


def _refusal(subject: str, error: APIError) -> str:
    """Raise for a final refusal; return the reason of one that passes."""
    if error.err_code == WRONG_STREAM:
        raise UnknownDestination(f"{subject!r} is stored by another stream than expected") from None
    if error.err_code == STORE_FAILED:
        raise QueueFull(
            f"{subject!r} is full ({error.description}); nothing was stored, try later or raise limits.max_msgs"
        ) from None
    if error.err_code in (DUPLICATE_IN_PROCESS, NO_QUORUM) or error.code == 503:
        return str(error.description)
    raise error


async def _nobody_stores(js: JetStream, subject: str, stream: str | None) -> bool:
    """Whether it is certain that no stream takes the subject (no responders also means: no leader right now)."""
    try:
        return await js.stream_info(stream) is None if stream else not await js.stream_names(subject)
    except (APIError, Unavailable):
        return False


def _expecting(headers: Headers, stream: str | None, last_seq: int | None) -> dict[str, str] | HeaderLines:
    """The headers with what the server is to check."""
    expected: dict[str, str] = {}
    if stream is not None:
        expected[EXPECTED_STREAM] = stream
    if last_seq is not None:
        expected[EXPECTED_LAST_SUBJECT_SEQUENCE] = str(last_seq)
    if isinstance(headers, Mapping):
        return {**headers, **expected}
    return (headers if isinstance(headers, HeaderLines) else HeaderLines(headers)).replacing(expected)


def _size(headers: dict[str, str] | HeaderLines) -> int:
    return header_size(headers) if isinstance(headers, dict) else len(headers.block)


def _require_sendable(headers: dict[str, str] | HeaderLines) -> None:
    """A lone surrogate in a header would come up inside the client as a ValueError that looks like a broken answer."""
    if isinstance(headers, HeaderLines):
        return
    for name in headers:
        if not SENDABLE.fullmatch(name.strip() or "skipped"):
            raise InvalidMessage(f"no client can send a header named {name[:60]!r}")
    try:
        "".join(headers.values()).encode()
    except UnicodeEncodeError:
        raise InvalidMessage("a header holds text that is no Unicode (a lone surrogate)") from None


def api_error(error: Mapping[str, Any]) -> APIError:
    """The exception of an error answer."""
    known = {name: error.get(name) for name in ("code", "err_code", "description")}
    found: APIError = nats.js.errors.APIError(**known)
    return found
