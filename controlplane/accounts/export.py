"""Activity as rows of a CSV: UTC, and the details as JSON in one cell."""

import json
from collections.abc import Sequence

from controlplane.accounts.models import AuditEvent
from controlplane.accounts.selectors import SLIPWAY
from controlplane.core.formats import machine

COLUMNS = ("at", "person", "via", "verb", "object_type", "object_id", "object_name", "page", "details")


def cells(event: AuditEvent) -> Sequence[object]:
    return (
        machine(event.at),
        event.user.username if event.user else SLIPWAY,
        event.via,
        event.verb,
        event.object_type,
        event.object_id,
        event.object_name,
        event.object_url,
        json.dumps(event.details, ensure_ascii=False, sort_keys=True) if event.details else "",
    )
