"""A program in a pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


class Terminal:
    """Runs a command in a pseudo-terminal of its own session and keeps its screen with a terminal emulator.

    Args:
        argv: The command.
        columns: Width in cells.
        lines: Height in cells.
        environ: Its environment.
    """

    def __init__(self, argv: Sequence[str], *, columns: int = 120, lines: int = 40, environ: Mapping[str, str]) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = bytearray()
        """Every byte the program wrote."""
        self.status: int | None = None
        """Exit code once it has ended; negative the number of the signal that killed it."""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(argv[0], list(argv), {**environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.set_blocking(self._fd, False)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def text(self) -> str:
        """The screen, line by line."""
        return "\n".join(self._screen.display)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        os.kill(self.pid, number)

    async def sees(self, *wanted: str) -> str:
        """Wait until the screen shows all of these, and return it."""
        try:
            await until(lambda: all(part in self.text() for part in wanted))
        except AssertionError:
            raise AssertionError(f"{wanted} not on the screen:\n{self.text()}") from None
        return self.text()

    async def ends(self) -> int:
        """Wait until the program has ended; its exit code."""

        def ended() -> bool:
            if self.status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.status = os.waitstatus_to_exitcode(status)
            return self.status is not None

        await until(ended)
        self._read()
        assert self.status is not None
        return self.status

    def close(self) -> None:
        """Kill what still runs and give the terminal back."""
        asyncio.get_running_loop().remove_reader(self._fd)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            while data := os.read(self._fd, 65536):
                self.raw += data
                self._stream.feed(data)
        except (BlockingIOError, OSError):
            return
