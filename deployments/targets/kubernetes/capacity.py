"""Whether there is room: GPUs of the right kind for the surge, and the namespace's quota."""

from collections.abc import Iterator, Mapping
from typing import Any

from deployments.domain.hpa.quantity import Quantity
from deployments.domain.plan import Finding
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import kinds
from deployments.targets.kubernetes.api import Api

MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"


def findings(
    api: Api, desired: DesiredDeployment, workload: Workload, live: DesiredDeployment | None
) -> Iterator[Finding]:
    """Nothing for a workload without GPUs. Lists nodes and all pods: rights that an operator may keep back."""
    assert workload.cluster is not None
    wanted = workload.cluster.settings.resources
    if not wanted.gpus:
        return
    nodes = api.list(kinds.NODE, None).items
    having = [node for node in nodes if _allocatable(node, wanted.gpu_resource) > 0]
    if not having:
        yield Finding.error(
            "no_gpus",
            f"No node offers {wanted.gpu_resource}.",
            f"Looked at {len(nodes)} nodes.",
            "Add nodes with it, or install the device plug-in.",
        )
        return
    fitting = [node for node in having if _fits(node, workload.cluster.capabilities)]
    if not fitting:
        yield Finding.error(
            "engine_fits_no_node",
            f"0 of {len(having)} GPU nodes have {_sm(workload.cluster.capabilities)}.",
            f"The engine was built for compute capability {', '.join(workload.cluster.capabilities)}; "
            f"the nodes have {_present(having)}.",
            "Build the engine for those GPUs (the model's ledger does it for every type), or add such nodes.",
        )
        return
    yield from _room(api, desired, workload, live, fitting)


def _room(
    api: Api,
    desired: DesiredDeployment,
    workload: Workload,
    live: DesiredDeployment | None,
    fitting: list[Any],
) -> Iterator[Finding]:
    assert workload.cluster is not None
    wanted = workload.cluster.settings.resources
    free = sum(_allocatable(node, wanted.gpu_resource) for node in fitting)
    here = {node["metadata"]["name"] for node in fitting}
    for pod in api.list(kinds.POD, None).items:
        if (pod.get("spec") or {}).get("nodeName") in here and not _ended(pod):
            free -= requests_of(pod, wanted.gpu_resource).nano // 10**9
    needed = _more_pods(desired, workload, live) * wanted.gpus
    if free < needed:
        yield Finding.warning(
            "gpus_short",
            "There may not be enough free GPUs.",
            f"{needed} more {wanted.gpu_resource} are needed while it rolls out, {free} are free on nodes "
            "that fit.",
            "Free some, set the surge to 0 and let replicas go one by one, or wait for the autoscaler of the "
            "nodes.",
        )


def quota(
    api: Api, namespace: str, desired: DesiredDeployment, live: DesiredDeployment | None
) -> Iterator[Finding]:
    """Whether the surge fits every quota of the namespace."""
    more = _asked_for(desired, live)
    for one in api.list(kinds.QUOTA, namespace).items:
        hard, used = one.get("status", {}).get("hard") or {}, one.get("status", {}).get("used") or {}
        for resource, amount in more.items():
            if resource not in hard:
                continue
            left = parsed(hard[resource]).nano - parsed(used.get(resource, "0")).nano
            if amount.nano > left:
                yield Finding.error(
                    "quota_short",
                    "The namespace's quota does not leave room for this rollout.",
                    f"ResourceQuota {one['metadata']['name']}: {resource} {used.get(resource, '0')} of "
                    f"{hard[resource]} used, and {amount.words()} more would be needed.",
                    "Ask for a larger quota, set the surge to 0, or ask for less per replica.",
                )


def _asked_for(desired: DesiredDeployment, live: DesiredDeployment | None) -> dict[str, Quantity]:
    """Of the replicas that would come on top of those that run: the difference in size, or the surge."""
    found: dict[str, int] = {}
    for one in desired.workloads:
        assert one.cluster is not None
        resources, pods = one.cluster.settings.resources, _more_pods(desired, one, live)
        for resource, text in (
            ("pods", "1"),
            ("requests.cpu", resources.cpu),
            ("requests.memory", resources.memory),
            ("limits.memory", resources.memory_limit),
            (f"requests.{resources.gpu_resource}", str(resources.gpus)),
        ):
            found[resource] = found.get(resource, 0) + parsed(text).nano * pods
    return {resource: Quantity(nano) for resource, nano in found.items() if nano}


def _more_pods(desired: DesiredDeployment, workload: Workload, live: DesiredDeployment | None) -> int:
    """Those that would run on top of today's: the difference in size, and the surge where pods are replaced."""
    assert workload.cluster is not None
    running = {one.revision: one.replicas for one in live.workloads} if live else {}
    replaced = any(size and desired.workload(revision) is None for revision, size in running.items())
    surge = workload.cluster.max_surge if replaced and not workload.cluster.recreate else 0
    return max(0, workload.replicas - sum(running.values())) + surge


def parsed(text: Any) -> Quantity:
    return Quantity.parse(str(text), field="resources")


def requests_of(pod: Mapping[str, Any], resource: str) -> Quantity:
    """What one pod asks for: its containers together, or its largest init container."""
    spec = pod.get("spec") or {}

    def asked(container: Mapping[str, Any]) -> int:
        return parsed(((container.get("resources") or {}).get("requests") or {}).get(resource, "0")).nano

    together = sum(asked(one) for one in spec.get("containers") or ())
    first = max((asked(one) for one in spec.get("initContainers") or ()), default=0)
    return Quantity(max(together, first))


def _ended(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _allocatable(node: Mapping[str, Any], resource: str) -> int:
    """Whole devices that the node offers to pods; none where it takes no new ones."""
    if (node.get("spec") or {}).get("unschedulable"):
        return 0
    return parsed(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0")).nano // 10**9


def _capability(node: Mapping[str, Any]) -> str:
    labels = node["metadata"].get("labels") or {}
    return f"{labels[MAJOR]}.{labels.get(MINOR, '0')}" if MAJOR in labels else ""


def _fits(node: Mapping[str, Any], capabilities: tuple[str, ...]) -> bool:
    return not capabilities or _capability(node) in capabilities


def _present(nodes: list[Any]) -> str:
    found = sorted({_capability(node) or "no label that says which" for node in nodes})
    return ", ".join(found)


def _sm(capabilities: tuple[str, ...]) -> str:
    return " or ".join(f"sm_{one.replace('.', '')}" for one in capabilities)
