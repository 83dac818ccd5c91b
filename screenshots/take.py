"""Takes the README's pictures from the real console on the seeded demo: `python screenshots/take.py` (extra: screenshots).

Nothing is drawn by hand: a private server and the simulated organization run, the console is driven by keys, and what it
shows is exported as SVG and rendered to PNG. Needs Fira Code (Debian: fonts-firacode); DejaVu Sans Mono will do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import resvg_py
from textual.pilot import Pilot
from textual.widgets import TextArea

from console.app import ConsoleApp
from console.demo.simulation import DemoOptions, Simulation
from console.operations.audit import Audit
from console.operations.guard import WriteGuard
from console.operations.ledger import JobLedger
from console.screens.edit import EditScreen
from console.screens.lineage import LineagePane
from console.screens.plan_dialog import PlanDialog
from console.session import Runtime, Session
from console.settings import Settings
from patterns import Fleet
from patterns.server import LocalServer

HERE = Path(__file__).resolve().parent
FONTS = ("FiraCode-Regular.ttf", "FiraCode-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")
FONT_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path("/Library/Fonts"),
    Path.home() / ".fonts",
)
SETTLE = 45.0
"""Seconds of traffic before the first picture: the sparklines hold a minute."""


def fonts() -> list[str]:
    """Paths of the monospaced fonts that are installed."""
    found = [path for folder in FONT_FOLDERS if folder.is_dir() for name in FONTS for path in folder.rglob(name)]
    return [str(path) for path in found]


def render(app: ConsoleApp, name: str, *, svg: bool) -> None:
    """Write what the app shows as PNG, and as SVG if asked."""
    picture = app.export_screenshot(title="agent-console", simplify=False)
    picture = picture.replace("font-family: arial", "font-family: Fira Code")
    if svg:
        (HERE / f"{name}.svg").write_text(picture)
    has_fira = any("FiraCode" in path for path in fonts())
    png = resvg_py.svg_to_bytes(
        svg_string=picture if has_fira else picture.replace("Fira Code", "DejaVu Sans Mono"),
        font_files=fonts(),
        width=1600,
    )
    (HERE / f"{name}.png").write_bytes(bytes(png))
    print(f"{name}.png")


async def until(pilot: Pilot[int], wanted: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait until something shows; a picture without it would be a lie."""
    deadline = time.monotonic() + timeout
    while not wanted():
        if time.monotonic() > deadline:
            raise SystemExit("the demo did not come to what the picture should show")
        await pilot.pause(0.1)


async def jobs(pilot: Pilot[int]) -> None:
    """Let some jobs run, one of them at the default pace, so that there is something to see."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    runtime = app.runtime
    for keys in (("D", "y"), ("ctrl+a", "R", "y")):
        await pilot.press("3", "home", *keys[:-1])
        await until(pilot, lambda: app.screen.is_modal)
        await pilot.press(keys[-1])
        await until(pilot, lambda: not app.screen.is_modal and bool(runtime.jobs))
        await pilot.pause(1.0)


async def edit(pilot: Pilot[int], picture: Callable[[], None], only: Sequence[str]) -> None:
    """Edit one letter as far as its plan."""
    app = pilot.app
    if only and "edit-plan" not in only:
        return
    await pilot.press("slash", *"reason:rejected", "enter", "home", "down", "E")
    await until(pilot, lambda: isinstance(app.screen, EditScreen))
    body = app.screen.query_one("#edit-body", TextArea)
    body.text = body.text.replace("{", '{\n  "spec": "429 above 100/s",', 1)
    await pilot.pause(0.5)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: isinstance(app.screen, PlanDialog))
    await pilot.pause(0.5)
    picture()
    await pilot.press("escape", "escape")


async def lineage(pilot: Pilot[int]) -> None:
    """Show the deaths of a letter that came back and died again."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    store = app.runtime.monitor.letters
    await pilot.press("3")
    await until(pilot, lambda: any(letter.replays for letter in store.all()))
    await pilot.press("slash", *"replays:>0", "enter", "home", "down")
    await pilot.pause(1.0)
    await pilot.press("a")
    await until(pilot, lambda: isinstance(app.screen, LineagePane))
    await pilot.pause(1.5)


async def take(size: tuple[int, int], settle: float, seed: int, prefix: str, only: Sequence[str], *, svg: bool) -> None:
    """Take one picture of each screen at one size."""
    with LocalServer() as server, tempfile.TemporaryDirectory() as directory:
        # Neither who takes the pictures nor where is anybody's business.
        os.environ["LOGNAME"], socket.gethostname = "ada", lambda: "ops-1"
        os.chdir(directory)
        state = Path()
        options = DemoOptions(seed=seed)
        async with Simulation(server.url, options) as simulation, Fleet.connect(server.url) as fleet:
            traffic = asyncio.create_task(simulation.run(None))
            address = server.url.removeprefix("nats://")
            session = Session(
                fleet=fleet,
                settings=Settings(replay_rate=4.0),
                guard=WriteGuard(True),
                name="demo",
                address=address,
                demo=True,
                audit=Audit(state / "audit.jsonl", {"actor": "ada@ops-1", "mode": "demo"}),
                ledger=JobLedger(state),
                spill=state / "spill",
            )
            runtime = Runtime(session)
            async with runtime.running():
                app = ConsoleApp(runtime)
                async with app.run_test(size=size) as pilot:
                    await pilot.pause(settle)
                    await until(pilot, lambda: len(runtime.monitor.letters.all()) >= 6)
                    for key, name in (("1", "fleet"), ("2", "queues"), ("3", "dead-letters"), ("4", "events")):
                        await pilot.press(key)
                        await pilot.pause(1.2)
                        if name == "dead-letters":
                            await pilot.press("down", "space", "space")
                            await pilot.pause(0.5)
                        if not only or name in only:
                            render(app, prefix + name, svg=svg)
                        if name == "dead-letters":
                            await pilot.press("R")
                            await pilot.pause(1.0)
                            if not only or "replay-plan" in only:
                                render(app, f"{prefix}replay-plan", svg=svg)
                            await pilot.press("escape", "ctrl+backslash")
                            await edit(pilot, lambda: render(app, f"{prefix}edit-plan", svg=svg), only)
                    await jobs(pilot)
                    for key, name in (("6", "jobs"), ("7", "audit")):
                        await pilot.press(key)
                        await pilot.pause(1.5)
                        if not only or name in only:
                            render(app, prefix + name, svg=svg)
                    if not only or "lineage" in only:
                        await lineage(pilot)
                        render(app, f"{prefix}lineage", svg=svg)
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)


def main() -> None:
    """Parse the arguments and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="120x36", help="columns x lines")
    parser.add_argument("--settle", type=float, default=SETTLE, help="seconds of traffic before the first picture")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--prefix", default="", help="before each file name")
    parser.add_argument("--svg", action="store_true", help="keep the SVG too")
    parser.add_argument("only", nargs="*", help="names of the pictures to take; all if none")
    given = parser.parse_args()
    columns, lines = (int(part) for part in given.size.split("x"))
    asyncio.run(take((columns, lines), given.settle, given.seed, given.prefix, given.only, svg=given.svg))


if __name__ == "__main__":
    main()
