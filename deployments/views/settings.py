"""The spec that serves, a new revision begun from it, and taking the deployment away."""

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.accounts.models import Role
from controlplane.core import refusals
from controlplane.core.errors import SlipwayError
from deployments import preview, services
from deployments.domain import readable
from deployments.domain.origin import OURS
from deployments.domain.spec import RevisionSpec
from deployments.forms import SpecForm, defaults, initial_of, take_refusal, variant_key
from deployments.models import Deployment, Revision
from deployments.views import frame
from deployments.views.lists import servable
from deployments.views.revisions import example_revision


@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest, name: str) -> HttpResponse:
    """POST adds a revision; its plan comes next."""
    actor, row = frame.find(request, name)
    base = _base(row)
    form = SpecForm(
        request.POST or None,
        initial=_initial(base),
        variants=servable(actor),
        target=row.target,
        begun_from=RevisionSpec.from_json(base.spec) if base else None,
    )
    status = 200
    if request.method == "POST":
        actor.require(Role.ENGINEER)
        status = 422
        if form.is_valid():
            try:
                made = services.add_revision(actor, row, variant=form.chosen_variant(), spec=form.spec())
                return redirect(reverse("deployments:plan", args=[row.name, made.number]))
            except SlipwayError as error:
                take_refusal(form, error)
                status = error.status
    return frame.page(
        request,
        actor,
        row,
        tab="settings",
        status=status,
        form=form,
        revision_body=example_revision(row),
        can_be_given_back=OURS,
        base=base,
        facts=readable.flat(preview.read_revision(base)) if base else [],
    )


def _base(row: Deployment) -> Revision | None:
    """The live revision, or the newest one while nothing is live."""
    rows = row.revisions.select_related("variant__artifact", "variant__version__model")
    live = rows.filter(pk=row.live_revision_id).first() if row.live_revision_id else None
    return live or rows.first()


def _initial(base: Revision | None) -> dict[str, object]:
    if base is None:
        return dict(defaults())
    return initial_of(RevisionSpec.from_json(base.spec)) | {"variant": variant_key(base.variant)}


class ConfirmForm(forms.Form):
    confirm = forms.CharField(max_length=63)


def _unconfirmed(request: HttpRequest, row: Deployment, what: str) -> HttpResponse | None:
    """Where to go without the deployment's name typed by hand: what cannot be taken back asks for it."""
    form = ConfirmForm(request.POST)
    if form.is_valid() and form.cleaned_data["confirm"] == row.name:
        return None
    messages.error(request, f"Nothing was {what}: type “{row.name}” to confirm.")
    return redirect(reverse("deployments:settings", args=[row.name]))


@require_POST
def rotate_key(request: HttpRequest, name: str) -> HttpResponse:
    """The old key is lost, so the name has to be typed; `seen` keeps a reload from making another one."""
    actor, row = frame.find(request, name)
    if answer := _unconfirmed(request, row, "changed"):
        return answer
    settings = reverse("deployments:settings", args=[row.name])
    try:
        key = services.rotate_key(actor, row, seen=request.POST.get("seen", ""))
    except SlipwayError as error:
        messages.error(request, f"{error.title} {error.detail}".strip())
        return redirect(settings)
    return frame.show_key(request, row, key, onwards=settings, label="back to the settings")


@require_POST
def remove_key(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = frame.find(request, name)
    return _unconfirmed(request, row, "changed") or frame.attempt(
        request,
        row,
        lambda: services.remove_key(actor, row, seen=request.POST.get("seen", "")),
        to="settings",
        said=f"“{row.name}” answers without a key once its replicas are replaced.",
    )


@require_POST
def remove(request: HttpRequest, name: str) -> HttpResponse:
    """Destructive: the name has to be typed."""
    actor, row = frame.find(request, name)
    if answer := _unconfirmed(request, row, "removed"):
        return answer
    try:
        services.remove_deployment(actor, row)
    except SlipwayError as error:
        return refusals.back(request, error, reverse("deployments:settings", args=[row.name]))
    messages.success(request, f"“{row.name}” drains and is removed.")
    return redirect(reverse("deployments:deployments"))
