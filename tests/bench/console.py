"""What the console costs, and whether it keeps to its limits: one table, each figure beside its peer or its floor.

`python -m tests.bench.console` takes about twenty minutes, `--quick` less than three. Each line has a fleet on a
private server of its own; what is on the screen is the real program in a pseudo-terminal. The exit code is 0 whatever is
met and what is not: it is no test.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

from tests.bench import console_load as load
from tests.bench import console_screen as screen
from tests.bench.console_fleet import BigFleet, big_fleet
from tests.bench.console_lines import QUICK, Line, Scale, missing, show

OnFleet = Callable[[BigFleet, Scale], list[Line]]


def system(big: BigFleet, scale: Scale) -> list[Line]:
    """Looks at a fleet with a system account."""
    from tests.bench.console_snapshot import lines  # noqa: PLC0415 - without a reader the other lines are measured

    return lines(big, system=True, rounds=scale.rounds)


def account(big: BigFleet, scale: Scale) -> list[Line]:
    """Looks at a fleet without one."""
    from tests.bench.console_snapshot import lines  # noqa: PLC0415 - as above

    return lines(big, system=False, rounds=scale.rounds)


EVERY_SIZE: dict[str, OnFleet] = {"system": system, "account": account}
LARGEST: dict[str, OnFleet] = {
    "refresh": screen.refresh_lines,
    "memory": load.memory_lines,
    "key": screen.key_lines,
}
"""The keys come last: they leave events behind, which every console after them would read."""
ALONE: dict[str, Callable[[Scale], list[Line]]] = {
    "feed": load.feed_lines,
    "start": load.start_lines,
    "letters": load.letters_lines,
    "idle": load.idle_lines,
}
ORDER = ("system", "account", "refresh", "key", "feed", "start", "memory", "letters", "idle")


def attempted(name: str, measure: Callable[[], list[Line]]) -> list[Line]:
    """The lines, or one that says why there are none: a line that fails must not cost the others."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return [missing(name, "", f"{name}: {type(error).__name__}: {error}")]


def measure(scale: Scale, wanted: set[str]) -> Iterator[tuple[str, list[Line]]]:
    """Measure all that is wanted, a fleet at a time."""
    for agents in scale.agents:
        calls = {name: call for name, call in EVERY_SIZE.items() if name in wanted}
        if agents == max(scale.agents):
            calls |= {name: call for name, call in LARGEST.items() if name in wanted}
        if not calls:
            continue
        with big_fleet(agents) as big:
            for name, call in calls.items():
                yield name, attempted(name, lambda call=call, big=big: call(big, scale))
    for name, alone in ALONE.items():
        if name in wanted:
            yield name, attempted(name, lambda alone=alone: alone(scale))


def chosen(given: argparse.Namespace) -> Scale:
    """How much to measure."""
    scale = QUICK if given.quick else Scale()
    changes: dict[str, object] = {}
    if given.agents:
        changes["agents"] = tuple(sorted(int(size) for size in given.agents.split(",")))
    if given.rounds:
        changes["rounds"] = given.rounds
    if given.presses:
        changes["presses"] = given.presses
    if given.letters:
        changes["letters"] = given.letters
    if given.seconds:
        changes |= dict.fromkeys(("refresh_s", "feed_s", "idle_s", "letters_s"), given.seconds)
    if given.minutes:
        changes["memory_s"] = given.minutes * 60
    return dataclasses.replace(scale, **changes)  # type: ignore[arg-type]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(ORDER), metavar="NAME[,NAME]", help=f"of {', '.join(ORDER)}")
    parser.add_argument("--quick", action="store_true", help="small fleets and short runs, less than three minutes")
    parser.add_argument("--agents", default="", metavar="N[,N]", help="sizes; the largest is shown on the screen too")
    parser.add_argument("--rounds", type=int, help="looks of each side")
    parser.add_argument("--presses", type=int, help="key presses")
    parser.add_argument("--letters", type=int, help="dead letters")
    parser.add_argument("--seconds", type=float, help="length of refresh, feed, letters and idle")
    parser.add_argument("--minutes", type=float, help="length of the memory line")
    given = parser.parse_args()
    wanted = set(given.only.split(","))
    if unknown := wanted - set(ORDER):
        parser.error(f"no such line: {', '.join(sorted(unknown))}")
    # A plain end by a signal would leave out what closes terminals and kills servers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    found: dict[str, list[Line]] = {}
    with contextlib.suppress(KeyboardInterrupt):
        for name, lines in measure(chosen(given), wanted):
            found.setdefault(name, []).extend(lines)
    lines = [line for name in ORDER for line in found.get(name, [])]
    show(lines, f"the console on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
