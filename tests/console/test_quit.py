"""Leaving the console: at once when nothing runs, and with a question while a job does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from console.messages import place_of
from console.operations.plan_streams import plan_purge
from console.operations.selection import choose
from console.screens.help import HelpPane
from console.screens.quit_dialog import QuitDialog
from console.settings import Settings
from tests.support.fleets import connected
from tests.support.letters import forge_many
from tests.support.screens import desk

SLOW = Settings(refresh=0.2, replay_rate=1.0)
"""A letter a second: the job runs on for as long as a test looks at it."""


@asynccontextmanager
async def at_work(server, *, size=(120, 40), count=90):
    """A console whose replay of so many letters is under way, the fleet and the job."""
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, count)
        async with desk(fleet, settings=SLOW, size=size) as console:
            await console.press("3")
            await console.sees(f"dead letters  {count}")
            await console.press("R")
            await console.sees(f"replay {count} dead letters")
            await console.press("y")
            job = await console.holds(lambda: console.runtime.busy)
            await console.holds(lambda: job.count("done"))
            yield console, fleet, job


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
class TestBoth:
    async def test_quits_at_once_when_nothing_runs(self, server, key):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.press(key)
            await console.holds(lambda: console.app.return_value is not None)
            assert console.app.return_value == 0

    async def test_asks_while_a_job_runs_and_esc_keeps_it_running(self, server, key):
        async with at_work(server) as (console, _, job):
            await console.press(key)
            await console.sees("1 job is running: replay ", "/90", "stops after the item in work", "on screen 6")
            assert console.app.focused.id == "confirm-no"
            await console.press("escape")
            await console.holds(lambda: not isinstance(console.app.screen, QuitDialog))
            done = job.count("done")
            await console.holds(lambda: job.count("done") > done)
            assert console.app.return_value is None
            await console.press(key, "enter")
            await console.holds(lambda: not isinstance(console.app.screen, QuitDialog))
            assert (job.state, console.app.return_value) == ("running", None), "enter is on Cancel"

    async def test_y_ends_with_0_and_the_job_between_two_items(self, server, key):
        async with connected(server.url, agents=["ceo"]) as other:
            async with at_work(server) as (console, _, job):
                await console.press(key)
                await console.sees("1 job is running")
                await console.press("y")
                await console.holds(lambda: console.app.return_value is not None)
                assert console.app.return_value == 0
            assert job.state == "interrupted", "so that it can be resumed"
            left = sum((await other.dead_letters.count()).values())
            stored = (await other.inbox("ceo").depth()).messages
            assert (left, left + stored) == (job.count("not started"), 90), "each is in one place"
            assert console.runtime.session.ledger.job(job.id).state == "interrupted"


async def test_the_button_quits_and_the_count_goes_on_meanwhile(server):
    async with at_work(server) as (console, _, job):
        await console.press("q")
        await console.sees("1 job is running: replay ")
        done = job.processed + 1
        await console.sees(f"1 job is running: replay {done}/90")
        await console.press("right", "enter")
        await console.holds(lambda: console.app.return_value is not None)
        assert console.app.return_value == 0


async def test_a_job_that_ends_while_asked_is_said_to_have_ended(server):
    async with at_work(server) as (console, _, job):
        await console.press("q")
        await console.sees("1 job is running")
        job.cancel()
        await console.sees("The job has ended meanwhile")
        await console.press("y")
        await console.holds(lambda: console.app.return_value == 0)


async def test_it_is_asked_once_and_over_another_pane_too(server):
    async with at_work(server) as (console, _, _):
        await console.press("question_mark")
        await console.holds(lambda: isinstance(console.app.screen, HelpPane))
        await console.press("ctrl+q")
        await console.sees("1 job is running")
        await console.press("ctrl+q", "q", "1", "question_mark")
        await console.pilot.pause()
        assert [type(screen).__name__ for screen in console.app.screen_stack[1:]] == ["HelpPane", "QuitDialog"]
        await console.press("escape")
        await console.holds(lambda: isinstance(console.app.screen, HelpPane))
        assert console.app.return_value is None


async def test_several_jobs_are_told_one_by_one_and_the_last_that_runs_alone(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await forge_many(fleet, 30)
        for n in range(30):
            await fleet.tasks("backend").submit("code", id=f"t-{n}")
        async with desk(fleet, settings=SLOW) as console:
            await console.press("3")
            await console.sees("dead letters  30")
            await console.press("R")
            await console.sees("replay 30 dead letters")
            await console.press("y")
            replay = await console.holds(lambda: console.runtime.busy)
            place = place_of(fleet.names, "queue", "backend")
            spill = console.runtime.session.spill
            plan = await plan_purge(fleet, place, choose("messages", everything=True), spill=spill)
            purge, _ = console.runtime.start(replace(plan, rate=1.0))
            await console.press("1", "q")
            text = await console.sees("2 jobs are running:", "each stops after the item in work", "on screen 6")
            assert "replay" in text
            assert "purge" in text
            purge.cancel()
            await console.sees("1 job is running: replay ", "it stops after the item in work")
            await console.press("y")
            await console.holds(lambda: console.app.return_value == 0)
        assert (replay.state, purge.state) == ("interrupted", "cancelled")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_the_question_fits(server, size):
    async with at_work(server, size=size, count=30) as (console, _, _):
        await console.press("q")
        text = await console.sees("1 job is running", "Cancel", "Quit")
        assert all(len(line) <= size[0] for line in text.splitlines())
