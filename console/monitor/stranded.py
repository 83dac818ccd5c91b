"""Which messages are stranded: their exact sequences, looked up once the counters of two looks agree that there are some."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import nats.errors

from console.monitor.snapshot import Key
from console.monitor.view import FleetView
from patterns import Fleet, PatternError
from patterns.sweeping import stranded

log = logging.getLogger("console.monitor")

NAMED: Final = 32
"""Sequences kept of one inbox."""

AT_ONCE: Final = 8
"""Inboxes looked into between two looks."""

Mark = tuple[int, datetime | None, int]


class StrandedBook:
    """The sequences of what is stranded, by inbox; asked anew when the counters change.

    Args:
        fleet: The connection.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[Key, tuple[Mark, tuple[int, ...]]] = {}

    @property
    def sequences(self) -> Mapping[Key, tuple[int, ...]]:
        """The first stranded sequences of each inbox that has any."""
        return {key: sequences for key, (_, sequences) in self._known.items()}

    async def refresh(self, view: FleetView) -> bool:
        """Look up what a view says is stranded and is not known yet; whether anything changed."""
        wanted: dict[Key, Mark] = {}
        durables: dict[Key, str] = {}
        for flow in view.agents:
            if flow.stranded:
                key = ("inbox", flow.name)
                wanted[key] = flow.stranded, flow.depth.oldest_at, flow.depth.messages
                # Fleets made by other code name theirs otherwise.
                durables[key] = flow.depth.durable or self._fleet.names.inbox_durable(flow.name)
        gone = self._known.keys() - wanted.keys()
        for key in gone:
            del self._known[key]
        due = [key for key, mark in wanted.items() if key not in self._known or self._known[key][0] != mark]
        for key in due[:AT_ONCE]:
            stream = self._fleet.names.inbox_stream(key[1])
            try:
                found = await stranded(self._fleet.jetstream, stream, durables[key], limit=NAMED)
            except (PatternError, nats.errors.Error) as error:
                log.debug("stranded messages of %s: %s", stream, error)
                continue
            self._known[key] = wanted[key], tuple(message.seq for message in found)
        return bool(due or gone)
