"""Queries about deployments, each deciding once what it fetches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan

from django.db.models import (
    Case,
    Count,
    DateTimeField,
    Exists,
    F,
    Func,
    IntegerField,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Greatest

from controlplane.accounts.access import Actor
from deployments.domain.origin import Stage
from deployments.domain.rollouts import ACTIVE, Health, RolloutState, health
from deployments.domain.sketch import quantile_rows
from deployments.domain.workload import TargetStatus
from deployments.models import Decision, Deployment, ImportedFrom, Load, Revision, Rollout, Target
from deployments.telemetry import store
from deployments.telemetry.rollup import DEPLOYMENT_LEVELS, Window

ACTIVE_STATES = [str(state) for state in ACTIVE]
FEW = 10
FRESH_S = 45
"""A figure of the list older than this is not shown as the present one."""


def deployments(actor: Actor) -> QuerySet[Deployment]:
    """A team's deployments with what a row needs: target, live revision and variant, active rollout, and when
    it last changed."""
    latest = Rollout.objects.filter(deployment=OuterRef("pk")).order_by("-pk")
    active = Rollout.objects.filter(state__in=ACTIVE_STATES).select_related("to_revision", "created_by")
    return (
        Deployment.objects.in_team(actor.team)
        .select_related("team", "target", "live_revision__variant__version__model", "imported_from")
        .prefetch_related(Prefetch("rollouts", queryset=active, to_attr="active_rollouts"))
        .annotate(
            last_rollout_state=Subquery(latest.values("state")[:1]),
            changed_at=Greatest(
                "created_at",
                Coalesce(
                    Subquery(latest.values("finished_at")[:1]), Subquery(latest.values("created_at")[:1])
                ),
                output_field=DateTimeField(),
            ),
        )
    )


SORTS = {"name": "name", "changed": "changed_at"}


def list_topics(rows: Sequence[Deployment]) -> str:
    """What a list of deployments with their figures listens to. A tick of one refreshes all, and the collector ticks
    each in the same period, so a few speak for the whole."""
    return ",".join(["deployments", *(f"metrics:{row.pk}" for row in rows[:FEW])])


def targets(actor: Actor) -> QuerySet[Target]:
    """A team's targets with what is known of each through its deployments: how many, when one was last seen there, and
    since when it does not answer."""
    return Target.objects.in_team(actor.team).annotate(
        used_by=Count("deployments"),
        last_seen=Max("deployments__observed_at"),
        away_since=Min("deployments__unreachable_since"),
    )


class _ReadySeen(Func):
    """`TargetStatus.ready()` of a stored status."""

    template = "jsonb_array_length(jsonb_path_query_array(%(expressions)s, '$.replicas[*] ? (@.state == \"ready\")'))"
    output_field = IntegerField()


def _in_health(rows: QuerySet[Deployment], wanted: str) -> QuerySet[Deployment]:
    """The questions of `domain.rollouts.health` in their order, asked in SQL; a test holds the two together."""
    active = Exists(Rollout.objects.filter(deployment=OuterRef("pk"), state__in=ACTIVE_STATES))
    theirs = ~active & Q(imported_from__state=Stage.READ_ONLY)
    nothing_live = ~active & Q(live_revision=None)
    found = Case(
        When(removing=True, then=Value(Health.REMOVING)),
        When(theirs & Q(unreachable_since=None), then=Value(Health.READ_ONLY)),
        When(theirs, then=Value(Health.UNREACHABLE)),
        When(nothing_live & Q(last_rollout_state=RolloutState.FAILED), then=Value(Health.FAILED)),
        When(nothing_live, then=Value(Health.PENDING)),
        When(unreachable_since__isnull=False, then=Value(Health.UNREACHABLE)),
        When(active, then=Value(Health.PROGRESSING)),
        When(replicas=0, then=Value(Health.SCALED_TO_ZERO)),
        When(ready_seen=0, then=Value(Health.FAILED)),
        When(ready_seen__gte=F("replicas"), then=Value(Health.HEALTHY)),
        default=Value(Health.DEGRADED),
    )
    return rows.alias(ready_seen=_ReadySeen("observed")).alias(found=found).filter(found=wanted)


def search(rows: QuerySet[Deployment], *, text: str = "", health: str = "") -> QuerySet[Deployment]:
    """Literal match of the name or the live model's name; `health` is a word of `Health`. Of `deployments`."""
    if text:
        rows = rows.filter(name__icontains=text) | rows.filter(
            live_revision__variant__version__model__name__icontains=text
        )
    return _in_health(rows, health) if health else rows


def revisions(deployment: Deployment) -> QuerySet[Revision]:
    return deployment.revisions.select_related("variant__version__model", "created_by")


def rollouts(deployment: Deployment) -> QuerySet[Rollout]:
    return deployment.rollouts.select_related("deployment", "from_revision", "to_revision", "created_by")


def active_rollout(deployment: Deployment) -> Rollout | None:
    prefetched = getattr(deployment, "active_rollouts", None)
    if prefetched is not None:
        return prefetched[0] if prefetched else None
    active = deployment.rollouts.filter(state__in=ACTIVE_STATES)
    return active.select_related("to_revision", "from_revision", "created_by").first()


def imported_from(deployment: Deployment) -> ImportedFrom | None:
    """None for one that was made here. A query, unless it was selected with its row."""
    try:
        return deployment.imported_from
    except ImportedFrom.DoesNotExist:
        return None


def is_read_only(deployment: Deployment) -> bool:
    """Whether nothing of it is Slipway's: no rollout has taken it over, and none is under way."""
    imported = imported_from(deployment)
    return (
        imported is not None
        and imported.state == Stage.READ_ONLY
        and not deployment.removing
        and active_rollout(deployment) is None
    )


def status(deployment: Deployment) -> TargetStatus | None:
    """What was last observed; its age is `deployment.observed_at`."""
    return TargetStatus.from_json(deployment.observed) if deployment.observed else None


def health_of(deployment: Deployment) -> Health:
    seen = status(deployment)
    return health(
        removing=deployment.removing,
        reachable=deployment.unreachable_since is None,
        has_revision=deployment.live_revision_id is not None,
        rollout_active=active_rollout(deployment) is not None,
        last_failed=_last_failed(deployment),
        wanted=deployment.replicas if deployment.live_revision_id else 0,
        ready=seen.ready() if seen else 0,
        read_only=is_read_only(deployment),
    )


def _last_failed(deployment: Deployment) -> bool:
    """Only asked for where nothing is live."""
    if deployment.live_revision_id is not None:
        return False
    if hasattr(deployment, "last_rollout_state"):
        return bool(deployment.last_rollout_state == RolloutState.FAILED)
    return deployment.rollouts.values_list("state", flat=True).first() == RolloutState.FAILED


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a row shows: series of the last five minutes with gaps as None, and the present value of each."""

    p99_ms: Sequence[float | None]
    requests_per_s: Sequence[float | None]
    queue_depth: Sequence[float | None]
    replicas: Sequence[float | None]
    latest_p99_ms: float | None
    latest_requests_per_s: float | None
    latest_queue_depth: float | None


def overview_figures(rows: Sequence[Deployment], *, points: int = 30) -> dict[int, Figures]:
    """By deployment id. One query, whatever the number of rows."""
    found = store.latest([row.pk for row in rows], points=points)
    now = datetime.now(UTC).timestamp()
    return {row.pk: _figures(found.get(row.pk, []), now=now, points=points) for row in rows}


def _figures(windows: Sequence[Window], *, now: float, points: int) -> Figures:
    step = DEPLOYMENT_LEVELS[0].resolution_s
    end = int(max((window.key.ts for window in windows), default=now)) // step * step
    by_ts = {window.key.ts: window for window in windows}
    row = [by_ts.get(end - step * back) for back in reversed(range(points))]
    p99 = _p99_ms(row)
    rates = [one.throughput if one else None for one in row]
    queue = [one.queue_depth_mean if one else None for one in row]
    fresh = now - (end + step) <= FRESH_S
    return Figures(
        p99_ms=p99,
        requests_per_s=rates,
        queue_depth=queue,
        replicas=[one.replicas_ready if one else None for one in row],
        latest_p99_ms=p99[-1] if fresh else None,
        latest_requests_per_s=rates[-1] if fresh else None,
        latest_queue_depth=queue[-1] if fresh else None,
    )


def _p99_ms(row: Sequence[Window | None]) -> list[float | None]:
    places = [place for place, window in enumerate(row) if window and window.latency]
    found: list[float | None] = [None] * len(row)
    blobs = (window.latency for window in row if window and window.latency)
    for place, seconds in zip(places, quantile_rows(blobs, [0.99])[:, 0], strict=True):
        found[place] = None if isnan(seconds) else float(seconds) * 1000
    return found


def latest_decision(deployment: Deployment) -> Decision | None:
    return deployment.decisions.first()


def decisions(deployment: Deployment, *, changes_only: bool = False) -> QuerySet[Decision]:
    """Newest first; with `changes_only` those that moved the size."""
    rows = deployment.decisions.all()
    return rows.exclude(desired_replicas=F("current_replicas")) if changes_only else rows


def load_of(deployment: Deployment) -> Load | None:
    return Load.objects.filter(deployment=deployment).select_related("started_by").first()


def uses(variant_ids: list[int]) -> Iterable[str]:
    """For `registry.usage`: revisions of deployments that exist."""
    rows = Revision.objects.filter(variant__in=variant_ids).select_related("deployment")
    return [f"revision {row.number} of deployment “{row.deployment.name}” uses it" for row in rows]
