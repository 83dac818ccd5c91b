"""Dead letters as the filter language and the screens see them; shared by monitor, operations and the commands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from console.filters import Record
from console.text import units
from console.text.safe import clean
from patterns import DeadLetter, Death


@dataclass(frozen=True, slots=True)
class Gap:
    """Earlier deaths of a letter that are not on record."""

    first: int
    last: int
    replayed_by: str = ""
    """Who brought it back from the last of them, as far as that is known."""
    job: str = ""

    @property
    def text(self) -> str:
        """How many they are, in words."""
        many = self.last - self.first + 1
        return f"{units.count(many)} earlier {'death is' if many == 1 else 'deaths are'} not on record"


def chain(letter: DeadLetter) -> list[Death | Gap]:
    """All deaths of a letter, oldest first, the present one last; what is not on record between them is a gap."""
    links: list[Death | Gap] = []
    n = 1
    for death in (*letter.lineage, letter.death):
        if death.n > n:
            # Of the last replay the letter itself knows more than its chain.
            last = death.n == letter.replays + 1
            known = (letter.replayed_by, letter.replay_job) if last else ("", "")
            links.append(Gap(n, death.n - 1, *known))
        links.append(death)
        n = death.n + 1
    return links


def record_of(letter: DeadLetter) -> Record:
    """A letter as the filter language sees it."""
    return Record(
        seq=letter.seq,
        subject=letter.subject,
        type=letter.type,
        kind=letter.kind,
        name=letter.name,
        agent=letter.agent,
        reason=letter.reason,
        error=letter.error_text,
        id=letter.id,
        correlation_id=letter.correlation_id,
        attempts=letter.deliveries,
        replays=letter.replays,
        at=letter.died_at,
        size=letter.size,
        headers=letter.message.headers,
        data=letter.message.data,
        text=letter.message.text,
        dead=True,
    )


def cleaned(letter: DeadLetter) -> DeadLetter:
    """A letter whose one-line texts are safe to show; the message inside stays as it is."""
    return replace(
        letter,
        name=clean(letter.name),
        subject=clean(letter.subject),
        id=clean(letter.id),
        type=clean(letter.type),
        reason=clean(letter.reason),
        error_type=clean(letter.error_type),
        error=clean(letter.error),
        agent=clean(letter.agent),
        stream=clean(letter.stream),
        correlation_id=clean(letter.correlation_id),
    )
