"""Counting the demo's tasks by what their ledger records say."""

from __future__ import annotations

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from patterns import Fleet, TaskStatus
from patterns.ledger import decode

Key = tuple[str, str]
"""Role and task id."""


class Tally:
    """Follows the tasks of this run: each is open, completed or dead, and a replay opens a dead one again.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._subscription: Subscription | None = None
        self.submitted = 0
        self.completed = 0
        self.open: set[Key] = set()
        self.dead: set[Key] = set()

    async def start(self) -> None:
        """Listen to every write of the ledger."""
        self._subscription = await self._fleet.nc.subscribe(self._fleet.ledger.bucket.subject(">"), cb=self._written)

    async def stop(self) -> None:
        """Listen no more."""
        if self._subscription is not None and not self._fleet.nc.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None

    def expect(self, role: str, id: str) -> None:
        """A task is about to be submitted: its worker may be faster than the submitter's receipt."""
        self.open.add((role, id))
        self.submitted += 1

    def forget(self, role: str, id: str) -> None:
        """It was not stored, or was there before this run."""
        if (role, id) in self.open:
            self.open.discard((role, id))
            self.submitted -= 1

    async def reread(self) -> None:
        """Read the records of open tasks: a write during a reconnect is not heard, an unchanged record not written."""
        for role, task in tuple(self.open):
            record = await self._fleet.tasks(role).status(task)
            if record is not None:
                self._enter(record)

    async def _written(self, message: Msg) -> None:
        record = decode(message.data)
        if record is not None:
            self._enter(record)

    def _enter(self, record: TaskStatus) -> None:
        key = (record.role, record.id)
        if key not in self.open and key not in self.dead:
            return
        self.open.discard(key)
        self.dead.discard(key)
        if record.state == "completed":
            self.completed += 1
        elif record.final:
            self.dead.add(key)
        else:
            self.open.add(key)
