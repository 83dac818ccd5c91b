"""What letters died of, and which of them died alike: one group a place and cause, whatever the numbers in its errors."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from console.text.safe import clean

if TYPE_CHECKING:
    from patterns import DeadLetter

Grouping = Literal["cause", "agent", "subject", "type", "none"]
GROUPINGS: Final[tuple[Grouping, ...]] = ("cause", "agent", "subject", "type", "none")
"""In the order in which a key goes through them."""

LONGEST: Final = 512
"""Characters of an error that are looked at; the library keeps no more of one, other programs may."""
TITLE: Final = 200
"""Characters of a title."""
REMEMBERED: Final = 1 << 15
"""Texts whose folding is remembered: more than a console holds letters, so that grouping all of them again folds none."""

# -- folding

_CODED: Final = (
    r"(?:http/\d(?:\.\d)?"
    r"|http(?:s|[a-z]{0,24}(?:error|exception|status|code|response))?"
    r"|(?:status|response|exit(?:ed)?|return|err(?:or)?)[ _-]?(?:status|code)"
    r"|exited[ ]with[ ](?:status|code)|status|code|errno|error|exit|exited|returncode|signal)"
)
"""Words behind which a number says what happened."""
_CODE: Final = r"(?-i:-?[A-Z]{0,3}-?[0-9]{1,5}) (?![^\W_]|[.,:]\d)"
_HTTP: Final = r"(?:40\d|41[0-8]|42\d|431|451|50\d|51[01]|52\d)"
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY: Final = r"(?:(?:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,?[ ])?"
_CLOCK: Final = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:[ ]?(?:am|pm))?(?:[ ]?(?:z|utc|gmt|[+-]\d\d:?\d\d))?"
_UNIT: Final = r"(?:[nuµμm]?s|secs?|seconds?|mins?|minutes?|hours?|[mhd]|[kmgt]i?b?|bytes?|b|st|nd|rd|th)"

# One look from left to right, the first alternative that fits: whatever is taken is not looked at again. No alternative
# repeats something that repeats, and those that look ahead are bounded, so that the cost is that of the length.
_PARTS: Final = re.compile(
    rf"""
      (?P<url> (?<![\w#]) [a-z][a-z0-9+.-]{{1,15}}:// [^\s'"<>]+ )
    | (?P<time> {_DAY} \d{{1,2}} [ -] {_MONTH} [ -] \d{{2,4}} (?:[ ]{_CLOCK})?
              | {_DAY} {_MONTH} [ ]{{1,2}} \d{{1,2}} [ ] {_CLOCK} (?:[ ]\d{{4}})?
              | \d{{4}}-\d\d-\d\d (?:[t ]{_CLOCK})?
              | {_CLOCK} ) (?![^\W_])
    | (?P<status> {_CODED} [\s:='"#(\[]{{1,4}} (?<!error:[ ]) {_CODE}
                | [^\W\d_]{{0,40}} (?:error|exception):[ ] {_HTTP} (?![^\W_]|[.,:]\d)
                | sqlstate [\s:='"(\[]{{1,4}} [0-9a-z]{{5}} (?![^\W_]) )
    | (?P<mail> [\w.+-]{{1,64}} @ [\w-]{{1,63}} (?:\.[\w-]{{1,63}}){{1,8}} )
    | (?P<uuid> [0-9a-f]{{8}} (?:-[0-9a-f]{{4}}){{3}} -[0-9a-f]{{12}} (?![^\W_]) )
    | (?P<ipv6> (?<![\w\]#]) (?:[0-9a-f]{{0,4}}:){{2,7}} [0-9a-f]{{0,4}} (?:%\w{{1,15}})? (?![\w:]) )
    | (?P<amount> (?:(?<![\w#.])[+-])? (?<![^\W_])
                  (?: 0x[0-9a-f]+ (?![^\W_])
                    | \d{{1,3}} (?:[,_]\d{{3}})+ (?!\d) (?:\.\d+)? (?![^\W_])
                    | (?:\d+(?:\.\d+)?{_UNIT}){{1,4}} (?![^\W_])
                    | \d+ (?:\.\d+)* (?:e[+-]?\d+)? (?![^\W_]) ) )
    | (?P<word> [^\W_]+ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DIGIT: Final = re.compile(r"\d+")
_RUNS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HEX: Final = re.compile(r"(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}")
_JOINED: Final = re.compile(r"#(?:(?:[-_.:/+=~]+|, ?)#)+")
_NEEDLESS: Final = re.compile(r"[\d@]|://|::|[^\W\d_]{16}")
"""What a text has to have for anything in it to be folded."""


def fold(text: str) -> str:
    """A text with all that differs between alike deaths replaced by `#`.

    Folded are numbers with sign, decimals, exponent, thousands separators and unit, lists of them, times and dates, 0x
    addresses, hex of eight digits and more that has a decimal one, UUIDs, ULIDs and other random-looking tokens, IP
    addresses with their port, e-mail addresses, user and query of URLs. Digits within other words are folded and the
    word stays: `feat-12` is `feat-#`, `Http2Error` is `Http#Error`.

    A number that says what happened stays: one of up to five digits behind `HTTP`, `status`, `code`, `errno`, `exit` and
    the like, and behind `error`; after a colon only one that HTTP has for errors. So `HTTP 404` and `HTTP 500` are two
    causes, `ApiError: 429` and `ApiError: 529` too, while `Error: 17 items left` and `Error: 18 items left` are one. What
    cannot be told from a word is a random token of letters only, or with one run of digits: such deaths stay apart.

    Only the first `LONGEST` characters are looked at, each a bounded number of times: a hostile text costs no more than
    an honest one.
    """
    return _fold(text[:LONGEST])


@lru_cache(maxsize=REMEMBERED)
def _fold(text: str) -> str:
    text = " ".join(text.split())
    if not _NEEDLESS.search(text):
        return text
    return _JOINED.sub("#", _PARTS.sub(_part, text))


def _part(match: re.Match[str]) -> str:
    kind, part = match.lastgroup, match[0]
    if kind == "word":
        return _word(part)
    if kind == "status":
        return part
    if kind == "url":
        return _url(part)
    if kind == "ipv6" and not any(character.isdigit() for character in part):
        # `std::bad`, `a::b`: no address without a digit, but perhaps words.
        return part
    return "#"


def _word(word: str) -> str:
    digits = len(_DIGIT.findall(word))
    if not digits:
        random = len(word) >= 16 and _is_random(word, 2.2)
    elif _HEX.fullmatch(word):
        random = True
    elif digits == 1:
        # `K8sAPIError` and `IPv6Error` are names.
        random = len(word) >= 8 and _is_random(word, 2.0)
    else:
        one_case = word in (word.upper(), word.lower())
        random = len(word) >= 5 and (_is_random(word, 2.6) or (len(word) >= 16 and one_case))
    return "#" if random else _DIGIT.sub("#", word)


def _is_random(word: str, limit: float) -> bool:
    """Whether capitals and digits come thicker than in words and in names made of words."""
    return len(word) < limit * len(_RUNS.findall(word))


def _url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    host, slash, path = place.partition("/")
    user, at, host = host.rpartition("@")
    tail = query[len(query.rstrip(").,;]}")) :] if mark else ""
    parts = (scheme, "://", "#@" if user else at, *(_PARTS.sub(_part, each) for each in (host, slash + path)))
    return "".join(parts) + (f"?#{tail}" if mark else "")


# -- causes


def cause_of(letter: DeadLetter) -> str:
    """What it died of, folded so that alike deaths have one cause; its reason where no error was written down."""
    if len(letter.error) + len(letter.error_type) > 2 * LONGEST:
        # Not remembered: the texts of letters that are long gone would be kept.
        return fold(letter.error_text) or letter.reason
    return _cause_of(letter.error_type, letter.error, letter.reason)


@lru_cache(maxsize=REMEMBERED)
def _cause_of(error_type: str, error: str, reason: str) -> str:
    return fold(": ".join(part for part in (error_type, error) if part)) or reason


def cause_id(letter: DeadLetter) -> str:
    """Eight hex digits that name the place and the cause of a death, the same in every process."""
    return _identify(letter.source, cause_of(letter))


def identify(source: str, error_text: str, reason: str) -> str:
    """The `cause_id` of a death in `source`, of an error as it was written or else for a reason."""
    return _identify(source, fold(error_text) or reason)


@lru_cache(maxsize=4096)
def _identify(source: str, cause: str) -> str:
    return hashlib.blake2s(f"{source}\0{cause}".encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


# -- groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Letters that have something in common."""

    key: str
    """Names it among the groups of its grouping, and stays when letters come and go."""
    by: Grouping
    exact: tuple[str, str]
    """What they have in common and what they died of, as it was written: for programs."""
    source: str
    """The first of the two, safe to show."""
    text: str
    """The second of the two, safe to show."""
    letters: tuple[DeadLetter, ...]
    """The newest first; never empty."""
    cause: str = ""
    """Its `cause_id`, if they are grouped by cause."""
    first_at: datetime
    """The first death of any of them, replays and all."""
    last_at: datetime
    """The newest death."""
    deliveries: tuple[int, int]
    """The fewest and the most attempts of one of them."""
    replays: int
    """The most replays of one of them."""
    replayed: int
    """How many of them were replayed."""

    @property
    def newest(self) -> DeadLetter:
        """The letter that died last."""
        return self.letters[0]


def group_letters(letters: Iterable[DeadLetter], by: Grouping = "cause") -> tuple[Group, ...]:
    """Put together what died alike, or of one agent, subject or type; the largest group first, the newest letter first.

    Args:
        letters: In any order; fastest in the order of their sequences.
        by: What they have in common; by `none` all are in one group, without a key.
    """
    key_of = _KEYS[by]
    members: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        key = key_of(letter)
        group = members.get(key)
        if group is None:
            members[key] = [letter]
        else:
            group.append(letter)
    groups = [_group(key, by, found) for key, found in members.items()]
    groups.sort(key=lambda group: (-len(group.letters), group.source, group.text))
    return tuple(groups)


def _group(key: str, by: Grouping, letters: list[DeadLetter]) -> Group:
    letters.sort(key=attrgetter("seq"), reverse=True)
    newest = letters[0]
    first = last = newest.died_at
    fewest = most = newest.deliveries
    replays = replayed = 0
    for letter in letters:
        died, tries = letter.died_at, letter.deliveries
        last = max(last, died)
        first = min(first, letter.first_at or died)
        if tries < fewest:
            fewest = tries
        elif tries > most:
            most = tries
        if letter.replays:
            replayed += 1
            replays = max(replays, letter.replays)
    exact = _title(by, letters)
    return Group(
        key=key,
        by=by,
        exact=exact,
        source=clean(exact[0], limit=TITLE),
        text=clean(exact[1], limit=TITLE),
        letters=tuple(letters),
        cause=cause_id(newest) if by == "cause" else "",
        first_at=first,
        last_at=last,
        deliveries=(fewest, most),
        replays=replays,
        replayed=replayed,
    )


def _title(by: Grouping, letters: Sequence[DeadLetter]) -> tuple[str, str]:
    newest = letters[0]
    if by == "cause":
        kind, error, text = newest.error_type, newest.error, newest.error_text
        # Where all say exactly the same there is nothing to fold.
        same = text and all(letter.error == error and letter.error_type == kind for letter in letters)
        return newest.source, (text if same else cause_of(newest)) or "no reason given"
    causes = Counter(map(cause_of, letters))
    often, *others = (cause for cause, _ in causes.most_common())
    more = f", and {len(others)} more" if others else ""
    return _NAMES[by](newest), (often or "no reason given") + more


_NAMES: Final[Mapping[Grouping, Callable[[DeadLetter], str]]] = MappingProxyType(
    {
        "cause": lambda letter: letter.source,
        "agent": lambda letter: letter.agent or "no agent",
        "subject": lambda letter: letter.subject or "no subject",
        "type": lambda letter: letter.type or "no type",
        "none": lambda _: "",
    }
)
_KEYS: Final[Mapping[Grouping, Callable[[DeadLetter], str]]] = MappingProxyType(
    {
        "cause": lambda letter: f"{letter.source}\n{cause_of(letter)}",
        "agent": lambda letter: f"agent\n{letter.agent}",
        "subject": lambda letter: f"subject\n{letter.subject}",
        "type": lambda letter: f"type\n{letter.type}",
        "none": lambda _: "",
    }
)
