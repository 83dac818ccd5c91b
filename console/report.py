"""What the headless commands show people: tables and lines made of `Text`, every value through `text.safe`.

No string here is ever parsed as markup, and no value of a server reaches a terminal but through `clean`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from console.messages import MessageState, preview
from console.monitor.feed import one_line
from console.monitor.view import Finding, FleetView, Flow, Subscription
from console.report_parts import Parts
from console.report_parts import fields as _fields
from console.report_parts import line as _line
from console.report_parts import number as _number
from console.report_parts import table as _table
from console.text import units
from console.text.safe import body_preview, clean
from patterns import DeadLetter, Message

_STYLES: Final = {"bad": "red", "warn": "yellow", "accent": "cyan", "good": "green", "dim": "dim"}
_SEVERITIES: Final = {"critical": ("✖", "red"), "warning": ("▲", "yellow"), "info": ("○", "dim")}
_VERDICTS: Final = {"healthy": ("●", "green"), "unknown": ("?", "yellow"), **_SEVERITIES}
_STATES: Final = {"pending": "", "in flight": "cyan", "stranded": "red"}


def fleet(view: FleetView) -> Parts:
    """All agents, queues and subscriptions, the worst first, and what a person should look at."""
    server = view.server
    title = _line(
        f"{server.url}  nats {server.version}  {server.name}   {_many(view.agents, 'agent')}   {_many(view.queues, 'queue')}   "
        f"DLQ {units.count(view.dead_letter_total)}   read in {units.rtt(view.took)}"
    )
    parts: Parts = [title]
    if view.agents:
        parts += ["", _agents(view.agents)]
    if view.queues:
        parts += ["", _queues(view.queues)]
    if view.subscriptions:
        parts += ["", _subscriptions(view.subscriptions)]
    if not (view.agents or view.queues or view.subscriptions):
        parts += ["", _line("no agents, queues or subscriptions here (another --org?)", "dim")]
    if view.findings:
        parts += ["", findings(view.findings)]
    return parts


def findings(found: Iterable[Finding]) -> Table:
    """Glyph, severity, subject and text of each finding."""
    table = _table("", "FINDING", "ABOUT", "")
    for each in found:
        glyph, style = _SEVERITIES[each.severity]
        table.add_row(_line(glyph, style), _line(each.severity, style), _line(each.subject), _line(each.text))
    return table


def check(status: str, view: FleetView) -> Parts:
    """The verdict, and what it rests on."""
    glyph, style = _VERDICTS[status]
    letters = f"DLQ {units.count(view.dead_letter_total)}"
    counts = f"{_many(view.agents, 'agent')}, {_many(view.queues, 'queue')}, {letters}"
    verdict = _line(f"{glyph} {status}: {counts}", style)
    return [verdict, findings(view.findings)] if view.findings else [verdict]


def letters(dead: Sequence[DeadLetter], *, more: bool = False, now: datetime | None = None) -> Parts:
    """A list of dead letters.

    Args:
        dead: What is shown.
        more: There are more that are not.
        now: What ages count from; the clock if omitted.
    """
    if not dead:
        return [_line("no dead letters", "dim")]
    table = _table(">SEQ", "FROM", "TYPE", "ID", "REASON", ">TRIES", ">REPLAYS", ">DIED", ">SIZE", "ERROR")
    moment = now or datetime.now(UTC)
    for each in dead:
        table.add_row(
            _line(each.seq),
            _line(each.source),
            _line(each.type),
            _line(each.id, limit=40),
            _line(each.reason),
            _number(each.deliveries),
            _number(each.replays, "yellow"),
            _line(units.ago(each.died_at, moment)),
            _line(units.size(each.size)),
            _line(each.error_text, limit=200),
        )
    return [table, _line(f"the first {len(dead):,}: --limit shows more", "dim")] if more else [table]


def letter(dead: DeadLetter) -> Parts:
    """One dead letter: the story of its death, its headers and its body."""
    story = _fields(
        {
            "seq": dead.seq,
            "from": f"{dead.source}  (stream {dead.stream or units.NOTHING}, seq {dead.origin_seq})",
            "subject": dead.subject,
            "type": dead.type,
            "id": dead.id,
            "conversation": dead.correlation_id,
            "reason": dead.reason,
            "error": dead.error_text,
            "agent": dead.agent,
            "tries": dead.deliveries,
            "replays": dead.replays,
            "first died": _time(dead.first_at),
            "died": _time(dead.died_at),
            "size": units.size(dead.size),
        }
    )
    message = dead.message
    data = None if isinstance(message.data, bytes) else message.data
    parts: Parts = [story]
    if message.headers:
        parts += ["", _line("headers", "dim"), _fields(message.headers)]
    # Cleaned by the preview already, line by line; cleaning it again would show its newlines as pictures.
    return [*parts, "", _line("body", "dim"), Text(body_preview(message.body, data))]


def messages(
    found: Sequence[tuple[Message, MessageState | None]],
    nothing: str,
    *,
    more: bool = False,
    now: datetime | None = None,
) -> Parts:
    """A list of stored messages, each with its state; None for one that cannot be known.

    Args:
        found: What is shown.
        nothing: What to say when there is none.
        more: There are more that are not shown.
        now: What ages count from; the clock if omitted.
    """
    if not found:
        return [_line(nothing, "dim")]
    table = _table(">SEQ", "STATE", "TYPE", "ID", "SOURCE", ">AGE", ">SIZE", "BODY")
    moment = now or datetime.now(UTC)
    for each, state in found:
        table.add_row(
            _line(each.seq),
            _line(state or units.NOTHING, _STATES.get(state or "", "dim")),
            _line(each.type, limit=60),
            _line(each.id, limit=40),
            _line(each.source, limit=40),
            _line(units.age((moment - each.stored_at).total_seconds() if each.stored_at else None)),
            _line(units.size(each.size)),
            _line(preview(each)),
        )
    return [table, _line(f"the first {len(found):,}: --limit shows more", "dim")] if more else [table]


def event(message: Message, now: datetime | None = None) -> Text:
    """One event on one line: time, topic, who, body."""
    at = message.stored_at.astimezone() if message.stored_at else None
    today = (now or datetime.now(UTC)).astimezone().date()
    clock = units.clock(at) if at is None or at.date() == today else f"{at.date()} {units.clock(at)}"
    topic, source = clean(message.type, limit=60), clean(message.source, limit=40)
    words = ((clock, "dim"), "  ", (f"{topic:<24}", "cyan"), "  ", f"{source:<14}", "  ", one_line(message))
    return Text.assemble(*words, no_wrap=True, overflow="ellipsis")


def info(told: Mapping[str, Any]) -> Table:
    """The answer of `info` as a list of fields."""
    flat: dict[str, Any] = {}
    for key, value in told.items():
        if isinstance(value, Mapping):
            flat |= {f"{key} {name}".replace("_", " "): inner for name, inner in value.items()}
        else:
            flat[key.replace("_", " ")] = value
    return _fields({name: _word(value) for name, value in flat.items()})


def _agents(flows: Iterable[Flow]) -> Table:
    table = _table("AGENT", "STATE", ">INBOX", ">ACK PEND", ">OLDEST", ">IN/s", ">ACK/s", ">REDEL", ">STRANDED", ">DLQ")
    for flow in _worst_first(flows):
        table.add_row(*_front(flow), *_back(flow))
    return table


def _queues(flows: Iterable[Flow]) -> Table:
    table = _table(
        *("ROLE", "STATE", ">BACKLOG", ">ACK PEND", ">WORKERS", ">OLDEST", ">IN/s", ">ACK/s", ">DRAIN IN"),
        *(">REDEL", ">STRANDED", ">DLQ"),
    )
    for flow in _worst_first(flows):
        name, state, backlog, in_flight = _front(flow)
        oldest, in_rate, ack_rate, *rest = _back(flow)
        drain = _line(units.age(flow.drain_eta))
        table.add_row(name, state, backlog, in_flight, _number(flow.workers), oldest, in_rate, ack_rate, drain, *rest)
    return table


def _subscriptions(found: Iterable[Subscription]) -> Table:
    table = _table("SUBSCRIBER", "NAME", "TOPICS", ">LAG", ">ACK PEND", ">REDEL", ">WAITING")
    for each in found:
        depth = each.depth
        counts = (depth.pending, depth.ack_pending, depth.redelivered, depth.waiting)
        topics = _line(" ".join(each.topics), limit=60)
        table.add_row(_line(each.agent), _line(each.name), topics, *(_number(count) for count in counts))
    return table


def _worst_first(flows: Iterable[Flow]) -> list[Flow]:
    return sorted(flows, key=lambda flow: (flow.state.rank, flow.name))


def _front(flow: Flow) -> tuple[Text, Text, Text, Text]:
    style = _STYLES[flow.state.style]
    return (
        Text.assemble((flow.state.glyph, style), " ", clean(flow.name)),
        _line(flow.state.value, style),
        _number(flow.depth.messages),
        _number(flow.depth.ack_pending),
    )


def _back(flow: Flow) -> tuple[Text, ...]:
    return (
        _line(units.age(flow.oldest_age)),
        _line(units.rate(flow.in_rate)),
        _line(units.rate(flow.ack_rate)),
        _number(flow.depth.redelivered),
        _number(flow.stranded, "red"),
        _number(flow.dead_letters, "yellow"),
    )


def _many(things: Sequence[Any], word: str) -> str:
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"


def _time(moment: datetime | None) -> str:
    return (
        units.NOTHING if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def _word(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else value
