"""From snapshots to a view: rates, history, confirmed strandings, states and findings. Pure; time comes with the snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from console.monitor.findings import of_flow, of_letters, of_missing, of_subscription, ranked
from console.monitor.states import State, classify
from console.monitor.view import FleetView, Flow, Subscription
from console.settings import Settings
from console.text.safe import clean
from patterns import FleetSnapshot, QueueDepth, ServerInfo

HISTORY = 60
"""Seconds of history a row keeps."""
RATE_WINDOW = 6.0
"""Seconds over which a rate is averaged: steady to read, quick enough to follow."""

_HIDDEN = "consumers of "
_PREFIXES = {"inbox": "INBOX_", "tasks": "TASKS_"}


class Track:
    """The last minute of one stream; a read costs the same however much of it there is."""

    def __init__(self) -> None:
        self.samples: deque[tuple[float, int, int]] = deque()
        """Time, newest sequence, messages there: the reads that a rate is averaged over."""
        self.seconds: deque[int] = deque(maxlen=HISTORY)
        """Messages there at the end of each second of the clock."""
        self.previous: QueueDepth | None = None

    def add(self, now: float, depth: QueueDepth) -> None:
        """Note one read."""
        if self.samples and (depth.last_seq < self.samples[-1][1] or now <= self.samples[-1][0]):
            # The stream was deleted and made again, or the clock was set back: the past says nothing about it.
            self.samples.clear()
            self.seconds.clear()
            self.previous = None
        if self.samples:
            passed = int(now) - int(self.samples[-1][0])
            if passed:
                self.seconds.extend([self.seconds[-1]] * min(passed - 1, HISTORY))
            else:
                self.seconds.pop()
        self.seconds.append(depth.messages)
        self.samples.append((now, depth.last_seq, depth.messages))
        while len(self.samples) > 2 and self.samples[0][0] < now - RATE_WINDOW:
            self.samples.popleft()

    def rates(self) -> tuple[float | None, float | None]:
        """Messages in and messages gone a second; None before two reads."""
        if len(self.samples) < 2:
            return None, None
        start, end = self.samples[0], self.samples[-1]
        elapsed = max(end[0] - start[0], 1e-6)
        stored = (end[1] - start[1]) / elapsed
        return stored, max(0.0, stored - (end[2] - start[2]) / elapsed)

    def history(self) -> tuple[int, ...]:
        """Messages there at each of the last 60 seconds; a second without a read repeats the one before."""
        return tuple(self.seconds)


class Derivation:
    """Turns each snapshot into a view, with the memory that rates, history and confirmation need.

    Args:
        settings: What counts as too much, also for single agents and roles.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inboxes: dict[str, Track] = {}
        self._queues: dict[str, Track] = {}

    def update(self, snapshot: FleetSnapshot) -> FleetView:
        """The view of this snapshot."""
        letters = snapshot.dead_letters
        owned = _by_owner(letters)
        agents = self._flows(snapshot, snapshot.inboxes, self._inboxes, "inbox", owned)
        queues = self._flows(snapshot, snapshot.queues, self._queues, "tasks", owned)
        subscriptions = _subscriptions(snapshot.subscriptions)
        findings = [finding for flow in (*agents, *queues) for finding in flow.findings]
        for each in subscriptions:
            findings += of_subscription(each, self._settings.thresholds_for("inbox", each.agent))
        findings += of_letters(letters, self._settings.thresholds)
        findings += of_missing(snapshot.missing)
        server = snapshot.server
        return FleetView(
            taken_at=snapshot.taken_at,
            took=snapshot.took,
            server=ServerInfo(
                clean(server.name), clean(server.version), server.url, server.cluster and clean(server.cluster)
            ),
            agents=agents,
            queues=queues,
            subscriptions=subscriptions,
            dead_letters=_cleaned(letters),
            findings=ranked(findings),
            missing=tuple(clean(text) for text in snapshot.missing),
        )

    def _flows(
        self,
        snapshot: FleetSnapshot,
        depths: Mapping[str, QueueDepth],
        tracks: dict[str, Track],
        kind: Literal["inbox", "tasks"],
        owned: Mapping[tuple[str, str], int],
    ) -> tuple[Flow, ...]:
        for gone in tracks.keys() - depths.keys():
            del tracks[gone]
        hidden = _hidden(snapshot.missing)
        return tuple(
            self._flow(
                name,
                depth,
                tracks.setdefault(name, Track()),
                kind,
                owned.get((kind, name), 0),
                snapshot.taken_at,
                seen=not hidden or not any(stream.endswith(_PREFIXES[kind] + name.upper()) for stream in hidden),
            )
            for name, depth in depths.items()
        )

    def _flow(
        self,
        name: str,
        depth: QueueDepth,
        track: Track,
        kind: Literal["inbox", "tasks"],
        dead_letters: int,
        now: datetime,
        *,
        seen: bool,
    ) -> Flow:
        track.add(now.timestamp(), depth)
        previous, track.previous = track.previous, depth
        in_rate, ack_rate = track.rates()
        stranded = None
        if depth.stranded is not None:
            stranded = _confirmed(depth.stranded, depth, previous)
        limits = self._settings.thresholds_for(kind, name)
        threshold = limits.inbox_backlog if kind == "inbox" else limits.queue_backlog
        state = classify(depth, previous, threshold=threshold, now=now) if seen else State.UNKNOWN
        oldest = _age(depth.oldest_at, now) if depth.messages else None
        return Flow(
            name=name,
            state=state,
            depth=depth,
            stranded=stranded,
            in_rate=in_rate,
            ack_rate=ack_rate,
            oldest_age=oldest,
            last_ack_age=_age(depth.last_acked_at, now),
            dead_letters=dead_letters,
            history=track.history(),
            findings=of_flow(f"{kind}.{name}", state, depth, stranded, oldest, limits),
            workers=depth.waiting + depth.ack_pending if kind == "tasks" else min(1, depth.waiting + depth.ack_pending),
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


def _subscriptions(depths: Mapping[str, QueueDepth]) -> tuple[Subscription, ...]:
    found = []
    for durable, depth in depths.items():
        agent, _, name = durable.rpartition("-")
        topics = tuple(
            clean(pattern.partition("events.")[2])
            for pattern in depth.topics
            if "events." in pattern and "redeliver." not in pattern
        )
        found.append(Subscription(clean(agent or durable), clean(name if agent else ""), topics, depth))
    return tuple(found)


def _by_owner(letters: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Letters of each role's queue, and of each agent those of its inbox and of its subscriptions."""
    owned: dict[tuple[str, str], int] = {}
    for source, count in letters.items():
        kind, _, name = source.partition(".")
        owner = ("inbox", name.rpartition("-")[0]) if kind == "events" else (kind, name)
        owned[owner] = owned.get(owner, 0) + count
    return owned


def _hidden(missing: Iterable[str]) -> frozenset[str]:
    """Streams whose consumers could not be read, which a snapshot says in words only."""
    return frozenset(text.removeprefix(_HIDDEN).partition(":")[0] for text in missing if text.startswith(_HIDDEN))


def _cleaned(letters: Mapping[str, int]) -> dict[str, int]:
    """Counts by names that are safe to show; two that look the same then count as one."""
    found: dict[str, int] = {}
    for source, count in letters.items():
        safe = clean(source)
        found[safe] = found.get(safe, 0) + count
    return found


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, (now - moment).total_seconds())
