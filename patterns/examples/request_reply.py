"""Request/reply: ask an agent for a fact, and know how far its answer can be trusted.

Run it: `python -m patterns.examples.request_reply [--server URL]`
"""

from __future__ import annotations

import asyncio
from typing import Any

from patterns import Fleet, FleetConfig, Message, NoResponders, Reject, RemoteError
from patterns.examples import _run


async def main(url: str, config: FleetConfig) -> bool:
    """Ask while DevOps is there, ask what it refuses, and ask when it is gone."""
    async with Fleet.connect(url, config=config) as fleet:
        devops, backend = fleet.agent("devops"), fleet.agent("backend-1")

        @devops.on_request("db.pool-size")
        async def pool_size(request: Message) -> Any:
            if request.data["db"] != "main":
                raise Reject(f"there is no database {request.data['db']!r}")
            await asyncio.sleep(0.05)  # looking it up; other requests are answered meanwhile
            return {"size": 20}

        async with devops:
            reply = await backend.request("devops", "db.pool-size", {"db": "main"}, timeout=2)
            print(f"{reply.source}: pool size {reply.data['size']}, from {reply.responder}, {reply.latency:.2f} s")
            try:
                await backend.request("devops", "db.pool-size", {"db": "test"}, timeout=2)
            except RemoteError as error:
                print(f"refused: {error}")

        # Nobody listens any more: the last good answer to the same question, if it is fresh enough ...
        reply = await backend.request("devops", "db.pool-size", {"db": "main"}, timeout=2, stale_for=300)
        print(f"{reply.source}: pool size {reply.data['size']} ({reply.error})")
        # ... else a value of one's own. An agent that goes on with it can say so, because the reply does.
        reply = await backend.request("devops", "db.pool-size", {"db": "main"}, timeout=2, fallback={"size": 10})
        print(f"{reply.source}: pool size {reply.data['size']}")
        try:
            await backend.request("devops", "db.pool-size", {"db": "main"}, timeout=2)
        except NoResponders as error:
            # Provably not processed, so it may be repeated; after a RequestTimeout it may not.
            print(f"no responders: {error}")
    return True


if __name__ == "__main__":
    _run.main(main, __doc__)
