"""A console on a real fleet, for tests that press keys and read the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from textual.pilot import Pilot

from console.app import ConsoleApp
from console.operations.audit import Audit
from console.operations.guard import WriteGuard
from console.operations.ledger import JobLedger
from console.session import Runtime, Session
from console.settings import Settings
from patterns import Fleet
from tests.support.waiting import until


@dataclass(slots=True)
class Desk:
    """An operator's desk: the app, its keys, and what it reads."""

    app: ConsoleApp
    pilot: Pilot[Any]
    runtime: Runtime

    def text(self) -> str:
        """What the screen shows, line by line, without styles."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in lines)

    async def sees(self, *wanted: str) -> str:
        """Wait until the screen shows all of these, and return it."""

        async def shown() -> bool:
            await self.pilot.pause()
            text = self.text()
            return all(part in text for part in wanted)

        try:
            await until(shown)
        except AssertionError:
            raise AssertionError(f"{wanted} not on the screen:\n{self.text()}") from None
        return self.text()

    async def misses(self, *unwanted: str) -> str:
        """Wait until the screen shows none of these, and return it."""

        async def gone() -> bool:
            await self.pilot.pause()
            text = self.text()
            return not any(part in text for part in unwanted)

        try:
            await until(gone)
        except AssertionError:
            raise AssertionError(f"{unwanted} still on the screen:\n{self.text()}") from None
        return self.text()

    async def press(self, *keys: str) -> None:
        """Press keys."""
        await self.pilot.press(*keys)

    async def holds(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition of the program holds."""

        async def true() -> Any:
            await self.pilot.pause()
            return condition()

        return await until(true)


@asynccontextmanager
async def desk(
    fleet: Fleet,
    *,
    size: tuple[int, int] = (120, 40),
    write: bool = True,
    settings: Settings | None = None,
    name: str = "demo",
    audit: Audit | None = None,
    ledger: JobLedger | None = None,
    spill: Path | None = None,
) -> AsyncIterator[Desk]:
    """Open the console on a fleet for the length of the block."""
    with TemporaryDirectory() as spills:
        session = Session(
            fleet=fleet,
            settings=settings or Settings(refresh=0.2),
            guard=WriteGuard(write),
            name=name,
            address="127.0.0.1:4222",
            audit=audit,
            spill=Path(spills) if spill is None else spill,
            **({} if ledger is None else {"ledger": ledger}),
        )
        runtime = Runtime(session)
        async with runtime.running():
            app = ConsoleApp(runtime)
            async with app.run_test(size=size, notifications=True) as pilot:
                found = Desk(app, pilot, runtime)
                await found.holds(lambda: runtime.monitor.view is not None)
                yield found
