"""Chaos: kill workers, servers and stream leaders at random, then count what became of every message.

`python -m tests.bench.chaos --tasks 2000 --seconds 60 --seed 1 [--cluster]`

Submitters, workers, an inbox, two subscribers, two responders and a requester run as processes of their own. While they
work, one of them, the server, or in a cluster the leader of a stream gets SIGKILL every second or so and is started again.
Then nothing is killed any more until the queue is empty, and what the processes wrote down is compared with what the
server keeps. The last six lines of the table must be 0 for any seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
from rich.console import Console
from rich.table import Table

from patterns import Fleet, PatternError
from patterns.server import LocalServer
from tests.bench.chaos_member import BOSS, LEASE, ROLE, configuration
from tests.support.servers import LocalCluster

SUBSCRIBERS = ("security", "audit")
SETTLE = 60.0
"""Seconds that everything may take to end once nothing is killed any more."""


@dataclass(slots=True)
class Report:
    """What a run came to."""

    submitted: int = 0
    completed: int = 0
    dead_lettered: int = 0
    handled_twice: int = 0
    """Deliveries of one stored message to a handler that was killed before it could acknowledge: at least once."""
    answers: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    wrong_answers: int = 0
    fallen: list[str] = field(default_factory=list)
    """Members that ended although nobody killed them."""
    lost: list[str] = field(default_factory=list)
    results_doubled: list[str] = field(default_factory=list)
    letters_doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def broken(self) -> dict[str, list[str]]:
        """The promises that were not kept, with the messages concerned."""
        promises = {
            "lost": self.lost,
            "results doubled": self.results_doubled,
            "dead letters doubled": self.letters_doubled,
            "stuck": self.stuck,
            "events missed by a subscriber": self.missed,
            "ended by themselves": self.fallen,
        }
        return {name: found for name, found in promises.items() if found}


class Members:
    """The processes of a run; a killed one is started again under its name."""

    def __init__(self, folder: Path, urls: list[str], replicas: int) -> None:
        self._folder = folder
        self._tail = [*urls, str(replicas)]
        self._running: dict[tuple[str, str], asyncio.subprocess.Process] = {}
        self._work: dict[tuple[str, str], tuple[int, float]] = {}
        self.fallen: list[str] = []

    async def start(self, role: str, name: str, tasks: int = 0, seconds: float = 0.0) -> None:
        """Start a process."""
        self._work[role, name] = tasks, seconds
        with (self._folder / f"{role}-{name}.err").open("ab") as said:
            self._running[role, name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.bench.chaos_member", role, name, str(self._folder / f"{role}-{name}.log")),
                *(*self._tail, str(tasks), str(seconds)),
                stderr=said,
            )

    async def kill(self, role: str, name: str) -> None:
        """SIGKILL a process and start it again."""
        process = self._running[role, name]
        with suppress(ProcessLookupError):
            process.kill()
        if await process.wait() != -signal.SIGKILL:
            said = (self._folder / f"{role}-{name}.err").read_text().strip().splitlines()
            self.fallen.append(f"{role} {name} ({process.returncode}): {said[-1] if said else 'nothing said'}")
        await self.start(role, name, *self._work[role, name])

    def names(self, *roles: str) -> list[tuple[str, str]]:
        """Who may be killed."""
        return [key for key in self._running if key[0] in roles]

    async def end(self) -> None:
        """Kill them all for good."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def saw(self) -> list[dict[str, Any]]:
        """All lines that were written so far."""
        return [
            json.loads(line)
            for path in sorted(self._folder.glob("*.log"))
            for line in path.read_text().splitlines()
            if line.endswith("}")
        ]


async def run(*, tasks: int, seconds: float, seed: int, cluster: bool = False) -> Report:
    """One run.

    Args:
        tasks: Tasks to submit.
        seconds: How long submitting and killing lasts.
        seed: Decides who is killed when.
        cluster: Three nodes and streams with three replicas instead of one server.
    """
    report, begun = Report(), time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        place: LocalServer | LocalCluster = stack.enter_context(LocalCluster() if cluster else LocalServer())
        urls = place.urls if isinstance(place, LocalCluster) else [place.url]
        replicas = 3 if cluster else 1
        fleet = await stack.enter_async_context(Fleet.connect(urls, config=configuration(replicas)))
        await fleet.provision(agents=[BOSS], roles=[ROLE])
        for name in SUBSCRIBERS:
            await fleet.events.subscription(name, "work.>")
        members = Members(folder, urls, replicas)
        stack.push_async_callback(members.end)
        for role, names in {
            "worker": ("w1", "w2", "w3"),
            "boss": (BOSS,),
            "subscriber": SUBSCRIBERS,
            "responder": ("r1", "r2"),
            "requester": ("q",),
        }.items():
            for name in names:
                await members.start(role, name)
        for name, part in (("s1", tasks - tasks // 2), ("s2", tasks // 2)):
            await members.start("submitter", name, part, seconds)
        await wreck(fleet, place, members, report, random.Random(seed), time.monotonic() + seconds)
        await settle(fleet, members, tasks)
        report.fallen = members.fallen
        await judge(fleet, members, report)
    report.seconds = time.monotonic() - begun
    return report


async def wreck(
    fleet: Fleet,
    place: LocalServer | LocalCluster,
    members: Members,
    report: Report,
    chance: random.Random,
    until: float,
) -> None:
    """Kill something every second or so."""
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.4, 1.6))
        what = chance.choices(("member", "server"), weights=(4, 1))[0]
        if what == "member":
            role, name = chance.choice(members.names("worker", "boss", "subscriber", "responder"))
            await members.kill(role, name)
            report.kills[role] += 1
        elif isinstance(place, LocalServer):
            place.kill()
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            await asyncio.to_thread(place.restart)
            report.kills["server"] += 1
        else:
            stream = chance.choice([f"TASKS_{ROLE.upper()}", "DLQ", "KV_TASKS", "EVENTS", f"INBOX_{BOSS.upper()}"])
            index = await leader(fleet, stream)
            if index is None:
                continue
            place.kill(index)
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await asyncio.to_thread(place.restart, index)
            report.kills["stream leader"] += 1


async def leader(fleet: Fleet, stream: str) -> int | None:
    """Index of the node that leads a stream, None while there is none."""
    try:
        info = await fleet.jetstream.stream_info(stream)
    except (PatternError, nats.errors.Error):
        return None
    name = str(((info or {}).get("cluster") or {}).get("leader") or "")
    return int(name.rpartition("-")[2]) if name else None


async def settle(fleet: Fleet, members: Members, tasks: int) -> None:
    """Wait until everything that was submitted has ended and everybody was told, or until patience is over."""
    deadline, calm = time.monotonic() + SETTLE, 0
    while time.monotonic() < deadline and calm < 3:
        await asyncio.sleep(LEASE / 2)
        try:
            snapshot = await fleet.snapshot()
        except (PatternError, nats.errors.Error):
            continue
        waiting = [snapshot.queues[ROLE].messages, snapshot.inboxes[BOSS].messages]
        waiting += [depth.pending + depth.ack_pending for depth in snapshot.subscriptions.values()]
        submitted = sum("submitted" in line for line in members.saw())
        calm = calm + 1 if not any(waiting) and submitted == tasks else 0


async def judge(fleet: Fleet, members: Members, report: Report) -> None:
    """Compare what the processes saw with what the server keeps."""
    lines = members.saw()
    submitted = [line["submitted"] for line in lines if "submitted" in line]
    report.submitted = len(set(submitted))
    states: dict[str, str] = {}
    for task in set(submitted):
        status = await fleet.tasks(ROLE).status(task)
        states[task] = status.state if status is not None else ""
    letters: list[str] = []
    after = 0
    while page := await fleet.dead_letters.list(after=after, limit=500):
        letters += [letter.id for letter in page if letter.kind == "tasks"]
        after = page[-1].seq
    dead = Counter(letters)
    outcomes = {(line["task"], line["seq"]) for line in lines if "outcome" in line}
    told = Counter(task for task, _ in outcomes)
    handled = Counter((line["task"], line["seq"]) for line in lines if "outcome" in line)
    report.handled_twice = sum(count - 1 for count in handled.values())
    report.completed = sum(state == "completed" for state in states.values())
    report.dead_lettered = len(dead)
    for task, state in sorted(states.items()):
        ended = (state == "completed", task in dead)
        if ended == (False, False):
            (report.stuck if state in ("submitted", "working") else report.lost).append(
                f"{task} is {state or 'unknown'}"
            )
        elif ended == (True, True):
            report.letters_doubled.append(f"{task} is completed and dead")
        elif not told[task]:
            report.lost.append(f"outcome of {task}")
    report.results_doubled = [f"{task} {count}×" for task, count in told.items() if count > 1]
    report.letters_doubled += [f"{task} {count}×" for task, count in dead.items() if count > 1]
    snapshot = await fleet.snapshot()
    for where, depth in {**snapshot.queues, **snapshot.inboxes, **snapshot.subscriptions}.items():
        left = depth.ack_pending + depth.pending + (depth.stranded or 0)
        if left:
            report.stuck.append(f"{left} messages in {where}")
    stored: set[str] = set()
    position = 1
    while (events := await fleet.jetstream.read("EVENTS", start=position, limit=500)).messages:
        stored |= {json.loads(event.body)["task"] for event in events.messages}
        position = events.messages[-1].seq + 1
    for name in SUBSCRIBERS:
        heard = {line["event"] for line in lines if line.get("by") == name}
        report.missed += [f"{task} by {name}" for task in sorted(stored - heard)]
    report.answers = Counter(line["reply"] for line in lines if "reply" in line)
    report.wrong_answers = sum(not line["right"] for line in lines if "reply" in line)


def show(report: Report, title: str) -> None:
    """Print the table, and the first few messages behind a number that should be 0."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    kills = ", ".join(f"{count} {who}" for who, count in sorted(report.kills.items())) or "nothing"
    live, fallback = report.answers["live"], report.answers["fallback"]
    for name, value in (
        ("killed", f"{sum(report.kills.values())} ({kills})"),
        ("submitted", report.submitted),
        ("completed", report.completed),
        ("dead-lettered", report.dead_lettered),
        ("requests: live / fallback / wrong", f"{live} / {fallback} / {report.wrong_answers}"),
        ("outcomes handled again by a killed reader", report.handled_twice),
        ("lost", len(report.lost)),
        ("results doubled", len(report.results_doubled)),
        ("dead letters doubled", len(report.letters_doubled)),
        ("stuck", len(report.stuck)),
        ("events missed by a subscriber", len(report.missed)),
        ("members that ended by themselves", len(report.fallen)),
    ):  # fmt: skip
        table.add_row(name, str(value))
    out = Console(width=None if sys.stdout.isatty() else 110)
    out.print(table)
    out.print(f"{report.seconds:.0f} s")
    for name, found in report.broken.items():
        out.print(f"{name}: {', '.join(found[:10])}", markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long submitting and killing lasts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster", action="store_true", help="three nodes, three replicas, stream leaders are killed")
    given = parser.parse_args()
    result = asyncio.run(run(tasks=given.tasks, seconds=given.seconds, seed=given.seed, cluster=given.cluster))
    where = "three nodes" if given.cluster else "one server"
    show(result, f"{given.tasks} tasks in {given.seconds:g} s, seed {given.seed}, {where}")
    sys.exit(1 if result.broken else 0)
