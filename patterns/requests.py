"""Request/reply: ask an agent, or any member of a role, for a fact and wait for it.

Core NATS, at most once, nothing stored. `NoResponders` means provably not processed; `RequestTimeout` means the outcome is
unknown. Not for work beyond some 30 seconds or that must survive a restart: that is a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from patterns import names
from patterns.errors import (
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NoResponders,
    Reject,
    RemoteError,
    RequestError,
    RequestTimeout,
)
from patterns.jetstream import HEADROOM
from patterns.message import CE_SOURCE, Message, decode, encode, escape, handling, header_size, unescape

if TYPE_CHECKING:
    from typing import Self

    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

SERVICE_ERROR = "Nats-Service-Error"
SERVICE_ERROR_CODE = "Nats-Service-Error-Code"
REMEMBERED = 1024
"""Last good answers kept for `stale_for`."""


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"


RAISE: Final = _Raise()
"""No fallback: the error is raised."""

Fallback = Any | Callable[[RequestError], Any]
RequestHandler = Callable[[Message], Awaitable[Any]]
"""A coroutine function of the request; what it returns is the answer's data."""


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


@dataclass(slots=True)
class ResponderStats:
    """Counters of one responder."""

    requests: int = 0
    errors: int = 0
    expired: int = 0
    """Requests that arrived after their deadline and were skipped."""
    busy: int = 0
    """Requests refused with 429."""
    processing_time: float = 0.0
    """Seconds in handlers, in total."""


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
        size, most = len(outgoing.body) + header_size(outgoing.headers), self._fleet.nc.max_payload - HEADROOM
        if size > most:
            raise MessageTooLarge(f"{size} bytes of body and headers, the server takes {most}")
        key, started = (subject, outgoing.body), time.monotonic()
        try:
            answer = await self._ask(subject, outgoing.body, outgoing.headers, wait, attempts)
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
        self._answers[key] = (time.monotonic(), answer.data, answer.source)
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return Reply(answer.data, "live", answer.source, time.monotonic() - started, None)

    def responder(self, agent_id: str, *, role: str | None = None, concurrency: int | None = None) -> Responder:
        """A responder for an agent and, if given, its role; an async context manager."""
        return Responder(
            self._fleet, agent_id, role=role, concurrency=concurrency or self._fleet.config.requests.concurrency
        )

    async def _ask(self, subject: str, body: bytes, headers: dict[str, str], timeout: float, attempts: int) -> Message:
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
            answer = decode(subject, msg.headers, msg.data, names=self._fleet.names)
            code = (msg.headers or {}).get(SERVICE_ERROR_CODE)
            if code is not None:
                description = unescape((msg.headers or {}).get(SERVICE_ERROR, ""))
                raise RemoteError(int(code) if code.isascii() and code.isdigit() else 500, description, answer.data)
            return answer
        raise NoResponders(f"nobody answers on {subject!r}")


class Responder:
    """Answers the requests to one agent (and its role), each in a task of its own.

    Args:
        fleet: The connection.
        agent_id: Who answers.
        role: Role whose requests it shares with the other members.
        concurrency: Requests at a time; beyond that 429 at once, never a silent queue.
    """

    def __init__(self, fleet: Fleet, agent_id: str, *, role: str | None = None, concurrency: int = 16) -> None:
        self._fleet = fleet
        self.agent_id = names.agent_id(agent_id)
        self.role = role
        self.concurrency = concurrency
        self.stats = ResponderStats()
        self._handlers: dict[str, RequestHandler] = {}
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, method: str, handler: RequestHandler) -> None:
        """Answer `method` with `handler`."""
        self._handlers[names.dotted(method, "method")] = handler

    async def __aenter__(self) -> Self:
        for subject in self._fleet.names.rpc_wildcards(self.agent_id, self.role):
            self._subscriptions.append(await self._fleet.nc.subscribe(subject, queue="q", cb=self._receive))
        # Without this a request sent right after could still find nobody listening.
        # Twice: nats-py writes the PING of a flush past commands that wait for its flusher, so only the second follows them.
        await self._fleet.nc.flush(timeout=5)
        await self._fleet.nc.flush(timeout=5)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for subscription in self._subscriptions:
            if not self._fleet.nc.is_closed:
                await subscription.unsubscribe()
        self._subscriptions.clear()
        if self._running:
            await asyncio.wait(self._running, timeout=self._fleet.config.drain_grace)
        for task in self._running:
            task.cancel()

    async def _receive(self, msg: Msg) -> None:
        # nats-py runs callbacks one after another: a handler awaited here would serve one request at a time.
        self.stats.requests += 1
        request = decode(msg.subject, msg.headers, msg.data, names=self._fleet.names)
        if request.expired():
            self.stats.expired += 1
            return
        if len(self._running) >= self.concurrency:
            self.stats.busy += 1
            await self._refuse(msg, 429, f"busy: {self.concurrency} requests in work")
            return
        task = asyncio.create_task(self._serve(msg, request), name=f"rpc {msg.subject}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, msg: Msg, request: Message) -> None:
        started = time.monotonic()
        handler = self._handlers.get(self._fleet.names.type_of(msg.subject))
        try:
            if request.problem is not None:
                await self._refuse(msg, 400, request.problem)
            elif handler is None:
                await self._refuse(msg, 404, f"{self.agent_id} has no handler for {request.type!r}")
            else:
                await self._answer(msg, request, handler)
        except (nats.errors.Error, OSError) as error:
            log.warning("answer on %s not sent: %s", msg.subject, error)
        finally:
            self.stats.processing_time += time.monotonic() - started

    async def _answer(self, msg: Msg, request: Message, handler: RequestHandler) -> None:
        left = None if request.expires_at is None else (request.expires_at.timestamp() - time.time())
        deadline = asyncio.timeout(left)
        try:
            with handling(request):
                async with deadline:
                    result = await handler(request)
                outgoing = encode(request.type, result, source=self.agent_id)
        except Reject as error:
            await self._refuse(msg, 422, error.reason)
            return
        except InvalidMessage as error:
            await self._refuse(msg, 500, f"InvalidMessage: {error}")
            return
        except Exception as error:  # whatever a handler raises is the caller's 500, without a trace
            if deadline.expired():
                # Nobody waits any more; an answer now would only surprise.
                self.stats.expired += 1
                return
            log.warning("%s failed on %s: %s: %s", self.agent_id, msg.subject, type(error).__name__, error)
            await self._refuse(msg, 500, f"{type(error).__name__}: {error}")
            return
        size = len(outgoing.body) + header_size(outgoing.headers)
        if size > self._fleet.nc.max_payload:
            await self._refuse(
                msg, 500, f"MessageTooLarge: answer of {size} bytes, the server takes {self._fleet.nc.max_payload}"
            )
            return
        await self._send(msg, outgoing.body, outgoing.headers)

    async def _refuse(self, msg: Msg, code: int, description: str) -> None:
        self.stats.errors += code != 429
        body = json.dumps({"code": code, "error": description[:512]}).encode()
        headers = {
            SERVICE_ERROR_CODE: str(code),
            SERVICE_ERROR: escape(description[:512]) or "error",
            CE_SOURCE: f"agents/{self.agent_id}",
        }
        await self._send(msg, body, headers)

    async def _send(self, msg: Msg, body: bytes, headers: Mapping[str, str]) -> None:
        if msg.reply:
            # Msg.respond() would echo the request's own headers, an Authorization header included.
            with contextlib.suppress(nats.errors.ConnectionClosedError):
                await self._fleet.nc.publish(msg.reply, body, headers=dict(headers))
