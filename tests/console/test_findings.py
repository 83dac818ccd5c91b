"""Findings: what is said, how bad it is, in which order, since when, and what is not said twice. No server."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta

import pytest

from console.monitor.findings import (
    NAMED,
    FindingLog,
    alarms,
    of_failure,
    of_flow,
    of_letters,
    of_missing,
    of_reading,
    of_subscription,
    ranked,
)
from console.monitor.states import State
from console.monitor.view import Finding, Subscription
from console.settings import Thresholds, from_mapping
from patterns import QueueDepth
from tests.console.test_monitor_states import NOW, depth

LIMITS = Thresholds(dead_letters_warn=0, dead_letters_crit=0)
"""As for an inbox of which the settings say nothing."""
LATE = datetime.now(UTC) + timedelta(hours=1)


def flow(given: QueueDepth, state: State, *, kind: str = "inbox", limits: Thresholds = LIMITS, **options):
    """The findings about `inbox.ceo`."""
    filled = {"stranded": given.stranded, "oldest": None, **options}
    stranded, oldest = filled.pop("stranded"), filled.pop("oldest")
    return of_flow(f"{kind}.ceo", state, given, stranded, oldest, limits, **filled)


def only(found: tuple[Finding, ...]) -> tuple[str, str]:
    """Severity and text of the only finding."""
    (finding,) = found
    return finding.severity, finding.text


class TestOfFlow:
    @pytest.mark.parametrize("state", [State.IDLE, State.BUSY, State.OFFLINE, State.UNKNOWN])
    def test_of_what_is_well_nothing_is_said_and_nothing_made(self, state):
        given = depth(3, ack_pending=1, redelivered=1)
        found = flow(given, state, oldest=59.0)
        assert found == ()
        assert found is flow(given, state), "the one empty tuple"

    def test_a_healthy_row_costs_next_to_nothing(self):
        given, best = depth(3, ack_pending=1), 9.0
        for _ in range(5):
            started = time.perf_counter()
            for _ in itertools.repeat(None, 5_000):
                of_flow("inbox.ceo", State.BUSY, given, 0, 3.0, LIMITS)
            best = min(best, time.perf_counter() - started)
        assert best < 0.05  # 4 ms where it was written; the rest is for machines that are busy

    def test_work_that_nobody_takes_is_one_trouble_with_its_age_and_what_to_do(self):
        found = flow(depth(9), State.NO_WORKER, oldest=724.0)
        assert only(found) == ("critical", "9 waiting and nobody pulls, the oldest for 12m4s: start the agent")
        assert only(flow(depth(9), State.NO_WORKER)) == ("critical", "9 waiting and nobody pulls: start the agent")
        assert only(flow(depth(9), State.NO_WORKER, kind="tasks"))[1].endswith("start a worker of this role")
        bare = QueueDepth(messages=3, pending=3)
        assert "there is no consumer, start the agent" in only(flow(bare, State.NO_WORKER))[1]

    def test_what_is_stalled_says_for_how_long_and_what_to_do(self):
        text = "1 in flight without a sign of life for more than 300 s, the oldest for 20m: restart what works on it"
        assert only(flow(depth(ack_pending=1), State.STALLED, oldest=1200.0)) == ("critical", text)

    @pytest.mark.parametrize(("oldest", "severity"), [(None, "warning"), (599.0, "warning"), (600.0, "critical")])
    def test_a_pause_that_makes_work_late_is_as_bad_as_any_other_delay(self, oldest, severity):
        found = flow(depth(3, paused_until=LATE), State.PAUSED, oldest=oldest)
        assert only(found)[0] == severity
        assert only(found)[1].startswith("paused with 3 waiting")
        assert flow(depth(paused_until=LATE), State.PAUSED) == ()

    def test_a_backlog_says_its_threshold_and_its_end(self):
        assert only(flow(depth(1200), State.BACKLOG, kind="tasks", drain_eta=544.0)) == (
            "warning",
            "1,200 waiting, more than the threshold of 50, empty in 9m4s",
        )
        assert only(flow(depth(12), State.BACKLOG))[1] == "12 waiting, more than the threshold of 10"

    def test_depth_and_delay_are_two_facts(self):
        found = flow(depth(12), State.BACKLOG, oldest=61.0)
        assert [each.trouble for each in found] == ["oldest", "backlog"]

    def test_stranded_messages_are_named_and_their_age_and_deliveries_are_no_other_trouble(self):
        given = depth(stranded=12, redelivered=12)
        found = flow(given, State.IDLE, oldest=7 * 86400.0, stranded_seqs=(12, 15, 19))
        assert only(found) == (
            "critical",
            "12 stranded (seq 12, 15, 19, …), the oldest for 7d: deliveries used up, hidden from the consumer; rescue them",
        )
        found = flow(depth(stranded=3), State.IDLE, stranded_seqs=(12, 15, 19))
        assert only(found)[1].startswith("3 stranded (seq 12, 15, 19): deliveries used up")
        assert only(flow(depth(stranded=3), State.IDLE))[1].startswith("3 stranded: ")

    def test_no_more_sequences_than_can_be_read(self):
        text = only(flow(depth(stranded=500), State.IDLE, stranded_seqs=tuple(range(100, 600))))[1]
        assert f" {100 + NAMED - 1}, …)" in text
        assert str(100 + NAMED) not in text

    def test_below_its_threshold_a_stranded_message_is_at_least_old(self):
        found = flow(
            depth(stranded=1), State.IDLE, oldest=700.0, limits=Thresholds(stranded_warn=2, dead_letters_warn=0)
        )
        assert [each.trouble for each in found] == ["oldest"]

    def test_what_is_in_work_for_the_first_time_does_not_wait(self):
        hour = 3600.0
        assert flow(depth(ack_pending=1), State.BUSY, oldest=hour) == ()
        assert [each.trouble for each in flow(depth(ack_pending=1, redelivered=1), State.BUSY, oldest=hour)] == [
            "oldest"
        ]
        assert [each.trouble for each in flow(depth(5, ack_pending=1), State.BUSY, oldest=hour)] == ["oldest"]

    def test_of_what_is_in_flight_too_often_and_too_much(self):
        limits = Thresholds(ack_pending=40, redelivered=10, dead_letters_warn=0)
        found = flow(depth(ack_pending=64, redelivered=10), State.BUSY, limits=limits)
        assert [(each.severity, each.trouble) for each in found] == [
            ("warning", "redelivered"),
            ("warning", "ack pending"),
        ]
        assert found[1].text == "64 in flight, at the threshold of 40"
        assert flow(depth(ack_pending=39, redelivered=9), State.BUSY, limits=limits) == ()
        assert flow(depth(ack_pending=5000), State.BUSY) == (), "off unless it is set"

    @pytest.mark.parametrize(
        ("warn", "crit", "count", "severity"),
        [
            (0, 0, 5000, None), (1, 0, 0, None), (1, 0, 5000, "warning"), (5, 10, 4, None), (5, 10, 5, "warning"),
            (5, 10, 10, "critical"), (0, 10, 9, None), (0, 10, 10, "critical"),
        ],
    )  # fmt: skip
    def test_its_dead_letters_against_thresholds_of_its_own(self, warn, crit, count, severity):
        limits = Thresholds(dead_letters_warn=warn, dead_letters_crit=crit)
        found = flow(depth(), State.IDLE, limits=limits, dead_letters=count)
        assert [each.severity for each in found] == ([severity] if severity else [])
        assert [each.place for each in found] == ([("dlq", "inbox.ceo")] if severity else [])

    def test_letters_that_died_again_after_a_replay(self):
        found = flow(depth(), State.IDLE, redeaths=2)
        assert only(found) == ("warning", "2 dead letters died again after a replay: find out why before the next")
        assert found[0].place == ("dlq", "inbox.ceo")
        assert flow(depth(), State.IDLE, redeaths=2, limits=Thresholds(redeaths_warn=0, dead_letters_warn=0)) == ()
        assert flow(depth(), State.IDLE, redeaths=1, limits=Thresholds(redeaths_warn=2, dead_letters_warn=0)) == ()

    def test_all_lead_to_their_place_the_worst_first(self):
        limits = Thresholds(ack_pending=1, redelivered=1, dead_letters_warn=1)
        given = depth(5, ack_pending=3, stranded=1, redelivered=5)
        found = flow(given, State.STALLED, limits=limits, oldest=700.0, redeaths=1, dead_letters=1)
        assert [(each.severity, each.trouble) for each in found] == [
            ("critical", "stalled"),
            ("critical", "stranded"),
            ("warning", "dead letters"),
            ("warning", "redeaths"),
            ("warning", "redelivered"),
            ("warning", "ack pending"),
        ]
        assert {each.place for each in found} == {("inbox", "ceo"), ("dlq", "inbox.ceo")}


class TestOfSubscription:
    def subscription(self, oldest: float | None = None, **fields: object) -> tuple[Finding, ...]:
        given = depth(**{"durable": "ceo-alerts", **fields})
        return of_subscription(Subscription("ceo", "alerts", ("security.>",), given, oldest), LIMITS)

    def test_of_what_is_well_nothing_is_said(self):
        assert self.subscription(pending=999, waiting=1, oldest=59.0) == ()
        assert self.subscription(ack_pending=64, oldest=3600.0) == (), "in work for the first time"

    def test_lag(self):
        (finding,) = self.subscription(pending=1000, waiting=1)
        assert (finding.severity, finding.subject, finding.text) == (
            "warning",
            "events.ceo-alerts",
            "1,000 events behind",
        )
        assert finding.place == ("events", "ceo-alerts")
        (finding,) = self.subscription(pending=1000)
        assert finding.text == "1,000 events behind and nobody pulls: start the agent"

    @pytest.mark.parametrize(("oldest", "severity"), [(60.0, "warning"), (600.0, "critical")])
    def test_an_event_that_waits_too_long(self, oldest, severity):
        (finding,) = self.subscription(pending=1, waiting=1, oldest=oldest)
        assert (finding.severity, finding.trouble) == (severity, "oldest")
        assert finding.text == f"oldest event has waited {'1m' if oldest == 60 else '10m'}"

    def test_who_is_absent_is_said_once(self):
        found = self.subscription(pending=1000, oldest=700.0)
        assert [each.text for each in found] == [
            "oldest event has waited 11m40s",
            "1,000 events behind and nobody pulls: start the agent",
        ]

    def test_deliveries_and_what_is_in_flight(self):
        assert [each.trouble for each in self.subscription(ack_pending=20, redelivered=10)] == ["redelivered"]
        given = Subscription("ceo", "alerts", (), depth(ack_pending=20))
        (finding,) = of_subscription(given, Thresholds(ack_pending=20))
        assert finding.trouble == "ack pending"


class TestOfLetters:
    def test_one_source_is_named_as_the_only_one(self):
        (finding,) = of_letters({"tasks.backend": 1, "inbox.ceo": 0}, Thresholds())
        assert (finding.text, finding.place) == ("1 dead letter from tasks.backend", ("dlq", ""))
        (finding,) = of_letters({"tasks.backend": 1200, "inbox.ceo": 1}, Thresholds())
        assert finding.text == "1,201 dead letters, most of them from tasks.backend"

    def test_sources_with_a_threshold_of_their_own_count_by_that_one_only(self):
        settings = from_mapping({"agents": {"noisy-*": {"thresholds": {"dead_letters_warn": 100}}}})
        letters = {"inbox.noisy-1": 40, "events.noisy-1-alerts": 50, "tasks.noisy-1": 1}
        (finding,) = of_letters(letters, settings.thresholds, apart=settings.letters_apart)
        assert finding.text == "1 dead letter from tasks.noisy-1"
        assert of_letters({"inbox.noisy-1": 40}, settings.thresholds, apart=settings.letters_apart) == ()

    def test_they_can_be_switched_off(self):
        assert of_letters({"inbox.ceo": 5000}, Thresholds(dead_letters_warn=0, dead_letters_crit=0)) == ()


class TestOfMissing:
    def test_a_stream_that_did_not_answer(self):
        (finding,) = of_missing(["stream INBOX_A did not answer"])
        assert (finding.severity, finding.text) == (
            "warning",
            "stream INBOX_A did not answer: its node may be down",
        )

    def test_a_node_that_is_down_is_one_trouble_however_many_streams_it_has(self):
        found = of_missing([f"stream INBOX_{n} did not answer" for n in range(1700)])
        assert only(found)[1] == (
            "1,700 streams (INBOX_0, INBOX_1, INBOX_2, INBOX_3, …) did not answer: their node may be down"
        )

    def test_streams_that_were_counted_already(self):
        found = of_missing(["streams INBOX_A and 3 more did not answer"])
        assert only(found)[1] == "streams INBOX_A and 3 more did not answer: their node may be down"
        assert found[0].trouble == of_missing(["stream B did not answer"])[0].trouble

    def test_one_cause_is_one_trouble(self):
        words = [f"consumers of INBOX_{n}: no answer to CONSUMER.LIST.INBOX_{n} within 5 s" for n in range(3)]
        assert only(of_missing(words))[1] == (
            "consumers of 3 streams (INBOX_0, INBOX_1, INBOX_2): no answer to CONSUMER.LIST.* within 5 s"
        )
        assert only(of_missing(words[:1]))[1] == words[0]
        assert [each.text for each in of_missing([words[0], "dead letters: \x1b[31mno"])] == [
            words[0],
            "dead letters: ␛[31mno",
        ]

    def test_hostile_names_of_streams_are_shown_clean(self):
        for text in ("stream A\x1b[31m did not answer", "consumers of A\x1b: no \x1b"):
            for words in ([text], [text, text.replace("A", "B")]):
                (finding,) = of_missing(words)
                assert "\x1b" not in finding.text


class TestOfReading:
    def test_a_slow_read_is_told_and_is_no_alarm(self):
        assert of_reading(0.2, 1.0) == ()
        (finding,) = of_reading(0.25, 1.0)
        assert (finding.severity, finding.subject) == ("info", "read")
        assert "250ms" in finding.text
        assert alarms([finding, *of_missing(["x"])]) == of_missing(["x"])

    def test_that_nothing_can_be_read_is_critical(self):
        assert of_failure("", 3.0) == ()
        assert only(of_failure("no \x1b answer", 65.0)) == ("critical", "no ␛ answer; what is shown is 1m5s old")
        assert only(of_failure("no answer", None)) == ("critical", "no answer")


def finding(severity: str, subject: str, trouble: str, amount: float = 0, since: float | None = None) -> Finding:
    """One finding, first seen so many seconds ago."""
    moment = None if since is None else NOW - timedelta(seconds=since)
    return Finding(severity, subject, "", moment, None, trouble, amount)  # type: ignore[arg-type]


class TestRanked:
    def test_by_severity_then_how_long_then_urgency_then_how_much_then_name(self):
        expected = [
            finding("critical", "z", "oldest", since=90),
            finding("critical", "z", "no worker", 1, since=80),
            finding("critical", "a", "stranded", 9, since=80),
            finding("critical", "y", "oldest", 5000, since=80),
            finding("critical", "x", "oldest", 700, since=80),
            finding("warning", "a", "backlog", since=99),
            finding("warning", "b", "backlog", since=99),
            finding("info", "read", "slow", since=999),
        ]
        for order in itertools.permutations(range(len(expected)), 2):
            mixed = [expected[at] for at in order] + [each for n, each in enumerate(expected) if n not in order]
            assert list(ranked(mixed)) == expected

    def test_numbers_that_differ_a_little_change_no_places(self):
        first = ranked([finding("critical", "a", "oldest", 601), finding("critical", "b", "oldest", 640)])
        assert [each.subject for each in first] == ["a", "b"]

    def test_five_thousand_take_a_moment(self):
        many = [finding("critical", f"inbox.a{n}", "no worker", n % 97) for n in range(5_000)]
        log, best = FindingLog(), 9.0
        for _ in range(4):
            started = time.perf_counter()
            log.dated(many, NOW)
            best = min(best, time.perf_counter() - started)
        assert best < 0.15  # 15 ms where it was written; the rest is for machines that are busy


class TestFindingLog:
    def test_it_remembers_since_when_whatever_the_numbers(self):
        log = FindingLog()
        log.dated([finding("warning", "inbox.a", "oldest", 61)], NOW)
        later = NOW + timedelta(seconds=600)
        found = log.dated(
            [finding("critical", "inbox.a", "oldest", 661), finding("critical", "inbox.a", "stalled")], later
        )
        assert [(each.trouble, each.since) for each in found] == [("oldest", NOW), ("stalled", later)]

    def test_what_was_away_for_a_read_is_new(self):
        log, one = FindingLog(), [finding("warning", "inbox.a", "oldest")]
        for second, given in enumerate((one, [], one)):
            found = log.dated(given, NOW + timedelta(seconds=second))
        assert found[0].since == NOW + timedelta(seconds=2)

    def test_another_subject_is_another_finding(self):
        log = FindingLog()
        log.dated([finding("warning", "inbox.a", "oldest")], NOW)
        found = log.dated([finding("warning", "inbox.b", "oldest")], NOW + timedelta(seconds=1))
        assert found[0].since == NOW + timedelta(seconds=1)

    def test_a_clock_set_back_dates_nothing_into_the_future(self):
        log = FindingLog()
        log.dated([finding("warning", "inbox.a", "oldest")], NOW)
        found = log.dated([finding("warning", "inbox.a", "oldest")], NOW - timedelta(hours=1))
        assert found[0].since == NOW - timedelta(hours=1)

    def test_what_lasts_longest_comes_first(self):
        log = FindingLog()
        log.dated([finding("critical", "z", "oldest")], NOW)
        found = log.dated(
            [finding("critical", "a", "no worker"), finding("critical", "z", "oldest")], NOW + timedelta(seconds=1)
        )
        assert [each.subject for each in found] == ["z", "a"]

    def test_the_dates_are_not_part_of_what_a_finding_is(self):
        (dated,) = FindingLog().dated([finding("warning", "a", "oldest")], NOW)
        assert dated == finding("warning", "a", "oldest")
