"""What an action will do, before it does it: the plan freezes its items and says everything a person would ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from console.operations.canary import Canary
from console.operations.edits import Edit
from console.operations.items import Items, Sample, Skip

Action = Literal["replay", "move", "edit", "discard", "purge", "rescue", "restore", "pause", "resume"]
Gate = Literal["enter", "key", "count", "name"]

SENDS: frozenset[str] = frozenset({"replay", "move", "edit"})
"""Actions that send dead letters, which may die again."""
DESTROYS: frozenset[Action] = frozenset({"discard", "purge"})
SAMPLE = 5
"""Items a plan shows."""
SLOWEST, FASTEST = 1.0, 500.0
"""Messages a second: about what one sequential get, publish and delete reach on a local server."""
CAREFUL = 2
"""From this many items on Enter alone does not confirm."""
TYPED = 100
"""Above this many the count has to be typed."""

PAST: Mapping[str, str] = {
    "replay": "replayed", "move": "moved", "edit": "edited and replayed", "discard": "discarded", "purge": "purged",
    "rescue": "rescued", "restore": "restored", "pause": "paused", "resume": "resumed",
}  # fmt: skip
"""What an action has done to its items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One action, frozen: exactly these items, and nothing that came later."""

    action: Action
    stream: str
    """The stream its items are in, or are put into."""
    identity: str
    """That very stream, see `ledger.identity_of`; empty if it is still to be made."""
    items: Items
    noun: str = "dead letter"
    """What one item is."""
    skipped: tuple[Skip, ...] = ()
    selection: str = ""
    """How the items were chosen, in words."""
    looked: str = ""
    """How far the reading looked."""
    sample: tuple[Sample, ...] = ()
    """The first items."""
    rate: float | None = 20.0
    """Messages a second; None for as fast as it goes."""
    to: str | None = None
    """Destination instead of the recorded ones."""
    force: bool = False
    reason: str = ""
    keeps: str = ""
    """What is kept to undo it, in words."""
    spill: Path | None = None
    """Directory of the file that the items are written to before they are removed."""
    source: Path | None = None
    """The spill file that is put back."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the action needs besides: the consumer and the seconds of a pause, for one."""
    warnings: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """What one would type without this program, for the first items."""
    prod: bool = False
    """On production every count is typed, and a reason is required."""
    whole: bool = False
    """All of a stream is removed: its name is typed."""
    edit: Edit | None = None
    """What is changed in each of them before it is sent."""
    diff: tuple[str, ...] = ()
    """What the edit changes in the first of them, safe lines."""
    canary: Canary | None = None
    """A few of them first."""
    stop_ratio: float | None = None
    """It stops when more than this share of what it sent has died again; None never stops it."""
    holds: tuple[tuple[str, str], ...] = ()
    """Consumers that can be paused while it works, stream and durable: whom it sends to, or takes from."""
    hold: bool = False
    """Whether they are."""
    refused: int = 0
    """Skipped items that a policy or the replay limit protects."""
    overridden: Mapping[str, int] = field(default_factory=dict)
    """Items that are only in it by force, for each thing that would have kept them out."""
    cautious: bool = False
    """Some items belong to an agent whose policy is to confirm by typing the count."""

    @property
    def count(self) -> int:
        """Items that will be acted on."""
        return len(self.items)

    @property
    def duration(self) -> float | None:
        """Seconds it takes at its rate; None for as fast as it goes."""
        return None if self.rate is None else max(0, self.count - 1) / self.rate

    @property
    def gate(self) -> Gate:
        """How it has to be confirmed."""
        if self.action in ("pause", "resume"):
            return "key" if self.warnings else "enter"
        if self.whole and self.count:
            return "name"
        if self.cautious or self.prod or self.count > TYPED:
            return "count"
        return "enter" if self.count < CAREFUL and not self.warnings else "key"

    @property
    def typed(self) -> str:
        """What has to be typed to confirm it; empty if nothing."""
        return {"name": self.stream, "count": str(self.count)}.get(self.gate, "")

    @property
    def needs_reason(self) -> bool:
        """Whether it may not be done without a reason."""
        return self.prod and not self.reason

    @property
    def offers_hold(self) -> bool:
        """Whether it is large enough to ask if its consumers should be paused meanwhile."""
        return bool(self.holds) and self.count > TYPED and self.canary is None

    @property
    def by_origin(self) -> dict[str, int]:
        """How many items come from each source."""
        return self.items.spread(by="source")

    @property
    def by_destination(self) -> dict[str, int]:
        """How many items go to each subject."""
        return self.items.spread(by="destination")

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        """How many are left alone for each reason, the particulars of one message left out."""
        return dict(Counter(skip.reason.partition(":")[0] for skip in self.skipped))

    def as_json(self) -> dict[str, Any]:
        """The contract's form of a plan."""
        more: dict[str, Any] = {}
        if self.edit is not None:
            more |= {"edit": self.edit.describe(), "diff": list(self.diff)}
        if self.canary is not None:
            more["canary"] = self.canary.spec()
        if self.hold:
            more["pauses"] = [f"{stream} {durable}" for stream, durable in self.holds]
        return more | {
            "plan": self.action,
            "count": self.count,
            "by_origin": self.by_origin,
            "by_destination": self.by_destination,
            "sample": [
                {
                    "seq": sample.seq,
                    "source": sample.source,
                    "type": sample.type,
                    "id": sample.id,
                    "reason": sample.reason,
                    "error": sample.error,
                    "destination": sample.destination,
                }
                for sample in self.sample
            ],
            "skipped": [{"seq": skip.seq, "reason": skip.reason} for skip in self.skipped],
            "spill": str(self.spill) if self.spill is not None and self.count else None,
            "nats": list(self.commands),
        }
