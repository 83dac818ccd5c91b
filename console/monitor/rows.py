"""What a reader remembers of each inbox and queue from one look to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from console.monitor.answers import Consumer, ConsumerConfig, StreamState
from patterns.depth import QueueDepth, attended, unattended


@dataclass(slots=True)
class Row:
    """One inbox or queue."""

    kind: Literal["inbox", "tasks"]
    name: str
    stream: str
    usual: str
    """The durable that the library would have made."""
    durable: str = ""
    """The one it has: fleets made by other code name theirs otherwise."""
    created: str = ""
    state: StreamState | None = None
    consumer: Consumer | None = None
    config: ConsumerConfig | None = None
    depth: QueueDepth | None = None
    asked: int = -1
    """In which look its consumer was asked for last; -1 for never."""
    unseen: str = ""
    """Why its consumer could not be read."""
    settled: bool = False
    """Whether two looks found the same."""

    def stands(self, created: str, state: StreamState) -> None:
        """Take the counters of the stream; one that was made anew has no past."""
        if created != self.created:
            self.created, self.consumer, self.config, self.asked, self.durable = created, None, None, -1, self.usual
            self.depth, self.state, self.unseen, self.settled = None, None, "", False
        if self.state is not None and state != self.state:
            self.settled = False
            if state.consumer_count != self.state.consumer_count:
                self.asked = -1
            self.depth = None
        self.state = state

    def consumed(self, consumers: list[Consumer], look: int) -> None:
        """Take what was read of its consumer: that of the library's name, or else the only one there is."""
        if len(consumers) == 1:
            found: Consumer | None = consumers[0]
        else:
            found = next((each for each in consumers if each.name == self.usual), None)
        self.asked = look
        if self.unseen:
            self.unseen, self.depth = "", None
        if found is None:
            self.durable = self.usual
        else:
            self.durable = found.name
            if self.consumer is not None and found.created != self.consumer.created:
                self.config = None
            if found.config is not None:
                if found.config != self.config:
                    self.config, self.depth = found.config, None
                found.config = None
        # Compared without the configuration, which is kept beside it. The second look that finds the same makes a new
        # depth all the same: two looks that agree are what absence is told by.
        same = found == self.consumer and self.depth is not None
        if not same or not self.settled:
            self.depth = None
        self.settled = same
        self.consumer = found

    def current(self) -> QueueDepth:
        """Its depth by what is known."""
        if self.depth is None:
            self.depth = self._derived()
        return self.depth

    def _derived(self) -> QueueDepth:
        state = self.state or StreamState()
        oldest = state.first_ts if state.messages else None
        if self.consumer is None:
            return unattended(messages=state.messages, bytes=state.bytes, oldest_at=oldest, last_seq=state.last_seq)
        return depth_of(state, self.consumer, self.config)


def depth_of(
    state: StreamState, consumer: Consumer, config: ConsumerConfig | None, *, server_counts: bool = True
) -> QueueDepth:
    """The depth of a stream with its consumer; see `patterns.depth.attended`.

    An empty work queue has nothing pending and nothing in flight, whatever its consumer said when it was asked last.
    """
    empty = server_counts and not state.messages
    delivered, floor = consumer.delivered.last_active, consumer.ack_floor.last_active
    return attended(
        messages=state.messages,
        bytes=state.bytes,
        oldest_at=state.first_ts if state.messages else None,
        last_seq=state.last_seq,
        pending=0 if empty else consumer.num_pending,
        ack_pending=0 if empty else consumer.num_ack_pending,
        redelivered=0 if empty else consumer.num_redelivered,
        waiting=consumer.num_waiting,
        pause_remaining=consumer.pause_remaining if consumer.paused else 0,
        ack_wait=config.ack_wait if config is not None else 0,
        max_deliver=config.max_deliver if config is not None else -1,
        # The server's zero time, year 1, means never.
        last_delivered_at=delivered if delivered is not None and delivered.year > 1 else None,
        last_acked_at=floor if floor is not None and floor.year > 1 else None,
        durable=consumer.name,
        topics=config.filters if config is not None else (),
        server_counts=server_counts,
    )
