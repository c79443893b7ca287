"""Importing what others run in a cluster: what there is, and one of them as a revision would say it."""

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts.models import Role
from controlplane.core.errors import SlipwayError
from controlplane.registry.models import Variant
from deployments import clusters, handover, imports
from deployments.domain import readable
from deployments.domain.origin import Reading
from deployments.forms import stack_choices, take_refusal, variant_choices, variant_key
from deployments.models import Target
from deployments.views import frame
from deployments.views.lists import servable
from deployments.views.targets import find


class ImportForm(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=63,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Of the deployment here, and not the same: its objects stand beside theirs.",
    )
    variant = forms.ChoiceField(
        label="Variant",
        help_text="What it serves, as this team has it: Slipway cannot tell it from an image.",
    )
    stack = forms.ChoiceField(
        label="Stack",
        help_text="What would serve it here. Guessed by the image; not every stack takes every variant.",
    )

    def __init__(self, *args: object, variants: list[Variant], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._variants = {variant_key(one): one for one in variants}
        for name, choices in (("variant", variant_choices(variants)), ("stack", stack_choices())):
            chosen = self.fields[name]
            assert isinstance(chosen, forms.ChoiceField)
            chosen.choices = choices

    def chosen_variant(self) -> Variant:
        return self._variants[self.cleaned_data["variant"]]


@require_safe
def importable(request: HttpRequest, name: str) -> HttpResponse:
    """Asks the cluster now; one that does not answer is said in the page."""
    actor, row = find(request, name)
    clusters.refuse_no_cluster(row)
    context = {
        "target": row,
        "may_change": actor.may(Role.ENGINEER),
        "api": f"/api/v1/targets/{row.name}/imports/",
    }
    try:
        return render(request, "targets/imports.html", context | {"found": imports.importable(row)})
    except SlipwayError as error:
        return render(request, "targets/imports.html", context | {"refusal": error}, status=error.status)


@require_http_methods(["GET", "HEAD", "POST"])
def one(request: HttpRequest, name: str, source: str) -> HttpResponse:
    """The form; POST imports it, which changes nothing in the cluster."""
    actor, row = find(request, name)
    actor.require(Role.ENGINEER)
    reading = imports.read(row, source)
    variants = servable(actor)
    initial = {"name": imports.proposed_name(source), "stack": reading.spec["stack"]}
    form = ImportForm(request.POST or None, initial=initial, variants=variants)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                made, _ = imports.import_deployment(
                    actor,
                    row,
                    source=source,
                    name=form.cleaned_data["name"],
                    variant=form.chosen_variant(),
                    stack=form.cleaned_data["stack"],
                )
                messages.success(request, f"“{made.name}” is imported. Nothing was changed in the cluster.")
                return redirect(made.get_absolute_url())
            except SlipwayError as error:
                take_refusal(form, error)
                status = error.status
    context = {
        "target": row,
        "reading": reading,
        "facts": _facts(reading, row),
        "form": form,
        "variants": variants,
        "api": f"/api/v1/targets/{row.name}/imports/",
        "body": {"deployment": source, "model": "fraud-detector", "version": 1, "variant": 0},
    }
    return render(request, "targets/import.html", context, status=status)


def _facts(reading: Reading, row: Target) -> list[tuple[str, object]]:
    """What its revision 1 would say, without what is chosen in the form."""
    spec = imports.spec_of(reading, row)
    hpa = spec.hpa()
    bounds = {"min_replicas": hpa.min_replicas, "max_replicas": hpa.max_replicas}
    return readable.flat({"autoscaling": bounds} | (readable.cluster(spec.cluster) if spec.cluster else {}))


@require_POST
def give_back(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = frame.find(request, name)
    said = "Its own replicas come back first; its callers and then Slipway's replicas follow."
    return frame.attempt(request, row, lambda: handover.give_back(actor, row), to="deployment", said=said)
