"""What a revision fixes: stack, batching, resources, autoscaling, and how it is rolled out.

`autoscaling` is a HorizontalPodAutoscaler's spec in `autoscaling/v2` field names, because the same text goes
to a cluster. Refused: a spec that changes. A change is a new revision.
"""

from dataclasses import dataclass, field
from typing import Any

from deployments.domain.cluster import ClusterSettings, ClusterWorkload
from deployments.domain.hpa import HpaSpec, default_spec
from deployments.domain.wire import Document, refuse
from deployments.domain.workload import START_DEADLINE_S, Batching, Workload

DEFAULT_STACK = "fastapi"
USEFUL_BATCHES = 2
"""A batching replica is busy with one batch while the next one fills."""


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy(Document):
    """`progress_deadline_s` is how long a rollout may go without another replica becoming ready."""

    max_surge: int = 1
    max_unavailable: int = 0
    progress_deadline_s: int = 60

    def __post_init__(self) -> None:
        if not (0 <= self.max_surge <= 256 and 0 <= self.max_unavailable <= 256):
            raise refuse("rollout.max_surge", "and max_unavailable must lie between 0 and 256")
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise refuse("rollout.max_surge", "and max_unavailable cannot both be 0: nothing could move")
        if not 5 <= self.progress_deadline_s <= 3600:
            raise refuse("rollout.progress_deadline_s", "must lie between 5 and 3,600")


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
            capabilities=capabilities,
        )


def default_autoscaling(*, min_replicas: int, max_replicas: int, batching: Batching) -> dict[str, Any]:
    """Queue depth and in-flight together: queue depth alone is zero whenever capacity suffices."""
    useful = USEFUL_BATCHES * batching.max_batch_size
    return default_spec(
        min_replicas=min_replicas, max_replicas=max_replicas, useful_concurrency=useful
    ).to_json()
