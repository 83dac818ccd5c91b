"""The root of the command line: help, version, errors in one line, exit codes, and what is loaded for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.commands import root
from console.connection import ConnectionProblem
from console.filters import FilterError
from console.operations.errors import OperationError, Refused, UsageError
from console.settings import SettingsError
from patterns import Fleet, Unavailable, UnsupportedServer
from patterns.server import LocalServer
from tests.support.commandline import CommandLine, program

NOBODY = "nats://127.0.0.1:1"
COMMANDS = (
    ("fleet",),
    ("fleet", "--watch"),
    ("check",),
    ("info",),
    ("events",),
    ("dlq", "list"),
    ("dlq", "show", "1"),
    ("dlq", "replay", "1"),
)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.mark.parametrize("line", [(), ("fleet",), ("check",), ("demo",), ("events",), ("info",), ("dlq",)])
def test_help_is_plain_text_with_examples(command: CommandLine, line: tuple[str, ...]) -> None:
    result = command(*line, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("Usage: agent-console")
    assert "Examples:" in result.out or line == ("dlq",)
    assert "\x1b" not in result.out
    assert "\b" not in result.out


@pytest.mark.parametrize("line", [("dlq", "list"), ("dlq", "show"), ("dlq", "replay")])
def test_help_of_the_dead_letter_commands(command: CommandLine, line: tuple[str, ...]) -> None:
    result = command(*line, "-h")
    assert result.status == 0
    assert "Examples:\n" in result.out


def test_version_is_that_of_the_package() -> None:
    result = program("--version")
    assert (result.status, result.err) == (0, "")
    assert result.out.split()[0] == "agent-console"


def test_the_installed_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("agent-console")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0
    assert done.stdout.startswith("agent-console ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("nope",), "No such command"),
        (("fleet", "--bogus"), "No such option"),
        (("fleet", "extra"), "unexpected extra argument"),
        (("fleet", "--server"), "option --server needs a value"),
        (("--write", "fleet", "--read-only"), "exclude each other"),
        (("fleet", "--org", "UPPER"), "--org: org 'UPPER' must be"),
        (("dlq",), "list, show, causes, note, lineage, replay, edit, purge or rescue"),
        (("inbox",), "peek, purge, pause or resume"),
        (("queue",), "peek, purge, pause or resume"),
        (("dlq", "show"), "Missing argument"),
        (("dlq", "show", "x"), "SEQ"),
        (("dlq", "show", "0"), "SEQ"),
        (("dlq", "replay"), "say which dead letters"),
        (("dlq", "replay", "1", "--all"), "say which dead letters"),
        (("dlq", "replay", "--filter", " "), "empty filter"),
        (("dlq", "list", "--filter", ""), "empty filter"),
        (("dlq", "list", "--filter", "color:red"), "known: agent role kind subject type"),
        (("dlq", "replay", "--filter", "color:red"), "known: agent role kind subject type"),
        (("dlq", "list", "--limit", "0"), "--limit"),
        (("events", "--since", "soon"), "--since: 'soon' is not a duration"),
        (("events", "a..b"), "topic filter 'a..b'"),
        (("demo", "--headless", "--rate", "0"), "rate must be above 0"),
        (("demo", "--headless", "--failure-rate", "2"), "failure rate"),
        (("demo", "--headless", "--server", NOBODY), "leave out --server"),
    ],
)
def test_usage_errors_are_one_line_and_2(command: CommandLine, line: tuple[str, ...], said: str) -> None:
    result = command(*line)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("agent-console: ")
    assert result.err.count("\n") == 1
    assert said in result.err


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_when_nothing_answers_the_line_says_what_was_tried(command: CommandLine, line: tuple[str, ...]) -> None:
    result = command(*line, "--server", NOBODY)
    assert result.status == (3 if line == ("check",) else 1)
    assert result.err.count("\n") == 1
    assert "127.0.0.1:1 (--server)" in result.err
    assert "agent-console demo" in result.err
    assert not result.out or line == ("info",)


@pytest.mark.parametrize(
    "extra", [("--bogus",), ("--server",), ("--config", "/nonexistent/settings.toml"), ("--org", "A")]
)
def test_whatever_keeps_check_from_checking_is_3(command: CommandLine, extra: tuple[str, ...]) -> None:
    assert command("check", *extra).status == 3


def test_without_a_terminal_the_console_names_the_headless_commands() -> None:
    for line in ((), ("--context", "nowhere"), ("demo",)):
        result = program(*line)
        assert (result.status, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert "terminal" in result.err
        for name in (
            "fleet",
            "inbox",
            "queue",
            "dlq",
            "restore",
            "events",
            "jobs",
            "audit",
            "check",
            "info",
            "demo --headless",
        ):
            assert name in result.err


def test_hostile_arguments_reach_standard_error_clean(command: CommandLine) -> None:
    for line in (("\x1b]0;owned\x07",), ("dlq", "list", "--filter", "\x1b[31m:x"), ("--context", "\x1b[2J", "fleet")):
        result = command(*line)
        assert result.status in (1, 2)
        assert "\x1b" not in result.err
        assert result.err.count("\n") == 1


def test_settings_that_cannot_be_used_are_told(command: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("colour = 1\n")
    result = command("--config", str(file), "fleet")
    assert result.status == 1
    assert "unknown key 'colour'" in result.err


def test_tracebacks_appear_only_with_debug(tmp_path: Path) -> None:
    plain = program("fleet", "--server", NOBODY)
    debug = program("fleet", "--debug", "--server", NOBODY, env={"XDG_STATE_HOME": str(tmp_path)})
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert debug.err.splitlines()[-1] == plain.err.rstrip("\n")
    assert (tmp_path / "agent-console" / "debug.log").exists()
    assert debug.status == plain.status == 1


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, command: CommandLine) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond \x1b[31m")

    monkeypatch.setattr("console.commands.opening.find", broken)
    result = command("fleet")
    assert result.status == 1
    assert result.err == "agent-console: unexpected RuntimeError: first second ␛[31m (--debug shows where)\n"


def test_the_environment_decides_where_without_options(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", NOBODY)
    assert "(NATS_URL)" in command("fleet").err


def test_info_tells_version_paths_and_server_and_no_secret(command: CommandLine, server: LocalServer) -> None:
    url = server.url.replace("nats://", "nats://ann:geheim@")
    result = command("info", "--json", "--server", url, "--org", "acme", "--read-only")
    told = result.json
    assert result.status == 0
    assert "geheim" not in result.out
    assert told["version"]
    assert told["paths"].keys() == {"settings", "contexts", "state", "debug_log", "audit", "jobs", "spill"}
    assert told["paths"]["settings"].startswith(os.environ["XDG_CONFIG_HOME"])
    assert told["paths"]["debug_log"].startswith(os.environ["XDG_STATE_HOME"])
    assert told["connection"]["origin"] == "--server"
    assert told["connection"]["servers"] == [server.url]
    assert told["connection"]["identity"] == "user ann"
    assert told["server"]["url"] == server.url
    assert told["server"]["version"].startswith("2.")
    assert (told["jetstream"], told["org"], told["read_only"], told["problem"]) == (True, "acme", True, None)
    shown = command("info", "--server", url)
    assert shown.status == 0
    assert "geheim" not in shown.out
    assert server.url in shown.out


def test_info_tells_what_it_can_without_a_server(command: CommandLine) -> None:
    result = command("info", "--json", "--server", NOBODY)
    assert result.status == 1
    assert result.json["version"]
    assert result.json["server"] is None
    assert result.json["jetstream"] is None
    assert "agent-console demo" in result.json["problem"]


def test_info_says_that_a_server_has_no_jetstream(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedServer("the server runs without JetStream")

    monkeypatch.setattr(Fleet, "connect", refuse)
    result = command("info", "--json")
    assert (result.status, result.json["jetstream"]) == (1, False)
    assert "without JetStream" in result.err


LOADED = """
import json, sys
from console.commands.root import run
try:
    status = run(sys.argv[1:])
finally:
    names = ("textual", "nats", "rich.table", "console.demo.simulation", "patterns")
    print(json.dumps([status, [name for name in names if name in sys.modules]]), file=sys.stderr)
"""


def loaded(*line: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *line],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        stdin=subprocess.DEVNULL,
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    return status, names


def test_help_and_usage_errors_load_neither_the_nats_client_nor_textual() -> None:
    assert loaded("--help") == (0, [])
    assert loaded("--version") == (0, [])
    assert loaded("dlq", "replay", "--help") == (0, [])
    assert loaded("nope") == (2, [])
    assert loaded() == (2, [])


@pytest.mark.parametrize(
    "line",
    [
        ("fleet",),
        ("fleet", "--json"),
        ("check",),
        ("info",),
        ("dlq", "list"),
        ("events", "--no-follow"),
        ("dlq", "show", "1"),
    ],
    ids=" ".join,
)
def test_headless_commands_never_load_textual_or_the_demo(server: LocalServer, line: tuple[str, ...]) -> None:
    _, names = loaded(*line, "--server", server.url)
    assert "nats" in names
    assert "textual" not in names
    assert "console.demo.simulation" not in names


def test_a_headless_demo_never_loads_textual() -> None:
    status, names = loaded("demo", "--headless", "--agents", "4", "--duration", "0.2", "--failure-rate", "0")
    assert status == 0
    assert "textual" not in names


def test_an_unread_pipe_ends_quietly(server: LocalServer) -> None:
    for line in (
        ("--help",),
        ("info",),
        ("fleet", "--json"),
        ("dlq", "list", "--json"),
        ("dlq", "replay", "--all", "--yes"),
    ):
        command = [sys.executable, "-m", "console", *line, *(() if line == ("--help",) else ("--server", server.url))]
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=50)
        finally:
            os.close(writer)
        assert done.stderr == b""
        assert done.returncode == 0


def test_a_full_disk_is_an_error(server: LocalServer) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "console", "info", "--server", server.url],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=50,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stderr.startswith("agent-console: ")


def test_errors_of_every_kind_have_their_code() -> None:
    codes = {
        FilterError("x"): 2,
        UsageError("x"): 2,
        Refused("x"): 5,
        OperationError("x"): 1,
        ConnectionProblem("x"): 1,
        SettingsError("x"): 1,
        Unavailable("x"): 1,
        OSError(28, "No space left"): 1,
        KeyError("x"): 1,
    }
    for error, code in codes.items():
        assert root.explain(error)[0] == code, error
