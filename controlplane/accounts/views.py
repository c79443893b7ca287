"""The pages of Settings and Activity. Each view parses, asks through the actor's team, calls one verb, renders."""

from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts import selectors, services, tables
from controlplane.accounts.access import actor_of
from controlplane.accounts.forms import ActivityFilterForm, NewMemberForm, NewTokenForm, RoleForm
from controlplane.accounts.models import Membership, Role, User
from controlplane.core import lists, refusals
from controlplane.core.errors import Conflict
from controlplane.core.forms import VerbForm
from controlplane.core.lists import Listing

read_and_post = require_http_methods(["GET", "HEAD", "POST"])


def _tabs(current: str) -> list[dict[str, Any]]:
    tabs = (("settings", "Profile"), ("tokens", "API tokens"), ("members", "Members"))
    return [
        {"label": label, "url": reverse(f"accounts:{name}"), "current": name == current}
        for name, label in tabs
    ]


@require_safe
def profile(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    teams = selectors.memberships(cast(User, actor.user))
    context = {"tabs": _tabs("settings"), "actor": actor, "teams": teams}
    return render(request, "accounts/profile.html", context)


@require_POST
def end_sessions(request: HttpRequest) -> HttpResponse:
    ended = services.end_other_sessions(actor_of(request), keep=request.session.session_key or "")
    messages.success(request, f"Signed out of {ended} other browser{'' if ended == 1 else 's'}.")
    return redirect("accounts:settings")


@require_POST
def switch_team(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    teams = selectors.memberships(cast(User, actor.user))
    services.switch_team(
        actor, request.session, get_object_or_404(teams, team__name=request.POST.get("team", ""))
    )
    return redirect("ui:overview")


@never_cache
@read_and_post
def tokens(request: HttpRequest) -> HttpResponseBase:
    """A new token is shown in the answer to its form: a redirect would have to keep it somewhere."""
    actor = actor_of(request)
    if request.GET.get("part") == "csv":
        return tables.tokens_csv(selectors.tokens(actor))
    form = NewTokenForm(actor, request.POST if request.method == "POST" else None)
    made = form.create() if request.method == "POST" else None
    context = {
        "tabs": _tabs("tokens"),
        "form": NewTokenForm(actor) if made else form,
        "made": made,
        "curl": _first_call(request, made[1]) if made else "",
        "tokens": selectors.tokens(actor),
        "example": {"name": "nightly upload", "role": str(actor.role), "expires_in_days": 30},
    }
    return render(request, "accounts/tokens.html", context, status=201 if made else form.status)


def _first_call(request: HttpRequest, token: str) -> str:
    address = request.build_absolute_uri("/api/v1/me/")
    return f'export SLIPWAY_TOKEN={token}\ncurl {address} -H "Authorization: Bearer $SLIPWAY_TOKEN"'


@read_and_post
def revoke_token(request: HttpRequest, token_key: str) -> HttpResponse:
    """GET asks, for a reader without script; POST does it."""
    actor = actor_of(request)
    token = selectors.token(actor, token_key)
    if request.method != "POST":
        return render(request, "accounts/revoke_token.html", {"tabs": _tabs("tokens"), "token": token})
    services.revoke_token(actor, token)
    messages.success(request, f"The token “{token.name}” is revoked.")
    return redirect("accounts:tokens")


@never_cache
@read_and_post
def members(request: HttpRequest) -> HttpResponseBase:
    """A new person's password is shown in the answer to the form, and nowhere else."""
    if request.method != "POST":
        rows, sorts = selectors.members(actor_of(request)), selectors.MEMBER_SORTS
        part = lists.part(request, rows, csv=tables.members_csv, sorts=sorts, default="name")
        return part or _members_page(request, NewMemberForm())
    form = NewMemberForm(request.POST)
    added = form.add(actor_of(request))
    return _members_page(request, NewMemberForm() if added else form, refused=form, added=added)


def _members_page(
    request: HttpRequest,
    form: NewMemberForm,
    *,
    refused: VerbForm | None = None,
    added: tuple[Membership, str] | None = None,
) -> HttpResponse:
    """The list; with what was just added, or with why something was not, and then with that status."""
    actor = actor_of(request)
    context = {
        "tabs": _tabs("members"),
        "actor": actor,
        "may_manage": actor.may(Role.ADMIN),
        "form": form,
        "refused": refused,
        "added": added,
        "listing": Listing(
            request, selectors.members(actor), noun="member", sorts=selectors.MEMBER_SORTS, default="name"
        ),
        "roles": Role.choices,
        "login": request.build_absolute_uri("/"),
        "example": {"username": "ada", "role": "engineer"},
        "role_example": {"role": "viewer"},
    }
    status = 201 if added else refused.status if refused else 200
    return render(request, "accounts/members.html", context, status=status)


@require_POST
def change_role(request: HttpRequest, username: str) -> HttpResponse:
    actor = actor_of(request)
    row = selectors.member(actor, username)
    form = RoleForm(request.POST)
    changed = form.change(actor, row)
    if changed is None:
        return _members_page(request, NewMemberForm(), refused=form)
    messages.success(request, f"{username} is now {Role(changed.role).label.lower()}.")
    return redirect("accounts:members")


@read_and_post
def remove_member(request: HttpRequest, username: str) -> HttpResponse:
    """GET asks, for a reader without script; POST does it."""
    actor = actor_of(request)
    row = selectors.member(actor, username)
    own = row.user == actor.user
    if request.method != "POST":
        context = {"tabs": _tabs("members"), "row": row, "own": own}
        return render(request, "accounts/remove_member.html", context)
    try:
        services.remove_member(actor, row)
    except Conflict as error:
        return refusals.back(request, error, "accounts:members")
    messages.success(request, f"{username} is no longer a member of {actor.team.name}.")
    return redirect("ui:overview" if own else "accounts:members")


@require_safe
def activity(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    form = ActivityFilterForm(actor, request.GET)
    wanted = form.wanted()
    rows = selectors.activity(actor, wanted)
    if part := lists.part(request, rows, csv=tables.activity_csv):
        return part
    context = {
        "form": form,
        "listing": Listing(request, rows, noun="event"),
        "filtered": wanted != selectors.ActivityFilter(),
    }
    return render(request, "accounts/activity.html", context)
