"""Request/reply: ask an agent, or any member of a role, for a fact and wait for it.

Core NATS, at most once, nothing stored. `NoResponders` means provably not processed; `RequestTimeout` means the outcome is
unknown. Not for work beyond some 30 seconds or that must survive a restart: that is a task.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import nats.errors

from patterns.errors import (
    InvalidName,
    MessageTooLarge,
    NoResponders,
    RemoteError,
    RequestError,
    RequestTimeout,
)
from patterns.headers import header_size, unescape
from patterns.message import (
    CE_CONTENT_TYPE,
    CE_CORRELATION,
    CE_TIME,
    JSON_TYPE,
    MSG_ID,
    decode_answer,
    encode,
)
from patterns.publishing import HEADROOM
from patterns.responder import SERVICE_ERROR, SERVICE_ERROR_CODE, Responder

if TYPE_CHECKING:
    from patterns.fleet import Fleet

REMEMBERED = 1024
"""Last good answers kept for `stale_for`."""


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"


RAISE: Final = _Raise()
"""No fallback: the error is raised."""

Fallback = Any | Callable[[RequestError], Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that says how far it can be trusted."""

    data: Any
    source: Literal["live", "stale", "fallback"]
    """`live`: answered now. `stale`: the last good answer, no older than `stale_for`. `fallback`: the caller's own."""
    responder: str
    """Agent that answered; empty for a fallback."""
    latency: float
    """Seconds from request to answer."""
    error: RequestError | None
    """Why it is not live."""


class Requests:
    """Requests and responders of a fleet.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._answers: OrderedDict[tuple[str, bytes], tuple[float, Any, str]] = OrderedDict()

    async def request(
        self,
        method: str,
        data: Any = None,
        *,
        to: str | None = None,
        role: str | None = None,
        timeout: float | None = None,
        attempts: int = 1,
        fallback: Fallback = RAISE,
        stale_for: float = 0.0,
        source: str | None = None,
    ) -> Reply:
        """Ask and wait.

        Args:
            method: 1 to 8 tokens joined by dots.
            data: JSON data or bytes.
            to: An agent; or
            role: any member of a role.
            timeout: Seconds to wait; None takes the configured ones. It travels with the request: a late one is skipped.
            attempts: More than 1 repeats after `NoResponders` only, never after a timeout.
            fallback: A value, or a function (plain or coroutine) of the error that returns one, instead of the error.
            stale_for: Seconds for which the last good answer to the same question is better than the fallback.
            source: Id of the asking agent.

        Raises:
            NoResponders, RequestTimeout, RemoteError: Without a fallback and a fresh enough answer.
            InvalidName, InvalidMessage, MessageTooLarge: Before anything is sent.
        """
        if (to is None) == (role is None):
            raise InvalidName("a request goes either to an agent (to=) or to a role (role=)")
        subject = (
            self._fleet.names.rpc_subject(to, method)
            if to is not None
            else self._fleet.names.role_rpc_subject(role or "", method)
        )
        wait = self._fleet.config.requests.timeout if timeout is None else timeout
        outgoing = encode(method, data, source=source, expires_in=wait)
        # Nothing stores a request: nothing de-duplicates it or asks when it was made, and what goes without saying is not
        # said (JSON; a conversation that begins here has this id). Each header has its price.
        headers = outgoing.headers
        del headers[MSG_ID], headers[CE_TIME]
        if headers[CE_CONTENT_TYPE] == JSON_TYPE:
            del headers[CE_CONTENT_TYPE]
        if headers[CE_CORRELATION] == outgoing.id:
            del headers[CE_CORRELATION]
        size, most = len(outgoing.body) + header_size(outgoing.headers), self._fleet.nc.max_payload - HEADROOM
        if size > most:
            raise MessageTooLarge(f"{size} bytes of body and headers, the server takes {most}")
        key, started = (subject, outgoing.body), time.monotonic()
        try:
            answer, responder = await self._ask(subject, outgoing.body, outgoing.headers, wait, attempts)
        except RequestError as error:
            remembered = self._answers.get(key)
            if remembered is not None and time.monotonic() - remembered[0] <= stale_for:
                return Reply(remembered[1], "stale", remembered[2], time.monotonic() - started, error)
            if isinstance(fallback, _Raise):
                raise
            value = fallback(error) if callable(fallback) else fallback
            if inspect.isawaitable(value):
                value = await value
            return Reply(value, "fallback", "", time.monotonic() - started, error)
        self._answers[key] = (time.monotonic(), answer, responder)
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return Reply(answer, "live", responder, time.monotonic() - started, None)

    def responder(self, agent_id: str, *, role: str | None = None, concurrency: int | None = None) -> Responder:
        """A responder for an agent and, if given, its role; an async context manager."""
        return Responder(
            self._fleet, agent_id, role=role, concurrency=concurrency or self._fleet.config.requests.concurrency
        )

    async def _ask(
        self, subject: str, body: bytes, headers: dict[str, str], timeout: float, attempts: int
    ) -> tuple[Any, str]:
        deadline = time.monotonic() + timeout
        for attempt in range(max(1, attempts)):
            try:
                msg = await self._fleet.nc.request(
                    subject, body, timeout=max(0.001, deadline - time.monotonic()), headers=headers
                )
            except nats.errors.NoRespondersError:
                if attempt + 1 >= attempts or time.monotonic() + 0.1 >= deadline:
                    raise NoResponders(f"nobody answers on {subject!r}") from None
                await asyncio.sleep(0.1)
                continue
            except (nats.errors.TimeoutError, nats.errors.OutboundBufferLimitError):
                raise RequestTimeout(
                    f"no answer on {subject!r} within {timeout:g} s; it may still be worked on"
                ) from None
            said = msg.headers or {}
            data, responder = decode_answer(said, msg.data)
            code = said.get(SERVICE_ERROR_CODE)
            if code is not None:
                description = unescape(said.get(SERVICE_ERROR, ""))
                raise RemoteError(int(code) if code.isascii() and code.isdigit() else 500, description, data)
            return data, responder
        raise NoResponders(f"nobody answers on {subject!r}")
