"""Screen 3 by its keys: groups, groupings, folds, marks, and notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.causes import cause_id
from console.notes import about_cause, about_letter
from console.operations.audit import Audit
from console.operations.ledger import JobLedger
from console.operations.noting import letters_identity, write_note
from console.screens.inspect import InspectPane
from console.screens.letters import LettersScreen
from console.screens.note_book import NotePane
from patterns import DeadLetter, Fleet
from patterns.server import LocalServer
from tests.support.fleets import connected
from tests.support.letters import forge, forge_many
from tests.support.screens import Desk, desk

TIMEOUT, SPEC = "inbox.ceo", "tasks.backend"


async def fill(fleet: Fleet) -> list[DeadLetter]:
    """Letters 1 to 5: three that timed out in an inbox, two of a queue without a spec, one of those replayed."""
    for number in range(1, 4):
        await forge(
            fleet, f"inbox.ceo.{number}-{number:x}", Message_Id=f"note-{number}", Agent="ceo", Reason="max-deliver",
            Error_Type="TimeoutError", Error=f"no answer within {number} s", Deliveries=str(number),
        )  # fmt: skip
    for number in range(4, 6):
        await forge(
            fleet, f"tasks.backend.{number}-{number:x}", "tasks.backend.code.feature", Message_Id=f"feat-{number}",
            Agent=f"backend-{number}", Error_Type="Reject", Error="no spec", Deliveries="1", Replays=str(number % 2),
        )  # fmt: skip
    return await fleet.dead_letters.list()


async def opened(console: Desk) -> LettersScreen:
    """Screen 3 with all five letters."""
    await console.press("3")
    await console.sees("dead letters  5", "grouped by cause")
    screen = console.app.screen
    assert isinstance(screen, LettersScreen)
    return screen


def line(text: str, *parts: str) -> str:
    """The one line of the screen that has all of these."""
    (found,) = [each for each in text.splitlines() if all(part in each for part in parts)]
    return found


def marks(screen: LettersScreen) -> set[str]:
    return set(screen.table.marks)


class TestGroups:
    async def test_a_line_tells_what_how_many_attempts_replays_and_when(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet, size=(160, 40)) as console:
                await opened(console)
                text = await console.sees("▾ inbox.ceo", "▾ tasks.backend")
                first = line(text, "▾ inbox.ceo")
                for part in ("TimeoutError: no answer within # s", "3", "tries 1…3"):
                    assert part in first
                second = line(text, "▾ tasks.backend")
                for part in ("Reject: no spec", "2", "tries 1", "↻1"):
                    assert part in second
                assert "↻" not in first

    @pytest.mark.parametrize("size", [(120, 40), (80, 24)])
    async def test_the_pane_tells_the_group_under_the_cursor_in_words(
        self, server: LocalServer, size: tuple[int, int]
    ) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            async with desk(fleet, size=size) as console:
                await opened(console)
                await console.sees(
                    "3 dead letters  inbox.ceo", "first seen", "last seen", "1…3", "none of them", "agents", "types",
                    f"cause:{cause_id(letters[0])}", "3 letters",
                )  # fmt: skip
                await console.press("down", "down", "down", "down")
                await console.sees("2 dead letters  tasks.backend", "1 of them, once", "backend-5 1, backend-4 1")
                await console.press("down")
                await console.sees("seq 5", "feat-5")
                await console.misses("first seen")

    async def test_the_filter_of_a_cause_shows_its_group_and_the_verbs_are_about_it(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            async with desk(fleet) as console:
                await opened(console)
                await console.press("slash", *f"cause:{cause_id(letters[-1])[:5]}")
                await console.sees("2 of 5")
                await console.press("enter", "D")
                await console.sees("discard 2 dead letters")
                await console.press("escape")

    async def test_b_goes_through_the_groupings_and_the_cursor_stays_on_its_letter(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("down", "down")
                assert screen.table.cursor_key == "2"
                for grouping, wanted in (
                    ("grouped by agent", "▾ backend-5"),
                    ("grouped by subject", "▾ agents.ceo.inbox.note"),
                    ("grouped by type", "▾ note"),
                    ("not grouped", "inbox.ceo"),
                    ("grouped by cause", "▾ inbox.ceo"),
                ):
                    await console.press("b")
                    await console.sees(grouping, wanted, "seq 2")
                    assert screen.table.cursor_key == "2"

    async def test_ungrouped_the_newest_is_first_with_place_and_error(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("b", "b", "b", "b")
                text = await console.sees("not grouped")
                assert [row.key for row in screen.table.rows] == ["5", "4", "3", "2", "1"]
                assert "TimeoutError: no answer" in line(text, "note-1", "inbox.ceo")
                await console.press("left", "right")
                assert len(screen.table.rows) == 5, "there is nothing to fold"

    async def test_the_cursor_on_a_group_goes_to_the_group_of_its_newest(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("down", "down", "down", "down", "b")
                await console.sees("grouped by agent", "1 letter")
                assert screen.table.cursor_key == "agent\nbackend-5"

    async def test_every_grouping_has_its_own_folds_and_a_folded_letter_is_found_by_its_group(
        self, server: LocalServer
    ) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("down", "left")
                await console.sees("▸ inbox.ceo")
                await console.press("b")
                await console.sees("▾ ceo", "note-2")
                await console.press("down", "down", "b", "b", "b", "b")
                await console.sees("grouped by cause", "▸ inbox.ceo")
                assert screen.table.cursor_key.startswith("inbox.ceo\n")
                await console.press("enter")
                await console.sees("▾ inbox.ceo", "note-2")


class TestMarks:
    async def test_space_on_a_group_marks_and_unmarks_its_letters_folded_or_not(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("space")
                await console.sees("3 marked")
                assert marks(screen) == {"1", "2", "3"}
                await console.press("space")
                await console.misses("marked")
                await console.press("left", "space")
                await console.sees("▸ inbox.ceo", "3 marked")
                await console.press("down", "space")
                await console.sees("5 marked")
                await console.press("R")
                await console.sees("replay 5 dead letters", "3 of them are marked but not visible")
                await console.press("escape")

    async def test_a_group_of_which_some_are_marked_says_so_and_space_marks_the_rest(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("down", "space", "left")
                await console.sees("1 marked", "1/3")
                await console.press("space")
                await console.misses("1/3")
                assert marks(screen) == {"1", "2", "3"}

    async def test_marks_stay_through_the_groupings(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                screen = await opened(console)
                await console.press("space", "b", "b", "b", "b")
                await console.sees("3 marked   not grouped")
                await console.press("g", "space")
                assert marks(screen) == {"1", "2", "3", "5"}


class TestNotes:
    async def test_on_a_cause_is_asked_for_signed_shown_and_removed(self, server: LocalServer, tmp_path: Path) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            audit, ledger = Audit(tmp_path / "audit.jsonl"), JobLedger(tmp_path)
            key = about_cause(cause_id(letters[0]))
            async with desk(fleet, audit=audit, ledger=ledger) as console:
                await opened(console)
                await console.press("N")
                await console.sees("note on inbox.ceo  TimeoutError", "enter saves, esc cancels")
                await console.press(*"known", "enter")
                await console.sees("✎ TimeoutError", "✎ known  ", "@")
                identity = await letters_identity(fleet)
                assert ledger.notes(identity)[key].text == "known"
                await console.press("N")
                await console.sees("empty removes", f"{ledger.notes(identity)[key].author}, ")
                await console.press(*" by bob", "enter")
                await console.sees("✎ known by bob")
                await console.press("N", "ctrl+u", "enter")
                await console.misses("✎")
                assert ledger.notes(identity) == {}
            ledger.close()
            assert audit.path.read_text().count('"action": "note"') == 2

    async def test_on_a_letter_is_shown_with_that_of_its_cause_in_the_pane_and_when_opened(
        self, server: LocalServer, tmp_path: Path
    ) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            ledger = JobLedger(tmp_path)
            await write_note(fleet, ledger, about_cause(cause_id(letters[0])), "the quota")
            async with desk(fleet, ledger=ledger) as console:
                await opened(console)
                await console.sees("✎ TimeoutError")
                await console.press("down", "N")
                await console.sees("note on letter 3")
                await console.press(*"ask", "enter")
                await console.sees("✎ ask  ", "✎ the quota  ", "of the cause")
                assert "✎" in line(console.text(), "note-3", "tries 3")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, InspectPane))
                await console.sees("dead letter 3", "✎ ask  ", "✎ the quota  ")
            ledger.close()

    async def test_what_is_left_as_it_was_or_cancelled_writes_nothing(
        self, server: LocalServer, tmp_path: Path
    ) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            ledger = JobLedger(tmp_path)
            before = await write_note(fleet, ledger, about_letter(letters[2]), "ask")
            async with desk(fleet, ledger=ledger) as console:
                screen = await opened(console)
                await console.sees("✎")
                for keys in (("enter",), ("x", "escape")):
                    await console.press("down", "up", "down", "N", *keys)
                    await console.holds(lambda: console.app.screen is screen)
                    await console.press("g")
                assert list(ledger.notes(await letters_identity(fleet)).values()) == [before]
            ledger.close()

    async def test_another_console_sees_it_and_a_read_only_one_writes_it(
        self, server: LocalServer, tmp_path: Path
    ) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            letters = await fill(fleet)
            theirs, mine = JobLedger(tmp_path), JobLedger(tmp_path)
            async with desk(fleet, ledger=mine, write=False) as console:
                await opened(console)
                await write_note(fleet, theirs, about_letter(letters[2]), "seen elsewhere")
                await console.press("down")
                await console.sees("✎ seen elsewhere")
                await console.press("g", "N", *"by who may only look", "enter")
                await console.sees("✎ by who may only look", "[RO]")
            assert len(theirs.notes(await letters_identity(fleet))) == 2
            theirs.close()
            mine.close()

    async def test_other_groups_have_no_notes_and_say_so(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            async with desk(fleet) as console:
                await opened(console)
                await console.press("b", "N")
                await console.sees("notes are about causes and letters")
                assert not isinstance(console.app.screen, NotePane)

    async def test_with_no_letter_there_is_nothing_to_note(self, server: LocalServer) -> None:
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.press("3")
            await console.sees("no dead letters")
            await console.press("N", "b", "space", "left", "enter")
            await console.sees("grouped by agent")
            assert not isinstance(console.app.screen, NotePane)

    async def test_a_ledger_that_breaks_costs_the_note_and_says_why(self, server: LocalServer, tmp_path: Path) -> None:
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await fill(fleet)
            ledger = JobLedger(tmp_path)
            async with desk(fleet, ledger=ledger) as console:
                await opened(console)
                ledger.close()
                await console.press("N", *"lost", "enter")
                await console.sees("the note was not saved", "dead letters  5")


async def test_large_groups_begin_folded_and_stay_as_they_are_left(server: LocalServer) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await forge_many(fleet, 21, Error="model did not answer")
        await forge(fleet, "inbox.ceo.100-64", Message_Id="small-1", Error="no spec")
        await console.press("3")
        text = await console.sees("small-1", "model did not answer")
        assert "m-20" not in text
        await console.press("right")
        await console.sees("m-20")
        await console.press("left")
        await console.misses("m-20")
        # One that grows under the eyes of its reader is not closed by that.
        for number in range(30):
            await forge(fleet, f"inbox.ceo.{200 + number}-c8", Message_Id=f"grown-{number}", Error="no spec")
        await console.sees("grown-29")
