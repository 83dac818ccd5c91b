"""What replaying costs: an uncapped job beside the bare loop over the same messages, and the memory of 100,000 letters.

`python -m tests.bench.replay` prints both tables. The floor publishes letters that are in memory already, with an id, waits
for the confirmation and deletes the letter without erasing it, one after the other with nats-py: it neither reads them nor
leaves receipts, ledger or audit. Both sides take turns on one fresh server, and the medians are compared.

The memory part runs each case in a process of its own, so that each has a peak of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nats
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

from console.operations.audit import Audit
from console.operations.guard import WriteGuard
from console.operations.job import Job
from console.operations.ledger import JobLedger
from console.operations.plan import Plan
from console.operations.plan_letters import plan_discard
from console.operations.selection import choose
from patterns import Fleet
from patterns.letter import read_letter, replay_headers
from patterns.names import Entry
from patterns.server import LocalServer
from tests.bench import replay_support as support
from tests.support.plans import plan_replay

TARGET = 0.8
FLAT = 20.0
"""Megabytes that a hundred times as many letters may take more."""
Kind = Literal["inbox", "tasks"]
STREAMS: dict[Kind, str] = {"inbox": support.INBOX, "tasks": support.QUEUE}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of rates."""

    name: str
    floor: list[float]
    """Messages a second, one value a run; none if there is nothing to compare with."""
    job: list[float]
    target: str = ""

    @property
    def ratio(self) -> float:
        """The job's rate as a part of the floor's."""
        return statistics.median(self.job) / statistics.median(self.floor)


async def run_job(fleet: Fleet, plan: Plan, folder: Path) -> float:
    """Carry a plan out with ledger and audit on the disk; seconds it took."""
    audit = await Audit.of(folder / "audit.jsonl", fleet, actor="bench", version="0", context="", mode="cli")
    with closing(JobLedger(folder)) as ledger:
        job = Job.of(fleet, plan, WriteGuard(True), ledger=ledger, audit=audit, confirmation="--yes")
        begun = time.perf_counter()
        await job.run()
        took = time.perf_counter() - begun
        done = job.count("done", "skipped")
    if job.state != "completed" or done != plan.count:
        raise RuntimeError(f"the job is {job.state} with {done} of {plan.count} done: {job.error}")
    return took


class Letters:
    """Dead letters for one run after the other, each with ids of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._next = 0

    async def make(self, kind: Kind, count: int) -> None:
        """So many new ones, and an empty place for them to go to."""
        await self._fleet.jetstream.purge(STREAMS[kind], everything=True)
        first, self._next = self._next, self._next + 2 * count
        await support.bury_all(self._fleet, range(first + (kind == "inbox"), first + 2 * count, 2))


async def floor(fleet: Fleet, nc: Client) -> float:
    """The bare loop over all letters; seconds."""
    js, work = nc.jetstream(), []
    start = 1
    while (page := await fleet.jetstream.read("DLQ", start=start, limit=500)).messages:
        for stored in page.messages:
            letter = read_letter(stored, names=fleet.names, stream="DLQ")
            if letter is not None:
                headers = replay_headers(stored.headers, letter, Entry.parse(letter.entry), 1, "bench")
                work.append((letter.subject, stored.body, headers, stored.seq))
        start = page.next_seq
    gc.collect()
    begun = time.perf_counter()
    for subject, body, headers, seq in work:
        await js.publish(subject, body, headers=headers)
        answer = await nc.request("$JS.API.STREAM.MSG.DELETE.DLQ", json.dumps({"seq": seq, "no_erase": True}).encode())
        if not json.loads(answer.data).get("success"):
            raise RuntimeError(f"letter {seq} was not deleted: {answer.data.decode()}")
    return time.perf_counter() - begun


async def measured(fleet: Fleet, folder: Path, rate: float | None) -> float:
    """A job over all letters; seconds from its first write to its end, without the plan."""
    plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=rate)
    gc.collect()
    return await run_job(fleet, plan, folder)


async def rates(letters: int, runs: int, folder: Path) -> list[Row]:
    """Both kinds of letters uncapped beside the floor, and one run at 500 a second."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        server = stack.enter_context(LocalServer())
        nc = await nats.connect(server.url)
        stack.push_async_callback(nc.close)
        fleet = await stack.enter_async_context(
            Fleet.connect(server.url, config=support.configuration(max(10_000, letters)))
        )
        await fleet.provision(agents=[support.AGENT], roles=[support.ROLE])
        made = Letters(fleet)
        kinds: tuple[Kind, ...] = ("inbox", "tasks")
        for kind in kinds:
            row = Row(f"{kind}, uncapped", [], [], f"≥ {TARGET}" if kind == "inbox" else "")
            for number in range(runs):
                for side in ("floor", "job") if number % 2 else ("job", "floor"):
                    await made.make(kind, letters)
                    if side == "floor":
                        row.floor.append(letters / await floor(fleet, nc))
                    else:
                        row.job.append(letters / await measured(fleet, folder, None))
            rows.append(row)
        await made.make("inbox", letters)
        rows.append(Row("inbox, at 500", [], [letters / await measured(fleet, folder, 500.0)]))
    return rows


# -- memory


def megabytes(field: str) -> float:
    """VmRSS or VmHWM of this process; `ru_maxrss` would tell the parent's peak, which a child inherits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


async def remember(case: str, url: str, letters: int, folder: Path) -> dict[str, float]:
    """In a process of its own: plan and do it, and what that took."""
    async with Fleet.connect(url, config=support.configuration(letters)) as fleet:
        gc.collect()
        before, begun = megabytes("VmRSS"), time.perf_counter()
        everything = choose("dead letters", everything=True)
        if case == "replay":
            plan = await plan_replay(fleet, everything, rate=None)
        else:
            plan = await plan_discard(fleet, everything, spill=folder / "spill", purge=True)
        planned, took = megabytes("VmHWM"), time.perf_counter() - begun
        if plan.count != letters:
            raise RuntimeError(f"{plan.count} letters of {letters} in the plan")
        seconds = await run_job(fleet, plan, folder)
    return {"before": before, "planned": planned, "peak": megabytes("VmHWM"), "plan_s": took, "seconds": seconds}


async def memory(case: str, letters: int) -> dict[str, float]:
    """One case on a fresh server, in a fresh process."""
    with LocalServer() as server, tempfile.TemporaryDirectory(prefix="replay-memory-") as folder:
        async with Fleet.connect(server.url, config=support.configuration(letters)) as fleet:
            await fleet.provision(agents=[support.AGENT], roles=[support.ROLE])
            await support.store_copies(fleet, letters, "inbox")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.replay", "--case", case, "--url", server.url),
            *("--memory-letters", str(letters), "--folder", folder),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await child.communicate()
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise RuntimeError(f"{case} of {letters} letters ended with {child.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


# -- the program


def show_rates(out: Console, rows: list[Row], letters: int, runs: int) -> None:
    """Print the table of rates."""
    table = Table(title=f"replaying {letters:,} letters, messages/s, medians of {runs} runs")
    for column in ("", "bare loop", "job", "ratio", "target", "runs"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        pairs = sorted(ours / bare for bare, ours in zip(row.floor, row.job, strict=False))
        table.add_row(
            row.name,
            f"{statistics.median(row.floor):.0f}" if row.floor else "",
            f"{statistics.median(row.job):.0f}",
            f"{row.ratio:.2f}" if row.floor else "",
            row.target,
            f"{pairs[0]:.2f} – {pairs[-1]:.2f}" if pairs else "",
        )
    out.print(table)


async def show_memory(out: Console, letters: int) -> bool:
    """Measure and print the table of memory; whether it is flat."""
    table = Table(title="memory of the process, MB")
    for column in ("", "letters", "connected", "peak of the plan", "peak", "plan s", "job s"):
        table.add_column(column, justify="right" if column else "left")
    peaks: dict[str, list[float]] = {}
    for name, case, count in (
        ("replay", "replay", max(1, letters // 100)),
        ("replay", "replay", letters),
        ("purge with spill", "purge", max(1, letters // 100)),
        ("purge with spill", "purge", letters),
    ):
        found = await memory(case, count)
        peaks.setdefault(case, []).append(found["peak"])
        table.add_row(
            name, f"{count:,}", *(f"{found[each]:.1f}" for each in ("before", "planned", "peak", "plan_s", "seconds"))
        )
    out.print(table)
    more = {case: values[1] - values[0] for case, values in peaks.items()}
    told = ", ".join(f"{case} {difference:+.1f} MB" for case, difference in more.items())
    out.print(f"a hundred times as many letters: {told} (target: at the most {FLAT:g})")
    return all(difference <= FLAT for difference in more.values())


async def main(given: Any) -> int:
    """Measure and print; 1 if a target is missed."""
    if given.case:
        print(json.dumps(await remember(given.case, given.url, given.memory_letters, Path(given.folder))))
        return 0
    out, missed = Console(width=None if sys.stdout.isatty() else 110), False
    if given.letters:
        with tempfile.TemporaryDirectory(prefix="replay-rates-") as folder:
            rows = await rates(given.letters, given.runs, Path(folder))
        show_rates(out, rows, given.letters, given.runs)
        missed = rows[0].ratio < TARGET
    if given.memory_letters:
        missed |= not await show_memory(out, given.memory_letters)
    return int(missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--letters", type=int, default=2000, help="letters a run, 0 for no rates")
    parser.add_argument("--runs", type=int, default=3, help="runs of each side")
    parser.add_argument("--memory-letters", type=int, default=100_000, help="letters of the memory run, 0 for none")
    for hidden in ("--case", "--url", "--folder"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    sys.exit(asyncio.run(main(parser.parse_args())))
