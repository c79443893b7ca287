"""How this stack says no: the Open Inference Protocol's `{"error": ...}` inside a problem document (RFC 9457).

A client of the protocol reads `error`, one of ours reads `code`; both get the same bytes. Every refusal also
has a reason, one of the few label values of `slipway_errors_total`.
"""

import math
from enum import StrEnum

import orjson

from controlplane.core.errors import Move, NotFound, SlipwayError, TooMany, Unavailable


class Reason(StrEnum):
    """Why a request was not answered with a result. The label values of `slipway_errors_total`."""

    BAD_REQUEST = "bad_request"
    OVERLOADED = "overloaded"
    UNAUTHORIZED = "unauthorized"
    INFERENCE_FAILED = "inference_failed"
    CANCELLED = "cancelled"
    NOT_READY = "not_ready"


class Unauthorized(SlipwayError):
    status, move = 401, Move.USER


class InferenceFailed(SlipwayError):
    status, move = 500, Move.US


class Abandoned(Exception):
    """The client of this request has gone; there is nobody to answer."""


def overloaded(*, waiting: int, retry_after_s: float) -> TooMany:
    return TooMany(
        "overloaded",
        "The queue of this replica is full.",
        f"{waiting} requests are waiting already. Try again after the time in Retry-After.",
        retry_after_s=retry_after_s,
    )


def not_ready() -> Unavailable:
    detail = "The model is still being loaded. Try again after the time in Retry-After."
    return Unavailable("not_ready", "This replica is not ready.", detail, retry_after_s=1)


def unknown_model(model: str, *, serving: str) -> NotFound:
    return NotFound(
        "unknown_model", "There is no such model here.", f"Asked for {model[:100]!r}, serving {serving!r}."
    )


def reason_of(error: SlipwayError) -> Reason:
    match error:
        case TooMany():
            return Reason.OVERLOADED
        case Unauthorized():
            return Reason.UNAUTHORIZED
        case Unavailable():
            return Reason.NOT_READY
        case InferenceFailed():
            return Reason.INFERENCE_FAILED
    return Reason.BAD_REQUEST


def render(error: SlipwayError) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Body and headers of the answer."""
    body = orjson.dumps({"error": str(error)} | error.problem())
    headers = [(b"content-type", b"application/problem+json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return body, headers
