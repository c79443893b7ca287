"""Who is acting, in which team, and what they may do: the one permission check of pages and API."""

from dataclasses import dataclass
from typing import cast

from django.http import HttpRequest

from controlplane.accounts.models import ApiToken, Membership, Role, Team, User
from controlplane.core.errors import Conflict, Forbidden, NotFound

TEAM_SESSION_KEY = "team_id"
TEAM_FIELD = "shown_in_team"
"""Every form says beside its CSRF token for which team it was shown, see `ui.templatetags.form_token`."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """`user` is None where Slipway itself acts. `via` is "page", "api" or "system".

    `token` is the one that speaks for the user: it may do less than the user, and ends earlier.
    """

    team: Team
    role: Role
    user: User | None = None
    via: str = "system"
    token: ApiToken | None = None

    def may(self, needed: Role) -> bool:
        return self.role.covers(needed)

    def require(self, needed: Role) -> None:
        """Raises Forbidden that names both roles."""
        if not self.may(needed):
            what_to_do = (
                "A token has a role of its own: make one with a higher role, or ask an admin of the team."
                if self.via == "api"
                else "Ask an admin of the team."
            )
            raise Forbidden(
                "role_too_low",
                f"This needs the role {needed.label.lower()}.",
                f"You act as {self.role.label.lower()} in the team “{self.team.name}”. {what_to_do}",
            )


def system(team: Team) -> Actor:
    return Actor(team=team, role=Role.ADMIN)


def _membership(user: User, team_id: int | None) -> Membership | None:
    memberships = Membership.objects.select_related("team").filter(user=user).order_by("id")
    return (memberships.filter(team_id=team_id).first() if team_id else None) or memberships.first()


def actor_of(request: HttpRequest) -> Actor:
    """The actor of an authenticated request; at most one query, kept on the request.

    Raises NotFound for a user without a team: nothing here is theirs.
    """
    known = cast(Actor | None, getattr(request, "_slipway_actor", None))
    if known is not None:
        return known
    token = getattr(request, "auth", None)
    user = cast(User, request.user)
    if isinstance(token, ApiToken):
        role = min((Role(token.role), Role(token.membership_role)), key=lambda role: role.rank)
        actor = Actor(team=token.team, role=role, user=user, via="api", token=token)
    else:
        membership = _membership(user, request.session.get(TEAM_SESSION_KEY))
        if membership is None:
            raise NotFound(
                "no_team", "You are not a member of any team.", "Ask an admin to add you to a team."
            )
        via = "api" if request.path.startswith("/api/") else "page"
        actor = Actor(team=membership.team, role=Role(membership.role), user=user, via=via)
    request._slipway_actor = actor  # type: ignore[attr-defined]
    return actor


def refuse_of_another_team(request: HttpRequest) -> None:
    """For a form that was sent: the session's team may have been switched in another tab, where another object has
    the same name. Raises Conflict. A form that does not say its team was not made by a page of ours."""
    shown = request.POST.get(TEAM_FIELD) if request.method == "POST" else None
    if shown is not None and shown != str((team := actor_of(request).team).pk):
        raise Conflict(
            "another_team",
            "This form was shown for another team.",
            f"This browser now looks at “{team.name}”. Nothing was changed. Switch the team under Settings and send "
            "the form again, or open the page anew.",
        )
