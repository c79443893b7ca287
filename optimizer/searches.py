"""The verbs on searches, and the step that carries one on.

A search is a row and its jobs. Whoever looks at both knows what to do next, so a step may be repeated, come late or be
cut off: the row is locked while its next job is queued, and a place of the plan has one job. Refused: a chain from the
job that ends to the next one, which a crash between the two would break.
"""

import hashlib
import json
from functools import partial
from typing import get_args

import structlog
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus
from controlplane.core import transitions as guarded
from controlplane.core.clock import database_now
from controlplane.core.errors import Conflict, SlipwayError, TooMany, Unprocessable
from controlplane.registry.formats import TENSORRT, with_article
from controlplane.registry.models import Dataset, Variant
from optimizer import services, transitions
from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.domain.recipe import Recipe, Step
from optimizer.domain.search import EDGES, Budget, SearchState, Stop, decide, plan
from optimizer.models import Search, Worker
from optimizer.shortlist import Evidence, in_words
from optimizer.techniques import TECHNIQUES, check_recipe, needs_of, technique
from optimizer.techniques.tensorrt.technique import AHEAD, Capability
from optimizer.workbench.formats import compared_on_gpu

log = structlog.get_logger(__name__)

MAX_JOBS = 50
MAX_MINUTES = 24 * 60

EXPORT = Step(technique="onnx-export")
GRAPHS = (Step(technique="onnx-graph"), Step(technique="onnx-graph", params={"tool": "onnxslim"}))
PRECISIONS = (
    Step(technique="int8-dynamic"),
    Step(technique="openvino"),
    Step(technique="int8-static"),
    Step(technique="int8-static", params={"tool": "nncf"}),
    Step(technique="fp16"),
)
"""What gains most on most processors comes first: the budget may end before the list does."""
FOR_ENGINES = (Step(technique="fp16"), Step(technique="int8-static", params={"tool": "nncf"}))
"""Precisions that TensorRT takes an ONNX model in."""
CAPABILITIES = get_args(Capability.__value__)


def start(
    actor: Actor,
    parent: Variant,
    *,
    evaluation_set: Dataset | None = None,
    calibration_set: Dataset | None = None,
    gpu: str = "",
    max_jobs: int = 12,
    max_minutes: int = 60,
    idempotency_key: str | None = None,
) -> tuple[Search, bool]:
    """Begins a search; returns it and whether it is new: the same key gives the first one again, and without a key so
    does the same request while its search runs. `gpu` is a compute capability: what TensorRT can make for that is then
    measured there, instead of what processors run.

    Raises Unprocessable where no recipe can be tried or `gpu` names none, and Conflict for damaged or quarantined
    input, a key that came with another request, or what was deleted meanwhile.
    """
    actor.require(Role.ENGINEER)
    services.check_key(idempotency_key)
    has_data = evaluation_set is not None or calibration_set is not None
    recipes, left_out = _planned(parent, gpu=gpu, has_data=has_data)
    digest = _digest(parent, evaluation_set, calibration_set, max_jobs, max_minutes, gpu)
    known = _known(actor, idempotency_key, digest)
    if known is not None:
        return known, False
    services.refuse_unusable(parent)
    if not recipes:
        raise Unprocessable("nothing_to_try", "No recipe can be tried on this variant.", _reasons(left_out))
    try:
        with transaction.atomic():
            list(Variant.objects.select_for_update(no_key=True).filter(pk=parent.pk).values_list("pk"))
            known = _known(actor, idempotency_key, digest)
            if known is not None:
                return known, False
            search = Search.objects.create(
                team=actor.team,
                version=parent.version,
                parent=parent,
                plan=[recipe.to_json() for recipe in recipes],
                left_out=left_out,
                evaluation_set=evaluation_set,
                calibration_set=calibration_set,
                gpu=gpu,
                max_jobs=max_jobs,
                max_minutes=max_minutes,
                idempotency_key=idempotency_key,
                request_digest=digest,
                created_by=actor.user,
            )
            _audit(actor, "started", search)
            announce(search)
            bus.wake_dispatcher(bus.Due.SEARCHES)
    except IntegrityError as error:
        known = _known(actor, idempotency_key, digest)
        if known is not None:
            return known, False
        raise Conflict(
            "input_gone", "The version or a data set was deleted in the meantime.", "Choose another one."
        ) from error
    return search, True


def _reasons(left_out: list[dict[str, str]]) -> str:
    """Each once, with the recipes that it holds for."""
    recipes: dict[str, list[str]] = {}
    for row in left_out:
        recipes.setdefault(row["reason"], []).append(row["recipe"])
    return " ".join(f"{', '.join(names)}: {reason}" for reason, names in recipes.items())


def cancel(actor: Actor, search: Search) -> str:
    """Ends the search and its job. Returns the state reached; Conflict when it is over. No new job can be queued
    between the two: the step that does it holds the row."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not _end(search, SearchState.CANCELLED, "Cancelled."):
            search.refresh_from_db(fields=["state"])
            raise Conflict(
                "search_is_over",
                f"Search {search.pk} has already {search.state}.",
                "There is nothing to cancel.",
            )
        _audit(actor, "cancelled", search)
        for job in search.jobs.exclude(state__in=TERMINAL):
            transitions.cancel(job)
    return SearchState.CANCELLED


def advance_all() -> int:
    """For the dispatcher: one step of every search that runs. Returns how many took one."""
    return sum(
        advance(pk) for pk in Search.objects.filter(state=SearchState.RUNNING).values_list("pk", flat=True)
    )


def advance(search_id: int) -> bool:
    """Queues the next job, or ends the search; nothing while a job of it is active or somebody else is at it. A job
    that nobody began before the time was up is cancelled. Returns whether anything changed."""
    with transaction.atomic():
        running = Search.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        search = (
            running.select_related("team", "version__model", "parent__version__model", "parent__artifact")
            .filter(pk=search_id, state=SearchState.RUNNING)
            .first()
        )
        if search is None:
            return False
        elapsed_minutes = (database_now() - search.created_at).total_seconds() / 60
        if active := list(search.jobs.exclude(state__in=TERMINAL)):
            late = elapsed_minutes >= search.max_minutes
            stuck = [job for job in active if late and job.state == JobState.QUEUED]
            return bool([transitions.cancel(job) for job in stuck])
        evidence = Evidence.of(search)
        measured = evidence.measured
        found = decide(
            evidence.recipes,
            measured,
            parent=evidence.parent,
            budget=Budget(max_jobs=search.max_jobs, max_minutes=search.max_minutes),
            elapsed_minutes=elapsed_minutes,
        )
        if isinstance(found, Stop):
            nothing = bool(measured) and not any(measured.values())
            why = f"{found.why} None of them could be measured." if nothing else found.why
            return _end(search, SearchState.FAILED if nothing else SearchState.SUCCEEDED, why)
        return _queue(search, found.index)


def _queue(search: Search, index: int) -> bool:
    try:
        with transaction.atomic():
            services.optimize(
                Actor(team=search.team, role=Role.ENGINEER, user=search.created_by),
                search.parent,
                recipe=Recipe.from_json(search.plan[index]),
                evaluation_set=search.evaluation_set,
                calibration_set=search.calibration_set,
                gpu=search.gpu,
                search=search,
                search_index=index,
            )
    except TooMany:
        return False
    except SlipwayError as error:
        return _end(search, SearchState.FAILED, f"{error.title} {error.detail}".strip())
    announce(search)
    return True


def announce(search: Search) -> None:
    bus.publish(f"search:{search.pk}", "searches", team_id=search.team_id)


def _planned(parent: Variant, *, gpu: str, has_data: bool) -> tuple[list[Recipe], list[dict[str, str]]]:
    """What can run on this variant and has a worker that would, and the rest with the reason."""
    left_out: list[dict[str, str]] = []
    accepted = partial(
        _accepted, parent=parent, offered=_queues(), gpu=gpu, has_data=has_data, left_out=left_out
    )
    needs_export = any(kind.format == parent.format for kind in technique(EXPORT.technique).takes)
    first = (EXPORT,) if needs_export else ()
    last = (_engine(gpu),) if gpu else ()
    graphs, precisions = (
        [
            step
            for step in steps
            if step.technique in TECHNIQUES and accepted(Recipe(steps=(*first, step, *last)))
        ]
        for steps in (((), FOR_ENGINES) if gpu else (GRAPHS, PRECISIONS))
    )
    recipes = map(accepted, plan(graphs=graphs, precisions=precisions, first=first, last=last))
    return [recipe for recipe in recipes if recipe is not None], left_out


def _engine(gpu: str) -> Step:
    """Raises Unprocessable("invalid_gpu")."""
    if gpu not in CAPABILITIES:
        raise Unprocessable(
            "invalid_gpu",
            f"TensorRT builds for no GPU “{gpu[:20]}”.",
            f"Give a compute capability: {', '.join(CAPABILITIES)}.",
        )
    builder = "rtx" if gpu in AHEAD else "tensorrt"
    return Step(technique="tensorrt", params={"builder": builder, "capabilities": [gpu]})


def _accepted(
    recipe: Recipe,
    *,
    parent: Variant,
    offered: set[str],
    gpu: str,
    has_data: bool,
    left_out: list[dict[str, str]],
) -> Recipe | None:
    if gpu and not compared_on_gpu(parent.format, TENSORRT):
        reason = f"Nothing here runs {with_article(parent.format)} on a GPU: start from its ONNX variant."
        left_out.append({"recipe": in_words(recipe), "reason": reason})
        return None
    try:
        accepted = check_recipe(
            recipe,
            signature=parent.signature,
            summary=parent.version.summary | {"precision": parent.precision, "format": parent.format},
            has_calibration=has_data,
        )
    except Unprocessable as error:
        left_out.append({"recipe": in_words(recipe), "reason": f"{error.title} {error.detail}".strip()})
        return None
    needed = needs_of(accepted, parent_format=parent.format, gpu=gpu).queue
    if offered and needed not in offered:
        left_out.append({"recipe": in_words(recipe), "reason": f"No worker listens to {needed}."})
        return None
    return accepted


def _queues() -> set[str]:
    """Those of all workers; none where there is no worker yet, which may still come."""
    return {name for queues in Worker.objects.values_list("queues", flat=True) for name in queues}


def _known(actor: Actor, key: str | None, digest: str) -> Search | None:
    rows = Search.objects.filter(team=actor.team)
    if key is None:
        return rows.filter(request_digest=digest, state=SearchState.RUNNING).first()
    found = rows.filter(idempotency_key=key).first()
    if found is not None and found.request_digest != digest:
        raise Conflict(
            "idempotency_key_reused",
            "This idempotency key came with another request before.",
            f"It belongs to search {found.pk}. Use a new key for a new request.",
        )
    return found


def _digest(
    parent: Variant,
    evaluation: Dataset | None,
    calibration: Dataset | None,
    max_jobs: int,
    max_minutes: int,
    gpu: str,
) -> str:
    rows = [row.pk if row else None for row in (parent, evaluation, calibration)]
    asked = [*rows, max_jobs, max_minutes, *([gpu] if gpu else [])]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _end(search: Search, state: SearchState, message: str) -> bool:
    moved = guarded.move(
        Search.objects.filter(pk=search.pk),
        edges=EDGES,
        to=state,
        changes={"finished_at": Now(), "message": message},
    )
    if moved:
        announce(search)
    return moved


def _audit(actor: Actor, verb: str, search: Search) -> None:
    audit.record(
        actor,
        verb,
        object_type="search",
        object_id=search.pk,
        object_name=f"search {search.pk} on {search.version}",
        object_url=search.get_absolute_url(),
        details={"recipes": len(search.plan), "max_jobs": search.max_jobs, "max_minutes": search.max_minutes},
    )
