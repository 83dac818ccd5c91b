"""Every example runs as it is documented: by itself, to the end, and it shows what it says."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from patterns import FleetConfig, examples
from patterns.server import LocalServer

FOLDER = Path(examples.__file__).parent

ESSENTIALS: dict[str, tuple[str, ...]] = {
    "request_reply": (
        "live: pool size 20, from devops",
        "refused: 422",
        "stale: pool size 20",
        "fallback: pool size 10",
        "no responders:",
    ),
    "task_queue": (
        "submitted 6 tasks",
        "duplicate=True",
        "completed by backend-",
        "rejected by backend-",
        "ceo is told:",
        "left in the queue: 0",
    ),
    "inbox": (
        "nobody by that name:",
        "ceo is away, 3 waiting: alert.cve, note.budget, brief.week",
        "note.budget from security, attempt 2",
        "left in the inbox: 0",
    ),
    "events": (
        "security audits deployment.completed from backend-1",
        "security is away",
        "security audits deployment.failed",
    ),
    "dead_letters": (
        "rejected after 1: Reject: no spec",
        "max-deliver after 2: TimeoutError",
        "replayed: completed {'pr': 247}",
        "dead letters of the role now: 0",
    ),
    "organization": (),
}


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", f"patterns.examples.{name}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    with start(name, *arguments) as process:
        out, err = process.communicate(timeout=40)
        return process.returncode, out, err


def test_no_example_is_forgotten() -> None:
    assert {path.stem for path in FOLDER.glob("[a-z]*.py")} == set(ESSENTIALS)


@pytest.mark.parametrize("name", ESSENTIALS)
def test_an_example_runs_by_itself_and_shows_what_it_is_about(name: str) -> None:
    status, out, err = run(name)
    assert status == 0, err
    assert "Traceback" not in err
    for line in ESSENTIALS[name]:
        assert line in out, out


def test_the_inbox_example_keeps_the_order_over_a_retry() -> None:
    _, out, _ = run("inbox")
    told = ("alert.cve from", "note.budget: rate limited", "note.budget from", "brief.week from")
    places = [out.index(text) for text in told]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ESSENTIALS)
def test_an_example_runs_again_on_the_same_server(name: str, server: LocalServer) -> None:
    for _ in range(2):
        status, out, err = run(name, "--server", server.url)
        assert status == 0, out + err


@pytest.mark.parametrize("arguments", [(), ("--config", str(FOLDER / "fleet.toml"))], ids=["defaults", "fleet.toml"])
def test_the_five_steps_happen_in_order_and_share_one_correlation_id(arguments: tuple[str, ...]) -> None:
    status, out, err = run("organization", *arguments)
    assert status == 0, err
    steps = [re.fullmatch(r"(\d)\. \[(\w+)\] (\S+)\s+(.*)", line) for line in out.splitlines()]
    assert all(steps), out
    found = [step.groups() for step in steps if step]
    assert [number for number, *_ in found] == ["1", "2", "3", "4", "5"]
    assert len({correlation for _, correlation, *_ in found}) == 1
    worker = found[1][2]
    assert worker in ("backend-1", "backend-2")
    assert [who for _, _, who, _ in found] == ["ceo", worker, worker, "ceo", "security"]
    expected = (
        "submitted",
        "took the task",
        "asked devops",
        f"has task.completed from {worker}",
        "audited deployment.completed",
    )
    for (*_, what), start_of_it in zip(found, expected, strict=True):
        assert what.startswith(start_of_it)


def test_ctrl_c_ends_an_example_without_a_traceback() -> None:
    with start("inbox") as process:
        assert process.stdout is not None
        while "ceo reads:" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--server", "nats://127.0.0.1:1"), "no NATS server answers"),
        (("--config", "/nowhere/fleet.toml"), "No such file"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(arguments: tuple[str, ...], text: str) -> None:
    status, _, err = run("organization", *arguments)
    assert status == 1
    assert text in err
    assert err.count("\n") == 1


def test_the_configuration_example_says_what_the_defaults_are() -> None:
    config = FleetConfig.from_mapping(tomllib.loads((FOLDER / "fleet.toml").read_text()))
    defaults = FleetConfig()
    assert config.inbox == defaults.inbox
    assert config.events == defaults.events
    assert config.limits == defaults.limits
    assert config.tasks.max_runtime == 7200
    assert config.role("devops").max_ack_pending == 1
    assert config.role("devops").max_runtime == 7200


@pytest.mark.parametrize("name", ESSENTIALS)
def test_an_example_stays_short_enough_to_copy_from(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= (100 if name == "organization" else 60)
