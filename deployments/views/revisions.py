"""What could be rolled out: the revisions, two of them compared, and the plan of one against what runs now."""

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from controlplane.core import lists
from controlplane.core.addresses import whole_number
from controlplane.core.errors import SlipwayError
from controlplane.core.lists import Listing
from deployments import preview, selectors, services
from deployments.domain.plan import Plan, counts
from deployments.models import Deployment, Revision
from deployments.targets.kubernetes import written
from deployments.targets.kubernetes.export import Form
from deployments.targets.kubernetes.render import ordered
from deployments.views import frame, tables

MOST_CHANGES, LONGEST_TEXT = 200, 40_000
"""Of one object on a page: changed fields, and characters of its YAML."""


def find_revision(row: Deployment, number: int) -> Revision:
    rows = selectors.revisions(row).select_related("variant__artifact")
    return get_object_or_404(rows, number=number)


@require_safe
def revisions(request: HttpRequest, name: str) -> HttpResponseBase:
    """With `?from=5&to=7` also what differs between the two."""
    actor, row = frame.find(request, name)
    rows = selectors.revisions(row)
    if part := lists.part(request, rows, csv=partial(tables.revisions_csv, row.name)):
        return part
    return frame.page(
        request,
        actor,
        row,
        tab="revisions",
        listing=Listing(request, rows, noun="revision"),
        revision_body=example_revision(row),
        live_number=row.live_revision.number if row.live_revision else 0,
        comparison=_comparison(row, request.GET.get("from", ""), request.GET.get("to", "")),
    )


def _comparison(row: Deployment, before: str, after: str) -> dict[str, Any] | None:
    numbers = whole_number(before, digits=9), whole_number(after, digits=9)
    if numbers[0] is None or numbers[1] is None:
        return None
    old, new = find_revision(row, numbers[0]), find_revision(row, numbers[1])
    changes = preview.compare(old, new)
    return {"before": old, "after": new, "changes": changes, "counts": counts(changes)}


@require_http_methods(["GET", "HEAD", "POST"])
def plan(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """What rolling out would change and what stands in its way. POST brings the etag of what was seen.

    Refused because something moved: the sentence, and below it the plan against what runs now.
    """
    actor, row = frame.find(request, name)
    revision = find_revision(row, number)
    refusal = None
    kind = "rollback" if row.live_revision and number < row.live_revision.number else "update"
    if request.method == "POST":
        try:
            etag = request.POST.get("etag", "")
            rollout = services.roll_out(actor, row, revision, etag=etag, kind=kind)
            return redirect(reverse("deployments:rollout", args=[row.name, rollout.pk]))
        except SlipwayError as error:
            refusal = error
            _, row = frame.find(request, name)
    shown, unreachable = _preview(row, revision)
    status = refusal.status if refusal else unreachable.status if unreachable else 200
    return frame.page(
        request,
        actor,
        row,
        tab="revisions",
        template="deployments/plan.html",
        status=status,
        revision=revision,
        kind=kind,
        is_live=bool(row.live_revision and row.live_revision.number == number),
        preview=shown,
        findings=frame.findings(shown.findings) if shown else [],
        after_label=f"Revision {number}",
        objects=_objects(shown.plan) if shown else None,
        exports=_exports(row, number),
        plan_path=f"/api/v1/deployments/{row.name}/revisions/{number}/plan/",
        rollout_path=f"/api/v1/deployments/{row.name}/{'rollback' if kind == 'rollback' else 'rollouts'}/",
        rollout_body={"revision": number},
        refusal=refusal,
        unreachable=unreachable,
    )


def _preview(row: Deployment, revision: Revision) -> tuple[preview.Preview | None, SlipwayError | None]:
    try:
        return preview.preview(row, revision), None
    except SlipwayError as error:
        return None, error


def _objects(plan: Plan) -> dict[str, Any] | None:
    """A cluster's part of the plan: what changes by object, and the YAML of each. What is too long for a page is cut,
    and the API has it whole."""
    if not plan.manifests:
        return None
    texts = [(one["kind"], one["metadata"]["name"], written.document(one)) for one in ordered(plan.manifests)]
    return {
        "changes": [
            {"one": one, "shown": one.changes[:MOST_CHANGES], "more": len(one.changes) - MOST_CHANGES}
            for one in plan.objects
        ],
        "texts": [
            {"kind": kind, "name": name, "text": text if len(text) <= LONGEST_TEXT else ""}
            for kind, name, text in texts
        ],
    }


def _exports(row: Deployment, number: int) -> list[dict[str, str]]:
    """None of a deployment whose target is no cluster."""
    address = f"/api/v1/deployments/{row.name}/revisions/{number}/manifests/"
    labels = {Form.YAML: "YAML", Form.KUSTOMIZE: "Kustomize", Form.HELM: "Helm chart"}
    return [
        {"label": label, "url": f"{address}?as={form}"}
        for form, label in labels.items()
        if row.target.is_cluster
    ]


def example_revision(row: Deployment) -> dict[str, Any]:
    """The body of an API call that adds a revision like the newest one."""
    newest = row.revisions.select_related("variant__version__model").first()
    if newest is None:
        return {"model": "fraud-detector", "version": 1, "variant": 0, "spec": {}}
    version = newest.variant.version
    return {
        "model": version.model.name,
        "version": version.number,
        "variant": newest.variant.number,
        "spec": {"batching": newest.spec["batching"]},
    }
