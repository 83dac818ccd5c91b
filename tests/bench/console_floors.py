"""The least that something like the console needs, each in a process of its own: `count`, `app` or `bare`.

`count URL` is a subscriber that only counts the events. `app` is an empty Textual application with one timer that fires
ten times a second, as the console's does. `bare` has imported Textual and the NATS client and waits.

All but `app`, which ends with its terminal, end with their standard input.
"""

# ruff: noqa: PLC0415 - each floor must hold nothing but what it is about

from __future__ import annotations

import asyncio
import json
import sys


async def count(url: str) -> None:
    """Count events until standard input ends."""
    import nats
    from nats.aio.msg import Msg

    seen = 0
    stop = asyncio.Event()

    async def take(msg: Msg) -> None:
        nonlocal seen
        seen += 1

    nc = await nats.connect(url)
    await nc.subscribe("events.>", cb=take)
    await nc.flush()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    print("ready", flush=True)
    await stop.wait()
    await nc.close()
    print(json.dumps({"counted": seen}))


def app() -> None:
    """An empty application."""
    from textual.app import App

    class Empty(App[None]):
        def on_mount(self) -> None:
            self.set_interval(0.1, lambda: None)

    Empty().run()


def bare() -> None:
    """Hold the libraries until standard input ends."""
    import nats
    import textual.app

    del nats, textual
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["count", server]:
            asyncio.run(count(server))
        case ["app"]:
            app()
        case _:
            bare()
