"""The audit: what an operator was about to do, and what came of it, one JSON line each in a file that only grows.

The line before an action is on the disk before the action begins; an action whose line cannot be written is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from console.operations.errors import OperationError
from console.rights import rights_of
from patterns import Fleet

log = logging.getLogger("console.operations")

Event = Literal["start", "item", "end"]
Mode = Literal["ui", "cli", "demo"]


@dataclass(slots=True)
class Audit:
    """Writes the lines of one session.

    Args:
        path: The file; it and its directory are made if they are not there, readable by this user only.
        where: What every line says: who, from which program, on which server.
    """

    path: Path
    where: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    async def of(cls, path: Path, fleet: Fleet, *, actor: str, version: str, context: str, mode: Mode) -> Audit:
        """The audit of a session on a fleet; a server that does not tell the account leaves it out."""
        account = (await rights_of(fleet)).account
        info = fleet.nc._server_info
        where = {
            "actor": actor,
            "version": version,
            "context": context or None,
            "server": info.get("server_name"),
            "server_id": info.get("server_id"),
            "account": account,
            "mode": mode,
        }
        return cls(path, where)

    def write(self, event: Event, action: str, job: str, **said: Any) -> None:
        """Append one line and see it onto the disk; that may take its time, so not on an event loop.

        Raises:
            OperationError: It cannot be written.
        """
        try:
            self._append(event, action, job, said, synced=True)
        except OSError as error:
            raise OperationError(
                f"the audit {self.path} cannot be written ({error.strerror}): make room or set XDG_STATE_HOME"
            ) from None

    def note(self, event: Event, action: str, job: str, **said: Any) -> None:
        """Append one line about what has happened already: one that cannot be written is logged and changes nothing."""
        try:
            self._append(event, action, job, said, synced=False)
        except OSError as error:
            log.warning("the audit %s cannot be written: %s", self.path, error)

    def _append(self, event: Event, action: str, job: str, said: Mapping[str, Any], *, synced: bool) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "event": event, **self.where, "action": action, "job": job, **said}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # At once and in one piece: several sessions write to the same file.
            os.write(file, (json.dumps(line, allow_nan=False) + "\n").encode())
            if synced:
                os.fsync(file)
        finally:
            os.close(file)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an audit, oldest first; none if there is no file. A line that was cut off is left out."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found
