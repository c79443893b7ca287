"""Every error a reader can meet.

An error answers two questions: whose move is it (`Move`), and does waiting help (`retry_after_s`).
`code` is stable and may be matched by clients; `title` is one sentence; `detail` says what was wrong
with the values that were given and what to do next. Causes stay in the log (`raise ... from cause`).

    SlipwayError
     +- InvalidInput 400          the request cannot be understood
     +- Forbidden 403             known, but not allowed by the reader's role
     +- NotFound 404              missing, or not the reader's
     +- Conflict 409              the state does not allow it
     +- PreconditionFailed 412    someone else moved it since it was read
     +- TooLarge 413
     +- UnsupportedMediaType 415
     +- Unprocessable 422         understood, but the content is refused
     +- PreconditionRequired 428
     +- TooMany 429
     +- Unavailable 503           a part is down; waiting helps
     +- StorageFull 507

Refused: one class per error. A class per whose-move-and-status keeps `except` short; the code names the case.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class Move(StrEnum):
    USER = "user"
    OPERATOR = "operator"
    US = "us"


class SlipwayError(Exception):
    """Base of all errors that are written for a reader."""

    status = 500
    move = Move.US

    def __init__(
        self,
        code: str,
        title: str,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        fields: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{title} {detail}".strip())
        self.code = code
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.fields = {name: list(messages) for name, messages in (fields or {}).items()}
        self.extra = dict(extra or {})

    def problem(self) -> dict[str, Any]:
        """The body of an RFC 9457 problem document, without `instance`."""
        errors = [{"field": name, "messages": messages} for name, messages in self.fields.items()]
        return {
            "type": f"/problems/{self.code}/",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **({"errors": errors} if errors else {}),
            **self.extra,
        }


class InvalidInput(SlipwayError):
    status, move = 400, Move.USER


class Forbidden(SlipwayError):
    status, move = 403, Move.USER


class NotFound(SlipwayError):
    status, move = 404, Move.USER


class Conflict(SlipwayError):
    status, move = 409, Move.USER


class PreconditionFailed(SlipwayError):
    status, move = 412, Move.USER


class TooLarge(SlipwayError):
    status, move = 413, Move.USER


class UnsupportedMediaType(SlipwayError):
    status, move = 415, Move.USER


class Unprocessable(SlipwayError):
    status, move = 422, Move.USER


class PreconditionRequired(SlipwayError):
    status, move = 428, Move.USER


class TooMany(SlipwayError):
    status, move = 429, Move.USER


class Unavailable(SlipwayError):
    status, move = 503, Move.OPERATOR


class StorageFull(SlipwayError):
    status, move = 507, Move.OPERATOR


class Integrity(Unprocessable):
    """Stored bytes no longer have the digest they are named by."""
