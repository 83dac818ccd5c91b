"""Standard output and standard error of the headless commands: JSON lines, tables, one-line errors."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Output:
    """Standard output that outlives its reader: a closed pipe (`| head`) ends what is printed, not the command.

    Attributes:
        closed: Nobody reads any more; what follows the stream ends.
    """

    def __init__(self) -> None:
        self.closed = False
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """For people: as wide as the terminal, and as wide as needed where there is none."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(markup=False, highlight=False, emoji=False)
            if not self._console.is_terminal:
                self._console.width = 10_000
        return self._console

    def text(self, text: str) -> None:
        """Write a text and a newline at once."""
        if self.closed:
            return
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.closed = True
            hush(sys.stdout)

    def json(self, value: Any) -> None:
        """Write one JSON document on a line of its own; nothing but printable ASCII, whatever is in it."""
        self.text(json.dumps(value, allow_nan=False))

    def show(self, *parts: RenderableType) -> None:
        """Write what was made for people, without the blanks that fill up a table's lines."""
        from rich.text import Text

        with self.console.capture() as capture:
            for part in parts:
                # A long line is the terminal's to wrap, so that a command or a body can be copied as it is.
                self.console.print(part, soft_wrap=isinstance(part, Text))
        self.text("\n".join(line.rstrip() for line in capture.get().removesuffix("\n").split("\n")))


def tell(message: str) -> None:
    """Write one line on standard error, whatever is in the message."""
    from console.text.safe import clean

    # Nobody may be left to read it: the terminal was closed, or stderr goes to a pipe that ended.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"agent-console: {clean(' '.join(message.split()))}\n")
        sys.stderr.flush()


def prepare() -> None:
    """Make the standard streams take any character, and exist."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace" if name == "stderr" else "replace")


def hush(stream: Any) -> None:
    """Send what a stream still holds nowhere, or the interpreter complains about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
