"""Replaying dead letters: what is chosen, what the plan says, and that nothing is lost or doubled on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nats.errors
import pytest
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError

from console.filters import FilterError
from console.monitor.feed import Feed
from console.operations.errors import Refused, UsageError
from console.operations.guard import WriteGuard
from console.operations.items import Item, Items
from console.operations.job import Job
from console.operations.plan import Plan
from console.operations.plan_letters import policy_of
from console.operations.records import operator_name
from console.operations.resuming import answer, resume
from console.operations.selection import Choice, Scan, choose, freeze, letters
from console.session import Runtime, Session
from console.settings import ReplayPolicy, Settings, TargetSettings
from patterns import DeadLetter, Fleet, StreamLimits, Unavailable
from patterns.jetstream import JetStream
from patterns.message import decode_stored
from patterns.server import LocalServer
from tests.support.fleets import connected, fast, offline, running
from tests.support.letters import forge, forge_many, kill_tasks
from tests.support.plans import plan_replay
from tests.support.waiting import until

WRITE = WriteGuard(True)
ALL = choose("dead letters", everything=True)
FORGETFUL = fast(limits=StreamLimits(duplicate_window=0.1))
"""A server that remembers message ids for a moment only: what does not double here does not need its memory."""


async def planned(fleet: Fleet, rate: float = 500.0, **options) -> Plan:
    """A plan to replay everything."""
    return await plan_replay(fleet, ALL, rate=rate, **options)


async def found(fleet: Fleet, choice: Choice) -> tuple[list[DeadLetter], list[int]]:
    """The letters of a choice, and which of its sequences are not there."""
    scan = Scan()
    there = [letter async for letter, _ in letters(fleet, choice, scan)]
    return there, sorted(scan.missing)


async def picked(fleet: Fleet, **options) -> list[int]:
    """Sequences of the letters that a choice takes."""
    there, _ = await found(fleet, choose("dead letters", **options))
    return [letter.seq for letter in there]


async def letters_left(fleet: Fleet) -> int:
    return sum((await fleet.dead_letters.count()).values())


def outcomes(job: Job) -> Counter[str]:
    return Counter(result.outcome for result in job.results)


class Handled:
    """Counts how often each task was handled and from which stored copies, and lets nothing fail."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.copies: dict[str, set[int]] = {}

    async def __call__(self, task) -> None:
        self.times[task.id] += 1
        self.copies.setdefault(task.id, set()).add(task.seq)


# -- selection


async def test_sequences_are_taken_once_in_the_order_of_deaths_and_missing_ones_are_told(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 4)
        await fleet.dead_letters.discard(2, by="test")
        choice = choose("dead letters", seqs=[4, 2, 1, 4, 99])
        there, missing = await found(fleet, choice)
        assert [letter.seq for letter in there] == [1, 4]
        assert missing == [2, 99]
        assert "4,2,1" in choice.text
        plan = await plan_replay(fleet, choice, rate=20)
        assert sorted((skip.seq, "not there" in skip.reason) for skip in plan.skipped) == [(2, True), (99, True)]


async def test_many_sequences_are_found_as_few_are(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 150)
        for seq in (3, 77, 150):
            await fleet.dead_letters.discard(seq, by="test")
        there, missing = await found(fleet, choose("dead letters", seqs=range(1, 149)))
        assert [letter.seq for letter in there] == [seq for seq in range(1, 149) if seq not in (3, 77)]
        assert missing == [3, 77]


async def test_a_filter_takes_what_matches_and_is_told_in_words(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", Reason="crash", Error="boom")
        await forge(
            fleet, "tasks.backend.1-1", "tasks.backend.code", Reason="max-deliver", Error="model did not answer"
        )
        await forge(fleet, "tasks.backend.2-2", "tasks.backend.code", Reason="rejected", Error="no spec")
        choice = choose("dead letters", expression="role:backend !reason:rejected")
        there, missing = await found(fleet, choice)
        assert ([letter.seq for letter in there], missing) == ([2], [])
        assert choice.text == "role:backend and not reason:rejected"
        assert (await planned(fleet)).by_origin == {"inbox.ceo": 1, "tasks.backend": 2}


async def test_a_filter_that_matches_nothing_is_a_selection_of_nothing(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        plan = await plan_replay(fleet, choose("dead letters", expression="agent:nobody"), rate=20)
        assert (plan.count, plan.skipped, plan.as_json()["count"]) == (0, (), 0)


async def test_a_relative_age_is_frozen_when_it_is_read(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        choice = choose("dead letters", expression="age:<1h")
        assert len((await found(fleet, choice))[0]) == 1
        assert "UTC" in choice.text or "Z" in choice.text, "the plan says the absolute time"


async def test_what_narrows_holds_together(server):
    async with connected(server.url, agents=["ceo", "cfo"]) as fleet:
        await forge_many(fleet, 6)
        await forge(fleet, "inbox.cfo.7-7", "agents.cfo.inbox.note", Error="odd")
        assert await picked(fleet, up_to=2) == [1, 2]
        assert await picked(fleet, keep=5) == [1, 2]
        assert await picked(fleet, keep=7) == await picked(fleet, keep=70) == []
        assert await picked(fleet, subject="dlq.inbox.cfo.>") == [7]
        assert await picked(fleet, subject="dlq.inbox.ceo.>", keep=4) == [1, 2]
        assert await picked(fleet, subject="dlq.inbox.*.*", expression="odd") == [7]
        assert await picked(fleet, expression="agent:ceo", up_to=4, older_than="0.001s") == [1, 2, 3, 4]
        assert await picked(fleet, older_than="1h") == []


@pytest.mark.parametrize(
    "options",
    [
        {"everything": True, "subject": "dlq.>"},
        {"everything": True, "keep": 3},
        {"everything": True, "older_than": "1h"},
        {"everything": True, "up_to": 3},
        {"seqs": [1], "older_than": "1h"},
        {"seqs": [1], "keep": 1},
        {"keep": 0},
        {"keep": -1},
        {"up_to": 0},
        {"subject": ""},
        {"subject": " "},
        {"keep": 3, "up_to": 3},
        {"older_than": ""},
        {"older_than": "soon"},
        {"older_than": "-1h"},
        {"expression": "", "keep": 3},
    ],
    ids=str,
)
async def test_a_scope_that_could_be_everything_by_a_slip_is_a_usage_error(options):
    with pytest.raises(UsageError) as refused:
        choose("messages", **options)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("seqs", "expression", "everything"),
    [
        ((), None, False),
        ((1,), "x", False),
        ((1,), None, True),
        ((), "x", True),
        ((1,), "x", True),
        ((), "", False),
        ((), "  \t", False),
        ((), "", True),
    ],
)
async def test_no_choice_more_than_one_and_an_empty_filter_are_usage_errors(seqs, expression, everything):
    # In the service layer itself, before any server is asked.
    with pytest.raises(UsageError) as refused:
        choose("dead letters", seqs=seqs, expression=expression, everything=everything)
    assert refused.value.exit_code == 2


async def test_an_unknown_field_names_the_known_ones():
    with pytest.raises(FilterError, match=r"known: .*reason"):
        choose("dead letters", expression="colour:red")


async def test_everything_and_a_filter_read_beyond_the_first_page(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1003)
        assert await picked(fleet, everything=True) == list(range(1, 1004))
        assert await picked(fleet, expression="seq:499..502,1003") == [499, 500, 501, 502, 1003]


async def test_a_sequence_no_server_knows_is_missing_and_not_an_error(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        there, missing = await found(fleet, choose("dead letters", seqs=[1, 0, -3, 2**64]))
        assert [letter.seq for letter in there] == [1]
        assert missing == [-3, 0, 2**64]


async def test_an_account_without_a_fleet_has_nothing_to_select(server):
    async with Fleet.connect(server.url) as fleet:
        assert await found(fleet, ALL) == ([], [])
        assert await found(fleet, choose("dead letters", seqs=[1])) == ([], [1])
        assert (await planned(fleet)).count == 0


# -- plan


async def test_a_plan_says_how_many_from_where_and_to_where(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await kill_tasks(fleet, 7)
        await forge(fleet, "inbox.ceo.1-1", "agents.ceo.inbox.note")
        plan = await planned(fleet, rate=4)
        assert plan.count == 8
        assert plan.by_origin == {"tasks.backend": 7, "inbox.ceo": 1}
        assert plan.by_destination == {"tasks.backend.code.feature": 7, "agents.ceo.inbox.note": 1}
        assert plan.duration == pytest.approx(7 / 4)
        told = plan.as_json()
        assert set(told) == {"plan", "count", "by_origin", "by_destination", "sample", "skipped", "spill", "nats"}
        assert (told["plan"], told["count"], told["skipped"], told["spill"]) == ("replay", 8, [], None)
        assert [item["seq"] for item in told["sample"]] == [1, 2, 3, 4, 5], "the first five, as they will run"
        first = told["sample"][0]
        assert first["source"] == "tasks.backend"
        assert first["type"] == "code.feature"
        assert first["destination"] == "tasks.backend.code.feature"
        assert first["reason"] == "rejected"
        assert first["error"].endswith("no model")
        assert len(told["nats"]) == 5
        assert "tasks.backend.code.feature" in told["nats"][0]
        assert await letters_left(fleet) == 8, "planning changes nothing"


async def test_a_forged_letter_is_skipped_whose_destination_cannot_be_published_to(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        hostile = [
            "agents.ceo.inbox.>",
            "agents.*.inbox.note",
            ">",
            "$JS.API.STREAM.DELETE.DLQ",
            "$JS.API.STREAM.PURGE.INBOX_CEO",
            "_INBOX.abc",
            "agents.gone.inbox.note",
            "agents..inbox",
            "agents.ceo.inbox.no te",
            "agents.ceo.inbox.\x1b[31m",
        ]
        for number, subject in enumerate(hostile, 1):
            await forge(fleet, f"inbox.ceo.{number}-{number:x}", subject)
        await forge(fleet, "inbox.ceo.77-77", None)
        await forge(fleet, "events.ceo-events.78-78", "events.*.>")
        await forge(fleet, "inbox.ceo.99-99", "agents.ceo.inbox.note")
        plan = await planned(fleet)
        assert [item.seq for item in plan.items] == [13]
        assert [skip.seq for skip in plan.skipped] == list(range(1, 13))
        reasons = " ".join(skip.reason for skip in plan.skipped)
        assert "\x1b" not in reasons
        assert "vanished" in plan.skipped[6].reason
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert outcomes(job) == {"done": 1}
        assert await fleet.jetstream.stream_info("DLQ") is not None
        assert await letters_left(fleet) == 12
        # Also without a plan in between, as a plan made by hand could have it.
        times = {each.seq: each.stored_ns for each in (await fleet.jetstream.read("DLQ")).messages}
        left = await fleet.dead_letters.list()
        items = Items([Item(each.seq, times[each.seq], each.source, each.subject) for each in left])
        forced = Plan(action="replay", stream="DLQ", identity=plan.identity, items=items, selection="forged", rate=500)
        job = Job.of(fleet, forced, WRITE)
        await job.run()
        assert outcomes(job) == {"failed": 12}
        assert await letters_left(fleet) == 12
        assert (await fleet.inbox("ceo").depth()).messages == 1


async def test_the_replay_limit_skips_and_force_lifts_it(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", Replays="5")
        await forge(fleet, "inbox.ceo.2-2", Replays="4")
        plan = await planned(fleet)
        assert [item.seq for item in plan.items] == [2]
        assert [(skip.seq, "replay limit" in skip.reason) for skip in plan.skipped] == [(1, True)]
        assert any("3 times or more" in warning for warning in plan.warnings)
        assert plan.gate == "key", "a warning is not passed by Enter alone"
        forced = await planned(fleet, force=True)
        assert forced.count == 2
        job = Job.of(fleet, forced, WRITE)
        await job.run()
        assert outcomes(job) == {"done": 2}


async def test_policies_never_and_confirm(server):
    settings = Settings(
        agents={"ceo": TargetSettings(policy=ReplayPolicy.NEVER), "cfo-*": TargetSettings(policy=ReplayPolicy.CONFIRM)},
        roles={"billing": TargetSettings(policy=ReplayPolicy.NEVER)},
    )
    async with connected(server.url, agents=["ceo", "cfo-1", "dev"], roles=["billing"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1")
        await forge(fleet, "inbox.cfo-1.2-2", "agents.cfo-1.inbox.note")
        await forge(fleet, "inbox.dev.3-3", "agents.dev.inbox.note")
        await forge(fleet, "tasks.billing.4-4", "tasks.billing.invoice")
        await forge(fleet, "events.ceo-alerts.5-5", "events.security.alert")
        await forge(fleet, "events.cfo-1-events.6-6", "events.security.alert")
        plan = await planned(fleet, policy=policy_of(settings))
        assert [item.seq for item in plan.items] == [2, 3, 6]
        assert [skip.seq for skip in plan.skipped] == [1, 4, 5]
        assert all("policy never" in skip.reason for skip in plan.skipped)
        assert plan.cautious
        assert plan.gate == "count"
        alone = await plan_replay(fleet, choose("dead letters", seqs=[2]), rate=20, policy=policy_of(settings))
        assert alone.gate == "count", "confirm means typing the count, however small it is"
        assert (await planned(fleet, policy=policy_of(settings), force=True)).count == 6
        # Whoever receives what is moved is asked for, too.
        moved = await planned(fleet, policy=policy_of(settings), to="agents.ceo.inbox.note")
        assert (moved.count, moved.refused) == (0, 6)


async def test_one_destination_for_all(server):
    async with connected(server.url, agents=["ceo", "cfo"], roles=["backend"]) as fleet:
        await kill_tasks(fleet, 2)
        await forge(fleet, "inbox.ceo.1-1", "agents.vanished.inbox.note")
        plan = await planned(fleet, to="agents.cfo.inbox.retry")
        assert plan.by_destination == {"agents.cfo.inbox.retry": 3}
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert outcomes(job) == {"done": 3}
        assert (await fleet.inbox("cfo").depth()).messages == 3
        assert (await fleet.tasks("backend").depth()).messages == 0


async def test_a_destination_nobody_stores_is_a_usage_error(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        for to in ("agents.*.inbox.x", "agents.ceo.inbox.>", "nowhere.at.all", "", "a b", "$JS.API.INFO", "x.\x1b"):
            with pytest.raises(UsageError) as refused:
                await planned(fleet, to=to)
            assert refused.value.exit_code == 2
            assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("rate", [0, -1, 0.99, 501, float("inf"), float("nan")])
async def test_an_impossible_rate_is_a_usage_error(rate):
    with pytest.raises(UsageError, match="rate"):
        await plan_replay(offline(), ALL, rate=rate)


async def test_the_slowest_the_fastest_and_no_rate_are_possible(server):
    async with Fleet.connect(server.url) as fleet:
        for rate in (1, 500):
            assert (await planned(fleet, rate=rate)).rate == rate
        uncapped = await planned(fleet, rate=None)
        assert (uncapped.rate, uncapped.duration) == (None, None)


async def test_the_more_items_the_stricter_the_confirmation(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 101)
        plan = await planned(fleet)
        ladder = {count: replace(plan, items=Items(plan.items[:count])).gate for count in (1, 2, 100, 101)}
        assert ladder == {1: "enter", 2: "key", 100: "key", 101: "count"}


# -- frozen


async def test_letters_that_come_after_the_plan_are_not_touched(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        plan = await planned(fleet)
        await forge(fleet, "inbox.ceo.10-a", Message_Id="later")
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert [result.seq for result in job.results] == [1, 2, 3]
        assert [letter.id for letter in await fleet.dead_letters.list()] == ["later"]


async def test_a_sequence_that_names_another_death_by_now_is_not_replayed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", Message_Id="seen")
        plan = await planned(fleet)
        await fleet.js.delete_stream("DLQ")
        await fleet.provision()
        await forge(fleet, "inbox.ceo.1-2", Message_Id="another")
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert outcomes(job) == {"not started": 1}
        assert "earlier stream DLQ" in job.error
        assert [letter.id for letter in await fleet.dead_letters.list()] == ["another"]
        assert (await fleet.inbox("ceo").depth()).messages == 0


async def test_marked_letters_are_frozen_in_the_order_of_their_deaths(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        shown = await fleet.dead_letters.list()
        plan = await plan_replay(fleet, freeze(reversed(shown), "3 marked"), rate=20)
        assert [item.seq for item in plan.items] == [1, 2, 3]
        assert plan.selection == "3 marked"


async def test_a_marked_letter_whose_sequence_names_another_by_now_is_not_planned(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        shown = await fleet.dead_letters.list()
        await fleet.js.delete_stream("DLQ")
        await fleet.provision()
        await forge(fleet, "inbox.ceo.9-9", Message_Id="another")
        plan = await plan_replay(fleet, freeze(shown, "1 marked"), rate=20)
        assert (plan.count, [skip.seq for skip in plan.skipped]) == (0, [1])


# -- job


async def test_each_item_tells_what_became_of_it_and_the_result_adds_up(server):
    async with connected(server.url, agents=["ceo", "cfo"]) as fleet:
        await forge(fleet, "inbox.ceo.1-1", Message_Id="done")
        await forge(fleet, "inbox.ceo.2-2", Message_Id="gone")
        await forge(fleet, "inbox.cfo.3-3", "agents.cfo.inbox.note", Message_Id="failed")
        await forge(fleet, "inbox.ceo.4-4", Replays="9")
        await forge(fleet, "inbox.ceo.5-5", Message_Id="done too")
        plan = await plan_replay(
            fleet, choose("dead letters", seqs=[1, 2, 3, 4, 5, 6]), rate=500, reason="model is back"
        )
        await fleet.dead_letters.discard(2, by="somebody else")
        await fleet.js.delete_stream("INBOX_CFO")
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert [result.outcome for result in job.results] == ["done", "skipped", "failed", "done"]
        assert "INBOX_CEO" in job.results[0].detail
        assert "gone" in job.results[1].detail
        assert "agents.cfo.inbox.note" in job.results[2].detail
        assert job.state == "completed"
        assert job.exit_code == 3
        told = job.as_json(plan.skipped)
        assert set(told) == {"job", "planned", "done", "skipped", "failed", "duplicates", "spill", "items"}
        assert (told["planned"], told["done"], told["skipped"], told["failed"]) == (4, 2, 3, 1)
        assert told["duplicates"] == 0
        assert told["done"] + told["skipped"] + told["failed"] == len(told["items"]) == 6
        assert [item["seq"] for item in told["items"]] == [1, 2, 3, 4, 5, 6]
        assert {frozenset(item) for item in told["items"]} == {frozenset({"seq", "outcome", "detail"})}
        assert [letter.seq for letter in await fleet.dead_letters.list()] == [3, 4], "what was not replayed stays"
        replayed = (await fleet.inbox("ceo").peek())[0]
        assert replayed.id == "done"
        assert replayed.headers["Dead-Letter-Replayed-By"] == operator_name()


async def test_the_fleet_is_told_what_an_operator_did(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        job = Job.of(fleet, await planned(fleet, reason="model is back"), WRITE)
        await job.run()
        page = await fleet.jetstream.read(fleet.events.stream)
        (stored,) = page.messages
        event = decode_stored(stored, names=fleet.names, stream=fleet.events.stream)
        assert event.type == "console.replay"
        assert event.data == {
            "job": job.id,
            "operator": operator_name(),
            "planned": 2,
            "done": 2,
            "failed": 0,
            "selection": "all",
            "reason": "model is back",
            "action": "replay",
        }
        # And whoever looks at the feed of a console reads who did it.
        feed = Feed(fleet)
        following = asyncio.create_task(feed.run())
        await until(lambda: feed.items)
        following.cancel()
        assert [item.body for item in feed.items] == [f"job {job.id}  replay: 2 of 2 done by {operator_name()}"]


async def test_a_fleet_without_events_can_be_repaired_all_the_same(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        await fleet.js.delete_stream("EVENTS")
        job = Job.of(fleet, await planned(fleet), WRITE)
        await job.run()
        assert outcomes(job) == {"done": 2}


async def hang(fleet: Fleet, server: LocalServer) -> None:
    """Pause the server and wait until it is: a stop signal takes a moment to reach all its threads."""
    server.pause()

    async def silent() -> bool:
        try:
            await fleet.nc.request("$JS.API.INFO", b"", timeout=0.05)
        except nats.errors.TimeoutError:
            return True
        return False

    await until(silent)


async def test_an_unconfirmed_publish_is_found_out_and_not_sent_twice(server, monkeypatch):
    config = fast(publish_timeout=0.3)
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        await forge_many(fleet, 3)
        plan = await planned(fleet, rate=100.0)
        real, sent = JetStream.publish, []

        async def publish(self, subject, *args, **options):
            """The second message meets a server that hangs."""
            sent.append(subject)
            if not subject.startswith("agents.") or sum(each.startswith("agents.") for each in sent) != 2:
                return await real(self, subject, *args, **options)
            await hang(fleet, server)
            try:
                return await real(self, subject, *args, **options)
            finally:
                server.resume()

        monkeypatch.setattr(JetStream, "publish", publish)
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        # The server had taken it after all, and the repetition was told so: no second copy, and the letter is gone.
        assert [result.outcome for result in job.results][:2] == ["done", "duplicate"]
        assert (job.exit_code, job.as_json()["failed"], job.as_json()["done"]) == (0, 0, 3)
        assert await letters_left(fleet) == 0
        assert sorted(message.id for message in await fleet.inbox("ceo").peek()) == ["m-1", "m-2", "m-3"]


async def test_what_nobody_can_find_out_is_in_doubt_until_an_operator_says_what_is_true(server, monkeypatch):
    """A consumer without receipts, and a server that forgets ids at once: sending again might be a second copy."""
    async with connected(server.url, config=FORGETFUL) as fleet:
        await fleet.js.add_stream(name="ORDERS", subjects=["orders.>"], duplicate_window=0.1)
        await fleet.js.add_consumer("ORDERS", ConsumerConfig(durable_name="worker"))
        for number in range(1, 4):
            await forge(fleet, f"tasks.orders.{number}-{number}", "orders.new", Message_Id=f"m-{number}")
        plan = await planned(fleet, rate=100.0)
        assert any("without receipts" in warning for warning in plan.warnings)
        real, met = JetStream.publish, []

        async def publish(self, subject, *args, **options):
            """The second message is never heard of."""
            if subject == "orders.new":
                met.append(subject)
                if len(met) == 2:
                    raise Unavailable("no answer")
            return await real(self, subject, *args, **options)

        monkeypatch.setattr(JetStream, "publish", publish)
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        assert [result.outcome for result in job.results] == ["done", "in doubt", "done"]
        assert "not confirmed" in job.results[1].detail
        assert (job.exit_code, job.as_json()["failed"]) == (3, 1)
        assert [letter.seq for letter in await fleet.dead_letters.list()] == [2], "what is in doubt stays"
        assert await answer(fleet, job.ledger, job.id, [], "again", WRITE) == 1
        again = await resume(fleet, job.ledger, job.id, WRITE)
        await again.run()
        assert [result.outcome for result in again.results] == ["done", "done", "done"]
        assert (again.exit_code, again.state, await letters_left(fleet)) == (0, "completed", 0)
        assert (await fleet.jetstream.stream_info("ORDERS"))["state"]["messages"] == 3


async def test_a_dlq_that_keeps_its_letters_is_refused_before_anything_is_sent(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 1)
        config = (await fleet.jetstream.stream_info("DLQ"))["config"]
        await fleet.jetstream.api("STREAM.UPDATE.DLQ", {**config, "deny_delete": True})
        with pytest.raises(Refused, match="deny_delete") as refused:
            await planned(fleet)
        assert refused.value.exit_code == 5
        assert (await fleet.inbox("ceo").depth()).messages == 0


@pytest.mark.parametrize("rate", [50.0, 500.0], ids=["one at a time", "several"])
@pytest.mark.parametrize("late", [True, False], ids=["after it was sent", "before it was sent"])
async def test_an_error_nobody_foresaw_leaves_a_true_account(server, monkeypatch, rate, late):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 3)
        job = Job.of(fleet, await planned(fleet, rate=rate), WRITE)
        real = fleet.dead_letters.replay

        async def breaks(seq, **options):
            if seq == 2 and not late:
                raise RuntimeError("a bug")
            receipt = await real(seq, **options)
            if seq == 2:
                raise RuntimeError("a bug")
            return receipt

        monkeypatch.setattr(fleet.dead_letters, "replay", breaks)
        async with asyncio.timeout(20):
            await job.run()
        assert [result.outcome for result in job.results] == ["done", "in doubt" if late else "failed", "done"]
        assert "a bug" in job.results[1].detail
        assert [letter.seq for letter in await fleet.dead_letters.list()] == ([] if late else [2])
        assert job.exit_code == 3


async def test_the_rate_is_kept(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 20)
        plan = await planned(fleet, rate=50)
        started = time.monotonic()
        job = Job.of(fleet, plan, WRITE)
        await job.run()
        took = time.monotonic() - started
        assert outcomes(job) == {"done": 20}
        assert took >= 0.3, "19 pauses of 20 ms"
        assert plan.duration == pytest.approx(0.38)


async def test_cancel_stops_within_one_item_and_the_rest_stays(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 40)
        job = Job.of(fleet, await planned(fleet, rate=50), WRITE)
        running_job = asyncio.create_task(job.run())
        await until(lambda: len(job.results) >= 3, every=0.001)
        job.cancel()
        before = len(job.results)
        await running_job
        assert job.count("done") <= before + 1
        assert job.count("done") + job.count("not started") == 40
        assert job.state == "cancelled"
        assert job.exit_code == 3
        assert await letters_left(fleet) == job.count("not started") == 40 - job.count("done")
        again = Job.of(fleet, await planned(fleet), WRITE)
        await again.run()
        assert again.count("done") == job.count("not started")
        assert sorted(message.id for message in await fleet.inbox("ceo").peek(limit=100)) == sorted(
            f"m-{n}" for n in range(1, 41)
        )


async def test_cancelled_before_it_began_it_sends_nothing(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        job = Job.of(fleet, await planned(fleet), WRITE)
        job.cancel()
        await job.run()
        assert outcomes(job) == {"not started": 2}
        assert (job.state, job.exit_code, await letters_left(fleet)) == ("cancelled", 3, 2)


async def test_the_guard_refuses_at_the_last_moment(server, tmp_path):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 2)
        guard = WriteGuard(True)
        plan = await planned(fleet)
        job = Job.of(fleet, plan, guard)
        guard.allowed = False
        with pytest.raises(Refused) as refused:
            await job.run()
        assert refused.value.exit_code == 5
        assert "replay" in str(refused.value)
        assert (job.results, job.processed, await letters_left(fleet)) == ([], 0, 2)
        assert not job.running
        runtime = Runtime(Session(fleet=fleet, settings=Settings(), guard=guard, spill=tmp_path))
        with pytest.raises(Refused):
            runtime.start(plan)
        assert runtime.jobs == []


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"demo": False, "write": False, "read_only": False}, False),
        ({"demo": True, "write": False, "read_only": False}, True),
        ({"demo": False, "write": True, "read_only": False}, True),
        ({"demo": False, "write": False, "read_only": False, "context_writes": True}, True),
        ({"demo": True, "write": True, "read_only": True, "context_writes": True}, False),
    ],
)
def test_a_screen_writes_only_if_somebody_said_so_and_read_only_wins(given, allowed):
    assert WriteGuard.for_screen(**given).allowed is allowed


def test_a_command_writes_unless_it_is_read_only():
    assert WriteGuard.for_command(read_only=False).allowed
    with pytest.raises(Refused, match="read-only"):
        WriteGuard.for_command(read_only=True).require("dlq replay")


# -- nothing lost, nothing doubled


async def test_two_operators_with_one_plan_send_each_letter_once(server):
    async with (
        connected(server.url, roles=["backend"], config=FORGETFUL) as one,
        connected(server.url, config=FORGETFUL) as other,
    ):
        await kill_tasks(one, 40)
        plans = [await planned(one), await planned(other)]
        jobs = [Job.of(one, plans[0], WRITE), Job.of(other, plans[1], WRITE)]
        handled = Handled()
        async with running(one.tasks("backend").worker("w", concurrency=8), handled):
            await asyncio.gather(*(job.run() for job in jobs))
            await until(lambda: _drained(one, handled, 40))
        assert set(handled.times.values()) == {1}
        for job in jobs:
            assert outcomes(job).keys() <= {"done", "duplicate", "skipped"}
            assert job.exit_code == 0
        assert await letters_left(one) == 0


async def _drained(fleet: Fleet, handled: Handled, count: int) -> bool:
    """Whether everything was handled, and nothing is left that could be handled once more."""
    return len(handled.times) >= count and (await fleet.tasks("backend").depth()).messages == 0


OPERATOR = """
import asyncio, os, sys
from console.operations.guard import WriteGuard
from console.operations.job import Job
from tests.support.plans import plan_replay
from console.operations.selection import choose
from patterns.jetstream import JetStream
from tests.support.fleets import connected

hang_at = int(sys.argv[2])
delete = JetStream.delete

async def hang(self, stream, seq):
    if stream == "DLQ" and seq == hang_at:
        print("sent and not removed", flush=True)
        await asyncio.sleep(60)
    return await delete(self, stream, seq)

JetStream.delete = hang

async def main():
    async with connected(sys.argv[1]) as fleet:
        choice = choose("dead letters", everything=True)
        plan = await plan_replay(fleet, choice, rate=float(sys.argv[3]))
        print(f"planned {plan.count}", flush=True)
        await Job.of(fleet, plan, WriteGuard(True)).run()

asyncio.run(main())
"""
"""An operator in a process of its own, who stops for ever between the publish and the removal of one letter."""


@contextlib.asynccontextmanager
async def operator(url: str, hang_at: int = 0, rate: float = 500.0):
    """The process, killed at the end of the block at the latest."""
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OPERATOR,
        url,
        str(hang_at),
        str(rate),
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # its pipe is closed with it


async def test_an_operator_killed_in_the_middle_loses_and_doubles_nothing(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        await kill_tasks(fleet, 200)
        for limit in (160, 90):
            async with operator(server.url) as process:

                async def reached(limit=limit) -> bool:
                    return await letters_left(fleet) <= limit

                await until(reached, every=0.002)
                process.kill()
                await process.wait()
            assert 0 < await letters_left(fleet) <= limit, "it was in the middle"
        job = Job.of(fleet, await planned(fleet), WRITE)
        assert 0 < job.planned < 200
        await job.run()
        assert job.exit_code == 0
        assert await letters_left(fleet) == 0
        stored = await fleet.jetstream.read(fleet.tasks("backend").stream, limit=500)
        assert Counter(message.headers["ce-id"] for message in stored.messages) == {f"t-{n}": 1 for n in range(200)}
        handled = Handled()
        async with running(fleet.tasks("backend").worker("w", concurrency=32), handled):
            await until(lambda: _drained(fleet, handled, 200))
        assert handled.times == {f"t-{n}": 1 for n in range(200)}


async def test_killed_between_sending_and_removing_the_second_copy_is_dropped_by_its_receipt(server):
    async with connected(server.url, roles=["backend"], config=FORGETFUL) as fleet:
        await kill_tasks(fleet, 6)
        async with operator(server.url, hang_at=4, rate=100.0) as process:
            assert process.stdout is not None
            while b"not removed" not in await asyncio.wait_for(process.stdout.readline(), 20):
                pass
        await until(lambda: _forgotten(fleet))
        assert [letter.seq for letter in await fleet.dead_letters.list()] == [4, 5, 6]
        job = Job.of(fleet, await planned(fleet), WRITE)
        await job.run()
        assert outcomes(job) == {"done": 3}, "the server has forgotten the first copy"
        assert (await fleet.tasks("backend").depth()).messages == 7, "one is there twice"
        handled = Handled()
        async with running(fleet.tasks("backend").worker("w", concurrency=4), handled) as worker:
            await until(lambda: _drained(fleet, handled, 6))
            assert worker.duplicates + sum(handled.times.values()) == 7
        assert handled.times == {f"t-{n}": 1 for n in range(6)}
        assert await letters_left(fleet) == 0


async def _forgotten(fleet: Fleet) -> bool:
    """Whether the server would store the newest task once more: it looks for the id before it looks at the expectation."""
    newest = (await fleet.jetstream.read("TASKS_BACKEND")).messages[-1]
    headers = {"Nats-Msg-Id": newest.headers["Nats-Msg-Id"], "Nats-Expected-Last-Msg-Id": "none"}
    try:
        await fleet.js.publish(newest.subject, b"", headers=headers)
    except APIError:
        return True
    return False


async def test_a_server_that_dies_in_the_middle_loses_and_doubles_nothing(server):
    config = fast(publish_timeout=0.5, limits=StreamLimits(duplicate_window=0.1))
    async with connected(server.url, roles=["backend"], config=config) as fleet:
        await kill_tasks(fleet, 60)
        handled = Handled()
        async with running(fleet.tasks("backend").worker("w", concurrency=8), handled):
            job = Job.of(fleet, await planned(fleet, rate=200), WRITE)
            running_job = asyncio.create_task(job.run())
            await until(lambda: job.count("done") >= 10, every=0.002)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            await running_job
            assert len(job.results) == 60
            assert job.count("done", "duplicate") + job.count("in doubt", "failed") == 60

            async def repeated() -> bool:
                """What an operator does who reads "failed" or "in doubt": once more."""
                again = Job.of(fleet, await planned(fleet), WRITE)
                await again.run()
                return again.exit_code == 0 and await letters_left(fleet) == 0

            await until(repeated)
            await until(lambda: _drained(fleet, handled, 60))
        assert set(handled.times) == {f"t-{n}" for n in range(60)}
        statuses = [await fleet.tasks("backend").status(f"t-{n}") for n in range(60)]
        assert {status.state for status in statuses} == {"completed"}
        # The worker's own answers to what it had in hand may be lost with the server, and it is asked again: that is one
        # copy delivered twice. A second copy is what a replay must not make.
        assert {len(copies) for copies in handled.copies.values()} == {1}
        assert sum(handled.times.values()) <= 60 + 8


# -- the session


def session(fleet: Fleet) -> Session:
    return Session(fleet=fleet, settings=Settings(refresh=0.2), guard=WriteGuard(True), spill=Path("unused"))


def left_behind() -> set[str]:
    """Names of the session's tasks that still run."""
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().split()[0] in ("monitor", "feed", "job")}


async def test_a_job_goes_on_when_the_screen_that_started_it_is_gone(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 30)
        plan = await planned(fleet, rate=100)
        runtime = Runtime(session(fleet))
        async with runtime.running():
            assert runtime.busy is None
            started = asyncio.Event()

            async def screen() -> None:
                runtime.start(plan)
                started.set()
                await asyncio.sleep(60)

            shown = asyncio.create_task(screen())
            await started.wait()
            job = runtime.busy
            assert job is not None
            assert job.state == "running"
            shown.cancel()
            await until(lambda: job.state != "running")
            assert runtime.busy is None
            assert outcomes(job) == {"done": 30}
            assert runtime.jobs == [job]
            # What a job changed is looked at at once.
            await until(lambda: runtime.monitor.view and runtime.monitor.view.dead_letter_total == 0)
        assert left_behind() == set()


async def test_leaving_stops_a_job_after_the_item_in_work(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge_many(fleet, 30)
        plan = await planned(fleet, rate=20)
        runtime = Runtime(session(fleet))
        async with asyncio.timeout(20):
            async with runtime.running():
                await until(lambda: runtime.monitor.view is not None)
                job, _ = runtime.start(plan)
                await until(lambda: job.count("done") >= 2)
                before = len(job.results)
        assert job.state == "interrupted", "it can be resumed"
        assert job.count("done") <= before + 1
        assert job.count("done") + job.count("not started") == 30
        assert await letters_left(fleet) == 30 - job.count("done")
        assert left_behind() == set()
