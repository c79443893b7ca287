"""The pages on which versions are imported by reference."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from controlplane.accounts.access import actor_of
from controlplane.accounts.models import Role
from controlplane.core import refusals
from controlplane.core.errors import Conflict
from controlplane.registry import examples, imports, selectors
from controlplane.registry.forms import ImportForm, ImportModelForm
from controlplane.registry.views import form_page, read_and_post, went_well


@read_and_post
def import_model(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    actor.require(Role.ENGINEER)
    form = ImportModelForm(request.POST if request.method == "POST" else None)
    made = form.create(actor) if request.method == "POST" else None
    if made is not None:
        url = f"{made.model.get_absolute_url()}#imports"
        return went_well(
            request, url, f"“{made.model.name}” is registered; its first version is being fetched."
        )
    context = {"form": form, "example": examples.IMPORT, "example_model": examples.NEW_MODEL}
    return render(request, "registry/import_model.html", context, status=form.status)


@read_and_post
def import_version(request: HttpRequest, name: str) -> HttpResponse:
    """GET also takes the `reference` to begin with."""
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ENGINEER)
    form = ImportForm(
        request.POST if request.method == "POST" else None,
        initial={"reference": request.GET.get("reference", "")},
    )
    if request.method == "POST" and form.start(actor, row):
        return went_well(request, f"{row.get_absolute_url()}#imports", "The version is being fetched.")
    return form_page(
        request, "import_version", row, {"form": form, "example": examples.IMPORT}, status=form.status
    )


@require_POST
def cancel_import(request: HttpRequest, name: str, number: int) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.one_import(actor, name, number)
    url = f"{row.model.get_absolute_url()}#imports"
    try:
        imports.cancel(actor, row)
    except Conflict as error:
        return refusals.back(request, error, url)
    return went_well(request, url, "The import is cancelled. Nothing of it is kept.")
