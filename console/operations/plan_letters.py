"""Plans for dead letters: back to where they came from, elsewhere, or away."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from console.operations.errors import UsageError
from console.operations.items import Item, Items, Sample, Skip
from console.operations.places import Destinations, Stream, require_rate, require_removable
from console.operations.plan import SAMPLE, Plan
from console.operations.selection import Choice, Scan, letters
from console.settings import ReplayPolicy, Settings
from console.text.safe import clean
from patterns import DeadLetter, Fleet, InvalidName, UnknownDestination

GONE = "not there: replayed, discarded or expired"


def policy_of(settings: Settings) -> Callable[[DeadLetter], ReplayPolicy]:
    """The policy of a letter: its inbox's, its role's, and for a subscription its agent's."""

    def policy(letter: DeadLetter) -> ReplayPolicy:
        if letter.kind == "tasks":
            return settings.policy_for("tasks", letter.name)
        agent = letter.name if letter.kind == "inbox" else letter.name.rpartition("-")[0]
        return settings.policy_for("inbox", agent)

    return policy


async def plan_replay(
    fleet: Fleet,
    choice: Choice,
    *,
    rate: float | None,
    policy: Callable[[DeadLetter], ReplayPolicy] = lambda _: ReplayPolicy.SAFE,
    to: str | None = None,
    force: bool = False,
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to send letters back to where they came from, or all of them to another subject.

    Args:
        fleet: The connection.
        choice: Which letters.
        rate: Messages a second, 1 to 500; None for as fast as it goes.
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
    require_rate(rate)
    dead, destinations, scan = fleet.dead_letters, Destinations(fleet), Scan()
    stream = await Stream.of(fleet, dead.stream)
    if to is not None and (problem := await destinations.problem(to)):
        raise UsageError(f"--to {clean(to)}: {problem}")
    items, skipped, sample, commands = Items(), list[Skip](), list[Sample](), list[str]()
    limits = fleet.config.dead_letters
    worn = cautious = refused = unguarded = 0
    async for letter, stored in letters(fleet, choice, scan):
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
            destination = to or dead.destination(letter)
        except (UnknownDestination, InvalidName) as error:
            skipped.append(Skip(letter.seq, clean(str(error))))
            continue
        if problem := await destinations.problem(destination):
            skipped.append(Skip(letter.seq, f"destination {clean(destination)}: {problem}"))
            continue
        cautious += policy(letter) is ReplayPolicy.CONFIRM
        worn += letter.replays >= limits.warn_replays
        unguarded += not await destinations.guarded(destination)
        items.append(Item(letter.seq, stored.stored_ns, letter.source, destination))
        if len(sample) < SAMPLE:
            sample.append(_sample(letter, destination))
            commands.append(_replay_command(letter, destination))
    skipped += [Skip(seq, GONE) for seq in scan.missing]
    if len(items) and stream is not None:
        await require_removable(fleet, stream, purge=False)
    warnings = []
    if worn:
        warnings.append(f"{worn} of them were replayed {limits.warn_replays} times or more and died again")
    if cautious:
        warnings.append(
            f"{cautious} of them are for agents whose policy is to confirm: is it safe to repeat their work?"
        )
    if unguarded and len(items):
        warnings.append(
            f"{unguarded} go to consumers without receipts: one that is broken off may stay in doubt, and you will be asked"
        )
    return Plan(
        action="replay" if to is None else "move",
        stream=dead.stream,
        identity=stream.identity if stream is not None else "",
        items=items,
        skipped=tuple(skipped),
        selection=choice.text,
        looked=scan.text,
        sample=tuple(sample),
        rate=rate,
        to=to,
        force=force,
        reason=reason,
        keeps="each letter until the server has confirmed its replay",
        warnings=tuple(warnings),
        commands=tuple(commands),
        prod=prod,
        refused=refused,
        cautious=bool(cautious),
    )


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
