"""A short run of the replay chaos: a killed console resumes, and whatever is killed, each message is handled once."""

from __future__ import annotations

import pytest

from tests.bench import replay_chaos


@pytest.mark.timeout(240)
async def test_a_killed_replay_is_resumed_and_doubles_nothing():
    report = await replay_chaos.run(rounds=3, letters=120, seed=1, server_kills=("", "after", "alone"))
    assert report.broken == {}
    assert report.uneven == []
    assert (report.rounds, report.exact, report.once) == (3, 3, 360)
    assert (report.in_doubt, report.left) == (0, 0)
    assert report.kills + report.missed + report.survived >= 3
    assert report.server_kills


@pytest.mark.timeout(240)
async def test_without_receipts_what_is_uncertain_is_in_doubt_and_never_sent_twice():
    report = await replay_chaos.run(rounds=1, letters=120, seed=2, plain=True, server_kills=("before",))
    assert report.broken == {}
    assert report.uneven == []
    assert (report.exact, report.once) == (1, 120)
    assert report.left == report.in_doubt


async def test_a_broken_promise_is_told():
    """The account itself can fail: a message nobody handled, another one that was handled twice."""
    tally = replay_chaos.Tally()
    tally.add("m-1", "INBOX_CEO", 1)
    tally.add("m-1", "INBOX_CEO", 1)
    tally.add("m-2", "INBOX_CEO", 2)
    tally.add("m-2", "INBOX_CEO", 3)
    assert tally.again == 1
    report = replay_chaos.Report(lost=["round 0: m-3"], doubled=tally.doubled)
    assert report.broken == {
        "lost": ["round 0: m-3"],
        "doubled": ["m-2 as [('INBOX_CEO', 2), ('INBOX_CEO', 3)]"],
    }
