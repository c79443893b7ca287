"""What the autoscaler sees at one sync, and what it remembers from sync to sync.

Exists so that the formula has no clock and no memory of its own: the collector stores HpaState with the
deployment, and a restarted collector decides as if nothing had happened (a restarted kube-controller-
manager forgets). Refused: trimming the memory on a timer; old entries are overwritten in place exactly as
the controller overwrites them, so the memory stays as long as a window is in syncs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.quantity import Quantity


@dataclass(frozen=True, kw_only=True)
class Controller:
    """The settings that Kubernetes gives its controller on the command line, with Kubernetes' defaults."""

    sync_period_s: float = 15.0
    tolerance: float = 0.1
    down_window_s: int = 300


CLUSTER = Controller()
LOCAL = Controller(sync_period_s=2.0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One metric at one sync: a sum in thousandths, or why there is none. Exactly one of the two is set."""

    milli: int | None = None
    age_s: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, *values: object, age_s: float | None = None) -> Reading:
        """The sum of what the source returned, each value rounded up to thousandths first.

        Raises InvalidHpa for no values at all and for values that are no quantity or below zero: the caller
        turns that into `failed`, because a number nobody believes must not size anything.
        """
        if not values:
            raise InvalidHpa("values", "the source returned no values; that is an error, not a zero.")
        amounts = [Quantity.parse(value, field="value") for value in values]
        if lowest := [amount for amount in amounts if amount.nano < 0]:
            raise InvalidHpa("value", f"{lowest[0]} is negative.")
        return cls(milli=sum(amount.milli for amount in amounts), age_s=age_s)

    @classmethod
    def failed(cls, reason: str) -> Reading:
        return cls(error=reason)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The target and its metrics at `now_s` (seconds on any clock that only grows; the same one at every
    sync).

    `spec_replicas` is the size that was asked for, `status_replicas` the replicas that exist, ready or not,
    and `ready_replicas` those of them that are ready (only a Value target asks).
    """

    now_s: float
    spec_replicas: int
    status_replicas: int
    ready_replicas: int
    readings: Mapping[str, Reading] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("spec_replicas", "status_replicas", "ready_replicas"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise InvalidHpa(name, f"{count!r} is not a number of replicas.")

    def reading(self, name: str) -> Reading:
        return self.readings.get(name) or Reading.failed("it was not measured")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A status condition: AbleToScale, ScalingActive or ScalingLimited, with Kubernetes' reason."""

    type: str
    status: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


@dataclass(frozen=True)
class Remembered:
    """A recommendation (an absolute size) or a scale event (a change above zero), and when it was."""

    replicas: int
    at_s: float

    def age_ms(self, now_s: float) -> int:
        """Whole milliseconds: seconds as floats would make 466.93 + 15 come after 481.93."""
        return round((now_s - self.at_s) * 1000)


@dataclass(frozen=True, kw_only=True)
class HpaState:
    """The memory of one HPA. A new HPA starts with HpaState()."""

    recommendations: tuple[Remembered, ...] = ()
    scale_ups: tuple[Remembered, ...] = ()
    scale_downs: tuple[Remembered, ...] = ()
    conditions: tuple[Condition, ...] = ()
    reported_replicas: int = 0

    @property
    def newest_s(self) -> float:
        """When the last entry was made; minus infinity when there is none."""
        entries = (*self.recommendations, *self.scale_ups, *self.scale_downs)
        return max((entry.at_s for entry in entries), default=-math.inf)

    def with_condition(self, type_: str, *, status: bool, reason: str) -> Self:
        """The condition replaces the one of its type and keeps its place; other conditions stay as they
        were.
        """
        by_type = {condition.type: condition for condition in self.conditions}
        by_type[type_] = Condition(type=type_, status=status, reason=reason)
        return replace(self, conditions=tuple(by_type.values()))

    def to_json(self) -> dict[str, Any]:
        return {
            "recommendations": _pairs(self.recommendations),
            "scale_ups": _pairs(self.scale_ups),
            "scale_downs": _pairs(self.scale_downs),
            "conditions": [[item.type, item.status, item.reason] for item in self.conditions],
            "reported_replicas": self.reported_replicas,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> HpaState:
        """Reads what to_json wrote. Raises InvalidHpa on anything else."""
        try:
            return cls(
                recommendations=_remembered(document["recommendations"]),
                scale_ups=_remembered(document["scale_ups"]),
                scale_downs=_remembered(document["scale_downs"]),
                conditions=tuple(
                    Condition(type=str(kind), status=bool(status), reason=str(reason))
                    for kind, status, reason in document["conditions"]
                ),
                reported_replicas=int(document["reported_replicas"]),
            )
        except (KeyError, TypeError, ValueError) as broken:
            raise InvalidHpa("state", f"this is not a stored autoscaler state ({broken!r}).") from None


def remember(
    memory: tuple[Remembered, ...], item: Remembered, *, now_s: float, forget_after_s: float
) -> tuple[Remembered, ...]:
    """Adds `item`, in the place of the last entry older than `forget_after_s` where there is one.

    Only one old entry goes per call. Others stay and can still count for a rule that looks further back:
    that is what the controller does.
    """
    old = [i for i, past in enumerate(memory) if past.age_ms(now_s) > forget_after_s * 1000]
    if not old:
        return (*memory, item)
    return (*memory[: old[-1]], item, *memory[old[-1] + 1 :])


def _pairs(memory: Iterable[Remembered]) -> list[list[float]]:
    return [[item.replicas, item.at_s] for item in memory]


def _remembered(pairs: Iterable[Iterable[Any]]) -> tuple[Remembered, ...]:
    return tuple(Remembered(int(replicas), float(at_s)) for replicas, at_s in pairs)
