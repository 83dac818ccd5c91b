"""What follows from counters: states, rates, history, confirmed strandings and findings. No server: time is given."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.monitor.derive import Derivation
from console.monitor.snapshot import Snapshot
from console.monitor.states import State, classify
from console.monitor.view import Finding, FleetView, Flow
from console.settings import Settings, TargetSettings, Thresholds
from patterns import QueueDepth, ServerInfo

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SERVER = ServerInfo("n1", "2.15.1", "nats://127.0.0.1:4222", None)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def depth(pending: int = 0, **fields: Any) -> QueueDepth:
    """Counters of an inbox with its consumer; messages add up unless given."""
    in_flight, stranded = fields.get("ack_pending", 0), fields.get("stranded", 0)
    filled = {
        "messages": pending + in_flight + (stranded or 0),
        "pending": pending,
        "durable": "ceo-processor",
        "ack_wait": 300.0,
        "stranded": 0,
        **fields,
    }
    return QueueDepth(**filled)


WORKING = {"ack_pending": 1, "last_delivered_at": ago(5)}
ABSENT = depth(5)


class TestClassify:
    @pytest.mark.parametrize(
        ("given", "previous", "state"),
        [
            pytest.param(depth(waiting=1), None, State.IDLE, id="a worker waits"),
            pytest.param(depth(waiting=1), depth(), State.IDLE, id="a worker has just come"),
            pytest.param(depth(), None, State.IDLE, id="absence cannot be told from one read"),
            pytest.param(depth(), depth(waiting=1), State.IDLE, id="a gap between two pulls"),
            pytest.param(depth(), depth(**WORKING), State.IDLE, id="it has just finished"),
            pytest.param(depth(), depth(), State.OFFLINE, id="nobody in two reads"),
            pytest.param(depth(), depth(3), State.OFFLINE, id="purged while nobody was there"),
            pytest.param(depth(5), None, State.BUSY, id="work in one read"),
            pytest.param(depth(5), ABSENT, State.NO_WORKER, id="work waits and nobody pulls in two reads"),
            pytest.param(depth(50), ABSENT, State.NO_WORKER, id="absence is worse than a backlog"),
            pytest.param(depth(5), depth(), State.BUSY, id="work has just come, the second read will tell"),
            pytest.param(depth(5, waiting=1), ABSENT, State.BUSY, id="somebody has come"),
            pytest.param(depth(5), depth(5, waiting=1), State.BUSY, id="somebody was there"),
            pytest.param(depth(5), depth(5, **WORKING), State.BUSY, id="it was in work"),
            pytest.param(
                depth(5, last_delivered_at=ago(1)),
                depth(5, last_delivered_at=ago(2)),
                State.BUSY,
                id="a delivery between the two reads",
            ),
            pytest.param(
                depth(5, last_delivered_at=ago(9)),
                depth(5, last_delivered_at=ago(9)),
                State.NO_WORKER,
                id="no delivery between the two reads",
            ),
            pytest.param(depth(10, waiting=1), None, State.BUSY, id="as much as the threshold"),
            pytest.param(depth(11, waiting=1), None, State.BACKLOG, id="more than the threshold"),
            pytest.param(depth(11), None, State.BACKLOG, id="more than the threshold, one read"),
            pytest.param(depth(**WORKING), None, State.BUSY, id="in flight"),
            pytest.param(
                depth(11, last_acked_at=ago(3), **WORKING), None, State.BACKLOG, id="it works and falls behind"
            ),
            pytest.param(
                depth(11, last_acked_at=ago(61), **WORKING), None, State.BUSY, id="one long task is no backlog"
            ),
            pytest.param(depth(11, **WORKING), None, State.BUSY, id="its first task, nothing finished yet"),
            pytest.param(
                depth(500, ack_pending=1, last_delivered_at=ago(20), last_acked_at=ago(3600)),
                depth(500, ack_pending=1, last_delivered_at=ago(21), last_acked_at=ago(3600)),
                State.BUSY,
                id="an hour-long task with heartbeats and work behind it",
            ),
            pytest.param(depth(ack_pending=1, last_delivered_at=ago(299)), None, State.BUSY, id="within its lease"),
            pytest.param(depth(ack_pending=1, last_delivered_at=ago(301)), None, State.STALLED, id="beyond its lease"),
            pytest.param(
                depth(50, ack_pending=1, last_delivered_at=ago(301), last_acked_at=ago(301)),
                ABSENT,
                State.STALLED,
                id="stalled is told from absent by what is in flight",
            ),
            pytest.param(
                depth(ack_pending=2, last_delivered_at=ago(400), last_acked_at=ago(5)),
                None,
                State.BUSY,
                id="an acknowledgement is a sign of life",
            ),
            pytest.param(
                depth(ack_pending=1, waiting=1, last_delivered_at=ago(400)),
                None,
                State.STALLED,
                id="a second worker that waits does not make up for the first",
            ),
            pytest.param(
                depth(ack_pending=1, ack_wait=0.2, last_delivered_at=ago(0.9)),
                None,
                State.BUSY,
                id="a lease below a second is not judged by the tick of the clock",
            ),
            pytest.param(depth(ack_pending=1), None, State.BUSY, id="in flight, and no time is known"),
            pytest.param(
                depth(5, paused_until=datetime.now(UTC) + timedelta(hours=1)), ABSENT, State.PAUSED, id="paused"
            ),
            pytest.param(
                depth(paused_until=datetime.now(UTC) + timedelta(hours=1), ack_pending=1, last_delivered_at=ago(999)),
                None,
                State.PAUSED,
                id="paused, whatever is in flight",
            ),
            pytest.param(
                depth(5, paused_until=datetime.now(UTC) - timedelta(seconds=1)),
                ABSENT,
                State.NO_WORKER,
                id="the pause is over",
            ),
            pytest.param(QueueDepth(messages=3, pending=3), None, State.NO_WORKER, id="no consumer, and work"),
            pytest.param(QueueDepth(), None, State.OFFLINE, id="no consumer, and nothing to do"),
            pytest.param(depth(stranded=3), depth(stranded=3), State.OFFLINE, id="only stranded messages"),
        ],
    )
    def test_state(self, given, previous, state):
        assert classify(given, previous, threshold=10, now=NOW) is state

    def test_every_state_can_be_told_without_colour(self):
        assert {state.value for state in State} == {
            "idle",
            "busy",
            "backlog",
            "stalled",
            "no worker",
            "paused",
            "offline",
            "unknown",
        }
        for state in State:
            assert len(state.glyph) == 1
            assert state.style in {"good", "accent", "warn", "bad", "dim"}
        assert sorted(state.rank for state in State) == list(range(8))
        assert [state for state in sorted(State, key=lambda each: each.rank) if state.style == "bad"] == [
            State.NO_WORKER,
            State.STALLED,
        ]


class Reads:
    """A derivation and the clock of its snapshots."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.derivation = Derivation(settings or Settings())
        self.now = NOW

    def __call__(
        self,
        inbox: QueueDepth | dict[str, QueueDepth] | None = None,
        *,
        after: float = 1.0,
        queues: dict[str, QueueDepth] | None = None,
        subscriptions: dict[str, QueueDepth] | None = None,
        letters: dict[str, int] | None = None,
        missing: tuple[str, ...] = (),
        hidden: frozenset[tuple[str, str]] = frozenset(),
    ) -> FleetView:
        """The view of a snapshot taken so many seconds after the one before."""
        self.now += timedelta(seconds=after)
        inboxes = inbox if isinstance(inbox, dict) else {} if inbox is None else {"ceo": inbox}
        return self.derivation.update(
            Snapshot(
                taken_at=self.now, took=0.01, server=SERVER, inboxes=inboxes, queues=queues or {},
                subscriptions=subscriptions or {}, dead_letters=letters or {}, missing=missing, hidden=hidden,
            )
        )  # fmt: skip

    def row(self, inbox: QueueDepth, **options: Any) -> Flow:
        """The row of the only agent."""
        return self(inbox, **options).agents[0]


class TestRates:
    def test_there_is_none_before_the_second_read(self):
        row = Reads().row(depth(3, last_seq=100))
        assert (row.in_rate, row.ack_rate, row.drain_eta) == (None, None, None)

    def test_what_comes_in_and_what_goes(self):
        reads = Reads()
        reads.row(depth(10, last_seq=100))
        row = reads.row(depth(16, last_seq=120), after=2)
        assert row.in_rate == pytest.approx(10)
        assert row.ack_rate == pytest.approx(7), "in-rate minus growth"
        assert row.drain_eta is None, "it grows"

    def test_it_drains(self):
        reads = Reads()
        reads.row(depth(30, last_seq=100))
        row = reads.row(depth(20, last_seq=100))
        assert (row.in_rate, row.ack_rate) == (pytest.approx(0), pytest.approx(10))
        assert row.drain_eta == pytest.approx(2)
        row = reads.row(depth(0, last_seq=100))
        assert row.drain_eta is None, "there is nothing to drain"

    def test_at_a_standstill_it_never_drains(self):
        reads = Reads()
        reads.row(depth(30, last_seq=100))
        assert reads.row(depth(30, last_seq=110)).drain_eta is None

    def test_the_last_seconds_count_and_not_the_whole_past(self):
        reads = Reads()
        for second in range(30):
            reads.row(depth(1, last_seq=1000 * second))
        for _ in range(6):
            row = reads.row(depth(1, last_seq=29_000))
        assert row.in_rate == pytest.approx(0)

    def test_a_read_after_a_long_gap_compares_with_the_one_before(self):
        reads = Reads()
        reads.row(depth(0, last_seq=0))
        row = reads.row(depth(0, last_seq=300), after=30)
        assert row.in_rate == pytest.approx(10)

    def test_a_stream_that_was_made_anew_begins_anew(self):
        reads = Reads()
        for second in range(5):
            reads.row(depth(9, last_seq=1000 + second, stranded=4, oldest_at=NOW))
        row = reads.row(depth(1, last_seq=3, stranded=1, oldest_at=NOW))
        assert (row.in_rate, row.ack_rate, row.history) == (None, None, (2,))
        assert row.stranded == 0, "what was stranded in the old one confirms nothing"
        assert reads.row(depth(1, last_seq=5, stranded=1, oldest_at=NOW)).in_rate == pytest.approx(2)

    def test_an_agent_that_was_away_for_a_read_begins_anew(self):
        reads = Reads()
        reads({"ceo": depth(1, last_seq=5)})
        reads({})
        assert reads.row(depth(1, last_seq=900)).in_rate is None

    def test_a_clock_set_back_makes_no_wild_rate(self):
        reads = Reads()
        for second in range(5):
            reads.row(depth(1, last_seq=second))
        assert reads.row(depth(1, last_seq=6), after=-3600).in_rate is None
        assert reads.row(depth(1, last_seq=7)).in_rate == pytest.approx(1)


class TestHistory:
    def test_one_value_a_second_the_newest_last(self):
        reads = Reads()
        for messages in range(100):
            row = reads.row(depth(messages))
        assert row.history == tuple(range(40, 100))

    def test_it_is_as_long_as_there_was_something_to_see(self):
        reads = Reads()
        assert reads.row(depth(7)).history == (7,)
        assert reads.row(depth(8)).history == (7, 8)

    @pytest.mark.parametrize("refresh", [0.2, 0.3, 0.7, 1.0, 1.5, 2.0, 7.0, 45.0, 90.0])
    def test_sixty_values_for_sixty_seconds_however_often_it_is_read(self, refresh):
        reads = Reads()
        for number in range(int(130 / refresh) + 1):
            row = reads.row(depth(number), after=refresh)
        assert len(row.history) == 60
        assert list(row.history) == sorted(row.history)
        assert row.history[-1] == number
        # Each is what was read last in its second: up to a second's reads from where the second began.
        assert row.history[0] == pytest.approx(number - 59 / refresh, abs=1 / refresh + 1)

    def test_a_second_without_a_read_repeats_the_one_before(self):
        reads = Reads()
        for messages, after in ((1, 1), (2, 1), (3, 4), (4, 1)):
            row = reads.row(depth(messages), after=after)
        assert row.history == (1, 2, 2, 2, 2, 3, 4)

    def test_uneven_reads_do_not_stretch_the_minute(self):
        reads = Reads()
        pauses = itertools.cycle((0.25, 0.5, 1.75, 0.5, 3.0))
        elapsed = 0.0
        for number in range(80):
            pause = next(pauses)
            elapsed += pause
            row = reads.row(depth(number), after=pause)
        assert elapsed > 60
        assert len(row.history) == 60
        assert row.history[-1] == 79
        # 60 seconds are ten rounds of six seconds and five reads.
        assert row.history[0] == pytest.approx(79 - 50, abs=2)


class TestStranded:
    def test_it_is_confirmed_by_the_second_read(self):
        reads = Reads()
        one = depth(stranded=2, oldest_at=NOW)
        assert reads.row(one).stranded == 0
        row = reads.row(one)
        assert row.stranded == 2
        assert [(finding.severity, finding.subject) for finding in row.findings] == [("critical", "inbox.ceo")]
        assert "2 stranded" in row.findings[0].text

    def test_only_what_both_reads_saw(self):
        reads = Reads()
        reads.row(depth(stranded=1, oldest_at=NOW))
        assert reads.row(depth(stranded=3, oldest_at=NOW)).stranded == 1
        assert reads.row(depth(stranded=2, oldest_at=NOW)).stranded == 2
        assert reads.row(depth()).stranded == 0

    def test_what_is_acknowledged_between_two_questions_is_not_stranded(self):
        reads = Reads()
        for second in range(10):
            row = reads.row(depth(3, stranded=2, oldest_at=ago(-second)))
            assert row.stranded == 0, "each time it is another message"
            assert not [finding for finding in row.findings if "stranded" in finding.text]

    def test_nor_beside_a_long_task_where_several_are_in_flight(self):
        reads = Reads()
        for second in range(10):
            given = depth(ack_pending=3, stranded=1, oldest_at=NOW, last_acked_at=ago(-second), last_delivered_at=NOW)
            assert reads.row(given).stranded == 0

    def test_where_it_cannot_be_known_it_is_not_told(self):
        reads = Reads()
        reads(queues={"backend": depth(stranded=None)})
        assert reads(queues={"backend": depth(stranded=None)}).queues[0].stranded is None

    def test_its_threshold(self):
        reads = Reads(Settings(thresholds=Thresholds(stranded_warn=3)))
        for count, told in ((2, False), (2, False), (3, False), (3, True)):
            row = reads.row(depth(stranded=count, oldest_at=NOW))
            assert any("stranded" in finding.text for finding in row.findings) is told


def severities(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.subject) for finding in findings]


class TestFindings:
    @pytest.mark.parametrize(
        ("given", "severity", "text"),
        [
            (depth(9), "critical", "9 waiting and nobody pulls"),
            (depth(ack_pending=2, last_delivered_at=ago(500)), "critical", "2 in flight without a sign of life"),
            (depth(11, waiting=1), "warning", "11 waiting, more than the threshold"),
            (depth(3, paused_until=datetime.now(UTC) + timedelta(hours=1)), "warning", "paused with 3 waiting"),
            (depth(redelivered=10, **WORKING), "warning", "10 delivered more than once"),
            (depth(1, waiting=1, oldest_at=ago(58)), "warning", "oldest message has waited 1m"),
            (depth(1, waiting=1, oldest_at=ago(599)), "critical", "oldest message has waited 10m"),
        ],
    )
    def test_what_deserves_attention(self, given, severity, text):
        reads = Reads()
        reads(given)
        view = reads(given)
        assert severities(view.findings) == [(severity, "inbox.ceo")]
        assert text in view.findings[0].text
        assert view.agents[0].findings == view.findings

    @pytest.mark.parametrize(
        "given",
        [
            depth(waiting=1),
            depth(),
            depth(10, waiting=1),
            depth(paused_until=datetime.now(UTC) + timedelta(hours=1)),
            depth(redelivered=9, **WORKING),
            depth(1, waiting=1, oldest_at=ago(57)),
            # The oldest message of an empty stream is none.
            depth(waiting=1, oldest_at=ago(5000)),
            depth(500, oldest_at=ago(3), ack_pending=1, last_delivered_at=ago(20), last_acked_at=ago(3600)),
        ],
    )
    def test_what_does_not(self, given):
        reads = Reads()
        reads(given)
        assert reads(given).findings == ()

    def test_thresholds_of_single_agents_and_roles(self):
        settings = Settings(
            agents={"batch-*": TargetSettings(thresholds={"inbox_backlog": 100, "oldest_warn": 500.0})},
            roles={"slow": TargetSettings(thresholds={"queue_backlog": 5, "oldest_crit": 70.0})},
        )
        reads = Reads(settings)
        old = {"waiting": 1, "oldest_at": ago(100)}
        agents = {"batch-1": depth(50, **old), "batch-2": depth(101, waiting=1), "ceo": depth(50, **old)}
        roles = {"slow": depth(6, **old), "quick": depth(6, waiting=1), "other": depth(51, waiting=1)}
        view = reads(agents, queues=roles)
        states = {flow.name: flow.state for flow in (*view.agents, *view.queues)}
        assert {name for name, state in states.items() if state is State.BACKLOG} == {"batch-2", "ceo", "slow", "other"}
        assert [(each.severity, each.subject, each.trouble) for each in view.findings] == [
            ("critical", "tasks.slow", "oldest"),
            ("warning", "inbox.ceo", "oldest"),
            ("warning", "inbox.batch-2", "backlog"),
            ("warning", "inbox.ceo", "backlog"),
            ("warning", "tasks.other", "backlog"),
            ("warning", "tasks.slow", "backlog"),
        ]

    @pytest.mark.parametrize(
        ("count", "severity"), [(0, None), (1, "warning"), (99, "warning"), (100, "critical"), (5000, "critical")]
    )
    def test_dead_letters(self, count, severity):
        letters = {"tasks.backend": count - count // 3, "inbox.ceo": count // 3} if count else {}
        view = Reads()(letters=letters)
        assert view.dead_letter_total == count
        assert severities(view.findings) == ([(severity, "dlq")] if severity else [])
        if severity:
            of = "1 dead letter from" if count == 1 else f"{count:,} dead letters, most of them from"
            assert view.findings[0].text == f"{of} tasks.backend"

    def test_thresholds_of_dead_letters(self):
        reads = Reads(Settings(thresholds=Thresholds(dead_letters_warn=5, dead_letters_crit=6)))
        found = [severities(reads(letters={"inbox.ceo": count}).findings) for count in (4, 5, 6)]
        assert found == [[], [("warning", "dlq")], [("critical", "dlq")]]

    def test_a_subscription_that_falls_behind(self):
        settings = Settings(agents={"slow": TargetSettings(thresholds={"subscription_lag": 5})})
        given = {"dev-events": depth(999), "dev-alerts": depth(1000), "slow-events": depth(5), "odd": depth(1000)}
        found = Reads(settings)(subscriptions=given).findings
        assert sorted(severities(found)) == [
            ("warning", "events.dev-alerts"),
            ("warning", "events.odd"),
            ("warning", "events.slow-events"),
        ]
        assert found[0].text == "1,000 events behind and nobody pulls: start the agent"

    def test_what_could_not_be_read_is_told(self):
        view = Reads()(missing=("stream INBOX_A did not answer", "dead letters: \x1b[31m no"))
        assert view.missing == ("stream INBOX_A did not answer", "dead letters: ␛[31m no")
        assert [(finding.severity, finding.text) for finding in view.findings] == [
            ("warning", "stream INBOX_A did not answer: its node may be down"),
            ("warning", "dead letters: ␛[31m no"),
        ]

    def test_an_inbox_whose_consumers_could_not_be_read_is_unknown(self):
        reads = Reads()
        unseen = QueueDepth(messages=3, pending=3)
        words = ("consumers of INBOX_CEO: no answer to CONSUMER.LIST.INBOX_CEO within 5 s",)
        for _ in range(2):
            view = reads(
                {"ceo": unseen, "dev": unseen},
                queues={"ceo": unseen},
                missing=words,
                hidden=frozenset({("inbox", "ceo")}),
            )
        assert [(flow.name, flow.state) for flow in (*view.agents, *view.queues)] == [
            ("ceo", State.UNKNOWN),
            ("dev", State.NO_WORKER),
            ("ceo", State.NO_WORKER),
        ]
        assert severities(view.findings) == [
            ("critical", "inbox.dev"),
            ("critical", "tasks.ceo"),
            ("warning", "read"),
        ]

    def test_the_worst_first_and_then_the_most_urgent(self):
        reads = Reads()
        given = {
            "b": depth(11, waiting=1),
            "c": depth(ack_pending=1, last_delivered_at=ago(999)),
            "a": depth(12, waiting=1, oldest_at=ago(1000)),
        }
        view = reads(given, letters={"inbox.a": 1}, missing=("x",))
        assert [(each.severity, each.subject, each.trouble) for each in view.findings[:-1]] == [
            ("critical", "inbox.c", "stalled"),
            ("critical", "inbox.a", "oldest"),
            ("warning", "inbox.a", "backlog"),
            ("warning", "inbox.b", "backlog"),
            ("warning", "dlq", "dead letters"),
        ]
        assert severities(view.findings[-1:]) == [("warning", "read")]

    def test_they_are_dated_from_the_first_read_that_saw_them(self):
        reads = Reads()
        given = depth(11, waiting=1)
        first = reads(given).taken_at
        later = reads({"ceo": given, "dev": given})
        assert [(each.subject, each.since) for each in later.findings] == [
            ("inbox.ceo", first),
            ("inbox.dev", later.taken_at),
        ]


class TestDeadLettersOfAgents:
    def test_an_inbox_and_its_subscriptions_are_the_agents_and_a_queue_is_the_roles(self):
        letters = {
            "inbox.ceo": 1,
            "events.ceo-events": 2,
            "events.ceo-alerts": 4,
            "events.ceo-2-events": 8,
            "tasks.ceo": 16,
            "inbox.ceo-2": 32,
            "events.odd": 64,
            "tasks.backend": 128,
        }
        agents = {"ceo": depth(), "ceo-2": depth(), "dev": depth()}
        view = Reads()(agents, queues={"ceo": depth(), "backend": depth()}, letters=letters)
        assert [flow.dead_letters for flow in view.agents] == [7, 40, 0]
        assert [flow.dead_letters for flow in view.queues] == [16, 128]
        assert view.dead_letters == letters
        assert view.dead_letter_total == 255

    def test_names_that_look_alike_once_cleaned_are_all_counted(self):
        view = Reads()(letters={"inbox.a\u202e": 2, "inbox.a\u202d": 3, "inbox.a\x1b": 4})
        assert view.dead_letters == {"inbox.a\ufffd": 5, "inbox.a␛": 4}
        assert view.dead_letter_total == 9


class TestView:
    def test_ages_are_counted_from_the_snapshot(self):
        row = Reads().row(depth(1, oldest_at=ago(9), last_acked_at=ago(29)))
        assert (row.oldest_age, row.last_ack_age) == (10, 30)
        row = Reads().row(depth(1, oldest_at=ago(-99)))
        assert (row.oldest_age, row.last_ack_age) == (0, None), "a server whose clock is ahead"

    def test_workers_are_those_who_wait_and_those_who_work(self):
        reads = Reads()
        view = reads(depth(ack_pending=3, waiting=2), queues={"backend": depth(ack_pending=3, waiting=2)})
        assert (view.agents[0].workers, view.queues[0].workers) == (1, 5), "an inbox has one at a time"
        view = reads(depth(), queues={"backend": depth()})
        assert (view.agents[0].workers, view.queues[0].workers) == (0, 0)

    def test_subscriptions_show_their_topics_and_not_the_way_back(self):
        topics = ("events.security.>", "events.x", "redeliver.dev.alerts.>")
        view = Reads()(subscriptions={"dev-alerts": depth(topics=topics), "plain": depth(topics=())})
        assert [(each.agent, each.name, each.topics) for each in view.subscriptions] == [
            ("dev", "alerts", ("security.>", "x")),
            ("plain", "", ()),
        ]

    def test_of_an_organization_too(self):
        topics = ("acme.events.security.>", "acme.redeliver.dev.alerts.>")
        (subscription,) = Reads()(subscriptions={"dev-alerts": depth(topics=topics)}).subscriptions
        assert subscription.topics == ("security.>",)

    def test_a_thousand_agents_with_letters_each_hold_the_loop_for_a_moment_only(self):
        reads = Reads()
        agents = {f"agent-{n}": depth(n, last_seq=n, oldest_at=NOW) for n in range(1000)}
        letters = {f"{kind}.agent-{n}{end}": 1 for n in range(1000) for kind, end in (("inbox", ""), ("events", "-x"))}
        for _ in range(70):
            reads(agents, letters=letters)
        best = 9.0
        for _ in range(5):
            started = time.perf_counter()
            view = reads(agents, letters=letters)
            best = min(best, time.perf_counter() - started)
        assert (view.dead_letter_total, len(view.agents[0].history)) == (2000, 60)
        assert best < 0.1  # 20 ms where it was written; the rest is for machines that are busy
