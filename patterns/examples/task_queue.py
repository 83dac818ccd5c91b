"""Task queue: any member of the role does it, once, and the submitter hears of it.

Run it: `python -m patterns.examples.task_queue [--server URL]`
"""

from __future__ import annotations

import asyncio
from typing import Any

from patterns import Agent, Delivery, Fleet, FleetConfig, Reject
from patterns.examples import _run


def backend(fleet: Fleet, name: str) -> Agent:
    """A member of the role `backend` that works on two tasks at a time."""
    agent = fleet.agent(name, role="backend", concurrency=2)

    @agent.on_task("code.*")
    async def code(task: Delivery) -> Any:
        if "spec" not in task.data:
            raise Reject("no spec")  # no attempt will help: straight to the dead letters
        await task.progress("tests written")  # extends the lease, and stands in the ledger
        await asyncio.sleep(0.1)
        print(f"{name} did {task.type}: {task.data['spec']}")
        return {"pr": 240 + task.seq}  # acknowledged, and sent to the submitter's inbox

    return agent


async def main(url: str, config: FleetConfig) -> bool:
    """Submit six tasks to two workers, one of them impossible, and follow them to their end."""
    async with Fleet.connect(url, config=config) as fleet:
        await fleet.provision(agents=["ceo"], roles=["backend"])
        ceo, queue = fleet.agent("ceo"), fleet.tasks("backend")
        told = asyncio.Event()

        @ceo.on_message("task.*")
        async def outcome(message: Delivery) -> None:
            if message.type == "task.failed":
                print(f"ceo is told: {message.data['task'][:8]} failed, {message.data['error']}")
                told.set()

        async with backend(fleet, "backend-1"), backend(fleet, "backend-2"), ceo:
            jobs = [("code.feature", {"spec": f"rate limit {n}"}) for n in range(5)] + [("code.bugfix", {})]
            receipts = [await ceo.submit("backend", *job) for job in jobs]
            again = await ceo.submit("backend", *jobs[0], id=receipts[0].id)
            print(f"submitted {len(receipts)} tasks; the same id again is stored once: duplicate={again.duplicate}")
            for receipt in receipts:
                status = await queue.wait(receipt.id, timeout=10)
                print(f"{status.id[:8]} {status.state} by {status.agent}: {status.result or status.error}")
            await asyncio.wait_for(told.wait(), 5)
        print(f"left in the queue: {(await queue.depth()).messages}")
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
