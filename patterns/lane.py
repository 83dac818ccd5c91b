"""What settling a message means, in an inbox, a task queue or a subscription.

`Lane` holds what the three have in common and what an inbox needs; tasks add the ledger, events the shared stream.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import time
import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING

import nats.errors

from patterns.config import DeliveryConfig
from patterns.errors import PatternError, Unavailable
from patterns.headers import number, parse_time_ns
from patterns.message import OUTCOME_OF, REPLAY_OF, Message
from patterns.names import Entry, Kind, Names
from patterns.pull import Pull
from patterns.stored import StoredMessage

if TYPE_CHECKING:
    from patterns.consumer import Consumer
    from patterns.delivery import Delivery
    from patterns.fleet import Fleet
    from patterns.letter import DeadLetter

log = logging.getLogger("patterns")

LONGEST_DELAY = 30 * 86400.0
"""Seconds; the server takes nanoseconds in 64 bits and delivers at once what overflows."""


class Lane:
    """One durable of one stream.

    Args:
        fleet: The connection.
        kind: inbox, tasks or events.
        name: Agent, role, or durable of the subscription.
        stream: Stream of the durable.
        durable: The durable.
        delivery: How it delivers.
    """

    def __init__(
        self, fleet: Fleet, kind: Kind, name: str, *, stream: str, durable: str, delivery: DeliveryConfig
    ) -> None:
        self.fleet = fleet
        self.kind = kind
        self.name = name
        self.stream = stream
        self.durable = durable
        self.delivery = delivery
        self.agent = name
        self.settling: set[asyncio.Future[None]] = set()
        """Settlements under way: a stop waits for them, whoever was cancelled."""
        self._configured = delivery
        self._readable = True
        self._adopted = -1
        self._counts_kept_since: int | None = None
        """Server time in ns since which no count of deliveries can have been lost, None if that cannot be known."""

    @property
    def names(self) -> Names:
        """Names of the organization."""
        return self.fleet.names

    @property
    def poll(self) -> float:
        """Seconds one pull waits."""
        return self.fleet.config.poll

    @property
    def drain_grace(self) -> float:
        """Seconds handlers get at a stop."""
        return self.fleet.config.drain_grace

    @property
    def max_hops(self) -> int:
        """Delegations a conversation may have."""
        return self.fleet.config.max_hops

    def pull(self) -> Pull:
        """A new series of pull requests."""
        return Pull(self.fleet.jetstream, self.stream, self.durable)

    async def adopt(self) -> None:
        """Take lease and limit from the durable itself: an agent with another configuration would double its work.

        Once a connection, and again after any trouble with the durable.
        """
        epoch = self.fleet.nc.stats["reconnects"]
        if self._adopted == epoch:
            return
        self._adopted, self._counts_kept_since = epoch, None
        connected_for = self.fleet.jetstream.connected_for()
        try:
            info = await self.fleet.jetstream.consumer_info(self.stream, self.durable)
        except (PatternError, nats.errors.Error):
            # Perhaps not readable with these rights: not to be asked for again at every blip, it costs a time-out.
            self._readable = False
            return
        self._readable = True
        if info is None:
            self.disown()
            return
        if self.fleet.jetstream.standalone and "ts" in info:
            self._counts_kept_since = max(
                parse_time_ns(info["ts"]) - int(connected_for * 1e9), parse_time_ns(info["created"])
            )
        config, given = info["config"], self._configured
        ack_wait = int(config.get("ack_wait", 0)) / 1e9 or given.ack_wait
        limit = int(config.get("max_deliver", -1))
        if limit < 1:
            limit = number((config.get("metadata") or {}).get("agents.max-deliver", "")) or given.max_deliver
        if (ack_wait, limit) == (self.delivery.ack_wait, self.delivery.max_deliver):
            return
        self.delivery = given
        if (ack_wait, limit) != (given.ack_wait, given.max_deliver):
            log.warning(
                "%s has ack_wait=%g and max_deliver=%d, the configuration here says %g and %d: the durable's hold",
                self.durable, ack_wait, limit, given.ack_wait, given.max_deliver,
            )  # fmt: skip
            beat = given.heartbeat
            self.delivery = dataclasses.replace(
                given,
                ack_wait=ack_wait,
                max_deliver=limit,
                heartbeat=beat if beat is None or beat < ack_wait else None,
            )

    def disown(self) -> None:
        """The durable may be gone: look again at the one that comes after it."""
        if self._readable:
            self._adopted = -1

    def entry(self, message: Message, stored_ns: int) -> Entry:
        """The name this message would have among the dead letters."""
        return Entry(self.kind, self.name, message.seq or 0, stored_ns)

    # -- hooks that tasks and events change

    async def recall(self, delivery: Delivery) -> DeadLetter | None:
        """Read what is known of it elsewhere, before anything is decided; its letter, if it has one already."""
        return await self.letter_of(delivery)

    def at_work(self, delivery: Delivery) -> bool:
        """Whether an earlier attempt may still be running somewhere, so that this one says nothing about its end."""
        return False

    async def admit(self, delivery: Delivery) -> bool:
        """Whether a handler may still see it; False if it was settled here."""
        return True

    async def begin(self, delivery: Delivery, agent: str) -> bool:
        """A handler is about to run; False if the message was ended meanwhile by another worker or a cancellation."""
        return True

    async def canceled(self, delivery: Delivery) -> bool:
        """Whether the running handler should be cancelled."""
        return False

    async def progress(self, delivery: Delivery, note: str) -> None:
        """Keep a progress note."""

    async def complete(self, delivery: Delivery) -> None:
        """The handler succeeded."""
        await self.confirm(delivery)

    async def retry(
        self, delivery: Delivery, after: float | None, error_type: str, error: str, cause: BaseException | None = None
    ) -> None:
        """The handler failed or asked for another attempt."""
        if delivery.attempt >= delivery.max_attempts:
            delivery.settled = "dead"
            await self.bury(delivery, "max-deliver", error_type, error, cause)
        else:
            policy = self.delivery.retry.delay(delivery.attempt)
            sane = after is not None and math.isfinite(after) and after >= 0
            await self.give_back(delivery, min(after, LONGEST_DELAY) if sane and after is not None else policy)

    async def hand_back(self, delivery: Delivery) -> None:
        """A graceful stop: the server counts the delivery, so the last one would strand the message and is buried."""
        if delivery.attempt >= delivery.max_attempts:
            delivery.settled = "dead"
            await self.bury(delivery, "interrupted", "", "the agent was stopped during the last attempt")
        else:
            await self.give_back(delivery, 0)

    async def buried(self, delivery: Delivery, reason: str, error: str) -> None:
        """The message reached the dead letters."""

    async def worth_burying(self, delivery: Delivery) -> bool:
        """Whether it is still unfinished; False only removes it."""
        return True

    async def housekeeping(self, consumer: Consumer) -> None:
        """What runs beside the loop until it is cancelled."""

    # -- what they share

    async def bury(
        self, delivery: Delivery, reason: str, error_type: str, error: str, cause: BaseException | None = None
    ) -> None:
        """Move the message to the dead letters: copy, tell, acknowledge; what breaks off is finished by the next delivery."""
        raw = delivery.raw
        if raw is None:
            return
        if await self.worth_burying(delivery):
            deliveries = delivery.attempt if delivery.attempt <= delivery.max_attempts else delivery.attempt - 1
            stored_ns = delivery.stored_ns
            stands = await self.fleet.burials.bury(
                self.entry(delivery.message, stored_ns),
                StoredMessage(delivery.subject, delivery.seq, stored_ns, raw.headers or {}, raw.data),
                reason=reason,
                error_type=error_type,
                error=error,
                error_line=_line_of(cause),
                agent=self.agent,
                stream=self.stream,
                consumer=self.durable,
                deliveries=deliveries,
                message=delivery.message,
                remove_origin=False,
            )
            if stands:
                await self._tell(delivery, reason, f"{error_type}: {error}" if error_type else error)
                log.warning("%s is dead: %s %s %s", delivery, reason, error_type, error)
        await self.confirm(delivery)

    async def _tell(self, delivery: Delivery, reason: str, error: str) -> None:
        """Record the death and tell the sender; what cannot be said at all must not bring the message back for ever."""
        try:
            await self.buried(delivery, reason, error)
        except Unavailable:
            raise
        except PatternError as problem:
            log.warning("%s: its death could not be told: %s", delivery, problem)

    async def letter_of(self, delivery: Delivery) -> DeadLetter | None:
        """The letter this message has already, from a mover that broke off.

        Not asked where there can be none: at the first delivery of what was stored since we are connected. Otherwise also at
        a first one, for a server that was killed forgets its last deliveries and counts from 1 again.
        """
        if not self.may_have_letter(delivery):
            return None
        return await self.fleet.burials.find(self.entry(delivery.message, delivery.stored_ns))

    def may_have_letter(self, delivery: Delivery) -> bool:
        """Whether an earlier delivery of it is possible; see `letter_of`."""
        known = self._adopted == self.fleet.nc.stats["reconnects"] and self._counts_kept_since is not None
        return not (known and delivery.deliveries == 1 and delivery.stored_ns > (self._counts_kept_since or 0))

    async def finish_burial(self, delivery: Delivery, letter: DeadLetter | None) -> bool:
        """Do what a mover that broke off left to do, if there is a letter; whether there is."""
        if letter is None:
            return False
        delivery.settled = "dead"
        if await self.worth_burying(delivery):
            await self._tell(delivery, letter.reason, letter.error_text)
        await self.confirm(delivery)
        return True

    async def confirm(self, delivery: Delivery) -> None:
        """Double ack, repeated until the server has recorded it or the lease would be over."""
        await self._answer(delivery, b"+ACK")

    async def give_back(self, delivery: Delivery, after: float) -> None:
        """Negative ack: deliver again in `after` seconds."""
        body = b"-NAK" if after <= 0 else b"-NAK " + json.dumps({"delay": int(after * 1e9)}).encode()
        await self._answer(delivery, body)

    async def extend(self, delivery: Delivery) -> None:
        """Extend the lease by another `ack_wait`."""
        if delivery.raw is not None and self.fleet.nc.is_connected:
            await delivery.raw.in_progress()

    async def is_second_copy(self, delivery: Delivery) -> bool:
        """Whether this is a copy of a replayed message, or of an outcome, of which another copy was delivered already.

        A work queue forgets the ids of consumed messages at a server restart, so a replay that broke off and was repeated
        after one can store a second copy, and so can a worker that sends the result of a finished task again. The first
        delivery leaves a receipt with its sequence; another sequence is a copy.
        """
        if REPLAY_OF not in delivery.headers and OUTCOME_OF not in delivery.headers:
            return False
        return not await self.fleet.burials.claim(delivery.headers, delivery.stream, delivery.seq)

    async def _answer(self, delivery: Delivery, body: bytes) -> None:
        if delivery.raw is None:
            return
        deadline = time.monotonic() + min(self.delivery.ack_wait, 30.0)
        pause = 0.05
        while True:
            try:
                await self.fleet.nc.request(delivery.raw.reply, body, timeout=2.0)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError, nats.errors.OutboundBufferLimitError):
                if time.monotonic() + pause >= deadline:
                    raise Unavailable(f"{delivery}: acknowledgement not confirmed") from None
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                return


def _line_of(error: BaseException | None) -> str:
    """`file.py:42 in function` of the innermost frame: a whole trace would leak secrets and does not fit a header."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
