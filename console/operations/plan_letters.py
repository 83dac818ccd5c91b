"""Plans for dead letters: back to where they came from, elsewhere, or away."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from console.operations.canary import Canary
from console.operations.edits import Edit, EditError, diff
from console.operations.errors import Refused, UsageError
from console.operations.holding import Consumer, allowed, receivers
from console.operations.items import Item, Items, Sample, Skip
from console.operations.places import Destinations, Stream, require_rate, require_removable
from console.operations.plan import SAMPLE, TYPED, Plan
from console.operations.selection import Choice, Scan, letters
from console.settings import ReplayPolicy, Rule, Settings
from console.text.safe import clean
from patterns import DeadLetter, Fleet, InvalidName, UnknownDestination
from patterns.names import Place
from patterns.stored import StoredMessage

GONE = "not there: replayed, discarded or expired"


Policy = Callable[[DeadLetter, Place | None], Rule]
"""What holds for a letter that goes to a place of the fleet; None where it goes is none."""


def policy_of(settings: Settings) -> Policy:
    """What holds for a letter: the strictest of where it died, where it goes, and its type.

    A subscription is its agent's.
    """

    def rule(letter: DeadLetter, goes_to: Place | None) -> Rule:
        agent = letter.name.rpartition("-")[0] if letter.kind == "events" else letter.name
        of_origin = settings.rule_for("tasks" if letter.kind == "tasks" else "inbox", agent, letter.type)
        rules = [replace(of_origin, of=letter.source)]
        if goes_to is not None and goes_to.kind in ("inbox", "tasks"):
            of_goal = settings.rule_for("tasks" if goes_to.kind == "tasks" else "inbox", goes_to.name, letter.type)
            rules.append(replace(of_goal, of=f"{goes_to.kind}.{goes_to.name}"))
        return max(rules, key=lambda rule: rule.policy.strictness)

    return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How letters are sent."""

    rate: float | None
    """Messages a second, 1 to 500; None for as fast as it goes."""
    to: str | None = None
    """One destination subject for all of them instead of their own."""
    edit: Edit | None = None
    """What is changed in each of them."""
    canary: Canary | None = None
    """A few of them first."""
    stop_ratio: float | None = None
    """Stop when more than this share died again."""
    hold: bool = False
    """Pause their consumers meanwhile."""
    force: bool = False
    """Also those that were replayed as often as allowed, or whose policy is `never`."""

    def __post_init__(self) -> None:
        require_rate(self.rate)
        if self.canary is not None and self.hold:
            raise UsageError("a canary is watched at work: it cannot be sent to a consumer that is paused")
        if self.stop_ratio is not None and not 0 <= self.stop_ratio <= 1:
            raise UsageError(f"the share of deaths that stops a replay is between 0 and 1, not {self.stop_ratio:g}")


async def plan_replay(
    fleet: Fleet,
    choice: Choice,
    sending: Sending,
    *,
    policy: Policy = lambda *_: Rule(),
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to send letters back to where they came from, or all of them to another subject.

    Args:
        fleet: The connection.
        choice: Which letters.
        sending: How.
        policy: How careful to be with a letter, from the settings.
        reason: Why, for the record.
        prod: Whether this is production: every count is typed then.

    Raises:
        UsageError: Nothing can be published to where they should go.
        Refused: The DLQ does not let its letters be deleted: they would stay, and be replayed again; or consumers that
            should be paused cannot be.
        Unavailable: The destinations cannot be checked.
    """
    planner = _ReplayPlanner(fleet, sending, policy)
    return await planner.plan(choice, reason=reason, prod=prod)


class _ReplayPlanner:
    """Makes one plan."""

    def __init__(self, fleet: Fleet, sending: Sending, policy: Policy) -> None:
        self._fleet = fleet
        self._sending = sending
        self._policy = policy
        self._destinations = Destinations(fleet)
        self._items, self._skipped = Items(), list[Skip]()
        self._sample, self._commands = list[Sample](), list[str]()
        self._diff: tuple[str, ...] = ()
        self._overridden: Counter[str] = Counter()
        self._cautious: Counter[str] = Counter()
        self._worn = self._refused = self._unguarded = 0

    async def plan(self, choice: Choice, *, reason: str, prod: bool) -> Plan:
        """Look at each chosen letter."""
        fleet, how, scan = self._fleet, self._sending, Scan()
        dead = fleet.dead_letters
        stream = await Stream.of(fleet, dead.stream)
        if how.to is not None and (problem := await self._destinations.problem(how.to)):
            raise UsageError(f"--to {clean(how.to)}: {problem}")
        async for letter, stored in letters(fleet, choice, scan):
            why = await self._take(letter, stored)
            if why:
                self._skipped.append(Skip(letter.seq, why))
        self._skipped += [Skip(seq, GONE) for seq in scan.missing]
        if len(self._items) and stream is not None:
            await require_removable(fleet, stream, purge=False)
        holds: tuple[Consumer, ...] = ()
        if len(self._items) and (how.hold or (len(self._items) > TYPED and how.canary is None)):
            with contextlib.suppress(*(() if how.hold else (Refused,))):
                holds = await receivers(fleet, self._items, self._destinations)
            holds = await allowed(fleet, holds, required=how.hold)
        return Plan(
            action="move" if how.to is not None else "replay" if how.edit is None else "edit",
            stream=dead.stream,
            identity=stream.identity if stream is not None else "",
            items=self._items,
            skipped=tuple(self._skipped),
            selection=choice.text,
            looked=scan.text,
            sample=tuple(self._sample),
            rate=how.rate,
            to=how.to,
            force=how.force,
            reason=reason,
            keeps="each letter until the server has confirmed its replay",
            edit=how.edit,
            diff=self._diff,
            canary=how.canary,
            stop_ratio=how.stop_ratio,
            holds=holds,
            hold=how.hold and bool(holds),
            warnings=tuple(self._warnings()),
            commands=tuple(self._commands),
            prod=prod,
            refused=self._refused,
            overridden=dict(self._overridden),
            cautious=bool(self._cautious),
        )

    async def _take(self, letter: DeadLetter, stored: StoredMessage) -> str:
        """Take a letter into the plan; why not, if it is left alone."""
        limits, force = self._fleet.config.dead_letters, self._sending.force
        overridden = list[str]()
        if letter.replays >= limits.max_replays:
            if not force:
                self._refused += 1
                return f"replay limit: replayed {letter.replays} times, needs --force"
            overridden.append("replay limit")
        try:
            destination = self._sending.to or self._fleet.dead_letters.destination(letter)
        except (UnknownDestination, InvalidName) as error:
            return clean(str(error))
        problem = await self._destinations.problem(destination)
        stream = await self._destinations.stream(destination)
        rule = self._policy(letter, self._fleet.names.place_of(stream) if stream else None)
        if rule.policy is ReplayPolicy.NEVER:
            if not force:
                self._refused += 1
                why = clean(rule.reason) or "not safe to repeat"
                return f"policy never for {_whose(rule, letter)}: {why}; only the command line overrides it, by --force"
            overridden.append(f"policy never for {_whose(rule, letter)}")
        if problem:
            return f"destination {clean(destination)}: {problem}"
        try:
            edited = await self._sending.edit.applied(stored) if self._sending.edit is not None else None
        except EditError as error:
            return f"cannot be edited so: {clean(str(error))}"
        self._overridden.update(overridden)
        if rule.policy is ReplayPolicy.CONFIRM:
            self._cautious[f"{_whose(rule, letter)}{f' ({clean(rule.reason)})' if rule.reason else ''}"] += 1
        self._worn += letter.replays >= limits.warn_replays
        self._unguarded += not await self._destinations.guarded(destination)
        if edited is not None and not len(self._items):
            self._diff = tuple(await asyncio.to_thread(diff, stored, edited))
        self._items.append(Item(letter.seq, stored.stored_ns, letter.source, destination))
        if len(self._sample) < SAMPLE:
            self._sample.append(_sample(letter, destination))
            self._commands.append(_replay_command(letter, destination))
        return ""

    def _warnings(self) -> Iterator[str]:
        limits = self._fleet.config.dead_letters
        for what, count in self._overridden.items():
            yield f"{count} of them only by force: {what}"
        if self._worn:
            verb = "was" if self._worn == 1 else "were"
            yield f"{self._worn} of them {verb} replayed {limits.warn_replays} times or more, and died again"
        if self._cautious:
            shown = ", ".join(f"{count} for {whose}" for whose, count in self._cautious.most_common(3))
            more = f" and {len(self._cautious) - 3} more" if len(self._cautious) > 3 else ""
            yield f"their policy is to confirm: {shown}{more}. Is it safe to repeat their work?"
        if self._unguarded and len(self._items):
            yield (
                f"{self._unguarded} go to consumers without receipts: one that is broken off may stay in doubt, and you will "
                "be asked"
            )


def _whose(rule: Rule, letter: DeadLetter) -> str:
    return clean(f"{rule.of or letter.source} {letter.type}".strip(), limit=80)


async def plan_discard(
    fleet: Fleet,
    choice: Choice,
    *,
    spill: Path | None,
    purge: bool = False,
    rate: float | None = None,
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to remove dead letters: `discard` of chosen ones, `purge` of all that match.

    Args:
        fleet: The connection.
        choice: Which letters.
        spill: Directory of the file they are written to first; None for no way back.
        purge: Whether it is all that match.
        rate: Letters a second; None for as fast as it goes.
        reason: Why, for the record.
        prod: Whether this is production.

    Raises:
        UsageError: The rate is out of range.
        Refused: The stream denies it, or the rights are missing.
        Unavailable: They cannot be read.
    """
    require_rate(rate)
    dead, scan = fleet.dead_letters, Scan()
    stream = await Stream.of(fleet, dead.stream)
    items, sample, commands = Items(), list[Sample](), list[str]()
    async for letter, stored in letters(fleet, choice, scan):
        items.append(Item(letter.seq, stored.stored_ns, letter.source))
        if len(sample) < SAMPLE:
            sample.append(_sample(letter, ""))
            commands.append(f"nats stream rmm -f {shlex.quote(dead.stream)} {letter.seq}")
    if len(items) and stream is not None:
        await require_removable(fleet, stream, purge=purge)
    return Plan(
        action="purge" if purge else "discard",
        stream=dead.stream,
        identity=stream.identity if stream is not None else "",
        items=items,
        skipped=tuple(Skip(seq, GONE) for seq in scan.missing),
        selection=choice.text,
        looked=scan.text,
        sample=tuple(sample),
        rate=rate,
        reason=reason,
        keeps=kept_for_undo(spill),
        spill=spill,
        warnings=no_way_back(spill),
        commands=tuple(commands),
        prod=prod,
        whole=choice.whole,
    )


def kept_for_undo(spill: Path | None) -> str:
    """What a removal keeps, in words."""
    if spill is None:
        return "nothing: they are gone for good"
    return "all of them, in a spill file that `restore FILE`, or U on the screen, puts back"


def no_way_back(spill: Path | None) -> tuple[str, ...]:
    """The warning of a removal that cannot be undone."""
    return () if spill is not None else ("nothing is written down first: there is no way back",)


def _sample(letter: DeadLetter, destination: str) -> Sample:
    return Sample(letter.seq, letter.source, letter.type, letter.id, letter.reason, letter.error_text, destination)


def _replay_command(letter: DeadLetter, destination: str) -> str:
    replayed = f"{letter.entry}:r{letter.replays + 1}"
    stream = shlex.quote(str(letter.message.stream))
    return (
        f"nats stream get {stream} {letter.seq}  &&  "
        f"nats pub --jetstream -H {shlex.quote(f'Nats-Msg-Id:{replayed}')} {shlex.quote(destination)} <body>  &&  "
        f"nats stream rmm -f {stream} {letter.seq}"
    )
