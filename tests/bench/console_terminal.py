"""The console in a pseudo-terminal that is only drained: a terminal emulator would cost more than what is measured."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.console_process import ROOT

COLUMNS, LINES = 120, 40
AGENT = re.compile(rb"agent-\d{4}")
"""A row of the fleet table."""
_MARKS = re.compile(rb"\x1b\[(\d+);(\d+)H|\xe2\x96\x8e")
"""Where the terminal's own cursor goes, and the sign before the line with the table's cursor."""
_LONGEST_MARK = 16
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?<=>]*[ -/]*[@-~]|[^\[])")


class RawTerminal:
    """A program in a pseudo-terminal of 120 x 40.

    Args:
        argv: The command.
        environ: Its whole environment.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.written: list[tuple[float, bytes]] | None = None
        """Moment and bytes of each read, if somebody wants them kept."""
        self._last = b""
        self.begun = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(argv[0], list(argv), {**environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._ended = False

    def read(self, until: float) -> bytes:
        """What the program writes next; empty when the moment (`time.perf_counter`) has come before.

        Raises:
            RuntimeError: The program has ended.
        """
        ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.perf_counter()))
        if not ready:
            return b""
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            data = b""
        if not data:
            told = _ESCAPES.sub(b"", self._last).decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(told) if line.strip()), "none")
            raise RuntimeError(f"the console has ended, its last words: {last[-300:]}")
        self._last = self._last[-2000:] + data
        if self.written is not None:
            self.written.append((time.perf_counter(), data))
        return data

    def drain(self, seconds: float) -> bytes:
        """Take what is written for so long; the last of it."""
        until, last = time.perf_counter() + seconds, b""
        while time.perf_counter() < until:
            last = self.read(until) or last
        return last

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def wait_for(self, pattern: re.Pattern[bytes], timeout: float = 60.0) -> None:
        """Wait until something matching was written.

        Raises:
            TimeoutError: It was not.
        """
        until, seen = time.perf_counter() + timeout, b""
        while not pattern.search(seen):
            data = self.read(until)
            if not data:
                raise TimeoutError(f"{pattern.pattern!r} did not come to the screen in {timeout:.0f} s")
            seen = seen[-4096:] + data

    def quit(self, patience: float = 10.0) -> None:
        """Leave the console by its key and wait for its end."""
        self.type("q")
        with contextlib.suppress(RuntimeError):
            self.drain(patience)
        self.close()

    def close(self) -> None:
        """Kill what still runs and give the terminal back."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


class CursorFinder:
    """Finds the line of the screen that the cursor of a table is on, in what a program writes."""

    def __init__(self) -> None:
        self.line = 0
        """Counted from 1; 0 before it was seen."""
        self._at = 0
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Take output; whether the cursor is now on another line than before."""
        buffer, end, before = self._rest + data, 0, self.line
        for mark in _MARKS.finditer(buffer):
            end = mark.end()
            if mark[1]:
                self._at = int(mark[1])
            else:
                self.line = self._at
        # A mark may be cut in two by the end of a read.
        self._rest = buffer[max(end, len(buffer) - _LONGEST_MARK) :]
        return self.line != before


@contextlib.contextmanager
def environment() -> Iterator[dict[str, str]]:
    """An environment in which no setting of this machine counts, with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="console-bench-") as folder:
        home = Path(folder)
        places = {f"XDG_{each}_HOME": str(home / each.lower()) for each in ("CONFIG", "STATE", "DATA", "CACHE")}
        yield {"PATH": os.environ.get("PATH", ""), "HOME": folder, "LANG": "C.UTF-8", **places}


@contextlib.contextmanager
def terminal(argv: Sequence[str], environ: Mapping[str, str]) -> Iterator[RawTerminal]:
    """A program in a terminal, for the length of the block."""
    found = RawTerminal(argv, environ)
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def console(url: str, *, samples: Path | None = None, wait: bool = True) -> Iterator[RawTerminal]:
    """The console on a fleet.

    Args:
        url: The server.
        samples: Where it writes what it measures of itself (see `console_child`); None runs the plain program.
        wait: Whether to wait for the first rows of the fleet table.
    """
    script = Path(sys.executable).with_name("agent-console")
    plain = [str(script)] if script.exists() else [sys.executable, "-m", "console"]
    argv = plain if samples is None else [sys.executable, "-m", "tests.bench.console_child"]
    with environment() as environ:
        if samples is not None:
            environ["BENCH_SAMPLES"] = str(samples)
        with terminal([*argv, "--server", url], environ) as found:
            if wait:
                found.wait_for(AGENT)
            yield found
