"""What an action will do, before it does it: the plan freezes its items and says everything a person would ask."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from console.letters import by_origin
from console.operations.errors import Refused, UsageError
from console.operations.selection import Selection
from console.settings import ReplayPolicy, Settings
from console.text.safe import clean
from patterns import DeadLetter, Fleet, InvalidName, UnknownDestination

SAMPLE = 5
"""Items a plan shows."""
FASTEST = 500.0
"""Messages a second at most: about what one sequential get, publish and delete reach on a local server."""
CAREFUL = 2
"""From this many items on Enter alone does not confirm."""
TYPED = 100
"""Above this many the count has to be typed."""


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One letter and where it goes."""

    letter: DeadLetter
    destination: str


@dataclass(frozen=True, slots=True)
class Skip:
    """One letter that is left alone, and why."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A replay, frozen: exactly these items, and nothing that came later."""

    action: str
    items: tuple[PlannedItem, ...]
    skipped: tuple[Skip, ...]
    selection: str
    """How the items were chosen, in words."""
    rate: float
    """Messages a second."""
    to: str | None = None
    """Destination instead of the recorded ones."""
    force: bool = False
    reason: str = ""
    warnings: tuple[str, ...] = ()
    prod: bool = False
    """On production every count is typed."""
    refused: int = 0
    """Skipped items that a policy protects."""
    cautious: bool = False
    """Some items belong to an agent whose policy is to confirm by typing the count."""

    @property
    def count(self) -> int:
        """Items that will be acted on."""
        return len(self.items)

    @property
    def duration(self) -> float:
        """Seconds it takes at its rate."""
        return max(0, self.count - 1) / self.rate

    @property
    def gate(self) -> str:
        """How it has to be confirmed: `enter`, `key` or `count`."""
        if self.cautious or self.prod or self.count > TYPED:
            return "count"
        return "enter" if self.count < CAREFUL and not self.warnings else "key"

    @property
    def by_origin(self) -> dict[str, int]:
        """How many items come from each `<kind>.<name>`."""
        return by_origin(item.letter for item in self.items)

    @property
    def by_destination(self) -> dict[str, int]:
        """How many items go to each subject."""
        found: dict[str, int] = {}
        for item in self.items:
            found[item.destination] = found.get(item.destination, 0) + 1
        return found

    def nats_commands(self) -> list[str]:
        """What one would type without this program, for the first items: each a publish and, once confirmed, a delete."""
        commands = []
        for item in self.items[:SAMPLE]:
            letter = item.letter
            replayed = f"{letter.entry}:r{letter.replays + 1}"
            commands.append(
                f"nats stream get {letter.message.stream} {letter.seq}  &&  "
                f"nats pub --jetstream -H {shlex.quote(f'Nats-Msg-Id:{replayed}')} {shlex.quote(item.destination)} <body>  &&  "
                f"nats stream rmm -f {letter.message.stream} {letter.seq}"
            )
        return commands

    def as_json(self) -> dict[str, Any]:
        """The contract's form of a plan."""
        return {
            "plan": self.action,
            "count": self.count,
            "by_origin": self.by_origin,
            "by_destination": self.by_destination,
            "sample": [
                {
                    "seq": item.letter.seq,
                    "source": item.letter.source,
                    "type": item.letter.type,
                    "id": item.letter.id,
                    "reason": item.letter.reason,
                    "error": item.letter.error_text,
                    "destination": item.destination,
                }
                for item in self.items[:SAMPLE]
            ],
            "skipped": [{"seq": skip.seq, "reason": skip.reason} for skip in self.skipped],
            "spill": None,
            "nats": self.nats_commands(),
        }


async def plan_replay(
    fleet: Fleet,
    selection: Selection,
    *,
    rate: float,
    policy: Callable[[DeadLetter], ReplayPolicy] = lambda _: ReplayPolicy.SAFE,
    to: str | None = None,
    force: bool = False,
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to send letters back to where they came from.

    Args:
        fleet: The connection.
        selection: Which letters.
        rate: Messages a second, 1 to 500.
        to: One destination subject for all of them instead.
        policy: How careful to be with a letter, from the settings.
        force: Also those that were replayed as often as allowed, or whose policy is `never`.
        reason: Why, for the record.
        prod: Whether this is production: every count is typed then.

    Raises:
        UsageError: The rate is out of range, or `to` is nothing that can be published to.
        Refused: The DLQ does not let its letters be deleted: they would stay, and be replayed again.
        Unavailable: The destinations cannot be checked.
    """
    if not 1 <= rate <= FASTEST:
        raise UsageError(f"rate {rate:g} is out of range: 1 to {FASTEST:g} messages a second")
    if selection.letters:
        await _require_deletable(fleet)
    stored = _Destinations(fleet)
    if to is not None and (problem := await stored.problem(to)):
        raise UsageError(f"--to {clean(to)}: {problem}")
    limits = fleet.config.dead_letters
    items: list[PlannedItem] = []
    skipped = [Skip(seq, "not there: replayed, discarded or expired") for seq in selection.missing]
    worn = cautious = refused = 0
    for letter in selection.letters:
        if letter.replays >= limits.max_replays and not force:
            skipped.append(Skip(letter.seq, f"replay limit: replayed {letter.replays} times, needs --force"))
            continue
        if policy(letter) is ReplayPolicy.NEVER and not force:
            refused += 1
            skipped.append(
                Skip(letter.seq, f"policy never for {clean(letter.source)}: not safe to repeat, needs --force")
            )
            continue
        try:
            destination = to or fleet.dead_letters.destination(letter)
        except (UnknownDestination, InvalidName) as error:
            skipped.append(Skip(letter.seq, clean(str(error))))
            continue
        if problem := await stored.problem(destination):
            skipped.append(Skip(letter.seq, f"destination {clean(destination)}: {problem}"))
            continue
        cautious += policy(letter) is ReplayPolicy.CONFIRM
        worn += letter.replays >= limits.warn_replays
        items.append(PlannedItem(letter, destination))
    warnings = []
    if worn:
        warnings.append(f"{worn} of them were replayed {limits.warn_replays} times or more and died again")
    if cautious:
        warnings.append(
            f"{cautious} of them are for agents whose policy is to confirm: is it safe to repeat their work?"
        )
    return Plan(
        action="replay",
        items=tuple(items),
        skipped=tuple(skipped),
        selection=selection.text,
        rate=rate,
        to=to,
        force=force,
        reason=reason,
        warnings=tuple(warnings),
        prod=prod,
        refused=refused,
        cautious=bool(cautious),
    )


def policy_of(settings: Settings) -> Callable[[DeadLetter], ReplayPolicy]:
    """The policy of a letter: its inbox's, its role's, and for a subscription its agent's."""

    def policy(letter: DeadLetter) -> ReplayPolicy:
        if letter.kind == "tasks":
            return settings.policy_for("tasks", letter.name)
        agent = letter.name if letter.kind == "inbox" else letter.name.rpartition("-")[0]
        return settings.policy_for("inbox", agent)

    return policy


async def _require_deletable(fleet: Fleet) -> None:
    config = (await fleet.jetstream.stream_info(fleet.dead_letters.stream) or {}).get("config", {})
    forbidden = next((flag for flag in ("sealed", "deny_delete") if config.get(flag)), None)
    if forbidden:
        raise Refused(
            f"stream {fleet.dead_letters.stream} is configured with {forbidden}: a replayed letter could not be removed"
        )


class _Destinations:
    """Whether subjects are stored, each asked once."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[str, str] = {}

    async def problem(self, subject: str) -> str:
        """Why nothing can be sent there; empty if it can."""
        if subject not in self._known:
            self._known[subject] = await self._ask(subject)
        return self._known[subject]

    async def _ask(self, subject: str) -> str:
        tokens = subject.split(".")
        if any(not token or token in ("*", ">") or not token.isprintable() or " " in token for token in tokens):
            return "not a subject one can publish to"
        streams = await self._fleet.jetstream.stream_names(subject)
        if not streams:
            return "vanished, no stream stores it"
        return "more than one stream stores it" if len(streams) > 1 else ""
