"""How a request to the API says who it is: by a token, or by the session of a page.

API tokens are knox's: its digest and constant-time check, in one query that also reads the member's role.

knox's own class reads the token, then the user; with the team and the role that is four queries on every
call. The query is written out, because having the ORM compose it each time costs more than running it.
Refused: caching tokens, because a revoked one must stop at once.
"""

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Model
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.settings import CONSTANTS
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from controlplane.accounts.models import ApiToken, Membership, Team, User
from controlplane.core.sql import prepared_cursor

_USED_RESOLUTION_S = 60
_TOKEN = re.compile(rb"[0-9a-f]{64}")


class Token(TokenAuthentication):  # type: ignore[misc]
    def authenticate_credentials(self, token: bytes) -> tuple[User, Any]:
        """One query, and one write a minute. What cannot be a token, NUL among it, never reaches the database."""
        if _TOKEN.fullmatch(token) is None:
            raise AuthenticationFailed("Invalid token.")
        text = token.decode("ascii")
        now = timezone.now()
        found = _find(key=text[: CONSTANTS.TOKEN_KEY_LENGTH], digest=hash_token(text))
        if found is None or (found.expiry is not None and found.expiry <= now):
            raise AuthenticationFailed("Invalid token.")
        if found.last_used_at is None or (now - found.last_used_at).total_seconds() > _USED_RESOLUTION_S:
            ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
        return found.user, found


class Session(SessionAuthentication):
    """The API takes the CSRF token from the header only: Django looks for it in the form first, and with the form
    would take a file from somebody whose role is not known yet."""

    def enforce_csrf(self, request: Request | HttpRequest) -> None:
        plain: Any = copy.copy(request._request if isinstance(request, Request) else request)
        plain._post, plain._files = QueryDict(), MultiValueDict()
        super().enforce_csrf(plain)


_READ: dict[str, type[Model]] = {"token": ApiToken, "owner": User, "team": Team}


@cache
def _sql() -> str:
    columns = [
        f'{name}."{field.column}"' for name, kind in _READ.items() for field in kind._meta.concrete_fields
    ]
    return f"""
        SELECT {", ".join(columns)}, membership.role
        FROM {ApiToken._meta.db_table} token
        JOIN {User._meta.db_table} owner ON owner.id = token.user_id AND owner.is_active
        JOIN {Team._meta.db_table} team ON team.id = token.team_id
        JOIN {Membership._meta.db_table} membership
          ON membership.user_id = token.user_id AND membership.team_id = token.team_id
        WHERE token.token_key = %s AND token.digest = %s
    """  # noqa: S608  names of our own tables and columns


def _find(*, key: str, digest: str) -> ApiToken | None:
    """The token with its user, its team and `membership_role`; None unless all three still belong together."""
    with prepared_cursor() as cursor:
        cursor.execute(_sql(), [key, digest])
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    token, user, team = _made(ApiToken, values), _made(User, values), _made(Team, values)
    token.user, token.team, token.membership_role = user, team, next(values)
    return token


def _made[Row: Model](kind: type[Row], values: Iterator[Any]) -> Row:
    names = [field.attname for field in kind._meta.concrete_fields]
    return kind.from_db(connection.alias, names, [next(values) for _ in names])
