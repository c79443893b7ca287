"""The pages of models, versions and variants. Each view parses, asks through the actor's team, calls one verb, renders.

A form stands on a page of its own, so that it works without a script; with one, simple forms open as dialogs of
the page they belong to, from the same template.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from controlplane.accounts.access import Actor, actor_of, refuse_of_another_team
from controlplane.accounts.models import Role
from controlplane.core import lists
from controlplane.core.addresses import whole_number
from controlplane.core.errors import InvalidInput
from controlplane.core.lists import Listing
from controlplane.core.pagination import capped_count
from controlplane.core.uploads import accept_file
from controlplane.registry import costs, examples, reports, selectors, services, tables, usage
from controlplane.registry.answers import Answers
from controlplane.registry.engines import Engine
from controlplane.registry.forms import (
    AliasForm,
    AnswersForm,
    DatasetForm,
    DeleteForm,
    DescriptionForm,
    GateForm,
    ModelFilterForm,
    NewModelForm,
    UploadForm,
    variant_label,
)
from controlplane.registry.gate import Gate
from controlplane.registry.history import MOST_SHOWN, history
from controlplane.registry.models import Dataset, Model, Report, Verdict, Version

DEPLOY = "/deployments/new/"
"""A page of an app above this one."""

MOST_IMPORTS = 5
MOST_DATASETS = 100
"""Of those that a page shows; all are in its CSV."""

read_and_post = require_http_methods(["GET", "HEAD", "POST"])
type View[**Address] = Callable[Concatenate[HttpRequest, Address], HttpResponse]


def _takes_a_file[**Address](view: View[Address]) -> View[Address]:
    """For the pages that take one: who may not send it is told so before any of it is read. Django's own order reads
    the whole form first, for the CSRF token in it."""

    @csrf_protect
    def checked(request: HttpRequest, /, *args: Address.args, **kwargs: Address.kwargs) -> HttpResponse:
        refuse_of_another_team(request)
        return view(request, *args, **kwargs)

    @csrf_exempt
    @read_and_post
    @wraps(view)
    def asked(request: HttpRequest, /, *args: Address.args, **kwargs: Address.kwargs) -> HttpResponse:
        actor_of(request).require(Role.ENGINEER)
        accept_file(request)
        return checked(request, *args, **kwargs)

    return asked


def went_well(request: HttpRequest, url: str, message: str) -> HttpResponse:
    """Redirect after POST. A form sent by script (for its progress) is told where to go instead."""
    messages.success(request, message)
    if request.headers.get("X-Upload"):
        return HttpResponse(status=204, headers={"X-Location": url})
    return redirect(url)


def _rights(actor: Actor) -> dict[str, Any]:
    return {"actor": actor, "may_change": actor.may(Role.ENGINEER), "may_delete": actor.may(Role.ADMIN)}


def _rights_on(actor: Actor, version: Version) -> dict[str, Any]:
    """`may_use`: optimize it, deploy it, point to it, which a quarantine ends for everybody."""
    rights = _rights(actor)
    return rights | {"may_use": rights["may_change"] and not version.quarantined_reason}


@require_safe
def models(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    form = ModelFilterForm(request.GET)
    wanted = form.wanted()
    rows = selectors.filtered_models(selectors.with_findings(selectors.models(actor)), **wanted)
    sorts = selectors.MODEL_SORTS
    if part := lists.part(request, rows, csv=tables.models_csv, sorts=sorts):
        return part
    context = _rights(actor) | {
        "form": form,
        "listing": Listing(request, rows, noun="model", sorts=sorts),
        "filtered": any(wanted.values()),
        "first_curl": examples.first_model(request.build_absolute_uri("/")),
        "example": examples.NEW_MODEL,
    }
    return render(request, "registry/models.html", context)


@read_and_post
def gate(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ENGINEER)
    asked = Gate.from_json(row.gate).to_json()
    form = GateForm(request.POST or None, initial=asked)
    if request.method == "POST" and form.save(actor, row):
        return went_well(
            request, row.get_absolute_url(), "The gate is changed. Aliases stay where they point."
        )
    return form_page(request, "gate", row, {"form": form, "asked": asked}, status=form.status)


@read_and_post
def answers(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ENGINEER)
    version = selectors.latest_version(actor, row)
    stated = Answers.from_json(row.answers)
    form = AnswersForm(version, request.POST or None, initial=stated.to_json())
    if request.method == "POST" and form.save(actor, row):
        return went_well(request, row.get_absolute_url(), "Jobs from now on compare answers like that.")
    asked = {name: value or None for name, value in stated.to_json().items()}
    context = {"form": form, "asked": asked, "now": stated.in_words(version.signature), "latest": version}
    return form_page(request, "answers", row, context, status=form.status)


@_takes_a_file
def new_model(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    form = NewModelForm(*_posted(request))
    made = form.create(actor) if request.method == "POST" else None
    if made is not None:
        url = made.get_absolute_url()
        return went_well(request, url, f"“{made.model.name}” is registered, with version 1.")
    context = {"form": form, "example": examples.NEW_MODEL}
    return render(request, "registry/new_model.html", context, status=form.status)


def _posted(request: HttpRequest) -> tuple[Any, Any]:
    return (request.POST, request.FILES) if request.method == "POST" else (None, None)


@require_safe
def model(request: HttpRequest, name: str) -> HttpResponseBase:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    rows = selectors.versions(actor).filter(model=row).prefetch_related("variants")
    datasets = selectors.datasets(actor, name)
    if request.GET.get("part") == "datasets":
        return tables.datasets_csv(name, datasets)
    sorts = selectors.VERSION_SORTS
    if part := lists.part(request, rows, csv=partial(tables.versions_csv, name), sorts=sorts):
        return part
    listing = Listing(request, rows, noun="version", sorts=sorts)
    aliases = list(selectors.aliases(actor, name))
    pointed: dict[int, list[str]] = {}
    for alias in aliases:
        pointed.setdefault(alias.variant.version_id, []).append(alias.name)
    for version in listing.rows:
        version.pointed = pointed.get(version.pk, [])  # type: ignore[attr-defined]
        verdicts = Counter(variant.verdict for variant in version.variants.all() if variant.verdict)
        version.verdicts = [(word, verdicts[word]) for word in Verdict.values if verdicts[word]]  # type: ignore[attr-defined]
    context = _rights(actor) | {
        "model": row,
        "topic": str(row.pk),
        "upload_curl": examples.upload(request.build_absolute_uri("/"), row.name),
        "listing": listing,
        "aliases": aliases,
        "imports": list(selectors.imports(actor, name)[:MOST_IMPORTS]),
        "datasets": list(datasets[:MOST_DATASETS]),
        "datasets_in_all": capped_count(datasets),
        "gate": Gate.from_json(row.gate).in_words(),
        "answers": selectors.answers_in_words(actor, row),
        "activity": selectors.activity(actor, row),
    }
    return render(request, "registry/model.html", context)


def form_page(
    request: HttpRequest, template: str, row: Model, context: dict[str, Any], *, status: int
) -> HttpResponse:
    return render(request, f"registry/{template}.html", {"model": row, **context}, status=status)


@read_and_post
def describe(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ENGINEER)
    form = DescriptionForm(request.POST or None, initial={"description": row.description})
    if request.method == "POST" and form.save(actor, row):
        return went_well(request, row.get_absolute_url(), "The description is saved.")
    context = {"form": form, "described": {"description": row.description}}
    return form_page(request, "describe", row, context, status=form.status)


@_takes_a_file
def new_version(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    form = UploadForm(*_posted(request))
    made = form.upload(actor, row) if request.method == "POST" else None
    if made is not None:
        version, created = made
        said = "is registered" if created else "has these bytes already; nothing new was made"
        return went_well(request, version.get_absolute_url(), f"Version {version.number} {said}.")
    return form_page(request, "new_version", row, {"form": form}, status=form.status)


@read_and_post
def move_alias(request: HttpRequest, name: str) -> HttpResponse:
    """GET also takes `alias` and `variant` (its id) to begin with."""
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ENGINEER)
    chosen = {"name": request.GET.get("alias", ""), "variant": request.GET.get("variant", "")}
    form = AliasForm(row, request.POST if request.method == "POST" else None, initial=chosen)
    moved = form.move(actor) if request.method == "POST" else None
    if moved is not None:
        return went_well(request, row.get_absolute_url(), f"“{moved.name}” points to {moved.variant}.")
    now = next((alias for alias in selectors.aliases(actor, name) if alias.name == chosen["name"]), None)
    context = {
        "form": form,
        "now": now,
        "now_label": variant_label(now.variant) if now else "",
        "alias_name": chosen["name"] or "champion",
        "alias_body": {"version": row.latest_number or 1, "variant": 0},  # type: ignore[attr-defined]
    }
    return form_page(request, "move_alias", row, context, status=form.status)


@read_and_post
def remove_alias(request: HttpRequest, name: str, alias: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    found = selectors.alias(actor, name, alias)
    actor.require(Role.ENGINEER)
    if request.method != "POST":
        return form_page(request, "remove_alias", row, {"alias": found}, status=200)
    services.remove_alias(actor, found)
    return went_well(request, row.get_absolute_url(), f"The alias “{alias}” is removed.")


@_takes_a_file
def new_dataset(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    form = DatasetForm(*_posted(request))
    made = form.add(actor, row) if request.method == "POST" else None
    if made is not None:
        return went_well(
            request,
            f"{row.get_absolute_url()}#datasets",
            f"The data set “{made.name}” is kept: {made.items:,} items.",
        )
    latest = selectors.versions(actor).filter(model=row).first()
    context: dict[str, Any] = {"form": form, "latest": latest}
    if latest is not None:
        written = {"recipe": examples.npz, "parquet": examples.parquet, "csv": examples.csv}
        context |= {name: write(latest.signature) for name, write in written.items()}
    return form_page(request, "new_dataset", row, context, status=form.status)


@read_and_post
def delete_dataset(request: HttpRequest, name: str, dataset: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    found: Dataset = selectors.dataset(actor, name, dataset)
    actor.require(Role.ENGINEER)
    if request.method != "POST":
        context = {"dataset": found, "users": usage.of_dataset(found)}
        return form_page(request, "delete_dataset", row, context, status=200)
    services.delete_dataset(actor, found)
    return went_well(request, f"{row.get_absolute_url()}#datasets", f"The data set “{dataset}” is deleted.")


@read_and_post
def delete_model(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.model(actor, name)
    actor.require(Role.ADMIN)
    form = DeleteForm(row.name, request.POST if request.method == "POST" else None)
    if request.method == "POST":
        form.attempt(lambda: services.delete_model(actor, row))
        if not form.errors:
            return went_well(request, reverse("registry:models"), f"“{name}” is deleted.")
    users = usage.of(v for version in row.versions.all() for v in version.variants.all())
    return form_page(request, "delete_model", row, {"form": form, "users": users}, status=form.status)


@require_safe
def version(request: HttpRequest, name: str, number: int) -> HttpResponseBase:
    actor = actor_of(request)
    row = selectors.version(actor, name, number)
    variants = selectors.variants_with_reports(row)
    if request.GET.get("part") == "csv":
        return tables.variants_csv(f"{name}-v{number}", variants)
    measured = [each.latest.data if each.latest else {} for each in variants]  # type: ignore[attr-defined]
    sizes = reports.batch_sizes(measured)
    for each, data in zip(variants, measured, strict=True):
        each.shown = {  # type: ignore[attr-defined]
            "speedups": reports.speedups(data, sizes=sizes),
            "loss": reports.loss(data),
        }
    aliases: dict[int, list[str]] = {}
    for alias in selectors.aliases(actor, name).filter(variant__version=row):
        aliases.setdefault(alias.variant_id, []).append(alias.name)
    for each in variants:
        each.names = aliases.get(each.pk, [])  # type: ignore[attr-defined]
    context = _rights_on(actor, row) | {
        "model": row.model,
        "version": row,
        "topic": str(row.model_id),
        "variants": variants,
        "batch_sizes": sizes,
        "digest": f"sha256:{row.source_sha256}",
        "imported": variants[0].provenance.get("imported"),
        "version_label": f"Version {number}",
        "deploy_url": DEPLOY,
        "optimize_url": f"{reverse('optimizer:new-job')}?model={name}&version={number}",
        "search_url": f"{reverse('optimizer:new-search')}?model={name}&version={number}",
    }
    return render(request, "registry/version.html", context)


@read_and_post
def delete_version(request: HttpRequest, name: str, number: int) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.version(actor, name, number)
    actor.require(Role.ENGINEER)
    form = DeleteForm(f"{name}/{number}", request.POST if request.method == "POST" else None)
    if request.method == "POST":
        form.attempt(lambda: services.delete_version(actor, row))
        if not form.errors:
            return went_well(request, row.model.get_absolute_url(), f"Version {number} is deleted.")
    context = {"version": row, "form": form, "users": usage.of(row.variants.all())}
    return form_page(request, "delete_version", row.model, context, status=form.status)


def _costs(request: HttpRequest, report: Report | None) -> dict[str, Any]:
    """At the price in the address; one that makes no sense is told beside its field."""
    text = request.GET.get("price_per_hour", "").strip()
    try:
        price = costs.price(text)
    except InvalidInput as error:
        return {"price_text": text, "price_error": error.detail}
    return {
        "price_text": text,
        "costs": costs.costs(report.data, price) if report is not None and price is not None else None,
    }


@require_safe
def variant(request: HttpRequest, name: str, number: int, variant: int) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.variant(actor, name, number, variant)
    kept = list(row.reports.all()[:MOST_SHOWN])
    wanted = whole_number(request.GET.get("report", ""))
    report = selectors.report(row, wanted) if wanted is not None else kept[0] if kept else None
    context = _rights_on(actor, row.version) | {
        **_costs(request, report),
        "model": row.version.model,
        "version": row.version,
        "variant": row,
        "topic": str(row.version.model_id),
        "report": report,
        "older": report is not None and report != kept[0],
        "history": history(kept),
        "said": reports.said(report) if report else "",
        "shown": reports.presented(report.data) if report else None,
        "engine": Engine.of(row.provenance),
        "digest": f"sha256:{row.artifact.sha256}",
        "deploy_url": DEPLOY,
        "variant_path": reverse("api:variant", args=[name, number, variant]),
        "report_path": reverse("api:variant-report", args=[name, number, variant]),
        "content_path": reverse("api:variant-content", args=[name, number, variant]),
        "aliases": list(selectors.aliases(actor, name).filter(variant=row)),
    }
    return render(request, "registry/variant.html", context)
