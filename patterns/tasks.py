"""Task queues for role groups: any member of the role does it, once, and the submitter hears of it.

Guarantees: a submit with the same id within the duplicate window is stored once; a task is given to one worker at a time;
it runs at least once; with the ledger its completion and its result happen effectively once. A crash between a side effect
and the ledger write repeats the side effect: nobody can promise exactly-once execution.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from patterns import names
from patterns.bell import Bell
from patterns.consumer import Consumer
from patterns.delivery import TRANSIENT, Delivery
from patterns.depth import QueueDepth, queue_depth
from patterns.errors import PatternError
from patterns.ledger import NOTHING, TaskStatus
from patterns.message import Receipt, encode, new_id
from patterns.task_lane import TaskLane

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")


class TaskQueue:
    """The task queue of one role.

    Args:
        fleet: The connection.
        role: The role group.

    Raises:
        InvalidName: `role` is not a role.
    """

    def __init__(self, fleet: Fleet, role: str) -> None:
        self._fleet = fleet
        self.role = role
        self.stream = fleet.names.tasks_stream(role)
        self.durable = fleet.names.tasks_durable(role)
        self._pullers: dict[str, Consumer] = {}

    async def submit(
        self,
        type: str,
        data: Any = None,
        *,
        id: str | None = None,
        expires_in: float | None = None,
        reply_to: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Receipt:
        """Queue a task.

        Args:
            type: 1 to 8 tokens joined by dots.
            data: JSON data or bytes.
            id: Task id; submitting it again within the duplicate window is a no-op, and later its result is sent again.
            expires_in: Seconds after which it must not be started any more.
            reply_to: Subject prefix for the outcome, such as `agents.ceo.inbox`; None for no result message.
            headers: The caller's own headers.
            source: Id of the submitting agent.

        Raises:
            InvalidName, InvalidMessage, MessageTooLarge: Before anything is sent.
            UnknownDestination: The role has no queue.
            QueueFull: The queue is at its limit.
            Unavailable: Not confirmed; repeat it with the same id.
        """
        subject = self._fleet.names.task_subject(self.role, type)
        task = new_id() if id is None else names.task_id(id)
        outgoing = encode(type, data, source=source, id=task, expires_in=expires_in, reply_to=reply_to, headers=headers)
        ack = await self._fleet.publish(subject, outgoing, stream=self.stream)
        if not ack.duplicate:
            now = datetime.now(UTC)
            fresh = TaskStatus(id=task, role=self.role, state="submitted", submitted_at=now)
            try:
                await self._fleet.ledger.change(
                    self.role, task, lambda record: fresh if record is None else None, known=NOTHING
                )
            except PatternError as error:
                # The task is stored; the worker writes the record when it starts.
                log.debug("no ledger record for %s yet: %s", task, error)
        return Receipt(id=task, stream=ack.stream, seq=ack.seq, duplicate=ack.duplicate)

    def worker(self, agent_id: str, *, concurrency: int = 1) -> Consumer:
        """A consumer that works on this role's tasks."""
        lane = TaskLane(
            self._fleet,
            "tasks",
            self.role,
            stream=self.stream,
            durable=self.durable,
            delivery=self._fleet.config.role(self.role),
        )
        lane.agent = names.agent_id(agent_id)
        return Consumer(lane, agent=agent_id, concurrency=concurrency)

    async def next(self, agent_id: str, timeout: float = 30.0) -> Delivery | None:
        """Take one task for `agent_id`, or None if none comes within `timeout` seconds."""
        if agent_id not in self._pullers:
            self._pullers[agent_id] = self.worker(agent_id)
            self._fleet.on_close(self._pullers[agent_id].stop)
        return await self._pullers[agent_id].next(timeout)

    async def status(self, task_id: str) -> TaskStatus | None:
        """What the ledger knows; None if the task was never submitted or is older than the ledger keeps."""
        return await self._fleet.ledger.read(self.role, task_id)

    async def wait(self, task_id: str, timeout: float) -> TaskStatus:
        """Wait until a task has ended, well or not.

        Raises:
            TimeoutError: It has not ended within `timeout` seconds; it may still.
        """
        deadline = time.monotonic() + timeout
        bell = Bell()
        bucket = self._fleet.ledger.bucket
        subject = bucket.subject(self._fleet.names.ledger_key(self.role, task_id))
        subscription = await self._fleet.nc.subscribe(subject, cb=bell.ring)
        try:
            while True:
                try:
                    record = await self.status(task_id)
                except TRANSIENT as error:
                    log.debug("ledger not read, asking again: %s", error)
                    record = None
                if record is not None and record.final:
                    return record
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"task {task_id} of {self.role} has not ended within {timeout:g} s")
                await bell.wait(min(left, self._fleet.config.poll))
        finally:
            if not self._fleet.nc.is_closed:
                await subscription.unsubscribe()

    async def cancel(self, task_id: str, *, reason: str = "") -> bool:
        """Cancel a task: a queued one is dropped at delivery, a running one at its next heartbeat; side effects stay.

        Returns:
            Whether it is canceled now; False if it had ended or is not known.
        """

        def cancel(record: TaskStatus | None) -> TaskStatus | None:
            if record is None or record.final:
                return None
            return dataclasses.replace(record, state="canceled", note=reason)

        record = await self._fleet.ledger.change(self.role, task_id, cancel)
        return record is not None and record.state == "canceled"

    async def pause(self, seconds: float) -> None:
        """Deliver nothing to this role for `seconds`; running tasks go on."""
        await self._fleet.jetstream.pause(self.stream, self.durable, seconds)

    async def resume(self) -> None:
        """End a pause."""
        await self.pause(0)

    async def depth(self) -> QueueDepth:
        """How much is waiting and in flight: for admission control."""
        return await queue_depth(self._fleet.jetstream, self.stream, self.durable)
