"""Key-value `create` and compare-and-set on the library's own publish, so that both outlast an outage."""

from __future__ import annotations

from dataclasses import dataclass, field

from nats.js.errors import APIError

from patterns.jetstream import WRONG_LAST_SEQUENCE, JetStream


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

    async def look(self, key: str) -> tuple[bytes | None, int]:
        """The value and its revision: None if there is none, with revision 0, or that of the marker which deleted it."""
        message = await self.api.last(self.stream, self.subject(key))
        if message is None:
            return None, 0
        deleted = message.headers.get("KV-Operation") in ("DEL", "PURGE")
        return None if deleted else message.body, message.seq

    async def get(self, key: str) -> bytes | None:
        """The value, or None if the key does not exist or was deleted."""
        return (await self.look(key))[0]

    async def create(self, key: str, data: bytes) -> bool:
        """Write a key that must not exist, or was deleted; False if it does."""
        if await self.update(key, data, 0) is not None:
            return True
        value, revision = await self.look(key)
        return value is None and await self.update(key, data, revision) is not None

    async def delete(self, key: str) -> bool:
        """Mark a key as deleted (ADR-8), so that `create` works again; whether there was a value.

        One that somebody writes meanwhile stays. A bucket that does not exist holds no keys. By a marker and not by a purge,
        which is a right to empty the bucket.
        """
        value, revision = await self.look(key)
        if value is None:
            return False
        return await self._write(key, b"", {"KV-Operation": "DEL"}, revision) is not None

    async def update(self, key: str, data: bytes, revision: int) -> int | None:
        """Write a key whose revision must be `revision`; its new one, or None if somebody else wrote it."""
        return await self._write(key, data, {}, revision)

    async def _write(self, key: str, data: bytes, headers: dict[str, str], revision: int) -> int | None:
        try:
            ack = await self.api.publish(
                self.subject(key), data, headers, stream=self.stream, last_seq=revision, timeout=self.timeout
            )
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                return None
            raise
        return ack.seq
