"""What the keys do to a job, the same in the list of jobs and in the list of its items; and what is told at the start."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar, Final

import nats.errors
from textual.app import App
from textual.binding import Binding, BindingType

from console.operations import resuming
from console.operations.job import Job
from console.operations.ledger import JobLedger, JobRecord
from console.operations.places import Stream, require_home
from console.screens.canary_dialog import CanaryDialog, answer
from console.screens.job_book import UNREADABLE
from console.screens.job_rows import JobView, pace
from console.screens.operate import OperatingScreen, tell, tell_canary
from console.screens.quit_dialog import ConfirmDialog
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from patterns import PatternError

STEPS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Rates that `+` and `-` go through; only a flag makes a job go as fast as it can."""
AGAIN: Final = 3.0
"""Seconds after which the same is said once more."""
UNDOABLE: Final = (*UNREADABLE, PatternError, nats.errors.Error)
"""What keeps a job from going on, or an answer from being taken."""


def step(rate: float | None, *, up: bool) -> float | None:
    """The next rate in one direction; at the end of the steps the same."""
    if up:
        return None if rate is None else next((each for each in STEPS if each > rate), rate)
    if rate is None:
        return STEPS[-1]
    return next((each for each in reversed(STEPS) if each < rate), rate)


class JobScreen(OperatingScreen):
    """A screen with a job that keys act on; subclasses give `current()` and `look_soon()`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("P", "pause", "pause/go on", id="jobs.pause"),
        Binding("plus,equals_sign", "faster", "rate", key_display="+/-", id="jobs.faster"),
        Binding("minus", "slower", "lower rate", key_display="-", show=False, id="jobs.slower"),
        Binding("X", "cancel", "cancel", id="jobs.cancel"),
        Binding("U", "undo", "undo", show=False, id="jobs.undo"),
    ]

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._said: tuple[str, str, float] = ("", "", 0.0)

    def current(self) -> JobView | None:
        """The job that keys act on."""
        return None

    def look_soon(self) -> None:
        """Read the ledger at the next tick."""

    def live(self) -> Job | None:
        """The job that keys act on, if this session works on it."""
        view = self.current()
        found = next((job for job in self.runtime.jobs if view is not None and job.id == view.id), None)
        return found if found is not None and found.running else None

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell one line about the job; a key that is held down is answered once."""
        view = self.current()
        title = f"job {clean(view.id, limit=20)}" if view is not None else "job"
        before, now = self._said, time.monotonic()
        self._said = (title, text, now)
        if before[:2] != (title, text) or now - before[2] > AGAIN:
            self.app.notify(clean(text), title=title, severity="warning" if bad else "information", markup=False)

    def may(self) -> bool:
        """Whether changes are allowed; says why not."""
        if not self.runtime.guard.allowed:
            self.say(self.runtime.guard.reason, bad=True)
        return self.runtime.guard.allowed

    # -- keys

    def action_pause(self) -> None:
        """Pause a running job, let a paused one go on, resume one that broke off."""
        job, view = self.live(), self.current()
        if view is None or not self.may():
            return
        if job is None:
            self.run_worker(
                self._resume(view.id), group="job", exclusive=True, exit_on_error=False, description="resume a job"
            )
        elif job.cancelled.is_set():
            self.say("it was cancelled, and stops after the item in work")
        elif job.asks:
            self.app.push_screen(CanaryDialog(job, prod=self.runtime.session.prod), lambda said: answer(job, said))
        else:
            self._turn(job.go_on if job.state == "paused" else job.pause)

    def action_cancel(self) -> None:
        """Stop after the item in work, for good."""
        job, view = self.live(), self.current()
        if view is None or not self.may():
            return
        if job is None:
            self.say(f"it is {view.state}: only what runs here can be cancelled")
        else:
            job.cancel()
            self.repaint()

    def action_faster(self) -> None:
        """The next higher rate."""
        self._pace(up=True)

    def action_slower(self) -> None:
        """The next lower rate."""
        self._pace(up=False)

    def _pace(self, *, up: bool) -> None:
        job, view = self.live(), self.current()
        if view is None or not self.may():
            return
        if job is None:
            self.say(f"it is {view.state}: only what runs here has a rate to change")
            return
        rate = step(job.rate, up=up)
        if rate != job.rate:
            self._turn(lambda: job.set_rate(rate))

    def _turn(self, change: Any) -> None:
        try:
            change()
        except UNREADABLE as error:
            # It holds all the same: only the record of it is missing.
            self.say(str(error), bad=True)
        self.repaint()

    # -- going on

    async def _resume(self, job_id: str) -> None:
        session, runtime, app, asked_on = self.runtime.session, self.runtime, self.app, self.app.screen
        try:
            record, left, refusal = await asyncio.to_thread(_what_is_left, session.ledger, job_id)
        except UNREADABLE as error:
            self.say(str(error), bad=True)
            return
        busy = runtime.working_on(record.stream)
        if not refusal and busy is not None:
            refusal = f"job {busy.id} still works on {record.stream}: wait for its end"
        if not refusal and not runtime.fleet.nc.is_connected:
            refusal = "not connected: it cannot be resumed now"
        if not refusal:
            try:
                await require_home(runtime.fleet, record)
            except UNDOABLE as error:
                refusal = str(error)
        if refusal:
            self.say(refusal, bad=True)
            return
        if app.screen is not asked_on:
            # A dialog that opens late, over another screen, would take a key that was meant for that screen.
            return
        text = (
            f"Go on with the {record.action} of {record.selection or record.stream}: {units.count(left)} of "
            f"{units.count(record.planned)} are left, at {_at(record.rate)}.\n\nWhat was begun when it broke off is found "
            "out first; nothing is sent twice."
        )
        if verdict := record.spec.get("canary_verdict"):
            text += f"\n\nIts canary: {verdict}."
        if record.error:
            text += f"\n\nIt stopped: {record.error}."
        typed = str(left) if session.prod else ""
        if not await app.push_screen_wait(
            ConfirmDialog(f"resume job {record.id}", text, f"Resume {units.count(left)}", typed=typed)
        ):
            return
        try:
            job = await resuming.resume(runtime.fleet, session.ledger, record.id, runtime.guard, audit=session.audit)
            runtime.run(job, ended=lambda ended: tell(app, ended), asked=lambda waiting: tell_canary(app, waiting))
        except UNDOABLE as error:
            app.notify(clean(str(error)), title=f"job {record.id}", severity="error", markup=False)
        self.look_soon()


def _at(rate: float | None) -> str:
    return "full speed" if rate is None else f"{pace(rate)} a second"


def _what_is_left(ledger: JobLedger, job_id: str) -> tuple[JobRecord, int, str]:
    """A job, how many of its items are left, and why it cannot be resumed; runs in a thread.

    Raises:
        OperationError: There is none.
    """
    record = resuming.known(ledger, job_id)
    counts = ledger.counts(record.id)
    left = counts.get("waiting", 0) + counts.get("sending", 0)
    if resuming.resumable(ledger, record):
        return record, left, ""
    if record.state in ("running", "paused"):
        return record, left, f"it is {record.state} in another agent-console"
    if given_up := counts.get("not started", 0):
        return record, left, f"it was cancelled for good: {units.count(given_up)} were left where they are"
    if doubt := counts.get("in doubt", 0):
        return record, left, f"nothing is left of it but {units.count(doubt)} in doubt: enter shows them"
    return record, left, f"it is {record.state}: nothing is left of it"


# -- what is told at the start


async def tell_interrupted(app: App[Any], runtime: Runtime) -> None:
    """Say once which jobs of this server were interrupted and can be resumed."""
    try:
        broken = await asyncio.to_thread(_interrupted, runtime.session.ledger)
        identities: dict[str, str] = {}
        here: list[tuple[JobRecord, int]] = []
        for record, processed in broken:
            if record.stream not in identities:
                stream = await Stream.of(runtime.fleet, record.stream)
                identities[record.stream] = stream.identity if stream is not None else ""
            if identities[record.stream] == record.identity:
                here.append((record, processed))
    except UNDOABLE:
        # Screen 6 says what is wrong; a start that cannot look for old jobs is still a start.
        return
    if not here:
        return
    record, processed = here[0]
    more = f"; so {'was' if len(here) == 2 else 'were'} {len(here) - 1} more" if len(here) > 1 else ""
    text = (
        f"job {record.id} ({record.action}, {units.count(processed)} of {units.count(record.planned)}) "
        f"was interrupted{more}: screen 6, P goes on"
    )
    app.notify(clean(text), title="interrupted", severity="warning", markup=False, timeout=12)


def _interrupted(ledger: JobLedger) -> list[tuple[JobRecord, int]]:
    found = []
    for record in ledger.jobs(limit=200):
        if record.state == "interrupted" and resuming.resumable(ledger, record):
            counts = ledger.counts(record.id)
            found.append((record, sum(counts.values()) - counts.get("waiting", 0) - counts.get("sending", 0)))
    return found
