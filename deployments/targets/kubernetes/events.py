"""The cluster's events about one deployment's objects, in our words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.domain.workload import TargetEvent
from deployments.targets.kubernetes import words

_KINDS = {
    "SlipwayApplied": "applied",
    "Scheduled": "scheduled",
    "Pulling": "pulling",
    "Pulled": "pulled",
    "Created": "created",
    "Started": "started",
    "Killing": "draining",
    "BackOff": "died",
    "Unhealthy": "not_ready",
    "SuccessfulRescale": "scaled",
}


def events_of(
    events: Sequence[Mapping[str, Any]],
    *,
    about: Mapping[tuple[str, str], str],
    key: str | None,
    after: int,
) -> tuple[TargetEvent, ...]:
    """Those about the named objects (`about`: kind and name to key), oldest first. The resourceVersion is the id:
    it grows with every write, and a repeated event is written again."""
    found = []
    for event in events:
        what = event.get("involvedObject") or {}
        whose = about.get((str(what.get("kind")), str(what.get("name"))))
        number = int(event["metadata"]["resourceVersion"])
        if whose is None or key not in (None, whose) or number <= after:
            continue
        reason = str(event.get("reason", ""))
        found.append(
            TargetEvent(
                id=number,
                at=words.moment(event.get("lastTimestamp") or event.get("eventTime")) or datetime.now(UTC),
                key=whose,
                replica=str(what["name"]) if what.get("kind") == "Pod" else None,
                kind=_KINDS.get(reason, reason.lower() or "event"),
                message=str(event.get("message", "")),
            )
        )
    return tuple(sorted(found, key=lambda one: one.id))
