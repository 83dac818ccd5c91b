"""The canary: a few letters first, watched for an acknowledgement or a new death, before the rest is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.operations.errors import UsageError
from console.operations.ledger import LedgerItem
from console.operations.redeaths import Redeaths
from console.text import units
from console.text.safe import clean
from patterns import Fleet

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

    A message of a work queue that is gone from its stream was acknowledged, unless a letter tells of its death: the letter
    is stored before its message goes. An event stays in its stream: the subscription has passed it.

    Args:
        fleet: The connection.
        redeaths: Tells who died again; it has looked before the first of them was sent.
        items: What was sent, and what was not.
    """

    def __init__(self, fleet: Fleet, redeaths: Redeaths, items: Sequence[LedgerItem]) -> None:
        self._fleet = fleet
        self._redeaths = redeaths
        self._sent = {entry.n: entry for entry in items if entry.state == "done" and entry.sent}
        self._failed = sum(entry.state in ("failed", "in doubt") for entry in items)
        self._gone: set[int] = set()
        self._limits: dict[str, bool] = {}

    async def look(self) -> Outcome:
        """One look.

        Raises:
            Unavailable: It cannot be told now.
        """
        for n, entry in self._sent.items():
            if n not in self._gone and await self._left(entry):
                self._gone.add(n)
        # Only now: whoever is gone without a letter by this time was acknowledged.
        await self._redeaths.look()
        died = {
            n: letter for n, entry in self._sent.items() if (letter := self._redeaths.letters.get(str(entry.item.seq)))
        }
        error = next((clean(each.error_text or each.reason, limit=120) for each in died.values()), "")
        return Outcome(len(self._sent), len(self._gone - died.keys()), len(died), self._failed, error)

    async def _left(self, entry: LedgerItem) -> bool:
        """Whether its consumer has done with it."""
        js = self._fleet.jetstream
        stream, _, number = entry.sent.partition(" ")
        if stream not in self._limits:
            info = await js.stream_info(stream)
            self._limits[stream] = info is not None and info["config"].get("retention", "limits") == "limits"
        if not self._limits[stream]:
            return await js.get(stream, int(number)) is None
        durable = entry.item.source.partition(".")[2]
        found = await js.consumer_info(stream, durable)
        return found is not None and int(found["ack_floor"]["stream_seq"]) >= int(number)
