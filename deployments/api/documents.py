"""Deployments and what belongs to them, as the API says them."""

from deployments.api import schemas
from deployments.models import Decision, Deployment, Load, Revision, Rollout, RolloutEvent, Target
from deployments.preview import Preview
from deployments.selectors import active_rollout, health_of, status
from deployments.why import Answer


def target(row: Target) -> schemas.Target:
    return {"name": row.name, "kind": row.kind, "created_at": row.created_at}


def deployment(row: Deployment) -> schemas.Deployment:
    seen, rollout, live = status(row), active_rollout(row), row.live_revision
    return {
        "name": row.name,
        "health": health_of(row),
        "target": row.target.name,
        "address": seen.address if seen else None,
        "protected": bool(row.api_key_sha256),
        "revision": live.number if live else None,
        "variant": str(live.variant) if live else None,
        "replicas": {"wanted": row.replicas if live else 0, "ready": seen.ready() if seen else 0},
        "autoscaling_paused": row.autoscaling_paused,
        "rollout": rollout.pk if rollout else None,
        "observed_at": row.observed_at,
        "unreachable_since": row.unreachable_since,
        "created_at": row.created_at,
        "url": f"/api/v1/deployments/{row.name}/",
        "page": row.get_absolute_url(),
    }


def revision(row: Revision) -> schemas.Revision:
    return {
        "revision": row.number,
        "model": row.variant.version.model.name,
        "version": row.variant.version.number,
        "variant": row.variant.number,
        "spec": row.spec,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
    }


def preview(shown: Preview) -> schemas.Plan:
    return {
        "etag": shown.etag,
        "blocked": shown.blocked,
        "counts": shown.counts.to_json(),
        "diff": [change.to_json() for change in shown.diff],
        "objects": [one.to_json() for one in shown.plan.objects],
        "manifests": list(shown.plan.manifests),
        "findings": [finding.to_json() for finding in shown.findings],
    }


def rollout(row: Rollout) -> schemas.Rollout:
    return {
        "id": row.pk,
        "kind": row.kind,
        "state": row.state,
        "message": row.message,
        "from_revision": row.from_revision.number if row.from_revision else None,
        "to_revision": row.to_revision.number,
        "evidence": row.evidence,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }


def rollout_event(row: RolloutEvent) -> schemas.RolloutEvent:
    return {"id": row.pk, "at": row.at, "kind": row.kind, "message": row.message, "data": row.data}


def load(row: Load) -> schemas.Load:
    """`failed` counts answers of 400 and above and requests without an answer; it is part of `sent`."""
    return {
        "rate_per_s": row.rate_per_s,
        "until": row.until,
        "sent": row.sent,
        "failed": row.failed,
        "started_by": str(row.started_by) if row.started_by else None,
    }


def decision(row: Decision) -> schemas.Decision:
    return {
        "id": row.pk,
        "at": row.at,
        "last_at": row.last_at,
        "repeats": row.repeats,
        "current_replicas": row.current_replicas,
        "desired_replicas": row.desired_replicas,
        "raw_recommendation": row.raw_recommendation,
        "limited_by": row.limited_by,
        "signals": row.signals,
        "conditions": row.conditions,
        "sentence": row.sentence,
    }


def why(found: Answer) -> schemas.Why:
    return {
        "at": found.at,
        "sentence": found.sentence,
        "ready": found.ready,
        "wanted": found.wanted,
        "decision": decision(found.decision) if found.decision else None,
        "replicas": list(found.replicas),
        "traffic": found.traffic,
    }
