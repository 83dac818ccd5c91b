"""Chaos for replaying: kill the console in the middle of a replay, and the server too, resume, and count what was handled.

`python -m tests.bench.replay_chaos --rounds 50 --letters 1000 --seed 1 [--plain]`

Each round is a fresh server with so many dead letters, half of an inbox and half of a role, agents that handle what comes
back, and the real console as a process that replays them all. It gets SIGKILL at a random moment, in every third round the
server as well, or it alone, and is started again on its store; then `jobs resume` goes on, killed again now and then, until
the job is done. Letters that arrive meanwhile must stay. A round is exact if every message was handled once, the letters are
gone and the ledger says completed. Lost and doubled must be 0 for any seed.

With `--plain` the agents are plain nats-py on streams without the library's stamp, where no second copy would be dropped.
There the job may leave items in doubt, but nothing may be doubled and nothing lost; they are answered truthfully then, and
the round must come out even all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from patterns import Fleet
from patterns.server import LocalServer
from tests.bench import replay_support as support
from tests.bench.replay_support import ConsoleProgram, Process, Tally

NEWCOMERS = 6
"""Letters that arrive while a replay runs."""
RESUMES = 10
"""Resumes after which a job is called stuck."""
SETTLE = 60.0
"""Seconds that the agents may take once nothing is killed any more."""
HOW = ("after", "before", "restarted", "alone")
"""When the server is killed: after the console, before it, before it and back again, or the console is left alone."""
AGAIN = 0.25
"""How often a resume is killed, too."""


@dataclass(slots=True)
class Report:
    """What a run came to."""

    rounds: int = 0
    exact: int = 0
    letters: int = 0
    once: int = 0
    """Messages of which exactly one copy was handled."""
    again: int = 0
    """Deliveries of a copy that had been handled: its acknowledgement died with the server. At least once, not the replay."""
    kills: int = 0
    """Kills of the console in the middle of a job."""
    missed: int = 0
    """Kills that came too late: the job had ended."""
    server_kills: int = 0
    survived: int = 0
    """Of them those in which the console was left alone."""
    resumes: int = 0
    in_doubt: int = 0
    in_doubt_handled: int = 0
    """Of them those that had got there."""
    left: int = 0
    """Letters of the job that were in the DLQ when it had ended."""
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    uneven: list[str] = field(default_factory=list)
    """What else kept a round from being exact."""

    @property
    def broken(self) -> dict[str, list[str]]:
        """The promises that were not kept, with the messages concerned."""
        return {name: found for name, found in (("lost", self.lost), ("doubled", self.doubled)) if found}


class Round:
    """One round on a server of its own.

    Args:
        number: Which; every third kills the server, too.
        letters: Dead letters to replay.
        chance: Decides who is killed when.
        plain: Whether the agents are other code's.
        report: Where it is counted.
        folder: For the store and the files of the console.
        how: When the server is killed, one of `HOW`, or empty for never; in every third round by chance if not said.
    """

    def __init__(
        self, number: int, letters: int, chance: random.Random, report: Report, folder: Path, *, plain: bool,
        how: str | None = None,
    ) -> None:  # fmt: skip
        self.number = number
        self.letters = letters
        self.chance = chance
        self.plain = plain
        self.report = report
        self.folder = folder
        self.tally = Tally()
        self.server = LocalServer(data_dir=folder / "store")
        self.how = how
        self.server_kill = number % 3 == 2 if how is None else bool(how)
        self.planned: dict[str, str] = {}
        """Ids and entries of the letters that the job is for."""
        self.arrived: dict[str, str] = {}
        """Those of the letters that came meanwhile."""
        self.job = ""
        """Its id, as soon as it is known."""
        self.told: dict[str, Any] | None = None
        """What `jobs show` said of it last."""
        self.fleet: Fleet
        self.console: ConsoleProgram

    async def run(self) -> None:
        """Set up, replay under fire, and judge."""
        config = support.configuration(self.letters)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.server)
            self.console = ConsoleProgram(self.server.url, self.folder)
            self.fleet = await stack.enter_async_context(
                Fleet.connect(self.server.url, config=config, reconnect_time_wait=0.1)
            )
            await self.fleet.provision(
                agents=() if self.plain else [support.AGENT], roles=[] if self.plain else [support.ROLE]
            )
            if self.plain:
                await support.make_plain(self.fleet.nc)
            self.planned = await support.bury_all(self.fleet, range(self.letters))
            if self.plain:
                await stack.enter_async_context(support.plain_agents(self.server.url, self.tally))
            else:
                handling = await stack.enter_async_context(
                    Fleet.connect(self.server.url, config=config, reconnect_time_wait=0.1)
                )
                await stack.enter_async_context(support.agents(handling, self.tally))
            arriving = asyncio.create_task(self._newcomers())
            try:
                await self._replay()
                await self._drained()
                await arriving
            finally:
                arriving.cancel()
            await self._judge()

    # -- under fire

    async def _replay(self) -> None:
        """Begin, get killed, and resume until nothing is left to do."""
        pace = ("--rate", "500") if self.chance.random() < 0.25 else ("--uncapped",)
        begin = ("dlq", "replay", "--all", *pace, "--yes", "--json")
        process = await self.console.start(*begin)
        await self._wreck(process, with_server=self.server_kill)
        for attempt in range(RESUMES):
            job = await self._look()
            if job is None:
                # Killed before the job was on record, so nothing was sent; deaths since then belong to the new one.
                process = await self.console.start(*begin)
            elif job["state"] == "completed" or not job["left"]:
                return
            else:
                self.report.resumes += 1
                process = await self.console.start("jobs", "resume", job["job"], "--yes", "--json")
            killed = attempt < 3 and self.chance.random() < AGAIN
            if killed:
                await self._wreck(process, with_server=self.server_kill and self.chance.random() < 0.5)
            status, _, said = await process.end()
            if status not in (0, 3) and not (killed and status == -9):
                self._uneven(f"the console ended with {status}: {said.strip()[-300:]}")
                return
        self._uneven(f"still not done after {RESUMES} resumes")

    async def _look(self) -> dict[str, Any] | None:
        """The job and its items; None if the kill came before it was on record."""
        if not self.job:
            newest = await self.console.newest_job()
            self.job = str(newest["job"]) if newest is not None else ""
            if newest is not None and newest["left"]:
                return newest
        self.told = await self.console.said("jobs", "show", self.job) if self.job else None
        return self.told

    async def _wreck(self, process: Process, *, with_server: bool) -> None:
        """Wait for a random moment of the job, and kill."""
        await self._moment(process)
        how = self.how or self.chance.choice(HOW) if with_server else ""
        if how and how != "after":
            await self._kill_server()
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))
        if how == "alone":
            # The console has to go on by itself when the server is back.
            await asyncio.to_thread(self.server.restart)
            await process.end()
            self.report.survived += 1
            return
        if how == "restarted":
            await asyncio.to_thread(self.server.restart)
            await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        if await process.kill():
            self.report.kills += 1
        else:
            self.report.missed += 1
        if how == "after":
            await asyncio.sleep(self.chance.uniform(0.0, 0.05))
            await self._kill_server()
        if not self.server.running:
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            await asyncio.to_thread(self.server.restart)

    async def _kill_server(self) -> None:
        await asyncio.to_thread(self.server.kill)
        self.report.server_kills += 1

    async def _moment(self, process: Process) -> None:
        """A random number of letters removed or of messages handled, or, less often, a random time."""
        how = self.chance.choices(("removed", "handled", "time"), weights=(5, 3, 1))[0]
        if how == "time":
            until = time.monotonic() + self.chance.uniform(0.2, 1.5)
            while time.monotonic() < until and not process.over:  # noqa: ASYNC110 - a random time
                await asyncio.sleep(0.005)
            return
        begun = len(self.tally.seen) if how == "handled" else await self._removed()
        # The agents come after the replay: when most is handled it may be over.
        most = (self.letters - begun) * (0.3 if how == "handled" else 0.85)
        wanted = begun + self.chance.uniform(0.0, max(1.0, most))
        while not process.over:
            if (len(self.tally.seen) if how == "handled" else await self._removed()) >= wanted:
                break
            await asyncio.sleep(0.003)
        await asyncio.sleep(self.chance.uniform(0.0, 0.01))

    async def _removed(self) -> int:
        left = await support.stored_in(self.fleet, "DLQ")
        return 0 if left is None else max(0, self.letters + len(self.arrived) - left)

    async def _newcomers(self) -> None:
        """Deaths while the job runs: its plan is frozen, and it must not touch them."""
        while not self.tally.seen:  # noqa: ASYNC110 - the agents do not know who waits
            await asyncio.sleep(0.01)
        for number in range(self.letters, self.letters + NEWCOMERS):
            entry = await support.insist(partial(support.bury, self.fleet, number))
            self.arrived[f"m-{number}"] = entry
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))

    # -- the account

    async def _drained(self) -> None:
        async def empty() -> bool:
            return [await support.stored_in(self.fleet, stream) for stream in (support.INBOX, support.QUEUE)] == [0, 0]

        if not await support.wait_for(empty, SETTLE):
            self._uneven("the agents did not finish")

    async def _letters(self) -> dict[str, int]:
        """Entries and sequences of all letters there are."""
        found: dict[str, int] = {}
        after = 0
        while page := await self.fleet.dead_letters.list(after=after, limit=500):
            found |= {letter.entry: letter.seq for letter in page}
            after = page[-1].seq
        return found

    async def _judge(self) -> None:
        report, seen, exact = self.report, self.tally.seen, len(self.report.uneven)
        job = self.told
        letters = await self._letters()
        ids = {letters[entry]: name for name, entry in self.planned.items() if entry in letters}
        doubtful = {item["seq"] for item in (job["items"] if job else ()) if item["outcome"] == "in doubt"}
        report.in_doubt += len(doubtful)
        report.left += len(ids)
        report.in_doubt_handled += sum(name in seen for seq, name in ids.items() if seq in doubtful)
        self._lost(letters)
        if strange := sorted(name for seq, name in ids.items() if seq not in doubtful):
            self._uneven(f"letters are left that are not in doubt: {strange[:5]}")
        if doubtful - set(ids):
            self._uneven(f"in doubt without a letter: {sorted(doubtful - set(ids))[:5]}")
        if doubtful and not self.plain:
            self._uneven(f"{len(doubtful)} in doubt although the consumers keep receipts")
        if job is None or job["state"] != "completed" or job["failed"] or job["left"]:
            told = {name: value for name, value in (job or {}).items() if name != "items"}
            self._uneven(f"the ledger says {told}")
        elif doubtful:
            await self._answer({seq: ids[seq] for seq in doubtful & set(ids)})
            letters = await self._letters()
            self._lost(letters)
        report.rounds += 1
        report.letters += self.letters
        report.again += self.tally.again
        report.once += sum(len(seen.get(name, ())) == 1 for name in self.planned)
        report.doubled += [f"round {self.number}: {text}" for text in self.tally.doubled]
        if set(letters) != set(self.arrived.values()):
            self._uneven(
                f"{len(letters)} letters in the end and not the {len(self.arrived)} that arrived meanwhile: "
                f"{sorted(set(letters) ^ set(self.arrived.values()))[:5]}"
            )
        if touched := [name for name in self.arrived if name in seen]:
            self._uneven(f"arrived meanwhile and were replayed: {touched}")
        whole = all(len(seen.get(name, ())) == 1 for name in self.planned)
        report.exact += whole and len(report.uneven) == exact

    async def _answer(self, doubtful: dict[int, str]) -> None:
        """Say what is true of every item in doubt, as an operator who looked would, and go on."""
        arrived = [str(seq) for seq, name in doubtful.items() if name in self.tally.seen]
        again = [str(seq) for seq, name in doubtful.items() if name not in self.tally.seen]
        if arrived:
            await self.console.said("jobs", "answer", self.job, *arrived, "--arrived", "--yes")
        if again:
            await self.console.said("jobs", "answer", self.job, *again, "--again", "--yes")
            await self.console.said("jobs", "resume", self.job, "--yes")
        await self._drained()

    def _lost(self, letters: dict[str, int]) -> None:
        """Neither handled nor among the dead letters."""
        gone = [name for name, entry in self.planned.items() if name not in self.tally.seen and entry not in letters]
        self.report.lost += [text for name in gone if (text := f"round {self.number}: {name}") not in self.report.lost]

    def _uneven(self, what: str) -> None:
        self.report.uneven.append(f"round {self.number}: {what}")


async def run(
    *, rounds: int, letters: int, seed: int, plain: bool = False, server_kills: tuple[str, ...] | None = None
) -> Report:
    """Several rounds.

    Args:
        rounds: How many.
        letters: Dead letters of each.
        seed: Decides who is killed when.
        plain: Whether the agents are plain nats-py.
        server_kills: When the server is killed in each round, one of `HOW` or empty for never; if not said, in every third
            by chance.
    """
    report, begun = Report(), time.monotonic()
    for number in range(rounds):
        # A seed for each round: how many dice one has thrown depends on time.
        chance = random.Random(f"{seed} {number}")
        with tempfile.TemporaryDirectory(prefix="replay-chaos-", ignore_cleanup_errors=True) as folder:
            how = None if server_kills is None else server_kills[number]
            await Round(
                number, letters, chance, report, Path(folder), plain=plain, how=how
            ).run()  # fmt: skip
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {rounds}, {report.exact} exact", end="", file=sys.stderr, flush=True)
    report.seconds = time.monotonic() - begun
    return report


def show(report: Report, title: str) -> None:
    """Print the table, and the first few messages behind what should not be there."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("rounds", report.rounds),
        ("kills of the console in mid-job (too late)", f"{report.kills} ({report.missed})"),
        ("kills of the server (of the server alone)", f"{report.server_kills} ({report.survived})"),
        ("resumes", report.resumes),
        ("letters", report.letters),
        ("handled exactly once", report.once),
        ("delivered again by a killed server, same copy", report.again),
        ("lost", len(report.lost)),
        ("doubled", len(report.doubled)),
        ("in doubt (of which had arrived)", f"{report.in_doubt} ({report.in_doubt_handled})"),
        ("DLQ left when the job had ended", report.left),
        ("rounds exact", f"{report.exact} of {report.rounds}"),
    ):  # fmt: skip
        table.add_row(name, str(value))
    out = Console(width=None if sys.stdout.isatty() else 110)
    out.print(table)
    out.print(f"{report.seconds:.0f} s")
    for name, found in {**report.broken, "not exact": report.uneven}.items():
        if found:
            out.print(f"{name}: {', '.join(found[:10])}", markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--letters", type=int, default=1000, help="dead letters a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="agents of plain nats-py, without receipts")
    given = parser.parse_args()
    # The agents warn of every acknowledgement that died with the server.
    logging.getLogger("patterns").addHandler(logging.NullHandler())
    result = asyncio.run(run(rounds=given.rounds, letters=given.letters, seed=given.seed, plain=given.plain))
    who = "plain nats-py" if given.plain else "the library's consumers"
    show(result, f"{given.rounds} rounds of {given.letters} letters, seed {given.seed}, handled by {who}")
    sys.exit(1 if result.broken else 0)
