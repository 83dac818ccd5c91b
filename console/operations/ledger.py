"""The job ledger: what every job is to do and how far it got, in SQLite, so that a job outlives its process.

An item is marked `sending` and that is on record before the first byte of it leaves; what a kill of the process leaves
behind is therefore one of three: not begun, begun (to be found out), or done. A lock on a file, which the kernel
releases with the process, tells a running job from one that was interrupted, and keeps two jobs off one stream.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from console.operations.errors import OperationError
from console.operations.items import Item, ItemResult, Outcome
from console.operations.locks import StreamLock, StreamLocks

JobState = Literal["planned", "running", "paused", "completed", "cancelled", "failed", "interrupted"]
OPEN: tuple[JobState, ...] = ("planned", "running", "paused", "interrupted")
"""States of a job that has not come to its end."""

ItemState = Literal["waiting", "sending"] | Outcome

KEPT_S = 90 * 86400.0
"""Jobs that ended longer ago are forgotten."""
NOTES_KEPT_S = 365 * 86400.0
"""Notes that were written longer ago are forgotten: what they are about came back within the year, or never."""

BUSY_S = 0.1
"""Seconds a call waits for another writer before it is `LedgerBusy`: an event loop may be behind it."""
SLICE = 2000
"""Items written in one transaction."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, action TEXT NOT NULL, stream TEXT NOT NULL, identity TEXT NOT NULL, context TEXT NOT NULL,
    actor TEXT NOT NULL, mode TEXT NOT NULL, selection TEXT NOT NULL, reason TEXT NOT NULL, spec TEXT NOT NULL,
    rate REAL, state TEXT NOT NULL, planned INTEGER NOT NULL, skipped TEXT NOT NULL, created REAL NOT NULL,
    started REAL, ended REAL, spill TEXT, error TEXT NOT NULL DEFAULT '', undone_by TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS items (
    job TEXT NOT NULL, n INTEGER NOT NULL, seq INTEGER NOT NULL, stored_ns INTEGER NOT NULL, source TEXT NOT NULL,
    destination TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', at REAL,
    sent TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, n)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_state ON items (job, state);
CREATE TABLE IF NOT EXISTS notes (
    stream TEXT NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL, author TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (stream, about)
) WITHOUT ROWID;
"""
_VERSION = 2
_STEPS: Mapping[int, str] = {1: "ALTER TABLE items ADD COLUMN sent TEXT NOT NULL DEFAULT ''"}
"""What a file of an older version lacks, by that version; the rest `_SCHEMA` adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job as the ledger holds it."""

    id: str
    action: str
    stream: str
    """The stream it takes messages from (or puts them into)."""
    identity: str
    """That very stream: name and time of its making; see `identity_of`."""
    context: str = ""
    actor: str = ""
    mode: str = ""
    selection: str = ""
    reason: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What the action needs besides its items."""
    rate: float | None = None
    """Messages a second; None for as fast as it goes."""
    state: JobState = "planned"
    planned: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Left out by the plan: how many for each reason."""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    """Seconds since the epoch, all three."""
    spill: str | None = None
    error: str = ""
    undone_by: str = ""
    """The job that put back what this one removed."""


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """One item and how far it got."""

    n: int
    item: Item
    state: ItemState
    detail: str
    at: float | None
    """When its state changed, in seconds since the epoch."""
    sent: str = ""
    """Where it was stored, see `ItemResult.sent`."""


@dataclass(frozen=True, slots=True)
class Note:
    """What an operator wrote for the next one."""

    about: str
    """What it is about, see `console.notes`."""
    text: str
    author: str
    at: float
    """Seconds since the epoch."""


class LedgerBusy(OperationError):
    """Somebody else writes to the ledger; it may be tried again."""


class JobLedger:
    """The ledger of one user on one machine.

    Args:
        directory: Where it is kept; None keeps it in memory, for what need not outlive the process.

    Raises:
        OperationError: The directory or the file cannot be used.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.path = directory / "jobs.db" if directory is not None else None
        self._locks = StreamLocks(directory / "locks" if directory is not None else None)
        self._mutex = threading.RLock()
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                if self.path is not None and not self.path.exists():
                    os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            self._db = sqlite3.connect(
                self.path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            # A write is in the log of the file system when it returns: a kill of the process loses nothing. Of a power
            # failure the receipts take care.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            # A checkpoint waits for the disk; it is done apart, in a thread.
            self._db.execute("PRAGMA wal_autocheckpoint=0")
            with self._transaction():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version > _VERSION:
                    raise OperationError(f"{self.path} was written by a newer agent-console: update this one")
                if version in _STEPS:
                    self._db.execute(_STEPS[version])
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_VERSION}")
                self._forget(time.time() - KEPT_S)
        except (OSError, sqlite3.Error) as error:
            raise OperationError(
                f"the job ledger {self.path} cannot be used ({error}): make room or set XDG_STATE_HOME"
            ) from None

    def close(self) -> None:
        """Close the file."""
        with self._mutex, contextlib.suppress(sqlite3.Error):
            self._db.close()

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file; waits for the disk, so not on an event loop."""
        if self.path is None:
            return
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.path, timeout=1.0)) as apart:
            apart.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # -- one job at a time on a stream

    def hold(self, identity: str, job: str = "") -> StreamLock:
        """Take the lock of a stream for a job.

        Raises:
            OperationError: Another job of this machine works on it.
        """
        return self._locks.hold(identity, job)

    def is_held(self, identity: str) -> bool:
        """Whether a job works on a stream at this moment."""
        return self._locks.holder(identity) is not None

    # -- jobs

    def add(self, record: JobRecord, items: Iterable[Item]) -> None:
        """Write a job with all its items down; large ones take their time, so not on an event loop."""
        rest = enumerate(items)
        # In slices, and the job itself last: whoever else writes waits for one slice at the most.
        while part := list(islice(rest, SLICE)):
            with self._using(), self._transaction():
                self._db.executemany(
                    "INSERT INTO items (job,n,seq,stored_ns,source,destination,state) VALUES (?,?,?,?,?,?,'waiting')",
                    [(record.id, n, i.seq, i.stored_ns, i.source, i.destination) for n, i in part],
                )
        row = _row_of(record)
        with self._using():
            self._db.execute(
                f"INSERT INTO jobs ({','.join(row)}) VALUES ({','.join('?' * len(row))})",  # noqa: S608 - own names
                tuple(row.values()),
            )

    def update(self, job: str, **columns: Any) -> None:
        """Change columns of a job."""
        if "spec" in columns:
            columns["spec"] = json.dumps(columns["spec"])
        names = ",".join(f"{name}=?" for name in columns)
        with self._using():
            self._db.execute(f"UPDATE jobs SET {names} WHERE id=?", (*columns.values(), job))  # noqa: S608 - own names

    def job(self, job: str) -> JobRecord | None:
        """One job; one whose process is gone is `interrupted`."""
        with self._using():
            rows = self._query("SELECT * FROM jobs WHERE id=?", (job,))
        return self._record(rows[0]) if rows else None

    def jobs(self, *, limit: int = 1000) -> list[JobRecord]:
        """The newest jobs first."""
        with self._using():
            rows = self._query("SELECT * FROM jobs ORDER BY created DESC, id LIMIT ?", (limit,))
        return [self._record(row) for row in rows]

    def counts(self, job: str) -> dict[ItemState, int]:
        """Items of a job for each state."""
        with self._using():
            return dict(self._db.execute("SELECT state, COUNT(*) FROM items WHERE job=? GROUP BY state", (job,)))

    # -- items

    def items(self, job: str, *states: ItemState, after: int = -1, limit: int | None = None) -> Sequence[LedgerItem]:
        """Items of a job in their order, of some states only if any are given."""
        marks = f"AND state IN ({','.join('?' * len(states))})" if states else ""
        # Without the word the planner walks the whole job for one state of which there may be nothing.
        index = "INDEXED BY items_by_state" if len(states) == 1 else ""
        query = (
            f"SELECT n,seq,stored_ns,source,destination,state,detail,at,sent FROM items {index} "  # noqa: S608 - own words
            f"WHERE job=? AND n>? {marks} ORDER BY n LIMIT ?"
        )
        with self._using():
            rows = self._db.execute(query, (job, after, *states, -1 if limit is None else limit)).fetchall()
        return [LedgerItem(row[0], Item(*row[1:5]), *row[5:]) for row in rows]

    def all_items(self, job: str) -> Iterator[LedgerItem]:
        """All items of a job, read in pages."""
        after = -1
        while page := self.items(job, after=after, limit=1000):
            yield from page
            after = page[-1].n

    def sending(self, job: str, n: int, mark: str) -> None:
        """On record before the first byte leaves: this item is begun; `mark` helps to find out what became of it."""
        with self._using():
            self._db.execute(
                # Sent once more it keeps its first moment: that is when ids began to be forgotten.
                "UPDATE items SET state='sending', detail=CASE WHEN state='sending' THEN detail ELSE ? END, "
                "at=CASE WHEN state='sending' THEN at ELSE ? END WHERE job=? AND n=?",
                (mark, time.time(), job, n),
            )

    def settle(self, job: str, results: Sequence[tuple[int, ItemResult]]) -> None:
        """Write down what became of some items, in one transaction."""
        now = time.time()
        with self._using(), self._transaction():
            self._db.executemany(
                "UPDATE items SET state=?, detail=?, at=?, sent=? WHERE job=? AND n=?",
                [(result.outcome, result.detail, now, result.sent, job, n) for n, result in results],
            )

    def abandon(self, job: str) -> None:
        """What waits will not be done: the job was cancelled."""
        with self._using():
            self._db.execute(
                "UPDATE items SET state='not started', detail='cancelled before it' WHERE job=? AND state='waiting'",
                (job,),
            )

    def reopen(self, job: str, n: int) -> None:
        """An item that was in doubt is to be done again."""
        with self._using():
            self._db.execute("UPDATE items SET state='waiting', detail='' WHERE job=? AND n=?", (job, n))

    # -- notes

    def notes(self, stream: str) -> dict[str, Note]:
        """Notes on the letters of one stream, by what they are about.

        Args:
            stream: Which, see `identity_of`.
        """
        with self._using():
            rows = self._query("SELECT about, text, author, at FROM notes WHERE stream=?", (stream,))
        return {row["about"]: Note(**row) for row in rows}

    def write_note(self, stream: str, note: Note) -> None:
        """Write or replace a note; an empty text removes it."""
        with self._using():
            if note.text:
                self._db.execute(
                    "INSERT OR REPLACE INTO notes (stream, about, text, author, at) VALUES (?,?,?,?,?)",
                    (stream, note.about, note.text, note.author, note.at),
                )
            else:
                self._db.execute("DELETE FROM notes WHERE stream=? AND about=?", (stream, note.about))

    # -- internals

    def _record(self, row: Mapping[str, Any]) -> JobRecord:
        values = dict(row)
        values["spec"], values["skipped"] = json.loads(values["spec"]), json.loads(values["skipped"])
        record = JobRecord(**values)
        if record.state not in OPEN or self.path is None:
            return record
        # Another job may work on the same stream.
        if self._locks.holder(record.identity) in (record.id, ""):
            return record
        # Nobody works on it; killed after its last item, or answered for to the last, it has come to its end all the same.
        left = self._query("SELECT 1 FROM items WHERE job=? AND state IN ('waiting','sending') LIMIT 1", (record.id,))
        return JobRecord(**(values | {"state": "interrupted" if left else "completed"}))

    def _query(self, query: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        cursor = self._db.execute(query, tuple(values))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _forget(self, before: float) -> None:
        old = "(SELECT id FROM jobs WHERE ended IS NOT NULL AND ended < ?)"
        self._db.execute(f"DELETE FROM items WHERE job IN {old}", (before,))  # noqa: S608 - a constant
        self._db.execute("DELETE FROM jobs WHERE ended IS NOT NULL AND ended < ?", (before,))
        self._db.execute("DELETE FROM notes WHERE at < ?", (time.time() - NOTES_KEPT_S,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._mutex:
            try:
                yield
            except sqlite3.OperationalError as error:
                if "locked" in str(error) or "busy" in str(error):
                    raise LedgerBusy(f"the job ledger {self.path} is being written by another agent-console") from None
                raise OperationError(f"the job ledger {self.path} cannot be used: {error}") from None
            except sqlite3.Error as error:
                raise OperationError(f"the job ledger {self.path} cannot be used: {error}") from None


TO_BE_MADE = " to be made"
"""End of the identity of a stream that its job makes."""


def identity_of(stream: str, created: str) -> str:
    """What tells a stream from another of the same name, on whichever address its server is reached: when it was made."""
    return f"{stream} {created}"


def _row_of(record: JobRecord) -> dict[str, Any]:
    return {
        "id": record.id, "action": record.action, "stream": record.stream, "identity": record.identity,
        "context": record.context, "actor": record.actor, "mode": record.mode, "selection": record.selection,
        "reason": record.reason, "spec": json.dumps(dict(record.spec)), "rate": record.rate, "state": record.state,
        "planned": record.planned, "skipped": json.dumps(dict(record.skipped)), "created": record.created,
        "started": record.started, "ended": record.ended, "spill": record.spill, "error": record.error,
        "undone_by": record.undone_by,
    }  # fmt: skip
