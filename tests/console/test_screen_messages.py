"""The screen of messages on a real fleet: what it shows, what keys do, what an action would hit, and what it never touches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import console.messages
import console.screens.messages
from console.messages import Shown
from console.screens.inspect import InspectPane
from console.screens.messages import MessagesScreen
from console.settings import Settings
from patterns import Fleet
from tests.support.fleets import connected, publish, take
from tests.support.screens import Desk, desk
from tests.support.waiting import until

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.screens.messages, "REFRESH", 0.2)


@asynccontextmanager
async def opened(
    fleet: Fleet, kind: Shown, name: str = "", *, write: bool = True, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[Desk, MessagesScreen]]:
    """The screen, pushed over the fleet."""
    async with desk(fleet, write=write, size=size, settings=Settings(refresh=0.2)) as console:
        screen = MessagesScreen(console.runtime, kind, name)
        await console.app.push_screen(screen)
        await console.holds(lambda: screen._look is not None or screen._problem)
        yield console, screen


async def counters(fleet: Fleet, stream: str) -> object:
    keys = ("name", "delivered", "ack_floor", "num_pending", "num_ack_pending", "num_redelivered", "num_waiting")
    return [{key: each.get(key) for key in keys} for each in await fleet.jetstream.consumers(stream)]


async def notes(fleet: Fleet, count: int = 3) -> None:
    for number in range(count):
        await fleet.inbox("ceo").send("alert.cve", {"n": number}, id=f"cve-{number}", source="security")


class TestShowing:
    async def test_an_inbox_with_states_and_nothing_is_touched(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet)
            await take(fleet, "INBOX_CEO", "ceo-processor")
            before = await counters(fleet, "INBOX_CEO")
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                text = await console.sees("inbox.ceo  [3]", "alert.cve", "cve-2", "security", '{"n":1}')
                lines = text.splitlines()
                assert "● " in (row := next(line for line in lines if "cve-0" in line))
                assert "in flight" in row
                assert "pending" in next(line for line in lines if "cve-1" in line)
                assert screen.tab == "fleet"
                await console.press("down", "enter")
                await console.sees("inbox.ceo  seq 2", '"n": 1', "ce-source: agents/security", "pending", "subject")
                await console.press("escape")
                await console.press("slash", *"cve-1", "enter", "ctrl+a", "ctrl+r")
                await console.sees("[1 of 3]", "1 marked")
            assert await counters(fleet, "INBOX_CEO") == before

    async def test_a_queue_of_a_stream_without_direct_get(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            info = await fleet.jetstream.stream_info("TASKS_BACKEND")
            await fleet.jetstream.api("STREAM.UPDATE.TASKS_BACKEND", {**info["config"], "allow_direct": False})
            await fleet.tasks("backend").submit("code.review", {"pr": 7}, id="rev-7")
            async with opened(fleet, "queue", "backend") as (console, screen):
                await console.sees("tasks.backend  [1]", "code.review", "rev-7", "pending")
                assert screen.tab == "queues"

    async def test_events_newest_first_without_states(self, server):
        async with connected(server.url) as fleet:
            for number in range(3):
                await fleet.events.broadcast("deployment.completed", {"n": number}, source="backend-1")
            async with opened(fleet, "events") as (console, screen):
                text = await console.sees("events  [3]", "deployment.completed", "backend-1")
                assert [row.key for row in screen.table.rows] == ["3", "2", "1"]
                assert "STATE" not in text
                assert "pending" not in text
                await console.press("enter")
                await console.sees("events  seq 3", '"n": 2')

    async def test_an_empty_inbox_and_one_that_does_not_exist(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            async with opened(fleet, "inbox", "ceo") as (console, _):
                await console.sees("inbox.ceo is empty")
            async with opened(fleet, "inbox", "nobody") as (console, screen):
                await console.sees("no inbox for agent 'nobody'; there is ceo")
                assert screen.targets() == ([], "", 0)

    async def test_says_how_far_it_looked(self, server, monkeypatch):
        async def few(fleet, place, *, known=None):
            return await console.messages.look(fleet, place, known=known, most=4)

        monkeypatch.setattr(console.screens.messages, "look", few)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet, 6)
            async with opened(fleet, "inbox", "ceo") as (desk, screen):
                await desk.sees("inbox.ceo  [4 of 6]", "first 4 of 6; filter looks at these")
                await desk.press("slash", *"cve-5")
                await desk.sees("no message matches the filter among the first 4 of 6")
                await desk.press("escape", "ctrl+a")
                assert screen.targets()[1] == "all 4 of inbox.ceo among the first 4 of 6"

    async def test_hostile_content_is_inert_in_the_table_and_in_full(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            headers = {"ce-type": "%1B[31m[/x]", "ce-source": "\u202egnp", "X-Evil": "[@click=app.leave]y[/y]"}
            await publish(fleet, "agents.ceo.inbox.note", HOSTILE.encode(), headers=headers)
            await publish(fleet, "agents.ceo.inbox.note", b'{"broken"')
            async with opened(fleet, "inbox", "ceo") as (console, _):
                shown = await console.sees("[/x]", "␛")
                await console.press("enter")
                shown += await console.sees("X-Evil: [@click=app.leave]y[/y]", "body is not JSON")
                assert not set(shown) & {"\x1b", "\x07", "\u202e", "\u200b"}

    async def test_a_small_terminal_keeps_what_matters(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet)
            async with opened(fleet, "inbox", "ceo", size=(80, 24)) as (console, screen):
                await console.sees("SEQ", "STATE", "TYPE", "AGE", "alert.cve")
                assert {"seq", "state", "type", "age", "preview"} <= set(screen.table.visible_columns)


class TestRefreshing:
    async def test_follows_the_stream_and_the_consumer(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet, 1)
            async with opened(fleet, "inbox", "ceo") as (console, _):
                await console.sees("[1]", "pending")
                await notes(fleet, 2)
                await console.sees("[2]", "cve-1")
                msg = await take(fleet, "INBOX_CEO", "ceo-processor")
                await console.sees("in flight")
                await msg.ack_sync()
                await console.sees("[1]")
                await console.misses("cve-0")

    async def test_reads_again_only_what_changed(self, server, monkeypatch):
        looks = []

        async def counted(fleet, place, *, known=None):
            looks.append(place)
            return await console.messages.look(fleet, place, known=known)

        glances = []

        async def glanced(fleet, place):
            glances.append(place)
            return await console.messages.glance(fleet, place)

        monkeypatch.setattr(console.screens.messages, "look", counted)
        monkeypatch.setattr(console.screens.messages, "glance", glanced)
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet, 1)
            async with opened(fleet, "inbox", "ceo") as (desk, _):
                await desk.holds(lambda: len(glances) >= 3)
                assert len(looks) == 1
                await desk.press("ctrl+r")
                await desk.holds(lambda: len(looks) == 2)

    async def test_marks_hold_the_picture_and_ctrl_r_renews_it(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet, 2)
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                await console.sees("[2]")
                await console.press("space", "space")
                await console.sees("2 marked, refresh waits")
                await fleet.jetstream.delete("INBOX_CEO", 1)
                due = screen._due
                await console.holds(lambda: time.monotonic() > due + 0.3)
                assert len(screen.table.rows) == 2
                await console.press("ctrl+r")
                await console.sees("[1]", "1 marked")

    async def test_survives_a_server_that_is_away(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet, 2)
            async with opened(fleet, "inbox", "ceo") as (console, _):
                await console.sees("[2]")
                server.kill()
                await console.sees("not refreshed: not connected", "cve-1")
                server.restart()
                await console.misses("not refreshed")
                await notes(fleet, 3)
                await console.sees("[3]")

    async def test_a_stream_that_was_deleted(self, server):
        async with connected(server.url, agents=["ceo", "security"]) as fleet:
            await notes(fleet, 2)
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                await console.sees("[2]")
                await fleet.js.delete_stream("INBOX_CEO")
                await console.sees("no inbox for agent 'ceo'; there is security")
                assert screen.targets() == ([], "", 0)


class TestActing:
    async def test_targets_are_the_marks_else_the_cursor(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet)
            stored = {seq: (await fleet.jetstream.get("INBOX_CEO", seq)).stored_ns for seq in (1, 2, 3)}
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                await console.sees("[3]")
                assert screen.targets() == ([(1, stored[1])], "seq:1", 0)
                await console.press("down", "space", "space")
                assert screen.targets() == ([(2, stored[2]), (3, stored[3])], "2 marked", 0)
                await console.press("slash", *"cve-1", "enter")
                await console.sees("[1 of 3]")
                assert screen.targets() == ([(2, stored[2]), (3, stored[3])], "2 marked", 1)
                await console.press("escape", "ctrl+backslash")
                await console.press("slash", *"seq:2..9", "enter", "ctrl+a")
                await console.sees("2 marked")
                found, text, hidden = screen.targets()
                assert ([seq for seq, _ in found], hidden) == ([2, 3], 0)
                assert text == "all 2 that match seq:2..9"

    async def test_keys_that_change_something_exist_only_where_that_is_allowed(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet)
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                called = []
                screen.discard_targets = lambda: called.append("discard")
                screen.purge_matching = lambda: called.append("purge")
                await console.sees("discard…", "purge matching…")
                await console.press("D", "X")
                assert called == ["discard", "purge"]
            async with opened(fleet, "inbox", "ceo", write=False) as (console, screen):
                screen.discard_targets = lambda: called.append("discard")
                await console.misses("discard…", "purge matching…")
                await console.press("D", "X")
                assert called == ["discard", "purge"]


class TestLeaving:
    @pytest.mark.parametrize("key", ["escape", "q"])
    async def test_back_to_the_screen_below(self, server, key):
        async with connected(server.url, agents=["ceo"]) as fleet, opened(fleet, "inbox", "ceo") as (console, screen):
            await console.press(key)
            await console.holds(lambda: console.app.screen is not screen)
            await console.sees("fleet")
            assert console.app.is_running

    async def test_escape_drops_the_filter_first_and_closes_a_message_first(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await notes(fleet)
            async with opened(fleet, "inbox", "ceo") as (console, screen):
                await console.sees("[3]")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, InspectPane))
                await console.press("escape")
                await console.holds(lambda: console.app.screen is screen)
                await console.press("slash", *"cve-1", "enter")
                await console.sees("[1 of 3]")
                await console.press("escape")
                await console.sees("[3]")
                await console.press("slash", *"nosuch:1")
                await console.sees("unknown field")
                await console.press("enter", "escape")
                assert console.app.screen is screen
                await console.press("escape")
                await console.holds(lambda: console.app.screen is not screen)


async def test_of_many_messages_the_first_five_thousand_are_held(server):
    async with connected(server.url, roles=["backend"]) as fleet:
        for _ in range(50):
            for number in range(110):
                await fleet.nc.publish("tasks.backend.code.feature", b'{"n":%d,"spec":"rate limiting"}' % number)
            await fleet.nc.flush()

        async def stored() -> bool:
            return (await fleet.jetstream.stream_info("TASKS_BACKEND"))["state"]["messages"] == 5_500

        await until(stored)
        async with opened(fleet, "queue", "backend") as (console, screen):
            await console.sees("[5,000 of 5,500]", "first 5,000 of 5,500")
            assert len(screen.table.rows) == 5_000
