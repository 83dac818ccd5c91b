"""`agent-console demo` as a person runs it: in a terminal, by keys, until it is left or killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from tests.support.waiting import until

AGENTS = (
    "ceo", "cto", "backend-1", "backend-2", "backend-3", "frontend-1", "frontend-2",
    "devops", "security", "marketing", "support",
)  # fmt: skip
DEMO = (sys.executable, "-m", "console", "demo", "--seed", "7")


@asynccontextmanager
async def demo(*extra: str, columns: int = 120, lines: int = 40) -> AsyncIterator[Terminal]:
    """The demo in a terminal for the length of the block."""
    terminal = Terminal([*DEMO, *extra], columns=columns, lines=lines, environ=dict(os.environ))
    try:
        yield terminal
    finally:
        terminal.close()


def family_of(pid: int) -> list[int]:
    """Processes below `pid`: the supervisor and its server."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def gone(pids: list[int]) -> Callable[[], bool]:
    """Whether none of these processes runs any more."""

    def check() -> bool:
        return not any(alive(pid) for pid in pids)

    return check


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@pytest.mark.timeout(120)
async def test_lives_replays_by_keys_and_quits_with_status_0():
    async with demo() as terminal:
        first = await terminal.sees(*AGENTS, "11 agents", "[RW]", "live")
        await until(lambda: terminal.text() != first)
        await until(lambda: re.search(r"DLQ [1-9]", terminal.text()))

        terminal.type("3")
        text = await terminal.sees("dead letters  ", "grouped by cause", "tries")
        seq = re.search(r"^│\W+(\d+)\s+\S+.*tries", text, re.MULTILINE)
        assert seq is not None, text
        terminal.type("j")
        await terminal.sees(f"seq {seq[1]} ")
        terminal.type("R")
        await terminal.sees("replay 1 dead letter", "Replay 1", "enter or y confirms")
        terminal.type("\r")
        await terminal.sees("1 replayed")

        def left() -> bool:
            return not re.search(rf"^│\W+{seq[1]}\s", terminal.text(), re.MULTILINE)

        await until(left)
        terminal.type("4")
        await terminal.sees("console.replay")
        terminal.type("q")
        assert await terminal.ends() == 0
        assert b"Traceback" not in terminal.raw


@pytest.mark.timeout(120)
@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_every_screen_draws_in_a_real_terminal(size):
    columns, lines = size
    async with demo(columns=columns, lines=lines) as terminal:
        await terminal.sees("ceo", "fleet")
        for key, wanted in (("2", "queues"), ("3", "dead letters"), ("4", "events"), ("?", "keys")):
            terminal.type(key)
            await terminal.sees(wanted)
        terminal.type("q")
        await terminal.sees("events")
        terminal.type("q")
        assert await terminal.ends() == 0


@linux
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
async def test_leaves_no_process_and_a_clean_terminal(number):
    async with demo() as terminal:
        await terminal.sees("ceo", "live")
        family = family_of(terminal.pid)
        assert family, "the demo has a server below it"
        terminal.signal(number)
        status = await terminal.ends()
        await until(gone(family))
        assert b"Traceback" not in terminal.raw
        if number is signal.SIGKILL:
            assert status == -number
        else:
            assert status == 128 + number
            assert terminal.raw.rstrip().endswith(b"\x1b[?1004l") or b"\x1b[?1049l" in terminal.raw


async def test_without_a_terminal_it_says_what_to_use_instead():
    process = await asyncio.create_subprocess_exec(
        *DEMO, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert err.count(b"\n") == 1
    assert b"--headless" in err or b"fleet" in err
