"""The server calls that nats-py lacks, and the ones whose nats-py form loses something.

* Batch direct get (ADR-31): reads a work queue without a consumer, so nothing is disturbed.
* `STREAM.MSG.DELETE` with `no_erase` (0.2 ms instead of 2.5 ms) that says whether the message was there.
* Purge that returns how many went, and lists that page to their end (nats-py stops at 256 without a word).
* A publish that repeats itself with the same id until the server has confirmed or refused it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError

from patterns import denials, direct, publishing
from patterns.errors import (
    Unavailable,
)
from patterns.headers import format_time, parse_time_ns
from patterns.publishing import HEADROOM, api_error
from patterns.stored import Headers, Page, PublishAck, StoredMessage, parse_headers, unbase64

log = logging.getLogger("patterns")

NO_MESSAGE = (10037, 10057, 10043)
"""err_codes of a sequence that is not there: get, delete, and delete by the interior of the store."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
WRONG_LAST_SEQUENCE = (10071, 10164)

ELECTION = 2.0
"""Seconds for which a call that found no leader is repeated."""

BATCH_MAX = 1024
"""Messages one direct get may ask for (server limit)."""


class JetStream:
    """JetStream of one connection.

    Args:
        nc: A connected client.
        domain: JetStream domain, for a stream behind a leaf node.
        api_prefix: Prefix of the API subjects instead of `$JS.API`, for an imported API.
    """

    def __init__(self, nc: Client, *, domain: str | None = None, api_prefix: str | None = None) -> None:
        self.nc = nc
        self.prefix = api_prefix or (f"$JS.{domain}.API" if domain else "$JS.API")
        self.context: JetStreamContext = nc.jetstream(prefix=self.prefix)
        self._opened = time.monotonic()

    @property
    def standalone(self) -> bool:
        """Whether the server we are connected to is the one that keeps the streams: if it dies, we notice."""
        info = self.nc._server_info
        return bool(info.get("jetstream")) and not info.get("cluster") and self.prefix == "$JS.API"

    def connected_for(self) -> float:
        """Seconds for which this connection has not been interrupted, at least; a second less, for a server's clock."""
        return 0.0 if self.nc.stats["reconnects"] else max(0.0, time.monotonic() - self._opened - 1.0)

    # -- API

    async def api(self, call: str, request: Mapping[str, Any] | None = None, *, timeout: float = 5.0) -> dict[str, Any]:
        """Call `$JS.API.<call>`.

        Raises:
            APIError: The server's answer was an error; `err_code` tells which.
            Unavailable: No answer within `timeout` seconds, no leader for two, or JetStream is not there.
        """
        payload, began, pause = json.dumps(request).encode() if request else b"", time.monotonic(), 0.05
        while True:
            answer = await self._call(call, payload, timeout)
            if "error" not in answer:
                return answer
            error = api_error(answer["error"])
            if error.code != 503:
                raise error
            # A leader is being elected: the server did nothing and says when to come again, which is soon.
            if time.monotonic() + pause - began > min(timeout, ELECTION):
                raise Unavailable(f"{call}: {error.description}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _call(self, call: str, payload: bytes, timeout: float) -> dict[str, Any]:
        subject, began = f"{self.prefix}.{call}", time.monotonic()
        try:
            msg = await self.nc.request(subject, payload, timeout=timeout)
        except nats.errors.NoRespondersError:
            raise Unavailable(
                f"{self.prefix} does not answer: JetStream is off, has no leader, or this is not its prefix"
            ) from None
        except nats.errors.TimeoutError:
            denials.require_permission(self.nc, subject, began)
            raise Unavailable(
                f"no answer to {call} within {timeout:g} s: the server is busy or the permission is missing"
            ) from None
        except nats.errors.OutboundBufferLimitError:
            raise Unavailable("not connected, and the buffer for later is full") from None
        try:
            return json.loads(msg.data)  # type: ignore[no-any-return]
        except ValueError:
            raise Unavailable(f"the answer to {call} is not JSON") from None

    async def streams(self, *, subject: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
        """All streams with configuration and state, and the names of those that did not answer (a node is down)."""
        found: list[dict[str, Any]] = []
        missing: list[str] = []
        while True:
            request: dict[str, Any] = {"offset": len(found)}
            if subject is not None:
                request["subject"] = subject
            answer = await self.api("STREAM.LIST", request)
            page = answer.get("streams") or []
            found += page
            missing += answer.get("missing") or []
            if not page or len(found) >= answer.get("total", 0):
                return found, missing

    async def stream_names(self, subject: str) -> list[str]:
        """Names of the streams that store `subject`."""
        return (await self.api("STREAM.NAMES", {"subject": subject})).get("streams") or []

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Configuration and state of a stream, None if there is none."""
        try:
            return await self.api(f"STREAM.INFO.{stream}")
        except APIError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        """Messages for each stored subject that matches `pattern`; read in the server's pages of 100,000."""
        found: dict[str, int] = {}
        while True:
            answer = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": len(found)})
            page = answer.get("state", {}).get("subjects") or {}
            before = len(found)
            found.update(page)
            if len(found) == before or len(found) >= answer.get("total", 0):
                return found

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """All consumers of a stream with configuration and state."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.api(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            page = answer.get("consumers") or []
            found += page
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Configuration and state of a consumer, None if there is none."""
        try:
            return await self.api(f"CONSUMER.INFO.{stream}.{consumer}")
        except APIError as error:
            if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise

    async def pause(
        self, stream: str, consumer: str, seconds: float, *, now: datetime | None = None
    ) -> datetime | None:
        """Suspend the deliveries of a consumer (server 2.11 or later); 0 seconds resumes them.

        Args:
            stream: Name of the stream.
            consumer: Its durable.
            seconds: How long.
            now: The server's clock, as a consumer's information tells it in `ts`; this machine's if omitted.

        Returns:
            Until when it is suspended, by the server's clock; None if it is not.
        """
        until = (now or datetime.now(UTC)) + timedelta(seconds=seconds)
        answer = await self.api(
            f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": format_time(until)} if seconds > 0 else {}
        )
        return until if seconds > 0 and answer.get("paused") else None

    # -- messages

    async def get(self, stream: str, seq: int) -> StoredMessage | None:
        """One message by sequence, from the stream's leader; None if it is not there."""
        return await self._get(stream, {"seq": seq})

    async def following(self, stream: str, seq: int, subject: str) -> StoredMessage | None:
        """The first message on `subject` from a sequence on, from the stream's leader; None if there is none."""
        return await self._get(stream, {"seq": seq, "next_by_subj": subject})

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message on `subject`, from the stream's leader; None if there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def read(
        self, stream: str, *, start: int = 1, limit: int = 100, subject: str | None = None, max_bytes: int = 4 << 20
    ) -> Page:
        """Read a page without a consumer: nothing is delivered, no counter moves.

        By one batch direct get, or by single gets where the stream does not allow it.

        Args:
            stream: Name of the stream.
            start: First sequence.
            limit: Messages at the most, up to `BATCH_MAX`.
            subject: Only messages on this subject, wildcards allowed.
            max_bytes: The server ends the page early past this size.

        Raises:
            Unavailable: No answer.
        """
        limit = max(1, min(limit, BATCH_MAX))
        request: dict[str, Any] = {"seq": max(1, start), "batch": limit, "max_bytes": max_bytes}
        if subject is not None:
            request["next_by_subj"] = subject
        page = await direct.batch(self.nc, f"{self.prefix}.DIRECT.GET.{stream}", request)
        if page is not None:
            return page
        found: list[StoredMessage] = []
        seq = request["seq"]
        while len(found) < limit:
            message = await self._get(stream, {"seq": seq, "next_by_subj": subject or ">"})
            if message is None:
                return Page(tuple(found), 0)
            found.append(message)
            seq = message.seq + 1
        return Page(tuple(found), -1)

    async def delete(self, stream: str, seq: int) -> bool:
        """Delete one message without overwriting its bytes; False if it was not there any more."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
        except APIError as error:
            # The server says 10057 for a message that is not there, and for a stream that denies deletes.
            if error.err_code in NO_MESSAGE and await self.get(stream, seq) is None:
                return False
            raise
        return True

    async def purge(
        self,
        stream: str,
        *,
        subject: str | None = None,
        up_to: int | None = None,
        keep: int | None = None,
        everything: bool = False,
    ) -> int:
        """Purge and return how many messages went.

        Args:
            stream: Name of the stream.
            subject: Only messages on this subject, wildcards allowed.
            up_to: Only sequences below this one.
            keep: Leave this many of the newest.
            everything: Must be said to purge without any of the other three.

        Raises:
            ValueError: No scope given, or `up_to` together with `keep` (the server refuses it).
        """
        if up_to is not None and keep is not None:
            raise ValueError("up_to and keep exclude each other")
        request: dict[str, Any] = {}
        if subject:
            request["filter"] = subject
        if up_to is not None:
            request["seq"] = up_to
        if keep is not None:
            request["keep"] = keep
        # The server reads an empty request, `seq: 0` and `keep: 0` alike as "all of it".
        if not any(request.values()) and not everything:
            raise ValueError("a purge without any limit empties the stream: say everything=True")
        answer = await self.api(f"STREAM.PURGE.{stream}", request, timeout=30.0)
        return int(answer.get("purged", 0))

    # -- publish

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Headers,
        *,
        stream: str | None = None,
        expect_empty_subject: bool = False,
        last_seq: int | None = None,
        timeout: float = 30.0,
        headroom: int = HEADROOM,
        insist: bool = True,
    ) -> PublishAck:
        """Publish and wait for the confirmation, repeating with the same headers until `timeout` seconds are over.

        Args:
            subject: A literal subject.
            body: The payload.
            headers: Encoded headers, or exact lines; with a `Nats-Msg-Id`, else a repetition may store it twice.
            stream: Stream that must store it.
            expect_empty_subject: Store only if the subject holds no message.
            last_seq: Store only if this is the newest sequence on the subject.
            timeout: Seconds until it gives up.
            headroom: Bytes to stay below the server's limit.
            insist: Repeat it after a silence even if the server may have been restarted, or is one of a cluster, and so
                may have forgotten the id of what was stored and consumed meanwhile.

        Raises:
            MessageTooLarge: Before anything is sent.
            InvalidMessage: A header cannot be sent; nothing was.
            UnknownDestination: No stream stores the subject, or not the expected one, or nobody can publish to it.
            QueueFull: The stream is at its limit.
            PermissionDenied: The server does not let this user publish there.
            Unavailable: Not confirmed; it may or may not be stored.
            APIError: Any other refusal, such as 10071 for an expectation that was not met.
        """
        return await publishing.publish(
            self, subject, body, headers, stream=stream, last_seq=0 if expect_empty_subject else last_seq,
            timeout=timeout, headroom=headroom, insist=insist,
        )  # fmt: skip

    # -- internals of reading

    async def _get(self, stream: str, request: Mapping[str, Any]) -> StoredMessage | None:
        try:
            raw = (await self.api(f"STREAM.MSG.GET.{stream}", request))["message"]
        except APIError as error:
            if error.err_code in (*NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        block = unbase64(raw.get("hdrs"))
        return StoredMessage(
            subject=raw["subject"],
            seq=raw["seq"],
            stored_ns=parse_time_ns(raw["time"]),
            headers=parse_headers(block),
            body=unbase64(raw.get("data")),
            header_block=block,
        )
