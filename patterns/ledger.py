"""The task ledger: one key-value record for each task, the fact that makes completion effectively-once.

JetStream does not fence: a worker whose lease expired can still acknowledge, and two workers can both finish. Who first
turns the record to `completed` has finished the task; everybody else sends that result again (de-duplicated) and acks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from patterns.bucket import Bucket
from patterns.errors import Unavailable
from patterns.headers import format_time, parse_time
from patterns.names import Names

TaskState = Literal["submitted", "working", "completed", "failed", "canceled", "rejected"]
"""A2A's TaskState names."""

FINAL: frozenset[TaskState] = frozenset({"completed", "failed", "canceled", "rejected"})
"""States that only a replay leaves, and a failed or rejected one a new submission of its id."""

RESULT_LIMIT = 64 * 1024
"""Bytes of an encoded result that the ledger keeps."""

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What is known of one task."""

    id: str
    role: str
    state: TaskState
    agent: str = ""
    """Who works or worked on it."""
    attempts: int = 0
    """How often a handler began, less the times it was handed back. Not the server's count, in which a delivery counts that
    reached nobody."""
    note: str = ""
    """Last progress note, reason of a cancellation, or why the result could not be delivered."""
    result: Any = None
    """What the handler returned, if it is at most 64 KiB of JSON."""
    error: str = ""
    """Last error, `Type: message`."""
    submitted_at: datetime | None = None
    updated_at: datetime | None = None
    seq: int = 0
    """Sequence in the role's stream of the message that `attempts`, `handbacks` and an end refer to."""
    stored_ns: int = 0
    """When that message was stored: a stream that was made anew counts its sequences from 1 again."""
    handbacks: int = 0
    """Deliveries given back unharmed by a graceful stop: subtracted from the server's count until a handler begins."""

    @property
    def final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in FINAL


_FIELDS = tuple(each.name for each in dataclasses.fields(TaskStatus))


@dataclass(frozen=True, slots=True)
class Known:
    """A record as it was last seen."""

    record: TaskStatus | None
    revision: int
    """Of its key; 0 if it does not exist."""


NOTHING = Known(None, 0)
"""What is known of a task nobody has heard of."""

Change = Callable[[TaskStatus | None], TaskStatus | None]
"""From the current record (None: no record) to the new one; None leaves it as it is."""


class TaskLedger:
    """Reads and changes the records of one fleet.

    Args:
        bucket: The ledger's bucket.
        names: Names of the organization.
    """

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self.bucket = bucket
        self._names = names

    async def read(self, role: str, task: str) -> TaskStatus | None:
        """The record of a task, None if there is none (never submitted, or older than the ledger's TTL)."""
        return (await self.look(role, task)).record

    async def look(self, role: str, task: str) -> Known:
        """As `read`, with what a later `change` needs to write without reading first."""
        data, revision = await self.bucket.look(self._names.ledger_key(role, task))
        return Known(None if data is None else decode(data), revision)

    async def change(self, role: str, task: str, change: Change, *, known: Known | None = None) -> TaskStatus | None:
        """Apply `change` by compare-and-set and return the record that stands afterwards; see `write`."""
        return (await self.write(role, task, change, known=known)).record

    async def write(self, role: str, task: str, change: Change, *, known: Known | None = None) -> Known:
        """Apply `change` by compare-and-set.

        Args:
            role: The role.
            task: The task's id.
            change: Called with the current record, again if somebody else wrote meanwhile.
            known: What was last seen of it, which saves a read; a record that changed since is read after all.

        Raises:
            Unavailable: The bucket cannot be read or written.
        """
        key = self._names.ledger_key(role, task)
        stamped: TaskStatus | None = None
        for _ in range(_ATTEMPTS):
            seen = known or await self.look(role, task)
            known = None
            if stamped is not None and seen.record == stamped:
                return seen  # our own write, whose confirmation got lost: applied again, it would count twice
            wanted = change(seen.record)
            if wanted is None or wanted == seen.record:
                return seen
            stamped = dataclasses.replace(wanted, updated_at=datetime.now(UTC))
            revision = await self.bucket.update(key, encode(stamped), seen.revision)
            if revision is not None:
                return Known(stamped, revision)
        raise Unavailable(f"ledger record {key} is being written by too many at once")


def encode(record: TaskStatus) -> bytes:
    """The stored form of a record."""
    # Not `asdict`, which copies a result value by value.
    plain = {name: getattr(record, name) for name in _FIELDS}
    for name in ("submitted_at", "updated_at"):
        plain[name] = format_time(plain[name]) if plain[name] else None
    return json.dumps(plain, separators=(",", ":")).encode()


def decode(data: bytes) -> TaskStatus | None:
    """Read a stored record; None for one that is not ours."""
    try:
        plain = json.loads(data)
        for name in ("submitted_at", "updated_at"):
            plain[name] = parse_time(plain[name]) if plain.get(name) else None
        return TaskStatus(**{name: value for name, value in plain.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
