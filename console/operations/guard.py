"""The write guard: nothing is changed on a server unless somebody said so for this session."""

from __future__ import annotations

from dataclasses import dataclass

from console.operations.errors import Refused


@dataclass(slots=True)
class WriteGuard:
    """Whether changes are allowed, and why not.

    Every operation asks it again when it runs: a screen whose keys are bound by mistake changes nothing all the same.
    """

    allowed: bool
    reason: str = "this session is read-only: start it with --write"

    @classmethod
    def for_screen(cls, *, demo: bool, write: bool, read_only: bool, context_writes: bool = False) -> WriteGuard:
        """The guard of the console: read-only on every server but the demo's own unless writing was asked for.

        Args:
            demo: The server was started by this very demo.
            write: `--write` was given.
            read_only: `--read-only` was given, or the settings say so; it wins.
            context_writes: The settings allow writing on this context.
        """
        if read_only:
            return cls(False, "this session is read-only by --read-only or by the settings")
        if demo or write or context_writes:
            return cls(True)
        return cls(False)

    @classmethod
    def for_command(cls, *, read_only: bool) -> WriteGuard:
        """The guard of a headless command: it names its target and needs `--yes`, so only a refusal stops it."""
        return cls(not read_only, "refused: read-only by --read-only or by the settings")

    def require(self, action: str) -> None:
        """Raise Refused unless changes are allowed."""
        if not self.allowed:
            raise Refused(f"{action}: {self.reason}")
