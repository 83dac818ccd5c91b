"""Editing before a replay: one letter as a whole, or the same changes in many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Static, TextArea

from console.operations.edit_file import edited_in, editor_of
from console.operations.edit_rules import EditError, locked_headers
from console.operations.edit_text import BodyError, Sheet, unsafe_place, unsafe_problem
from console.operations.edits import Edit, diff, parse_edit
from console.screens.base import clear_notices, label
from console.screens.quit_dialog import ConfirmDialog
from console.text import units
from console.text.safe import clean
from console.widgets.key_hints import KeyHints
from console.widgets.safe_area import SafeArea
from patterns import DeadLetter
from patterns.stored import StoredMessage

SCREEN_LIMIT = 128 * 1024
"""Bytes of a body that is edited on the screen: laying out more holds the keys up. An editor of one's own takes more."""

CHECK_AFTER = 0.3
"""Seconds without a key before what was typed is looked at."""

LANGUAGE = "set $.path = JSON    remove $.path    header NAME: value    drop NAME"


class EditingScreen(ModalScreen[Edit | None]):
    """What both have: a line that says how things stand, keys that go on and leave."""

    CSS_PATH = "../styles/edit.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "finish", "check and plan…", id="edit.finish"),
        Binding("escape", "leave", "leave", id="edit.leave"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.go: Callable[[Edit], None] | None = None
        """Called with the edit instead of returning it: what was typed stays until `close`, whatever becomes of the plan."""
        self._due: Timer | None = None
        self._planned: object = None

    def typed(self) -> object:
        """What stands there."""
        return None

    def close(self) -> None:
        """The edit is on its way: leave, unless something was typed since that is not in it."""
        if self.typed() == self._planned:
            self.dismiss(None)
        else:
            self.tell("sent as it was planned: what was typed since is not in it", bad=True)

    def finished(self, edit: Edit, typed: object) -> None:
        """Hand the edit over that was made of what was typed."""
        self._planned = typed
        if self.go is not None:
            self.go(edit)
        else:
            self.dismiss(edit)

    def tell(self, text: str, *, ok: bool = False, bad: bool = False) -> None:
        """Say how things stand."""
        status = self.query_one("#edit-status", Static)
        status.set_class(ok, "-ok").set_class(bad, "-bad")
        status.update(Text(clean(text), no_wrap=True, overflow="ellipsis"))

    def check(self) -> None:
        """Look at what was typed and say how it stands."""

    def is_changed(self) -> bool:
        """Whether something would be lost."""
        return False

    @on(TextArea.Changed)
    def _typed(self) -> None:
        self._check_not()
        self._due = self.set_timer(CHECK_AFTER, self.check)

    def _check_not(self) -> None:
        if self._due is not None:
            self._due.stop()
            self._due = None

    @on(SafeArea.Refused)
    def _refused(self, event: SafeArea.Refused) -> None:
        event.stop()
        self._check_not()
        place = unsafe_place("x" + event.text)
        self.tell(f"not taken: {unsafe_problem(place[2]) if place else 'not safe to show'}", bad=True)

    def action_leave(self) -> None:
        """Back, with nothing sent; asks before a change is lost."""
        if not self.is_changed():
            self.dismiss(None)
            return
        question = ConfirmDialog("leave the edit", "What was changed here is lost. Nothing is sent.", "Leave")
        self.app.push_screen(question, self._leave_if)

    def _leave_if(self, confirmed: bool | None) -> None:
        if confirmed:
            self.dismiss(None)


class EditScreen(EditingScreen):
    """Edits the body and the free headers of one letter; returns the edit, or None if it was left.

    Args:
        stored: The letter as it is stored.
        letter: The same, read.

    Raises:
        EditError: Its body cannot be edited here; says what can be done instead.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "editor", "open in $EDITOR", id="edit.editor"),
    ]

    def __init__(self, stored: StoredMessage, letter: DeadLetter) -> None:
        super().__init__()
        self._sheet = Sheet.of(stored, limit=SCREEN_LIMIT)
        self._letter = letter
        self._draft = ""
        """What came back from the editor and cannot be shown here: it is what the editor opens next."""

    def compose(self) -> ComposeResult:
        """Headers left, body right; on a narrow screen one above the other."""
        with Horizontal(id="edit"):
            with Vertical(id="edit-left"):
                with VerticalScroll(id="edit-locked-card", classes="card", can_focus=False):
                    yield Static(self._locked(), id="edit-locked", markup=False)
                with Vertical(id="edit-headers-card", classes="card"):
                    yield SafeArea(self._sheet.headers, id="edit-headers", soft_wrap=False, highlight_cursor_line=False)
            with Vertical(id="edit-body-card", classes="card"):
                yield SafeArea(self._sheet.body, id="edit-body", soft_wrap=False, highlight_cursor_line=False)
        yield Static("", id="edit-status", markup=False)
        yield KeyHints(keep=("escape",))

    def on_mount(self) -> None:
        """Begin in the body."""
        clear_notices(self.app)
        letter, body = self._letter, self.query_one("#edit-body", SafeArea)
        if self._sheet.is_json and "json" in body.available_languages:
            body.language = "json"
        label(self.query_one("#edit-locked-card"), "locked headers")
        label(self.query_one("#edit-headers-card"), "headers", "NAME: value")
        title = f"edit {letter.seq}  {clean(letter.type, limit=40)}  {clean(letter.id, limit=40)}"
        label(self.query_one("#edit-body-card"), title, "JSON" if self._sheet.is_json else "text")
        body.focus()
        self.check()

    def is_changed(self) -> bool:
        """Whether something would be lost."""
        return bool(self._draft) or self._texts() != (self._sheet.headers, self._sheet.body)

    def check(self) -> None:
        """Say whether what stands there can be sent."""
        headers, body = self._texts()
        try:
            self._sheet.read_headers(headers)
            self._sheet.check_body(body)
        except EditError as error:
            self._tell_where(error)
            return
        size = f"{units.count(len(body.encode()))} bytes as shown"
        kind = "JSON ok" if self._sheet.is_json else "text"
        self.tell(f"{kind}   {size}   {'changed' if self.is_changed() else 'not changed'}", ok=True)

    def action_finish(self) -> None:
        """Read the edit and return it, or say what is wrong with it and where."""
        self.run_worker(
            self._finish(*self._texts()), group="edit", exclusive=True, exit_on_error=False, description="read the edit"
        )

    async def _finish(self, headers: str, body: str) -> None:
        try:
            # Reading a long body takes longer than a frame.
            edit = await asyncio.to_thread(self._sheet.read, headers, body)
        except EditError as error:
            self._show(error)
            return
        self.finished(edit, (headers, body))

    def action_editor(self) -> None:
        """Go on in the operator's own editor."""
        self.run_worker(
            self._in_editor(), group="edit", exclusive=True, exit_on_error=False, description="edit in an editor"
        )

    async def _in_editor(self) -> None:
        text = self._draft or self._sheet.text(*self._texts())
        try:
            back = await self._away(editor_of(os.environ), text)
        except EditError as error:
            self.tell(str(error), bad=True)
            return
        if back == text:
            self.tell("nothing was changed in the editor", bad=bool(self._draft))
            return
        if place := unsafe_place(back.replace("\r\n", "\n")):
            line, column, character = place
            self._draft = back
            self._tell_draft(f"line {line} column {column}: {unsafe_problem(character)}")
            return
        try:
            headers, body, _ = self._sheet.split(back)
        except EditError as error:
            self._draft = back
            self._tell_draft(str(error))
            return
        self._draft = ""
        self.query_one("#edit-headers", SafeArea).text = _without_comments(headers)
        self.query_one("#edit-body", SafeArea).text = body
        self.check()

    def _tell_draft(self, problem: str) -> None:
        self.tell(f"f2 opens it again: {problem}", bad=True)

    async def _away(self, editor: list[str], text: str) -> str:
        """What the editor made of a text, on the terminal that is its own meanwhile."""
        back, failure = text, None
        try:
            # The loop goes on, or the server would take the connection for dead; nothing paints into the editor's screen.
            with self.app.batch_update(), _interrupts_ignored(), self.app.suspend():
                # What is raised out of this block leaves the terminal as the editor had it: right when the console ends.
                try:
                    back = await edited_in(editor, text)
                except EditError as error:
                    failure = error
        except SuspendNotSupported:
            raise EditError("this terminal cannot be given to an editor") from None
        self.app.refresh(layout=True)
        if failure is not None:
            raise failure
        return back

    def typed(self) -> object:
        """Headers and body."""
        return self._texts()

    def _texts(self) -> tuple[str, str]:
        return self.query_one("#edit-headers", SafeArea).text, self.query_one("#edit-body", SafeArea).text

    def _show(self, error: EditError) -> None:
        self._tell_where(error)
        if not error.line:
            return
        area = self.query_one("#edit-body" if isinstance(error, BodyError) else "#edit-headers", SafeArea)
        area.focus()
        area.move_cursor((error.line - 1, max(error.column - 1, 0)), center=True)

    def _tell_where(self, error: EditError) -> None:
        in_headers = error.line and not isinstance(error, BodyError)
        self.tell(f"headers, {error}" if in_headers else str(error), bad=True)

    def _locked(self) -> Text:
        return Text("\n".join(f"{name}: {value}" for name, value in locked_headers(self._sheet.stored).items()))


class BulkEditPane(EditingScreen):
    """Takes changes to make in each of many letters; returns the edit, or None if it was left.

    Args:
        count: How many letters.
        first: The first of them, in which the changes are shown.
    """

    def __init__(self, count: int, first: StoredMessage) -> None:
        super().__init__()
        self._count = count
        self._first = first

    def compose(self) -> ComposeResult:
        """The changes above, what they do to the first letter below."""
        with Vertical(id="bulk-edit"):
            with Vertical(id="bulk-edit-card", classes="card"):
                yield SafeArea("", id="bulk-changes", soft_wrap=False, highlight_cursor_line=False)
            yield Static(LANGUAGE, id="bulk-edit-help", markup=False)
            with VerticalScroll(id="bulk-preview-card", classes="card"):
                yield Static("", id="bulk-preview", markup=False)
        yield Static("", id="edit-status", markup=False)
        yield KeyHints(keep=("escape",))

    def on_mount(self) -> None:
        """Begin to type."""
        clear_notices(self.app)
        letters = f"{units.count(self._count)} dead letters"
        label(self.query_one("#bulk-edit-card"), f"edit {letters}", "one change a line")
        label(self.query_one("#bulk-preview-card"), f"the first of them, {self._first.seq}")
        self.query_one("#bulk-changes").focus()
        self.check()

    def is_changed(self) -> bool:
        """Whether something would be lost."""
        return bool(self._text().strip())

    def check(self) -> None:
        """Show what it does to the first letter."""
        self.run_worker(
            self._preview(self._text()), group="preview", exclusive=True, exit_on_error=False, description="preview"
        )

    async def _preview(self, text: str) -> None:
        preview = self.query_one("#bulk-preview", Static)
        if not text.strip():
            preview.update(await asyncio.to_thread(self._body))
            self.tell("say what to change, in all of them")
            return
        try:
            edit = parse_edit(text)
            lines = await asyncio.to_thread(lambda: diff(self._first, edit.apply(self._first)))
        except EditError as error:
            preview.update(await asyncio.to_thread(self._body))
            self.tell(str(error), bad=True)
            return
        preview.update(diff_text(lines, self.app.theme_variables))
        self.tell(edit.describe(), ok=True)

    def _body(self) -> Text:
        """The first of them as it is: what paths can point at."""
        with contextlib.suppress(EditError):
            return Text(Sheet.of(self._first, limit=SCREEN_LIMIT).body)
        return Text("its body is no text that can be shown here")

    def action_finish(self) -> None:
        """Return the edit; what it does not fit, the plan leaves out, and says so."""
        try:
            edit = parse_edit(self._text())
        except EditError as error:
            self.tell(str(error), bad=True)
            if error.line:
                self.query_one("#bulk-changes", SafeArea).move_cursor((error.line - 1, 0))
            return
        self.finished(edit, self._text())

    def typed(self) -> object:
        """The changes."""
        return self._text()

    def _text(self) -> str:
        return self.query_one("#bulk-changes", SafeArea).text


def diff_text(lines: list[str], colours: dict[str, str]) -> Text:
    """The lines of a diff, removed and added in colour; their first character says it, too."""
    text = Text()
    for line in lines:
        style = colours["error"] if line.startswith("-") else colours["success"] if line.startswith("+") else ""
        text.append(line + "\n", style or (colours["text-muted"] if line.startswith("@@") else ""))
    return text


def _without_comments(headers: str) -> str:
    return "\n".join(line for line in headers.split("\n") if not line.startswith("#"))


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """For the block, Ctrl-C is the affair of the program in the foreground; that one gets it as it always does."""
    try:
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:
        # Not the main thread: no signal ends it either.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
