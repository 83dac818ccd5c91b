"""Edits: what may be changed, what becomes of a letter, and the texts in which people change it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.operations.edit_file import edited_in, editor_of
from console.operations.edit_rules import Edited, EditError, body_text, free_headers, locked_headers, must_be_json
from console.operations.edit_text import as_text, from_text
from console.operations.edits import Edit, Remove, Set, diff, parse_edit, parse_header, parse_set
from console.text.safe import is_clean
from patterns.message import decode_stored
from patterns.names import Names
from patterns.replaying import require_free
from patterns.stored import StoredMessage
from tests.console.test_json_text import WRITTEN
from tests.support.waiting import until

ENVELOPE = {"ce-id": "m-1", "ce-specversion": "1.0", "ce-datacontenttype": "application/json"}
BODY = b'{"spec":{"model":"small","price":1.10},"debug":true}'


def stored(body: bytes = BODY, headers: dict[str, str] | None = None, **more: str) -> StoredMessage:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return StoredMessage("dlq.inbox.ceo.7-a", 7, 10, {**(ENVELOPE if headers is None else headers), **named}, body)


# -- applying


def test_paths_and_headers_are_changed_and_the_rest_stays() -> None:
    edit = parse_edit('set spec.model = "large"\n\n# why not\nremove $.debug\nheader X-Tenant: acme ä\ndrop X-Old')
    edited = edit.apply(stored(X_Old="1"))
    assert edited.body == b'{"spec":{"model":"large","price":1.10}}'
    assert edited.headers == {"X-Tenant": "acme%20%C3%A4", "X-Old": None}
    assert edit.describe() == "set $.spec.model, remove $.debug, header X-Tenant, drop X-Old"


def test_a_header_is_read_by_its_receiver_as_it_was_typed() -> None:
    for headers in (ENVELOPE, {}):
        letter = stored(b"{}", headers)
        value = parse_edit("header X-Note: 100% of it").apply(letter).headers["X-Note"]
        changed = StoredMessage("s", 1, 1, {**letter.headers, "X-Note": str(value)}, b"{}")
        assert decode_stored(changed, names=Names(None), stream="S").headers["X-Note"] == "100% of it"


def test_an_edit_that_leaves_the_body_says_so() -> None:
    assert parse_edit("header X: 1").apply(stored(b"\xff\x00", {})) == Edited(None, {"X": "1"})
    assert parse_edit("header X: 1\nset debug = true").apply(stored()) == Edited(None, {"X": "1"})


@pytest.mark.parametrize(
    ("text", "letter", "said"),
    [
        ("set debug = true", stored(), "nothing was changed"),
        ("header X: 1", stored(X="1"), "nothing was changed"),
        ("remove nothing", stored(), "$.nothing selects nothing"),
        ("set a.b = 1", stored(), "no object to add it to"),
        ("set a = 1", stored(b"not json"), "its body is no JSON: line 1 column 1"),
        ("set a = 1", stored(b""), "its body is empty"),
        ("set a = 1", stored(b"\xff\xfe"), "not UTF-8"),
        ("set a = 1", stored(b'{"a":1,"a":2}'), "key a stands twice"),
        ("set debug = 1", stored(Dead_Letter_Truncated="9000"), "only a part of its body"),
        ("header X: 1", stored(Dead_Letter_Truncated="9000"), "only a part of its body"),
        ("drop X", stored(), "there is no header X"),
        ("header x-tenant: a", stored(X_Tenant="b"), "but X-Tenant: case matters"),
        ("header X: a", stored(X="%1b"), "header X is locked"),
    ],
)
def test_what_does_not_fit_a_letter_is_refused(text: str, letter: StoredMessage, said: str) -> None:
    with pytest.raises(EditError) as raised:
        parse_edit(text).apply(letter)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "old", "new", "said"),
    [
        (ENVELOPE, b"{}", b"{", "line 1 column 2"),
        (ENVELOPE, b"{}", b'{\n"a":NaN}', "line 2 column 5: no JSON: NaN"),
        (ENVELOPE, b"{}", b"", "empty JSON is null"),
        (ENVELOPE, b"{}", b"\xff", "not UTF-8"),
        ({}, b"{}", b"text", "no JSON"),
        ({"Content-Type": "application/problem+json; charset=utf-8"}, b"x", b"text", "no JSON"),
    ],
)
def test_json_stays_json(headers: dict[str, str], old: bytes, new: bytes, said: str) -> None:
    with pytest.raises(EditError) as raised:
        Edit(body=new).apply(stored(old, headers))
    assert said in str(raised.value)


def test_what_is_no_json_may_become_anything() -> None:
    for headers in ({}, {"ce-datacontenttype": "text/plain"}):
        assert Edit(body=b"\xff").apply(stored(b"plain", headers)).body == b"\xff"
    assert Edit(body=b"whole").apply(stored(b"who", {"Dead-Letter-Truncated": "5"})).body == b"whole"
    assert Edit(body=b"who").apply(stored(b"who", {"Dead-Letter-Truncated": "5"})).body == b"who"


def test_a_whole_body_is_changed_in_turn() -> None:
    assert Edit(b'{"a":1}', (Set("$.b", "2"), Remove("$.a"))).apply(stored()).body == b'{"b":2}'


@pytest.mark.parametrize(
    "name", ["ce-id", "CE-Id", "Nats-Msg-Id", "agent-hops", "Dead-Letter-X", "traceparent", "Content-Type", "Status"]
)
def test_reserved_headers_are_locked(name: str) -> None:
    for text in (f"header {name}: 1", f"drop {name}"):
        with pytest.raises(EditError, match="is locked"):
            parse_edit(text)
    assert name in locked_headers(stored(b"{}", {name: "1", "X": "2"}))
    assert free_headers(stored(b"{}", {name: "1", "X": "2"})) == {"X": "2"}


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=4))
def test_free_headers_are_those_the_library_takes(headers: dict[str, str]) -> None:
    letter = stored(b"{}", headers)
    free, locked = free_headers(letter), locked_headers(letter)
    require_free(free)
    assert all(is_clean(name) and is_clean(value) for name, value in (*free.items(), *locked.items()))
    for name, value in free.items():
        with pytest.raises(EditError, match="nothing was changed"):
            Edit(headers=((name, value),)).apply(letter)


# -- the language of many


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no change is given"),
        ("# only this", "no change is given"),
        ("set a = 1\nfoo b", "line 2: 'foo' is none of set, remove, header and drop"),
        ("set a = hello", "line 1: the value for a is no JSON: expecting value; text is quoted: 'a=\"hello\"'"),
        ("set a", "line 1: 'a': expected PATH=JSON"),
        ("set a[ = 1", "line 1: $.a[ is no JSON path"),
        ("remove", "line 1: a path is missing"),
        ("header X", "line 1: 'X': expected NAME:value"),
        ("header a b: 1", "line 1: 'a b' is no name of a header"),
        ("header X: \x1b]52;", "line 1: a value must be one line without control"),
        ("header X: 1\ndrop X", "line 2: header X is named twice"),
        ("remove a\n" * 101, "line 101: more than 100 changes"),
    ],
)
def test_a_line_that_is_no_change_is_named(text: str, said: str) -> None:
    with pytest.raises(EditError) as raised:
        parse_edit(text)
    assert said in str(raised.value)
    assert is_clean(str(raised.value))


def test_paths_may_hold_what_separates_them_from_values() -> None:
    assert parse_set("items[?@.id == 3].price = 1.50") == Set("$.items[?@.id == 3].price", "1.50")
    assert parse_set("a='x=y'".replace("'", '"')) == Set("$.a", '"x=y"')
    assert parse_header("X-Note=a=b: c", "=") == ("X-Note", "a=b: c")


def test_an_edit_survives_the_ledger() -> None:
    edit = Edit(b"\xff\x00", (Set("$.a", "1.10"), Remove("$.b")), (("X", "ä"), ("Y", None)))
    assert Edit.from_spec(json.loads(json.dumps(edit.spec()))) == edit
    assert not Edit.from_spec(Edit().spec())
    for broken in ({}, {"body": "%", "changes": [], "headers": []}, {"body": None, "changes": [{}], "headers": []}):
        with pytest.raises(EditError, match="cannot be read"):
            Edit.from_spec(broken)


# -- as a text


def test_a_letter_as_a_text_and_back() -> None:
    letter = stored(X_Tenant="acme%20corp", X_Bad="%1b", Dead_Letter_Error="\x1b[2J")
    text = as_text(letter)
    assert text.endswith(
        '# Dead-Letter-Error: ␛[2J\nX-Tenant: acme corp\n\n{\n  "spec": {\n    "model": "small",\n    "price": 1.10\n'
        '  },\n  "debug": true\n}\n'
    )
    assert "# X-Bad: %1b" in text
    changed = text.replace("small", "large").replace("X-Tenant: acme corp", "X-New: 1")
    edited = from_text(letter, changed).apply(letter)
    assert edited.body == BODY.replace(b"small", b"large")
    assert edited.headers == {"X-New": "1", "X-Tenant": None}
    assert from_text(letter, text.replace("acme", "other")).body is None


@given(WRITTEN, st.sampled_from([ENVELOPE, {}, {**ENVELOPE, "X-A": "1"}]))
def test_a_text_that_was_not_changed_changes_nothing(body: str, headers: dict[str, str]) -> None:
    letter = stored(body.encode(), headers)
    text = as_text(letter)
    for same in (text, text.replace("\n", "\r\n"), text.rstrip("\n") + "\n"):
        with pytest.raises(EditError, match="nothing was changed"):
            from_text(letter, same)
    assert is_clean(text, multiline=True)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_body_is_edited_as_it_is_or_not_at_all(body: str) -> None:
    letter = stored(body.encode(), {"Content-Type": "text/plain"})
    if not is_clean(body.replace("\t", " "), multiline=True):
        with pytest.raises(EditError, match="agent-console dlq edit 7 --body FILE"):
            as_text(letter)
        return
    text = as_text(letter)
    assert is_clean(text.replace("\t", " "), multiline=True)
    assert from_text(letter, text.removesuffix("\n") + "!\n").body == body.encode() + b"!"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"a":1,"b":[1,2]}', b'{"a":7,"b":[1,2]}'),
        (b'{"a": 1, "b": [1, 2]}\n', b'{"a": 7, "b": [1, 2]}\n'),
        (b'{\n    "a": 1,\n    "b": []\n}\n', b'{\n    "a": 7,\n    "b": []\n}\n'),
    ],
)
def test_json_is_sent_as_it_was_written(old: bytes, new: bytes) -> None:
    letter = stored(old)
    assert from_text(letter, as_text(letter).replace('"a": 1', '"a": 7')).body == new


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("true", "tru"), "line 13 column 12: no JSON: expecting value"),
        (("true", '"\u202e"'), "line 13 column 13: character U+202E is not safe to show"),
        (("X-A: 1", "X-A"), "line 6: expected NAME: value"),
        (("X-A: 1", "ce-id: 5"), "line 6: header ce-id is locked"),
        (("X-A: 1\n\n", "X-A: 1\n"), "no empty line between headers and body"),
    ],
)
def test_what_cannot_be_sent_is_told_with_its_place(change: tuple[str, str], said: str) -> None:
    letter = stored(X_A="1")
    text = as_text(letter)
    assert text.split("\n")[5] == "X-A: 1"
    with pytest.raises(EditError) as raised:
        from_text(letter, text.replace(*change))
    assert said in str(raised.value)
    assert is_clean(str(raised.value))


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        (b"\xff\xfe", {}, "no text in UTF-8"),
        (b'{"a": \x1b', {}, "not safe to show"),
        (b"x" * 1_000_001, {}, "1,000,001 bytes is too long"),
        (b"[" * 500 + b"1" + b",1" * 30_000 + b"]" * 500, {}, "longer than 1,000,000 characters when it is indented"),
        (b"{}", {"Dead-Letter-Truncated": "5"}, "only a part of its body was kept"),
    ],
)
def test_what_cannot_be_edited_as_a_text_names_the_way_out(body: bytes, more: dict[str, str], said: str) -> None:
    with pytest.raises(EditError) as raised:
        as_text(stored(body, {**ENVELOPE, **more}))
    assert said in str(raised.value)
    assert "`agent-console dlq edit 7 --body FILE`" in str(raised.value)


def test_a_broken_json_body_can_be_mended_and_not_broken_otherwise() -> None:
    letter = stored(b'{"a": 1,}')
    assert must_be_json(letter)
    assert from_text(letter, as_text(letter).replace(",}", "}")).body == b'{"a": 1}'
    with pytest.raises(EditError, match="line 7 column 9: no JSON"):
        from_text(letter, as_text(letter).replace(",}", ",,}"))


# -- the diff


def test_the_diff_shows_headers_and_indented_json() -> None:
    letter = stored(X_Old="1", X="a%20b")
    edit = parse_edit('set spec.model = "\u00e9"\nheader X: c d\ndrop X-Old')
    assert diff(letter, edit.apply(letter)) == [
        "--- headers",
        "+++ headers, edited",
        "-X: a b",
        "+X: c d",
        "-X-Old: 1",
        "--- body",
        "+++ body, edited",
        "@@ -1,6 +1,6 @@",
        " {",
        '   "spec": {',
        '-    "model": "small",',
        '+    "model": "é",',
        '     "price": 1.10',
        "   },",
        '   "debug": true',
    ]


@given(WRITTEN | st.text(st.characters(exclude_categories=["Cs"])), WRITTEN | st.binary())
def test_every_line_of_a_diff_is_safe(old: str, new: str | bytes) -> None:
    body = new if isinstance(new, bytes) else new.encode()
    lines = diff(stored(old.encode(), {}), Edited(body, {"X": "%1b"}))
    assert all(is_clean(line) and len(line) <= 400 for line in lines)


def test_a_diff_has_an_end_and_shows_where_long_lines_differ() -> None:
    many = b"[" + b",".join(b"%d" % n for n in range(20_000)) + b"]"
    lines = diff(stored(many), Edited(many.replace(b"7", b"6")))
    assert len(lines) == 401
    assert lines[-1].endswith("more lines")
    long = json.dumps({"text": "x" * 500_000 + "a" + "y" * 500_000}).encode()
    shown = diff(stored(long), Edited(long.replace(b"a", b"b", 1).replace(b"xay", b"xby")))
    assert any("xxay" in line for line in shown)
    assert any("xxby" in line for line in shown)


def test_the_diff_of_what_is_no_text_tells_size_and_bytes() -> None:
    assert diff(stored(b"\xff\x01", {}), Edited(b"\xff\x02\x03"))[-2:] == ["-(2 bytes: ff 01)", "+(3 bytes: ff 02 03)"]
    assert "white space" in diff(stored(b"[1]"), Edited(b"[ 1]"))[-1]


def test_a_diff_names_the_lines_of_the_whole_text() -> None:
    body = json.dumps(list(range(100))).encode()
    assert "@@ -49,7 +49,7 @@" in diff(stored(body), Edited(body.replace(b" 50,", b" -1,")))


# -- an editor


def script(path: Path, code: str) -> list[str]:
    file = path / "editor.py"
    file.write_text(f"import os, pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n")
    return [sys.executable, str(file)]


async def test_the_editor_gets_a_private_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"""
text = path.read_text()
modes = oct(path.stat().st_mode & 0o777), oct(path.parent.stat().st_mode & 0o777)
path.with_suffix(".swp").write_text(text)
path.write_text(text + "more")
pathlib.Path({str(told)!r}).write_text(repr((str(path), modes)))
"""
    assert await edited_in(script(tmp_path, code), "text ä\n") == "text ä\nmore"
    path, modes = eval(told.read_text())
    assert modes == ("0o600", "0o700")
    assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit(3)", "nothing was changed: the editor python"),
        ("path.unlink()", "cannot be read"),
        ("path.write_bytes(b'\\xff')", "no text in UTF-8"),
        ("path.write_bytes(b'x' * 4_000_001)", "longer than"),
    ],
)
async def test_an_editor_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    with pytest.raises(EditError) as raised:
        await edited_in(script(tmp_path, code), "text")
    assert said in str(raised.value)
    assert list(private.iterdir()) == []


async def test_an_editor_is_ended_with_what_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    started = tmp_path / "started"
    code = f"pathlib.Path({str(started)!r}).touch()\nimport time\ntime.sleep(600)"
    waiting = asyncio.create_task(edited_in(script(tmp_path, code), "text"))
    await until(started.exists)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert list(private.iterdir()) == []


def test_the_editor_is_the_operators(tmp_path: Path) -> None:
    for name in ("mine", "vi"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    found = {"PATH": str(tmp_path)}
    assert editor_of({**found, "EDITOR": "mine --wait", "VISUAL": " "}) == [str(tmp_path / "mine"), "--wait"]
    assert editor_of({**found, "EDITOR": "other", "VISUAL": "mine"}) == [str(tmp_path / "mine")]
    assert editor_of(found) == [str(tmp_path / "vi")]
    for environ in ({"PATH": ""}, {**found, "EDITOR": "gone"}, {**found, "EDITOR": "'"}, {**found, "EDITOR": "x\x1b"}):
        with pytest.raises(EditError, match="there is no editor"):
            editor_of({"PATH": os.devnull, **environ})


def test_bodies_are_read_in_one_way() -> None:
    texts: list[Any] = [body_text(body) for body in (b"", b"{}", b"\xed\xa0\x80", "ä".encode())]
    assert texts == ["", "{}", None, "ä"]
