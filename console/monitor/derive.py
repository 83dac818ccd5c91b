"""From snapshots to a view: rates, history, confirmed strandings, states and findings. Pure; time comes with the snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Literal

from console.monitor.states import State, classify
from console.monitor.view import Finding, FleetView, Flow, Severity, Subscription
from console.settings import Settings, Thresholds
from console.text.safe import clean
from console.text.units import age as age_text
from patterns import FleetSnapshot, QueueDepth, ServerInfo

HISTORY = 60
"""Seconds of history a row keeps."""
RATE_WINDOW = 6.0
"""Seconds over which a rate is averaged: steady to read, quick enough to follow."""


class Track:
    """The last minute of one stream."""

    def __init__(self) -> None:
        self.samples: deque[tuple[float, int, int]] = deque(maxlen=HISTORY * 4)
        """Time, newest sequence, messages there."""
        self.previous: QueueDepth | None = None

    def add(self, now: float, depth: QueueDepth) -> None:
        """Note one read."""
        if self.samples and depth.last_seq < self.samples[-1][1]:
            # The stream was deleted and made again: its past says nothing about it.
            self.samples.clear()
        self.samples.append((now, depth.last_seq, depth.messages))

    def rates(self) -> tuple[float | None, float | None]:
        """Messages in and messages gone a second; None before two reads."""
        if len(self.samples) < 2:
            return None, None
        end = self.samples[-1]
        start = next(sample for sample in self.samples if sample[0] >= end[0] - RATE_WINDOW)
        if start is end:
            start = self.samples[-2]
        elapsed = max(end[0] - start[0], 1e-6)
        stored = (end[1] - start[1]) / elapsed
        return stored, max(0.0, stored - (end[2] - start[2]) / elapsed)

    def history(self) -> tuple[int, ...]:
        """Messages there at each of the last 60 seconds; a second without a read repeats the one before."""
        if not self.samples:
            return ()
        end = self.samples[-1][0]
        values = [self.samples[-1][2]]
        for (earlier, _, messages), (later, _, _) in reversed(list(pairwise(self.samples))):
            values += [messages] * (int(end - earlier) - int(end - later))
            if len(values) >= HISTORY:
                break
        return tuple(reversed(values[:HISTORY]))


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
        agents = self._flows(snapshot, snapshot.inboxes, self._inboxes, "inbox", letters)
        queues = self._flows(snapshot, snapshot.queues, self._queues, "tasks", letters)
        findings = [finding for flow in (*agents, *queues) for finding in flow.findings]
        total = sum(letters.values())
        limits = self._settings.thresholds
        if total >= limits.dead_letters_warn:
            worst = max(letters, key=lambda source: letters[source])
            severity: Severity = "critical" if total >= limits.dead_letters_crit else "warning"
            findings.append(Finding(severity, "dlq", f"{total} dead letters, most of them from {clean(worst)}"))
        findings += [Finding("warning", "read", clean(text)) for text in snapshot.missing]
        findings.sort(key=lambda finding: (finding.severity != "critical", finding.subject))
        server = snapshot.server
        return FleetView(
            taken_at=snapshot.taken_at,
            took=snapshot.took,
            server=ServerInfo(
                clean(server.name), clean(server.version), server.url, server.cluster and clean(server.cluster)
            ),
            agents=agents,
            queues=queues,
            subscriptions=_subscriptions(snapshot.subscriptions),
            dead_letters={clean(source): count for source, count in letters.items()},
            findings=tuple(findings),
            missing=tuple(clean(text) for text in snapshot.missing),
        )

    def _flows(
        self,
        snapshot: FleetSnapshot,
        depths: Mapping[str, QueueDepth],
        tracks: dict[str, Track],
        kind: Literal["inbox", "tasks"],
        letters: Mapping[str, int],
    ) -> tuple[Flow, ...]:
        for gone in tracks.keys() - depths.keys():
            del tracks[gone]
        return tuple(
            self._flow(name, depth, tracks.setdefault(name, Track()), kind, letters, snapshot.taken_at)
            for name, depth in depths.items()
        )

    def _flow(
        self,
        name: str,
        depth: QueueDepth,
        track: Track,
        kind: Literal["inbox", "tasks"],
        letters: Mapping[str, int],
        now: datetime,
    ) -> Flow:
        previous = track.previous
        track.add(now.timestamp(), depth)
        track.previous = depth
        in_rate, ack_rate = track.rates()
        stranded = None
        if depth.stranded is not None:
            # One read can catch an acknowledged message that has not left the stream yet.
            stranded = min(depth.stranded, previous.stranded or 0) if previous is not None else 0
        limits = self._settings.thresholds_for(kind, name)
        threshold = limits.inbox_backlog if kind == "inbox" else limits.queue_backlog
        state = classify(depth, previous, threshold=threshold, now=now)
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
            dead_letters=_letters_of(kind, name, letters),
            history=track.history(),
            findings=_findings(f"{kind}.{name}", state, depth, stranded, oldest, limits),
            workers=depth.waiting + depth.ack_pending if kind == "tasks" else min(1, depth.waiting + depth.ack_pending),
        )


def _findings(
    subject: str, state: State, depth: QueueDepth, stranded: int | None, oldest: float | None, limits: Thresholds
) -> tuple[Finding, ...]:
    found: list[Finding] = []

    def add(severity: Severity, text: str) -> None:
        found.append(Finding(severity, subject, text))

    if state is State.NO_WORKER:
        add("critical", f"{depth.pending} waiting and nobody pulls")
    elif state is State.STALLED:
        add("critical", f"{depth.ack_pending} in flight without a sign of life for more than {depth.ack_wait:g} s")
    elif state is State.BACKLOG:
        add("warning", f"{depth.pending} waiting, more than the threshold")
    elif state is State.PAUSED and depth.pending:
        add("warning", f"paused with {depth.pending} waiting")
    if stranded:
        add("critical", f"{stranded} stranded: deliveries used up, hidden from the consumer")
    if oldest is not None and oldest >= limits.oldest_crit:
        add("critical", f"oldest message has waited {age_text(oldest)}")
    elif oldest is not None and oldest >= limits.oldest_warn:
        add("warning", f"oldest message has waited {age_text(oldest)}")
    return tuple(found)


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


def _letters_of(kind: str, name: str, letters: Mapping[str, int]) -> int:
    """Letters of a role's queue; of an agent those of its inbox and of its subscriptions."""
    count = letters.get(f"{kind}.{name}", 0)
    if kind == "inbox":
        for source, letters_there in letters.items():
            durable = source.removeprefix("events.")
            if durable != source and durable.rpartition("-")[0] == name:
                count += letters_there
    return count


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, (now - moment).total_seconds())
