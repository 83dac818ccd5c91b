"""Untrusted text: whatever goes in, nothing comes out that a terminal obeys or that hides what was there."""

import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len, get_character_cell_size

from console.text.safe import MAX_MARKS, body_preview, clean, clean_bytes, fit, hex_dump, is_clean, pretty_json

EVERY_KIND = ("Cc", "Cf", "Cs", "Co", "Cn", "L", "M", "N", "P", "S", "Z")
ANYTHING = st.text(st.characters(categories=EVERY_KIND))
NASTY = st.text(
    st.sampled_from(
        "\x00\x07\x08\t\n\r\x1b\x7f\x80\x85\x9b\x9d\xad\u0301\u0338\u034f\u061c\u115f\u180e\u200b\u200d\u200e\u202e"
        "\u2028\u2029\u2066\u20e3\u3164\ud800\udfff\ue000\ufdd0\ufe0f\ufeff\ufffe\U0001f3fd\U0001f469\U000e0041"
        "\U000e0100\U0010eeee\U0010ffff1a[]/@ \u6771\u26a0\u0e33\u05d0"
    ),
    max_size=40,
)
BIDI = {"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
BAD_CATEGORIES = {"Cc", "Cs", "Co", "Zl", "Zp"}


def leaks(text, allowed=""):
    return [
        hex(ord(character))
        for character in text
        if character not in allowed and (unicodedata.category(character) in BAD_CATEGORIES or character in BIDI)
    ]


@given(ANYTHING | NASTY, st.booleans())
@example("\x1b]52;c;aGVsbG8=\x07", False)
@example("a\r\nb\tc\rd", True)
@example("\ud83d\ude00", False)
def test_no_control_bidi_or_surrogate_survives(text, multiline):
    assert leaks(clean(text, multiline=multiline), "\n" if multiline else "") == []


@given(ANYTHING | NASTY, st.booleans(), st.integers(0, 60))
def test_cleaning_twice_changes_nothing_more_and_stays_within_the_limit(text, multiline, limit):
    once = clean(text, multiline=multiline, limit=limit)
    assert len(once) <= limit
    assert clean(once, multiline=multiline, limit=limit) == once
    assert is_clean(once, multiline=multiline)


@given(ANYTHING | NASTY, st.integers(-1, 30), st.sampled_from(["left", "right"]))
def test_fit_is_exactly_as_wide_as_asked(text, width, align):
    assert cell_len(fit(clean(text), width, align)) == max(width, 0)


@given(ANYTHING | NASTY)
def test_a_run_of_zero_width_characters_is_short_and_has_a_base(text):
    run = MAX_MARKS
    for character in clean(text):
        run = run + 1 if get_character_cell_size(character) == 0 else 0
        assert run <= MAX_MARKS


def test_every_code_point_is_inert():
    for plane in range(0x11):
        for code in range(plane * 0x10000, (plane + 1) * 0x10000, 1 if plane < 2 or plane == 14 else 257):
            character = chr(code)
            shown = clean("a" + character)
            assert leaks(shown) == [], hex(code)
            if get_character_cell_size(character) == 0:
                shown = clean("a" + character * 9)
                assert sum(get_character_cell_size(each) == 0 for each in shown) <= MAX_MARKS, hex(code)


def test_the_default_ignorable_characters_are_all_shown():
    ranges = (
        (0x200B, 0x200F),
        (0x2060, 0x206F),
        (0xFE00, 0xFE0F),
        (0xE0000, 0xE0FFF),
        (0xFFF0, 0xFFFB),
        (0x180B, 0x180F),
    )
    for first, last in (
        *ranges,
        *((code, code) for code in (0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x3164, 0xFEFF, 0xFFA0)),
    ):
        for code in range(first, last + 1):
            assert clean(f"a{chr(code)}b") == "a\ufffdb", hex(code)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\u241b[31mred"),
        ("\x1b]52;c;aGk=\x07", "\u241b]52;c;aGk=\u2407"),
        ("\x9b31m", "\ufffd31m"),
        ("a\x7fb\x00", "a\u2421b\u2400"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
        ("[/x]", "[/x]"),
        ("one\r\ntwo\tthree", "one\u240d\u240atwo\u2409three"),
        ("safe\u202egpj.exe", "safe\ufffdgpj.exe"),
        ("\ud800", "\ufffd"),
        ("x\U000e0041\U000e0042", "x\ufffd\ufffd"),
        ("\u0338rest", "\u25cc\u0338rest"),
        ("a" + "\u0301" * 50 + "b", "a" + "\u0301" * 4 + "\ufffdb"),
    ],
)
def test_hostile_examples(hostile, shown):
    assert clean(hostile) == shown


@pytest.mark.parametrize(
    "text", ["", "plain", "größe", "cafe\u0301", "東京", "שלום", "हिन्दी", "ไทย", "✔ ▲ ● …", "😀", "C:\\temp [x]"]
)
def test_text_of_people_passes_unchanged(text):
    assert clean(text) == text
    assert is_clean(text)


def test_emoji_sequences_fall_apart_into_their_emoji():
    assert clean("\u26a0\ufe0f \u2764\ufe0f\u200d\U0001f525") == "\u26a0 \u2764\U0001f525"
    assert clean("\U0001f44d\U0001f3fd 1\ufe0f\u20e3") == "\U0001f44d 1\u20e3"
    assert clean("a\ufe0f") == "a\ufffd"
    assert clean("\U0001f600" + "\ufe0f" * 200) == "\U0001f600\ufffd"


def test_lines_and_tabs_are_kept_on_request():
    assert clean("a\tb\r\nc\n", multiline=True) == "a   b\nc\n"
    assert is_clean("a\nb", multiline=True)
    assert not is_clean("a\nb")


def test_a_cut_is_shown():
    assert clean("abcdef", limit=4) == "abc…"
    assert clean("abcd", limit=4) == "abcd"
    assert clean("\u0301" * 100, limit=50).endswith("…")
    assert clean("abc", limit=0) == ""


@given(st.binary(), st.integers(0, 50))
def test_bytes_are_decoded_and_cleaned(data, limit):
    assert clean_bytes(data, limit=limit) == clean(data.decode("utf-8", "replace"), limit=limit)


def test_bytes_that_are_cut_say_so():
    assert clean_bytes("é".encode() * 5000, limit=10) == "é" * 9 + "…"
    assert clean_bytes(b"\xff\x1b") == "\ufffd\u241b"


def test_fit():
    assert fit("ab", 4) == "ab  "
    assert fit("ab", 4, "right") == "  ab"
    assert fit("abcdef", 4) == "abc…"
    assert fit("東京都", 5) == "東京…"
    assert fit("東京都", 4) == "東 …"
    assert fit("x", 0) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANYTHING,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(ANYTHING, children, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_json_is_shown_inert(value):
    assert leaks(pretty_json(value), "\n") == []


@given(
    st.recursive(
        st.integers() | st.text("ab\x1b\u202e\x9b\U000e0041é東\n"),
        lambda each: st.lists(each) | st.dictionaries(st.text("k\x00"), each),
    )
)
def test_json_shown_is_still_that_json(value):
    assert json.loads(pretty_json(value)) == value


def test_json_is_bounded_and_says_what_is_missing():
    value = {"a": ["é" * 10] * 1000}
    shown, _, note = pretty_json(value, limit=500).rpartition("\n")
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ": ")).encode()
    missing = int(note.removeprefix("… ").removesuffix(" more bytes").replace(",", ""))
    assert len(shown) == 500
    assert len("".join(line.strip() for line in shown.split("\n")).encode()) + missing == len(compact)
    assert pretty_json(value, limit=500, size=12345).endswith("\n… cut here; 12,345 bytes in all")


def test_json_that_cannot_be_shown_is_described():
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    itself: list = []
    itself.append(itself)
    assert "nested too deeply" in pretty_json(nested)
    assert "Circular" in pretty_json(itself) or "nested" in pretty_json(itself)
    assert pretty_json(object()).startswith('"<object')


@given(st.binary(max_size=300), st.integers(16, 200))
def test_a_body_is_shown_inert(body, limit):
    assert leaks(body_preview(body, limit=limit), "\n") == []


def test_body_previews():
    assert body_preview(b'{"a": 1}', {"a": 1}) == '{\n  "a": 1\n}'
    assert body_preview(b"", None) == "(empty)"
    assert body_preview(b"null") == "null"
    assert body_preview(b"one\n\x1b[0mtwo") == "one\n\u241b[0mtwo"
    assert body_preview("é".encode() * 20, limit=21) == "é" * 10 + "\n… 19 more bytes"
    assert body_preview(b"a" * 21, limit=20).endswith("\n… 1 more byte")
    assert body_preview(b"\x00\xff12345678") == (
        "00000000  00 ff 31 32 33 34 35 36  ..123456\n00000008  37 38                    78"
    )
    assert body_preview(b"\xff" * 1000, limit=256).endswith("\n… 984 more bytes")
    assert hex_dump(b"") == ""


def test_importing_the_door_loads_no_textual():
    code = (
        "import sys, console.text.safe, console.text.units; sys.exit(any(m.startswith('textual') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
