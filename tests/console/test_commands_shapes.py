"""The JSON of the contract, field by field."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from console.commands import shapes
from console.monitor.states import State
from console.monitor.view import Finding, FleetView, Flow, Subscription
from patterns import DeadLetter, Names, QueueDepth, ServerInfo
from patterns.message import decode
from tests.support.commandline import HOSTILE
from tests.support.flows import past

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


def flow(name: str, **changes) -> Flow:
    values = {
        "name": name,
        "state": State.NO_WORKER,
        "depth": QueueDepth(messages=9, pending=7, ack_pending=1, redelivered=2, waiting=3, durable="d"),
        "stranded": 1,
        "in_rate": 0.25,
        "ack_rate": 0.5,
        "oldest_age": 124.0004,
        "dead_letters": 4,
        "track": past(),
        "findings": (Finding("critical", f"inbox.{name}", "text"),),
    }
    return Flow(**{**values, **changes})


def view(**changes) -> FleetView:
    subscription = Subscription(
        "security", "events", ("deployment.>",), QueueDepth(pending=5, ack_pending=1, waiting=1)
    )
    values = {
        "taken_at": NOW,
        "took": 0.0123,
        "server": ServerInfo("n", "2.15.1", "nats://127.0.0.1:1", None),
        "agents": (flow("ceo"),),
        "queues": (flow("backend", stranded=None),),
        "subscriptions": (subscription,),
        "dead_letters": {"inbox.ceo": 3, "tasks.backend": 1},
        "findings": (Finding("warning", "dlq", "4 dead letters"),),
    }
    return FleetView(**{**values, **changes})


def dead(body: bytes = b'{"a":1}', headers: dict[str, str] | None = None, **changes) -> DeadLetter:
    message = decode("tasks.backend.code", headers or {}, body, names=Names(), stream="DLQ", seq=7, stored_at=NOW)
    values = {
        "seq": 7,
        "entry": "tasks.backend.1-2a",
        "kind": "tasks",
        "name": "backend",
        "subject": "tasks.backend.code",
        "id": "id-1",
        "type": "code",
        "reason": "rejected",
        "error_type": "Reject",
        "error": "no spec",
        "agent": "backend-1",
        "stream": "TASKS_BACKEND",
        "origin_seq": 1,
        "deliveries": 3,
        "replays": 1,
        "first_at": None,
        "died_at": NOW,
        "size": 42,
        "correlation_id": "c-1",
        "message": message,
    }
    return DeadLetter(**{**values, **changes})


def test_a_fleet_has_the_fields_of_the_contract() -> None:
    told = shapes.fleet(view(), Names("acme"))

    assert told == {
        "taken_at": "2026-03-04T05:06:07.000089Z",
        "took_ms": 12.3,
        "server": {"name": "n", "version": "2.15.1", "url": "nats://127.0.0.1:1", "cluster": None},
        "agents": [
            {
                "agent": "ceo",
                "state": "no worker",
                "inbox": {
                    "stream": "ACME_INBOX_CEO",
                    "depth": 9,
                    "pending": 7,
                    "ack_pending": 1,
                    "redelivered": 2,
                    "stranded": 1,
                    "waiting": 3,
                    "oldest_age": 124.0,
                    "last_ack_age": None,
                    "in_rate": 0.25,
                    "ack_rate": 0.5,
                },
                "dead_letters": 4,
                "findings": [{"severity": "critical", "subject": "inbox.ceo", "text": "text"}],
            }
        ],
        "queues": [
            {
                "role": "backend",
                "state": "no worker",
                "backlog": 9,
                "ack_pending": 1,
                "redelivered": 2,
                "stranded": None,
                "waiting": 3,
                "oldest_age": 124.0,
                "in_rate": 0.25,
                "ack_rate": 0.5,
                "drain_eta": 36.0,
                "paused": False,
                "dead_letters": 4,
                "findings": [{"severity": "critical", "subject": "inbox.backend", "text": "text"}],
            }
        ],
        "subscriptions": [
            {
                "agent": "security",
                "name": "events",
                "topics": ["deployment.>"],
                "lag": 5,
                "ack_pending": 1,
                "redelivered": 0,
                "stranded": None,
                "waiting": 1,
            }
        ],
        "dead_letters": {"total": 4, "by_source": {"inbox.ceo": 3, "tasks.backend": 1}},
        "findings": [{"severity": "warning", "subject": "dlq", "text": "4 dead letters"}],
    }
    json.dumps(told, allow_nan=False)


def test_the_server_is_named_as_it_names_itself() -> None:
    raw = ServerInfo(HOSTILE, "2.15.1", "u", "c")
    assert shapes.fleet(view(), Names(), raw)["server"] == {
        "name": HOSTILE,
        "version": "2.15.1",
        "url": "u",
        "cluster": "c",
    }


def test_a_paused_queue_says_so() -> None:
    paused = QueueDepth(messages=1, durable="d", paused_until=datetime.now(UTC) + timedelta(hours=1))
    assert shapes.queue(flow("backend", depth=paused))["paused"] is True


def test_a_letter_has_the_fields_of_the_contract() -> None:
    assert shapes.letter(dead()) == {
        "seq": 7,
        "source": "tasks.backend",
        "kind": "tasks",
        "name": "backend",
        "subject": "tasks.backend.code",
        "type": "code",
        "reason": "rejected",
        "error_type": "Reject",
        "error": "no spec",
        "agent": "backend-1",
        "deliveries": 3,
        "replays": 1,
        "id": "id-1",
        "correlation_id": "c-1",
        "first_at": None,
        "died_at": "2026-03-04T05:06:07.000089Z",
        "size": 42,
    }


def test_what_a_letter_does_not_say_is_null() -> None:
    bare = shapes.letter(dead(subject="", type="", reason="", error_type="", error="", agent="", correlation_id=""))
    assert [name for name, value in bare.items() if value is None] == [
        *("subject", "type", "reason", "error_type", "error", "agent", "correlation_id", "first_at")
    ]


def test_a_letter_in_full_adds_headers_and_the_exact_body() -> None:
    full = shapes.letter_in_full(dead(b'{"a": "\\u001b[31m"}', {"X-Tenant": "acme"}))
    assert full["headers"] == {"X-Tenant": "acme"}
    assert full["data"] == {"a": "\x1b[31m"}
    assert full["text"] == '{"a": "\\u001b[31m"}'
    assert full["base64"] == "eyJhIjogIlx1MDAxYlszMW0ifQ=="


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"null", {}),
        (b"{broken", {}),
        (b"\xff\xfe", {}),
        (b'{"a":1}', {"ce-datacontenttype": "application/octet-stream"}),
        (b'{"a":1e999}', {}),
        (b"[" * 900 + b"]" * 900, {}),
    ],
)
def test_what_json_cannot_carry_is_null_and_stays_in_base64(body: bytes, headers: dict[str, str]) -> None:
    full = shapes.letter_in_full(dead(body, headers))
    json.dumps([full], allow_nan=False)
    assert full["data"] is None or len(body) > 900
    assert full["base64"] or not body


def test_a_message_has_the_fields_of_the_contract() -> None:
    stored = decode(
        "events.deployment.completed",
        {"ce-id": "e-1", "ce-source": "agents/ops", "ce-type": "deployment.completed"},
        b'{"v":1}',
        names=Names(),
        stream="EVENTS",
        seq=3,
        stored_at=NOW.astimezone(timezone(timedelta(hours=2))),
    )
    assert shapes.message(stored) == {
        "seq": 3,
        "subject": "events.deployment.completed",
        "id": "e-1",
        "type": "deployment.completed",
        "source": "ops",
        "correlation_id": "e-1",
        "stored_at": "2026-03-04T05:06:07.000089Z",
        "size": stored.size,
        "headers": {"ce-id": "e-1", "ce-source": "agents/ops", "ce-type": "deployment.completed"},
        "data": {"v": 1},
        "text": '{"v":1}',
    }


@pytest.mark.parametrize(("status", "word"), enumerate(["healthy", "warning", "critical", "unknown"]))
def test_a_verdict_names_its_exit_code(status: int, word: str) -> None:
    found = [Finding("warning", "dlq", "x")] if status else []
    assert shapes.check(status, found) == {
        "status": word,
        "findings": [{"severity": "warning", "subject": "dlq", "text": "x"}] if status else [],
    }
