"""The shapes of what the API says about jobs, techniques and workers; and of a recipe."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from controlplane.core.openapi import Like
from optimizer.domain.jobs import JobState
from optimizer.techniques.port import Promises

JobStateWord = Annotated[str, Like(JobState)]


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
    queue: str
    attempt: int
    max_attempts: int
    step: JobProgress
    retry_of: int | None
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
    """`variant` is the address of what it made."""

    variant: str | None


class JobStateChange(TypedDict):
    """What became of the request."""

    id: int
    state: JobStateWord


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


class Technique(TypedDict):
    """What a recipe can be made of. `parameters` is a JSON schema."""

    key: str
    label: str
    promises: Annotated[dict[str, Any], Like(Promises)]
    needs_calibration: bool
    parameters: dict[str, Any]


class Worker(TypedDict):
    """A worker as it announced itself."""

    name: str
    queues: list[str]
    hardware: dict[str, Any]
    versions: dict[str, Any]
    load: dict[str, Any]
    busy: bool
    draining: bool
    started_at: datetime
    heartbeat_at: datetime
