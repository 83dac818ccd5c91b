"""How the members of the demo behave: they think, fail now and then, ask each other, and tell everybody."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from console.demo.bodies import BODIES, NEEDED, deployment
from console.demo.fate import draw, generation, trouble
from console.demo.organization import Member
from patterns import Agent, Delivery, Fleet, Message, Reject

_PRICELESS = {"spec": "no spec", "budget_eur": "no budget approved", "issue": "no issue described"}
"""Fields without which a member declines at once; without any other it stumbles over a KeyError."""

_THINK = {"support": 0.9}
_THINK_MESSAGE = 0.3
_THINK_TASK = 1.1
_THINK_OUTCOME = 0.06
"""Mean seconds; a busier agent thinks faster, so that any rate and any size of fleet stays in balance."""

_SETTLING = 0.004
"""Seconds allowed for delivering and acknowledging one message; it takes 0.8 ms on an idle fleet, 2 ms at a rate of 100."""

DEPLOYS, ESCALATES = 0.3, 0.08
"""Share of finished code that is deployed, and of deployments that Security takes to the CEO."""


@dataclass(slots=True)
class Stage:
    """What all behaviours share.

    Args:
        seed: Decides every fate.
        loads: Messages a second by agent, tasks a second by `role:<role>`.
        workers: Members by role.
    """

    seed: str
    loads: Mapping[str, float]
    workers: Mapping[str, int]
    failure_rate: float = 0.0
    haste: float = 1.0
    """Factor on all thinking; the drain at the end is in a hurry."""
    outages: set[str] = field(default_factory=set)
    """Ids of tasks that fall into an outage of the model."""
    counts: Counter[str] = field(default_factory=Counter)

    async def think(self, delivery: Delivery, mean: float) -> None:
        """Take time, some messages much more than others; the same message takes the same time in every run."""
        luck = draw(self.seed, "think", delivery.id, delivery.attempt)
        await asyncio.sleep(mean * self.haste * -math.log(1 - 0.96 * luck))

    def stumble(self, delivery: Delivery) -> None:
        """Raise what this attempt meets, if it meets anything: a body that lacks something, or bad luck."""
        lacking = NEEDED.get(delivery.type, "")
        if lacking in _PRICELESS and lacking not in delivery.data:
            raise Reject(_PRICELESS[lacking])
        if lacking:
            _ = delivery.data[lacking]
        error = trouble(
            self.seed,
            delivery.id,
            generation(delivery.headers),
            delivery.attempt,
            self.failure_rate,
            outage=delivery.id in self.outages,
        )
        if error is not None:
            raise error

    def message_time(self, agent: str) -> float:
        """Mean seconds an agent thinks about a message of its inbox."""
        wanted = _THINK.get(agent, _THINK_MESSAGE)
        busy = 0.85 if agent in _THINK else 0.6
        return min(wanted, max(0.0, busy / max(self.loads.get(agent, 0.0), 1e-9) - _SETTLING))

    def task_time(self, role: str) -> float:
        """Mean seconds a member of a role works on a task."""
        return min(_THINK_TASK, 0.55 * self.workers.get(role, 1) / max(self.loads.get(f"role:{role}", 0.0), 1e-9))

    def concurrency(self, role: str | None) -> int:
        """Tasks a member of a role works on at a time: one, and more where the settling alone would fill its day."""
        return 1 + int(self.loads.get(f"role:{role}", 0.0) / self.workers.get(role or "", 1) / 6)


def build(fleet: Fleet, member: Member, stage: Stage) -> Agent:
    """A member with all its behaviours; one that was away comes back as a new object."""
    agent = fleet.agent(member.id, role=member.role, concurrency=stage.concurrency(member.role))
    _messages(agent, stage)
    if member.role is not None:
        _tasks(agent, member.role, stage)
    if member.role == "backend":
        _answer(agent, "api.schema", stage, lambda request: {"schema": f"{request.data['service']}.v2"})
    if member.id == "devops":
        _answer(agent, "db.pool-size", stage, lambda request: {"db": request.data["db"], "size": 20})
        _answer(agent, "deploy.slot", stage, lambda request: {"service": request.data["service"], "slot": "now"})
    if member.topics:
        _events(agent, member.topics, stage)
    return agent


def _messages(agent: Agent, stage: Stage) -> None:
    async def read(message: Delivery) -> None:
        await stage.think(message, stage.message_time(agent.id))
        stage.stumble(message)

    for family in ("alert.>", "brief.>", "note.>", "ticket.>"):
        agent.on_message(family)(read)

    @agent.on_message("task.*")
    async def outcome(message: Delivery) -> None:
        await stage.think(message, min(_THINK_OUTCOME, stage.message_time(agent.id)))


def _tasks(agent: Agent, role: str, stage: Stage) -> None:
    async def work(task: Delivery) -> Any:
        await stage.think(task, stage.task_time(role))
        stage.stumble(task)
        return await _finish(agent, task, stage)

    # Type by type, and not `code.*`: what nobody has learnt becomes a dead letter with reason `unhandled`.
    for known in BODIES:
        if known.startswith(_FAMILIES[role]):
            agent.on_task(known)(work)


_FAMILIES = {"backend": "code.", "frontend": "ui.", "ops": "infra.", "data": "data."}


async def _finish(agent: Agent, task: Delivery, stage: Stage) -> Any:
    """What comes of a task; the events have ids of their own, so running again after a crash repeats none."""
    luck = draw(stage.seed, "result", task.id)
    result: dict[str, Any] = {"tokens": int(luck * 90_000) + 900}
    if task.type == "code.review":
        return result | {"approved": luck > 0.2, "comments": int(luck * 12)}
    if task.type.startswith("ui."):
        schema = await _ask(
            agent, stage, "api.schema", {"service": "catalog"}, {"schema": "catalog.v1"}, role="backend"
        )
        return result | {"pr": 1000 + int(luck * 900), "schema": schema["schema"]}
    if task.type == "infra.scale":
        pool = await _ask(agent, stage, "db.pool-size", {"db": "main"}, {"size": 10}, to="devops")
        await _tell(agent, stage, "infra.scaled", dict(task.data), f"{task.id}.scaled")
        return result | {"pool": pool["size"], "pool_source": pool["source"]}
    if task.type.startswith("code.") and luck < DEPLOYS:
        service = str(task.data["service"])
        slot = await _ask(agent, stage, "deploy.slot", {"service": service}, {"slot": "nightly"}, to="devops")
        body = deployment(task.id, service, luck)
        await _tell(agent, stage, "deployment.completed", body, f"{task.id}.deployed")
        return result | {"version": body["version"], "slot": slot["slot"], "slot_source": slot["source"]}
    return result | {"commit": f"{int(luck * 2**28):07x}"}


async def _ask(
    agent: Agent,
    stage: Stage,
    method: str,
    data: Any,
    fallback: Mapping[str, Any],
    *,
    to: str | None = None,
    role: str | None = None,
) -> dict[str, Any]:
    """Ask, and go on with the fallback if there is no answer within 0.6 s; the answer says where it is from."""
    reply = await agent.request(to, method, data, role=role, timeout=0.6, fallback=fallback)
    stage.counts["requests"] += 1
    return {**reply.data, "source": reply.source}


async def _tell(agent: Agent, stage: Stage, topic: str, data: Any, id: str) -> None:
    receipt = await agent.broadcast(topic, data, id=id)
    stage.counts["broadcast"] += not receipt.duplicate


def _answer(agent: Agent, method: str, stage: Stage, answer: Callable[[Message], Any]) -> None:
    @agent.on_request(method)
    async def respond(request: Message) -> Any:
        luck = draw(stage.seed, "answer", request.causation_id or request.id, method)
        # One answer in twelve is too late for whoever asks: they go on with their fallback.
        await asyncio.sleep(1.5 if luck > 11 / 12 else 0.02 + 0.12 * luck)
        return answer(request)


def _events(agent: Agent, topics: tuple[str, ...], stage: Stage) -> None:
    @agent.on_event(*topics)
    async def take_note(event: Delivery) -> None:
        await stage.think(event, 0.05)
        stage.stumble(event)
        if agent.id == "security" and draw(stage.seed, "escalate", event.id) < ESCALATES:
            alert = {"cve": "CVE-2026-0001", "service": event.data.get("service"), "version": event.data.get("version")}
            receipt = await agent.send("ceo", "alert.cve", alert, id=f"{event.id}.audit")
            stage.counts["sent"] += not receipt.duplicate
