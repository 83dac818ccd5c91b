"""Everything there is to say about one job, as text; no widgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich.text import Text

from console.operations.canary import Canary
from console.operations.edits import Edit
from console.operations.ledger import JobRecord
from console.operations.plan import PAST, SENDS
from console.screens.job_rows import BAR, Facts, JobView, bar, long_time, moment_of, percent, share_of
from console.text import units
from console.text.safe import clean

LABEL: Final = 12
WIDE_BAR: Final = 24
"""Cells of the progress bar where there is room."""
LINE: Final = 400
"""Characters of one value."""


def card_text(view: JobView, facts: Facts | None, colours: Mapping[str, str], *, wide: bool = True) -> Text:
    """Everything there is to say about a job.

    Args:
        view: The job.
        facts: What was found out besides; None while it is not known.
        colours: Styles by the names `bright dim bad accent`.
        wide: Whether there is room for a long progress bar.
    """
    record, job, text = view.record, view.job, Text()

    def line(label: str, value: str, style: str = "") -> None:
        text.append(f"{label:<{LABEL}}", colours["dim"])
        text.append(clean(value, limit=LINE) + "\n", style)

    share = share_of(view)
    left = f", {units.count(view.left)} left" if view.left else ""
    if view.away:
        line("belongs to", view.away, colours["bad"])
    line("chosen", record.selection or units.NOTHING)
    text.append(f"{'progress':<{LABEL}}", colours["dim"])
    text.append(bar(share, WIDE_BAR if wide else BAR), colours["accent"] if view.under_way else colours["dim"])
    text.append(
        f" {percent(share)}  {units.count(view.done)} of {units.count(record.planned)} "
        f"{clean(PAST.get(record.action, record.action), limit=24)}{left}\n"
    )
    failed, doubt = view.count("failed"), view.count("in doubt")
    trouble = job.troubles[-1] if job is not None and job.troubles else None
    if trouble is None and facts is not None and facts.job == view.id:
        trouble = facts.trouble
    last = f"   last: seq {trouble.seq} {trouble.outcome}, {trouble.detail}" if trouble and (failed or doubt) else ""
    line("failed", f"{units.count(failed)}{last}", colours["bad"] if failed else "")
    line("in doubt", f"{units.count(doubt)}{_doubt(view)}", colours["bad"] if doubt else "")
    line("duplicates", units.count(view.count("duplicate")))
    line("skipped", _skipped(view))
    line("rate", _pace(view))
    for label, told in _care(view):
        line(label, told)
    if record.action in SENDS:
        again = facts.again if facts is not None and facts.job == view.id else None
        if job is not None and job.running:
            again = max(again or 0, job.redied)
        told = units.NOTHING if again is None else f"{units.count(again)} of them since it started"
        line("died again", told, colours["bad"] if again else "")
    line("spill", view.spill or "none")
    line("operator", _operator(record))
    line("started", _when(view))
    line("phase", _phase(view))
    if view.error:
        line("error", view.error, colours["bad"])
    line("reason", record.reason or "none given")
    if record.undone_by:
        line("undone", f"put back by job {record.undone_by}")
    return text


def _care(view: JobView) -> Iterator[tuple[str, str]]:
    """What it does to spare those it sends to, as label and text."""
    spec, job = view.record.spec, view.job
    if "edit" in spec:
        yield "edit", Edit.from_spec(spec["edit"]).describe()
    if canary := Canary.from_spec(spec.get("canary")):
        verdict = spec.get("canary_verdict") or (job.record.spec.get("canary_verdict") if job is not None else "")
        if not verdict and job is not None and job.canary is not None:
            verdict = job.canary.text
        yield "canary", f"{canary.text}{f': {verdict}' if verdict else ''}"
    if (ratio := spec.get("stop_ratio")) is not None and ratio < 1:
        yield "stops", f"when more than {ratio:.0%} of what it sent died again"
    if "hold" in spec:
        held = job.held if job is not None and job.running else ()
        yield "pauses", ", ".join(held) if held else f"{units.count(len(spec['hold']))}, while it works"
    if overridden := spec.get("overridden"):
        yield "by force", ", ".join(f"{count} {what}" for what, count in overridden.items())


def _operator(record: JobRecord) -> str:
    named = (f"{name} {value}" for name, value in (("mode", record.mode), ("context", record.context)) if value)
    return "   ".join((record.actor or units.NOTHING, *named))


def _phase(view: JobView) -> str:
    if view.away and not view.under_way:
        return "resumed only where it belongs" if view.left and view.state in ("interrupted", "failed") else "over"
    if view.job is not None and view.job.phase:
        return view.job.phase
    told = {
        "running": "one item after the other" if view.job is not None else "another agent-console works on it",
        "canary?": "P or C says how it goes on after its canary",
        "paused": "P goes on" if view.job is not None else "paused in another agent-console",
        "stopping": "stops after the item in work",
        "interrupted": "P resumes it",
        "failed": "P resumes it" if view.left else "over",
    }
    return told.get(view.state, "over")


def _doubt(view: JobView) -> str:
    return "   enter shows them: find out, and say what is true" if view.count("in doubt") else ""


def _skipped(view: JobView) -> str:
    parts = [f"{units.count(number)} {reason}" for reason, number in view.record.skipped.items()]
    if gone := view.count("skipped"):
        parts.append(f"{units.count(gone)} gone meanwhile")
    total = sum(view.record.skipped.values()) + view.count("skipped")
    return f"{units.count(total)}   {', '.join(parts)}" if parts else "0"


def _pace(view: JobView) -> str:
    asked = "as fast as it goes" if view.rate is None else f"{view.rate:g}/s"
    if view.job is None:
        return asked
    parts = [asked]
    if (actual := view.job.actual_rate) is not None:
        parts.append(f"{units.rate(actual)}/s actual")
    if (eta := view.job.eta) is not None:
        parts.append(f"{units.age(eta)} left")
    return "   ".join(parts)


def _when(view: JobView) -> str:
    began, ended = moment_of(view.started), moment_of(view.ended)
    told = long_time(began) if began else "not yet"
    if ended is not None and view.started and view.ended:
        told += f"   ended {long_time(ended)}   took {units.age(view.ended - view.started)}"
    return told
