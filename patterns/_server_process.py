"""One nats-server process on loopback as its owner sees it: the supervisor, the directory, the lock and the readiness."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import IO

from . import _supervisor
from .errors import PatternError

HOST = "127.0.0.1"
LOG_NAME = "server.log"
POLL_S = 0.002
REFUSE_S = 0.3
"""How long a data directory may stay locked by a living owner before a start is refused: its supervisor may be about to
notice that the owner is dying."""

CLOSING_S = 15.0
"""How long it may stay locked when its owner is gone: twice the supervisor's grace, and a margin."""

STOP_TIMEOUT_S = 60.0
"""Removing the files of 5,000 streams takes seconds; this is for a supervisor that hangs."""

LISTENER = re.compile(r"(?:Listening for .* on|Starting \w+ monitor on) (?:\w+://)?(\S+):\d+\s*$", re.MULTILINE)
"""A line of the server's log that names the address of one of its listeners."""

LOG_PREFIX = re.compile(r"^\[\d+\] (?:[\d/]+ [\d:.]+ )?\[\w+\] |^nats-server: ")


class ServerError(PatternError, RuntimeError):
    """The local server could not be started, stopped or reached."""


class PortTakenError(ServerError):
    """Another process listens on the wanted port."""


class ServerProcess:
    """One supervisor process, its directory, and what it reported of the server."""

    def __init__(self, data_dir: Path | None, binary: Path, config: str) -> None:
        self.pid = 0
        self.port = 0
        self.root = data_dir or Path(tempfile.gettempdir()) / f"nats-server-{secrets.token_hex(8)}"
        self._temporary = data_dir is None
        self._owner = os.getpid()
        self._up = False
        self._unread = b""
        self._command = [str(binary), "-a", HOST, "-js", "-sd", str(self.root), "-l", str(self._log)]
        self._command += ["--ports_file_dir", str(self.root)]
        if config:
            self._command += ["-c", str(self.root / "server.conf")]
        try:
            if self._temporary:
                # The supervisor knows the directory before it exists, so no death of this process leaves it behind.
                self._process = self._supervise(_supervisor.NO_LOCK)
                try:
                    self.root.mkdir(mode=0o700)
                    self._write_files(config)
                except BaseException:
                    self.close()
                    raise
            else:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _locked(self.root) as lock:
                    self._write_files(config)
                    self._process = self._supervise(lock)
        except OSError as error:
            raise ServerError(f"cannot prepare {self.root}: {error.strerror or error}") from error

    @property
    def _log(self) -> Path:
        return self.root / LOG_NAME

    def _write_files(self, config: str) -> None:
        self._log.write_bytes(b"")
        conf = self.root / "server.conf"
        conf.touch(mode=0o600)  # it may hold passwords
        conf.write_text(config)

    def _supervise(self, lock: int) -> subprocess.Popen[bytes]:
        doomed = str(self.root) if self._temporary else ""
        script = [sys.executable, "-I", "-S", _supervisor.__file__]
        return subprocess.Popen(  # noqa: S603 - our own script, and the nats-server that the caller or the wheel names
            [*script, str(self._owner), str(lock), doomed, str(self._log), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a pipe that the owner writes to has to end with the owner
            bufsize=0,
            cwd="/",
            pass_fds=() if lock == _supervisor.NO_LOCK else (lock,),
            start_new_session=True,
        )

    def launch(self, port: int, deadline: float) -> None:
        """Start nats-server and wait until it is ready."""
        for stale in self.root.glob("*.ports"):
            stale.unlink(missing_ok=True)
        logged = self._log.stat().st_size
        self.pid = 0
        self._send(f"start {port}")
        while not (self._up and self._is_ready(deadline)):
            self._read_reports(POLL_S)
            if self.pid and not self._up:
                raise _failure(self._log, logged)
            if time.monotonic() > deadline:
                raise ServerError("nats-server was not ready in time")
        for host in LISTENER.findall(_tail(self._log, logged)):
            if not _is_loopback(host):
                raise ServerError(f"the configuration opens a listener beyond loopback, on {host}")

    def _is_ready(self, deadline: float) -> bool:
        # The server writes this file when all its listeners are open, which is after it has recovered its streams.
        for path in self.root.glob(f"*_{self.pid}.ports"):
            with suppress(ValueError):  # half written
                self.port = int(json.loads(path.read_bytes())["nats"][0].rpartition(":")[2])
                with suppress(OSError):
                    return _jetstream_answers(self.port, max(POLL_S, deadline - time.monotonic()))
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to nats-server, if it runs."""
        if self.is_up():
            self._send(f"signal {number:d}")

    def is_up(self) -> bool:
        """Whether nats-server runs, as far as the supervisor has reported."""
        self._read_reports(0)
        return self._up

    def wait_gone(self, patience: float) -> None:
        """Wait for the end of nats-server."""
        deadline = time.monotonic() + patience
        while self._up:
            self._read_reports(max(0, deadline - time.monotonic()))
            if self._up and time.monotonic() > deadline:
                raise ServerError(f"nats-server (process {self.pid}) does not end")

    def close(self) -> None:
        """End nats-server and its supervisor, and see to it that a temporary directory is gone."""
        if os.getpid() != self._owner:  # a forked child leaves its parent's server alone
            return
        with suppress(ServerError):
            if self._temporary:
                # Data that is thrown away needs no orderly end, which costs an fsync for each stream and consumer.
                self.signal(signal.SIGKILL)
                self.wait_gone(STOP_TIMEOUT_S)
            self._send("stop")
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._temporary and self.root.exists() and time.monotonic() < deadline:
            # When the supervisor was killed, a server that is still dying may write once more.
            shutil.rmtree(self.root, ignore_errors=True)

    def _send(self, command: str) -> None:
        try:
            os.write(_fd(self._process.stdin), f"{command}\n".encode())
        except BrokenPipeError:
            raise ServerError("the supervisor of nats-server is gone") from None

    def _read_reports(self, patience: float) -> None:
        """Take in what the supervisor reports, waiting for it as many seconds as given."""
        reports = _fd(self._process.stdout)
        poll = select.poll()
        poll.register(reports, select.POLLIN)
        if not poll.poll(patience * 1000):
            return
        chunk = os.read(reports, 4096)
        if not chunk:  # the supervisor was killed; on Linux the kernel ends the server with it
            if self._up and sys.platform != "linux":
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self._up, self.pid = False, self.pid or -1
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            verb, _, argument = line.partition(b" ")
            self._up = verb == b"up"
            if self._up:
                self.pid = int(argument)


def _fd(pipe: IO[bytes] | None) -> int:
    if pipe is None or pipe.closed:
        raise ServerError("the local server is not started")
    return pipe.fileno()


def _jetstream_answers(port: int, timeout: float) -> bool:
    """Ask the server for its JetStream account, in plain protocol: a client would need an event loop of its own."""
    with socket.create_connection((HOST, port), timeout) as connection, connection.makefile("rwb") as stream:
        info = json.loads(stream.readline().removeprefix(b"INFO "))
        if not info.get("jetstream"):
            return False
        if info.get("auth_required") or info.get("tls_required") or info.get("cluster"):
            # Nobody here may ask, or no answer comes before the other nodes are there. The greeting was only sent after
            # the streams were recovered.
            return True
        stream.write(b'CONNECT {"verbose":false}\r\nSUB ready 1\r\nPUB $JS.API.INFO ready 0\r\n\r\n')
        stream.flush()
        return any(line.startswith(b"MSG ready ") for line in stream)


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Lock a data directory; the lock lives as long as any process that inherited the descriptor.

    The kernel frees it with the last of them, so there is no stale lock. An owner that is gone leaves a supervisor that
    is just ending the server; that one is waited for.
    """
    fd = os.open(directory / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
                if time.monotonic() - began > (REFUSE_S if _is_alive(holder) else CLOSING_S):
                    raise ServerError(f"{directory} is in use by another local server (owner: {holder})") from None
                time.sleep(POLL_S)
        os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


def _is_alive(holder: str) -> bool:
    try:
        os.kill(int(holder), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")


def _failure(log: Path, start: int) -> ServerError:
    """Say why nats-server ended, in its own words."""
    lines = [line for line in _tail(log, start).splitlines() if line.strip()] or ["it said nothing"]
    reason = LOG_PREFIX.sub("", next((line for line in lines if "[FTL]" in line), lines[-1]))
    kind = PortTakenError if "address already in use" in reason else ServerError
    return kind(f"nats-server did not start: {reason}")
