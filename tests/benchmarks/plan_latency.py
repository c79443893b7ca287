"""S7: a plan of a revision against `kubectl diff --server-side` of the same objects, by the same API server in turns.

The plan renders the objects, has the cluster try them, and compares; kubectl is given them rendered.

Without a real control plane or without kubectl there is nothing to compare with, and no row.
"""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import kubeconfig
from deployments.targets.kubernetes.api import MANAGER, Api
from deployments.targets.kubernetes.render import Manifest
from tests.benchmarks.result import Row, compared, median, quartiles
from tests.deployments.targets.kubernetes.control_plane import ControlPlane, why_not
from tests.deployments.targets.kubernetes.room import Room, cluster_workload, scaled

ROUNDS, FULL_ROUNDS, PLANS = 5, 20, 5


def run(*, full: bool) -> list[Row]:
    kubectl = shutil.which("kubectl")
    reason = why_not() or ("" if kubectl else "there is no kubectl on the path")
    if reason or kubectl is None:
        print(f"   not measured: {reason}")
        return []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-bench-")))
        plane = ControlPlane(home)
        stack.callback(plane.stop)
        plane.start()
        config = home / "kubeconfig"
        config.write_text(plane.kubeconfig())
        room = Room(Api(kubeconfig.read(config.read_text())), namespace="ml").start()
        stack.callback(room.stop)
        room.target.apply(_wish(1))
        next_one = _wish(2)
        planned = room.target.plan(next_one)
        objects = home / "objects.json"
        objects.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": _whole(room, next_one)}))
        diff = [
            kubectl, f"--kubeconfig={config}", "diff", "--server-side", "--force-conflicts",
            f"--field-manager={MANAGER}", "-f", str(objects),
        ]  # fmt: skip
        assert b"fastapi" in _differs(diff), "kubectl finds no difference"
        assert planned.diff
        return _measured(
            lambda: (room.target.plan(next_one), room.target.preflight(next_one, live=_wish(1))),
            lambda: _differs(diff),
            lambda: room.target.plan(next_one),
            rounds=FULL_ROUNDS if full else ROUNDS,
            objects=len(planned.manifests),
        )


def _wish(revision: int) -> DesiredDeployment:
    workload = scaled(cluster_workload(revision, 3, threads=revision))
    return DesiredDeployment(key="d1", path="/team/scorer", generation=revision, workloads=(workload,))


def _whole(room: Room, wish: DesiredDeployment) -> list[Manifest]:
    """With their secrets, which a plan's own YAML leaves out."""
    return list(room.target._render(wish))


def _differs(command: list[str]) -> bytes:
    """Its status is 1 where there is a difference."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 1:
        raise RuntimeError(done.stderr.decode()[-500:])
    return done.stdout


def _measured(
    plan: Callable[[], object],
    diff: Callable[[], object],
    alone: Callable[[], object],
    *,
    rounds: int,
    objects: int,
) -> list[Row]:
    found: dict[str, list[float]] = {"plan": [], "diff": [], "alone": []}
    for work in (plan, diff, alone):
        work()  # what is loaded and cached once is no plan's
    for _ in range(rounds):
        for name, work in (("diff", diff), ("plan", plan), ("alone", alone)):
            began = time.perf_counter()
            for _ in range(PLANS):
                work()
            found[name].append((time.perf_counter() - began) / PLANS * 1000)
    metric = f"a plan of {objects} objects with its pre-flight over kubectl diff --server-side of them"
    return [
        compared(metric=metric, unit="ms", values=found["plan"], floor=found["diff"], at_most=1.0, n=PLANS),
        Row(
            metric="the plan without its pre-flight, which kubectl has none of",
            value=median(found["alone"]),
            unit="ms",
            n=PLANS * rounds,
            spread=quartiles(found["alone"]),
        ),
    ]
