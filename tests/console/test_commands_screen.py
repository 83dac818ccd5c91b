"""The console in a real pseudo-terminal, started by its command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from patterns.server import LocalServer
from tests.support.commandline import letter, prepared

COLUMNS, LINES = 120, 32
LEFT = b"\x1b[?1049l"
"""The alternate screen is left: the terminal is as it was."""


class Terminal:
    """A program in a pseudo-terminal, and what it shows there."""

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "console", *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(side)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    def read(self, seconds: float = 0.1) -> bool:
        """Take in what was written; False at the end of it."""
        if not select.select([self._main], [], [], seconds)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._main, 65536)
        except OSError:
            return False
        self.output += data
        self._stream.feed(data)
        return bool(data)

    def wait_for(self, shown: Callable[[str], bool], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not shown(self.text):
            assert self.read(), f"ended with {self.process.wait()}: {self.text}"
            assert time.monotonic() < deadline, self.text

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def end(self, seconds: float = 40) -> int:
        deadline = time.monotonic() + seconds
        while self.read() and time.monotonic() < deadline:
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


def test_the_console_starts_read_only_and_is_left_by_q(server: LocalServer) -> None:
    prepared(server.url, letter)
    with terminal("--server", server.url) as screen:
        screen.wait_for(lambda text: "[RO]" in text and "ceo" in text)
        screen.type("q")
        assert screen.end() == 0
    assert LEFT in screen.output


@pytest.mark.parametrize(
    ("line", "mark"),
    [(("--write",), "[RW]"), (("--write", "--config"), "[RO]")],
    ids=["write", "write, read-only settings"],
)
def test_write_lifts_the_guard_unless_the_settings_forbid_it(
    server: LocalServer, tmp_path: Path, line: tuple[str, ...], mark: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("read_only = true\n")
    prepared(server.url, letter)
    with terminal("--server", server.url, *line, *((str(file),) if "--config" in line else ())) as screen:
        screen.wait_for(lambda text: mark in text)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 143
    assert LEFT in screen.output


def test_a_server_that_does_not_answer_is_one_line() -> None:
    with terminal("--server", "nats://127.0.0.1:1") as screen:
        assert screen.end() == 1
    assert b"agent-console: no NATS server answers at 127.0.0.1:1" in screen.output
    assert b"\x1b" not in screen.output


def test_the_demo_shows_a_living_fleet_and_closes_in_time() -> None:
    with terminal("demo", "--agents", "5", "--rate", "20", "--seed", "3", "--duration", "4") as screen:
        screen.wait_for(lambda text: "[RW]" in text and "ceo" in text)
        assert screen.end() == 0
    assert LEFT in screen.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_and_restores_the_terminal(number: signal.Signals) -> None:
    with terminal("demo", "--agents", "4", "--read-only") as screen:
        screen.wait_for(lambda text: "[RO]" in text and "ceo" in text)
        screen.process.send_signal(number)
        assert screen.end() == 128 + number
    assert LEFT in screen.output
    assert b"Traceback" not in screen.output


def test_the_system_context_of_the_settings_reads_the_fleet_by_jsz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = """
        jetstream {}
        accounts { APP { jetstream: enabled, users: [{ user: app, password: a }] }
                   SYS { users: [{ user: sys, password: s }] } }
        system_account: SYS
    """
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (tmp_path / "agent-console").mkdir()
    (tmp_path / "agent-console" / "config.toml").write_text('[contexts.app]\nsystem_context = "sys"\n')
    with LocalServer(config=accounts) as server:
        for user, password in (("app", "a"), ("sys", "s")):
            fields = {"url": server.url, "user": user, "password": password}
            (contexts / f"{user}.json").write_text(json.dumps(fields))
        prepared(server.url.replace("//", "//app:a@"), letter)
        with terminal("--context", "app") as screen:
            screen.wait_for(lambda text: "ceo" in text and "JSZ" in text)
            screen.type("q")
            assert screen.end() == 0
