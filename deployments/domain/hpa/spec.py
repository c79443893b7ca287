"""What a HorizontalPodAutoscaler was told: bounds, metrics, behavior.

Exists so that the local autoscaler and a cluster's run from one and the same text (autoscaling/v2), which
is kept with the revision. Refused: Resource, Pods and Object metrics (the product publishes External ones
only) and defaults that Kubernetes does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.quantity import Quantity

LARGEST_REPLICAS = 2**31 - 1
LONGEST_WINDOW_S = 3600
LONGEST_PERIOD_S = 1800


def _whole(value: object, path: str, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise InvalidHpa(path, f"{value!r} is not a whole number from {lowest} to {highest}.")


class TargetType(StrEnum):
    """AverageValue shares the total among the replicas; Value compares the total as it is."""

    AVERAGE_VALUE = "AverageValue"
    VALUE = "Value"


class PolicyType(StrEnum):
    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several policies counts: the largest change, the smallest, or none at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """At most `value` pods, or percent, may come or go within `period_s` seconds."""

    type: PolicyType
    value: int
    period_s: int

    def __post_init__(self) -> None:
        _whole(self.value, "value", 1, LARGEST_REPLICAS)
        _whole(self.period_s, "periodSeconds", 1, LONGEST_PERIOD_S)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One direction of a behavior. `window_s` and `tolerance` None mean the controller's own."""

    policies: tuple[Policy, ...]
    select: SelectPolicy = SelectPolicy.MAX
    window_s: int | None = None
    tolerance: Quantity | None = None

    def __post_init__(self) -> None:
        if not self.policies:
            raise InvalidHpa(
                "policies", "at least one policy is needed; leave the field out for the defaults."
            )
        if self.window_s is not None:
            _whole(self.window_s, "stabilizationWindowSeconds", 0, LONGEST_WINDOW_S)
        if self.tolerance is not None and self.tolerance.nano < 0:
            raise InvalidHpa("tolerance", f"{self.tolerance} is negative.")

    @property
    def longest_period_s(self) -> int:
        return max(policy.period_s for policy in self.policies)


# What the API server fills in as soon as a behavior is given at all.
DEFAULT_SCALE_UP = Rules(
    window_s=0,
    policies=(
        Policy(type=PolicyType.PODS, value=4, period_s=15),
        Policy(type=PolicyType.PERCENT, value=100, period_s=15),
    ),
)
DEFAULT_SCALE_DOWN = Rules(policies=(Policy(type=PolicyType.PERCENT, value=100, period_s=15),))


@dataclass(frozen=True, kw_only=True)
class Behavior:
    scale_up: Rules = DEFAULT_SCALE_UP
    scale_down: Rules = DEFAULT_SCALE_DOWN


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One External metric. `selector` is the label selector as written; the formula only carries it along."""

    name: str
    target: Quantity
    target_type: TargetType = TargetType.AVERAGE_VALUE
    selector: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidHpa("external.metric.name", "a metric needs a name.")
        if self.target.nano <= 0:
            raise InvalidHpa(
                "external.target", f"the target of {self.name} is {self.target}; it must be above 0."
            )


@dataclass(frozen=True, kw_only=True)
class HpaSpec:
    """The whole instruction. Without `behavior` the classic rules hold (double, 300 s down window)."""

    max_replicas: int
    metrics: tuple[Metric, ...]
    min_replicas: int = 1
    behavior: Behavior | None = None
    scale_target_ref: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        _whole(self.min_replicas, "minReplicas", 0, LARGEST_REPLICAS)
        _whole(self.max_replicas, "maxReplicas", 1, LARGEST_REPLICAS)
        if self.min_replicas > self.max_replicas:
            raise InvalidHpa(
                "minReplicas", f"{self.min_replicas} is more than maxReplicas, which is {self.max_replicas}."
            )
        if not self.metrics:
            raise InvalidHpa("metrics", "at least one metric is needed.")
        names = [metric.name for metric in self.metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidHpa(
                "metrics",
                f"{twice[0]} is listed more than once; a metric is known by its name here, whatever its selector.",
            )

    @classmethod
    def from_json(cls, document: object) -> HpaSpec:
        """Reads the `spec` of an autoscaling/v2 HorizontalPodAutoscaler. Raises InvalidHpa with the field's
        path.
        """
        from deployments.domain.hpa import document as reader  # the reader builds the classes above

        return reader.read_spec(document)

    def to_json(self) -> dict[str, Any]:
        """The same spec in autoscaling/v2 names; from_json(to_json()) gives an equal value."""
        from deployments.domain.hpa import document as writer

        return writer.write_spec(self)


def default_spec(
    *, min_replicas: int, max_replicas: int, useful_concurrency: float, deployment: str | None = None
) -> HpaSpec:
    """The autoscaling a deployment gets when nobody says otherwise.

    Queue depth of 10 per replica, and in-flight of 0.7 times what one replica can usefully work on at once
    (for a batching server 2 x max_batch_size): the queue alone notices load only when latency is already
    lost. Up by 300 % per 15 s; down by 25 % per 60 s after 300 s. `deployment` becomes the label selector a
    cluster's metric needs.
    """
    in_flight = Quantity.parse(useful_concurrency, field="useful_concurrency").milli * 700 * 10**3
    if in_flight <= 0:
        raise InvalidHpa("useful_concurrency", f"{useful_concurrency!r} is not above 0.")
    selector = {"matchLabels": {"deployment": deployment}} if deployment else None
    up = [Policy(type=PolicyType.PERCENT, value=300, period_s=15)]
    if min_replicas == 0:
        # 300 % of nothing is nothing: without this policy zero could never be left.
        up.append(Policy(type=PolicyType.PODS, value=4, period_s=15))
    return HpaSpec(
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        metrics=(
            Metric(name="inference_queue_depth", target=Quantity.parse(10), selector=selector),
            Metric(name="inference_in_flight", target=Quantity(in_flight), selector=selector),
        ),
        behavior=Behavior(
            scale_up=Rules(window_s=0, policies=tuple(up)),
            scale_down=Rules(
                window_s=300, policies=(Policy(type=PolicyType.PERCENT, value=25, period_s=60),)
            ),
        ),
    )
