"""People, tokens and the trail as the API says them. A token's text is in no document but its first answer."""

from controlplane.accounts.access import Actor
from controlplane.accounts.api import schemas
from controlplane.accounts.models import ApiToken, AuditEvent, Membership
from controlplane.accounts.selectors import SLIPWAY


def me(actor: Actor, teams: list[Membership]) -> schemas.Me:
    """`role` is what this request may do: with a token, never more than the token's."""
    assert actor.user is not None
    return {
        "username": actor.user.username,
        "team": actor.team.name,
        "role": actor.role,
        "teams": [{"team": row.team.name, "role": row.role} for row in teams],
    }


def token(row: ApiToken) -> schemas.Token:
    return {
        "token_key": row.token_key,
        "name": row.name,
        "role": row.role,
        "owner": row.user.username,
        "created_at": row.created,
        "expires_at": row.expiry,
        "last_used_at": row.last_used_at,
        "url": f"/api/v1/tokens/{row.token_key}/",
    }


def member(row: Membership) -> schemas.Member:
    return {
        "username": row.user.username,
        "role": row.role,
        "active": row.user.is_active,
        "joined_at": row.joined_at,
        "url": f"/api/v1/members/{row.user.username}/",
    }


def event(row: AuditEvent) -> schemas.AuditEvent:
    return {
        "id": row.pk,
        "at": row.at,
        "person": row.user.username if row.user else SLIPWAY,
        "via": row.via,
        "verb": row.verb,
        "object_type": row.object_type,
        "object_id": row.object_id,
        "object_name": row.object_name,
        "page": row.object_url or None,
        "details": row.details,
    }
