"""The chain of deaths that a replayed message carries: a replay deletes the letter, and its story goes along as a header.

One header a death, `Dead-Letter-Death-<n>`, a URL-encoded query string: any tool can read it, no error text breaks the line.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from patterns.headers import format_time, header_size, number, parse_time
from patterns.names import Entry

DEATH: Final = "Dead-Letter-Death-"
"""Followed by the number of the death, from 1."""

DEATH_LIMIT = 512
"""Characters of one death: a longer header is among the first that a copy drops."""

DEATHS_KEPT = 20
"""Deaths that a message carries: the first one and the latest."""

_NAME = re.compile(DEATH + r"([1-9][0-9]{0,17})")
_SAFE = ":@/,"
"""What a header may hold and a query string, too, so that times and places stay readable."""
_PLAIN = re.compile(r"[A-Za-z0-9_.~:@/,-]*")
"""What needs no encoding, most fields of most deaths."""
_CUT = urllib.parse.quote("…")
_LIMITS: Final = {"reason": 40, "job": 64, "by": 96, "agent": 96, "type": 96}
"""Characters of these fields, encoded; the error gets what is left."""
_MOST_FIELDS = 32


@dataclass(frozen=True, slots=True)
class Death:
    """One death of a message, and how it came back."""

    n: int
    """Which of its deaths, from 1."""
    entry: str
    """Names it for ever, as `DeadLetter.entry`."""
    seq: int
    """Sequence that its letter had in the DLQ stream."""
    at: datetime
    reason: str
    error_type: str
    error: str
    """Cut to what fits into a header."""
    agent: str
    """Who failed."""
    deliveries: int
    """Attempts before it."""
    replayed_by: str = ""
    replayed_at: datetime | None = None
    """None for the present death, from which it has not come back."""
    job: str = ""
    """What it was replayed by, as the console's jobs are named; empty if that has no name."""
    edited: bool = False
    """Whether it came back with another body or other headers."""

    @property
    def source(self) -> str:
        """`<kind>.<name>`, as `DeadLetter.source`."""
        return self.entry.rpartition(".")[0]

    @property
    def error_text(self) -> str:
        """`Type: text`, or whichever of the two there is."""
        return ": ".join(part for part in (self.error_type, self.error) if part)


def is_death(name: str) -> bool:
    """Whether a header tells of an earlier death."""
    return name.startswith(DEATH) and _NAME.fullmatch(name) is not None


def read_deaths(headers: Mapping[str, str], before: int) -> tuple[Death, ...]:
    """The deaths on record, oldest first; what is broken or bears the number of none is left out.

    Args:
        headers: Of the message, the deaths among them as they stand on the wire.
        before: Deaths it can have died: those with higher numbers are no part of its story.
    """
    found = (_read(n, text) for n, text in sorted(_deaths(headers).items()) if n <= before)
    return tuple(death for death in found if death is not None)


def continued(headers: Mapping[str, str], death: Death) -> dict[str, str]:
    """The headers that tell the chain when a message comes back from `death`: those of before, and its own."""
    told = {n: text for n, text in _deaths(headers).items() if n < death.n and len(text) <= DEATH_LIMIT}
    told[death.n] = _write(death)
    numbers = sorted(told)
    kept = numbers[:1] + numbers[1:][1 - DEATHS_KEPT :]
    return {f"{DEATH}{n}": told[n] for n in kept}


def lighten(headers: Mapping[str, str], room: int) -> dict[str, str]:
    """These headers without so many deaths that the block takes `room` bytes: the first goes last, else the oldest first.

    A body is worth more than its story: what cannot be stored whole cannot be replayed. As they are if that does not help.
    """
    over, left = header_size(headers) - room, dict(headers)
    if over <= 0:
        return left
    numbers = sorted(_deaths(headers))
    for n in numbers[1:] + numbers[:1]:
        if over <= 0:
            break
        name = f"{DEATH}{n}"
        over -= 4 + len(name) + len(left.pop(name).encode())
    return left if over <= 0 else dict(headers)


def _deaths(headers: Mapping[str, str]) -> dict[int, str]:
    return {
        int(match[1]): text
        for name, text in headers.items()
        if name.startswith(DEATH) and (match := _NAME.fullmatch(name))
    }


def _write(death: Death) -> str:
    told = {
        "at": format_time(death.at),
        "entry": death.entry,
        "seq": str(death.seq),
        "tries": str(death.deliveries),
        "replayed": format_time(death.replayed_at) if death.replayed_at else "",
        "edited": "1" if death.edited else "",
        "reason": death.reason,
        "job": death.job,
        "by": death.replayed_by,
        "agent": death.agent,
        "type": death.error_type,
        "error": death.error,
    }
    text = ""
    for key, value in told.items():
        label = f"{'&' if text else ''}{key}="
        fitting = _fitting(value, min(_LIMITS.get(key, DEATH_LIMIT), DEATH_LIMIT - len(text) - len(label)))
        if fitting:
            text += label + fitting
    return text


def _read(n: int, text: str) -> Death | None:
    if len(text) > DEATH_LIMIT:
        return None
    try:
        told = dict(urllib.parse.parse_qsl(text, max_num_fields=_MOST_FIELDS))
        entry, at = Entry.parse(told.get("entry", "")), parse_time(told.get("at", ""))
    except (ValueError, OverflowError):
        return None
    return Death(
        n=n,
        entry=str(entry),
        seq=number(told.get("seq", "")),
        at=at,
        reason=told.get("reason", ""),
        error_type=told.get("type", ""),
        error=told.get("error", ""),
        agent=told.get("agent", ""),
        deliveries=number(told.get("tries", "")),
        replayed_by=told.get("by", ""),
        replayed_at=_time(told.get("replayed", "")),
        job=told.get("job", ""),
        edited=told.get("edited") == "1",
    )


def _time(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        return None


def _fitting(text: str, room: int) -> str:
    """`text` encoded, cut to `room` characters; nothing where there is no room for a part of it."""
    encoded = text if _PLAIN.fullmatch(text) else urllib.parse.quote_plus(text, safe=_SAFE, errors="replace")
    if len(encoded) <= room:
        return encoded
    if room <= len(_CUT):
        return ""
    # Neither half an escape nor half a character may stay.
    part = re.sub(r"%.?$", "", encoded[: room - len(_CUT)])
    return urllib.parse.quote_plus(urllib.parse.unquote_plus(part, errors="ignore"), safe=_SAFE) + _CUT
