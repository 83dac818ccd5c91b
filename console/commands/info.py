"""`info`: what this is, where its files are, and what it would connect to."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import logs, running
from console.commands.options import GlobalOptions
from console.commands.output import Output, tell

if TYPE_CHECKING:
    from console.connection import Target

EPILOG = """\b
Examples:
  agent-console info
  agent-console info --context prod --json | jq .connection
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("info", epilog=EPILOG)(info)


def version() -> str:
    """The installed version."""
    from importlib import metadata

    return metadata.version("nats-agent-console")


def info(context: typer.Context, json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False) -> int:
    """Show version, paths, server and connection.

    Never a secret. What can be told without a server is told also when none answers; the exit code is then 1.
    """
    options: GlobalOptions = context.obj
    return running.run(lambda _: _info(options, as_json=json))


async def _info(options: GlobalOptions, *, as_json: bool) -> int:
    from console import report
    from console import settings as settings_file
    from console.commands import opening
    from console.connection import ConnectionProblem, connect, resolve
    from console.settings import SettingsError
    from patterns import PatternError, UnsupportedServer

    out, problem = Output(), ""
    told = _without_server(options)
    try:
        names = opening.names_of(options)
        settings = settings_file.load(options.config)
        target = resolve(options.server, options.context, os.environ)
        told["connection"] = _connection(target)
        told["read_only"] = opening.is_read_only(options, settings, target.name)
        async with connect(target, org=names.org) as fleet:
            server = fleet.server_info()
            told["server"] = {
                "name": server.name,
                "version": server.version,
                "url": server.url,
                "cluster": server.cluster,
            }
            await fleet.jetstream.api("INFO")
            told["jetstream"] = True
    except UnsupportedServer as error:
        told["jetstream"], problem = False, str(error)
    except (ConnectionProblem, SettingsError, PatternError) as error:
        problem = str(error)
    told["problem"] = problem or None
    if as_json:
        out.json(told)
    else:
        out.show(report.info(told))
    if problem:
        tell(problem)
    return running.FAILED if problem else running.OK


def _without_server(options: GlobalOptions) -> dict[str, Any]:
    from importlib import metadata

    from console import settings as settings_file

    return {
        "version": version(),
        "python": platform.python_version(),
        "nats_py": metadata.version("nats-py"),
        "paths": {
            "settings": str(options.config or settings_file.default_path()),
            "contexts": str(settings_file.config_home(os.environ) / "nats" / "context"),
            "state": str(logs.state_dir()),
            "debug_log": str(logs.debug_log()),
            "audit": str(logs.state_dir() / "audit.jsonl"),
            "jobs": str(logs.state_dir() / "jobs.db"),
            "spill": str(logs.state_dir() / "spill"),
        },
        "org": options.org,
        "read_only": None,
        "connection": None,
        "server": None,
        "jetstream": None,
    }


def _connection(target: Target) -> dict[str, Any]:
    return {
        "origin": target.origin,
        "context": target.name or None,
        "servers": list(target.servers),
        "identity": target.identity,
        "tls": target.wants_tls,
        "domain": target.domain,
        "api_prefix": target.api_prefix,
    }
