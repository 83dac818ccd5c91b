"""Advisories: chosen ones, of this organization only, as sentences; whatever anybody publishes there, and however much."""

from __future__ import annotations

import json

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.monitor import advisories
from console.monitor.advisories import A_PERIOD, PREFIX, WAITING, Advisories, read, subjects
from console.monitor.feed import Feed, Told
from console.text.safe import is_clean
from patterns import Fleet
from patterns.denials import note, unheard
from patterns.names import Place
from patterns.server import LocalServer
from tests.console.test_feed import following
from tests.support.fleets import connected, fast, take
from tests.support.waiting import until

CEO = Place("inbox", "ceo")
HOSTILE = "\x1b]52;c;aGFjaw==\x07[@click=app.leave]x[/x]\u202e\x9b"


def said(feed: Feed) -> list[str]:
    return [item.body for item in feed.items if isinstance(item, Told) and item.advisory]


async def ready(fleet: Fleet, feed: Feed) -> None:
    """Wait until the server knows of the subscriptions: a sign comes through each of them."""
    marks = [subject.replace("*", "INBOX_READY", 1).replace("*", "x") for subject in subjects()]

    async def all_heard() -> bool:
        for mark in marks:
            await fleet.nc.publish(mark, b"{}")
        await fleet.nc.flush()
        heard = {item.topic for item in feed.items}
        return len(heard) >= 10  # of streams and consumers alike leaders are elected and quorums lost

    await until(all_heard)
    feed.items.clear()


async def test_what_the_server_says_is_told_in_sentences(server):
    config = fast(inbox={"ack_wait": 0.2, "max_deliver": 1, "heartbeat": None})
    async with connected(server.url, config=config, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        await ready(fleet, feed)
        js = fleet.jetstream
        await fleet.provision(agents=["dev"])
        info = await js.stream_info("INBOX_DEV")
        await js.api("STREAM.UPDATE.INBOX_DEV", {**info["config"], "max_msgs": 7})
        await js.pause("INBOX_CEO", "ceo-processor", 3600)
        await js.pause("INBOX_CEO", "ceo-processor", 0)
        await fleet.inbox("ceo").send("note")
        await fleet.inbox("ceo").send("note")
        msg = await take(fleet, "INBOX_CEO", "ceo-processor")
        await fleet.nc.publish(msg.reply, b"+TERM bad \x1b[31mschema")
        await js.api("STREAM.DELETE.INBOX_DEV")

        def told() -> list[str]:
            return [text for text in said(feed) if "READY" not in text]

        await until(lambda: any("was deleted" in text for text in told()))
        texts = told()
        assert "inbox.dev: stream INBOX_DEV was created" in texts
        assert "inbox.dev: consumer dev-processor was created" in texts
        assert "inbox.dev: stream INBOX_DEV was updated" in texts
        assert any(text.startswith("inbox.ceo: deliveries of ceo-processor are paused until 2") for text in texts)
        assert "inbox.ceo: deliveries of ceo-processor go on" in texts
        assert "inbox.ceo: message 1 was terminated: bad ␛[31mschema" in texts
        assert "inbox.dev: stream INBOX_DEV was deleted" in texts
        assert all("{" not in text for text in texts)
        assert all(is_clean(text) for text in texts)
        terminated = next(item for item in feed.items if item.topic == "terminated" and item.source == "ceo")
        assert (terminated.source, terminated.tone, terminated.opens) == ("ceo", "bad", "message")
        assert (terminated.advisory.stream, terminated.advisory.seq) == ("INBOX_CEO", 1)


async def test_a_message_that_used_up_its_deliveries_is_told_with_its_number(server):
    config = fast(inbox={"ack_wait": 0.2, "max_deliver": 1})
    async with connected(server.url, config=config, agents=["ceo"]) as fleet, following(Feed(fleet)) as feed:
        await ready(fleet, feed)
        await fleet.inbox("ceo").send("note")
        await take(fleet, "INBOX_CEO", "ceo-processor")

        async def heard() -> bool:
            # The server notices when somebody pulls.
            await fleet.nc.publish("$JS.API.CONSUMER.MSG.NEXT.INBOX_CEO.ceo-processor", b'{"no_wait":true}', reply="x")
            return "inbox.ceo: message 1 used up its 1 delivery" in said(feed)

        await until(heard)


async def test_what_the_library_moves_and_the_streams_of_others_are_not_told(server):
    async with (
        connected(server.url, agents=["ceo"]) as fleet,
        connected(server.url, org="acme", agents=["ceo"]) as other,
        following(Feed(fleet)) as feed,
        following(Feed(other)) as theirs,
    ):
        await ready(fleet, feed)
        await fleet.inbox("ceo").send("note")
        await take(fleet, "INBOX_CEO", "ceo-processor")
        assert await fleet.jetstream.delete("INBOX_CEO", 1)  # in flight: the server says that it was terminated
        await fleet.js.add_stream(name="ELSEWHERE", subjects=["elsewhere"])
        await fleet.provision(agents=["last"])
        await until(lambda: any("last-processor" in text for text in said(feed)))
        assert {text.partition(":")[0] for text in said(feed)} <= {"inbox.ready", "inbox.last"}
        assert said(theirs) == []


async def test_a_storm_is_bounded_and_counted_exactly(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        heard: list[object] = []
        listening = Advisories(fleet, heard.append)
        subject = f"{PREFIX}.ADVISORY.CONSUMER.MAX_DELIVERIES.INBOX_CEO.ceo-processor"
        msg = nats.aio.msg.Msg(fleet.nc, subject, data=b'{"stream_seq":1}')
        foreign = nats.aio.msg.Msg(fleet.nc, subject.replace("INBOX_CEO", "OTHER"), data=b"{}")
        for _ in range(WAITING + 500):
            await listening.take(msg)
            await listening.take(foreign)
        assert listening.dropped == 500
        listening.show()
        assert len(heard) == A_PERIOD
        while listening._waiting:
            listening.show()
        assert len(heard) == WAITING
        # As many streams as somebody cares to name.
        for number in range(3 * WAITING):
            await listening.take(nats.aio.msg.Msg(fleet.nc, subject.replace("INBOX_CEO", f"N{number}"), data=b"{}"))
        assert len(listening._places) <= WAITING + 2
        feed = Feed(fleet)
        feed._advisories = listening
        assert feed.dropped == 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("stream_seq", "deliveries", "reason", "paused", "pause_until", "leader", "stream", "consumer")


@given(
    st.sampled_from((*advisories.CONSUMER_KINDS, *advisories.STREAM_KINDS, "NEW", HOSTILE)),
    st.dictionaries(st.sampled_from(FIELDS), VALUES) | VALUES,
    st.sampled_from([[], ["ceo-processor"], [HOSTILE], ["a", "b"]]),
)
def test_whatever_stands_in_it_is_inert(kind, body, rest):
    for about in ("CONSUMER", "STREAM", "OTHER"):
        for place in (CEO, Place("events", ""), Place("dlq", ""), Place("ledger", "")):
            advisory = read(place, [about, kind, "INBOX_CEO", *rest], json.dumps(body).encode())
            if advisory is not None:
                assert all(map(is_clean, (advisory.kind, advisory.source, advisory.text)))
                assert advisory.seq is None or 0 < advisory.seq < 1 << 63


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 5_000, b'{"stream_seq":' + b"9" * 5_000 + b"}", b'{"a":"' + b"x" * 99_999 + b'"}'],
)
def test_what_is_no_advisory_says_what_its_subject_says(body):
    advisory = read(CEO, ["CONSUMER", "MAX_DELIVERIES", "INBOX_CEO", "ceo-processor"], body)
    assert (advisory.text, advisory.seq) == ("inbox.ceo: a message used up its deliveries", None)


@pytest.mark.parametrize(
    ("place", "tokens", "body", "text"),
    [
        (CEO, "CONSUMER.MAX_DELIVERIES.INBOX_CEO.ceo-processor", {"stream_seq": 12, "deliveries": 3},
         "inbox.ceo: message 12 used up its 3 deliveries"),
        (CEO, "CONSUMER.MSG_TERMINATED.INBOX_CEO.ceo-processor", {"stream_seq": 12},
         "inbox.ceo: message 12 was terminated"),
        (CEO, "CONSUMER.MSG_TERMINATED.INBOX_CEO.ceo-processor", {"reason": "Unacknowledged message was deleted"}, None),
        (CEO, "CONSUMER.LEADER_ELECTED.INBOX_CEO.ceo-processor", {"leader": "n2"},
         "inbox.ceo: consumer ceo-processor is led by n2 now"),
        (CEO, "CONSUMER.QUORUM_LOST.INBOX_CEO.ceo-processor", {}, "inbox.ceo: consumer ceo-processor has lost its quorum"),
        (Place("tasks", "backend"), "STREAM.QUORUM_LOST.TASKS_BACKEND", {},
         "tasks.backend: stream TASKS_BACKEND has lost its quorum"),
        (Place("events", ""), "CONSUMER.DELETED.EVENTS.security-events", {},
         "events: consumer security-events was deleted"),
        (Place("ledger", ""), "CONSUMER.DELETED.KV_TASKS.x", {}, None),
        (Place("ledger", ""), "STREAM.DELETED.KV_TASKS", {}, "task ledger: stream KV_TASKS was deleted"),
        (CEO, "STREAM.SNAPSHOT_CREATE.INBOX_CEO", {}, None),
        (CEO, "API.X.Y", {}, None),
    ],
)  # fmt: skip
def test_sentences(place, tokens, body, text):
    advisory = read(place, tokens.split("."), json.dumps(body).encode())
    assert (advisory and advisory.text) == text


async def test_another_prefix_is_listened_to(server):
    async with (
        connected(server.url, agents=["ceo"]) as fleet,
        following(Feed(fleet, event_prefix="adv.$JS.EVENT")) as feed,
    ):

        async def heard() -> bool:
            await fleet.nc.publish("adv.$JS.EVENT.ADVISORY.STREAM.DELETED.INBOX_CEO", b"{}")
            return said(feed) != []

        await until(heard)
        assert said(feed)[0] == "inbox.ceo: stream INBOX_CEO was deleted"


async def test_without_the_right_only_the_advisories_are_missing(monkeypatch):
    monkeypatch.setattr(advisories, "LOOK", 0.05)
    config = """
        authorization { users: [
            { user: admin, password: a }
            { user: looker, password: b, permissions: { subscribe: { deny: ["$JS.EVENT.ADVISORY.CONSUMER.>"] } } } ] }
    """
    with LocalServer(config=config) as server:
        admin, looker = (server.url.replace("//", f"//{login}@") for login in ("admin:a", "looker:b"))
        async with (
            connected(admin, agents=["ceo"]) as fleet,
            Fleet.connect(looker, config=fast()) as restricted,
            following(Feed(restricted)) as feed,
        ):
            await until(lambda: feed.refused)
            assert set(feed.refused) == {subject for subject in subjects() if ".CONSUMER." in subject}
            await fleet.provision(agents=["dev"])
            await fleet.events.broadcast("x", "heard")
            await until(lambda: any(item.body == '"heard"' for item in feed.items))
            await until(lambda: said(feed))
            assert {text for text in said(feed) if "INBOX" in text} == {"inbox.dev: stream INBOX_DEV was created"}


async def test_a_refusal_holds_until_the_client_comes_back(server):
    async with connected(server.url) as fleet:
        subject = "$JS.EVENT.ADVISORY.STREAM.DELETED.*"
        note(fleet.nc, nats.errors.Error(f'nats: permissions violation for subscription to "{subject.lower()}"'))
        assert unheard(fleet.nc, subject)
        assert not unheard(fleet.nc, subject.replace("DELETED", "CREATED"))
        await fleet.nc.force_reconnect()
        await until(lambda: fleet.nc.stats["reconnects"])
        assert not unheard(fleet.nc, subject)


async def test_nothing_is_left_on_the_connection(server):
    async with connected(server.url) as fleet:
        before = len(fleet.nc._subs)
        async with following(Feed(fleet)):
            await until(lambda: len(fleet.nc._subs) >= before + len(subjects()))
        await until(lambda: len(fleet.nc._subs) <= before + 1)
