"""What a cluster answers, as our errors: whose move it is, and whether waiting helps.

Unreachable                  (no answer, 429, 5xx, and 401: nothing can be said of what runs)
Conflict
 +- FieldConflict            another manager owns the field; says which of both
 +- Moved                    the object changed since it was read: read again
 +- Refused                  the cluster will not have it: rights, quota, admission
Unprocessable                the object itself is invalid; the fields are the cluster's
NotFound
"""

import json
from collections.abc import Mapping
from typing import Any

from controlplane.core.errors import Conflict, NotFound, SlipwayError, Unprocessable
from deployments.targets.port import Unreachable

BUSY_S, AWAY_S, CREDENTIALS_S = 5.0, 2.0, 30.0
BUSY, AWAY = "cluster_busy", "cluster_unreachable"


class Moved(Conflict):
    """The object changed since it was read."""


class FieldConflict(Conflict):
    """Some fields belong to another manager."""

    @property
    def owners(self) -> dict[str, str]:
        """By field: whose it is."""
        owners: dict[str, str] = self.extra["owners"]
        return owners


class Refused(Conflict):
    """Rights, quota or admission: the same request will be refused again until somebody changes something."""


class Expired(Exception):
    """410: the resourceVersion is too old to be watched from; list again."""


def away(server: str, cause: str) -> Unreachable:
    return Unreachable(
        AWAY,
        "The cluster does not answer.",
        f"{server}: {cause}. What it runs keeps running; Slipway tries again.",
        retry_after_s=AWAY_S,
    )


def of(status: int, body: bytes, *, server: str, what: str, retry_after: str = "") -> SlipwayError:
    """The error of an answer of `status` to `what`, such as “apply Deployment fraud”."""
    document = _status(body)
    message = str(document.get("message") or body[:300].decode("utf-8", "replace") or f"status {status}")
    reason = str(document.get("reason") or "")
    match status:
        case 401:
            return Unreachable(
                "credentials_refused",
                "The cluster no longer takes the credentials.",
                f"{server} answered “{message[:200]}” to {what}. Its token may have expired: replace it on the "
                "target's page. What runs keeps running.",
                retry_after_s=CREDENTIALS_S,
            )
        case 403:
            return _refused(message, what)
        case 404:
            return NotFound("not_in_cluster", f"The cluster has nothing there: {what}.", message)
        case 409 if reason == "Conflict" and (owners := _owners(document)):
            return _owned(owners, what)
        case 409:
            return Moved("object_moved", f"Somebody else wrote it meanwhile: {what}.", message)
        case 400 | 413 | 415 | 422:
            return _invalid(document, message, what)
        case 429:
            return Unreachable(
                BUSY,
                "The cluster asks to slow down.",
                message,
                retry_after_s=_seconds(retry_after, BUSY_S),
            )
    return Unreachable(
        "cluster_failing",
        "The cluster cannot answer now.",
        f"{server} answered {status} to {what}: {message[:300]}",
        retry_after_s=_seconds(retry_after, AWAY_S),
    )


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, Mapping) else {}


def _seconds(text: str, default: float) -> float:
    return min(float(text), 300.0) if text.isdecimal() else default


def _causes(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of whatever shape the answer is: proxies answer, too."""
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [one for one in causes if isinstance(one, Mapping)] if isinstance(causes, list) else []


def _owners(document: Mapping[str, Any]) -> dict[str, str]:
    """`conflict with "kubectl-edit" using apps/v1` -> kubectl-edit, by field."""
    found = {}
    for cause in _causes(document):
        if cause.get("reason") == "FieldManagerConflict":
            said = str(cause.get("message", ""))
            found[str(cause.get("field", ""))] = said.split('"')[1] if said.count('"') >= 2 else said
    return found


def _owned(owners: Mapping[str, str], what: str) -> FieldConflict:
    listed = "; ".join(f"{field} belongs to {owner}" for field, owner in sorted(owners.items()))
    return FieldConflict(
        "field_conflict",
        "Somebody else owns a field that this would change.",
        f"{what}: {listed}.",
        extra={"owners": dict(owners)},
    )


def _refused(message: str, what: str) -> Refused:
    if "exceeded quota" in message:
        return Refused(
            "quota_exceeded",
            "The namespace's quota does not allow it.",
            f"{what}: {message}. Ask for a larger quota, or for less.",
        )
    if "being terminated" in message:
        return Refused("namespace_terminating", "The namespace is being deleted.", f"{what}: {message}.")
    if "cannot" in message and "forbidden" in message and "User" in message:
        return Refused(
            "not_permitted",
            "Slipway is not permitted to do this in the cluster.",
            f"{what}: {message}. Grant it by the table of rights on the target's page.",
        )
    return Refused("denied", "The cluster denied it.", f"{what}: {message}.")


def _invalid(document: Mapping[str, Any], message: str, what: str) -> Unprocessable:
    fields: dict[str, list[str]] = {}
    for cause in _causes(document):
        fields.setdefault(str(cause.get("field") or "object"), []).append(str(cause.get("message", "")))
    return Unprocessable(
        "invalid_in_cluster", "The cluster calls the object invalid.", f"{what}: {message}", fields=fields
    )
