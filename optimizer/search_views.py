"""The pages of searches."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import lists, refusals
from controlplane.core.errors import Conflict
from controlplane.core.lists import Listing
from controlplane.registry import selectors as registry
from optimizer import searches as verbs
from optimizer import selectors, shortlist, tables
from optimizer.domain.jobs import TERMINAL
from optimizer.domain.search import SearchState
from optimizer.forms import SearchForm
from optimizer.models import Search
from optimizer.views import parent_of


@require_safe
def searches(request: HttpRequest) -> HttpResponseBase:
    rows = selectors.searches(actor_of(request))
    if part := lists.part(request, rows, csv=tables.searches_csv):
        return part
    example = {"model": "file-types", "version": 1, "variant": 0, "max_jobs": 12, "max_minutes": 60}
    context = {"listing": Listing(request, rows, noun="search"), "example": example}
    return render(request, "optimizer/searches.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_search(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    parent = parent_of(request, actor)
    actor.require(Role.ENGINEER)
    version = parent.version
    datasets = registry.datasets(actor, version.model.name)[:100]
    form = SearchForm(parent, datasets, request.POST if request.method == "POST" else None)
    made = form.start(actor) if request.method == "POST" else None
    if made is not None:
        return redirect(made)
    named = {"model": version.model.name, "version": version.number, "variant": parent.number}
    context = {
        "form": form,
        "parent": parent,
        "version": version,
        "model": version.model,
        "action": request.get_full_path(),
        "example": named | {"max_jobs": 12, "max_minutes": 60},
    }
    return render(request, "optimizer/new_search.html", context, status=form.status)


def _search(request: HttpRequest, search: int) -> tuple[Actor, Search]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.searches(actor), pk=search)


@require_safe
def search(request: HttpRequest, search: int) -> HttpResponse:
    actor, row = _search(request, search)
    found = shortlist.rows(row)
    active = next((one.job for one in found if one.job and one.job.state not in TERMINAL), None)
    context = {
        "search": row,
        "topics": f"search:{row.pk},jobs",
        "running": row.state == SearchState.RUNNING,
        "may_change": actor.may(Role.ENGINEER),
        "rows": found,
        "front": [one for one in found if one.on_front],
        "active": active,
        "over": sum(1 for one in found if one.job and one.job.state in TERMINAL),
    }
    return render(request, "optimizer/search.html", context)


@require_POST
def cancel(request: HttpRequest, search: int) -> HttpResponse:
    actor, row = _search(request, search)
    try:
        verbs.cancel(actor, row)
    except Conflict as error:
        return refusals.back(request, error, row.get_absolute_url())
    messages.success(request, f"Search {row.pk} is cancelled. What it measured stays.")
    return redirect(row)
