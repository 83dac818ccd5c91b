"""What an operator does to dead letters, by keys: each verb is about the marks, else about what is under the cursor."""

from __future__ import annotations

import abc
from typing import ClassVar

import nats.errors
from textual.binding import Binding, BindingType

from console.filters import parse_duration
from console.operations.canary import Canary
from console.operations.edits import Edit, EditError
from console.operations.errors import UsageError
from console.operations.selection import choose, freeze
from console.screens.ask import AskPane
from console.screens.canary_dialog import CanaryDialog, answer
from console.screens.edit import BulkEditPane, EditScreen
from console.screens.lineage import open_lineage
from console.screens.operate import OperatingScreen
from console.text.safe import clean
from patterns import DeadLetter, PatternError


class LetterVerbs(OperatingScreen):
    """A screen of dead letters; subclasses say which are meant."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("R", "replay", "replay…", id="letters.replay"),
        Binding("E", "edit", "edit…", id="letters.edit"),
        Binding("C", "canary", "canary…", id="letters.canary"),
        Binding("D", "discard", "discard…", id="letters.discard"),
        Binding("X", "purge", "purge…", id="letters.purge"),
        Binding("M", "move", "move…", show=False, id="letters.move"),
        Binding("S", "rescue", "rescue stranded", show=False, id="letters.rescue"),
        Binding("U", "undo", "undo", show=False, id="letters.undo"),
        Binding("N", "note", "note…", show=False, id="letters.note"),
        Binding("a", "lineage", "ancestors", show=False, id="letters.lineage"),
    ]

    @abc.abstractmethod
    def targets(self) -> tuple[list[DeadLetter], str, int]:
        """What an action is about: the letters, how they were chosen in words, and how many of them are hidden."""

    @abc.abstractmethod
    def current_letter(self) -> DeadLetter | None:
        """The letter under the cursor, of a group its newest."""

    @abc.abstractmethod
    def ask_note(self) -> None:
        """Ask for the note on what is under the cursor, and save it."""

    def action_note(self) -> None:
        """Note something for the next operator; nothing changes on the server, so a read-only session may, too."""
        self.ask_note()

    def action_lineage(self) -> None:
        """Walk the deaths of the letter under the cursor."""
        letter = self.current_letter()
        if letter is not None:
            open_lineage(self, letter)

    def action_replay(self) -> None:
        """Replay the marked letters, or what is under the cursor."""
        letters, text, hidden = self.targets()
        self.replay_letters(letters, text, hidden=hidden)

    def action_move(self) -> None:
        """Send the marked letters, or what is under the cursor, to another subject."""
        letters, text, hidden = self.targets()
        if not self.may_send("move", letters):
            return

        def ask(proposal: str) -> None:
            self.app.push_screen(AskPane("move to which subject?", proposal), go)

        def go(subject: str | None) -> None:
            if subject:
                self.replay_letters(letters, text, hidden=hidden, to=subject, again=lambda: ask(subject))

        ask(letters[0].subject)

    def action_canary(self) -> None:
        """Send a few of them first; or say how a job goes on whose canary has been watched."""
        waiting = next((job for job in self.runtime.jobs if job.asks), None)
        letters, text, hidden = self.targets()
        if waiting is not None and self.runtime.guard.allowed:
            dialog = CanaryDialog(waiting, prod=self.runtime.session.prod)
            self.app.push_screen(dialog, lambda said: answer(waiting, said))
            return
        if not self.may_send("canary", letters):
            return
        settings = self.runtime.session.settings

        def ask(proposal: str, question: str = "canary: how many first, watched for how long?") -> None:
            hint = "1 to 100, 1s to 1h   enter goes on, esc cancels"
            self.app.push_screen(AskPane(question, proposal, hint), go)

        def go(said: str | None) -> None:
            if not said:
                return
            try:
                canary = _canary_of(said)
            except (UsageError, ValueError) as error:
                ask(said, clean(str(error), limit=70))
                return
            self.replay_letters(letters, text, hidden=hidden, canary=canary)

        ask(f"{min(settings.canary, len(letters))} {settings.canary_watch:g}s")

    def action_edit(self) -> None:
        """Change the body or the headers of one letter, or the same in all that are marked, and replay."""
        letters, text, hidden = self.targets()
        if not self.may_send("edit", letters):
            return
        self.run_worker(
            self._edit(letters, text, hidden), group="plan", exclusive=True, exit_on_error=False, description="edit"
        )

    async def _edit(self, letters: list[DeadLetter], text: str, hidden: int) -> None:
        # The first in the order of the plan, so that what is seen here is what is seen there.
        first = min(letters, key=lambda letter: letter.seq)
        asked_on, fleet = self.app.screen, self.runtime.fleet
        try:
            stored = await fleet.jetstream.get(fleet.dead_letters.stream, first.seq)
            found = fleet.dead_letters.decode(stored) if stored is not None else None
        except (PatternError, nats.errors.Error) as error:
            self.app.notify(clean(str(error)), title="edit", severity="error", markup=False)
            return
        if stored is None or found is None or found.entry != first.entry:
            self.app.notify(
                f"dead letter {first.seq} is gone: replayed, discarded or expired", title="edit", markup=False
            )
            return
        if self.app.screen is not asked_on:
            return
        try:
            pane = EditScreen(stored, found) if len(letters) == 1 else BulkEditPane(len(letters), stored)
        except EditError as error:
            self.app.notify(clean(str(error)), title="edit", severity="warning", markup=False)
            return

        def go(edit: Edit) -> None:
            self.replay_letters(letters, text, hidden=hidden, edit=edit, confirmed=pane.close)

        pane.go = go
        self.app.push_screen(pane)

    def action_discard(self) -> None:
        """Remove the marked letters, or what is under the cursor."""
        letters, text, hidden = self.targets()
        if letters:
            self.discard_letters(freeze(letters, text), hidden=hidden)

    def action_purge(self) -> None:
        """Remove every letter that matches the filter; without one, all of them."""
        wanted = self.expression.strip()
        self.discard_letters(choose("dead letters", expression=wanted or None, everything=not wanted), purge=True)

    def action_rescue(self) -> None:
        """Move what is stranded, anywhere, to the dead letters."""
        self.rescue_stranded()


def _canary_of(text: str) -> Canary:
    """`3 30s`: how many, and for how long.

    Raises:
        UsageError: It cannot be read, or is out of range.
    """
    words = text.replace(",", " ").split()
    if len(words) != 2 or not words[0].isdecimal():
        raise UsageError("say how many and how long, such as 3 30s")
    return Canary(int(words[0]), parse_duration(words[1]))
