"""A deployment on the memory target, its three people, and the reconciler moved by hand.

The target's time moves with `advance`; the database's time cannot, so what waits for a deadline is made late
by moving the row's own time back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.core import storage
from controlplane.registry.models import Artifact
from deployments import preview, reconciler, selectors, services, specs, targets
from deployments.domain.workload import TargetStatus
from deployments.models import Deployment, Revision, Rollout, Target
from deployments.targets.memory import MemoryTarget
from tests import factories

JSON = "application/json"


@dataclass(kw_only=True)
class World:
    target: MemoryTarget
    owner: Actor
    viewer: Actor
    stranger: Actor
    row: Deployment
    lowest_ready: int | None = None
    _tokens: dict[int, str] = field(default_factory=dict)

    @property
    def deployment(self) -> Deployment:
        """As the database has it now."""
        return selectors.deployments(self.owner).get(pk=self.row.pk)

    @property
    def seen(self) -> TargetStatus:
        return self.target.observe(self.row.key)

    def revision(self, **spec: Any) -> Revision:
        """One more revision, of a version of its own."""
        model = self.owner.team.models.first() or factories.model(self.owner.team, "scorer")
        variant = factories.version(model).variants.get(number=0)
        blob = storage.put([f"bytes of {variant.pk}".encode()], limit_bytes=100)
        Artifact.objects.filter(pk=variant.artifact_id).update(sha256=blob.sha256)
        variant.refresh_from_db()
        return services.add_revision(self.owner, self.row, variant=variant, spec=specs.read_spec(spec))

    def start(self, revision: Revision, *, by: Actor | None = None) -> Rollout:
        etag = preview.preview(self.deployment, revision).etag
        return services.roll_out(by or self.owner, self.deployment, revision, etag=etag)

    def step(self, *, advance_s: float = 0.5) -> None:
        """Time passes, then the reconciler looks once."""
        self.target.advance(advance_s)
        reconciler.reconcile(self.row.pk)
        if self.lowest_ready is not None:
            self.lowest_ready = min(self.lowest_ready, self.seen.ready())

    def until(self, done: Callable[[], bool], *, steps: int = 200) -> None:
        for _ in range(steps):
            if done():
                return
            self.step()
        assert done(), f"not reached in {steps} steps"

    def finish(self, rollout: Rollout) -> Rollout:
        """Steps until the rollout is over."""

        def over() -> bool:
            rollout.refresh_from_db()
            return rollout.finished_at is not None

        self.until(over)
        self.step(advance_s=2)
        return rollout

    def serve(self, *, replicas: int = 1, **spec: Any) -> Revision:
        """A new revision, rolled out to its end."""
        autoscaling = specs.read_spec({}).autoscaling | {"minReplicas": replicas, "maxReplicas": 8}
        revision = self.revision(autoscaling=autoscaling, **spec)
        assert self.finish(self.start(revision)).state == "succeeded"
        return revision

    def make_late(self, rollout: Rollout) -> None:
        """As if the progress deadline had passed."""
        Rollout.objects.filter(pk=rollout.pk).update(progressed_at=F("progressed_at") - timedelta(hours=2))

    def absent(self, rollout: Rollout, *, since: str) -> None:
        """As if nobody had looked (`observed_at`) or stepped (`reconcile_after`) since before the deadline."""
        self.make_late(rollout)
        Deployment.objects.filter(pk=self.row.pk).update(**{since: F(since) - timedelta(hours=2)})

    def api(self, actor: Actor, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A call by the actor's own token; the response."""
        assert actor.user is not None
        token = self._tokens.setdefault(actor.user.pk, factories.token(actor))
        given = {"Authorization": f"Bearer {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        call = getattr(Client(), method.lower())
        url = f"/api/v1/deployments/{path}"
        return call(url, headers=given) if body is None else call(url, body, content_type=JSON, headers=given)

    def browser(self, actor: Actor) -> Client:
        client = Client()
        assert actor.user is not None
        client.force_login(actor.user)
        return client


def make(monkeypatch: pytest.MonkeyPatch) -> World:
    """Replaces every target of this process by one in memory."""
    memory = MemoryTarget(start_s=1)
    monkeypatch.setattr(targets, "of", lambda row: memory)
    owner, viewer, stranger = factories.three_people(factories.team())
    where = Target.objects.create(team=owner.team, name="memory", kind="memory")
    row, _ = services.create_deployment(owner, name="scorer", target=where)
    return World(target=memory, owner=owner, viewer=viewer, stranger=stranger, row=row)
