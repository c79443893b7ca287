"""The moves between revisions: a list, one page each with its evidence, and what a person can do to one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from controlplane.accounts.access import Actor
from controlplane.core import lists, refusals
from controlplane.core.errors import SlipwayError
from controlplane.core.lists import Listing
from deployments import moves, selectors, services
from deployments import rollouts as verbs
from deployments.domain import loglines, rollout_words
from deployments.domain.plan import Change, counts
from deployments.domain.rollouts import RolloutState
from deployments.domain.spec import RevisionSpec, Strategy
from deployments.models import Deployment, Rollout
from deployments.views import frame, tables

CANCELLABLE = (RolloutState.PENDING, RolloutState.RUNNING, RolloutState.PAUSED)
WENT_WRONG = (RolloutState.FAILED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED)


@require_safe
def rollouts(request: HttpRequest, name: str) -> HttpResponseBase:
    actor, row = frame.find(request, name)
    rows = selectors.rollouts(row)
    if part := lists.part(request, rows, csv=partial(tables.rollouts_csv, row.name)):
        return part
    return frame.page(
        request,
        actor,
        row,
        tab="rollouts",
        listing=Listing(request, rows, noun="rollout"),
    )


@require_safe
def rollout(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    actor, row = frame.find(request, name)
    found = get_object_or_404(selectors.rollouts(row), pk=rollout)
    events = list(found.events.all())
    return frame.page(
        request,
        actor,
        row,
        tab="rollouts",
        template="deployments/rollout.html",
        rollout=found,
        events=events,
        took_s=(found.finished_at - found.created_at).total_seconds() if found.finished_at else None,
        failing=[
            one | {"lines": [loglines.read(text) for text in one["log_tail"]]}
            for one in found.evidence.get("replicas", [])
        ],
        plan=found.plan,
        plan_counts=counts([Change.from_json(change) for change in found.plan]),
        after_label=f"Revision {found.to_revision.number}",
        rollout_path=f"/api/v1/deployments/{row.name}/rollouts/{found.pk}/",
        **_strategy(found),
        **_allowed(row, found),
    )


def _strategy(found: Rollout) -> dict[str, Any]:
    """The strategy in words, where it is, and what its steps have shown."""
    policy = RevisionSpec.from_json(found.to_revision.spec).rollout
    state = moves.step_of(found)
    until = rollout_words.hold_until(policy, state, found.state)
    return {
        "strategy": rollout_words.strategy(policy, first=found.from_revision is None),
        "place": rollout_words.place(policy, state) if found.from_revision else "",
        "since": state.since if found.finished_at is None else None,
        "share": found.step.get("share") if found.finished_at is None else None,
        "hold_until": until,
        "hold_left_s": max(0.0, (until - frame.now()).total_seconds()) if until else None,
        "steps": rollout_words.steps(policy, state, found.state, found.evidence.get("steps") or {})
        if found.from_revision
        else (),
    }


def _allowed(row: Deployment, found: Rollout) -> dict[str, Any]:
    policy = RevisionSpec.from_json(found.to_revision.spec).rollout
    canary = policy.strategy is Strategy.CANARY and found.from_revision is not None
    under_way = found.state in (RolloutState.RUNNING, RolloutState.PAUSED)
    return {
        "may_cancel": found.state in CANCELLABLE,
        "may_pause": found.state == RolloutState.RUNNING,
        "may_resume": found.state == RolloutState.PAUSED,
        "is_canary": canary,
        "may_promote": canary and under_way and moves.step_of(found).index < len(policy.steps),
        "may_retry": found.state in WENT_WRONG
        and selectors.active_rollout(row) is None
        and row.live_revision_id != found.to_revision_id,
    }


@require_POST
def cancel(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    return _do(request, name, rollout, services.cancel_rollout)


@require_POST
def pause(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    return _do(request, name, rollout, verbs.pause)


@require_POST
def resume(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    return _do(request, name, rollout, verbs.resume)


@require_POST
def promote(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    return _do(request, name, rollout, verbs.promote, said="The step passed by your word.")


def _do(
    request: HttpRequest,
    name: str,
    rollout: int,
    verb: Callable[[Actor, Rollout], Rollout],
    *,
    said: str = "",
) -> HttpResponse:
    actor, row = frame.find(request, name)
    found = get_object_or_404(selectors.rollouts(row), pk=rollout)
    try:
        verb(actor, found)
    except SlipwayError as error:
        return refusals.back(request, error, reverse("deployments:rollout", args=[row.name, rollout]))
    return frame.done(request, row, "rollout", said or found.message, rollout)
