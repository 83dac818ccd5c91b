"""Triage of many dead letters by keys, as an operator does it."""

from __future__ import annotations

import asyncio
from typing import Any

from console.screens.letters import LetterTable
from patterns.server import LocalServer
from tests.support.fleets import connected, running
from tests.support.letters import forge
from tests.support.screens import desk
from tests.support.waiting import until


async def test_a_thousand_letters_of_five_causes_are_gone_in_a_few_keys(server: LocalServer) -> None:
    """Each cause is seen, a canary is sent, and the rest is replayed or discarded."""
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        causes = ("model did not answer in {} s", "HTTP 429", "no spec in feat-{}", "HTTP 500", "quota of {} used up")
        await asyncio.gather(
            *(
                forge(fleet, f"inbox.ceo.{n}-{n:x}", Message_Id=f"m-{n}", Error=causes[n % 5].format(n))
                for n in range(1, 1001)
            )
        )
        handled: set[str] = set()

        async def handle(delivery: Any) -> None:
            handled.add(delivery.id)

        await console.press("3")
        await console.sees("dead letters  1,000", "200")
        assert len(console.app.screen.query_one(LetterTable).rows) == 5
        async with running(fleet.inbox("ceo").consumer(), handle):
            # All but one cause have been mended: a canary of the first, then the rest of it.
            await console.press("home", "C")
            await console.sees("canary: how many first")
            await console.press("ctrl+u", *"2 30s", "enter")
            await console.sees("replay 200 dead letters")
            await console.press(*"200", "enter")
            await console.sees("2 of 2 acknowledged")
            await console.press("C", "y")
            job = console.runtime.jobs[-1]
            job.set_rate(None)
            await console.holds(lambda: job.state == "completed")
            for left in (3, 2, 1):
                await console.holds(lambda left=left: len(console.app.screen.query_one(LetterTable).rows) == left + 1)
                await console.press("home", "R")
                await console.sees("replay 200 dead letters")
                await console.press(*"200", "enter")
                job = await console.holds(
                    lambda left=left: len(console.runtime.jobs) > 4 - left and console.runtime.jobs[-1]
                )
                job.set_rate(None)
                await console.holds(lambda job=job: job.state == "completed")
            await console.holds(lambda: len(console.app.screen.query_one(LetterTable).rows) == 1)
            await console.press("home", "D")
            await console.sees("discard 200 dead letters")
            await console.press(*"200", "enter")
            await console.sees("no dead letters")
            await until(lambda: len(handled) == 800)
