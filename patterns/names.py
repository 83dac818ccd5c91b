"""Subjects, streams, durables and keys: every name the library uses on a server, built and parsed in one place.

All functions validate before they build, so that no publish can reach a wildcard (the server stores `a.*` literally) and
no two agents can share a stream (ids are lower case, stream names upper case, the mapping is injective).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patterns.errors import InvalidName

Kind = Literal["inbox", "tasks", "events"]
"""The three places a message can die in."""

KINDS: tuple[Kind, ...] = ("inbox", "tasks", "events")

_ID = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_ORG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_SUBSCRIPTION = re.compile(r"[a-z0-9]{1,32}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
LONGEST_SUBJECT = 2048
"""Bytes of a subject that the library publishes to."""

_TASK_ID = re.compile(r"[A-Za-z0-9_=/-]{1,128}")
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ENTRY_TOKEN = re.compile(r"([0-9]{1,20})-([0-9a-f]{1,16})")
_RESERVED_ORGS = frozenset({"inbox", "tasks", "events", "redeliver", "dlq", "agents", "roles", "kv", "obj"})
_MAX_TOKENS = 8
_MAX_SUBJECT = 256
_FLEET_ROOTS = frozenset({"agents", "roles", "tasks", "events", "redeliver", "dlq"})
_REDELIVERY = len("redeliver.") + 64 + len(".") + 32 + len(".")
"""Characters before the topic of a redelivered event, at the most: agent id and subscription name."""


def agent_id(value: str) -> str:
    """Return `value` if it is an agent id, else raise InvalidName (lower case, digits, `_`, `-`, at most 64)."""
    return _checked(
        _ID,
        value,
        "agent id",
        "lower-case letters, digits, '-' and '_', at most 64, starting and ending with one of the first two",
    )


def is_agent_id(value: str) -> bool:
    """Whether `value` is an agent id."""
    return _ID.fullmatch(value) is not None


def role_id(value: str) -> str:
    """Return `value` if it is a role, else raise InvalidName; the rule is that of agent ids."""
    return _checked(
        _ID,
        value,
        "role",
        "lower-case letters, digits, '-' and '_', at most 64, starting and ending with one of the first two",
    )


def subscription_name(value: str) -> str:
    """Return `value` if it names a subscription (`[a-z0-9]+`: without `-`, so that the durable parses back)."""
    return _checked(_SUBSCRIPTION, value, "subscription name", "lower-case letters and digits, at most 32")


def task_id(value: str) -> str:
    """Return `value` if it is a task id: one token of a key-value key (ADR-6), without dots."""
    return _checked(_TASK_ID, value, "task id", "1 to 128 of A-Z a-z 0-9 _ = / -")


def message_id(value: str) -> str:
    """Return `value` if it is a message id: printable ASCII without spaces, at most 128."""
    return _checked(_MESSAGE_ID, value, "message id", "1 to 128 printable ASCII characters without spaces")


def derived_id(text: str) -> str:
    """A message id made of other ids: the text where it can be one, else its hash."""
    return text if _MESSAGE_ID.fullmatch(text) else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def dotted(value: str, what: str = "type") -> str:
    """Return `value` if it is a type, method or topic: 1 to 8 tokens of `[A-Za-z0-9_-]+` joined by dots."""
    tokens = value.split(".") if isinstance(value, str) else []
    if not 1 <= len(tokens) <= _MAX_TOKENS or not all(_TOKEN.fullmatch(token) for token in tokens):
        raise InvalidName(
            f"{what} {value!r} must be 1 to {_MAX_TOKENS} tokens of letters, digits, '_' and '-' joined by '.'"
        )
    return value


def topic_filter(value: str) -> str:
    """Return `value` if it is a topic with optional whole-token `*` and a last `>`, else raise InvalidName."""
    tokens = value.split(".") if isinstance(value, str) else []
    for position, token in enumerate(tokens):
        whole = token == "*" or (token == ">" and position == len(tokens) - 1) or _TOKEN.fullmatch(token)
        if not whole:
            tokens = []
            break
    if not 1 <= len(tokens) <= _MAX_TOKENS:
        raise InvalidName(
            f"topic filter {value!r} must be tokens joined by '.', '*' for one token, '>' only as the last"
        )
    return value


def filters_overlap(one: str, other: str) -> bool:
    """Whether some subject matches both filters (the server refuses such a consumer late, with 10138)."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if a == ">" or b == ">":
            return True
        if "*" not in (a, b) and a != b:
            return False
    return len(left) == len(right)


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether `subject`, a literal, matches the NATS wildcard `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given) > position
        if position >= len(given) or (token != "*" and token != given[position]):
            return False
    return len(wanted) == len(given)


def is_literal(subject: str) -> bool:
    """Whether one can publish to `subject`: no empty token, no wildcard, nothing that is not visible, not too long.

    The server closes the connection of a client that sends a longer protocol line than 4 KiB.
    """
    return len(subject.encode(errors="replace")) <= LONGEST_SUBJECT and all(
        token.isprintable() and " " not in token and token not in ("", "*", ">") for token in subject.split(".")
    )


def topic_filters(topics: Sequence[str]) -> tuple[str, ...]:
    """Validate the topics of one subscription: each well-formed, no two overlapping.

    Raises:
        InvalidName: A topic is malformed, two overlap, or there is none.
    """
    if not topics:
        raise InvalidName("a subscription needs at least one topic, such as 'deployment.>'")
    checked = tuple(topic_filter(topic) for topic in topics)
    for index, one in enumerate(checked):
        for other in checked[index + 1 :]:
            if filters_overlap(one, other):
                raise InvalidName(
                    f"topics {one!r} and {other!r} overlap: an event would match both, keep the wider one"
                )
    return checked


@dataclass(frozen=True, slots=True)
class Entry:
    """The name of one death: where the message died and which message it was.

    The stored-at time makes it unique across a re-created stream, whose sequences start again at 1.
    """

    kind: Kind
    name: str
    """Agent, role, or durable of the subscription."""
    seq: int
    """Sequence in the origin stream; 0 for an outcome that never was in one."""
    stored_ns: int
    """Nanoseconds since the epoch at which the origin stream stored it."""

    @property
    def token(self) -> str:
        """The last token of the subject: `<seq>-<stored-at ns, hex>`."""
        return f"{self.seq}-{self.stored_ns:x}"

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}.{self.token}"

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Parse `<kind>.<name>.<seq>-<ns hex>`; raises InvalidName."""
        parts = text.split(".")
        match = _ENTRY_TOKEN.fullmatch(parts[-1])
        if len(parts) != 3 or parts[0] not in KINDS or not _TOKEN.fullmatch(parts[1]) or match is None:
            raise InvalidName(f"{text!r} is not the name of a dead letter (kind.name.sequence-time)")
        return cls(parts[0], parts[1], int(match[1]), int(match[2], 16))


@dataclass(frozen=True, slots=True)
class Place:
    """What a stream is for, read from its name."""

    kind: Literal["inbox", "tasks", "events", "dlq", "ledger", "receipts"]
    name: str
    """Agent or role; empty for the streams of which a fleet has one."""


class Names:
    """Names of one organization on a server.

    Args:
        org: Prefix of all subjects (`acme.`) and streams (`ACME_`), or None. Naming, not security: isolation is one NATS
            account an organization, and then no prefix is needed.

    Raises:
        InvalidName: `org` is malformed or would collide with a name of the library.
    """

    def __init__(self, org: str | None = None) -> None:
        if org is not None:
            _checked(_ORG, org, "org", "lower-case letters, digits and '-', at most 32")
            if org in _RESERVED_ORGS:
                raise InvalidName(f"org {org!r} is one of the library's own words, choose another")
        self.org = org
        self._subject = f"{org}." if org else ""
        self._stream = f"{org.upper()}_" if org else ""

    # -- streams, durables, buckets

    def inbox_stream(self, agent: str) -> str:
        """`INBOX_<AGENT>`."""
        return f"{self._stream}INBOX_{agent_id(agent).upper()}"

    def inbox_durable(self, agent: str) -> str:
        """`<agent>-processor`."""
        return f"{agent_id(agent)}-processor"

    def tasks_stream(self, role: str) -> str:
        """`TASKS_<ROLE>`."""
        return f"{self._stream}TASKS_{role_id(role).upper()}"

    def tasks_durable(self, role: str) -> str:
        """`<role>-workers`."""
        return f"{role_id(role)}-workers"

    @property
    def events_stream(self) -> str:
        """`EVENTS`."""
        return f"{self._stream}EVENTS"

    def subscription_durable(self, agent: str, name: str = "events") -> str:
        """`<agent>-<name>`; the name has no `-`, so it parses back."""
        return f"{agent_id(agent)}-{subscription_name(name)}"

    @property
    def dlq_stream(self) -> str:
        """`DLQ`."""
        return f"{self._stream}DLQ"

    @property
    def ledger_bucket(self) -> str:
        """Key-value bucket of the task ledger, `TASKS`."""
        return f"{self._stream}TASKS"

    @property
    def receipts_bucket(self) -> str:
        """Key-value bucket of replay and resolution receipts, `RECEIPTS`."""
        return f"{self._stream}RECEIPTS"

    # -- subjects

    def inbox_prefix(self, agent: str) -> str:
        """`agents.<agent>.inbox`, to which a type is appended."""
        return f"{self._subject}agents.{agent_id(agent)}.inbox"

    def inbox_subject(self, agent: str, type: str) -> str:
        """`agents.<agent>.inbox.<type>`."""
        return self._bounded(f"{self.inbox_prefix(agent)}.{dotted(type)}")

    def tasks_prefix(self, role: str) -> str:
        """`tasks.<role>`, to which a type is appended."""
        return f"{self._subject}tasks.{role_id(role)}"

    def task_subject(self, role: str, type: str) -> str:
        """`tasks.<role>.<type>`."""
        return self._bounded(f"{self.tasks_prefix(role)}.{dotted(type)}")

    def rpc_subject(self, agent: str, method: str) -> str:
        """`agents.<agent>.rpc.<method>`: outside every stream, else the PubAck would be the first reply."""
        return self._bounded(f"{self._subject}agents.{agent_id(agent)}.rpc.{dotted(method, 'method')}")

    def role_rpc_subject(self, role: str, method: str) -> str:
        """`roles.<role>.rpc.<method>`: answered by one member of the role."""
        return self._bounded(f"{self._subject}roles.{role_id(role)}.rpc.{dotted(method, 'method')}")

    def rpc_wildcards(self, agent: str, role: str | None) -> tuple[str, ...]:
        """The subjects a responder listens on."""
        own = (f"{self._subject}agents.{agent_id(agent)}.rpc.>",)
        return own if role is None else (*own, f"{self._subject}roles.{role_id(role)}.rpc.>")

    def service(self, agent: str) -> str:
        """`<ORG>_<agent>`: the agent's name in the NATS services protocol; ids have no capitals, so it is unambiguous."""
        return f"{self._stream}{agent_id(agent)}"

    def event_subject(self, topic: str) -> str:
        """`events.<topic>`, short enough that its redelivery to any subscription is a subject too."""
        longest = _MAX_SUBJECT - len(self._subject) - _REDELIVERY
        if len(dotted(topic, "topic")) > longest:
            raise InvalidName(f"topic of {len(topic)} characters is longer than {longest}: {topic[:60]!r}…")
        return f"{self._subject}events.{topic}"

    def event_filter(self, topic: str) -> str:
        """`events.<topic>` where the topic may hold wildcards."""
        return self._bounded(f"{self._subject}events.{topic_filter(topic)}")

    def redeliver_prefix(self, agent: str, name: str) -> str:
        """`redeliver.<agent>.<name>`: a replayed event goes to the one subscription that failed."""
        return f"{self._subject}redeliver.{agent_id(agent)}.{subscription_name(name)}"

    def redeliver_subject(self, agent: str, name: str, topic: str) -> str:
        """`redeliver.<agent>.<name>.<topic>`; the topic is that of a stored event and not checked again."""
        return f"{self.redeliver_prefix(agent, name)}.{topic}"

    def stream_subjects(self, kind: str, name: str = "") -> list[str]:
        """The subjects of the stream of a place, as `Place.kind` names it."""
        match kind:
            case "inbox":
                return [f"{self.inbox_prefix(name)}.>"]
            case "tasks":
                return [f"{self.tasks_prefix(name)}.>"]
            case "events":
                return [f"{self._subject}events.>", f"{self._subject}redeliver.>"]
            case "dlq":
                return [f"{self._subject}dlq.>"]
        raise InvalidName(f"no stream of kind {kind!r}")

    def topic_of(self, subject: str) -> str:
        """The topic of an event or redelivered event; the subject itself where it is neither."""
        rest = self.local(subject)
        if rest.startswith("events."):
            return rest.removeprefix("events.")
        parts = rest.split(".", 3)
        return parts[3] if parts[0] == "redeliver" and len(parts) == 4 else rest

    def type_of(self, subject: str) -> str:
        """The type part of a subject of this organization: what follows the agent's, role's or topic's prefix."""
        parts = self.local(subject).split(".")
        match parts:
            case ["agents", _, "inbox" | "rpc", _, *_]:
                return ".".join(parts[3:])
            case ["roles", _, "rpc", _, *_]:
                return ".".join(parts[3:])
            case ["tasks", _, _, *_]:
                return ".".join(parts[2:])
            case ["events", _, *_]:
                return ".".join(parts[1:])
            case ["redeliver", _, _, _, *_]:
                return ".".join(parts[3:])
        return parts[-1]

    def may_answer_to(self, reply: str) -> bool:
        """Whether an answer may go to this reply subject: not to the server's own, nor to one of the fleet.

        Whoever asks chooses it, and the answer is published with the rights of whoever answers.
        """
        return not reply.startswith("$") and self.local(reply).partition(".")[0] not in _FLEET_ROOTS

    def local(self, subject: str) -> str:
        """`subject` without the organization's prefix."""
        return subject.removeprefix(self._subject) if self._subject else subject

    # -- dead letters and receipts

    def dlq_subject(self, entry: Entry) -> str:
        """`dlq.<kind>.<name>.<seq>-<ns hex>`."""
        return f"{self._subject}dlq.{entry}"

    def dlq_filter(self, kind: str = "*", name: str = "*") -> str:
        """The subjects of all dead letters of a kind and name, `*` for any."""
        return f"{self._subject}dlq.{kind}.{name}.*"

    def entry_of(self, dlq_subject: str) -> Entry:
        """Parse the subject of a dead letter; raises InvalidName."""
        return Entry.parse(self.local(dlq_subject).removeprefix("dlq."))

    @staticmethod
    def resolved_key(entry: Entry) -> str:
        """Receipt that the letter was replayed or discarded."""
        return f"resolved.{entry}"

    @staticmethod
    def replay_key(entry: Entry, generation: int) -> str:
        """Receipt that a replayed message was delivered."""
        return f"replay.{entry}.r{generation}"

    @staticmethod
    def outcome_key(entry: Entry, fate: str) -> str:
        """Receipt that the outcome of a stored task was delivered; the fate is `completed` or `failed`."""
        return f"outcome.{entry}.{fate}"

    @staticmethod
    def ledger_key(role: str, task: str) -> str:
        """`<role>.<task id>`; an id that is no key token (foreign messages) is hashed."""
        token = (
            task if _TASK_ID.fullmatch(task) else "=" + hashlib.sha256(task.encode(errors="surrogatepass")).hexdigest()
        )
        return f"{role_id(role)}.{token}"

    def place_of(self, stream: str) -> Place | None:
        """What a stream of this organization is for, or None for a stream that is not the library's."""
        if stream in (f"KV_{self.ledger_bucket}", f"KV_{self.receipts_bucket}"):
            return Place("ledger" if stream.endswith("TASKS") else "receipts", "")
        if self._stream and not stream.startswith(self._stream):
            return None
        rest = stream[len(self._stream) :]
        if rest in ("EVENTS", "DLQ"):
            return Place("events" if rest == "EVENTS" else "dlq", "")
        for prefix, kind in (("INBOX_", "inbox"), ("TASKS_", "tasks")):
            name = rest.removeprefix(prefix).lower()
            if rest.startswith(prefix) and rest == rest.upper() and _ID.fullmatch(name):
                return Place(kind, name)  # type: ignore[arg-type]
        return None

    def subscription_of(self, durable: str) -> tuple[str, str] | None:
        """Agent and subscription name of a durable on EVENTS, or None if the library did not name it."""
        agent, _, name = durable.rpartition("-")
        if _ID.fullmatch(agent) and _SUBSCRIPTION.fullmatch(name):
            return agent, name
        return None

    @staticmethod
    def _bounded(subject: str) -> str:
        if len(subject) > _MAX_SUBJECT:
            raise InvalidName(f"subject of {len(subject)} characters is longer than {_MAX_SUBJECT}: {subject[:60]!r}…")
        return subject


def _checked(pattern: re.Pattern[str], value: str, what: str, rule: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidName(f"{what} {value!r} must be {rule}")
    return value
