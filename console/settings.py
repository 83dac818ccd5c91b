"""Settings of the console, from one TOML file.

    refresh = 2
    read_only = true

    [thresholds]
    inbox_backlog = 20
    oldest_crit = "15m"                      # seconds, or a duration

    [patterns.tasks]                         # inbox, tasks (queues) or events (subscriptions)
    thresholds = { oldest_warn = "5m" }      # what differs from [thresholds] for each of them

    [contexts.prod]                          # by NATS context name
    prod = true
    read_only = true
    system_context = "prod-sys"              # a context of the system account, to read the fleet by JSZ

    [agents."planner-*"]                     # by glob; the first that fits and says so decides, threshold by threshold
    policy = "confirm"
    thresholds = { inbox_backlog = 100, dead_letters_warn = 5 }   # its own letters, which then do not count with the others

    [roles.billing]
    policy = "never"
    reason = "charges cards: ask the billing team"   # shown by every plan it stops

    [types."deploy.*"]                       # by glob over message types; of two policies the stricter holds
    policy = "confirm"

    [keys]
    replay = "f5"                            # binding id = keys

The file is `$XDG_CONFIG_HOME/agent-console/config.toml` (`~/.config` if unset, beside the contexts of the nats command
line) or the one given by `--config`.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

from console.settings_values import (
    SettingsError,
    join,
    read_boolean,
    read_each,
    read_integer,
    read_number,
    read_seconds,
    read_table,
    read_text,
)
from console.thresholds import PATTERNS, Overrides, Pattern, ThresholdBook, Thresholds, narrowed

__all__ = [
    "ContextSettings", "PatternSettings", "Patterns", "ReplayPolicy", "Rule", "Settings", "SettingsError", "TargetSettings",
    "Thresholds", "TypeSettings", "config_home", "default_path", "from_mapping", "home", "load",
]  # fmt: skip


class ReplayPolicy(Enum):
    """How far the work of an agent, of a role or of a type may be repeated; the stricter the later."""

    SAFE = "safe"
    """Doing it twice does no harm: a replay asks as any change does."""
    CONFIRM = "confirm"
    """Doing it twice has effects: the count is typed, however small it is."""
    NEVER = "never"
    """A replay is refused, unless it is forced on the command line."""

    @property
    def strictness(self) -> int:
        """Greater than that of what is less strict."""
        return list(ReplayPolicy).index(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the replay of one letter."""

    policy: ReplayPolicy = ReplayPolicy.SAFE
    reason: str = ""
    """Why, as the settings say; empty if they do not."""
    of: str = ""
    """Whose it is, `<kind>.<name>`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextSettings:
    """What holds for one NATS context."""

    write: bool = False
    """The screen starts able to change things, without `--write`."""
    prod: bool = False
    """Changes here are confirmed by typing, and need a reason."""
    read_only: bool = False
    """Nothing can be changed here, on the screen or by a headless command."""
    system_context: str = ""
    """A NATS context of the same servers whose user belongs to the system account: its JSZ tells everything at once."""

    def __post_init__(self) -> None:
        if self.write and self.read_only:
            raise ValueError("write and read_only exclude each other")


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSettings:
    """What holds for the agents or the roles that fit a glob."""

    policy: ReplayPolicy | None = None
    """May its messages be replayed; None leaves it to `Settings.policy`."""
    reason: str = ""
    """Why its policy is what it is, for whoever plans a replay."""
    thresholds: Overrides = field(default_factory=dict, hash=False)
    """Fields of `Thresholds` that differ here: for an agent in its inbox and its subscriptions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternSettings:
    """What holds for all inboxes, all queues or all subscriptions."""

    thresholds: Overrides = field(default_factory=dict, hash=False)
    """Fields of `Thresholds` that differ here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patterns:
    """What holds for each of the patterns."""

    inbox: PatternSettings = field(default_factory=PatternSettings)
    tasks: PatternSettings = field(default_factory=PatternSettings)
    events: PatternSettings = field(default_factory=PatternSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeSettings:
    """What holds for the message types that fit a glob."""

    policy: ReplayPolicy | None = None
    """May they be replayed; None leaves it to the agent or the role."""
    reason: str = ""
    """Why, for whoever plans a replay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything a person can set; `Settings()` is what holds without a file."""

    refresh: float = 1.0
    """Seconds between two reads of the fleet, 0.2 to 3600."""
    read_only: bool | None = None
    """True: nothing can be changed, on any server. None leaves it to the contexts and the command line."""
    policy: ReplayPolicy = ReplayPolicy.SAFE
    """Replay policy where neither an agent nor a role says otherwise."""
    replay_rate: float = 20.0
    """Messages a second that a replay starts with, 1 to 500."""
    replay_stop_ratio: float = 0.5
    """A replay stops when more than this share of what it sent has died again, 0 to 1; 1 never stops one."""
    canary: int = 3
    """Letters that a canary sends first, 1 to 100."""
    canary_watch: float = 30.0
    """Seconds that they are watched for, 1 to 3600."""
    feed_lines: int = 5_000
    """Events kept in the live feed, 100 to 100000."""
    theme: str = ""
    """Name of a colour theme; empty is the console's own."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Thresholds where no pattern, agent or role says otherwise."""
    patterns: Patterns = field(default_factory=Patterns)
    """Thresholds of all inboxes, all queues, all subscriptions."""
    contexts: Mapping[str, ContextSettings] = field(default_factory=dict, hash=False)
    """By NATS context name."""
    agents: Mapping[str, TargetSettings] = field(default_factory=dict, hash=False)
    """By glob over agent ids, in the order of the file."""
    roles: Mapping[str, TargetSettings] = field(default_factory=dict, hash=False)
    """By glob over role names, in the order of the file."""
    types: Mapping[str, TypeSettings] = field(default_factory=dict, hash=False)
    """By glob over message types, in the order of the file."""
    keys: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Keys (comma-separated) by binding id."""
    _book: ThresholdBook = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("refresh", 0.2, 3_600), ("replay_rate", 1, 500), ("replay_stop_ratio", 0, 1), ("canary", 1, 100),
            ("canary_watch", 1, 3_600), ("feed_lines", 100, 100_000),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be between {low} and {high}")
        of_patterns: dict[Pattern, Overrides] = {
            "inbox": self.patterns.inbox.thresholds,
            "tasks": self.patterns.tasks.thresholds,
            "events": self.patterns.events.thresholds,
        }
        for pattern, overrides in of_patterns.items():
            self._check(f"patterns.{pattern}", overrides)
        globs = {"inbox": self.agents, "tasks": self.roles, "events": self.agents}
        for pattern, overrides in of_patterns.items():
            for glob, target in globs[pattern].items():
                self._check(f"{'roles' if pattern == 'tasks' else 'agents'}.{glob}", overrides, target.thresholds)
        of_globs: dict[Pattern, dict[str, Overrides]] = {
            pattern: {glob: target.thresholds for glob, target in globs[pattern].items()} for pattern in of_patterns
        }
        # The way of the dataclasses to a derived value in a frozen one.
        object.__setattr__(self, "_book", ThresholdBook(self.thresholds, of_patterns, of_globs))

    def _check(self, where: str, *overrides: Overrides) -> None:
        try:
            narrowed(self.thresholds, *overrides)
        except ValueError as error:
            raise ValueError(f"{where}.thresholds: {error}") from None

    def context(self, name: str) -> ContextSettings:
        """Return what holds for a NATS context; the defaults if nothing is said or the name is empty."""
        return self.contexts.get(name, ContextSettings())

    def rule_for(self, kind: Literal["inbox", "tasks"], name: str, type: str = "") -> Rule:
        """Return what holds for replays to an agent's inbox or a role's queue, of messages of a type: the stricter of both."""
        types = (each for glob, each in self.types.items() if type and fnmatchcase(type, glob))
        of_place = next((each for each in self._targets(kind, name) if each.policy is not None), None)
        of_type = next((each for each in types if each.policy is not None), None)
        place = of_place or TargetSettings(policy=self.policy)
        rules = [Rule(each.policy, each.reason) for each in (place, of_type) if each is not None and each.policy]
        return max(rules, key=lambda rule: rule.policy.strictness)

    def thresholds_for(self, kind: Pattern, name: str) -> Thresholds:
        """Return the thresholds of an agent's inbox, of a role's queue or of an agent's subscriptions (`events`).

        Those of everything, then of the pattern, then of the first fitting glob that says a field. What they say of dead
        letters is about those of this inbox or queue alone, and 0 (never) if nothing says so.
        """
        return self._book.of(kind, name)

    def letters_apart(self, source: str) -> bool:
        """Return whether dead letters from a source have a threshold of their own, and do not count against `thresholds`.

        Args:
            source: `inbox.ceo`, `tasks.backend`, or `events.ceo-alerts`, which is its agent's.
        """
        kind, _, name = source.partition(".")
        if kind == "tasks":
            return self._book.letters_apart("tasks", name)
        return self._book.letters_apart("inbox", name.rpartition("-")[0] if kind == "events" else name)

    def _targets(self, kind: Literal["inbox", "tasks"], name: str) -> list[TargetSettings]:
        globs = self.agents if kind == "inbox" else self.roles
        return [target for glob, target in globs.items() if fnmatchcase(name, glob)]


def config_home(environ: Mapping[str, str]) -> Path:
    """Return where per-user configuration lives: `$XDG_CONFIG_HOME` or `~/.config`, as the nats command line has it."""
    if chosen := environ.get("XDG_CONFIG_HOME"):
        return Path(chosen)
    return home(environ) / ".config"


def home(environ: Mapping[str, str]) -> Path:
    """Return the home directory: `$HOME`, or what the system says."""
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the settings are looked for without `--config`."""
    return config_home(os.environ if environ is None else environ) / "agent-console" / "config.toml"


def load(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the file given by `--config`, which must exist; None for the default place, where it need not.
        environ: environment variables; those of the process if omitted.

    Raises:
        SettingsError: the file is missing though it was given, cannot be read, is no TOML, or a key or value is wrong.
    """
    file = default_path(environ) if path is None else path
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except FileNotFoundError:
        if path is None:
            return Settings()
        raise SettingsError(f"{file}: no such settings file") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error
    try:
        return from_mapping(table)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None


def from_mapping(table: Mapping[str, Any]) -> Settings:
    """Build settings from decoded TOML.

    Raises:
        SettingsError: an unknown key (with the known ones), a value of the wrong type or out of range.
    """
    settings: Settings = _build(Settings, table, "")
    return settings


def _values(cls: type[Any], table: Any, where: str) -> dict[str, Any]:
    """Read each entry of a table as `_READERS` says for that field of the dataclass."""
    readers = _READERS[cls]
    entries = read_table(table, where)
    for key in entries:
        if key not in readers:
            raise SettingsError(f"unknown key {join(where, key)!r}; known here: {', '.join(readers)}")
    return {key: readers[key](value, join(where, key)) for key, value in entries.items()}


def _build(cls: type[Any], table: Any, where: str) -> Any:
    values = _values(cls, table, where)
    try:
        return cls(**values)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}" if where else str(error)) from None


def _policy(value: Any, where: str) -> ReplayPolicy:
    try:
        return ReplayPolicy(value)
    except ValueError:
        known = ", ".join(policy.value for policy in ReplayPolicy)
        raise SettingsError(f"{where} must be one of {known}") from None


def _one(cls: type[Any]) -> Callable[[Any, str], Any]:
    return lambda value, where: _build(cls, value, where)


def _overrides(value: Any, where: str) -> Overrides:
    return _values(Thresholds, value, where)


_READERS: Final[Mapping[type[Any], Mapping[str, Callable[[Any, str], Any]]]] = {
    Thresholds: {
        each.name: read_seconds if each.name.startswith("oldest") else read_integer
        for each in dataclasses.fields(Thresholds)
    },
    ContextSettings: {
        "write": read_boolean,
        "prod": read_boolean,
        "read_only": read_boolean,
        "system_context": read_text,
    },
    TargetSettings: {"policy": _policy, "reason": read_text, "thresholds": _overrides},
    PatternSettings: {"thresholds": _overrides},
    Patterns: {pattern: _one(PatternSettings) for pattern in PATTERNS},
    TypeSettings: {"policy": _policy, "reason": read_text},
    Settings: {
        "refresh": read_seconds,
        "read_only": read_boolean,
        "policy": _policy,
        "replay_rate": read_number,
        "replay_stop_ratio": read_number,
        "canary": read_integer,
        "canary_watch": read_seconds,
        "feed_lines": read_integer,
        "theme": read_text,
        "thresholds": _one(Thresholds),
        "patterns": _one(Patterns),
        "contexts": read_each(_one(ContextSettings)),
        "agents": read_each(_one(TargetSettings)),
        "roles": read_each(_one(TargetSettings)),
        "types": read_each(_one(TypeSettings)),
        "keys": read_each(read_text),
    },
}
