"""What shall run, and what runs: the values that reconciler, targets, node and collector share.

A `DesiredDeployment` is the whole wish for one endpoint: every revision that has replicas right now and
how many. A `TargetStatus` is the whole answer. Both travel as JSON (see `wire`). Refused: a wish that is a
list of commands (“start one more”): a repeated or late command does harm, a repeated wish does not.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from deployments.domain.cluster import ClusterWorkload
from deployments.domain.wire import Document, refuse

MAX_REPLICAS = 256
START_DEADLINE_S = 60
KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9])?")
PATH = re.compile(r"(?:/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}){2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# Variables by which the loader or the interpreter runs other code than the stack's.
_CODE_VARIABLES = re.compile(r"(?:LD|PYTHON|GLIBC|DYLD)_?.*|PATH|HOME|SHELL|IFS")


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise refuse(name, f"must lie between {low:,} and {high:,}, but is {value:,}")


def _matches(name: str, value: str, pattern: re.Pattern[str], form: str) -> None:
    if pattern.fullmatch(value) is None:
        raise refuse(name, f"must be {form}")


@dataclass(frozen=True, kw_only=True)
class Batching(Document):
    """Triton's names and meanings. `max_queue_size` waiting requests are kept; the next is answered 429."""

    max_batch_size: int = 8
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 500
    max_queue_size: int = 256

    def __post_init__(self) -> None:
        _between("batching.max_batch_size", self.max_batch_size, 1, 4096)
        _between("batching.max_queue_delay_microseconds", self.max_queue_delay_microseconds, 0, 10_000_000)
        _between("batching.max_queue_size", self.max_queue_size, 1, 100_000)
        for size in self.preferred_batch_size:
            _between("batching.preferred_batch_size", size, 1, self.max_batch_size)


@dataclass(frozen=True, kw_only=True)
class Workload(Document):
    """The replicas of one revision. Everything but `replicas` is fixed for the life of the revision.

    A process that is not ready after `start_deadline_s` is replaced. `cluster` is what a cluster is told besides;
    `candidate` stands beside the one that serves until it has proved itself, and `weight` is its share of the
    requests in percent: None for what its replicas make of it, 0 for none.
    """

    revision: int
    replicas: int
    stack: str
    model_name: str
    model_version: str
    artifact_sha256: str
    artifact_path: str
    signature: dict[str, Any]
    batching: Batching
    artifact_format: str = "onnx"
    threads: int = 1
    memory_bytes: int | None = None
    api_key_sha256: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    start_deadline_s: int = START_DEADLINE_S
    cluster: ClusterWorkload | None = None
    candidate: bool = False
    weight: int | None = None

    def __post_init__(self) -> None:
        _between("revision", self.revision, 1, 2**31 - 1)
        _between("replicas", self.replicas, 0, MAX_REPLICAS)
        _between("threads", self.threads, 1, 1024)
        _between("start_deadline_s", self.start_deadline_s, 1, 3600)
        if self.weight is not None:
            _between("weight", self.weight, 0, 100)
        _matches("artifact_sha256", self.artifact_sha256, _SHA256, "64 lower-case hexadecimal digits")
        if self.memory_bytes is not None:
            _between("memory_bytes", self.memory_bytes, 2**24, 2**50)
        for name, value in self.environment.items():
            _matches(f"environment.{name}", name, _VARIABLE, "in capitals, digits and underscores")
            if _CODE_VARIABLES.fullmatch(name) or "\0" in value:
                raise refuse(f"environment.{name}", "cannot be set for a replica")

    @property
    def scaler(self) -> str:
        """Who writes its size apart from the wish: “hpa”, “keda” or “slipway”; “none” where the wish says it."""
        return self.cluster.settings.autoscaler if self.cluster is not None and not self.candidate else "none"

    def template(self) -> dict[str, Any]:
        """What is fixed for the life of the revision, as JSON."""
        moving = ("replicas", "candidate", "weight")
        return {name: value for name, value in self.to_json().items() if name not in moving}


@dataclass(frozen=True, kw_only=True)
class DesiredDeployment(Document):
    """The wish for one endpoint.

    `key` names the deployment for ever (it is never given to another one); `path` is "/team/name";
    `generation` only grows, and a target refuses an older one. `drain_s` bounds the wait for requests that
    are still running in a replica that is taken away.
    """

    key: str
    path: str
    generation: int
    workloads: tuple[Workload, ...]
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        _matches("key", self.key, KEY, "1 to 100 letters, digits, dots, dashes and underscores")
        _matches("path", self.path, PATH, "“/team/deployment”")
        _between("generation", self.generation, 0, 2**63 - 1)
        if not 0 <= self.drain_s <= 600:
            raise refuse("drain_s", "must lie between 0 and 600 seconds")
        revisions = [(workload.revision, workload.candidate) for workload in self.workloads]
        if len(set(revisions)) != len(revisions):
            raise refuse("workloads", "must name each revision once, or once more as a candidate")

    def without_sizes(self) -> "DesiredDeployment":
        """Without the sizes that are written apart from it: a size is no other wish."""
        workloads = tuple(one if one.scaler == "none" else replace(one, replicas=0) for one in self.workloads)
        return replace(self, workloads=workloads)

    def workload(self, revision: int) -> Workload | None:
        return next((one for one in self.workloads if one.revision == revision), None)


class ReplicaState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ReplicaStatus(Document):
    """One serving process as seen now.

    A replica keeps its name when its process is replaced; `restarts` counts that. `reason` says in words why
    it is not ready or why its last process ended, and `log_tail` holds that process's last lines, also after
    it was replaced. `pid` is None where there is no process that can be seen. In a cluster `node` is where it was
    placed and `phases` are the moments it was created, scheduled, pulled, started and ready.
    """

    name: str
    revision: int
    state: ReplicaState
    url: str
    pid: int | None
    restarts: int
    started_at: datetime
    ready_at: datetime | None
    reason: str
    log_tail: tuple[str, ...]
    node: str = ""
    candidate: bool = False
    phases: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TargetStatus(Document):
    """What a target runs for one deployment. `generation` is the newest wish it has taken up.

    A target on which others scale says how many replicas are `wanted` now; one that rolls by itself, whether everything
    is `rolled` (no replica of an older template, all of the new ones available), what its `autoscaler` says of itself,
    and its `complaint` where it cannot even make replicas.
    """

    key: str
    generation: int
    address: str | None
    replicas: tuple[ReplicaStatus, ...]
    observed_at: datetime
    wanted: int | None = None
    rolled: bool = True
    complaint: str = ""
    autoscaler: dict[str, Any] = field(default_factory=dict)

    def ready(self, revision: int | None = None) -> int:
        """How many replicas are ready, of one revision or of all."""
        return sum(
            one.state is ReplicaState.READY and revision in (None, one.revision) for one in self.replicas
        )


@dataclass(frozen=True, kw_only=True)
class TargetEvent(Document):
    """Something that happened on a target; `id` grows, so a reader asks for what came after the last."""

    id: int
    at: datetime
    key: str
    replica: str | None
    kind: str
    message: str
