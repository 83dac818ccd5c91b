"""What becomes of a message: decided by a hash of the seed, its id and how often it was replayed, never by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from random import Random


class RateLimited(Exception):
    """The model's provider refuses more tokens for now."""


_TROUBLES: tuple[tuple[float, type[Exception], str], ...] = (
    (0.55, TimeoutError, "model did not answer"),
    (0.80, RateLimited, "429 tokens per minute exceeded"),
    (0.92, ConnectionError, "git remote hung up"),
    (1.00, ValueError, "model answered with broken JSON"),
)


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` only: the same for the same, whenever and wherever it is asked."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def dice(*parts: object) -> Random:
    """A generator that depends on `parts` only."""
    return Random("/".join(map(str, parts)))  # noqa: S311 - it plays, it guards nothing


def generation(headers: Mapping[str, str]) -> int:
    """How often a message was replayed from the dead letters."""
    replays = headers.get("Dead-Letter-Replays", "0")
    return int(replays) if replays.isdigit() else 0


def trouble(seed: str, id: str, replays: int, attempt: int, rate: float, *, outage: bool = False) -> Exception | None:
    """The error that this attempt meets, or None.

    A share `rate` of all messages meets one. Of these few die at a small rate, because the second attempt succeeds; at
    rate 1 all die. Each replay is drawn anew, so a dead letter that is sent back usually succeeds.

    Args:
        seed: Seed of the demo.
        id: Id of the message.
        replays: How often it was replayed.
        attempt: Attempt since the last replay, 1 is the first.
        rate: Share of messages that fail, 0 to 1.
        outage: Whether it was sent while the model was down: then it dies, until it is replayed.
    """
    if outage and replays == 0 and rate > 0:
        return TimeoutError("model did not answer")
    luck = draw(seed, "fate", id, replays)
    dies = luck < rate * (0.1 + 0.9 * rate)
    if not dies and not (luck < rate and attempt == 1):
        return None
    kind = draw(seed, "trouble", id, replays)
    return next(error(text) for limit, error, text in _TROUBLES if kind < limit)
