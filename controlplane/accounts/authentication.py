"""API tokens: knox's digest and constant-time check, in one query that also reads the member's role.

knox's own class reads the token, then the user; with the team and the role that is four queries on every
call. Refused: caching tokens, because a revoked one must stop at once.
"""

import re
from typing import Any

from django.db.models import F
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed

from controlplane.accounts.models import ApiToken, User

_USED_RESOLUTION_S = 60
_TOKEN = re.compile(rb"[0-9a-f]{64}")


class Token(TokenAuthentication):  # type: ignore[misc]
    def authenticate_credentials(self, token: bytes) -> tuple[User, Any]:
        """One query, and one write a minute. What cannot be a token, NUL among it, never reaches the database."""
        if _TOKEN.fullmatch(token) is None:
            raise AuthenticationFailed("Invalid token.")
        text = token.decode("ascii")
        now = timezone.now()
        found = (
            ApiToken.objects.select_related("user", "team")
            .filter(token_key=text[: CONSTANTS.TOKEN_KEY_LENGTH], digest=hash_token(text))
            .filter(user__is_active=True, user__memberships__team=F("team"))
            .annotate(membership_role=F("user__memberships__role"))
            .first()
        )
        if found is None or (found.expiry is not None and found.expiry <= now):
            raise AuthenticationFailed("Invalid token.")
        if found.last_used_at is None or (now - found.last_used_at).total_seconds() > _USED_RESOLUTION_S:
            ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
        return found.user, found
