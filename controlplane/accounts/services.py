"""The verbs on people: tokens, members, the current team.

A team always keeps an admin: every verb that could take the last one away holds the team's row while it counts.
Refused: e-mail invitations, which need a mail server; a new person's password is generated and shown once.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from controlplane.accounts import audit
from controlplane.accounts.access import TEAM_SESSION_KEY, Actor, system
from controlplane.accounts.models import ApiToken, Membership, Role, Team, User
from controlplane.core.errors import Conflict, Forbidden, InvalidInput
from controlplane.core.names import check_name
from controlplane.core.rows import gone, locked

MAX_TOKEN_DAYS = 365
DEFAULT_TOKEN_DAYS = 90
MAX_TOKEN_NAME = 100
MAX_TOKENS = 100
"""Of one person in one team: the list is shown at once."""
KEEP_EXPIRED = timedelta(days=7)
"""So that the owner of a script that was refused finds the reason in the list."""
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@.+_-]{0,149}")
_PASSWORD_BYTES = 15


def create_token(
    actor: Actor, *, name: str, role: Role, expires_in_days: int = DEFAULT_TOKEN_DAYS
) -> tuple[ApiToken, str]:
    """A token of the actor's own, and its text: shown once, kept as a digest. One that a token makes ends with its
    maker, if not earlier.

    Raises Forbidden for a role above the actor's, who may itself be a token; InvalidInput for a useless name;
    Conflict for a person who has MAX_TOKENS.
    """
    name = name.strip()
    if not name or len(name) > MAX_TOKEN_NAME or not name.isprintable():
        raise _invalid("name", f"Give the token a name of 1 to {MAX_TOKEN_NAME} printable characters.")
    if not 1 <= expires_in_days <= MAX_TOKEN_DAYS:
        raise _invalid("expires_in_days", f"Use 1 to {MAX_TOKEN_DAYS} days.")
    if not actor.may(role):
        raise Forbidden(
            "role_above_own",
            "A token cannot do more than the person who makes it.",
            f"You are {actor.role.label.lower()} here; choose that role or a lower one.",
            fields={"role": ["Choose your own role or a lower one."]},
        )
    if ApiToken.objects.filter(user=actor.user, team=actor.team).count() >= MAX_TOKENS:
        raise Conflict(
            "too_many_tokens",
            f"You have {MAX_TOKENS} tokens in this team.",
            "Revoke those that nothing uses.",
        )
    lifetime = timedelta(days=expires_in_days)
    if actor.token is not None and actor.token.expiry is not None:
        lifetime = min(lifetime, actor.token.expiry - timezone.now())
    return issue_token(actor, name=name, role=role, lifetime=lifetime)


def issue_token(actor: Actor, *, name: str, role: Role, lifetime: timedelta) -> tuple[ApiToken, str]:
    """As `create_token`, for Slipway itself: nothing is checked."""
    with transaction.atomic():
        token, text = ApiToken.objects.issue(
            user=actor.user, team=actor.team, role=role, name=name, expiry=lifetime
        )
        _audit_token(actor, "created API token", token)
    return token, text


def revoke_token(actor: Actor, token: ApiToken) -> None:
    """At once: the next request with it is refused. Whose tokens one may revoke is `selectors.tokens`.

    Raises Forbidden where a token would revoke one that may do more than itself.
    """
    if actor.token is not None and actor.token != token:
        actor.require(Role(token.role))
    with transaction.atomic():
        removed, _ = ApiToken.objects.filter(pk=token.pk).delete()
        if not removed:
            raise gone(token)
        _audit_token(actor, "revoked API token", token)


def forget_what_expired() -> int:
    """Tokens that ended a while ago, and sessions. Returns how many rows went."""
    tokens, _ = ApiToken.objects.filter(expiry__lt=Now() - KEEP_EXPIRED).delete()
    sessions, _ = Session.objects.filter(expire_date__lt=Now()).delete()
    return tokens + sessions


def add_member(actor: Actor, *, username: str, role: Role) -> tuple[Membership, str]:
    """Brings a person into the team. For one who is new to Slipway, also the password: shown once.

    Raises Conflict for a member, and for a disabled person.
    """
    actor.require(Role.ADMIN)
    if _USERNAME.fullmatch(username) is None:
        raise _invalid(
            "username", "Use 1 to 150 letters, digits and @ . + - _, starting with a letter or digit."
        )
    password = ""
    try:
        with transaction.atomic():
            user = User.objects.filter(username__iexact=username).first()
            if user is None:
                password = secrets.token_urlsafe(_PASSWORD_BYTES)
                user = User.objects.create(username=username, password=make_password(password))
            elif not user.is_active:
                raise Conflict(
                    "user_disabled",
                    f"The account “{user.username}” is disabled.",
                    "An operator has to enable it first.",
                )
            membership = Membership.objects.create(team=actor.team, user=user, role=role)
            _audit(actor, "added member", user, details={"role": role})
    except IntegrityError as error:
        raise Conflict(
            "already_member",
            f"“{username}” is already a member of the team.",
            "Change the role in the list instead.",
            fields={"username": ["This person is already a member."]},
        ) from error
    return membership, password


def change_role(actor: Actor, membership: Membership, *, role: Role) -> Membership:
    """Raises Forbidden for one's own role, Conflict where the team would lose its last admin."""
    actor.require(Role.ADMIN)
    if membership.user_id == (actor.user.pk if actor.user else None):
        raise Forbidden(
            "own_role", "Nobody changes their own role.", "Ask another admin of the team to change it."
        )
    with transaction.atomic():
        current = _locked(membership)
        if current.role != role:
            _keep_an_admin(current, after=role)
            before, current.role = current.role, role
            current.save(update_fields=["role"])
            _audit(actor, "changed role of", current.user, details={"from": before, "to": role})
    return current


def remove_member(actor: Actor, membership: Membership) -> None:
    """Ends the membership and, with it, the person's tokens of this team. Everybody may leave by themselves, but
    not by a token that may do less than they."""
    own = actor.user is not None and membership.user_id == actor.user.pk
    actor.require(Role(membership.role) if own else Role.ADMIN)
    with transaction.atomic():
        current = _locked(membership)
        _keep_an_admin(current, after=None)
        ApiToken.objects.filter(team=current.team_id, user=current.user_id).delete()
        current.delete()
        _audit(
            actor, "left the team" if own else "removed member", current.user, details={"role": current.role}
        )


def _locked(membership: Membership) -> Membership:
    """The membership as it is now, with its team's row held: changes of members happen one at a time."""
    locked(membership.team)
    return locked(membership)


def _keep_an_admin(current: Membership, *, after: Role | None) -> None:
    admins = Membership.objects.filter(team=current.team_id, role=Role.ADMIN, user__is_active=True)
    if after is not Role.ADMIN and current.role == Role.ADMIN and not admins.exclude(pk=current.pk).exists():
        raise Conflict(
            "last_admin",
            "A team keeps at least one admin.",
            f"“{current.user.username}” is the last one; make somebody else admin first.",
        )


def switch_team(actor: Actor, session: SessionBase, membership: Membership) -> None:
    """Makes another of the person's teams the one that this browser shows."""
    session[TEAM_SESSION_KEY] = membership.team_id
    there = Actor(team=membership.team, role=Role(membership.role), user=actor.user, via=actor.via)
    _audit(there, "switched to", membership.team)


def end_other_sessions(actor: Actor, *, keep: str) -> int:
    """Logs the person out of every other browser. Returns how many. Reads every session that has not expired,
    because Django's sessions do not say whose they are."""
    assert actor.user is not None
    others = [
        session.session_key
        for session in Session.objects.filter(expire_date__gt=Now()).exclude(session_key=keep).iterator()
        if session.get_decoded().get("_auth_user_id") == str(actor.user.pk)
    ]
    with transaction.atomic():
        ended, _ = Session.objects.filter(session_key__in=others).delete()
        _audit(actor, "ended sessions of", actor.user, details={"sessions": ended})
    return ended


def ensure_admin(*, username: str, team: str, password: str) -> User:
    """For the command line and the demo: this person exists, is admin of this team and has this password."""
    check_name(team, what="team")
    with transaction.atomic():
        user, is_new = User.objects.get_or_create(username=username)
        owned, _ = Team.objects.get_or_create(name=team)
        rows = Membership.objects.filter(team=owned, user=user, role=Role.ADMIN)
        changed = {
            "account": is_new,
            "password": not user.check_password(password),
            "enabled": not user.is_active,
            "role": not rows.exists(),
        }
        if any(changed.values()):
            if changed["password"]:
                user.set_password(password)
            user.is_active = True
            user.save()
            Membership.objects.update_or_create(team=owned, user=user, defaults={"role": Role.ADMIN})
            details = {"changed": [name for name, did in changed.items() if did]}
            _audit(system(owned), "made admin", user, details=details)
    return user


def note_of_account(user: User, verb: str) -> None:
    """What a person did to their own account, in the trail of each of their teams: it concerns all of them."""
    for row in Membership.objects.filter(user=user).select_related("team"):
        there = Actor(team=row.team, role=Role(row.role), user=user, via="page")
        _audit(there, verb, user)


def _invalid(field: str, message: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_{field}", "The request has a value that cannot be used.", message, fields={field: [message]}
    )


def _audit_token(actor: Actor, verb: str, token: ApiToken) -> None:
    """The trail names the owner's id, because a token's own is a digest; and nothing of the text, which whoever
    reads the trail is not to know the beginning of."""
    audit.record(
        actor,
        verb,
        object_type="token",
        object_id=token.user_id,
        object_name=token.name,
        object_url="/settings/tokens/",
        details={"role": token.role, "owner": token.user.username, "created_at": token.created.isoformat()},
    )


def _audit(actor: Actor, verb: str, row: User | Team, *, details: Mapping[str, Any] | None = None) -> None:
    audit.record(
        actor,
        verb,
        object_type="team" if isinstance(row, Team) else "member",
        object_id=row.pk,
        object_name=str(row),
        object_url="/settings/members/",
        details=details,
    )
