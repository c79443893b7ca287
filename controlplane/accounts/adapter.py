"""How people log in: guessing is refused as any throttled request is. Nobody signs up: an admin makes accounts."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest

from controlplane.core.errors import TooMany

LOCKED_S = 300
"""The longest of the windows in ACCOUNT_RATE_LIMITS["login_failed"]: after it one more attempt is let through."""


class Login(DefaultAccountAdapter):  # type: ignore[misc]
    def get_client_ip(self, request: HttpRequest) -> str:
        """Where no edge names the client, the peer counts: nobody is kept out because a header is missing."""
        try:
            return str(super().get_client_ip(request))
        except PermissionDenied:
            return str(request.META.get("REMOTE_ADDR") or "unknown")

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """allauth would show the form again with status 200. Raises TooMany."""
        try:
            super().pre_authenticate(request, **credentials)
        except ValidationError as error:
            raise TooMany(
                "too_many_logins",
                "Too many failed attempts to log in.",
                "Wait five minutes, then try again. An admin can set a new password.",
                retry_after_s=LOCKED_S,
            ) from error
