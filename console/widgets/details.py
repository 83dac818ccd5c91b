"""What a message or a dead letter looks like when it is opened: text only, every value through the safe door."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rich.text import Text

from console.letters import Gap, chain, cleaned
from console.text import units
from console.text.safe import body_preview, clean, fit
from patterns import DeadLetter, Message
from patterns.lineage import is_death

LABEL = 13
LINKS = 3
"""Earlier deaths that a letter tells in one line each."""
LINK = 26
"""Cells of why it died then: as many as a letter beside its table has, so that it stays one line."""


def letter_text(letter: DeadLetter, now: datetime, colours: Mapping[str, str], *, headers: bool = True) -> Text:
    """The story of one death, then its body, then its headers.

    Args:
        letter: The letter, as it was read.
        now: For the ages.
        colours: Styles by the names `bright dim bad accent`.
        headers: Whether to list the headers too.
    """
    safe = cleaned(letter)
    text = Text(no_wrap=False)
    text.append(safe.type or "no type", colours["bright"])
    text.append(f"  {safe.id}\n")
    tries = f"{letter.deliveries} {'try' if letter.deliveries == 1 else 'tries'}"
    by = f" by {safe.agent}" if safe.agent else ""
    text.append(
        f"died {units.ago(letter.died_at, now)}, {tries}{by}, {safe.reason or 'no reason given'}\n", colours["dim"]
    )
    if safe.error_type or safe.error:
        text.append("\n")
        text.append(safe.error_type, colours["bad"])
        text.append(f"{': ' if safe.error_type and safe.error else ''}{safe.error}\n")
    if line := letter.message.headers.get("Dead-Letter-Error-At-Line"):
        text.append(clean(line) + "\n", colours["dim"])
    text.append("\n")
    rows = [
        ("from", f"{safe.subject or 'unknown'}  #{letter.origin_seq}"),
        ("died in", f"{clean(letter.source)}{f'  ({safe.stream})' if safe.stream else ''}"),
        (
            "sent by",
            f"{clean(letter.message.source)}{'  ' + units.clock(letter.message.time) if letter.message.time else ''}",
        ),
        ("conversation", safe.correlation_id or "–"),
        *_replays(letter, now),
    ]
    if letter.replays and letter.first_at:
        rows.append(("first death", units.ago(letter.first_at, now)))
    for label, value in rows:
        text.append(f"{label:<{LABEL}}", colours["dim"])
        text.append(value + "\n")
    _append_body(text, letter.message)
    if headers:
        # The earlier deaths are told above; up to ten thousand characters of them would hide the sender's own.
        own = {name: value for name, value in letter.message.headers.items() if not is_death(name)}
        _append_headers(text, own, colours)
    return text


def _replays(letter: DeadLetter, now: datetime) -> list[tuple[str, str]]:
    """How often it came back, and from which deaths, the latest first."""
    if not letter.replays:
        return [("replayed", "never")]
    rows = [("replayed", f"{units.count(letter.replays)}×   a shows all")]
    for link in chain(letter)[-2 : -2 - LINKS : -1]:
        if isinstance(link, Gap):
            rows.append(("", link.text))
            continue
        cause = clean(link.error or link.error_type or link.reason) or "no reason given"
        rows.append((f"  #{link.n} {units.ago(link.at, now)} ", fit(cause, LINK).rstrip()))
    return rows


def message_text(message: Message, colours: Mapping[str, str]) -> Text:
    """One message: what it is, its body, its headers."""
    text = Text(no_wrap=False)
    text.append(clean(message.type) or "no type", colours["bright"])
    text.append(f"  {clean(message.id)}\n\n")
    rows = [
        ("subject", clean(message.subject)),
        ("source", clean(message.source)),
        (
            "stored",
            f"{units.clock(message.stored_at)}  {clean(message.stream or '')} #{message.seq}" if message.seq else "–",
        ),
        ("conversation", clean(message.correlation_id) or "–"),
        ("size", units.size(message.size)),
    ]
    for label, value in rows:
        text.append(f"{label:<{LABEL}}", colours["dim"])
        text.append(value + "\n")
    _append_body(text, message)
    _append_headers(text, message.headers, colours)
    return text


def _append_body(text: Text, message: Message) -> None:
    text.append("\n")
    text.append(body_preview(message.body, None if isinstance(message.data, bytes) else message.data))
    text.append("\n")


def _append_headers(text: Text, headers: Mapping[str, str], colours: Mapping[str, str]) -> None:
    if not headers:
        return
    text.append("\nheaders\n", colours["dim"])
    for name in sorted(headers, key=str.lower):
        text.append(f"{clean(name, limit=64)}: ", colours["dim"])
        text.append(clean(headers[name], limit=512) + "\n")
