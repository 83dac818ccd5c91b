"""The job ledger: what a killed process leaves behind is on record, and no two jobs work on one stream."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from console.operations.errors import OperationError
from console.operations.items import Item, ItemResult, Items
from console.operations.ledger import JobLedger, JobRecord, Note, identity_of

WHERE = identity_of("DLQ", "2026-11-23T00:00:00Z")


def record(id="j1", **changes):
    return JobRecord(id=id, action="replay", stream="DLQ", identity=WHERE, created=time.time(), planned=3, **changes)


def some(count=3):
    return [Item(seq, seq * 10, "inbox.ceo", "agents.ceo.inbox.note") for seq in range(1, count + 1)]


def test_a_job_and_its_items_outlive_the_ledger_that_wrote_them(tmp_path):
    one = JobLedger(tmp_path)
    one.add(record(spec={"to": "elsewhere"}, skipped={"replay limit": 2}, rate=None, state="completed"), some())
    one.sending("j1", 0, "server-1")
    one.settle("j1", [(1, ItemResult(2, "done", "to somewhere"))])
    one.close()
    other = JobLedger(tmp_path)
    found = other.job("j1")
    assert (found.spec, found.skipped, found.rate) == ({"to": "elsewhere"}, {"replay limit": 2}, None)
    assert [(entry.item, entry.state, entry.detail) for entry in other.items("j1")] == [
        (some()[0], "sending", "server-1"), (some()[1], "done", "to somewhere"), (some()[2], "waiting", ""),
    ]  # fmt: skip
    assert other.counts("j1") == {"sending": 1, "done": 1, "waiting": 1}
    assert [entry.n for entry in other.items("j1", "waiting", "sending", after=0)] == [2]
    assert other.job("j2") is None


def test_items_of_a_hundred_thousand_take_a_few_megabytes():
    items = Items()
    for seq in range(1, 100_001):
        items.append(Item(seq, seq, "inbox.ceo" if seq % 2 else "tasks.backend", "agents.ceo.inbox.note"))
    assert sum(sys.getsizeof(each) for each in (items._seqs, items._times, items._places)) < 3_000_000
    assert (len(items), items[99_999].seq, items[-1].seq, [each.seq for each in items[:2]]) == (
        100_000,
        100_000,
        100_000,
        [1, 2],
    )
    assert items.spread(by="source") == {"inbox.ceo": 50_000, "tasks.backend": 50_000}
    assert items.spread(by="destination") == {"agents.ceo.inbox.note": 100_000}


def test_a_job_whose_process_is_gone_is_interrupted_and_one_that_runs_is_not(tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from console.operations.items import Item\n"
        "from console.operations.ledger import JobLedger, JobRecord\n"
        "ledger = JobLedger(Path(sys.argv[1]))\n"
        "lock = ledger.hold(sys.argv[2])\n"
        "ledger.add(JobRecord(id='j1', action='replay', stream='DLQ', identity=sys.argv[2], created=time.time(),"
        " state='running'), [Item(1, 1, 'a')])\n"
        "print('holds', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), WHERE], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "holds\n"
            ledger = JobLedger(tmp_path)
            assert ledger.job("j1").state == "running"
            with pytest.raises(OperationError, match="another job works on stream DLQ"):
                ledger.hold(WHERE)
            ledger.hold(identity_of("DLQ", "another day")).release()
        finally:
            holder.kill()
    holder.wait()
    assert ledger.job("j1").state == "interrupted"
    ledger.hold(WHERE).release()


def test_two_jobs_of_one_process_do_not_share_a_stream_either(tmp_path):
    ledger = JobLedger(tmp_path)
    lock = ledger.hold(WHERE)
    with pytest.raises(OperationError):
        ledger.hold(WHERE)
    lock.release()
    lock.release()
    ledger.hold(WHERE).release()


def test_the_ledger_is_its_users_own(tmp_path):
    ledger = JobLedger(tmp_path / "state")
    ledger.hold(WHERE).release()
    for path in (tmp_path / "state").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, path


def test_old_jobs_are_forgotten_and_open_ones_kept(tmp_path):
    ledger = JobLedger(tmp_path)
    long_ago = time.time() - 91 * 86400
    ledger.add(record("old", state="completed", ended=long_ago), some())
    ledger.add(record("recent", state="completed", ended=time.time()), some())
    ledger.add(record("open", state="interrupted"), some())
    ledger.close()
    ledger = JobLedger(tmp_path)
    assert {job.id for job in ledger.jobs()} == {"recent", "open"}
    assert ledger.items("old") == []


def test_a_ledger_of_a_newer_program_and_one_that_is_none_are_refused_in_a_line(tmp_path):
    JobLedger(tmp_path).close()
    with sqlite3.connect(tmp_path / "jobs.db") as file:
        file.execute("PRAGMA user_version=99")
    file.close()
    with pytest.raises(OperationError, match="newer agent-console"):
        JobLedger(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "jobs.db").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(OperationError, match="cannot be used"):
        JobLedger(broken)


def test_a_checkpoint_folds_the_log_into_the_file(tmp_path):
    ledger = JobLedger(tmp_path)
    ledger.add(record(state="completed"), some(2000))
    before = (tmp_path / "jobs.db").stat().st_size
    ledger.checkpoint()
    assert (tmp_path / "jobs.db").stat().st_size > before


def test_a_job_that_was_killed_after_its_last_item_has_ended(tmp_path):
    ledger = JobLedger(tmp_path)
    ledger.add(record(state="running"), some(2))
    assert ledger.job("j1").state == "interrupted"
    ledger.settle("j1", [(n, ItemResult(n + 1, "done", "")) for n in range(2)])
    assert ledger.job("j1").state == "completed"


def test_a_ledger_of_an_older_version_is_brought_up_and_keeps_its_jobs(tmp_path):
    one = JobLedger(tmp_path)
    one.add(record(state="completed"), some())
    one.settle("j1", [(0, ItemResult(1, "done", "to somewhere"))])
    one.close()
    with sqlite3.connect(tmp_path / "jobs.db") as older:
        older.execute("ALTER TABLE items DROP COLUMN sent")
        older.execute("DROP TABLE notes")
        older.execute("PRAGMA user_version=1")
    older.close()
    now = JobLedger(tmp_path)
    now.settle("j1", [(1, ItemResult(2, "done", "to somewhere", "INBOX_CEO 7"))])
    assert [entry.sent for entry in now.items("j1", "done")] == ["", "INBOX_CEO 7"]
    now.write_note(WHERE, Note("cause 1", "ask billing", "ann@desk", 5.0))
    assert now.notes(WHERE) == {"cause 1": Note("cause 1", "ask billing", "ann@desk", 5.0)}
    now.close()
    JobLedger(tmp_path).close()


def test_notes_are_of_one_stream_are_replaced_and_removed(tmp_path):
    ledger, now = JobLedger(tmp_path), time.time()
    ledger.write_note(WHERE, Note("cause 1", "first", "ann", now))
    ledger.write_note(WHERE, Note("cause 1", "second", "bob", now))
    ledger.write_note("DLQ elsewhere", Note("cause 1", "other", "ann", now))
    ledger.write_note(WHERE, Note("letter 2", "forgotten", "ann", now - 366 * 86400))
    other = JobLedger(tmp_path)
    assert {about: note.text for about, note in other.notes(WHERE).items()} == {"cause 1": "second"}
    other.write_note(WHERE, Note("cause 1", "", "bob", now))
    assert other.notes(WHERE) == {}
    assert list(ledger.notes("DLQ elsewhere")) == ["cause 1"]
