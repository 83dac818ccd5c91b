"""`inbox` and `queue`: purge, pause and resume, beside the peek of `messages`."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from console.commands import acting, running
from console.commands.acting import Asked, DryRun, Force, Json, NoSpill, Pause, Rate, Reason, Yes
from console.commands.dlq import FILTER_HELP
from console.commands.messages import inbox_app, queue_app
from console.commands.options import GlobalOptions
from console.operations.errors import UsageError

if TYPE_CHECKING:
    from console.commands.opening import Place as Target
    from console.messages import Place
    from console.operations.plan import Plan
    from console.operations.selection import Choice
    from patterns import Fleet

DEFAULT_PAUSE = "10m"
Group = Literal["inbox", "queue"]

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="Whose inbox.")]
Role = Annotated[str, typer.Argument(metavar="ROLE", help="Whose queue.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything in it.")]
Expression = Annotated[str | None, typer.Option("--filter", metavar="EXPR", help="Only messages that match.")]
Subject = Annotated[str | None, typer.Option("--subject", metavar="S", help="Only on this subject, wildcards allowed.")]
Keep = Annotated[int | None, typer.Option("--keep", metavar="N", help="All but the newest N of what is chosen.")]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Only what was stored longer ago, such as 2h.")
]
UpToSeq = Annotated[int | None, typer.Option("--up-to-seq", metavar="N", help="Only up to this sequence.")]
For = Annotated[str, typer.Option("--for", metavar="AGE", help="For how long, such as 10m or 1h30m.")]

_PURGE_EPILOG = (
    FILTER_HELP
    + """
\b
What is removed is written to a file first (agent-console info says where), and
`agent-console restore FILE` puts it back; --no-spill leaves no way back. What
arrives after the plan was made is not touched.

\b
Examples:
  agent-console {group} purge {name} --filter 'type:report age:>1d' --dry-run
  agent-console {group} purge {name} --older-than 2h --yes
  agent-console {group} purge {name} --all --reason 'poisoned by a bad deploy' --yes
"""
)
_PAUSE_EPILOG = """\b
Nothing is delivered until the time is over or it is resumed; messages still
arrive, and what is in flight may be finished.

\b
Examples:
  agent-console {group} pause {name} --for 30m --reason 'model is down' --yes
  agent-console {group} resume {name} --yes
"""


def register() -> None:
    """Importing this module has added its commands to the groups of `messages`."""


@inbox_app.command("purge", epilog=_PURGE_EPILOG.format(group="inbox", name="ceo"))
def purge_inbox(
    context: typer.Context,
    agent: Agent,
    everything: Everything = False,
    expression: Expression = None,
    subject: Subject = None,
    keep: Keep = None,
    older_than: OlderThan = None,
    up_to_seq: UpToSeq = None,
    rate: Rate = None,
    no_spill: NoSpill = False,
    pause: Pause = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Remove messages of an agent's inbox; they are written to a file first."""
    choice = _choose(everything, expression, subject, keep, older_than, up_to_seq)
    asked = Asked(
        dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, force=force, no_spill=no_spill, pause=pause
    )  # fmt: skip
    return _purge(context.obj, asked, "inbox", agent, choice)


@queue_app.command("purge", epilog=_PURGE_EPILOG.format(group="queue", name="backend"))
def purge_queue(
    context: typer.Context,
    role: Role,
    everything: Everything = False,
    expression: Expression = None,
    subject: Subject = None,
    keep: Keep = None,
    older_than: OlderThan = None,
    up_to_seq: UpToSeq = None,
    rate: Rate = None,
    no_spill: NoSpill = False,
    pause: Pause = False,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Remove tasks of a role's queue; they are written to a file first."""
    choice = _choose(everything, expression, subject, keep, older_than, up_to_seq)
    asked = Asked(
        dry_run=dry_run, yes=yes, as_json=json, reason=reason, rate=rate, force=force, no_spill=no_spill, pause=pause
    )  # fmt: skip
    return _purge(context.obj, asked, "queue", role, choice)


@inbox_app.command("pause", epilog=_PAUSE_EPILOG.format(group="inbox", name="ceo"))
def pause_inbox(
    context: typer.Context,
    agent: Agent,
    lasting: For = DEFAULT_PAUSE,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Deliver nothing from an agent's inbox for a while."""
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force)
    return _pause(context.obj, asked, "inbox", agent, lasting)


@queue_app.command("pause", epilog=_PAUSE_EPILOG.format(group="queue", name="backend"))
def pause_queue(
    context: typer.Context,
    role: Role,
    lasting: For = DEFAULT_PAUSE,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Deliver nothing from a role's queue for a while."""
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force)
    return _pause(context.obj, asked, "queue", role, lasting)


@inbox_app.command("resume")
def resume_inbox(
    context: typer.Context,
    agent: Agent,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """End the pause of an agent's inbox."""
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force)
    return _pause(context.obj, asked, "inbox", agent, None)


@queue_app.command("resume")
def resume_queue(
    context: typer.Context,
    role: Role,
    reason: Reason = "",
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """End the pause of a role's queue."""
    asked = Asked(dry_run=dry_run, yes=yes, as_json=json, reason=reason, force=force)
    return _pause(context.obj, asked, "queue", role, None)


def _choose(
    everything: bool,
    expression: str | None,
    subject: str | None,
    keep: int | None,
    older_than: str | None,
    up_to: int | None,
) -> Choice:
    from console.operations.selection import choose

    return choose(
        "messages",
        everything=everything,
        expression=expression,
        subject=subject,
        keep=keep,
        older_than=older_than,
        up_to=up_to,
    )


def _purge(options: GlobalOptions, asked: Asked, kind: Group, name: str, choice: Choice) -> int:
    async def planned(fleet: Fleet, place: Target) -> Plan:
        from console.operations.plan_streams import plan_purge

        return await plan_purge(
            fleet,
            _place(fleet, kind, name),
            choice,
            spill=asked.spill,
            hold=asked.pause,
            rate=asked.pace(None),
            reason=asked.reason,
            prod=place.prod,
        )

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, f"{kind} purge", planned))


def _pause(options: GlobalOptions, asked: Asked, kind: Group, name: str, lasting: str | None) -> int:
    seconds = 0.0 if lasting is None else _duration(lasting)
    verb = "pause" if lasting is not None else "resume"

    async def planned(fleet: Fleet, place: Target) -> Plan:
        from console.operations.plan_streams import plan_pause

        return await plan_pause(fleet, _place(fleet, kind, name), seconds, reason=asked.reason, prod=place.prod)

    return running.run(lambda interrupt: acting.change(options, asked, interrupt, f"{kind} {verb}", planned))


def _place(fleet: Fleet, kind: Group, name: str) -> Place:
    from console.messages import place_of
    from patterns import InvalidName

    try:
        return place_of(fleet.names, kind, name)
    except InvalidName as error:
        raise UsageError(str(error)) from None


def _duration(text: str) -> float:
    from console.filters import parse_duration

    try:
        seconds = float(parse_duration(text))
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"--for {text!r}: expected a time like 90s, 10m or 1h30m")
    return seconds
