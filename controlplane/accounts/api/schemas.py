"""The shapes of what the API says about people, tokens and the trail; and how a request says who it is."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

from drf_spectacular.authentication import SessionScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from controlplane.accounts.models import Role
from controlplane.core.openapi import Like

RoleWord = Annotated[str, Like(Role)]


class TeamRole(TypedDict):
    """What a person may do in a team."""

    team: str
    role: RoleWord


class Me(TypedDict):
    """Who the request acts as. `role` is what it may do: with a token, never more than the token's."""

    username: str
    team: str
    role: RoleWord
    teams: list[TeamRole]


class Token(TypedDict):
    """An API token without its text, which nothing keeps."""

    token_key: str
    name: str
    role: RoleWord
    owner: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    url: str


class CreatedToken(Token):
    """`token` is the token's text: shown here and nowhere else."""

    token: str


class Member(TypedDict):
    """A person in the team."""

    username: str
    role: RoleWord
    active: bool
    joined_at: datetime
    url: str


class AddedMember(Member):
    """`password` is shown here and nowhere else; null for a person whom Slipway already knows."""

    password: str | None


class AuditEvent(TypedDict):
    """One mutation, by a person or by Slipway itself."""

    id: int
    at: datetime
    person: str
    via: Annotated[str, Like(Literal["page", "api", "system"])]
    verb: str
    object_type: str
    object_id: int
    object_name: str
    page: str | None
    details: dict[str, Any]


class _Session(SessionScheme):  # type: ignore[no-untyped-call]
    target_class = "controlplane.accounts.authentication.Session"
    priority = 0


class _Bearer(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "controlplane.accounts.authentication.Token"
    name = "Token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """The scheme that `authentication.Token` reads."""
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token, made under Settings. It acts in one team.",
        }
