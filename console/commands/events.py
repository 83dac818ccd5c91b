"""`events`: the broadcasts of a fleet, as they were stored and as they come."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from patterns import Fleet, Message
    from patterns.watch import Watch

RETRY = 1.0
"""Seconds until the events are read again after they could not be."""

EPILOG = """\b
Topics are tokens joined by dots; * stands for one token, a last > for the rest.

\b
Examples:
  agent-console events
  agent-console events 'deployment.>' security.alert --since 1h
  agent-console events --since 24h --no-follow --json > events.jsonl
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events", epilog=EPILOG)(events)


def events(
    context: typer.Context,
    topics: Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="All topics if none.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DURATION", help="Begin with what is no older: 90s, 10m, 1h30m, 2d."),
    ] = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="End after what is stored (all of it without --since).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Print events and follow those to come, until Ctrl-C.

    Reads without a consumer: no agent and no subscription notices.
    """
    options: GlobalOptions = context.obj
    return running.run(lambda _: _events(options, topics or [], since, follow=not no_follow, as_json=json))


async def _events(options: GlobalOptions, topics: list[str], since: str | None, *, follow: bool, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes

    begin = _begin(since, follow=follow)
    _check_topics(topics)
    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        source = _follow(fleet, topics, begin) if follow else _stored(fleet, topics, begin)
        async with contextlib.aclosing(source) as messages:
            async for message in messages:
                if as_json:
                    out.json(shapes.message(message))
                else:
                    out.show(report.event(message))
                if out.closed:
                    break
    return running.OK


def _begin(since: str | None, *, follow: bool) -> datetime | None:
    from console.filters import parse_duration

    if since is None:
        return None if follow else datetime.min.replace(tzinfo=UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(since))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--since: {error}") from None


def _check_topics(topics: list[str]) -> None:
    from patterns import InvalidName
    from patterns.names import topic_filter

    try:
        for topic in topics:
            topic_filter(topic)
    except InvalidName as error:
        raise UsageError(str(error)) from None


async def _stored(fleet: Fleet, topics: list[str], since: datetime | None) -> AsyncGenerator[Message]:
    """What is stored now; what comes meanwhile is not waited for."""
    last = await _last(fleet)
    watch = _watch(fleet, topics, since)
    messages: Any = aiter(watch)
    caught_up = asyncio.ensure_future(watch.caught_up.wait())
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(messages))
            await asyncio.wait({upcoming, caught_up}, return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)
                return
            message: Message = upcoming.result()
            if (message.seq or 0) > last:
                return
            yield message
    finally:
        caught_up.cancel()
        await messages.aclose()


async def _follow(fleet: Fleet, topics: list[str], since: datetime | None) -> AsyncGenerator[Message]:
    """What is stored since then and what comes, across lost connections, none twice."""
    import nats.errors

    from patterns import PatternError

    # Sequences decide what was printed; the time, which two clocks may see differently, only where to look for it.
    seen, newest = (await _last(fleet), datetime.now(UTC)) if since is None else (0, since)
    told = ""

    def say(error: Exception) -> None:
        nonlocal told
        trouble = str(error) or type(error).__name__
        if trouble != told:
            tell(f"{trouble}; trying again")
            told = trouble

    while True:
        watch = _watch(fleet, topics, since)
        watch.on_trouble = say
        try:
            async for message in watch:
                told = ""
                at = message.stored_at or newest
                # A stream that was made anew begins at 1 again.
                if (message.seq or 0) > seen or at > newest:
                    since = newest = at
                    seen = message.seq or 0
                    yield message
        except (PatternError, nats.errors.Error, OSError) as error:
            say(error)
        since = since or newest
        await asyncio.sleep(RETRY)


async def _last(fleet: Fleet) -> int:
    from patterns import UnknownDestination

    stream = fleet.names.events_stream
    info = await fleet.jetstream.stream_info(stream)
    if info is None:
        raise UnknownDestination(f"there is no stream {stream} here: nothing was ever broadcast in this fleet")
    return int(info["state"]["last_seq"])


def _watch(fleet: Fleet, topics: list[str], since: datetime | None) -> Watch:
    """A watch that leaves nothing out: a pipe can wait, and what it has not read is not held in memory."""
    from patterns.watch import Watch

    return Watch(fleet, tuple(topics), since, backlog=sys.maxsize)
