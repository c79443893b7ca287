"""The Deployment of one workload: its pod under the *restricted* pod security profile, which fetches its variant by
digest."""

from collections.abc import Mapping
from typing import Any

from deployments import stacks
from deployments.domain.cluster import ClusterSettings, ClusterWorkload, Resources
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.stacks.port import Container, Placement, Probe
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.render.place import Place

FETCH_COMMAND = ("python", "-m", "deployments.stacks.fetch")
MODEL, CONFIG, TMP, TOKEN = "model", "config", "tmp", "pull-token"
TOKEN_FOLDER = "/run/secrets/slipway"  # noqa: S105 - a path
AUTHORITY, AUTHORITY_FOLDER = "pull-ca", "/run/slipway-ca"
GPU_TAINT = "nvidia.com/gpu"
DRAIN_GRACE_S = 15
LIVENESS_FAILURES = 6


def deployment(desired: DesiredDeployment, workload: Workload, place: Place) -> dict[str, Any]:
    """`replicas` is left out where an autoscaler writes it, else it would be taken back with every apply. Where that is
    Slipway itself, the object says so."""
    cluster = _of(workload)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name(desired, workload),
            "labels": names.pod_labels(desired, workload),
            "annotations": {names.GENERATION: str(desired.generation)}
            | ({names.SIZED_BY: names.MANAGER} if workload.scaler == "slipway" else {}),
        },
        "spec": {
            **({"replicas": workload.replicas} if workload.scaler == "none" else {}),
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": cluster.progress_deadline_s,
            "selector": {"matchLabels": names.pod_selector(desired, workload)},
            "strategy": _strategy(cluster),
            "template": {
                "metadata": {
                    "labels": names.pod_labels(desired, workload),
                    "annotations": _about(workload),
                },
                "spec": _pod(desired, workload, place),
            },
        },
    }


def name(desired: DesiredDeployment, workload: Workload) -> str:
    base = names.name_of(desired)
    return f"{base}-{names.CANDIDATE}" if workload.candidate else base


def config_map(desired: DesiredDeployment, workload: Workload) -> dict[str, Any]:
    """Named by its content: old pods keep the one that they were started with."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": _config_name(desired, workload),
            "labels": names.labels(desired) | {names.REVISION: str(workload.revision)},
        },
        "immutable": True,
        "data": _files(desired, workload)[0],
    }


def pull_authority(desired: DesiredDeployment, place: Place) -> dict[str, Any]:
    """What its pods trust when they fetch. It may be renewed without a new pod."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _authority_name(desired), "labels": names.labels(desired)},
        "data": {"ca.crt": place.fetch_ca},
    }


def _authority_name(desired: DesiredDeployment) -> str:
    return f"{names.name_of(desired)}-pull-ca"


def _of(workload: Workload) -> ClusterWorkload:
    assert workload.cluster is not None  # a wish for a cluster says it of every workload
    return workload.cluster


def _strategy(cluster: ClusterWorkload) -> dict[str, Any]:
    if cluster.recreate:
        return {"type": "Recreate"}
    bounds = {"maxSurge": cluster.max_surge, "maxUnavailable": cluster.max_unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


def _about(workload: Workload) -> dict[str, str]:
    """What a label could not hold."""
    return {
        names.MODEL: f"{workload.model_name} version {workload.model_version}",
        names.ARTIFACT: f"sha256:{workload.artifact_sha256}",
    }


def _placement(desired: DesiredDeployment, workload: Workload) -> Placement:
    return stacks.load(workload.stack).placement(workload, deployment=desired.key)


def _files(desired: DesiredDeployment, workload: Workload) -> tuple[dict[str, str], dict[str, str]]:
    """The ConfigMap's data, and the path that each of its keys is mounted at. A key cannot hold a slash."""
    files = _placement(desired, workload).files
    keys = {path: path.strip("/").replace("/", ".") for path in files}
    return {keys[path]: text for path, text in files.items()}, {keys[path]: path for path in files}


def _config_name(desired: DesiredDeployment, workload: Workload) -> str:
    data, _ = _files(desired, workload)
    digest = names.short("\0".join(f"{key}\0{text}" for key, text in sorted(data.items())))
    return f"{names.name_of(desired)}-{digest}"


def _pod(desired: DesiredDeployment, workload: Workload, place: Place) -> dict[str, Any]:
    settings = _of(workload).settings
    container = stacks.load(workload.stack).container
    spec: dict[str, Any] = {
        "serviceAccountName": names.name_of(desired),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": container.uid,
            "runAsGroup": container.uid,
            "fsGroup": container.uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": int(desired.drain_s) + DRAIN_GRACE_S,
        "initContainers": [_fetch(desired, workload, place)],
        "containers": [_server(desired, workload, container)],
        "volumes": _volumes(desired, workload, place),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.pod_selector(desired, workload)},
            }
        ],
    }
    return spec | _placing(workload) | _pulling(settings)


def _placing(workload: Workload) -> dict[str, Any]:
    """Which nodes: an engine goes only where its compute capability is."""
    cluster = _of(workload)
    settings, found = cluster.settings, dict[str, Any]()
    if settings.node_selector:
        found["nodeSelector"] = dict(settings.node_selector)
    if cluster.capabilities:
        found["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [_capability(one) for one in cluster.capabilities]
                }
            }
        }
    tolerations = [
        {
            "key": one.key,
            "operator": "Equal" if one.value else "Exists",
            **({"value": one.value} if one.value else {}),
            **({"effect": one.effect} if one.effect else {}),
        }
        for one in settings.tolerations
    ]
    if settings.resources.gpus and all(one["key"] != GPU_TAINT for one in tolerations):
        tolerations.append({"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"})
    if tolerations:
        found["tolerations"] = tolerations
    return found


def _capability(capability: str) -> dict[str, Any]:
    """By the labels of NVIDIA's GPU feature discovery."""
    major, _, minor = capability.partition(".")
    wanted = (("nvidia.com/gpu.compute.major", major), ("nvidia.com/gpu.compute.minor", minor or "0"))
    return {"matchExpressions": [{"key": key, "operator": "In", "values": [value]} for key, value in wanted]}


def _pulling(settings: ClusterSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.image_pull_secret:
        found["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    if settings.priority_class:
        found["priorityClassName"] = settings.priority_class
    return found


def _locked_down() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _fetch(desired: DesiredDeployment, workload: Workload, place: Place) -> dict[str, Any]:
    """Fetches the variant by its digest through a signed address that is good for minutes, and verifies it."""
    path = _placement(desired, workload).model_path
    env = [{"name": "SLIPWAY_PULL_TOKEN_FILE", "value": f"{TOKEN_FOLDER}/token"}]
    trusted: list[dict[str, Any]] = []
    if place.fetch_ca:
        env.append({"name": "SLIPWAY_PULL_CA", "value": f"{AUTHORITY_FOLDER}/ca.crt"})
        trusted.append({"name": AUTHORITY, "mountPath": AUTHORITY_FOLDER, "readOnly": True})
    return {
        "name": "fetch",
        "image": place.fetch_image,
        "command": [*FETCH_COMMAND],
        "args": [f"{place.fetch_url.rstrip('/')}/pull/{workload.artifact_sha256}/", path],
        "env": env,
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": _locked_down(),
        "volumeMounts": [
            {"name": MODEL, "mountPath": path.rpartition("/")[0]},
            {"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": True},
            *trusted,
            {"name": TMP, "mountPath": "/tmp"},  # noqa: S108 - an empty folder of the pod's own
        ],
    }


def _server(desired: DesiredDeployment, workload: Workload, container: Container) -> dict[str, Any]:
    settings = _of(workload).settings
    placement = _placement(desired, workload)
    _, mounted = _files(desired, workload)
    return {
        "name": "server",
        "image": settings.image or container.image,
        "command": [*container.command],
        "args": [*placement.arguments],
        "env": [{"name": key, "value": value} for key, value in sorted(_environment(workload).items())],
        "ports": [{"name": key, "containerPort": port} for key, port in container.ports.items()],
        "resources": _resources(settings.resources),
        "securityContext": _locked_down(),
        **_probes(settings, container),
        "volumeMounts": [
            *(
                {"name": CONFIG, "mountPath": path, "subPath": key, "readOnly": True}
                for key, path in mounted.items()
            ),
            {"name": MODEL, "mountPath": placement.model_path.rpartition("/")[0], "readOnly": True},
            {"name": TMP, "mountPath": "/tmp"},  # noqa: S108 - an empty folder of the pod's own
        ],
    }


def _environment(workload: Workload) -> Mapping[str, str]:
    threads = {"OMP_NUM_THREADS": str(workload.threads), "PYTHONUNBUFFERED": "1", "HOME": "/tmp"}  # noqa: S108
    return threads | workload.environment


def _resources(wanted: Resources) -> dict[str, Any]:
    gpus = {wanted.gpu_resource: str(wanted.gpus)} if wanted.gpus else {}
    limits = {"memory": wanted.memory_limit} | ({"cpu": wanted.cpu_limit} if wanted.cpu_limit else {})
    return {"requests": {"cpu": wanted.cpu, "memory": wanted.memory} | gpus, "limits": limits | gpus}


def _probes(settings: ClusterSettings, container: Container) -> dict[str, Any]:
    """Until the start-up probe has passed once, the others are not asked."""
    probes = settings.probes
    return {
        "startupProbe": _get(container.live)
        | {"periodSeconds": probes.period_s, "failureThreshold": -(-probes.startup_s // probes.period_s)},
        "readinessProbe": _get(container.ready)
        | {"initialDelaySeconds": probes.initial_delay_s, "periodSeconds": probes.period_s},
        "livenessProbe": _get(container.live)
        | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": LIVENESS_FAILURES},
    }


def _get(probe: Probe) -> dict[str, Any]:
    return {"httpGet": {"path": probe.path, "port": probe.port}}


def _volumes(desired: DesiredDeployment, workload: Workload, place: Place) -> list[dict[str, Any]]:
    claim = _of(workload).settings.volume_claim
    trusted: list[dict[str, Any]] = []
    if place.fetch_ca:
        trusted.append({"name": AUTHORITY, "configMap": {"name": _authority_name(desired)}})
    model: dict[str, Any] = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    return [
        {"name": MODEL, **model},
        {"name": CONFIG, "configMap": {"name": _config_name(desired, workload)}},
        {"name": TMP, "emptyDir": {}},
        {
            "name": TOKEN,
            "secret": {"secretName": names.pull_secret(names.name_of(desired)), "defaultMode": 0o440},
        },
        *trusted,
    ]
