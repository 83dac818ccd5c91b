"""The plan's dialog on small screens: what takes keys is in sight, whatever the plan says."""

from __future__ import annotations

import pytest
from textual.app import App
from textual.widgets import Button, Input

from console.operations.items import Item, Items, Sample
from console.operations.plan import Plan
from console.screens.plan_dialog import PlanDialog
from console.screens.quit_dialog import ConfirmDialog
from console.styles.theme import THEMES

SIZES = [(120, 40), (80, 24), (60, 16)]
COUNTS = {"enter": 1, "key": 40, "count": 1004, "name": 1004}


def plan_of(gate, *, prod=False, action="purge", **more):
    items = Items()
    for seq in range(1, COUNTS[gate] + 1):
        items.append(Item(seq, 0, f"inbox.agent-{seq % 9}", "agents.ceo.inbox.note"))
    sample = tuple(Sample(seq, "inbox.ceo", "note", f"m-{seq}") for seq in range(1, 6))
    given = {
        "stream": "DLQ", "identity": "DLQ x", "selection": "chosen by hand " * 40, "looked": "looked at all of it",
        "keeps": "a spill file", "warnings": ("they are dead again " * 9,), "commands": ("nats stream rmm -f DLQ 1",),
    }  # fmt: skip
    if gate == "enter":
        given["warnings"] = ()
    return Plan(
        action=action, items=items, sample=sample[: COUNTS[gate]], whole=gate == "name", prod=prod, **(given | more)
    )


class Host(App):
    """Only what a dialog needs."""

    def __init__(self, plan, hidden=0):
        super().__init__()
        self.plan, self.hidden, self.answers = plan, hidden, []
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def on_mount(self):
        self.push_screen(PlanDialog(self.plan, hidden=self.hidden), self.answers.append)


def in_sight(app):
    """Whether both buttons and every box that is shown lie inside the dialog, and the dialog inside the screen."""
    screen, dialog = app.screen.region, app.screen.query_one("#plan").region
    boxes = [*app.screen.query(Button), *(box for box in app.screen.query(Input) if box.display)]
    outside = [box.id for box in boxes if not dialog.contains_region(box.region) or not box.region.area]
    assert screen.contains_region(dialog)
    assert outside == []
    assert not any(a.region.overlaps(b.region) for a in boxes for b in boxes if a is not b)


@pytest.mark.parametrize("prod", [False, True])
@pytest.mark.parametrize("gate", list(COUNTS))
async def test_what_takes_keys_is_in_sight(gate, prod):
    for size in SIZES:
        app = Host(plan_of(gate, prod=prod))
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            in_sight(app)
            assert len([box for box in app.screen.query(Input) if box.display]) == (
                (bool(app.plan.typed)) + (prod or size[1] >= 30)
            )
            for other in reversed(SIZES):
                await pilot.resize_terminal(*other)
                await pilot.pause()
                in_sight(app)


def text_of(app):
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


async def test_the_rest_of_the_plan_is_reached_while_typing():
    app = Host(plan_of("name"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        body = app.screen.query_one("#plan-body")
        assert body.max_scroll_y > 0
        await pilot.press("pagedown", "down", "up")
        assert body.scroll_offset.y > 0
        assert app.focused.id == "plan-count"


async def test_the_text_to_type_is_named_and_what_is_wrong_is_told_in_sight():
    app = Host(plan_of("name", stream="DLQ\x1b[31m"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "type DLQ␛[31m, then enter" in text_of(app)
        await pilot.press("n", "o", "enter")
        await pilot.pause()
        assert "that is not DLQ␛[31m" in text_of(app)
        in_sight(app)
        await pilot.press("p")
        await pilot.pause()
        assert "type DLQ␛[31m, then enter" in text_of(app)
        assert app.answers == []


async def test_no_notice_covers_the_buttons():
    for dialog in (PlanDialog(plan_of("key")), ConfirmDialog("resume", "It goes on.", "Resume")):
        app = Host(plan_of("key"))
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            app.pop_screen()
            app.notify("what was before", timeout=60)
            await pilot.pause(0.2)
            assert "what was before" in text_of(app)
            app.push_screen(dialog)
            await pilot.pause(0.2)
            assert "what was before" not in text_of(app)


async def test_counts_look_alike_and_what_was_chosen_takes_two_lines():
    app = Host(plan_of("count"))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        shown = text_of(app)
        assert "purge 1,004 dead letters" in shown
        assert "Purge 1,004" in shown
        assert "type 1004, then enter" in shown
        lines = [n for n, line in enumerate(shown.splitlines()) if "chosen by" in line]
        assert len(lines) == 2


async def test_all_of_a_stream_is_called_by_its_name():
    app = Host(plan_of("name", selection="all"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "all of DLQ" in text_of(app)


async def test_y_confirms_while_a_reason_is_offered_and_the_reason_is_kept():
    for keys, answer in ((["y"], ""), (["shift+tab", *"why", "enter", "enter"], "why")):
        app = Host(plan_of("key"))
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            assert "may stay empty" in text_of(app)
            await pilot.press(*keys)
            await pilot.pause()
            assert [each and each.reason for each in app.answers] == [answer]


async def test_enter_in_the_reason_alone_does_not_confirm():
    app = Host(plan_of("key"))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("shift+tab", "y", "enter")
        await pilot.pause()
        assert app.answers == []
        assert app.focused.id == "plan-confirm"


async def test_production_does_not_go_on_without_a_reason():
    app = Host(plan_of("count", prod=True))
    async with app.run_test(size=(60, 16)) as pilot:
        await pilot.pause()
        await pilot.press(*"1004", "enter", "enter")
        await pilot.pause()
        assert "a reason is required" in text_of(app)
        in_sight(app)
        await pilot.press(*"fixed", "enter")
        await pilot.pause()
        assert [each and each.reason for each in app.answers] == ["fixed"]


async def test_a_pause_tells_its_end_and_no_counts():
    held = {"noun": "inbox.ceo", "selection": "inbox.ceo", "rate": None, "looked": ""}
    app = Host(plan_of("enter", action="pause", settings={"seconds": 600.0}, **held))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        shown = text_of(app)
        assert "UTC (10m), then it goes on by itself" in shown
        assert "from " not in shown
        assert "inbox.ceos" not in shown
    app = Host(plan_of("enter", action="resume", settings={"seconds": 0.0}, keeps="messages stay", **held))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "messages stay" not in text_of(app)
        await pilot.press("enter")
        await pilot.pause()
        assert [each and each.reason for each in app.answers] == [""]


async def test_on_production_a_pause_asks_for_the_reason_alone():
    app = Host(plan_of("enter", action="pause", prod=True, noun="inbox.ceo", settings={"seconds": 600.0}))
    async with app.run_test(size=(60, 16)) as pilot:
        await pilot.pause()
        assert "say why, then enter" in text_of(app)
        assert [box.id for box in app.screen.query(Input)] == ["plan-reason"]
        await pilot.press("enter")
        assert app.answers == []
        await pilot.press(*"calm", "enter")
        await pilot.pause()
        assert [each and each.reason for each in app.answers] == ["calm"]
