"""Deployments and what belongs to them, as the API says them."""

from typing import Any

from deployments.api import schemas
from deployments.domain.drift import Drift
from deployments.domain.origin import Other
from deployments.domain.plan import counts
from deployments.domain.spec import RevisionSpec, RolloutPolicy, Strategy
from deployments.models import (
    Decision,
    Deployment,
    ImportedFrom,
    Load,
    Revision,
    Rollout,
    RolloutEvent,
    Target,
)
from deployments.moves import step_of
from deployments.preview import Preview
from deployments.selectors import active_rollout, health_of, imported_from, status
from deployments.targets.kubernetes import grants, written
from deployments.targets.kubernetes.metrics_install import Installation
from deployments.why import Answer


def target(row: Any) -> schemas.Target:
    """`row` is a target of `selectors.targets`."""
    return {
        "name": row.name,
        "kind": row.kind,
        "created_at": row.created_at,
        "cluster": cluster(row) if row.is_cluster else None,
        "deployments": row.used_by,
        "last_seen": row.last_seen,
        "unreachable_since": row.away_since,
        "url": f"/api/v1/targets/{row.name}/",
        "page": row.get_absolute_url(),
    }


def cluster(row: Target) -> schemas.Cluster:
    said = row.settings
    return {
        "server": said.get("server", ""),
        "context": said.get("context", ""),
        "in_cluster": bool(said.get("in_cluster")),
        "namespace": said.get("namespace", ""),
        "fetch_url": said.get("fetch_url", ""),
        "fetch_ca": said.get("fetch_ca", ""),
        "scrape": said.get("scrape", ""),
        "fetch_image": said.get("fetch_image", ""),
        "slipway_namespace": said.get("slipway_namespace", ""),
        "metrics_url": said.get("metrics_url", ""),
        "keda_secret": said.get("keda_secret", ""),
    }


def rights(namespace: str) -> schemas.Rights:
    commands: list[schemas.Command] = [
        {"says": says, "command": command} for says, command in grants.commands(namespace)
    ]
    return {
        "namespace": namespace,
        "rights": [row.to_json() for row in grants.rows()],
        "yaml": grants.as_yaml(namespace),
        "yaml_with_button": grants.as_yaml(namespace, with_button=True),
        "commands": commands,
    }


def installation(shown: Installation, *, applied: bool) -> schemas.Installation:
    return {
        "applied": applied,
        "etag": shown.etag,
        "counts": counts(shown.diff).to_json(),
        "diff": [change.to_json() for change in shown.diff],
        "yaml": written.documents(shown.manifests),
    }


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
        "imported_from": _imported(imported_from(row)),
        "observed_at": row.observed_at,
        "unreachable_since": row.unreachable_since,
        "created_at": row.created_at,
        "url": f"/api/v1/deployments/{row.name}/",
        "page": row.get_absolute_url(),
    }


def _imported(row: ImportedFrom | None) -> schemas.ImportedFrom | None:
    if row is None:
        return None
    left = list(row.value.left_behind)
    return {"name": row.name, "state": row.state, "note": row.note, "left_behind": left}


def importable(one: Other) -> schemas.Importable:
    return {
        "name": one.name,
        "images": list(one.images),
        "replicas": one.replicas,
        "ready": one.ready,
        "services": list(one.services),
        "scaled_by": one.scaled_by,
        "kept_by": one.kept_by,
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
        "theirs": [one.to_json() for one in shown.theirs],
        "manifests": list(shown.plan.manifests),
        "findings": [finding.to_json() for finding in shown.findings],
    }


def rollout(row: Rollout) -> schemas.Rollout:
    policy = RevisionSpec.from_json(row.to_revision.spec).rollout
    return {
        "id": row.pk,
        "kind": row.kind,
        "state": row.state,
        "message": row.message,
        "from_revision": row.from_revision.number if row.from_revision else None,
        "to_revision": row.to_revision.number,
        "strategy": policy.strategy,
        "step": _step(row),
        "steps": _steps(policy, row),
        "evidence": row.evidence,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }


def _step(row: Rollout) -> schemas.StepNow | None:
    if not row.step:
        return None
    state = step_of(row)
    return {"index": state.index, "since": state.since, "share": row.step.get("share")}


def _steps(policy: RolloutPolicy, row: Rollout) -> list[schemas.StepShown]:
    """None where there is nothing that a share could be compared with."""
    if policy.strategy is not Strategy.CANARY or row.from_revision is None:
        return []
    verdicts = row.evidence.get("steps") or {}
    return [
        {
            "weight": step.weight,
            "min_requests": step.min_requests,
            "pause_s": step.pause_s,
            "verdict": verdicts.get(str(index)),
        }
        for index, step in enumerate(policy.steps)
    ]


def rollout_event(row: RolloutEvent) -> schemas.RolloutEvent:
    return {"id": row.pk, "at": row.at, "kind": row.kind, "message": row.message, "data": row.data}


def drift(found: tuple[Drift, ...]) -> schemas.DriftList:
    return {"items": [one.to_json() for one in found], "next": None}


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
