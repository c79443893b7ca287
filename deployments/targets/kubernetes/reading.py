"""A Deployment that others wrote, as a revision would say it, and in sentences what no revision can say. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.core.errors import InvalidInput
from deployments.domain.cluster import ClusterSettings, Probes, Resources, Toleration
from deployments.domain.origin import Origin, Other, Reading
from deployments.domain.spec import DEFAULT_STACK, RolloutPolicy
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.kinds import HPA, SCALED_OBJECT

type Object = Mapping[str, Any]

_GPU = re.compile(r"nvidia\.com/(?:gpu|mig-.+)(?:\.shared)?")
_KEEPERS = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
    ("annotations", "meta.helm.sh/release-name", "Helm"),
)
"""By what a tool marks objects that it keeps as its source has them."""
_AUTOSCALERS = {HPA.kind: "hpa", SCALED_OBJECT.kind: "keda"}
KEDA_MOST = 100
"""Replicas of a ScaledObject that says no bound."""
_DELIVERED = (
    ("env", "environment variables"),
    ("envFrom", "environment from other objects"),
    ("volumeMounts", "mounts"),
    ("lifecycle", "lifecycle hooks"),
)


def other(deployment: Object, services: Sequence[Object], scalers: Sequence[Object]) -> Other:
    """`services` and `scalers` are those of the namespace."""
    return Other(
        name=deployment["metadata"]["name"],
        images=tuple(str(one.get("image", "")) for one in _pod(deployment).get("containers") or ()),
        replicas=int(deployment["spec"].get("replicas", 1)),
        ready=int((deployment.get("status") or {}).get("readyReplicas") or 0),
        services=tuple(one["metadata"]["name"] for one in leading_to(deployment, services)),
        scaled_by=_scaled_by(scaler_of(deployment, scalers)),
        kept_by=kept_by(deployment),
    )


def read(deployment: Object, services: Sequence[Object], scalers: Sequence[Object]) -> Reading:
    """What a value of ours cannot hold is left out and said."""
    left = list(_left_behind(deployment))
    cluster = {
        "resources": _fits(Resources, _resources(deployment), left),
        "probes": _fits(Probes, _probes(_server(deployment)), left),
        **_fits(ClusterSettings, _placing(deployment), left),
    }
    tolerations = _pod(deployment).get("tolerations") or ()
    cluster["tolerations"] = [found for one in tolerations if (found := _toleration(one, left))]
    scaler = scaler_of(deployment, scalers)
    cluster["autoscaler"] = _AUTOSCALERS[scaler["kind"]] if scaler is not None else "none"
    spec: dict[str, Any] = {
        "stack": _stack(deployment),
        "cluster": {name: value for name, value in cluster.items() if value},
        "rollout": _fits(RolloutPolicy, _rollout(deployment), left),
    }
    seen = other(deployment, services, scalers)
    origin = Origin(
        name=seen.name,
        uid=str(deployment["metadata"].get("uid", "")),
        replicas=seen.replicas,
        left_behind=tuple(left),
    )
    return Reading(other=seen, origin=origin, spec=spec, bounds=_bounds(scaler))


def is_ours(one: Object) -> bool:
    return (one["metadata"].get("labels") or {}).get(names.MANAGED_BY) == names.MANAGER


def leading_to[One: Object](deployment: Object, services: Sequence[One]) -> list[One]:
    """The Services of others that select its pods."""
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    found = [one for one in services if not is_ours(one) and (one["spec"].get("selector") or {})]
    return [one for one in found if one["spec"]["selector"].items() <= labels.items()]


def scaler_of(deployment: Object, scalers: Sequence[Object]) -> Object | None:
    """A ScaledObject before the HPA that KEDA makes of it."""
    for one in sorted(scalers, key=lambda one: str(one["kind"]), reverse=True):
        aim = one["spec"].get("scaleTargetRef") or {}
        if (aim.get("kind", "Deployment"), aim.get("name")) == ("Deployment", deployment["metadata"]["name"]):
            return one
    return None


def kept_by(one: Object) -> str:
    """The tool that takes back what others change of it, as far as it says so."""
    for where, key, tool in _KEEPERS:
        if key in (one["metadata"].get(where) or {}):
            return tool
    return ""


def _bounds(scaler: Object | None) -> dict[str, int]:
    if scaler is None:
        return {}
    spec = scaler["spec"]
    if scaler["kind"] == SCALED_OBJECT.kind:
        low, high = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", KEDA_MOST)
    else:
        low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
    return {"minReplicas": max(1, int(low)), "maxReplicas": int(high)}


def _scaled_by(scaler: Object | None) -> str:
    if scaler is None:
        return ""
    bounds = _bounds(scaler)
    return (
        f"{scaler['kind']} {scaler['metadata']['name']}, {bounds['minReplicas']} to {bounds['maxReplicas']}"
    )


def _pod(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"].get("spec") or {}
    return found


def _server(deployment: Object) -> Object:
    """The container that is asked whether it is ready, else the first with a port, else the first."""
    listed: Sequence[Object] = _pod(deployment).get("containers") or ({},)
    for asked in ("readinessProbe", "ports"):
        if found := next((one for one in listed if one.get(asked)), None):
            return found
    return listed[0]


def _stack(deployment: Object) -> str:
    return "triton" if "tritonserver" in str(_server(deployment).get("image", "")) else DEFAULT_STACK


def _resources(deployment: Object) -> dict[str, Any]:
    told = _server(deployment).get("resources") or {}
    requests, limits = told.get("requests") or {}, told.get("limits") or {}
    memory = requests.get("memory") or limits.get("memory")
    found = {
        "cpu": requests.get("cpu") or limits.get("cpu"),
        "memory": memory,
        "memory_limit": limits.get("memory") or memory,
        "cpu_limit": limits.get("cpu"),
    }
    found = {name: str(value) for name, value in found.items() if value is not None}
    for resource, number in limits.items():
        if _GPU.fullmatch(resource) and str(number).isdecimal():
            return found | {"gpus": int(number), "gpu_resource": resource}
    return found


def _probes(server: Object) -> dict[str, Any]:
    ready, startup = server.get("readinessProbe") or {}, server.get("startupProbe") or {}
    found: dict[str, Any] = {}
    if ready:
        found |= {
            "initial_delay_s": ready.get("initialDelaySeconds") or 0,
            "period_s": ready.get("periodSeconds") or 10,
        }
    if startup:
        found["startup_s"] = (startup.get("periodSeconds") or 10) * (startup.get("failureThreshold") or 3)
    return found


def _placing(deployment: Object) -> dict[str, Any]:
    pod = _pod(deployment)
    secrets: Sequence[Object] = pod.get("imagePullSecrets") or ({},)
    found = {
        "image_pull_secret": secrets[0].get("name"),
        "priority_class": pod.get("priorityClassName"),
        "node_selector": pod.get("nodeSelector"),
    }
    return {name: value for name, value in found.items() if value}


def _toleration(one: Object, left: list[str]) -> dict[str, str] | None:
    told = {name: str(one.get(name) or "") for name in ("key", "value", "effect")}
    try:
        Toleration.from_json(told)
    except InvalidInput:
        left.append(f"A toleration of {told['key'] or 'every taint'} is left out.")
        return None
    return told


def _rollout(deployment: Object) -> dict[str, Any]:
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return {"strategy": "recreate"}
    rolling = strategy.get("rollingUpdate") or {}
    found = {"max_surge": rolling.get("maxSurge"), "max_unavailable": rolling.get("maxUnavailable")}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _fits(kind: Any, told: dict[str, Any], left: list[str]) -> dict[str, Any]:
    """Of the fields those that the value takes; what it refuses is said."""
    try:
        kind.from_json(told)
    except InvalidInput as error:
        path, messages = next(iter(error.fields.items()))
        name = next((one for one in path.split(".") if one in told), None)
        if name is None:
            return {}
        left.append(f"{name.replace('_', ' ').capitalize()} {told[name]!s:.60}: it {messages[0]}.")
        return _fits(kind, {key: value for key, value in told.items() if key != name}, left)
    return told


def _left_behind(deployment: Object) -> Iterator[str]:
    pod, server = _pod(deployment), _server(deployment)
    yield f"Its server ({server.get('image', 'no image')}): Slipway runs the stack that the revision names."
    others = [str(one.get("name", "")) for one in pod.get("containers") or () if one is not server]
    if others:
        yield f"Containers beside it: {', '.join(others)}."
    if first := [str(one.get("name", "")) for one in pod.get("initContainers") or ()]:
        yield f"Init containers: {', '.join(first)}."
    for field, words in _DELIVERED:
        if found := server.get(field):
            named = [
                str(one.get("name") or one.get("mountPath") or "")
                for one in found
                if isinstance(one, Mapping)
            ]
            yield f"{words.capitalize()}{': ' if named else ''}{', '.join(filter(None, named))[:300]}."
    if (pod.get("serviceAccountName") or "default") != "default":
        yield f"Its account {pod['serviceAccountName']}: Slipway's replicas have one without rights."
    if pod.get("affinity") or pod.get("topologySpreadConstraints"):
        yield "Affinity and spread rules: Slipway spreads replicas over nodes."
    if pod.get("hostNetwork"):
        yield "The network of its nodes: Slipway's replicas have their own."
