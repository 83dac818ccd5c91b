"""The problems view on real fleets: what it lists, that it stays current, and where enter leads."""

from __future__ import annotations

import pytest

from console.monitor.view import Finding
from console.screens.fleet import FleetScreen
from console.screens.letters import LettersScreen
from console.screens.messages import MessagesScreen
from console.screens.problems import MOST_ROWS, ProblemsScreen, problem_rows, way_to
from console.screens.queues import QueuesScreen
from console.settings import Settings, Thresholds
from console.widgets.header import ConsoleHeader
from console.widgets.row_table import RowTable
from patterns import Fleet
from tests.console.test_monitor_states import NOW, ago
from tests.support.fleets import connected, fast, take
from tests.support.letters import forge, forge_many, kill_tasks
from tests.support.screens import Desk, desk

SIZES = [(80, 24), (120, 40)]
SCREENS = {"1": "fleet", "2": "queues", "3": "letters", "4": "events", "6": "jobs", "7": "audit"}


def problems(console: Desk) -> RowTable:
    """The table of the problems view."""
    return console.app.screen.query_one("#problems-table", RowTable)


async def put_cursor(console: Desk, start: str) -> None:
    """Put the cursor on the finding about something."""
    rows = await console.holds(lambda: [row.key for row in problems(console).rows if row.key.startswith(start)])
    problems(console).move_cursor(rows[0])


async def strand(fleet: Fleet) -> None:
    """Give the only delivery of a message back, and take the next one."""
    for name in ("lost", "next"):
        await fleet.inbox("ceo").send("note", {}, id=name)
    await (await take(fleet, "INBOX_CEO", "ceo-processor")).nak()
    await take(fleet, "INBOX_CEO", "ceo-processor")


@pytest.mark.parametrize("size", SIZES)
async def test_it_lists_the_findings_that_the_header_counts(server, size):
    async with connected(server.url, agents=["ceo", "dev"], roles=["backend"]) as fleet:
        await fleet.inbox("ceo").send("note", {})
        await kill_tasks(fleet, 3)
        async with desk(fleet, size=size) as console:
            await console.sees("no worker", "DLQ 3")
            await console.press("z")
            text = await console.sees("critical", "inbox.ceo", "1 waiting", "warning", "dlq", "worst first", "enter: ")
            header = console.app.screen.query_one(ConsoleHeader).state
            assert header.critical
            assert "problems  " in text
            # That a read is slow, which is told as well, is the machine's matter.
            alarms = [row for row in problems(console).rows if row.cells[0].text != "info"]
            assert len(alarms) == header.findings == 2
            assert "1 waiting and nobody pulls: start the agent" in " ".join(text.split())
            assert "✖ critical" in text
            assert "▲ warning" in text


async def test_z_opens_it_on_every_screen_and_z_escape_and_q_close_it(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        for key, close in zip(SCREENS, ("z", "escape", "q", "z", "escape", "q"), strict=True):
            await console.press(key)
            below = await console.holds(
                lambda key=key: console.app.screen if console.app.screen.tab == SCREENS[key] else None
            )
            assert "z" in console.app.screen.active_bindings
            await console.press("z")
            await console.holds(lambda: isinstance(console.app.screen, ProblemsScreen))
            assert console.app.screen.tab == SCREENS[key]
            await console.press(close)
            await console.holds(lambda below=below: console.app.screen is below)


async def test_over_the_messages_of_an_inbox_too(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await console.sees("ceo")
        await console.press("i")
        below = await console.holds(lambda: isinstance(console.app.screen, MessagesScreen) and console.app.screen)
        await console.press("z")
        await console.sees("nothing is wrong")
        await console.press("z")
        await console.holds(lambda: console.app.screen is below)


async def test_that_nothing_is_wrong_is_said_with_the_time_of_the_last_look(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await console.press("z")
        await console.sees("nothing is wrong", "last look", "problems  0 findings")
        await fleet.inbox("ceo").send("note", {})
        await console.sees("1 waiting and nobody pulls", "problems  1 finding ")
        await fleet.jetstream.purge("INBOX_CEO", everything=True)
        await console.sees("nothing is wrong", "problems  0 findings")


async def test_the_cursor_stays_on_its_finding(server):
    async with connected(server.url, agents=["ceo", "aaa"], roles=["backend"]) as fleet:
        await fleet.inbox("ceo").send("note", {})
        async with desk(fleet) as console:
            await console.press("z")
            await put_cursor(console, "inbox.ceo")
            for _ in range(3):
                await fleet.inbox("aaa").send("note", {})
            await fleet.tasks("backend").submit("code", {})
            await console.sees("inbox.aaa", "tasks.backend")
            assert problems(console).cursor_key == "inbox.ceo\nno worker"
            await console.sees("enter: Fleet, ceo")


async def test_a_filter_narrows_and_escape_drops_it_first(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await fleet.inbox("ceo").send("note", {})
        await fleet.tasks("backend").submit("code", {})
        async with desk(fleet) as console:
            await console.press("z")
            await console.sees("inbox.ceo", "tasks.backend")
            await console.press("slash", *"tasks", "enter")
            await console.sees("1 of 2", "/tasks")
            await console.misses("inbox.ceo")
            await console.press("slash", *"xx", "enter")
            await console.sees("no finding matches the filter")
            await console.press("escape")
            await console.sees("inbox.ceo", "tasks.backend", "2 findings")
            await console.press("escape")
            await console.holds(lambda: isinstance(console.app.screen, FleetScreen))


async def test_a_server_that_is_gone_is_the_first_of_the_problems(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await fleet.inbox("ceo").send("note", {})
        await console.press("z")
        await console.sees("inbox.ceo")
        server.kill()
        await console.sees("what is shown is", "stale")
        rows = await console.holds(lambda: [row.key for row in problems(console).rows if row.key.startswith("read")])
        assert problems(console).rows[0].key == rows[0] == "read\nunreachable"
        assert console.app.screen.query_one(ConsoleHeader).state.critical
        server.restart()
        await console.sees("live")
        await console.misses("what is shown is")


class TestEnter:
    async def test_an_inbox_leads_to_its_row_whatever_hid_it(self, server):
        async with connected(server.url, agents=["aaa", "ceo", "dev"]) as fleet, desk(fleet) as console:
            await console.sees("ceo")
            await console.press("slash", *"dev", "enter")
            await console.misses("ceo")
            await fleet.inbox("ceo").send("note", {})
            await console.press("3", "z")
            await put_cursor(console, "inbox.ceo")
            await console.press("enter")
            await console.holds(lambda: isinstance(console.app.screen, FleetScreen))
            table = console.app.screen.query_one("#fleet-table", RowTable)
            await console.holds(lambda: table.cursor_key == "ceo" and table.has_focus)
            await console.sees("aaa", "dev")
            assert table.cursor_key == "ceo"
            assert len(console.app.screen_stack) == 1

    async def test_a_queue_leads_to_its_row(self, server):
        async with connected(server.url, roles=["aaa", "backend"]) as fleet:
            await fleet.tasks("backend").submit("code", {})
            async with desk(fleet) as console:
                await console.press("z")
                await put_cursor(console, "tasks.backend")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, QueuesScreen))
                table = console.app.screen.query_one("#queues-table", RowTable)
                await console.holds(lambda: table.cursor_key == "backend" and table.has_focus)

    async def test_a_subscription_leads_to_its_row_below_the_queues(self, server):
        settings = Settings(refresh=0.2, thresholds=Thresholds(subscription_lag=1))
        async with connected(server.url, agents=["aaa", "ceo"], roles=["backend"]) as fleet:
            for agent in ("aaa", "ceo"):
                await fleet.events.subscription(agent, "deployment.>", since="all")
            await fleet.events.broadcast("deployment.completed", {})
            async with desk(fleet, settings=settings) as console:
                await console.press("z")
                await put_cursor(console, "events.ceo-")
                key = problems(console).cursor_key.partition(".")[2].partition("\n")[0]
                await console.sees("1 event behind and nobody pulls: start the agent")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, QueuesScreen))
                table = console.app.screen.query_one("#subscriptions-table", RowTable)
                await console.holds(lambda: table.cursor_key == key and table.has_focus)

    async def test_dead_letters_lead_to_their_screen(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await forge_many(fleet, 2)
            await forge(fleet, "inbox.dev.9-9", Replays="1", Message_Id="again")
            await forge(fleet, "inbox.dev.8-8", Message_Id="once")
            async with desk(fleet) as console:
                await console.press("z")
                await put_cursor(console, "dlq")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, LettersScreen))
                await console.sees("dead letters  4 ")
                assert console.app.screen.expression == ""

    async def test_letters_that_died_again_are_those_shown(self, server):
        async with connected(server.url, agents=["ceo", "dev"]) as fleet:
            await forge_many(fleet, 2)
            await forge(fleet, "inbox.dev.9-9", Replays="1", Message_Id="again")
            await forge(fleet, "inbox.dev.8-8", Message_Id="once")
            async with desk(fleet) as console:
                await console.press("z")
                await put_cursor(console, "inbox.dev\nredeaths")
                await console.sees(
                    "1 dead letter died again after a replay", "enter: dead letters agent:dev replays:>0"
                )
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, LettersScreen))
                await console.sees("1 of 4", "agent:dev replays:>0")

    async def test_what_is_stranded_leads_to_the_messages(self, server):
        config = fast(inbox={"max_deliver": 1})
        async with connected(server.url, agents=["ceo"], config=config) as fleet:
            await strand(fleet)
            async with desk(fleet) as console:
                await console.press("z")
                await put_cursor(console, "inbox.ceo\nstranded")
                await console.sees("enter: the messages of inbox.ceo", "rescue them")
                await console.press("enter")
                await console.holds(lambda: isinstance(console.app.screen, MessagesScreen))
                await console.sees("lost", "stranded")
                await console.press("escape")
                await console.holds(lambda: isinstance(console.app.screen, FleetScreen))


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding("warning", "dlq", "", place=("dlq", "")), "dead letters"),
        (Finding("warning", "tasks.x", "", place=("dlq", "tasks.x"), trouble="dead letters"), "dead letters role:x"),
        (
            Finding("warning", "inbox.x", "", place=("dlq", "inbox.x"), trouble="redeaths"),
            "dead letters agent:x replays:>0",
        ),
        (Finding("warning", "events.x-y", "", place=("events", "x-y")), "Queues, subscription x-y"),
        (Finding("warning", "tasks.x", "", place=("tasks", "x"), trouble="stranded"), "the messages of tasks.x"),
    ],
)
def test_where_findings_lead(finding, text):
    assert way_to(finding).text == text


def test_what_is_nowhere_to_be_seen_leads_nowhere():
    assert way_to(Finding("warning", "read", "x")) is None


def test_rows_tell_severity_by_glyph_and_word_and_the_time_it_lasts():
    found = [
        Finding("critical", "inbox.a", "bad", since=ago(65), trouble="x"),
        Finding("warning", "dlq", "\x1b[31mred", trouble="y"),
        Finding("info", "read", "slow", since=NOW),
    ]
    rows = problem_rows(found, NOW)
    assert [(row.glyph, *(cell.text for cell in row.cells)) for row in rows] == [
        ("✖", "critical", "inbox.a", "bad", "1m5s"),
        ("▲", "warning", "dlq", "␛[31mred", "–"),
        ("○", "info", "read", "slow", "<1s"),
    ]
    assert len({row.key for row in rows}) == 3


async def test_where_everything_is_wrong_the_worst_are_shown(server):
    async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
        await console.press("z")
        await console.sees("nothing is wrong")
        screen = console.app.screen
        many = tuple(Finding("critical", f"inbox.a{n}", "bad", trouble="x") for n in range(MOST_ROWS + 5))
        screen.findings = lambda: many
        screen.repaint()
        await console.sees(f"{MOST_ROWS:,} of {len(many):,} findings")
        assert len(problems(console).rows) == MOST_ROWS
