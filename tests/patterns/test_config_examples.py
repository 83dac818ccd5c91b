"""The configuration examples: each is read, really provisioned, and does what its comments say."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from nats.js.errors import APIError

from patterns import Fleet, FleetConfig, examples
from tests.support.fleets import running
from tests.support.waiting import until

FOLDER = Path(examples.__file__).parent
EXAMPLES = ("fleet", "laptop", "one-at-a-time", "production")


def load(name: str) -> FleetConfig:
    """An example as an agent would read it."""
    return FleetConfig.from_mapping(tomllib.loads((FOLDER / f"{name}.toml").read_text()))


def deliveries(config: FleetConfig):
    """Every delivery a configuration speaks of."""
    return [config.inbox, config.tasks, config.events, *config.roles.values()]


def ns(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1e9)


async def provisioned(fleet: Fleet) -> dict[str, dict]:
    """Provision what the example speaks of; the configuration of every stream and durable as the server has it."""
    await fleet.provision(agents=["ceo"], roles=["backend", *fleet.config.roles])
    await fleet.events.subscription("ceo", "deployment.>")
    streams, missing = await fleet.jetstream.streams()
    assert not missing
    found = {}
    for info in streams:
        name = info["config"]["name"]
        found[name] = info["config"]
        for consumer in await fleet.jetstream.consumers(name):
            found[consumer["name"]] = consumer["config"]
    return found


def check(config: FleetConfig, found: dict[str, dict]) -> None:
    """The server has the values of the file, not its own."""
    roles = {role: config.role(role) for role in ("backend", *config.roles)}
    for role, delivery in roles.items():
        assert found[f"{role}-workers"]["ack_wait"] == ns(delivery.ack_wait)
        assert found[f"{role}-workers"]["max_ack_pending"] == delivery.max_ack_pending
        assert found[f"{role}-workers"]["metadata"]["agents.max-deliver"] == str(delivery.max_deliver)
    for durable, delivery in (("ceo-processor", config.inbox), ("ceo-events", config.events)):
        assert found[durable]["ack_wait"] == ns(delivery.ack_wait)
        assert found[durable]["max_ack_pending"] == delivery.max_ack_pending
    assert found["ceo-processor"]["max_deliver"] == config.inbox.max_deliver
    limits = config.limits
    for stream in ("INBOX_CEO", *(f"TASKS_{role.upper()}" for role in roles)):
        assert found[stream]["max_msgs"] == limits.max_msgs
        assert found[stream].get("max_age", 0) == ns(limits.max_age)
        assert found[stream]["duplicate_window"] == ns(limits.duplicate_window)
    assert found["EVENTS"]["max_age"] == ns(limits.events_max_age)
    assert found["DLQ"]["max_age"] == ns(config.dead_letters.max_age)
    assert found["DLQ"]["max_msgs"] == config.dead_letters.max_msgs
    assert found["KV_RECEIPTS"]["max_age"] == ns(config.dead_letters.max_age)
    assert found["KV_TASKS"]["max_age"] == ns(config.ledger_ttl)
    assert {config["num_replicas"] for config in found.values() if "retention" in config} == {limits.replicas}


def test_no_example_is_forgotten():
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_values_of_an_example_fit_together(name):
    config = load(name)
    for each in deliveries(config):
        # A second result of a crashed worker, or of a retry, is recognized by its id.
        assert config.limits.duplicate_window > each.ack_wait
        assert config.limits.duplicate_window > each.retry.max * (1 + each.retry.jitter)
        # A lost heartbeat costs no lease.
        assert each.heartbeat_interval * 2 < each.ack_wait
        assert each.max_runtime > each.ack_wait
    assert config.inbox.max_ack_pending == 1
    assert config.ledger_ttl >= config.limits.duplicate_window
    assert config.dead_letters.max_age >= config.limits.duplicate_window


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "production"])
async def test_an_example_is_provisioned_on_one_server(server, name):
    config = load(name)
    async with Fleet.connect(server.url, config=config) as fleet:
        check(config, await provisioned(fleet))
        # As at the next deployment: nothing is left to change.
        check(config, await provisioned(fleet))


async def test_production_is_provisioned_on_three_servers_and_outlives_one(cluster):
    config = load("production")
    async with Fleet.connect(cluster.urls, config=config) as fleet:
        check(config, await provisioned(fleet))
        await fleet.inbox("ceo").send("before", id="m-1")
        cluster.kill((int(fleet.server_info().name.removeprefix("node-")) + 1) % 3)
        await fleet.inbox("ceo").send("after", id="m-2")
        heard = []

        async def listen(message):
            heard.append(message.type)

        async with running(fleet.inbox("ceo").consumer(), listen):
            await until(lambda: heard == ["before", "after"], 45)


async def test_production_on_a_single_server_is_refused_by_the_server(server):
    async with Fleet.connect(server.url, config=load("production")) as fleet:
        with pytest.raises(APIError, match="replicas"):
            await fleet.provision()


async def test_one_at_a_time_holds_for_the_workers_of_all_processes(server):
    config = load("one-at-a-time")
    at_work, most, done = 0, 0, []

    async def change(task):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        # Another worker that could have a task would have it by now.
        await until(lambda: waiting(queue))
        at_work -= 1
        if task.data == "flaky" and task.attempt == 1:
            raise ValueError("again")
        done.append((task.id, task.attempt))

    async with (
        Fleet.connect(server.url, config=config) as one,
        Fleet.connect(server.url, config=dataclasses.replace(config, poll=0.2)) as other,
    ):
        await one.provision(roles=["devops"])
        queue = one.tasks("devops")

        for number, data in enumerate(("flaky", "fine", "fine")):
            await queue.submit("change", data, id=f"t-{number}")
        async with (
            running(one.tasks("devops").worker("devops-1", concurrency=4), change),
            running(other.tasks("devops").worker("devops-2", concurrency=4), change),
        ):
            await until(lambda: len(done) == 3)
    assert most == 1
    # The one that waited for its retry held the others up.
    assert done == [("t-0", 2), ("t-1", 1), ("t-2", 1)]


async def waiting(queue):
    """Whether somebody with a free slot asks for more than there is in flight."""
    depth = await queue.depth()
    assert depth.ack_pending == 1
    return depth.waiting > 0
