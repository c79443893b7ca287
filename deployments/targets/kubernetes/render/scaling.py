"""How many pods: the HorizontalPodAutoscaler or KEDA's ScaledObject, and how many may go at once."""

from typing import Any

from deployments.domain.hpa import HpaSpec
from deployments.domain.hpa.spec import Metric, TargetType
from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.render.network import main_of
from deployments.targets.kubernetes.render.place import Place


def scalers(desired: DesiredDeployment, place: Place) -> list[dict[str, Any]]:
    """Of the main Deployment, also during a rollout: a candidate follows it."""
    main = main_of(desired)
    if main is None or main.cluster is None:
        return []
    spec = HpaSpec.from_json(main.cluster.autoscaling)
    match main.cluster.settings.autoscaler:
        case "hpa":
            return [_hpa(desired, spec)]
        case "keda":
            return [_trigger_authentication(desired, place), _scaled_object(desired, spec, place)]
    return []


def metric_labels(desired: DesiredDeployment) -> dict[str, str]:
    """What picks this deployment's series: without a selector a metric is the sum over every one there is."""
    return {"deployment": names.name_of(desired)}


def _target(desired: DesiredDeployment) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.name_of(desired)}


def _metadata(desired: DesiredDeployment) -> dict[str, Any]:
    return {"name": names.name_of(desired), "labels": names.labels(desired)}


def _hpa(desired: DesiredDeployment, spec: HpaSpec) -> dict[str, Any]:
    written = spec.to_json()
    for metric in written["metrics"]:
        metric["external"]["metric"].setdefault("selector", {"matchLabels": metric_labels(desired)})
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(desired),
        "spec": written | {"scaleTargetRef": _target(desired)},
    }


def _trigger_authentication(desired: DesiredDeployment, place: Place) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(desired),
        "spec": {"secretTargetRef": [{"parameter": "token", "name": place.keda_secret, "key": "token"}]},
    }


def _scaled_object(desired: DesiredDeployment, spec: HpaSpec, place: Place) -> dict[str, Any]:
    """KEDA makes an HPA of its own from this, and asks Slipway on its behalf."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(desired),
        "spec": {
            "scaleTargetRef": _target(desired),
            "minReplicaCount": spec.min_replicas,
            "maxReplicaCount": spec.max_replicas,
            "pollingInterval": 5,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": spec.to_json().get("behavior", {})}},
            "triggers": [_trigger(desired, metric, place) for metric in spec.metrics],
        },
    }


def _trigger(desired: DesiredDeployment, metric: Metric, place: Place) -> dict[str, Any]:
    base = names.name_of(desired)
    return {
        "type": "metrics-api",
        "metricType": "Value" if metric.target_type is TargetType.VALUE else "AverageValue",
        "metadata": {
            "url": f"{place.metrics_url.rstrip('/')}/keda/{place.namespace}/{base}/{metric.name}",
            "valueLocation": "value",
            "targetValue": str(metric.target),
            "authMode": "bearer",
        },
        "authenticationRef": {"name": base},
    }


def disruption_budget(desired: DesiredDeployment) -> dict[str, Any]:
    """One at a time, whatever drains the nodes; pods that never became ready may always go."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(desired),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {names.KEY: desired.key}},
        },
    }
