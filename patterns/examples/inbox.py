"""Inbox: a durable address for one agent; messages wait while it is away and come one at a time, in order.

Run it: `python -m patterns.examples.inbox [--server URL]`
"""

from __future__ import annotations

from patterns import Delivery, Fleet, FleetConfig, Retry, UnknownDestination
from patterns.examples import _run


async def think(message: Delivery) -> None:
    """What an agent does with a message; the first attempt at the budget meets a rate limit."""
    if message.type == "note.budget" and message.attempt == 1:
        print(f"  {message.type}: rate limited, again in 0.2 s; what comes after it waits, order is kept")
        raise Retry("rate limited", after=0.2)
    print(f"  {message.type} from {message.source}, attempt {message.attempt}: {message.data}")


async def main(url: str, config: FleetConfig) -> bool:
    """Send to an agent that is away, look without taking, then let it read one message a session."""
    async with Fleet.connect(url, config=config) as fleet:
        await fleet.provision(agents=["ceo"])
        security, ceo = fleet.agent("security"), fleet.agent("ceo")

        await security.send("ceo", "alert.cve", {"cve": "CVE-2026-1234", "severity": "high"})
        await security.send("ceo", "note.budget", {"tokens_left": 120_000})
        await security.send("ceo", "brief.week", {"audited": 14})
        try:
            await security.send("cfo", "note.budget", {})
        except UnknownDestination as error:
            print(f"nobody by that name: {error}")

        depth, waiting = await fleet.inbox("ceo").depth(), await fleet.inbox("ceo").peek()
        print(f"ceo is away, {depth.messages} waiting: {', '.join(message.type for message in waiting)}")

        print("ceo reads:")
        # One message a session: for agents that start with a fresh context each time and must know when to go home.
        while (message := await ceo.next_message(timeout=1)) is not None:
            async with message:  # a heartbeat keeps the lease; leaving acknowledges, or gives back after an error
                await think(message)
        print(f"left in the inbox: {(await fleet.inbox('ceo').depth()).messages}")
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
