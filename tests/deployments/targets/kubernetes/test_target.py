"""What a cluster adds to the contract: sizes that are not ours, others who write, and writers that were paused."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.errors import Conflict
from deployments.domain.drift import Drift
from deployments.domain.plan import Op
from deployments.domain.workload import DesiredDeployment, ReplicaState, TargetStatus, Workload
from deployments.targets.kubernetes import live, names
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.errors import FieldConflict, Moved
from deployments.targets.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    HPA,
    SERVICE,
    Kind,
)
from deployments.targets.kubernetes.target import KubernetesTarget
from tests.deployments.targets.kubernetes import kubelet
from tests.deployments.targets.kubernetes.room import Room, cluster_workload, scaled


def wish(key: str, *workloads: Workload, generation: int = 1) -> DesiredDeployment:
    return DesiredDeployment(key=key, path=f"/team/{key}", generation=generation, workloads=workloads)


def rolled(number: int) -> Callable[[TargetStatus], bool]:
    return lambda status: status.rolled and status.ready() == number == len(status.replicas)


def size_of(room: Room, key: str) -> int:
    return int(room.api.get(DEPLOYMENT, key, room.namespace)["spec"]["replicas"])


def as_the_autoscaler(room: Room, key: str, replicas: int) -> None:
    other = Api(room.api.connection)
    other.manager = "horizontal-pod-autoscaler"
    other.merge(DEPLOYMENT, key, room.namespace, {"spec": {"replicas": replicas}}, part="scale")


class WithHands(Api):
    """Does something in the middle of a pass: before the n-th write."""

    def __init__(self, like: Api, *, before_write: int, then: Callable[[], None]) -> None:
        super().__init__(like.connection)
        self._left, self._then = before_write, then

    def apply(self, kind: Kind, manifest: Mapping[str, Any], **how: Any) -> Object:
        self._left -= 1
        if self._left == 0:
            self._then()
        return super().apply(kind, manifest, **how)


def test_a_scaled_deployment_begins_at_its_size_and_keeps_what_the_autoscaler_made_of_it(room, key):
    desired = wish(key, scaled(cluster_workload(1, 3)))
    room.target.apply(desired)
    room.until(key, rolled(3))
    assert room.api.get(HPA, key, room.namespace)["spec"]["scaleTargetRef"]["name"] == key
    as_the_autoscaler(room, key, 5)
    assert room.until(key, rolled(5)).wanted == 5
    second = wish(key, scaled(cluster_workload(2, 3, threads=2)), generation=2)
    assert not [one for one in room.target.plan(second).diff if "replicas" in one.path.lower()]
    room.target.apply(second)
    assert room.until(key, lambda status: rolled(5)(status) and status.ready(2) == 5).wanted == 5


def test_taking_the_size_from_the_autoscaler_and_giving_it_back_moves_no_pod(room, key):
    room.target.apply(wish(key, scaled(cluster_workload(1, 4))))
    room.until(key, rolled(4))
    room.target.apply(wish(key, cluster_workload(1, 4), generation=2))
    assert room.api.find(HPA, key, room.namespace) is None
    assert room.until(key, rolled(4)).wanted is None
    room.target.apply(wish(key, scaled(cluster_workload(1, 4)), generation=3))
    assert size_of(room, key) == 4
    assert room.until(key, rolled(4)).wanted == 4


def test_a_writer_that_was_paused_in_the_middle_is_refused(room, key):
    """F34: it believes to be alone; the other one has a newer generation."""
    room.target.apply(wish(key, cluster_workload(1, 1)))
    room.until(key, rolled(1))
    newer = wish(key, cluster_workload(3, 2, threads=3), generation=3)

    def overtake() -> None:
        while room.target.desired(key) != newer:
            with suppress(Moved):  # the cluster's own controllers write status meanwhile
                room.target.apply(newer)

    for nth in range(1, 7):
        slow = KubernetesTarget(
            WithHands(room.api, before_write=nth, then=overtake),
            room.place,
            pull_token=lambda key: f"token-of-{key}",
        )
        with pytest.raises(Conflict):
            slow.apply(wish(key, cluster_workload(2, 9, threads=2), generation=2))
        assert room.target.desired(key) == newer
        assert size_of(room, key) == 2
    room.until(key, lambda status: rolled(2)(status) and status.ready(3) == 2)


class _Killed(Exception):
    pass


def test_a_writer_that_died_between_any_two_writes_leaves_what_the_next_one_finishes(room, key):
    """F33: the end state is that of an undisturbed pass."""

    def die() -> None:
        raise _Killed

    desired = wish(key, scaled(cluster_workload(1, 2)))
    nth = 0
    while True:
        nth += 1
        mortal = KubernetesTarget(
            WithHands(room.api, before_write=nth, then=die),
            room.place,
            pull_token=lambda key: f"token-of-{key}",
        )
        try:
            mortal.apply(desired)
        except _Killed:
            room.target.apply(desired)
            assert room.target.desired(key) == replace(desired)
            assert live.drift(room.target._render(desired), live.read(room.api, room.namespace, key)) == ()
            desired = replace(desired, generation=desired.generation + 1)
            continue
        break
    assert nth > 6


def test_a_pass_with_nothing_to_do_writes_nothing(fake_room, key):
    desired = wish(key, scaled(cluster_workload(1, 2)))
    fake_room.target.apply(desired)
    fake_room.until(key, rolled(2))
    made = fake_room.fake.cluster.requests_made
    before = [one for one in made if one[0] != "GET" and "/status" not in one[1]]
    fake_room.target.apply(desired)
    fake_room.target.observe(key)
    assert [one for one in made if one[0] != "GET" and "/status" not in one[1]] == before


def test_what_somebody_else_changed_is_found_and_not_taken_back_by_itself(room, key):
    desired = wish(key, scaled(cluster_workload(1, 2)))
    room.target.apply(desired)
    room.edit(HPA, key, {"spec": {"maxReplicas": 7}})
    room.edit(SERVICE, key, {"metadata": {"labels": {"team": "theirs"}}})
    assert room.target.drift(key) == (
        Drift(
            object=f"HorizontalPodAutoscaler {key}",
            path="spec.maxReplicas",
            ours=20,
            live=7,
            owner="kubectl-edit",
        ),
    )
    room.target.apply(desired)
    assert room.api.get(HPA, key, room.namespace)["spec"]["maxReplicas"] == 7


def test_a_foreign_field_is_named_with_its_owner_and_taken_over_only_on_request(room, key):
    room.target.apply(wish(key, scaled(cluster_workload(1, 2))))
    room.edit(HPA, key, {"spec": {"maxReplicas": 7}})
    second = wish(key, scaled(cluster_workload(1, 2, threads=2)), generation=2)
    with pytest.raises(FieldConflict, match="belongs to kubectl-edit"):
        room.target.apply(second)
    findings = {one.code: one for one in room.target.preflight(second, live=None)}
    assert "kubectl-edit" in findings["field_conflict"].evidence
    taken: list[str] = []
    room.target.apply(second, take_over=taken.append)
    assert "belongs to kubectl-edit" in " ".join(taken)
    assert room.api.get(HPA, key, room.namespace)["spec"]["maxReplicas"] == 20
    room.edit(HPA, key, {"spec": {"maxReplicas": 7}})
    room.target.put_back(key)
    assert room.api.get(HPA, key, room.namespace)["spec"]["maxReplicas"] == 20
    assert room.target.drift(key) == ()


@pytest.mark.parametrize("kind", [SERVICE, HPA, DEPLOYMENT, CONFIG_MAP])
def test_what_somebody_deleted_is_put_back_by_the_next_pass(room, key, kind):
    desired = wish(key, scaled(cluster_workload(1, 2)))
    room.target.apply(desired)
    room.until(key, rolled(2))
    gone = next(
        one["metadata"]["name"]
        for one in room.api.list(kind, room.namespace, labels=names.selector(key)).items
        if names.RECORD not in one["metadata"]["labels"]
    )
    room.api.delete(kind, gone, room.namespace)
    assert [one.live for one in room.target.drift(key)] == ["deleted"]
    room.target.apply(desired)
    assert room.api.find(kind, gone, room.namespace) is not None
    room.until(key, rolled(2))


def test_a_name_that_belongs_to_somebody_else_is_left_alone(room, key):
    theirs = {"metadata": {"name": key}, "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}}}
    room.api.create(SERVICE, theirs, room.namespace)
    desired = wish(key, cluster_workload(1, 1))
    with pytest.raises(Conflict, match=f"Service {key} belongs to something that Slipway did not make"):
        room.target.apply(desired)
    assert room.api.get(SERVICE, key, room.namespace)["spec"]["selector"] == {"app": "theirs"}
    room.api.delete(SERVICE, key, room.namespace)


def test_a_candidate_stands_beside_the_serving_one_and_goes(room, key):
    stable, candidate = cluster_workload(1, 3), replace(cluster_workload(2, 1), candidate=True, weight=0)
    room.target.apply(wish(key, stable))
    room.until(key, rolled(3))
    room.target.apply(wish(key, stable, candidate, generation=2))
    seen = room.until(key, lambda status: status.rolled and status.ready() == 4)
    assert (seen.ready(1), seen.ready(2)) == (3, 1)
    room.target.apply(wish(key, replace(stable, revision=2), replace(candidate, weight=100), generation=3))
    room.until(key, lambda status: status.rolled and status.ready(2) == 4)
    room.target.apply(wish(key, replace(stable, revision=2), generation=4))
    room.until(key, lambda status: rolled(3)(status) and status.ready(2) == 3)
    assert room.api.find(DEPLOYMENT, f"{key}-candidate", room.namespace) is None


def test_old_configurations_go_when_no_pod_mounts_them(room, key):
    room.target.apply(wish(key, cluster_workload(1, 2)))
    room.until(key, rolled(2))
    room.target.apply(wish(key, cluster_workload(2, 2), generation=2))
    room.until(key, lambda status: rolled(2)(status) and status.ready(2) == 2)
    room.target.apply(wish(key, cluster_workload(2, 1), generation=3))
    configs = room.api.list(CONFIG_MAP, room.namespace, labels=names.selector(key)).items
    assert sorted(one["metadata"]["labels"].get(names.REVISION, "") for one in configs) == ["", "2"]


@pytest.mark.parametrize(
    ("play", "reason", "state"),
    [
        (kubelet.no_image, "image pull failed: not found (nowhere/model:1)", ReplicaState.FAILED),
        (kubelet.out_of_memory, "OOMKilled at 8Gi after 3 restarts", ReplicaState.FAILED),
        (kubelet.hanging, "", ReplicaState.NOT_READY),
    ],
)
def test_a_pod_that_fails_says_why_in_words(room, key, play, reason, state):
    room.kubelet.plays[key, 1] = play
    room.target.apply(wish(key, cluster_workload(1, 1)))
    seen = room.until(key, lambda status: any(one.state is state for one in status.replicas))
    assert seen.replicas[0].reason == reason.replace("nowhere/model:1", "slipway/replica-fastapi")


def test_a_pod_that_fits_no_node_says_so(kubernetes_real, key):
    room = kubernetes_real
    workload = cluster_workload(1, 1)
    assert workload.cluster is not None
    workload = replace(workload, cluster=replace(workload.cluster, capabilities=("8.9",)))
    room.target.apply(wish(key, workload))
    seen = room.until(key, lambda status: bool(status.replicas and status.replicas[0].reason))
    assert seen.replicas[0].reason.startswith("cannot be scheduled: 0/2 nodes are available")
    room.target.delete(key)
    room.until_gone(key)


def test_a_quota_that_is_hit_says_so(kubernetes_real, key):
    room = kubernetes_real
    quota = Kind("ResourceQuota", "v1", "resourcequotas")
    room.target.apply(wish(key, cluster_workload(1, 1)))
    room.until(key, rolled(1))
    room.api.create(quota, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}, room.namespace)
    try:
        more = wish(key, cluster_workload(1, 3), generation=2)
        room.until_quota("q")
        codes = {one.code: one for one in room.target.preflight(more, live=room.target.desired(key))}
        assert "pods 1 of 1 used, and 2 more would be needed" in codes["quota_short"].evidence
        room.target.apply(more)
        seen = room.until(key, lambda status: bool(status.complaint))
        assert seen.complaint.startswith("the namespace's quota is hit: pods")
    finally:
        room.api.delete(quota, "q", room.namespace)
        room.target.delete(key)
        room.until_gone(key)


def test_the_plan_names_what_the_cluster_itself_would_make_of_it(room, key):
    first = wish(key, scaled(cluster_workload(1, 2)))
    plan = room.target.plan(first)
    assert {one.op for one in plan.diff} == {Op.ADD}
    assert room.target.desired(key) is None
    room.target.apply(first)
    assert room.target.plan(first).diff == ()
    assert {one["kind"] for one in plan.manifests} >= {"Deployment", "Service", "HorizontalPodAutoscaler"}
    assert "token-of" not in str(plan.manifests)


def test_the_engines_node_and_the_pull_secret_are_asked_for_beforehand(room, key):
    workload = cluster_workload(1, 1)
    assert workload.cluster is not None
    settings = replace(
        workload.cluster.settings,
        resources=replace(workload.cluster.settings.resources, gpus=1),
        image_pull_secret="not-there",
        priority_class="not-there-either",
    )
    workload = replace(workload, cluster=replace(workload.cluster, settings=settings, capabilities=("8.9",)))
    codes = {one.code for one in room.target.preflight(wish(key, workload), live=None)}
    assert {"no_gpus", "secret_missing", "priorityclass_missing"} <= codes
