"""Notes on causes and letters: what they are about, where they are kept, who sees them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from console.notes import LONGEST, about, about_cause, about_letter
from console.operations import noting
from console.operations.audit import Audit
from console.operations.errors import OperationError, UsageError
from console.operations.ledger import JobLedger
from console.operations.noting import letters_identity, write_note
from console.screens.note_book import NoteBook
from console.session import Runtime
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.fleets import connected
from tests.support.letters import forge, made
from tests.support.screens import desk


def test_a_note_is_about_one_death_or_one_cause() -> None:
    one, same, other = made(1), made(2), made(3, error="no spec")
    assert about_letter(one) != about_letter(same)
    assert about(one)[1] == about(same)[1] != about(other)[1]
    assert about(one) == (about_letter(one), about_cause(about(one)[1].removeprefix("cause ")))


async def letters(fleet: Fleet) -> list[str]:
    """Two letters of one cause; the keys of the first."""
    await forge(fleet, "inbox.ceo.1-1", Error="no spec")
    await forge(fleet, "inbox.ceo.2-2", Error="no spec")
    return list(about((await fleet.dead_letters.list())[0]))


async def test_is_written_read_replaced_and_removed(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, cause = await letters(fleet)
        ledger, identity = JobLedger(tmp_path), await letters_identity(fleet)
        await write_note(fleet, ledger, letter, "  ask \n bob ")
        await write_note(fleet, ledger, cause, "first")
        await write_note(fleet, ledger, cause, "second")
        found = ledger.notes(identity)
        assert {key: note.text for key, note in found.items()} == {letter: "ask bob", cause: "second"}
        assert "@" in found[letter].author
        await write_note(fleet, ledger, cause, " ")
        assert list(ledger.notes(identity)) == [letter]
        ledger.close()
        again = JobLedger(tmp_path)
        assert again.notes(identity)[letter] == found[letter], "the next one sees it"
        again.close()


async def test_belongs_to_the_stream_it_was_written_about(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        ledger, before = JobLedger(tmp_path), await letters_identity(fleet)
        await write_note(fleet, ledger, letter, "ask bob")
        await fleet.js.delete_stream(fleet.dead_letters.stream)
        assert await letters_identity(fleet) == ""
        with pytest.raises(OperationError, match="no stream DLQ"):
            await write_note(fleet, ledger, letter, "ask bob")
        await fleet.provision(agents=["ceo"])
        assert ledger.notes(await letters_identity(fleet)) == {}
        assert len(ledger.notes(before)) == 1
        ledger.close()


async def test_too_long_a_note_is_refused(server: LocalServer) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        await write_note(fleet, JobLedger(), letter, "x" * LONGEST)
        with pytest.raises(UsageError, match="at most 1,000"):
            await write_note(fleet, JobLedger(), letter, "x" * (LONGEST + 1))


async def test_is_audited_with_its_text(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        audit = Audit(tmp_path / "audit.jsonl", {"context": "live"})
        await write_note(fleet, JobLedger(), letter, "ask bob", audit=audit)
        await write_note(fleet, JobLedger(), letter, "", audit=audit)
    wrote, removed = map(json.loads, audit.path.read_text().splitlines())
    assert (wrote["action"], wrote["event"], wrote["selector"]) == ("note", "end", letter)
    assert (wrote["reason"], wrote["actor"], wrote["context"]) == ("ask bob", noting.operator_name(), "live")
    assert (removed["action"], removed["reason"]) == ("remove note", None)


async def test_the_screen_reads_what_another_console_wrote(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        mine, theirs = JobLedger(tmp_path), JobLedger(tmp_path)
        async with desk(fleet, ledger=mine) as console:
            book = NoteBook(console.runtime)
            assert not await book.look()
            first = book.notes
            assert not book.is_due, "once a second"
            await write_note(fleet, theirs, letter, "ask bob")
            assert await book.look()
            assert book.notes[letter].text == "ask bob"
            before = book.notes
            assert not await book.look()
            assert book.notes is before is not first, "the same object until something changes"
        theirs.close()
        mine.close()


async def test_a_broken_ledger_costs_the_notes_only(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        ledger = JobLedger(tmp_path)
        async with desk(fleet, ledger=ledger) as console:
            runtime: Runtime = console.runtime
            book = NoteBook(runtime)
            assert await book.write(letter, "ask bob") == ""
            await book.look()
            ledger.close()
            assert not await book.look()
            assert book.notes[letter].text == "ask bob", "what was read stays"
            assert "cannot be used" in await book.write(letter, "other")
            await console.press("3")
            await console.sees("no spec", "dead letters  2")


async def test_only_this_user_may_read_them(server: LocalServer, tmp_path: Path) -> None:
    async with connected(server.url, agents=["ceo"]) as fleet:
        letter, _ = await letters(fleet)
        ledger = JobLedger(tmp_path / "state")
        await write_note(fleet, ledger, letter, "ask bob")
        assert stat.S_IMODE((tmp_path / "state" / "jobs.db").stat().st_mode) == 0o600
        ledger.close()
