"""What moves a fleet while its console is measured, in a process of its own: `events` or `churn`.

`events URL RATE` stores so many events a second, in a burst every 10 ms. It speaks the protocol itself: at 10,000 a second
a client library would take a quarter of the core that the measured process needs. The headers are those of `encode`, each
event has an id of its own.

`churn URL AGENTS RATE` puts a message into so many inboxes a second, and some two seconds later takes and acknowledges it.

Both end with their standard input, and then print what they did.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import select
import socket
import sys
import time
from collections import deque
from urllib.parse import urlsplit

import nats
from nats.aio.msg import Msg

from patterns.message import encode
from tests.bench.console_fleet import NAMES, agent_name

BURST_S = 0.01
LAG = 2.0
"""Seconds that a message stays in its inbox."""
TOPICS = ("deployment.completed", "security.alert", "code.review", "build.failed", "spec.changed")


def say_ready() -> None:
    """Tell the owner that the work begins."""
    print("ready", flush=True)


def templates() -> list[tuple[list[bytes], str]]:
    """Each topic's protocol message, cut where its id stands, and that id."""
    found = []
    for topic in TOPICS:
        sent = encode(topic, {"service": "api-gateway", "version": "1.42", "text": "x" * 100}, source=agent_name(7))
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items())
        head = f"NATS/1.0\r\n{lines}\r\n".encode()
        first = f"HPUB {NAMES.event_subject(topic)} {len(head)} {len(head) + len(sent.body)}\r\n".encode()
        found.append(((first + head + sent.body + b"\r\n").split(sent.id.encode()), sent.id))
    return found


def events(url: str, rate: float) -> int:
    """Store events until standard input ends; how many were sent."""
    address = urlsplit(url)
    made, sent = templates(), 0
    run, digits = secrets.token_hex(4), len(made[0][1]) - 8
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 4222)) as server:
        server.recv(65536)
        server.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        say_ready()
        begun = time.perf_counter()
        while True:
            readable, _, _ = select.select([server, sys.stdin], [], [], BURST_S)
            if sys.stdin in readable:
                break
            if server in readable and b"PING" in server.recv(65536):
                server.sendall(b"PONG\r\n")
            due = int(rate * (time.perf_counter() - begun)) - sent
            burst = bytearray()
            for number in range(sent, sent + due):
                parts, _ = made[number % len(made)]
                burst += f"{run}{number:0{digits}x}".encode().join(parts)
            server.sendall(burst)
            sent += due
        server.sendall(b"PING\r\n")
        while b"PONG" not in server.recv(65536):
            pass
    return sent


async def churn(url: str, agents: int, rate: float) -> int:
    """Move inboxes until standard input ends; how many messages were sent."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    nc = await nats.connect(url)
    filled: deque[tuple[float, str]] = deque()
    inbox = nc.new_inbox()
    sent = 0

    async def acknowledge(msg: Msg) -> None:
        if msg.reply:
            await nc.publish(msg.reply, b"+ACK")

    await nc.subscribe(inbox, cb=acknowledge)
    say_ready()
    begun = time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(BURST_S)
        now = time.perf_counter()
        for _ in range(int(rate * (now - begun)) - sent):
            agent = agent_name(random.randrange(agents))
            outgoing = encode("note", {"text": "x" * 200}, source="bench")
            await nc.publish(NAMES.inbox_subject(agent, "note"), outgoing.body, headers=outgoing.headers)
            filled.append((now, agent))
            sent += 1
        while filled and filled[0][0] < now - LAG:
            _, agent = filled.popleft()
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{NAMES.inbox_stream(agent)}.{NAMES.inbox_durable(agent)}"
            await nc.publish(subject, b'{"batch":1,"no_wait":true}', reply=inbox)
    await nc.close()
    return sent


def main(kind: str, url: str, *numbers: str) -> None:
    """Work, and print what was done."""
    rate = float(numbers[-1])
    sent = events(url, rate) if kind == "events" else asyncio.run(churn(url, int(numbers[0]), rate))
    print(json.dumps({"sent": sent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
