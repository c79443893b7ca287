"""What people did to deployments, in the audit trail."""

from collections.abc import Mapping
from typing import Any

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from deployments.models import Deployment


def record(
    actor: Actor, verb: str, deployment: Deployment, *, details: Mapping[str, Any] | None = None
) -> None:
    audit.record(
        actor,
        verb,
        object_type="deployment",
        object_id=deployment.pk,
        object_name=deployment.name,
        object_url=deployment.get_absolute_url(),
        details=details,
    )
