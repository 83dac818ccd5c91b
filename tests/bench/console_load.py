"""What the console takes of the machine: processor, memory and time to start."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pyte

from tests.bench.console_fleet import BigFleet, big_fleet
from tests.bench.console_lines import Line, Scale, growth, progress
from tests.bench.console_process import ROOT, cpu_seconds, helper, resident_mb
from tests.bench.console_screen import read_samples, sample_file
from tests.bench.console_terminal import AGENT, COLUMNS, LINES, RawTerminal, console, environment, terminal

AGENTS = 100
FLAT = 0.05
"""By which part memory may grow from the first third of a run to the last."""
MOST_MB = 150.0
SETTLE_S = 5.0
IMPORTS = "console.__main__, console.app, console.commands.opening, console.operations.guard, console.session"
"""What is loaded before the first picture."""
LIBRARIES = "textual.app, nats"
_ROW = re.compile(r"agent-\d{4}")


class Usage:
    """Processor and memory of a process, each second.

    Args:
        screen: The process, whose output is taken meanwhile.
    """

    def __init__(self, screen: RawTerminal) -> None:
        self._screen = screen
        self.memory: list[float] = []
        """MB."""
        self.share = 0.0
        """Of one core, over the last `follow`."""

    def follow(self, seconds: float) -> None:
        """Watch it for so long."""
        begun, used = time.perf_counter(), cpu_seconds(self._screen.pid)
        while time.perf_counter() - begun < seconds:
            self._screen.drain(1.0)
            self.memory.append(resident_mb(self._screen.pid))
        self.share = (cpu_seconds(self._screen.pid) - used) / (time.perf_counter() - begun)


def bare_mb() -> float:
    """Memory of a process that has imported the libraries."""
    with helper("console_floors", "bare") as bare:
        return resident_mb(bare.pid)


# -- the feed


def feed_lines(scale: Scale) -> list[Line]:
    """The events screen while events rain."""
    progress(f"feed, {scale.events_rate:,} events/s for {scale.feed_s:.0f} s")
    with big_fleet(AGENTS) as big:
        with sample_file() as path, console(big.url, samples=path) as screen:
            screen.type("4")
            screen.drain(2.0)
            usage = Usage(screen)
            with helper("console_traffic", "events", big.url, str(scale.events_rate)) as events:
                usage.follow(scale.feed_s)
                sent = events.stop()["sent"]
            screen.drain(SETTLE_S)
            screen.quit()
            told = [sample for sample in read_samples(path) if "handed" in sample]
        stored = big.stored("EVENTS")
        floor = _counter_share(big, scale)
    handed, dropped = (told[-1]["handed"], told[-1]["dropped"]) if told else (0, 0)
    exact = bool(told) and handed + dropped == stored
    risen = growth(usage.memory, len(usage.memory) // 3)
    return [
        Line(
            what=f"event feed, {scale.events_rate:,} events/s for {scale.feed_s:.0f} s, share of a core",
            ours=f"{usage.share:.0%}",
            against="a nats-py subscriber that only counts",
            floor=f"{floor:.0%}",
            ratio=usage.share / floor,
            target="≤ 35 %",
            met=usage.share <= 0.35,
            notes=(f"{sent:,} events sent, {stored:,} stored",),
        ),
        Line(
            what="… its memory, first third to last",
            ours=f"{max(usage.memory):.0f} MB, {risen:+.1%}",
            target=f"flat: ≤ {FLAT:+.0%}",
            met=risen <= FLAT,
        ),
        Line(
            what="… events shown and dropped",
            ours=f"{handed:,} + {dropped:,}",
            against="stored on the server",
            floor=f"{stored:,}",
            ratio=(handed + dropped) / stored if stored else None,
            target="exactly all",
            met=exact,
        ),
    ]


def _counter_share(big: BigFleet, scale: Scale) -> float:
    seconds = max(5.0, scale.feed_s / 4)
    with (
        helper("console_floors", "count", big.url) as counter,
        helper("console_traffic", "events", big.url, str(scale.events_rate)),
    ):
        time.sleep(1.0)
        used = cpu_seconds(counter.pid)
        time.sleep(seconds)
        return (cpu_seconds(counter.pid) - used) / seconds


# -- start


def _rows(screen: pyte.Screen) -> int:
    return sum(bool(_ROW.search(line)) for line in screen.display)


def first_screen(big: BigFleet) -> float:
    """Seconds from the start of the process to the first picture with all rows of the fleet table that fit."""
    with console(big.url, wait=False) as screen:
        screen.written = []
        screen.wait_for(AGENT)
        screen.drain(1.0)
        written, begun = screen.written, screen.begun
    emulator = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(emulator)
    shown: list[tuple[float, int]] = []
    for moment, data in written:
        stream.feed(data)
        shown.append((moment, _rows(emulator)))
    # After one second no more rows come, only other numbers.
    return next(moment for moment, rows in shown if rows == shown[-1][1]) - begun


def importing(modules: str) -> float:
    """Seconds that a fresh interpreter takes to import something."""
    code = f"import time; begun = time.perf_counter(); import {modules}; print(time.perf_counter() - begun)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout)


def starting(modules: str) -> float:
    """Seconds from the start to the end of an interpreter that imports something and does nothing else."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT, check=True)
    return time.perf_counter() - begun


def start_lines(scale: Scale) -> list[Line]:
    """From the command to the picture."""
    progress(f"start, {scale.starts} times")
    with big_fleet(AGENTS) as big:
        calls: tuple[Callable[[], float], ...] = (
            lambda: first_screen(big),
            lambda: starting(LIBRARIES),
            lambda: importing(IMPORTS),
            lambda: importing(LIBRARIES),
        )
        # The first of each fills the caches of the system and does not count.
        taken = [[call() for call in calls] for _ in range(scale.starts + 1)][1:]
    whole, bare, imports, libraries = (statistics.median(column) for column in zip(*taken, strict=True))
    return [
        Line(
            what=f"start to first full screen, {AGENTS} agents",
            ours=f"{whole:.2f} s",
            against=f'python -c "import {LIBRARIES}"',
            floor=f"{bare:.2f} s",
            ratio=whole / bare,
            target="≤ 1.0 s",
            met=whole <= 1.0,
            notes=(f"medians of {scale.starts} starts; modules compiled and in the system's cache",),
        ),
        Line(
            what="… of which imports",
            ours=f"{imports:.2f} s",
            against=f"import {LIBRARIES}",
            floor=f"{libraries:.2f} s",
            ratio=imports / libraries,
            target="≤ 0.5 s",
            met=imports <= 0.5,
        ),
    ]


# -- memory


def memory_lines(big: BigFleet, scale: Scale) -> list[Line]:
    """A large fleet that moves, for long."""
    progress(f"memory, {big.agents:,} agents, {scale.memory_s:.0f} s")
    with (
        helper("console_traffic", "churn", big.url, str(big.agents), str(scale.churn_rate)),
        console(big.url) as screen,
    ):
        usage = Usage(screen)
        usage.follow(scale.memory_s)
    return [_memory_line(f"memory, {big.agents:,} agents, {_length(scale.memory_s)}", usage)]


def letters_lines(scale: Scale) -> list[Line]:
    """Many dead letters, on their screen."""
    progress(f"memory with {scale.letters:,} dead letters, {scale.letters_s:.0f} s")
    with big_fleet(AGENTS, letters=scale.letters) as big, console(big.url) as screen:
        screen.type("3")
        usage = Usage(screen)
        usage.follow(scale.letters_s)
    return [_memory_line(f"memory, {scale.letters:,} dead letters on screen 3, {_length(scale.letters_s)}", usage)]


def _memory_line(what: str, usage: Usage) -> Line:
    # The rows' histories are full after a minute, and the allocator's arenas some time later.
    warm = min(90, len(usage.memory) // 3)
    risen, most, bare = growth(usage.memory, warm), max(usage.memory), bare_mb()
    return Line(
        what=what,
        ours=f"{most:.0f} MB, {risen:+.1%}",
        against=f"a process that imported {LIBRARIES}",
        floor=f"{bare:.0f} MB",
        ratio=most / bare,
        target=f"≤ {MOST_MB:.0f} MB, flat: ≤ {FLAT:+.0%}",
        met=most <= MOST_MB and risen <= FLAT,
        notes=(
            "the most it ever held, and the mean of the last third against that of the first, the first 90 s or a third "
            "left out",
        ),
    )


def _length(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:.0f} s"


# -- idle


def idle_lines(scale: Scale) -> list[Line]:
    """Nothing moves, and nobody presses a key."""
    progress(f"idle, {scale.idle_s:.0f} s")
    with big_fleet(AGENTS) as big, console(big.url) as screen:
        ours = _share(screen, scale.idle_s)
    with environment() as environ:
        command = [sys.executable, "-m", "tests.bench.console_floors", "app"]
        with terminal(command, environ) as screen:
            floor = _share(screen, scale.idle_s / 2)
    return [
        Line(
            what=f"idle console, {AGENTS} agents, share of a core",
            ours=f"{ours:.1%}",
            against="an empty Textual application with one 10 Hz timer",
            floor=f"{floor:.1%}",
            ratio=ours / floor if floor else None,
            target="≤ 5 %",
            met=ours <= 0.05,
        )
    ]


def _share(screen: RawTerminal, seconds: float) -> float:
    screen.drain(SETTLE_S)
    usage = Usage(screen)
    usage.follow(seconds)
    return usage.share
