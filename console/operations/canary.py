"""The canary: a few letters first, watched for an acknowledgement or a new death, before the rest is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors

from console.operations.errors import UsageError
from console.operations.ledger import LedgerItem
from console.operations.redeaths import Redeaths
from console.rights import takes
from console.text import units
from console.text.safe import clean
from patterns import Fleet, PatternError
from patterns.names import Entry

MOST = 100
"""Letters of a canary."""
LONGEST = 3600.0
"""Seconds that it is watched for."""


@dataclass(frozen=True, slots=True)
class Canary:
    """How many letters go first, and how long they are watched."""

    count: int
    watch: float
    """Seconds."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise UsageError(f"a canary sends 1 to {MOST} letters first, not {self.count}")
        if not 1 <= self.watch <= LONGEST:
            raise UsageError(f"a canary is watched for 1s to {units.age(LONGEST)}, not {self.watch:g}s")

    def spec(self) -> dict[str, Any]:
        """Its form in the ledger."""
        return {"count": self.count, "watch": self.watch}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any] | None) -> Canary | None:
        """Read it back; None if there is none."""
        return cls(int(spec["count"]), float(spec["watch"])) if spec else None

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.count} first, watched for {units.age(self.watch)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a canary so far."""

    sent: int
    acknowledged: int
    died: int
    failed: int = 0
    """Not sent, or in doubt."""
    error: str = ""
    """What one of them died of, one safe line."""

    @property
    def waiting(self) -> int:
        """Neither acknowledged nor dead."""
        return self.sent - self.acknowledged - self.died

    @property
    def decided(self) -> bool:
        """Whether there is nothing to wait for: one death, or one that cannot be sent, is enough."""
        return not self.waiting or self.died > 0 or self.failed > 0

    @property
    def passed(self) -> bool:
        """Whether every one of them was acknowledged."""
        return self.sent > 0 and self.acknowledged == self.sent and not self.failed

    def as_json(self) -> dict[str, Any]:
        """Its form in a result."""
        return {
            "sent": self.sent, "acknowledged": self.acknowledged, "died": self.died, "waiting": self.waiting,
            "failed": self.failed, "passed": self.passed,
        }  # fmt: skip

    @property
    def text(self) -> str:
        """In words: `2 of 3 acknowledged, 1 died again (TimeoutError: …)`."""
        parts = [f"{self.acknowledged} of {self.sent + self.failed} acknowledged"]
        if self.died:
            parts.append(f"{self.died} died again{f' ({self.error})' if self.error else ''}")
        if self.waiting:
            parts.append(f"{self.waiting} still {'waits' if self.waiting == 1 else 'wait'}")
        if self.failed:
            parts.append(f"{self.failed} could not be sent")
        return ", ".join(parts)


class Watch:
    """Watches the letters of a canary.

    A message that has left its queue, or that its subscription has passed, was acknowledged if there is proof that somebody
    got it, and no letter tells of its death: the letter is stored before its message goes. Consumers of the library leave a
    receipt of it; of others only the count of deliveries is known, which a purge does not move.

    Args:
        fleet: The connection.
        redeaths: Tells who died again; it has looked before the first of them was sent.
    """

    def __init__(self, fleet: Fleet, redeaths: Redeaths) -> None:
        self._fleet = fleet
        self._redeaths = redeaths
        self._places: dict[str, _Place] = {}
        self._items: list[LedgerItem] = []
        self._failed = 0
        self._handled: set[int] = set()
        self.outcome = Outcome(0, 0, 0)
        """What has become of them so far."""

    async def prepare(self, destinations: Collection[str]) -> None:
        """Look at the queues before anything is sent there; what cannot be read proves nothing later."""
        js = self._fleet.jetstream
        for destination in destinations:
            if destination in self._places:
                continue
            with contextlib.suppress(PatternError, nats.errors.Error):
                streams = await js.stream_names(destination)
                if len(streams) == 1:
                    self._places[destination] = await self._place(streams[0], destination)

    async def _place(self, stream: str, destination: str) -> _Place:
        js = self._fleet.jetstream
        info = await js.stream_info(stream)
        return _Place(
            stream=stream,
            created=str(info["created"]) if info is not None else "",
            keeps=info is not None and info["config"].get("retention", "limits") == "limits",
            receipts=await self._fleet.dead_letters.guarded(stream),
            deliveries=await self._deliveries(stream, destination),
        )

    async def _deliveries(self, stream: str, destination: str) -> int:
        """Deliveries made so far by the consumers that take a subject."""
        consumers = await self._fleet.jetstream.consumers(stream)
        return sum(int(each["delivered"]["consumer_seq"]) for each in consumers if takes(each["config"], destination))

    def follow(self, items: Sequence[LedgerItem]) -> None:
        """What was sent, and what was not."""
        self._items = [entry for entry in items if entry.state in ("done", "duplicate")]
        self._failed = sum(entry.state in ("failed", "in doubt") for entry in items)
        self.outcome = Outcome(len(self._items), 0, 0, self._failed)

    async def look(self) -> None:
        """One look.

        Raises:
            Unavailable: It cannot be told now.
        """
        for entry in self._items:
            # A duplicate was sent by an earlier attempt, and where a killed one's went nobody saw: neither proves anything.
            told = entry.state == "done" and bool(entry.sent)
            if told and entry.n not in self._handled and await self._is_handled(entry):
                self._handled.add(entry.n)
        # Only now: whoever has been handled without a letter by this time was acknowledged.
        await self._redeaths.look()
        died = {
            entry.n: letter
            for entry in self._items
            if (letter := self._redeaths.letters.get(str(entry.item.seq))) is not None
        }
        error = next((clean(each.error_text or each.reason, limit=120) for each in died.values()), "")
        acknowledged = len(self._handled - died.keys())
        self.outcome = Outcome(len(self._items), acknowledged, len(died), self._failed, error)

    async def _is_handled(self, entry: LedgerItem) -> bool:
        """Whether its consumer has got it and done with it."""
        js = self._fleet.jetstream
        stream, number, message_id = entry.sent.split(" ", 2)
        place = self._places.get(entry.item.destination)
        if place is None or place.stream != stream:
            return False
        info = await js.stream_info(stream)
        if info is None or str(info["created"]) != place.created:
            return False
        if place.keeps:
            found = await js.consumer_info(stream, entry.item.source.partition(".")[2])
            if found is None or int(found["ack_floor"]["stream_seq"]) < int(number):
                return False
        elif await js.get(stream, int(number)) is not None:
            return False
        if place.receipts:
            death, _, generation = message_id.rpartition(":r")
            return await self._fleet.burials.delivery(Entry.parse(death), int(generation)) == f"{stream}:{number}"
        # As many deliveries as letters that are gone: of other messages there may have been some among them.
        claimed = sum(
            each.n in self._handled for each in self._items if each.item.destination == entry.item.destination
        )
        return await self._deliveries(stream, entry.item.destination) - place.deliveries > claimed


@dataclass(frozen=True, slots=True)
class _Place:
    """Where letters go, as it was before the canary."""

    stream: str
    created: str
    keeps: bool
    """Whether messages stay when they were acknowledged."""
    receipts: bool
    """Whether its consumers leave receipts."""
    deliveries: int
    """Made until then, by the consumers that take the subject."""
