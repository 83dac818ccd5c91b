"""Creating the streams and consumers of a fleet, and comparing what exists: nothing is rewritten silently."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nats.js.errors import APIError

from patterns.config import DeliveryConfig
from patterns.errors import ConfigMismatch
from patterns.names import filters_overlap

if TYPE_CHECKING:
    from patterns.fleet import Fleet

log = logging.getLogger("patterns")

SUBJECTS_OVERLAP = 10065
_SHAPE = ("subjects", "retention", "storage", "discard", "max_msgs_per_subject")
"""Fields of a stream that cannot be changed, or not without meaning something else; a difference is refused."""
_ADJUSTABLE = ("max_msgs", "max_age", "duplicate_window", "num_replicas", "allow_direct", "max_consumers")
"""Fields of a stream that are brought up to date."""
_CONSUMER_SHAPE = ("ack_policy", "deliver_policy", "filter_subject")
_CONSUMER_ADJUSTABLE = ("ack_wait", "max_deliver", "max_ack_pending")
_EVENT_CONSUMERS = 100_000
"""The server's default of 1,000 consumers a stream stops a fleet."""


async def provision(fleet: Fleet, agents: Iterable[str], roles: Iterable[str]) -> None:
    """Create what is missing and compare what exists; see `Fleet.provision`."""
    names, config = fleet.names, fleet.config
    await _refuse_rpc_streams(fleet)
    queue: dict[str, Any] = {
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": config.limits.max_msgs,
        "max_age": _ns(config.limits.max_age),
    }
    await _stream(
        fleet,
        names.events_stream,
        subjects=names.stream_subjects("events"),
        retention="limits",
        discard="old",
        max_msgs=-1,
        max_age=_ns(config.limits.events_max_age),
        max_consumers=_EVENT_CONSUMERS,
    )
    await dead_letters(fleet)
    await _bucket(fleet, names.ledger_bucket, config.ledger_ttl)
    await _bucket(fleet, names.receipts_bucket, config.dead_letters.max_age)
    for agent in agents:
        stream, subjects = names.inbox_stream(agent), names.stream_subjects("inbox", agent)
        await _stream(fleet, stream, subjects=subjects, **queue)
        await _consumer(fleet, stream, names.inbox_durable(agent), subjects[0], config.inbox, config.inbox.max_deliver)
    for role in roles:
        stream, subjects = names.tasks_stream(role), names.stream_subjects("tasks", role)
        await _stream(fleet, stream, subjects=subjects, **queue)
        # The library counts a task's deliveries itself: in a busy queue the server's ack floor lags behind its dead.
        await _consumer(fleet, stream, names.tasks_durable(role), subjects[0], config.role(role), -1)


async def dead_letters(fleet: Fleet) -> None:
    """Create the stream of the dead letters, or compare the one there is; see `provision`."""
    names, limits = fleet.names, fleet.config.dead_letters
    await _stream(
        fleet,
        names.dlq_stream,
        subjects=names.stream_subjects("dlq"),
        retention="limits",
        discard="new",
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_msgs=limits.max_msgs,
        max_age=_ns(limits.max_age),
    )


async def _stream(fleet: Fleet, name: str, **fields: Any) -> None:
    limits = fleet.config.limits
    wanted = {
        "name": name,
        "storage": "file",
        "num_replicas": limits.replicas,
        "duplicate_window": _window(limits.duplicate_window, fields.get("max_age", 0)),
        "allow_direct": True,
        **fields,
    }
    await _create_or_compare(fleet, name, wanted)


async def _bucket(fleet: Fleet, bucket: str, ttl: float) -> None:
    """A key-value bucket as ADR-8 lays it out."""
    wanted = {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": _ns(ttl),
        "num_replicas": fleet.config.limits.replicas,
        "duplicate_window": _window(120.0, _ns(ttl)),
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
    }
    await _create_or_compare(fleet, f"KV_{bucket}", wanted)


async def _create_or_compare(fleet: Fleet, name: str, wanted: Mapping[str, Any]) -> None:
    info = await fleet.jetstream.stream_info(name)
    if info is None:
        try:
            await fleet.jetstream.api(f"STREAM.CREATE.{name}", wanted, timeout=15.0)
        except APIError as error:
            if error.err_code == SUBJECTS_OVERLAP:
                raise ConfigMismatch(
                    f"another stream stores subjects of {name} ({', '.join(wanted['subjects'])}) already"
                ) from None
            raise
        return
    existing = info["config"]
    for key in _SHAPE:
        if key in wanted and _differs(existing, wanted, key):
            raise ConfigMismatch(f"stream {name} exists with {key}={existing.get(key)!r}, wanted {wanted[key]!r}")
    changed = {key: wanted[key] for key in _ADJUSTABLE if key in wanted and _differs(existing, wanted, key)}
    if existing.get("num_replicas", 1) > wanted["num_replicas"]:
        # An agent started without its configuration must not take a fleet's copies away.
        log.warning("stream %s keeps its %d replicas", name, existing["num_replicas"])
        changed.pop("num_replicas", None)
    if changed:
        log.info("stream %s: updating %s", name, ", ".join(sorted(changed)))
        await fleet.jetstream.api(f"STREAM.UPDATE.{name}", {**existing, **changed}, timeout=15.0)


async def _consumer(
    fleet: Fleet, stream: str, durable: str, subject: str, delivery: DeliveryConfig, max_deliver: int
) -> None:
    wanted: dict[str, Any] = {
        "name": durable,
        "durable_name": durable,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": _ns(delivery.ack_wait),
        "max_deliver": max_deliver,
        "max_ack_pending": delivery.max_ack_pending,
        "filter_subject": subject,
        "metadata": {"agents.max-deliver": str(delivery.max_deliver), "agents.receipts": "1"},
    }
    info = await fleet.jetstream.consumer_info(stream, durable)
    if info is None:
        await _create_consumer(fleet, stream, durable, wanted, "create")
        return
    existing = info["config"]
    for key in _CONSUMER_SHAPE:
        if _differs(existing, wanted, key):
            raise ConfigMismatch(
                f"consumer {durable} of {stream} exists with {key}={existing.get(key)!r}, wanted {wanted[key]!r}"
            )
    changed = {key: wanted[key] for key in _CONSUMER_ADJUSTABLE if _differs(existing, wanted, key)}
    metadata = existing.get("metadata") or {}
    if any(metadata.get(key) != value for key, value in wanted["metadata"].items()):
        changed["metadata"] = {**metadata, **wanted["metadata"]}
    if changed:
        log.info("consumer %s: updating %s", durable, ", ".join(sorted(changed)))
        await _create_consumer(fleet, stream, durable, {**existing, **changed}, "update")


async def _create_consumer(fleet: Fleet, stream: str, durable: str, config: Mapping[str, Any], action: str) -> None:
    # With an action a second writer is refused; without one the server would silently rewrite what is there.
    request = {"stream_name": stream, "config": config, "action": action}
    suffix = f".{config['filter_subject']}" if config.get("filter_subject") else ""
    await fleet.jetstream.api(f"CONSUMER.CREATE.{stream}.{durable}{suffix}", request, timeout=15.0)


async def _refuse_rpc_streams(fleet: Fleet) -> None:
    """A stream that stores RPC subjects answers requests itself, with its PubAck."""
    for root in ("agents", "roles"):
        subject = f"{fleet.names.org + '.' if fleet.names.org else ''}{root}.*.rpc.>"
        for name in await fleet.jetstream.stream_names(subject):
            info = await fleet.jetstream.stream_info(name)
            stored = (info or {}).get("config", {}).get("subjects") or []
            if any(filters_overlap(pattern, subject) for pattern in stored):
                raise ConfigMismatch(
                    f"stream {name} stores {subject!r}: requests would be answered by its PubAck; narrow its subjects"
                )


def _differs(existing: Mapping[str, Any], wanted: Mapping[str, Any], key: str) -> bool:
    default: Any = [] if isinstance(wanted[key], list) else "" if isinstance(wanted[key], str) else 0
    have = existing.get(key, default)
    if isinstance(wanted[key], list):
        return sorted(have or []) != sorted(wanted[key])
    if isinstance(wanted[key], int) and wanted[key] in (0, -1):
        return have not in (0, -1)
    return bool(have != wanted[key])


def _window(seconds: float, max_age_ns: int) -> int:
    """The duplicate window in nanoseconds; the server refuses one longer than the age limit."""
    window = _ns(seconds)
    return min(window, max_age_ns) if max_age_ns else window


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1_000_000_000)
