"""The console on the screen."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import sys

from console.commands import acting, audit, running
from console.commands.options import GlobalOptions
from console.operations.errors import UsageError


def require_terminal() -> None:
    """Refuse to draw where there is no terminal, before anything is started.

    Raises:
        UsageError: Standard input or standard error, which Textual draws on, is no terminal.
    """
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "the console needs a terminal; without one there are: fleet, inbox, queue, dlq, restore, events, jobs, "
            "audit, check, info and demo --headless"
        )


def show(options: GlobalOptions) -> int:
    """Connect and show the console until it is left; its exit code."""
    require_terminal()
    return running.run(lambda _: _show(options))


async def _show(options: GlobalOptions) -> int:
    from console.app import run_console
    from console.commands import opening
    from console.operations.guard import WriteGuard
    from console.session import Session

    place = opening.find(options)
    target = place.target
    guard = WriteGuard.for_screen(
        demo=False,
        write=options.write,
        read_only=place.read_only,
        context_writes=place.settings.context(target.name).write,
    )
    ledger, guard = acting.ledger_of_screen(guard)
    async with place.connected() as fleet, place.system() as system:
        session = Session(
            fleet=fleet,
            settings=place.settings,
            guard=guard,
            name=target.name,
            address=target.display,
            event_prefix=target.event_prefix,
            system=system,
            # Who may only look writes nothing down, and needs no right to ask who that is.
            audit=await audit.opened(fleet, context=target.name, mode="ui") if guard.allowed else audit.unwritten(),
            ledger=ledger,
            spill=acting.spill_dir(),
        )
        return await run_console(session)
