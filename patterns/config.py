"""Configuration of a fleet: frozen, validated, readable from TOML.

All durations are seconds as floats, like nats-py's own.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from patterns import names
from patterns.errors import InvalidConfig

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off between attempts, applied by `nak(delay)`.

    Never a consumer's own `backoff`: the server mixes it up with delayed naks.
    """

    base: float = 5.0
    """Seconds before the second attempt."""
    factor: float = 3.0
    """Multiplier for each attempt after that."""
    max: float = 300.0
    """Ceiling in seconds."""
    jitter: float = 0.2
    """Random share added or taken, 0 to 1, so that a failing fleet does not retry in step."""

    def __post_init__(self) -> None:
        _require(self.base >= 0 and self.max >= 0, "retry: base and max must not be negative")
        _require(self.factor >= 1, "retry: factor must be at least 1")
        _require(0 <= self.jitter <= 1, "retry: jitter must be between 0 and 1")

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (1 is the first) has failed."""
        try:
            plain = min(self.base * self.factor ** (max(attempt, 1) - 1), self.max)
        except OverflowError:
            plain = self.max if self.base else 0.0
        return plain * (1 + random.uniform(-self.jitter, self.jitter))  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """How messages of an inbox, a role or a subscription are delivered. The defaults are the inbox's, as announced."""

    ack_wait: float = 300.0
    """Lease in seconds: after a crash the message is delivered again this much later. Not the length of the work: a
    running handler extends its lease by a heartbeat."""
    max_deliver: int = 3
    """Attempts before a message becomes a dead letter."""
    max_ack_pending: int = 1
    """Messages in flight over all consumers of the durable; 1 keeps strict order."""
    heartbeat: float | None = None
    """Seconds between lease extensions; None is the smaller of 30 s and a third of `ack_wait`."""
    max_runtime: float = 3600.0
    """Seconds after which a handler is cancelled and the attempt counts as failed."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        _require(self.ack_wait > 0, "ack_wait must be positive")
        _require(self.max_deliver >= 1, "max_deliver must be at least 1")
        _require(self.max_ack_pending >= 1, "max_ack_pending must be at least 1")
        _require(self.heartbeat is None or 0 < self.heartbeat < self.ack_wait, "heartbeat must be below ack_wait")
        _require(self.max_runtime > 0, "max_runtime must be positive")

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between lease extensions."""
        return self.heartbeat if self.heartbeat is not None else min(30.0, self.ack_wait / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Limits of the inbox, task and event streams."""

    max_msgs: int = 10_000
    """Messages an inbox or a queue holds; a full one refuses new ones (`QueueFull`). Events are limited by age only."""
    max_age: float | None = None
    """Seconds a message of an inbox or queue is kept, None for ever. The server deletes older ones without a dead letter:
    work that must not be started late has a deadline of its own (`expires_in`). Events have `events_max_age`."""
    events_max_age: float = 7 * 86400.0
    """Seconds an event is kept; a subscriber that was away longer has a gap."""
    duplicate_window: float = 3600.0
    """Seconds a message id is remembered. Longer than `ack_wait`, else a crashed task's result is sent twice."""
    replicas: int = 1
    """Copies of each stream: 3 in production."""

    def __post_init__(self) -> None:
        _require(self.max_msgs >= 1, "limits: max_msgs must be at least 1")
        _require(self.max_age is None or self.max_age > 0, "limits: max_age must be positive")
        _require(self.events_max_age > 0, "limits: events_max_age must be positive")
        _require(self.duplicate_window > 0, "limits: duplicate_window must be positive")
        _require(self.replicas in (1, 3, 5), "limits: replicas must be 1, 3 or 5")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestConfig:
    """Defaults of request/reply."""

    timeout: float = 5.0
    """Seconds a requester waits."""
    concurrency: int = 16
    """Requests one responder handles at a time; more are answered 429 at once."""

    def __post_init__(self) -> None:
        _require(self.timeout > 0, "requests: timeout must be positive")
        _require(self.concurrency >= 1, "requests: concurrency must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterConfig:
    """What is kept of the dead, and how often they may be replayed."""

    max_age: float = 30 * 86400.0
    """Seconds a dead letter, and a receipt of its replay, is kept."""
    max_msgs: int = 100_000
    """Dead letters kept; a full DLQ takes no more and messages stay where they are."""
    warn_replays: int = 3
    """Replays from which a plan warns."""
    max_replays: int = 5
    """Replays after which only `force` replays again."""
    notify_sender: bool = True
    """Whether the submitter of a failed task gets `task.failed`."""

    def __post_init__(self) -> None:
        _require(self.max_age > 0 and self.max_msgs >= 1, "dead_letters: max_age and max_msgs must be positive")
        _require(0 < self.warn_replays <= self.max_replays, "dead_letters: warn_replays must not exceed max_replays")


def _shared() -> DeliveryConfig:
    """Tasks and events: many in flight, a short lease."""
    return DeliveryConfig(ack_wait=60.0, max_ack_pending=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """Configuration of a whole fleet; every agent of it should be started with the same."""

    inbox: DeliveryConfig = field(default_factory=DeliveryConfig)
    tasks: DeliveryConfig = field(default_factory=_shared)
    events: DeliveryConfig = field(default_factory=_shared)
    requests: RequestConfig = field(default_factory=RequestConfig)
    dead_letters: DeadLetterConfig = field(default_factory=DeadLetterConfig)
    limits: StreamLimits = field(default_factory=StreamLimits)
    roles: Mapping[str, DeliveryConfig] = field(default_factory=dict)
    """Delivery of single roles; what a role's table leaves out is taken from `tasks`."""
    max_hops: int = 16
    """Delegations a conversation may have; a message beyond becomes a dead letter (`max-hops`)."""
    poll: float = 2.0
    """Seconds one pull request waits on the server."""
    drain_grace: float = 10.0
    """Seconds running handlers get at a graceful stop before their messages are handed back."""
    ledger_ttl: float = 7 * 86400.0
    """Seconds a task's ledger record is kept."""
    publish_timeout: float = 30.0
    """Seconds a publisher repeats an unconfirmed publish, with the same id, before it gives up."""

    def __post_init__(self) -> None:
        _require(self.max_hops >= 1, "max_hops must be at least 1")
        _require(self.poll > 0 and self.drain_grace >= 0, "poll must be positive and drain_grace not negative")
        _require(self.ledger_ttl > 0 and self.publish_timeout > 0, "ledger_ttl and publish_timeout must be positive")
        for role in self.roles:
            names.role_id(role)

    def role(self, role: str) -> DeliveryConfig:
        """Delivery of one role's task queue."""
        return self.roles.get(role, self.tasks)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> FleetConfig:
        """Build from a mapping such as `tomllib.load` returns.

        Raises:
            InvalidConfig: An unknown key (named with its table), a value of the wrong type or out of range.
        """
        values: dict[str, Any] = dict(mapping)
        defaults = cls()
        for key in ("inbox", "tasks", "events", "requests", "dead_letters", "limits"):
            if key in values:
                values[key] = _merged(getattr(defaults, key), values[key], key)
        tasks = values.get("tasks", defaults.tasks)
        if "roles" in values:
            roles = _table(values["roles"], "roles")
            values["roles"] = {role: _merged(tasks, given, f"roles.{role}") for role, given in roles.items()}
        return _merged(defaults, values, "")


def _merged(base: _T, given: Any, where: str) -> _T:
    """`base`, a configuration dataclass, with the values of the table `given`."""
    table = dict(_table(given, where))
    known = {f.name: f for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key, value in table.items():
        if key not in known:
            raise InvalidConfig(f"unknown key {prefix + key!r}; known here: {', '.join(sorted(known))}")
        current = getattr(base, key)
        if isinstance(current, RetryPolicy) and isinstance(value, Mapping):
            table[key] = _merged(current, value, prefix + key)
        elif not _fits(str(known[key].type), value, current):
            raise InvalidConfig(f"{prefix + key} must be {known[key].type}, not {value!r}")
        elif "float" in str(known[key].type) and isinstance(value, int):
            table[key] = float(value)
    try:
        return dataclasses.replace(base, **table)  # type: ignore[type-var]
    except InvalidConfig as error:
        raise InvalidConfig(f"{prefix.rstrip('.') + ': ' if prefix else ''}{error}") from None


def _fits(annotation: str, value: Any, current: Any) -> bool:
    if isinstance(value, bool) or annotation == "bool":
        return isinstance(value, bool) and annotation == "bool"
    if "float" in annotation:
        return (isinstance(value, int | float) and math.isfinite(value)) or (value is None and "None" in annotation)
    if annotation == "int":
        return isinstance(value, int)
    return isinstance(value, Mapping if isinstance(current, Mapping) else type(current))


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidConfig(f"{where} must be a table, not {value!r}")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidConfig(message)
