"""Staying connected: the first connect fails fast, every later one is tried for ever, and a client that went deaf is woken.

What nats-py 2.16 does otherwise, measured: with endless retries a refused port is tried for ever already at the first
connect; a late PONG after a timed-out flush ends the read loop while `is_connected` stays true; a half-open connection is
noticed after six minutes. Pulls that get no word, publishes without an answer and servers that are away are waited out
where they are asked: `Pull`, `JetStream.publish`, `Consumer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from patterns import denials
from patterns.errors import ConnectError, Unavailable, UnsupportedServer
from patterns.headers import parse_fields
from patterns.jetstream import JetStream

log = logging.getLogger("patterns")

MINIMUM_SERVER = (2, 11)
"""Batch direct get and consumer pause came with 2.11."""

WATCHDOG_INTERVAL = 1.0
"""Seconds between two looks whether the client still reads."""


async def open_client(servers: str | Sequence[str], options: Mapping[str, Any]) -> Client:
    """Connect once, quickly or not at all; endless reconnecting begins only after the first success.

    With `max_reconnect_attempts=-1` from the start a refused port would be tried for ever (nats-py).
    """
    urls = [servers] if isinstance(servers, str) else list(servers)
    _check_credentials(options.get("user_credentials"))
    last: list[Exception] = []

    nc, theirs = Client(), options.get("error_cb")

    async def on_error(error: Exception) -> None:
        last.append(error)
        del last[:-5]
        log.debug("client: %s", error)
        denials.note(nc, error)
        if theirs is not None:
            await theirs(error)

    given = {
        "name": "nats-agent-patterns",
        "ping_interval": 10,
        "max_outstanding_pings": 2,
        "connect_timeout": 2,
        **options,
        "error_cb": on_error,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.1,
    }
    try:
        await nc.connect(servers=urls, **given)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        cause = next((e for e in reversed([*last, error]) if "uthoriz" in str(e) or "uthentic" in str(e)), None)
        if cause is not None:
            raise ConnectError(f"{_shown(urls)} refused the credentials: {cause}") from None
        reason = last[-1] if last and isinstance(error, nats.errors.NoServersError) else error
        raise ConnectError(
            f"no NATS server answers at {_shown(urls)}: {str(reason) or type(reason).__name__}"
        ) from None
    _guard_pongs(nc)
    nc._parse_header_lines = parse_fields  # type: ignore[method-assign]
    nc.options["max_reconnect_attempts"] = -1
    nc.options["reconnect_time_wait"] = options.get("reconnect_time_wait", 0.5)
    return nc


def _guard_pongs(nc: Client) -> None:
    """Let a PONG that comes after its flush has given up be no news: nats-py 2.16 stops reading over it (InvalidStateError).

    The watchdog would bring the reader back, but what came meanwhile is lost to it until the lease is over.
    """
    process = nc._process_pong

    async def guarded() -> None:
        if nc._pongs and nc._pongs[0].done():
            nc._pongs[0] = asyncio.get_running_loop().create_future()
        await process()

    nc._process_pong = guarded  # type: ignore[method-assign]


def _check_credentials(given: Any) -> None:
    """Refuse a credentials file that holds none: nats-py would read it for ever, looking for the begin of a JWT."""
    for path in given if isinstance(given, tuple) else (given,):
        if type(path) is not str:
            continue  # none given, or the text itself
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConnectError(f"credentials {path!r} cannot be read: {error.strerror}") from None
        if isinstance(given, str) and "BEGIN NATS USER JWT" not in text:
            raise ConnectError(f"credentials {path!r} hold no NATS user JWT")


async def check_server(js: JetStream) -> None:
    """Refuse a server that lacks what the library stands on.

    Raises:
        UnsupportedServer: It is older than 2.11, or has no JetStream for this account.
    """
    version = js.nc.connected_server_version
    if (version.major, version.minor) < MINIMUM_SERVER:
        raise UnsupportedServer(f"nats-server {version.major}.{version.minor} is too old, 2.11 or later is needed")
    if not js.nc._server_info.get("jetstream") and js.prefix == "$JS.API":
        try:
            await js.api("INFO", timeout=2.0)
        except Unavailable:
            raise UnsupportedServer(
                "the server runs without JetStream: start it with `jetstream {}` (or -js)"
            ) from None
        except nats.errors.Error as error:
            raise UnsupportedServer(f"JetStream is not available to this account: {error}") from None


async def watch_reader(nc: Client) -> None:
    """Bring back a connection whose read loop died: a late PONG after a timed-out flush ends it silently (nats-py 2.16)."""
    while not nc.is_closed:
        await asyncio.sleep(WATCHDOG_INTERVAL)
        reading = nc._reading_task
        if nc.is_connected and reading is not None and reading.done():
            log.warning("the client stopped reading; reconnecting")
            with contextlib.suppress(nats.errors.Error, OSError):
                await nc.force_reconnect()


async def leave(nc: Client) -> None:
    """Drain if somebody is there to drain to, else just close."""
    if nc.is_closed:
        return
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        if nc.is_connected:
            await asyncio.wait_for(nc.drain(), 5.0)
    if not nc.is_closed:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await nc.close()


def _shown(urls: Iterable[str]) -> str:
    """URLs without their credentials."""
    return ", ".join(url.rpartition("@")[2] if "@" in url else url.removeprefix("nats://") for url in urls)
