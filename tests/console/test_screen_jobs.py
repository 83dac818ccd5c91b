"""The jobs screen on a real fleet: what it shows, what its keys do to a job, and what is answered for."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from console.operations.audit import Audit
from console.operations.guard import WriteGuard
from console.operations.items import Item, ItemResult
from console.operations.job import Job
from console.operations.ledger import JobLedger, JobRecord
from console.operations.places import Stream
from console.operations.selection import choose
from console.screens import job_book
from console.screens.fleet import FleetScreen
from console.screens.inspect import InspectPane
from console.screens.job_book import ItemsLook, JobBook, Wanted, read_items
from console.screens.job_card import card_text
from console.screens.job_items import ItemsScreen, consequence
from console.screens.job_rows import JobView, bar, entry_of, percent
from console.screens.job_verbs import STEPS, step
from console.screens.jobs import JobsScreen
from console.screens.messages import MessagesScreen
from console.screens.quit_dialog import ConfirmDialog
from console.settings import Settings
from console.widgets.row_table import RowTable
from patterns import Fleet
from tests.support import screens
from tests.support.fleets import connected
from tests.support.letters import forge, forge_many
from tests.support.plans import plan_replay
from tests.support.screens import Desk

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b"
UNSAFE = set("\x1b\x07\u202e\u200b\x9b")
WRITE = WriteGuard(True)
COLOURS = {"bright": "bold", "dim": "dim", "bad": "red", "accent": "blue"}


def desk(fleet: Fleet, *, rate: float = 20.0, **options: Any) -> AbstractAsyncContextManager[Desk]:
    """A console whose jobs begin at a rate."""
    return screens.desk(fleet, settings=Settings(refresh=0.2, replay_rate=rate), **options)


async def tells(console: Desk, *words: str) -> None:
    """Wait for a notice that holds all of these; on the screen its lines are broken."""
    await console.holds(lambda: [each for each in notices(console) if all(word in each for word in words)])


def notices(console: Desk) -> list[str]:
    return [each.message for each in console.app._notifications]


async def begun(console: Desk, fleet: Fleet, *, rate: float | None = 1.0, **options) -> Job:
    """A replay of all letters, under way."""
    plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=rate, **options)
    job, _ = console.runtime.start(plan)
    return job


async def broken_off(fleet: Fleet, ledger: JobLedger, count: int = 6, *, rate: float = 50.0) -> Job:
    """A replay whose program ended after the first items."""
    plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=rate)
    assert plan.count == count
    job = Job.of(fleet, plan, WRITE, ledger=ledger, context="demo")
    noted = job.note

    def leave(n: int, result: ItemResult) -> None:
        noted(n, result)
        if job.processed == 2:
            job.leave()

    job.note = leave  # type: ignore[method-assign]
    await job.run()
    assert (job.state, job.processed) == ("interrupted", 2)
    return job


async def doubtful(fleet: Fleet, ledger: JobLedger, count: int = 3) -> tuple[Job, list[int]]:
    """A replay that never began and whose items are all in doubt."""
    seqs = await forge_many(fleet, count)
    plan = await plan_replay(fleet, choose("dead letters", everything=True), rate=100.0)
    job = Job.of(fleet, plan, WRITE, ledger=ledger)
    stamped = replace(job.record, state="failed", started=time.time(), ended=time.time(), error="the server went away")
    ledger.add(stamped, plan.items)
    ledger.settle(job.id, [(n, ItemResult(seq, "in doubt", "sent, not confirmed")) for n, seq in enumerate(seqs)])
    return job, seqs


async def left(fleet: Fleet) -> int:
    return sum((await fleet.dead_letters.count()).values())


def record(number: int, **changes) -> JobRecord:
    fields = {"action": "replay", "stream": "DLQ", "identity": "DLQ x", "state": "completed", "planned": 4}
    return JobRecord(**{"id": f"j{number}", "created": float(number), **fields, **changes})


class TestList:
    async def test_says_what_to_do_where_nothing_was_begun(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.press("6")
            await console.sees("no job was begun from here yet", "screen 3 and press R", "6 Jobs")
            await console.press("P", "plus", "minus", "X", "enter", "U")
            await tells(console, "nothing was removed from here")

    async def test_a_running_job_is_followed_to_its_end(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, rate=5.0) as console:
            await forge_many(fleet, 40)
            await console.press("3")
            await console.sees("m-40")
            await console.press("R")
            await console.sees("replay 40 dead letters")
            await console.press("y", "6")
            text = await console.sees("jobs  1  1 under way", "running", "replay", "/40", "░", "5/")
            assert "m-40" not in text
            job = console.runtime.jobs[0]
            text = await console.sees(f"job {job.id}", "chosen      inbox.ceo", "/s actual", "left", "operator")
            await console.holds(lambda: job.processed >= 3)
            await console.sees("█", "░", " left")
            job.set_rate(50.0)
            text = await console.sees("completed", "100%", "40/40", "40 of 40 replayed", "ended", "took")
            assert "under way" not in text
            assert "died again  0 of them since it started" in text
            for _ in range(15):
                await console.pilot.pause(0.1)
            await console.sees("completed", "40 of 40 replayed")

    async def test_the_newest_first_those_under_way_on_top_and_the_live_one_wins(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await forge_many(fleet, 30)
            ledger.add(record(1, state="cancelled"), [])
            ledger.add(record(2, state="failed", error="disk full"), [])
            job = await begun(console, fleet)
            ledger.add(record(3, created=time.time() + 60, action="purge", selection="all of it"), [])
            await console.press("6")
            await console.sees("jobs  4  1 under way")
            table = console.app.screen.query_one("#jobs-table", RowTable)
            assert [row.key for row in table.rows] == [job.id, "j3", "j2", "j1"]
            assert [row.cells[0].text for row in table.rows] == ["running", "completed", "failed", "cancelled"]
            assert table.cursor_key == job.id
            await console.press("down", "down")
            await console.sees("job j2", "disk full")
            await console.press("slash", *"all of it", "enter")
            text = await console.sees("jobs  1 of 4  /all of it", "job j3")
            assert job.id not in text
            await console.press("escape", "slash", *"zz", "enter")
            await console.sees("no job matches the filter")

    async def test_the_cursor_goes_to_what_was_begun_since_and_else_stays(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await forge_many(fleet, 30)
            ledger.add(record(1), [])
            ledger.add(record(2), [])
            await console.press("6")
            await console.sees("jobs  2", "job j2")
            await console.press("down")
            await console.sees("job j1")
            ledger.add(record(3), [])
            await console.sees("jobs  3", "job j1")
            await console.press("1")
            job = await begun(console, fleet)
            await console.press("6")
            await console.sees(f"job {job.id}", "running")
            await console.press("down")
            await console.sees("job j3")
            done = job.processed
            await console.holds(lambda: job.processed > done)
            await console.sees("job j3")
            await console.press(*["plus"] * 4)
            assert len(notices(console)) == 1, "said once"

    async def test_a_ledger_that_cannot_be_read_costs_its_jobs_only(self, server, monkeypatch):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await forge_many(fleet, 9)
            ledger.add(record(1, state="cancelled"), [])
            job = await begun(console, fleet)
            await console.press("6")
            await console.sees("jobs  2", "cancelled")

            def broken(**_):
                raise sqlite3.OperationalError("disk I/O error")

            monkeypatch.setattr(ledger, "jobs", broken)
            await console.sees("the job ledger cannot be read: disk I/O error", job.id, "cancelled")
            monkeypatch.undo()
            await console.misses("cannot be read")

    async def test_the_ledger_is_read_in_a_thread_and_only_while_shown(self, server, monkeypatch):
        threads, whole = [], JobBook.look

        def look(self, *args):
            threads.append(threading.current_thread())
            return whole(self, *args)

        monkeypatch.setattr(JobBook, "look", look)
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.pilot.pause(1.2)
            assert not threads
            await console.press("6")
            await console.holds(lambda: len(threads) > 1)
            assert threading.main_thread() not in threads
            await console.press("1")
            await console.sees("ceo")
            before = len(threads)
            await console.pilot.pause(1.5)
            assert len(threads) <= before + 1

    async def test_letters_that_died_again_are_counted(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 3)
            job = await begun(console, fleet, rate=None)
            await console.holds(lambda: job.state == "completed")
            await console.press("6")
            await console.sees("died again  0 of them")
            for number, origin in enumerate([job.id, job.id, "another"]):
                await forge(fleet, f"inbox.ceo.{50 + number}-a", Replays="1", Replay_Job=origin)
            await console.sees("died again  2 of them since it started")

    async def test_jobs_of_another_server_have_no_letters_here(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await forge_many(fleet, 1)
            ledger.add(record(1, started=1.0, identity="DLQ of elsewhere"), [Item(7, 1, "inbox.ceo")])
            await forge(fleet, "inbox.ceo.50-a", Replays="1", Replay_Job="j1")
            await console.press("6")
            await console.sees("job j1", "died again  –")

    async def test_hostile_text_is_inert(self, server):
        ledger = JobLedger()
        names = ("selection", "reason", "actor", "context", "error", "action", "mode", "spill", "stream", "id")
        ledger.add(record(1, **dict.fromkeys(names, HOSTILE), skipped={HOSTILE: 2}), [Item(7, 1, HOSTILE, HOSTILE)])
        ledger.settle(HOSTILE, [(0, ItemResult(7, "in doubt", HOSTILE))])
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await console.press("6")
            text = await console.sees("jobs  1", "[@click=app.leave]x[/x]", "last: seq 7 in doubt")
            assert not set(text) & UNSAFE
            await console.press("P")
            await tells(console, "nothing is left of it but 1 in doubt")
            assert not set(console.text()) & UNSAFE
            await console.press("enter")
            text = await console.sees("1 item", "in doubt", "[@click=app.leave]")
            assert not set(text) & UNSAFE
            for keys in (["enter"], ["R"]):
                await console.press(*keys)
                await console.holds(lambda: console.app.screen.is_modal)
                await console.pilot.pause()
                assert not set(console.text()) & UNSAFE
                await console.press("escape")
            await console.press("slash", *"[/x]")
            await console.sees("/[/x]")
            assert console.app.is_running

    @pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 15)])
    async def test_it_fits(self, server, size):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, size=size) as console:
            await forge_many(fleet, 90)
            job = await begun(console, fleet, rate=2.0)
            await console.press("6")
            text = await console.sees("STATE", "running", "PROGRESS", "/90", "6 Jobs" if size[0] >= 80 else "Jobs")
            assert all(len(line) <= size[0] for line in text.splitlines())
            wanted = ["STATE", "ACTION", "PROGRESS", "DONE", "FAILED", "DOUBT", "RATE/s"] if size[0] >= 80 else []
            wanted += ["ETA", "STARTED", "WHO", "SELECTED"] if size[0] >= 120 else []
            assert [title for title in wanted if title not in text] == []
            assert f"job {job.id}" in text
            assert "chosen" in text
            if size[0] >= 80:
                await console.sees("P pause/go on", "+/- rate", "X cancel")
            await console.press("enter")
            text = await console.sees("SEQ", "OUTCOME", "90 items")
            assert all(len(line) <= size[0] for line in text.splitlines())
            assert [hint for hint in ("R again", "A arrived", "L leave") if hint in text] == [], "nothing is in doubt"


class TestKeys:
    async def test_pause_and_go_on(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 90)
            job = await begun(console, fleet, rate=10.0)
            await console.press("6")
            await console.sees("running")
            await console.press("P")
            await console.sees("paused", "P goes on")
            assert job.state == "paused"
            await console.pilot.pause(0.3)
            done = job.processed
            await console.pilot.pause(0.5)
            assert job.processed == done
            assert console.runtime.session.ledger.job(job.id).state == "paused"
            await console.press("P")
            await console.holds(lambda: job.processed > done)
            assert job.state == "running"

    async def test_the_rate_goes_in_steps_and_never_out_of_range(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 60)
            job = await begun(console, fleet, rate=2.0)
            await console.press("6")
            await console.sees("running")
            job.pause()
            for key, rate in (("plus", 5.0), ("equals_sign", 10.0), ("minus", 5.0), ("minus", 2.0), ("minus", 1.0)):
                await console.press(key)
                assert job.rate == rate
            await console.press("minus", "minus")
            assert job.rate == 1.0
            await console.press(*["plus"] * 8)
            assert job.rate == 500.0
            await console.sees("500/s")
            await console.press("plus", "plus")
            assert job.rate == 500.0, "without a limit only by a flag"
            await console.press("minus")
            assert job.rate == 200.0
            assert "out of range" not in console.text()

    async def test_cancel_ends_within_one_item(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 5)
            job = await begun(console, fleet, rate=1.0)
            await console.press("6")
            await console.holds(lambda: job.processed == 1)
            began = time.monotonic()
            await console.press("X")
            await console.holds(lambda: not job.running)
            assert time.monotonic() - began < 5
            assert job.processed <= 2
            await console.sees("cancelled", f"{job.processed} of 5 replayed, {5 - job.processed} left")
            assert await left(fleet) == 5 - job.processed
            await console.press("X")
            await tells(console, "it is cancelled: only what runs here can be cancelled")
            await console.press("P")
            await tells(console, "it was cancelled for good")
            await console.press("plus")
            await tells(console, "only what runs here has a rate to change")

    async def test_a_paused_job_can_be_cancelled(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 5)
            job = await begun(console, fleet, rate=1.0)
            await console.press("6")
            await console.sees("running")
            await console.press("P")
            await console.sees("paused")
            await console.press("X")
            await console.holds(lambda: job.state == "cancelled")

    async def test_an_interrupted_job_is_told_at_the_start_and_resumed(self, server, tmp_path):
        ledger = JobLedger(tmp_path)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await forge_many(fleet, 6)
            job = await broken_off(fleet, ledger)
            async with desk(fleet, ledger=ledger) as console:
                await tells(console, f"job {job.id} (replay, 2 of 6) was interrupted", "screen 6, P goes on")
                await console.press("6")
                await console.sees("interrupted", "2/6", "P resumes it", "2 of 6 replayed, 4 left")
                await console.press("P")
                await console.sees(f"resume job {job.id}", "4 of 6 are left, at 50 a second", "y confirms", "Resume 4")
                assert console.app.focused.id == "confirm-no"
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, JobsScreen))
                assert await left(fleet) == 4, "enter is on Cancel"
                await console.press("P")
                await console.sees("Resume 4")
                await console.press("y")
                await console.sees("completed", "6 of 6 replayed")
                assert await left(fleet) == 0
                assert (await fleet.inbox("ceo").depth()).messages == 6
                assert ledger.job(job.id).state == "completed"
                await console.press("P")
                await tells(console, "it is completed: nothing is left of it")

    async def test_several_are_told_as_one_and_those_of_others_not(self, server, tmp_path):
        ledger = JobLedger(tmp_path)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await forge_many(fleet, 1)
            stream = await Stream.of(fleet, fleet.dead_letters.stream)
            for number, identity in enumerate([stream.identity, stream.identity, "DLQ of elsewhere"]):
                broken = record(number, created=time.time() + number, state="interrupted", identity=identity)
                ledger.add(replace(broken, stream=stream.name), [Item(1, 1, "inbox.ceo")])
            async with desk(fleet, ledger=ledger) as console:
                await tells(console, "job j1 (replay, 0 of 4) was interrupted; so was 1 more: screen 6")
            async with desk(fleet, ledger=ledger, write=False) as console:
                await console.press("6")
                await console.sees("jobs  3")
                assert not notices(console)

    async def test_a_job_of_another_server_is_not_resumed(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await forge_many(fleet, 1)
            ledger.add(record(1, state="interrupted"), [Item(1, 1, "inbox.ceo")])
            await console.press("6")
            await console.sees("interrupted")
            await console.press("P")
            await tells(console, "belongs to another server")
            assert isinstance(console.app.screen, JobsScreen), "nothing was asked"
            assert not console.runtime.jobs

    async def test_a_job_of_another_server_is_told_apart_and_one_of_here_comes_first(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            stream = await Stream.of(fleet, "DLQ")
            ledger.add(record(1, state="interrupted", identity=stream.identity), [Item(1, 1, "inbox.ceo")])
            ledger.add(record(2, identity=stream.identity), [Item(1, 1, "inbox.ceo")])
            ledger.add(record(3, state="interrupted", context="live"), [Item(1, 1, "inbox.ceo")])
            ledger.add(record(4, state="interrupted", context="demo"), [Item(1, 1, "inbox.ceo")])
            await console.press("6")
            table = console.app.screen.query_one("#jobs-table", RowTable)
            await console.holds(lambda: [row.key for row in table.rows] == ["j1", "j4", "j3", "j2"])
            styles = {row.key: {cell.style for cell in row.cells} for row in table.rows}
            assert styles["j3"] == styles["j4"] == {"dim"} != styles["j1"]
            table.move_cursor("j3")
            await console.sees("belongs to  another server: context live", "resumed only where it belongs")
            table.move_cursor("j4")
            await console.sees("belongs to  another server, or an earlier stream DLQ")
            table.move_cursor("j1")
            await console.sees("P resumes it")
            assert "belongs to" not in console.text()

    async def test_read_only_has_no_keys_and_still_looks(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet:
            job, _ = await doubtful(fleet, ledger)
            async with desk(fleet, ledger=ledger, write=False) as console:
                await console.press("6")
                text = await console.sees("failed", job.id)
                assert "pause/go on" not in text
                await console.press("P", "X", "plus", "minus", "U")
                await console.pilot.pause(0.2)
                assert isinstance(console.app.screen, JobsScreen)
                await console.press("enter")
                text = await console.sees("3 items", "in doubt", "not confirmed")
                assert "R again" not in text
                await console.press("R", "A", "L", "P")
                await console.pilot.pause(0.2)
                assert isinstance(console.app.screen, ItemsScreen)
                await console.press("question_mark")
                text = await console.sees("this screen", "read-only")
                assert not [word for word in ("pause", "cancel", "arrived", "again", "undo", "rate") if word in text]
                assert ledger.counts(job.id) == {"in doubt": 3}


class TestItems:
    async def test_trouble_first_filtered_opened_and_left(self, server):
        ledger = JobLedger()
        items = [Item(seq, 1_700_000_000_000_000_000, "inbox.ceo", "agents.ceo.inbox.note") for seq in range(10, 16)]
        ledger.add(record(1, planned=6), items)
        results = ["done", "duplicate", "failed", "skipped", "in doubt"]
        ledger.settle("j1", [(n, ItemResult(10 + n, each, f"detail {n}")) for n, each in enumerate(results)])
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            await console.press("6")
            await console.sees("last: seq ", "2 of 6 replayed, 1 left", "enter shows them")
            await console.press("enter")
            text = await console.sees("job j1  replay  6 items", "1 in doubt: R again, A arrived, L leave", "detail 4")
            table = console.app.screen.query_one("#items-table", RowTable)
            told = [(row.cells[0].text, row.cells[1].text) for row in table.rows]
            assert told == [
                ("14", "in doubt"), ("12", "failed"), ("15", "not started"), ("13", "skipped"), ("11", "duplicate"),
                ("10", "done"),
            ]  # fmt: skip
            assert "the job did not get to it" in text
            await console.press("slash", *"failed", "enter")
            await console.sees("1 of 6 items  /failed", "detail 2")
            await console.press("enter")
            await console.sees("job j1  seq 12", "outcome   failed", "agents.ceo.inbox.note", "2023-11-1")
            await console.press("escape")
            await console.holds(lambda: not isinstance(console.app.screen, InspectPane))
            await console.press("R")
            await tells(console, "seq 12 is failed: there is nothing to answer for")
            await console.press("escape")
            await console.sees("  6 items")
            await console.press("escape")
            await console.holds(lambda: isinstance(console.app.screen, JobsScreen))

    async def test_the_items_of_a_running_job_move(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await forge_many(fleet, 60)
            job = await begun(console, fleet, rate=2.0)
            await console.press("6")
            await console.sees("running")
            await console.press("enter")
            await console.sees("60 items", "waiting", "done", "running")
            await console.misses("R again")
            await console.press("P")
            await console.holds(lambda: job.state == "paused")
            await console.press(*["plus"] * 5)
            assert job.rate == 100.0
            await console.press("P")
            await console.sees("completed")
            await console.misses("waiting", "in work")
            await console.press("6")
            await console.sees("60 of 60 replayed")
            assert isinstance(console.app.screen, JobsScreen)

    @pytest.mark.parametrize(
        ("key", "said", "verb"),
        [
            ("R", "is sent once more when the job is resumed: if it got there after all, it is there twice", "Send"),
            ("A", "counts as replayed and its letter is removed: if it did not get there, it is lost", "Take"),
            ("L", "stays among the dead letters and counts as skipped: if it got there", "Leave"),
        ],
    )
    async def test_an_item_in_doubt_is_answered(self, server, tmp_path, key, said, verb):
        ledger = JobLedger()
        audit = Audit(tmp_path / "audit.jsonl", {"actor": "ann"})
        async with connected(server.url, agents=["ceo"]) as fleet:
            job, seqs = await doubtful(fleet, ledger, 1)
            async with desk(fleet, ledger=ledger, audit=audit) as console:
                await console.press("6")
                await console.sees("failed", job.id)
                await console.press("enter")
                await console.sees("in doubt", "sent, not confirmed")
                await console.press(key)
                await console.holds(lambda: isinstance(console.app.screen, ConfirmDialog))
                await console.pilot.pause()
                text = " ".join(line.strip(" │") for line in console.text().splitlines())
                dialog = console.app.screen.text().plain
                assert f"Seq {seqs[0]} {said}" in dialog
                assert f"{verb}" in text
                assert console.app.focused.id == "confirm-no"
                await console.press("escape")
                await console.holds(lambda: isinstance(console.app.screen, ItemsScreen))
                assert ledger.counts(job.id) == {"in doubt": 1}
                await console.press(key)
                await console.holds(lambda: isinstance(console.app.screen, ConfirmDialog))
                await console.press("y")
                state = {"R": "waiting", "A": "done", "L": "skipped"}[key]
                await console.holds(lambda: ledger.counts(job.id) == {state: 1})
                assert await left(fleet) == (0 if key == "A" else 1)
                assert '"answer' in audit.path.read_text()
                if key != "R":
                    await tells(console, "answered for 1 item")
                    await console.sees(state)
                    return
                await tells(console, "1 item will be sent again: P resumes the job")
                await console.sees("not started")
                await console.press("P")
                await console.sees("Resume 1")
                await console.press("y")
                await console.holds(lambda: ledger.counts(job.id) == {"done": 1})
                assert await left(fleet) == 0
                assert (await fleet.inbox("ceo").depth()).messages == 1

    async def test_the_marked_ones_are_answered_and_the_list_counts_them(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet:
            job, _ = await doubtful(fleet, ledger, 4)
            async with desk(fleet, ledger=ledger) as console:
                await console.press("6")
                await console.sees("in doubt    4")
                await console.press("enter")
                await console.sees("4 items")
                await console.press("ctrl+a", "space")
                await console.sees("3 marked")
                await console.press("A")
                await console.sees("Take as done 3", "3 items (seq ")
                await console.press("y")
                await tells(console, "answered for 3 items")
                await console.sees("1 in doubt: R again")
                assert ledger.counts(job.id) == {"in doubt": 1, "done": 3}
                assert await left(fleet) == 1
                assert not console.app.screen.query_one("#items-table", RowTable).marks
                await console.press("escape")
                await console.sees("in doubt    1", "3/4")

    async def test_what_was_only_begun_is_found_out_by_resuming(self, server):
        ledger = JobLedger()
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger) as console:
            ledger.add(record(1, state="interrupted", planned=1), [Item(7, 1, "inbox.ceo")])
            ledger.sending("j1", 0, "")
            await console.press("6")
            await console.sees("interrupted")
            await console.press("enter")
            await console.sees("begun when the job broke off")
            await console.press("A")
            await tells(console, "P resumes the job, and finds out")

    async def test_no_more_than_5000_are_read_and_only_when_something_changed(self, monkeypatch):
        ledger = JobLedger()
        ledger.add(record(1, planned=12_000), (Item(seq, 1, "inbox.ceo") for seq in range(1, 12_001)))
        ledger.settle("j1", [(11_999, ItemResult(12_000, "failed", "no"))])
        found = read_items(ledger, "j1", None)
        assert (len(found.items), found.items[0].item.seq, found.total) == (5000, 12_000, 12_000)
        assert read_items(ledger, "j1", found) is found
        ledger.settle("j1", [(0, ItemResult(1, "in doubt", "?"))])
        again = read_items(ledger, "j1", found)
        assert [entry.item.seq for entry in again.items[:2]] == [1, 12_000]
        assert read_items(ledger, "none", None) == ItemsLook(None, {})
        monkeypatch.setattr(ledger, "job", lambda _: (_ for _ in ()).throw(sqlite3.OperationalError("locked")))
        assert "cannot be read: locked" in read_items(ledger, "j1", found).problem


class TestScreens:
    async def test_a_digit_goes_back_from_what_was_pushed(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.app.push_screen(MessagesScreen(console.runtime, "inbox", "ceo"))
            await console.sees("inbox.ceo is empty")
            await console.press("1")
            await console.holds(lambda: isinstance(console.app.screen, FleetScreen))
            await console.app.push_screen(MessagesScreen(console.runtime, "inbox", "ceo"))
            await console.sees("inbox.ceo is empty")
            await console.press("6")
            await console.sees("no job was begun from here yet")
            await console.press("1")
            await console.holds(lambda: isinstance(console.app.screen, FleetScreen))
            await console.app.push_screen(MessagesScreen(console.runtime, "inbox", "ceo"))
            tabs = (await console.sees("inbox.ceo is empty")).splitlines()[1]
            await console.pilot.click("TabStrip", offset=(tabs.index("Jobs"), 0))
            await console.sees("no job was begun from here yet")
            assert len(console.app.screen_stack) == 1


class TestRows:
    TODAY = date(2026, 5, 4)

    def view(self, **changes) -> JobView:
        counts = changes.pop("counts", {"done": 2})
        return JobView(record(1, **changes), counts)

    def test_bar_and_percent_are_full_only_at_the_end(self):
        assert [bar(share, 4) for share in (0, 0.5, 0.999, 1, 2)] == ["░░░░", "██░░", "███▉", "████", "████"]
        assert bar(0.03125, 4) == "▏░░░"
        assert [percent(share) for share in (0, 0.005, 0.999, 1, 7)] == ["0%", "0%", "99%", "100%", "100%"]

    def test_steps(self):
        assert [step(rate, up=True) for rate in (0.3, 1, 20, 30, 200, 500, None)] == [1, 2, 50, 50, 500, 500, None]
        assert [step(rate, up=False) for rate in (1, 2, 30, 500, None)] == [1, 1, 20, 200, 500]
        assert tuple(sorted(STEPS)) == STEPS

    def test_the_card_tells_everything(self):
        view = self.view(
            selection="role:backend", planned=10, counts={"done": 2, "duplicate": 1, "skipped": 1, "failed": 1},
            skipped={"protected": 3}, rate=20.0, actor="ann@desk", context="prod", started=1000.0, ended=1100.0,
            spill="/s/x.jsonl", reason="repaired", state="failed", error="gave up", undone_by="j9",
        )  # fmt: skip
        facts = job_book.Facts("j1", ItemResult(8, "failed", "no stream"), 2)
        text = card_text(view, facts, COLOURS).plain
        for part in (
            "role:backend", "3 of 10 replayed, 5 left", "failed      1   last: seq 8 failed, no stream", "duplicates  1",
            "4   3 protected, 1 gone meanwhile", "20/s", "2 of them since", "/s/x.jsonl", "ann@desk", "prod", "took 1m40s",
            "gave up", "repaired", "put back by job j9",
        ):  # fmt: skip
            assert part in text
        assert "last: seq 8" not in card_text(view, job_book.Facts("other"), COLOURS).plain

    def test_times_of_other_days_and_impossible_ones(self):
        cells = entry_of(self.view(created=1e30), self.TODAY).row.cells
        assert cells[8].text == "–"
        assert entry_of(self.view(started=1_000_000.0), self.TODAY).row.cells[8].text == "70-01-12"

    def test_a_job_without_items_is_full(self):
        assert entry_of(self.view(planned=0, counts={}), self.TODAY).row.cells[2].text == "██████ 100%"

    @pytest.mark.parametrize(
        ("said", "words"),
        [("again", "are sent once more"), ("done", "count as replayed"), ("leave", "stay among the dead letters")],
    )
    def test_every_answer_says_what_a_wrong_one_costs(self, said, words):
        text = consequence(self.view(), list(range(1, 9)), said, letters=True)
        assert "8 items (seq 1, 2, 3, 4, 5, 6…)" in text
        assert words in text
        assert "twice" in text or "lost" in text or "doubles" in text
        assert text.count(".") == 1

    def test_the_book_counts_again_what_can_have_changed(self):
        ledger = JobLedger()
        ledger.add(record(1, planned=1), [Item(1, 1, "inbox.ceo")])
        book = JobBook(ledger)
        assert book.look(None).entries[0].view.counts == {"waiting": 1}
        ledger.settle("j1", [(0, ItemResult(1, "failed", "no"))])
        assert book.look(None).entries[0].view.counts == {"waiting": 1}, "over, and not looked at"
        look = book.look(Wanted("j1"))
        assert look.entries[0].view.counts == {"failed": 1}
        assert look.facts.trouble.detail == "no"
        ledger.close()
        assert "cannot be read" in book.look(None).problem
