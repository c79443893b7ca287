"""What the frame around every page needs."""

from typing import Any

from django.http import HttpRequest


def shell(request: HttpRequest) -> dict[str, Any]:
    """The actor (lazy: no query unless the template asks) and the request's id."""
    return {"actor": getattr(request, "actor", None), "request_id": getattr(request, "request_id", "")}
