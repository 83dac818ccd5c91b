"""The four screens on a real fleet: what they show, what keys do, and what a read-only session cannot do."""

from __future__ import annotations

import pytest

from console.screens.inspect import InspectPane
from console.screens.plan_dialog import PlanDialog
from console.settings import ReplayPolicy, Settings, TargetSettings
from console.widgets.row_table import RowTable
from patterns import Fleet
from patterns.server import LocalServer
from tests.support.fleets import connected, fast, publish, running
from tests.support.letters import forge_many
from tests.support.screens import desk
from tests.support.waiting import until

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b"


async def dead(fleet: Fleet, role: str, id: str, *, error: str = "model did not answer", data: object = None) -> None:
    """Make a dead letter of a task: a real worker fails on it until its attempts are used up."""

    async def fail(task):
        raise TimeoutError(error)

    before = sum((await fleet.dead_letters.count()).values())
    await fleet.tasks(role).submit("code.feature", data or {"spec": "rate limiting", "id": id}, id=id, source="ceo")

    async def buried() -> bool:
        return sum((await fleet.dead_letters.count()).values()) > before

    async with running(fleet.tasks(role).worker("backend-1"), fail):
        await until(buried)


class TestFleet:
    async def test_shows_every_agent_with_its_counters(self, server):
        async with connected(server.url, agents=["ceo", "security"]) as fleet:
            for number in range(3):
                await fleet.inbox("security").send("alert.cve", {"n": number})
            async with desk(fleet) as console:
                text = await console.sees("no worker", "security", "ceo", "offline", "2 agents")
                row = next(line for line in text.splitlines() if "security" in line)
                assert "✖" in row
                assert " 3 " in row

    async def test_numbers_follow_the_fleet(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.sees("offline")
            await fleet.inbox("ceo").send("note", {})
            await console.sees("no worker")
            async with await fleet.inbox("ceo").next(5):
                await console.sees("busy")
            await console.misses("busy")

    async def test_an_empty_account_says_what_to_do(self, server):
        async with Fleet.connect(server.url) as fleet, desk(fleet) as console:
            await console.sees("no agent has an inbox here", "agent-console demo")

    async def test_enter_opens_the_agent_without_touching_its_inbox(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await fleet.inbox("ceo").send("alert.cve", {"severity": "high"}, id="cve-1")
            before = await fleet.jetstream.consumers("INBOX_CEO")
            async with desk(fleet) as console:
                await console.sees("ceo")
                await console.press("enter")
                await console.sees("alert.cve", "cve-1", '{"severity":"high"}', "read without a consumer")
                await console.press("escape")
                await console.holds(lambda: not isinstance(console.app.screen, InspectPane))
            after = await fleet.jetstream.consumers("INBOX_CEO")
            assert [(c["name"], c["delivered"], c["num_pending"]) for c in after] == [
                (c["name"], c["delivered"], c["num_pending"]) for c in before
            ]

    async def test_events_arrive_below(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.sees("no events")
            await fleet.events.broadcast("deployment.completed", {"service": "api-gateway"}, source="backend-1")
            await console.sees("deployment.completed", "backend-1", '{"service":"api-gateway"}')

    async def test_server_gone_and_back(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.sees("live", "ceo")
            server.kill()
            await console.sees("stale", "what is shown is")
            server.restart()
            await console.sees("live")
            await console.misses("what is shown is")
            assert console.app.is_running


class TestQueues:
    async def test_shows_backlog_workers_and_subscriptions(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            for number in range(4):
                await fleet.tasks("backend").submit("code.feature", {"n": number})
            await fleet.events.subscription("security", "deployment.>", "security.*")
            async with desk(fleet) as console:
                await console.press("2")
                text = await console.sees("backend", "no worker", "BACKLOG", "WORKERS", "deployment.>  security.*")
                row = next(line for line in text.splitlines() if "backend" in line and "no worker" in line)
                assert " 4 " in row

    async def test_enter_opens_the_queue(self, server):
        async with connected(server.url, roles=["backend"]) as fleet:
            await fleet.tasks("backend").submit("code.review", {"pr": 7}, id="rev-7")
            async with desk(fleet) as console:
                await console.press("2")
                await console.sees("backend")
                await console.press("enter")
                await console.sees("queue backend", "code.review", "rev-7")


class TestLetters:
    async def test_shows_reason_error_headers_and_pretty_json(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-12")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees(
                    "tasks.backend", "TimeoutError: model did not answer", "feat-12", "max-deliver",
                    '"spec": "rate limiting"', "Dead-Letter-Agent", "tries 3", "replays 0",
                )  # fmt: skip

    async def test_replay_by_keys_brings_it_back_and_the_fleet_shows_it(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-12")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-12")
                await console.press("R")
                await console.sees("replay 1 dead letter", "tasks.backend.code.feature", "enter or y confirms")
                assert (await fleet.tasks("backend").depth()).messages == 0, "nothing is sent before it is confirmed"
                await console.press("enter")
                await console.sees("1 replayed", "no dead letters")
                assert (await fleet.tasks("backend").depth()).messages == 1
                await console.press("2")
                text = await console.sees("backend")
                await console.sees("no worker")
                assert "backend" in text
            delivery = await fleet.tasks("backend").next("backend-2", 5)
            assert delivery is not None
            assert delivery.id == "feat-12"
            assert delivery.message.replay_of is not None
            await delivery.ack()

    async def test_a_group_asks_for_y_and_focuses_cancel(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            for number in range(3):
                await dead(fleet, "backend", f"feat-{number}")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-2", "dead letters  3")
                await console.press("R")
                await console.sees("replay 3 dead letters", "y confirms")
                await console.press("enter")
                await console.holds(lambda: not isinstance(console.app.screen, PlanDialog))
                assert (await fleet.tasks("backend").depth()).messages == 0, "enter is on Cancel"
                await console.press("R")
                await console.sees("replay 3 dead letters")
                await console.press("y")
                await console.sees("3 replayed")
                assert (await fleet.tasks("backend").depth()).messages == 3

    async def test_marks_survive_filter_and_the_plan_says_what_is_hidden(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            for number in range(3):
                await dead(fleet, "backend", f"feat-{number}")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-2")
                await console.press("down", "space", "space")
                await console.sees("2 marked")
                await console.press("slash", *"feat-0")
                await console.sees("1 of 3")
                await console.press("enter", "R")
                await console.sees("replay 2 dead letters", "2 of them are marked but not visible")
                await console.press("escape")

    async def test_new_deaths_do_not_join_a_plan_that_is_open(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            await dead(fleet, "backend", "feat-2")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-2")
                await console.press("R")
                await console.sees("replay 2 dead letters")
                await dead(fleet, "backend", "feat-3")
                await console.press("y")
                await console.sees("2 replayed")
                (left,) = await fleet.dead_letters.list()
                assert left.id == "feat-3"

    async def test_a_letter_that_went_meanwhile_is_said_to_be_gone(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            await dead(fleet, "backend", "feat-2")
            first, _ = await fleet.dead_letters.list()
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-2")
                await console.press("R")
                await console.sees("replay 2 dead letters")
                await fleet.dead_letters.replay(first.seq, by="a colleague")
                await console.press("y")
                await console.sees("1 replayed, 1 gone meanwhile")
                assert (await fleet.tasks("backend").depth()).messages == 2, "each once"

    async def test_count_must_be_typed_for_an_agent_whose_policy_is_to_confirm(self, server):
        settings = Settings(refresh=0.2, roles={"backend": TargetSettings(policy=ReplayPolicy.CONFIRM)})
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            async with desk(fleet, settings=settings) as console:
                await console.press("3")
                await console.sees("feat-1")
                await console.press("R")
                await console.sees("type 1 to confirm", "policy is to confirm")
                await console.press("enter")
                assert isinstance(console.app.screen, PlanDialog), "an empty count confirms nothing"
                await console.press("1", "enter")
                await console.sees("1 replayed")

    async def test_read_only_has_no_key_that_changes_anything(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            async with desk(fleet, write=False) as console:
                await console.press("3")
                await console.sees("feat-1", "[RO]")
                for key in "123":
                    await console.press(key, "R")
                    await console.pilot.pause()
                    assert not isinstance(console.app.screen, PlanDialog)
                    assert "replay" not in console.text().splitlines()[-1]
                await console.press("question_mark")
                text = await console.sees("read-only", "--write")
                assert "replay…" not in text
                assert len(await fleet.dead_letters.list()) == 1

    async def test_fold_and_open(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("▾ tasks.backend")
                await console.press("left")
                await console.sees("▸ tasks.backend")
                await console.press("right")
                await console.sees("▾ tasks.backend")
                await console.press("enter")
                await console.sees("▸ tasks.backend")
                assert "tries 3  replays" not in console.text()
                await console.press("enter", "down", "enter")
                await console.sees("dead letter 1", "esc closes")

    async def test_cursor_stays_on_its_letter_when_others_arrive_and_go(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend", "frontend"]) as fleet:
            for number in range(3):
                await dead(fleet, "backend", f"feat-{number}")
            async with desk(fleet) as console:
                await console.press("3")
                await console.sees("feat-1")
                table = console.app.screen.query_one(RowTable)
                await console.press("down", "down")
                key = table.cursor_key
                await dead(fleet, "frontend", "ui-1", error="another cause")
                await dead(fleet, "backend", "feat-9")
                await console.sees("feat-9", "ui-1")
                assert table.cursor_key == key
                newest = next(letter for letter in await fleet.dead_letters.list() if letter.id == "feat-9")
                await fleet.dead_letters.discard(newest.seq, by="test")
                await console.misses("feat-9")
                assert table.cursor_key == key

    async def test_hostile_text_is_inert_everywhere(self, server):
        async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1", error=HOSTILE, data={"spec": HOSTILE, "[/x]": HOSTILE})
            await publish(fleet, "events.note", b'{"x":"\x1b[31m[@click=app.leave]a[/b]"}', {"ce-source": HOSTILE})
            await fleet.events.broadcast("security.alert", {"text": HOSTILE}, source="ceo")
            async with desk(fleet) as console:
                for key in "1243":
                    await console.press(key)
                    text = await console.sees("Fleet")
                    assert not set(text) & set("\x1b\x07\u202e\u200b\x9b")
                await console.sees("feat-1")
                await console.press("R")
                text = await console.sees("replay 1 dead letter")
                assert not set(text) & set("\x1b\x07\u202e\u200b\x9b")
                await console.press("escape", "down", "enter")
                await console.sees("dead letter 1")
                assert console.app.is_running


class TestEvents:
    async def test_follows_filters_and_opens(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await fleet.events.broadcast(
                "deployment.completed", {"service": "api", "version": "1.42"}, source="backend-1"
            )
            async with desk(fleet) as console:
                await console.press("4")
                await console.sees("deployment.completed", "following")
                await fleet.events.broadcast("security.alert", {"cve": "CVE-2026-1234"}, source="security")
                await console.sees("security.alert", "CVE-2026-1234")
                await console.press("slash", *"type:security.*")
                await console.misses("deployment.completed")
                await console.press("enter", "enter")
                await console.sees("event security.alert", '"cve": "CVE-2026-1234"', "ce-source: agents/security")

    async def test_a_filter_that_cannot_be_read_says_so_and_goes_with_escape(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await fleet.events.broadcast("deployment.completed", {})
            async with desk(fleet) as console:
                await console.press("4")
                await console.sees("deployment.completed")
                await console.press("slash", *"colour:red")
                await console.sees("unknown field 'colour'")
                await console.press("escape")
                await console.sees("deployment.completed")
                assert "unknown field" not in console.text()


class TestFurniture:
    @pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 15)])
    async def test_every_screen_fits(self, server, size):
        async with connected(server.url, agents=["ceo", "backend-1"], roles=["backend"]) as fleet:
            await dead(fleet, "backend", "feat-1")
            async with desk(fleet, size=size) as console:
                for key, wanted in (("1", "ceo"), ("2", "backend"), ("3", "feat-1"), ("4", "events")):
                    await console.press(key)
                    text = await console.sees(wanted, "agent-console")
                    assert all(len(line) <= size[0] for line in text.splitlines())

    async def test_help_lists_the_keys_of_the_screen_it_was_opened_on(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.press("3", "question_mark")
            await console.sees("replay…", "discard…", "purge…", "undo", "this screen")
            await console.press("end")
            await console.sees("everywhere", "quit")
            await console.press("escape", "4", "question_mark")
            text = await console.sees("follow")
            assert "replay…" not in text

    async def test_themes_switch_and_keys_from_the_settings_hold(self, server):
        settings = Settings(refresh=0.2, keys={"app.letters": "f3"})
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, settings=settings) as console:
            await console.press("ctrl+t")
            assert console.app.theme == "agent-light"
            await console.press("f3")
            await console.sees("no dead letters")

    async def test_no_screen_binds_one_key_twice(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            for key in "1234":
                await console.press(key)
                await console.pilot.pause()
                screen = console.app.screen
                chain = [screen.focused, screen] if screen.focused else [screen]
                bound: dict[str, str] = {}
                for node in chain:
                    for pressed, bindings in node._bindings.key_to_bindings.items():
                        for binding in bindings:
                            if binding.id:
                                assert bound.setdefault(pressed, binding.action) == binding.action, pressed

    async def test_q_quits_with_status_0(self, server):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet) as console:
            await console.press("q")
            await console.holds(lambda: console.app.return_value is not None)
            assert console.app.return_value == 0


async def test_a_running_job_keeps_the_console_open(server):
    config = fast(dead_letters=fast().dead_letters)
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=config) as fleet:
        for number in range(4):
            await dead(fleet, "backend", f"feat-{number}")
        async with desk(fleet, settings=Settings(refresh=0.2, replay_rate=1.0)) as console:
            await console.press("3")
            await console.sees("feat-3")
            await console.press("R")
            await console.sees("replay 4 dead letters")
            await console.press("y")
            await console.sees("replay 1/4")
            await console.press("q")
            await console.sees("a job is running")
            assert console.app.return_value is None
        left = len(await fleet.dead_letters.list())
        stored = (await fleet.tasks("backend").depth()).messages
        assert left + stored == 4, "leaving stops between two items: each is in one place"


async def test_a_second_replay_waits_and_the_first_one_still_tells_its_result(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        await forge_many(fleet, 90)
        # A minute and a half of work: it is still under way when the second is asked, however slow the machine.
        async with desk(fleet, settings=Settings(refresh=0.2, replay_rate=1.0)) as console:
            await console.press("3")
            await console.sees("m-90")
            await console.press("R")
            await console.sees("replay 90 dead letters")
            await console.press("y")
            job = await console.holds(lambda: console.runtime.busy)
            await console.holds(lambda: job.count("done"))
            await console.press("R")
            await console.sees("still works on DLQ")
            assert not isinstance(console.app.screen, PlanDialog)
            job.cancel()
            await console.holds(lambda: job.state == "cancelled")
            await console.sees(f"{job.count('done')} replayed, {job.count('not started')} not")


async def test_dead_letters_that_may_not_be_read_are_not_shown_as_none():
    config = """
    accounts { A { jetstream: enabled, users: [
        { user: admin, password: a }
        { user: viewer, password: v, permissions: { publish: { deny: ["$JS.API.STREAM.INFO.DLQ"] } } }
    ] } }
    """
    with LocalServer(config=config) as server:
        async with Fleet.connect(server.url, user="admin", password="a", config=fast()) as admin:
            await admin.provision(agents=["ceo"], roles=["backend"])
            await dead(admin, "backend", "feat-1")
            async with Fleet.connect(server.url, user="viewer", password="v") as viewer, desk(viewer) as console:
                await console.sees("not readable: dead letters", "ceo")
                assert "DLQ 0" not in console.text()
                await console.press("3")
                text = await console.sees("cannot be read")
                assert "no dead letters" not in text
