"""What people read: complete, aligned, worst first, and inert whatever is in it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from console import report, report_jobs
from console.commands.output import Output
from console.monitor.states import State
from console.monitor.view import Finding, FleetView, Flow, Subscription
from console.operations.guard import WriteGuard
from console.operations.items import Item, ItemResult, Items, Sample, Skip
from console.operations.job import Job
from console.operations.ledger import JobRecord
from console.operations.plan import Plan
from console.text.safe import is_clean
from patterns import DeadLetter, Message, Names, QueueDepth, ServerInfo
from patterns.message import decode
from tests.support.commandline import HOSTILE
from tests.support.fleets import offline
from tests.support.flows import past

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
ANYTHING = st.one_of(st.text(alphabet=st.characters(), max_size=40), st.just(HOSTILE), st.just("[/x]"), st.just("\\["))


def shown(parts: Any, width: int = 10_000, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False, **options)
    for part in parts if isinstance(parts, list) else [parts]:
        console.print(part, soft_wrap=isinstance(part, Text))
    text = console.file.getvalue()
    assert isinstance(text, str)
    return text


def flow(name: str, state: State, **changes: Any) -> Flow:
    values: dict[str, Any] = {
        "name": name,
        "state": state,
        "depth": QueueDepth(messages=12_345, pending=7, ack_pending=0, durable="d"),
        "stranded": None,
        "in_rate": 0.25,
        "ack_rate": 0.5,
        "oldest_age": 124.0,
        "dead_letters": 0,
        "track": past(),
        "findings": (),
        "workers": 3,
    }
    return Flow(**{**values, **changes})


def view(text: str = "text", **changes: Any) -> FleetView:
    values: dict[str, Any] = {
        "taken_at": NOW,
        "took": 0.0123,
        "server": ServerInfo(text, "2.15.1", "nats://127.0.0.1:1", None),
        "agents": (flow("alpha", State.IDLE), flow(f"zeta {text}", State.NO_WORKER)),
        "queues": (flow("backend", State.BUSY),),
        "subscriptions": (Subscription(text, text, (text,), QueueDepth(pending=5)),),
        "dead_letters": {"inbox.ceo": 3},
        "findings": (Finding("critical", text, text), Finding("warning", "dlq", "3 dead letters")),
    }
    return FleetView(**{**values, **changes})


def message(text: str = "text", body: bytes = b'{"a":1}') -> Message:
    found = decode("tasks.backend.code", {"X-A": "b"}, body, names=Names(), stream="DLQ", seq=7, stored_at=NOW)
    return dataclasses.replace(found, type=text, source=text, headers={text: text, "X-A": "b"})


def dead(text: str = "text", **changes: Any) -> DeadLetter:
    names = ("name", "subject", "id", "type", "reason", "error_type", "error", "agent", "stream", "correlation_id")
    values: dict[str, Any] = {
        **dict.fromkeys(names, text),
        "seq": 7,
        "entry": "tasks.backend.1-2a",
        "kind": "tasks",
        "origin_seq": 1,
        "deliveries": 3,
        "replays": 0,
        "first_at": None,
        "died_at": NOW - timedelta(minutes=3),
        "size": 2048,
        "message": message(text),
    }
    return DeadLetter(**{**values, **changes})


def plan(text: str = "text", count: int = 2, skipped: int = 1) -> Plan:
    return Plan(
        action="replay",
        stream=text,
        identity=text,
        items=Items([Item(seq, seq, text, text) for seq in range(1, count + 1)]),
        skipped=tuple(Skip(100 + seq, text) for seq in range(skipped)),
        selection=text,
        looked=text,
        sample=tuple(Sample(seq, text, text, text, text, text, text) for seq in range(1, min(count, 5) + 1)),
        rate=20.0,
        reason=text,
        keeps=text,
        warnings=(text,),
        commands=tuple(f"nats pub {text}" for _ in range(min(count, 5))),
    )


class Told(Job):
    """A job of whose results a test decides, also what no ledger would keep."""

    told: list[ItemResult]

    @property
    def results(self) -> list[ItemResult]:
        return self.told


def job(text: str = "text", outcomes: tuple[Any, ...] = ("done", "failed")) -> Job:
    async def make() -> Job:
        made = Told.of(offline(), plan(text, count=len(outcomes)), WriteGuard(True))
        made.told = [ItemResult(seq, outcome, text) for seq, outcome in enumerate(outcomes, 1)]
        made.outcomes.update(outcomes)
        made.spill = text
        return made

    return asyncio.run(make())


def records(text: str) -> list[Any]:
    record = JobRecord(
        id=text, action=text, stream=text, identity=text, context=text, actor=text, selection=text, reason=text,
        spill=text, error=text, planned=12_345,
    )  # fmt: skip
    return [(record, {"done": 3, "failed": 1, "in doubt": 2, "waiting": 4, "sending": 1})]


def audited(text: str) -> list[dict[str, Any]]:
    return [
        {"time": text, "actor": text, "context": text, "action": text, "job": text, "event": event, "error": text,
         "selector": text, "reason": text, "result": text, "planned": text, "done": text, "failed": text, "seq": text}
        for event in ("start", "item", "end", text)
    ]  # fmt: skip


def test_a_fleet_is_told_worst_first() -> None:
    text = shown(report.fleet(view()))
    assert text.index("zeta") < text.index("alpha")
    assert "✖ zeta text  no worker" in text
    assert "● alpha      idle" in text
    for word in ("12,345", "2m4s", "0.2", "DLQ 3", "read in 12ms", "SUBSCRIBER", "critical", "DRAIN IN"):
        assert word in text
    first, second = (line for line in text.splitlines() if line.startswith(("✖ zeta", "● alpha")))
    assert first.index("12,345") == second.index("12,345")


def test_a_zero_is_a_dot_and_the_unknown_a_dash() -> None:
    (line,) = (
        line
        for line in shown(report.fleet(view(queues=(), subscriptions=()))).splitlines()
        if line.startswith("● alpha")
    )
    assert line.split() == ["●", "alpha", "idle", "12,345", "·", "2m4s", "0.2", "0.5", "·", "–", "·"]


def test_an_empty_fleet_says_so() -> None:
    text = shown(report.fleet(view(agents=(), queues=(), subscriptions=(), findings=())))
    assert "no agents, queues or subscriptions here" in text
    assert "AGENT" not in text


@pytest.mark.parametrize("status", ["healthy", "warning", "critical", "unknown"])
def test_a_verdict_has_a_glyph_and_a_word(status: str) -> None:
    glyph, word = shown(report.check(status, view())).split()[:2]
    assert glyph in "●▲✖?"
    assert word == f"{status}:"


def test_letters_say_when_there_are_more() -> None:
    assert "--limit" in shown(report.letters([dead()], more=True, now=NOW))
    text = shown(report.letters([dead()], now=NOW))
    assert "--limit" not in text
    assert "3m ago" in text
    assert "2.0 KiB" in text
    assert shown(report.letters([])) == "no dead letters\n"


def test_a_letter_shows_its_body_line_by_line() -> None:
    text = shown(report.letter(dead(message=message(body=b'{"a": "\\u001b[31m"}'))))
    assert '{\n  "a": "\\u001b[31m"\n}\n' in text
    assert "a\nb\n" in shown(report.letter(dead(message=message(body=b"a\nb"))))


def test_a_letter_of_bytes_shows_a_dump() -> None:
    found = dataclasses.replace(message(body=b"\x00\xff"), data=b"\x00\xff")
    assert "00 ff" in shown(report.letter(dead(message=found)))


def test_a_plan_tells_what_it_will_do() -> None:
    text = shown(report_jobs.plan(plan(count=30, skipped=25)))
    for word in ("replay 30 dead letters", "20 a second, about 1s", "▲ text", "the first 5 of 30", "SKIPPED (25)"):
        assert word in text
    assert text.count("nats pub") == 1
    nothing = shown(report_jobs.plan(plan(count=0, skipped=0)))
    assert "replay 0 dead letters" in nothing
    assert "FROM" not in nothing


def test_a_plan_names_only_the_biggest_groups() -> None:
    spread = dataclasses.replace(plan(), items=Items([Item(n, n, "tasks.backend", f"to.{n}") for n in range(1, 31)]))
    assert "and 10 more" in shown(report_jobs.plan(spread))


def test_a_result_tells_every_item_of_a_small_replay() -> None:
    text = shown(report_jobs.result(job(outcomes=("done", "failed", "in doubt", "duplicate")), [Skip(9, "gone")]))
    assert "planned 4   done 2   skipped 1   failed 2   duplicates 1" in text
    for word in ("failed", "in doubt", "duplicate", "skipped"):
        assert word in text


def test_a_result_tells_only_the_exceptions_of_a_big_replay() -> None:
    text = shown(report_jobs.result(job(outcomes=("done",) * 30 + ("failed",)), [Skip(99, "gone")]))
    assert len(text.splitlines()) == 1 + 1 + 1 + 1 + 2


def test_an_event_of_another_day_has_its_date() -> None:
    assert report.event(message(), NOW).plain.split()[1:] == ["text", "text", '{"a":1}']
    assert report.event(message(), NOW + timedelta(days=3)).plain.startswith("2026-03-")


def test_info_flattens_and_speaks() -> None:
    text = shown(
        report.info({"version": "1", "jetstream": True, "server": None, "connection": {"servers": ["a", "b"]}})
    )
    assert [line.split("  ")[0] for line in text.splitlines()] == [
        "version",
        "jetstream",
        "server",
        "connection servers",
    ]
    assert "yes" in text
    assert "a, b" in text


def everything(text: str, body: bytes) -> list[Any]:
    letters = [dead(text, message=message(text, body))]
    parts = [*report.fleet(view(text)), *report.check("critical", view(text))]
    parts += [*report.letters(letters, now=NOW), *report.letter(letters[0]), *report_jobs.plan(plan(text))]
    parts += [*report_jobs.result(job(text), [Skip(9, text)]), report.event(message(text, body), NOW)]
    parts += [report_jobs.jobs(records(text)), report_jobs.audit(audited(text))]
    parts += [report_jobs.items([ItemResult(1, "done", text)])]
    return [*parts, report.info({text: text, "more": {text: [text]}})]


@settings(max_examples=60, deadline=None)
@given(ANYTHING, st.one_of(st.binary(max_size=60), ANYTHING.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_no_report_lets_anything_dangerous_through(text: str, body: bytes) -> None:
    output = shown(everything(text, body))
    assert is_clean(output, multiline=True)
    assert "\x1b" not in output


def test_markup_stays_text() -> None:
    markup = "[bold]x[/bold] [/oops] [@click=app.quit]y[/] :smile:"
    text = shown(everything(markup, markup.encode()), force_terminal=True, color_system="truecolor")
    plain = "".join(character for character in text if character in string.printable)
    assert plain.count(markup) >= 20


def test_colours_are_the_only_escapes_on_a_terminal() -> None:
    text = shown(
        everything(HOSTILE, HOSTILE.encode("utf-8", "surrogatepass")), force_terminal=True, color_system="standard"
    )
    without = Text.from_ansi(text).plain
    assert is_clean(without, multiline=True)
    assert "\x1b]" not in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_tables_stay_on_their_lines_in_a_narrow_terminal(width: int) -> None:
    for part in (*report.fleet(view()), *report.letters([dead()], now=NOW)):
        if not isinstance(part, Text | str):
            lines = shown(part, width=width).splitlines()
            assert all(len(line) <= width for line in lines)
            assert len(lines) <= 4


def test_output_for_people_has_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.show(*report.fleet(view()), "")
    text = capsys.readouterr().out
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.endswith("\n\n")


def test_output_as_json_is_ascii_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output().json({"text": HOSTILE})
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert text.strip("\n").isascii()
    assert text.strip("\n").isprintable()
