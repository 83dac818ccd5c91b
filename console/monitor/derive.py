"""From snapshots to a view: rates, history, confirmed strandings, states and findings. Pure; time comes with the snapshot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from console.monitor.findings import FindingLog, of_flow, of_letters, of_missing, of_reading, of_subscription
from console.monitor.snapshot import Key, Snapshot
from console.monitor.states import State, classify
from console.monitor.track import Clock, Track
from console.monitor.view import Finding, FleetView, Flow, Subscription, age, order_of
from console.settings import Settings
from console.text.safe import clean
from patterns import QueueDepth, ServerInfo

SLICE: Final = 0.004
"""Seconds of work after which the event loop has its turn: a key pressed meanwhile is not felt to wait."""

STEP: Final = 64
"""Rows between two looks at the clock."""

Kind = Literal["inbox", "tasks"]


class Derivation:
    """Turns each snapshot into a view, with the memory that rates, history and confirmation need.

    Args:
        settings: What counts as too much, also for single agents and roles.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = Clock()
        self._inboxes = _Rows()
        self._queues = _Rows()
        self._log = FindingLog()

    def update(
        self,
        snapshot: Snapshot,
        *,
        redeaths: Mapping[Key, int] | None = None,
        stranded: Mapping[Key, tuple[int, ...]] | None = None,
    ) -> FleetView:
        """The view of this snapshot.

        Args:
            snapshot: What was found.
            redeaths: Dead letters that had been replayed before, by kind and name of where they died.
            stranded: Sequences of stranded messages, as far as they were looked up.
        """
        work = _Work(self, snapshot, redeaths or {}, stranded or {})
        for _ in work.steps():
            pass
        return work.view()

    async def follow(
        self,
        snapshot: Snapshot,
        *,
        redeaths: Mapping[Key, int] | None = None,
        stranded: Mapping[Key, tuple[int, ...]] | None = None,
    ) -> FleetView:
        """Like `update`, in slices: 5,000 rows would hold the event loop for 50 ms."""
        work = _Work(self, snapshot, redeaths or {}, stranded or {})
        started = time.perf_counter()
        for _ in work.steps():
            if time.perf_counter() - started > SLICE:
                await asyncio.sleep(0)
                started = time.perf_counter()
        return work.view()


class _Rows:
    """What is remembered of inboxes, or of queues."""

    __slots__ = ("flows", "tracks")

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.flows: dict[str, Flow] = {}

    def keep(self, names: Mapping[str, QueueDepth]) -> None:
        for gone in self.tracks.keys() - names.keys():
            del self.tracks[gone]
            self.flows.pop(gone, None)


class _Work:
    """One snapshot on its way to a view."""

    def __init__(
        self,
        owner: Derivation,
        snapshot: Snapshot,
        redeaths: Mapping[Key, int],
        stranded: Mapping[Key, tuple[int, ...]],
    ) -> None:
        self._owner = owner
        self._snapshot = snapshot
        self._dead = _by_owner(snapshot.dead_letters)
        self._redeaths = _by_owner_of(redeaths)
        self._stranded = stranded
        self._findings: list[Finding] = []
        self._peaks = {"inbox": 0, "tasks": 0}
        clock, now = owner._clock, snapshot.taken_at.timestamp()
        clock.before, clock.now = (clock.now or None), now

    def steps(self) -> Iterator[None]:
        """Do it, a few rows at a time."""
        owner, snapshot = self._owner, self._snapshot
        yield from self._flows(snapshot.inboxes, owner._inboxes, "inbox")
        yield from self._flows(snapshot.queues, owner._queues, "tasks")

    def _flows(self, depths: Mapping[str, QueueDepth], rows: _Rows, kind: Kind) -> Iterator[None]:
        rows.keep(depths)
        flows, peak = rows.flows, 0
        for number, (name, depth) in enumerate(depths.items()):
            flow = flows.get(name)
            if flow is None or not self._still_holds(flow, depth, kind):
                flow = flows[name] = self._flow(name, depth, rows, kind)
            if flow.findings:
                self._findings += flow.findings
            if (most := flow.track.peak) > peak:
                peak = most
            if not number % STEP:
                yield
        self._peaks[kind] = peak

    def _still_holds(self, flow: Flow, depth: QueueDepth, kind: Kind) -> bool:
        """Whether nothing about a row can have changed: a quiet one with the very counters of the look before."""
        return (
            depth is flow.depth
            and not depth.messages
            and flow.in_rate == 0
            and flow.ack_rate == 0
            and flow.state in (State.IDLE, State.OFFLINE)
            and self._dead.get((kind, flow.name), 0) == flow.dead_letters
            and self._redeaths.get((kind, flow.name), 0) == flow.redeaths
            and (not self._snapshot.hidden or (kind, flow.name) not in self._snapshot.hidden)
        )

    def _flow(self, name: str, depth: QueueDepth, rows: _Rows, kind: Kind) -> Flow:
        snapshot, key = self._snapshot, (kind, name)
        track = rows.tracks.get(name)
        if track is None:
            track = rows.tracks[name] = Track(self._owner._clock)
        before, asked = track.last, key not in snapshot.still
        previous = track.add(depth, asked=asked)
        in_rate, ack_rate = track.rates
        stranded = None
        if depth.stranded is not None:
            stranded = _confirmed(depth.stranded, depth, previous)
        limits = self._owner._settings.thresholds_for(kind, name)
        threshold = limits.inbox_backlog if kind == "inbox" else limits.queue_backlog
        now = snapshot.taken_at
        if key in snapshot.hidden:
            state = State.UNKNOWN
        elif not asked and before is not None and before.last_seq != depth.last_seq:
            # Not asked, and messages went through: somebody is there.
            state = State.IDLE
        else:
            state = classify(depth, previous, threshold=threshold, now=now)
        oldest = age(depth.oldest_at, now) if depth.messages else None
        dead, redeaths = self._dead.get(key, 0), self._redeaths.get(key, 0)
        sequences = self._stranded.get(key, ()) if stranded else ()
        return Flow(
            name=name,
            state=state,
            depth=depth,
            stranded=stranded,
            in_rate=in_rate,
            ack_rate=ack_rate,
            oldest_age=oldest,
            dead_letters=dead,
            findings=of_flow(
                f"{kind}.{name}", state, depth, stranded, oldest, limits,
                redeaths=redeaths, stranded_seqs=sequences, dead_letters=dead,
            ),
            track=track,
            redeaths=redeaths,
            stranded_seqs=sequences,
            workers=depth.waiting + depth.ack_pending if kind == "tasks" else min(1, depth.waiting + depth.ack_pending),
            order=order_of(state, depth.messages, name),
        )  # fmt: skip

    def view(self) -> FleetView:
        """The view, when all steps are done."""
        owner, snapshot = self._owner, self._snapshot
        settings, letters, now = owner._settings, snapshot.dead_letters, snapshot.taken_at
        subscriptions = tuple(
            _subscription(durable, depth, age(depth.oldest_at, now))
            for durable, depth in snapshot.subscriptions.items()
        )
        findings = self._findings
        for each in subscriptions:
            findings += of_subscription(each, settings.thresholds_for("events", each.agent))
        findings += of_letters(letters, settings.thresholds, apart=settings.letters_apart)
        findings += of_missing(snapshot.missing)
        findings += of_reading(snapshot.took, settings.refresh)
        server = snapshot.server
        return FleetView(
            taken_at=now,
            took=snapshot.took,
            server=ServerInfo(
                clean(server.name), clean(server.version), server.url, server.cluster and clean(server.cluster)
            ),
            agents=tuple(owner._inboxes.flows[name] for name in snapshot.inboxes),
            queues=tuple(owner._queues.flows[name] for name in snapshot.queues),
            subscriptions=subscriptions,
            dead_letters=_cleaned(letters),
            findings=owner._log.dated(findings, now),
            missing=tuple(clean(text) for text in snapshot.missing),
            way=snapshot.way,
            requests=snapshot.requests,
            inbox_peak=self._peaks["inbox"],
            queue_peak=self._peaks["tasks"],
        )


def _confirmed(stranded: int, depth: QueueDepth, previous: QueueDepth | None) -> int:
    """Stranded messages that cannot be anything else.

    A read asks for the stream first and for its consumer a moment later: what was acknowledged in between looks
    stranded, in a busy inbox in nearly every read. But then the oldest message is another one each time (or, where
    several may be in flight, the acknowledgements go on), while a stranded one stays where it is.
    """
    if previous is None or depth.oldest_at != previous.oldest_at:
        return 0
    if max(depth.ack_pending, previous.ack_pending) > 1 and depth.last_acked_at != previous.last_acked_at:
        return 0
    return min(stranded, previous.stranded or 0)


def _subscription(durable: str, depth: QueueDepth, oldest: float | None) -> Subscription:
    agent, _, name = durable.rpartition("-")
    topics = tuple(
        clean(pattern.partition("events.")[2])
        for pattern in depth.topics
        if "events." in pattern and "redeliver." not in pattern
    )
    return Subscription(clean(agent or durable), clean(name if agent else ""), topics, depth, oldest)


def _by_owner(letters: Mapping[str, int]) -> dict[Key, int]:
    """Letters of each role's queue, and of each agent those of its inbox and of its subscriptions."""
    pairs = (source.partition(".")[::2] for source in letters)
    return _by_owner_of({(kind, name): count for (kind, name), count in zip(pairs, letters.values(), strict=True)})


def _by_owner_of(letters: Mapping[Key, int]) -> dict[Key, int]:
    owned: dict[Key, int] = {}
    for (kind, name), count in letters.items():
        owner = ("inbox", name.rpartition("-")[0]) if kind == "events" else (kind, name)
        owned[owner] = owned.get(owner, 0) + count
    return owned


def _cleaned(letters: Mapping[str, int]) -> dict[str, int]:
    """Counts by names that are safe to show; two that look the same then count as one."""
    found: dict[str, int] = {}
    for source, count in letters.items():
        safe = clean(source)
        found[safe] = found.get(safe, 0) + count
    return found
