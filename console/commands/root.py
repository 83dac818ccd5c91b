"""The root of the command line: global options, the screen, the groups, and what becomes of an error."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from console.commands import (
    audit,
    demo,
    dlq,
    edit,
    events,
    fleet,
    info,
    jobs,
    lineage,
    logs,
    messages,
    purge,
    screen,
    triage,
)
from console.commands.options import GlobalOptions, MissingValue, command_of, hoist
from console.commands.output import prepare, tell
from console.commands.running import FAILED, INCOMPLETE, OK, USAGE
from console.operations.errors import OperationError, UsageError

PROGRAM = "agent-console"

EPILOG = """\b
Examples:
  agent-console demo                                 a living fleet on this machine
  agent-console --context prod                       the console, read-only
  agent-console fleet --json                         one look, for scripts
  agent-console dlq list --filter 'agent:ceo age:<1h'
  agent-console dlq replay --filter reason:max-deliver --dry-run
  agent-console check                                for monitoring: 0, 1, 2 or 3

\b
Global options may stand before or after the command. Where to connect, in this
order: --server, --context, NATS_URL, the selected nats context,
nats://127.0.0.1:4222.

\b
Exit codes: 0 done, 1 error, 2 usage, 3 some items failed or are in doubt,
4 a change was asked without --yes, 5 refused by read-only or a policy.
"""

app = typer.Typer(
    name=PROGRAM,
    help="See what a fleet of agents on NATS JetStream is doing, and repair it.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {info.version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="One server, or several of a cluster with commas.")
    ] = None,
    context_name: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="A context of the nats command line.")
    ] = None,
    org: Annotated[str | None, typer.Option("--org", metavar="ORG", help="Prefix of the organization's names.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings instead of the per-user file.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="The screen may change things.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing may be changed, by any command.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log to a file (see info), show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """See what a fleet of agents on NATS JetStream is doing, and repair it.

    Without a command: the console on the screen, read-only unless --write is given.
    """
    del version
    if write and read_only:
        raise UsageError("--write and --read-only exclude each other")
    context.obj = GlobalOptions(
        server=server, context=context_name, org=org, config=config, write=write, read_only=read_only, debug=debug
    )
    logs.start(debug=debug)
    if context.invoked_subcommand is None:
        raise typer.Exit(screen.show(context.obj))


demo.register(app)
purge.register()
triage.register()
edit.register()
lineage.register()
fleet.register(app)
app.add_typer(messages.inbox_app, name="inbox")
app.add_typer(messages.queue_app, name="queue")
app.add_typer(dlq.app, name="dlq")
jobs.register(app)
events.register(app)
audit.register(app)
info.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. Whatever goes wrong is told in one line on standard error."""
    prepare()
    checking = command_of(arguments) == "check"
    debug = "--debug" in arguments
    try:
        command = typer.main.get_command(app)
        words = hoist(arguments, valued_options(command))
        status = command.main(words, prog_name=PROGRAM, standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except SystemExit:
        # The parser's answer to a closed pipe, the only one here: nobody reads the help any more.
        return OK
    except Exception as error:
        # The last stop of every error; what it was stays visible with --debug.
        status, message = explain(error)
        if debug:
            _write_traceback()
        tell(message)
        # A monitoring plugin that could not look must not report what 1 and 2 mean there.
        return INCOMPLETE if checking else status
    return status if isinstance(status, int) else OK


def valued_options(command: Any) -> frozenset[str]:
    """All options of a command and its subcommands that are followed by a value."""
    found = {
        name
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.is_flag
        for name in parameter.opts
    }
    for each in getattr(command, "commands", {}).values():
        found |= valued_options(each)
    return frozenset(found)


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the line for an error."""
    if isinstance(error, MissingValue):
        return USAGE, str(error)
    if isinstance(error, OperationError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        # The words of the library that checks a choice are none of the operator's business.
        return error.exit_code, error.format_message().replace("Value error, ", "")
    if isinstance(error, typer.Abort):
        return FAILED, "aborted"
    # Late: a wrong option is told without loading the NATS client.
    import nats.errors

    from console.connection import ConnectionProblem
    from console.filters import FilterError
    from console.settings import SettingsError
    from patterns import PatternError
    from patterns.server import ServerError

    text = str(error) or type(error).__name__
    if isinstance(error, FilterError):
        return USAGE, text
    if isinstance(error, ConnectionProblem | SettingsError | PatternError | ServerError | nats.errors.Error | OSError):
        return FAILED, text
    return FAILED, f"unexpected {type(error).__name__}: {text} (--debug shows where)"


def _write_traceback() -> None:
    from console.text.safe import clean

    sys.stderr.write(clean(traceback.format_exc(), limit=100_000, multiline=True) + "\n")
