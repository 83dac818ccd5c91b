"""Communication patterns for fleets of AI agents on NATS JetStream: the public names."""

from patterns.agent import OWN_INBOX, Agent
from patterns.config import (
    DeadLetterConfig,
    DeliveryConfig,
    FleetConfig,
    RequestConfig,
    RetryPolicy,
    StreamLimits,
)
from patterns.consumer import Consumer
from patterns.deadletters import DeadLetters
from patterns.delivery import Delivery
from patterns.depth import QueueDepth
from patterns.errors import (
    AlreadyReplayed,
    ConfigMismatch,
    ConnectError,
    InvalidConfig,
    InvalidMessage,
    InvalidName,
    LetterStays,
    MessageTooLarge,
    NoResponders,
    PatternError,
    PermissionDenied,
    QueueFull,
    Reject,
    RemoteError,
    ReplayLimit,
    RequestError,
    RequestTimeout,
    Retry,
    Unavailable,
    UnknownDeadLetter,
    UnknownDestination,
    UnsupportedServer,
)
from patterns.events import EventBus
from patterns.fleet import Fleet, FleetSnapshot, ServerInfo
from patterns.inbox import Inbox
from patterns.ledger import TaskStatus
from patterns.letter import DeadLetter
from patterns.lineage import Death
from patterns.message import Message, Receipt, current
from patterns.names import Names
from patterns.replaying import UNCHANGED
from patterns.requests import RAISE, Reply, Requests
from patterns.responder import Responder
from patterns.tasks import TaskQueue

__all__ = [
    "OWN_INBOX",
    "RAISE",
    "UNCHANGED",
    "Agent",
    "AlreadyReplayed",
    "ConfigMismatch",
    "ConnectError",
    "Consumer",
    "DeadLetter",
    "DeadLetterConfig",
    "DeadLetters",
    "Death",
    "Delivery",
    "DeliveryConfig",
    "EventBus",
    "Fleet",
    "FleetConfig",
    "FleetSnapshot",
    "Inbox",
    "InvalidConfig",
    "InvalidMessage",
    "InvalidName",
    "LetterStays",
    "Message",
    "MessageTooLarge",
    "Names",
    "NoResponders",
    "PatternError",
    "PermissionDenied",
    "QueueDepth",
    "QueueFull",
    "Receipt",
    "Reject",
    "RemoteError",
    "ReplayLimit",
    "Reply",
    "RequestConfig",
    "RequestError",
    "RequestTimeout",
    "Requests",
    "Responder",
    "Retry",
    "RetryPolicy",
    "ServerInfo",
    "StreamLimits",
    "TaskQueue",
    "TaskStatus",
    "Unavailable",
    "UnknownDeadLetter",
    "UnknownDestination",
    "UnsupportedServer",
    "current",
]
