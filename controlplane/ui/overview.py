"""What the first page shows: what needs a person, in sentences with a link each, then a row per deployment.

The one place where jobs and deployments are looked at together. Refused: a score or a traffic light for the whole;
a sentence that names the thing and what to do says more.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min

from controlplane.accounts.access import Actor
from controlplane.core import formats
from controlplane.core.vocabulary import Tone
from controlplane.registry.models import Artifact, Variant
from deployments import selectors as deployments
from deployments.domain import words
from deployments.domain.rollouts import Health, RolloutState
from deployments.domain.spec import RevisionSpec
from deployments.models import Decision, Deployment, Rollout
from optimizer import fleet
from optimizer import selectors as optimizer
from optimizer.domain.jobs import JobState
from optimizer.models import Job

RECENT = timedelta(days=1)
STALE_AFTER = timedelta(seconds=45)
"""Four times what passes between two looks of the reconciler; a decision is made every two seconds."""
WAITS_AFTER = timedelta(seconds=10)
MOST_ROWS = 50
MOST_NOTES = 5
"""Of one kind; the rest is one line that leads to all of them."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """One sentence that needs a person: `subject` is its bold beginning, `action` the words of its link."""

    tone: Tone
    subject: str
    text: str
    url: str
    action: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One deployment, as last observed."""

    deployment: Deployment
    health: Health
    figures: deployments.Figures
    ready: int
    wanted: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    notes: Sequence[Note]
    rows: Sequence[Row]
    more: int

    @property
    def list_topics(self) -> str:
        return deployments.list_topics([row.deployment for row in self.rows])


def overview(actor: Actor, *, now: datetime) -> Overview:
    """About ten queries, whatever the number of deployments and jobs."""
    found = list(deployments.deployments(actor)[: MOST_ROWS + 1])
    rows = _rows(found[:MOST_ROWS])
    notes = [
        *_of_deployments(rows, now=now),
        *_of_rollouts(actor, rows, now=now),
        *_of_failed_jobs(actor, now=now),
        *_of_waiting_jobs(actor, now=now),
        *_of_artifacts(actor),
        *_of_signals(rows, now=now),
    ]
    return Overview(notes=notes, rows=rows, more=max(0, len(found) - MOST_ROWS))


def _rows(found: Sequence[Deployment]) -> list[Row]:
    figures = deployments.overview_figures(found)
    return [_row(deployment, figures[deployment.pk]) for deployment in found]


def _row(deployment: Deployment, figures: deployments.Figures) -> Row:
    seen = deployments.status(deployment)
    return Row(
        deployment=deployment,
        health=deployments.health_of(deployment),
        figures=figures,
        ready=seen.ready() if seen else 0,
        wanted=deployment.replicas if deployment.live_revision_id else 0,
    )


def _of_deployments(rows: Iterable[Row], *, now: datetime) -> Iterator[Note]:
    for row in rows:
        said = _sentence(row, now=now)
        if said is not None:
            tone, text = said
            yield Note(
                tone=tone,
                subject=row.deployment.name,
                text=text,
                url=row.deployment.get_absolute_url(),
                action="See the deployment",
            )


def _sentence(row: Row, *, now: datetime) -> tuple[Tone, str] | None:
    match row.health:
        case Health.FAILED if row.deployment.live_revision_id is None:
            return Tone.FAILED, "has never served: its last rollout failed."
        case Health.FAILED:
            return Tone.FAILED, f"does not serve: none of its {row.wanted} replicas is ready."
        case Health.DEGRADED:
            return Tone.WARNING, f"serves with {row.ready} of {row.wanted} replicas."
        case Health.UNREACHABLE:
            since = row.deployment.unreachable_since
            silent = f" for {formats.duration((now - since).total_seconds())}" if since else ""
            return (
                Tone.UNKNOWN,
                f"cannot be observed: its target has not answered{silent}. It may still serve.",
            )
    return None


def _of_rollouts(actor: Actor, rows: Iterable[Row], *, now: datetime) -> Iterator[Note]:
    """The latest rollout of a deployment that serves, if it was turned back or failed."""
    serving = [row.deployment.pk for row in rows if row.deployment.live_revision_id]
    latest = (
        Rollout.objects.in_team(actor.team)
        .filter(deployment__in=serving)
        .select_related("deployment", "to_revision")
        .order_by("deployment_id", "-id")
        .distinct("deployment_id")
    )
    for rollout in latest:
        ended = rollout.finished_at or rollout.created_at
        if rollout.state in {RolloutState.FAILED, RolloutState.ROLLED_BACK} and now - ended < RECENT:
            yield Note(
                tone=Tone.WARNING,
                subject=rollout.deployment.name,
                text=f"did not take revision {rollout.to_revision.number}: {_clause(rollout.message)}",
                url=f"{rollout.deployment.get_absolute_url()}rollouts/{rollout.pk}/",
                action="See the rollout",
            )


def _clause(message: str) -> str:
    """A stored sentence in the middle of another."""
    text = " ".join(message.split()) or "no reason was recorded."
    return text[:200]


def _of_failed_jobs(actor: Actor, *, now: datetime) -> Iterator[Note]:
    """Those of the last day that nobody has tried again."""
    failed = optimizer.jobs(actor).filter(
        state=JobState.FAILED, finished_at__gt=now - RECENT, retries__isnull=True
    )
    found = list(failed.order_by("-id")[: MOST_NOTES + 1])
    for job in found[:MOST_NOTES]:
        why = _clause(job.message or job.reason.replace("_", " "))
        yield Note(
            tone=Tone.FAILED,
            subject=f"Job {job.pk}",
            text=f"on {job.version} failed: {why}",
            url=job.get_absolute_url(),
            action="See the job",
        )
    if len(found) > MOST_NOTES:
        yield Note(
            tone=Tone.FAILED,
            subject="More jobs",
            text="failed in the last day.",
            url="/jobs/?state=failed",
            action="See all failed jobs",
        )


def _of_waiting_jobs(actor: Actor, *, now: datetime) -> Iterator[Note]:
    waiting = (
        Job.objects.in_team(actor.team)
        .filter(state=JobState.QUEUED, run_after__lt=now - WAITS_AFTER)
        .order_by("queue")
        .values_list("queue")
        .annotate(jobs=Count("pk"), since=Min("run_after"))
    )
    if not waiting:
        return
    served = fleet.served_queues(now=now)
    for queue, jobs, since in waiting:
        if queue not in served:
            which = "One job has" if jobs == 1 else f"{jobs} jobs have"
            yield Note(
                tone=Tone.WARNING,
                subject=which,
                text=f"waited for {formats.duration((now - since).total_seconds())}: "
                f"no worker takes jobs of “{queue}” now.",
                url="/workers/",
                action="See the workers",
            )


def _of_artifacts(actor: Actor) -> Iterator[Note]:
    damaged = Variant.objects.in_team(actor.team).filter(artifact__state=Artifact.State.DAMAGED)
    for variant in damaged.select_related("version__model")[:MOST_NOTES]:
        yield Note(
            tone=Tone.FAILED,
            subject=str(variant),
            text="is damaged: its stored bytes no longer have their digest. Upload the same file again to mend it.",
            url=variant.get_absolute_url(),
            action="See the variant",
        )


def _of_signals(rows: Sequence[Row], *, now: datetime) -> Iterator[Note]:
    """Deployments that serve and are not looked at, or whose autoscaler has nothing to go by."""
    serving = [row.deployment for row in rows if row.deployment.live_revision_id and row.wanted]
    latest = Decision.objects.filter(deployment__in=serving).order_by("deployment_id", "-id")
    decisions = {row.deployment_id: row for row in latest.distinct("deployment_id")}
    for deployment in serving:
        text = _unmeasured(deployment, decisions.get(deployment.pk), now=now)
        if text:
            yield Note(
                tone=Tone.WARNING,
                subject=deployment.name,
                text=text,
                url=f"{deployment.get_absolute_url()}scaling/",
                action="See its scaling",
            )


def _unmeasured(deployment: Deployment, decision: Decision | None, *, now: datetime) -> str:
    seen = deployment.observed_at
    if deployment.unreachable_since is None and seen is not None and now - seen > STALE_AFTER:
        return f"was last looked at {formats.relative(seen, now=now)}; what stands here is old."
    if decision is None or deployment.autoscaling_paused:
        return ""
    if now - decision.last_at > STALE_AFTER:
        return f"is not measured: the last signal was read {formats.relative(decision.last_at, now=now)}."
    lost = [
        words.SIGNAL_NAMES.get(name, name).lower()
        for name in _steering(deployment)
        if decision.signals.get(name, {}).get("error") == "stale"
    ]
    size = f"{deployment.replicas} replica{'' if deployment.replicas == 1 else 's'}"
    return f"stays at {size}: what it scales by is old ({', '.join(lost)})." if lost else ""


def _steering(deployment: Deployment) -> list[str]:
    """The signals its size follows. Of an endpoint that nobody asks, latency and rate are old, and that is no news."""
    assert deployment.live_revision is not None
    return [metric.name for metric in RevisionSpec.from_json(deployment.live_revision.spec).hpa().metrics]
