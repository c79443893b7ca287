"""Queries about people and what they did, each deciding once what it fetches. All start from the actor's team."""

from dataclasses import dataclass

from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404

from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, AuditEvent, Membership, Role, User

SLIPWAY = "slipway"
"""Stands for Slipway itself where activity is filtered by person."""


@dataclass(frozen=True, kw_only=True)
class ActivityFilter:
    """`person` is a user name or SLIPWAY; empty fields filter nothing."""

    person: str = ""
    object_type: str = ""
    text: str = ""


def tokens(actor: Actor) -> QuerySet[ApiToken]:
    """The actor's own tokens in the team; an admin's view has everybody's. Newest first."""
    rows = ApiToken.objects.filter(team=actor.team).select_related("user", "team")
    if not actor.may(Role.ADMIN):
        rows = rows.filter(user=actor.user)
    return rows.order_by("-created")


def token(actor: Actor, token_key: str) -> ApiToken:
    return get_object_or_404(tokens(actor), token_key=token_key)


def members(actor: Actor) -> QuerySet[Membership]:
    return (
        Membership.objects.filter(team=actor.team).select_related("user", "team").order_by("user__username")
    )


MEMBER_SORTS = {"name": "user__username", "since": "joined_at"}


def member(actor: Actor, username: str) -> Membership:
    return get_object_or_404(members(actor), user__username=username)


def memberships(user: User) -> QuerySet[Membership]:
    """The teams a person belongs to."""
    return Membership.objects.filter(user=user).select_related("team").order_by("team__name")


def activity(actor: Actor, wanted: ActivityFilter) -> QuerySet[AuditEvent]:
    """What happened in the team; newest first. Text matches literally, in verb and object name."""
    rows = AuditEvent.objects.in_team(actor.team).select_related("user")
    if wanted.person:
        rows = (
            rows.filter(user=None) if wanted.person == SLIPWAY else rows.filter(user__username=wanted.person)
        )
    if wanted.object_type:
        rows = rows.filter(object_type=wanted.object_type)
    if wanted.text:
        rows = rows.filter(Q(object_name__icontains=wanted.text) | Q(verb__icontains=wanted.text))
    return rows


def object_types(actor: Actor) -> list[str]:
    """The kinds of objects in the team's trail, for the filter."""
    rows = AuditEvent.objects.in_team(actor.team).order_by("object_type")
    return list(rows.values_list("object_type", flat=True).distinct())
