"""Under which labels an autoscaler elsewhere finds a deployment's signals."""

from typing import TYPE_CHECKING, Any, Final

from deployments.targets.kubernetes.names import object_name
from deployments.telemetry.sheet import SignalLabels

if TYPE_CHECKING:
    from deployments.models import Deployment

WITHOUT_NAMESPACE: Final = frozenset({"local", "memory"})
"""Kinds of targets that scale what they run themselves, and know no namespaces."""


def labels_of(deployment: "Deployment") -> SignalLabels | None:
    """None where nobody else may scale it. No query, if its team and target are loaded."""
    target = deployment.target
    if target.kind in WITHOUT_NAMESPACE:
        return None
    settings: dict[str, Any] = getattr(target, "settings", {})
    namespace = settings.get("namespace", "")
    if not namespace:
        return None
    labels = {"deployment": object_name(deployment.name), "key": deployment.key, "team": deployment.team.name}
    return SignalLabels(namespace=namespace, labels=labels)
