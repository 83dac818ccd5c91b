"""Bodies of the demo's messages: what agents of a software company would write to each other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

SERVICES = ("api-gateway", "billing", "search", "auth", "notifications", "catalog", "checkout")
_SPECS = (
    "rate limiting per API key",
    "cursor pagination for /orders",
    "idempotency keys on payments",
    "webhooks with signed bodies",
    "audit log export as CSV",
    "SSO with SAML for enterprise plans",
    "soft delete for projects",
    "server-sent events for job progress",
)
_BUGS = (
    "500 on empty cart",
    "token refresh loops after 24 h",
    "duplicate invoice on retry",
    "search misses umlauts",
    "memory grows with open websockets",
    "time zone off by one hour in reports",
)
_PAGES = ("pricing", "onboarding", "changelog", "status", "dashboard", "team settings")
_CUSTOMERS = ("Acme GmbH", "Globex", "Initech", "Umbrella Labs", "Hooli", "Stark Logistics", "Wayne Robotics")
_QUESTIONS = (
    "How do I rotate my API key?",
    "Export is stuck at 99 %",
    "Please cancel our trial",
    "Invoice shows the wrong VAT number",
    "Are there limits on webhooks?",
)
_CAMPAIGNS = ("spring-launch", "agents-for-teams", "migrate-in-a-day", "zero-downtime")

Body = dict[str, Any]


def _code(rng: Random) -> Body:
    service = rng.choice(SERVICES)
    return {"service": service, "repo": f"acme/{service}", "budget_tokens": rng.randrange(20, 200) * 1000}


def _feature(rng: Random) -> Body:
    return _code(rng) | {"spec": rng.choice(_SPECS), "branch": f"feat/{rng.randrange(1000, 9999)}"}


def _bugfix(rng: Random) -> Body:
    return _code(rng) | {"issue": rng.choice(_BUGS), "severity": rng.choice(("low", "medium", "high"))}


def _review(rng: Random) -> Body:
    return _code(rng) | {"pr": rng.randrange(200, 999), "files": rng.randrange(1, 30), "lines": rng.randrange(5, 900)}


def _page(rng: Random) -> Body:
    return {"page": rng.choice(_PAGES), "repo": "acme/web", "spec": rng.choice(("mobile layout", "dark theme", "a11y"))}


def _cve(rng: Random) -> Body:
    cve = f"CVE-2026-{rng.randrange(1000, 9999)}"
    return {"cve": cve, "service": rng.choice(SERVICES), "severity": rng.choice(("medium", "high", "critical"))}


def _scale(rng: Random) -> Body:
    return {"service": rng.choice(SERVICES), "replicas": rng.randrange(2, 12)}


def _keys(rng: Random) -> Body:
    return {"service": rng.choice(SERVICES), "key": f"kms/{rng.randrange(16**6):06x}"}


def _report(rng: Random) -> Body:
    return {"report": rng.choice(("churn", "token-spend", "latency")), "days": rng.choice((1, 7, 30))}


def _ticket(rng: Random) -> Body:
    plan = rng.choice(("free", "team", "enterprise"))
    return {"customer": rng.choice(_CUSTOMERS), "plan": plan, "question": rng.choice(_QUESTIONS)}


def _latency(rng: Random) -> Body:
    return {"service": rng.choice(SERVICES), "p99_ms": rng.randrange(250, 2400), "slo_ms": 250}


def _brief(rng: Random) -> Body:
    campaign = {"campaign": rng.choice(_CAMPAIGNS), "budget_eur": rng.randrange(1, 40) * 500}
    return campaign | {"audience": rng.choice(("developers", "founders", "ops teams"))}


def _week(rng: Random) -> Body:
    return {"sprint": rng.randrange(24, 40), "goal": rng.choice(_SPECS), "tokens_left": rng.randrange(10, 900) * 1000}


def _note(rng: Random) -> Body:
    return {"service": rng.choice(SERVICES), "text": rng.choice(("see the RFC", "tests are flaky", "merge after 1.42"))}


def _sprint(rng: Random) -> Body:
    done = rng.randrange(4, 30)
    return {"sprint": rng.randrange(24, 40), "done": done, "open": rng.randrange(2, 20), "velocity": done + 3}


def _campaign(rng: Random) -> Body:
    return {"campaign": rng.choice(_CAMPAIGNS), "channels": rng.sample(("mail", "web", "social", "docs"), 2)}


def _hotfix(rng: Random) -> Body:
    return {
        "service": rng.choice(SERVICES),
        "version": f"1.{rng.randrange(40, 49)}.{rng.randrange(20)}",
        "hotfix": True,
    }


BODIES: dict[str, Callable[[Random], Body]] = {
    "code.feature": _feature,
    "code.bugfix": _bugfix,
    "code.review": _review,
    "ui.feature": _page,
    "ui.bugfix": _page,
    "ui.landing-page": _page,
    "infra.scale": _scale,
    "infra.patch": _cve,
    "infra.rotate-keys": _keys,
    "data.report": _report,
    "ticket.question": _ticket,
    "ticket.refund": _ticket,
    "ticket.escalated": _ticket,
    "alert.cve": _cve,
    "alert.latency": _latency,
    "brief.campaign": _brief,
    "brief.week": _week,
    "note.context": _note,
    "sprint.updated": _sprint,
    "campaign.launched": _campaign,
    "security.alert": _cve,
    "deployment.completed": _hotfix,
}
"""By type: a function of a seeded generator that makes a body."""

NEEDED: dict[str, str] = {
    "code.feature": "spec",
    "code.bugfix": "issue",
    "code.review": "pr",
    "ui.feature": "spec",
    "ui.bugfix": "page",
    "ui.landing-page": "spec",
    "infra.scale": "replicas",
    "infra.patch": "cve",
    "infra.rotate-keys": "key",
    "data.report": "report",
    "ticket.question": "customer",
    "ticket.refund": "customer",
    "ticket.escalated": "customer",
    "alert.cve": "cve",
    "alert.latency": "service",
    "brief.campaign": "budget_eur",
    "brief.week": "sprint",
    "note.context": "text",
    "sprint.updated": "sprint",
    "campaign.launched": "campaign",
    "security.alert": "cve",
    "deployment.completed": "version",
}
"""By type: the field without which nobody can do anything with it."""


def deployment(task: str, service: str, luck: float) -> Body:
    """Body of `deployment.completed` for a finished task; `luck` in [0, 1) picks the details."""
    number = int(luck * 2**28)
    version = f"1.{40 + number % 9}.{number // 9 % 20}"
    return {"service": service, "version": version, "commit": f"{number:07x}", "task": task}
