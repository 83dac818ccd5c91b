"""What the ledger is told of a confirmed plan."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from typing import Any

from console.operations.ledger import TO_BE_MADE, JobRecord
from console.operations.plan import Plan
from console.text.safe import clean
from patterns.headers import encodable


def record_of(plan: Plan, *, context: str, mode: str) -> JobRecord:
    """The record of a new job.

    Args:
        plan: What was confirmed.
        context: The nats context, for people who look later.
        mode: Where it was confirmed: `ui`, `demo` or `cli`.
    """
    return JobRecord(
        id=secrets.token_hex(4),
        action=plan.action,
        stream=plan.stream,
        identity=plan.identity or f"{plan.stream}{TO_BE_MADE}",
        context=context,
        actor=operator_name(),
        mode=mode,
        selection=encodable(plan.selection),
        reason=encodable(plan.reason),
        spec=_spec_of(plan),
        rate=plan.rate,
        planned=plan.count,
        skipped=plan.skipped_by_reason,
        created=time.time(),
    )


def _spec_of(plan: Plan) -> dict[str, Any]:
    """What the action needs besides its items; only what was asked for."""
    spec: dict[str, Any] = dict(plan.settings) | {"noun": plan.noun, "destinations": plan.by_destination}
    asked = {
        "to": plan.to,
        "edit": plan.edit.spec() if plan.edit is not None else None,
        "canary": plan.canary.spec() if plan.canary is not None else None,
        "stop_ratio": plan.stop_ratio,
        "hold": [list(each) for each in plan.holds] if plan.hold else None,
        "spill": str(plan.spill) if plan.spill is not None else None,
        "source": str(plan.source) if plan.source is not None else None,
    }
    spec |= {name: value for name, value in asked.items() if value is not None}
    return spec | ({"force": True, "overridden": dict(plan.overridden)} if plan.force else {})


def operator_name() -> str:
    """`user@host`, as a replayed message remembers its operator."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return clean(f"{user}@{socket.gethostname()}", limit=64)
