"""Which messages: a choice is checked without a server, resolved once and frozen, so that what was seen is acted on.

Reading goes through the stream in pages without a consumer; of what matches, only what a plan needs is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from console.filters import Filter, parse, parse_duration
from console.letters import record_of
from console.messages import record_of as message_record
from console.operations.errors import UsageError
from patterns import DeadLetter, Fleet, Message
from patterns.message import decode_stored
from patterns.names import Kind
from patterns.stored import StoredMessage

PAGE = 500
NEWEST = 2**64 - 1
"""The largest sequence there can be; beyond, the server answers with an error instead of "not there"."""
LETTERS = "dead letters"
"""The noun of a choice among dead letters."""
FEW = 64
"""Up to so many chosen sequences are asked for one by one; more are looked for by pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which messages of a stream, not looked up yet. All that is given must hold."""

    text: str
    """How they were chosen, in words, with absolute times."""
    seqs: Mapping[int, int | str | None] = field(default_factory=dict)
    """Exactly these sequences; with what must be stored there, if that was seen: nanoseconds, or a letter's entry."""
    wanted: Filter | None = None
    everything: bool = False
    subject: str | None = None
    """A NATS pattern."""
    up_to: int | None = None
    """Up to this sequence."""
    keep: int | None = None
    """All but so many of the newest of what is chosen otherwise."""
    before: datetime | None = None
    """Stored (or dead) before this moment."""

    @property
    def whole(self) -> bool:
        """Whether it is all there is."""
        return self.everything and not (self.wanted or self.subject or self.up_to or self.keep or self.before)


@dataclass(slots=True)
class Scan:
    """How far a reading looked."""

    looked: int = 0
    """Messages read."""
    last: int = 0
    """The newest sequence when it began; nothing later is chosen."""
    matched: int = 0
    missing: list[int] = field(default_factory=list)
    """Chosen sequences that are not there, or hold another message now."""

    @property
    def text(self) -> str:
        """In words."""
        noun = "message" if self.looked == 1 else "messages"
        return f"looked at {self.looked:,} {noun} up to sequence {self.last:,}; later ones are not touched"


def choose(  # noqa: PLR0912 - one check each
    noun: str,
    *,
    seqs: Sequence[int] = (),
    expression: str | None = None,
    everything: bool = False,
    subject: str | None = None,
    up_to: int | None = None,
    keep: int | None = None,
    older_than: str | None = None,
    now: datetime | None = None,
) -> Choice:
    """Check a choice, without a server.

    Args:
        noun: What is chosen, for errors: `dead letters`.
        seqs: Sequences; or
        expression: a filter; or
        everything: all of them; or any of the next four, which narrow a filter, too.
        subject: On this subject, wildcards allowed.
        up_to: Up to this sequence.
        keep: All but so many of the newest.
        older_than: An age such as `2h`; turned into a time here and now.
        now: The moment ages count from.

    Raises:
        UsageError: Nothing was chosen, or what excludes each other, or an empty filter.
        FilterError: Filter or age cannot be read.
    """
    moment = datetime.now(UTC) if now is None else now
    narrowing = [value for value in (subject, up_to, keep, older_than) if value is not None]
    ways = sum((bool(seqs), expression is not None, everything))
    if ways > 1 or (seqs and narrowing) or not (ways or narrowing):
        if noun == LETTERS:
            raise UsageError(f"say which {noun}: SEQ..., --filter EXPR or --all (one of them)")
        raise UsageError(
            f"say which {noun}: --filter EXPR or --all (one of them), --subject, --older-than, --keep or --up-to-seq"
        )
    if everything and narrowing:
        raise UsageError("--all is all: leave it out to narrow by --subject, --up-to-seq, --keep or --older-than")
    if expression is not None and not expression.strip():
        raise UsageError("an empty filter would select everything: say --all if you mean it")
    if subject is not None and not subject.strip():
        raise UsageError("an empty --subject would select everything: say --all if you mean it")
    if keep is not None and keep < 1:
        raise UsageError("--keep 0 keeps nothing: say --all if you mean it")
    if up_to is not None and up_to < 1:
        raise UsageError("--up-to-seq starts at 1")
    if keep is not None and up_to is not None:
        raise UsageError("--keep and --up-to-seq exclude each other")
    wanted = parse(expression, now=moment) if expression is not None else None
    before = None
    words = []
    if seqs:
        words.append("seq:" + ",".join(str(seq) for seq in seqs))
    if wanted is not None:
        words.append(wanted.describe())
    if everything:
        words.append("all")
    if subject is not None:
        words.append(f"subject {subject}")
    if up_to is not None:
        words.append(f"up to sequence {up_to}")
    if older_than is not None:
        try:
            seconds = parse_duration(older_than)
            before = moment - timedelta(seconds=seconds)
        except (ValueError, OverflowError):
            raise UsageError(f"--older-than {older_than!r}: expected an age like 90s, 10m or 1h30m") from None
        if seconds <= 0:
            raise UsageError(f"--older-than {older_than} is everything: say --all if you mean it")
        words.append(f"before {before.astimezone(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}")
    if keep is not None:
        words.append(f"but the newest {keep}" if words else f"all but the newest {keep}")
    return Choice(
        text=" and ".join(words),
        seqs=dict.fromkeys(seqs),
        wanted=wanted,
        everything=everything,
        subject=subject,
        up_to=up_to,
        keep=keep,
        before=before,
    )


def freeze(letters: Iterable[DeadLetter], text: str) -> Choice:
    """A choice of letters that are on the screen."""
    return Choice(text=text, seqs={letter.seq: letter.entry for letter in letters})


async def letters(fleet: Fleet, choice: Choice, scan: Scan) -> AsyncIterator[tuple[DeadLetter, StoredMessage]]:
    """The chosen dead letters in the order of their deaths, and the copies they were read from."""
    dead = fleet.dead_letters
    if choice.keep is not None:
        choice = _but(choice.keep, choice, [letter.seq async for letter, _ in letters(fleet, _all(choice), Scan())])
    async for stored in _chosen(fleet, dead.stream, choice, scan):
        letter = dead.decode(stored)
        if letter is None:
            _missed(choice, scan, stored.seq)
        elif isinstance(seen := choice.seqs.get(stored.seq), str) and seen != letter.entry:
            scan.missing.append(stored.seq)
        elif choice.before is not None and letter.died_at >= choice.before:
            continue
        elif choice.wanted is None or choice.wanted.matches(record_of(letter)):
            scan.matched += 1
            yield letter, stored


async def messages(
    fleet: Fleet, stream: str, kind: Kind, name: str, choice: Choice, scan: Scan
) -> AsyncIterator[tuple[Message, StoredMessage]]:
    """The chosen messages of an inbox, a queue or the events, oldest first."""
    if choice.keep is not None:
        every = messages(fleet, stream, kind, name, _all(choice), Scan())
        choice = _but(choice.keep, choice, [stored.seq async for _, stored in every])
    async for stored in _chosen(fleet, stream, choice, scan):
        if choice.before is not None and stored.stored_at >= choice.before:
            continue
        message = decode_stored(stored, names=fleet.names, stream=stream)
        if choice.wanted is None or choice.wanted.matches(message_record(message, kind=kind, name=name)):
            scan.matched += 1
            yield message, stored


async def _chosen(fleet: Fleet, stream: str, choice: Choice, scan: Scan) -> AsyncIterator[StoredMessage]:
    """What is stored where the choice points, filters aside."""
    info = await fleet.jetstream.stream_info(stream)
    state = info["state"] if info is not None else {}
    scan.last = int(state.get("last_seq", 0))
    if choice.seqs:
        async for stored in _by_sequence(fleet, stream, choice, scan):
            yield stored
        return
    last = scan.last if choice.up_to is None else min(scan.last, choice.up_to)
    async for stored in _pages(fleet, stream, 1, last, choice.subject, scan):
        yield stored


async def _pages(
    fleet: Fleet, stream: str, start: int, last: int, subject: str | None, scan: Scan
) -> AsyncIterator[StoredMessage]:
    while start <= last:
        page = await fleet.jetstream.read(stream, start=start, limit=PAGE, subject=subject)
        if not page.messages:
            return
        for stored in page.messages:
            if stored.seq > last:
                return
            scan.looked += 1
            yield stored
        start = page.next_seq


async def _by_sequence(fleet: Fleet, stream: str, choice: Choice, scan: Scan) -> AsyncIterator[StoredMessage]:
    wanted = sorted(seq for seq in choice.seqs if 1 <= seq <= scan.last)
    scan.missing += sorted(seq for seq in choice.seqs if not 1 <= seq <= scan.last)
    if len(wanted) <= FEW:
        for seq in wanted:
            stored = await fleet.jetstream.get(stream, seq)
            scan.looked += 1
            if stored is None or _other(choice, stored):
                scan.missing.append(seq)
            else:
                yield stored
        return
    left = dict.fromkeys(wanted)
    async for stored in _pages(fleet, stream, wanted[0], wanted[-1], None, scan):
        if stored.seq in left:
            del left[stored.seq]
            if _other(choice, stored):
                scan.missing.append(stored.seq)
            else:
                yield stored
    scan.missing += left


def _all(choice: Choice) -> Choice:
    return replace(choice, keep=None)


def _but(keep: int, choice: Choice, seqs: Sequence[int]) -> Choice:
    """The choice without the newest of what it takes."""
    return replace(choice, keep=None, up_to=seqs[-keep - 1] if len(seqs) > keep else 0)


def _other(choice: Choice, stored: StoredMessage) -> bool:
    seen = choice.seqs.get(stored.seq)
    return isinstance(seen, int) and seen != stored.stored_ns


def _missed(choice: Choice, scan: Scan, seq: int) -> None:
    if choice.seqs:
        scan.missing.append(seq)
