"""What a revision fixes: stack, batching, resources, autoscaling, and how it is rolled out.

`autoscaling` is a HorizontalPodAutoscaler's spec in `autoscaling/v2` field names, because the same text goes
to a cluster. Refused: a spec that changes. A change is a new revision.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.domain.cluster import ClusterSettings, ClusterWorkload
from deployments.domain.hpa import HpaSpec, default_spec
from deployments.domain.wire import Document, refuse
from deployments.domain.workload import START_DEADLINE_S, Batching, Workload

DEFAULT_STACK = "fastapi"
USEFUL_BATCHES = 2
"""A batching replica is busy with one batch while the next one fills."""


MOST_STEPS = 20
DAY_S = 86_400


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise refuse(f"rollout.{name}", f"must lie between {low:,} and {high:,}, but is {value:,}")


class Strategy(StrEnum):
    """How traffic moves to a revision: replica by replica, after all old ones are gone, all at once, in steps."""

    ROLLING = "rolling"
    RECREATE = "recreate"
    BLUE_GREEN = "blue_green"
    CANARY = "canary"


@dataclass(frozen=True, kw_only=True)
class CanaryStep(Document):
    """`weight` percent of the traffic for the new revision, until the gate is passed and `pause_s` are over.

    `min_requests` of each side are asked for where they are more than the gate's. Checked by the policy that
    holds it, which knows its place.
    """

    weight: int
    min_requests: int = 0
    pause_s: int = 0


@dataclass(frozen=True, kw_only=True)
class CanaryGate(Document):
    """What a canary may be worse by, how sure that has to be, and how long to wait for it.

    The p99 may be `p99_ratio` times the stable revision's, or `p99_allowance_ms` above it where that is more;
    None leaves latency out. The error rate may be `error_points` percentage points higher. `min_requests` of 0
    asks for as many of each side as the confidence needs.
    """

    confidence: float = 0.95
    p99_ratio: float | None = 1.2
    p99_allowance_ms: float = 5.0
    error_points: float = 1.0
    min_requests: int = 0
    max_wait_s: int = 1800

    def __post_init__(self) -> None:
        _within("gate.confidence", self.confidence, 0.8, 0.999)
        if self.p99_ratio is not None:
            # Both sides are known to 1 %: with less room than that even equal ones could not pass.
            _within("gate.p99_ratio", self.p99_ratio, 1.05, 10)
        _within("gate.p99_allowance_ms", self.p99_allowance_ms, 0, 60_000)
        _within("gate.error_points", self.error_points, 0.1, 100)
        _within("gate.min_requests", self.min_requests, 0, 10_000_000)
        _within("gate.max_wait_s", self.max_wait_s, 60, 7 * DAY_S)


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy(Document):
    """`progress_deadline_s` is how long a rollout may go without another replica becoming ready.

    `steps` and `gate` are read for a canary, `hold_s` for blue/green: how long the old replicas stay ready for
    going back after all traffic has moved. A spec from before there were strategies reads as rolling.
    """

    max_surge: int = 1
    max_unavailable: int = 0
    progress_deadline_s: int = 60
    strategy: Strategy = Strategy.ROLLING
    steps: tuple[CanaryStep, ...] = (CanaryStep(weight=5), CanaryStep(weight=25), CanaryStep(weight=50))
    gate: CanaryGate = field(default_factory=CanaryGate)
    hold_s: int = 300

    def __post_init__(self) -> None:
        if not (0 <= self.max_surge <= 256 and 0 <= self.max_unavailable <= 256):
            raise refuse("rollout.max_surge", "and max_unavailable must lie between 0 and 256")
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise refuse("rollout.max_surge", "and max_unavailable cannot both be 0: nothing could move")
        if not 5 <= self.progress_deadline_s <= 3600:
            raise refuse("rollout.progress_deadline_s", "must lie between 5 and 3,600")
        _within("hold_s", self.hold_s, 0, DAY_S)
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise refuse("rollout.steps", f"must be 1 to {MOST_STEPS}, but are {len(self.steps)}")
        before = 0
        for place, step in enumerate(self.steps):
            name = f"steps[{place}]"
            _within(f"{name}.weight", step.weight, 1, 99)
            _within(f"{name}.min_requests", step.min_requests, 0, 10_000_000)
            _within(f"{name}.pause_s", step.pause_s, 0, DAY_S)
            if step.weight <= before:
                raise refuse(
                    f"rollout.{name}.weight", f"must be more than the {before} of the step before it"
                )
            before = step.weight


@dataclass(frozen=True, kw_only=True)
class RevisionSpec(Document):
    """Everything of a revision but its variant."""

    autoscaling: dict[str, Any]
    stack: str = DEFAULT_STACK
    batching: Batching = field(default_factory=Batching)
    threads: int = 1
    memory_bytes: int | None = None
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    environment: dict[str, str] = field(default_factory=dict)
    cluster: ClusterSettings | None = None
    """None on a target that is no cluster."""

    def hpa(self) -> HpaSpec:
        """Raises InvalidHpa that names the field."""
        return HpaSpec.from_json(self.autoscaling)

    def workload(
        self,
        *,
        revision: int,
        replicas: int,
        model: str,
        version: int,
        artifact: tuple[str, str, str],
        signature: dict[str, Any],
        api_key_sha256: str,
        capabilities: tuple[str, ...] = (),
    ) -> Workload:
        """The wish for this revision's replicas. `artifact` is digest, path and format; `capabilities` are those of
        the GPUs that an engine is for."""
        sha256, path, artifact_format = artifact
        return Workload(
            revision=revision,
            replicas=replicas,
            stack=self.stack,
            model_name=model,
            model_version=str(version),
            artifact_sha256=sha256,
            artifact_path=path,
            artifact_format=artifact_format,
            signature=signature,
            batching=self.batching,
            threads=self.threads,
            memory_bytes=self.memory_bytes,
            api_key_sha256=api_key_sha256 or None,
            environment=self.environment,
            # A rollout that is given up soon is no reason to give a later start less time.
            start_deadline_s=max(START_DEADLINE_S, self.rollout.progress_deadline_s),
            cluster=self._told_to_a_cluster(capabilities),
        )

    def _told_to_a_cluster(self, capabilities: tuple[str, ...]) -> ClusterWorkload | None:
        if self.cluster is None:
            return None
        return ClusterWorkload(
            settings=self.cluster,
            autoscaling=self.autoscaling,
            max_surge=self.rollout.max_surge,
            max_unavailable=self.rollout.max_unavailable,
            progress_deadline_s=self.rollout.progress_deadline_s,
            recreate=self.rollout.strategy is Strategy.RECREATE,
            capabilities=capabilities,
        )


def default_autoscaling(*, min_replicas: int, max_replicas: int, batching: Batching) -> dict[str, Any]:
    """Queue depth and in-flight together: queue depth alone is zero whenever capacity suffices."""
    useful = USEFUL_BATCHES * batching.max_batch_size
    return default_spec(
        min_replicas=min_replicas, max_replicas=max_replicas, useful_concurrency=useful
    ).to_json()
