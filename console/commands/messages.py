"""`inbox` and `queue`: what stands in one, read without touching it. Other modules add their commands to the two groups."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from console.commands import running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.filters import Filter
    from console.messages import MessageState, Place, Standing
    from patterns import Fleet, Message

Kind = Literal["inbox", "queue"]
"""Name of a group, and of what it is about."""

LIMIT: Final = 20
"""Messages that are shown unless asked for more or fewer."""

PAGE: Final = 500

FILTER_HELP: Final = """\b
A filter narrows: words match anywhere, field:value in one place, space is AND,
comma is OR, ! inverts. Fields: agent (its sender) subject type correlation
replays age size hdr.NAME body.PATH seq.
"""

PEEK_EPILOG: Final = (
    """\b
Oldest first, read without a consumer: nothing is delivered, no counter moves.
States: pending (not yet delivered), in flight (delivered, not acknowledged),
stranded (out of deliveries; agent-console dlq rescue brings it back).

"""
    + FILTER_HELP
    + """
\b
Examples:
  agent-console {group} peek {name}
  agent-console {group} peek {name} --filter 'type:code.* age:>10m' --limit 100
  agent-console {group} peek {name} --json | jq -r '.[] | [.seq, .state, .type] | @tsv'
"""
)

INBOX_HELP: Final = "An agent's inbox: what stands in it."
QUEUE_HELP: Final = "A role's task queue: what stands in it."

inbox_app = typer.Typer(help=INBOX_HELP, rich_markup_mode=None)
queue_app = typer.Typer(help=QUEUE_HELP, rich_markup_mode=None)

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="Whose inbox.")]
Role = Annotated[str, typer.Argument(metavar="ROLE", help="Whose queue.")]
Expression = Annotated[str | None, typer.Option("--filter", metavar="EXPR", help="Only messages that match.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many at most.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@inbox_app.callback(invoke_without_command=True)
def inbox(context: typer.Context) -> None:
    """An agent's inbox: what stands in it."""
    _require_command(context, inbox_app, "inbox")


@queue_app.callback(invoke_without_command=True)
def queue(context: typer.Context) -> None:
    """A role's task queue: what stands in it."""
    _require_command(context, queue_app, "queue")


@inbox_app.command("peek", epilog=PEEK_EPILOG.format(group="inbox", name="ceo"))
def peek_inbox(
    context: typer.Context,
    agent: Agent,
    expression: Expression = None,
    limit: Limit = LIMIT,
    json: Json = False,
) -> int:
    """Show the oldest messages of an agent's inbox without disturbing it."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _peek(options, "inbox", agent, expression, limit, as_json=json))


@queue_app.command("peek", epilog=PEEK_EPILOG.format(group="queue", name="backend"))
def peek_queue(
    context: typer.Context,
    role: Role,
    expression: Expression = None,
    limit: Limit = LIMIT,
    json: Json = False,
) -> int:
    """Show the oldest tasks of a role's queue without disturbing it."""
    options: GlobalOptions = context.obj
    return running.run(lambda _: _peek(options, "queue", role, expression, limit, as_json=json))


def _require_command(context: typer.Context, group: typer.Typer, name: str) -> None:
    if context.invoked_subcommand is None:
        *others, last = [command.name or "" for command in group.registered_commands]
        known = f"{', '.join(others)} or {last}" if others else last
        raise UsageError(f"{name}: say what to do: {known}")


async def _peek(
    options: GlobalOptions, kind: Kind, name: str, expression: str | None, limit: int, *, as_json: bool
) -> int:
    from console import report
    from console.commands import opening, shapes
    from console.messages import place_of

    wanted = _read_filter(expression)
    opened, out = opening.find(options), Output()
    place = place_of(opened.names, kind, name)
    async with opened.connected() as fleet:
        # Before the messages: what was acknowledged in between is then gone, and not taken for stranded.
        progress = await _standing(fleet, place)
        found = await _read(fleet, place, wanted, limit + 1)
    peeked = [(message, _state(progress, message)) for message in found]
    if as_json:
        out.json([shapes.peeked(message, state) for message, state in peeked[:limit]])
    else:
        nothing = f"{place.title}: no messages" if wanted is None else f"{place.title}: no message matches"
        out.show(*report.messages(peeked[:limit], nothing, more=len(peeked) > limit))
    return running.OK


def _read_filter(expression: str | None) -> Filter | None:
    from console.filters import parse

    if expression is None:
        return None
    if not expression.strip():
        # A slip in a script, such as a variable that was not set.
        raise UsageError("an empty filter would show everything: leave --filter out if you mean it")
    return parse(expression)


async def _standing(fleet: Fleet, place: Place) -> Standing | None:
    """How far the consumer is; None where it cannot be seen, which costs the states only."""
    from console.messages import Standing, standing
    from patterns import PatternError

    if place.durable is None:
        return Standing()
    try:
        return await standing(fleet, place.stream, place.durable)
    except PatternError as error:
        tell(f"the states cannot be told: {error}")
        return None


async def _read(fleet: Fleet, place: Place, wanted: Filter | None, limit: int) -> list[Message]:
    """The oldest messages that match.

    Raises:
        UnknownDestination: There is no such inbox or queue.
    """
    from console.messages import absent, pages, record_of

    found: list[Message] = []
    empty = True
    async for page in pages(fleet, place.stream, size=PAGE if wanted else min(limit, PAGE)):
        empty = False
        for message in page:
            if wanted is None or wanted.matches(record_of(message, kind=place.kind, name=place.name)):
                found.append(message)
                if len(found) == limit:
                    return found
    # A stream that is not there reads like an empty one.
    if empty and await fleet.jetstream.stream_info(place.stream) is None:
        raise await absent(fleet, place)
    return found


def _state(progress: Standing | None, message: Message) -> MessageState | None:
    return None if progress is None or message.seq is None else progress.of(message.seq)
