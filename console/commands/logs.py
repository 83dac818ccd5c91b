"""The debug log: a file in the per-user state directory, never the screen, and nothing at all without `--debug`."""

# ruff: noqa: PLC0415 - imported where needed: help and wrong options are answered without the NATS client and Rich

from __future__ import annotations

import logging
from pathlib import Path

_SIZE = 5_000_000
"""Bytes after which the file is rolled over, once."""


def state_dir() -> Path:
    """The per-user directory for what is worth keeping and can be lost (`$XDG_STATE_HOME/agent-console`)."""
    import platformdirs

    return platformdirs.user_state_path("agent-console", appauthor=False)


def debug_log() -> Path:
    """The file that `--debug` writes to."""
    return state_dir() / "debug.log"


def start(*, debug: bool) -> None:
    """Send the logs of everything to the file, or nowhere.

    Raises:
        OSError: The file cannot be written.
    """
    root = logging.getLogger()
    if not debug:
        # Without any handler Python prints warnings on standard error, into the screen or the error line.
        root.addHandler(logging.NullHandler())
        return
    from logging.handlers import RotatingFileHandler

    from console.text.safe import clean

    class SafeFormatter(logging.Formatter):
        """Records hold subjects and error texts of others."""

        def format(self, record: logging.LogRecord) -> str:
            return clean(super().format(record), limit=100_000, multiline=True)

    path = debug_log()
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=_SIZE, backupCount=1, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
