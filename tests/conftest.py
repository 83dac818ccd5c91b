"""Fixtures for all tests: real servers, and none of the machine's own settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.reports import TestReport

from patterns.server import LocalServer
from tests.support.servers import LocalCluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, TestReport, TestReport]:
    """Let reports pass between processes: what is logged of hostile text holds what no UTF-8 can."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the NATS settings and the per-user files of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("NATS_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "xdg" / name.lower()))


@pytest.fixture(autouse=True)
def _no_assertion_is_settled() -> Iterator[None]:
    """Let an `assert` fail the test although it stands in a handler or in the block of a delivery.

    There an exception is an outcome: it is logged, answered or retried, and goes no further.
    """
    settled: list[str] = []

    def listen(record: logging.LogRecord) -> bool:
        if "AssertionError" in record.getMessage():
            settled.append(record.getMessage())
        return True

    log = logging.getLogger("patterns")
    log.addFilter(listen)
    yield
    log.removeFilter(listen)
    assert settled == []


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A fresh server of the test's own: it is ready in some 40 ms, so none is shared."""
    with LocalServer() as started:
        yield started


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Three nodes, ready for streams with three replicas in some 300 ms."""
    with LocalCluster() as started:
        yield started
