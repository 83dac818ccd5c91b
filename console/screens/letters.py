"""Screen 3: the dead letters, grouped by cause on the left, one of them on the right."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from console.filters import FilterError, parse
from console.letters import record_of
from console.operations.selection import choose, freeze
from console.screens.ask import AskPane
from console.screens.base import label
from console.screens.inspect import InspectPane
from console.screens.operate import OperatingScreen
from console.screens.rows import GROUP_COLUMNS, LETTER_COLUMNS, Cause, group_letters, letter_rows
from console.text import units
from console.text.safe import clean
from console.widgets.details import letter_text
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import RowTable
from patterns import DeadLetter


class LetterTable(RowTable):
    """Causes and their letters: left and right fold and open, as in any tree."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "screen.fold", "fold", show=False, id="letters.fold"),
        Binding("right,l", "screen.unfold", "unfold", show=False, id="letters.unfold"),
    ]


class LettersScreen(OperatingScreen):
    """The dead letters."""

    tab = "letters"
    CSS_PATH = "../styles/letters.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("R", "replay", "replay…", id="letters.replay"),
        Binding("D", "discard", "discard…", id="letters.discard"),
        Binding("X", "purge", "purge matching…", id="letters.purge"),
        Binding("M", "move", "move…", show=False, id="letters.move"),
        Binding("S", "rescue", "rescue stranded", show=False, id="letters.rescue"),
        Binding("U", "undo", "undo", show=False, id="letters.undo"),
        Binding("ctrl+a", "mark_matching", "mark all that match", show=False, id="letters.mark-all"),
        Binding("tab", "other_pane", "read", show=False, id="letters.pane"),
    ]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._folded: frozenset[str] = frozenset()
        self._causes: dict[str, Cause] = {}
        self._shown: dict[str, DeadLetter] = {}
        self._title = "dead letters"
        self._detail_of: tuple[str | None, int] = (None, -1)

    def body(self) -> ComposeResult:
        """Table left, letter right."""
        with Horizontal(id="letters-body"):
            with Vertical(id="letters-card", classes="card"):
                yield LetterTable(
                    *LETTER_COLUMNS,
                    variants={"group": GROUP_COLUMNS},
                    empty="reading the dead letters…",
                    show_header=False,
                    id="letters-table",
                )
            with VerticalScroll(id="letter-card", classes="card"):
                yield Static("", id="letter-text", markup=False)

    def home(self) -> Widget:
        """The table."""
        return self.table

    @property
    def table(self) -> RowTable:
        """The table of letters."""
        return self.query_one("#letters-table", RowTable)

    def show_only(self, expression: str) -> None:
        """Open with a filter, as when coming from an agent's row."""
        bar = self.query_one(FilterBar)
        bar.open()
        bar.set_expression(expression)
        self.home().focus()

    def paint(self) -> None:
        """Show the store."""
        view = self.runtime.monitor.view
        if view is None:
            return
        store = self.runtime.monitor.letters
        letters = store.all()
        try:
            wanted = parse(self.expression) if self.expression else None
        except FilterError:
            wanted = None
        shown = [letter for letter in letters if wanted is None or wanted.matches(record_of(letter))]
        causes = group_letters(shown)
        self._causes = {cause.key: cause for cause in causes}
        self._shown = {str(letter.seq): letter for letter in shown}
        table = self.table
        hidden = view.dead_letter_total is None
        table.empty = (
            "the dead letters cannot be read: see the line above"
            if hidden
            else (
                "no dead letters\n\nWhat was sent has been handled, or still waits."
                if not letters
                else "no dead letter matches the filter"
            )
        )
        table.set_rows(letter_rows(causes, self._folded, self.now()))
        table.keep_marks({str(letter.seq) for letter in letters})
        total = max(store.total, len(letters))
        count = f"{len(shown)} of {total}" if len(shown) != total else f"{total}"
        suffix = f"  /{clean(self.expression, limit=40)}" if self.expression else ""
        self._title = f"dead letters  {count}{suffix}"
        self._paint_marks()
        self._paint_detail()

    @on(RowTable.Marked)
    def _paint_marks(self) -> None:
        marked = len(self.table.marks)
        label(
            self.query_one("#letters-card"), self._title, f"{f'{marked} marked   ' if marked else ''}grouped by cause"
        )

    @on(RowTable.Highlighted)
    def _moved(self, event: RowTable.Highlighted) -> None:
        event.stop()
        self._paint_detail()

    def _current(self) -> DeadLetter | None:
        """The letter under the cursor; of a group its newest."""
        key = self.table.cursor_key
        if key in self._causes:
            return self._causes[key].letters[0]
        return self._shown.get(key or "")

    def _paint_detail(self) -> None:
        letter, card = self._current(), self.query_one("#letter-card", VerticalScroll)
        mark = (letter.entry if letter else None, int(self.now().timestamp()) // 10)
        if mark == self._detail_of:
            return
        if mark[0] != self._detail_of[0]:
            card.scroll_home(animate=False)
        self._detail_of = mark
        if letter is None:
            label(card, "")
            self.query_one("#letter-text", Static).update("")
            return
        kind = "JSON" if letter.message.data is not None and not isinstance(letter.message.data, bytes) else "bytes"
        size = units.size(len(letter.message.body))
        label(card, f"seq {letter.seq}", f"{size}   {kind if letter.message.body else 'empty'}")
        self.query_one("#letter-text", Static).update(letter_text(letter, self.now(), self.colours()))

    # -- acting

    def targets(self) -> tuple[list[DeadLetter], str, int]:
        """What an action is about: the marks, else the row or group under the cursor; in words; and how many are hidden."""
        store = self.runtime.monitor.letters
        marked = [letter for key in self.table.marks if (letter := store.get(int(key))) is not None]
        if marked:
            visible = {row.key for row in self.table.rows}
            return marked, f"{len(marked)} marked", sum(str(letter.seq) not in visible for letter in marked)
        key = self.table.cursor_key
        if key in self._causes:
            cause = self._causes[key]
            return list(cause.letters), f"{cause.source}  {cause.text}", 0
        letter = self._shown.get(key or "")
        return ([letter], f"seq:{letter.seq}", 0) if letter else ([], "", 0)

    def action_replay(self) -> None:
        """Replay the marked letters, or what is under the cursor."""
        letters, text, hidden = self.targets()
        self.replay_letters(letters, text, hidden=hidden)

    def action_move(self) -> None:
        """Send the marked letters, or what is under the cursor, to another subject."""
        letters, text, hidden = self.targets()
        if not letters or not self.runtime.guard.allowed:
            self.replay_letters(letters, text)
            return

        def ask(proposal: str) -> None:
            self.app.push_screen(AskPane("move to which subject?", proposal), go)

        def go(subject: str | None) -> None:
            if subject:
                self.replay_letters(letters, text, hidden=hidden, to=subject, again=lambda: ask(subject))

        ask(letters[0].subject)

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

    def action_mark_matching(self) -> None:
        """Mark every letter that is shown, folded or not."""
        self.table.set_marks(self._shown)
        self._paint_marks()

    @on(RowTable.Selected)
    def _open(self, event: RowTable.Selected) -> None:
        event.stop()
        if event.key in self._causes:
            self._set_fold(event.key, event.key not in self._folded)
            return
        letter = self._shown.get(event.key)
        if letter is None:
            return
        colours, now = self.colours(), self.now()

        async def load() -> Text:
            return letter_text(letter, now, colours)

        self.app.push_screen(InspectPane(f"dead letter {letter.seq}", load))

    def action_fold(self) -> None:
        """Close the group of the row under the cursor."""
        key = self.table.cursor_key
        group = (
            key
            if key in self._causes
            else next((c.key for c in self._causes.values() if any(str(m.seq) == key for m in c.letters)), None)
        )
        if group is not None:
            self._set_fold(group, True)
            self.table.move_cursor(group)

    def action_unfold(self) -> None:
        """Open the group under the cursor."""
        key = self.table.cursor_key
        if key in self._causes:
            self._set_fold(key, False)

    def action_other_pane(self) -> None:
        """Between the table and the letter."""
        (self.query_one("#letter-card") if self.table.has_focus else self.table).focus()

    def _set_fold(self, key: str, folded: bool) -> None:
        self._folded = self._folded | {key} if folded else self._folded - {key}
        self.repaint()
