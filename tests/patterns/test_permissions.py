"""Least privilege: `permissions.conf` allows each user its whole work, nothing in it is idle, and the rest is refused.

The server's own log tells both: it traces what each user asked, and names each violation.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.errors import NoRespondersError

import patterns
from console.monitor.engine import Monitor
from console.monitor.feed import Feed
from console.settings import Settings
from patterns import Fleet, PermissionDenied, Reject, StreamLimits, Unavailable, UnknownDestination
from patterns.message import decode
from patterns.names import subject_matches
from patterns.server import LocalServer
from tests.support.commandline import CommandLine
from tests.support.fleets import fast, take
from tests.support.waiting import until

CONF = (Path(patterns.__file__).parent / "examples" / "permissions.conf").read_text()
CONFIG = fast(tasks={"heartbeat": 0.1})
SETTINGS = Settings(refresh=0.2)

TRACED = re.compile(r'"FLEET/user:([^"]+)" - <<- \[(?:H?(PUB)|(SUB)) (\S+) (\S*)')
VIOLATED = re.compile(r'"FLEET/user:([^"]+)" - (Publish|Subscription) Violation - Subject "([^"]+)"')

ELSEWHERE = {("backend-1", "$KV.RECEIPTS.resolved.tasks.backend.*")}
"""Allowed for what only `test_a_task_that_is_finished_although_it_was_given_up` brings about."""


class Secured(LocalServer):
    """A server with `permissions.conf`, and what its log tells of the users."""

    def __init__(self):
        super().__init__(config=f"{CONF}\ntrace: true\n")

    def violations(self):
        """What was refused, each once: user, `Publish` or `Subscription`, subject."""
        return set(VIOLATED.findall(self.log_path.read_text()))

    def idle(self, user):
        """Permissions of a user that nothing it did so far has needed."""
        asked = [
            (pub or sub, s, queue)
            for who, pub, sub, s, queue in TRACED.findall(self.log_path.read_text())
            if who == user
        ]
        publish, _, subscribe = permissions(user)
        return {
            pattern
            for verb, patterns in (("PUB", publish), ("SUB", subscribe))
            for pattern in patterns
            if not any(fits(pattern, verb, *did) for did in asked)
        }

    @asynccontextmanager
    async def user(self, name, config=CONFIG):
        """A fleet on a connection of this user, with what the client was told of violations in `fleet.refused`."""
        refused = []

        async def on_error(error):
            refused.append(str(error))

        login = {"user": name, "password": f"{name}-secret", "inbox_prefix": f"_INBOX.{name}"}
        async with Fleet.connect(self.url, config=config, error_cb=on_error, **login) as fleet:
            fleet.refused = refused
            yield fleet


def permissions(user, conf=CONF):
    """What a configuration says of a user: the subjects it may publish, may not publish, and may subscribe."""
    text = re.sub(r"(?m)(^|\s)#.*$", "", conf)
    block = text.partition(f'user: "{user}"')[2].partition("user:")[0]
    publish, _, subscribe = block.partition("subscribe:")
    allow, _, deny = publish.partition("publish:")[2].partition("deny:")
    return [re.findall(r'"([^"]+)"', part) for part in (allow, deny, subscribe.partition("]")[0])]


def fits(pattern, verb, did, subject, queue):
    """Whether one thing a user did is covered by one of its permissions, which may name a queue group."""
    wanted, _, group = pattern.partition(" ")
    return verb == did and subject_matches(wanted, subject) and group in ("", queue)


@pytest.fixture
def secured():
    with Secured() as started:
        yield started


async def deploy(server, config=CONFIG):
    """What a deployment does: streams, durables, the subscription of backend-1, and again with other limits."""
    async with server.user("provisioner", config) as fleet:
        await fleet.provision(agents=["ceo", "backend-1"], roles=["backend"])
        await fleet.events.subscription("backend-1", "deployment.>")
        assert fleet.refused == []


async def strand(fleet, agent):
    """Use up the deliveries of a message in an inbox, as its agent that dies each time would."""
    inbox = fleet.inbox(agent)
    for _ in range(CONFIG.inbox.max_deliver):
        await (await take(fleet, inbox.stream, inbox.durable)).nak()
    pull = inbox.consumer().lane.pull()

    async def noticed():
        # The server does not notice before somebody pulls again.
        assert await pull.next(0.1) is None
        return (await inbox.depth()).stranded

    await until(noticed)
    assert await pull.close() == []


async def letters(fleet, *entries):
    """Wait for these dead letters, each `<kind>.<name> <reason>`, and no others."""

    async def all_there():
        found = await fleet.dead_letters.list()
        return len(found) >= len(entries) and found

    found = await until(all_there)
    assert sorted(f"{letter.source} {letter.reason}" for letter in found) == sorted(entries)
    return found


class Work:
    """The two agents of `permissions.conf` at their work."""

    def __init__(self, ceo, backend):
        self.ceo, self.backend = ceo.agent("ceo"), backend.agent("backend-1", role="backend", concurrency=4)
        self.cured = False
        """Whether what was poison is handled from now on."""
        self.heard = []
        self.canceled = asyncio.Event()
        self.ceo.on_message()(self.listen)
        self.backend.on_message()(self.listen)
        self.backend.on_event("deployment.>")(self.listen)
        self.backend.on_task()(self.work)
        self.backend.on_request("size")(self.answer)

    async def listen(self, delivery):
        if delivery.data == "poison" and not self.cured:
            raise Reject("poison")
        if delivery.data == "flaky" and delivery.attempt == 1:
            raise ValueError("again")
        self.heard.append(delivery.type)

    async def work(self, task):
        if task.type == "poison" and not self.cured:
            raise Reject("poison")
        if task.type == "flaky" and task.attempt == 1:
            raise ValueError("again")
        if task.type == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                self.canceled.set()
        await task.progress("nearly there")
        return "done"

    async def answer(self, request):
        return 20

    async def hears(self, *types):
        """Wait until all of these were heard, in any order."""
        await until(lambda: sorted(self.heard) == sorted(types))
        self.heard.clear()


async def test_agents_do_their_whole_work_with_their_permissions_and_need_each_of_them(secured):
    await deploy(secured)
    async with AsyncExitStack() as stack:
        ceo, backend, operator = [
            await stack.enter_async_context(secured.user(name)) for name in ("ceo", "backend-1", "operator")
        ]
        await ceo.inbox("backend-1").send("lost")
        await strand(backend, "backend-1")
        await backend.inbox("ceo").send("lost")
        await strand(ceo, "ceo")

        at_work = Work(ceo, backend)
        async with at_work.ceo, at_work.backend:
            # Both sweep what stranded while they were away.
            await letters(operator, "inbox.ceo crash", "inbox.backend-1 crash")

            # Requests, to an agent and to a role, and to nobody.
            for asker in (at_work.ceo, at_work.backend):
                assert (await asker.request("backend-1", "size")).source == "live"
                assert (await asker.request(role="backend", method="size")).source == "live"
                assert (await asker.request("devops", "size", fallback=10)).source == "fallback"

            # Tasks, and how they end.
            tasks = ceo.tasks("backend")
            for task in ("fine", "flaky"):
                await at_work.ceo.submit("backend", task, id=task)
                assert (await tasks.wait(task, 20)).result == "done"
            await at_work.ceo.submit("backend", "slow", id="slow")

            async def working():
                return (await tasks.status("slow")).state == "working"

            await until(working)
            assert await tasks.cancel("slow")
            async with asyncio.timeout(20):
                await at_work.canceled.wait()
            await at_work.ceo.submit("backend", "poison", id="poison")
            await at_work.ceo.submit("backend", "fine", id="untold", reply_to="agents.nobody.inbox")
            await at_work.hears("task.completed", "task.completed", "task.failed")

            # Messages and events, good ones and poison, and an address that does not exist.
            await at_work.ceo.send("backend-1", "note", "flaky")
            await at_work.backend.send("ceo", "note", "flaky")
            await at_work.backend.send("ceo", "note", "poison")
            await at_work.ceo.broadcast("deployment.started", "good")
            await at_work.backend.broadcast("deployment.completed", "poison")
            await at_work.hears("note", "note", "deployment.started")
            for agent in (at_work.ceo, at_work.backend):
                with pytest.raises(UnknownDestination):
                    await agent.send("nobody", "note")
            for inbox in (ceo.inbox("ceo"), backend.inbox("backend-1")):
                assert await inbox.peek() == []
                assert (await inbox.depth()).messages == 0
            assert (await backend.tasks("backend").depth()).messages == 0

            dead = await letters(
                operator,
                *("inbox.ceo crash", "inbox.backend-1 crash", "inbox.ceo rejected", "inbox.nobody undeliverable"),
                *("tasks.backend rejected", "events.backend-1-events rejected"),
            )
            at_work.cured = True
            for letter in dead:
                if letter.name != "nobody":
                    await operator.dead_letters.replay(letter.seq, by="ann")
            await at_work.hears("lost", "lost", "note", "deployment.completed", "task.completed")
            assert (await tasks.status("poison")).state == "completed"

        assert [*ceo.refused, *backend.refused, *operator.refused] == []
    assert secured.violations() == set()
    assert {(user, each) for user in ("ceo", "backend-1") for each in secured.idle(user)} == ELSEWHERE


async def test_a_provisioner_deploys_updates_and_removes_a_subscription_and_needs_each_permission(secured):
    await deploy(secured)
    await deploy(secured, fast(inbox={"ack_wait": 50.0}, limits=StreamLimits(max_msgs=5)))
    async with secured.user("provisioner") as fleet:
        await fleet.events.unsubscribe("backend-1")
        assert fleet.refused == []
    assert secured.violations() == set()
    assert secured.idle("provisioner") == set()


async def test_an_agent_whose_topics_are_not_the_deployed_ones_is_not_let_in(secured):
    await deploy(secured)
    async with secured.user("backend-1") as fleet:
        with pytest.raises(PermissionDenied, match="CONSUMER"):
            await fleet.events.subscription("backend-1", "deployment.>", "security.>")
    assert secured.violations() == {("backend-1", "Publish", "$JS.API.CONSUMER.CREATE.EVENTS.backend-1-events")}


async def test_a_task_that_is_finished_although_it_was_given_up_leaves_its_letter_to_the_operator(secured):
    config = fast(tasks={"ack_wait": 1.0})
    await deploy(secured, config)
    async with (
        secured.user("ceo", config) as ceo,
        secured.user("backend-1", config) as backend,
        secured.user("operator", config) as operator,
    ):
        tasks = backend.tasks("backend")
        await ceo.tasks("backend").submit("fine", id="t-1", reply_to="agents.ceo.inbox")
        first = await tasks.next("backend-1")
        await first.retry(0)
        task = await tasks.next("backend-1")
        # Meanwhile another member of the role, which had lost its lease, gives it up.
        entry = task._lane.entry(task.message, task.stored_ns)
        stored = await operator.jetstream.get("TASKS_BACKEND", task.seq)
        message = decode(stored.subject, stored.headers, stored.body, names=backend.names, seq=stored.seq)
        await backend.burials.bury(
            entry, stored, reason="crash", stream="TASKS_BACKEND", deliveries=3, message=message, remove_origin=False
        )
        # The letter cannot be taken back, and that holds nothing up.
        async with task:
            task.result = "done"
        assert await _is_empty(tasks)
        assert (await ceo.tasks("backend").status("t-1")).result == "done"
        assert [message.type for message in await ceo.inbox("ceo").peek()] == ["task.completed"]
        (letter,) = await operator.dead_letters.list()
        await operator.dead_letters.discard(letter.seq, by="ann")
    assert secured.violations() == {("backend-1", "Publish", "$JS.API.STREAM.MSG.DELETE.DLQ")}
    assert {pattern for user, pattern in ELSEWHERE} & secured.idle("backend-1") == set()


async def _is_empty(queue):
    return (await queue.depth()).messages == 0


# -- people


async def prepare(server):
    """A fleet with three dead letters, a stranded message, one that waits, and an event."""
    await deploy(server)
    async with server.user("ceo") as ceo, server.user("backend-1") as backend:
        at_work = Work(ceo, backend)
        async with at_work.ceo, at_work.backend:
            await at_work.backend.send("ceo", "note", "poison")
            await at_work.ceo.submit("backend", "poison", id="poison", reply_to=None)
            await at_work.ceo.broadcast("deployment.started", "poison")
            async with server.user("viewer") as viewer:
                await letters(
                    viewer, "inbox.ceo rejected", "tasks.backend rejected", "events.backend-1-events rejected"
                )
        await backend.inbox("ceo").send("lost")
        await strand(ceo, "ceo")
        await backend.inbox("ceo").send("waits")
        await ceo.tasks("backend").submit("waits", id="waits")


@pytest.fixture
def console(secured, capsys):
    """The command line as one of the users: `console("viewer", "fleet", "--json")`."""
    asyncio.run(prepare(secured))
    contexts = Path(os.environ["XDG_CONFIG_HOME"]) / "nats" / "context"
    contexts.mkdir(parents=True)
    for name in ("viewer", "operator"):
        context = {"user": name, "password": f"{name}-secret", "inbox_prefix": f"_INBOX.{name}"}
        (contexts / f"{name}.json").write_text(json.dumps(context))
    command = CommandLine(capsys, secured.url)
    return lambda user, *words: command("--context", user, *words)


async def discovered(fleet, verb):
    """Ask all services, as `nats micro` does; here nobody listens, and only the server may say so."""
    with pytest.raises(NoRespondersError):
        await fleet.nc.request(f"$SRV.{verb}", b"", timeout=20)


async def look(server, user):
    """What the console's screens do."""
    async with server.user(user) as fleet:
        monitor = Monitor(fleet, SETTINGS)
        assert await monitor.read()
        assert monitor.health.rtt is not None
        assert monitor.view.missing == ()
        assert monitor.letters.total == 3
        feed = Feed(fleet)
        follow = asyncio.create_task(feed.run())
        await until(lambda: [item.topic for item in feed.items] == ["deployment.started"])
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)
        assert [message.type for message in await fleet.inbox("ceo").peek()] == ["lost", "waits"]
        assert len(await fleet.dead_letters.stranded("INBOX_CEO", "ceo-processor")) == 1
        for verb in ("PING", "INFO", "STATS"):
            await discovered(fleet, verb)
        assert fleet.refused == []


def test_the_console_of_somebody_who_only_looks_shows_everything_and_needs_each_permission(console, secured):
    fleet = console("viewer", "fleet", "--json").json
    (ceo,) = (row for row in fleet["agents"] if row["agent"] == "ceo")
    assert (ceo["inbox"]["depth"], ceo["inbox"]["stranded"], ceo["dead_letters"]) == (2, 1, 1)
    assert console("viewer", "check").status == 2
    found = console("viewer", "dlq", "list", "--json").json
    assert [letter["kind"] for letter in found].sort() == ["events", "inbox", "tasks"].sort()
    assert console("viewer", "dlq", "show", str(found[0]["seq"])).status == 0
    plan = console("viewer", "dlq", "replay", "--all", "--dry-run", "--json").json
    assert plan["count"] == 0
    assert ["no permission to publish" in skip["reason"] for skip in plan["skipped"]] == [True, True, True]
    assert [event["type"] for event in console("viewer", "events", "--no-follow", "--json").lines] == [
        "deployment.started"
    ]
    assert console("viewer", "info", "--json").json["problem"] is None
    asyncio.run(look(secured, "viewer"))
    assert secured.violations() == set()
    assert secured.idle("viewer") == set()


async def begin(server):
    """Let agents take a replayed task and an outcome, and hand them back: both have left receipts."""
    async with server.user("ceo") as ceo, server.user("backend-1") as backend:
        outcome = {"Agent-Outcome-Of": "tasks.backend.1-1 completed", "Nats-Msg-Id": "outcome"}
        await ceo.jetstream.publish("agents.ceo.inbox.task.completed", b"{}", outcome)
        await put_off(ceo.inbox("ceo").consumer(), "Agent-Outcome-Of")
        await put_off(backend.tasks("backend").worker("backend-1"), "Agent-Replay-Of")


async def put_off(consumer, header):
    """Acknowledge what comes, but for the first message with this header: it is to come again later."""
    async with consumer:
        while (delivery := await consumer.next(20)) is not None:
            if header in delivery.headers:
                await delivery.retry(600)
                return
            await delivery.ack()


def test_an_operator_replays_discards_rescues_pauses_and_purges_and_needs_each_permission(console, secured):
    asyncio.run(look(secured, "operator"))
    done = console("operator", "dlq", "replay", "--all", "--yes", "--json").json
    assert (done["done"], done["failed"]) == (3, 0), done
    asyncio.run(begin(secured))
    assert console("operator", "dlq", "rescue", "--yes", "--json").json["done"] == 1
    for words in (("dlq",), ("inbox", "ceo"), ("queue", "backend")):
        group, *name = words
        if name:
            for verb in ("pause", "resume"):
                assert console("operator", group, verb, *name, "--yes", "--json").json["done"] == 1
        purged = console("operator", group, "purge", *name, "--all", "--yes", "--json").json
        assert purged["done"] == purged["planned"] > 0, purged
        restored = console("operator", "restore", purged["spill"], "--yes", "--json").json
        assert restored["done"] == restored["planned"] == purged["done"], restored
    assert secured.violations() == set()
    assert secured.idle("operator") == set()


@pytest.mark.parametrize("user", ["backend-1", "viewer", "operator", "provisioner"])
def test_the_manual_shows_the_same_permissions(user):
    manual = (Path(patterns.__file__).parent / "docs" / "operations.md").read_text()
    (shown,) = (block for block in re.findall(r"```nats\n(.*?)```", manual, re.DOTALL) if f'user: "{user}"' in block)
    assert [sorted(each) for each in permissions(user, shown)] == [sorted(each) for each in permissions(user)]
    assert min(len(each) for each in permissions(user)[::2]) > 0


# -- what is refused

AGENT_REFUSED = (
    # Another agent's inbox: read, taken, acknowledged, deleted.
    "$JS.API.STREAM.MSG.GET.INBOX_CEO",
    "$JS.API.DIRECT.GET.INBOX_CEO",
    "$JS.API.DIRECT.GET.INBOX_CEO.agents.ceo.inbox.note",
    "$JS.API.CONSUMER.MSG.NEXT.INBOX_CEO.ceo-processor",
    "$JS.API.CONSUMER.INFO.INBOX_CEO.ceo-processor",
    "$JS.ACK.INBOX_CEO.ceo-processor.1.1.1.1.0",
    "$JS.API.STREAM.MSG.DELETE.INBOX_CEO",
    "$JS.API.STREAM.PURGE.INBOX_CEO",
    # What a role or the fleet shares.
    "$JS.API.DIRECT.GET.TASKS_BACKEND",
    "$JS.API.STREAM.MSG.GET.TASKS_BACKEND",
    "$JS.API.STREAM.MSG.DELETE.TASKS_BACKEND",
    "$JS.API.STREAM.MSG.DELETE.DLQ",
    "$JS.API.DIRECT.GET.DLQ",
    "$JS.API.DIRECT.GET.EVENTS",
    "$JS.API.STREAM.PURGE.DLQ",
    "$JS.API.STREAM.PURGE.KV_TASKS",
    # Nothing is made, changed, emptied or suspended, not even what is its own.
    "$JS.API.STREAM.PURGE.INBOX_BACKEND-1",
    "$JS.API.STREAM.DELETE.INBOX_BACKEND-1",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.UPDATE.INBOX_BACKEND-1",
    "$JS.API.CONSUMER.CREATE.EVENTS.backend-1-events",
    "$JS.API.CONSUMER.CREATE.INBOX_CEO.spy.agents.ceo.inbox.>",
    "$JS.API.CONSUMER.DELETE.INBOX_BACKEND-1.backend-1-processor",
    "$JS.API.CONSUMER.PAUSE.TASKS_BACKEND.backend-workers",
    "$JS.API.CONSUMER.RESET.INBOX_BACKEND-1.backend-1-processor",
    # Records, letters and receipts of others, and events past the topic.
    "tasks.devops.restart",
    "$KV.TASKS.devops.t-1",
    "dlq.tasks.devops.1-1",
    "dlq.events.ceo-events.1-1",
    "$KV.RECEIPTS.resolved.inbox.ceo.1-1",
    "$KV.RECEIPTS.replay.inbox.ceo.1-1.r1",
    "$KV.RECEIPTS.outcome.tasks.devops.1-1.completed",
    "redeliver.ceo.events.deployment.completed",
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.INBOX_CEO.ceo-processor",
    "$SYS.REQ.SERVER.PING",
)
AGENT_DEAF = (
    # Replies to others, what is said to others, and requests beside the queue group.
    ("_INBOX.>", ""),
    ("_INBOX.ceo.>", ""),
    ("agents.ceo.inbox.>", ""),
    ("agents.ceo.rpc.>", "q"),
    ("agents.backend-1.rpc.>", ""),
    ("roles.backend.rpc.>", ""),
    ("roles.devops.rpc.>", "q"),
    ("tasks.backend.>", ""),
    ("$KV.TASKS.backend.*", ""),
    ("events.>", ""),
    ("dlq.>", ""),
    ("$JS.EVENT.>", ""),
    ("$JS.API.>", ""),
    (">", ""),
)
LOOKING_REFUSED = (
    "agents.ceo.inbox.note",
    "agents.ceo.rpc.size",
    "tasks.backend.code",
    "events.deployment.completed",
    "dlq.inbox.ceo.1-1",
    "redeliver.backend-1.events.deployment.completed",
    "$KV.TASKS.backend.t-1",
    "$KV.RECEIPTS.resolved.inbox.ceo.1-1",
    "$JS.API.STREAM.MSG.DELETE.DLQ",
    "$JS.API.STREAM.PURGE.DLQ",
    "$JS.API.STREAM.DELETE.DLQ",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.CONSUMER.CREATE.EVENTS.mine",
    "$JS.API.CONSUMER.DELETE.EVENTS.backend-1-events",
    "$JS.API.CONSUMER.MSG.NEXT.INBOX_CEO.ceo-processor",
    "$JS.API.CONSUMER.PAUSE.INBOX_CEO.ceo-processor",
    "$JS.ACK.INBOX_CEO.ceo-processor.1.1.1.1.0",
    "_INBOX.ceo.1",
)
OPERATOR_REFUSED = (
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.PURGE.KV_TASKS",
    "$JS.API.STREAM.PURGE.KV_RECEIPTS",
    "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.STREAM.DELETE.DLQ",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.UPDATE.DLQ",
    "$JS.API.CONSUMER.CREATE.EVENTS.mine",
    "$JS.API.CONSUMER.DELETE.EVENTS.backend-1-events",
    "$JS.API.CONSUMER.MSG.NEXT.INBOX_CEO.ceo-processor",
    "$JS.ACK.INBOX_CEO.ceo-processor.1.1.1.1.0",
    "$JS.API.STREAM.PURGE.DLQ",
    "events.deployment.completed",
    "agents.ceo.rpc.size",
)
PROVISIONER_REFUSED = (
    "agents.ceo.inbox.note",
    "tasks.backend.code",
    "events.deployment.completed",
    "dlq.inbox.ceo.1-1",
    "$KV.TASKS.backend.t-1",
    "$JS.API.STREAM.MSG.GET.INBOX_CEO",
    "$JS.API.DIRECT.GET.INBOX_CEO",
    "$JS.API.CONSUMER.MSG.NEXT.INBOX_CEO.ceo-processor",
    "$JS.API.CONSUMER.DELETE.INBOX_CEO.ceo-processor",
    "$JS.API.STREAM.MSG.DELETE.DLQ",
    "$JS.API.STREAM.PURGE.DLQ",
    "$JS.API.STREAM.DELETE.DLQ",
)
OTHERS_DEAF = (("_INBOX.>", ""), ("_INBOX.ceo.>", ""), ("agents.ceo.inbox.>", ""), ("agents.ceo.rpc.>", "q"), (">", ""))


async def counters(fleet):
    """Everything the streams and consumers of a fleet count."""
    streams, _ = await fleet.jetstream.streams()
    found = {info["config"]["name"]: (info["config"], info["state"]) for info in streams}
    for stream in list(found):
        for consumer in await fleet.jetstream.consumers(stream):
            facts = ("config", "num_pending", "num_ack_pending", "num_redelivered", "ack_floor", "num_waiting")
            found[f"{stream} {consumer['name']}"] = [consumer.get(fact) for fact in facts]
    return found


@pytest.mark.parametrize(
    ("user", "subjects", "subscriptions"),
    [
        ("backend-1", AGENT_REFUSED, AGENT_DEAF),
        ("viewer", LOOKING_REFUSED, OTHERS_DEAF),
        ("operator", OPERATOR_REFUSED, OTHERS_DEAF),
        ("provisioner", PROVISIONER_REFUSED, OTHERS_DEAF),
    ],
)
async def test_what_a_user_may_not_do_is_refused_and_changes_nothing(secured, user, subjects, subscriptions):
    await prepare(secured)
    async with secured.user("viewer") as viewer, secured.user(user) as fleet:
        before = await counters(viewer)
        for subject in subjects:
            await fleet.nc.publish(subject, b"", reply=fleet.nc.new_inbox())
        for subject, queue in subscriptions:
            await fleet.nc.subscribe(subject, queue=queue)
        await fleet.nc.flush()
        expected = {(user, "Publish", subject) for subject in subjects}
        expected |= {(user, "Subscription", subject) for subject, _ in subscriptions}
        await until(lambda: secured.violations() == expected)
        await until(lambda: len(fleet.refused) == len(subjects) + len(subscriptions))
        assert await counters(viewer) == before


async def test_an_agent_cannot_look_into_another_ones_inbox_nor_take_from_it(secured):
    await prepare(secured)
    async with secured.user("backend-1") as backend, secured.user("ceo") as ceo:
        ceos = backend.inbox("ceo")
        peeked, taken = await asyncio.gather(ceos.peek(), ceos.next(1), return_exceptions=True)
        assert isinstance(peeked, Unavailable)
        assert taken is None
        message = await ceo.inbox("ceo").next(20)
        assert (message.type, message.attempt) == ("waits", 1)


@pytest.mark.parametrize("user", ["viewer", "operator"])
async def test_without_its_own_inbox_prefix_a_user_hears_no_answer(secured, user):
    await deploy(secured)
    async with await nats.connect(secured.url, user=user, password=f"{user}-secret", error_cb=_quiet) as client:
        with pytest.raises(nats.errors.TimeoutError):
            await client.request("$JS.API.INFO", b"", timeout=0.5)
    assert {(who, what) for who, what, _ in secured.violations()} == {(user, "Subscription")}


async def _quiet(error):
    pass


async def test_a_responder_is_no_way_around_the_permissions_of_whoever_asks(secured):
    await deploy(secured)
    async with secured.user("ceo") as ceo, secured.user("backend-1") as backend, secured.user("viewer") as viewer:
        await ceo.inbox("backend-1").send("note")
        await backend.inbox("ceo").send("note")
        responder = backend.requests.responder("backend-1", role="backend")

        async def nothing(request):
            return None

        responder.handle("nothing", nothing)
        async with responder:
            before = await counters(viewer)
            for stream in ("INBOX_CEO", "INBOX_BACKEND-1", "DLQ", "KV_RECEIPTS"):
                # Once each: of two requests with the same reply subject the server lets through no response at all.
                await ceo.nc.publish("agents.backend-1.rpc.nothing", b"", reply=f"$JS.API.STREAM.PURGE.{stream}")
            # It came last, and is answered last.
            await ceo.requests.request("nothing", to="backend-1", timeout=20)
            await backend.nc.flush()
            assert await counters(viewer) == before
