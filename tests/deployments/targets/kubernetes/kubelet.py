"""Plays nodes and the life of pods through the API itself, on the fake and on a real control plane alike.

A pod becomes ready when it is looked at; what a test said of its revision (crash, image, memory) it shows instead.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from controlplane.core.errors import SlipwayError
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.kinds import EVENT, NODE, POD

PERIOD_S = 0.05
type Play = Callable[[Object, int], dict[str, Any]]
"""From a pod and how often it was looked at to its status."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(pod: Object, looks: int) -> dict[str, Any]:
    return _status(pod, {"running": {"startedAt": _now()}}, ready=True)


def hanging(pod: Object, looks: int) -> dict[str, Any]:
    return _status(pod, {"running": {"startedAt": _now()}}, ready=False)


def crashing(pod: Object, looks: int) -> dict[str, Any]:
    ended = {"exitCode": 1, "reason": "Error", "startedAt": _now(), "finishedAt": _now()}
    waiting = {
        "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
    }
    return _status(pod, waiting, ready=False, restarts=looks, last={"terminated": ended})


def out_of_memory(pod: Object, looks: int) -> dict[str, Any]:
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": _now(), "finishedAt": _now()}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    return _status(pod, waiting, ready=False, restarts=3, last={"terminated": ended})


def no_image(pod: Object, looks: int) -> dict[str, Any]:
    message = 'Back-off pulling image "nowhere/model:1": ErrImagePull: manifest unknown: not found'
    return _status(pod, {"waiting": {"reason": "ImagePullBackOff", "message": message}}, ready=False)


def _status(
    pod: Object, state: dict[str, Any], *, ready: bool, restarts: int = 0, last: dict[str, Any] | None = None
) -> dict[str, Any]:
    word = "True" if ready else "False"
    number = int(pod["metadata"]["resourceVersion"]) % 250
    return {
        "phase": "Running" if "running" in state else "Pending",
        "startTime": pod["metadata"]["creationTimestamp"],
        "podIP": f"10.1.{hash(pod['metadata']['name']) % 250}.{number + 1}",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()},
            {"type": "Ready", "status": word, "lastTransitionTime": _now()},
            {"type": "ContainersReady", "status": word, "lastTransitionTime": _now()},
        ],
        "containerStatuses": [
            {
                "name": "server", "image": "slipway/replica-fastapi", "imageID": "", "ready": ready,
                "restartCount": restarts, "state": state, "lastState": last or {}, "started": "running" in state,
            }
        ],
    }  # fmt: skip


class Kubelet:
    """`plays` is by revision of one deployment: {(key, revision): play}. Everything else becomes ready."""

    def __init__(self, api: Api, *, nodes: int = 2) -> None:
        self._api = api
        self._nodes = nodes
        self._looks: dict[str, int] = {}
        self.plays: dict[tuple[str, int], Play] = {}
        self.paused = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Kubelet":
        for number in range(1, self._nodes + 1):
            self._add_node(f"node-{number}")
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _add_node(self, name: str) -> None:
        status = {
            "capacity": {"cpu": "64", "memory": "512Gi", "pods": "500"},
            "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "500"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": _now()}],
        }
        with suppress(SlipwayError):
            document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
            self._api.create(NODE, document, None)
        with suppress(SlipwayError):
            self._api.merge(NODE, name, None, {"status": status}, part="status")
            # The control plane taints a node that has not reported.
            self._api.merge(NODE, name, None, {"spec": {"taints": None}})

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            if self.paused:
                continue
            with suppress(SlipwayError):
                for pod in self._api.list(POD, None).items:
                    with suppress(SlipwayError):
                        self._look(pod)

    def _look(self, pod: Object) -> None:
        name, where = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if pod["metadata"].get("deletionTimestamp"):
            self._api.delete_now(POD, name, where)
            return
        if not (pod.get("spec") or {}).get("nodeName"):
            return
        self._looks[name] = self._looks.get(name, 0) + 1
        labels = pod["metadata"].get("labels") or {}
        of = (str(labels.get(names.KEY)), int(labels.get(names.REVISION, 0)))
        status = self.plays.get(of, ready)(pod, self._looks[name])
        if _shape(status) != _shape(pod.get("status") or {}):
            self._api.merge(POD, name, where, {"status": status}, part="status")
            self._tell(pod, "Started" if "running" in status["containerStatuses"][0]["state"] else "BackOff")

    def _tell(self, pod: Object, reason: str) -> None:
        name, where = pod["metadata"]["name"], pod["metadata"]["namespace"]
        about = {"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": where}
        document = {
            "metadata": {"generateName": f"{name}."}, "involvedObject": about, "reason": reason, "type": "Normal",
            "message": f"{reason} container server", "firstTimestamp": _now(), "lastTimestamp": _now(), "count": 1,
        }  # fmt: skip
        self._api.create(EVENT, document, where)


def _shape(status: dict[str, Any]) -> Any:
    """What a test can see of it: without times, which would make every look a change."""
    container = (status.get("containerStatuses") or [{}])[0]
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    return conditions.get("Ready"), container.get("restartCount"), sorted(container.get("state") or {})
