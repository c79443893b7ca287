"""The list that clients poll: a page of a model's versions, in SQL that is written out.

The ORM's way costs three times as much: it composes the query anew for each page, makes an instance of every row
and of what it belongs to, and reads JSON only for it to be written again.
"""

from datetime import datetime
from typing import NamedTuple

from controlplane.accounts.access import Actor
from controlplane.core.pagination import Page, Wanted
from controlplane.core.sql import prepared_cursor

_NEWEST = 2**63 - 1
_SQL = """
    SELECT version.id, version.number, version.format, version.source_sha256, version.source_bytes,
           version.source_filename, version.signature, version.summary, version.quarantined_reason,
           version.trusted_at, version.created_at, model.name, creator.username
    FROM registry_version version
    JOIN registry_model model ON model.id = version.model_id
    LEFT JOIN accounts_user creator ON creator.id = version.created_by_id
    WHERE model.team_id = %s AND model.name = %s AND version.id < %s
    ORDER BY version.id DESC
    LIMIT %s
"""


class VersionLine(NamedTuple):
    """A version in a list. `signature` and `summary` are JSON as the database keeps it."""

    pk: int
    number: int
    format: str
    source_sha256: str
    source_bytes: int
    source_filename: str
    signature: str
    summary: str
    quarantined_reason: str
    trusted_at: datetime | None
    created_at: datetime
    model_name: str
    creator: str | None


def versions(actor: Actor, name: str, wanted: Wanted) -> Page[VersionLine]:
    """Of the model of that name, newest first; empty also where the team has no such model. One statement."""
    older_than = _NEWEST if wanted.cursor is None else wanted.cursor
    with prepared_cursor() as cursor:
        cursor.execute(_SQL, [actor.team.pk, name, older_than, wanted.limit + 1])
        return wanted.page([VersionLine._make(row) for row in cursor.fetchall()])
