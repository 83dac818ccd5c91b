"""Connecting: quickly or not at all, and then for ever."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from patterns import ConnectError, Fleet, PermissionDenied, Unavailable, UnsupportedServer, connection
from patterns.server import LocalServer, find_binary
from tests.support.fleets import connected, fast
from tests.support.waiting import until

PASSWORD = "hunter2-correct-horse"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def plain_server(directory) -> Iterator[str]:
    """A nats-server without JetStream."""
    command = [find_binary(), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", directory]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    yield json.loads(next(directory.glob("*.ports")).read_text())["nats"][0]
                    break
                except (StopIteration, ValueError):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            process.kill()


async def refused(servers, **options) -> str:
    """The text of the `ConnectError`."""
    with pytest.raises(ConnectError) as caught:
        async with Fleet.connect(servers, **options):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    return text


async def test_nothing_listens(closed_port):
    began = time.monotonic()
    text = await refused(f"nats://ann:{PASSWORD}@127.0.0.1:{closed_port}")
    assert time.monotonic() - began < 1.5
    assert f"127.0.0.1:{closed_port}" in text
    assert PASSWORD not in text
    assert "ann" not in text


async def test_none_of_several_listens(closed_port):
    text = await refused([f"nats://t0ken-{PASSWORD}@127.0.0.1:{closed_port}", f"nats://127.0.0.1:{closed_port}"])
    assert text.count(str(closed_port)) >= 2
    assert PASSWORD not in text


async def test_one_of_several_listens(server, closed_port):
    async with Fleet.connect([f"nats://127.0.0.1:{closed_port}", server.url]) as fleet:
        await fleet.provision()


@pytest.mark.parametrize("url", [f"nats://ann:{PASSWORD}@127.0.0.1:port", f"ftp://ann:{PASSWORD}@127.0.0.1:21", ""])
async def test_what_is_no_address_is_one_line_too(url):
    text = await refused(url)
    assert PASSWORD not in text


@pytest.mark.parametrize("given", ["url", "options"])
async def test_a_wrong_password_is_said_at_once_and_not_repeated(given):
    with LocalServer(config=f'authorization {{ user: ann, password: "{PASSWORD}" }}') as server:
        wrong = PASSWORD + "-wrong"
        began = time.monotonic()
        if given == "url":
            text = await refused(server.url.replace("//", f"//ann:{wrong}@"))
        else:
            text = await refused(server.url, user="ann", password=wrong)
        assert time.monotonic() - began < 3
        assert "refused the credentials" in text
        assert "Authorization" in text
        assert wrong not in text
        async with Fleet.connect(server.url, user="ann", password=PASSWORD) as fleet:
            await fleet.provision()
            assert PASSWORD not in repr(fleet.server_info())
        async with Fleet.connect(server.url.replace("//", f"//ann:{PASSWORD}@")) as fleet:
            assert fleet.server_info().url == server.url


async def test_a_server_without_jetstream_is_not_supported(tmp_path):
    with plain_server(tmp_path) as url, pytest.raises(UnsupportedServer, match="without JetStream"):
        async with Fleet.connect(url):
            pass


async def test_a_server_that_is_too_old_is_not_supported(server, monkeypatch):
    monkeypatch.setattr(connection, "MINIMUM_SERVER", (99, 0))
    with pytest.raises(UnsupportedServer, match="too old"):
        async with Fleet.connect(server.url):
            pass


async def test_credentials_that_are_none_are_refused_at_once(server, tmp_path):
    path = tmp_path / "mine.creds"
    with pytest.raises(ConnectError, match="cannot be read"):
        async with Fleet.connect(server.url, user_credentials=str(path)):
            pass
    path.write_text("not credentials at all\n")
    with pytest.raises(ConnectError, match="no NATS user JWT"):
        async with Fleet.connect(server.url, user_credentials=str(path)):
            pass


async def test_options_of_the_client_are_the_callers(server):
    async with Fleet.connect(server.url, name="my-agent", connect_timeout=3, inbox_prefix="_INBOX_mine") as fleet:
        await fleet.provision()
        assert fleet.nc.options["name"] == "my-agent"
        assert fleet.nc.new_inbox().startswith("_INBOX_mine")


async def test_a_connection_comes_back_after_any_time(server):
    async with connected(server.url, agents=["ceo"], config=fast(publish_timeout=0.3)) as fleet:
        await fleet.inbox("ceo").send("note", 1, id="before")
        server.kill()
        await until(lambda: not fleet.nc.is_connected)
        # Several times as often as the first connection was tried.
        attempts = fleet.nc._server_pool[0].reconnects
        await until(lambda: fleet.nc._server_pool[0].reconnects >= attempts + 3)
        with pytest.raises(Unavailable, match="not confirmed"):
            await fleet.inbox("ceo").send("note", 2, id="during")
        await asyncio.to_thread(server.restart)
        await until(lambda: fleet.nc.is_connected)

        async def stored():
            # The publish that was not confirmed waited in the client's buffer; again with its id it is not a second one.
            await fleet.inbox("ceo").send("note", 2, id="during")
            return [m.id for m in await fleet.inbox("ceo").peek()]

        assert await stored() == ["before", "during"]


async def test_a_client_that_stopped_reading_is_brought_back(server, monkeypatch):
    monkeypatch.setattr(connection, "WATCHDOG_INTERVAL", 0.05)
    async with connected(server.url) as fleet:
        reader = fleet.nc._reading_task
        reader.cancel()
        await until(lambda: fleet.nc.is_connected and fleet.nc._reading_task not in (None, reader))
        await fleet.provision(agents=["ceo"])


async def test_leaving_stops_what_pulls_and_closes_the_connection(server):
    async with connected(server.url, agents=["ceo"], roles=["backend"]) as fleet:
        waiting = [
            asyncio.create_task(fleet.inbox("ceo").next(40)),
            asyncio.create_task(fleet.tasks("backend").next("w", 40)),
        ]

        async def both():
            return (await fleet.inbox("ceo").depth()).waiting and (await fleet.tasks("backend").depth()).waiting

        await until(both)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 20) == [None, None]
    assert fleet.nc.is_closed


async def test_leaving_without_a_server_does_not_hang(server):
    async with connected(server.url) as fleet:
        server.kill()
        await until(lambda: not fleet.nc.is_connected)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert fleet.nc.is_closed


async def test_a_connection_of_ones_own_stays_open(server):
    async with connected(server.url) as owner:
        fleet = Fleet(owner.nc)
        await fleet.provision(agents=["ceo"])
        assert await fleet.inbox("ceo").next(0.05) is None
        await fleet.close()
        assert owner.nc.is_connected
        assert (await fleet.inbox("ceo").depth()).waiting == 0


async def test_a_snapshot_shows_the_whole_fleet(server):
    async with connected(server.url, org="acme", agents=["ceo", "cto"], roles=["backend"]) as fleet:
        await fleet.inbox("ceo").send("note")
        await fleet.inbox("ceo").send("note")
        async with await fleet.inbox("ceo").next(20) as message:
            await message.reject("no")
        await fleet.tasks("backend").submit("code")
        await fleet.events.subscription("security", "a")
        await fleet.events.broadcast("a")
        async with connected(server.url, org="other", agents=["stranger"]):
            snapshot = await fleet.snapshot()
        assert {name: depth.messages for name, depth in snapshot.inboxes.items()} == {"ceo": 1, "cto": 0}
        assert {name: depth.messages for name, depth in snapshot.queues.items()} == {"backend": 1}
        assert {name: depth.pending for name, depth in snapshot.subscriptions.items()} == {"security-events": 1}
        assert snapshot.dead_letters == {"inbox.ceo": 1}
        assert snapshot.missing == ()
        assert snapshot.server.url == server.url
        assert snapshot.server.version


DENIED = """
accounts { A { jetstream: enabled, users: [
    { user: admin, password: a }
    { user: worker, password: w, permissions: { publish: { deny: [
        "agents.boss.inbox.>", "$KV.RECEIPTS.replay.>", "$JS.API.STREAM.LIST", "agents.secret.inbox.>"
    ] } } }
] } }
"""


async def test_what_the_server_refuses_to_this_user_is_said_with_its_subject():
    with LocalServer(config=DENIED) as server:
        heard = []

        async def on_error(error):
            heard.append(str(error))

        async with (
            Fleet.connect(server.url, user="admin", password="a", config=fast()) as admin,
            Fleet.connect(server.url, user="worker", password="w", config=fast(), error_cb=on_error) as worker,
        ):
            await admin.provision(agents=["secret"])
            with pytest.raises(PermissionDenied, match=r"agents\.secret\.inbox\.note"):
                await worker.inbox("secret").send("note")
            with pytest.raises(PermissionDenied, match=r"\$JS\.API\.STREAM\.LIST"):
                await worker.snapshot()
            assert any("permissions violation" in text for text in heard), "the caller's own error_cb hears it too"


async def test_an_outcome_that_the_worker_may_not_send_is_a_letter_and_the_task_ends():
    with LocalServer(config=DENIED) as server:
        async with (
            Fleet.connect(server.url, user="admin", password="a", config=fast()) as admin,
            Fleet.connect(server.url, user="worker", password="w", config=fast()) as worker,
        ):
            await admin.provision(agents=["boss"], roles=["backend"])
            await admin.tasks("backend").submit("code", id="a", reply_to="agents.boss.inbox")
            async with await worker.tasks("backend").next("w", 20) as task:
                task.result = 1
            assert (await admin.tasks("backend").depth()).messages == 0
            assert (await admin.tasks("backend").status("a")).state == "completed"
            (letter,) = await admin.dead_letters.list()
            assert (letter.reason, letter.error_type) == ("undeliverable", "PermissionDenied")


async def test_a_replay_is_handled_by_whoever_may_not_write_its_receipt():
    with LocalServer(config=DENIED) as server:
        async with (
            Fleet.connect(server.url, user="admin", password="a", config=fast()) as admin,
            Fleet.connect(server.url, user="worker", password="w", config=fast()) as worker,
        ):
            await admin.provision(agents=["ceo", "cto"])
            await admin.inbox("ceo").send("note", 1)
            async with await admin.inbox("ceo").next(20) as message:
                await message.reject("not mine")
            (letter,) = await admin.dead_letters.list()
            await admin.dead_letters.replay(letter.seq, by="ann", to="agents.cto.inbox.note")
            async with await worker.inbox("cto").next(20) as message:
                assert message.data == 1
