"""The options that every command shares, wherever on the line they stand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VALUED: Final = ("--server", "--context", "--org", "--config")
"""Global options that are followed by a value."""

FLAGS: Final = ("--write", "--read-only", "--debug")
"""Global options that stand alone."""


class MissingValue(Exception):
    """A global option is the last word of the line, or another option follows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """What was said about the fleet and this session, before or after the command."""

    server: str | None = None
    context: str | None = None
    org: str | None = None
    config: Path | None = None
    write: bool = False
    read_only: bool = False
    debug: bool = False


def hoist(arguments: Sequence[str], valued: Collection[str] = ()) -> list[str]:
    """Move the global options to the front, where the parser expects them; the order of the rest stays.

    Nothing behind `--` is an option, and nothing behind one of `valued` either: `--reason --write` is a reason.

    Args:
        arguments: The command line without the program.
        valued: The commands' own options that are followed by a value.

    Raises:
        MissingValue: `--server` or another of its kind has no value.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS or (equals and name in VALUED):
            front.append(word)
        elif word in VALUED:
            value = next(words, "-")
            if value.startswith("-"):
                # The parser would take the next option, or the command, for an address and open another fleet.
                raise MissingValue(f"option {word} needs a value")
            front += [word, value]
        else:
            rest.append(word)
            if word in valued:
                rest += [value for value in (next(words, None),) if value is not None]
    return front + rest


def command_of(arguments: Sequence[str]) -> str:
    """The command a line asks for, empty for none; a guess where the line is malformed."""
    words = iter(arguments)
    for word in words:
        if word in VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""
