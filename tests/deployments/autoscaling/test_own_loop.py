"""Slipway's own loop on a cluster, from a burst to the pods: the collector's decision, the reconciler's step."""

from collections.abc import Iterator
from typing import Any

import pytest

from deployments import services, specs
from deployments.autoscaling.local import Autoscaler
from deployments.models import Decision, Deployment
from deployments.targets.kubernetes.kinds import HPA
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalName
from tests.deployments.test_cluster_rollouts import ClusterWorld, _world

pytestmark = pytest.mark.django_db
NOW = 1_790_000_000.0


@pytest.fixture(params=["kubernetes_fake", pytest.param("kubernetes_real", marks=pytest.mark.processes)])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterWorld]:
    yield from _world(request.getfixturevalue(request.param), monkeypatch)


def serve(cluster: ClusterWorld, **spec: Any) -> None:
    autoscaling = specs.read_spec({}).autoscaling | {"minReplicas": 2, "maxReplicas": 8}
    revision = cluster.revision(autoscaling=autoscaling, cluster={"autoscaler": "slipway"}, **spec)
    assert cluster.finish(cluster.start(revision)).state == "succeeded"


def decide(cluster: ClusterWorld, autoscaler: Autoscaler, *, queue: float, at_s: float) -> None:
    def signal(value: float) -> Signal:
        return Signal(value=value, age_s=1, reporting=2, expected=2)

    values = dict.fromkeys(SignalName, 0.0) | {SignalName.QUEUE_DEPTH: queue}
    signals = {name: signal(value) for name, value in values.items()}
    row = cluster.deployment
    assert row.live_revision is not None
    told = DeploymentSignals(deployment=row.key, at_wall=NOW + at_s, period_s=2.0, signals=signals)
    autoscaler.sync(row, row.live_revision, signals=told, seen=cluster.seen, now_s=NOW + at_s)


def test_a_burst_grows_the_cluster_and_its_end_shrinks_it_over_a_window(cluster: ClusterWorld) -> None:
    serve(cluster)
    generation = cluster.deployment.generation
    autoscaler = Autoscaler()
    decide(cluster, autoscaler, queue=55, at_s=0)
    assert cluster.deployment.replicas == 6, "up at once"
    cluster.until(lambda: cluster.seen.ready() == 6)
    cluster.step()
    assert cluster.deployment.replicas == 6, "what the loop decided is not taken back by what was seen"
    decide(cluster, autoscaler, queue=0, at_s=100)
    assert cluster.deployment.replicas == 6, "down only over a window"
    decide(cluster, autoscaler, queue=0, at_s=500)
    smaller = cluster.deployment.replicas
    assert smaller < 6
    cluster.until(lambda: len(cluster.seen.replicas) == smaller)
    assert Decision.objects.filter(current_replicas=2, desired_replicas=6).exists()
    assert cluster.deployment.generation == generation, "a size is no other wish"
    assert not cluster.room.api.list(
        HPA, cluster.room.namespace, labels=f"slipway.dev/key={cluster.row.key}"
    ).items


def test_a_person_chooses_a_size_and_the_loop_goes_on_from_there(cluster: ClusterWorld) -> None:
    serve(cluster)
    services.scale(cluster.owner, cluster.deployment, replicas=4)
    cluster.until(lambda: cluster.seen.ready() == 4)
    decide(cluster, Autoscaler(), queue=75, at_s=0)
    cluster.until(lambda: cluster.seen.ready() == 8)


def test_paused_and_resumed_it_keeps_its_size(cluster: ClusterWorld) -> None:
    serve(cluster)
    decide(cluster, Autoscaler(), queue=35, at_s=0)
    cluster.until(lambda: cluster.seen.ready() == 4)
    for paused in (True, False):
        services.pause_autoscaling(cluster.owner, cluster.deployment, paused=paused)
        cluster.step()
        cluster.until(lambda: cluster.seen.rolled)
        assert (cluster.seen.ready(), Deployment.objects.get(pk=cluster.row.pk).replicas) == (4, 4)
