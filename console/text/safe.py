"""The one door for untrusted text.

NATS accepts any byte in stream names, subjects, header values and bodies, and neither Textual nor Rich removes what a
terminal obeys: an ESC in a message reaches the screen of whoever looks at it. Everything that comes from a server
passes `clean` once, where it enters the program; what leaves here is inert on a terminal, measures what it shows, and
still says what was there: a control byte becomes its picture (``␛``), anything else that has no glyph of its own
becomes ``�``.

Nothing here reads markup. A value is shown with `Text`, `Content` or `Segment` objects, never inside a markup string.
"""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from typing import Any, Final, Literal

from rich.cells import cell_len, get_character_cell_size, split_text

LIMIT: Final = 4096
"""Characters that `clean` keeps unless told otherwise: more than a line of any terminal, less than a frame costs."""

PREVIEW_LIMIT: Final = 64 * 1024
"""Characters (`body_preview`: bytes) of a preview: a widget lays out 1 MB of text for seconds, 64 KiB in a frame."""

MAX_MARKS: Final = 4
"""Zero-width marks kept in a row: enough for the diacritics of real languages, too few to paint over other lines."""

_TAB: Final = 4
_REPLACEMENT: Final = "\ufffd"
_ELLIPSIS: Final = "\u2026"
_MARK_CARRIER: Final = "\u25cc"  # the dotted circle: Unicode's own base for a mark that has nothing to sit on

# C1, every default-ignorable code point of Unicode (bidi controls, zero-width characters, fillers, variation selectors,
# tags), line and paragraph separators, surrogates, private use (U+10EEEE places images in kitty) and noncharacters.
_UNSHOWABLE_BMP: Final = (
    "\x80-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
)
_UNSHOWABLE: Final = (
    _UNSHOWABLE_BMP
    + "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
    + "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 15))
)
# Where the characters live that Rich measures as zero cells; generous, because only the counting below decides.
_MAYBE_MARK_BMP: Final = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u1dff\u20d0-\u20ff\u2cef-\u2cf1\u2d7f-\u2dff\u302a-\u302f\u3099\u309a"
    "\ua66f-\uabff\ud7b0-\ud7ff\ufb1e\ufe20-\ufe2f"
)
_MAYBE_MARK: Final = f"[{_MAYBE_MARK_BMP}\U000101fd-\U0001eaff]"
_MARKS: Final = re.compile(_MAYBE_MARK)
_MARK_RUN: Final = re.compile(f"{_MAYBE_MARK}{{{MAX_MARKS + 1},}}")
_DANGEROUS: Final = re.compile(f"[\x00-\x1f\x7f{_UNSHOWABLE}]")
_DANGEROUS_IN_LINES: Final = re.compile(f"[\x00-\x09\x0b-\x1f\x7f{_UNSHOWABLE}]")

# One look decides for nearly all text. `re` tests the BMP by table but every range beyond it in turn (all of them cost
# 8 us per 160 characters, three cost 1.5 us), so of what lies beyond only the emoji blocks pass without a closer look.
_SUSPECT_ANYWHERE: Final = (
    f"{_UNSHOWABLE_BMP}{_MAYBE_MARK_BMP}\U00010000-\U0001efff\U0001f3fb-\U0001f3ff\U0001fb00-\U0010ffff"
)
_SUSPECT: Final = re.compile(f"[\x00-\x1f\x7f{_SUSPECT_ANYWHERE}]")
_SUSPECT_IN_LINES: Final = re.compile(f"[\x00-\x09\x0b-\x1f\x7f{_SUSPECT_ANYWHERE}]")

# What binds emoji together (joiner, presentation selectors, skin tones). Terminals disagree on the width of the result,
# so the sequence falls apart into its emoji, which is Unicode's own fallback. Long runs hide data: those are shown.
_EMOJI_GLUE: Final = re.compile("[\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]+")
_MAX_GLUE: Final = 3
_KEYCAP_BASES: Final = frozenset("#*0123456789")
_EMOJI_PUNCTUATION: Final = frozenset("\u203c\u2049\u3030\u303d")


def clean(value: str, *, limit: int = LIMIT, multiline: bool = False) -> str:
    """Make a string from outside inert on a terminal. Never raises; cleaning twice changes nothing more.

    C0 controls and DEL become control pictures (U+2400 to U+2421); C1, bidi controls, zero-width characters,
    surrogates, private use, noncharacters and separators become U+FFFD; at most `MAX_MARKS` marks stay in a row.

    Args:
        value: Any string.
        limit: Longest result, in characters; a longer text ends in ``…``.
        multiline: Keep newlines and expand tabs, instead of showing both as pictures.

    Returns:
        The text to show, at most `limit` characters long.
    """
    if len(value) <= limit and _is_harmless(value, multiline):
        return value
    if limit <= 0:
        return ""
    cut = len(value) > limit
    if cut:
        value = value[:limit]
    if multiline:
        value = value.replace("\r\n", "\n").expandtabs(_TAB)
    value = _EMOJI_GLUE.sub(_loosen_emoji, value)
    value = (_DANGEROUS_IN_LINES if multiline else _DANGEROUS).sub(_picture, value)
    if _MARKS.search(value):
        value = _limit_marks(value)
    if cut or len(value) > limit:
        value = value[: limit - 1] + _ELLIPSIS
    return value


def clean_bytes(data: bytes, *, limit: int = LIMIT, multiline: bool = False) -> str:
    """Decode UTF-8 (U+FFFD for what is not) and `clean` it; reads no more bytes than `limit` characters need."""
    return clean(data[: max(limit, 0) * 4 + 4].decode("utf-8", "replace"), limit=limit, multiline=multiline)


def is_clean(text: str, *, multiline: bool = False) -> bool:
    """Whether `clean` would leave the text as it is, its length aside."""
    return _is_harmless(text, multiline) or clean(text, limit=len(text), multiline=multiline) == text


def fit(text: str, width: int, align: Literal["left", "right"] = "left") -> str:
    """Pad or cut a clean text to exactly `width` terminal cells.

    Args:
        text: One line of clean text.
        width: Cells wanted; wide glyphs count two, marks none.
        align: The side the text stands on when it is shorter.

    Returns:
        A string of exactly `width` cells, ending in ``…`` when something was cut; empty for a width of 0 or less.
    """
    if width <= 0:
        return ""
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        text = split_text(text, width - 1)[0] + _ELLIPSIS
        size = cell_len(text)
    if size == width:
        return text
    padding = " " * (width - size)
    return padding + text if align == "right" else text + padding


def pretty_json(value: Any, *, limit: int = PREVIEW_LIMIT, size: int | None = None) -> str:
    r"""Indented JSON of a decoded value, for people.

    What is dangerous on a terminal appears as its JSON escape (``\u001b``, ``\u202e``), so that nothing is hidden.

    Args:
        value: What `json.loads` returned; anything else in it is shown as its `str`.
        limit: Characters shown; a last line then tells what is missing.
        size: Bytes of the message body, where known: the last line then gives this number, which costs nothing, and
            else the bytes that follow, which takes encoding the whole value (16 ms for 1 MB).
    """
    encoder = json.JSONEncoder(ensure_ascii=False, indent=2, separators=(",", ": "), default=str)
    parts: list[str] = []
    length = 0
    note = ""
    try:
        for part in encoder.iterencode(value):
            parts.append(part)
            length += len(part)
            if length > limit:
                break
        shown = "".join(parts)
        if length > limit:
            shown = shown[:limit]
            cut_here = f"\n{_ELLIPSIS} cut here; {size:,} bytes in all" if size is not None else ""
            note = cut_here or _more_bytes(_bytes_after(shown, value))
    except (RecursionError, ValueError) as error:
        # json.loads accepts deeper nesting than json.dumps; a value that contains itself is a ValueError.
        reason = "nested too deeply" if isinstance(error, RecursionError) else clean(str(error), limit=200)
        return f"(cannot show this JSON: {reason})"
    shown = _DANGEROUS_IN_LINES.sub(_json_escape, shown)
    return clean(shown, limit=len(shown) * 2, multiline=True) + note


def escape_json(text: str) -> str:
    r"""JSON text with what `clean` would change in it as JSON escapes (``\u202e``): the same value, inert, nothing hidden.

    Args:
        text: A string of JSON with its quotes, or JSON whose only white space is newlines and blanks.
    """
    if _is_harmless(text, multiline=True):
        return text
    text = _DANGEROUS_IN_LINES.sub(_json_escape, text)
    return _MARK_RUN.sub(_escape_marks, text) if _MARKS.search(text) else text


def body_preview(body: bytes, data: Any = None, *, limit: int = PREVIEW_LIMIT) -> str:
    """What a message body says, for people: JSON, else text, else a hex dump.

    Args:
        body: The body as it came.
        data: The body decoded from JSON, or None when it is not JSON (or is JSON's null).
        limit: Characters of JSON and bytes of text shown at most (a hex dump shows a sixteenth of it); the last line
            says how many bytes are missing.
    """
    if data is not None:
        return pretty_json(data, limit=limit, size=len(body))
    if not body:
        return "(empty)"
    head = body[:limit]
    text = _as_text(head, whole=len(body) <= limit)
    if text is None:
        head = body[: max(limit // 16, 16)]
        text = hex_dump(head)
    else:
        text = clean(text, limit=max(len(text) * _TAB, 1), multiline=True)
    return text + (_more_bytes(len(body) - len(head)) if len(body) > len(head) else "")


def hex_dump(data: bytes, *, columns: int = 8) -> str:
    """Offset, bytes and printable ASCII of `data`, `columns` bytes a line (8 fit a pane of 46 cells)."""
    lines = []
    for start in range(0, len(data), columns):
        row = data[start : start + columns]
        ascii_part = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<{columns * 3 - 1}}  {ascii_part}")
    return "\n".join(lines)


def _is_harmless(text: str, multiline: bool) -> bool:
    # The first test alone passes most text, in 0.1 us; the search takes 1 to 2 us per 160 characters.
    if text.isascii() and text.isprintable():
        return True
    return not (_SUSPECT_IN_LINES if multiline else _SUSPECT).search(text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else _REPLACEMENT


def _loosen_emoji(match: re.Match[str]) -> str:
    text, start, end = match.string, match.start(), match.end()
    if end - start > _MAX_GLUE or start == 0:
        return _REPLACEMENT
    before = text[start - 1]
    if before in _KEYCAP_BASES and text[end : end + 1] == "\u20e3":
        return ""
    is_symbol = before in _EMOJI_PUNCTUATION or (before > "\x7f" and unicodedata.category(before)[0] == "S")
    return "" if is_symbol else _REPLACEMENT


def _limit_marks(text: str) -> str:
    """Cut runs of zero-width marks; a mark that starts a line gets a base, or it would sit on a neighbouring cell."""
    kept: list[str] = []
    run = 0
    previous = "\n"
    for character in text:
        if character == "\n" or get_character_cell_size(character):
            run = 0
            kept.append(character)
        else:
            run += 1
            if previous == "\n":
                kept.append(_MARK_CARRIER)
            if run <= MAX_MARKS:
                kept.append(character)
            elif run == MAX_MARKS + 1:
                kept.append(_REPLACEMENT)
        previous = character
    return "".join(kept)


def _escape_marks(match: re.Match[str]) -> str:
    run, kept = 0, list[str]()
    for character in match[0]:
        run = 0 if get_character_cell_size(character) else run + 1
        kept.append(character if run <= MAX_MARKS else _json_escapes(character))
    return "".join(kept)


def _json_escape(match: re.Match[str]) -> str:
    return _json_escapes(match[0])


def _json_escapes(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _as_text(head: bytes, *, whole: bool) -> str | None:
    """The head of a body as text, or None when it is not UTF-8 or is mostly controls."""
    try:
        text = codecs.getincrementaldecoder("utf-8")("strict").decode(head, final=whole)
    except UnicodeDecodeError:
        return None
    controls = sum(text.count(chr(code)) for code in range(0x20) if code not in {0x09, 0x0A, 0x0D})
    return None if "\x00" in text or controls * 10 > len(text) else text


def _bytes_after(shown: str, value: Any) -> int:
    """Bytes of the JSON text of `value` that follow its indented beginning `shown`, indentation not counted."""
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ": "), default=str)
    # JSON escapes its own newlines, so every newline here is indentation.
    return _utf8_size(compact) - _utf8_size(re.sub(r"\n *", "", shown))


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _more_bytes(count: int) -> str:
    return f"\n{_ELLIPSIS} {count:,} more byte{'' if count == 1 else 's'}"
