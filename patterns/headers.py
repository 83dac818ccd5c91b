"""Header values and times as they stand on the wire."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_PLAIN = re.compile(r"[!#$&-~]*")
_UNENCODED = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '%"')


def encodable(text: str) -> str:
    """`text` with `?` for lone surrogates, such as file names from `os.fsdecode` hold."""
    return text.encode("utf-8", "replace").decode()


def escape(value: str) -> str:
    """Percent-encode a header value."""
    # Most need nothing, and `quote` takes ten times as long to say so.
    if _PLAIN.fullmatch(value):
        return value
    return urllib.parse.quote(value, safe=_UNENCODED, errors="surrogatepass")


def unescape(value: str) -> str:
    """Undo `escape`; text that was never encoded is returned as it is as far as it can be."""
    if "%" not in value:
        return value
    try:
        return urllib.parse.unquote(value, errors="surrogatepass")
    except UnicodeDecodeError:
        return urllib.parse.unquote(value, errors="replace")


def header_size(headers: Mapping[str, str]) -> int:
    """Bytes of a header block on the wire: the version line, one line a header, the blank line."""
    if not headers:
        return 0
    text = "".join(headers) + "".join(headers.values())
    return 12 + 4 * len(headers) + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def number(text: str, default: int = 0) -> int:
    """The number a header holds, or the default for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else default


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """Read RFC 3339 with up to nanoseconds (cut to microseconds); raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    micros = (match[2] or "0").ljust(6, "0")[:6]
    if match[3] in "Zz":
        return datetime.fromisoformat(f"{match[1].upper()}.{micros}+00:00")
    return datetime.fromisoformat(f"{match[1].upper()}.{micros}{match[3]}").astimezone(UTC)


def parse_time_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    zone = "+00:00" if match[3] in "Zz" else match[3]
    seconds = int(datetime.fromisoformat(f"{match[1].upper()}{zone}").timestamp())
    return seconds * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))


def time_of_ns(ns: int) -> datetime:
    """The moment of a nanosecond count, cut to microseconds."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC) + timedelta(microseconds=ns % 1_000_000_000 // 1000)
