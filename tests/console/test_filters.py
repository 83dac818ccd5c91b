from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.filters import FIELDS, Filter, FilterError, Record, parse, parse_duration, parse_size

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

LETTER = Record(
    seq=1042,
    subject="tasks.backend.code.feature",
    type="code.feature",
    kind="tasks",
    name="backend",
    agent="backend-1",
    reason="max-deliver",
    error="TimeoutError: model did not answer",
    id="feat-12",
    correlation_id="7f3a91",
    attempts=3,
    replays=1,
    at=NOW - timedelta(minutes=30),
    size=70_000,
    headers={"X-Tenant": "Acme Corp", "ce-type": "code.feature"},
    data={
        "task": {"id": 42, "ref": "042", "tags": ["urgent", "db"], "empty": [], "items": [{"n": 1.5}]},
        "done": False,
        "note": None,
        "a.b": "dotted",
        "spec": "rate limiting, please",
    },
    text='{"spec":"rate limiting, please"}',
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", True),
        ("   ", True),
        # Bare words: anywhere, any case.
        ("TIMEOUT", True),
        ("feat-12", True),
        ("7f3a", True),
        ("limiting", True),
        ("nowhere", False),
        ("timeout nowhere", False),
        ("timeout,nowhere", True),
        ('"rate limiting"', True),
        ('"limiting rate"', False),
        ("rate*please", True),
        ('"rate*please"', False),
        ("!nowhere", True),
        ("!timeout", False),
        ("!!timeout", True),
        ("12:03", False),
        ('"agent:ceo"', False),
        ('"TimeoutError: model"', True),
        # Agents and roles.
        ("agent:backend-1", True),
        ("agent:backend", False),
        ("agent:backend-*", True),
        ("agent:BACKEND-1", False),
        ("Agent:backend-1", True),
        ("agent:*-1", True),
        ("agent:b*k*d-1", True),
        ("agent:ceo,backend-*", True),
        ('agent:"backend-*"', False),
        ("!agent:ceo", True),
        ("!agent:ceo,backend-1", False),
        ("role:backend", True),
        ("role:back*", True),
        ("role:backend-1", False),
        ("kind:tasks", True),
        ("kind:inbox,events", False),
        ("kind:Tasks", True),
        # Subjects.
        ("subject:tasks.*.code.>", True),
        ("subject:tasks.>", True),
        ("subject:tasks.*", False),
        ("subject:>", True),
        ("subject:tasks.backend.code.feature.>", False),
        ("subject:*.*.*.*", True),
        ("subject:*.*.*", False),
        ("subject:code.feat", True),
        ("subject:code.review", False),
        # Exact, glob, part and beginning.
        ("type:code.*", True),
        ("type:code", False),
        ("reason:max-deliver,rejected", True),
        ("reason:Max-*", True),
        ("reason:max", False),
        ('error:"did not answer"', True),
        ("error:timeout", True),
        ("error:refused", False),
        ("correlation:7f3", True),
        ("correlation:f3a", False),
        ("correlation:*", True),
        ('correlation:""', False),
        # Numbers.
        ("attempts:3", True),
        ("attempts:=3", True),
        ("attempts:>3", False),
        ("attempts:>=3", True),
        ("attempts:<4", True),
        ("attempts:<=2", False),
        ("attempts:2..5", True),
        ("attempts:4..5", False),
        ("replays:0", False),
        ("replays:1,2", True),
        ("seq:1000..2000", True),
        ("seq:..1041", False),
        ("seq:1042..", True),
        ("seq:5,7,1042", True),
        ("seq:>1042", False),
        # Ages and sizes.
        ("age:>10m", True),
        ("age:>30m", False),
        ("age:>=30m", True),
        ("age:>1h", False),
        ("age:<1h30m", True),
        ("age:10m..1h", True),
        ("age:1h..2h", False),
        ("age:>2h,<45m", True),
        ("size:>64k", True),
        ("size:>64KB", True),
        ("size:<=0.1m", True),
        ("size:1m..2g", False),
        ("size:70000", True),
        # Headers.
        ("hdr.X-Tenant:acme", True),
        ("hdr.x-tenant:ACME", True),
        ("hdr.X-Tenant:acme*", True),
        ("hdr.X-Tenant:corp*", False),
        ("hdr.X-Other:*", False),
        ("!hdr.X-Other:*", True),
        # Bodies.
        ("body.task.id:42", True),
        ("body.task.id:4", False),
        ("body.task.id:>41", True),
        ("body.task.id:40..50", True),
        ("body.task.id:43,42", True),
        ("body.task.ref:42", False),
        ("body.task.ref:042", True),
        ("body.task.ref:>41", True),
        ("body.task.tags:urgent", True),
        ("body.task.tags.1:db", True),
        ("body.task.tags.7:db", False),
        ("body.task.items.0.n:1.5", True),
        ("body.task.items.0.n:>2", False),
        ("body.task:*", True),
        ("body.task:x", False),
        ("body.done:false", True),
        ("body.note:null", True),
        ("body.missing:*", False),
        ("body.spec.more:*", False),
        ('body."a.b":dotted', True),
        ("body.spec:rate*", True),
        ('body.spec:"rate limiting, please"', True),
        ("body.spec:>1", False),
        ("reason:max-deliver agent:backend-* !error:refused age:>10m", True),
    ],
)
def test_what_a_filter_selects(expression: str, expected: bool) -> None:
    assert parse(expression, now=NOW).matches(LETTER) is expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("bogus:1", "unknown field 'bogus'; known: agent role kind subject"),
        ("agent.x:1", "unknown field 'agent.x'"),
        ("http://host", "quote it"),
        ('error:"did not', "unbalanced quote at character 7"),
        ('"', "unbalanced quote"),
        ("!", "'!' inverts"),
        ("! word", "'!' inverts"),
        ("agent:", "empty value in 'agent:'"),
        ("reason:a,", "empty value"),
        ("reason:,a", "empty value"),
        ("a,,b", "empty value"),
        ('""', "a word needs a character"),
        ("*", "a word needs a character"),
        ("agent:!ceo", "!agent:ceo"),
        ("kind:queue", "inbox, tasks, events"),
        ("subject:a*.b", "whole token"),
        ("subject:>.b", "whole token"),
        ("subject:a..*", "whole token"),
        ("attempts:many", "expected a whole number like 3, >3, <=3 or 2..5"),
        ("attempts:-1", "expected a whole number"),
        ("attempts:>", "expected a whole number"),
        ("attempts:5..2", "runs backwards"),
        ("replays:..", "expected a whole number"),
        ("seq:1-5", "100..200"),
        ("seq:" + "9" * 5000, "expected a sequence"),
        ("age:>10", "expected a duration like >10m"),
        ("age:>10x", "expected a duration"),
        ("age:10m", "expected a duration like >10m"),
        ("age:>999999999w", "beyond the calendar"),
        ("size:>64q", "expected a size like >64k"),
        ("hdr:x", "hdr.X-Tenant:acme"),
        ("hdr.:x", "hdr needs a name"),
        ("body.a..b:1", "body needs a name"),
        ("body.n:>x", "expected a number"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_expected(expression: str, said: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(expression, now=NOW)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_unknown_field_error_names_every_field() -> None:
    with pytest.raises(FilterError) as caught:
        parse("nope:1")
    assert all(name in str(caught.value) for name in FIELDS)


def test_an_inbox_belongs_to_its_agent_and_not_to_a_role() -> None:
    letter = Record(kind="inbox", name="ceo", agent="devops")
    assert parse("agent:ceo").matches(letter)
    assert parse("agent:devops").matches(letter)
    assert not parse("role:ceo").matches(letter)
    assert not parse("agent:ceo").matches(Record(kind="events", name="ceo"))


def test_what_is_unknown_is_never_selected_by_number_or_age() -> None:
    blank = Record()
    for expression in ("seq:>0", "seq:..9", "age:>1s", "age:<1d", "body.x:*", "agent:*", "type:*", "correlation:*"):
        assert not parse(expression, now=NOW).matches(blank), expression
        assert parse("!" + expression, now=NOW).matches(blank), expression
    for expression in ('reason:""', 'correlation:""', 'error:""'):
        assert parse(expression).matches(blank), expression


def test_emptiness_is_said() -> None:
    assert parse("  \t").is_empty
    assert parse("").describe() == "everything"
    assert not parse("x").is_empty
    assert parse(" agent:ceo ").text == " agent:ceo "


def test_ages_are_fixed_when_the_filter_is_parsed() -> None:
    narrowed = parse("!agent:ceo age:>10m,1h..2h", now=NOW)
    assert narrowed.describe() == (
        "not agent:ceo and age:>10m,1h..2h "
        "(before 2026-03-01T11:50:00Z or after 2026-03-01T10:00:00Z and before 2026-03-01T11:00:00Z)"
    )
    later = Record(at=NOW - timedelta(minutes=9))
    assert not narrowed.matches(later)
    assert parse("age:>10m", now=NOW) == parse("age:>10m", now=NOW)
    assert parse("age:>10m", now=NOW) != parse("age:>10m", now=NOW + timedelta(seconds=1))


def test_the_clock_is_read_only_without_a_time() -> None:
    assert abs((parse("x").now - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5d", 129_600), ("2w", 1_209_600), ("1H", 3600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "1m ago", "1m-", "\u0661m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected one like"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("512b", 512), ("64k", 65_536), ("1.5MB", 1_572_864), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_hostile_glob_costs_no_more_than_its_length() -> None:
    started = time.perf_counter()
    assert not parse("a*" * 200 + "b").matches(Record(text="a" * 65_536))
    assert time.perf_counter() - started < 1


def test_needs_neither_textual_nor_nats() -> None:
    probe = "import sys, console.filters as f; f.parse('a'); print({'textual', 'nats', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


FRAGMENTS = [*(name.partition(".")[0] + ":" for name in FIELDS), "hdr.A:", "body.a.0:", *'!",:*>.<=\\ ', "..", '""']
FRAGMENTS += ["1", "2..5", "10m", "64k", "ceo", "inbox", "tasks", ">3", "a.b"]
EXPRESSIONS = st.one_of(
    st.text(max_size=40),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=10).map("".join),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab0"), inner, max_size=3)),
    max_leaves=6,
)
WORDS = st.sampled_from(
    ["", "ceo", "backend-1", "code.feature", "a.b", "TimeoutError: x", "max-deliver", "1", "\x1b[31m"]
)
RECORDS = st.builds(
    Record,
    seq=st.none() | st.integers(0, 10),
    subject=WORDS,
    type=WORDS,
    kind=st.sampled_from(["", "inbox", "tasks", "events"]),
    name=WORDS,
    agent=WORDS,
    reason=WORDS,
    error=WORDS,
    correlation_id=WORDS,
    attempts=st.integers(0, 9),
    replays=st.integers(0, 9),
    at=st.none() | st.just(NOW - timedelta(minutes=10)),
    size=st.integers(0, 1 << 21),
    headers=st.dictionaries(st.sampled_from(["A", "a", "B"]), WORDS),
    data=JSON,
    text=st.text(max_size=20),
)


def attempt(expression: str) -> Filter | None:
    try:
        return parse(expression, now=NOW)
    except FilterError:
        return None


@given(EXPRESSIONS, RECORDS)
def test_any_text_is_a_filter_or_a_filter_error(expression: str, item: Record) -> None:
    try:
        narrowed = parse(expression, now=NOW)
    except FilterError as error:
        said = str(error)
        assert said.isprintable()
    else:
        assert narrowed.matches(item) in (True, False)
        assert narrowed.describe()
        assert parse(narrowed.text, now=NOW) == narrowed


@given(EXPRESSIONS, RECORDS)
def test_a_term_and_its_inverse_part_the_items_between_them(expression: str, item: Record) -> None:
    narrowed = attempt(expression)
    if narrowed is None or len(narrowed.terms) != 1:
        return
    inverse = parse("!" + expression.lstrip(), now=NOW)
    assert inverse.matches(item) is not narrowed.matches(item)


@given(st.lists(EXPRESSIONS, min_size=2, max_size=4), RECORDS)
def test_space_is_and(expressions: list[str], item: Record) -> None:
    parsed = [attempt(expression) for expression in expressions]
    if all(parsed):
        together = parse(" ".join(expressions), now=NOW)
        assert together.matches(item) is all(part.matches(item) for part in parsed if part)
