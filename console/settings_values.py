"""Values of a settings file, checked one by one; what is wrong with one is said with its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.filters import parse_duration


class SettingsError(Exception):
    """The settings cannot be used; the text is one line that names the file and the key."""


def join(where: str, key: str) -> str:
    """The name of a key within a table, as messages tell it."""
    return f"{where}.{key}" if where else key


def read_table(value: Any, where: str) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a table")
    return value


def read_boolean(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SettingsError(f"{where} must be true or false")
    return value


def read_integer(value: Any, where: str) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{where} must be a whole number")
    return value


def read_number(value: Any, where: str) -> float:
    """A number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SettingsError(f"{where} must be a number")
    return float(value)


def read_seconds(value: Any, where: str) -> float:
    """Seconds, as a number or as a duration like '10m'."""
    if not isinstance(value, str):
        return read_number(value, f"{where} (seconds, or a duration like '10m')")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def read_text(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise SettingsError(f"{where} must be a text")
    return value


def read_each(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Mapping[str, Any]]:
    """A table whose values are all read alike."""
    return lambda value, where: {name: read(one, join(where, name)) for name, one in read_table(value, where).items()}
