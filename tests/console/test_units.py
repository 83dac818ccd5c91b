"""Numbers and times for people."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.text import units
from console.text.units import NOTHING

NOW = datetime(2026, 5, 11, 12, 3, 4, 211_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("n", "full", "compact"),
    [
        (None, NOTHING, NOTHING),
        (0, "0", "0"),
        (1234, "1,234", "1,234"),
        (9999, "9,999", "9,999"),
        (12_345, "12,345", "12.3k"),
        (123_456, "123,456", "123k"),
        (999_999, "999,999", "1.0M"),
        (4_560_000, "4,560,000", "4.6M"),
    ],
)
def test_count(n, full, compact):
    assert units.count(n) == full
    assert units.count(n, compact=True) == compact


@pytest.mark.parametrize(
    ("n", "text"), [(None, NOTHING), (0, "0 B"), (1, "1 B"), (412, "412 B"), (65536, "64.0 KiB"), (10**9, "953.7 MiB")]
)
def test_size(n, text):
    assert units.size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NOTHING),
        (math.inf, NOTHING),
        (math.nan, NOTHING),
        (-5, "<1s"),
        (0, "<1s"),
        (0.4, "<1s"),
        (1, "1s"),
        (34.9, "34s"),
        (60, "1m"),
        (124, "2m4s"),
        (3599, "59m59s"),
        (3600, "1h"),
        (3780, "1h3m"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (412 * 86400, "412d"),
        (1e300, ">9999d"),
    ],
)
def test_age(seconds, text):
    assert units.age(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, NOTHING),
        (math.nan, NOTHING),
        (0, "0.0"),
        (0.01, "<0.1"),
        (0.44, "0.4"),
        (9.94, "9.9"),
        (9.96, "10"),
        (12.4, "12"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (1234, "1.2k"),
        (12345, "12.3k"),
        (-1234, "-1.2k"),
    ],
)
def test_rate(rate, text):
    assert units.rate(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, NOTHING), (0.0003, "0.3ms"), (0.0456, "46ms"), (0.9994, "999ms"), (1.25, "1.2s"), (130, "2m10s")],
)
def test_rtt(seconds, text):
    assert units.rtt(seconds) == text


def test_clock():
    assert units.clock(NOW, UTC) == "12:03:04.211"
    assert units.clock(NOW, timezone(timedelta(hours=2))) == "14:03:04.211"
    assert units.clock(NOW.replace(microsecond=0), UTC) == "12:03:04.000"
    assert units.clock(None) == NOTHING
    assert len(units.clock(NOW)) == 12


@pytest.mark.parametrize(
    ("before", "text"),
    [(0.5, "now"), (34, "34s ago"), (200, "3m ago"), (3700, "1h ago"), (5 * 86400, "5d ago"), (-200, "in 3m")],
)
def test_ago(before, text):
    assert units.ago(NOW - timedelta(seconds=before), NOW) == text


def test_nothing_is_a_dash():
    assert NOTHING == "\u2013"
    assert units.ago(None, NOW) == NOTHING


@given(st.floats() | st.integers(-(10**12), 10**12))
def test_every_number_has_a_short_text(value):
    for text in (units.age(value), units.rate(value), units.rtt(value)):
        assert 0 < len(text) <= 12
