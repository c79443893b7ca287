"""The record that a cluster keeps of a deployment: the wish that was applied, and the fence that outlives it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from controlplane.core.errors import InvalidInput, NotFound
from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.errors import Moved
from deployments.targets.kubernetes.kinds import CONFIG_MAP
from deployments.targets.kubernetes.render import WISH

FENCES = "slipway-fences"
"""One ConfigMap of the namespace: the last generation of each deployment that was deleted."""


def wish_of(record: Mapping[str, Any] | None) -> DesiredDeployment | None:
    """None also for one that cannot be read: a newer Slipway wrote it, or somebody edited it."""
    try:
        return DesiredDeployment.from_json(json.loads((record or {}).get("data", {})[WISH]))
    except (KeyError, ValueError, TypeError, InvalidInput):
        return None


def with_sizes(wish: DesiredDeployment, deployments: Sequence[Object]) -> DesiredDeployment:
    sizes = {
        one["metadata"]["labels"].get(names.SLOT): int(one["spec"].get("replicas", 1)) for one in deployments
    }
    slots = [names.slot_of(one) for one in names.with_slots(wish).workloads]
    workloads = tuple(
        replace(one, replicas=sizes.get(slot, one.replicas))
        for one, slot in zip(wish.workloads, slots, strict=True)
    )
    return replace(wish, workloads=workloads)


def fence(api: Api, namespace: str, key: str, generation: int) -> None:
    """Outlives the deployment: a late wish must not bring it back."""
    change = {"data": {key: str(generation)}}
    try:
        api.merge(CONFIG_MAP, FENCES, namespace, change)
    except NotFound:
        labels = {names.MANAGED_BY: names.MANAGER}
        document = {"metadata": {"name": FENCES, "labels": labels}} | change
        try:
            api.create(CONFIG_MAP, document, namespace)
        except Moved:
            api.merge(CONFIG_MAP, FENCES, namespace, change)


def fence_of(api: Api, namespace: str, key: str) -> int:
    fences = api.find(CONFIG_MAP, FENCES, namespace)
    return int(((fences or {}).get("data") or {}).get(key, -1))
