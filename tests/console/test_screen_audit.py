"""The audit screen on a real fleet and a real file, and the reading of the end of that file."""

from __future__ import annotations

import json
import math
import os
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from console.monitor.audit_tail import AuditLine, AuditTail, text_of
from console.operations.audit import Audit
from console.screens.audit import entry_of, fields_text
from console.screens.inspect import InspectPane
from console.settings import Settings
from console.widgets.filter_bar import FilterBar
from console.widgets.row_table import RowTable
from tests.support.fleets import connected
from tests.support.letters import forge_many
from tests.support.screens import desk

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\ud800"
UNSAFE = set("\x1b\x07\u202e\u200b\x9b\ud800")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "audit.jsonl"


@pytest.fixture
def audit(path):
    return Audit(path, {"actor": "ann@desk", "context": "demo"})


def append(path, *lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + end for line in lines)


def line(number, **changes):
    at = (datetime.now(UTC) - timedelta(days=3) + timedelta(seconds=number)).isoformat(timespec="milliseconds")
    fields = {"time": at, "event": "end", "actor": "bob@ops", "action": "replay", "job": f"j{number}"}
    return {**fields, "planned": 4, "done": 3, "failed": 1, "result": "completed", "reason": "fixed", **changes}


def order(text, *words):
    lines = text.splitlines()
    return [next(at for at, each in enumerate(lines) if word in each) for word in words]


class TestScreen:
    async def test_shows_the_newest_line_first_and_new_ones_while_looking(self, server, audit):
        audit.write("start", "replay", "cafe0001", planned=12, reason="repaired")
        audit.note("item", "replay", "cafe0001", seq=77, result="in doubt", error="not confirmed: timeout")
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            text = await console.sees("audit  2 lines", "ann@desk", "start", "cafe0001", "12", "repaired")
            assert "seq 77 in doubt" in text
            first, second = order(text, "seq 77", "repaired")
            assert first < second
            audit.note("end", "replay", "cafe0001", planned=12, done=11, failed=1, result="failed")
            text = await console.sees("audit  3 lines", " 11 ")
            ended, item, started = order(text, " 11 ", "seq 77", "repaired")
            assert ended < item < started
            assert "✖" in text.splitlines()[ended]

    async def test_a_real_replay_is_told(self, server, audit):
        async with connected(server.url, agents=["ceo"]) as fleet:
            await forge_many(fleet, 1)
            async with desk(fleet, audit=audit) as console:
                await console.press("7")
                await console.sees("nothing was done from here yet")
                await console.press("3")
                await console.sees("m-1")
                await console.press("R")
                await console.sees("enter or y confirms")
                await console.press("enter")
                await console.sees("1 replayed")
                await console.press("7")
                await console.sees("audit  2 lines", "start", "end", "completed")

    async def test_the_file_is_not_read_while_another_screen_is_shown(self, server, audit, monkeypatch):
        reads = []
        whole = AuditTail.read
        monkeypatch.setattr(AuditTail, "read", lambda self: reads.append(1) or whole(self))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.pilot.pause(1.5)
            assert not reads
            await console.press("7")
            await console.holds(lambda: reads)
            await console.press("1")
            await console.sees("ceo")
            before = len(reads)
            await console.pilot.pause(1.5)
            assert len(reads) <= before + 1

    async def test_filters_by_words_in_any_value_and_counts(self, server, path, audit):
        append(path, *(line(n, selector=f"role:backend seq {n}") for n in range(20)), line(99, reason="Disk FULL"))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            await console.sees("audit  21 lines")
            await console.press("slash", *"disk full")
            await console.sees("audit  1 of 21 lines  /disk full", "Disk FULL", "j99")
            assert "j3" not in console.text()
            await console.press("escape")
            await console.sees("audit  21 lines")
            # Of a value that no column shows, with a colon that is no field name.
            await console.press("slash", *"role:backend")
            text = await console.sees("audit  20 of 21 lines")
            assert "unknown field" not in text
            await console.press(*"zz", "enter")
            await console.sees("audit  0 of 21 lines", "no line matches the filter")
            append(path, line(100, selector="role:backendzz"))
            await console.sees("audit  1 of 22 lines", "j100")

    async def test_a_filter_takes_what_no_expression_may_hold(self, server, path, audit):
        append(path, line(1, reason='say "no: [x]'), line(2))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            await console.sees("audit  2 lines")
            await console.press("slash")
            console.app.screen.query_one(FilterBar).set_expression('"no: [x]')
            text = await console.sees("audit  1 of 2 lines")
            assert "unknown field" not in text

    async def test_enter_shows_every_field(self, server, path, audit):
        append(path, line(7, seqs=[4, 5], destinations={"tasks.backend": 2}, force=False, spill=None))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            await console.sees("j7")
            await console.press("enter")
            text = await console.sees("audit  replay  j7  end", "seqs", "[4, 5]", '{"tasks.backend": 2}', "esc closes")
            assert [word for word in ("force", "false", "spill", "–", "bob@ops", "reason") if word not in text] == []
            await console.press("escape")
            await console.holds(lambda: not isinstance(console.app.screen, InspectPane))

    async def test_hostile_text_is_inert(self, server, path, audit):
        names = ("actor", "event", "action", "job", "result", "error", "reason", "time", "planned", "failed", "seq")
        append(path, dict.fromkeys(names, HOSTILE) | {HOSTILE: [HOSTILE], "[/b]": {"[/c]": HOSTILE}})
        append(path, f"no json {HOSTILE[:-1]}", line(3, reason=HOSTILE))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            text = await console.sees("audit  3 lines", "not readable: ")
            assert not set(text) & UNSAFE
            for title in ("audit  replay", "audit line", "audit  ␛"):
                await console.press("enter")
                text = await console.sees(title, "esc closes")
                assert not set(text) & UNSAFE
                assert "[@click=app.leave]x[/x]" in text
                await console.press("escape", "down")
            await console.press("slash", *"[/x]")
            await console.sees("audit  3 lines  /[/x]")
            assert console.app.is_running

    async def test_values_of_any_type_crash_nothing(self, server, path, audit):
        names = (
            "time",
            "actor",
            "event",
            "action",
            "job",
            "planned",
            "done",
            "failed",
            "result",
            "error",
            "reason",
            "seq",
        )
        values = (None, True, -1, 10**400, 1.5, math.nan, math.inf, "", "x", [], [1], {}, {"a": {"b": []}}, "9" * 9000)
        append(path, *(dict.fromkeys(names, value) for value in values))
        append(path, "[]", "7", '"text"', "null", "{", "[" * 100_000, '{"planned": ' + "9" * 5000 + "}", "\x00", "")
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            await console.sees(f"audit  {len(values) + 8} lines", "not readable: {")
            table = console.app.screen.query_one(RowTable)
            for _ in table.visible_columns:
                await console.press(">", "o")
            await console.press("enter")
            await console.sees("esc closes")
            assert console.app.is_running

    async def test_a_file_of_50_000_lines_opens_at_its_end(self, server, path, audit):
        append(path, *(line(n, seqs=list(range(20))) for n in range(50_000)))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            began = time.monotonic()
            await console.press("7")
            await console.sees("audit  the last 2,000 lines, older not shown", "j49999")
            assert time.monotonic() - began < 5, "a tenth of this on a machine with nothing else to do"
            await console.press("end")
            await console.sees("j48000")
            append(path, line(50_000))
            await console.holds(lambda: console.app.screen.query_one(RowTable).rows[0].cells[4].text == "j50000")
            await console.press("home")
            await console.sees("j50000")
            await console.press("slash", *"j4999")
            await console.sees("audit  10 of the last 2,000 lines, older not shown")

    @pytest.mark.parametrize(("write", "why"), [(True, "this session keeps no audit"), (False, "read-only")])
    async def test_without_an_audit_it_says_so(self, server, write, why):
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, write=write) as console:
            await console.press("7")
            await console.sees(why, "agent-console audit")
            await console.press("enter", "ctrl+r", "slash", *"x", "enter")
            await console.sees("no audit")

    async def test_a_read_only_session_reads_the_audit_too(self, server, path, audit):
        append(path, line(1))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit, write=False) as console:
            await console.press("7")
            text = await console.sees("audit  1 line", "j1", "completed")
            assert "no audit" not in text

    async def test_a_file_that_cannot_be_read_says_why_until_it_can(self, server, path, audit):
        path.mkdir(parents=True)
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            await console.press("7")
            await console.sees("the audit cannot be read: it is not a regular file")
            path.rmdir()
            await console.sees("nothing was done from here yet")
            append(path, line(1))
            await console.sees("j1")
            path.unlink()
            await console.sees("nothing was done from here yet")

    @pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)])
    async def test_fits(self, server, path, audit, size):
        append(path, *(line(n, error="x" * 300) for n in range(50)))
        async with connected(server.url, agents=["ceo"]) as fleet:
            settings = Settings(refresh=0.2)
            async with desk(fleet, audit=audit, size=size, settings=settings) as console:
                await console.press("7")
                text = await console.sees(
                    "audit  50 lines", "TIME", "EVENT", "RESULT", "FAILED", "completed", "7 Audit"
                )
                assert all(len(each) <= size[0] for each in text.splitlines())
                tabs = text.splitlines()[1]
                titles = ("1 Fleet", "2 Queues", "3 Dead letters", "4 Events", "6 Jobs", "7 Audit")
                assert all(title in tabs for title in titles)
                assert ("REASON" in text) is (size[0] == 120)

    async def test_a_click_on_its_tab_opens_it(self, server, path, audit):
        append(path, line(1))
        async with connected(server.url, agents=["ceo"]) as fleet, desk(fleet, audit=audit) as console:
            tabs = (await console.sees("7 Audit")).splitlines()[1]
            await console.pilot.click("TabStrip", offset=(tabs.index("Audit"), 0))
            await console.sees("audit  1 line", "j1")


class TestTail:
    def test_reads_again_only_what_changed(self, path):
        tail = AuditTail(path)
        assert tail.read().missing
        assert tail.read() is None
        append(path, line(1))
        assert [each.fields["job"] for each in tail.read().lines] == ["j1"]
        assert tail.read() is None
        append(path, line(2))
        found = tail.read()
        assert [each.fields["job"] for each in found.lines] == ["j2", "j1"]
        assert not found.older
        path.unlink()
        assert tail.read().missing

    @pytest.mark.parametrize("lines", [0, 1, 9, 10, 11, 500])
    def test_no_more_lines_than_wanted(self, path, lines):
        append(path, "")
        append(path, *(line(n) for n in range(lines)))
        found = AuditTail(path, limit=10).read()
        assert [each.fields["job"] for each in found.lines] == [f"j{n}" for n in range(lines)][::-1][:10]
        assert found.older is (lines > 10)
        data = path.read_bytes()
        assert [json.loads(data[each.at :].splitlines()[0]) for each in found.lines] == [
            each.fields for each in found.lines
        ]

    def test_no_more_bytes_than_wanted(self, path):
        append(path, *(line(n, seqs="x" * 1000) for n in range(1000)))
        found = AuditTail(path, most=100_000).read()
        assert 50 < len(found.lines) < 300
        assert found.lines[0].fields["job"] == "j999"
        assert found.older
        append(path, {"seqs": "y" * 500_000})
        found = AuditTail(path, most=100_000).read()
        assert (found.lines, found.older) == ((), True)

    def test_an_unfinished_last_line_waits_for_its_end(self, path):
        append(path, line(1))
        append(path, '{"job": "ha', end="")
        tail = AuditTail(path)
        assert len(tail.read().lines) == 1
        append(path, 'lf"}')
        assert tail.read().lines[0].fields == {"job": "half"}
        append(path, {"job": "whole"}, end="")
        assert tail.read().lines[0].fields == {"job": "whole"}

    def test_a_cut_line_is_told_and_the_next_is_read(self, path):
        append(
            path,
            '{"job": "cut off',
            "\r",
            line(1, reason="a\u2028b\x85c"),
            "\xff not utf-8 \udcff".encode("latin-1", "replace").decode("latin-1"),
        )
        newest, whole, cut = AuditTail(path).read().lines
        assert (newest.fields, cut.fields) == (None, None)
        assert cut.raw == '{"job": "cut off'
        assert whole.fields["reason"] == "a\u2028b\x85c"

    def test_bytes_that_are_no_text(self, path):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\xff\xfe\n" + json.dumps(line(1)).encode() + b"\r\n")
        whole, broken = AuditTail(path).read().lines
        assert whole.fields["job"] == "j1"
        assert broken.raw == "\ufffd\ufffd"

    def test_a_pipe_is_not_waited_for(self, path):
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        tail = AuditTail(path)
        assert "not a regular file" in tail.read().problem
        assert tail.read() is None


class TestRows:
    TODAY = date(2026, 5, 4)

    def shown(self, **fields):
        return [cell.text for cell in entry_of(AuditLine(0, fields, ""), self.TODAY).row.cells]

    def test_the_time_is_local_and_has_its_day_unless_that_is_today(self):
        def at(*moment):
            return self.shown(time=datetime(*moment).astimezone(UTC).isoformat())[0]

        assert at(2026, 5, 4, 12, 3, 4) == "12:03:04"
        assert at(2026, 5, 3, 12, 3, 4) == "05-03 12:03"
        assert at(2025, 5, 4, 12, 3, 4) == "2025-05-04"
        assert self.shown(time="0001-01-01T00:00:00+14:00")[0].startswith("0001-01-01")

    def test_the_result_says_what_came_of_it(self):
        assert self.shown(event="start")[8] == ""
        assert self.shown(event="item", seq=7, result="in doubt", error="no answer")[8] == "seq 7 in doubt: no answer"
        assert self.shown(event="end", result="cancelled", error=None)[8] == "cancelled"
        assert self.shown(error="disk full")[8] == "disk full"

    @pytest.mark.parametrize(
        ("fields", "glyph"),
        [
            ({"event": "start"}, "▸"),
            ({"event": "end", "result": "completed", "failed": 0}, "●"),
            ({"event": "end", "result": "completed", "failed": 2}, "✖"),
            ({"event": "end", "result": "cancelled"}, "▲"),
            ({"event": "end", "result": "interrupted"}, "▲"),
            ({"event": "item", "result": "in doubt"}, "▲"),
            ({"event": "item", "result": "failed"}, "✖"),
            ({"event": "other"}, ""),
        ],
    )
    def test_its_glyph_says_how_it_ended(self, fields, glyph):
        assert entry_of(AuditLine(0, fields, ""), self.TODAY).row.glyph == glyph

    def test_every_field_can_be_told_whatever_it_is(self):
        colours = {"dim": "dim", "bad": "bold red"}
        fields = {"a": None, "": True, "n": 10**400, "x" * 99: {"b": [math.nan]}, "long": "y" * 10_000}
        text = fields_text(AuditLine(0, fields, ""), colours).plain
        assert len(text.splitlines()) == 5
        assert len(text) < 10_000
        many = fields_text(AuditLine(0, {str(n): n for n in range(150)}, ""), colours).plain
        assert many.endswith("and 50 more fields\n")

    def test_numbers(self):
        assert self.shown(planned=0, done=1234, failed=None)[5:8] == ["·", "1,234", ""]

    def test_deep_nesting_is_told(self):
        deep = []
        for _ in range(200_000):
            deep = [deep]
        assert text_of(deep) == "(nested too deeply)"
