"""The way every change takes on the screen: plan, dialog, job, result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any, ClassVar

import nats.errors
from textual.app import App

from console.filters import FilterError
from console.messages import Place
from console.operations.canary import Canary
from console.operations.edits import Edit
from console.operations.errors import OperationError, UsageError
from console.operations.items import TROUBLE
from console.operations.job import Job
from console.operations.plan import PAST, Plan
from console.operations.plan_letters import Sending, plan_discard, plan_replay, policy_of
from console.operations.plan_streams import plan_pause, plan_purge, plan_rescue, plan_restore
from console.operations.resuming import last_undoable
from console.operations.selection import Choice, freeze
from console.screens.base import ConsoleScreen
from console.screens.plan_dialog import HELD, PlanDialog
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from patterns import DeadLetter, PatternError

PAUSE_S = 600.0
"""Seconds that a pause from the screen lasts, unless it is ended before: one that is forgotten ends."""

Planner = Callable[[], Awaitable[Plan]]


class OperatingScreen(ConsoleScreen):
    """A screen from which things are changed."""

    CHANGES: ClassVar[frozenset[str]] = frozenset(
        {
            "replay",
            "move",
            "edit",
            "canary",
            "discard",
            "purge",
            "rescue",
            "undo",
            "pause",
            "cancel",
            "faster",
            "slower",
            "resume",
            "answer",
        }
    )
    """Actions that change something on the server."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a read-only session the keys that change something do not exist, and help does not name them."""
        if action in self.CHANGES and not self.runtime.guard.allowed:
            return False
        return super().check_action(action, parameters)

    def propose(
        self,
        what: str,
        planner: Planner,
        *,
        stream: str,
        hidden: int = 0,
        again: Callable[[], None] | None = None,
        confirmed: Callable[[], None] | None = None,
    ) -> None:
        """Plan something and ask; the planning runs in a worker, the screen stays live.

        Args:
            what: The verb, for notices.
            planner: Makes the plan.
            stream: The stream it takes messages from; empty if it takes none.
            hidden: How many of its items a filter or fold hides at the moment.
            again: Asks once more for what was typed and cannot be used.
            confirmed: Called when the job has been begun.
        """
        if self.may_propose(what, stream):
            self.run_worker(
                plan_and_ask(self.app, self.runtime, what, planner, hidden, again, confirmed),
                group="plan",
                exclusive=True,
                exit_on_error=False,
                description=f"plan a {what}",
            )

    def may_propose(self, what: str, stream: str) -> bool:
        """Whether something can be planned now; says why not.

        Args:
            what: The verb, for the notice.
            stream: The stream it takes messages from; empty if it takes none.
        """
        runtime = self.runtime
        busy = runtime.working_on(stream) if stream else None
        if not runtime.guard.allowed:
            text = clean(runtime.guard.reason)
        elif busy is not None and busy.asks:
            text = f"job {busy.id} works on {clean(stream)} and waits for your answer to its canary: C"
        elif busy is not None:
            text = f"job {busy.id} still works on {clean(stream)}: wait for its end, or see screen 6"
        elif not runtime.fleet.nc.is_connected:
            text = "not connected: nothing can be planned now"
        else:
            return True
        self.app.notify(text, title=what, severity="warning", markup=False)
        return False

    # -- dead letters

    def may_send(self, what: str, letters: Collection[object]) -> bool:
        """Whether there are letters and they can be sent now; says why not."""
        if not letters:
            self._nothing(what, "no dead letters here")
            return False
        return self.may_propose(what, self.runtime.fleet.dead_letters.stream)

    def replay_letters(
        self,
        letters: Iterable[DeadLetter],
        text: str,
        *,
        hidden: int = 0,
        to: str | None = None,
        edit: Edit | None = None,
        canary: Canary | None = None,
        again: Callable[[], None] | None = None,
        confirmed: Callable[[], None] | None = None,
    ) -> None:
        """Plan a replay of exactly these letters, or their move to one subject, and ask.

        Args:
            letters: What was on the screen.
            text: How they were chosen, in words.
            hidden: How many of them a filter or fold hides at the moment.
            to: Where they go instead of where they came from.
            edit: What is changed in each of them.
            canary: A few of them first.
            again: Asks once more if nothing can be sent there.
            confirmed: Called when the job has been begun.
        """
        chosen, runtime = freeze(letters, text), self.runtime
        what = (
            "move" if to is not None else "edit" if edit is not None else "canary" if canary is not None else "replay"
        )
        if not self.may_send(what, chosen.seqs):
            return
        settings = runtime.session.settings
        sending = Sending(
            rate=settings.replay_rate, to=to, edit=edit, canary=canary, stop_ratio=settings.replay_stop_ratio
        )
        self.propose(
            what,
            lambda: plan_replay(runtime.fleet, chosen, sending, policy=policy_of(settings), prod=runtime.session.prod),
            stream=runtime.fleet.dead_letters.stream,
            hidden=hidden,
            again=again,
            confirmed=confirmed,
        )

    def discard_letters(self, choice: Choice, *, purge: bool = False, hidden: int = 0) -> None:
        """Plan to remove letters and ask."""
        session, fleet = self.runtime.session, self.runtime.fleet
        self.propose(
            "purge" if purge else "discard",
            lambda: plan_discard(fleet, choice, spill=session.spill, purge=purge, prod=session.prod),
            stream=fleet.dead_letters.stream,
            hidden=hidden,
        )

    def rescue_stranded(self) -> None:
        """Plan to move every stranded message to the dead letters and ask."""
        session, fleet = self.runtime.session, self.runtime.fleet
        self.propose("rescue", lambda: plan_rescue(fleet, prod=session.prod), stream=fleet.dead_letters.stream)

    # -- inboxes, queues, events

    def purge_messages(self, place: Place, choice: Choice, *, chosen: bool = False, hidden: int = 0) -> None:
        """Plan to remove messages of an inbox, a queue or the events and ask."""
        session, fleet = self.runtime.session, self.runtime.fleet
        self.propose(
            "discard" if chosen else "purge",
            lambda: plan_purge(fleet, place, choice, spill=session.spill, chosen=chosen, prod=session.prod),
            stream=place.stream,
            hidden=hidden,
        )

    def pause_place(self, place: Place) -> None:
        """Plan to pause an inbox or a queue, or to resume a paused one, and ask; which of them, the server says."""
        session, fleet = self.runtime.session, self.runtime.fleet

        async def planned() -> Plan:
            info = await fleet.jetstream.consumer_info(place.stream, place.durable or "")
            paused = info is not None and bool(info.get("paused"))
            return await plan_pause(fleet, place, 0.0 if paused else PAUSE_S, prod=session.prod)

        self.propose("pause", planned, stream="")

    # -- undo

    def action_undo(self) -> None:
        """Put back what the last discard or purge removed."""
        session, fleet = self.runtime.session, self.runtime.fleet

        async def planned() -> Plan:
            record = await last_undoable(fleet, session.ledger)
            return await plan_restore(fleet, Path(record.spill or ""), ledger=session.ledger, prod=session.prod)

        self.propose("undo", planned, stream="")

    def restore_file(self, path: Path) -> None:
        """Plan to put back the messages of a spill file and ask."""
        session, fleet = self.runtime.session, self.runtime.fleet

        async def planned() -> Plan:
            return await plan_restore(fleet, path, ledger=session.ledger, prod=session.prod)

        self.propose("restore", planned, stream="")

    def _nothing(self, what: str, text: str) -> None:
        if self.runtime.guard.allowed:
            self.app.notify(text, title=what, markup=False)
        else:
            self.app.notify(clean(self.runtime.guard.reason), title=what, severity="warning", markup=False)


async def plan_and_ask(
    app: App[Any],
    runtime: Runtime,
    what: str,
    planner: Planner,
    hidden: int,
    again: Callable[[], None] | None = None,
    confirmed: Callable[[], None] | None = None,
) -> None:
    """Plan, show the plan, and run it if it is confirmed."""
    asked_on = app.screen
    try:
        plan = await planner()
        held = await runtime.held_by_another(plan.identity)
    except (OperationError, FilterError, PatternError, nats.errors.Error, OSError) as error:
        text = str(error).removeprefix("--to ") if isinstance(error, UsageError) else str(error)
        app.notify(clean(text), title=what, severity="error", markup=False)
        if isinstance(error, UsageError) and again is not None and app.screen is asked_on:
            again()
        return
    if held:
        text = f"another agent-console works on stream {clean(plan.stream)}: wait for its end"
        app.notify(text, title=what, severity="warning", markup=False)
        return
    if app.screen is not asked_on:
        # A dialog that opens late, over another screen, would take a key that was meant for that screen.
        app.notify("the plan is ready: ask once more", title=what, markup=False)
        return
    said = await app.push_screen_wait(PlanDialog(plan, hidden=hidden))
    if said is None:
        return
    if await runtime.held_by_another(plan.identity):
        text = f"another agent-console has begun to work on stream {clean(plan.stream)}: nothing was sent"
        app.notify(text, title=what, severity="warning", markup=False)
        return
    try:
        _, task = runtime.start(said, ended=lambda job: tell(app, job), asked=lambda job: tell_canary(app, job))
    except OperationError as error:
        app.notify(clean(str(error)), title=what, severity="warning", markup=False)
        return
    if confirmed is not None:
        confirmed()
    # The job is the runtime's: it goes on, and is told of, if this worker is cancelled with its screen.
    await asyncio.shield(task)


def tell(app: App[Any], job: Job) -> None:
    """Say what became of a job."""
    trouble = job.count(*TROUBLE) or job.state == "failed"
    app.notify(
        _became(job), title=f"job {job.id}", severity="error" if trouble else "information", markup=False, timeout=6
    )


def tell_canary(app: App[Any], job: Job) -> None:
    """Say that a job has watched its canary and waits."""
    outcome = job.canary
    if outcome is not None:
        text = f"canary: {clean(outcome.text)}. C on screen 3, or P on screen 6, asks how it goes on"
        severity: Any = "information" if outcome.passed else "warning"
        app.notify(text, title=f"job {job.id}", severity=severity, markup=False, timeout=20)


def _became(job: Job) -> str:
    done, trouble = job.count("done", "duplicate"), job.count(*TROUBLE)
    past = PAST.get(job.action, job.action)
    if job.state == "failed" and not job.processed and not job.recorded:
        return clean(f"not begun: {job.error}")
    if job.action in HELD and done:
        seconds = job.record.spec.get("seconds")
        until = f" for {units.age(float(seconds))}, P resumes" if seconds else ""
        return f"{clean(job.noun)} {past}{until}"
    parts = [f"{units.count(done)} {past}"]
    if job.redied:
        parts.append(f"{units.count(job.redied)} died again")
    if gone := job.count("skipped"):
        parts.append(f"{units.count(gone)} gone meanwhile")
    if trouble:
        first = job.troubles[0] if job.troubles else None
        why = job.error or (f"{first.outcome}, {first.detail}" if first is not None else job.state)
        parts.append(f"{units.count(trouble)} not: {clean(why)}")
    if job.state in ("failed", "interrupted") and job.planned > job.processed and job.recorded:
        parts.append("screen 6, P goes on")
    if job.spill is not None and job.guard.allowed:
        parts.append("U puts them back")
    return ", ".join(parts)
