"""Rollouts on a cluster: what another actor, the cluster itself or a death in the middle does to them ends in the
stated outcome, with a sentence."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from controlplane.core.errors import Conflict, PreconditionFailed
from deployments import preview, reconciler, selectors, services, specs, targets
from deployments.domain.workload import TargetStatus
from deployments.models import Deployment, Revision, Rollout, Target
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.kinds import DEPLOYMENT, HPA, NAMESPACE, SERVICE
from tests import factories
from tests.deployments.targets.kubernetes import kubelet
from tests.deployments.targets.kubernetes.fake import Script
from tests.deployments.targets.kubernetes.room import Room
from tests.deployments.traffic import judged, traffic
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
WITHIN_S = 30


@dataclass(kw_only=True)
class ClusterWorld(World):
    """`target` is the cluster's; time is real, because the cluster's is, so that a step only gives it time to move."""

    room: Room

    @property
    def name(self) -> str:
        return self.row.name

    def step(self, *, advance_s: float = 0) -> None:
        time.sleep(0.05)
        reconciler.reconcile(self.row.pk)

    def until(self, done: Callable[[], bool], *, steps: int = 0) -> None:
        end = time.monotonic() + WITHIN_S
        while not done():
            assert time.monotonic() < end, (self.deployment.observed, Rollout.objects.values().first())
            self.step()

    def serve_two(self, **spec: Any) -> Revision:
        autoscaling = specs.read_spec({}).autoscaling | {"minReplicas": 2, "maxReplicas": 4}
        revision = self.revision(autoscaling=autoscaling, **spec)
        rollout = self.finish(self.start(revision))
        assert rollout.state == "succeeded", rollout.message
        return revision

    def playing(self, revision: Revision, play: kubelet.Play) -> None:
        self.room.kubelet.plays[self.row.key, revision.number] = play


@pytest.fixture(params=["kubernetes_fake", pytest.param("kubernetes_real", marks=pytest.mark.processes)])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterWorld]:
    yield from _world(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def fake(kubernetes_fake: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterWorld]:
    """Where faults are scripted."""
    yield from _world(kubernetes_fake, monkeypatch)


def _world(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterWorld]:
    monkeypatch.setattr(targets, "of", lambda row: room.target)
    owner, viewer, stranger = factories.three_people(factories.team())
    where = Target.objects.create(
        team=owner.team, name="prod", kind="kubernetes", settings={"namespace": room.namespace}
    )
    row, _ = services.create_deployment(owner, name=f"scorer-{owner.team.pk}", target=where)
    yield ClusterWorld(
        target=room.target,  # type: ignore[arg-type]
        owner=owner, viewer=viewer, stranger=stranger, row=row, room=room,
    )  # fmt: skip
    if room.fake is not None:
        room.fake.cluster.scripts.clear()
    room.target.delete(row.key)
    room.until_gone(row.key)


def served_by(seen: TargetStatus) -> set[int]:
    return {one.revision for one in seen.replicas if one.state == "ready"}


def test_a_first_rollout_and_an_update_end_with_their_revision_serving(cluster: ClusterWorld) -> None:
    first = cluster.serve_two()
    assert cluster.deployment.live_revision == first
    assert served_by(cluster.seen) == {1}
    cluster.serve_two(threads=2)
    assert served_by(cluster.seen) == {2}
    assert selectors.health_of(cluster.deployment) == "healthy"
    assert cluster.deployment.replicas == 2


def test_autoscaling_stays_on_during_a_rollout(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    hpa = cluster.room.api.get(HPA, cluster.name, cluster.room.namespace)["metadata"]["uid"]
    rollout = cluster.start(cluster.revision(threads=2))
    cluster.step()
    cluster.room.edit_size(cluster.name, 4)
    assert cluster.finish(rollout).state == "succeeded"
    assert cluster.room.api.get(HPA, cluster.name, cluster.room.namespace)["metadata"]["uid"] == hpa


@pytest.mark.parametrize(
    ("play", "why"),
    [
        (kubelet.no_image, "image pull failed: not found"),
        (kubelet.crashing, "exited with code 1"),
        (kubelet.out_of_memory, "OOMKilled at 8Gi after 3 restarts"),
    ],
)
def test_what_never_becomes_ready_goes_back_by_itself_and_says_why(cluster, play, why):
    cluster.serve_two()
    bad = cluster.revision(threads=2)
    cluster.playing(bad, play)
    rollout = cluster.start(bad)
    cluster.until(lambda: any(one.reason for one in cluster.seen.replicas))
    cluster.make_late(rollout)
    assert cluster.finish(rollout).state == "rolled_back"
    assert why in rollout.message
    assert rollout.evidence["replicas"]
    assert served_by(cluster.seen) == {1}


def test_a_first_revision_that_never_becomes_ready_has_failed(cluster: ClusterWorld) -> None:
    bad = cluster.revision()
    cluster.playing(bad, kubelet.no_image)
    rollout = cluster.start(bad)
    cluster.until(
        lambda: bool(cluster.room.has(cluster.row.key)) and any(one.reason for one in cluster.seen.replicas)
    )
    cluster.make_late(rollout)
    assert cluster.finish(rollout).state == "failed"
    assert "image pull failed" in rollout.message


def test_objects_that_somebody_deletes_mid_rollout_come_back(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    rollout = cluster.start(cluster.revision(threads=2))
    cluster.step()
    for kind in (SERVICE, HPA, DEPLOYMENT):
        cluster.room.api.delete(kind, cluster.name, cluster.room.namespace)
        cluster.step()
    assert cluster.finish(rollout).state == "succeeded"
    for kind in (SERVICE, HPA, DEPLOYMENT):
        assert cluster.room.api.find(kind, cluster.name, cluster.room.namespace) is not None


def test_a_field_that_somebody_took_mid_rollout_is_taken_over_and_told(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    bad = cluster.revision(threads=2)
    cluster.playing(bad, kubelet.hanging)
    rollout = cluster.start(bad)
    cluster.step()
    path = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}}
    cluster.room.edit(DEPLOYMENT, cluster.name, path)
    cluster.make_late(rollout)
    assert cluster.finish(rollout).state == "rolled_back"
    assert "belongs to kubectl-edit" in rollout.events.get(kind="took_over").message
    assert served_by(cluster.seen) == {1}


def test_of_two_who_apply_at_once_one_wins_and_the_other_is_told(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    mine, theirs = cluster.revision(threads=2), cluster.revision(threads=3)
    shown = preview.preview(cluster.deployment, theirs).etag
    rollout = cluster.start(mine)
    cluster.step()
    with pytest.raises((Conflict, PreconditionFailed), match="revision 2"):
        services.roll_out(cluster.owner, cluster.deployment, theirs, etag=shown)
    assert cluster.finish(rollout).state == "succeeded"
    assert served_by(cluster.seen) == {2}


def test_a_node_that_drains_costs_no_rollout(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    rollout = cluster.start(cluster.revision(threads=2))
    cluster.step()
    for one in cluster.seen.replicas:
        cluster.room.evict(one.name)
    assert cluster.finish(rollout).state == "succeeded"
    assert served_by(cluster.seen) == {2}


def test_removing_takes_everything_away(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    services.remove_deployment(cluster.owner, cluster.deployment)
    cluster.until(lambda: not Deployment.objects.filter(pk=cluster.row.pk).exists())
    assert not cluster.room.has(cluster.row.key)


def test_pausing_the_autoscaler_gives_the_size_to_a_person(cluster: ClusterWorld) -> None:
    cluster.serve_two()
    with pytest.raises(Conflict, match="Pause autoscaling first"):
        services.scale(cluster.owner, cluster.deployment, replicas=3)
    services.pause_autoscaling(cluster.owner, cluster.deployment, paused=True)
    cluster.until(lambda: cluster.room.api.find(HPA, cluster.name, cluster.room.namespace) is None)
    services.scale(cluster.owner, cluster.deployment, replicas=3)
    cluster.until(lambda: cluster.seen.ready() == 3)
    services.pause_autoscaling(cluster.owner, cluster.deployment, paused=False)
    cluster.until(lambda: cluster.room.api.find(HPA, cluster.name, cluster.room.namespace) is not None)
    assert cluster.seen.ready() == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_cluster_that_is_busy_or_failing_delays_a_rollout_and_loses_none(fake, status):
    fake.serve_two()
    rollout = fake.start(fake.revision(threads=2))
    fake.room.fake.script(
        Script(
            matches=lambda request: True,
            status=status,
            message="later",
            headers={"Retry-After": "1"},
            times=3,
        )
    )
    for _ in range(3):
        fake.step()
    row = Deployment.objects.get(pk=fake.row.pk)
    assert row.unreachable_since is not None
    assert selectors.health_of(fake.deployment) == "unreachable"
    assert fake.finish(rollout).state == "succeeded"
    assert Deployment.objects.get(pk=fake.row.pk).unreachable_since is None


def test_a_cluster_that_asks_to_wait_is_left_alone_so_long(fake: ClusterWorld) -> None:
    fake.serve_two()
    fake.room.fake.script(
        Script(matches=lambda request: True, status=429, message="later", headers={"Retry-After": "40"})
    )
    fake.step()
    row = Deployment.objects.get(pk=fake.row.pk)
    waits = row.reconcile_after - row.unreachable_since
    assert timedelta(seconds=40) <= waits <= timedelta(seconds=60)


def test_a_cluster_that_is_gone_for_ten_minutes_does_not_use_up_the_deadline(fake: ClusterWorld) -> None:
    """F28: the wish waits, what is known stays with its age, and nothing is given up."""
    fake.serve_two()
    rollout = fake.start(fake.revision(threads=2))
    with fake.room.fake.gone():
        fake.step()
        ten_minutes = timedelta(minutes=10)
        Rollout.objects.filter(pk=rollout.pk).update(progressed_at=F("progressed_at") - ten_minutes)
        Deployment.objects.filter(pk=fake.row.pk).update(
            unreachable_since=F("unreachable_since") - ten_minutes
        )
        fake.step()
        assert fake.deployment.observed["replicas"]
    assert fake.finish(rollout).state == "succeeded"


def test_an_expired_token_says_what_to_replace(fake: ClusterWorld) -> None:
    fake.serve_two()
    script = Script(matches=lambda request: True, status=401, message="Unauthorized", times=10**6)
    fake.room.fake.script(script)
    codes = {one.code: one for one in fake.room.target.preflight(fake.room.target_wish(), live=None)}
    assert "Its token may have expired" in codes["credentials_refused"].evidence
    fake.step()
    assert selectors.health_of(fake.deployment) == "unreachable"
    script.times = 0
    fake.until(lambda: selectors.health_of(fake.deployment) == "healthy")


def test_rights_that_were_taken_away_are_named_and_not_asked_for_hotly(fake: ClusterWorld) -> None:
    """F29."""
    fake.serve_two()
    rollout = fake.start(fake.revision(threads=2))
    message = 'deployments.apps "x" is forbidden: User "slipway" cannot patch resource "deployments"'
    script = Script(
        matches=lambda request: request.method.value == "PATCH" and "/deployments/" in str(request.url),
        status=403, reason="Forbidden", message=message, times=10**6,
    )  # fmt: skip
    fake.room.fake.script(script)
    fake.step()
    rollout.refresh_from_db()
    assert "not permitted" in rollout.evidence["refused"]
    row = Deployment.objects.get(pk=fake.row.pk)
    assert row.reconcile_after - row.observed_at >= timedelta(seconds=4)
    script.times = 0
    assert fake.finish(rollout).state == "succeeded"


def test_a_namespace_that_is_being_deleted_is_a_finding_and_a_sentence(fake: ClusterWorld) -> None:
    fake.serve_two()
    revision = fake.revision(threads=2)
    rollout = fake.start(revision)
    space = fake.room.api.get(NAMESPACE, fake.room.namespace, None)
    fake.room.api.merge(
        NAMESPACE, fake.room.namespace, None, {"status": {"phase": "Terminating"}}, part="status"
    )
    script = Script(
        matches=lambda request: request.method.value in ("POST", "PATCH") and "/status" not in str(request.url),
        status=403, reason="Forbidden", times=10**6,
        message=f"unable to create new content in namespace {space['metadata']['name']} because it is being terminated",
    )  # fmt: skip
    fake.room.fake.script(script)
    fake.step()
    rollout.refresh_from_db()
    assert "The namespace is being deleted." in rollout.evidence["refused"]
    found = fake.room.target.preflight(fake.room.target_wish(), live=None)
    assert "namespace_terminating" in {one.code for one in found}
    script.times = 0
    fake.room.api.merge(NAMESPACE, fake.room.namespace, None, {"status": {"phase": "Active"}}, part="status")
    assert fake.finish(rollout).state == "succeeded"


def test_a_quota_that_is_hit_half_way_is_told_and_rolled_back(fake: ClusterWorld) -> None:
    fake.serve_two()
    bad = fake.revision(threads=2)
    fake.playing(bad, kubelet.hanging)
    rollout = fake.start(bad)
    fake.step()
    said = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    fake.room.complain(fake.name, said)
    fake.until(lambda: bool(fake.seen.complaint))
    fake.make_late(rollout)
    assert fake.finish(rollout).state == "rolled_back"
    assert "the namespace's quota is hit" in rollout.message


class _Dead(BaseException):
    pass


def _dying(call: Callable[..., bytes], *, after: int) -> Callable[..., bytes]:
    left = iter(range(after - 1))

    def instead(*args: Any, **how: Any) -> bytes:
        if next(left, None) is None:
            raise _Dead
        return call(*args, **how)

    return instead


def test_a_worker_killed_between_any_two_calls_loses_and_doubles_no_rollout(fake, monkeypatch):
    """Sieve-style: the n-th request of a rollout is the last of its worker, for every n, and another carries on."""
    fake.serve_two()
    for nth in (1, 2, 4, 7, 11, 16, 22, 30):
        rollout = fake.start(fake.revision(threads=2 + nth % 7))
        with monkeypatch.context() as patch:
            patch.setattr(fake.room.api, "_call", _dying(fake.room.api._call, after=nth))
            try:
                for _ in range(3):
                    fake.step()
            except _Dead:
                pass
        Deployment.objects.filter(pk=fake.row.pk).update(reconcile_after=F("reconcile_after"))
        assert fake.finish(rollout).state == "succeeded", nth
        assert served_by(fake.seen) == {rollout.to_revision.number}
        assert fake.deployment.rollouts.filter(state="succeeded").count() == fake.deployment.rollouts.count()


def test_a_canary_stands_beside_the_main_place_and_takes_it_when_it_has_proved_itself(cluster):
    cluster.serve_two()
    revision = cluster.revision(rollout={"strategy": "canary", "steps": [{"weight": 30}]})
    rollout = cluster.start(revision)
    cluster.until(lambda: in_step(rollout))
    assert (cluster.seen.ready(1), cluster.seen.ready(2)) == (2, 1)
    assert "1 of 3 replicas takes 33 %" in rollout.step["share"]["sentence"]
    assert cluster.room.api.find(HPA, cluster.name, cluster.room.namespace) is not None
    judged(cluster, rollout)
    for number in (1, 2):
        traffic(cluster, rollout, number, p50_ms=20)
    assert cluster.finish(rollout).state == "succeeded"
    cluster.until(lambda: served_by(cluster.seen) == {2} and len(cluster.seen.replicas) == 2)
    assert cluster.room.api.find(DEPLOYMENT, f"{cluster.name}-candidate", cluster.room.namespace) is None


def test_a_canary_that_is_worse_leaves_the_main_place_untouched(cluster):
    cluster.serve_two()
    before = cluster.room.api.get(DEPLOYMENT, cluster.name, cluster.room.namespace)["spec"]["template"]
    rollout = cluster.start(cluster.revision(rollout={"strategy": "canary", "steps": [{"weight": 30}]}))
    cluster.until(lambda: in_step(rollout))
    judged(cluster, rollout)
    traffic(cluster, rollout, 1, p50_ms=20)
    traffic(cluster, rollout, 2, p50_ms=80)
    assert cluster.finish(rollout).state == "rolled_back"
    assert "times worse at 95 % confidence" in rollout.message
    after = cluster.room.api.get(DEPLOYMENT, cluster.name, cluster.room.namespace)["spec"]["template"]
    assert after == before
    assert served_by(cluster.seen) == {1}


def test_blue_green_switches_the_service_and_ends_in_the_main_place(cluster):
    cluster.serve_two()
    rollout = cluster.start(cluster.revision(rollout={"strategy": "blue_green", "hold_s": 0}))
    selectors_seen = set()

    def over() -> bool:
        service = cluster.room.api.get(SERVICE, cluster.name, cluster.room.namespace)
        selectors_seen.add(service["spec"]["selector"].get(names.SLOT))
        rollout.refresh_from_db()
        return rollout.finished_at is not None

    cluster.until(over)
    assert rollout.state == "succeeded"
    assert selectors_seen >= {"main", "candidate"}
    cluster.step()
    service = cluster.room.api.get(SERVICE, cluster.name, cluster.room.namespace)
    assert names.SLOT not in service["spec"]["selector"]
    cluster.until(lambda: served_by(cluster.seen) == {2} and len(cluster.seen.replicas) == 2)


def in_step(rollout: Rollout) -> bool:
    rollout.refresh_from_db()
    return rollout.step.get("since") is not None
