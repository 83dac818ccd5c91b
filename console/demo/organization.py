"""Who exists in the demo, in which roles, and what they listen to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

from patterns import DeliveryConfig, FleetConfig, RequestConfig, RetryPolicy


@dataclass(frozen=True, slots=True)
class Member:
    """One agent of the organization."""

    id: str
    role: str | None = None
    topics: tuple[str, ...] = ()
    """Events it subscribes to, durably."""


CORE = (
    Member("ceo"),
    Member("cto"),
    Member("backend-1", "backend"),
    Member("backend-2", "backend"),
    Member("backend-3", "backend"),
    Member("frontend-1", "frontend"),
    Member("frontend-2", "frontend"),
    Member("devops", "ops"),
    Member("security", "ops", ("deployment.>", "infra.>")),
    Member("marketing", None, ("deployment.completed", "sprint.updated")),
    Member("support", None, ("deployment.completed", "campaign.launched", "security.alert")),
)
"""The organization of eleven."""

INDISPENSABLE = frozenset({"ceo", "backend-1", "devops", "security"})
"""Without these one of the four patterns would have nobody."""

_GROWTH = ("backend", "backend", "frontend", "data")


@dataclass(frozen=True, slots=True)
class Organization:
    """The members of one demo."""

    members: tuple[Member, ...]
    by_id: dict[str, Member] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {member.id: member for member in self.members})

    @property
    def agents(self) -> tuple[str, ...]:
        """Ids of all members."""
        return tuple(self.by_id)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles with at least one member, in order of appearance."""
        return tuple(dict.fromkeys(member.role for member in self.members if member.role))

    def workers(self, role: str) -> tuple[str, ...]:
        """Members of a role."""
        return tuple(member.id for member in self.members if member.role == role)

    def present(self, *ids: str) -> tuple[str, ...]:
        """Those of `ids` that exist here."""
        return tuple(agent for agent in ids if agent in self.by_id)


def organize(agents: int) -> Organization:
    """The organization of eleven, cut from its end or grown to `agents` members; never fewer than four.

    It grows by backend, frontend and data agents, numbered on: backend-4, backend-5, frontend-3, data-1, ...
    """
    members = list(CORE)
    for member in reversed(CORE):
        if len(members) > agents and member.id not in INDISPENSABLE:
            members.remove(member)
    return Organization((*members, *islice(_recruits(), max(0, agents - len(CORE)))))


def fleet_config(agents: int, rate: float) -> FleetConfig:
    """Short leases and quick retries: on a stage nobody waits five minutes for a redelivery.

    Args:
        agents: Size of the fleet; a big one polls less often, or idle pulls would keep the one event loop busy.
        rate: Tasks and messages a second; a message that waits for its retry holds up its inbox, so at a high rate it
            must not wait long.
    """
    quick = RetryPolicy(base=min(0.5, 3.0 / rate), factor=2.0, max=4.0, jitter=0.2)
    shared = DeliveryConfig(ack_wait=10.0, max_ack_pending=256, max_runtime=120.0, retry=quick)
    return FleetConfig(
        inbox=DeliveryConfig(ack_wait=10.0, max_ack_pending=1, max_runtime=120.0, retry=quick),
        tasks=shared,
        events=shared,
        requests=RequestConfig(timeout=1.0),
        poll=max(2.0, agents * 0.03),
        drain_grace=1.0,
        publish_timeout=5.0,
    )


def _recruits() -> Iterator[Member]:
    hired = {"backend": 3, "frontend": 2, "data": 0}
    for number in count():
        role = _GROWTH[number % len(_GROWTH)]
        hired[role] += 1
        yield Member(f"{role}-{hired[role]}", role)
