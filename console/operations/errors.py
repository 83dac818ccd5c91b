"""What keeps an operation from happening, each with the exit code of the command line's contract."""

from __future__ import annotations


class OperationError(Exception):
    """An operation that cannot be done as asked; its text is one line that says what to do."""

    exit_code = 1


class UsageError(OperationError):
    """Asked in a way that cannot be meant: no selection, an empty filter, an impossible rate."""

    exit_code = 2


class Refused(OperationError):
    """Read-only, or against a policy."""

    exit_code = 5
