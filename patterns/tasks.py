"""Task queues for role groups: any member of the role does it, once, and the submitter hears of it.

Guarantees: a submit with the same id within the duplicate window is stored once; a task is given to one worker at a time;
it runs at least once; with the ledger its completion and its result happen effectively once. A crash between a side effect
and the ledger write repeats the side effect: nobody can promise exactly-once execution.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from patterns import ledger, names
from patterns.bell import Bell
from patterns.consumer import Consumer
from patterns.delivery import TRANSIENT, Delivery
from patterns.depth import QueueDepth, queue_depth
from patterns.errors import InvalidMessage, MessageTooLarge, PatternError, QueueFull, UnknownDestination
from patterns.lane import Lane
from patterns.ledger import TaskStatus
from patterns.letter import number
from patterns.message import JSON_TYPE, Outgoing, Receipt, decode, encodable, encode, encode_data, handling, new_id
from patterns.names import Entry
from patterns.stored import StoredMessage, stored_ns_of

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
                await self._fleet.ledger.change(self.role, task, lambda record: fresh if record is None else None)
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


class TaskLane(Lane):
    """Settling a task: ledger first, then the result, then the acknowledgement; each step may be repeated."""

    async def admit(self, delivery: Delivery) -> bool:
        """Drop what is finished or canceled; correct the attempt by the hand-backs."""
        record = await self.fleet.ledger.read(self.name, delivery.id)
        if record is None:
            return True
        if record.state == "completed":
            delivery.settled = "acked"
            await self._send_result(delivery, record)
            await self.confirm(delivery)
            return False
        if record.state == "canceled":
            await self.confirm(delivery)
            return False
        if record.seq == delivery.seq:
            delivery.attempt = max(1, delivery.attempt - record.handbacks)
        return True

    async def begin(self, delivery: Delivery, agent: str) -> bool:
        """The record says `working`; an end that came first stands."""

        def begin(record: TaskStatus | None) -> TaskStatus | None:
            base = record or self._fresh(delivery)
            if base.state in ("completed", "canceled") or (base.final and base.seq == delivery.seq):
                return None
            handbacks = base.handbacks if base.seq == delivery.seq else 0
            return dataclasses.replace(
                base, state="working", agent=agent, attempts=delivery.attempt, seq=delivery.seq, handbacks=handbacks
            )

        record = await self.fleet.ledger.change(self.name, delivery.id, begin)
        return record is None or not record.final

    async def canceled(self, delivery: Delivery) -> bool:
        """Whether somebody canceled it."""
        record = await self.fleet.ledger.read(self.name, delivery.id)
        return record is not None and record.state == "canceled"

    async def progress(self, delivery: Delivery, note: str) -> None:
        """Leave the note in the ledger."""
        await self.fleet.ledger.change(
            self.name,
            delivery.id,
            lambda record: (
                dataclasses.replace(record, note=note[:512]) if record and record.state == "working" else None
            ),
        )

    async def complete(self, delivery: Delivery) -> None:
        """Ledger `completed`, result to the submitter, acknowledgement. Who writes `completed` first decides the result."""
        try:
            encoded, content_type = encode_data(delivery.result)
        except InvalidMessage as error:
            delivery.settled = "retried"
            await self.retry(delivery, None, type(error).__name__, f"the result: {error}", error)
            return
        small = len(encoded) <= ledger.RESULT_LIMIT and content_type == JSON_TYPE
        done = dataclasses.replace(
            self._fresh(delivery),
            state="completed",
            agent=self.agent,
            attempts=delivery.attempt,
            result=json.loads(encoded) if small and encoded else None,
            note="" if small else f"result of {len(encoded)} bytes is not kept here",
        )
        if not small:
            # The ledger cannot send it again after a crash, so it goes out first; running again repeats it de-duplicated.
            await self._send_result(delivery, dataclasses.replace(done, result=delivery.result))

        dead = False

        def complete(record: TaskStatus | None) -> TaskStatus | None:
            nonlocal dead
            dead = record is not None and record.state in ("failed", "rejected")
            if record is not None and record.state in ("completed", "canceled"):
                return None
            return done if record is None else dataclasses.replace(done, submitted_at=record.submitted_at)

        record = await self.fleet.ledger.change(self.name, delivery.id, complete)
        if record is not None and record.state == "canceled":
            # Whoever canceled it was told so; what it did stays, its result goes nowhere.
            await self.confirm(delivery)
            return
        if dead or delivery.deliveries > 1:
            # Another worker gave it up while this one was still at it; one of them had lost its lease.
            await self._withdraw(delivery)
        if small and record is not None:
            await self._send_result(delivery, record)
        await self.confirm(delivery)

    async def retry(
        self, delivery: Delivery, after: float | None, error_type: str, error: str, cause: Exception | None = None
    ) -> None:
        """Note the error, then as everywhere."""
        text = encodable(f"{error_type}: {error}")[:512]
        if delivery.attempt < delivery.max_attempts and not await self._give_up(delivery, error=text):
            delivery.settled = "dropped"
            return
        await super().retry(delivery, after, error_type, error, cause)

    async def hand_back(self, delivery: Delivery) -> None:
        """Count the hand-back, so that it costs no attempt, then give the task to whoever is next."""
        if await self._give_up(delivery, handbacks=1):
            await self.give_back(delivery, 0)
        else:
            delivery.settled = "dropped"

    async def _give_up(self, delivery: Delivery, *, error: str = "", handbacks: int = 0) -> bool:
        """Note that this worker gives the task back; False if it is not its own any more.

        Its lease may have expired and a later delivery run: giving back now would take the task from its new worker.
        """
        taken_over = False

        def change(record: TaskStatus | None) -> TaskStatus | None:
            nonlocal taken_over
            base = record or self._fresh(delivery)
            same = base.seq == delivery.seq
            taken_over = same and not base.final and base.attempts > delivery.attempt
            if base.final or taken_over:
                return None
            before = base.handbacks if same else 0
            return dataclasses.replace(
                base, state="submitted", error=error or base.error, seq=delivery.seq, handbacks=before + handbacks
            )

        await self.fleet.ledger.change(self.name, delivery.id, change)
        return not taken_over

    async def worth_burying(self, delivery: Delivery) -> bool:
        """A task that was completed (its acknowledgement got lost) or canceled is not dead."""
        record = await self.fleet.ledger.read(self.name, delivery.id)
        if record is not None and record.state == "completed":
            await self._send_result(delivery, record)
        return record is None or record.state not in ("completed", "canceled")

    async def buried(self, delivery: Delivery, reason: str, error: str) -> None:
        """Ledger `failed` or `rejected`, and the submitter is told."""

        def fail(record: TaskStatus | None) -> TaskStatus | None:
            base = record or self._fresh(delivery)
            if base.state == "completed":
                return None
            state: ledger.TaskState = "rejected" if reason == "rejected" else "failed"
            attempts = min(delivery.attempt, delivery.max_attempts)
            return dataclasses.replace(
                base, state=state, attempts=attempts, error=error[:512] or reason, seq=delivery.seq
            )

        record = await self.fleet.ledger.change(self.name, delivery.id, fail)
        if record is not None and record.state == "completed":
            # Another worker, which had lost its lease, finished it while the copy was on its way.
            await self._withdraw(delivery)
        elif self.fleet.config.dead_letters.notify_sender:
            generation = number(delivery.headers.get("Dead-Letter-Replays", ""))
            data = {
                "task": delivery.id,
                "role": self.name,
                "type": delivery.type,
                "reason": reason,
                "error": error[:512],
                "attempts": min(delivery.attempt, delivery.max_attempts),
                "agent": self.agent,
            }
            await self._send_outcome(delivery, "task.failed", f"{self.name}.{delivery.id}.failed.r{generation}", data)

    async def _withdraw(self, delivery: Delivery) -> None:
        if delivery.raw is not None:
            await self.fleet.dead_letters.withdraw(self.entry(delivery.message, stored_ns_of(delivery.raw)))

    # -- results

    def _fresh(self, delivery: Delivery) -> TaskStatus:
        return TaskStatus(
            id=delivery.id,
            role=self.name,
            state="submitted",
            seq=delivery.seq,
            submitted_at=delivery.message.time or delivery.stored_at,
        )

    async def _send_result(self, delivery: Delivery, record: TaskStatus) -> None:
        data = {
            "task": delivery.id,
            "role": self.name,
            "type": delivery.type,
            "agent": record.agent,
            "attempts": record.attempts,
            "result": record.result,
        }
        if isinstance(record.result, bytes | bytearray | memoryview):
            data["result"] = None
            data["note"] = f"result of {len(record.result)} bytes: send large or binary results by reference"
        msg_id = f"{self.name}.{delivery.id}.completed"
        try:
            await self._send_outcome(delivery, "task.completed", msg_id, data)
        except MessageTooLarge as error:
            data |= {"result": None, "note": f"the result is too large to be sent: {error}"}
            await self._send_outcome(delivery, "task.completed", msg_id, data)

    async def _send_outcome(self, delivery: Delivery, type: str, msg_id: str, data: Any) -> None:
        """Send an outcome to `Agent-Reply-To`; one that nobody can take becomes a dead letter itself."""
        prefix = delivery.message.reply_to
        if not prefix:
            return
        parent = dataclasses.replace(delivery.message, hops=max(0, delivery.message.hops - 1))
        with handling(parent):
            # An error text or a foreign id may hold what is no Unicode; that must not keep the outcome from being told.
            said = {key: encodable(value) if isinstance(value, str) else value for key, value in data.items()}
            outgoing = encode(type, said, source=self.agent, id=names.derived_id(msg_id))
        subject = f"{prefix}.{type}"
        try:
            await self.fleet.publish(subject, outgoing)
        except (UnknownDestination, QueueFull) as error:
            await self._undeliverable(delivery, subject, outgoing, error)

    async def _undeliverable(self, delivery: Delivery, subject: str, outgoing: Outgoing, error: PatternError) -> None:
        stored_ns = int(delivery.stored_at.timestamp() * 1_000_000) * 1000
        target = self.names.local(subject).split(".")
        to_inbox = len(target) > 3 and (target[0], target[2]) == ("agents", "inbox") and names.is_agent_id(target[1])
        # The outcome was never stored anywhere: its death borrows the task's sequence and time, which are its own.
        entry = (
            Entry("inbox", target[1], delivery.seq, stored_ns) if to_inbox else Entry("tasks", self.name, 0, stored_ns)
        )
        stored = StoredMessage(subject, delivery.seq, stored_ns, outgoing.headers, outgoing.body)
        await self.fleet.dead_letters.bury(
            entry,
            stored,
            reason="undeliverable",
            error_type=type(error).__name__,
            error=str(error),
            agent=self.agent,
            stream=self.names.inbox_stream(target[1]) if to_inbox else self.stream,
            deliveries=0,
            message=decode(
                subject, outgoing.headers, outgoing.body, names=self.names, stream=self.stream, seq=delivery.seq
            ),
            remove_origin=False,
        )
        note = f"outcome not delivered: {error}"[:512]
        await self.fleet.ledger.change(
            self.name, delivery.id, lambda record: dataclasses.replace(record, note=note) if record else None
        )
