"""Writes the audit trail: one row per mutation, in the mutation's own transaction."""

from collections.abc import Mapping
from typing import Any

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent
from controlplane.core import bus


def record(
    actor: Actor,
    verb: str,
    *,
    object_type: str,
    object_id: int,
    object_name: str,
    object_url: str = "",
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """`verb` is a past tense that a page can show: "registered", "rolled back". Two statements."""
    event = AuditEvent.objects.create(
        team=actor.team,
        user=actor.user,
        via=actor.via,
        verb=verb,
        object_type=object_type,
        object_id=object_id,
        object_name=object_name,
        object_url=object_url,
        details=dict(details or {}),
    )
    bus.publish("activity", team_id=actor.team.pk)
    return event
