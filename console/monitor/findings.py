"""What a person should look at: the one list that the header, the problems view and `check` share. Pure.

One finding a fact, and none for what follows from another: of an inbox that nobody reads, that its oldest message waits
says the same line; a stranded message is old and was delivered often, which is no second and third trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from console.monitor.states import State
from console.monitor.view import Finding, Severity, Subscription
from console.text.safe import clean
from console.text.units import age as age_text
from console.text.units import rtt
from console.thresholds import Thresholds
from patterns import QueueDepth

NAMED: Final = 32
"""Sequences a text names."""
STREAMS: Final = 4
"""Streams a text names."""
SHARE: Final = 5
"""A read that takes more than this part (one fifth) of the interval is slow: the interval is stretched."""

_TROUBLES: Final = (
    "unreachable",
    "no worker",
    "stalled",
    "stranded",
    "paused",
    "oldest",
    "lag",
    "backlog",
    "dead letters",
    "redeaths",
    "redelivered",
    "ack pending",
    "missing",
    "slow",
)
"""The most urgent first: what began together is told in this order."""
_URGENCY: Final = {trouble: at for at, trouble in enumerate(_TROUBLES)}
_SEVERITIES: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}

# Looking a member of an enum up costs more than all comparisons of a healthy row together.
_NO_WORKER: Final = State.NO_WORKER
_STALLED: Final = State.STALLED
_BACKLOG: Final = State.BACKLOG
_PAUSED: Final = State.PAUSED
_BUSY: Final = State.BUSY


def of_flow(
    subject: str,
    state: State,
    depth: QueueDepth,
    stranded: int | None,
    oldest: float | None,
    limits: Thresholds,
    *,
    redeaths: int = 0,
    stranded_seqs: Sequence[int] = (),
    dead_letters: int = 0,
    drain_eta: float | None = None,
) -> tuple[Finding, ...]:
    """What is wrong with one inbox or queue, worst first; 0.5 us where nothing is.

    Args:
        subject: `inbox.ceo`, `tasks.backend`.
        state: As it was classified.
        depth: Its counters.
        stranded: Confirmed stranded messages; None where it cannot be known.
        oldest: Seconds the oldest message waits; None if there is none.
        limits: From where on it matters, here; see `Settings.thresholds_for`.
        redeaths: Dead letters of it that died again after a replay.
        stranded_seqs: Sequences of stranded messages, as far as they are known.
        dead_letters: Its dead letters, which count against thresholds of its own only.
        drain_eta: Seconds until it is empty at this pace; None while it does not shrink.
    """
    in_flight, again = depth.ack_pending, depth.redelivered
    if (
        state is not _NO_WORKER
        and state is not _STALLED
        and state is not _BACKLOG
        and (state is not _PAUSED or not depth.pending)
        and not stranded
        and again < limits.redelivered
        and (oldest is None or oldest < limits.oldest_warn)
        and (not limits.ack_pending or in_flight < limits.ack_pending)
        and (not redeaths or not limits.redeaths_warn)
        and not (dead_letters and (limits.dead_letters_warn or limits.dead_letters_crit))
    ):
        return ()
    kind, _, name = subject.partition(".")
    place = (kind, name)
    found: list[Finding] = []

    def add(trouble: str, severity: Severity, amount: float, text: str, where: tuple[str, str] = place) -> None:
        found.append(Finding(severity, subject, text, None, where, trouble, amount))

    waited = f", the oldest for {age_text(oldest)}" if oldest is not None and oldest >= limits.oldest_warn else ""
    late = oldest is not None and oldest >= limits.oldest_crit
    # What is in work for the first time is not waiting, however long it takes.
    told = not waited or (state is _BUSY and not depth.pending and not again)
    if state is _NO_WORKER:
        told = True
        worker = "the agent" if kind == "inbox" else "a worker of this role"
        todo = f"start {worker}" if depth.durable is not None else f"there is no consumer, start {worker}"
        add("no worker", "critical", depth.pending, f"{depth.pending:,} waiting and nobody pulls{waited}: {todo}")
    elif state is _STALLED:
        told = True
        text = f"{in_flight:,} in flight without a sign of life for more than {depth.ack_wait:g} s{waited}"
        add("stalled", "critical", in_flight, f"{text}: restart what works on {'it' if in_flight == 1 else 'them'}")
    elif state is _PAUSED and depth.pending:
        told = True
        text = f"paused with {depth.pending:,} waiting{waited}: P resumes it"
        add("paused", "critical" if late else "warning", depth.pending, text)
    elif state is _BACKLOG:
        limit = limits.inbox_backlog if kind == "inbox" else limits.queue_backlog
        pace = f", empty in {age_text(drain_eta)}" if drain_eta is not None else ""
        text = f"{depth.pending:,} waiting, more than the threshold of {limit:,}{pace}"
        add("backlog", "warning", depth.pending, text)
    if stranded and stranded >= limits.stranded_warn:
        told = True
        text = f"{stranded:,} stranded{_sequences(stranded_seqs, stranded)}{waited}"
        add("stranded", "critical", stranded, f"{text}: deliveries used up, hidden from the consumer; rescue them")
    if not told and oldest is not None:
        text = f"oldest message has waited {age_text(oldest)}"
        add("oldest", "critical" if late else "warning", oldest, text)
    _add_letters(add, subject, dead_letters, redeaths, limits)
    # The server goes on counting those that used up their deliveries.
    again = max(0, again - (stranded or 0))
    if again >= limits.redelivered:
        text = f"{again:,} delivered more than once and still not acknowledged: their handlers fail, or outlive their lease"
        add("redelivered", "warning", again, text)
    if limits.ack_pending and in_flight >= limits.ack_pending:
        add("ack pending", "warning", in_flight, f"{in_flight:,} in flight, at the threshold of {limits.ack_pending:,}")
    return tuple(found) if len(found) < 2 else ranked(found)


_Add = Callable[[str, Severity, float, str, tuple[str, str]], None]


def _add_letters(add: _Add, subject: str, dead_letters: int, redeaths: int, limits: Thresholds) -> None:
    severity = _reached(dead_letters, limits.dead_letters_warn, limits.dead_letters_crit)
    if severity:
        add("dead letters", severity, dead_letters, _many(dead_letters, "dead letter"), ("dlq", subject))
    if limits.redeaths_warn and redeaths >= limits.redeaths_warn:
        text = f"{_many(redeaths, 'dead letter')} died again after a replay: find out why before the next"
        add("redeaths", "warning", redeaths, text, ("dlq", subject))


def of_subscription(subscription: Subscription, limits: Thresholds) -> tuple[Finding, ...]:
    """What is wrong with one subscription to events.

    Args:
        subscription: Its counters.
        limits: From where on it matters, of its agent's subscriptions (`events`).
    """
    depth, oldest = subscription.depth, subscription.oldest_age
    behind, in_flight = depth.pending, depth.ack_pending
    late = oldest is not None and oldest >= limits.oldest_warn and bool(behind or depth.redelivered)
    crowded = limits.ack_pending and in_flight >= limits.ack_pending
    if behind < limits.subscription_lag and not late and depth.redelivered < limits.redelivered and not crowded:
        return ()
    shown = "-".join(part for part in (subscription.agent, subscription.name) if part)
    subject, place = f"events.{shown}", ("events", depth.durable or shown)
    found: list[Finding] = []

    def add(trouble: str, severity: Severity, amount: float, text: str) -> None:
        found.append(Finding(severity, subject, text, None, place, trouble, amount))

    absent = " and nobody pulls: start the agent" if behind and not depth.waiting and not in_flight else ""
    if behind >= limits.subscription_lag:
        add("lag", "warning", behind, f"{_many(behind, 'event')} behind{absent}")
        absent = ""
    if late and oldest is not None:
        text = f"oldest event has waited {age_text(oldest)}{absent}"
        add("oldest", "critical" if oldest >= limits.oldest_crit else "warning", oldest, text)
    if depth.redelivered >= limits.redelivered:
        text = f"{depth.redelivered:,} events delivered more than once and still not acknowledged"
        add("redelivered", "warning", depth.redelivered, text)
    if crowded:
        add("ack pending", "warning", in_flight, f"{in_flight:,} in flight, at the threshold of {limits.ack_pending:,}")
    return tuple(found) if len(found) < 2 else ranked(found)


def of_letters(
    letters: Mapping[str, int], limits: Thresholds, *, apart: Callable[[str], bool] | None = None
) -> tuple[Finding, ...]:
    """What the dead letters of all sources together deserve to be said about them.

    Args:
        letters: How many, by `<kind>.<name>`.
        limits: From where on it matters.
        apart: Whether a source has a threshold of its own, against which its letters count instead.
    """
    counted = {source: many for source, many in letters.items() if many and not (apart and apart(source))}
    total = sum(counted.values())
    severity = _reached(total, limits.dead_letters_warn, limits.dead_letters_crit)
    if not severity:
        return ()
    worst = max(counted, key=lambda source: counted[source])
    which = "from" if len(counted) == 1 else "most of them from"
    text = f"{_many(total, 'dead letter')}{'' if len(counted) == 1 else ','} {which} {clean(worst)}"
    return (Finding(severity, "dlq", text, None, ("dlq", ""), "dead letters", total),)


def of_missing(missing: Iterable[str]) -> tuple[Finding, ...]:
    """What could not be read, what has one cause as one finding.

    Args:
        missing: In the words of a snapshot: `stream X did not answer`, `streams X and 3 more did not answer`,
            `consumers of X: why`, or others.
    """
    groups: dict[str, list[str]] = {}
    for text in missing:
        stream, cause = _parted(text)
        groups.setdefault(cause, []).append(stream)
    return tuple(_missed(cause, streams) for cause, streams in groups.items())


_SILENT: Final = "did not answer"


def _parted(text: str) -> tuple[str, str]:
    """The stream a text is about, and what it says without it; none if it is about no single one."""
    if text.startswith("stream ") and text.endswith(f" {_SILENT}"):
        return text.removeprefix("stream ").removesuffix(f" {_SILENT}"), _SILENT
    if text.startswith("streams ") and text.endswith(f" {_SILENT}"):
        return text, _SILENT
    if text.startswith("consumers of ") and ": " in text:
        stream, _, why = text.removeprefix("consumers of ").partition(": ")
        return stream, f"consumers: {why.replace(stream, '*') if stream else why}"
    return "", text


def _missed(cause: str, streams: list[str]) -> Finding:
    names = clean(", ".join(streams[:STREAMS]) + (", …" if len(streams) > STREAMS else ""), limit=200)
    if cause == _SILENT and len(streams) == 1 and streams[0].startswith("streams "):
        text = f"{clean(streams[0])}: their node may be down"
    elif cause == _SILENT:
        many = f"stream {names}" if len(streams) == 1 else f"{len(streams):,} streams ({names})"
        text = f"{many} did not answer: {'its' if len(streams) == 1 else 'their'} node may be down"
    elif streams[0] and len(streams) == 1:
        text = clean(f"consumers of {streams[0]}: {cause.removeprefix('consumers: ').replace('*', streams[0])}")
    elif streams[0]:
        text = f"consumers of {len(streams):,} streams ({names}): {clean(cause.removeprefix('consumers: '))}"
    else:
        text = clean(cause)
    # By its cause: the streams that it costs may be others in each read.
    trouble = f"missing {cause}"
    return Finding("warning", "read", text, None, None, trouble, len(streams))


def of_reading(took: float, interval: float) -> tuple[Finding, ...]:
    """That the reads are slow, which is told and is no alarm.

    Args:
        took: Seconds of the last read.
        interval: Seconds between two reads, as they were asked for.
    """
    if took * SHARE <= interval:
        return ()
    text = f"a read takes {rtt(took)}, more than a fifth of the {interval:g} s between two: they come less often"
    return (Finding("info", "read", text, None, None, "slow", took),)


def of_failure(error: str, age: float | None) -> tuple[Finding, ...]:
    """That nothing can be read at the moment.

    Args:
        error: Why; empty if it can.
        age: Seconds since the last good read; None before the first.
    """
    if not error:
        return ()
    old = f"; what is shown is {age_text(age)} old" if age is not None else ""
    return (Finding("critical", "read", f"{clean(error)}{old}", None, None, "unreachable", age or 0.0),)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, worst first: by severity, by how long they last, by urgency, by how much it is.

    What is not dated counts as older than what is. How much counts by powers of two: numbers change with each read, and
    rows that change places each second help nobody.
    """
    return tuple(sorted(findings, key=_rank))


def _rank(finding: Finding) -> tuple[int, float, int, int, str]:
    return (
        _SEVERITIES[finding.severity],
        finding.since.timestamp() if finding.since is not None else 0.0,
        _URGENCY.get(
            finding.trouble.partition(" ")[0] if finding.subject == "read" else finding.trouble, len(_TROUBLES)
        ),
        -int(finding.amount).bit_length(),
        finding.subject,
    )


def alarms(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that are counted and judged by."""
    return tuple(finding for finding in findings if finding.severity != "info")


class FindingLog:
    """Remembers since when each finding holds, from read to read."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], datetime] = {}

    def dated(self, findings: Iterable[Finding], now: datetime) -> tuple[Finding, ...]:
        """The findings of one read with the time each was first seen, worst first.

        One is the same as before if its subject and its kind of trouble are, whatever its numbers and its severity. One that
        was away for a read is new.

        Args:
            findings: All of this read.
            now: When it was taken.
        """
        before, since = self._since, dict[tuple[str, str], datetime]()
        found: list[Finding] = []
        for each in findings:
            key = (each.subject, each.trouble)
            # A clock that was set back must not date a finding into the future.
            first = since[key] = min(before.get(key, now), now)
            found.append(Finding(each.severity, each.subject, each.text, first, each.place, each.trouble, each.amount))
        self._since = since
        return ranked(found)


def _reached(count: int, warn: int, crit: int) -> Severity | None:
    if crit and count >= crit:
        return "critical"
    return "warning" if warn and count >= warn else None


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _sequences(seqs: Sequence[int], count: int) -> str:
    if not seqs:
        return ""
    shown = ", ".join(map(str, seqs[:NAMED]))
    return f" (seq {shown}{', …' if count > min(len(seqs), NAMED) else ''})"
