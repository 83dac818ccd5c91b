"""What the credentials allow, as the server tells it: asked before a plan promises what the server would refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import nats.errors
from nats.aio.client import Client

from patterns import Fleet

SLOW = 1.0
"""Seconds for an answer; a user who may not ask gets none."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Who this is, and where it may publish."""

    account: str | None = None
    allow: Sequence[str] | None = None
    """Subjects one may publish to; None for all."""
    deny: Sequence[str] = ()

    def may_publish(self, subject: str) -> bool:
        """Whether the server would take a message to this subject, as far as it said."""
        if any(matches(pattern, subject) for pattern in self.deny):
            return False
        return self.allow is None or any(matches(pattern, subject) for pattern in self.allow)


_asked: WeakKeyDictionary[Client, tuple[int, Rights]] = WeakKeyDictionary()


async def rights_of(fleet: Fleet) -> Rights:
    """The rights of this connection, asked once each time it is made; all of them where the server does not tell."""
    connection = fleet.nc.stats["reconnects"]
    known = _asked.get(fleet.nc)
    if known is None or known[0] != connection:
        known = (connection, await _ask(fleet))
        _asked[fleet.nc] = known
    return known[1]


async def _ask(fleet: Fleet) -> Rights:
    try:
        async with asyncio.timeout(SLOW):
            answer = await fleet.nc.request("$SYS.REQ.USER.INFO", b"", timeout=SLOW)
        data = json.loads(answer.data)["data"]
        publish: dict[str, Any] = (data.get("permissions") or {}).get("publish") or {}
        return Rights(
            account=data.get("account"), allow=publish.get("allow") or None, deny=tuple(publish.get("deny") or ())
        )
    except (nats.errors.Error, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return Rights()


def takes(consumer: Mapping[str, Any], subject: str) -> bool:
    """Whether a consumer with this configuration is given what is published to a subject."""
    filters = consumer.get("filter_subjects") or [consumer.get("filter_subject") or ">"]
    return any(matches(pattern, subject) for pattern in filters)


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern takes a literal subject."""
    wanted, have = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(have) >= len(wanted) and all(w in ("*", h) for w, h in zip(wanted[:-1], have, strict=False))
    return len(wanted) == len(have) and all(w in ("*", h) for w, h in zip(wanted, have, strict=True))
