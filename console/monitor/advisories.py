"""What the server says of streams and consumers by itself: chosen JetStream advisories, each as one plain sentence.

Never all of them: `$JS.EVENT.ADVISORY.>` holds an audit event with request and answer of every call of everybody, so that a
console that subscribed to it would listen to itself. What is chosen is told once and for all and by core publish: nobody
may rely on hearing it, and whoever may publish to these subjects can forge it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from console.text.safe import clean
from patterns import Fleet
from patterns.denials import unheard
from patterns.names import Place

log = logging.getLogger("console.monitor")

PREFIX: Final = "$JS.EVENT"
CONSUMER_KINDS: Final = (
    "MAX_DELIVERIES",
    "MSG_TERMINATED",
    "PAUSE",
    "CREATED",
    "DELETED",
    "LEADER_ELECTED",
    "QUORUM_LOST",
)
STREAM_KINDS: Final = ("CREATED", "UPDATED", "DELETED", "LEADER_ELECTED", "QUORUM_LOST")
OWN_DELETES: Final = "Unacknowledged message was deleted"
"""Why a message was terminated that the library itself, or an operator, took out of its stream."""
WAITING: Final = 1_000
"""Advisories that wait to be shown; what comes while so many do is dropped."""
PERIOD: Final = 0.1
A_PERIOD: Final = 100
"""Advisories shown in a period, at the most."""
LOOK: Final = 1.0
"""Seconds between two looks whether a subscription was refused."""
LONGEST: Final = 64 * 1024
"""Bytes of an advisory that is read; the server's own have some hundred."""

AdvisoryTone = Literal["plain", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Advisory:
    """One advisory; all texts are safe to show."""

    kind: str
    """In the words of the server: `max deliveries`, `consumer paused`."""
    source: str
    """The agent or role it is about; empty if it is about none."""
    text: str
    tone: AdvisoryTone
    place: Place
    """What its stream is for."""
    stream: str
    """The stream, as the server names it: not for the screen."""
    seq: int | None = None
    """The message it is about."""


def subjects(prefix: str = PREFIX) -> tuple[str, ...]:
    """What has to be subscribed to hear the chosen ones.

    Args:
        prefix: Of advisories in this account; another one where they are imported.
    """
    consumers = (f"{prefix}.ADVISORY.CONSUMER.{kind}.*.*" for kind in CONSUMER_KINDS)
    return (*consumers, *(f"{prefix}.ADVISORY.STREAM.{kind}.*" for kind in STREAM_KINDS))


class Advisories:
    """Listens to the advisories of one organization's streams.

    Args:
        fleet: The connection.
        heard: Called with each, not oftener than some hundred times a second.
        prefix: See `subjects`.
    """

    def __init__(self, fleet: Fleet, heard: Callable[[Advisory], None], *, prefix: str = PREFIX) -> None:
        self._fleet = fleet
        self._heard = heard
        self._prefix = f"{prefix}.ADVISORY."
        self._subjects = subjects(prefix)
        self._waiting: deque[tuple[Place, list[str], bytes]] = deque()
        self._rung = asyncio.Event()
        self._places: dict[str, Place | None] = {}
        self.dropped = 0
        """Advisories of this organization that came too fast to be shown."""
        self.refused: tuple[str, ...] = ()
        """Subjects that this user may not subscribe to."""

    async def run(self) -> None:
        """Listen until cancelled."""
        nc = self._fleet.nc
        subscriptions: list[Subscription] = []
        try:
            for subject in self._subjects:
                subscriptions.append(await nc.subscribe(subject, cb=self.take))
            while True:
                try:
                    async with asyncio.timeout(LOOK):
                        await self._rung.wait()
                except TimeoutError:
                    self._look()
                    continue
                self._rung.clear()
                self.show()
                self._look()
                await asyncio.sleep(PERIOD)
        finally:
            for subscription in subscriptions:
                if not nc.is_closed:
                    await subscription.unsubscribe()

    async def take(self, msg: Msg) -> None:
        """Callback of the subscriptions: keeps what is about this organization, as long as there is room."""
        tokens = msg.subject.removeprefix(self._prefix).split(".")
        place = self._place(tokens[2]) if len(tokens) > 2 else None
        if place is None:
            return
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            return
        self._waiting.append((place, tokens, msg.data[: LONGEST + 1]))
        self._rung.set()

    def show(self) -> None:
        """Hand out some of what waits."""
        for _ in range(min(len(self._waiting), A_PERIOD)):
            place, tokens, body = self._waiting.popleft()
            advisory = read(place, tokens, body)
            if advisory is not None:
                self._heard(advisory)
        if self._waiting:
            self._rung.set()

    def _place(self, stream: str) -> Place | None:
        if stream not in self._places:
            if len(self._places) > WAITING:  # whoever forges advisories can name any number of streams
                self._places.clear()
            self._places[stream] = self._fleet.names.place_of(stream)
        return self._places[stream]

    def _look(self) -> None:
        self.refused = tuple(subject for subject in self._subjects if unheard(self._fleet.nc, subject))


def read(place: Place, tokens: list[str], body: bytes) -> Advisory | None:
    """An advisory as a sentence; None for one that is nobody's concern.

    Args:
        place: What its stream is for.
        tokens: The subject behind `ADVISORY.`: `CONSUMER` or `STREAM`, kind, stream, consumer.
        body: JSON, or whatever somebody has published there.
    """
    about, kind, stream, *rest = tokens
    said = _object(body)
    if about == "CONSUMER" and rest:
        # Consumers of ledger and receipts are how the library waits: they come and go.
        return None if place.kind in ("ledger", "receipts") else _of_consumer(place, kind, stream, rest[0], said)
    return _of_stream(place, kind, stream, said) if about == "STREAM" and not rest else None


def _of_consumer(place: Place, kind: str, stream: str, consumer: str, said: Mapping[str, Any]) -> Advisory | None:
    where, durable, seq = _where(place), clean(consumer, limit=64), _number(said.get("stream_seq"))
    source = place.name or consumer.rpartition("-")[0] or consumer

    def told(words: str, text: str, tone: AdvisoryTone = "plain", message: int | None = None) -> Advisory:
        return Advisory(words, clean(source, limit=64), clean(f"{where}: {text}"), tone, place, stream, message)

    name, tries = f"message {seq}" if seq else "a message", _number(said.get("deliveries"))
    if kind == "MAX_DELIVERIES":
        used = f"its {tries} {'delivery' if tries == 1 else 'deliveries'}" if tries else "its deliveries"
        return told("max deliveries", f"{name} used up {used}", "bad", seq)
    if kind == "MSG_TERMINATED":
        reason = said.get("reason")
        if reason == OWN_DELETES:
            return None
        why = f": {reason}" if isinstance(reason, str) and reason else ""
        return told("terminated", f"{name} was terminated{why}", "bad", seq)
    if kind == "PAUSE":
        if said.get("paused") is True:
            until = said.get("pause_until")
            end = f" until {until[:19].replace('T', ' ')} UTC" if isinstance(until, str) and until else ""
            return told("consumer paused", f"deliveries of {durable} are paused{end}", "warn")
        return told("consumer resumed", f"deliveries of {durable} go on")
    if kind in ("CREATED", "DELETED"):
        word = kind.lower()
        return told(f"consumer {word}", f"consumer {durable} was {word}", "warn" if word == "deleted" else "plain")
    return _of_raft(told, f"consumer {durable}", kind, said)


def _of_stream(place: Place, kind: str, stream: str, said: Mapping[str, Any]) -> Advisory | None:
    def told(words: str, text: str, tone: AdvisoryTone = "plain", message: int | None = None) -> Advisory:
        text = clean(f"{_where(place)}: {text}")
        return Advisory(words, clean(place.name, limit=64), text, tone, place, stream, message)

    name = f"stream {clean(stream, limit=64)}"
    if kind in ("CREATED", "UPDATED", "DELETED"):
        word = kind.lower()
        return told(f"stream {word}", f"{name} was {word}", "bad" if word == "deleted" else "plain")
    return _of_raft(told, name, kind, said)


def _of_raft(told: Callable[..., Advisory], what: str, kind: str, said: Mapping[str, Any]) -> Advisory | None:
    if kind == "LEADER_ELECTED":
        leader = said.get("leader")
        by = clean(leader, limit=64) if isinstance(leader, str) and leader else "another server"
        return told("leader elected", f"{what} is led by {by} now")
    return told("quorum lost", f"{what} has lost its quorum", "bad") if kind == "QUORUM_LOST" else None


def _where(place: Place) -> str:
    words = {"dlq": "dead letters", "events": "events", "ledger": "task ledger", "receipts": "receipts"}
    return words.get(place.kind) or f"{place.kind}.{place.name}"


def _object(body: bytes) -> Mapping[str, Any]:
    if len(body) > LONGEST:
        return {}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _number(value: Any) -> int | None:
    """A count or sequence; None for what is none."""
    return value if type(value) is int and 0 < value < 1 << 63 else None
