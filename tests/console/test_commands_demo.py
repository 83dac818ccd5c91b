"""`demo` without a screen: a summary at the end however it ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path

import pytest

from console.commands import demo
from console.commands.running import Interrupt, run
from tests.support.commandline import program, start
from tests.support.waiting import until

SUMMARY = {"submitted", "completed", "dead_lettered", "sent", "broadcast", "requests", "seconds"}
SMALL = ("demo", "--headless", "--agents", "4", "--rate", "20", "--seed", "7")


def port_of(err: str) -> int:
    found = re.search(r"nats://127\.0\.0\.1:(\d+)", err)
    assert found, err
    return int(found[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_headless_demo_ends_with_a_summary() -> None:
    result = program(*SMALL, "--duration", "1.5", "--failure-rate", "0")
    assert result.status == 0
    assert result.err.count("\n") == 1
    (summary,) = result.lines
    assert summary.keys() == SUMMARY
    assert summary["submitted"] == summary["completed"] > 0
    assert summary["dead_lettered"] == 0
    assert not answers(port_of(result.err))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_summary_and_no_server(number: signal.Signals) -> None:
    with start(*SMALL) as process:
        told = process.stderr.readline()
        assert answers(port_of(told))
        process.send_signal(number)
        out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (128 + number, "")
    assert json.loads(out.splitlines()[-1]).keys() == SUMMARY
    assert not answers(port_of(told))


def test_a_killed_demo_leaves_no_server(tmp_path: Path) -> None:
    with start(*SMALL, env={"TMPDIR": str(tmp_path)}) as process:
        told = process.stderr.readline()
        process.kill()
        process.wait(20)
        asyncio.run(until(lambda: not answers(port_of(told))))


def test_a_signal_before_the_traffic_still_ends_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    wish = demo.Wish(agents=4, rate=1.0, failure_rate=0.0, seed=1, duration=None, headless=True, data_dir=None)

    async def early(interrupt: Interrupt) -> int:
        interrupt.number = signal.SIGTERM
        return await demo._headless(wish, interrupt)

    assert run(early) == 143
    assert json.loads(capsys.readouterr().out)["submitted"] == 0


def test_the_data_can_be_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert program(*SMALL, "--duration", "0.3", "--data-dir", str(data)).status == 0
    assert list(data.rglob("*DLQ*"))


def test_a_data_directory_in_use_is_an_error(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with start(*SMALL, "--data-dir", data) as process:
        process.stderr.readline()
        second = program(*SMALL, "--duration", "1", "--data-dir", data)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)
    assert second.status == 1
    assert second.err.count("\n") == 1
