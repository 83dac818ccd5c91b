"""The server's big answers, decoded to the fields that are used: a look at 5,000 agents is some megabytes a second.

Decoding these types takes a tenth of the time of decoding everything (5 against 45 ms for 5,000 streams), and equal
answers are recognised without looking at their fields one by one.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from patterns.errors import Unavailable

T = TypeVar("T")


class Answer(msgspec.Struct, gc=False):
    """What comes out of JSON holds no cycles: the garbage collector need not look at ten thousand of them a second."""


class Error(Answer):
    """Why the server did not do it."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class StreamState(Answer):
    """Counters of a stream."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    first_ts: datetime | None = None
    last_seq: int = 0
    consumer_count: int = 0


class StreamName(Answer):
    """The part of a stream's configuration that is used."""

    name: str = ""


class Stream(Answer):
    """One stream, as STREAM.LIST tells it."""

    config: StreamName
    state: StreamState
    created: str = ""


class StreamPage(Answer):
    """An answer of STREAM.LIST."""

    total: int = 0
    streams: list[Stream] | None = None
    missing: list[str] | None = None
    """Streams that did not answer: a node is down."""
    error: Error | None = None


class ConsumerConfig(Answer):
    """The part of a consumer's configuration that is used."""

    durable_name: str = ""
    ack_wait: int = 0
    """Nanoseconds."""
    max_deliver: int = -1
    max_ack_pending: int = 0
    filter_subject: str = ""
    filter_subjects: list[str] | None = None

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects it takes; none for all."""
        if self.filter_subjects:
            return tuple(self.filter_subjects)
        return (self.filter_subject,) if self.filter_subject else ()


class Position(Answer):
    """How far a consumer is."""

    consumer_seq: int = 0
    stream_seq: int = 0
    last_active: datetime | None = None


class Cluster(Answer):
    """Who leads."""

    leader: str = ""


class Consumer(Answer):
    """One consumer, as CONSUMER.INFO, CONSUMER.LIST and JSZ tell it; the last without its configuration, if so asked."""

    name: str = ""
    created: str = ""
    config: ConsumerConfig | None = None
    delivered: Position = msgspec.field(default_factory=Position)
    ack_floor: Position = msgspec.field(default_factory=Position)
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    paused: bool = False
    pause_remaining: int = 0
    """Nanoseconds."""
    cluster: Cluster | None = None
    error: Error | None = None


class ConsumerPage(Answer):
    """An answer of CONSUMER.LIST."""

    total: int = 0
    consumers: list[Consumer] | None = None
    missing: list[str] | None = None
    error: Error | None = None


class StreamDetail(Answer):
    """One stream with its consumers, as JSZ tells it."""

    name: str
    created: str = ""
    state: StreamState = msgspec.field(default_factory=StreamState)
    cluster: Cluster | None = None
    consumer_detail: list[Consumer] | None = None


class AccountDetail(Answer):
    """One account in an answer of JSZ."""

    name: str = ""
    stream_detail: list[StreamDetail] | None = None


class MetaCluster(Answer):
    """The cluster of an answer of JSZ."""

    cluster_size: int = 1


class JszData(Answer):
    """What one server knows."""

    disabled: bool = False
    meta_cluster: MetaCluster | None = None
    account_details: list[AccountDetail] | None = None


class ServerName(Answer):
    """Which server answered."""

    name: str = ""
    id: str = ""


class Jsz(Answer):
    """An answer of `$SYS.REQ.SERVER.PING.JSZ`."""

    server: ServerName
    data: JszData | None = None
    error: Error | None = None


stream_page = msgspec.json.Decoder(StreamPage)
consumer = msgspec.json.Decoder(Consumer)
consumer_page = msgspec.json.Decoder(ConsumerPage)
jsz = msgspec.json.Decoder(Jsz)


def decode(decoder: msgspec.json.Decoder[T], answer: bytes, what: str) -> T:
    """Decode an answer.

    Raises:
        Unavailable: It is not what the server documents.
    """
    try:
        return decoder.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(f"the answer to {what} cannot be read: {error}") from None
