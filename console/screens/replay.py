"""The way every replay takes on the screen: plan, dialog, job, result."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import nats.errors
from textual.app import App

from console.filters import FilterError
from console.operations.errors import OperationError
from console.operations.job import Job
from console.operations.plan import plan_replay, policy_of
from console.operations.selection import freeze
from console.screens.base import ConsoleScreen
from console.screens.plan_dialog import PlanDialog
from console.session import Runtime
from console.text.safe import clean
from patterns import DeadLetter, PatternError


class ReplayScreen(ConsoleScreen):
    """A screen that can replay dead letters."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a read-only session the keys that change something do not exist, and help does not name them."""
        if action == "replay" and not self.runtime.guard.allowed:
            return False
        return super().check_action(action, parameters)

    def replay_letters(self, letters: Iterable[DeadLetter], text: str, *, hidden: int = 0) -> None:
        """Plan a replay of exactly these letters and ask; the planning runs in a worker, the screen stays live.

        Args:
            letters: What was on the screen.
            text: How they were chosen, in words.
            hidden: How many of them a filter or fold hides at the moment.
        """
        chosen, runtime = tuple(letters), self.runtime
        if not runtime.guard.allowed:
            self.app.notify(clean(runtime.guard.reason), title="replay", severity="warning", markup=False)
        elif runtime.busy is not None:
            text = f"job {runtime.busy.id} is still running: wait for its end"
            self.app.notify(text, title="replay", severity="warning", markup=False)
        elif not runtime.fleet.nc.is_connected:
            self.app.notify(
                "not connected: nothing can be planned now", title="replay", severity="warning", markup=False
            )
        elif not chosen:
            self.app.notify("no dead letters here", title="replay", markup=False)
        else:
            self.run_worker(
                plan_and_ask(self.app, runtime, chosen, text, hidden),
                group="plan",
                exclusive=True,
                exit_on_error=False,
                description="plan a replay",
            )


async def plan_and_ask(
    app: App[Any], runtime: Runtime, letters: tuple[DeadLetter, ...], text: str, hidden: int
) -> None:
    """Plan, show the plan, and run it if it is confirmed."""
    settings, asked_on = runtime.session.settings, app.screen
    try:
        plan = await plan_replay(
            runtime.fleet,
            freeze(letters, text),
            rate=settings.replay_rate,
            policy=policy_of(settings),
            prod=runtime.session.prod,
        )
    except (OperationError, FilterError, PatternError, nats.errors.Error, OSError) as error:
        app.notify(clean(str(error)), title="replay", severity="error", markup=False)
        return
    if app.screen is not asked_on:
        # A dialog that opens late, over another screen, would take a key that was meant for that screen.
        app.notify("the plan is ready: press R again", title="replay", markup=False)
        return
    if not await app.push_screen_wait(PlanDialog(plan, hidden=hidden)):
        return
    try:
        _, task = runtime.start(plan, ended=lambda job: tell(app, job))
    except OperationError as error:
        app.notify(clean(str(error)), title="replay", severity="warning", markup=False)
        return
    # The job is the runtime's: it goes on, and is told of, if this worker is cancelled with its screen.
    await asyncio.shield(task)


def tell(app: App[Any], job: Job) -> None:
    """Say what became of a job."""
    done, failed = job.count("done", "duplicate"), job.count("failed", "in doubt", "not started")
    parts = [f"{done} replayed"]
    if gone := job.count("skipped"):
        parts.append(f"{gone} gone meanwhile")
    if failed:
        first = next(result for result in job.results if result.outcome in ("failed", "in doubt", "not started"))
        parts.append(f"{failed} not: {first.outcome}, {first.detail}")
    app.notify(
        ", ".join(parts), title=f"job {job.id}", severity="error" if failed else "information", markup=False, timeout=6
    )
