"""A team with one of everything the API knows, its people, and what a good request to each address looks like."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection
from django.test import Client
from django.utils import timezone

from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, AuditEvent, Membership, Role, Team, User
from controlplane.core import storage
from controlplane.registry.models import Alias, Artifact, Dataset, Import, Report, Variant, Version
from deployments import clusters, services, specs, targets, wishes
from deployments.domain.cluster_strategy import Part
from deployments.domain.origin import Origin, Stage
from deployments.models import Decision, Deployment, ImportedFrom, Load, Target
from deployments.targets.memory import MemoryTarget
from optimizer.models import Job, JobEvent, Search, Worker
from tests import factories
from tests.api.routes import Operation, Route
from tests.deployments.targets.kubernetes import kubeconfigs
from tests.deployments.targets.kubernetes.test_metrics_install import PEM

JSON = "application/json"
THEIRS = "5f0c"
"""The uid of what others run."""
BYTES = "application/octet-stream"

_VOLATILE = {"django_session", "django_migrations", "slipway_cache"}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a token."""

    actor: Actor
    token: str

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Any = b"",
        *,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        **environ: Any,
    ) -> Any:
        """The answer. A body that is no bytes goes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}"} | dict(headers or {})
        answer = _client().generic(method, path, data, content_type, headers=given, **environ)
        if answer.streaming:
            answer.streamed = b"".join(answer.streaming_content)
        return answer


@cache
def _client() -> Client:
    """One for all: a client reads the whole chain of middleware, and a request with a token leaves no cookie."""
    return Client(raise_request_exception=False)


@dataclass(kw_only=True)
class World:
    """`engineer`, `viewer` and `admin` are of the team; `stranger` is an admin of another, empty one."""

    team: Team
    admin: Person
    engineer: Person
    viewer: Person
    stranger: Person
    target: MemoryTarget
    parameters: dict[str, str]
    """A good value for each path parameter of the API, by name."""
    special: dict[str, dict[str, str]] = field(default_factory=dict)
    """Other values for what needs another state, by route name or by method and route name."""

    def path(self, of: Operation | Route, **replaced: str) -> str:
        """The address with good parameters, or the `replaced` ones."""
        route = of if isinstance(of, Route) else of.route
        good = self.parameters | self.special.get(route.name, {})
        if isinstance(of, Operation):
            good |= self.special.get(" ".join(of.key), {})
        return route.template.format_map(good | replaced)

    def good(self, operation: Operation) -> dict[str, Any]:
        """Arguments of `Person.ask` that this operation accepts from an admin."""
        return REQUESTS.get(operation.key, {})


RECIPE = [{"technique": "onnx-graph", "params": {}}]
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "models"): {"body": {"name": "fraud", "description": "Scores."}},
    ("PATCH", "model"): {"body": {"description": "Scores churn."}},
    ("PUT", "gate"): {"body": {"min_speedup": 1.2, "max_loss_points": 0.5, "max_size_mib": 500}},
    ("PUT", "answers"): {"body": {"task": "classification", "output": None, "pooling": "none"}},
    ("PUT", "alias"): {"body": {"version": 1, "variant": 1}},
    ("POST", "imports"): {"body": {"reference": "hf:acme/churn@v1"}},
    ("POST", "tokens"): {"body": {"name": "ci", "role": "viewer", "expires_in_days": 3}},
    ("POST", "members"): {"body": {"username": "new-person", "role": "viewer"}},
    ("PATCH", "member"): {"body": {"role": "engineer"}},
    ("POST", "jobs"): {
        "body": {"model": "churn", "version": 1, "variant": 0, "recipe": RECIPE, "evaluation_set": "digits"}
    },
    ("POST", "searches"): {
        "body": {"model": "churn", "version": 1, "variant": 0, "evaluation_set": "digits", "max_jobs": 3}
    },
    ("POST", "targets"): {
        "body": {"name": "north", "kubeconfig": kubeconfigs.text(), "namespace": "risk", "in_cluster": False}
    },
    ("PATCH", "target"): {"body": {"fetch_url": "https://slipway.example.com"}},
    ("POST", "target-metrics-api"): {"body": {"namespace": "risk", "ca_pem": PEM, "dry_run": True}},
    ("POST", "target-imports"): {"body": {"deployment": "theirs", "model": "churn", "version": 1}},
    ("POST", "deployments"): {"body": {"name": "fresh", "target": "this-machine", "protected": True}},
    ("POST", "revisions"): {
        "body": {"model": "churn", "version": 1, "variant": 0, "spec": {"batching": {"max_batch_size": 4}}}
    },
    ("POST", "rollouts"): {"body": {"revision": 2}, "headers": {"If-Match": "*"}},
    ("POST", "rollback"): {"body": {"revision": 1}, "headers": {"If-Match": "*"}},
    ("POST", "scale"): {"body": {"replicas": 2}},
    ("PUT", "autoscaling"): {"body": {"paused": True}},
    ("PUT", "load"): {"body": {"rate_per_s": 5, "duration_s": 60}},
    ("PUT", "version-upload"): {"body": b"not an ONNX model", "content_type": BYTES},
    ("PUT", "dataset"): {"body": b"not an npz", "content_type": BYTES},
    ("POST", "versions"): {
        "body": b'--x\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nx\r\n--x--\r\n',
        "content_type": "multipart/form-data; boundary=x",
    },
}


def build() -> World:
    """Rows are written directly: what made them is tested elsewhere."""
    team = Team.objects.create(name="harbor")
    admin, engineer, viewer = (
        _person(team, name, role)
        for name, role in (("ada", Role.ADMIN), ("eve", Role.ENGINEER), ("vic", Role.VIEWER))
    )
    stranger = _person(Team.objects.create(name="island"), "sam", Role.ADMIN)
    Target.objects.filter(team=stranger.actor.team).update(kind="memory")
    target = MemoryTarget()
    targets.forget()
    targets.TABLE._loaded["memory"] = lambda settings, secret: target
    targets.forget()
    _register(team)
    jobs = _optimize(team)
    live, turning = _deploy(team, admin.actor, target)
    clusters.add_cluster(
        admin.actor,
        name="west",
        place=clusters.ClusterPlace(namespace="risk"),
        kubeconfig_text=kubeconfigs.text(),
    )
    AuditEvent.objects.create(
        team=team, user=engineer.actor.user, via="api", verb="registered", object_type="model", object_id=1,
        object_name="churn",
    )  # fmt: skip
    spare = ApiToken.objects.issue(
        user=admin.actor.user, team=team, role=Role.VIEWER, name="spare", expiry=timedelta(days=1)
    )[0]
    return World(
        team=team,
        admin=admin,
        engineer=engineer,
        viewer=viewer,
        stranger=stranger,
        target=target,
        parameters={
            "name": "churn",
            "number": "1",
            "variant": "1",
            "alias": "champion",
            "dataset": "digits",
            "job": str(jobs[Job.State.QUEUED].pk),
            "report": str(Report.objects.get(variant__version__model__team=team).pk),
            "search": str(Search.objects.get(team=team).pk),
            "worker": str(Worker.objects.get().pk),
            "rollout": str(turning.rollouts.get().pk),
            "replica": target.observe(live.key).replicas[0].name,
            "token_key": spare.token_key,
            "username": "vic",
        },
        special=_special(live, turning, jobs),
    )


def _special(live: Deployment, turning: Deployment, jobs: Mapping[str, Job]) -> dict[str, dict[str, str]]:
    of_live = [
        "deployment", "revisions", "revision", "plan", "rollouts", "rollback", "scale", "autoscaling",
        "replicas", "replica-log", "series", "load", "decisions", "why", "key", "drift", "drift-put-back",
    ]  # fmt: skip
    of_cluster = ["target", "target-connection", "target-rights", "target-metrics-api", "target-imports"]
    fetched = {"number": str(Import.objects.get(model__team=live.team).pk)}
    return {
        **{name: {"name": "elsewhere"} for name in ("manifests", "give-back")},
        **dict.fromkeys(("import", "import-cancel"), fetched),
        **{name: {"name": live.name} for name in of_live},
        **{name: {"name": turning.name} for name in ("rollout", "rollout-cancel")},
        **{
            f"rollout-{row.name}": {"name": row.name, "rollout": str(row.rollouts.get().pk)}
            for row in Deployment.objects.filter(team=live.team, name__in=MOVING)
        },
        **{name: {"name": "west"} for name in of_cluster},
        "job-retry": {"job": str(jobs[Job.State.FAILED].pk)},
        "DELETE version": {"number": "2"},
        "version-trust": {"name": "scripted"},
        "version-quarantine": {"number": "2"},
        "DELETE model": {"name": "unused"},
        "PUT dataset": {"dataset": "more-digits"},
    }


def _person(team: Team, name: str, role: Role) -> Person:
    user = User.objects.create(username=name)
    Membership.objects.create(team=team, user=user, role=role)
    row, text = ApiToken.objects.issue(
        user=user, team=team, role=role, name=f"{name}'s", expiry=timedelta(days=1)
    )
    ApiToken.objects.filter(pk=row.pk).update(last_used_at=timezone.now())  # so that reading writes nothing
    return Person(actor=Actor(team=team, role=role, user=user, via="api"), token=text)


def _register(team: Team) -> None:
    """`churn` with two versions; the first has a measured variant, an alias and a data set. `scripted` is code."""
    factories.model(team, "unused")
    scripted = factories.version(factories.model(team, "scripted"))
    Version.objects.filter(pk=scripted.pk).update(format="torchscript")
    model = factories.model(team, "churn")
    first = factories.version(model)
    Version.objects.filter(pk=factories.version(model).pk).update(
        quarantined_reason="It crashed three times."
    )
    made = factories.variant(first)
    blob = storage.put([b"the bytes of a variant"], limit_bytes=1000)
    Artifact.objects.filter(pk=made.artifact_id).update(sha256=blob.sha256, size_bytes=blob.size_bytes)
    again = {"seed": 7, "evaluation_set": None, "fitted_to": []}
    data = {"version": 1, "again": again}
    Report.objects.create(variant=made, verdict="better", sentence="2.1x faster.", data=data)
    Alias.objects.create(model=model, name="champion", variant=first.variants.get(number=0))
    Dataset.objects.create(
        model=model, name="digits", role="evaluation", artifact=factories.artifact(), items=10
    )
    Import.objects.create(model=model, reference="hf:acme/churn", run_after=timezone.now())


def _optimize(team: Team) -> dict[str, Job]:
    """A queued, a running and a failed job; and a worker."""
    now = timezone.now()
    own = Variant.objects.in_team(team).get(version__model__name="churn", version__number=1, number=0)
    jobs = {
        str(state): Job.objects.create(
            team=team, version=own.version, parent=own, recipe=RECIPE, state=state, run_after=now,
            request_digest=_digest(own),
        )
        for state in (Job.State.QUEUED, Job.State.RUNNING, Job.State.FAILED)
    }  # fmt: skip
    for job in jobs.values():
        JobEvent.objects.create(job=job, attempt=0, kind="state", message="Queued.", at=now)
    Search.objects.create(
        team=team, version=own.version, parent=own, plan=[RECIPE], max_jobs=12, max_minutes=60,
    )  # fmt: skip
    Worker.objects.create(name="worker@here", queues=["optimize.cpu"], started_at=now, heartbeat_at=now)
    return jobs


def _digest(own: Variant) -> str:
    from optimizer.domain.recipe import Recipe
    from optimizer.services import _request_digest

    return _request_digest(own, Recipe.from_json(RECIPE), None, None)


def _deploy(team: Team, actor: Actor, target: MemoryTarget) -> tuple[Deployment, Deployment]:
    """`scoring` serves revision 1 and has a second; a rollout of `turning` waits for its first step."""
    place = Target.objects.get(team=team, name="this-machine")
    place.kind = "memory"
    place.save()
    variant = Variant.objects.in_team(team).get(version__number=1, number=1)
    rows = []
    for name in ("scoring", "turning"):
        row, _ = services.create_deployment(actor, name=name, target=place)
        for size in (1, 2):
            spec = specs.read_spec({"batching": {"max_batch_size": size}})
            services.add_revision(actor, row, variant=variant, spec=spec)
        rows.append(row)
    live, turning = rows
    for name, (state, policy) in MOVING.items():
        _deploy_moving(actor, place, variant, name=name, state=state, policy=policy)
    _deploy_elsewhere(actor, variant)
    target.apply(wishes.wish(live, [Part(revision=1, replicas=1)], generation=1))
    target.advance(5)
    Deployment.objects.filter(pk=live.pk).update(
        live_revision=live.revisions.get(number=1),
        generation=1,
        observed=target.observe(live.key).to_json(),
        observed_at=timezone.now(),
    )
    services.roll_out(actor, turning, turning.revisions.get(number=1), etag=None)
    live.refresh_from_db()
    now = timezone.now()
    Load.objects.create(deployment=live, rate_per_s=5, until=now, started_by=actor.user)
    Decision.objects.create(
        deployment=live, at=now, last_at=now, current_replicas=1, desired_replicas=2, limited_by="",
        signals={}, sentence="2 replicas, because 12 requests wait.",
    )  # fmt: skip
    return live, turning


MOVING: dict[str, tuple[str, dict[str, Any]]] = {
    "pause": ("running", {}),
    "resume": ("paused", {}),
    "promote": ("running", {"strategy": "canary"}),
}
"""Deployments with a rollout in the state, and by the policy, that the verb of their name needs."""


def _deploy_moving(
    actor: Actor, place: Target, variant: Variant, *, name: str, state: str, policy: dict[str, Any]
) -> None:
    row, _ = services.create_deployment(actor, name=name, target=place)
    spec = specs.read_spec({"rollout": policy})
    revision = services.add_revision(actor, row, variant=variant, spec=spec)
    row.rollouts.create(to_revision=revision, state=state, progressed_at=timezone.now())


def _deploy_elsewhere(actor: Actor, variant: Variant) -> None:
    """`elsewhere` is on a cluster, and was taken over from what others ran there."""
    settings = {"namespace": "ml", "fetch_url": "https://slipway.example.com"}
    place = Target.objects.create(team=actor.team, name="cluster", kind="kubernetes", settings=settings)
    row, _ = services.create_deployment(actor, name="elsewhere", target=place)
    services.add_revision(actor, row, variant=variant, spec=specs.read_spec({}))
    origin = Origin(name="theirs", uid=THEIRS, replicas=1)
    ImportedFrom.objects.create(
        deployment=row, name="theirs", state=Stage.TAKEN, moved_at=timezone.now(), origin=origin.to_json()
    )


def fingerprint() -> dict[str, str]:
    """Every row of every table in one statement: two equal fingerprints mean that nothing was written."""
    tables = sorted(
        {model._meta.db_table for model in apps.get_models(include_auto_created=True)} - _VOLATILE
    )
    each = " UNION ALL ".join(
        f"SELECT '{table}', count(*) || ':' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '')"
        f' FROM "{table}" t'
        for table in tables
    )
    with connection.cursor() as cursor:
        cursor.execute(each)
        return dict(cursor.fetchall())
