"""Plans for the messages of an inbox, a queue or the events: purge, rescue, restore, and the pause of a consumer."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from console.messages import Place
from console.operations.errors import OperationError, Refused, UsageError
from console.operations.holding import Consumer, allowed
from console.operations.items import Item, Items, Sample, Skip
from console.operations.ledger import JobLedger, identity_of
from console.operations.places import Destinations, Stream, require_rate, require_removable
from console.operations.plan import SAMPLE, Plan
from console.operations.plan_letters import kept_for_undo, no_way_back
from console.operations.selection import Choice, Scan, messages
from console.operations.spill import SpillFile
from console.rights import rights_of
from console.text import units
from console.text.safe import clean
from patterns import Fleet
from patterns.message import decode_stored
from patterns.rescue import find_stranded
from patterns.stored import StoredMessage

UNTOLD = "\ufffd"
"""What the server says in place of bytes that are no UTF-8: where such a message stood cannot be told."""
PAGE = 200
"""Messages of a spill file read at a time."""
LONGEST_PAUSE = 30 * 86400.0
"""Seconds: a pause that is forgotten ends."""


async def stream_of(fleet: Fleet, place: Place) -> Stream:
    """The stream of a place.

    Raises:
        OperationError: There is none.
    """
    stream = await Stream.of(fleet, place.stream)
    if stream is None:
        raise OperationError(clean(place.absence))
    return stream


async def plan_purge(
    fleet: Fleet,
    place: Place,
    choice: Choice,
    *,
    spill: Path | None,
    chosen: bool = False,
    hold: bool = False,
    rate: float | None = None,
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to remove messages of an inbox, a queue or the events.

    Args:
        fleet: The connection.
        place: Where.
        choice: Which.
        spill: Directory of the file they are written to first; None for no way back.
        chosen: They were marked one by one: it is a discard.
        hold: Pause their consumer meanwhile.
        rate: Messages a second; None for as fast as it goes.
        reason: Why, for the record.
        prod: Whether this is production.

    Raises:
        OperationError: There is no such stream.
        UsageError: The rate is out of range.
        Refused: The stream denies it, or the rights are missing.
        Unavailable: They cannot be read.
    """
    require_rate(rate)
    stream, scan = await stream_of(fleet, place), Scan()
    items, skipped, sample, commands = Items(), list[Skip](), list[Sample](), list[str]()
    async for message, stored in messages(fleet, place.stream, place.kind, place.name, choice, scan):
        if spill is not None and UNTOLD in stored.subject:
            skipped.append(Skip(stored.seq, "its subject is no UTF-8 and cannot be written down, needs --no-spill"))
            continue
        items.append(Item(stored.seq, stored.stored_ns, stored.subject))
        if len(sample) < SAMPLE:
            sample.append(Sample(stored.seq, stored.subject, message.type, message.id))
            commands.append(f"nats stream rmm -f {shlex.quote(place.stream)} {stored.seq}")
    if len(items):
        await require_removable(fleet, stream, purge=not chosen)
    if choice.whole:
        commands = [f"nats stream purge -f {shlex.quote(place.stream)} --seq {scan.last + 1}"]
    warnings = list(no_way_back(spill))
    consumer = await fleet.jetstream.consumer_info(place.stream, place.durable) if place.durable else None
    holds: tuple[Consumer, ...] = ((place.stream, place.durable),) if consumer is not None and place.durable else ()
    if len(items):
        holds = await allowed(fleet, holds, required=hold)
    in_flight = int(consumer["num_ack_pending"]) if consumer is not None else 0
    if in_flight and len(items):
        warnings.append(
            f"{in_flight} in flight there: one that is removed while its handler runs is finished all the same; "
            "pause it first to be sure"
        )
    return Plan(
        action="discard" if chosen else "purge",
        stream=place.stream,
        identity=stream.identity,
        items=items,
        noun="message",
        skipped=(*skipped, *(Skip(seq, "not there: handled, removed or expired") for seq in scan.missing)),
        selection=choice.text,
        looked=scan.text,
        sample=tuple(sample),
        rate=rate,
        reason=reason,
        keeps=kept_for_undo(spill),
        spill=spill,
        holds=holds,
        hold=hold and bool(holds),
        warnings=tuple(warnings),
        commands=tuple(commands),
        prod=prod,
        whole=choice.whole,
    )


async def plan_rescue(fleet: Fleet, *, rate: float | None = None, reason: str = "", prod: bool = False) -> Plan:
    """Plan to move every message that exhausted its deliveries, and that the server hides, to the dead letters.

    Looks at every work queue of the account, also at those that other code made. If there is no DLQ stream, the plan says
    that it will be made.

    Raises:
        UsageError: The rate is out of range.
        Refused: The rights are missing.
        Unavailable: They cannot be read.
    """
    require_rate(rate)
    items, sample, commands = Items(), list[Sample](), list[str]()
    rights, skipped = await rights_of(fleet), list[Skip]()
    unclear: list[str] = []
    async for found in find_stranded(fleet, skipped=unclear):
        delete = f"{fleet.jetstream.prefix}.STREAM.MSG.DELETE.{found.stream}"
        if not rights.may_publish(delete):
            skipped.append(Skip(found.seq, f"no permission to publish to {clean(delete)}"))
            continue
        items.append(Item(found.seq, found.stored_ns, f"{found.stream} {found.durable}", fleet.dead_letters.stream))
        if len(sample) < SAMPLE:
            sample.append(Sample(found.seq, found.stream, found.subject, "", error=f"{found.deliveries} deliveries"))
            commands.append(f"nats stream get {shlex.quote(found.stream)} {found.seq}")
    stream = await Stream.of(fleet, fleet.dead_letters.stream)
    warnings = []
    if stream is None and len(items):
        create = f"{fleet.jetstream.prefix}.STREAM.CREATE.{fleet.dead_letters.stream}"
        if not rights.may_publish(create):
            raise Refused(
                f"there is no stream {fleet.dead_letters.stream}, and these credentials may not make it: they need {create}"
            )
        warnings.append(f"there is no stream {fleet.dead_letters.stream} yet: it will be created")
    if unclear:
        more = f" (and {len(unclear) - 1} more)" if len(unclear) > 1 else ""
        warnings.append(clean(f"not judged: {unclear[0]}{more}"))
    return Plan(
        action="rescue",
        stream=fleet.dead_letters.stream,
        identity=stream.identity if stream is not None else "",
        items=items,
        noun="stranded message",
        skipped=tuple(skipped),
        selection="all that exhausted their deliveries, seen twice",
        sample=tuple(sample),
        rate=rate,
        reason=reason,
        keeps="each message where it is until its copy among the dead letters is confirmed",
        warnings=tuple(warnings),
        commands=tuple(commands),
        prod=prod,
    )


async def plan_restore(
    fleet: Fleet,
    path: Path,
    *,
    ledger: JobLedger | None = None,
    force: bool = False,
    rate: float | None = None,
    reason: str = "",
    prod: bool = False,
) -> Plan:
    """Plan to put back what a discard or purge removed.

    Args:
        fleet: The connection.
        path: The spill file.
        ledger: Where the job that wrote it may be, and those that put it back: it knows what a kill kept from the file.
        force: Also what was put back before.
        rate: Messages a second; None for as fast as it goes.
        reason: Why, for the record.
        prod: Whether this is production.

    Raises:
        OperationError: The file cannot be used, or holds what was never removed, or its stream is gone.
        UsageError: The rate is out of range.
        Unavailable: What is there cannot be read.
    """
    require_rate(rate)
    # A large file takes a while to read; none of it on the event loop.
    spill = await asyncio.to_thread(SpillFile, path)
    try:
        if not spill.finished:
            raise OperationError(
                f"{path} was never finished: nothing was removed after it, there is nothing to put back"
            )
        kept, back, warnings = await asyncio.to_thread(_known_of, spill, ledger)
        stream = await Stream.of(fleet, spill.stream)
        if stream is None:
            raise OperationError(f"there is no stream {clean(spill.stream)} to put them back into")
        items, skipped, sample, commands = Items(), list[Skip](), list[Sample](), list[str]()
        destinations, looked = Destinations(fleet), dict[str, str]()
        async for stored in _paged(spill):
            if stored.seq in kept:
                skipped.append(Skip(stored.seq, "was not removed by its job: it is there, or somebody handled it"))
                continue
            if stored.seq in back and not force:
                skipped.append(Skip(stored.seq, "was put back before, needs --force"))
                continue
            letter = fleet.dead_letters.decode(stored) if spill.stream == fleet.dead_letters.stream else None
            source = letter.source if letter is not None else stored.subject
            problem = await destinations.problem(looked.setdefault(source, stored.subject))
            if not problem and await destinations.stream(looked[source]) != spill.stream:
                problem = f"another stream stores it than {clean(spill.stream)}"
            if problem:
                skipped.append(Skip(stored.seq, f"destination {clean(stored.subject)}: {problem}"))
                continue
            # A letter has a subject of its own: what tells a person anything is where it died, and that it goes back.
            items.append(Item(stored.seq, stored.stored_ns, source, spill.stream))
            if len(sample) < SAMPLE:
                message = decode_stored(stored, names=fleet.names, stream=spill.stream)
                named = (letter.type, letter.id) if letter is not None else (message.type, message.id)
                sample.append(Sample(stored.seq, source, *named, destination=stored.subject))
                commands.append(f"nats pub --jetstream -H Nats-Msg-Id:<new> {shlex.quote(stored.subject)} <body>")
    finally:
        spill.close()
    return Plan(
        action="restore",
        stream=spill.stream,
        identity=stream.identity,
        items=items,
        noun="message",
        skipped=tuple(skipped),
        selection=clean(f"{path.name}: {spill.head.get('selection', '?')}", limit=200),
        sample=tuple(sample),
        rate=rate,
        reason=reason,
        keeps="the file; what is still there is not put back a second time",
        source=path,
        warnings=warnings,
        settings={"undoes": str(spill.head.get("job", ""))},
        commands=tuple(commands),
        prod=prod,
    )


def _known_of(spill: SpillFile, ledger: JobLedger | None) -> tuple[set[int], set[int], tuple[str, ...]]:
    """What its job did not remove, what was put back already, and what nobody knows; blocking.

    Raises:
        OperationError: Its job is at work.
    """
    back, known = set(spill.restored), None
    job = ledger.job(str(spill.head.get("job", ""))) if ledger is not None else None
    if ledger is not None and job is not None:
        if job.state in ("running", "paused"):
            raise OperationError(f"job {job.id}, which wrote {spill.path.name}, is {job.state}: wait for its end")
        known = {entry.item.seq for entry in ledger.all_items(job.id) if entry.state != "done"}
        for restore in ledger.jobs():
            if restore.action == "restore" and restore.spec.get("undoes") == job.id:
                back.update(e.item.seq for e in ledger.items(restore.id, "done", "duplicate"))
    elif spill.kept is not None:
        known = spill.kept
    if known is not None:
        return known, back, ()
    return set(), back, ("nobody knows how far its job got: what was handled since may be put back a second time",)


async def _paged(spill: SpillFile) -> AsyncIterator[StoredMessage]:
    messages = spill.messages()
    while page := await asyncio.to_thread(lambda: list(islice(messages, PAGE))):
        for message in page:
            yield message


async def plan_pause(fleet: Fleet, place: Place, seconds: float, *, reason: str = "", prod: bool = False) -> Plan:
    """Plan to pause the consumer of an inbox or a queue for some seconds, or with 0 to resume it.

    Raises:
        OperationError: There is no such consumer.
        UsageError: The time is out of range.
        Refused: The rights are missing.
    """
    if not 0 <= seconds <= LONGEST_PAUSE:
        raise UsageError(f"a pause lasts at most {units.age(LONGEST_PAUSE)}")
    stream = await stream_of(fleet, place)
    durable = place.durable or ""
    info = await fleet.jetstream.consumer_info(place.stream, durable) if durable else None
    if info is None:
        raise OperationError(f"{clean(place.title)} has no consumer {clean(durable)}")
    subject = f"{fleet.jetstream.prefix}.CONSUMER.PAUSE.{place.stream}.{durable}"
    if not (await rights_of(fleet)).may_publish(subject):
        raise Refused(f"these credentials may not pause it: they need publish to {clean(subject)}")
    paused, items = bool(info.get("paused")), Items()
    settings: Mapping[str, float | str] = {
        "durable": durable,
        "seconds": seconds,
        "name": place.name,
        "kind": place.kind,
    }
    skipped = (Skip(0, "is not paused"),) if not seconds and not paused else ()
    if not skipped:
        items.append(Item(0, 0, place.stream))
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    verb = "pause" if seconds else "resume"
    command = f"nats consumer {verb} {shlex.quote(place.stream)} {shlex.quote(durable)}"
    return Plan(
        action=verb,  # type: ignore[arg-type]
        stream=place.stream,
        # A pause may run beside another job on the stream: it takes no message.
        identity=identity_of(f"{place.stream} {durable}", stream.identity),
        items=items,
        noun=place.title,
        skipped=skipped,
        selection=place.title,
        looked="",
        rate=None,
        reason=reason,
        keeps=(
            f"everything: messages stay, what is in flight may be finished, after {units.age(seconds)} it goes on by itself"
            if seconds
            else "everything: deliveries go on at once"
        ),
        settings=settings,
        warnings=(f"{clean(place.title)} is paused already: this one counts from now",) if paused and seconds else (),
        commands=(f"{command} {until:%Y-%m-%dT%H:%M:%SZ}" if seconds else command,),
        prod=prod,
    )
