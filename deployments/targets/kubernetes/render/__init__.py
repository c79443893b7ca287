"""From a wish to plain Kubernetes objects. Pure and deterministic: the same wish gives the same bytes.

Refused: templates of YAML text (a model's name must not be able to end a line), and objects of our own kind: if
Slipway is removed, everything here goes on working.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.render import network, pods, scaling
from deployments.targets.kubernetes.render.place import Place

type Manifest = dict[str, Any]

WISH = "wish.json"


def render(wished: DesiredDeployment, place: Place, *, pull_token: str = "") -> tuple[Manifest, ...]:
    """Every object of the deployment, in the order in which they are applied; the record of the wish is last.

    Where nothing runs (no workload), the Service and its rules stay: the address is kept.
    """
    desired = names.with_slots(wished)
    found: list[Manifest] = [_account(desired), _pull_secret(desired, pull_token)]
    for workload in desired.workloads:
        found += [pods.config_map(desired, workload), pods.deployment(desired, workload, place)]
    if place.fetch_ca:
        found.append(pods.pull_authority(desired, place))
    found += network.services(desired, place)
    if desired.workloads:
        found += [network.network_policy(desired, place), scaling.disruption_budget(desired)]
    found += [*scaling.scalers(desired, place), *network.http_route(desired), record(wished)]
    for manifest in found:
        manifest["metadata"]["namespace"] = place.namespace
    return tuple(found)


def record_name(desired: DesiredDeployment) -> str:
    return f"{names.name_of(desired)}{names.RECORDED}"


def record(desired: DesiredDeployment) -> Manifest:
    """The wish itself. Applied last, so what it says has been applied."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(desired),
            "labels": names.labels(desired) | {names.RECORD: "wish"},
            "annotations": {names.GENERATION: str(desired.generation)},
        },
        "data": {WISH: json.dumps(desired.to_json(), sort_keys=True, indent=1)},
    }


def _account(desired: DesiredDeployment) -> Manifest:
    """Its pods ask nothing of the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names.name_of(desired), "labels": names.labels(desired)},
        "automountServiceAccountToken": False,
    }


def _pull_secret(desired: DesiredDeployment, token: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.pull_secret(names.name_of(desired)), "labels": names.labels(desired)},
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }


def ordered(manifests: Sequence[Manifest]) -> list[Manifest]:
    """As they are read best: by kind and name."""
    return sorted(manifests, key=lambda one: (one["kind"], one["metadata"]["name"]))
