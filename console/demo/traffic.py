"""What the demo sends, when, and what is wrong with some of it: a plan, drawn from one seeded generator a route.

The same seed, organization, rate and failure rate give the same plan: ids, types, bodies, flaws and times from the start.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any, Literal

from console.demo.bodies import BODIES, NEEDED
from console.demo.fate import dice
from console.demo.organization import Organization

TASK_SHARE = 0.45
"""Of the overall rate; the rest are inbox messages. Events come on top."""

FLAWED = 0.1
"""Flawed items for each failing one: at a failure rate of 8 % under 1 % of what is sent can never be handled."""

BURST = 18
"""Tickets that arrive at once, now and then: above the console's threshold for a backlog."""

OUTAGE = 5
"""Tasks in a row that fall into an outage of the model."""

Kind = Literal["task", "message", "event"]
Flaw = Literal["", "incomplete", "unknown-type", "broken-json", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One planned publish."""

    at: float
    """Seconds after the start."""
    kind: Kind
    sender: str | None
    """None: somebody outside, such as a web form."""
    to: str
    """Role, agent or topic."""
    type: str
    id: str
    data: Mapping[str, Any]
    flaw: Flaw = ""
    raw: bytes | None = None
    """Sent bare, without any envelope, instead of `data`."""
    expires_in: float | None = None
    outage: bool = False
    """Handled while the model is down."""


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of traffic between some senders and some recipients."""

    kind: Kind
    name: str
    """Begins its ids."""
    senders: tuple[str, ...]
    """Agents; none is somebody outside."""
    to: tuple[str, ...]
    """Roles or agents; none for events."""
    types: Mapping[str, int]
    """Type to weight."""
    share: float
    """Of all tasks, or of all messages; of an event, one for each item of the overall rate."""
    opening: Mapping[int, Flaw] = field(default_factory=dict)
    """Flaws of the first items, so that the first screen has dead letters of several kinds."""
    bursts: bool = False
    outages: bool = False


@dataclass(frozen=True, slots=True)
class Absence:
    """An agent that is away for a while."""

    after: float
    """Seconds after the absence before, or the start."""
    agent: str
    seconds: float
    crashes: bool
    """Whether it goes by crashing on the message at the head of its inbox until that has no attempts left."""


def routes(organization: Organization) -> tuple[Route, ...]:
    """The traffic between those who exist, shares adding up to 1 for tasks and for messages."""
    possible = [*_task_routes(organization), *_message_routes(organization), *_event_routes(organization)]
    total = {kind: sum(r.share for r in possible if r.kind == kind) for kind in ("task", "message")}
    return tuple(replace(r, share=r.share / total.get(r.kind, 1.0)) for r in possible)


def _task_routes(o: Organization) -> list[Route]:
    leads = o.present("cto") or ("ceo",)
    ui, page, report = {"ui.feature": 3, "ui.bugfix": 2}, {"ui.landing-page": 1}, {"data.report": 1}
    code = {"code.feature": 5, "code.bugfix": 3, "code.review": 2}
    upkeep, scale = {"infra.patch": 2, "infra.rotate-keys": 1}, {"infra.scale": 1}
    wanted = [
        Route("task", "dev", leads, ("backend",), code, 0.44, {2: "unknown-type"}, outages=True),
        Route("task", "feat", ("ceo",), ("backend",), {"code.feature": 1}, 0.1, {1: "incomplete"}),
        Route("task", "bug", o.present("support"), ("backend",), {"code.bugfix": 1}, 0.06),
        Route("task", "ui", leads, ("frontend",), ui, 0.2),
        Route("task", "page", o.present("marketing"), ("frontend",), page, 0.08),
        Route("task", "sec", ("security",), ("ops",), upkeep, 0.06),
        Route("task", "cap", leads, ("ops",), scale, 0.06, {1: "expired"}),
        Route("task", "rep", ("ceo",), ("data",), report, 0.12),
    ]
    return [route for route in wanted if route.senders and set(route.to) <= set(o.roles)]


def _message_routes(o: Organization) -> list[Route]:
    leads = o.present("cto") or ("ceo",)
    workers = tuple(member.id for member in o.members if member.role in ("backend", "frontend", "data"))
    tickets, briefs = {"ticket.question": 4, "ticket.refund": 1}, {"brief.campaign": 2, "brief.week": 1}
    escalated = {"ticket.escalated": 1}
    wanted = [
        Route("message", "brf", ("ceo",), o.present("marketing"), briefs, 0.16),
        Route("message", "week", leads, ("ceo",), {"brief.week": 1}, 0.06, {1: "broken-json"}),
        Route("message", "note", leads, workers, {"note.context": 1}, 0.2),
        Route("message", "cve", ("security",), o.present("cto", "ceo"), {"alert.cve": 1}, 0.1),
        Route("message", "lat", ("devops",), o.present("cto", "security"), {"alert.latency": 1}, 0.1),
        Route("message", "esc", o.present("support"), o.present("cto", "devops"), escalated, 0.08),
    ]
    outside = Route("message", "tkt", (), o.present("support"), tickets, 0.3, {3: "incomplete"}, bursts=True)
    return [r for r in wanted if r.senders and r.to] + ([outside] if outside.to else [])


def _event_routes(o: Organization) -> list[Route]:
    leads = o.present("cto") or ("ceo",)
    wanted = [
        Route("event", "sprint", leads, (), {"sprint.updated": 1}, 0.03, {2: "broken-json"}),
        Route("event", "camp", o.present("marketing"), (), {"campaign.launched": 1}, 0.015),
        Route("event", "alarm", ("security",), (), {"security.alert": 1}, 0.03),
        Route("event", "hotfix", ("backend-1",), (), {"deployment.completed": 1}, 0.02, {1: "incomplete"}),
    ]
    return [route for route in wanted if route.senders]


def loads(planned: tuple[Route, ...], rate: float) -> dict[str, float]:
    """Tasks a second for each role (`role:backend`) and messages a second for each agent, outcomes of tasks included."""
    found: dict[str, float] = {}
    for route in planned:
        if route.kind == "event":
            continue
        each = route.share * rate * (TASK_SHARE if route.kind == "task" else 1 - TASK_SHARE)
        for name in route.to:
            key = f"role:{name}" if route.kind == "task" else name
            found[key] = found.get(key, 0.0) + each / len(route.to)
        for sender in route.senders if route.kind == "task" else ():
            found[sender] = found.get(sender, 0.0) + each / len(route.senders)
    return found


def plan(
    organization: Organization, seed: str, rate: float, failure_rate: Callable[[], float], *, run: int = 0
) -> Iterator[Item]:
    """All that will be sent, in the order of its time, without end.

    Args:
        organization: Who exists.
        seed: The same gives the same plan.
        rate: Tasks and messages a second.
        failure_rate: Asked for each item when it is about to be due, so that it can be changed while the demo runs.
        run: Number of earlier runs with this seed on the same server; part of the ids, which would be duplicates else.
    """
    tag = f"{dice(seed).randrange(16**4):04x}" + (f"r{run}" if run else "")
    burst = max(3, min(BURST, round(3 * rate)))
    share = {"task": TASK_SHARE, "message": 1 - TASK_SHARE, "event": 1.0}
    sources = (
        _produce(
            route, 1.0 / (route.share * rate * share[route.kind]), seed, tag, burst if route.bursts else 0, failure_rate
        )
        for route in routes(organization)
    )
    return heapq.merge(*sources, key=lambda item: item.at)


def absences(organization: Organization, seed: str) -> Iterator[Absence]:
    """Who goes away, when and for how long; the first one soon, so that an inbox without a worker is seen early."""
    rng = dice(seed, "absences")
    likely = organization.present("marketing", "frontend-2", "security", "backend-2", "devops", "marketing")
    for number in count():
        agent = likely[0] if number == 0 else rng.choice(likely)
        # Everybody's requests fall back while DevOps is away, and its queue is security's alone: not for long.
        seconds = rng.uniform(5, 8) if agent == "devops" else rng.uniform(14, 22)
        yield Absence(1.0 if number == 0 else rng.uniform(12, 30), agent, seconds, crashes=number % 3 == 0)


def _produce(
    route: Route, mean: float, seed: str, tag: str, burst: int, failure_rate: Callable[[], float]
) -> Iterator[Item]:
    rng = dice(seed, route.name)
    gaps = _gaps(rng, mean, burst)
    at = min(rng.uniform(0, mean), 1.5) if route.opening else rng.uniform(0, mean)
    outage_left, outage_in = 0, rng.randrange(30, 60)
    for number in count(1):
        made = rng.choices(tuple(route.types), tuple(route.types.values()))[0]
        # Every item takes the same draws, flawed or not: the failure rate changes no id, body or time.
        item = Item(
            at=at,
            kind=route.kind,
            sender=rng.choice(route.senders) if route.senders else None,
            to=rng.choice(route.to) if route.to else made,
            type=made,
            id=f"{route.name}-{tag}-{number}",
            data=BODIES[made](rng),
            outage=outage_left > 0,
        )
        luck, pick = rng.random(), rng.random()
        if failure_rate() > 0 and number in route.opening:
            item = _flawed(item, route.opening[number])
        elif luck < failure_rate() * FLAWED:
            item = _flawed(item, _FLAWS[item.kind][int(pick * len(_FLAWS[item.kind]))])
        yield item
        at += next(gaps) if number > len(route.opening) or route.bursts else min(next(gaps), 1.5)
        outage_in -= route.outages
        outage_left = OUTAGE if outage_in == 0 else max(0, outage_left - 1)
        if outage_in == 0:
            outage_in = rng.randrange(80, 140)


def _gaps(rng: Random, mean: float, burst: int) -> Iterator[float]:
    """Seconds between items, `mean` on average; a route with bursts begins with one and pauses after each."""
    while True:
        if not burst:
            yield mean * rng.uniform(0.4, 1.6)
            continue
        for _ in range(burst):
            yield min(mean, rng.uniform(0.03, 0.12))
        yield mean * burst * 0.5
        for _ in range(2 * burst - 1):
            yield mean * rng.uniform(0.7, 1.8)


_FLAWS: dict[Kind, tuple[Flaw, ...]] = {
    "task": ("incomplete", "incomplete", "unknown-type", "broken-json", "expired"),
    "message": ("incomplete", "incomplete", "unknown-type", "broken-json"),
    "event": ("incomplete", "broken-json"),
}
_UNKNOWN = {"task": "code.translate-cobol", "message": "fax.received"}


def _flawed(item: Item, flaw: Flaw) -> Item:
    if flaw == "unknown-type":
        return replace(item, type=_UNKNOWN[item.kind], flaw=flaw)
    if flaw == "expired":
        # The maintenance window was over before the task was written.
        return replace(item, expires_in=0.001, flaw=flaw)
    if flaw == "broken-json":
        # What a script does that builds JSON by hand: cut off, and without an envelope.
        return replace(item, raw=json.dumps(dict(item.data)).encode()[:-9], flaw=flaw)
    lacking = NEEDED[item.type]
    return replace(item, data={name: value for name, value in item.data.items() if name != lacking}, flaw=flaw)
