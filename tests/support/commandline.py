"""Running the command line, in this process and as an installed program, and the fleets it is pointed at."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from console.commands.root import run
from patterns import Fleet, FleetConfig
from patterns.stored import StoredMessage
from tests.support.fleets import connected, take
from tests.support.waiting import until

PATIENCE = 50.0
"""Seconds a program of a test may take."""

HOSTILE = "\x1b]52;c;cHduZWQ=\x1b\\ \x1b[31mred \x9b2J [/x] [@click=app.quit]go[/] \u202egnp.exe \u2066 \ud800"
"""Clipboard write, colour, C1, markup, a live link, bidi controls and half a surrogate pair."""


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, one document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its standard output, one document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs command lines in this process.

    Args:
        capsys: What pytest captures with.
        url: Server that every line is pointed at; empty for none.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], url: str = "") -> None:
        self._capsys = capsys
        self._url = url

    def __call__(self, *arguments: str) -> Result:
        self._capsys.readouterr()
        status = run([*arguments, *(("--server", self._url) if self._url else ())])
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the installed program in a session of its own, without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "console", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **options.pop("env", {})},
        **options,
    )


def program(*arguments: str, **options: Any) -> Result:
    """Run the installed program to its end."""
    with start(*arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            raise
    return Result(process.returncode, out, err)


def prepared(url: str, work: Callable[[Fleet], Awaitable[Any]], **options: Any) -> Any:
    """Run `work` on a provisioned fleet and return what it returns; by default agent `ceo` and role `backend`."""

    async def go() -> Any:
        async with connected(url, **{"agents": ["ceo"], "roles": ["backend"], **options}) as fleet:
            return await work(fleet)

    return asyncio.run(go())


def looked(url: str, work: Callable[[Fleet], Awaitable[Any]], config: FleetConfig | None = None) -> Any:
    """Run `work` on a fleet as it is, creating nothing."""

    async def go() -> Any:
        async with Fleet.connect(url, config=config) as fleet:
            return await work(fleet)

    return asyncio.run(go())


async def letter(
    fleet: Fleet, kind: str = "tasks", name: str = "backend", number: int = 1, body: bytes = b'{"n":1}', **fields: str
) -> int:
    """Store a dead letter as another client would write it: plain headers on a DLQ subject; returns its sequence.

    Args:
        fleet: The connection.
        kind: Where it died.
        name: Agent, role or durable.
        number: Origin sequence.
        body: Its body.
        fields: Headers by name; `_` stands for `-` and `Dead_Letter_` may be left out.
    """
    prefix = f"{fleet.names.org}." if fleet.names.org else ""
    subject = prefix + (f"tasks.{name}.code.feature" if kind == "tasks" else f"agents.{name}.inbox.note")
    headers = {
        "Subject": subject,
        "Stream": f"{'TASKS' if kind == 'tasks' else 'INBOX'}_{name.upper()}",
        "Reason": "max-deliver",
        "Error_Type": "TimeoutError",
        "Error": "model did not answer",
        "Agent": f"{name}-1" if kind == "tasks" else name,
        "Seq": str(number),
        "Deliveries": "3",
        "Message_Id": f"id-{number}",
        **fields,
    }
    named = {
        key.replace("_", "-") if key.startswith(("ce_", "X_")) else f"Dead-Letter-{key.replace('_', '-')}": value
        for key, value in headers.items()
        if value
    }
    return (await fleet.js.publish(f"{prefix}dlq.{kind}.{name}.{number}-{number + 160:x}", body, headers=named)).seq


async def three(fleet: Fleet) -> None:
    """A letter of a task, one of an inbox, another of a task."""
    await letter(fleet, number=1)
    await letter(fleet, "inbox", "ceo", number=2, Reason="rejected", Error_Type="Reject", Error="no spec")
    await letter(fleet, number=3, Error="another")


async def counts(fleet: Fleet) -> tuple[int, int, int]:
    """Messages in the DLQ, in the queue of `backend` and in the inbox of `ceo`; -1 where there is no stream."""
    found = []
    for stream in ("DLQ", "TASKS_BACKEND", "INBOX_CEO"):
        info = await fleet.jetstream.stream_info(stream)
        found.append(int(info["state"]["messages"]) if info else -1)
    return found[0], found[1], found[2]


async def foreign_fleet(url: str) -> None:
    """Make a fleet with nothing but nats-py: its own consumer names, no ledger, no receipts."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        queue = RetentionPolicy.WORK_QUEUE
        await js.add_stream(
            StreamConfig("INBOX_CEO", subjects=["agents.ceo.inbox.>"], retention=queue, allow_direct=True)
        )
        await js.add_stream(StreamConfig("TASKS_BACKEND", subjects=["tasks.backend.>"], retention=queue))
        await js.add_stream(StreamConfig("EVENTS", subjects=["events.>"], allow_direct=True))
        await js.add_stream(StreamConfig("DLQ", subjects=["dlq.>"], allow_direct=True))
        await js.add_consumer("INBOX_CEO", ConsumerConfig(durable_name="agent-ceo", max_deliver=3))
        await js.add_consumer("TASKS_BACKEND", ConsumerConfig(durable_name="pool", max_deliver=3))
        for number in range(2):
            await js.publish("agents.ceo.inbox.note", json.dumps({"n": number}).encode())
        await js.publish("tasks.backend.code.feature", b"{}")
        await js.publish(
            "dlq.inbox.ceo.41-2a",
            b'{"note": 41}',
            headers={
                "Dead-Letter-Subject": "agents.ceo.inbox.note",
                "Dead-Letter-Reason": "max-deliver",
                "Dead-Letter-Error": "boom",
                "X-Tenant": "acme",
            },
        )
    finally:
        await client.close()


PLAN = {"plan", "count", "by_origin", "by_destination", "sample", "skipped", "spill", "nats"}
"""Fields of a plan, as the contract names them."""
RESULT = {"job", "planned", "done", "skipped", "failed", "duplicates", "spill", "items"}
"""Fields of a result."""

PLACES = {
    "inbox": ("ceo", "INBOX_CEO", "agents.ceo.inbox"),
    "queue": ("backend", "TASKS_BACKEND", "tasks.backend"),
}
"""Name, stream and subject of what `inbox` and `queue` are about in these tests."""


async def fill(fleet: Fleet, group: str = "inbox", count: int = 6) -> None:
    """Messages 1, 2, ...: the even ones are alerts, the others notes."""
    _, _, prefix = PLACES[group]
    for number in range(1, count + 1):
        subject = f"{prefix}.{'note' if number % 2 else 'alert'}"
        await fleet.js.publish(subject, json.dumps({"n": number}).encode(), headers={"X-Number": str(number)})


async def publish_raw(fleet: Fleet, subject: bytes, block: bytes, body: bytes) -> None:
    """Publish as no client library would, byte by byte, and see it stored."""
    answer = fleet.nc.new_inbox()
    subscription = await fleet.nc.subscribe(answer)
    head = b"HPUB %s %s %d %d\r\n" % (subject, answer.encode(), len(block), len(block) + len(body))
    await fleet.nc._send_command(head + block + body + b"\r\n")
    await fleet.nc._flush_pending()
    assert b"error" not in (await subscription.next_msg(20)).data


async def stored(fleet: Fleet, stream: str) -> list[StoredMessage]:
    """All messages of a stream with their raw headers."""
    found = (await fleet.jetstream.read(stream, limit=1000)).messages
    return [message for each in found if (message := await fleet.jetstream.get(stream, each.seq)) is not None]


async def seqs_of(fleet: Fleet, stream: str) -> list[int]:
    """Sequences of a stream."""
    return [message.seq for message in (await fleet.jetstream.read(stream, limit=1000)).messages]


async def account_state(fleet: Fleet) -> dict[str, Any]:
    """Everything JetStream tells of an account: configuration and state of each stream and of its consumers."""
    streams, missing = await fleet.jetstream.streams()
    assert missing == []
    told: dict[str, Any] = {}
    for info in streams:
        name = info["config"]["name"]
        consumers = {each["name"]: each for each in await fleet.jetstream.consumers(name)}
        for each in consumers.values():
            for moving in ("ts", "num_waiting", "pause_remaining"):
                each.pop(moving, None)
        told[name] = {"created": info["created"], "config": info["config"], "state": info["state"], **consumers}
    return told


async def strand(fleet: Fleet, agent: str = "ceo", count: int = 1) -> None:
    """Leave messages behind that used up their only delivery; the inbox needs `max_deliver=1` and a short lease."""
    inbox = fleet.inbox(agent)
    for number in range(count):
        await inbox.send("note", number, id=f"stranded-{number}")
    for _ in range(count):
        await take(fleet, inbox.stream, inbox.durable)

    async def hidden() -> bool:
        # The server notices that a lease is over when somebody pulls.
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{inbox.stream}.{inbox.durable}"
        await fleet.nc.publish(pull, b'{"batch":1,"no_wait":true}')
        return (await inbox.depth()).stranded == count

    await until(hidden)


def production(tmp_path: Path, url: str, **settings: str) -> tuple[str, ...]:
    """Options for a context named `live` that the settings call production."""
    contexts = Path(os.environ["XDG_CONFIG_HOME"]) / "nats" / "context"
    contexts.mkdir(parents=True, exist_ok=True)
    (contexts / "live.json").write_text(json.dumps({"url": url}))
    file = tmp_path / "settings.toml"
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    file.write_text(f"{more}[contexts.live]\nprod = true\n")
    return "--context", "live", "--config", str(file)
