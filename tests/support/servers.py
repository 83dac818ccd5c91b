"""Real servers for tests: a three-node JetStream cluster on loopback."""

from __future__ import annotations

import json
import random
import socket
import time
import urllib.request
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from patterns.server import LocalServer, ServerError

POLL_S = 0.01
ROUTE_PORTS = range(20000, 30000)
"""Below the range that systems give to outgoing connections, so that no client takes a route port during a restart."""

LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks loopback itself, whatever proxy the machine's environment names."""


class LocalCluster:
    """Nodes with one JetStream meta group; a stream with ``num_replicas=3`` can be made as soon as it is ready.

    Args:
        size: How many nodes.
        ready_timeout: Seconds that start and restart may take.
    """

    def __init__(self, size: int = 3, *, ready_timeout: float = 30.0) -> None:
        self._size = size
        self._ready_timeout = ready_timeout
        self._stack = ExitStack()
        self.nodes: list[LocalServer] = []

    @property
    def urls(self) -> list[str]:
        """Where clients connect, one URL a node."""
        return [node.url for node in self.nodes]

    def start(self) -> Self:
        """Start all nodes and wait until a stream can have a replica on each of them."""
        for attempts_left in (2, 1, 0):
            routes = _free_ports(self._size)
            try:
                self.nodes = [
                    self._stack.enter_context(LocalServer(config=_config(index, routes)))
                    for index in range(len(routes))
                ]
                break
            except ServerError:  # another process took a route port in the meantime
                self.stop()
                if not attempts_left:
                    raise
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all nodes and remove their stores."""
        self._stack.close()
        self.nodes = []

    def kill(self, index: int) -> None:
        """SIGKILL one node, keeping its store and port."""
        self.nodes[index].kill()

    def restart(self, index: int) -> None:
        """Start one node again and wait until the whole cluster is ready."""
        self.nodes[index].restart()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until all running nodes are online and current, and agree on the leader of the cluster and each stream."""
        deadline = time.monotonic() + self._ready_timeout
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise ServerError("the cluster elected no leaders in time")
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        running = [node for node in self.nodes if node.running]
        # What leads -> whom the nodes name: a node that knows none, or still names a dead one, disagrees with the rest.
        leaders: dict[str, set[str]] = {}
        current = 0
        try:
            for node in running:
                monitor = _monitor(node)
                _get(f"{monitor}/healthz")
                state = _get(f"{monitor}/jsz?streams=true")
                meta = state["meta_cluster"]
                leaders.setdefault("", set()).add(meta.get("leader", ""))
                peers = meta.get("replicas", [])
                current = max(current, 1 + sum(peer["current"] and not peer.get("offline") for peer in peers))
                for account in state.get("account_details", []):
                    for stream in account.get("stream_detail", []):
                        leaders.setdefault(stream["name"], set()).add(stream["cluster"].get("leader", ""))
        except (OSError, ValueError, KeyError):  # not listening yet, not healthy yet, or no meta group yet
            return False
        return current >= len(running) and all(len(names) == 1 and "" not in names for names in leaders.values())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(ROUTE_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def _config(index: int, routes: list[int]) -> str:
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    return f"""
        server_name: node-{index}
        http: "127.0.0.1:-1"
        cluster {{ name: local, listen: "127.0.0.1:{routes[index]}", routes: [{others}] }}
    """


def _monitor(node: LocalServer) -> str:
    (ports,) = node.data_dir.glob("*.ports")
    return str(json.loads(ports.read_bytes())["monitoring"][0])


def _get(url: str) -> dict[str, Any]:
    with LOCAL.open(url, timeout=2) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
