"""Notes on the screen: read from the job ledger now and then, in a thread, and asked for by a pane of one line."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import nats.errors
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from console.notes import LONGEST
from console.operations.ledger import Note
from console.operations.noting import letters_identity, write_note
from console.screens.ask import AskPane
from console.screens.job_book import UNREADABLE
from console.session import Runtime
from console.text import units
from console.text.safe import clean
from patterns import PatternError

LOOK: Final = 1.0
"""Seconds between two looks at the ledger: another console on this machine may have written."""
ASKED: Final = 15.0
"""Seconds after which the server is asked once more whether its dead letters are still the same stream."""


class NoteBook:
    """The notes on the dead letters of a session; a ledger that cannot be read costs the notes, and nothing else.

    Args:
        runtime: The session.

    Attributes:
        notes: By what they are about; the same object until one of them changes.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._identity = ""
        self._asked = -ASKED
        self._due = 0.0
        self._looking = False
        self.notes: dict[str, Note] = {}

    @property
    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return not self._looking and time.monotonic() >= self._due

    async def look(self) -> bool:
        """Read them; whether anything changed."""
        self._looking, self._due = True, time.monotonic() + LOOK
        try:
            await self._ask()
            found = (
                await asyncio.to_thread(self._runtime.session.ledger.notes, self._identity) if self._identity else {}
            )
        except UNREADABLE:
            # Screen 6 says what is wrong with the ledger.
            return False
        finally:
            self._looking = False
        if found == self.notes:
            return False
        self.notes = found
        return True

    async def write(self, about: str, text: str) -> str:
        """Write a note, or remove it by an empty text; why it could not be, or nothing."""
        session = self._runtime.session
        try:
            await write_note(session.fleet, session.ledger, about, text, audit=session.audit, context=session.name)
        except (*UNREADABLE, PatternError, nats.errors.Error) as error:
            return str(error)
        self._due, self._asked = 0.0, -ASKED
        return ""

    async def _ask(self) -> None:
        now = time.monotonic()
        if now - self._asked < ASKED or not self._runtime.fleet.nc.is_connected:
            return
        self._asked = now
        try:
            self._identity = await letters_identity(self._runtime.fleet)
        except (PatternError, nats.errors.Error):
            # Not readable at the moment: what was noted of it is still true.
            return


class NotePane(AskPane):
    """Asks for a note: enter saves what stands there, nothing removes the note there was.

    Args:
        what: What it is about.
        note: The note there is.
    """

    def __init__(self, what: str, note: Note | None) -> None:
        super().__init__(f"note on {clean(what, limit=58)}")
        self._note = note

    def compose(self) -> ComposeResult:
        """One input in a box, with author and age of what stands in it."""
        note = self._note
        with Vertical(id="ask") as box:
            box.border_title = Text(self._question)
            by = f"{signed(note, datetime.now(UTC))}   " if note is not None else ""
            box.border_subtitle = Text(f"{by}enter saves, {'empty removes, ' if note is not None else ''}esc cancels")
            # Not selected: whoever adds a word must not lose what stands there.
            text = clean(note.text, limit=LONGEST) if note is not None else ""
            yield Input(text, max_length=LONGEST, select_on_focus=False, id="ask-input")


def signed(note: Note, now: datetime) -> str:
    """`bob@host, 3m ago`."""
    return f"{clean(note.author, limit=64)}, {units.ago(datetime.fromtimestamp(note.at, UTC), now)}"
