"""Dead letters as the filter language and the screens see them; shared by monitor, operations and the commands."""

from __future__ import annotations

from dataclasses import replace

from console.filters import Record
from console.text.safe import clean
from patterns import DeadLetter


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
