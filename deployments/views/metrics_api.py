"""Installing the metrics API in a cluster: first what it would change, then a button."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.accounts.models import Role
from deployments import clusters
from deployments.cluster_forms import MetricsApiForm
from deployments.domain.plan import counts
from deployments.targets.kubernetes import grants, metrics_install, written
from deployments.targets.kubernetes.metrics_install import Installation
from deployments.views.targets import find

EXAMPLE = {"namespace": "slipway", "ca_pem": "-----BEGIN CERTIFICATE-----\n…", "outside": ""}


@require_http_methods(["GET", "HEAD", "POST"])
def metrics_api(request: HttpRequest, name: str) -> HttpResponse:
    """POST shows what would change; with the `etag` of that, it is applied."""
    actor, row = find(request, name)
    actor.require(Role.ADMIN)
    clusters.refuse_no_cluster(row)
    initial = {"namespace": row.settings.get("slipway_namespace") or "slipway"}
    form = MetricsApiForm(request.POST or None, initial=initial)
    shown = None
    if etag := request.POST.get("etag", ""):
        if form.install(actor, row, etag=etag) is not None:
            messages.success(
                request, "The metrics API is installed. The cluster asks it within half a minute."
            )
            return redirect(row.get_absolute_url())
    elif request.method == "POST":
        shown = form.plan(row)
    context = {
        "target": row,
        "form": form,
        "shown": shown,
        "counts": counts(shown.diff) if shown else None,
        "manifests_yaml": _yaml(form, shown),
        "refusal": form.refusal,
        "service": metrics_install.SERVICE,
        "rights": [one for one in grants.rows() if one.for_button],
        "example": EXAMPLE | {"dry_run": True},
    }
    return render(request, "targets/metrics_api.html", context, status=form.status)


def _yaml(form: MetricsApiForm, shown: Installation | None) -> str:
    """Also where this account may not do it: somebody else may, with kubectl."""
    if shown is not None:
        return written.documents(shown.manifests)
    if form.refusal is not None and form.refusal.code == "not_permitted":
        return written.documents(metrics_install.render(form.wanted()))
    return ""
