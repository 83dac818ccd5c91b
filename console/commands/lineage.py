"""`dlq lineage`: all deaths of one letter."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

from typing import Annotated

import typer

from console.commands import running
from console.commands.acting import Json
from console.commands.dlq import app, letter_of
from console.commands.options import GlobalOptions
from console.commands.output import Output

EPILOG = """\b
A letter that was replayed and died again tells its earlier deaths, oldest first,
and how it came back from each; the last line is the letter itself. Deaths that
older versions or other programs left no record of are missing: the numbers tell.

\b
Examples:
  agent-console dlq lineage 1042
  agent-console dlq lineage 1042 --json | jq -r '.[] | [.n, .error, .replayed_by] | @tsv'
"""


def register() -> None:
    """Importing this module has added its command to the group of `dlq`."""


@app.command("lineage", epilog=EPILOG)
def show_lineage(
    context: typer.Context,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="Its sequence, from dlq list.")],
    json: Json = False,
) -> int:
    """Show all deaths of one letter, and how it came back from each."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _lineage(options, seq, as_json=json))


async def _lineage(options: GlobalOptions, seq: int, *, as_json: bool) -> int:
    from console import report_lineage
    from console.commands import opening, shapes

    place, out = opening.find(options), Output()
    async with place.connected() as fleet:
        letter = await letter_of(fleet, seq)
        if as_json:
            out.json([shapes.death(each) for each in (*letter.lineage, letter.death)])
        else:
            out.show(*report_lineage.lineage(letter))
    return running.OK
