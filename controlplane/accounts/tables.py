"""Lists as CSV: the rows of the page with its filters and its order, times in UTC."""

import json

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.accounts.models import ApiToken, AuditEvent, Membership
from controlplane.accounts.selectors import SLIPWAY
from controlplane.core.csv_export import CHUNK, csv_response

ACTIVITY = ("at", "person", "via", "verb", "object_type", "object_id", "object_name", "page", "details")
TOKENS = ("name", "starts_with", "role", "owner", "created_at", "last_used_at", "expires_at")
MEMBERS = ("person", "role", "active", "since")


def activity_csv(rows: QuerySet[AuditEvent]) -> StreamingHttpResponse:
    return csv_response("activity.csv", ACTIVITY, map(_event, rows.iterator(chunk_size=CHUNK)))


def _event(event: AuditEvent) -> tuple[object, ...]:
    """What changed stands as JSON in one cell."""
    return (
        *(event.at, event.user.username if event.user else SLIPWAY, event.via, event.verb),
        *(event.object_type, event.object_id, event.object_name, event.object_url),
        json.dumps(event.details, ensure_ascii=False, sort_keys=True) if event.details else None,
    )


def members_csv(rows: QuerySet[Membership]) -> StreamingHttpResponse:
    lines = (
        (row.user.username, row.role, row.user.is_active, row.joined_at)
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response("members.csv", MEMBERS, lines)


def tokens_csv(rows: QuerySet[ApiToken]) -> StreamingHttpResponse:
    """Never a token's text, which nothing keeps."""
    lines = (
        (row.name, row.token_key[:8], row.role, row.user.username, row.created, row.last_used_at, row.expiry)
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response("tokens.csv", TOKENS, lines)
