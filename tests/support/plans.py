"""Plans of replays, with all of it said at once."""

from __future__ import annotations

from typing import Any

from console.operations import plan_letters
from console.operations.plan import Plan
from console.operations.plan_letters import Sending
from console.operations.selection import Choice
from patterns import Fleet


async def plan_replay(fleet: Fleet, choice: Choice, **options: Any) -> Plan:
    """Plan a replay; `options` are those of `Sending` and of `plan_letters.plan_replay`."""
    how = {name: options.pop(name) for name in Sending.__slots__ if name in options}
    return await plan_letters.plan_replay(fleet, choice, Sending(**{"rate": None, **how}), **options)
