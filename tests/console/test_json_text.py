"""JSON as text: what is between the tokens changes, and they stay as they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.text import json_path, json_text
from console.text.json_path import PathError
from console.text.json_text import NotJson, Style
from console.text.safe import is_clean

# A lone surrogate cannot come in UTF-8; one half written beside the other's escape would become a whole.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
WRITTEN = st.builds(
    lambda value, ascii_only, style: json.dumps(value, ensure_ascii=ascii_only, **style),
    VALUES,
    st.booleans(),
    st.sampled_from([{}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}]),
)


@given(WRITTEN)
def test_indented_and_compact_mean_the_same(text: str) -> None:
    shown, short = json_text.pretty(text), json_text.compact(text)
    assert json.loads(shown) == json.loads(short) == json.loads(text)
    assert json_text.pretty(shown) == shown
    assert json_text.compact(short) == short
    assert is_clean(shown, multiline=True)


@given(WRITTEN)
def test_a_text_in_its_own_style_stays_as_it_is(text: str) -> None:
    style = Style.of(text)
    # In one line nothing is escaped; indented, what is not safe to show is.
    assert json.loads(style.write(text)) == json.loads(text)
    if style.indent is None:
        assert style.write(style.write(text)) == style.write(text)


# The library takes no escape of a control character in a path.
@given(WRITTEN, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8))
def test_what_is_set_is_there_and_the_rest_is_as_it_was(text: str, name: str) -> None:
    value = json.loads(text)
    path = f"$[{json.dumps(name)}]"
    if not isinstance(value, dict):
        with pytest.raises(PathError):
            json_path.replace(text, path, "1.50")
        return
    changed = json_path.replace(text, path, "1.50")
    assert json.loads(changed) == {**value, name: 1.5}
    removed = json_path.remove(changed, path)
    assert json.loads(removed) == {key: each for key, each in value.items() if key != name}
    if name not in value and value:
        assert removed == text


@given(WRITTEN, st.sampled_from(["$.*", "$[0]", "$[-1]", "$..a", "$[1:]", "$[::2]", "$[?@ == null]", "$.*.*"]))
def test_paths_remove_what_they_select_and_nothing_else(text: str, path: str) -> None:
    value = json.loads(text)
    query = json_path._ENVIRONMENT.compile(path)
    selected = {match.parts for match in query.finditer(value)} if isinstance(value, dict | list) else set()
    if not selected:
        with pytest.raises(PathError, match="selects nothing"):
            json_path.remove(text, path)
        return
    assert json.loads(json_path.remove(text, path)) == _without(value, selected, ())


def _without(value: Any, gone: set[Any], at: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(each, gone, (*at, key)) for key, each in value.items() if (*at, key) not in gone}
    if isinstance(value, list):
        return [_without(each, gone, (*at, n)) for n, each in enumerate(value) if (*at, n) not in gone]
    return value


def test_tokens_stay_as_they_are_written() -> None:
    text = '{"b":1.10,"a":1e400,"a":[123456789012345678901234567890,-0.0],"e":"\\u00e9\\/","n":[],"o":{ }}'
    shown = json_text.pretty(text)
    assert shown == (
        '{\n  "b": 1.10,\n  "a": 1e400,\n  "a": [\n    123456789012345678901234567890,\n    -0.0\n  ],\n'
        '  "e": "\\u00e9\\/",\n  "n": [],\n  "o": {}\n}'
    )
    assert json_text.compact(shown) == text.replace("{ }", "{}")


def test_what_is_dangerous_becomes_an_escape() -> None:
    text = '{"k\u202e":"\x7f\x9b2J\u200b\ufeff\U000e0041' + "e" + "\u0301" * 6 + '"}'
    shown = json_text.pretty(text)
    assert "\\u202e" in shown
    assert "\\u007f\\u009b2J\\u200b\\ufeff\\udb40\\udc41" in shown
    assert shown.count("\u0301") == 4
    assert is_clean(shown, multiline=True)
    assert json.loads(shown) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 column 1: expecting value"),
        ('{"a":1,\n}', "line 2 column 1: expecting property name"),
        ('{"a":\n  NaN}', "line 2 column 3: NaN is not JSON"),
        ('["NaN", -Infinity]', "line 1 column 9: -Infinity is not JSON"),
        ("[1] x", "line 1 column 5: extra data"),
        ('["a\n"]', "line 1 column 4: invalid control character"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, said: str) -> None:
    for read in (json_text.check, json_text.pretty, json_text.compact):
        with pytest.raises(NotJson) as raised:
            read(text)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_an_indented_text_has_a_limit() -> None:
    deep = "[" * 400 + "1" + ",1" * 4000 + "]" * 400
    assert len(json_text.pretty(deep)) < len(deep) * 80
    with pytest.raises(NotJson, match="longer than"):
        json_text.pretty(deep, limit=10_000)


@pytest.mark.parametrize(
    ("text", "path", "value", "result"),
    [
        ('{"a":1.10,"b":2}', "b", "3.30", '{"a":1.10,"b":3.30}'),
        ('{"a": 1, "b": [1, 2]}', "$.b[-1]", '{"x":[1,2]}', '{"a": 1, "b": [1, {"x": [1, 2]}]}'),
        ('{"a": 1}', "b", "2", '{"a": 1, "b": 2}'),
        ("{}", "b", "2", '{"b":2}'),
        ('{"o":{"a":{"a":1}}}', "$..a", "0", '{"o":{"a":0}}'),
        ('{\n\t"a": {}\n}', "a.b", "[1]", '{\n\t"a": {\n\t\t"b": [\n\t\t\t1\n\t\t]\n\t}\n}'),
        ("[1]", "$", '"x"', '"x"'),
        ('"[1]"', "$", "null", "null"),
        ('[{"id":7,"n":1},{"id":8,"n":1}]', "$[?@.id==8].n", "2", '[{"id":7,"n":1},{"id":8,"n":2}]'),
        ('{"a":1}', "['\u202e']", "2", '{"a":1,"\\u202e":2}'),
    ],
)
def test_a_value_is_written_as_its_surroundings_are(text: str, path: str, value: str, result: str) -> None:
    assert json_path.replace(text, path, value) == result


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ('{"a":1}', "b.c", "selects nothing, and there is no object to add it to"),
        ('{"a":[1]}', "a[4]", "selects nothing, and there is no object to add it to"),
        ('{"a":1}', "b[*]", "selects nothing"),
        ('{"a":1,"a":2}', "b", "key a stands twice"),
        ('"[1]"', "$[0]", "selects nothing"),
        ("{}", "$[", "is no JSON path"),
        ("{}", "", "a path is missing"),
        ("{}", "a" * 2000, "longer than"),
        ("{}", "$" + "[" * 900, "is no JSON path"),
        ("{}", "a\x1b[2J", "is no JSON path"),
    ],
)
def test_what_cannot_be_set_is_told_in_one_safe_line(text: str, path: str, said: str) -> None:
    with pytest.raises(PathError) as raised:
        json_path.replace(text, path, "1")
    assert said in str(raised.value)
    assert is_clean(str(raised.value))


def test_the_whole_cannot_be_removed() -> None:
    with pytest.raises(PathError, match="whole body"):
        json_path.remove("[1]", "$")
