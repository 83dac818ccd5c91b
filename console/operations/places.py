"""Where a plan acts: a stream, what may be done to it, and whether what is sent somewhere is stored there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from console.operations.errors import OperationError, Refused, UsageError
from console.operations.ledger import TO_BE_MADE, JobRecord, identity_of
from console.operations.plan import FASTEST, SLOWEST
from console.rights import Rights, rights_of
from console.text.safe import clean
from patterns import Fleet


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as a plan finds it."""

    name: str
    identity: str
    config: dict[str, Any]
    state: dict[str, Any]

    @classmethod
    async def of(cls, fleet: Fleet, name: str) -> Stream | None:
        """Read it; None if there is none."""
        info = await fleet.jetstream.stream_info(name)
        if info is None:
            return None
        return cls(name, identity_of(name, str(info.get("created", ""))), info["config"], info["state"])


async def require_removable(fleet: Fleet, stream: Stream, *, purge: bool) -> None:
    """Raise Refused if messages cannot, or should not, be removed from a stream one by one.

    Args:
        fleet: The connection.
        stream: The stream.
        purge: Whether it is a purge: what denies purges must not lose its messages one by one instead.
    """
    flags = ("sealed", "deny_delete", "deny_purge") if purge else ("sealed", "deny_delete")
    forbidden = next((flag for flag in flags if stream.config.get(flag)), None)
    if forbidden:
        raise Refused(f"stream {clean(stream.name)} is configured with {forbidden}: nothing can be removed from it")
    subject = f"{fleet.jetstream.prefix}.STREAM.MSG.DELETE.{stream.name}"
    if not (await rights_of(fleet)).may_publish(subject):
        raise Refused(f"these credentials may not delete messages: they need publish to {clean(subject)}")
    if stream.name == fleet.dead_letters.stream:
        receipt = fleet.burials.receipts.subject("resolved.inbox.any.1-1")
        if not (await rights_of(fleet)).may_publish(receipt):
            raise Refused(f"these credentials may not close a dead letter: they need publish to {clean(receipt)}")


async def require_home(fleet: Fleet, record: JobRecord) -> None:
    """Raise OperationError unless a job's stream is the very one it was planned on."""
    stream = await Stream.of(fleet, record.stream)
    identity = stream.identity if stream is not None else ""
    if record.action in ("pause", "resume"):
        identity = identity_of(f"{record.stream} {record.spec.get('durable', '')}", identity)
    if identity != record.identity and not record.identity.endswith(TO_BE_MADE):
        raise OperationError(
            f"job {record.id} belongs to another server or to an earlier stream {clean(record.stream)}: connect to its own"
        )


def require_rate(rate: float | None) -> None:
    """Raise UsageError unless a rate is one a job can keep."""
    if rate is not None and not SLOWEST <= rate <= FASTEST:
        raise UsageError(f"rate {rate:g} is out of range: {SLOWEST:g} to {FASTEST:g} messages a second, or --uncapped")


class Destinations:
    """Whether subjects are stored and may be published to, each asked once."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[str, tuple[str, str]] = {}
        self._guarded: dict[str, bool] = {}
        self._rights: Rights | None = None
        self._asking = asyncio.Lock()
        """Many items begin at once; one of them asks."""

    async def problem(self, subject: str) -> str:
        """Why nothing can be sent there; empty if it can."""
        return (await self._look(subject))[0]

    async def stream(self, subject: str) -> str:
        """The stream that stores it; empty if there is none."""
        return (await self._look(subject))[1]

    async def guarded(self, subject: str) -> bool:
        """Whether consumers there drop the second copy of a replay."""
        stream = await self.stream(subject)
        async with self._asking:
            if stream in self._guarded:
                return self._guarded[stream]
            self._guarded[stream] = bool(stream) and await self._fleet.dead_letters.guarded(stream)
        return self._guarded[stream]

    async def _look(self, subject: str) -> tuple[str, str]:
        async with self._asking:
            if subject not in self._known:
                self._known[subject] = await self._ask(subject)
        return self._known[subject]

    async def _ask(self, subject: str) -> tuple[str, str]:
        tokens = subject.split(".")
        if any(not token or token in ("*", ">") or not token.isprintable() or " " in token for token in tokens):
            return "not a subject one can publish to", ""
        streams = await self._fleet.jetstream.stream_names(subject)
        if not streams:
            return "vanished, no stream stores it", ""
        if len(streams) > 1:
            return "more than one stream stores it", ""
        if self._rights is None:
            self._rights = await rights_of(self._fleet)
        if not self._rights.may_publish(subject):
            return "no permission to publish there", streams[0]
        return "", streams[0]
