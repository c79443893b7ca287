"""The overview and the search: pages that look across all apps."""

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from controlplane.accounts.access import actor_of
from controlplane.accounts.models import Role
from controlplane.ui.overview import overview as look_over
from controlplane.ui.search import MAX_TEXT
from controlplane.ui.search import search as find


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    context = {
        "overview": look_over(actor, now=datetime.now(UTC)),
        "may_change": actor.may(Role.ENGINEER),
        "example": {"name": "fraud-detector"},
    }
    return render(request, "ui/overview.html", context)


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """The page, or only its results for a box that asks while somebody types."""
    text = request.GET.get("q", "").strip()[:MAX_TEXT]
    groups = find(actor_of(request), text)
    part = "#results" if request.headers.get("HX-Request") else ""
    return render(request, f"ui/search.html{part}", {"q": text, "groups": groups})
