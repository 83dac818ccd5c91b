"""The two ways of asking for everything at once.

Measured with 5,000 agents, a third of them with messages: STREAM.LIST in pages 25 ms, the consumers of the non-empty
streams 75 ms more, one JSZ of the system account 94 ms with all consumers; nats-py's own calls take 600 ms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import nats.errors
from nats.aio.client import Client

from console.monitor import answers
from console.monitor.answers import Consumer, Jsz, StreamDetail
from console.monitor.mux import Mux
from console.monitor.snapshot import Found
from console.rights import rights_of
from patterns import Fleet
from patterns.errors import PatternError, PermissionDenied, Unavailable
from patterns.jetstream import CONSUMER_NOT_FOUND

PAGE: Final = 256
"""Streams or consumers in one answer of the server; it never says more."""

LIST_PATIENCE: Final = 6.0
"""Seconds for a list: while a node is down, the others wait four for its streams."""

INFO_PATIENCE: Final = 2.0
"""Seconds for a consumer: without a leader none answers."""

CONFIGURED: Final = 60.0
"""Seconds after which configurations are read again: nobody announces the update of a consumer."""

PING_JSZ: Final = "$SYS.REQ.SERVER.PING.JSZ"


class Chooser(Protocol):
    """Says whose consumer is to be asked."""

    def __call__(self, found: Found) -> Sequence[tuple[str, str]]:
        """Stream and durable of each, when the streams are known."""
        ...


class ByList:
    """STREAM.LIST in pages, then CONSUMER.INFO of those that matter: needs nothing but rights to read JetStream's API.

    Args:
        mux: Of the connection.
        prefix: Of the JetStream API.
    """

    name = "STREAM.LIST + CONSUMER.INFO"

    def __init__(self, mux: Mux, prefix: str) -> None:
        self._mux = mux
        self._prefix = prefix
        self._pages = 1
        self._lists_instead = False

    async def look(self, choose: Chooser, listed: Iterable[str]) -> Found:
        """Read all streams, and the consumers that `choose` names; of the streams `listed` all consumers.

        Raises:
            Unavailable: The streams cannot be listed; `PermissionDenied` if this user may not.
        """
        found = Found()
        await self._streams(found)
        await self._consumers(found, choose(found))
        await self._all_consumers(found, [stream for stream in listed if stream in found.streams])
        return found

    async def _streams(self, found: Found) -> None:
        total, wanted = 0, range(self._pages)
        for attempt in (1, 2):
            while wanted:
                for page in await self._list("STREAM.LIST", wanted, found):
                    total = page.total
                    found.streams.update((stream.config.name, stream) for stream in page.streams or ())
                    found.absent += [name for name in page.missing or () if name not in found.absent]
                pages = max(1, -(-total // PAGE))
                wanted, self._pages = range(wanted.stop, pages), pages
            # Streams that went while the pages were read move others to a page that was read already.
            if attempt == 2 or len(found.streams) + len(found.absent) >= total:
                break
            wanted = range(self._pages)

    async def _list(self, call: str, pages: range, found: Found) -> list[answers.StreamPage]:
        subject, began = f"{self._prefix}.{call}", time.monotonic()
        requests = [(subject, b'{"offset":%d}' % (page * PAGE)) for page in pages]
        found.requests += len(requests)
        read = []
        for answer in await self._mux.ask(requests, LIST_PATIENCE):
            if answer is None:
                raise self._silence(subject, began)
            page = answers.decode(answers.stream_page, answer, call)
            if page.error is not None:
                raise Unavailable(f"{call}: {page.error.description}")
            read.append(page)
        return read

    async def _consumers(self, found: Found, chosen: Sequence[tuple[str, str]]) -> None:
        if self._lists_instead:
            await self._all_consumers(found, [stream for stream, _ in chosen])
            return
        began = time.monotonic()
        requests = [(f"{self._prefix}.CONSUMER.INFO.{stream}.{durable}", b"") for stream, durable in chosen]
        found.requests += len(requests)
        unnamed, denied = [], []
        for (stream, _), (subject, _), answer in zip(
            chosen, requests, await self._mux.ask(requests, INFO_PATIENCE), strict=True
        ):
            if answer is None:
                if self._mux.refused([subject], began):
                    denied.append(stream)
                else:
                    found.unseen[stream] = "no answer: it has no leader, or its server is away"
                continue
            consumer = answers.decode(answers.consumer, answer, "CONSUMER.INFO")
            if consumer.error is None:
                found.consumers[stream] = [consumer]
            elif consumer.error.err_code == CONSUMER_NOT_FOUND:
                unnamed.append(stream)
            else:
                found.unseen[stream] = consumer.error.description
        # A user may be allowed the one and not the other.
        self._lists_instead = bool(denied) and not found.consumers
        await self._all_consumers(found, [*unnamed, *denied])

    async def _all_consumers(self, found: Found, streams: Sequence[str]) -> None:
        pages = [(stream, 0) for stream in streams]
        while pages:
            began = time.monotonic()
            requests = [
                (f"{self._prefix}.CONSUMER.LIST.{stream}", b'{"offset":%d}' % offset) for stream, offset in pages
            ]
            found.requests += len(requests)
            following: list[tuple[str, int]] = []
            for (stream, offset), (subject, _), answer in zip(
                pages, requests, await self._mux.ask(requests, LIST_PATIENCE), strict=True
            ):
                if answer is None:
                    found.unseen[stream] = str(self._silence(subject, began))
                    continue
                page = answers.decode(answers.consumer_page, answer, "CONSUMER.LIST")
                if page.error is not None:
                    found.unseen[stream] = page.error.description
                    continue
                if page.missing:
                    found.notes.append(f"{len(page.missing)} consumers of {stream} did not answer")
                found.consumers.setdefault(stream, []).extend(page.consumers or ())
                # The first answer tells how many there are: the rest is asked for at once.
                if not offset:
                    following += [(stream, at) for at in range(PAGE, page.total, PAGE)]
            pages = following

    def _silence(self, subject: str, began: float) -> Unavailable:
        if self._mux.refused([subject], began):
            return PermissionDenied(f"this user may not publish to {subject!r}: allow it, or use another user")
        return Unavailable(f"no answer to {subject}: the server is busy, or JetStream is not there")


class ByJsz:
    """One `JSZ` of the system account: everything with one request, where it is granted.

    Args:
        mux: Of a connection that may ask it.
        account: The account whose streams are meant.
    """

    name = "JSZ"

    def __init__(self, mux: Mux, account: str) -> None:
        self._mux = mux
        self._account = account
        self._servers = 1
        self._configured = float("-inf")

    async def look(self, *, configured: bool = False) -> Found:
        """Read all streams with all their consumers.

        Args:
            configured: With the configuration of each consumer, which is more than half of the answer; once a minute it
                comes by itself.

        Raises:
            Unavailable: No server answered.
        """
        configured = configured or time.monotonic() - self._configured > CONFIGURED
        request = json.dumps(
            {"account": self._account, "accounts": True, "streams": True, "consumer": True, "config": configured}
        ).encode()
        replies = await self._replies(request)
        # How many servers there are only they can tell.
        if len(replies) < (servers := _cluster_size(replies)) and servers != self._servers:
            self._servers = servers
            replies = await self._replies(request)
        self._servers = servers
        found = Found(requests=1)
        if len(replies) < servers:
            found.notes.append(f"{len(replies)} of {servers} servers answered")
        self._merge(found, replies)
        if configured:
            self._configured = time.monotonic()
        return found

    async def reaches(self, server_id: str) -> bool:
        """Whether it is answered, also by this server: a system account of other servers tells of other streams.

        Raises:
            Unavailable: Nobody answers.
        """
        replies = await self._replies(b"{}")
        if (servers := _cluster_size(replies)) > len(replies):
            self._servers = servers
            replies = await self._replies(b"{}")
        return any(reply.server.id == server_id for reply in replies)

    async def close(self) -> None:
        """End what it listens to; the connection stays."""
        await self._mux.close()

    async def _replies(self, request: bytes) -> list[Jsz]:
        heard = await self._mux.gather(PING_JSZ, request, expected=self._servers)
        replies = [answers.decode(answers.jsz, answer, "JSZ") for answer in heard]
        replies = [reply for reply in replies if reply.data is not None and not reply.data.disabled]
        if not replies:
            raise Unavailable("no answer to JSZ")
        return replies

    def _merge(self, found: Found, replies: Sequence[Jsz]) -> None:
        """Each stream and each consumer once, as its leader counts it: replicas know of neither pulls nor deliveries."""
        merged: dict[str, dict[str, Consumer]] = {}
        for reply in replies:
            for stream in _streams(reply, self._account):
                if len(replies) == 1:
                    found.streams[stream.name] = stream
                    found.consumers[stream.name] = stream.consumer_detail or []
                    continue
                if stream.name not in found.streams or _leads(reply, stream):
                    found.streams[stream.name] = stream
                consumers = merged.setdefault(stream.name, {})
                for consumer in stream.consumer_detail or ():
                    if consumer.name not in consumers or _leads(reply, consumer):
                        consumers[consumer.name] = consumer
        found.consumers.update((stream, list(consumers.values())) for stream, consumers in merged.items())


def _streams(reply: Jsz, account: str) -> Iterable[StreamDetail]:
    details = (reply.data.account_details if reply.data is not None else None) or ()
    return (stream for each in details if each.name == account for stream in each.stream_detail or ())


def _cluster_size(replies: Sequence[Jsz]) -> int:
    clusters = (reply.data.meta_cluster for reply in replies if reply.data is not None)
    return max((cluster.cluster_size for cluster in clusters if cluster is not None), default=1)


def _leads(reply: Jsz, asset: StreamDetail | Consumer) -> bool:
    return asset.cluster is not None and asset.cluster.leader == reply.server.name


async def granted(fleet: Fleet, system: Client | None) -> ByJsz | None:
    """The way by JSZ, where the system's connection has it or the account imports it; None where it does not answer.

    Args:
        fleet: The connection of the fleet.
        system: A connection of the system account, if there is one.
    """
    rights = await rights_of(fleet)
    if rights.account is None or (system is None and not rights.may_publish(PING_JSZ)):
        return None
    mux = Mux(system or fleet.nc)
    way = ByJsz(mux, rights.account)
    try:
        if await way.reaches(str(fleet.nc._server_info.get("server_id", ""))):
            return way
    except (PatternError, nats.errors.Error):
        pass
    await mux.close()
    return None
