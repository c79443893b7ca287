"""The pages on which an admin says what may be done with a version: trust in its code, and the end of a quarantine."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.registry import selectors, services, trust
from controlplane.registry.forms import ConfirmForm
from controlplane.registry.models import Version
from controlplane.registry.views import form_page, read_and_post, went_well


@read_and_post
def trust_version(request: HttpRequest, name: str, number: int) -> HttpResponse:
    said = f"Version {number} is trusted: jobs may open it."
    return _confirmed(request, name, number, "trust_version", trust.trust, said=said)


@read_and_post
def withdraw_trust(request: HttpRequest, name: str, number: int) -> HttpResponse:
    said = f"Version {number} is no longer trusted: no job opens it."
    return _confirmed(request, name, number, "withdraw_trust", trust.withdraw, said=said)


@read_and_post
def lift_quarantine(request: HttpRequest, name: str, number: int) -> HttpResponse:
    said = f"The quarantine of version {number} is lifted."
    return _confirmed(request, name, number, "lift_quarantine", services.lift_quarantine, said=said)


def _confirmed(
    request: HttpRequest,
    name: str,
    number: int,
    template: str,
    verb: Callable[[Actor, Version], object],
    *,
    said: str,
) -> HttpResponse:
    """By the name of the version, typed."""
    actor = actor_of(request)
    row = selectors.version(actor, name, number)
    actor.require(Role.ADMIN)
    form = ConfirmForm(f"{name}/{number}", request.POST if request.method == "POST" else None)
    if request.method == "POST":
        form.attempt(lambda: verb(actor, row))
        if not form.errors:
            return went_well(request, row.get_absolute_url(), said)
    return form_page(request, template, row.model, {"version": row, "form": form}, status=form.status)
