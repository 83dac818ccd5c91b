"""Settling a task: ledger first, then the result, then the acknowledgement; each step may be repeated."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from patterns import ledger, names
from patterns.delivery import Delivery
from patterns.errors import (
    InvalidMessage,
    MessageTooLarge,
    PatternError,
    PermissionDenied,
    QueueFull,
    UnknownDestination,
)
from patterns.headers import encodable, number
from patterns.lane import Lane
from patterns.ledger import TaskStatus
from patterns.letter import DeadLetter
from patterns.message import JSON_TYPE, OUTCOME_OF, Outgoing, decode, encode, encode_data, handling
from patterns.names import Entry
from patterns.stored import StoredMessage

log = logging.getLogger("patterns")

UNSEEN = 10
"""Deliveries for each allowed attempt that may reach no handler, before that is taken for a crash."""


class TaskLane(Lane):
    """Settling a task: ledger first, then the result, then the acknowledgement; each step may be repeated."""

    async def recall(self, delivery: Delivery) -> DeadLetter | None:
        """Read the record too, so that what follows can write without reading; at once, each is a round trip."""
        asked = self.may_have_letter(delivery)
        delivery.known, letter = await asyncio.gather(
            self.fleet.ledger.look(self.name, delivery.id), self.letter_of(delivery)
        )
        return letter if asked else await self.letter_of(delivery)

    def may_have_letter(self, delivery: Delivery) -> bool:
        """As everywhere, and where the record speaks of this message: a durable made anew counts it as new."""
        record = delivery.known.record if delivery.known is not None else None
        return super().may_have_letter(delivery) or (record is not None and self._is_of(record, delivery))

    async def admit(self, delivery: Delivery) -> bool:
        """Drop what is finished or canceled; which attempt this is says the record, as soon as a handler has begun.

        Until then the server's count says it, less the hand-backs: a process may die before it can begin.
        """
        record = delivery.known.record if delivery.known is not None else None
        if record is None:
            return True
        if record.state == "completed":
            delivery.settled = "acked"
            if delivery.deliveries > 1:
                # Who completed it may have been killed before it took back the letter of another, whose lease it had lost.
                await self._withdraw(delivery)
            await self._send_result(delivery, record)
            await self.confirm(delivery)
            return False
        if record.state == "canceled":
            await self.confirm(delivery)
            return False
        if self._is_of(record, delivery):
            delivered = max(1, delivery.deliveries - record.handbacks)
            delivery.attempt = record.attempts + 1 if record.attempts else delivered
            if delivered > UNSEEN * delivery.max_attempts:
                # Something kills every process before a handler can begin: that must end, too.
                delivery.attempt = max(delivery.attempt, delivery.max_attempts + 1)
        return True

    def at_work(self, delivery: Delivery) -> bool:
        """Whether the last attempt began no longer ago than a lease: a leader that changed delivers what is being done."""
        record = delivery.known.record if delivery.known is not None else None
        if record is None or record.state != "working" or record.updated_at is None:
            return False
        return datetime.now(UTC) - record.updated_at < timedelta(seconds=self.delivery.ack_wait)

    async def begin(self, delivery: Delivery, agent: str) -> bool:
        """The record says `working`; an end that came first stands."""

        def begin(record: TaskStatus | None) -> TaskStatus | None:
            base = record or self._fresh(delivery)
            same = self._is_of(base, delivery)
            if base.state in ("completed", "canceled") or (base.final and same):
                return None
            attempts = base.attempts + 1 if same and base.attempts else delivery.attempt
            handbacks = base.handbacks if same else 0
            return self._mark(base, delivery, state="working", agent=agent, attempts=attempts, handbacks=handbacks)

        record = await self._change(delivery, begin)
        if record is None or record.final:
            return False
        delivery.attempt = record.attempts
        return True

    async def canceled(self, delivery: Delivery) -> bool:
        """Whether somebody canceled it."""
        record = await self.fleet.ledger.read(self.name, delivery.id)
        return record is not None and record.state == "canceled"

    async def progress(self, delivery: Delivery, note: str) -> None:
        """Leave the note in the ledger."""
        await self._change(
            delivery,
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

        record = await self._change(delivery, complete)
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
        self, delivery: Delivery, after: float | None, error_type: str, error: str, cause: BaseException | None = None
    ) -> None:
        """Note the error, then as everywhere."""
        text = encodable(f"{error_type}: {error}")[:512]
        if delivery.attempt < delivery.max_attempts and not await self._give_up(delivery, error=text):
            delivery.settled = "dropped"
            return
        await super().retry(delivery, after, error_type, error, cause)

    async def hand_back(self, delivery: Delivery) -> None:
        """Take the attempt back, then give the task to whoever is next."""
        if await self._give_up(delivery, handed_back=True):
            await self.give_back(delivery, 0)
        else:
            delivery.settled = "dropped"

    async def _give_up(self, delivery: Delivery, *, error: str = "", handed_back: bool = False) -> bool:
        """Note that this worker gives the task back; False if it is not its own any more.

        Its lease may have expired and a later delivery run: giving back now would take the task from its new worker.
        """
        taken_over = False

        def change(record: TaskStatus | None) -> TaskStatus | None:
            nonlocal taken_over
            base = record or self._fresh(delivery)
            same = self._is_of(base, delivery)
            taken_over = same and not base.final and base.attempts > delivery.attempt
            ended = base.state in ("completed", "canceled") or (base.final and same)
            if ended or taken_over:
                return None
            # Broken off while it began, it may or may not have written so.
            began = same and base.state == "working" and base.attempts == delivery.attempt
            return self._mark(
                base,
                delivery,
                state="submitted",
                error=error or base.error,
                attempts=base.attempts - (began and handed_back) if same else 0,
                handbacks=(base.handbacks if same else 0) + handed_back,
            )

        await self._change(delivery, change)
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
            return self._mark(base, delivery, state=state, attempts=attempts, error=error[:512] or reason)

        record = await self._change(delivery, fail)
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
        """Take back the letter of a task that is finished after all; one that may not leaves it, marked as resolved."""
        try:
            await self.fleet.burials.withdraw(self.entry(delivery.message, delivery.stored_ns))
        except PermissionDenied as error:
            log.warning("%s is finished, its dead letter stays: %s", delivery, error)

    # -- the record

    async def _change(self, delivery: Delivery, change: ledger.Change) -> TaskStatus | None:
        delivery.known = await self.fleet.ledger.write(self.name, delivery.id, change, known=delivery.known)
        return delivery.known.record

    @staticmethod
    def _is_of(record: TaskStatus, delivery: Delivery) -> bool:
        """Whether the record speaks of this stored message, not of an earlier life of the task."""
        return (record.seq, record.stored_ns) == (delivery.seq, delivery.stored_ns)

    @staticmethod
    def _mark(record: TaskStatus, delivery: Delivery, **changes: Any) -> TaskStatus:
        return dataclasses.replace(record, seq=delivery.seq, stored_ns=delivery.stored_ns, **changes)

    def _fresh(self, delivery: Delivery) -> TaskStatus:
        return TaskStatus(
            id=delivery.id,
            role=self.name,
            state="submitted",
            seq=delivery.seq,
            stored_ns=delivery.stored_ns,
            submitted_at=delivery.message.time or delivery.stored_at,
        )

    # -- results

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
        fate = type.removeprefix("task.")
        outgoing.headers[OUTCOME_OF] = f"{self.entry(delivery.message, delivery.stored_ns)} {fate}"
        subject = f"{prefix}.{type}"
        try:
            await self.fleet.publish(subject, outgoing)
        except (UnknownDestination, QueueFull, PermissionDenied) as error:
            await self._undeliverable(delivery, subject, outgoing, error)

    async def _undeliverable(self, delivery: Delivery, subject: str, outgoing: Outgoing, error: PatternError) -> None:
        stored_ns = delivery.stored_ns
        target = self.names.local(subject).split(".")
        to_inbox = len(target) > 3 and (target[0], target[2]) == ("agents", "inbox") and names.is_agent_id(target[1])
        # The outcome was never stored anywhere: its death borrows the task's sequence and time, which are its own.
        entry = (
            Entry("inbox", target[1], delivery.seq, stored_ns) if to_inbox else Entry("tasks", self.name, 0, stored_ns)
        )
        stored = StoredMessage(subject, delivery.seq, stored_ns, outgoing.headers, outgoing.body)
        await self.fleet.burials.bury(
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
