"""Edit and replay: the body and the sender's own headers may change; the envelope and the story may not."""

from __future__ import annotations

import pytest

from patterns import AlreadyReplayed, InvalidMessage
from tests.support.fleets import connected
from tests.support.letters import forge


async def test_an_edited_letter_keeps_its_id_and_content_type_and_links_to_its_ancestor(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        own = {"ce-id": "m-1", "ce-type": "note", "ce-datacontenttype": "text/plain", "X-Tenant": "acme", "X-Old": "1"}
        seq = await forge(fleet, "inbox.ceo.1-1", body=b"before", headers=own)
        receipt = await fleet.dead_letters.replay(
            seq, by="ann", body=b"after", headers={"X-Tenant": "globex", "X-Old": None, "X-New": "2"}, job="j1"
        )
        stored = await fleet.jetstream.get(receipt.stream, receipt.seq)
        assert stored.body == b"after"
        wanted = {
            "ce-id": "m-1", "ce-datacontenttype": "text/plain", "X-Tenant": "globex", "X-New": "2",
            "Nats-Msg-Id": "inbox.ceo.1-1:r1", "Agent-Replay-Of": "inbox.ceo.1-1", "Dead-Letter-Replay-Job": "j1",
        }  # fmt: skip
        assert {name: stored.headers.get(name) for name in wanted} == wanted
        assert "X-Old" not in stored.headers
        assert "edited=1" in stored.headers["Dead-Letter-Death-1"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"ce-id": "other"}, "reserved"),
        ({"CE-Type": None}, "reserved"),
        ({"nats-msg-id": "x"}, "reserved"),
        ({"Agent-Reply-To": "x"}, "reserved"),
        ({"Dead-Letter-Replays": "0"}, "reserved"),
        ({"traceparent": "x"}, "reserved"),
        ({"X Y": "1"}, "cannot be sent"),
        ({"": "1"}, "cannot be sent"),
        ({"X-A": "1\r\nNats-Rollup: all"}, "one line"),
        ({"X-A": "\ud800"}, "one line"),
    ],
)
async def test_what_is_not_the_senders_own_cannot_be_edited(server, headers, told):
    async with connected(server.url, agents=["ceo"]) as fleet:
        seq = await forge(fleet, "inbox.ceo.1-1")
        with pytest.raises(InvalidMessage, match=told):
            await fleet.dead_letters.replay(seq, by="ann", headers=headers)
        assert [letter.seq for letter in await fleet.dead_letters.list()] == [seq]
        assert await fleet.inbox("ceo").peek() == []


async def test_a_letter_that_was_cut_is_replayed_with_a_whole_body_only(server):
    async with connected(server.url, agents=["ceo"]) as fleet:
        seq = await forge(fleet, "inbox.ceo.1-1", body=b"par", Truncated="900000")
        with pytest.raises(InvalidMessage, match="only a part"):
            await fleet.dead_letters.replay(seq, by="ann", headers={"X-A": "1"})
        receipt = await fleet.dead_letters.replay(seq, by="ann", body=b"whole")
        assert (await fleet.jetstream.get(receipt.stream, receipt.seq)).body == b"whole"


@pytest.mark.parametrize("first", [{}, {"headers": {"X-A": "1"}}, {"body": b"other"}])
async def test_an_edit_does_not_pass_for_an_attempt_that_sent_something_else(server, monkeypatch, first):
    class Killed(BaseException):
        pass

    async def die(*args):
        raise Killed

    async with connected(server.url, agents=["ceo"]) as fleet:
        seq = await forge(fleet, "inbox.ceo.1-1", headers={"X-A": "0"})
        with monkeypatch.context() as patch:
            patch.setattr(fleet.burials, "resolve", die)
            with pytest.raises(Killed):
                await fleet.dead_letters.replay(seq, by="ann", **first)
        with pytest.raises(AlreadyReplayed, match="not with this edit"):
            await fleet.dead_letters.replay(seq, by="ann", headers={"X-A": "2"})
        assert len(await fleet.dead_letters.list()) == 1
        if first:
            assert (await fleet.dead_letters.replay(seq, by="ann", **first)).duplicate
            assert len(await fleet.inbox("ceo").peek()) == 1
