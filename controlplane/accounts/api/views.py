"""The REST API of accounts. Each view parses, asks through the actor's team, calls one verb, answers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts import selectors, services
from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.api import documents, inputs, schemas
from controlplane.accounts.models import ApiToken, Role
from controlplane.core.api import page_response, parse
from controlplane.core.openapi import PAGING, Page, query, refusals, sorting

FILTERS = [
    query("person", description="A user name, or `slipway` for Slipway itself."),
    query("object_type"),
    query("text", description="Literal text in verb or object name."),
]
SECRET = {"Cache-Control": "no-store"}


class Me(APIView):
    @extend_schema(responses=schemas.Me)
    def get(self, request: Request) -> Response:
        """Who this request acts as, in which team, and what it may do."""
        actor = actor_of(request)
        return Response(documents.me(actor, _teams(actor, request)))


def _teams(actor: Actor, request: Request) -> list[Any]:
    """A token knows its own team only."""
    assert actor.user is not None
    rows = selectors.memberships(actor.user)
    return list(rows.filter(team=actor.team) if isinstance(request.auth, ApiToken) else rows)


class Tokens(APIView):
    @extend_schema(responses=Page[schemas.Token])
    def get(self, request: Request) -> Response:
        """Your tokens of the team; an admin sees everybody's. Newest first, all at once: nobody has many."""
        rows = selectors.tokens(actor_of(request))
        return Response({"items": [documents.token(row) for row in rows], "next": None})

    @extend_schema(request=inputs.NewToken, responses={201: schemas.CreatedToken, **refusals(409)})
    def post(self, request: Request) -> Response:
        """Create a token. The answer is the only place that shows its text.

        One that a token makes ends with its maker, if not earlier.
        """
        wanted = parse(inputs.NewToken, request)
        row, text = services.create_token(
            actor_of(request),
            name=wanted["name"],
            role=Role(wanted["role"]),
            expires_in_days=wanted["expires_in_days"],
        )
        document: schemas.CreatedToken = {**documents.token(row), "token": text}
        return Response(document, status=201, headers=SECRET | {"Location": document["url"]})


class Token(APIView):
    @extend_schema(responses=schemas.Token)
    def get(self, request: Request, token_key: str) -> Response:
        """One token, without its text."""
        return Response(documents.token(selectors.token(actor_of(request), token_key)))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, token_key: str) -> Response:
        """Revoke a token, at once. A token revokes itself and those that may do no more than it."""
        actor = actor_of(request)
        services.revoke_token(actor, selectors.token(actor, token_key))
        return Response(status=204)


class Members(APIView):
    @extend_schema(parameters=[*PAGING, *sorting(selectors.MEMBER_SORTS)], responses=Page[schemas.Member])
    def get(self, request: Request) -> Response:
        """The members of the team, by name."""
        rows, sorts = selectors.members(actor_of(request)), selectors.MEMBER_SORTS
        return page_response(rows, request, documents.member, sorts=sorts, default="name")

    @extend_schema(request=inputs.NewMember, responses={201: schemas.AddedMember, **refusals(409)})
    def post(self, request: Request) -> Response:
        """Add a person. For one who is new to Slipway the answer has the password; it is shown nowhere else."""
        wanted = parse(inputs.NewMember, request)
        row, password = services.add_member(
            actor_of(request), username=wanted["username"], role=Role(wanted["role"])
        )
        document: schemas.AddedMember = {**documents.member(row), "password": password or None}
        return Response(document, status=201, headers=SECRET | {"Location": document["url"]})


class Member(APIView):
    @extend_schema(responses=schemas.Member)
    def get(self, request: Request, username: str) -> Response:
        """One member of the team."""
        return Response(documents.member(selectors.member(actor_of(request), username)))

    @extend_schema(request=inputs.MemberRole, responses={200: schemas.Member, **refusals(409)})
    def patch(self, request: Request, username: str) -> Response:
        """Change a member's role; never one's own."""
        actor = actor_of(request)
        wanted = parse(inputs.MemberRole, request)
        row = selectors.member(actor, username)
        return Response(documents.member(services.change_role(actor, row, role=Role(wanted["role"]))))

    @extend_schema(responses={204: None, **refusals(409)})
    def delete(self, request: Request, username: str) -> Response:
        """Remove a member, and the member's tokens of this team. Leaving by oneself takes one's whole role."""
        actor = actor_of(request)
        services.remove_member(actor, selectors.member(actor, username))
        return Response(status=204)


class Activity(APIView):
    @extend_schema(parameters=[*PAGING, *FILTERS], responses=Page[schemas.AuditEvent])
    def get(self, request: Request) -> Response:
        """What happened in the team, newest first."""
        wanted = selectors.ActivityFilter(
            **{name: request.GET.get(name, "") for name in ("person", "object_type", "text")}
        )
        return page_response(selectors.activity(actor_of(request), wanted), request, documents.event)
