"""Processes beside the bench that end with it, and what Linux tells of a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory a process holds, in MB of 1,000,000 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


class Helper:
    """A module of this package in a process of its own, which ends when its standard input does.

    Args:
        process: The running process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ready(self) -> None:
        """Wait until it says that it works."""
        if self._process.stdout is None or not self._process.stdout.readline():
            raise RuntimeError(f"a helper did not start: {self._process.args!r}")

    def stop(self) -> dict[str, Any]:
        """End it; what it reports."""
        out, _ = self._process.communicate(b"", timeout=30)
        found: dict[str, Any] = json.loads(out or b"{}")
        return found


@contextlib.contextmanager
def helper(module: str, *arguments: str) -> Iterator[Helper]:
    """Run a helper for the length of the block; it works when the block begins."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            found = Helper(process)
            found.ready()
            yield found
        finally:
            if process.poll() is None:
                process.kill()
