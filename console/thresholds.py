"""From where on something deserves attention: for everything, for a pattern, for single agents and roles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

Pattern = Literal["inbox", "tasks", "events"]
"""What thresholds are asked for: an agent's inbox, a role's queue, an agent's subscriptions."""

PATTERNS: Final[tuple[Pattern, ...]] = ("inbox", "tasks", "events")

REMEMBERED: Final = 50_000
"""Names whose thresholds are remembered: the fleet is read each second, and names come and go for as long as it runs."""

_LETTERS: Final = ("dead_letters_warn", "dead_letters_crit")
_NEVER: Final = frozenset({"ack_pending", "redeaths_warn", *_LETTERS})
"""Where 0 means never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """From where on something deserves attention: a backlog beyond its threshold, everything else that reaches it."""

    inbox_backlog: int = 10
    """Messages waiting in an inbox, beyond which it is a backlog: warning."""
    queue_backlog: int = 50
    """Tasks waiting in a queue, beyond which it is a backlog: warning."""
    subscription_lag: int = 1_000
    """Events a subscription is behind: warning."""
    ack_pending: int = 0
    """Messages delivered and not acknowledged: warning; 0 is never, because many in flight are many hands at work."""
    redelivered: int = 10
    """Messages in flight that were delivered before: warning."""
    oldest_warn: float = 60.0
    """Seconds the oldest message waits: warning."""
    oldest_crit: float = 600.0
    """Seconds the oldest message waits: critical."""
    stranded_warn: int = 1
    """Messages that used up their deliveries and reached no dead-letter queue: critical."""
    redeaths_warn: int = 1
    """Dead letters that died again after a replay: warning; 0 is never."""
    dead_letters_warn: int = 1
    """Dead letters: warning; 0 is never. Of all sources together, but for those that have a threshold of their own; in the
    table of a pattern, an agent or a role of each one's own."""
    dead_letters_crit: int = 100
    """Dead letters, counted likewise: critical; 0 is never."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            minimum = 0 if each.name.startswith("oldest") or each.name in _NEVER else 1
            if not minimum <= getattr(self, each.name):
                raise ValueError(f"{each.name} must be at least {minimum}")
        for name in ("oldest", "dead_letters"):
            warn, crit = getattr(self, f"{name}_warn"), getattr(self, f"{name}_crit")
            if crit < warn and not (name == "dead_letters" and crit == 0):
                raise ValueError(f"{name}_crit must not be below {name}_warn")


Overrides = Mapping[str, Any]
"""Fields of `Thresholds` that differ."""


def narrowed(base: Thresholds, *overrides: Overrides) -> Thresholds:
    """The thresholds of one inbox, queue or subscription.

    Args:
        base: What holds for everything; what it says of dead letters is about all of them together.
        overrides: What differs here, the more special the later.

    Raises:
        ValueError: They contradict each other.
    """
    return dataclasses.replace(base, **_letters_apart(overrides))


def _letters_apart(overrides: Iterable[Overrides]) -> dict[str, Any]:
    merged: dict[str, Any] = dict.fromkeys(_LETTERS, 0)
    for each in overrides:
        merged |= each
    return merged


class ThresholdBook:
    """The thresholds of each name, worked out once.

    Args:
        base: What holds for everything.
        patterns: What differs for a pattern.
        globs: What differs for names that fit a glob, by pattern; the first glob that says a field decides it.
    """

    def __init__(
        self, base: Thresholds, patterns: Mapping[Pattern, Overrides], globs: Mapping[Pattern, Mapping[str, Overrides]]
    ) -> None:
        self._base = base
        self._patterns = patterns
        self._globs = {pattern: [pair for pair in globs[pattern].items() if pair[1]] for pattern in PATTERNS}
        self._known: dict[Pattern, dict[str, Thresholds]] = {pattern: {} for pattern in PATTERNS}
        self._shared: dict[Pattern, Thresholds] = {}
        self._apart: dict[Pattern, set[str]] = {pattern: set() for pattern in PATTERNS}

    def of(self, pattern: Pattern, name: str) -> Thresholds:
        """The thresholds of an inbox or subscription by the agent, of a queue by the role; 0.1 us for a name it knows."""
        known = self._known[pattern]
        found = known.get(name)
        if found is None:
            if len(known) >= REMEMBERED:
                known.clear()
                self._apart[pattern].clear()
            found = known[name] = self._find(pattern, name)
        return found

    def letters_apart(self, pattern: Pattern, name: str) -> bool:
        """Whether anything is said of the dead letters of this one alone."""
        self.of(pattern, name)
        return name in self._apart[pattern]

    def _find(self, pattern: Pattern, name: str) -> Thresholds:
        fitting = [fields for glob, fields in self._globs[pattern] if fnmatchcase(name, glob)]
        general = self._patterns.get(pattern, {})
        if any(field in table for table in (general, *fitting) for field in _LETTERS):
            self._apart[pattern].add(name)
        if not fitting:
            if pattern not in self._shared:
                self._shared[pattern] = narrowed(self._base, general)
            return self._shared[pattern]
        merged = _letters_apart((general, *reversed(fitting)))
        # Each table was checked with what it builds on, but not every sum of tables: the later alarm gives way.
        for kind in ("oldest", "dead_letters"):
            crit = merged.get(f"{kind}_crit", getattr(self._base, f"{kind}_crit"))
            warn = merged.get(f"{kind}_warn", getattr(self._base, f"{kind}_warn"))
            if crit or kind == "oldest":
                merged[f"{kind}_crit"] = max(warn, crit)
        return dataclasses.replace(self._base, **merged)
