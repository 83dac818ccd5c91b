"""What the headless commands show of plans, jobs and the audit; every value through `text.safe`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from console.operations.items import ItemResult, Skip
from console.operations.job import Job
from console.operations.ledger import ItemState, JobRecord
from console.operations.oversight import FEWEST
from console.operations.plan import Plan
from console.report_parts import Parts, line, number, table
from console.text import units

_OUTCOMES: Final = {"done": "green", "duplicate": "green", "skipped": "dim"}
_STATES: Final = {"completed": "green", "running": "cyan", "paused": "yellow", "cancelled": "dim"}
_DIFF: Final = {"+": "green", "-": "red", "@": "dim"}
_TOLD_ONE_BY_ONE: Final = 20
"""Items of a result that are listed though they went well, and skipped ones that a plan names."""


def many(count: int, noun: str) -> str:
    """`1 dead letter`, `12 dead letters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plan(planned: Plan) -> Parts:
    """What an action would do."""
    of_consumer = planned.action in ("pause", "resume")
    what = planned.noun if of_consumer else f"{many(planned.count, planned.noun)}   selected: {planned.selection}"
    parts: Parts = [line(f"{planned.action} {what}", "bold")]
    if planned.looked:
        parts.append(line(planned.looked, "dim"))
    if planned.count > 1:
        parts.append(line(pace_text(planned), "dim"))
    if planned.count and planned.keeps:
        where = f" (in {planned.spill})" if planned.spill is not None else ""
        parts.append(line(f"keeps {planned.keeps}{where}", "dim", limit=400))
    if planned.count:
        parts += [line(each, "dim", limit=400) for each in _care(planned)]
    parts += [line(f"▲ {warning}", "yellow") for warning in planned.warnings]
    if planned.count and planned.diff:
        parts += ["", line("what changes in the first:" if planned.count > 1 else "what changes:", "dim")]
        parts += [line(each, _DIFF.get(each[:1], "")) for each in planned.diff]
    if planned.count and not of_consumer:
        parts += ["", _counts("FROM", planned.by_origin)]
        if planned.by_destination:
            parts += ["", _counts("TO", planned.by_destination)]
        if planned.sample:
            parts += ["", _sample(planned)]
    if planned.count and planned.commands:
        parts += ["", line("by hand, for the first:", "dim"), line(f"  {planned.commands[0]}", "dim")]
    if planned.skipped:
        parts += ["", skipped(planned.skipped)]
    return parts


def _care(planned: Plan) -> Iterator[str]:
    """What it does to spare those it sends to."""
    if planned.edit is not None:
        yield f"edit: {planned.edit.describe()}"
    if planned.canary is not None:
        yield f"canary: {planned.canary.text}; the rest only if all of them are acknowledged"
    if planned.stop_ratio is not None and planned.stop_ratio < 1 and planned.count >= FEWEST:
        yield f"stops by itself when more than {planned.stop_ratio:.0%} of what it sent died again"
    if planned.offers_hold and not planned.hold:
        yield f"large: --pause holds up {many(len(planned.holds), 'consumer')} until all is done"
    if planned.hold:
        yield f"pauses meanwhile: {', '.join(f'{durable} on {stream}' for stream, durable in planned.holds)}"


def pace_text(planned: Plan) -> str:
    """How long it takes."""
    if planned.rate is None:
        return "as fast as it goes"
    return f"{planned.rate:g} a second, about {units.age(planned.duration)}"


def skipped(found: Sequence[Skip]) -> Table:
    """What is left alone, and why."""
    shown = table(">SEQ", f"SKIPPED ({len(found):,})")
    for skip in found[:_TOLD_ONE_BY_ONE]:
        shown.add_row(line(skip.seq), line(skip.reason))
    return shown


def result(job: Job, left_alone: Sequence[Skip] = ()) -> Parts:
    """What became of a job: all items of a small one, of a big one those that did not go well."""
    told = job.as_json(left_alone)
    counts = "   ".join(f"{name} {told[name]:,}" for name in ("planned", "done", "skipped", "failed", "duplicates"))
    items = [ItemResult(item["seq"], item["outcome"], item["detail"]) for item in told["items"]]
    if len(items) > _TOLD_ONE_BY_ONE:
        items = [item for item in items if item.outcome not in ("done", "duplicate")]
    parts: Parts = [line(f"{job.action} {job.id}   {counts}", "bold")]
    if job.canary is not None:
        parts.append(line(f"canary: {job.canary.text}", "" if job.canary.passed else "yellow"))
    if job.redied:
        parts.append(line(f"{job.redied:,} died again since it started", "yellow"))
    if job.spill is not None:
        parts.append(line(f"undo: agent-console restore {job.spill}", "dim", limit=400))
    if items:
        shown = table(">SEQ", "OUTCOME", "")
        for item in items[:500]:
            shown.add_row(line(item.seq), line(item.outcome, _OUTCOMES.get(item.outcome, "red")), line(item.detail))
        parts += ["", shown]
        if len(items) > 500:
            parts.append(line(f"and {len(items) - 500:,} more: --json has them all", "dim"))
    return parts


def jobs(found: Sequence[tuple[JobRecord, Mapping[ItemState, int]]]) -> Table:
    """All jobs, newest first."""
    shown = table(
        "JOB",
        "STATE",
        "ACTION",
        "STARTED",
        ">PLANNED",
        ">DONE",
        ">FAILED",
        ">IN DOUBT",
        ">LEFT",
        "WHO",
        "SELECTED",
        "SPILL",
    )
    for record, counts in found:
        shown.add_row(
            line(record.id),
            line(record.state, _STATES.get(record.state, "red")),
            line(record.action),
            line(_clock(record.started or record.created)),
            number(record.planned),
            number(counts.get("done", 0) + counts.get("duplicate", 0)),
            number(counts.get("failed", 0), "red"),
            number(counts.get("in doubt", 0), "red"),
            number(counts.get("waiting", 0) + counts.get("sending", 0), "yellow"),
            line(record.actor, limit=40),
            line(record.selection, limit=60),
            line(record.spill or units.NOTHING, limit=200),
        )
    return shown


def left_of(record: JobRecord) -> Parts:
    """What whoever goes on with a job should know of it."""
    told = (("its canary", record.spec.get("canary_verdict")), ("it stopped", record.error))
    return [line(f"{label}: {text}", "yellow") for label, text in told if text]


def items(found: Iterable[ItemResult]) -> Table:
    """Items of a job."""
    shown = table(">SEQ", "OUTCOME", "")
    for item in found:
        shown.add_row(line(item.seq), line(item.outcome, _OUTCOMES.get(item.outcome, "red")), line(item.detail))
    return shown


def audit(lines: Iterable[Mapping[str, Any]]) -> Table:
    """What operators did, oldest first."""
    shown = table("time", "who", "where", "action", "job", "what", "came of it")
    for each in lines:
        trouble = each.get("failed") or each.get("in_doubt") or each.get("error")
        shown.add_row(
            line(str(each.get("time", ""))[:19].replace("T", " ")),
            line(each.get("actor", "")),
            line(each.get("context") or each.get("server") or "", limit=16),
            line(each.get("action", "")),
            line(each.get("job", "")),
            line(_audited(each), limit=60),
            line(_came_of(each), "red" if trouble else ""),
        )
    return shown


def _audited(each: Mapping[str, Any]) -> str:
    if each.get("event") == "item":
        return f"seq {each.get('seq')}"
    reason = f" ({each['reason']})" if each.get("reason") else ""
    return f"{each.get('planned')} of {each.get('selector')}{reason}"


def _came_of(each: Mapping[str, Any]) -> str:
    if each.get("event") == "start":
        return "…"
    if each.get("event") == "item":
        return f"{each.get('result')}: {each.get('error')}"
    counts = ", ".join(
        f"{each[name]} {name.replace('_', ' ')}"
        for name in ("done", "skipped", "failed", "in_doubt", "not_started")
        if each.get(name) or name == "done"
    )
    return f"{each.get('result')}: {counts}"


def _sample(planned: Plan) -> Table:
    shown = len(planned.sample)
    going = (
        f"TO (the first {shown} of {planned.count:,})"
        if planned.by_destination
        else f"(the first {shown} of {planned.count:,})"
    )
    rows = table(">SEQ", "FROM", "TYPE", "ID", "ERROR", going)
    for sample in planned.sample:
        rows.add_row(
            line(sample.seq),
            line(sample.source),
            line(sample.type),
            line(sample.id, limit=40),
            line(sample.error or sample.reason, limit=60),
            line(sample.destination),
        )
    return rows


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    shown = table(title, ">MESSAGES")
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1])[:_TOLD_ONE_BY_ONE]:
        shown.add_row(line(name), number(count))
    if len(counts) > _TOLD_ONE_BY_ONE:
        shown.add_row(line(f"and {len(counts) - _TOLD_ONE_BY_ONE:,} more", "dim"), Text())
    return shown


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
