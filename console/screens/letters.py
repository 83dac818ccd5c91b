"""Screen 3: the dead letters in groups on the left, one group or one letter on the right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from console.causes import GROUPINGS, Group, Grouping
from console.notes import about, about_cause, about_letter
from console.operations.ledger import Note
from console.screens.base import label
from console.screens.group_text import group_text, noted_letter_text
from console.screens.inspect import InspectPane
from console.screens.letter_rows import LETTER_COLUMNS, VARIANTS, LetterBook
from console.screens.letter_verbs import LetterVerbs
from console.screens.note_book import NoteBook, NotePane
from console.text import units
from console.text.safe import clean
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import RowTable
from patterns import DeadLetter

LARGE = 20
"""Letters beyond which a group begins folded: the causes are what one looks for first."""


class LetterTable(RowTable):
    """Groups and their letters: left and right fold and open, as in any tree; a mark on a group is one on its letters.

    Attributes:
        members: The keys of the letters of a group, by its key.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "screen.fold", "fold", show=False, id="letters.fold"),
        Binding("right,l", "screen.unfold", "unfold", show=False, id="letters.unfold"),
    ]

    members: Mapping[str, Group]

    def action_toggle_mark(self) -> None:
        """Mark or unmark the row under the cursor; of a group all letters, folded or not, and the cursor stays."""
        group = self.members.get(self.cursor_key or "")
        if group is None:
            super().action_toggle_mark()
            return
        keys = {str(letter.seq) for letter in group.letters}
        self.set_marks(self.marks - keys if keys <= self.marks else self.marks | keys)


class LettersScreen(LetterVerbs):
    """The dead letters."""

    tab = "letters"
    CSS_PATH = "../styles/letters.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "cycle_grouping", "group", id="letters.group"),
        Binding("ctrl+a", "mark_matching", "mark all that match", show=False, id="letters.mark-all"),
        Binding("tab", "other_pane", "read", show=False, id="letters.pane"),
    ]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._by: Grouping = GROUPINGS[0]
        self._folds: dict[str, bool] = {}
        self._book = LetterBook()
        self._notes = NoteBook(self.runtime)
        self._title = "dead letters"
        self._detail_of: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        """Table left, letter right."""
        with Horizontal(id="letters-body"):
            with Vertical(id="letters-card", classes="card"):
                table = LetterTable(
                    *LETTER_COLUMNS,
                    variants=VARIANTS,
                    empty="reading the dead letters…",
                    show_header=False,
                    id="letters-table",
                )
                table.members = {}
                yield table
            with VerticalScroll(id="letter-card", classes="card"):
                yield Static("", id="letter-text", markup=False)

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> LetterTable:
        """The table of letters."""
        return self.query_one("#letters-table", LetterTable)

    def show_only(self, expression: str) -> None:
        """Open with a filter, as when coming from an agent's row."""
        bar = self.query_one(FilterBar)
        bar.open()
        bar.set_expression(expression)
        self.home().focus()

    # -- showing

    def paint_feed(self) -> None:
        """Look now and then whether somebody wrote a note."""
        if self._notes.is_due:
            self.run_worker(self._read_notes(), group="notes", exit_on_error=False, description="read the notes")

    async def _read_notes(self) -> None:
        if await self._notes.look():
            self.repaint()

    def paint(self) -> None:
        """Show the store."""
        view = self.runtime.monitor.view
        if view is None:
            return
        store, table, book = self.runtime.monitor.letters, self.table, self._book
        book.update(store.all(), self.expression, self._by)
        table.members = book.by_key
        hidden = view.dead_letter_total is None
        table.empty = (
            "the dead letters cannot be read: see the line above"
            if hidden
            else (
                "no dead letters\n\nWhat was sent has been handled, or still waits."
                if not book.all
                else "no dead letter matches the filter"
            )
        )
        if table.marks:
            table.keep_marks({str(letter.seq) for letter in book.all})
        self._paint_rows()
        shown, total = len(book.by_seq), max(store.total, len(book.all))
        count = f"{units.count(shown)} of {units.count(total)}" if shown != total else units.count(total)
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        self._title = f"dead letters  {count}{suffix}"
        self._paint_border()
        self._paint_detail()

    def _paint_rows(self) -> None:
        table = self.table
        table.set_rows(self._book.rows(self._folded, self.now(), self._notes.notes, table.marks))

    def _paint_border(self) -> None:
        marked = len(self.table.marks)
        how = "not grouped" if self._by == "none" else f"grouped by {self._by}"
        label(self.query_one("#letters-card"), self._title, f"{f'{marked} marked   ' if marked else ''}{how}")

    @on(RowTable.Marked)
    def _marked(self) -> None:
        # A group tells how many of its letters are marked.
        self._paint_rows()
        self._paint_border()

    @on(RowTable.Highlighted)
    def _moved(self, event: RowTable.Highlighted) -> None:
        event.stop()
        self._paint_detail()

    def _group(self) -> Group | None:
        """The group under the cursor, if it is on one."""
        return self._book.by_key.get(self.table.cursor_key or "")

    def current_letter(self) -> DeadLetter | None:
        """The letter under the cursor; of a group its newest."""
        group = self._group()
        return group.newest if group is not None else self._book.by_seq.get(self.table.cursor_key or "")

    def _noted(self, *keys: str) -> list[Note]:
        """The notes there are under some keys."""
        return [note for key in keys if (note := self._notes.notes.get(key)) is not None]

    def _paint_detail(self) -> None:
        group, letter, card = self._group(), self.current_letter(), self.query_one("#letter-card", VerticalScroll)
        subject = group.key if group is not None else letter.entry if letter is not None else None
        # A group that is no other has the same letters; ages are told anew every ten seconds.
        mark = (subject, id(group), id(letter), id(self._notes.notes), int(self.now().timestamp()) // 10)
        if mark == self._detail_of:
            return
        if self._detail_of and subject != self._detail_of[0]:
            card.scroll_home(animate=False)
        self._detail_of = mark
        text = self.query_one("#letter-text", Static)
        if letter is None:
            label(card, "")
            text.update("")
        elif group is not None:
            count = len(group.letters)
            title = f"{units.count(count)} letter{'' if count == 1 else 's'}"
            label(card, title, f"cause:{group.cause}" if group.cause else "")
            note = self._notes.notes.get(about_cause(group.cause)) if group.cause else None
            text.update(group_text(group, note, self.now(), self.colours()))
        else:
            kind = "JSON" if letter.message.data is not None and not isinstance(letter.message.data, bytes) else "bytes"
            size = units.size(len(letter.message.body))
            label(card, f"seq {letter.seq}", f"{size}   {kind if letter.message.body else 'empty'}")
            text.update(noted_letter_text(letter, self._noted(*about(letter)), self.now(), self.colours()))

    # -- acting

    def targets(self) -> tuple[list[DeadLetter], str, int]:
        """What an action is about: the marks, else the row or group under the cursor; in words; and how many are hidden."""
        store = self.runtime.monitor.letters
        marked = [letter for key in self.table.marks if (letter := store.get(int(key))) is not None]
        if marked:
            visible = {row.key for row in self.table.rows}
            return marked, f"{len(marked)} marked", sum(str(letter.seq) not in visible for letter in marked)
        if (group := self._group()) is not None:
            return list(group.letters), f"{group.source}  {group.text}", 0
        letter = self.current_letter()
        return ([letter], f"seq:{letter.seq}", 0) if letter else ([], "", 0)

    def ask_note(self) -> None:
        """Ask for the note on the cause or the letter under the cursor, and save it."""
        group, letter = self._group(), self.current_letter()
        if letter is None:
            return
        if group is not None and not group.cause:
            text = "notes are about causes and letters: b groups by cause, or go to a letter"
            self.app.notify(text, title="note", markup=False)
            return
        key = about_cause(group.cause) if group is not None else about_letter(letter)
        what = f"{group.source}  {group.text}" if group is not None else f"letter {letter.seq}"
        before = self._notes.notes.get(key)

        def save(text: str | None) -> None:
            if text is not None and text != (before.text if before is not None else ""):
                self.run_worker(
                    self._write_note(key, text), group="write a note", exit_on_error=False, description="write a note"
                )

        self.app.push_screen(NotePane(what, before), save)

    async def _write_note(self, key: str, text: str) -> None:
        problem = await self._notes.write(key, text)
        if problem:
            self.app.notify(clean(problem), title="the note was not saved", severity="error", markup=False)
        await self._read_notes()

    def action_mark_matching(self) -> None:
        """Mark every letter that is shown, folded or not."""
        self.table.set_marks(self._book.by_seq)

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        if event.key in self._book.by_key:
            self._set_fold(event.key, event.key not in self._folded)
            return
        letter = self._book.by_seq.get(event.key)
        if letter is None:
            return
        colours, now, notes = self.colours(), self.now(), self._noted(*about(letter))

        async def load() -> Text:
            return noted_letter_text(letter, notes, now, colours)

        self.app.push_screen(InspectPane(f"dead letter {letter.seq}", load))

    # -- groups

    def action_cycle_grouping(self) -> None:
        """Group by the next of cause, agent, subject, type and nothing; the cursor stays on its letter."""
        letter = self.current_letter()
        self._by = GROUPINGS[(GROUPINGS.index(self._by) + 1) % len(GROUPINGS)]
        on_group = self._group() is not None
        self.repaint()
        if letter is None:
            return
        group = self._book.group_of(str(letter.seq))
        if group is not None and (on_group or group.key in self._folded):
            self.table.move_cursor(group.key)
        else:
            self.table.move_cursor(str(letter.seq))

    def action_fold(self) -> None:
        """Close the group of the row under the cursor."""
        group = self._book.group_of(self.table.cursor_key)
        if group is not None:
            self._set_fold(group.key, True)
            self.table.move_cursor(group.key)

    def action_unfold(self) -> None:
        """Open the group under the cursor."""
        if (group := self._group()) is not None:
            self._set_fold(group.key, False)

    def action_other_pane(self) -> None:
        """Between the table and the letter."""
        (self.query_one("#letter-card") if self.table.has_focus else self.table).focus()

    @property
    def _folded(self) -> frozenset[str]:
        """Keys of the groups that are folded; a large one begins so, and one that grows stays as it is."""
        for group in self._book.groups:
            self._folds.setdefault(self._fold_of(group.key), len(group.letters) > LARGE)
        return frozenset(group.key for group in self._book.groups if self._folds[self._fold_of(group.key)])

    def _fold_of(self, key: str) -> str:
        """Each grouping has folds of its own."""
        return f"{self._by} {key}"

    def _set_fold(self, key: str, folded: bool) -> None:
        self._folds[self._fold_of(key)] = folded
        self.repaint()
