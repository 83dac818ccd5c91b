"""Lineage: a letter tells all its deaths, however often it was replayed, by whom, and whatever others wrote into it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterns import DeadLetterConfig, ReplayLimit
from patterns.headers import header_size
from patterns.letter import LONG_HEADER, replay_headers
from patterns.lineage import DEATH, DEATH_LIMIT, DEATHS_KEPT, Death, continued, lighten, read_deaths
from patterns.names import Entry
from tests.support.fleets import connected, fast, publish
from tests.support.letters import forge

AT = datetime(2026, 3, 1, 9, 12, 44, 201877, UTC)
DIED = Death(
    n=1, entry="tasks.backend.8812-18984b6e5a8c3f10", seq=1042, at=AT, reason="max-deliver", error_type="TimeoutError",
    error="model did not answer", agent="backend-1", deliveries=3, replayed_by="ann@ops-1",
    replayed_at=AT + timedelta(minutes=5), job="7f3a01c2",
)  # fmt: skip
LINE = (
    "at=2026-03-01T09:12:44.201877Z&entry=tasks.backend.8812-18984b6e5a8c3f10&seq=1042&tries=3"
    "&replayed=2026-03-01T09:17:44.201877Z&reason=max-deliver&job=7f3a01c2&by=ann@ops-1&agent=backend-1"
    "&type=TimeoutError&error=model+did+not+answer"
)


def told(*numbers: int, **changes: str) -> dict[str, str]:
    """Headers that tell of these deaths."""
    fields = {"at": "2026-03-01T09:12:44Z", "entry": "inbox.ceo.7-ff", "error": "no model", "by": "ann", **changes}
    return {f"{DEATH}{n}": urlencode(fields) for n in numbers}


async def die(fleet, kind, error):
    """Let what waits die once more; its letter."""
    if kind == "inbox":
        async with await fleet.inbox("ceo").next(20) as message:
            await message.reject(error)
    elif kind == "tasks":
        async with await fleet.tasks("backend").next("backend-1", 20) as task:
            await task.reject(error)
    else:
        consumer = await fleet.events.subscription("ceo", "deployment.>")
        async with await consumer.next(20) as event:
            await event.reject(error)
        await consumer.stop()
    (letter,) = await fleet.dead_letters.list()
    return letter


# -- the whole chain


@pytest.mark.parametrize("kind", ["tasks", "inbox", "events"])
async def test_every_death_and_every_way_back_is_told(server, kind):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        if kind == "events":
            await (await fleet.events.subscription("ceo", "deployment.>")).stop()
            await fleet.events.broadcast("deployment.failed", {"n": 1}, id="m")
        elif kind == "tasks":
            await fleet.tasks("backend").submit("code", {"n": 1}, id="m")
        else:
            await fleet.inbox("ceo").send("note", {"n": 1}, id="m")
        seen, stored = [], []
        for n, operator in enumerate(("ann", "bob@ops-1", "Åsa & co"), start=1):
            letter = await die(fleet, kind, f"error {n}: a=1&b=50%")
            stored.append(await fleet.jetstream.get("DLQ", letter.seq))
            seen.append(letter)
            assert (letter.replays, len(letter.lineage), letter.death.n) == (n - 1, n - 1, n)
            await fleet.dead_letters.replay(letter.seq, by=operator, job=f"job-{n}" if n < 3 else "")
        last = await die(fleet, kind, "the end")
        assert last.id == "m"
        assert [death.n for death in last.lineage] == [1, 2, 3]
        for death, letter in zip(last.lineage, seen, strict=True):
            here = letter.death
            back = {"replayed_by": death.replayed_by, "replayed_at": death.replayed_at, "job": death.job}
            assert death == dataclasses.replace(here, **back)
            assert death.replayed_at is not None
            assert here.at < death.replayed_at < last.died_at
        assert [death.replayed_by for death in last.lineage] == ["ann", "bob@ops-1", "Åsa & co"]
        assert [death.job for death in last.lineage] == ["job-1", "job-2", ""]
        assert [death.error for death in last.lineage] == [f"error {n}: a=1&b=50%" for n in (1, 2, 3)]
        assert {death.source for death in last.lineage} == {last.source}
        assert last.first_entry == seen[0].entry == seen[0].first_entry
        assert [letter.replay_job for letter in (*seen, last)] == ["", "job-1", "job-2", ""]
        # What it told before stays as it was, byte for byte.
        assert stored[2].headers[f"{DEATH}1"] == stored[1].headers[f"{DEATH}1"]


async def test_a_message_that_came_back_tells_its_reader_too(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", {"n": 1})
        letter = await die(fleet, "inbox", "no")
        await fleet.dead_letters.replay(letter.seq, by="ann", job="7f3a01c2", data={"n": 2})
        (message,) = await fleet.inbox("ceo").peek()
        (death,) = read_deaths(message.headers, 1)
        assert (death.entry, death.error, death.replayed_by, death.edited) == (letter.entry, "no", "ann", True)
        assert message.headers["Dead-Letter-First-Entry"] == letter.entry
        assert message.headers["Dead-Letter-Replay-Job"] == "7f3a01c2"


async def test_a_change_of_headers_is_an_edit(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", headers={"X-Tenant": "acme", "X-Old": "1"})
        letter = await die(fleet, "inbox", "no")
        await fleet.dead_letters.replay(
            letter.seq, by="ann", headers={"X-Tenant": "umbra", "X-New": "2", "X-Old": None}
        )
        letter = await die(fleet, "inbox", "still no")
        assert letter.lineage[0].edited
        free = {name: value for name, value in letter.message.headers.items() if name.startswith("X-")}
        assert free == {"X-Tenant": "umbra", "X-New": "2"}


async def test_changes_touch_neither_the_chain_nor_the_id(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", id="m")
        letter = await die(fleet, "inbox", "no")
        stored = await fleet.jetstream.get("DLQ", letter.seq)
        changes = {"Dead-Letter-Replayed-By": "root", f"{DEATH}1": None, "Agent-Replay-Of": None, "Nats-Msg-Id": "x"}
        sent = replay_headers(stored.headers, letter, Entry.parse(letter.entry), 1, "ann", changes=changes)
        assert (sent["Dead-Letter-Replayed-By"], sent["Agent-Replay-Of"]) == ("ann", letter.entry)
        assert sent["Nats-Msg-Id"] == f"{letter.entry}:r1"
        assert read_deaths(sent, 1)[0].error == "no"


async def test_a_move_keeps_the_chain(server):
    async with connected(server.url, agents=["ceo", "cto"]) as fleet:
        await fleet.inbox("ceo").send("note", {"n": 1})
        first = await die(fleet, "inbox", "not mine")
        await fleet.dead_letters.replay(first.seq, by="ann", to="agents.cto.inbox.note", job="moved")
        async with await fleet.inbox("cto").next(20) as message:
            await message.reject("nor mine")
        (letter,) = await fleet.dead_letters.list()
        assert [(death.source, death.error, death.job) for death in letter.lineage] == [
            ("inbox.ceo", "not mine", "moved")
        ]
        assert (letter.source, letter.first_entry) == ("inbox.cto", first.entry)


async def test_of_many_deaths_the_first_and_the_latest_stay(server):
    config = fast(dead_letters=DeadLetterConfig(max_replays=3, warn_replays=2))
    async with connected(server.url, agents=["ceo"], config=config) as fleet:
        await fleet.inbox("ceo").send("note", {"n": 1})
        first = ""
        for n in range(1, 26):
            letter = await die(fleet, "inbox", f"{n} " + "é" * 2000)
            first = first or letter.entry
            assert letter.replays == n - 1
            if n == 4:
                with pytest.raises(ReplayLimit):
                    await fleet.dead_letters.replay(letter.seq, by="ann")
            await fleet.dead_letters.replay(letter.seq, by=f"op-{n}", force=n > 3)
        letter = await die(fleet, "inbox", "the end")
        assert [death.n for death in letter.lineage] == [1, *range(25 - DEATHS_KEPT + 2, 26)]
        assert [death.replayed_by for death in letter.lineage] == [f"op-{death.n}" for death in letter.lineage]
        assert all(death.error.startswith(f"{death.n} é") and death.error.endswith("é…") for death in letter.lineage)
        assert letter.first_entry == first
        stored = await fleet.jetstream.get("DLQ", letter.seq)
        lines = [value for name, value in stored.headers.items() if name.startswith(DEATH)]
        assert len(lines) == DEATHS_KEPT
        assert all(len(value) <= DEATH_LIMIT and value.isascii() and value.isprintable() for value in lines)


# -- what others wrote


async def test_a_message_that_is_no_replay_cannot_tell_of_deaths(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        forged = {
            **told(1, 2),
            "Dead-Letter-Replays": "2",
            "Dead-Letter-First-Entry": "inbox.ceo.1-ff",
            "Dead-Letter-Replay-Job": "root",
        }
        await publish(fleet, "agents.ceo.inbox.note", b"{}", forged)
        letter = await die(fleet, "inbox", "no")
        stored = await fleet.jetstream.get("DLQ", letter.seq)
        assert not set(forged) & set(stored.headers)
        assert (letter.lineage, letter.replay_job, letter.first_entry) == ((), "", letter.entry)
        await fleet.dead_letters.replay(letter.seq, by="ann")
        letter = await die(fleet, "inbox", "no")
        assert [(death.n, death.error, death.replayed_by) for death in letter.lineage] == [(1, "no", "ann")]


async def test_a_letter_of_older_making_shows_what_is_missing(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        old = {"Replays": "3", "Replayed_By": "ann", "First_At": "2026-01-01T00:00:00Z"}
        await forge(fleet, "inbox.ceo.1-a", **old)
        (letter,) = await fleet.dead_letters.list()
        assert (letter.replays, letter.lineage, letter.first_entry, letter.death.n) == (3, (), "", 4)
        await fleet.dead_letters.replay(letter.seq, by="bob")
        letter = await die(fleet, "inbox", "again")
        assert [(death.n, death.replayed_by) for death in letter.lineage] == [(4, "bob")]
        # Nobody knows where it died first: its fourth death is not passed off as that.
        assert letter.first_entry == ""
        assert "Dead-Letter-First-Entry" not in letter.message.headers


async def test_what_is_broken_is_left_out_and_what_cannot_be_is_not_believed(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await forge(
            fleet,
            "inbox.ceo.1-a",
            headers={
                **told(1, error="first"),
                f"{DEATH}2": "%%%&&&===",
                **told(3, at="yesterday"),
                **told(4, entry="nonsense"),
                **told(5, error="x" * DEATH_LIMIT),
                **told(6, seq="-1", tries="many", replayed="soon", edited="yes", unknown="field"),
                f"{DEATH}7": "&".join(["at=2026-03-01T09:12:44Z"] * 99),
                **told(8, error="not dead eight times"),
                f"{DEATH}01": told(1)[f"{DEATH}1"],
                f"{DEATH}0": told(1)[f"{DEATH}1"],
                f"{DEATH}x": told(1)[f"{DEATH}1"],
                f"{DEATH}{'9' * 30}": told(1)[f"{DEATH}1"],
            },
            Replays="7",
        )
        (letter,) = await fleet.dead_letters.list()
        first, sixth = letter.lineage
        assert (first.n, first.error, sixth.n) == (1, "first", 6)
        assert (sixth.seq, sixth.deliveries, sixth.replayed_at, sixth.edited) == (0, 0, None, False)
        assert letter.first_entry == "inbox.ceo.7-ff"
        await fleet.dead_letters.replay(letter.seq, by="ann", force=True)
        letter = await die(fleet, "inbox", "again")
        assert [death.n for death in letter.lineage] == [1, 6, 8]
        assert letter.lineage[-1].replayed_by == "ann"


async def test_a_body_that_just_fits_is_not_cut_for_the_sake_of_its_story(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        big = b"y" * (fleet.nc.max_payload - 4_200)
        for body, deaths in ((b"", 15), (big, 6)):
            headers = {"Dead-Letter-Replays": str(deaths), "Agent-Replay-Of": f"inbox.ceo.{deaths}-ff"}
            long = {name: value.ljust(500, "x") for name, value in told(*range(1, deaths + 1)).items()}
            headers |= {"Content-Type": "text/plain", **long}
            await fleet.jetstream.publish("agents.ceo.inbox.note", body, headers, headroom=0)
            async with await fleet.inbox("ceo").next(20) as message:
                await message.reject("e" * 2000)
            letter = (await fleet.dead_letters.list())[-1]
            assert letter.message.body == body
            assert "Dead-Letter-Truncated" not in letter.message.headers
        whole, light = await fleet.dead_letters.list()
        assert [death.n for death in whole.lineage] == list(range(1, 16))
        kept = [death.n for death in light.lineage]
        assert kept[0] == 1
        assert kept[1:] == list(range(6 - len(kept) + 2, 7))
        assert len(kept) < 6


# -- the header itself


def test_a_death_is_a_query_string_that_others_can_read():
    (text,) = continued({}, DIED).values()
    assert text == LINE
    assert read_deaths({f"{DEATH}1": text}, 1) == (DIED,)
    assert parse_qs(text)["error"] == ["model did not answer"]


@given(
    st.builds(
        Death,
        n=st.integers(1, 99),
        entry=st.sampled_from(["inbox.ceo.7-ff", f"tasks.{'x' * 255}.{'9' * 20}-{'f' * 16}"]),
        seq=st.integers(0, 10**18 - 1),
        at=st.just(AT),
        reason=st.text(),
        error_type=st.text(),
        error=st.text(),
        agent=st.text(),
        deliveries=st.integers(0, 10**18 - 1),
        replayed_by=st.text(),
        replayed_at=st.none() | st.just(AT),
        job=st.text(),
        edited=st.booleans(),
    )
)
def test_any_death_fits_into_its_header_and_comes_out_of_it(death):
    headers = continued({}, death)
    (text,) = headers.values()
    assert len(text) <= DEATH_LIMIT <= LONG_HEADER
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    (read,) = read_deaths(headers, death.n)
    assert (read.n, read.entry, read.seq, read.at) == (death.n, death.entry, death.seq, death.at)
    assert (read.deliveries, read.replayed_at, read.edited) == (death.deliveries, death.replayed_at, death.edited)
    for was, now in ((death.error, read.error), (death.reason, read.reason), (death.replayed_by, read.replayed_by)):
        assert was.startswith(now.removesuffix("…"))


def test_only_the_error_is_cut_where_the_rest_is_of_ordinary_length():
    long = dataclasses.replace(DIED, error="模型没有回答" * 200)
    (text,) = continued({}, long).values()
    (read,) = read_deaths({f"{DEATH}1": text}, 1)
    assert dataclasses.replace(read, error="") == dataclasses.replace(DIED, error="")
    assert read.error.startswith("模型没有回答模型")
    assert read.error.endswith("…")
    assert DEATH_LIMIT - 18 < len(text) <= DEATH_LIMIT


def test_what_has_to_go_for_want_of_room_is_old_but_not_the_first():
    headers = {"ce-id": "m", **told(1, 2, 3, 4)}
    size = header_size(headers)
    one = header_size(told(1)) - 12
    assert lighten(headers, size) == headers
    assert set(lighten(headers, size - 1)) == {"ce-id", *told(1, 3, 4)}
    assert set(lighten(headers, size - 2 * one)) == {"ce-id", *told(1, 4)}
    assert set(lighten(headers, size - 4 * one)) == {"ce-id"}
    # Where nothing helps, nothing is given away.
    assert lighten(headers, 3) == headers
