"""Names: valid, injective, parsed back, and never an answer from the wrong place."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from patterns import InvalidName, Names, names
from patterns.names import Entry, Place, filters_overlap, is_literal, subject_matches, topic_filters

ids = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?", fullmatch=True)
orgs = st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True).filter(
    lambda org: org not in names._RESERVED_ORGS
)
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
types = st.lists(tokens, min_size=1, max_size=8).map(".".join)
long_types = st.lists(st.integers(1, 60).map("t".__mul__), min_size=1, max_size=8).map(".".join)
subscriptions = st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True)
filters = st.builds(
    lambda parts, tail: ".".join([*parts, *tail]),
    st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=4),
    st.sampled_from([[">"], ["a"], ["*"]]),
)
entries = st.builds(
    Entry,
    st.sampled_from(names.KINDS),
    ids,
    st.integers(0, 2**63),
    st.integers(0, 2**63),
)

STREAM_NAME = re.compile(r"[A-Z0-9_-]{1,255}")
"""No space, dot, wildcard, slash: what a stream name must not hold."""

KEY = re.compile(r"[-/_=.A-Za-z0-9]+")
"""A key of a key-value bucket (ADR-8); it must not begin or end with a dot either."""


def streams(of: Names, agent: str, role: str) -> list[str]:
    buckets = (f"KV_{of.ledger_bucket}", f"KV_{of.receipts_bucket}")
    return [of.inbox_stream(agent), of.tasks_stream(role), of.events_stream, of.dlq_stream, *buckets]


# -- what is accepted


@pytest.mark.parametrize("value", ["a", "7", "back-end_1", "a" * 64, "a--b", "a__b"])
def test_an_id_is_accepted(value):
    assert names.agent_id(value) == names.role_id(value) == value
    assert names.is_agent_id(value)


@pytest.mark.parametrize(
    "value",
    ["", "A", "-a", "a-", "_a", "a_", "a.b", "a b", "a*", ">", "ä", "a\n", "\na", "a" * 65, "a/b", None, 7, "a\x00"],
)
def test_an_id_is_refused(value):
    for check in (names.agent_id, names.role_id, Names().inbox_stream, Names().inbox_durable, Names().tasks_stream):
        with pytest.raises(InvalidName):
            check(value)
    with pytest.raises(InvalidName):
        Names().task_subject(value, "t")


@pytest.mark.parametrize("value", ["a", "a.b", "A-b_9.c", ".".join("abcdefgh")])
def test_a_type_is_accepted(value):
    assert names.dotted(value) == names.topic_filter(value) == value


@pytest.mark.parametrize(
    "value",
    ["", ".", "a.", ".a", "a..b", "a b", "*", "a.*", ">", "a.>", "ä", "a\n", "a\x00b", ".".join("abcdefghi"), None],
)
def test_a_type_is_refused(value):
    with pytest.raises(InvalidName):
        names.dotted(value)
    of = Names()
    for build in (of.event_subject, lambda t: of.inbox_subject("a", t), lambda t: of.rpc_subject("a", t)):
        with pytest.raises(InvalidName):
            build(value)


@pytest.mark.parametrize("value", ["*", ">", "a.*", "*.a", "a.>", "*.>", ".".join("abcdefg") + ".>"])
def test_a_topic_filter_is_accepted(value):
    assert names.topic_filter(value) == value


@pytest.mark.parametrize("value", ["", "a.>.b", ">.a", "a.*b", "a>", "a..*", "a .*", ".".join("abcdefgh") + ".>", None])
def test_a_topic_filter_is_refused(value):
    with pytest.raises(InvalidName):
        names.topic_filter(value)


@pytest.mark.parametrize("value", ["acme", "a-b", "9", "a" * 32])
def test_an_org_is_accepted(value):
    assert Names(value).org == value


@pytest.mark.parametrize("value", ["", "a_b", "Acme", "-a", "a" * 33, "a.b", "*", *sorted(names._RESERVED_ORGS)])
def test_an_org_is_refused(value):
    with pytest.raises(InvalidName):
        Names(value)


@pytest.mark.parametrize("value", ["a", "A/b=c_-9", "x" * 128])
def test_a_task_id_is_accepted(value):
    assert names.task_id(value) == names.message_id(value) == value


@pytest.mark.parametrize("value", ["", "a.b", "a b", "x" * 129, "ä", "a*", "a\n", None])
def test_a_task_id_is_refused(value):
    with pytest.raises(InvalidName):
        names.task_id(value)


@pytest.mark.parametrize("value", ["", "a b", "x" * 129, "ä", "a\r\nb", None])
def test_a_message_id_is_refused(value):
    with pytest.raises(InvalidName):
        names.message_id(value)


@pytest.mark.parametrize("value", ["my-events", "Events", "", "a_b", "a.b", "x" * 33])
def test_a_subscription_name_is_refused(value):
    with pytest.raises(InvalidName):
        Names().subscription_durable("agent", value)


def test_a_subject_has_a_limit():
    of = Names("o" * 32)
    assert len(of.inbox_subject("a" * 64, "t" * 145)) == 256
    for build in (
        lambda: of.inbox_subject("a" * 64, "t" * 146),
        lambda: of.task_subject("a" * 64, "t" * 256),
        lambda: of.event_subject("t" * 256),
        lambda: of.rpc_subject("a", "t" * 256),
    ):
        with pytest.raises(InvalidName, match="256"):
            build()


# -- one name, one thing


@given(orgs, orgs, ids, ids, ids, ids)
def test_co5_no_two_things_share_a_stream(org, other_org, agent, role, other_agent, other_role):
    one = streams(Names(org), agent, role)
    other = streams(Names(other_org), other_agent, other_role)
    assert len(set(one)) == len(one)
    assert all(STREAM_NAME.fullmatch(name) for name in one)
    for position, name in enumerate(one):
        same = (
            org == other_org and (agent, role)[position] == (other_agent, other_role)[position]
            if position < 2
            else org == other_org
        )
        assert (name == other[position]) == same
        assert name not in other[:position] + other[position + 1 :]


WORDS = ("inbox", "tasks", "events", "redeliver", "dlq", "agents", "roles", "kv", "obj", "receipts", "a")
LOOK_ALIKES = (*WORDS, *(one + between + other for one in WORDS for other in WORDS for between in "_-"))


def is_org(value: str) -> bool:
    try:
        return Names(value).org == value
    except InvalidName:
        return False


def test_co5_names_made_of_the_librarys_own_words_share_no_stream_and_no_subject():
    """What random ids hardly ever hit: an org or an agent that is called like a part of somebody else's stream."""
    found = [None, *filter(is_org, LOOK_ALIKES)]
    owners: dict[str, tuple[str | None, str]] = {}
    for org in found:
        of = Names(org)
        owned = {of.events_stream: "events", of.dlq_stream: "dlq", f"KV_{of.ledger_bucket}": "ledger"}
        owned[f"KV_{of.receipts_bucket}"] = "receipts"
        for name in LOOK_ALIKES:
            owned |= {of.inbox_stream(name): f"inbox of {name}", of.tasks_stream(name): f"tasks of {name}"}
        assert len(owned) == 4 + 2 * len(LOOK_ALIKES)
        for stream, thing in owned.items():
            assert owners.setdefault(stream, (org, thing)) == (org, thing), stream
    taken = [(org, subject) for org in found for subject in fleet_subjects(Names(org))]
    for org, mine in taken:
        for subject in fleet_subjects(Names()):
            assert org is None or not filters_overlap(mine, subject), (org, mine, subject)


def fleet_subjects(of: Names) -> list[str]:
    kinds = (("inbox", "a"), ("tasks", "a"), ("events", ""), ("dlq", ""))
    return [subject for kind, name in kinds for subject in of.stream_subjects(kind, name)]


@given(orgs, orgs, ids, ids)
def test_co5_streams_of_two_orgs_take_no_subject_of_each_other(org, other_org, agent, role):
    assume(org != other_org)
    one, other = Names(org), Names(other_org)
    kinds = (("inbox", agent), ("tasks", role), ("events", ""), ("dlq", ""))
    for kind, name in kinds:
        for other_kind, other_name in kinds:
            for mine in one.stream_subjects(kind, name):
                for theirs in other.stream_subjects(other_kind, other_name):
                    assert not filters_overlap(mine, theirs), (mine, theirs)


@given(orgs, ids, ids)
def test_a_stream_parses_back(org, agent, role):
    of = Names(org)
    assert of.place_of(of.inbox_stream(agent)) == Place("inbox", agent)
    assert of.place_of(of.tasks_stream(role)) == Place("tasks", role)
    assert of.place_of(of.events_stream) == Place("events", "")
    assert of.place_of(of.dlq_stream) == Place("dlq", "")
    assert of.place_of(f"KV_{of.ledger_bucket}") == Place("ledger", "")
    assert of.place_of(f"KV_{of.receipts_bucket}") == Place("receipts", "")


@given(orgs, orgs, ids, ids)
def test_co5_a_stream_of_another_org_is_not_ours(org, other_org, agent, role):
    assume(org != other_org)
    for name in streams(Names(org), agent, role):
        assert Names(other_org).place_of(name) is None


@pytest.mark.parametrize(
    "name", ["INBOX_", "INBOX_Ab", "inbox_a", "INBOX_-A", "TASKS", "OTHER", "EVENTS2", "KV_OTHER", ""]
)
def test_a_foreign_stream_is_nobodys(name):
    assert Names().place_of(name) is None


@given(ids, subscriptions, ids, subscriptions)
def test_co8_a_durable_parses_back_and_is_unique(agent, name, other_agent, other_name):
    of = Names()
    durable = of.subscription_durable(agent, name)
    assert of.subscription_of(durable) == (agent, name)
    same = (agent, name) == (other_agent, other_name)
    assert (durable == of.subscription_durable(other_agent, other_name)) == same


@given(ids, st.text("ab-_", min_size=1, max_size=6))
def test_co8_whatever_name_is_accepted_parses_back(agent, name):
    of = Names()
    try:
        durable = of.subscription_durable(agent, name)
    except InvalidName:
        return
    assert of.subscription_of(durable) == (agent, name)


@pytest.mark.parametrize("durable", ["", "-", "agent", "Agent-events", "agent-Events", "-events", "agent-my_events"])
def test_a_foreign_durable_is_nobodys(durable):
    assert Names().subscription_of(durable) is None


# -- subjects


@given(orgs, ids, ids, types, subscriptions)
def test_co7_every_subject_is_one_to_publish_to_and_lands_where_it_should(org, agent, role, type, subscription):
    of = Names(org)
    entry = Entry("inbox", agent, 1, 2)
    stored = {
        of.inbox_subject(agent, type): of.stream_subjects("inbox", agent),
        of.task_subject(role, type): of.stream_subjects("tasks", role),
        of.event_subject(type): of.stream_subjects("events"),
        of.redeliver_subject(agent, subscription, type): of.stream_subjects("events"),
        of.dlq_subject(entry): of.stream_subjects("dlq"),
    }
    calls = [of.rpc_subject(agent, type), of.role_rpc_subject(role, type)]
    every = [pattern for patterns in stored.values() for pattern in patterns]
    for subject, patterns in stored.items():
        assert is_literal(subject)
        assert len(subject) <= 256
        assert [p for p in set(every) if subject_matches(p, subject)] == [
            p for p in patterns if subject_matches(p, subject)
        ]
        assert any(subject_matches(pattern, subject) for pattern in patterns)
    for subject in calls:
        assert is_literal(subject)
        assert len(subject) <= 256
        assert not any(subject_matches(pattern, subject) for pattern in every)
        assert sum(subject_matches(pattern, subject) for pattern in of.rpc_wildcards(agent, role)) == 1


@given(orgs, ids, long_types, subscriptions)
def test_co7_a_subject_beyond_256_characters_is_refused(org, name, type, subscription):
    of = Names(org)
    for build in (
        lambda: of.inbox_subject(name, type),
        lambda: of.task_subject(name, type),
        lambda: of.rpc_subject(name, type),
        lambda: of.role_rpc_subject(name, type),
        lambda: of.redeliver_subject(name, subscription, of.topic_of(of.event_subject(type))),
    ):
        try:
            subject = build()
        except InvalidName:
            assert len(type) > 50
        else:
            assert is_literal(subject)
            assert len(subject) <= 256


@given(orgs, ids, types, subscriptions)
def test_the_type_is_read_back_from_every_subject(org, name, type, subscription):
    of = Names(org)
    for subject in (
        of.inbox_subject(name, type),
        of.task_subject(name, type),
        of.rpc_subject(name, type),
        of.role_rpc_subject(name, type),
        of.event_subject(type),
        of.redeliver_subject(name, subscription, type),
    ):
        assert of.type_of(subject) == type
    assert of.topic_of(of.event_subject(type)) == type
    assert of.topic_of(of.redeliver_subject(name, subscription, type)) == type


def test_the_type_of_a_foreign_subject_is_its_last_part():
    assert Names().type_of("some.where.else") == "else"
    assert Names("acme").type_of("agents.a.inbox") == "inbox"


# -- dead letters and keys


@given(orgs, entries)
def test_co8_an_entry_parses_back(org, entry):
    of = Names(org)
    assert Entry.parse(str(entry)) == entry
    assert of.entry_of(of.dlq_subject(entry)) == entry
    assert is_literal(of.dlq_subject(entry))
    assert subject_matches(of.dlq_filter(), of.dlq_subject(entry))
    assert subject_matches(of.dlq_filter(entry.kind, entry.name), of.dlq_subject(entry))


@given(entries, entries, st.integers(1, 99), st.integers(1, 99))
def test_co8_entries_and_receipts_are_unique(one, other, generation, other_generation):
    of = Names()
    assert (of.dlq_subject(one) == of.dlq_subject(other)) == (one == other)
    assert (of.resolved_key(one) == of.resolved_key(other)) == (one == other)
    same = (one, generation) == (other, other_generation)
    assert (of.replay_key(one, generation) == of.replay_key(other, other_generation)) == same
    assert of.replay_key(one, generation) != of.resolved_key(other)
    assert KEY.fullmatch(of.replay_key(one, generation))
    assert KEY.fullmatch(of.resolved_key(one))
    for fate in ("completed", "failed"):
        assert KEY.fullmatch(of.outcome_key(one, fate))
        assert (of.outcome_key(one, fate) == of.outcome_key(other, "failed")) == (one == other and fate == "failed")
        assert of.outcome_key(one, fate) not in (of.resolved_key(other), of.replay_key(other, other_generation))


@pytest.mark.parametrize(
    "text",
    ["", "inbox.ceo", "inbox.ceo.1", "inbox.ceo.1-", "inbox.ceo.-f", "inbox.ceo.1-F", "other.ceo.1-f", "inbox..1-f"],
)
def test_what_is_no_entry_is_refused(text):
    with pytest.raises(InvalidName):
        Entry.parse(text)


@given(ids, st.text(min_size=1, max_size=40), ids, st.text(min_size=1, max_size=40))
def test_a_ledger_key_is_valid_and_unique_whatever_the_id(role, task, other_role, other_task):
    key = Names.ledger_key(role, task)
    assert KEY.fullmatch(key)
    assert key.count(".") == 1
    assert (key == Names.ledger_key(other_role, other_task)) == ((role, task) == (other_role, other_task))


def test_a_ledger_key_can_be_made_of_a_broken_id():
    assert KEY.fullmatch(Names.ledger_key("r", "\ud800"))


# -- filters


@given(filters, filters, st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(".".join))
def test_filters_that_do_not_overlap_share_no_subject(one, other, subject):
    if subject_matches(one, subject) and subject_matches(other, subject):
        assert filters_overlap(one, other)
    assert filters_overlap(one, other) == filters_overlap(other, one)
    assert filters_overlap(one, one)


@given(filters, filters)
def test_filters_that_overlap_share_a_subject(one, other):
    if filters_overlap(one, other):
        left, right = one.split("."), other.split(".")
        length = max(len(left), len(right))
        common = []
        for position in range(length):
            pair = [t[min(position, len(t) - 1)] if t[-1] == ">" else t[position] for t in (left, right)]
            common.append(next((token for token in pair if token not in ("*", ">")), "a"))
        subject = ".".join(common)
        assert subject_matches(one, subject)
        assert subject_matches(other, subject)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.*", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a.b", True),
        ("*", "a.b", False),
        ("a.*.c", "a.b.c", True),
        ("A", "a", False),
    ],
)
def test_subject_matches_as_nats_does(pattern, subject, expected):
    assert subject_matches(pattern, subject) is expected


def test_overlapping_topics_are_named():
    assert topic_filters(("a.*", "b.>")) == ("a.*", "b.>")
    with pytest.raises(InvalidName, match=r"'a\.\*' and '\*\.b'"):
        topic_filters(("a.*", "c", "*.b"))


@pytest.mark.parametrize("subject", ["", ".", "a.", "a..b", "a.*", ">", "a b", "a\tb", "a\n", "a\x00", "a.*.b"])
def test_what_cannot_be_published_to(subject):
    assert not is_literal(subject)


def test_a_topic_leaves_room_for_its_redelivery_to_the_longest_subscription():
    for org in (None, "o" * 32):
        of = Names(org)
        longest = max(n for n in range(1, 256) if accepted(of, "t" * n))
        assert len(of.redeliver_subject("a" * 64, "n" * 32, "t" * longest)) == 256
        with pytest.raises(InvalidName, match=f"longer than {longest}"):
            of.event_subject("t" * (longest + 1))


def accepted(of, topic):
    """Whether one may broadcast to the topic."""
    try:
        return bool(of.event_subject(topic))
    except InvalidName:
        return False
