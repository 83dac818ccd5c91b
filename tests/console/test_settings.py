from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from console.settings import (
    ContextSettings,
    Patterns,
    PatternSettings,
    ReplayPolicy,
    Rule,
    Settings,
    SettingsError,
    TargetSettings,
    Thresholds,
    TypeSettings,
    default_path,
    from_mapping,
    load,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_no_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(environ={"XDG_CONFIG_HOME": str(tmp_path)}) == Settings()


def test_a_file_that_was_asked_for_must_be_there(file: Path) -> None:
    with pytest.raises(SettingsError, match="no such settings file") as caught:
        load(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/agent-console/config.toml"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config/agent-console/config.toml"),
        ({"HOME": "/h"}, "/h/.config/agent-console/config.toml"),
    ],
)
def test_where_the_file_is(environ: dict[str, str], expected: str) -> None:
    assert default_path(environ) == Path(expected)


def test_the_environment_of_the_process_counts_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_path() == tmp_path / "agent-console" / "config.toml"
    default_path().parent.mkdir()
    default_path().write_text("refresh = 5")
    assert load().refresh == 5


def test_everything_that_can_be_set(file: Path) -> None:
    file.write_text(
        """
        refresh = "2s"
        read_only = true
        policy = "confirm"
        replay_rate = 5
        replay_stop_ratio = 0.2
        canary = 5
        canary_watch = "1m"
        feed_lines = 200
        theme = "light"

        [thresholds]
        inbox_backlog = 20
        oldest_crit = "15m"
        dead_letters_warn = 2

        [patterns.tasks]
        thresholds = { oldest_warn = "5m", ack_pending = 40 }

        [contexts.prod]
        prod = true
        read_only = true

        [contexts.dev]
        write = true

        [agents."planner-*"]
        policy = "safe"
        thresholds = { inbox_backlog = 100, oldest_warn = 120 }

        [agents."*"]
        policy = "never"

        [roles.billing]
        policy = "never"
        reason = "charges cards"

        [types."deploy.*"]
        policy = "confirm"
        reason = "touches production"

        [keys]
        replay = "f5,ctrl+y"
        """
    )
    settings = load(file)
    assert settings == Settings(
        refresh=2.0,
        read_only=True,
        policy=ReplayPolicy.CONFIRM,
        replay_rate=5.0,
        replay_stop_ratio=0.2,
        canary=5,
        canary_watch=60.0,
        feed_lines=200,
        theme="light",
        thresholds=Thresholds(inbox_backlog=20, oldest_crit=900.0, dead_letters_warn=2),
        patterns=Patterns(tasks=PatternSettings(thresholds={"oldest_warn": 300.0, "ack_pending": 40})),
        contexts={"prod": ContextSettings(prod=True, read_only=True), "dev": ContextSettings(write=True)},
        agents={
            "planner-*": TargetSettings(
                policy=ReplayPolicy.SAFE, thresholds={"inbox_backlog": 100, "oldest_warn": 120.0}
            ),
            "*": TargetSettings(policy=ReplayPolicy.NEVER),
        },
        roles={"billing": TargetSettings(policy=ReplayPolicy.NEVER, reason="charges cards")},
        types={"deploy.*": TypeSettings(policy=ReplayPolicy.CONFIRM, reason="touches production")},
        keys={"replay": "f5,ctrl+y"},
    )


def test_of_an_agent_and_a_type_the_stricter_holds_with_its_reason() -> None:
    settings = from_mapping(
        {
            "agents": {"ceo": {"policy": "confirm", "reason": "signs"}, "dev": {"policy": "safe"}},
            "types": {"wire.*": {"policy": "never", "reason": "moves money"}, "note": {"policy": "safe"}},
        }
    )
    assert settings.rule_for("inbox", "ceo", "wire.out") == Rule(ReplayPolicy.NEVER, "moves money")
    assert settings.rule_for("inbox", "ceo", "note") == Rule(ReplayPolicy.CONFIRM, "signs")
    assert settings.rule_for("tasks", "ceo", "note") == Rule(ReplayPolicy.SAFE)
    assert settings.rule_for("inbox", "dev", "other") == Rule(ReplayPolicy.SAFE)
    careful = from_mapping({"policy": "confirm", "types": {"note": {"policy": "safe"}}})
    assert careful.rule_for("inbox", "ceo", "note").policy is ReplayPolicy.CONFIRM
    assert careful.rule_for("inbox", "ceo", "other").policy is ReplayPolicy.CONFIRM


def test_the_first_glob_that_says_something_decides() -> None:
    settings = from_mapping(
        {
            "policy": "confirm",
            "thresholds": {"inbox_backlog": 20},
            "agents": {
                "planner-*": {"thresholds": {"inbox_backlog": 100}},
                "planner-1": {"policy": "never"},
            },
            "roles": {"planner-1": {"policy": "safe"}},
        }
    )
    assert settings.rule_for("inbox", "planner-1").policy is ReplayPolicy.NEVER
    assert settings.rule_for("inbox", "planner-2").policy is ReplayPolicy.CONFIRM
    assert settings.rule_for("tasks", "planner-1").policy is ReplayPolicy.SAFE
    assert settings.thresholds_for("inbox", "planner-1") == own(inbox_backlog=100)
    assert settings.thresholds_for("inbox", "ceo") == own(inbox_backlog=20)
    assert settings.thresholds_for("tasks", "planner-1") == own(inbox_backlog=20)


def own(**fields: float) -> Thresholds:
    """Thresholds of one inbox, queue or subscription, where nothing is said of dead letters of its own."""
    return Thresholds(**{"dead_letters_warn": 0, "dead_letters_crit": 0, **fields})  # type: ignore[arg-type]


def test_a_pattern_differs_from_everything_and_a_name_from_its_pattern() -> None:
    settings = from_mapping(
        {
            "thresholds": {"oldest_warn": 30, "redelivered": 4},
            "patterns": {
                "inbox": {"thresholds": {"oldest_warn": "2m", "ack_pending": 7}},
                "tasks": {"thresholds": {"oldest_warn": "5m", "dead_letters_warn": 3}},
                "events": {"thresholds": {"subscription_lag": 9}},
            },
            "agents": {
                "planner-*": {"thresholds": {"oldest_warn": 10}},
                "*-1": {"thresholds": {"oldest_warn": 11, "redelivered": 2}},
            },
            "roles": {"slow": {"thresholds": {"oldest_warn": 600}}},
        }
    )
    both = {"oldest_warn": 10.0, "redelivered": 2}
    assert settings.thresholds_for("inbox", "ceo") == own(oldest_warn=120.0, ack_pending=7, redelivered=4)
    assert settings.thresholds_for("inbox", "planner-1") == own(ack_pending=7, **both), "field by field"
    assert settings.thresholds_for("events", "planner-1") == own(subscription_lag=9, **both)
    assert settings.thresholds_for("events", "ceo") == own(subscription_lag=9, oldest_warn=30.0, redelivered=4)
    assert settings.thresholds_for("tasks", "planner-1") == own(oldest_warn=300.0, dead_letters_warn=3, redelivered=4)
    assert settings.thresholds_for("tasks", "slow").oldest_warn == 600.0


def test_sums_of_tables_that_contradict_each_other_are_no_error_at_work() -> None:
    settings = from_mapping(
        {
            "agents": {
                "a-*": {"thresholds": {"oldest_warn": 500, "dead_letters_warn": 50}},
                "*-1": {"thresholds": {"oldest_warn": 50, "oldest_crit": 100, "dead_letters_crit": 5}},
            }
        }
    )
    limits = settings.thresholds_for("inbox", "a-1")
    assert (limits.oldest_warn, limits.oldest_crit) == (500.0, 500.0)
    assert (limits.dead_letters_warn, limits.dead_letters_crit) == (50, 50)


@pytest.mark.parametrize(
    ("source", "apart"),
    [
        ("inbox.noisy", True), ("events.noisy-alerts", True), ("tasks.noisy", False), ("inbox.mute", True),
        ("inbox.ceo", False), ("tasks.billing", True), ("inbox.billing", False), ("events.odd", False),
    ],
)  # fmt: skip
def test_whose_dead_letters_count_for_themselves(source: str, apart: bool) -> None:
    settings = from_mapping(
        {
            "agents": {
                "noisy": {"thresholds": {"dead_letters_warn": 100}},
                "mute": {"thresholds": {"dead_letters_warn": 0}},
                "ceo": {"thresholds": {"inbox_backlog": 100}},
            },
            "roles": {"billing": {"thresholds": {"dead_letters_crit": 1}}},
        }
    )
    assert settings.letters_apart(source) is apart


def test_of_a_pattern_all_do() -> None:
    settings = from_mapping({"patterns": {"tasks": {"thresholds": {"dead_letters_warn": 1}}}})
    assert settings.letters_apart("tasks.any")
    assert not settings.letters_apart("inbox.any")


def test_thresholds_of_many_names_are_worked_out_once_and_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = from_mapping({"agents": {"a*": {"thresholds": {"inbox_backlog": 5}}}})
    assert settings.thresholds_for("inbox", "a1") is settings.thresholds_for("inbox", "a1")
    assert settings.thresholds_for("inbox", "b1") is settings.thresholds_for("inbox", "b2")
    monkeypatch.setattr("console.thresholds.REMEMBERED", 10)
    for number in range(100):
        assert settings.thresholds_for("inbox", f"a{number}").inbox_backlog == 5
    assert len(settings._book._known["inbox"]) <= 10
    assert settings.thresholds_for("inbox", "b1") is settings.thresholds_for("inbox", "b2")


def test_contexts_nobody_mentions_have_the_defaults() -> None:
    settings = from_mapping({"contexts": {"prod": {"prod": True}}})
    assert settings.context("prod").prod
    assert settings.context("") == settings.context("other") == ContextSettings()


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("refesh = 1", "unknown key 'refesh'; known here: refresh, read_only, policy"),
        ("[thresholds]\ninbox = 1", "unknown key 'thresholds.inbox'; known here: inbox_backlog"),
        ("[contexts.prod]\nwrites = true", "unknown key 'contexts.prod.writes'; known here: write, prod, read_only"),
        ("[agents.a]\nthresholds = {inbox = 1}", "unknown key 'agents.a.thresholds.inbox'"),
        ("contexts = 1", "contexts must be a table"),
        ("contexts = {prod = 1}", "contexts.prod must be a table"),
        ("agents = {a = {thresholds = 1}}", "agents.a.thresholds must be a table"),
        ("refresh = true", "refresh (seconds, or a duration like '10m') must be a number"),
        ("refresh = 'fast'", "refresh: 'fast' is not a duration"),
        ("refresh = 0", "refresh must be between 0.2 and 3600"),
        ("refresh = nan", "refresh must be between"),
        ("replay_rate = 501", "replay_rate must be between 1 and 500"),
        ("feed_lines = 1.5", "feed_lines must be a whole number"),
        ("read_only = 1", "read_only must be true or false"),
        ("theme = 1", "theme must be a text"),
        ("keys = {replay = 5}", "keys.replay must be a text"),
        ("policy = 'maybe'", "policy must be one of safe, confirm, never"),
        ("policy = []", "policy must be one of safe, confirm, never"),
        ("[thresholds]\ninbox_backlog = 0", "thresholds: inbox_backlog must be at least 1"),
        ("[thresholds]\noldest_warn = nan", "thresholds: oldest_warn must be at least 0"),
        ("[thresholds]\noldest_warn = '1h'", "thresholds: oldest_crit must not be below oldest_warn"),
        (
            "[roles.a]\nthresholds = {oldest_warn = 900}",
            "roles.a.thresholds: oldest_crit must not be below oldest_warn",
        ),
        ("[patterns.queues]\nthresholds = {}", "unknown key 'patterns.queues'; known here: inbox, tasks, events"),
        ("[patterns.inbox]\noldest_warn = 1", "unknown key 'patterns.inbox.oldest_warn'; known here: thresholds"),
        ("[patterns.inbox]\nthresholds = {oldest = 1}", "unknown key 'patterns.inbox.thresholds.oldest'"),
        (
            "[patterns.events]\nthresholds = {oldest_warn = 900}",
            "patterns.events.thresholds: oldest_crit must not be below oldest_warn",
        ),
        (
            "[patterns.inbox]\nthresholds = {oldest_warn = 500}\n[agents.a]\nthresholds = {oldest_crit = 400}",
            "agents.a.thresholds: oldest_crit must not be below oldest_warn",
        ),
        ("[thresholds]\nack_pending = -1", "thresholds: ack_pending must be at least 0"),
        ("[thresholds]\ndead_letters_warn = 5\ndead_letters_crit = 4", "dead_letters_crit must not be below"),
        ("[contexts.a]\nwrite = true\nread_only = true", "contexts.a: write and read_only exclude each other"),
        ("refresh", "not valid TOML"),
    ],
)
def test_a_mistake_names_file_and_key(file: Path, toml: str, said: str) -> None:
    file.write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(file)


def test_a_directory_in_its_place_is_said(file: Path) -> None:
    file.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said(file: Path) -> None:
    file.write_text("")
    file.chmod(0)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().refresh = 2.0  # type: ignore[misc]
