"""Sizes, ages, counts and times, as short as a table needs them and never more exact than they are.

Nothing here raises for a number that is missing or meaningless: None, NaN and the infinities are shown as `NOTHING`.
"""

from __future__ import annotations

import math
from datetime import datetime, tzinfo
from typing import Final

import humanize

NOTHING: Final = "\u2013"
"""What stands where there is no value."""

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def count(n: int | None, *, compact: bool = False) -> str:
    """A count: ``1,234``; with `compact`, from 10,000 on, with a letter: ``12.3k``, ``4.6M``."""
    if n is None:
        return NOTHING
    if compact and abs(n) >= 10_000:
        return _metric(n)
    return humanize.intcomma(n)


def size(bytes: int | None) -> str:
    """A size in bytes, in binary units as the nats tool prints them: ``412 B``, ``64.0 KiB``."""
    if bytes is None:
        return NOTHING
    return humanize.naturalsize(bytes, binary=True).replace(" Bytes", " B").replace(" Byte", " B")


def age(seconds: float | None) -> str:
    """A duration in its two largest units: ``<1s``, ``34s``, ``2m4s``, ``1h3m``, ``3d4h``, ``412d``.

    Args:
        seconds: The duration; a negative one (clocks differ) counts as none.
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    whole = int(seconds)
    if whole < 1:
        return "<1s"
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 100 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    return f"{whole // _DAY}d" if whole < 10_000 * _DAY else ">9999d"


def rate(per_second: float | None) -> str:
    """A rate per second: ``0.0``, ``<0.1``, ``0.4``, ``12``, ``1.2k``. Only a rate of zero is shown as zero."""
    if per_second is None or not math.isfinite(per_second):
        return NOTHING
    if per_second < 0:
        return f"-{rate(-per_second)}"
    if 0 < per_second < 0.05:
        return "<0.1"
    if per_second < 9.95:
        return f"{per_second:.1f}"
    if per_second < 999.5:
        return f"{per_second:.0f}"
    return _metric(per_second)


def rtt(seconds: float | None) -> str:
    """A round trip: ``0.3ms``, ``45ms``, ``1.2s``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    seconds = max(seconds, 0.0)
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 99.95 else age(seconds)


def clock(moment: datetime | None, tz: tzinfo | None = None) -> str:
    """The time of day with milliseconds, ``12:03:04.211``.

    Args:
        moment: An aware time; a naive one is taken as local.
        tz: The zone to show it in; None is the zone of this machine.
    """
    if moment is None:
        return NOTHING
    return moment.astimezone(tz).isoformat(sep=" ", timespec="milliseconds")[11:23]


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: ``now``, ``34s ago``, ``3m ago``, ``1h ago``, ``5d ago``; ``in 3m`` for the future."""
    if moment is None:
        return NOTHING
    seconds = (now - moment).total_seconds()
    whole = int(abs(seconds))
    if whole < 1:
        return "now"
    for length, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m"), (1, "s")):
        if whole >= length:
            text = f"{whole // length}{letter}"
            break
    return f"{text} ago" if seconds > 0 else f"in {text}"


def _two(whole: int, large: int, large_letter: str, small: int, small_letter: str) -> str:
    first, rest = divmod(whole, large)
    second = rest // small
    return f"{first}{large_letter}{second}{small_letter}" if second else f"{first}{large_letter}"


def _metric(value: float) -> str:
    digits = 2 if len(str(int(abs(value)))) % 3 == 1 else 3  # 1.2k, but 12.3k and 123k
    return humanize.metric(value, precision=digits).replace(".00", ".0").replace(" ", "")
