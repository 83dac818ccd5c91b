"""Pausing consumers while a job works: by a lease that the job renews, so that they go on by themselves after a crash.

What somebody else paused is left as it is, and what somebody resumed or paused anew meanwhile is theirs: only the pause
that this job set last is renewed, or ended when the job ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors

from console.operations.errors import OperationError, Refused
from console.operations.items import Items
from console.operations.places import Destinations
from console.rights import rights_of, takes
from console.text.safe import clean
from patterns import Fleet, PatternError
from patterns.headers import format_time, parse_time, parse_time_ns

log = logging.getLogger("console.operations")

LEASE, RENEW = 60.0, 20.0
"""Seconds that a pause lasts, and after which it is renewed: a console that is killed holds nothing up for longer."""

MOST = 200
"""Streams whose consumers are looked for; beyond, nothing is offered."""

Consumer = tuple[str, str]
"""Stream and durable."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What other jobs of this machine have to do with a consumer."""

    until: frozenset[str] = frozenset()
    """Until when any of them had paused it."""
    wanted: bool = False
    """Whether one that is under way wants it paused."""


async def receivers(fleet: Fleet, items: Items, destinations: Destinations) -> tuple[Consumer, ...]:
    """The consumers that a replay sends to: of an event its one subscription, of a queue whoever takes the subject.

    Raises:
        Refused: It goes to too many.
        Unavailable: They cannot be read.
    """
    found, known = dict[Consumer, None](), dict[str, list[dict[str, Any]]]()
    for source, destination in items.places:
        stream = await destinations.stream(destination)
        if not stream:
            continue
        if source.startswith("events.") and stream == fleet.names.events_stream:
            found[stream, source.partition(".")[2]] = None
            continue
        if stream not in known:
            if len(known) == MOST:
                raise Refused(f"it goes to more than {MOST} streams: so many consumers are not paused")
            known[stream] = await fleet.jetstream.consumers(stream)
        for consumer in known[stream]:
            config = consumer["config"]
            if config.get("durable_name") and takes(config, destination):
                found[stream, str(config["durable_name"])] = None
    return tuple(found)


async def allowed(fleet: Fleet, consumers: Sequence[Consumer], *, required: bool) -> tuple[Consumer, ...]:
    """Those consumers, if these credentials may pause every one of them; else none.

    Args:
        fleet: The connection.
        consumers: Which.
        required: The operator asked for it: say why it cannot be done.

    Raises:
        Refused: It was asked for, and cannot be done.
    """
    rights = await rights_of(fleet)
    for stream, durable in consumers:
        subject = f"{fleet.jetstream.prefix}.CONSUMER.PAUSE.{stream}.{durable}"
        if not rights.may_publish(subject):
            if required:
                raise Refused(
                    f"these credentials may not pause {clean(durable)}: they need publish to {clean(subject)}"
                )
            return ()
    if required and not consumers:
        raise Refused("there is no consumer to pause: leave --pause out")
    return tuple(consumers)


class Hold:
    """The consumers that one job pauses while it works.

    Args:
        fleet: The connection.
        consumers: Which.
        known: Until when the job's earlier run had paused them, by `<stream> <durable>`; times as in `held`.
        remember: Awaited with `held` before it changes on the server.
        shared: Awaited with `<stream> <durable>`: what other jobs of this machine want of it.
    """

    def __init__(
        self,
        fleet: Fleet,
        consumers: Sequence[Consumer],
        *,
        known: Mapping[str, str] | None = None,
        remember: Callable[[Mapping[str, str]], Awaitable[None]],
        shared: Callable[[str], Awaitable[Shared]],
    ) -> None:
        self._fleet = fleet
        self._consumers = consumers
        self._remember = remember
        self.held: dict[str, str] = dict(known or {})
        """Until when this job paused what: RFC 3339 by the server's clock, the last two, of which the server has one."""
        self._shared = shared

    async def begin(self) -> None:
        """Pause them.

        Raises:
            OperationError: One cannot be paused; those before it go on again.
        """
        try:
            for stream, durable in self._consumers:
                try:
                    await self._extend(stream, durable, first=True)
                except (PatternError, nats.errors.Error) as error:
                    raise OperationError(
                        f"{clean(durable)} on {clean(stream)} cannot be paused: {clean(str(error))}"
                    ) from None
        except BaseException:
            await self.end()
            raise

    async def keep(self) -> None:
        """Renew the pauses until cancelled; one that cannot be renewed ends by itself and is tried again."""
        while True:
            await asyncio.sleep(RENEW)
            for stream, durable in self._consumers:
                try:
                    await self._extend(stream, durable, first=False)
                except (PatternError, nats.errors.Error, OperationError) as error:
                    log.warning("the pause of %s on %s is not renewed: %s", durable, stream, error)

    async def end(self) -> None:
        """Let go of what this job paused last; what cannot be reached goes on by itself.

        What another job still wants paused is left to it, and stays on record as ours, so that it can be told from a
        stranger's.
        """
        before = dict(self.held)
        for stream, durable in self._consumers:
            key = _key(stream, durable)
            try:
                info = await self._fleet.jetstream.consumer_info(stream, durable)
                shared = await self._shared(key)
                if info is not None and self._is_ours(info, key, shared):
                    if shared.wanted:
                        continue
                    await self._fleet.jetstream.pause(stream, durable, 0)
                self.held.pop(key, None)
            except (PatternError, nats.errors.Error) as error:
                log.warning("%s on %s is not resumed, its pause ends within %d s: %s", durable, stream, LEASE, error)
        if self.held != before:
            try:
                await self._remember(self.held)
            except OperationError as error:
                log.warning("%s", error)

    async def _extend(self, stream: str, durable: str, *, first: bool) -> None:
        info, key = await self._fleet.jetstream.consumer_info(stream, durable), _key(stream, durable)
        if info is None:
            return
        now = server_time(info) or datetime.now(UTC)
        if info.get("paused"):
            if not self._is_ours(info, key, await self._shared(key)):
                return
        elif not first and not self._ran_out(key, now):
            # Somebody resumed it while the job works: that is what they want.
            return
        until = format_time(now + timedelta(seconds=LEASE))
        self.held[key] = " ".join((*self._until(key)[-1:], until))
        # On record first: what a kill leaves behind is known to be ours, whichever of the two it is.
        await self._remember(self.held)
        if await self._fleet.jetstream.pause(stream, durable, LEASE, now=now) is None and first:
            raise OperationError(f"{clean(durable)} on {clean(stream)} cannot be paused: the server does not do it")

    def _until(self, key: str) -> list[str]:
        return self.held.get(key, "").split()

    def _is_ours(self, info: Mapping[str, Any], key: str, shared: Shared) -> bool:
        """Whether it is paused, by this job or by another one of this machine."""
        there = str(info["config"].get("pause_until") or "")
        return bool(info.get("paused")) and any(_same(until, there) for until in (*self._until(key), *shared.until))

    def _ran_out(self, key: str, now: datetime) -> bool:
        """Whether our pause came to its own end, as while the server was away."""
        ours = self._until(key)
        return bool(ours) and now >= parse_time(ours[-1])


def server_time(consumer: Mapping[str, Any]) -> datetime | None:
    """The server's clock when it told of a consumer: this machine's may be minutes off. None if it does not say."""
    return parse_time(consumer["ts"]) if "ts" in consumer else None


def _key(stream: str, durable: str) -> str:
    return f"{stream} {durable}"


def _same(ours: str, theirs: str) -> bool:
    try:
        return parse_time_ns(ours) == parse_time_ns(theirs)
    except ValueError:
        return False
