"""A short run of the chaos program: whatever is killed in between, nothing is lost, doubled, stuck or missed."""

from __future__ import annotations

import pytest

from tests.bench import chaos


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("seed", "cluster"), [(1, False), (2, True)])
async def test_chaos_breaks_no_promise(seed, cluster):
    report = await chaos.run(tasks=60, seconds=8.0, seed=seed, cluster=cluster)
    assert report.broken == {}
    assert report.submitted == 60
    assert report.completed + report.dead_lettered == 60
    assert report.dead_lettered > 0
    assert report.wrong_answers == 0
    assert report.kills


async def test_a_broken_promise_is_told():
    """The account itself can fail: a task nobody finished, an event nobody heard, a second outcome."""
    report = chaos.Report(lost=["s1-1"], results_doubled=["s1-2 2×"], missed=["s1-3 by audit"])
    assert report.broken == {
        "lost": ["s1-1"],
        "results doubled": ["s1-2 2×"],
        "events missed by a subscriber": ["s1-3 by audit"],
    }
