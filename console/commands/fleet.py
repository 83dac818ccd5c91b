"""`fleet`: all agents, queues and subscriptions; `check`: the same for monitoring, as an exit code."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell

if TYPE_CHECKING:
    from console.monitor.view import FleetView
    from console.settings import Settings
    from patterns import Fleet

APART = 0.5
"""Seconds between the two reads that rates, `no worker` and stranded messages need."""

RETRY = 2.0
"""Seconds until `--watch` looks again after it could not."""

FLEET_EPILOG = """\b
Examples:
  agent-console fleet
  agent-console fleet --watch --server nats://nats.example:4222
  agent-console fleet --json | jq '.agents[] | select(.state == "no worker")'
"""

CHECK_EPILOG = """\b
Exit codes: 0 healthy, 1 warning, 2 critical, 3 cannot tell.

\b
Examples:
  agent-console check --context prod
  agent-console check --json | jq -r '.findings[].text'
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("fleet", epilog=FLEET_EPILOG)(fleet)
    app.command("check", epilog=CHECK_EPILOG)(check)


def fleet(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object; with --watch one a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until Ctrl-C.")] = False,
) -> int:
    """Show agents, queues, subscriptions and findings.

    Reads twice, half a second apart: rates and missing workers cannot be told from one look.
    """
    options: GlobalOptions = context.obj
    if watch:
        return running.run(lambda _: _watch(options, as_json=json))
    return running.run(lambda _: _fleet(options, as_json=json))


def check(context: typer.Context, json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False) -> int:
    """Tell by exit code whether the fleet is healthy."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _check(options, as_json=json))


async def _fleet(options: GlobalOptions, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes
    from console.monitor.engine import observe

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        view = await observe(fleet, place.settings, apart=APART)
        if as_json:
            out.json(shapes.fleet(view, place.names, fleet.server_info()))
        else:
            out.show(*report.fleet(view))
    return running.OK


async def _watch(options: GlobalOptions, *, as_json: bool) -> int:
    from rich.console import Group
    from rich.live import Live

    from console import report
    from console.commands import opening, shapes

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        views = _views(fleet, place.settings)
        if not as_json and out.console.is_terminal and not out.console.is_dumb_terminal:
            with Live(console=out.console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
                async for view in views:
                    live.update(Group(*report.fleet(view)), refresh=True)
        async for view in views:
            if as_json:
                out.json(shapes.fleet(view, place.names, fleet.server_info()))
            else:
                out.show(*report.fleet(view), "")
            if out.closed:
                break
    return running.OK


async def _views(fleet: Fleet, settings: Settings) -> AsyncIterator[FleetView]:
    """Views at the refresh interval; what cannot be read is told once and tried again."""
    import nats.errors

    from console.monitor.engine import Looks
    from patterns import PatternError

    looks = Looks(fleet, settings)
    reads, trouble = 0, ""
    while True:
        try:
            view = await looks.look()
        except (PatternError, nats.errors.Error, OSError) as error:
            reads = 0
            if trouble != (trouble := str(error) or type(error).__name__):
                tell(f"{trouble}; trying again")
            await asyncio.sleep(RETRY)
            continue
        reads, trouble = reads + 1, ""
        if reads > 1:
            yield view
        await asyncio.sleep(APART if reads == 1 else settings.refresh)


async def _check(options: GlobalOptions, *, as_json: bool) -> int:
    from console import report
    from console.commands import opening, shapes
    from console.monitor.engine import observe
    from console.monitor.view import Finding

    out = Output()
    try:
        place = opening.find(options)
        async with place.connected() as fleet:
            view = await observe(fleet, place.settings, apart=APART)
    except Exception as error:
        # With --json whatever kept us from checking is told there too; the error line says it as ever.
        if as_json:
            out.json(shapes.check(running.INCOMPLETE, [Finding("critical", "check", str(error))]))
        raise
    status = verdict(view)
    if as_json:
        out.json(shapes.check(status, view.findings))
    else:
        out.show(*report.check(shapes.STATUSES[status], view))
    return status


def verdict(view: FleetView) -> int:
    """The exit code of `check`: what is known to be critical first, then what could not be seen, then warnings."""
    severities = {finding.severity for finding in view.findings if finding.severity != "info"}
    if "critical" in severities:
        return 2
    if view.missing:
        return 3
    return 1 if severities else 0
