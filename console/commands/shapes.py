"""The JSON of the headless commands, field by field; a contract that scripts rely on.

Durations are seconds, times are RFC 3339 in UTC, and what is absent is null. Values are exact, never cleaned: the JSON
encoder escapes what a terminal would obey.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from console.messages import MessageState
from console.monitor.view import Finding, FleetView, Flow, Subscription
from patterns import DeadLetter, Death, Message, Names, ServerInfo
from patterns.headers import format_time

STATUSES: Final = ("healthy", "warning", "critical", "unknown")
"""Words of `check`, by its exit code."""


def fleet(view: FleetView, names: Names, server: ServerInfo | None = None) -> dict[str, Any]:
    """The fleet at one moment.

    Args:
        view: What was seen.
        names: Names of its organization, for the streams.
        server: The server as it names itself; the view's own names are made safe to show.
    """
    at = server or view.server
    return {
        "taken_at": moment(view.taken_at),
        "took_ms": round(view.took * 1000, 1),
        "server": {"name": at.name, "version": at.version, "url": at.url, "cluster": at.cluster},
        "agents": [agent(flow, names.inbox_stream(flow.name)) for flow in view.agents],
        "queues": [queue(flow) for flow in view.queues],
        "subscriptions": [subscription(each) for each in view.subscriptions],
        "dead_letters": {"total": view.dead_letter_total, "by_source": dict(view.dead_letters)},
        "findings": findings(view.findings),
    }


def agent(flow: Flow, stream: str) -> dict[str, Any]:
    """One agent and its inbox."""
    depth = flow.depth
    return {
        "agent": flow.name,
        "state": flow.state.value,
        "inbox": {
            "stream": stream,
            "depth": depth.messages,
            "pending": depth.pending,
            "ack_pending": depth.ack_pending,
            "redelivered": depth.redelivered,
            "stranded": flow.stranded,
            "waiting": depth.waiting,
            "oldest_age": _seconds(flow.oldest_age),
            "last_ack_age": _seconds(flow.last_ack_age),
            "in_rate": _seconds(flow.in_rate),
            "ack_rate": _seconds(flow.ack_rate),
        },
        "dead_letters": flow.dead_letters,
        "findings": findings(flow.findings),
    }


def queue(flow: Flow) -> dict[str, Any]:
    """One role's task queue."""
    depth = flow.depth
    return {
        "role": flow.name,
        "state": flow.state.value,
        "backlog": depth.messages,
        "ack_pending": depth.ack_pending,
        "redelivered": depth.redelivered,
        "stranded": flow.stranded,
        "waiting": depth.waiting,
        "oldest_age": _seconds(flow.oldest_age),
        "in_rate": _seconds(flow.in_rate),
        "ack_rate": _seconds(flow.ack_rate),
        "drain_eta": _seconds(flow.drain_eta),
        "paused": depth.paused,
        "dead_letters": flow.dead_letters,
        "findings": findings(flow.findings),
    }


def subscription(each: Subscription) -> dict[str, Any]:
    """One durable subscription to events."""
    return {
        "agent": each.agent,
        "name": each.name,
        "topics": list(each.topics),
        "lag": each.depth.pending,
        "ack_pending": each.depth.ack_pending,
        "redelivered": each.depth.redelivered,
        "stranded": each.depth.stranded,
        "waiting": each.depth.waiting,
    }


def findings(found: Iterable[Finding]) -> list[dict[str, str]]:
    """What a person should look at; what is no reason for an alarm is told to people only."""
    return [
        {"severity": each.severity, "subject": each.subject, "text": each.text}
        for each in found
        if each.severity != "info"
    ]


def check(status: int, found: Iterable[Finding]) -> dict[str, Any]:
    """The verdict of `check`; `status` is its exit code."""
    return {"status": STATUSES[status], "findings": findings(found)}


def letter(dead: DeadLetter) -> dict[str, Any]:
    """One dead letter, as `dlq list` has it."""
    return {
        "seq": dead.seq,
        "source": dead.source,
        "kind": dead.kind,
        "name": dead.name,
        "subject": dead.subject or None,
        "type": dead.type or None,
        "reason": dead.reason or None,
        "error_type": dead.error_type or None,
        "error": dead.error or None,
        "agent": dead.agent or None,
        "deliveries": dead.deliveries,
        "replays": dead.replays,
        "id": dead.id or None,
        "correlation_id": dead.correlation_id or None,
        "first_at": moment(dead.first_at),
        "died_at": moment(dead.died_at),
        "size": dead.size,
    }


def letter_in_full(dead: DeadLetter) -> dict[str, Any]:
    """One dead letter with headers and body, as `dlq show` has it."""
    return letter(dead) | {
        "headers": dict(dead.message.headers),
        "data": decoded(dead.message.data),
        "text": dead.message.text,
        "base64": base64.b64encode(dead.message.body).decode("ascii"),
    }


def death(each: Death) -> dict[str, Any]:
    """One death of a letter, as `dlq lineage` has it."""
    return {
        "n": each.n,
        "entry": each.entry,
        "seq": each.seq or None,
        "source": each.source,
        "died_at": moment(each.at),
        "reason": each.reason or None,
        "error_type": each.error_type or None,
        "error": each.error or None,
        "agent": each.agent or None,
        "deliveries": each.deliveries,
        "replayed_by": each.replayed_by or None,
        "replayed_at": moment(each.replayed_at),
        "job": each.job or None,
        "edited": each.edited,
    }


def message(stored: Message) -> dict[str, Any]:
    """One stored message or event."""
    return {
        "seq": stored.seq,
        "subject": stored.subject,
        "id": stored.id or None,
        "type": stored.type or None,
        "source": stored.source,
        "correlation_id": stored.correlation_id or None,
        "stored_at": moment(stored.stored_at),
        "size": stored.size,
        "headers": dict(stored.headers),
        "data": decoded(stored.data),
        "text": stored.text,
    }


def peeked(stored: Message, state: MessageState | None) -> dict[str, Any]:
    """One message of an inbox or a queue, as `inbox peek` and `queue peek` have it; null where the state cannot be seen."""
    return message(stored) | {"state": state}


def decoded(data: Any) -> Any:
    """A decoded JSON body, or null for bytes and for what JSON cannot carry back (`1e999`, nested too deeply)."""
    if isinstance(data, bytes):
        return None
    try:
        # Deeper inside a list, as the shapes have it, than on its own.
        json.dumps([[[data]]], allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return data


def moment(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, ending in Z."""
    return None if at is None else format_time(at)


def _seconds(value: float | None) -> float | None:
    """To the millisecond: more digits than the server's clock deserves help nobody."""
    return None if value is None else round(value, 3)
