"""The answering side of request/reply: each request in a task of its own, never a silent queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from patterns import names
from patterns.errors import InvalidMessage, Reject
from patterns.headers import encodable, escape, header_size
from patterns.interest import registered, withdraw
from patterns.message import CE_SOURCE, Message, decode, encode_answer, handling
from patterns.services import QUEUE_GROUP, Endpoint, Service

if TYPE_CHECKING:
    from typing import Self

    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

SERVICE_ERROR = "Nats-Service-Error"
SERVICE_ERROR_CODE = "Nats-Service-Error-Code"

RequestHandler = Callable[[Message], Awaitable[Any]]
"""A coroutine function of the request; what it returns is the answer's data."""


@dataclass(frozen=True, slots=True)
class ResponderStats:
    """Counters of one responder, all its methods together."""

    requests: int
    errors: int
    """Answers that were errors, 429 included."""
    expired: int
    """Requests that arrived after their deadline, or whose handler passed it: not answered."""
    busy: int
    """Requests refused with 429."""
    processing_time: float
    """Seconds in handlers, in total."""


class Responder:
    """Answers the requests to one agent (and its role), and says so to the NATS services protocol.

    An async context manager. Leaving it takes no new requests, answers those that were on their way, and cancels what
    still runs after the configured grace.

    Args:
        fleet: The connection.
        agent_id: Who answers.
        role: Role whose requests it shares with the other members.
        concurrency: Requests at a time; beyond that 429 at once.
    """

    def __init__(self, fleet: Fleet, agent_id: str, *, role: str | None = None, concurrency: int = 16) -> None:
        self._fleet = fleet
        self.agent_id = names.agent_id(agent_id)
        self.role = None if role is None else names.role_id(role)
        self.concurrency = concurrency
        self._handlers: dict[str, RequestHandler] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._strays = Endpoint("", "")
        """Requests for methods that nobody handles."""
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, method: str, handler: RequestHandler) -> None:
        """Answer `method` with `handler`."""
        self._handlers[names.dotted(method, "method")] = handler
        subjects = [self._fleet.names.rpc_subject(self.agent_id, method)]
        if self.role is not None:
            subjects.append(self._fleet.names.role_rpc_subject(self.role, method))
        for subject in subjects:
            self._endpoints.setdefault(subject, Endpoint(method, subject))

    @property
    def stats(self) -> ResponderStats:
        """What it did so far."""
        every = [*self._endpoints.values(), self._strays]
        return ResponderStats(
            requests=sum(endpoint.requests for endpoint in every),
            errors=sum(endpoint.errors for endpoint in every),
            expired=sum(endpoint.expired for endpoint in every),
            busy=sum(endpoint.busy for endpoint in every),
            processing_time=sum(endpoint.processing_ns for endpoint in every) / 1e9,
        )

    async def __aenter__(self) -> Self:
        nc = self._fleet.nc
        for subject in self._fleet.names.rpc_wildcards(self.agent_id, self.role):
            self._subscriptions.append(await nc.subscribe(subject, queue=QUEUE_GROUP, cb=self._receive))
        self._subscriptions += await self._service().listen()
        await registered(nc)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            await withdraw(self._fleet.nc, subscriptions)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.debug("%s: requests on their way may go unanswered: %s", self.agent_id, error)
        if self._running:
            await asyncio.wait(self._running, timeout=self._fleet.config.drain_grace)
        for task in self._running:
            task.cancel()

    def _service(self) -> Service:
        metadata = {"agent": self.agent_id, "concurrency": str(self.concurrency)}
        if self.role is not None:
            metadata["role"] = self.role
        if self._fleet.names.org is not None:
            metadata["org"] = self._fleet.names.org
        return Service(
            self._fleet.nc,
            name=self._fleet.names.service(self.agent_id),
            description=f"agent {self.agent_id}" + (f", role {self.role}" if self.role is not None else ""),
            metadata=metadata,
            endpoints=lambda: list(self._endpoints.values()),
            may_answer_to=self._fleet.names.may_answer_to,
        )

    # -- one request

    async def _receive(self, msg: Msg) -> None:
        # nats-py runs callbacks one after another: a handler awaited here would serve one request at a time.
        endpoint = self._endpoints.get(msg.subject, self._strays)
        endpoint.requests += 1
        if not self._fleet.names.may_answer_to(msg.reply):
            log.warning("request on %s not answered: its reply subject is %r", msg.subject, msg.reply)
            return
        request = decode(msg.subject, msg.headers, msg.data, names=self._fleet.names)
        if request.expired():
            endpoint.expired += 1
            return
        if len(self._running) >= self.concurrency:
            endpoint.busy += 1
            await self._refuse(msg, endpoint, 429, f"busy: {self.concurrency} requests in work")
            return
        task = asyncio.create_task(self._serve(msg, request, endpoint), name=f"rpc {msg.subject}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, msg: Msg, request: Message, endpoint: Endpoint) -> None:
        started = time.perf_counter_ns()
        handler = self._handlers.get(self._fleet.names.type_of(msg.subject))
        try:
            if request.problem is not None:
                await self._refuse(msg, endpoint, 400, request.problem)
            elif handler is None:
                await self._refuse(msg, endpoint, 404, f"{self.agent_id} has no handler for {request.type!r}")
            else:
                await self._answer(msg, request, endpoint, handler)
        except (nats.errors.Error, OSError) as error:
            log.warning("answer on %s not sent: %s", msg.subject, error)
        finally:
            endpoint.processing_ns += time.perf_counter_ns() - started

    async def _answer(self, msg: Msg, request: Message, endpoint: Endpoint, handler: RequestHandler) -> None:
        left = None if request.expires_at is None else (request.expires_at.timestamp() - time.time())
        deadline = asyncio.timeout(left)
        try:
            with handling(request):
                async with deadline:
                    result = await handler(request)
                body, headers = encode_answer(result, source=self.agent_id)
        except Reject as error:
            await self._refuse(msg, endpoint, 422, error.reason)
            return
        except InvalidMessage as error:
            await self._refuse(msg, endpoint, 500, f"InvalidMessage: {error}")
            return
        except Exception as error:  # whatever a handler raises is the caller's 500, without a trace
            if deadline.expired():
                # Nobody waits any more; an answer now would only surprise.
                endpoint.expired += 1
                return
            log.warning("%s failed on %s: %s: %s", self.agent_id, msg.subject, type(error).__name__, error)
            await self._refuse(msg, endpoint, 500, f"{type(error).__name__}: {error}")
            return
        size = len(body) + header_size(headers)
        if size > self._fleet.nc.max_payload:
            await self._refuse(
                msg,
                endpoint,
                500,
                f"MessageTooLarge: answer of {size} bytes, the server takes {self._fleet.nc.max_payload}",
            )
            return
        await self._send(msg, body, headers)

    async def _refuse(self, msg: Msg, endpoint: Endpoint, code: int, description: str) -> None:
        endpoint.errors += 1
        endpoint.last_error = encodable(f"{code}: {description[:512]}")
        body = json.dumps({"code": code, "error": description[:512]}).encode()
        headers = {
            SERVICE_ERROR_CODE: str(code),
            SERVICE_ERROR: escape(description[:512]) or "error",
            CE_SOURCE: f"agents/{self.agent_id}",
        }
        await self._send(msg, body, headers)

    async def _send(self, msg: Msg, body: bytes, headers: dict[str, str]) -> None:
        if msg.reply and self._fleet.names.may_answer_to(msg.reply):
            # Msg.respond() would echo the request's own headers, an Authorization header included.
            with contextlib.suppress(nats.errors.ConnectionClosedError):
                await self._fleet.nc.publish(msg.reply, body, headers=headers)
