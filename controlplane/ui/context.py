"""What the frame around every page needs."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from controlplane.accounts.access import Actor, actor_of
from controlplane.core.errors import NotFound


def shell(request: HttpRequest) -> dict[str, Any]:
    """The actor (lazy: no query unless the template asks) and the request's id and time.

    Nobody is an actor on the login page, and who belongs to no team has to be told so by an error page.
    """
    return {
        "actor": SimpleLazyObject(lambda: actor_or_nobody(request)),
        "request_id": getattr(request, "request_id", ""),
        "came_at": getattr(request, "came_at", None),
    }


def actor_or_nobody(request: HttpRequest) -> Actor | None:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    try:
        return actor_of(request)
    except NotFound:
        return None
