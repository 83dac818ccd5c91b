"""`audit`: what operators did from this machine."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands import logs, running
from console.commands.output import Output, tell

if TYPE_CHECKING:
    from console.operations.audit import Audit, Mode
    from patterns import Fleet

SHOWN = 50
"""Lines a table shows unless asked for more; JSON has all of them."""

EPILOG = """\b
Each action has a line before its first message and one after its last; what
failed or is in doubt has a line of its own. The file only grows and is yours to
rotate; `agent-console info` says where it is.

\b
Examples:
  agent-console audit
  agent-console audit --json | jq '.[] | select(.failed > 0)'
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit", epilog=EPILOG)(audit)


def path() -> Path:
    """The file of this user on this machine."""
    return logs.state_dir() / "audit.jsonl"


async def opened(fleet: Fleet, *, context: str, mode: Mode) -> Audit:
    """The audit of a session that begins."""
    from console.commands.info import version
    from console.operations.audit import Audit
    from console.operations.records import operator_name

    return await Audit.of(path(), fleet, actor=operator_name(), version=version(), context=context, mode=mode)


def unwritten() -> Audit:
    """The audit for a session that only looks at it."""
    from console.operations.audit import Audit

    return Audit(path())


def audit(
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help=f"The newest N lines ({SHOWN} in a table).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> int:
    """List what was done from this machine, by whom, why, and what came of it."""
    from console import report_jobs as report
    from console.operations.audit import read

    out, most = Output(), limit if limit is not None or json else SHOWN
    lines = deque(read(path()), maxlen=most)
    if json:
        out.json(list(lines))
    elif lines:
        out.show(report.audit(lines))
    else:
        tell(f"nothing was done from here yet: {path()} is not there or empty")
    return running.OK
