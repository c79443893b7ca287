"""Slipway's own loop on a cluster: its size is written as one, by nobody else's generation, and never beside another
autoscaler."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.errors import Conflict
from deployments.domain.workload import DesiredDeployment, TargetStatus, Workload
from deployments.targets.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, HPA
from deployments.targets.port import StaleGeneration
from tests.deployments.targets.kubernetes.room import Room, cluster_workload, scaled


def wish(key: str, *workloads: Workload, generation: int = 1) -> DesiredDeployment:
    return DesiredDeployment(key=key, path=f"/team/{key}", generation=generation, workloads=workloads)


def own(replicas: int, revision: int = 1, **fields: Any) -> Workload:
    return scaled(cluster_workload(revision, replicas, **fields), "slipway")


def rolled(number: int) -> Callable[[TargetStatus], bool]:
    return lambda status: status.rolled and status.ready() == number == len(status.replicas)


def generation_of(room: Room, key: str) -> str:
    record = room.api.get(CONFIG_MAP, f"{key}-slipway", room.namespace)
    return str(record["metadata"]["annotations"]["slipway.dev/generation"])


def foreign_hpa(room: Room, key: str, name: str) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": key}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "metrics": []}
    room.api.create(HPA, {"metadata": {"name": name}, "spec": spec}, room.namespace)


def test_a_size_reaches_the_cluster_without_a_new_generation_or_an_hpa(room: Room, key: str) -> None:
    room.target.apply(wish(key, own(2)))
    room.until(key, rolled(2))
    for replicas in (5, 3):
        room.target.apply(wish(key, own(replicas)))
        seen = room.until(key, rolled(replicas))
        assert (seen.wanted, seen.generation) == (None, 1), "what it wrote itself is nobody's decision"
        live = room.target.desired(key)
        assert live is not None
        assert live.workloads[0].replicas == replicas
    assert generation_of(room, key) == "1"
    assert room.api.find(HPA, key, room.namespace) is None


def test_the_next_revision_keeps_the_size_that_the_loop_decided(room: Room, key: str) -> None:
    room.target.apply(wish(key, own(2)))
    room.target.apply(wish(key, own(4)))
    room.until(key, rolled(4))
    room.target.apply(wish(key, own(5, 2, threads=2), generation=2))
    assert room.until(key, lambda seen: rolled(5)(seen) and seen.ready(2) == 5).generation == 2


def test_a_size_that_somebody_else_wrote_is_put_right(room: Room, key: str) -> None:
    room.target.apply(wish(key, own(2)))
    room.until(key, rolled(2))
    room.edit_size(key, 6)
    room.target.apply(wish(key, own(2)))
    room.until(key, rolled(2))


def test_taking_over_from_an_hpa_and_giving_back_moves_no_pod(room: Room, key: str) -> None:
    room.target.apply(wish(key, scaled(cluster_workload(1, 3))))
    room.until(key, rolled(3))
    room.edit_size(key, 4)
    assert room.until(key, rolled(4)).wanted == 4
    room.target.apply(wish(key, own(4), generation=2))
    assert room.api.find(HPA, key, room.namespace) is None, "before a size is written"
    assert room.until(key, rolled(4)).wanted is None
    room.target.apply(wish(key, scaled(cluster_workload(1, 4)), generation=3))
    assert room.until(key, rolled(4)).wanted == 4


def test_what_the_cluster_s_autoscaler_made_of_a_wish_is_that_wish(room: Room, key: str) -> None:
    """Applying it again, with the size that is there, is no newer wish of the same generation."""
    desired = wish(key, scaled(cluster_workload(1, 2)))
    room.target.apply(desired)
    room.edit_size(key, 5)
    live = room.target.desired(key)
    assert live is not None
    room.target.apply(live)
    assert room.until(key, rolled(5)).wanted == 5


def test_a_decision_that_came_late_changes_nothing(room: Room, key: str) -> None:
    room.target.apply(wish(key, own(2)))
    room.target.apply(wish(key, own(3, 2, threads=2), generation=2))
    with pytest.raises(StaleGeneration):
        room.target.apply(wish(key, own(9)))
    assert room.api.get(DEPLOYMENT, key, room.namespace)["spec"]["replicas"] == 3


@pytest.mark.parametrize("autoscaler", ["slipway", "none", "hpa"])
def test_another_autoscaler_on_the_same_deployment_is_found_before_a_rollout(
    room: Room, key: str, autoscaler: str
) -> None:
    desired = wish(key, scaled(cluster_workload(1, 2), autoscaler))
    foreign_hpa(room, key, f"{key}-theirs")
    found = {one.code: one for one in room.target.preflight(desired, live=None)}
    room.api.delete(HPA, f"{key}-theirs", room.namespace)
    assert found["two_autoscalers"].severity == "error"
    assert f"HorizontalPodAutoscaler {key}-theirs" in found["two_autoscalers"].evidence


def test_beside_an_autoscaler_that_came_later_the_loop_writes_nothing(room: Room, key: str) -> None:
    room.target.apply(wish(key, own(2)))
    room.until(key, rolled(2))
    foreign_hpa(room, key, f"{key}-late")
    with pytest.raises(Conflict, match="Another autoscaler"):
        room.target.apply(wish(key, own(6)))
    room.target.apply(wish(key, own(2)))
    room.api.delete(HPA, f"{key}-late", room.namespace)
    assert room.api.get(DEPLOYMENT, key, room.namespace)["spec"]["replicas"] <= 3
    room.target.apply(wish(key, own(6)))
    room.until(key, rolled(6))


def test_a_scaled_object_of_somebody_else_is_found_too(fake_room: Room, key: str) -> None:
    from deployments.targets.kubernetes.kinds import SCALED_OBJECT

    assert fake_room.fake is not None
    fake_room.fake.cluster.unserved.clear()
    try:
        spec = {"scaleTargetRef": {"name": key}}
        fake_room.api.create(SCALED_OBJECT, {"metadata": {"name": f"{key}-keda"}, "spec": spec}, "ml")
        found = fake_room.target.preflight(wish(key, replace(own(2))), live=None)
        fake_room.api.delete(SCALED_OBJECT, f"{key}-keda", "ml")
    finally:
        from tests.deployments.targets.kubernetes.fake import UNSERVED

        fake_room.fake.cluster.unserved |= UNSERVED
    assert "two_autoscalers" in {one.code for one in found}
