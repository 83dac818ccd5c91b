"""The simulated organization: alive on the first screen, honest in its summary, the same for the same seed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

import pytest

from console.demo import DemoOptions, Simulation, headless
from console.demo.fate import generation, trouble
from console.demo.organization import CORE, Organization, organize
from console.demo.traffic import BURST, Item, absences, loads, plan, routes
from patterns import Fleet, FleetSnapshot
from patterns.server import LocalServer
from tests.support.waiting import until

SUMMARY = {"submitted", "completed", "dead_lettered", "sent", "broadcast", "requests", "seconds"}
ELEVEN = organize(11)


def planned(seconds: float, *, seed: str = "7", rate: float = 6.0, failing: float = 0.08, run: int = 0) -> list[Item]:
    everything = plan(ELEVEN, seed, rate, lambda: failing, run=run)
    return list(itertools.takewhile(lambda item: item.at < seconds, everything))


@contextlib.asynccontextmanager
async def running(simulation: Simulation, duration: float | None = None) -> AsyncIterator[Fleet]:
    """The simulation in full swing, and a connection of one's own to look at it."""
    async with simulation, Fleet.connect(simulation.url) as observer:
        traffic = asyncio.create_task(simulation.run(duration))
        try:
            yield observer
        finally:
            simulation.finish()
            await traffic


# -- who exists


def test_the_organization_of_eleven() -> None:
    assert ELEVEN.agents == (
        "ceo", "cto", "backend-1", "backend-2", "backend-3", "frontend-1", "frontend-2", "devops", "security",
        "marketing", "support",
    )  # fmt: skip
    assert ELEVEN.roles == ("backend", "frontend", "ops")
    assert ELEVEN.workers("backend") == ("backend-1", "backend-2", "backend-3")


@pytest.mark.parametrize("size", range(1, 11))
def test_a_small_organization_is_cut_from_its_end_and_keeps_who_is_needed(size: int) -> None:
    small = organize(size)
    assert len(small.agents) == max(4, size)
    assert {"ceo", "backend-1", "devops", "security"} <= set(small.agents)
    assert [member for member in CORE if member in small.members] == list(small.members)


@pytest.mark.parametrize("size", [12, 50, 300])
def test_a_big_organization_goes_on_numbering(size: int) -> None:
    big = organize(size)
    assert len(set(big.agents)) == size
    assert big.agents[:11] == ELEVEN.agents
    assert big.agents[11] == "backend-4"


@pytest.mark.parametrize("size", [1, 5, 8, 11, 40])
def test_whatever_is_sent_has_somebody_to_take_it(size: int) -> None:
    some = organize(size)
    for item in itertools.islice(plan(some, "3", 50.0, lambda: 0.5), 2000):
        assert item.kind != "task" or item.to in some.roles
        assert item.kind != "message" or item.to in some.agents
        assert item.sender is None or item.sender in some.agents
    assert {absence.agent for absence in itertools.islice(absences(some, "3"), 50)} <= set(some.agents)


@pytest.mark.parametrize("size", [4, 11, 40])
def test_the_shares_of_the_routes_add_up(size: int) -> None:
    found = routes(organize(size))
    for kind in ("task", "message"):
        assert sum(route.share for route in found if route.kind == kind) == pytest.approx(1)
    tasks = sum(load for name, load in loads(found, 10.0).items() if name.startswith("role:"))
    assert tasks == pytest.approx(4.5)


# -- what is planned


def test_the_same_seed_plans_the_same_traffic() -> None:
    assert planned(60) == planned(60)
    assert [item.id for item in planned(60)] != [item.id for item in planned(60, seed="8")]


def test_the_failure_rate_changes_no_id_no_time_and_no_type_but_of_what_is_flawed() -> None:
    calm, wild = planned(120, failing=0), planned(120, failing=1)
    assert [(item.at, item.id, item.sender) for item in calm] == [(item.at, item.id, item.sender) for item in wild]
    assert not any(item.flaw for item in calm)
    assert {item.flaw for item in wild} == {"", "incomplete", "unknown-type", "broken-json", "expired"}


@pytest.mark.parametrize("rate", [2.0, 6.0, 100.0])
def test_the_rate_is_that_of_tasks_and_messages(rate: float) -> None:
    counted = sum(item.kind != "event" for item in planned(120, rate=rate))
    # The first items come early, and with them a burst.
    assert rate * 120 * 0.95 <= counted <= rate * 120 * 1.05 + BURST + 10


def test_all_kinds_of_flaws_are_there_within_the_first_seconds() -> None:
    flaws = {item.flaw for item in planned(4) if item.flaw}
    assert flaws == {"incomplete", "unknown-type", "broken-json", "expired"}


def test_a_later_run_has_ids_of_its_own_and_otherwise_the_same_traffic() -> None:
    first, second = planned(30), planned(30, run=1)
    assert not {item.id for item in first} & {item.id for item in second}
    assert [item.data for item in first] == [item.data for item in second]


def test_fate_depends_on_the_replay_and_on_the_rate() -> None:
    tasks = [f"feat-{number}" for number in range(2000)]
    assert not any(trouble("1", task, 0, 1, 0.0, outage=True) for task in tasks)
    assert all(trouble("1", task, 0, attempt, 1.0) for task in tasks for attempt in (1, 2, 3))
    dead = [task for task in tasks if trouble("1", task, 0, 3, 0.5)]
    assert len(dead) == pytest.approx(0.275 * 2000, rel=0.15)
    back = [task for task in dead if trouble("1", task, 1, 3, 0.08) is None]
    assert len(back) > 0.9 * len(dead)
    assert isinstance(trouble("1", "feat-1", 0, 3, 0.08, outage=True), TimeoutError)
    assert trouble("1", "feat-1", 1, 3, 0.0, outage=True) is None
    assert generation({"Dead-Letter-Replays": "2"}) == 2
    assert generation({}) == generation({"Dead-Letter-Replays": "x"}) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"agents": 0},
        {"rate": 0},
        {"rate": float("inf")},
        {"failure_rate": 1.1},
        {"duration": 0},
        {"rate": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", " ")):
        DemoOptions(**wrong)  # type: ignore[arg-type]


# -- what happens


async def test_the_fleet_is_alive_on_the_first_screen(server: LocalServer) -> None:
    simulation = Simulation(server.url, DemoOptions(seed=7))
    began = time.monotonic()
    async with running(simulation) as observer:
        look: FleetSnapshot = await until(lambda: _several_kinds_of_dead(observer), 10)
        assert time.monotonic() - began < 8
        assert set(look.inboxes) == set(ELEVEN.agents)
        assert set(look.queues) == set(ELEVEN.roles)
        assert set(look.subscriptions) == {"security-events", "marketing-events", "support-events"}
        letters = await observer.dead_letters.list()
        assert len({letter.reason for letter in letters}) >= 3
        await until(lambda: all(simulation.summary()[name] for name in SUMMARY - {"dead_lettered"}))
        await until(lambda: _without_worker(observer, "marketing"), 15)


async def _several_kinds_of_dead(observer: Fleet) -> FleetSnapshot | None:
    look = await observer.snapshot()
    kinds = {name.split(".")[0] for name in look.dead_letters}
    return look if kinds == {"inbox", "tasks", "events"} else None


async def _without_worker(observer: Fleet, agent: str) -> bool:
    depth = await observer.inbox(agent).depth()
    return depth.pending > 0 and not depth.ack_pending and not depth.waiting


async def test_a_run_adds_up_and_leaves_nothing_behind(server: LocalServer) -> None:
    summary = await headless(server.url, DemoOptions(seed=7, rate=20, duration=3))
    assert summary.keys() == SUMMARY
    assert summary["submitted"] > 0
    assert summary["completed"] + summary["dead_lettered"] == summary["submitted"]
    in_plan = planned(3, rate=20)
    assert summary["submitted"] == sum(item.kind == "task" for item in in_plan)
    async with Fleet.connect(server.url) as observer:
        look = await observer.snapshot()
        assert not any(depth.messages for depth in look.queues.values())
        assert not any(depth.waiting for depth in look.inboxes.values())
        tasks = sum(count for name, count in look.dead_letters.items() if name.startswith("tasks."))
        assert tasks == summary["dead_lettered"]


async def test_without_failures_everything_completes_and_runs_repeat(server: LocalServer) -> None:
    options = DemoOptions(seed=7, agents=4, rate=20, duration=1.5, failure_rate=0)
    first = await headless(server.url, options)
    assert first["completed"] == first["submitted"] > 0
    # The store knows the ids of this seed now: the second run has others, and is not a row of duplicates.
    second = await headless(server.url, options)
    assert second["completed"] == second["submitted"] == first["submitted"]
    async with Fleet.connect(server.url) as observer:
        assert await observer.dead_letters.count() == {}


async def test_what_is_repaired_and_replayed_succeeds(server: LocalServer) -> None:
    simulation = Simulation(server.url, DemoOptions(seed=3, agents=6, rate=20, failure_rate=1))
    async with running(simulation) as observer:
        await until(lambda: simulation.summary()["dead_lettered"] >= 5)
        simulation.failure_rate = 0
        letters = await observer.dead_letters.list("tasks", limit=100)
        unlucky = [letter for letter in letters if letter.reason == "max-deliver"]
        for letter in unlucky:
            await observer.dead_letters.replay(letter.seq, by="test")
        for letter in unlucky:
            status = await observer.tasks(letter.name).wait(letter.id, 20)
            assert status.state == "completed"


async def test_the_crash_loop_of_an_absent_agent_is_found_on_its_return(server: LocalServer) -> None:
    async with Simulation(server.url, DemoOptions(seed=7)) as simulation, Fleet.connect(server.url) as observer:
        traffic = asyncio.create_task(simulation.run(None))
        await until(lambda: _stranded(observer, "marketing"), 15)
        # The end of the traffic brings everybody back, and whoever comes back sweeps.
        traffic.cancel()
        await until(lambda: _crashed(observer, "marketing"), 10)


async def _stranded(observer: Fleet, agent: str) -> bool:
    """Seen twice: between an acknowledgement and its removal from the stream any message looks stranded."""
    first = await observer.inbox(agent).depth()
    await asyncio.sleep(0.3)
    second = await observer.inbox(agent).depth()
    return first.stranded == second.stranded == 1 and not second.waiting


async def _crashed(observer: Fleet, agent: str) -> bool:
    return any(letter.reason == "crash" for letter in await observer.dead_letters.list("inbox", agent))


async def test_cancelling_and_leaving_is_quick(server: LocalServer) -> None:
    async with Simulation(server.url, DemoOptions(seed=7, rate=30)) as simulation:
        traffic = asyncio.create_task(simulation.run(None))
        await until(lambda: simulation.summary()["completed"] >= 5)
        traffic.cancel()
        with pytest.raises(asyncio.CancelledError):
            await traffic
        began = time.monotonic()
    assert time.monotonic() - began < 3


async def test_leaving_a_dead_server_is_quick_too(server: LocalServer) -> None:
    async with Simulation(server.url, DemoOptions(seed=7, rate=30)) as simulation:
        traffic = asyncio.create_task(simulation.run(None))
        await until(lambda: simulation.summary()["completed"] >= 5)
        await asyncio.to_thread(server.kill)
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_it_survives_a_restart_of_the_server(server: LocalServer) -> None:
    simulation = Simulation(server.url, DemoOptions(seed=7, agents=5, rate=15, failure_rate=0))
    async with running(simulation):
        await until(lambda: simulation.summary()["completed"] >= 5)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        before = simulation.summary()["completed"]
        await until(lambda: simulation.summary()["completed"] >= before + 10, 30)


async def test_before_it_runs_the_summary_is_zero() -> None:
    assert set(Simulation("", DemoOptions()).summary().values()) == {0}


async def test_an_organization_of_a_hundred_starts(server: LocalServer) -> None:
    simulation = Simulation(server.url, DemoOptions(seed=7, agents=100, rate=30))
    assert isinstance(simulation.organization, Organization)
    async with running(simulation) as observer:
        await until(lambda: simulation.summary()["completed"] >= 20)
        assert len((await observer.snapshot()).inboxes) == 100
