"""Configuration: what is wrong is named, what is left out has the announced value."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import patterns
from patterns import (
    DeadLetterConfig,
    DeliveryConfig,
    FleetConfig,
    InvalidConfig,
    InvalidName,
    RequestConfig,
    RetryPolicy,
    StreamLimits,
)

TOML = """
max_hops = 8
poll = 1
[inbox]
ack_wait = 120
[tasks]
max_runtime = 7200
retry = { base = 1, jitter = 0 }
[roles.devops]
max_ack_pending = 1
retry = { factor = 2 }
[roles.backend]
[limits]
replicas = 3
max_age = 86400
[requests]
timeout = 2
[dead_letters]
notify_sender = false
"""


def test_the_announced_values_are_the_defaults():
    config = FleetConfig()
    assert (config.inbox.ack_wait, config.inbox.max_deliver, config.inbox.max_ack_pending) == (300.0, 3, 1)
    assert (config.tasks.ack_wait, config.tasks.max_ack_pending) == (60.0, 64)
    assert config.events == config.tasks
    assert FleetConfig.from_mapping({}) == config


def test_a_toml_file_changes_what_it_names():
    config = FleetConfig.from_mapping(tomllib.loads(TOML))
    assert (config.max_hops, config.poll, config.drain_grace) == (8, 1.0, 10.0)
    assert isinstance(config.poll, float)
    assert config.inbox == dataclasses.replace(DeliveryConfig(), ack_wait=120.0)
    assert config.tasks.retry == RetryPolicy(base=1.0, jitter=0.0)
    assert (config.tasks.max_runtime, config.tasks.ack_wait) == (7200.0, 60.0)
    assert config.limits == StreamLimits(replicas=3, max_age=86400.0)
    assert config.requests == RequestConfig(timeout=2.0)
    assert config.dead_letters == DeadLetterConfig(notify_sender=False)


def test_a_role_begins_with_the_values_of_tasks():
    config = FleetConfig.from_mapping(tomllib.loads(TOML))
    devops = config.role("devops")
    assert (devops.max_ack_pending, devops.max_runtime) == (1, 7200.0)
    assert devops.retry == RetryPolicy(base=1.0, jitter=0.0, factor=2.0)
    assert config.role("backend") == config.role("not-mentioned") == config.tasks


def test_the_documented_file_is_valid():
    text = (Path(patterns.__file__).parent / "examples" / "fleet.toml").read_text()
    assert FleetConfig.from_mapping(tomllib.loads(text))


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"max_hop": 3}, "'max_hop'"),
        ({"inbox": {"ackwait": 3}}, "'inbox.ackwait'"),
        ({"tasks": {"retry": {"bas": 1}}}, "'tasks.retry.bas'"),
        ({"roles": {"devops": {"max_deliverr": 1}}}, "'roles.devops.max_deliverr'"),
        ({"roles": {"devops": {"retry": {"x": 1}}}}, "'roles.devops.retry.x'"),
        ({"limits": {"max_bytes": 1}}, "'limits.max_bytes'"),
        ({"dead_letters": {"ttl": 1}}, "'dead_letters.ttl'"),
        ({"requests": {"": 1}}, "'requests.'"),
    ],
)
def test_an_unknown_key_is_named_with_its_table(mapping, named):
    with pytest.raises(InvalidConfig) as caught:
        FleetConfig.from_mapping(mapping)
    assert named in str(caught.value)
    assert "known here" in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"max_hops": "3"}, "max_hops"),
        ({"max_hops": 3.5}, "max_hops"),
        ({"max_hops": True}, "max_hops"),
        ({"max_hops": None}, "max_hops"),
        ({"poll": "2s"}, "poll"),
        ({"poll": float("nan")}, "poll"),
        ({"poll": float("inf")}, "poll"),
        ({"inbox": 3}, "inbox"),
        ({"inbox": {"ack_wait": "300"}}, "inbox.ack_wait"),
        ({"inbox": {"ack_wait": True}}, "inbox.ack_wait"),
        ({"inbox": {"ack_wait": float("inf")}}, "inbox.ack_wait"),
        ({"inbox": {"max_deliver": 3.0}}, "inbox.max_deliver"),
        ({"tasks": {"retry": 5}}, "tasks.retry"),
        ({"tasks": {"retry": {"base": []}}}, "tasks.retry.base"),
        ({"roles": ["devops"]}, "roles"),
        ({"roles": {"devops": 1}}, "roles.devops"),
        ({"dead_letters": {"notify_sender": 1}}, "dead_letters.notify_sender"),
        ({"limits": {"replicas": "3"}}, "limits.replicas"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(mapping, named):
    with pytest.raises(InvalidConfig, match=named.replace(".", r"\.")):
        FleetConfig.from_mapping(mapping)


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"max_hops": 0}, "max_hops"),
        ({"poll": 0}, "poll"),
        ({"drain_grace": -1}, "drain_grace"),
        ({"ledger_ttl": 0}, "ledger_ttl"),
        ({"publish_timeout": 0}, "publish_timeout"),
        ({"inbox": {"ack_wait": 0}}, "inbox.*ack_wait"),
        ({"inbox": {"max_deliver": 0}}, "inbox.*max_deliver"),
        ({"inbox": {"max_ack_pending": 0}}, "inbox.*max_ack_pending"),
        ({"inbox": {"heartbeat": 300}}, "inbox.*heartbeat"),
        ({"inbox": {"heartbeat": 0}}, "inbox.*heartbeat"),
        ({"tasks": {"max_runtime": 0}}, "tasks.*max_runtime"),
        ({"tasks": {"retry": {"base": -1}}}, "tasks.retry.*base"),
        ({"tasks": {"retry": {"factor": 0.5}}}, "tasks.retry.*factor"),
        ({"tasks": {"retry": {"jitter": 2}}}, "tasks.retry.*jitter"),
        ({"limits": {"replicas": 2}}, "limits.*replicas"),
        ({"limits": {"max_msgs": 0}}, "limits.*max_msgs"),
        ({"limits": {"max_age": 0}}, "limits.*max_age"),
        ({"limits": {"duplicate_window": 0}}, "limits.*duplicate_window"),
        ({"limits": {"events_max_age": 0}}, "limits.*events_max_age"),
        ({"requests": {"timeout": 0}}, "requests.*timeout"),
        ({"requests": {"concurrency": 0}}, "requests.*concurrency"),
        ({"dead_letters": {"max_age": 0}}, "dead_letters.*max_age"),
        ({"dead_letters": {"warn_replays": 9}}, "dead_letters.*warn_replays"),
        ({"roles": {"devops": {"max_deliver": 0}}}, r"roles\.devops.*max_deliver"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_table(mapping, named):
    with pytest.raises(InvalidConfig, match=named):
        FleetConfig.from_mapping(mapping)


def test_a_role_must_be_one():
    with pytest.raises(InvalidName):
        FleetConfig.from_mapping({"roles": {"Dev Ops": {}}})


def test_a_configuration_does_not_change():
    config = FleetConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.poll = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.inbox.ack_wait = 1.0


def test_the_heartbeat_keeps_the_lease():
    assert DeliveryConfig(ack_wait=300.0).heartbeat_interval == 30.0
    assert DeliveryConfig(ack_wait=60.0).heartbeat_interval == 20.0
    assert DeliveryConfig(ack_wait=60.0, heartbeat=1.0).heartbeat_interval == 1.0


@given(
    st.floats(0, 1e6),
    st.floats(1, 1e9),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(-3, 10_000),
)
def test_a_delay_stays_within_its_policy(base, factor, most, jitter, attempt):
    policy = RetryPolicy(base=base, factor=factor, max=most, jitter=jitter)
    delay = policy.delay(attempt)
    assert 0 <= delay <= most * (1 + jitter) * 1.000001
    if attempt <= 1:
        plain = min(base, most)
        assert plain * (1 - jitter) * 0.999999 <= delay <= plain * (1 + jitter) * 1.000001


@pytest.mark.parametrize(("attempt", "expected"), [(0, 5), (1, 5), (2, 15), (3, 45), (4, 135), (5, 300), (500, 300)])
def test_delays_grow_to_the_ceiling(attempt, expected):
    assert RetryPolicy(jitter=0.0).delay(attempt) == expected


def test_jitter_spreads_the_delays():
    policy = RetryPolicy(base=10.0, jitter=0.5)
    delays = {policy.delay(1) for _ in range(50)}
    assert len(delays) > 1
    assert all(5 <= delay <= 15 for delay in delays)
