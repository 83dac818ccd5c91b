"""The process between an owner and its nats-server: it ends the server however the owner ends.

``patterns.server`` runs this file as a script, ``python -I -S _supervisor.py OWNER LOCK DOOMED LOG COMMAND...``, in a
session of its own: a terminal's Ctrl-C or hang-up reaches the owner alone, which can then drain first. It imports only
what costs little beside the interpreter's own start (12 ms; ``dataclasses`` alone would add 15).

Standard input carries one command a line: ``start PORT``, ``signal NUMBER``, ``stop``. Standard output carries one
report a line: ``up PID`` after a start, ``gone STATUS`` whenever the server ended, for whatever reason.

The owner's end is noticed by the end of standard input or, where a child that the owner forked still holds that pipe, by
a new parent process. The death of this process is the kernel's to answer: on Linux the server asks for a SIGKILL when its
parent dies. Elsewhere such a server lives until the owner's ``LocalServer.stop``.
"""

import os
import select
import signal
import sys

GRACE_S = 5.0
"""How long a server whose data is kept has for an orderly end; one with 1,000 streams would take 11 s."""

PARENT_CHECK_MS = 500
"""How often the parent process is compared with the owner."""

PR_SET_PDEATHSIG = 1
"""Linux prctl(2): the signal that a process gets when the thread that forked it ends."""

NO_LOCK = -1
"""The file descriptor that stands for: there is nothing to lock."""


class Supervisor:
    """One owner, at most one nats-server at a time, and the directory that goes with them.

    Args:
        owner: Process id of the owner.
        lock: Descriptor of the locked lock file of the data directory, or ``NO_LOCK``.
        doomed: Directory to remove at the end; empty to keep the data, and so to end the server in an orderly way.
        log: File that takes what the server prints before its own log is open.
        command: The server's command line, without the port.
    """

    def __init__(self, owner: int, lock: int, doomed: str, log: str, command: list[str]) -> None:
        self._owner = owner
        self._lock = lock
        self._doomed = doomed
        self._log = log
        self._command = command
        self._pid = 0  # 0: no server
        self._life = -1  # a pipe whose other end only the server holds: its end is the server's end
        self._poll = select.poll()

    def serve(self) -> None:
        """Obey commands and report the server's end, until the owner says stop or is gone."""
        self._poll.register(0, select.POLLIN)
        while os.getppid() == self._owner:
            for fd, _ in self._poll.poll(PARENT_CHECK_MS):
                if fd == self._life:
                    self._reap()
                    continue
                lines = os.read(0, 4096).decode().splitlines()
                if not lines:
                    return
                for line in lines:
                    verb, _, argument = line.partition(" ")
                    if verb == "stop":
                        return
                    if verb == "start":
                        self._start(argument)
                    elif self._pid:
                        os.kill(self._pid, int(argument))

    def close(self) -> None:
        """End the server, remove what is not kept, free the lock."""
        if self._lock != NO_LOCK:
            # Tells the next owner that the lock is about to be free, so that it waits instead of giving up.
            os.pwrite(self._lock, b"closing   \n", 0)
        if self._pid:
            if not self._doomed:
                os.kill(self._pid, signal.SIGTERM)
                os.kill(self._pid, signal.SIGCONT)  # a paused server would not hear it
                self._wait_gone(GRACE_S)
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
                self._wait_gone(GRACE_S)
        if self._doomed and os.path.exists(self._doomed):  # noqa: PTH110 - pathlib costs as much as the whole start
            import shutil  # noqa: PLC0415 - 13 ms, and only where the owner died before it could do this itself

            shutil.rmtree(self._doomed, ignore_errors=True)

    def _start(self, port: str) -> None:
        life, held = os.pipe()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_server(supervisor, held, [*self._command, "-p", port])
        os.close(held)
        self._pid, self._life = pid, life
        self._poll.register(life, select.POLLIN)
        _report(f"up {pid}")

    def _become_server(self, supervisor: int, held: int, command: list[str]) -> None:
        """Turn a forked child into nats-server; never returns."""
        try:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            # The server inherits the lock: even where it outlives this process, nobody else opens its data.
            for fd in (held, self._lock):
                if fd != NO_LOCK:
                    os.set_inheritable(fd, True)
            _die_with_parent(supervisor)
            os.execv(command[0], command)  # noqa: S606 - the command is the owner's own, and no shell is wanted
        except OSError as error:
            os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def _reap(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._poll.unregister(self._life)
        os.close(self._life)
        self._pid, self._life = 0, -1
        _report(f"gone {os.waitstatus_to_exitcode(status)}")

    def _wait_gone(self, patience: float) -> None:
        life = select.poll()
        life.register(self._life, select.POLLIN)
        if life.poll(patience * 1000):
            self._reap()


def _report(line: str) -> None:
    try:
        os.write(1, f"{line}\n".encode())
    except BrokenPipeError:  # the owner is gone, and the loop is about to learn it
        return


def _die_with_parent(parent: int) -> None:
    if sys.platform != "linux":
        return
    try:
        import ctypes  # noqa: PLC0415 - needed on Linux only, and some small builds of Python lack it

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before it could be asked for
        os._exit(127)


def _leave(_number: int, _frame: object) -> None:
    sys.exit(0)


def main(arguments: list[str]) -> None:
    """Supervise until the owner is gone, or until a SIGTERM asks for the same orderly end."""
    owner, lock, doomed, log, *command = arguments
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    supervisor = Supervisor(int(owner), int(lock), doomed, log, command)
    try:
        supervisor.serve()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.close()


if __name__ == "__main__":
    main(sys.argv[1:])
