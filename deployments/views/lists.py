"""The team's deployments, and the form that makes one."""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import lists
from controlplane.core.errors import SlipwayError
from controlplane.core.lists import Listing
from controlplane.registry import selectors as registry
from controlplane.registry.models import Variant
from deployments import selectors, services, stacks
from deployments.domain.workload import TargetStatus
from deployments.forms import DeploymentForm, FilterForm, defaults, take_refusal, variant_key
from deployments.models import Deployment, Target
from deployments.views import frame, tables

MOST_VARIANTS = 200
EXAMPLE = "fraud-detector"


@require_safe
def deployments(request: HttpRequest) -> HttpResponseBase:
    """One row per deployment; filters and page in the address."""
    actor = actor_of(request)
    filters = FilterForm(request.GET)
    wanted = filters.cleaned_data if filters.is_valid() else {}
    rows = selectors.search(
        selectors.deployments(actor), text=wanted.get("q", ""), health=wanted.get("health", "")
    )
    sorts = selectors.SORTS
    if part := lists.part(request, rows, csv=tables.deployments_csv, sorts=sorts):
        return part
    listing = Listing(request, rows, noun="deployment", sorts=sorts)
    return render(
        request,
        "deployments/deployments.html",
        {
            "listing": listing,
            "rows": _rows(listing.rows),
            "topics": selectors.list_topics(listing.rows),
            "filters": filters,
            "filtered": any(wanted.values()),
            "may_change": actor.may(Role.ENGINEER),
            "example": {"name": EXAMPLE},
        },
    )


def _rows(found: list[Deployment]) -> list[dict[str, Any]]:
    figures = selectors.overview_figures(found)
    return [_row(row, selectors.status(row)) | {"figures": figures[row.pk]} for row in found]


def _row(row: Deployment, seen: TargetStatus | None) -> dict[str, Any]:
    health = selectors.health_of(row)
    return {
        "deployment": row,
        "health": health,
        "detail": frame.detail(row, health, None) if health == "unreachable" else "",
        "ready": seen.ready() if seen else 0,
        "wanted": row.replicas if row.live_revision_id else 0,
        "revision": row.live_revision,
    }


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """One form: deployment and revision 1. Nothing runs before its plan was seen."""
    actor = actor_of(request)
    actor.require(Role.ENGINEER)
    choices = servable(actor)
    form = DeploymentForm(
        request.POST or None,
        initial=_initial(request, choices),
        variants=choices,
        targets=list(_targets(actor)),
    )
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                return _create(request, actor, form)
            except SlipwayError as error:
                take_refusal(form, error)
                status = error.status
    name = form["name"].value() or EXAMPLE
    context = {
        "form": form,
        "variants": choices,
        "example": {"name": name, "target": form["target"].value() or "this-machine", "protected": False},
        "revisions_path": f"/api/v1/deployments/{name}/revisions/",
        "revision_body": _revision_body(choices, form["variant"].value()),
    }
    return render(request, "deployments/new.html", context, status=status)


def _revision_body(choices: list[Variant], chosen: object) -> dict[str, Any]:
    """The body of an API call that serves what the form serves."""
    served = next((one for one in choices if variant_key(one) == chosen), choices[0] if choices else None)
    if served is None:
        return {}
    version = served.version
    return {"model": version.model.name, "version": version.number, "variant": served.number}


def _create(request: HttpRequest, actor: Actor, form: DeploymentForm) -> HttpResponse:
    row, revision, key = services.create_with_revision(
        actor,
        name=form.cleaned_data["name"],
        target=form.chosen_target(),
        protected=form.cleaned_data["protected"],
        variant=form.chosen_variant(),
        spec=form.spec(),
    )
    plan = reverse("deployments:plan", args=[row.name, revision.number])
    if not key:
        return redirect(plan)
    return frame.show_key(request, row, key, onwards=plan, label="see the plan")


def _targets(actor: Actor) -> list[Target]:
    return list(selectors.targets(actor))


def servable(actor: Actor) -> list[Variant]:
    """What can be served, intact, not in quarantine; newest first, and first what every target can serve."""
    rows = registry.variants(actor).filter(
        format__in=stacks.served(), version__quarantined_reason="", artifact__state="present"
    )
    here = stacks.served_here()
    return sorted(rows[:MOST_VARIANTS], key=lambda variant: variant.format not in here)


def _initial(request: HttpRequest, choices: list[Variant]) -> dict[str, Any]:
    """`?model=&version=&variant=` choose what is served and by which stack, and the model's name is a first guess of
    the name."""
    model, version = request.GET.get("model", ""), request.GET.get("version", "")
    chosen = (
        {"variant": f"{model}/{version}/{request.GET.get('variant', '0')}", "name": model} if model else {}
    )
    served = next((one for one in choices if variant_key(one) == chosen.get("variant")), None)
    if served is not None:
        chosen["stack"] = stacks.serving(served.format)[0].key
    return dict(defaults()) | chosen
