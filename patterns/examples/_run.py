"""What the examples share: a command line, and a server of their own if none is given."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path

from patterns import FleetConfig, PatternError
from patterns.server import LocalServer, ServerError

Example = Callable[[str, FleetConfig], Awaitable[bool]]
"""Takes the server's URL and the configuration, returns whether what it shows has happened."""


def main(example: Example, about: str | None) -> None:
    """Run an example from the command line, then exit: 0 done, 1 failed, 130 after Ctrl-C.

    Args:
        example: The coroutine function to run.
        about: The docstring of its module; the first line goes into `--help`.
    """
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--server", metavar="URL", help="NATS server; else NATS_URL, else a private one is started")
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML as in patterns/examples/fleet.toml")
    arguments = parser.parse_args()
    try:
        config = FleetConfig()
        if arguments.config:
            config = FleetConfig.from_mapping(tomllib.loads(arguments.config.read_text(encoding="utf-8")))
        url = arguments.server or os.environ.get("NATS_URL")
        sys.exit(0 if _run(example, url, config) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except (PatternError, ServerError, TimeoutError, OSError, tomllib.TOMLDecodeError) as error:
        sys.exit(f"error: {str(error) or type(error).__name__}")


def _run(example: Example, url: str | None, config: FleetConfig) -> bool:
    async def run(where: str) -> bool:
        return await example(where, config)

    if url is not None:
        return asyncio.run(run(url))
    with LocalServer() as server:
        return asyncio.run(run(server.url))
