"""Where replicas can run: the list, adding a cluster, and one target with whether it answers.

The page of a cluster asks the cluster nothing; its report is loaded after it, so that one that hangs is seen to hang.
"""

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import lists, refusals
from controlplane.core.errors import NotFound, SlipwayError
from controlplane.core.lists import Listing
from deployments import clusters, selectors
from deployments.cluster_forms import NewClusterForm, PlaceForm, ReplaceKubeconfigForm
from deployments.models import Target
from deployments.targets.kubernetes import complaints, grants
from deployments.views import frame, tables

MOST_DEPLOYMENTS = 100
NAMESPACE = "models"
"""Where nothing else was said yet."""
EXAMPLE = {"name": "west-gpus", "kubeconfig": "apiVersion: v1\nkind: Config\n…", "namespace": NAMESPACE}

read_and_post = require_http_methods(["GET", "HEAD", "POST"])


def find(request: HttpRequest, name: str) -> tuple[Actor, Target]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.targets(actor), name=name)


@require_safe
def targets(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    found = selectors.targets(actor)
    if part := lists.part(request, found, csv=tables.targets_csv):
        return part
    listing = Listing(request, found, noun="target")
    return render(
        request,
        "targets/targets.html",
        {
            "listing": listing,
            "rows": [{"target": row, "state": state(row)} for row in listing.rows],
            "has_cluster": any(row.is_cluster for row in listing.rows),
            "may_change": actor.may(Role.ADMIN),
            "example": EXAMPLE,
        },
    )


def state(row: Any) -> Any:
    """What is known without asking: what its deployments were last seen to do. `row` is of `selectors.targets`."""
    if row.away_since is not None:
        return "unreachable"
    return "online" if row.last_seen else ("Not used yet", "unknown")


@sensitive_post_parameters()
@read_and_post
def new(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    actor.require(Role.ADMIN)
    initial = {"namespace": request.GET.get("namespace", "")[:63], "fetch_url": _own_address(request)}
    form = NewClusterForm(request.POST or None, actor=actor, initial=initial)
    made = form.create() if request.method == "POST" else None
    if made is not None:
        messages.success(request, f"“{made.name}” is added. Whether it answers is shown below.")
        return redirect(made.get_absolute_url())
    form.hold()
    namespace = str(form["namespace"].value() or "") or NAMESPACE
    context = {"form": form, "example": EXAMPLE} | _grants(namespace)
    return render(request, "targets/new.html", context, status=form.status)


def _own_address(request: HttpRequest) -> str:
    """As the browser reached it, which pods may do as well; not where that is this very machine."""
    address = f"{request.scheme}://{request.get_host()}"
    return "" if urlsplit(address).hostname in complaints.LOOPBACK else address


def _grants(namespace: str) -> dict[str, Any]:
    """Names that no cluster would take show the commands for one that it would."""
    shown = namespace if clusters.is_namespace(namespace) else NAMESPACE
    return {
        "rights": grants.rows(),
        "rights_yaml": grants.as_yaml(shown),
        "rights_file": grants.FILE,
        "commands": grants.commands(shown),
        "commands_namespace": shown,
    }


@require_safe
def rights_yaml(request: HttpRequest) -> HttpResponse:
    """`?namespace=`, and `?button=1` with what the button for the metrics API needs."""
    actor_of(request)
    namespace = request.GET.get("namespace", NAMESPACE)
    if not clusters.is_namespace(namespace):
        raise NotFound(
            "no_such_namespace", "That is no name of a namespace.", "Use lower-case letters and dashes."
        )
    return HttpResponse(
        grants.as_yaml(namespace, with_button=request.GET.get("button") == "1"),
        content_type="application/yaml; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{grants.FILE}"'},
    )


@require_safe
def target(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = find(request, name)
    return page(request, actor, row)


@require_safe
def connection(request: HttpRequest, name: str) -> HttpResponse:
    """The report: for htmx the part alone, for a browser without scripts the whole page."""
    actor, row = find(request, name)
    part = "connection" if request.headers.get("HX-Request") else ""
    report = clusters.test_connection(row)
    return page(request, actor, row, part=part, report=report, findings=frame.findings(report.findings))


def page(
    request: HttpRequest, actor: Actor, row: Target, *, part: str = "", status: int = 200, **more: Any
) -> HttpResponse:
    used = selectors.deployments(actor).filter(target=row).order_by("name")
    deployments = [{"deployment": one, "health": selectors.health_of(one)} for one in used[:MOST_DEPLOYMENTS]]
    context: dict[str, Any] = {
        "target": row,
        "state": state(row),
        "deployments": deployments,
        "may_change": actor.may(Role.ADMIN),
        "api": f"/api/v1/targets/{row.name}/",
        "example": {"fetch_url": "https://slipway.example.com"},
    }
    if row.is_cluster:
        context |= _grants(row.settings.get("namespace", ""))
        context |= {
            "place_form": PlaceForm(initial=row.settings),
            "kubeconfig_form": ReplaceKubeconfigForm(actor=actor),
        }
    template = f"targets/target.html#{part}" if part else "targets/target.html"
    return render(request, template, context | more, status=status)


@require_POST
def change(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = find(request, name)
    actor.require(Role.ADMIN)
    form = PlaceForm(request.POST)
    if form.save(actor, row) is None:
        return page(request, actor, row, status=form.status, place_form=form)
    messages.success(request, "The settings are changed. The next rollout follows them.")
    return redirect(row.get_absolute_url())


@sensitive_post_parameters()
@require_POST
def replace_kubeconfig(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = find(request, name)
    actor.require(Role.ADMIN)
    form = ReplaceKubeconfigForm(request.POST, actor=actor)
    if form.save(row) is None:
        form.hold()
        return page(request, actor, row, status=form.status, kubeconfig_form=form)
    messages.success(request, "The kubeconfig is replaced. Whether the cluster takes it is shown below.")
    return redirect(row.get_absolute_url())


class ConfirmForm(forms.Form):
    confirm = forms.CharField(max_length=63)


@require_POST
def remove(request: HttpRequest, name: str) -> HttpResponse:
    """Destructive: the name has to be typed."""
    actor, row = find(request, name)
    form = ConfirmForm(request.POST)
    if not form.is_valid() or form.cleaned_data["confirm"] != row.name:
        messages.error(request, f"Nothing was removed: type “{row.name}” to confirm.")
        return redirect(row.get_absolute_url())
    try:
        clusters.remove_target(actor, row)
    except SlipwayError as error:
        return refusals.back(request, error, row.get_absolute_url())
    messages.success(
        request, f"“{row.name}” and its kubeconfig are forgotten. Nothing was changed in the cluster."
    )
    return redirect(reverse("targets:targets"))
