"""Key-value `create` and compare-and-set on the library's own publish, so that both outlast an outage."""

from __future__ import annotations

from dataclasses import dataclass, field

from nats.js.errors import APIError

from patterns.jetstream import WRONG_LAST_SEQUENCE, JetStream


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a bucket."""

    data: bytes
    revision: int


@dataclass(slots=True)
class Bucket:
    """A key-value bucket (ADR-8), as far as the ledger and the receipts need it."""

    api: JetStream
    name: str
    timeout: float = field(default=30.0)
    """Seconds a write is repeated before it gives up."""

    @property
    def stream(self) -> str:
        """The stream behind the bucket."""
        return f"KV_{self.name}"

    def subject(self, key: str) -> str:
        """The subject behind a key."""
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str) -> Value | None:
        """The value, or None if the key does not exist or was deleted."""
        message = await self.api.last(self.stream, self.subject(key))
        if message is None or message.headers.get("KV-Operation") in ("DEL", "PURGE"):
            return None
        return Value(message.body, message.seq)

    async def create(self, key: str, data: bytes) -> bool:
        """Write a key that must not exist; False if it does."""
        return await self._write(key, data, 0)

    async def update(self, key: str, data: bytes, revision: int) -> bool:
        """Write a key whose revision must be `revision`; False if somebody else wrote it."""
        return await self._write(key, data, revision)

    async def _write(self, key: str, data: bytes, revision: int) -> bool:
        try:
            await self.api.publish(
                self.subject(key), data, {}, stream=self.stream, last_seq=revision, timeout=self.timeout
            )
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                return False
            raise
        return True
