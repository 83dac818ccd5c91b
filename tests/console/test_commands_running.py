"""Signals end a command in order: first by its own means, then by cancellation, then at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from console.commands import running
from console.commands.running import Interrupt


async def for_ever() -> int:
    await asyncio.Event().wait()
    return 0


@pytest.mark.parametrize("number", running.SIGNALS)
def test_a_signal_cancels_and_cleans_up(number: signal.Signals) -> None:
    cleaned = []

    async def work(_: Interrupt) -> int:
        try:
            os.kill(os.getpid(), number)
            return await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    before = signal.getsignal(number)
    try:
        assert running.run(work) == 128 + number
    finally:
        signal.signal(number, before)
    assert cleaned


def test_a_softened_command_ends_by_its_own_means() -> None:
    async def work(interrupt: Interrupt) -> int:
        stopped = asyncio.Event()
        with interrupt.softened(stopped.set):
            os.kill(os.getpid(), signal.SIGINT)
            await stopped.wait()
        return 3

    assert running.run(work) == 130


def test_a_second_signal_cancels_a_softened_command() -> None:
    async def work(interrupt: Interrupt) -> int:
        with interrupt.softened(lambda: os.kill(os.getpid(), signal.SIGINT)):
            os.kill(os.getpid(), signal.SIGINT)
            return await for_ever()

    before = signal.getsignal(signal.SIGINT)
    try:
        assert running.run(work) == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_same_signal_once_more_ends_a_clean_up_that_hangs() -> None:
    program = """
import asyncio, os, signal
from console.commands import running

async def work(_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

running.run(work)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, b"")


def test_a_cancellation_of_its_own_is_no_signal() -> None:
    async def work(_: Interrupt) -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        running.run(work)


def test_without_a_signal_the_status_is_the_commands_own() -> None:
    async def work(_: Interrupt) -> int:
        return 4

    found: list[int] = []
    assert running.run(work) == 4
    thread = threading.Thread(target=lambda: found.append(running.run(work)))
    thread.start()
    thread.join(20)
    assert found == [4]
