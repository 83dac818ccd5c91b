"""Running a command on an event loop so that Ctrl-C, SIGTERM and SIGHUP end it in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INCOMPLETE: Final = 3
UNCONFIRMED: Final = 4


class Interrupt:
    """What a signal does to the command that runs.

    The first one cancels it, so that connections, servers and the terminal are left in order; the same once more ends the
    process at once.

    Args:
        task: What to cancel.

    Attributes:
        number: The signal that came, 0 for none.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._stop: Callable[[], None] | None = None
        self._elsewhere = False
        self.number = 0

    @property
    def status(self) -> int:
        """Exit code as shells count a signal, 0 without one."""
        return 128 + self.number if self.number else OK

    @contextlib.contextmanager
    def softened(self, stop: Callable[[], None]) -> Iterator[None]:
        """For the block, the first signal calls `stop` instead: a job ends between two messages, not within one."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    @contextlib.contextmanager
    def left_to_others(self) -> Iterator[None]:
        """For the block, Ctrl-C is the affair of the program that has the terminal."""
        self._elsewhere = True
        try:
            yield
        finally:
            self._elsewhere = False

    def receive(self, number: signal.Signals) -> None:
        """Take note of a signal."""
        if self._elsewhere and number == signal.SIGINT:
            return
        self.number = int(number)
        if self._stop is not None:
            stop, self._stop = self._stop, None
            stop()
            return
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        self._task.cancel()


def run(work: Callable[[Interrupt], Coroutine[Any, Any, int]]) -> int:
    """Run a command to its end; its exit code, or 128 and the number of the signal that ended it."""
    return asyncio.run(_run(work))


async def _run(work: Callable[[Interrupt], Coroutine[Any, Any, int]]) -> int:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a command runs in a task")
    interrupt = Interrupt(task)
    loop = asyncio.get_running_loop()
    # Only the main thread may: elsewhere (a test) a command just cannot be interrupted.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        for number in SIGNALS:
            loop.add_signal_handler(number, interrupt.receive, number)
    try:
        status = await work(interrupt)
    except asyncio.CancelledError:
        if not interrupt.number:
            raise
        return interrupt.status
    return interrupt.status or status
