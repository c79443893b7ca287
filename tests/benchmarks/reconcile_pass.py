"""P14: what it costs to see that nothing is to do, and how many writes there are when something is.

A look is what the collector does every period without watches: all deployments of a namespace in four lists. A step is
what the reconciler does with one deployment from time to time: look at it, read its wish, and put back what is missing.
The floor of a look reads the same four lists and no more.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import urllib3

from controlplane.settings.environment import REPOSITORY
from deployments.targets.kubernetes import kubeconfig
from deployments.targets.kubernetes.api import PAGE, Api, Object
from deployments.targets.kubernetes.kinds import POD, SERVICE, Kind
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.target import MINE, SEEN, KubernetesTarget
from tests.benchmarks.reconcile_pass_child import NAMESPACE, REPLICAS, name
from tests.benchmarks.result import Row, compared, median, quartiles
from tests.deployments.targets.kubernetes.control_plane import ControlPlane, why_not
from tests.deployments.targets.kubernetes.room import Room, cluster_workload
from tests.deployments.targets.kubernetes.test_target import wish

DEPLOYMENTS, REAL_DEPLOYMENTS = 1000, 60
ROUNDS, FULL_ROUNDS = 5, 20
STEPS = 10
DRIFTED = 0.01
WITHIN_S = 300.0


class Counting(Api):
    """Counts what changes something."""

    writes = 0

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, dry_run: bool = False, **how: Any) -> Object:
        self.writes += not dry_run
        return super().apply(kind, manifest, dry_run=dry_run, **how)

    def merge(self, *args: Any, **how: Any) -> Object:
        self.writes += 1
        return super().merge(*args, **how)

    def create(self, *args: Any, **how: Any) -> Object:
        self.writes += 1
        return super().create(*args, **how)

    def delete(self, *args: Any, **how: Any) -> bool:
        self.writes += 1
        return super().delete(*args, **how)


def run(*, full: bool) -> list[Row]:
    rounds = FULL_ROUNDS if full else ROUNDS
    rows = _on_the_fake(rounds)
    if reason := why_not():
        print(f"   not on a real control plane: {reason}")
        return rows
    return rows + _on_a_real_one(rounds)


def _on_the_fake(rounds: int) -> list[Row]:
    argv = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.reconcile_pass_child", str(DEPLOYMENTS)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        argv, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        try:
            connection = Connection(server=child.stdout.readline().decode().strip(), token="x")
            return _rows("the fake", connection, DEPLOYMENTS, rounds)
        finally:
            child.terminate()


def _on_a_real_one(rounds: int) -> list[Row]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-bench-")))
        plane = ControlPlane(home)
        stack.callback(plane.stop)
        plane.start()
        connection = kubeconfig.read(plane.kubeconfig())
        room = Room(Api(connection), namespace=NAMESPACE).start()
        room.kubelet.stop()
        for number in range(REAL_DEPLOYMENTS):
            room.target.apply(wish(name(number), cluster_workload(1, REPLICAS)))
        _until(lambda: len(room.api.list(POD, NAMESPACE).items) >= REAL_DEPLOYMENTS * REPLICAS)
        return _rows("a real API server", connection, REAL_DEPLOYMENTS, rounds)


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, "the cluster does not make its pods"
        time.sleep(0.5)


def _rows(where: str, connection: Connection, deployments: int, rounds: int) -> list[Row]:
    api = Counting(connection)
    target = KubernetesTarget(
        api, Room(api, namespace=NAMESPACE).place, pull_token=lambda key: f"token-of-{key}"
    )
    seen = target.observe_all()
    assert len(seen) == deployments
    assert sum(len(one.replicas) for one in seen) == deployments * REPLICAS
    floor, look = _looks(target, connection, rounds)
    step_ms = _steps(target, deployments, rounds)
    idle = api.writes
    drifted = max(1, round(deployments * DRIFTED))
    mended = _after_drift(target, api, drifted)
    size = f"{deployments} deployments and {deployments * REPLICAS} pods on {where}"
    return [
        compared(
            metric=f"client's CPU of a look at {size}, over the same lists by orjson",
            unit="ms", values=look, floor=floor, at_most=4.0, n=1,
        ),
        Row(
            metric=f"client's CPU of a step of one deployment with nothing to do, {where}",
            value=median(step_ms), unit="ms", n=STEPS * rounds, spread=quartiles(step_ms),
        ),
        Row(
            metric=f"API writes of looks and steps with nothing to do, {where}",
            value=idle, unit="writes", target="0", met=idle == 0, n=rounds * (1 + STEPS),
        ),
        Row(
            metric=f"API writes of steps of {drifted} deployments that each lost an object, {where}",
            value=mended, unit="writes", target=f"{drifted}", met=mended == drifted, n=drifted,
        ),
    ]  # fmt: skip


def _looks(
    target: KubernetesTarget, connection: Connection, rounds: int
) -> tuple[Sequence[float], Sequence[float]]:
    floor: list[float] = []
    look: list[float] = []
    pool = urllib3.PoolManager(ca_cert_data=connection.ca_pem or None, retries=False)
    for round_number in range(rounds + 1):
        for kept, work in ((floor, lambda: _floor(pool, connection)), (look, target.observe_all)):
            began = time.process_time()
            work()
            if round_number:  # the first one is the warm-up
                kept.append((time.process_time() - began) * 1000)
    return floor, look


def _floor(pool: urllib3.PoolManager, connection: Connection) -> None:
    """The same pages of the same lists, read and parsed."""
    headers = {"Authorization": f"Bearer {connection.token}", "Accept": "application/json"}
    for kind in SEEN:
        asked = {"limit": str(PAGE), "labelSelector": MINE}
        while True:
            url = f"{connection.server}{kind.path(NAMESPACE)}?{urlencode(asked)}"
            page = orjson.loads(pool.request("GET", url, headers=headers).data)
            if not page["metadata"].get("continue"):
                break
            asked["continue"] = page["metadata"]["continue"]


def _steps(target: KubernetesTarget, deployments: int, rounds: int) -> list[float]:
    found = []
    for round_number in range(rounds):
        began = time.process_time()
        for number in range(STEPS):
            _step(target, name((round_number * STEPS + number) % deployments))
        found.append((time.process_time() - began) / STEPS * 1000)
    return found


def _step(target: KubernetesTarget, key: str) -> None:
    """As `reconciler._apply_if_different`, without the database."""
    target.observe(key)
    live = target.desired(key)
    assert live is not None
    target.apply(live)


def _after_drift(target: KubernetesTarget, api: Counting, drifted: int) -> int:
    for number in range(drifted):
        assert Api(api.connection).delete(SERVICE, name(number), NAMESPACE)
    before = api.writes
    for number in range(drifted):
        _step(target, name(number))
    return api.writes - before
