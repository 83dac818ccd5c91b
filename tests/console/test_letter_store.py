"""The dead letters that a console holds: what died again, what a read costs, and how much they may weigh."""

from __future__ import annotations

from console.monitor import letters
from console.monitor.letters import LetterStore
from patterns import Fleet
from tests.console.test_monitor_live import requests_of
from tests.support.fleets import connected
from tests.support.letters import forge, forge_many


async def dead(fleet: Fleet, source: str, count: int, **fields: str) -> list[int]:
    """So many letters of one source; their sequences."""
    return [await forge(fleet, f"{source}.{n}-{n:x}", **fields) for n in range(1, count + 1)]


class TestRedeaths:
    async def test_they_are_counted_by_source_as_they_come_and_go(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            store = LetterStore(fleet)
            await store.refresh()
            assert store.redeaths == {}
            await dead(fleet, "inbox.ceo", 2)
            again = await dead(fleet, "inbox.dev", 3, Replays="1")
            await dead(fleet, "tasks.backend", 1, Replays="4")
            await dead(fleet, "events.dev-alerts", 1, Replays="1")
            await store.refresh()
            counted = {("inbox", "dev"): 3, ("tasks", "backend"): 1, ("events", "dev-alerts"): 1}
            assert store.redeaths == counted
            for left in (2, 1):
                await fleet.jetstream.delete("DLQ", again.pop())
                await store.refresh()
                assert store.redeaths == {**counted, ("inbox", "dev"): left}
            await fleet.jetstream.delete("DLQ", again.pop())
            await store.refresh()
            assert ("inbox", "dev") not in store.redeaths
            await fleet.jetstream.purge("DLQ", everything=True)
            await store.refresh()
            assert store.redeaths == {}

    async def test_of_a_stream_that_was_made_anew_counting_begins_anew(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            store = LetterStore(fleet)
            await dead(fleet, "inbox.ceo", 3, Replays="1")
            await store.refresh()
            await fleet.js.delete_stream("DLQ")
            await fleet.provision()
            await dead(fleet, "inbox.ceo", 3, Replays="0")
            await dead(fleet, "inbox.dev", 1, Replays="1")
            await store.refresh()
            assert store.redeaths == {("inbox", "dev"): 1}

    async def test_those_that_are_not_held_any_more_are_not_counted(self, server, monkeypatch):
        monkeypatch.setattr(letters, "CAPACITY", 3)
        async with connected(server.url, agents=["ceo"]) as fleet:
            store = LetterStore(fleet)
            await dead(fleet, "inbox.ceo", 3, Replays="1")
            await store.refresh()
            assert store.redeaths == {("inbox", "ceo"): 3}
            await dead(fleet, "inbox.dev", 2)
            await store.refresh()
            assert ([letter.seq for letter in store.all()], store.total) == ([3, 4, 5], 5)
            assert store.redeaths == {("inbox", "ceo"): 1}


class TestRefresh:
    async def test_given_what_was_read_already_nothing_new_costs_nothing(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            store = LetterStore(fleet)
            await forge_many(fleet, 3)
            for info in (
                await fleet.jetstream.stream_info("DLQ"),
                next(each for each in (await fleet.jetstream.streams())[0] if each["config"]["name"] == "DLQ"),
            ):
                await store.refresh(info)
                async with requests_of(fleet, server.url) as asked:
                    assert not await store.refresh(info)
                assert asked == {}
            assert len(store.all()) == 3
            stale = await fleet.jetstream.stream_info("DLQ")
            await forge(fleet, "inbox.ceo.9-9")
            assert not await store.refresh(stale)
            assert await store.refresh()
            assert await store.refresh(stale) in (True, False), "an answer that comes late loses nothing"
            await store.refresh()
            assert [letter.seq for letter in store.all()] == [1, 2, 3, 4]
            assert store.fresh == []

    async def test_where_nothing_was_deleted_nobody_asks_what_was(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            store = LetterStore(fleet)
            await forge_many(fleet, 3)
            await store.refresh()
            await forge(fleet, "inbox.ceo.9-9")
            async with requests_of(fleet, server.url) as asked:
                assert await store.refresh()
            assert asked["STREAM.INFO.DLQ"] == 1
            await fleet.jetstream.delete("DLQ", 2)
            await fleet.jetstream.delete("DLQ", 1)
            await forge(fleet, "inbox.ceo.8-8")
            async with requests_of(fleet, server.url) as asked:
                assert await store.refresh()
            assert asked["STREAM.INFO.DLQ"] == 2
            assert [letter.seq for letter in store.all()] == [3, 4, 5]


class TestWeight:
    async def test_the_newest_that_fit_are_held(self, server, monkeypatch):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await dead(fleet, "inbox.ceo", 8, Replays="0", At="2026-01-01T00:00:00Z")
            (size,) = {letter.size for letter in await fleet.dead_letters.list()}
            monkeypatch.setattr(letters, "MOST_BYTES", 3 * size)
            store = LetterStore(fleet)
            await store.refresh()
            held = [letter.seq for letter in store.all()]
            assert held == list(range(9 - len(held), 9))
            assert 1 <= len(held) <= 3
            assert store.total == 8
            for n in range(1, 5):
                await forge(fleet, f"inbox.dev.{n}-{n}", Replays="0", At="2026-01-01T00:00:00Z")
                await store.refresh()
            assert [letter.seq for letter in store.all()] == [10, 11, 12]
            assert [letter.seq for letter in store.fresh] == [12]

    async def test_one_letter_is_held_whatever_its_size(self, server, monkeypatch):
        monkeypatch.setattr(letters, "MOST_BYTES", 10)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await forge(fleet, "inbox.ceo.1-1", body=b"x" * 4000)
            store = LetterStore(fleet)
            await store.refresh()
            assert [letter.seq for letter in store.all()] == [1]
            await forge(fleet, "inbox.ceo.2-2", body=b"x" * 4000)
            await store.refresh()
            assert [letter.seq for letter in store.all()] == [2]

    async def test_texts_that_letters_have_in_common_are_kept_once(self, server, monkeypatch):
        monkeypatch.setattr(letters, "SHARED", 50)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await dead(fleet, "inbox.ceo", 12, Error="model did not answer", Agent="dev")
            store = LetterStore(fleet)
            await store.refresh()
            whole = await fleet.dead_letters.list(limit=100)
            assert list(store.all()) == whole, "as they were"
            assert len({id(letter.error) for letter in whole}) == 12
            assert len({id(letter.error) for letter in store.all()}) < 4
            assert len(store._texts._known) < 100
