"""Dead letters for tests: real deaths of real work, and letters that somebody else wrote."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from patterns import DeadLetter, Fleet, Message
from tests.support.fleets import running
from tests.support.waiting import until


async def kill_tasks(fleet: Fleet, count: int, *, role: str = "backend", error: str = "no model") -> list[DeadLetter]:
    """Submit tasks `t-0`, `t-1`, ... and let a worker reject each of them; the letters."""
    queue = fleet.tasks(role)
    await asyncio.gather(*(queue.submit("code.feature", {"n": n}, id=f"t-{n}", source="ceo") for n in range(count)))

    async def refuse(task: Any) -> None:
        await task.reject(error)

    async with running(queue.worker("backend-1", concurrency=32), refuse):
        return await until(lambda: _all(fleet, count))


async def _all(fleet: Fleet, count: int) -> list[DeadLetter] | None:
    there = sum((await fleet.dead_letters.count()).values())
    return await fleet.dead_letters.list(limit=count + 1) if there >= count else None


async def forge(
    fleet: Fleet,
    entry: str,
    subject: str | None = "agents.ceo.inbox.note",
    *,
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    **fields: str,
) -> int:
    """Write a letter as any client could: `entry` names the death, `fields` are `Dead-Letter-*`; its sequence."""
    told = {f"Dead-Letter-{name.replace('_', '-')}": value for name, value in fields.items()}
    if subject is not None:
        told["Dead-Letter-Subject"] = subject
    prefix = f"{fleet.names.org}." if fleet.names.org else ""
    return (await fleet.js.publish(f"{prefix}dlq.{entry}", body, headers={**told, **(headers or {})})).seq


async def forge_many(fleet: Fleet, count: int, **fields: str) -> list[int]:
    """So many letters of the inbox of `ceo`, written at once."""
    return list(
        await asyncio.gather(
            *(forge(fleet, f"inbox.ceo.{n}-{n:x}", Message_Id=f"m-{n}", **fields) for n in range(1, count + 1))
        )
    )


DIED = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""A minute after the first of the letters that `made` makes."""


def made(seq: int = 1, **fields: Any) -> DeadLetter:
    """A dead letter of the queue of `backend` that was never on a server."""
    message = Message(
        id="t-1",
        type="code.feature",
        source="ceo",
        subject="tasks.backend.code.feature",
        data={},
        text="{}",
        headers={},
        time=None,
        correlation_id="t-1",
        causation_id=None,
        expires_at=None,
        replay_of=None,
        stream="DLQ",
        seq=seq,
        stored_at=DIED,
        size=2,
    )
    filled = {
        "seq": seq,
        "entry": f"tasks.backend.{seq}-1",
        "kind": "tasks",
        "name": "backend",
        "subject": "tasks.backend.code.feature",
        "id": f"t-{seq}",
        "type": "code.feature",
        "reason": "max-deliver",
        "error_type": "TimeoutError",
        "error": "model did not answer",
        "agent": "backend-1",
        "stream": "TASKS_BACKEND",
        "origin_seq": seq,
        "deliveries": 3,
        "replays": 0,
        "first_at": None,
        "died_at": DIED - timedelta(seconds=60 - seq),
        "size": 2,
        "correlation_id": "t-1",
        "message": message,
        **fields,
    }
    return DeadLetter(**filled)
