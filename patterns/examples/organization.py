"""The four patterns in one flow: a task, a question, a result and an event, tied together by one correlation id.

Run it: `python -m patterns.examples.organization [--server URL] [--config patterns/examples/fleet.toml]`
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from patterns import Agent, Delivery, Fleet, FleetConfig, Message
from patterns.examples import _run

TIMEOUT = 10.0


class Steps:
    """Prints the steps of one conversation in their order: the last two happen side by side."""

    def __init__(self) -> None:
        self.conversation = asyncio.Future[str]()
        self.done = asyncio.Event()
        self._happened: dict[int, str] = {}
        self._printed = 0

    def note(self, step: int, who: str, what: str, correlation_id: str) -> None:
        """Step number `step` has happened; a message of another conversation, left by an earlier run, is none."""
        if self.conversation.done() and correlation_id == self.conversation.result():
            self._happened.setdefault(step, f"{step}. [{correlation_id}] {who:<9}  {what}")
        while (line := self._happened.get(self._printed + 1)) is not None:
            print(line)
            self._printed += 1
        if self._printed == 5:
            self.done.set()


def backend(fleet: Fleet, name: str, steps: Steps) -> Agent:
    """A backend agent: takes a task, asks DevOps, tells everybody, answers the submitter."""
    agent = fleet.agent(name, role="backend")

    @agent.on_task("scale")
    async def scale(task: Delivery) -> Any:
        await steps.conversation
        steps.note(2, name, "took the task from the queue of role backend", task.correlation_id)
        # A fallback keeps the work going while DevOps is away, and the result says that it was one.
        pool = await agent.request("devops", "db.pool-size", {"db": "main"}, timeout=2, fallback={"size": 10})
        what = f"asked devops for db.pool-size: {pool.data['size']} connections ({pool.source})"
        steps.note(3, name, what, task.correlation_id)
        # With an id of its own the event happens once, even if this handler is run again after a crash.
        event = {"service": task.data["service"], "replicas": task.data["replicas"]}
        await agent.broadcast("deployment.completed", event, id=f"{task.id}.deployed")
        return {"replicas": task.data["replicas"], "pool": pool.data["size"], "pool_source": pool.source}

    return agent


def others(fleet: Fleet, steps: Steps) -> list[Agent]:
    """The CEO with its inbox, DevOps that answers, Security that audits."""
    ceo, devops, security = fleet.agent("ceo"), fleet.agent("devops"), fleet.agent("security")

    @devops.on_request("db.pool-size")
    async def pool_size(request: Message) -> Any:
        return {"db": request.data["db"], "size": 20}

    @ceo.on_message("task.*")
    async def outcome(message: Delivery) -> None:
        result = message.data.get("result") or message.data.get("error")
        steps.note(4, "ceo", f"has {message.type} from {message.source}: {result}", message.correlation_id)

    @security.on_event("deployment.>")
    async def audit(event: Delivery) -> None:
        steps.note(5, "security", f"audited {event.type} from {event.source}: {event.data}", event.correlation_id)

    return [ceo, devops, security]


async def main(url: str, config: FleetConfig) -> bool:
    """Run the flow once; False if not all five steps have happened in time."""
    steps = Steps()
    async with Fleet.connect(url, config=config) as fleet, AsyncExitStack() as running:
        await fleet.provision(agents=["ceo"], roles=["backend"])
        agents = [*others(fleet, steps), *(backend(fleet, name, steps) for name in ("backend-1", "backend-2"))]
        for agent in agents:
            await running.enter_async_context(agent)
        task = await agents[0].submit("backend", "scale", {"service": "api-gateway", "replicas": 4})
        steps.conversation.set_result(task.id)  # what begins a conversation gives it its id
        steps.note(1, "ceo", "submitted a scale task to role backend", task.id)
        try:
            await asyncio.wait_for(steps.done.wait(), TIMEOUT)
        except TimeoutError:
            print(f"not all five steps have happened within {TIMEOUT:g} s")
            return False
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
