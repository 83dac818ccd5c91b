"""What a person should look at: the one list that the header, the problems view and `check` share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from console.monitor.states import State
from console.monitor.view import Finding, Severity, Subscription
from console.settings import Thresholds
from console.text.safe import clean
from console.text.units import age as age_text
from patterns import QueueDepth


def of_flow(
    subject: str, state: State, depth: QueueDepth, stranded: int | None, oldest: float | None, limits: Thresholds
) -> tuple[Finding, ...]:
    """What is wrong with one inbox or queue.

    Args:
        subject: `inbox.ceo`, `tasks.backend`.
        state: As it was classified.
        depth: Its counters.
        stranded: Confirmed stranded messages; None where it cannot be known.
        oldest: Seconds the oldest message waits; None if there is none.
        limits: From where on it matters.
    """
    found: list[Finding] = []

    def add(severity: Severity, text: str) -> None:
        found.append(Finding(severity, subject, text))

    if state is State.NO_WORKER:
        add("critical", f"{depth.pending} waiting and nobody pulls")
    elif state is State.STALLED:
        add("critical", f"{depth.ack_pending} in flight without a sign of life for more than {depth.ack_wait:g} s")
    elif state is State.BACKLOG:
        add("warning", f"{depth.pending} waiting, more than the threshold")
    elif state is State.PAUSED and depth.pending:
        add("warning", f"paused with {depth.pending} waiting")
    if stranded and stranded >= limits.stranded_warn:
        add("critical", f"{stranded} stranded: deliveries used up, hidden from the consumer")
    if depth.redelivered >= limits.redelivered:
        add("warning", f"{depth.redelivered} delivered more than once and still not acknowledged")
    if oldest is not None and oldest >= limits.oldest_crit:
        add("critical", f"oldest message has waited {age_text(oldest)}")
    elif oldest is not None and oldest >= limits.oldest_warn:
        add("warning", f"oldest message has waited {age_text(oldest)}")
    return tuple(found)


def of_subscription(subscription: Subscription, limits: Thresholds) -> tuple[Finding, ...]:
    """What is wrong with one subscription to events."""
    behind = subscription.depth.pending
    if behind < limits.subscription_lag:
        return ()
    durable = "-".join(part for part in (subscription.agent, subscription.name) if part)
    return (Finding("warning", f"events.{durable}", f"{behind} events behind"),)


def of_letters(letters: Mapping[str, int], limits: Thresholds) -> tuple[Finding, ...]:
    """What the dead letters, by `<kind>.<name>`, deserve to be said about them."""
    total = sum(letters.values())
    if total < limits.dead_letters_warn:
        return ()
    worst = max(letters, key=lambda source: letters[source])
    severity: Severity = "critical" if total >= limits.dead_letters_crit else "warning"
    return (Finding(severity, "dlq", f"{total} dead letters, most of them from {clean(worst)}"),)


def of_missing(missing: Iterable[str]) -> tuple[Finding, ...]:
    """What could not be read."""
    return tuple(Finding("warning", "read", clean(text)) for text in missing)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, worst first."""
    return tuple(sorted(findings, key=lambda finding: (finding.severity != "critical", finding.subject)))
