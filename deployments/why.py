"""Why there are N replicas: decisions, the cluster's own events, each replica's start and the traffic, on one line of
time; and any moment of it in one sentence.

Refused: a table of points of its own. Decisions, lives and windows are kept already, and a cluster keeps its events.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.core.errors import InvalidInput, SlipwayError
from deployments import selectors, targets
from deployments.domain import lives
from deployments.lives import moments
from deployments.models import Decision, Deployment, ReplicaLife
from deployments.telemetry import store
from deployments.telemetry.rollup import Window

POINTS = 40
TOLD_BY_PHASES = frozenset({"scheduled", "pulling", "pulled", "created", "started"})


@dataclass(frozen=True, kw_only=True)
class Point:
    """`kind` is “decision”, “replica” or “event”."""

    at: datetime
    kind: str
    text: str

    @property
    def epoch(self) -> str:
        return f"{self.at.timestamp():.3f}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Of one moment. `replicas` are those that there were then, with what each had taken so far."""

    at: datetime
    sentence: str
    ready: int
    wanted: int | None
    decision: Decision | None
    replicas: tuple[dict[str, Any], ...]
    traffic: dict[str, float | None]


def timeline(row: Deployment, *, limit: int = POINTS) -> tuple[list[Point], str]:
    """Newest first, and why a target's own events are missing, if they are. Two queries, and one question to the
    target."""
    events, missing = _events(row)
    found = [*_decisions(row, limit), *_starts(row, limit), *events]
    return sorted(found, key=lambda point: point.at, reverse=True)[:limit], missing


def _decisions(row: Deployment, limit: int) -> Iterator[Point]:
    for one in selectors.decisions(row)[:limit]:
        yield Point(at=one.at, kind="decision", text=one.sentence)


def _starts(row: Deployment, limit: int) -> Iterator[Point]:
    for one in ReplicaLife.objects.filter(deployment=row)[:limit]:
        phases = moments(one.phases)
        lasted = lives.words(lives.durations(one.began_at, phases))
        where = f" on {one.node}" if one.node else ""
        said = (
            f"{one.name}{where}: {lasted}." if lasted else f"{one.name}{where}: waiting for its first phase."
        )
        yield Point(at=max([one.began_at, *phases.values()]), kind="replica", text=said)
        if one.gone_at is not None:
            yield Point(at=one.gone_at, kind="replica", text=f"{one.name}: gone.")


def _events(row: Deployment) -> tuple[list[Point], str]:
    if row.unreachable_since is not None:
        return [], "The target does not answer, so its own events are missing."
    try:
        told = targets.of(row.target).events(row.key)
    except SlipwayError as error:
        return [], f"The target's own events are missing: {error.title}"
    return [
        Point(at=one.at, kind="event", text=f"{one.replica or 'The target'}: {one.message or one.kind}")
        for one in told
        if one.kind not in TOLD_BY_PHASES
    ], ""


def moment(text: str) -> datetime:
    """Of epoch seconds. Raises InvalidInput."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(
            "invalid_at",
            "There is no such moment.",
            f"Give epoch seconds, such as 1790000000, not “{text[:40]}”.",
            fields={"at": ["Give epoch seconds."]},
        ) from error


def answer(row: Deployment, at: datetime) -> Answer:
    """Three queries."""
    decision = row.decisions.filter(at__lte=at).order_by("-at", "-id").first()
    there = ReplicaLife.objects.filter(deployment=row, began_at__lte=at).exclude(gone_at__lte=at)
    replicas = tuple(_then(one, at) for one in there.order_by("began_at")[: 2 * POINTS])
    traffic = _traffic(store.around(row.pk, at))
    ready = sum(one["ready"] for one in replicas)
    return Answer(
        at=at,
        sentence=_sentence(decision, replicas, traffic),
        ready=ready,
        wanted=decision.desired_replicas if decision else None,
        decision=decision,
        replicas=replicas,
        traffic=traffic,
    )


def _then(one: ReplicaLife, at: datetime) -> dict[str, Any]:
    passed = {name: when for name, when in moments(one.phases).items() if when <= at}
    return {
        "name": one.name,
        "revision": one.revision,
        "node": one.node,
        "ready": "ready" in passed,
        "phases_s": lives.durations(one.began_at, passed),
    }


def _traffic(window: Window | None) -> dict[str, float | None]:
    return {
        "queue_depth": window.queue_depth_mean if window else None,
        "in_flight": window.in_flight_mean if window else None,
        "requests_per_s": window.throughput if window else None,
    }


def _sentence(
    decision: Decision | None, replicas: tuple[dict[str, Any], ...], traffic: dict[str, float | None]
) -> str:
    ready = sum(one["ready"] for one in replicas)
    of = f" of {decision.desired_replicas:,}" if decision else ""
    parts = [f"{ready:,}{of} replica{'s' if ready != 1 or of else ''} ready"]
    parts += [decision.sentence.rstrip(".")] if decision else ["nothing had been decided"]
    for one in replicas:
        if not one["ready"]:
            lasted = lives.words(one["phases_s"])
            parts.append(f"{one['name']} was starting ({lasted or 'not scheduled yet'})")
    names = {
        "queue_depth": "{:,.1f} waiting",
        "in_flight": "{:,.1f} in flight",
        "requests_per_s": "{:,.1f} requests/s",
    }
    known = [names[name].format(value) for name, value in traffic.items() if value is not None]
    parts.append(f"traffic {', '.join(known)}" if known else "traffic not known")
    return f"{'; '.join(parts)}."
