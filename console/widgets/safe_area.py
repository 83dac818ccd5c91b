"""`SafeArea`: a text area that nothing enters which is not safe to show."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit, EditResult

from console.text.safe import is_clean


class SafeArea(TextArea):
    """A `TextArea` that refuses control, zero-width and direction characters, however they come: typed, pasted, redone.

    What it is loaded with is the caller's to check.
    """

    @dataclass
    class Refused(Message):
        """Something was not taken."""

        area: SafeArea
        text: str
        """What was to be put in."""

        @property
        def control(self) -> SafeArea:
            """The area."""
            return self.area

    def edit(self, edit: Edit) -> EditResult:
        """The one way in of whatever is put into the text."""
        # A terminal pastes the ends of lines as it sends the enter key.
        edit.text = edit.text.replace("\r\n", "\n").replace("\r", "\n")
        # A mark may follow what stands before it.
        if not is_clean("x" + edit.text.replace("\t", " "), multiline=True):
            self.post_message(self.Refused(self, edit.text))
            return EditResult(self.selection.end, "")
        return super().edit(edit)
