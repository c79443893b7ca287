"""What is wrong with a pod, in words: the state of its containers, its conditions and its events, for a person.

Pure. The order of the questions is the order of what a person can act on: a pod that cannot be placed has no
image to pull, one whose image cannot be pulled has no log.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from deployments.domain.workload import ReplicaState

type Pod = Mapping[str, Any]

_PULL_FAILED = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
}
_CONFIG_FAILED = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NOT_FOUND = re.compile(r"not found|manifest unknown|does not exist", re.IGNORECASE)
_DENIED = re.compile(r"denied|unauthorized|authentication required|no basic auth", re.IGNORECASE)


def moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def condition(pod: Pod, name: str) -> Mapping[str, Any]:
    listed = (pod.get("status") or {}).get("conditions") or ()
    return next((one for one in listed if one.get("type") == name), {})


def containers(pod: Pod) -> list[Mapping[str, Any]]:
    """Statuses, those of the init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def restarts(pod: Pod) -> int:
    return sum(int(one.get("restartCount") or 0) for one in containers(pod))


def is_ready(pod: Pod) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def state(pod: Pod) -> ReplicaState:
    if pod["metadata"].get("deletionTimestamp"):
        return ReplicaState.DRAINING
    if is_ready(pod):
        return ReplicaState.READY
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" or any(_is_broken(one) for one in containers(pod)):
        return ReplicaState.FAILED
    was_started = any(one.get("started") for one in status.get("containerStatuses") or ())
    return ReplicaState.NOT_READY if was_started else ReplicaState.STARTING


def _is_broken(status: Mapping[str, Any]) -> bool:
    waiting = (status.get("state") or {}).get("waiting") or {}
    ended = (status.get("state") or {}).get("terminated") or {}
    broken = _PULL_FAILED | _CONFIG_FAILED | {"CrashLoopBackOff"}
    return waiting.get("reason") in broken or (bool(ended) and ended.get("exitCode") != 0)


def reason(pod: Pod) -> str:
    """Why it is not ready, as a piece of a sentence; empty for a ready one and for one that just starts."""
    if is_ready(pod) or pod["metadata"].get("deletionTimestamp"):
        return ""
    unscheduled = condition(pod, "PodScheduled")
    if unscheduled.get("status") == "False":
        return f"cannot be scheduled: {_shortened(str(unscheduled.get('message', '')))}"
    status = pod.get("status") or {}
    if status.get("reason") == "Evicted":
        return f"evicted: {_shortened(str(status.get('message', '')))}"
    for one in containers(pod):
        if said := _of_container(one, pod):
            return said
    if status.get("phase") == "Failed":
        return _shortened(f"failed: {status.get('reason', '')} {status.get('message', '')}".strip())
    return ""


def _of_container(status: Mapping[str, Any], pod: Pod) -> str:
    now, last = status.get("state") or {}, status.get("lastState") or {}
    waiting, image = now.get("waiting") or {}, str(status.get("image") or _image(pod, status))
    cause, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    where = " while fetching the variant" if status.get("name") == "fetch" else ""
    if cause in _PULL_FAILED:
        return f"image pull failed: {_pull(message, cause)} ({image})"
    if cause in _CONFIG_FAILED:
        return f"cannot start{where}: {_shortened(message or cause)}"
    ended = now.get("terminated") or last.get("terminated") or {}
    if not ended or (ended.get("exitCode") == 0 and ended.get("reason") != "OOMKilled"):
        return ""
    times = int(status.get("restartCount") or 0)
    after = f" after {times} restart{'s' if times != 1 else ''}" if times else ""
    if ended.get("reason") == "OOMKilled":
        return f"OOMKilled{where} at {_memory_limit(pod, status)}{after}"
    if signal := ended.get("signal"):
        return f"killed by signal {signal}{where}{after}"
    return f"exited with code {ended.get('exitCode')}{where}{after}"


def _pull(message: str, cause: str) -> str:
    if cause == "InvalidImageName":
        return "the image's name is not valid"
    if _NOT_FOUND.search(message):
        return "not found"
    if _DENIED.search(message):
        return "access denied: check the pull secret"
    return _shortened(message) or "no reason given"


def _spec(pod: Pod, status: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = pod.get("spec") or {}
    listed = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((one for one in listed if one.get("name") == status.get("name")), {})


def _image(pod: Pod, status: Mapping[str, Any]) -> str:
    return str(_spec(pod, status).get("image", ""))


def _memory_limit(pod: Pod, status: Mapping[str, Any]) -> str:
    limits = (_spec(pod, status).get("resources") or {}).get("limits") or {}
    return str(limits.get("memory", "the node's memory"))


def _shortened(text: str) -> str:
    one_line = " ".join(text.split()).rstrip(".")
    return one_line if len(one_line) <= 300 else f"{one_line[:297]}..."


def of_deployment(deployment: Mapping[str, Any]) -> str:
    """Why the controller makes no pods at all, such as a quota that is hit; empty where it does."""
    listed = (deployment.get("status") or {}).get("conditions") or ()
    for one in listed:
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            message = str(one.get("message", ""))
            kind = "the namespace's quota is hit" if "exceeded quota" in message else "no pod can be made"
            return f"{kind}: {_shortened(message)}"
    return ""


def is_rolled(deployment: Mapping[str, Any]) -> bool:
    """`kubectl rollout status`: the template that is wanted is the only one, and all of it is available."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    return (
        seen
        and updated >= wanted
        and total <= updated
        and int(status.get("availableReplicas") or 0) >= updated
    )


def phases(pod: Pod, events: Sequence[Mapping[str, Any]] = ()) -> dict[str, datetime]:
    """When it was created, scheduled, pulled, its variant fetched, started and ready; those that are known."""
    found = {"created": moment(pod["metadata"].get("creationTimestamp"))}
    for name, kind in (("scheduled", "PodScheduled"), ("ready", "Ready")):
        if condition(pod, kind).get("status") == "True":
            found[name] = moment(condition(pod, kind).get("lastTransitionTime"))
    for event in events:
        if event.get("reason") in ("Pulled", "Started"):
            name = "pulled" if event["reason"] == "Pulled" else "started"
            found[name] = moment(event.get("lastTimestamp") or event.get("eventTime"))
    fetch = next((one for one in containers(pod) if one.get("name") == "fetch"), {})
    found["fetched"] = moment(((fetch.get("state") or {}).get("terminated") or {}).get("finishedAt"))
    server = next((one for one in containers(pod) if one.get("name") == "server"), {})
    running = (server.get("state") or {}).get("running") or {}
    found.setdefault("started", moment(running.get("startedAt")))
    return {name: at for name, at in found.items() if at is not None}
