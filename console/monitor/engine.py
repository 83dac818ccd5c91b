"""The loop that keeps a console's picture of a fleet fresh: snapshot, dead letters, round trip; never raises.

Whoever shows it reads `Monitor.view` on a tick of its own: nothing here calls a screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import nats.errors
from nats.aio.client import Client

from console.monitor.derive import Derivation
from console.monitor.findings import SHARE
from console.monitor.letters import LetterStore
from console.monitor.reader import Reader
from console.monitor.stranded import StrandedBook
from console.monitor.view import FleetView
from console.settings import Settings
from console.text.safe import clean
from patterns import DeadLetter, Fleet, PatternError, Unavailable

log = logging.getLogger("console.monitor")

SLOWEST = 20.0
"""Seconds between two reads at the most: while a node of a cluster is down, a list takes four."""


@dataclass(slots=True)
class Health:
    """How the reading goes."""

    rtt: float | None = None
    """Seconds of one round trip."""
    error: str = ""
    """Why the last read failed, one safe line; empty if it did not."""
    read_at: float = 0.0
    """Monotonic time of the last good read; 0 before the first."""
    interval: float = 1.0
    """Seconds between reads at present."""
    took: float = 0.0
    """Seconds the last good read took, with everything that follows from it."""

    @property
    def age(self) -> float:
        """Seconds since the last good read."""
        return time.monotonic() - self.read_at if self.read_at else 0.0


@dataclass(slots=True)
class Monitor:
    """Reads a fleet again and again.

    Attributes:
        view: The newest view; None before the first read.
        letters: The dead letters.
        health: How the reading goes.
        version: Grows with every change of `view` or `letters`: a screen repaints when it has grown.
    """

    fleet: Fleet
    settings: Settings
    view: FleetView | None = None
    health: Health = field(default_factory=Health)
    version: int = 0
    letters: LetterStore = field(init=False)
    on_change: Callable[[], None] | None = None
    """Called after each read, on the event loop: for a test or a command that waits, not for a screen."""
    on_death: Callable[[DeadLetter], None] | None = None
    """Called for each dead letter that came while the monitor was reading."""
    system: Client | None = None
    """A connection of the system account to the same servers, where one is granted: see `Reader`."""
    _derivation: Derivation = field(init=False)
    _reader: Reader = field(init=False)
    _stranded: StrandedBook = field(init=False)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _no_info: bool = False

    def __post_init__(self) -> None:
        self.letters = LetterStore(self.fleet)
        self._derivation = Derivation(self.settings)
        self._reader = Reader(self.fleet, system=self.system)
        self._stranded = StrandedBook(self.fleet)
        self.health.interval = self.settings.refresh

    async def run(self) -> None:
        """Read until cancelled; what fails is noted in `health` and tried again."""
        while True:
            started = time.monotonic()
            self._wanted.clear()
            await self.read()
            took = time.monotonic() - started
            self.health.interval = max(
                self.settings.refresh, min(took * SHARE, SLOWEST) if not self.health.error else 0
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, self.health.interval - took)):
                    await self._wanted.wait()

    def refresh(self) -> None:
        """Read now instead of when the interval is over."""
        self._wanted.set()

    async def read(self) -> bool:
        """Read once; whether it succeeded."""
        try:
            self._require_connection()
            rtt = await self._round_trip()
            snapshot = await self._reader.read()
            if not any(text.startswith("dead letters") for text in snapshot.missing):
                # What may not be seen is said in the view, and costs the dead letters only.
                await self._read_letters()
            view = await self._derivation.follow(
                snapshot, redeaths=self.letters.redeaths, stranded=self._stranded.sequences
            )
            await self._stranded.refresh(view)
        except (PatternError, nats.errors.Error, OSError) as error:
            self.health.error = clean(str(error) or type(error).__name__)
            log.debug("read failed: %s", self.health.error)
            return False
        except Exception as error:
            # Whatever a server may answer: a console that stops reading without a word would be worse.
            self.health.error = clean(f"{type(error).__name__}: {error}")
            log.exception("read failed")
            return False
        else:
            self.view = view
            self.health.error, self.health.rtt, self.health.read_at = "", rtt, time.monotonic()
            return True
        finally:
            self.version += 1
            if self.on_change is not None:
                self.on_change()

    def _require_connection(self) -> None:
        if not self.fleet.nc.is_connected:
            raise ConnectionError("not connected, trying to reconnect")

    async def _round_trip(self) -> float | None:
        """Seconds of one small request; None where that one is not allowed, which is no reason to show nothing."""
        if self._no_info:
            return None
        started = time.monotonic()
        try:
            await self.fleet.jetstream.api("INFO", timeout=2.0)
        except Unavailable:
            self._no_info = self.view is None and self.fleet.nc.is_connected
            return None
        return time.monotonic() - started

    async def _read_letters(self) -> None:
        await self.letters.refresh()
        if self.on_death is not None:
            for letter in self.letters.fresh:
                self.on_death(letter)


async def observe(fleet: Fleet, settings: Settings, *, reads: int = 2, apart: float = 0.5) -> FleetView:
    """A view from several reads, as rates, `no worker` and stranded messages need: for commands that look once.

    Raises:
        Unavailable: The fleet cannot be read.
    """
    looks = Looks(fleet, settings)
    view = await looks.look()
    while reads > 1 or looks.learned:
        reads -= 1
        await asyncio.sleep(apart)
        view = await looks.look()
    return view


class Looks:
    """Looks at a fleet without keeping a picture fresh, for commands; every consumer is asked in each.

    Args:
        fleet: The connection.
        settings: What counts as too much.
    """

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._reader = Reader(fleet, thorough=True)
        self._derivation = Derivation(settings)
        self._stranded = StrandedBook(fleet)
        self._letters = LetterStore(fleet)
        self.learned = False
        """Whether the last look found out which messages are stranded, so that the next one says more."""

    async def look(self) -> FleetView:
        """Look once more.

        Raises:
            Unavailable: The fleet cannot be read.
        """
        snapshot = await self._reader.read()
        if snapshot.dead_letters:
            await self._letters.refresh()
        view = self._derivation.update(snapshot, redeaths=self._letters.redeaths, stranded=self._stranded.sequences)
        self.learned = await self._stranded.refresh(view)
        return view
