"""Events: something happened, whoever cares listens, and who was away catches up.

Run it: `python -m patterns.examples.events [--server URL]`
"""

from __future__ import annotations

import asyncio

from patterns import Agent, Delivery, Fleet, FleetConfig
from patterns.examples import _run


def auditor(fleet: Fleet, seen: asyncio.Queue[str]) -> Agent:
    """Security, with a durable subscription to deployments and alerts."""
    security = fleet.agent("security")

    @security.on_event("deployment.>", "security.*")
    async def audit(event: Delivery) -> None:
        print(f"  security audits {event.type} from {event.source}: {event.data}")
        seen.put_nowait(event.id)

    return security


async def main(url: str, config: FleetConfig) -> bool:
    """Broadcast to a subscriber that is there, to one that is away, and to nobody."""
    async with Fleet.connect(url, config=config) as fleet:
        await fleet.provision()
        backend, seen = fleet.agent("backend-1"), asyncio.Queue[str]()

        async with auditor(fleet, seen):
            print("security is there:")
            event = await backend.broadcast("deployment.completed", {"service": "api-gateway", "version": "1.42"})
            while await asyncio.wait_for(seen.get(), 5) != event.id:
                pass

        print("security is away")
        await backend.broadcast("deployment.failed", {"service": "billing", "version": "0.9"})
        missed = await backend.broadcast("deployment.completed", {"service": "billing", "version": "0.9.1"})
        await backend.broadcast("sprint.updated", {"sprint": 31})  # nobody subscribes: that is fine too

        print("security is back, its subscription goes on where it stood:")
        async with auditor(fleet, seen):
            while await asyncio.wait_for(seen.get(), 5) != missed.id:
                pass
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
