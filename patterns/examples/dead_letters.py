"""Dead letters: what no handler could finish, why, and the way back.

Run it: `python -m patterns.examples.dead_letters [--server URL]`
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from patterns import DeadLetter, Delivery, DeliveryConfig, Fleet, FleetConfig, Reject, RetryPolicy
from patterns.examples import _run

QUICK = DeliveryConfig(ack_wait=10, max_ack_pending=64, max_deliver=2, retry=RetryPolicy(base=0.2))


async def letter_of(fleet: Fleet, task: str) -> DeadLetter:
    """Wait for the dead letter of a task; `watch` begins with those that are there already."""
    async for letter in fleet.dead_letters.watch():
        if letter.id == task:
            return letter
    raise LookupError(task)


async def main(url: str, config: FleetConfig) -> bool:
    """Let one task die of a missing spec and one of a silent model, then bring both back."""
    async with Fleet.connect(url, config=dataclasses.replace(config, roles={"backend": QUICK})) as fleet:
        await fleet.provision(agents=["ceo"], roles=["backend"])
        ceo, worker, queue = fleet.agent("ceo"), fleet.agent("backend-1", role="backend"), fleet.tasks("backend")
        unanswered = {"pagination"}

        @worker.on_task("code.*")
        async def code(task: Delivery) -> Any:
            if "spec" not in task.data:
                raise Reject("no spec")  # at once
            if task.data["title"] in unanswered:
                raise TimeoutError("model did not answer")  # after as many attempts as the role allows
            return {"pr": 247}

        async with worker:
            for data in ({"title": "rate limiting"}, {"title": "pagination", "spec": "cursors"}):
                receipt = await ceo.submit("backend", "code.feature", data, reply_to=None)
                letter = await asyncio.wait_for(letter_of(fleet, receipt.id), 10)
                print(f"dead: {data['title']}, {letter.reason} after {letter.deliveries}: {letter.error_text}")
                # An operator finds out why, changes what has to be changed, and sends it back to where it came from.
                unanswered.discard(data["title"])
                await fleet.dead_letters.replay(letter.seq, by="operator", data=letter.message.data | {"spec": "v2"})
                status = await queue.wait(receipt.id, timeout=10)
                print(f"replayed: {status.state} {status.result}")
        print(f"dead letters of the role now: {(await fleet.dead_letters.count()).get(('tasks', 'backend'), 0)}")
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
