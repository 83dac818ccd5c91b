"""An editor of the operator's own: a private file, the program on it, and what it left there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from console.operations.edit_rules import TEXT_LIMIT, EditError
from console.text.safe import clean

LONGEST_FILE: Final = TEXT_LIMIT * 4
"""Bytes that are read back."""

LAST_WORDS: Final = 2.0
"""Seconds an editor has to end when nobody waits for it any more."""


def editor_of(environ: Mapping[str, str]) -> list[str]:
    """The command of the operator's editor: `VISUAL`, `EDITOR`, else vi.

    Raises:
        EditError: There is none.
    """
    wanted = environ.get("VISUAL", "").strip() or environ.get("EDITOR", "").strip() or "vi"
    try:
        words = shlex.split(wanted)
    except ValueError:
        words = []
    program = shutil.which(words[0], path=environ.get("PATH")) if words else None
    if program is None:
        raise EditError(f"there is no editor {clean(wanted, limit=80)!r}: say in VISUAL or EDITOR which to use")
    return [program, *words[1:]]


async def edited_in(editor: list[str], text: str) -> str:
    """Let the editor change a text; the file is gone afterwards, whatever happens.

    The caller has given the terminal away, and leaves Ctrl-C to the editor.

    Args:
        editor: Its command, from `editor_of`.
        text: What it shows.

    Raises:
        EditError: It failed, or what it left is no text.
    """
    # Only this user may enter it: editors write copies of their own beside the file.
    with tempfile.TemporaryDirectory(prefix="agent-console-") as directory:
        path = Path(directory, "dead-letter.txt")
        _write(path, text)
        await _run([*editor, str(path)])
        return _read(path)


def _write(path: Path, text: str) -> None:
    # One that was put there meanwhile is not written to.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text.encode())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise EditError(f"the edited file cannot be read: {clean(str(error.strerror))}") from None
    if len(data) > LONGEST_FILE:
        raise EditError(f"the edited file is longer than {LONGEST_FILE:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise EditError("the edited file is no text in UTF-8") from None


async def _run(command: list[str]) -> None:
    name = clean(Path(command[0]).name, limit=40)
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise EditError(f"the editor {name} cannot be started: {clean(str(error.strerror))}") from None
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LAST_WORDS)
        finally:
            if process.returncode is None:
                process.kill()
        raise
    if status:
        raise EditError(f"nothing was changed: the editor {name} ended with {status}")
