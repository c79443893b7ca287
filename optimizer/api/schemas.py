"""The shapes of what the API says about jobs, techniques and workers; and of a recipe."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from controlplane.core.openapi import Like
from optimizer.domain.jobs import JobState
from optimizer.domain.search import SearchState
from optimizer.techniques.port import Promises

PriorityWord = Annotated[str, Like(Literal["low", "normal", "high"])]
WorkerStateWord = Annotated[
    str, Like(Literal["idle", "busy", "draining", "drained", "stopping", "silent", "offline"])
]
JobStateWord = Annotated[str, Like(JobState)]
SearchStateWord = Annotated[str, Like(SearchState)]


class Step(TypedDict):
    """One technique of a recipe. `params` may leave out what shall have its default."""

    technique: str
    params: NotRequired[dict[str, Any]]


class JobProgress(TypedDict):
    """The step that runs, and how far it is."""

    name: str
    index: int
    of: int
    done: float
    total: float


class Job(TypedDict):
    """One run of a recipe on a variant."""

    id: int
    state: JobStateWord
    reason: str | None
    """Why it failed: `out_of_memory`, `timeout`, ..."""
    message: str
    model: str
    version: int
    parent: int
    """The variant it starts from and is measured against."""
    recipe: list[Step]
    """Empty for a job that measures a variant again."""
    measures: int | None
    """The variant that is measured again."""
    queue: str
    """Names what its worker must have: `optimize.cpu`, `optimize.gpu.sm_89.torch`."""
    priority: PriorityWord
    attempt: int
    max_attempts: int
    step: JobProgress
    retry_of: int | None
    search: int | None
    """The search that queued it."""
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    url: str
    page: str


class QueuedJob(Job):
    """`created` is false where the Idempotency-Key came before."""

    created: bool


class OneJob(Job):
    """`variant` is the address of what it made, `waiting` says why it has not started."""

    variant: str | None
    waiting: str | None


class JobStateChange(TypedDict):
    """What became of the request."""

    id: int
    state: JobStateWord


class Search(TypedDict):
    """A run of several recipes on a variant, one job after another."""

    id: int
    state: SearchStateWord
    message: str
    """Why it ended."""
    model: str
    version: int
    parent: int
    """The variant that all recipes start from."""
    recipes: int
    """How many are planned."""
    gpu: str | None
    """The compute capability of the GPU that all is measured on; null for the processors of the workers."""
    max_jobs: int
    max_minutes: int
    created_by: str | None
    created_at: datetime
    finished_at: datetime | None
    url: str
    page: str


class StartedSearch(Search):
    """`created` is false where the Idempotency-Key came before, or the same search is running."""

    created: bool


class Measured(TypedDict):
    """A value with its interval. `high` is null where it is not bounded."""

    value: float
    low: float
    high: float | None


class SearchPoint(TypedDict):
    """What a recipe showed at one batch size. `loss` is a share of the accuracy, without labels of the answers."""

    batch_size: int
    speedup: Measured
    loss: Measured
    size_bytes: int
    on_front: bool
    """Nothing else, the parent included, is as good in all three and better in one."""


class SearchedRecipe(TypedDict):
    """One recipe of the plan. `state` is that of its job, `pending` or `skipped`."""

    recipe: list[Step]
    state: str
    note: str
    job: int | None
    variant: str | None
    points: list[SearchPoint]


class LeftOut(TypedDict):
    """What could not be planned, and why."""

    recipe: str
    reason: str


class OneSearch(Search):
    """With every recipe of the plan, in order."""

    plan: list[SearchedRecipe]
    left_out: list[LeftOut]


class SearchStateChange(TypedDict):
    """What became of the request."""

    id: int
    state: SearchStateWord


class JobEvent(TypedDict):
    """One change of state, step, or line of the log."""

    id: int
    at: datetime
    attempt: int
    kind: Annotated[str, Like(Literal["state", "step", "log"])]
    level: str
    message: str
    data: dict[str, Any]


class JobEvents(TypedDict):
    """In order. `next` is the id to go on from."""

    events: list[JobEvent]
    next: int


class LedgerCell(TypedDict):
    """The newest variant of one kind. `stale` says why its evidence may no longer hold; `earlier` counts the others."""

    technique: str
    precision: str
    software: str
    hardware: str | None
    variant: int
    verdict: str
    sentence: str
    stale: list[str]
    earlier: int
    url: str


class LedgerLine(TypedDict):
    """What was made of one version."""

    version: int
    cells: list[LedgerCell]


class Rebuilt(TypedDict):
    """The jobs that are queued now; `refused` says what cannot be built again, and why."""

    jobs: list[Job]
    refused: list[str]


class Technique(TypedDict):
    """What a recipe can be made of. `parameters` is a JSON schema."""

    key: str
    label: str
    promises: Annotated[dict[str, Any], Like(Promises)]
    needs_calibration: bool
    parameters: dict[str, Any]


class Worker(TypedDict):
    """A worker as it announced itself. `draining` is an admin's wish and `drained` its fulfilment; they hold while
    `drain_since` is set."""

    id: int
    name: str
    state: WorkerStateWord
    queues: list[str]
    hardware: dict[str, Any]
    versions: dict[str, Any]
    load: dict[str, Any]
    busy: bool
    draining: bool
    """Its process stops."""
    drain_since: datetime | None
    started_at: datetime
    heartbeat_at: datetime
