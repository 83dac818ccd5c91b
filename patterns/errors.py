"""Everything the library raises, and the two exceptions a handler raises to steer it."""

from __future__ import annotations

from typing import Any


class PatternError(Exception):
    """Root of every error this library raises; its text is one line that says what to do."""


class InvalidName(PatternError, ValueError):
    """An id, subject, topic or header that NATS would misread; raised before anything is sent."""


class InvalidConfig(PatternError, ValueError):
    """A configuration value out of range, or a key that does not exist."""


class InvalidMessage(PatternError, ValueError):
    """Data that cannot be encoded as JSON (or bytes), or a message that cannot be decoded."""


class MessageTooLarge(PatternError):
    """Body and headers exceed what the server takes, less the headroom a dead-letter copy needs."""


class ConfigMismatch(PatternError):
    """A stream or consumer exists with another shape; the text names the field and both values."""


class UnsupportedServer(PatternError):
    """The server is older than 2.11 or has JetStream disabled."""


class ConnectError(PatternError):
    """No server answered, or the one that did refused the credentials."""


class Unavailable(PatternError):
    """The server did not confirm in time; the operation may or may not have happened, repeat it with the same id."""


class PermissionDenied(Unavailable):
    """The server refused the subject to this user; the text names it."""


class UnknownDestination(PatternError):
    """No stream takes this subject: the agent or role is unknown, or its stream was deleted."""


class UnknownDeadLetter(PatternError, LookupError):
    """No dead letter has this sequence: it was replayed, discarded or has expired."""


class QueueFull(PatternError):
    """The stream is at its limit and keeps what it has (`discard=new`)."""


class AlreadyReplayed(PatternError):
    """An edit came too late: an interrupted attempt had sent the dead letter with another body already."""


class ReplayLimit(PatternError):
    """The dead letter was replayed as often as the configuration allows; `force=True` replays it once more."""


class LetterStays(PatternError):
    """A dead letter was sent, but could not be closed: the copy is on its way, the letter is still there; the text says why."""


class RequestError(PatternError):
    """A request got no usable answer."""


class NoResponders(RequestError):
    """Nobody listens on the subject: the request was provably not processed."""


class RequestTimeout(RequestError):
    """No answer in time: the outcome is unknown, the peer may still be working on it."""


class RemoteError(RequestError):
    """The responder answered with an error (ADR-32 headers).

    Attributes:
        code: 400 bad request, 404 no handler, 422 rejected, 429 busy, 500 handler error. A late request gets no answer.
        description: One line, the type and message of the error.
        data: Decoded body of the error reply, or None.
    """

    def __init__(self, code: int, description: str, data: Any = None) -> None:
        super().__init__(f"{code} {description}")
        self.code = code
        self.description = description
        self.data = data


class Retry(Exception):
    """Raised by a handler: give the message back and deliver it again.

    Attributes:
        reason: One line, kept with the dead letter when the attempts run out.
        after: Seconds until the next delivery; None follows the retry policy.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Reject(Exception):
    """Raised by a handler: this will never succeed, move it to the dead letters now.

    Attributes:
        reason: One line that tells the operator why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
