"""From the cluster's objects to a TargetStatus: which pods there are, in which state, and why."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.domain.workload import ReplicaStatus, TargetStatus
from deployments.targets.kubernetes import names, words
from deployments.targets.kubernetes.live import is_scaled

_PORT = 8000


def status_of(
    key: str,
    *,
    record: Mapping[str, Any] | None,
    deployments: Sequence[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]],
    hpa: Mapping[str, Any] | None,
) -> TargetStatus:
    """Pure. `generation` is the newest that was applied whole."""
    main = next((one for one in deployments if _label(one, names.SLOT) == names.MAIN), None)
    replicas = sorted(
        (replica_of(one) for one in pods), key=lambda one: (one.revision, one.started_at, one.name)
    )
    return TargetStatus(
        key=key,
        generation=_generation(record),
        address=_address(main or record, record=main is None),
        replicas=tuple(replicas),
        observed_at=datetime.now(UTC),
        wanted=_wanted(main),
        rolled=all(words.is_rolled(one) for one in deployments),
        complaint=next(filter(None, map(words.of_deployment, deployments)), ""),
        autoscaler=_autoscaler(hpa),
    )


def _label(one: Mapping[str, Any], name: str) -> str:
    return str((one["metadata"].get("labels") or {}).get(name, ""))


def _wanted(main: Mapping[str, Any] | None) -> int | None:
    """Where somebody else scales. What Slipway's own loop wrote is no news to it."""
    if main is None or not is_scaled(main):
        return None
    if (main["metadata"].get("annotations") or {}).get(names.SIZED_BY) == names.MANAGER:
        return None
    return int(main["spec"].get("replicas", 1))


def _generation(record: Mapping[str, Any] | None) -> int:
    text = ((record or {}).get("metadata", {}).get("annotations") or {}).get(names.GENERATION, "")
    return int(text) if text.isdecimal() else -1


def _address(one: Mapping[str, Any] | None, *, record: bool) -> str | None:
    """Of the Service, as pods of the cluster reach it: it has the name of the Deployment, which a record only begins
    with."""
    if one is None:
        return None
    name, namespace = one["metadata"]["name"], one["metadata"]["namespace"]
    return f"http://{name.removesuffix(names.RECORDED) if record else name}.{namespace}.svc"


def replica_of(pod: Mapping[str, Any]) -> ReplicaStatus:
    """Of a pod of ours, or with revision 0 of others."""
    status, revision = pod.get("status") or {}, _label(pod, names.REVISION)
    created = words.moment(pod["metadata"].get("creationTimestamp")) or datetime.now(UTC)
    ip = status.get("podIP")
    return ReplicaStatus(
        name=pod["metadata"]["name"],
        revision=int(revision) if revision.isdecimal() else 0,
        state=words.state(pod),
        url=f"http://{_host(ip)}:{_port(pod)}" if ip else "",
        pid=None,
        restarts=words.restarts(pod),
        started_at=words.moment(status.get("startTime")) or created,
        ready_at=words.moment(words.condition(pod, "Ready").get("lastTransitionTime"))
        if words.is_ready(pod)
        else None,
        reason=words.reason(pod),
        log_tail=(),
        candidate=_label(pod, names.SLOT) == names.CANDIDATE,
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        phases=words.phases(pod),
    )


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _port(pod: Mapping[str, Any]) -> int:
    """The one that metrics are on."""
    for container in (pod.get("spec") or {}).get("containers") or ():
        ports = {one.get("name"): one.get("containerPort") for one in container.get("ports") or ()}
        if found := ports.get("metrics") or ports.get("http"):
            return int(found)
    return _PORT


def _autoscaler(hpa: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the HPA itself says: its bounds, what it read last, and its conditions."""
    if hpa is None:
        return {}
    spec, status = hpa.get("spec") or {}, hpa.get("status") or {}
    return {
        "min": spec.get("minReplicas", 1),
        "max": spec.get("maxReplicas"),
        "current": status.get("currentReplicas"),
        "desired": status.get("desiredReplicas") or None,  # 0 before its first decision
        "last_scaled": status.get("lastScaleTime"),
        "metrics": {
            one["external"]["metric"]["name"]: one["external"]["current"]
            for one in status.get("currentMetrics") or ()
            if one.get("type") == "External"
        },
        "conditions": [
            {
                name: one.get(name, "")
                for name in ("type", "status", "reason", "message", "lastTransitionTime")
            }
            for one in status.get("conditions") or ()
        ],
    }
