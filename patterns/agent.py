"""The facade an agent's author uses: decorators for what it answers, and verbs for what it says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from patterns import names
from patterns.consumer import Consumer, Handler
from patterns.delivery import Delivery
from patterns.errors import InvalidName
from patterns.message import Receipt
from patterns.requests import RAISE, Fallback, Reply
from patterns.responder import RequestHandler, Responder

if TYPE_CHECKING:
    from typing import Self

    from patterns.fleet import Fleet

log = logging.getLogger("patterns")


class _OwnInbox:
    def __repr__(self) -> str:
        return "OWN_INBOX"


OWN_INBOX: Final = _OwnInbox()
"""The outcome of a submitted task goes to the submitter's inbox."""


class Agent:
    """One agent: the same name is its inbox, its RPC address, its member in a role and the source of its events.

    Register handlers, then `async with agent:` starts them and leaving stops them gracefully.

    Args:
        fleet: The connection.
        agent_id: Its id.
        role: The role group it works for.
        concurrency: Tasks at a time; an inbox is always handled one at a time.
    """

    def __init__(self, fleet: Fleet, agent_id: str, *, role: str | None = None, concurrency: int = 1) -> None:
        self.fleet = fleet
        self.id = names.agent_id(agent_id)
        self.role = None if role is None else names.role_id(role)
        self.concurrency = concurrency
        self._requests: dict[str, RequestHandler] = {}
        self._tasks: dict[str, Handler] = {}
        self._messages: dict[str, Handler] = {}
        self._events: list[tuple[tuple[str, ...], str, Handler]] = []
        self._consumers: list[Consumer] = []
        self._loops: list[asyncio.Task[None]] = []
        self._responder: Responder | None = None

    # -- saying

    async def request(
        self,
        to: str | None = None,
        method: str = "",
        data: Any = None,
        *,
        role: str | None = None,
        timeout: float | None = None,
        fallback: Fallback = RAISE,
        attempts: int = 1,
        stale_for: float = 0.0,
    ) -> Reply:
        """Ask an agent, or with `role=` any member of a role; see `Requests.request`."""
        return await self.fleet.requests.request(
            method, data, to=to, role=role, timeout=timeout, fallback=fallback, attempts=attempts,
            stale_for=stale_for, source=self.id
        )  # fmt: skip

    async def submit(
        self,
        role: str,
        type: str,
        data: Any = None,
        *,
        id: str | None = None,
        expires_in: float | None = None,
        reply_to: str | _OwnInbox | None = OWN_INBOX,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Queue a task for a role; its outcome arrives in the own inbox as `task.completed` or `task.failed`.

        `reply_to` names another subject prefix for the outcome; None asks for none. See `TaskQueue.submit`.
        """
        prefix = self.fleet.names.inbox_prefix(self.id) if isinstance(reply_to, _OwnInbox) else reply_to
        return await self.fleet.tasks(role).submit(
            type, data, id=id, expires_in=expires_in, reply_to=prefix, headers=headers, source=self.id
        )

    async def send(
        self,
        to: str,
        type: str,
        data: Any = None,
        *,
        id: str | None = None,
        expires_in: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Put a message into another agent's inbox; see `Inbox.send`."""
        return await self.fleet.inbox(to).send(
            type, data, id=id, expires_in=expires_in, headers=headers, source=self.id
        )

    async def broadcast(
        self, topic: str, data: Any = None, *, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        """Tell everybody who cares; see `EventBus.broadcast`."""
        return await self.fleet.events.broadcast(topic, data, id=id, headers=headers, source=self.id)

    # -- hearing

    def on_request(self, method: str) -> Callable[[RequestHandler], RequestHandler]:
        """Decorator: answer requests for `method`."""
        names.dotted(method, "method")

        def register(handler: RequestHandler) -> RequestHandler:
            self._requests[method] = handler
            return handler

        return register

    def on_task(self, type: str = ">") -> Callable[[Handler], Handler]:
        """Decorator: work on the role's tasks whose type matches; the most specific filter wins.

        Raises:
            InvalidName: The agent has no role, or `type` is malformed.
        """
        if self.role is None:
            raise InvalidName(f"agent {self.id!r} has no role to take tasks for: fleet.agent({self.id!r}, role=...)")
        return self._register(self._tasks, type)

    def on_message(self, type: str = ">") -> Callable[[Handler], Handler]:
        """Decorator: handle inbox messages whose type matches; the most specific filter wins."""
        return self._register(self._messages, type)

    def on_event(self, *topics: str, name: str = "events") -> Callable[[Handler], Handler]:
        """Decorator: a durable subscription to events; `name` tells several of one agent apart."""
        checked = names.topic_filters(topics)
        names.subscription_name(name)
        if any(name == taken for _, taken, _ in self._events):
            raise InvalidName(f"agent {self.id!r} has a subscription {name!r} already: give the second one a name=")

        def register(handler: Handler) -> Handler:
            self._events.append((checked, name, handler))
            return handler

        return register

    async def next_task(self, timeout: float = 30.0) -> Delivery | None:
        """Take one task of the role, or None; settle it by `async with`.

        Raises:
            InvalidName: The agent has no role.
        """
        if self.role is None:
            raise InvalidName(f"agent {self.id!r} has no role to take tasks for: fleet.agent({self.id!r}, role=...)")
        return await self.fleet.tasks(self.role).next(self.id, timeout)

    async def next_message(self, timeout: float = 30.0) -> Delivery | None:
        """Take one message of the inbox, or None; settle it by `async with`."""
        return await self.fleet.inbox(self.id).next(timeout)

    # -- living

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await asyncio.shield(self.stop(0))
            raise
        return self

    async def _begin(self) -> None:
        # A responder first: a task this agent takes may need it.
        if self._requests:
            self._responder = self.fleet.requests.responder(self.id, role=self.role)
            for method, answer in self._requests.items():
                self._responder.handle(method, answer)
            await self._responder.__aenter__()
        for topics, name, handler in self._events:
            self._start(await self.fleet.events.subscription(self.id, *topics, name=name), handler)
        if self._messages:
            self._start_routed(self.fleet.inbox(self.id).consumer(), self._messages)
        if self._tasks and self.role is not None:
            self._start_routed(self.fleet.tasks(self.role).worker(self.id, concurrency=self.concurrency), self._tasks)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self, grace: float | None = None) -> None:
        """Stop taking work, wait for what runs, hand back the rest.

        Args:
            grace: Seconds for running handlers; None takes the configured ones.
        """
        consumers, self._consumers = self._consumers, []
        await asyncio.gather(*(consumer.stop(grace) for consumer in consumers), return_exceptions=True)
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        responder, self._responder = self._responder, None
        if responder is not None:
            await responder.__aexit__(None, None, None)

    async def run(self) -> None:
        """Live until SIGINT or SIGTERM (or cancellation), then stop gracefully."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(
                NotImplementedError, RuntimeError, ValueError
            ):  # not on Windows, not off the main thread
                loop.add_signal_handler(number, ended.set)
        async with self:
            waiting = asyncio.create_task(ended.wait(), name=f"{self.id} until told")
            try:
                # A loop ends by itself only when the connection is closed for good: then there is nothing to live for.
                done, _ = await asyncio.wait([waiting, *self._loops], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            for loop_task in done - {waiting}:
                loop_task.result()

    def _start(self, consumer: Consumer, handler: Handler) -> None:
        self._consumers.append(consumer)
        loop = asyncio.create_task(consumer.run(handler), name=f"{self.id} {consumer.lane.durable}")
        loop.add_done_callback(_report)
        self._loops.append(loop)

    def _start_routed(self, consumer: Consumer, handlers: dict[str, Handler]) -> None:
        def find(type: str) -> Handler | None:
            matching = [pattern for pattern in handlers if names.subject_matches(pattern, type)]
            return handlers[max(matching, key=_specificity)] if matching else None

        async def route(delivery: Delivery) -> Any:
            handler = find(delivery.type)
            return None if handler is None else await handler(delivery)

        consumer.accepts = lambda given: find(given) is not None
        self._start(consumer, route)

    @staticmethod
    def _register(table: dict[str, Handler], type: str) -> Callable[[Handler], Handler]:
        names.topic_filter(type)
        if type in table:
            raise InvalidName(f"type filter {type!r} has a handler already")

        def register(handler: Handler) -> Handler:
            table[type] = handler
            return handler

        return register


def _specificity(pattern: str) -> tuple[int, int, int]:
    tokens = pattern.split(".")
    return (-(tokens[-1] == ">"), -tokens.count("*"), len(tokens))


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended: %s: %s", task.get_name(), type(error).__name__, error)
