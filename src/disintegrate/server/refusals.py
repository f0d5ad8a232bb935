"""Why the service refuses a request, as an HTTP status and one sentence."""

from __future__ import annotations

from disintegrate.errors import DisintegrateError

# What a refusal is called in Google's own errors.
STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class Refusal(DisintegrateError):
    """A request that the service does not answer.

    Attributes:
        status: the HTTP status.
        reason: one word for the metrics.
        retry_after: seconds after which to try again; None where that is of no use.
    """

    def __init__(self, status: int, reason: str, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


def bad(sentence: str) -> Refusal:
    """A request that is wrong in itself."""
    return Refusal(400, "invalid", sentence)


def overloaded(sentence: str = "The service is overloaded. Try again later.") -> Refusal:
    """A request that came when the service had enough to do."""
    return Refusal(429, "overloaded", sentence, retry_after=1)
