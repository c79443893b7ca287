"""A namespace in a cluster, with the target that is tested in it and the hands that play nodes and pods."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from controlplane.core.errors import NotFound
from deployments.domain.cluster import ClusterSettings, ClusterWorkload
from deployments.domain.spec import default_autoscaling
from deployments.domain.workload import Batching, DesiredDeployment, TargetStatus, Workload
from deployments.targets.kubernetes import kinds
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.render.place import Place
from deployments.targets.kubernetes.target import KubernetesTarget
from tests.deployments.targets.conftest import free_port
from tests.deployments.targets.kubernetes.fake import KUBELET, RunningFake
from tests.deployments.targets.kubernetes.kubelet import Kubelet

WITHIN_S = 30
FETCH_URL = "https://slipway.example.com"
SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", 3]}],
    "batch_axis": 0,
}


def cluster_workload(
    revision: int = 1, replicas: int = 2, *, settings: ClusterSettings | None = None, **fields: Any
) -> Workload:
    """Without an autoscaler, so that the replicas are the test's."""
    batching = Batching()
    told = ClusterWorkload(
        settings=settings or ClusterSettings(autoscaler="none"),
        autoscaling=default_autoscaling(min_replicas=2, max_replicas=20, batching=batching),
    )
    given: dict[str, Any] = {
        "stack": "fastapi",
        "model_name": "m",
        "model_version": "1",
        "artifact_sha256": "0" * 64,
        "artifact_path": "",
        "signature": SIGNATURE,
        "batching": batching,
        "cluster": told,
    }
    return Workload(revision=revision, replicas=replicas, **given | fields)


class Room:
    """`fake` is None in a real cluster."""

    def __init__(self, api: Api, *, namespace: str, fake: RunningFake | None = None) -> None:
        self.api = api
        self.namespace = namespace
        self.fake = fake
        self.place = Place(namespace=namespace, fetch_url=FETCH_URL)
        self.target = KubernetesTarget(api, self.place, pull_token=lambda key: f"token-of-{key}")
        # A connection of its own: a test that breaks ours means only us.
        own = api.connection if fake is None else replace(api.connection, token=KUBELET)
        self.kubelet = Kubelet(Api(own))

    def start(self) -> "Room":
        self.api.create(kinds.NAMESPACE, {"metadata": {"name": self.namespace}}, None)
        self.kubelet.start()
        return self

    def stop(self) -> None:
        self.kubelet.stop()

    def until(self, key: str, holds: Callable[[TargetStatus], bool]) -> TargetStatus:
        end = time.monotonic() + WITHIN_S
        while True:
            if holds(status := self.target.observe(key)):
                return status
            assert time.monotonic() < end, status
            time.sleep(0.05)

    def until_gone(self, key: str) -> None:
        try:
            self.until(key, lambda status: False)
        except NotFound:
            return

    def until_quota(self, name: str) -> None:
        """The quota's controller counts in its own time."""
        end = time.monotonic() + WITHIN_S
        while not self.api.get(kinds.QUOTA, name, self.namespace).get("status", {}).get("used"):
            assert time.monotonic() < end
            time.sleep(0.05)

    def says(self, key: str, revision: int, lines: Sequence[str]) -> None:
        """What the pods of a revision have logged. Real clusters ask a kubelet, which is only played here."""
        if self.fake is not None:
            logs = self.fake.cluster.logs
            self.fake.call(lambda: logs.__setitem__((key, str(revision)), list(lines)))

    def unreachable(self) -> KubernetesTarget:
        nobody = Connection(server=f"http://127.0.0.1:{free_port()}", token="x")
        return KubernetesTarget(Api(nobody), self.place, pull_token=lambda key: "")

    def edit(
        self, kind: kinds.Kind, name: str, change: dict[str, Any], *, manager: str = "kubectl-edit"
    ) -> None:
        """As somebody else."""
        other = Api(self.api.connection)
        other.manager = manager
        other.merge(kind, name, self.namespace, change)

    def edit_size(self, name: str, replicas: int) -> None:
        """As the cluster's autoscaler."""
        other = Api(self.api.connection)
        other.manager = "horizontal-pod-autoscaler"
        change = {"spec": {"replicas": replicas}}
        other.merge(kinds.DEPLOYMENT, name, self.namespace, change, part="scale")

    def evict(self, pod: str) -> None:
        self.api.delete(kinds.POD, pod, self.namespace)

    def has(self, key: str) -> bool:
        try:
            self.target.observe(key)
        except NotFound:
            return False
        return True

    def complain(self, name: str, message: str) -> None:
        """As the Deployment controller does that may make no pod."""
        condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        change = {"status": {"conditions": [condition]}}
        self.api.merge(kinds.DEPLOYMENT, name, self.namespace, change, part="status")

    def target_wish(self) -> DesiredDeployment:
        return DesiredDeployment(
            key="other", path="/team/other", generation=1, workloads=(cluster_workload(1, 1),)
        )


def elsewhere(room: Room, namespace: str) -> Room:
    """Another namespace of the same cluster."""
    other = Room(room.api, namespace=namespace, fake=room.fake)
    other.kubelet = room.kubelet
    return other


def scaled(workload: Workload, autoscaler: str = "hpa") -> Workload:
    assert workload.cluster is not None
    settings = replace(workload.cluster.settings, autoscaler=autoscaler)
    return replace(workload, cluster=replace(workload.cluster, settings=settings))
