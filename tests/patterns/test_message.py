"""The envelope: what goes in comes out, and what cannot be read says why."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterns import InvalidMessage, InvalidName, Names, current
from patterns.headers import escape, format_time, header_size, parse_time, parse_time_ns, time_of_ns, unescape
from patterns.message import LONGEST_LINEAGE, decode, encode, encode_data, handling
from patterns.stored import parse_headers
from tests.support.fleets import connected

NAMES = Names()
any_text = st.text() | st.text(
    alphabet=st.characters(categories=["Cs", "Cc", "Lu", "Po"], include_characters='%\r\n \t"')
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=12,
)


def over_the_wire(outgoing):
    """Header values as nats-py sends them and as a server gives them back."""
    block = "NATS/1.0\r\n" + "".join(f"{k}: {v.strip()}\r\n" for k, v in outgoing.headers.items()) + "\r\n"
    return parse_headers(block.encode("utf-8")), outgoing.body


def read(headers=None, body=b"", subject="agents.ceo.inbox.note", **options):
    return decode(subject, headers or {}, body, names=NAMES, **options)


# -- headers


@given(any_text)
def test_co6_a_header_value_survives(value):
    assert unescape(escape(value)) == value
    encoded = escape(value)
    assert encoded.isascii()
    assert all(0x21 <= ord(char) < 0x7F and char != '"' for char in encoded)


@given(st.dictionaries(st.from_regex(r"X-[A-Za-z0-9-]{1,20}", fullmatch=True), any_text, max_size=5))
def test_co6_a_callers_headers_survive_the_wire(given):
    headers, body = over_the_wire(encode("note", headers=given))
    message = read(headers, body)
    assert {name: message.headers[name] for name in given} == given


@pytest.mark.parametrize(
    "value", ["a\nb", "50% off %41", " leading and trailing ", "\u2028", "ü", "\ud800", "\x00", "", "%"]
)
async def test_co6_a_header_value_survives_a_server(server, value):
    async with connected(server.url, agents=["ceo"]) as fleet:
        await fleet.inbox("ceo").send("note", headers={"X-Own": value})
        (peeked,) = await fleet.inbox("ceo").peek()
        delivered = await fleet.inbox("ceo").next(20)
        stored = await fleet.jetstream.get("INBOX_CEO", 1)
        assert peeked.headers["X-Own"] == delivered.headers["X-Own"] == value
        assert unescape(stored.headers["X-Own"]) == value


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\nb", "x" * 129])
def test_a_header_name_the_wire_cannot_carry_is_refused(name):
    with pytest.raises(InvalidName):
        encode("note", headers={name: "x"})


@pytest.mark.parametrize(
    "name", ["Nats-TTL", "nats-msg-id", "ce-id", "CE-Type", "Agent-Hops", "Dead-Letter-Reason", "Status", "Description"]
)
def test_a_header_the_library_sets_is_not_the_callers(name):
    with pytest.raises(InvalidName):
        encode("note", headers={name: "x"})


@pytest.mark.parametrize("name", ["ce-dataschema", "ce-subject", "X-Own", "tracestate"])
def test_a_header_that_is_the_callers(name):
    assert encode("note", headers={name: "x"}).headers[name] == "x"


def test_a_foreign_header_means_itself():
    message = read({"X-Discount": "100%25", "ce-type": "a%20b"})
    assert (message.headers["X-Discount"], message.type) == ("100%25", "a b")


@pytest.mark.parametrize("value", ["%", "%zz", "100%", "%ff%fe", "a%4"])
def test_a_header_that_was_never_encoded_is_read_as_far_as_it_can_be(value):
    assert isinstance(unescape(value), str)
    assert read({"ce-specversion": "1.0", "X": value}).problem is None


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True),
        st.text(st.characters(codec="ascii", categories=["L", "N"])),
        max_size=4,
    )
)
def test_header_size_is_what_goes_over_the_wire(headers):
    wire = b"NATS/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"
    assert header_size(headers) == (len(wire) if headers else 0)


# -- data


@given(json_values)
def test_json_survives(data):
    body, content_type = encode_data(data)
    message = read({"ce-datacontenttype": content_type}, body)
    assert message.data == data
    assert message.problem is None


@given(st.binary(min_size=1))
def test_bytes_survive(data):
    for form in (data, bytearray(data), memoryview(data)):
        headers, body = over_the_wire(encode("note", form))
        assert read(headers, body).data == data


@pytest.mark.parametrize("data", [float("nan"), {"a": [float("inf")]}, {1, 2}, object(), {"a": "\ud800"}, {(1, 2): 3}])
def test_what_is_not_json_is_refused(data):
    with pytest.raises(InvalidMessage):
        encode("note", data)


def test_data_that_refers_to_itself_is_refused():
    data: list = []
    data.append(data)
    with pytest.raises(InvalidMessage):
        encode("note", data)


def test_records_and_models_are_json():
    @dataclasses.dataclass
    class Point:
        x: int

    class Model:
        def model_dump(self, mode):
            return {"mode": mode}

    assert json.loads(encode("note", [Point(1), Model()]).body) == [{"x": 1}, {"mode": "json"}]
    with pytest.raises(InvalidMessage):
        encode("note", Point)


def test_no_data_is_no_body():
    outgoing = encode("note")
    assert outgoing.body == b""
    assert read(outgoing.headers).data is None


# -- reading


def test_a_bare_message_is_read():
    message = read({}, b'{"a":1}', stream="INBOX_CEO", seq=7, stored_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (message.id, message.type, message.source, message.data) == ("INBOX_CEO-7", "note", "unknown", {"a": 1})
    assert (message.correlation_id, message.hops, message.problem) == ("INBOX_CEO-7", 0, None)
    assert (message.expires_at, message.replay_of, message.reply_to, message.trace_id) == (None, None, None, None)
    assert message.size == 7
    assert read({"Nats-Msg-Id": "given"}, stream="INBOX_CEO", seq=7).id == "given"
    assert read({"Nats-Msg-Id": "other", "ce-id": "ours"}, stream="INBOX_CEO", seq=7).id == "ours"
    assert read(None, b"").data is None


@pytest.mark.parametrize(
    ("headers", "body", "part"),
    [
        ({}, b"{", "JSON"),
        ({}, b"[NaN]", "NaN"),
        ({}, b"-Infinity", "Infinity"),
        ({}, b"\xff", "JSON"),
        ({}, b"[" * 100_000, "JSON"),
        ({"ce-expirytime": "tomorrow"}, b"{}", "ce-expirytime"),
        ({"ce-expirytime": "2026-13-01T00:00:00Z"}, b"{}", "ce-expirytime"),
        ({"ce-expirytime": "9999-12-31T23:59:59-23:00"}, b"{}", "ce-expirytime"),
        ({"Agent-Hops": "many"}, b"{}", "Agent-Hops"),
        ({"Agent-Hops": "-1"}, b"{}", "Agent-Hops"),
        ({"Agent-Hops": "\u0663"}, b"{}", "Agent-Hops"),
        ({"Agent-Hops": "9" * 5000}, b"{}", "Agent-Hops"),
        ({"ce-datacontenttype": "application/vnd.x+json; charset=utf-8"}, b"{", "JSON"),
    ],
)
def test_what_cannot_be_read_says_why(headers, body, part):
    message = read(headers, body)
    assert part in message.problem
    assert message.body == body


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/cloudevents"])
def test_a_body_that_is_declared_not_to_be_json_is_bytes(content_type):
    message = read({"ce-datacontenttype": content_type}, b"{\xff")
    assert (message.data, message.problem, message.text) == (b"{\xff", None, "{\ufffd")
    assert read({"Content-Type": content_type}, b"{").data == b"{"


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "ce-id",
                "ce-type",
                "ce-time",
                "ce-source",
                "ce-expirytime",
                "Agent-Hops",
                "Agent-Replay-Of",
                "traceparent",
                "ce-specversion",
                "Nats-Msg-Id",
            ]
        ),
        any_text,
    ),
    st.binary(),
    any_text,
)
def test_nothing_makes_decode_raise(headers, body, subject):
    message = read(headers, body, subject=subject)
    assert isinstance(message.hops, int)
    assert message.trace_id is None or len(message.trace_id) == 32


# -- conversations


def test_a_message_continues_the_conversation_of_the_one_being_handled():
    first = encode("a", id="root", source="ceo")
    parent = read(*over_the_wire(first))
    assert current() is None
    with handling(parent):
        assert current() is parent
        child = read(*over_the_wire(encode("b", id="child")))
        with handling(child):
            grandchild = read(*over_the_wire(encode("c")))
    assert current() is None
    assert parent.correlation_id == child.correlation_id == grandchild.correlation_id == "root"
    assert (parent.causation_id, child.causation_id, grandchild.causation_id) == (None, "root", "child")
    assert [m.hops for m in (parent, child, grandchild)] == [0, 1, 2]
    assert parent.trace_id == child.trace_id == grandchild.trace_id
    assert parent.headers["traceparent"] != child.headers["traceparent"]
    assert (parent.source, child.source) == ("ceo", "unknown")


@given(any_text.filter(lambda text: 0 < len(escape(text)) <= LONGEST_LINEAGE))
def test_a_strange_id_survives_as_a_cause(id):
    parent = read({"ce-id": escape(id)})
    with handling(parent):
        child = read(*over_the_wire(encode("b")))
    assert (parent.id, child.causation_id, child.correlation_id) == (id, id, id)


def test_ids_are_fresh_unless_given():
    assert encode("a").id != encode("a").id
    assert encode("a", id="x").headers["Nats-Msg-Id"] == encode("a", id="x").headers["ce-id"] == "x"
    with pytest.raises(InvalidName):
        encode("a", id="not valid")


# -- times


@given(st.integers(0, 2**37 * 10**6))
def test_a_time_survives(microseconds):
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert parse_time(format_time(moment)) == moment
    assert time_of_ns(parse_time_ns(format_time(moment))) == moment


@given(st.integers(0, 2**62))
def test_a_servers_time_survives_to_the_nanosecond(ns):
    moment = datetime.fromtimestamp(ns // 10**9, UTC)
    assert parse_time_ns(f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z") == ns


@pytest.mark.parametrize(
    "text", ["", "2026-01-01", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00", "now", "2026-01-01T00:00:00.Z"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


def test_a_message_expires_at_its_deadline():
    message = read(encode("a", expires_in=60).headers)
    now = datetime.now(UTC)
    assert not message.expired(now)
    assert message.expired(now + timedelta(seconds=61))
    assert message.expired(message.expires_at)
    assert not read({}).expired()
