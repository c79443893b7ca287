"""What others changed of what was applied, where a target can be written to by others. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from deployments.domain.wire import Document

LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Drift(Document):
    """A field that we applied and that is another now; `owner` is the manager that wrote it, empty if unknown. An
    empty `path` is the whole object."""

    object: str
    path: str
    ours: Any
    live: Any
    owner: str

    @property
    def kind(self) -> str:
        return self.object.partition(" ")[0]

    @property
    def name(self) -> str:
        return self.object.partition(" ")[2]


def shown(value: Any) -> str:
    """For a cell of a table."""
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


_BOUNDS = {
    ("HorizontalPodAutoscaler", "spec.minReplicas"): "minReplicas",
    ("HorizontalPodAutoscaler", "spec.maxReplicas"): "maxReplicas",
    ("ScaledObject", "spec.minReplicaCount"): "minReplicas",
    ("ScaledObject", "spec.maxReplicaCount"): "maxReplicas",
}
_SIZE = ("Deployment", "spec.replicas")


def bounds(found: tuple[Drift, ...]) -> dict[str, int]:
    """Their bounds in the names of an autoscaling spec: what a revision can say too."""
    return {
        _BOUNDS[one.kind, one.path]: one.live
        for one in found
        if (one.kind, one.path) in _BOUNDS and isinstance(one.live, int)
    }


def size(found: tuple[Drift, ...]) -> int | None:
    """Their number of replicas, which the deployment itself can have."""
    sizes = (one.live for one in found if (one.kind, one.path) == _SIZE and isinstance(one.live, int))
    return next(sizes, None)


def can_be_taken(one: Drift) -> bool:
    return bool(bounds((one,))) or size((one,)) is not None
