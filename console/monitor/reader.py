"""One look at everything: every inbox, queue, subscription and dead-letter count, the cheapest way the credentials allow.

By JSZ where the system account is granted, else by lists. Rows are remembered from look to look: what has not changed is
not built again, and consumers of empty work queues, which can have nothing pending and nothing in flight, are asked in
slow rotation only, for whether their workers are still there.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import nats.errors
from nats.aio.client import Client

from console.monitor.answers import Consumer, ConsumerConfig, StreamState
from console.monitor.asking import INFO_PATIENCE, ByJsz, ByList, granted
from console.monitor.mux import Mux
from console.monitor.rows import Row, depth_of
from console.monitor.snapshot import Found, Key, Snapshot
from patterns import Fleet, PatternError, QueueDepth
from patterns.headers import parse_time
from patterns.names import Place

log = logging.getLogger("console.monitor")

ROTATION: Final = 10
"""Looks in which the consumers of all empty streams have been asked once."""

LEAST_ASKED: Final = 64
"""Consumers of empty streams asked in each look, if there are so many: of a small fleet all."""

JSZ_RETRY: Final = 30.0
"""Seconds until JSZ is tried again after it failed."""

BACKLOGS_DATED: Final = 32
"""Subscriptions whose oldest event is looked up in one look; the others keep what is known of theirs."""


class Reader:
    """Looks at one fleet again and again.

    Args:
        fleet: The connection.
        system: A connection of the system account to the same servers, where one is granted.
        thorough: Ask every consumer in every look; for a command that looks only once or twice.
    """

    def __init__(self, fleet: Fleet, *, system: Client | None = None, thorough: bool = False) -> None:
        self._fleet = fleet
        self._system = system
        self._thorough = thorough
        self._mux = Mux(fleet.nc)
        self._lists = ByList(self._mux, fleet.jetstream.prefix)
        self._jsz: ByJsz | None = None
        self._jsz_due = 0.0
        self._rows: dict[str, Row] = {}
        self._order: list[Row] = []
        self._places: dict[str, Place | None] = {}
        self._turn = 0
        self._look = 0
        self._configs: dict[str, tuple[str, ConsumerConfig]] = {}
        self._oldest: dict[str, tuple[int, datetime | None]] = {}
        self.way = ""
        """How the last look asked."""

    async def read(self) -> Snapshot:
        """Look once.

        Raises:
            Unavailable: Not even the streams could be read.
            nats.errors.Error: The connection is closed.
        """
        started = time.monotonic()
        self._look += 1
        found = await self._find()
        missing = [*found.words()]
        subscriptions = await self._subscriptions(found)
        letters: dict[str, int] = {}
        try:
            letters = {f"{kind}.{name}": n for (kind, name), n in (await self._fleet.dead_letters.count()).items()}
        except (PatternError, nats.errors.Error) as error:
            missing.append(f"dead letters: {error}")
        rows = self._order
        return Snapshot(
            taken_at=datetime.now(UTC),
            took=time.monotonic() - started,
            server=self._fleet.server_info(),
            inboxes={row.name: row.current() for row in rows if row.kind == "inbox"},
            queues={row.name: row.current() for row in rows if row.kind == "tasks"},
            subscriptions=subscriptions,
            dead_letters=dict(sorted(letters.items())),
            missing=tuple(missing),
            way=self.way,
            requests=found.requests,
            still=frozenset(
                (row.kind, row.name) for row in rows if row.asked != self._look and row.consumer is not None
            ),
            hidden=frozenset(self._hidden(found)),
        )

    async def close(self) -> None:
        """End what it listens to; the connections stay."""
        if self._jsz is not None:
            await self._jsz.close()
        await self._mux.close()

    # -- asking

    async def _find(self) -> Found:
        if await self._has_jsz() and self._jsz is not None:
            try:
                found = await self._jsz.look()
                self._settle_streams(found)
                if not self._take(found):
                    found = await self._jsz.look(configured=True)
                    self._take(found)
            except (PatternError, nats.errors.Error) as error:
                log.info("JSZ: %s; reading the lists instead", error)
                await self._jsz.close()
                self._jsz, self._jsz_due = None, time.monotonic() + JSZ_RETRY
            else:
                self.way = ByJsz.name
                return found
        found = await self._lists.look(self._due, self._listed())
        self._take(found)
        self.way = ByList.name
        return found

    async def _has_jsz(self) -> bool:
        """Whether JSZ answers, of the system's connection or, imported from the system account, of ours."""
        if self._jsz is None and time.monotonic() >= self._jsz_due:
            self._jsz_due = time.monotonic() + JSZ_RETRY
            self._jsz = await granted(self._fleet, self._system)
            if self._jsz is None and self._system is None:
                # Not imported into this account, and that does not change while we look.
                self._jsz_due = float("inf")
        return self._jsz is not None

    def _listed(self) -> tuple[str, ...]:
        return (self._fleet.names.events_stream,)

    def _due(self, found: Found) -> Sequence[tuple[str, str]]:
        """Whose consumer to ask: those with messages and those never asked at once, the others in turn."""
        self._settle_streams(found)
        due: list[Row] = []
        idle: list[Row] = []
        for row in self._order:
            state = row.state
            if state is None or not state.consumer_count or row.stream in found.absent:
                continue
            urgent = row.asked < 0 or (state.messages and not row.unseen)
            (due if urgent or self._thorough else idle).append(row)
        share = max(LEAST_ASKED, -(-len(idle) // ROTATION))
        start = self._turn % len(idle) if idle else 0
        due += idle[start : start + share]
        due += idle[: max(0, min(start + share - len(idle), start))]
        self._turn = start + share
        return [(row.stream, row.durable) for row in due]

    # -- remembering

    def _settle_streams(self, found: Found) -> None:
        """Bring the rows up to the streams there are; of streams that do not answer the last row stays."""
        known, changed = self._rows, False
        if len(self._places) > 2 * len(found.streams) + 1000:
            self._places.clear()  # names that come and go
        for name, stream in found.streams.items():
            place = self._places.get(name, self)
            if place is self:
                place = self._places[name] = self._fleet.names.place_of(name)
            if not isinstance(place, Place) or place.kind not in ("inbox", "tasks"):
                continue
            row = known.get(name)
            if row is None:
                row = known[name] = self._new(name, place)
                changed = True
            row.stands(stream.created, stream.state)
        gone = known.keys() - found.streams.keys() - set(found.absent)
        for name in gone:
            del known[name]
        if changed or gone:
            self._order = sorted(known.values(), key=lambda row: row.name)

    def _new(self, stream: str, place: Place) -> Row:
        if place.kind == "inbox":
            return Row("inbox", place.name, stream, self._fleet.names.inbox_durable(place.name))
        return Row("tasks", place.name, stream, self._fleet.names.tasks_durable(place.name))

    def _take(self, found: Found) -> bool:
        """Remember what was found of the consumers; whether all their configurations are known."""
        listed = found.consumers.get(self._fleet.names.events_stream, ())
        complete = all(self._config_of(consumer) is not None for consumer in listed)
        for row in self._order:
            state = row.state
            if state is not None and not state.consumer_count:
                row.consumed([], self._look)
            elif (consumers := found.consumers.get(row.stream)) is not None:
                row.consumed(consumers, self._look)
                complete = complete and (row.consumer is None or row.config is not None)
            elif reason := found.unseen.get(row.stream):
                row.unseen, row.asked = reason, self._look
        return complete

    def _hidden(self, found: Found) -> Iterable[Key]:
        absent = set(found.absent)
        return ((row.kind, row.name) for row in self._order if row.unseen or row.stream in absent)

    # -- subscriptions

    async def _subscriptions(self, found: Found) -> Mapping[str, QueueDepth]:
        info = found.streams.get(self._fleet.names.events_stream)
        if info is None:
            return {}
        depths: dict[str, QueueDepth] = {}
        behind: dict[str, tuple[int, tuple[str, ...]]] = {}
        for consumer in found.consumers.get(self._fleet.names.events_stream, ()):
            config = self._config_of(consumer)
            if config is None or not config.durable_name:
                continue
            depth = depths[consumer.name] = depth_of(info.state, consumer, config, server_counts=False)
            if depth.messages:
                behind[consumer.name] = consumer.ack_floor.stream_seq, config.filters
        for durable, oldest in (await self._dated(behind, info.state)).items():
            depths[durable] = dataclasses.replace(depths[durable], oldest_at=oldest)
        for durable in self._configs.keys() - depths.keys():
            del self._configs[durable]
        return dict(sorted(depths.items()))

    async def _dated(
        self, behind: Mapping[str, tuple[int, tuple[str, ...]]], events: StreamState
    ) -> dict[str, datetime]:
        """When the first event was stored that a subscription has not acknowledged; asked again when its floor moves."""
        for durable in self._oldest.keys() - behind.keys():
            del self._oldest[durable]
        moved = [durable for durable, (floor, _) in behind.items() if self._oldest.get(durable, (-1, None))[0] != floor]
        wanted = [
            (durable, floor, subject)
            for durable in moved[:BACKLOGS_DATED]
            for floor, subjects in (behind[durable],)
            for subject in (subjects or (">",))
        ]
        stream = self._fleet.names.events_stream
        requests = [
            (
                f"{self._fleet.jetstream.prefix}.DIRECT.GET.{stream}",
                json.dumps({"seq": floor + 1, "next_by_subj": subject}).encode(),
            )
            for _, floor, subject in wanted
        ]
        first: dict[str, datetime] = {}
        for (durable, floor, _), msg in zip(wanted, await self._mux.ask_messages(requests, INFO_PATIENCE), strict=True):
            self._oldest[durable] = floor, None
            stored = (msg.headers or {}).get("Nats-Time-Stamp") if msg is not None else None
            if stored is not None:
                moment = parse_time(stored)
                first[durable] = min(first.get(durable, moment), moment)
        for durable, moment in first.items():
            self._oldest[durable] = self._oldest[durable][0], moment
        # What has expired since is nobody's any more.
        bottom = events.first_ts if events.messages else None
        return {
            durable: max(moment, bottom) if bottom is not None else moment
            for durable, (_, moment) in self._oldest.items()
            if moment is not None
        }

    def _config_of(self, consumer: Consumer) -> ConsumerConfig | None:
        if consumer.config is not None:
            self._configs[consumer.name] = consumer.created, consumer.config
            return consumer.config
        created, config = self._configs.get(consumer.name, ("", None))
        return config if created == consumer.created else None
