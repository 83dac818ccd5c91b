"""What the server refused to this user: it says so to the connection, while whoever asked only hears silence.

nats-py passes the refusal on as text, with the subject in lower case, to the connection's `error_cb`.
"""

from __future__ import annotations

import re
import time
import weakref
from typing import TypeVar

from nats.aio.client import Client

from patterns.errors import PermissionDenied

T = TypeVar("T")

_VIOLATION = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_REMEMBERED = 1000

_denied: weakref.WeakKeyDictionary[Client, dict[str, float]] = weakref.WeakKeyDictionary()
_unheard: weakref.WeakKeyDictionary[Client, dict[str, int]] = weakref.WeakKeyDictionary()
"""Subjects that may not be subscribed, and how often the client had reconnected by then: it subscribes anew each time."""


def note(nc: Client, error: Exception) -> None:
    """Remember an asynchronous error of the connection, if it is such a refusal."""
    match = _VIOLATION.search(str(error))
    if match is None:
        return
    if match[1].lower() == "publish":
        _remember(_denied.setdefault(nc, {}), match[2], time.monotonic())
    else:
        _remember(_unheard.setdefault(nc, {}), match[2], nc.stats["reconnects"])


def _remember(subjects: dict[str, T], subject: str, value: T) -> None:
    if len(subjects) >= _REMEMBERED:
        subjects.clear()
    subjects[subject.lower()] = value


def unheard(nc: Client, subject: str) -> bool:
    """Whether this connection, since it was last established, was refused to subscribe to `subject`."""
    return _unheard.get(nc, {}).get(subject.lower(), -1) == nc.stats["reconnects"]


def refused(nc: Client, subject: str, since: float) -> bool:
    """Whether publishing to `subject` was refused at or after the moment `since` of the monotonic clock."""
    return _denied.get(nc, {}).get(subject.lower(), -1.0) >= since


def require_permission(nc: Client, subject: str, since: float) -> None:
    """Raise if the silence on `subject` is a refusal: nobody answers what the server did not let through.

    Raises:
        PermissionDenied: It is.
    """
    if refused(nc, subject, since):
        raise PermissionDenied(f"this user may not publish to {subject!r}: allow it, or use another user")
