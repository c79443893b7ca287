"""The shapes of what the API says about deployments, and of a revision's spec."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from controlplane.core.openapi import Like
from deployments.domain.canary import StepVerdict
from deployments.domain.cluster import ClusterSettings
from deployments.domain.drift import Drift
from deployments.domain.origin import Stage
from deployments.domain.plan import Change, Counts, Finding, ObjectDiff
from deployments.domain.rollouts import Health, RolloutState
from deployments.domain.spec import RolloutPolicy, Strategy
from deployments.domain.strategy import Share
from deployments.domain.workload import Batching, ReplicaStatus
from deployments.targets.kubernetes.grants import Row


class Cluster(TypedDict):
    """How a cluster is used. What it is reached with is not said."""

    server: str
    context: str
    in_cluster: bool
    namespace: str
    fetch_url: str
    """Where its pods reach Slipway."""
    fetch_ca: str
    """PEM of what signed the certificate of `fetch_url`; empty where pods know it."""
    scrape: Annotated[str, Like(Literal["", "pods", "proxy"])]
    """How replicas are measured; empty: at their pods where Slipway runs in the cluster, else through the server."""
    fetch_image: str
    slipway_namespace: str
    metrics_url: str
    keda_secret: str


class Target(TypedDict):
    """Where replicas run. `last_seen` and `unreachable_since` are what its deployments say of it."""

    name: str
    kind: str
    created_at: datetime
    cluster: Cluster | None
    deployments: int
    last_seen: datetime | None
    unreachable_since: datetime | None
    url: str
    page: str


class Command(TypedDict):
    says: str
    command: str


class Rights(TypedDict):
    """What Slipway's account needs in a cluster, as a table, as objects for kubectl, and how to make it."""

    namespace: str
    rights: list[Annotated[dict[str, Any], Like(Row)]]
    yaml: str
    yaml_with_button: str
    """With what installing the metrics API needs, too."""
    commands: list[Command]


class Connection(TypedDict):
    """What a test of the connection found, asked now. `usable` says that a rollout could begin."""

    reachable: bool
    usable: bool
    server: str
    version: str
    latency_ms: float | None
    identity: str
    namespace: str
    namespace_exists: bool | None
    missing: list[str]
    missing_optional: list[str]
    metrics_provider: str | None
    metrics_provider_is_slipway: bool
    gateway_api: bool | None
    keda: bool | None
    findings: list[Annotated[dict[str, Any], Like(Finding)]]


class Installation(TypedDict):
    """What installing the metrics API changes, or has changed where `applied`."""

    applied: bool
    etag: str
    counts: Annotated[dict[str, Any], Like(Counts)]
    diff: list[Annotated[dict[str, Any], Like(Change)]]
    yaml: str


class ReplicaCounts(TypedDict):
    wanted: int
    ready: int


class ImportedFrom(TypedDict):
    """The Deployment of others that it was imported from; `state` is how far it is taken over."""

    name: str
    state: Annotated[str, Like(Stage)]
    note: str
    """Why it came there, where nobody asked for it."""
    left_behind: list[str]
    """What of it no revision says."""


class Importable(TypedDict):
    """What others run in the namespace of a target."""

    name: str
    images: list[str]
    replicas: int
    ready: int
    services: list[str]
    """Those that lead to it."""
    scaled_by: str
    kept_by: str
    """The tool that would take changes back, where one says so."""


class Importables(TypedDict):
    items: list[Importable]


class Deployment(TypedDict):
    """An endpoint. What its replicas do was seen at `observed_at`."""

    name: str
    health: Annotated[str, Like(Health)]
    target: str
    address: str | None
    protected: bool
    """Whether requests need the endpoint's API key."""
    revision: int | None
    """The one that serves."""
    variant: str | None
    replicas: ReplicaCounts
    autoscaling_paused: bool
    rollout: int | None
    """The one under way."""
    imported_from: ImportedFrom | None
    observed_at: datetime | None
    unreachable_since: datetime | None
    created_at: datetime
    url: str
    page: str


class CreatedDeployment(Deployment):
    """`api_key` comes with a protected endpoint: shown here and nowhere else. Otherwise null."""

    api_key: str | None


class NewKey(TypedDict):
    """`api_key` is shown here and nowhere else."""

    name: str
    api_key: str


class Removal(TypedDict):
    name: str
    health: Annotated[str, Like(Literal["removing"])]


class Autoscaling(TypedDict):
    """A HorizontalPodAutoscaler's spec in the field names of `autoscaling/v2`."""

    minReplicas: NotRequired[int | None]
    maxReplicas: int
    metrics: NotRequired[list[dict[str, Any]] | None]
    behavior: NotRequired[dict[str, Any] | None]
    scaleTargetRef: NotRequired[dict[str, Any] | None]


class Spec(TypedDict):
    """What a revision fixes besides its variant; what is left out gets its default."""

    autoscaling: NotRequired[Autoscaling | None]
    stack: NotRequired[str]
    batching: NotRequired[Annotated[dict[str, Any], Like(Batching)]]
    threads: NotRequired[int]
    memory_bytes: NotRequired[int | None]
    rollout: NotRequired[Annotated[dict[str, Any], Like(RolloutPolicy)]]
    environment: NotRequired[dict[str, str]]
    cluster: NotRequired[Annotated[dict[str, Any], Like(ClusterSettings)] | None]


class Revision(TypedDict):
    """An immutable spec of an endpoint, whole."""

    revision: int
    model: str
    version: int
    variant: int
    spec: Spec
    created_by: str | None
    created_at: datetime


class Plan(TypedDict):
    """What rolling out would change. `etag` goes into If-Match; `blocked` says that a finding forbids it. On a cluster
    also what changes in each of its objects, and the objects as they would be applied; elsewhere both are empty."""

    etag: str
    blocked: bool
    counts: Annotated[dict[str, Any], Like(Counts)]
    diff: list[Annotated[dict[str, Any], Like(Change)]]
    objects: list[Annotated[dict[str, Any], Like(ObjectDiff)]]
    theirs: list[Annotated[dict[str, Any], Like(ObjectDiff)]]
    """Of what others made and a take-over changes."""
    manifests: list[dict[str, Any]]
    """Without what is secret."""
    findings: list[Annotated[dict[str, Any], Like(Finding)]]


class StepNow(TypedDict):
    """The step a rollout is at, counted from 0; `since` it has the share of the requests that it shall have. For
    blue/green `since` is when all of them had moved, from which the hold counts."""

    index: int
    since: datetime | None
    share: Annotated[dict[str, Any], Like(Share)] | None


class StepShown(TypedDict):
    """One step of a canary with the last verdict on it, null before there was one."""

    weight: int
    min_requests: int
    pause_s: int
    verdict: Annotated[dict[str, Any], Like(StepVerdict)] | None


class Rollout(TypedDict):
    """The move to a revision. `evidence` is kept where it failed. `steps` are a canary's, `step` is the one it is at:
    null before the first move."""

    id: int
    kind: Annotated[str, Like(Literal["update", "rollback"])]
    state: Annotated[str, Like(RolloutState)]
    message: str
    from_revision: int | None
    to_revision: int
    strategy: Annotated[str, Like(Strategy)]
    step: StepNow | None
    steps: list[StepShown]
    evidence: dict[str, Any]
    created_by: str | None
    created_at: datetime
    finished_at: datetime | None


class RolloutEvent(TypedDict):
    id: int
    at: datetime
    kind: str
    message: str
    data: dict[str, Any]


class OneRollout(Rollout):
    """With the diff that was shown and applied, and what happened in order."""

    plan: list[Annotated[dict[str, Any], Like(Change)]]
    events: list[RolloutEvent]


class DriftList(TypedDict):
    """Fields that Slipway applied and that are another now, each with the manager that wrote it; an empty `path` is
    the whole object."""

    items: list[Annotated[dict[str, Any], Like(Drift)]]
    next: None


class Scaled(TypedDict):
    name: str
    replicas: int


class AutoscalingState(TypedDict):
    name: str
    autoscaling_paused: bool


class ReplicaList(TypedDict):
    """As last observed, with the reason and the last log lines of what is not ready."""

    items: list[Annotated[dict[str, Any], Like(ReplicaStatus)]]
    next: None
    observed_at: datetime | None


class ReplicaLog(TypedDict):
    lines: list[str]


class Load(TypedDict):
    """`failed` counts answers of 400 and above and requests without an answer; it is part of `sent`."""

    rate_per_s: float
    until: datetime
    sent: int
    failed: int
    started_by: str | None


class Decision(TypedDict):
    """What the autoscaler decided, `repeats` times from `at` to `last_at`."""

    id: int
    at: datetime
    last_at: datetime
    repeats: int
    current_replicas: int
    desired_replicas: int
    raw_recommendation: int | None
    limited_by: str
    signals: dict[str, Any]
    """By name: value, age, error, target, recommendation."""
    conditions: dict[str, Any]
    sentence: str


class Why(TypedDict):
    """Of one moment. `replicas` are those that there were, with the seconds that each phase of a start had taken."""

    at: datetime
    sentence: str
    ready: int
    wanted: int | None
    decision: Decision | None
    replicas: list[dict[str, Any]]
    traffic: dict[str, float | None]


class Mark(TypedDict):
    """Something that happened at `t`."""

    t: float
    kind: Annotated[str, Like(Literal["rollout", "scaling"])]
    text: str


Series = TypedDict(
    "Series",
    {
        "t": list[int],
        "step_s": int,
        "from": float,
        "to": float,
        "coarse": bool,
        "p50_ms": list[float | None],
        "p95_ms": list[float | None],
        "p99_ms": list[float | None],
        "throughput": list[float | None],
        "error_rate": list[float | None],
        "queue_depth": list[float | None],
        "queue_depth_max": list[float | None],
        "in_flight": list[float | None],
        "in_flight_max": list[float | None],
        "replicas": list[float | None],
        "marks": list[Mark],
    },
)
Series.__doc__ = (
    "Arrays of equal length over `t` (epoch seconds): ms and requests/s; null where nothing was seen."
)
