"""What holds for every test of the patterns."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Property tests find what they find on a slow machine too.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


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
