"""`demo`: a private server, a simulated organization on it, and the console that watches and repairs it."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import acting, audit, running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.commands.screen import require_terminal
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.running import Interrupt
    from console.demo.simulation import DemoOptions, Simulation

EPILOG = """\b
Starts a real nats-server on a free port of 127.0.0.1 and ends it with the demo.
Nothing is left behind unless --data-dir names a place to keep it.

\b
Examples:
  agent-console demo
  agent-console demo --agents 50 --rate 40 --failure-rate 0.2
  agent-console demo --headless --seed 7 --duration 30
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The demo as it was asked for; None leaves a value to the simulation."""

    agents: int | None
    rate: float | None
    failure_rate: float | None
    seed: int | None
    duration: float | None
    headless: bool
    data_dir: Path | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", epilog=EPILOG)(demo)


def demo(
    context: typer.Context,
    agents: Annotated[int | None, typer.Option("--agents", metavar="N", min=1, help="Agents (11).")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="R", help="Messages a second, overall (6).")] = None,
    failure_rate: Annotated[
        float | None, typer.Option("--failure-rate", metavar="F", help="Share that meets an error, 0 to 1 (0.08).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="S", help="The same seed, the same traffic.")] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", help="End after so long; otherwise on your word.")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No screen; a JSON summary at the end.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Keep the server's data here.")
    ] = None,
) -> int:
    """Start a living fleet on this machine and watch it.

    Needs no server, no account and no network.
    """
    options: GlobalOptions = context.obj
    wish = Wish(
        agents=agents,
        rate=rate,
        failure_rate=failure_rate,
        seed=seed,
        duration=duration,
        headless=headless,
        data_dir=data_dir,
    )
    given = [name for name in ("server", "context", "org") if getattr(options, name) is not None]
    if given:
        raise UsageError(f"the demo has a server and an organization of its own: leave out --{given[0]}")
    if headless:
        return running.run(lambda interrupt: _headless(wish, interrupt))
    require_terminal()
    return running.run(lambda _: _screen(options, wish))


def _simulated(wish: Wish) -> DemoOptions:
    from console.demo.simulation import DemoOptions

    wanted = {name: getattr(wish, name) for name in ("agents", "rate", "failure_rate", "seed", "duration")}
    try:
        return DemoOptions(**{name: value for name, value in wanted.items() if value is not None})
    except ValueError as error:
        raise UsageError(str(error)) from None


async def _headless(wish: Wish, interrupt: Interrupt) -> int:
    from console.demo.simulation import Simulation
    from patterns.server import LocalServer

    options, out = _simulated(wish), Output()
    simulation = None
    try:
        async with LocalServer(data_dir=wish.data_dir) as server:
            simulation = Simulation(server.url, options)
            async with simulation:
                tell(f"demo fleet at {server.url}, to be seen with: agent-console --server {server.url}")
                # A signal ends the traffic first: what was done can then be counted.
                with interrupt.softened(simulation.finish):
                    if interrupt.number:
                        simulation.finish()
                    await simulation.run(options.duration)
    finally:
        out.json((simulation or Simulation("", options)).summary())
    return running.OK


async def _screen(options: GlobalOptions, wish: Wish) -> int:
    from console import settings as settings_file
    from console.app import run_console
    from console.commands import opening
    from console.connection import Target, connect
    from console.demo.simulation import Simulation
    from console.operations.guard import WriteGuard
    from console.session import Session
    from patterns.server import LocalServer

    simulated, settings = _simulated(wish), settings_file.load(options.config)
    read_only = opening.is_read_only(options, settings, "demo")
    guard = WriteGuard.for_screen(demo=True, write=options.write, read_only=read_only)
    ledger, guard = acting.ledger_of_screen(guard)
    async with LocalServer(data_dir=wish.data_dir) as server:
        simulation = Simulation(server.url, simulated)
        target = Target(name="demo", servers=(server.url,), origin="demo")
        async with connect(target, org=None) as fleet:
            session = Session(
                fleet=fleet,
                settings=settings,
                guard=guard,
                name=target.name,
                address=target.display,
                demo=True,
                audit=await audit.opened(fleet, context=target.name, mode="demo")
                if guard.allowed
                else audit.unwritten(),
                ledger=ledger,
                spill=acting.spill_dir(),
            )
            return await _together(run_console(session), _live(simulation), simulated.duration)


async def _live(simulation: Simulation) -> None:
    async with simulation:
        await simulation.run(None)


async def _together(screen: Coroutine[Any, Any, int], fleet: Coroutine[Any, Any, None], seconds: float | None) -> int:
    """Show the screen while the fleet lives, `seconds` at most; the exit code of the screen.

    Raises:
        Exception: The fleet could not be started, or broke down.
    """
    shown, living = asyncio.create_task(screen, name="screen"), asyncio.create_task(fleet, name="demo fleet")
    try:
        await asyncio.wait({shown, living}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (shown, living):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if not living.cancelled() and (error := living.exception()) is not None:
        raise error
    return running.OK if shown.cancelled() else shown.result()
