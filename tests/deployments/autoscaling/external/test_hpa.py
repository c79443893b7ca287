"""A real HorizontalPodAutoscaler that asks our process through a real API server's aggregator."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deployments.domain.workload import DesiredDeployment, TargetStatus
from deployments.targets.kubernetes import metrics_install, names
from deployments.telemetry.snapshot import write_signals
from tests.certificates import FRONT_PROXY, Authority
from tests.deployments.autoscaling.external.conftest import address_of, metrics_api
from tests.deployments.autoscaling.external.signals import labels, serving
from tests.deployments.targets.kubernetes.control_plane import ControlPlane
from tests.deployments.targets.kubernetes.room import Room, cluster_workload, scaled

pytestmark = pytest.mark.processes
KEY = "queued"
WITHIN_S = 90
"""Twice the default policy's quarter of a minute, and the cluster's own pace."""


class Queue:
    """What the collector would say of one deployment, every half second."""

    def __init__(self, redis: Redis, name: str, *, namespace: str) -> None:
        self.depth: float | None = 0.0
        self._redis, self._labels = redis, {"d1": labels(1, name, namespace=namespace)}

    @asynccontextmanager
    async def told(self) -> AsyncIterator["Queue"]:
        task = asyncio.create_task(self._tell())
        try:
            yield self
        finally:
            task.cancel()

    async def _tell(self) -> None:
        while True:
            if self.depth is not None:
                await write_signals(self._redis, [serving(1, depth=self.depth)], labels=self._labels)
            await asyncio.sleep(0.5)


async def until(room: Room, key: str, holds: Callable[[TargetStatus], bool]) -> TargetStatus:
    end = time.monotonic() + WITHIN_S
    while True:
        seen = await asyncio.to_thread(room.target.observe, key)
        if holds(seen):
            return seen
        assert time.monotonic() < end, seen.autoscaler
        await asyncio.sleep(0.2)


def condition(seen: TargetStatus, name: str) -> dict[str, str]:
    return next((one for one in seen.autoscaler.get("conditions", ()) if one["type"] == name), {})


async def test_a_queue_of_95_makes_ten_replicas_and_a_signal_that_stops_holds_them(
    control_plane: ControlPlane, kubernetes_real: Room, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    if not control_plane.full:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager and kube-scheduler")
    room, authority = kubernetes_real, Authority.make(tmp_path / "ca", called="metrics")
    wish = DesiredDeployment(
        key=KEY, path="/search/queued", generation=1, workloads=(scaled(cluster_workload(1, 2)),)
    )
    serves = authority.serving(f"{metrics_install.SERVICE}.{room.namespace}.svc")
    environment = {
        "REDIS_URL": redis_url,
        "SLIPWAY_METRICS_ADDRESS": "127.0.0.1:0",
        "SLIPWAY_METRICS_CERT": str(serves.certificate),
        "SLIPWAY_METRICS_KEY": str(serves.key),
        "SLIPWAY_METRICS_CLIENT_CA": str(control_plane.front_proxy.certificate),
        "SLIPWAY_METRICS_CLIENT_NAMES": FRONT_PROXY,
    }
    with metrics_api(tmp_path, **environment) as process:
        _install(room, authority, process)
        room.target.apply(wish)
        queue = Queue(redis, names.name_of(wish), namespace=room.namespace)
        async with queue.told():
            # Idle is an explicit zero: the autoscaler is active, and stays at its minimum.
            seen = await until(room, KEY, lambda one: condition(one, "ScalingActive").get("status") == "True")
            assert seen.wanted == 2
            queue.depth = 95.0
            sizes = [2]

            def grown(one: TargetStatus) -> bool:
                if one.wanted not in (None, sizes[-1]):
                    sizes.append(int(one.wanted or 0))
                return sizes[-1] >= 10

            seen = await until(room, KEY, grown)
            assert sizes == sorted(sizes)
            assert sizes[-1] == 10
            await until(room, KEY, lambda one: one.ready() == 10)
            queue.depth = None  # the collector is gone
            seen = await until(
                room, KEY, lambda one: condition(one, "ScalingActive").get("status") == "False"
            )
            assert condition(seen, "ScalingActive")["reason"] == "FailedGetExternalMetric"
            assert seen.wanted == 10
    room.target.delete(KEY)
    room.until_gone(KEY)


def _install(room: Room, authority: Authority, process: "subprocess.Popen[str]") -> None:
    """As the button does it, with a process outside of the cluster."""
    port = address_of(process).rpartition(":")[2]
    wanted = metrics_install.MetricsApi(
        namespace=room.namespace, ca_pem=authority.certificate.read_text(), outside=f"localhost:{port}"
    )
    metrics_install.install(room.api, wanted, etag=metrics_install.plan(room.api, wanted).etag)
