"""How requests reach the pods: Services, the optional HTTPRoute, and who may knock."""

from typing import Any

from deployments import stacks
from deployments.domain.cluster import Route
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.render.place import Place

PORT = 80


def services(desired: DesiredDeployment, place: Place) -> list[dict[str, Any]]:
    """One Service for callers. Where a route splits the traffic by weight, one for each slot behind it too."""
    base = names.name_of(desired)
    found = [_service(desired, base, _serving(desired))]
    if _split_by_route(desired):
        found += [
            _service(desired, f"{base}-{slot}", {names.KEY: desired.key, names.SLOT: slot})
            for slot in (names.MAIN, names.CANDIDATE)
        ]
    return found


def _serving(desired: DesiredDeployment) -> dict[str, str]:
    """Whose pods the Service takes: of both slots, so that replicas share, or of the one that has all the traffic."""
    everyone = {names.KEY: desired.key}
    candidate = next((one for one in desired.workloads if one.candidate), None)
    if candidate is None or candidate.weight is None:
        return everyone
    slot = names.CANDIDATE if candidate.weight == 100 else names.MAIN
    return everyone | {names.SLOT: slot}


def _split_by_route(desired: DesiredDeployment) -> bool:
    return (
        any(one.candidate and one.weight is not None for one in desired.workloads)
        and route_of(desired) is not None
    )


def route_of(desired: DesiredDeployment) -> Route | None:
    main = main_of(desired)
    return main.cluster.settings.route if main is not None and main.cluster is not None else None


def main_of(desired: DesiredDeployment) -> Workload | None:
    return next((one for one in desired.workloads if not one.candidate), None)


def _service(desired: DesiredDeployment, name: str, selector: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": names.labels(desired)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def http_route(desired: DesiredDeployment) -> list[dict[str, Any]]:
    route, base = route_of(desired), names.name_of(desired)
    if route is None:
        return []
    parent = {"name": route.gateway} | ({"namespace": route.namespace} if route.namespace else {})
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": base, "labels": names.labels(desired)},
            "spec": {
                "parentRefs": [parent],
                **({"hostnames": [route.hostname]} if route.hostname else {}),
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": desired.path}}],
                        "filters": [rewrite],
                        "backendRefs": _backends(desired, base),
                    }
                ],
            },
        }
    ]


def _backends(desired: DesiredDeployment, base: str) -> list[dict[str, Any]]:
    candidate = next((one for one in desired.workloads if one.candidate), None)
    if candidate is None or candidate.weight is None:
        return [{"name": base, "port": PORT}]
    return [
        {"name": f"{base}-{names.MAIN}", "port": PORT, "weight": 100 - candidate.weight},
        {"name": f"{base}-{names.CANDIDATE}", "port": PORT, "weight": candidate.weight},
    ]


def network_policy(desired: DesiredDeployment, place: Place) -> dict[str, Any]:
    """Only the stack's own ports, and where it is so wished only from some namespaces, this one and Slipway's."""
    main = main_of(desired)
    ports = stacks.load(main.stack if main else desired.workloads[0].stack).container.ports
    rule: dict[str, Any] = {
        "ports": [{"port": port, "protocol": "TCP"} for port in sorted(set(ports.values()))]
    }
    allowed = main.cluster.settings.allow_from if main is not None and main.cluster is not None else ()
    if allowed:
        others = sorted({*allowed, *filter(None, (place.slipway_namespace,))})
        rule["from"] = [
            {"podSelector": {}},
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": others}
                    ]
                }
            },
        ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.name_of(desired), "labels": names.labels(desired)},
        "spec": {
            "podSelector": {"matchLabels": {names.KEY: desired.key}},
            "policyTypes": ["Ingress"],
            "ingress": [rule],
        },
    }
