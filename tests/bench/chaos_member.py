"""One process of the chaos run: `python -m tests.bench.chaos_member ROLE NAME LOG URL...`.

What it saw it writes, a line each and at once, to a file of its own: the only witness that no kill can silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from patterns import (
    Delivery,
    DeliveryConfig,
    Fleet,
    FleetConfig,
    PatternError,
    Reject,
    RequestConfig,
    RetryPolicy,
    StreamLimits,
)
from patterns.message import Message

ROLE = "backend"
BOSS = "ceo"
QUICK = RetryPolicy(base=0.1, factor=2.0, max=1.0, jitter=0.2)
LEASE = 2.0
"""Seconds after which what a killed process held comes again."""


def configuration(replicas: int) -> FleetConfig:
    """Short leases, so that a minute of chaos is worth an hour."""
    return FleetConfig(
        inbox=DeliveryConfig(ack_wait=LEASE, max_ack_pending=1, max_deliver=10, retry=QUICK),
        tasks=DeliveryConfig(ack_wait=LEASE, max_ack_pending=64, max_deliver=5, retry=QUICK),
        events=DeliveryConfig(ack_wait=LEASE, max_ack_pending=64, max_deliver=50, retry=QUICK),
        requests=RequestConfig(timeout=1.0),
        limits=StreamLimits(replicas=replicas, max_msgs=1_000_000),
        poll=1.0,
        drain_grace=1.0,
        publish_timeout=20.0,
    )


class Witness:
    """Appends lines to a file, each with one write, so that a kill leaves whole lines."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def saw(self, **what: Any) -> None:
        """Write one line."""
        os.write(self._file, (json.dumps(what) + "\n").encode())


async def insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call, with the same ids, until it is confirmed."""
    while True:
        try:
            return await call()
        except (PatternError, OSError):
            await asyncio.sleep(0.1)


async def submitter(fleet: Fleet, name: str, witness: Witness, tasks: int, seconds: float) -> None:
    """Submit so many tasks over the time; what is confirmed is written down."""
    queue, pause = fleet.tasks(ROLE), seconds / max(1, tasks)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(tasks):
        task = f"{name}-{number}"
        await insist(partial(queue.submit, "code", {"task": task}, id=task, reply_to=fleet.names.inbox_prefix(BOSS)))
        witness.saw(submitted=task)
        await asyncio.sleep(max(0.0, begun + (number + 1) * pause - loop.time()))
    witness.saw(finished=name)
    await asyncio.Event().wait()


async def worker(fleet: Fleet, name: str, witness: Witness) -> None:
    """Work, fail now and then, reject some, and say what was done to whoever listens."""
    agent = fleet.agent(name, role=ROLE, concurrency=3)
    chance = random.Random(name)

    @agent.on_task()
    async def work(task: Delivery) -> dict[str, Any]:
        await asyncio.sleep(chance.random() * 0.05)
        fate = sum(task.id.encode()) % 20
        if fate == 0:
            raise Reject("no spec")
        if fate in (1, 2) or (fate in (3, 4, 5, 6) and task.attempt == 1):
            raise TimeoutError("model did not answer")
        await agent.broadcast("work.done", {"task": task.id}, id=f"{task.id}.done")
        return {"by": name}

    await agent.run()


async def boss(fleet: Fleet, _: str, witness: Witness) -> None:
    """Take outcomes; each stored message is written down with its sequence."""
    agent = fleet.agent(BOSS)

    @agent.on_message()
    async def told(message: Delivery) -> None:
        witness.saw(outcome=message.type, task=message.data["task"], seq=message.seq)

    await agent.run()


async def subscriber(fleet: Fleet, name: str, witness: Witness) -> None:
    """Hear what was done."""
    agent = fleet.agent(name)

    @agent.on_event("work.>")
    async def heard(event: Delivery) -> None:
        witness.saw(event=event.data["task"], by=name)

    await agent.run()


async def responder(fleet: Fleet, name: str, witness: Witness) -> None:
    """Answer what the requester asks."""
    agent = fleet.agent(name, role="infra")

    @agent.on_request("size")
    async def size(request: Message) -> int:
        return int(request.data) * 2

    await agent.run()


async def requester(fleet: Fleet, _: str, witness: Witness) -> None:
    """Ask on and on; every answer must be the right one, whoever gave it."""
    number = 0
    while True:
        number += 1
        reply = await fleet.requests.request("size", number, role="infra", timeout=1.0, fallback=number * 2)
        witness.saw(reply=reply.source, right=reply.data == number * 2)
        await asyncio.sleep(0.05)


MEMBERS: dict[str, Callable[[Fleet, str, Witness], Awaitable[None]]] = {
    "worker": worker,
    "boss": boss,
    "subscriber": subscriber,
    "responder": responder,
    "requester": requester,
}


async def main(role: str, name: str, log: str, *rest: str) -> None:
    """Be one member until somebody kills it."""
    witness = Witness(log)
    *urls, replicas, tasks, seconds = rest
    while True:
        try:
            async with Fleet.connect(urls, config=configuration(int(replicas))) as fleet:
                if role == "submitter":
                    await submitter(fleet, name, witness, int(tasks), float(seconds))
                else:
                    await MEMBERS[role](fleet, name, witness)
                return
        except (PatternError, OSError):
            # The server is away just now: whoever starts an agent starts it again.
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
