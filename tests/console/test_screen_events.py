"""Screen 4 under the fingers: the live events, on a real fleet."""

from __future__ import annotations

from datetime import timedelta

import pytest

from console.monitor.feed import Told
from console.screens.events import EventsScreen, window_of
from console.screens.inspect import InspectPane
from console.widgets.row_table import RowTable
from patterns.server import LocalServer
from tests.support.fleets import connected, take
from tests.support.letters import kill_tasks
from tests.support.screens import desk
from tests.support.waiting import until


async def opened(console, *wanted):
    """Go to the screen and wait for the feed to hold what was stored."""
    await console.press("4")
    await console.sees("events  since 10m", *wanted)


async def only(console, expression):
    """Filter, so that the one line of a test has the cursor."""
    await console.press("slash", *expression, "enter")
    await console.holds(lambda: console.app.screen.expression == expression)
    await console.holds(lambda: not console.app.screen.feed.sifting)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_marks_wrap_times_and_copy(server: LocalServer, size):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(5):
            await fleet.events.broadcast("deployment.started", {"n": number, "text": "word " * 40}, source="ops")
        async with desk(fleet, size=size) as console:
            await opened(console, '{"n":4')
            await console.press("k", "k", "space", "space")
            text = await console.sees("2 marked", "paused", "enter: the event")
            assert text.count("■") == 2
            await console.press("c")
            await console.sees("2 lines copied")
            copied = console.app.clipboard.split("\n")
            words = [each.partition("  ")[2][:39] for each in copied]
            assert words == [
                'deployment.started  ops  {"n":2,"text":',
                'deployment.started  ops  {"n":3,"text":',
            ]
            rows = console.text().count("word")
            await console.press("w")
            await console.holds(lambda: console.text().count("word") > rows)
            await console.press("i")
            await console.sees(copied[0][:19])
            await console.press("i", "i", "w", "ctrl+backslash")
            await console.misses("■", "marked")
            await console.press("ctrl+l")
            await console.sees("no events in the last ten minutes", "following")
            await fleet.events.broadcast("deployment.started", {"n": 5}, source="ops")
            await console.sees('{"n":5}')
            assert '{"n":4' not in console.text()


async def test_a_window_is_chosen_and_shown(server: LocalServer):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(3):
            await fleet.events.broadcast("x", f"event-{number}")
        async with desk(fleet, size=(80, 24)) as console:
            await opened(console, "event-2")
            await console.press("colon", *"since")
            await console.press("enter")
            await console.sees("events  live", "no events since then")
            await fleet.events.broadcast("x", "event-now")
            text = await console.sees("event-now")
            assert "event-2" not in text
            await console.press("colon", *"since 1h", "enter")
            await console.sees("events  since 1h", "event-0", "event-1", "event-2", "event-now")
            assert console.text().count("event-now") == 1
            wrongs = {
                "since yesterday": "no duration",
                "until 5m": "no such command",
                f"since {'9' * 20}d": "no duration",
            }
            for wrong, said in wrongs.items():
                await console.press("colon", *wrong, "enter")
                await console.sees(said, wrong[:10])
                await console.press("escape")
                await console.misses(said)
            assert console.app.focused is console.app.screen.feed
            # Both screens begin anew.
            await console.press("1")
            await console.sees("event-0")


@pytest.mark.parametrize(
    ("command", "window"),
    [
        ("since 10m", timedelta(minutes=10)),
        ("since  1h30m ", timedelta(minutes=90)),
        ("since", None),
        ("since 0", None),
        ("since 0s", None),
    ],
)
def test_commands(command, window):
    assert window_of(command) == window


@pytest.mark.parametrize(
    "command", ["since 10", "since -5m", "since 1h 2m", "sinces 1h", "10m", "since 99999999999999d"]
)
def test_commands_that_are_none(command):
    with pytest.raises(ValueError, match=r"\S"):
        window_of(command)


async def test_a_filter_is_the_one_language_and_says_how_many(server: LocalServer):
    async with connected(server.url, agents=["ceo"]) as fleet:
        for number in range(6):
            await fleet.events.broadcast("a.even" if number % 2 == 0 else "a.odd", {"n": number}, source="ops")
        async with desk(fleet) as console:
            await opened(console, '{"n":5}')
            await only(console, "type:a.odd body.n:>1")
            text = await console.sees("/type:a.odd body.n:>1", "[2 of ")
            assert '{"n":3}' in text
            assert '{"n":1}' not in text
            await fleet.events.broadcast("a.odd", {"n": 7})
            await fleet.events.broadcast("a.even", {"n": 8})
            await console.sees('{"n":7}', "[3 of ")
            await console.press("escape")
            await console.sees('{"n":8}', '{"n":0}')


async def test_an_event_a_letter_and_an_action_are_opened(server: LocalServer):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet, desk(fleet) as console:
        await kill_tasks(fleet, 1)
        await fleet.events.broadcast("deployment.started", {"n": 1}, id="event-1", source="ops")
        await console.press("4")
        await console.sees("task.failed", "deployment.started")
        await only(console, "type:task.failed")
        await console.sees("[1 of")
        await console.press("enter")
        await console.sees("dead letter 1", "no model")
        await console.press("escape", "escape")
        await only(console, "type:deployment.started")
        await console.press("enter")
        await console.sees("event deployment.started", "event-1")
        await console.press("escape", "escape")
        console.runtime.feed.add_action("ab12", "replay", done=1, planned=1, operator="ann")
        await only(console, "type:console.replay")
        await console.sees("job ab12  replay: 1 of 1 done by ann")
        await console.press("enter")
        await console.holds(lambda: console.app.screen.tab == "jobs")


async def test_what_another_operator_did_is_opened_as_the_event_it_is(server: LocalServer):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        told = {"job": "ff99", "action": "purge", "operator": "bob@there", "planned": 2, "done": 2}
        await fleet.events.broadcast("console.purge", told, source="console")
        await console.press("4")
        await console.sees("job ff99  purge: 2 of 2 done by bob@there")
        await only(console, "type:console.purge")
        await console.press("enter")
        await console.sees("event console.purge", '"operator"')


async def test_an_advisory_opens_the_message_it_names_or_goes_to_the_row(server: LocalServer):
    async with connected(server.url, agents=["ceo", "dev"], roles=["backend"]) as fleet, desk(fleet) as console:
        await console.press("4")
        prefix = "$JS.EVENT.ADVISORY.CONSUMER"
        await fleet.inbox("dev").send("note.poison", {"n": 1}, id="poison")

        async def heard(kind, stream, durable, body, text):
            async def shown():
                await fleet.nc.publish(f"{prefix}.{kind}.{stream}.{durable}", body)
                await console.pilot.pause()
                return text in console.text()

            await until(shown)

        await heard("MAX_DELIVERIES", "INBOX_DEV", "dev-processor", b'{"stream_seq":1,"deliveries":3}',
                    "inbox.dev: message 1 used up its 3 deliveries")  # fmt: skip
        await only(console, 'type:"max deliveries"')
        await console.press("s")
        await console.sees("enter: its message")
        await console.press("enter")
        await console.sees("note.poison", "poison", "inbox.dev: message 1 used up its 3 deliveries")
        await console.press("escape")
        await fleet.jetstream.delete("INBOX_DEV", 1)
        await console.press("enter")
        await console.holds(lambda: console.app.screen.tab == "fleet")
        await console.holds(lambda: console.app.screen.query_one("#fleet-table", RowTable).cursor_key == "dev")
        await console.press("4", "escape", "G")
        await heard("PAUSE", "TASKS_BACKEND", "backend-workers", b'{"paused":true}',
                    "tasks.backend: deliveries of backend-workers are paused")  # fmt: skip
        await only(console, 'type:"consumer paused"')
        await console.press("s")
        await console.sees("enter: its row")
        await console.press("enter")
        await console.holds(lambda: console.app.screen.tab == "queues")
        await console.holds(lambda: console.app.focused.id == "queues-table")


async def test_the_jobs_of_this_console_are_told_once(server: LocalServer):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await kill_tasks(fleet, 1)
        async with desk(fleet) as console:
            await console.press("3")
            await console.sees("Reject: no model")
            await console.press("R")
            await console.sees("enter or y confirms")
            await console.press("y")
            await console.holds(lambda: console.runtime.jobs and not console.runtime.jobs[0].running)

            async def announced():
                page = await fleet.jetstream.read("EVENTS", subject="events.console.>")
                return page.messages

            await until(announced)
            await fleet.events.broadcast("then", {})
            await console.press("4")
            await console.sees("then", "1 of 1 done")
            actions = [item for item in console.runtime.feed.items if item.topic == "console.replay"]
            assert [isinstance(item, Told) for item in actions] == [True]


async def test_it_says_what_it_may_not_hear(monkeypatch):
    monkeypatch.setattr("console.monitor.advisories.LOOK", 0.05)
    config = """
        authorization { users: [
            { user: admin, password: a }
            { user: looker, password: b, permissions: { subscribe: { deny: ["$JS.EVENT.>"] } } } ] }
    """
    with LocalServer(config=config) as server:
        admin, looker = (server.url.replace("//", f"//{login}@") for login in ("admin:a", "looker:b"))
        async with connected(admin, agents=["ceo"]) as fleet, connected(looker) as restricted:
            await fleet.events.broadcast("x", "heard")
            async with desk(restricted, size=(80, 24)) as console:
                await opened(console, '"heard"', "no right to advisories")


async def test_hostile_events_are_inert_wherever_they_go(server: LocalServer):
    evil = "\x1b]52;c;aGk=\x07[@click=app.quit][/x]\u202e\x9b"
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.events.broadcast("x", {"a": evil}, id="evil")
        async with desk(fleet) as console:
            await opened(console, "[@click=app.quit]")
            await console.press("w", "c")
            await console.sees("1 line copied")
            bad = {"\x1b", "\x07", "\u202e", "\x9b"}
            assert not bad & set(console.app.clipboard)
            assert "[@click=app.quit]" in console.app.clipboard
            await console.press("enter")
            await console.holds(lambda: isinstance(console.app.screen, InspectPane))
            await console.sees("evil")
            assert not bad & set(console.text())
            await console.press("escape")
            assert isinstance(console.app.screen, EventsScreen)


async def test_taking_a_message_shows_nothing(server: LocalServer):
    """What agents do all day makes no line."""
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await console.press("4")
        before = len(console.runtime.feed.items)
        await fleet.inbox("ceo").send("note")
        msg = await take(fleet, "INBOX_CEO", "ceo-processor")
        await msg.ack()
        await fleet.events.broadcast("end", {})
        await console.sees("end")
        assert len(console.runtime.feed.items) == before + 1
