"""The NATS services protocol (ADR-32): who answers which requests, and how well.

`nats micro ls`, the console and every other tool of the protocol find a responder by asking `$SRV.PING`, `$SRV.INFO` or
`$SRV.STATS`, of all services, of those of one name, or of one instance. Nobody registers anywhere: who does not answer is
not there. A connection that may not subscribe to `$SRV` serves all the same, undiscovered.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.service import (
    EndpointInfo,
    EndpointStats,
    ServiceInfo,
    ServicePing,
    ServiceStats,
    ServiceVerb,
    control_subject,
)

QUEUE_GROUP = "q"
"""The protocol's usual queue group: of several instances one answers."""


@dataclass(slots=True)
class Endpoint:
    """One subject that is answered, and how that went."""

    method: str
    subject: str
    requests: int = 0
    """Requests that arrived, refused and late ones included."""
    errors: int = 0
    """Answers that were errors, 429 included."""
    last_error: str = ""
    """`<code>: <text>` of the newest of them."""
    processing_ns: int = 0
    """Nanoseconds in handlers, in total."""
    expired: int = 0
    """Requests that arrived after their deadline, or whose handler passed it: not answered."""
    busy: int = 0
    """Requests refused with 429."""

    @property
    def name(self) -> str:
        """The method as the protocol allows it, which knows no dots."""
        return self.method.replace(".", "_")

    def info(self) -> EndpointInfo:
        """What `$SRV.INFO` says of it."""
        return EndpointInfo(self.name, self.subject, QUEUE_GROUP, {"method": self.method})

    def stats(self) -> EndpointStats:
        """What `$SRV.STATS` says of it."""
        return EndpointStats(
            name=self.name,
            subject=self.subject,
            queue_group=QUEUE_GROUP,
            num_requests=self.requests,
            num_errors=self.errors,
            processing_time=self.processing_ns,
            average_processing_time=self.processing_ns // self.requests if self.requests else 0,
            last_error=self.last_error,
            data={"expired": self.expired, "busy": self.busy},
        )


class Service:
    """Answers the discovery of one responder.

    Args:
        nc: The connection.
        name: Shared by all instances; letters, digits, `_` and `-`.
        description: One line for people.
        metadata: What tools may show.
        endpoints: Asked at each question, so that it may grow.
        may_answer_to: Whether an answer may go to a reply subject.
    """

    def __init__(
        self,
        nc: Client,
        *,
        name: str,
        description: str,
        metadata: Mapping[str, str],
        endpoints: Callable[[], Sequence[Endpoint]],
        may_answer_to: Callable[[str], bool],
    ) -> None:
        self._nc = nc
        self.name = name
        self.id = secrets.token_hex(11)
        self._description = description
        self._metadata = dict(metadata)
        self._endpoints = endpoints
        self._may_answer_to = may_answer_to
        # The protocol's records want a time without zone that means UTC.
        self._started = datetime.now(UTC).replace(tzinfo=None)

    async def listen(self) -> list[Subscription]:
        """Subscribe to the nine control subjects; whoever called ends the subscriptions."""
        answers: dict[ServiceVerb, Callable[[], dict[str, Any]]] = {
            ServiceVerb.PING: self._ping,
            ServiceVerb.INFO: self._info,
            ServiceVerb.STATS: self._stats,
        }
        return [
            await self._nc.subscribe(control_subject(verb, name, instance), cb=self._answering(answer))
            for verb, answer in answers.items()
            for name, instance in ((None, None), (self.name, None), (self.name, self.id))
        ]

    def _answering(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Msg], Awaitable[None]]:
        async def respond(msg: Msg) -> None:
            if msg.reply and self._may_answer_to(msg.reply) and self._nc.is_connected:
                # Msg.respond() would echo the headers of whoever asks.
                await self._nc.publish(msg.reply, json.dumps(answer()).encode())

        return respond

    def _ping(self) -> dict[str, Any]:
        return ServicePing(self.id, self.name, library_version(), self._metadata).to_dict()

    def _info(self) -> dict[str, Any]:
        return ServiceInfo(
            name=self.name,
            id=self.id,
            version=library_version(),
            description=self._description,
            endpoints=[endpoint.info() for endpoint in self._endpoints()],
            metadata=self._metadata,
        ).to_dict()

    def _stats(self) -> dict[str, Any]:
        return ServiceStats(
            id=self.id,
            name=self.name,
            version=library_version(),
            started=self._started,
            endpoints=[endpoint.stats() for endpoint in self._endpoints()],
            metadata=self._metadata,
        ).to_dict()


@lru_cache
def library_version() -> str:
    """Version of this distribution, as the protocol demands one of every service."""
    try:
        return version("nats-agent-console")
    except PackageNotFoundError:
        return "0.0.0"
