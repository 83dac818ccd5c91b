"""One job at a time on a stream: locks that the kernel releases with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path

from console.operations.errors import OperationError

PROBES, PROBE_S = 3, 0.01
"""Times and seconds between them that a lock is tried again: whoever lists jobs holds each for a moment."""


class StreamLock:
    """The right to run the one job of a stream on this machine; gone with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class StreamLocks:
    """The locks of one user on one machine.

    Args:
        directory: Where their files are; None for a ledger in memory, which nobody else can see.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def hold(self, identity: str, job: str = "") -> StreamLock:
        """Take the lock of a stream for a job.

        Raises:
            OperationError: Another job of this machine works on it.
        """
        descriptor = self._lock(identity, fcntl.LOCK_EX)
        for _ in range(PROBES):
            if descriptor is not None:
                break
            # Perhaps somebody only looks whether it is held.
            time.sleep(PROBE_S)
            descriptor = self._lock(identity, fcntl.LOCK_EX)
        if descriptor is None:
            raise OperationError(f"another job works on stream {identity.partition(' ')[0]}: wait for its end")
        if self._directory is not None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, job.encode(), 0)
        return StreamLock(descriptor)

    def holder(self, identity: str) -> str | None:
        """The job that works on a stream, empty if it did not say; None if nobody does."""
        descriptor = self._lock(identity, fcntl.LOCK_SH)
        if descriptor is not None:
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):
            return self._path(identity).read_text(errors="replace")
        return ""

    def _path(self, identity: str) -> Path:
        return (self._directory or Path()) / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.lock"

    def _lock(self, identity: str, kind: int) -> int | None:
        if self._directory is None:
            return os.open(os.devnull, os.O_RDONLY)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path(identity), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
