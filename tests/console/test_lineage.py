"""The deaths of a letter on the screen: all of them, what is missing, and the way to the job that brought it back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from console.letters import Gap, chain
from console.operations.items import Item, ItemResult
from console.operations.ledger import JobLedger, JobRecord
from console.screens.fleet import FleetScreen
from console.screens.job_items import ItemsScreen
from console.screens.jobs import JobsScreen
from console.screens.lineage import Jobs, LineagePane, link_row, open_lineage, read_jobs, story
from console.widgets.details import letter_text
from patterns import DeadLetter, Death, Fleet
from patterns.headers import escape, format_time
from tests.support.fleets import connected
from tests.support.letters import forge
from tests.support.screens import Desk, desk

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b"
UNSAFE = set("\x1b\x07\u202e\u200b\x9b")
COLOURS = {"bright": "bold", "dim": "dim", "bad": "red", "accent": "blue"}


def told(n: int, *, age: float = 3700.0, **fields: str) -> dict[str, str]:
    """The header of one earlier death; by default an hour old, and back five minutes later."""
    at = datetime.now(UTC) - timedelta(seconds=age)
    story = {
        "at": format_time(at), "entry": f"inbox.ceo.{n}-{n:x}", "seq": str(100 + n), "tries": "3",
        "replayed": format_time(at + timedelta(minutes=5)), "reason": "max-deliver", "by": f"op-{n}@ops",
        "agent": "ceo", "type": "TimeoutError", "error": f"error number {n}",
    }  # fmt: skip
    return {f"Dead-Letter-Death-{n}": urlencode(story | fields)}


async def dead(fleet: Fleet, *deaths: dict[str, str], replays: int | None = None, **fields: str) -> DeadLetter:
    """A letter that tells of these earlier deaths."""
    headers = {name: value for death in deaths for name, value in death.items()}
    fields = {"Replays": str(len(deaths) if replays is None else replays), "Error": "the end", **fields}
    fields = {"Reason": "rejected", "Agent": "ceo", "Deliveries": "1", "Message_Id": "m", **fields}
    return await fleet.dead_letters.get(await forge(fleet, "inbox.ceo.9-9", headers=headers, **fields))


def ledger_of(*jobs: str) -> JobLedger:
    """A ledger that knows these jobs, each with two items done and one failed."""
    ledger, now = JobLedger(), time.time()
    for n, job in enumerate(jobs):
        ledger.add(
            JobRecord(
                id=job, action="replay", stream="DLQ", identity="DLQ there", context="demo", actor="ann@ops", mode="ui",
                selection=f"by {job}", reason="model is back", rate=20.0, state="completed", planned=3,
                created=now - n, started=now - n, ended=now - n,
            ),
            [Item(seq, 0, "inbox.ceo", "agents.ceo.inbox.note") for seq in (1, 2, 3)],
        )  # fmt: skip
        results = [ItemResult(1, "done", ""), ItemResult(2, "done", ""), ItemResult(3, "failed", "queue full")]
        ledger.settle(job, list(enumerate(results)))
    return ledger


async def opened(console: Desk, letter: DeadLetter) -> LineagePane:
    """The pane over the screen, when it has read the ledger."""
    open_lineage(console.app.screen, letter)
    pane = await console.holds(lambda: isinstance(console.app.screen, LineagePane) and console.app.screen)
    await console.holds(lambda: pane._jobs is not None)
    return pane


async def test_the_deaths_are_walked_from_the_last_to_the_first(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await dead(fleet, told(1, age=7300.0), told(2, edited="1"))
        async with desk(fleet) as console:
            below = console.app.screen
            pane = await opened(console, letter)
            text = await console.sees("3 deaths", "WHY", "CAME BACK BY", "death 3 of 3", "the end", "not yet")
            rows = [line for line in text.splitlines() if "↻" in line]
            assert [(row.glyph, row.cells[0].text) for row in pane.table.rows] == [("↻", "1"), ("↻", "2"), ("✖", "3")]
            assert "op-1@ops" in rows[0]
            assert "✎" not in rows[0]
            assert "op-2@ops" in rows[1]
            assert "✎" in rows[1]
            assert "still dead" in text
            await console.press("k")
            await console.sees(
                "death 2 of 3", "TimeoutError: error number 2", "by op-2@ops, edited ✎", "102   inbox.ceo.2-2"
            )
            await console.press("up")
            await console.sees("death 1 of 3", "3 tries by ceo", "(2h ago)")
            await console.press("j")
            await console.sees("death 2 of 3")
            await console.press("tab")
            assert console.app.focused is pane.query_one("#lineage-story")
            await console.press("tab", "escape")
            await console.holds(lambda: console.app.screen is below)


async def test_the_story_tells_what_the_ledger_knows_of_the_job(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await dead(fleet, told(1, job="7f3a01c2"), told(2, job="elsewhere"))
        async with desk(fleet, ledger=ledger_of("7f3a01c2")) as console:
            await opened(console, letter)
            await console.press("k")
            await console.sees("elsewhere   not in this machine's ledger", "esc closes")
            await console.press("enter")
            await console.misses("enter goes")
            assert isinstance(console.app.screen, LineagePane)
            await console.press("k")
            await console.sees(
                "7f3a01c2   replay", "ann@ops", "by 7f3a01c2", "model is back", "completed: 2 done, 1 failed",
                "enter goes to its job",
            )  # fmt: skip


@pytest.mark.parametrize("before", [[], ["6", "slash", "z", "z", "enter"], ["6", "enter"]], ids=["", "filter", "items"])
async def test_enter_goes_to_the_job_whatever_the_screen_of_jobs_shows(server, before):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await dead(fleet, told(1, job="7f3a01c2"))
        async with desk(fleet, ledger=ledger_of("newer", "7f3a01c2", "older")) as console:
            if before:
                await console.press("6")
                await console.sees("by newer", "by older")
                await console.press(*before[1:])
                if before[1] == "enter":
                    await console.holds(lambda: isinstance(console.app.screen, ItemsScreen))
                else:
                    await console.sees("no job matches")
            await opened(console, letter)
            await console.press("k", "enter")
            screen = await console.holds(lambda: isinstance(console.app.screen, JobsScreen) and console.app.screen)
            await console.holds(lambda: screen.table.cursor_key == "7f3a01c2")
            await console.sees("by newer", "by older", "job 7f3a01c2")
            # It is a visit, not a leash.
            await console.press("j")
            await console.holds(lambda: screen.table.cursor_key == "older")
            screen.look_soon()
            await console.sees("job older")
            await console.press("1")
            await console.holds(lambda: isinstance(console.app.screen, FleetScreen))


async def test_a_job_that_is_not_listed_is_told(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, ledger=ledger_of("7f3a01c2")) as console:
        await console.press("6")
        await console.sees("7f3a01c2")
        console.app.screen.show_job("forgotten")
        await console.sees("job forgotten is not among the newest")
        assert console.app.screen.table.cursor_key == "7f3a01c2"


async def test_what_is_not_on_record_is_a_line_of_its_own(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        first = format_time(datetime.now(UTC) - timedelta(days=3, minutes=1))
        letter = await dead(fleet, told(3), replays=4, Replayed_By="bob@old", First_At=first)
        assert chain(letter) == [
            Gap(1, 2), letter.lineage[0], Gap(4, 4, replayed_by="bob@old"), letter.death,
        ]  # fmt: skip
        async with desk(fleet) as console:
            await opened(console, letter)
            text = await console.sees("2 earlier deaths are not on record", "1 earlier death is not on record", "1–2")
            assert "5 deaths" in text
            await console.press("k")
            await console.sees("older version or other code", "by bob@old")
            await console.press("home")
            await console.sees("first died", "(3d ago)")


async def test_a_ledger_that_cannot_be_read_costs_its_part_only(server, monkeypatch):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, ledger = await dead(fleet, told(1, job="7f3a01c2")), ledger_of("7f3a01c2")
        async with desk(fleet, ledger=ledger) as console:
            ledger.close()
            await opened(console, letter)
            await console.press("k")
            await console.sees("error number 1", "the job ledger cannot be read")


async def test_it_fits_a_small_terminal(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await dead(fleet, *(told(n, job="7f3a01c2") for n in range(1, 21)))
        async with desk(fleet, size=(80, 24), ledger=ledger_of("7f3a01c2")) as console:
            pane = await opened(console, letter)
            text = await console.sees("21 deaths", "death 21 of 21", "WHY", "CAME BACK BY", "still dead")
            assert pane.query_one("#lineage").region.bottom <= 24
            assert text.splitlines()[-1].strip().startswith("╰")
            await console.press("k")
            await console.sees("death 20 of 21", "TimeoutError: error number 20", "came back")
            height = pane.query_one("#lineage").region
            await console.press("g")
            await console.sees("death 1 of 21")
            # Nothing moves under the cursor while it walks.
            assert pane.query_one("#lineage").region == height
            await console.press("tab", "end")
            await console.sees("completed: 2 done, 1 failed")


async def test_what_others_wrote_is_inert(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        hostile = dict.fromkeys(("error", "by", "job", "agent", "type", "reason"), HOSTILE)
        fields = {"Replayed_By": escape(HOSTILE), "Replay_Job": escape(HOSTILE), "Error": escape(HOSTILE)}
        letter = await dead(fleet, told(1, **hostile), replays=2, **fields)
        async with desk(fleet) as console:
            await opened(console, letter)
            for _ in range(3):
                text = await console.sees("[@click=app.leave]x")
                assert not UNSAFE & set(text)
                await console.press("k")
        now = datetime.now(UTC)
        for link in chain(letter):
            told_of = story(link, letter, Jobs({}, HOSTILE), now, COLOURS)
            assert not UNSAFE & set(told_of.plain)
            assert not UNSAFE & {char for cell in link_row(link, now).cells for char in cell.text}


async def test_a_letter_names_its_latest_deaths(server):
    now = datetime.now(UTC)
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter = await dead(fleet, *(told(n, edited="1" if n == 5 else "") for n in range(2, 6)), replays=5)
        lines = letter_text(letter, now, COLOURS).plain.splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith("replayed"))
        assert lines[at] == "replayed     5×   a shows all"
        assert lines[at + 1] == "  #5 1h ago  error number 5"
        assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["#5", "#4", "#3"]
        assert not lines[at + 4].startswith(" ")
        assert not any(line.startswith("Dead-Letter-Death") for line in lines)
        old = await fleet.dead_letters.get(await forge(fleet, "inbox.ceo.8-8", Replays="3"))
        assert "3 earlier deaths are not on record" in letter_text(old, now, COLOURS).plain
        fresh = await fleet.dead_letters.get(await forge(fleet, "inbox.ceo.7-7"))
        assert "replayed     never" in letter_text(fresh, now, COLOURS).plain


def test_the_ledger_is_asked_for_each_job_once():
    ledger = ledger_of("7f3a01c2")
    found = read_jobs(ledger, ["7f3a01c2", "elsewhere", ""])
    assert list(found.known) == ["7f3a01c2"]
    assert found.known["7f3a01c2"][1] == {"done": 2, "failed": 1}


def test_a_death_of_which_little_is_known_is_told_with_what_there_is():
    now = datetime.now(UTC)
    bare = Death(n=1, entry="inbox.ceo.1-1", seq=0, at=now, reason="", error_type="", error="", agent="", deliveries=0)
    assert [cell.text for cell in link_row(bare, now).cells] == [
        "1", "now", "inbox.ceo", "no reason given", "0", "–", "–", "", "",
    ]  # fmt: skip
