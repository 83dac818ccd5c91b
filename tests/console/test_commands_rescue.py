"""`dlq rescue`, `inbox|queue pause` and `resume`: what the server hides, and what is held for a while."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from nats.errors import TimeoutError as NothingThere
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from patterns import Fleet
from patterns.server import LocalServer
from tests.support.commandline import (
    PLACES,
    PLAN,
    RESULT,
    CommandLine,
    account_state,
    counts,
    fill,
    foreign_fleet,
    looked,
    prepared,
    production,
    seqs_of,
    strand,
)
from tests.support.fleets import fast

BRIEF = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], server: LocalServer) -> CommandLine:
    return CommandLine(capsys, server.url)


def stranded(url: str, count: int = 1) -> None:
    prepared(url, lambda fleet: strand(fleet, count=count), config=BRIEF)


# -- rescue


def test_a_plan_tells_what_is_stranded_and_changes_nothing(command: CommandLine, server: LocalServer) -> None:
    stranded(server.url, 2)
    before = looked(server.url, account_state)
    asked, dry = command("dlq", "rescue", "--json"), command("dlq", "rescue", "--json", "--dry-run")
    assert (asked.status, dry.status) == (4, 0)
    assert "nothing was changed: add --yes to rescue 2 stranded messages" in asked.err
    assert (asked.json, asked.json.keys()) == (dry.json, PLAN)
    assert (asked.json["plan"], asked.json["count"]) == ("rescue", 2)
    assert [sample["seq"] for sample in asked.json["sample"]] == [1, 2]
    assert any("INBOX_CEO" in name for name in asked.json["by_origin"])
    assert command("dlq", "rescue", "--yes", "--read-only").status == 5
    assert command("dlq", "rescue", "--read-only").status == 5
    assert looked(server.url, account_state) == before


def test_what_is_stranded_becomes_a_letter_and_can_be_replayed(command: CommandLine, server: LocalServer) -> None:
    stranded(server.url, 2)
    (row,) = command("fleet", "--json").json["agents"]
    assert row["inbox"]["stranded"] == 2
    result = command("dlq", "rescue", "--yes", "--json")
    assert (result.status, result.err, result.json.keys()) == (0, "", RESULT)
    assert (result.json["done"], result.json["failed"], result.json["spill"]) == (2, 0, None)
    listed = command("dlq", "list", "--json").json
    assert sorted((each["id"], each["source"], each["reason"]) for each in listed) == [
        ("stranded-0", "inbox.ceo", "crash"),
        ("stranded-1", "inbox.ceo", "crash"),
    ]
    assert looked(server.url, counts)[::2] == (2, 0)
    again = command("dlq", "rescue", "--yes", "--json")
    assert (again.status, again.json["planned"]) == (0, 0)
    assert command("dlq", "replay", "--all", "--yes", "--uncapped").status == 0
    assert looked(server.url, counts)[::2] == (0, 2)


def test_what_waits_or_is_in_flight_is_left_alone(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    before = looked(server.url, account_state)
    result = command("dlq", "rescue", "--yes", "--json")
    assert (result.status, result.json["planned"]) == (0, 0)
    assert looked(server.url, account_state) == before


def test_two_rescues_of_one_message_make_one_letter(command: CommandLine, server: LocalServer) -> None:
    stranded(server.url, 3)

    async def both(fleet: Fleet) -> list[int]:
        line = ("-m", "console", "dlq", "rescue", "--yes", "--json", "--server", server.url)
        started = [await asyncio.create_subprocess_exec(sys.executable, *line, stdout=-3, stderr=-3) for _ in range(2)]
        return [await each.wait() for each in started]

    statuses = looked(server.url, both)
    # The one that came second may have been told that another job works on the stream.
    assert 0 in statuses
    assert looked(server.url, counts)[::2] == (3, 0)


async def foreign(url: str) -> None:
    """Other code's work queue with a message that exhausted its deliveries, and no stream for dead letters at all."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        await js.add_stream(StreamConfig("ORDERS", subjects=["orders.>"], retention=RetentionPolicy.WORK_QUEUE))
        config = ConsumerConfig(durable_name="billing", ack_policy=AckPolicy.EXPLICIT, max_deliver=2)
        await js.add_consumer("ORDERS", config)
        await js.publish("orders.new", b'{"order": 1}', headers={"X-Tenant": "acme"})
        worker = await js.pull_subscribe_bind("billing", stream="ORDERS")
        for _ in range(2):
            (msg,) = await worker.fetch(1, timeout=20)
            await msg.nak()
        with pytest.raises(NothingThere):
            await worker.fetch(1, timeout=0.2)
    finally:
        await client.close()


def test_a_fleet_of_other_code_gets_a_dlq(command: CommandLine, server: LocalServer) -> None:
    asyncio.run(foreign(server.url))
    asked = command("dlq", "rescue")
    assert asked.status == 4
    assert "will be created" in asked.out
    assert looked(server.url, lambda fleet: fleet.jetstream.stream_info("DLQ")) is None
    result = command("dlq", "rescue", "--yes", "--json")
    assert (result.status, result.json["done"]) == (0, 1)
    (listed,) = command("dlq", "list", "--json").json
    assert (listed["subject"], listed["deliveries"], listed["reason"]) == ("orders.new", 2, "crash")
    assert looked(server.url, lambda fleet: seqs_of(fleet, "ORDERS")) == []
    assert command("dlq", "replay", "--all", "--yes", "--json").json["done"] == 1

    async def again(fleet: Fleet) -> list[tuple[str, bytes]]:
        return [(each.subject, each.body) for each in (await fleet.jetstream.read("ORDERS")).messages]

    assert looked(server.url, again) == [("orders.new", b'{"order": 1}')]


def test_an_account_without_anything_has_nothing_to_rescue(command: CommandLine) -> None:
    result = command("dlq", "rescue", "--yes", "--json")
    assert (result.status, result.json["planned"]) == (0, 0)


# -- pause and resume


def consumer(url: str, group: str) -> dict[str, Any]:
    durable = {"inbox": "ceo-processor", "queue": ""}[group]

    async def info(fleet: Fleet) -> Any:
        stream = PLACES[group][1]
        return await fleet.jetstream.consumer_info(stream, durable or fleet.names.tasks_durable(PLACES[group][0]))

    found: dict[str, Any] = looked(url, info)
    return found


@pytest.mark.parametrize("group", ["inbox", "queue"])
def test_a_pause_holds_everything_for_a_while_and_ends(command: CommandLine, server: LocalServer, group: str) -> None:
    name = PLACES[group][0]
    prepared(server.url, lambda fleet: fill(fleet, group))
    before = looked(server.url, account_state)
    for line in ((group, "pause", name), (group, "pause", name, "--for", "30m")):
        asked, dry = command(*line, "--json"), command(*line, "--json", "--dry-run")
        assert (asked.status, dry.status, asked.json.keys()) == (4, 0, PLAN)
        assert (asked.json["plan"], asked.json["count"]) == ("pause", 1)
        assert "nats consumer pause" in asked.json["nats"][0]
        assert command(*line, "--yes", "--read-only").status == 5
    assert looked(server.url, account_state) == before

    result = command(group, "pause", name, "--for", "30m", "--yes", "--json")
    assert (result.status, result.err, result.json.keys(), result.json["done"]) == (0, "", RESULT, 1)
    info = consumer(server.url, group)
    assert info["paused"] is True
    assert 1700 < info["pause_remaining"] / 1e9 <= 1800
    key = {"inbox": "agents", "queue": "queues"}[group]
    (row,) = command("fleet", "--json").json[key]
    assert row["state"] == "paused"

    assert command(group, "resume", name, "--json").status == 4
    assert consumer(server.url, group)["paused"] is True
    assert command(group, "resume", name, "--yes", "--read-only").status == 5
    resumed = command(group, "resume", name, "--yes", "--json")
    assert (resumed.status, resumed.json["done"]) == (0, 1)
    assert not consumer(server.url, group).get("paused")
    again = command(group, "resume", name, "--yes", "--json")
    assert (again.status, again.json["planned"], again.json["skipped"]) == (0, 0, 1)
    after = looked(server.url, lambda fleet: seqs_of(fleet, PLACES[group][1]))
    assert after == [1, 2, 3, 4, 5, 6]


def test_a_pause_lasts_ten_minutes_unless_said_otherwise(command: CommandLine, server: LocalServer) -> None:
    prepared(server.url, fill)
    assert command("inbox", "pause", "ceo", "--yes").status == 0
    until = datetime.fromisoformat(
        consumer(server.url, "inbox")["config"]["pause_until"].replace("Z", "+00:00")[:19] + "+00:00"
    )
    assert 500 < (until - datetime.now(UTC)).total_seconds() <= 601
    again = command("inbox", "pause", "ceo", "--for", "1h", "--dry-run")
    assert "paused already" in again.out


@pytest.mark.parametrize("value", ["", "soon", "0s", "-5m", "31d"])
def test_a_pause_that_cannot_be_meant_is_2(command: CommandLine, server: LocalServer, value: str) -> None:
    prepared(server.url, fill)
    before = looked(server.url, account_state)
    result = command("inbox", "pause", "ceo", "--for", value, "--yes")
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert looked(server.url, account_state) == before


def test_an_inbox_of_other_code_has_no_consumer_to_pause(command: CommandLine, server: LocalServer) -> None:
    asyncio.run(foreign_fleet(server.url))
    result = command("inbox", "pause", "ceo", "--yes")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert "ceo-processor" in result.err


def test_production_wants_a_reason_for_these_too(
    capsys: pytest.CaptureFixture[str], server: LocalServer, tmp_path: Any
) -> None:
    stranded(server.url)
    command, live = CommandLine(capsys), production(tmp_path, server.url)
    before = looked(server.url, account_state)
    for line in (("dlq", "rescue"), ("inbox", "pause", "ceo"), ("inbox", "resume", "ceo")):
        refused = command(*line, "--yes", *live)
        assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "--reason" in refused.err
    assert looked(server.url, account_state) == before
    assert command("dlq", "rescue", "--yes", "--reason", "they waited long enough", *live).status == 0
    assert [line["reason"] for line in command("audit", "--json").json] == ["they waited long enough"] * 2
