"""The shapes of the registry's documents: what `documents` returns, and what the OpenAPI page shows."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

from controlplane.core.openapi import Like
from controlplane.registry.costs import Costs
from controlplane.registry.models import Import as ImportRow
from controlplane.registry.models import Verdict

VerdictWord = Annotated[str, Like(Verdict)]
Task = Literal["classification", "embedding", "regression", "detection", "transcription", "other"]
Pooling = Literal["none", "mean"]
ImportState = Annotated[str, Like(ImportRow.State)]
DatasetRole = Annotated[str, Like(Literal["evaluation", "calibration"])]


class Pointer(TypedDict):
    """A variant of a version of the same model."""

    version: int
    variant: int


class Model(TypedDict):
    """A registered name."""

    name: str
    description: str
    latest_version: int | None
    """null until a version is uploaded."""
    aliases: dict[str, Pointer]
    """By name, such as `champion`."""
    created_at: datetime
    url: str
    page: str


class Gate(TypedDict):
    """What an alias asks of a variant. Losses count at the upper end of their interval."""

    min_speedup: float
    max_loss_points: float
    """Of the set's metric; without labels of the agreement with the parent that the model's task measures."""
    max_relative_loss_percent: float | None
    """Of the parent's accuracy. null asks nothing, here and below."""
    max_size_mib: float | None
    max_latency_ms: float | None
    """Of the median for one item, on the machine that measured."""


class Compared(TypedDict):
    """How two answers are compared. `output` is null where all of them count."""

    task: Task
    output: str | None
    pooling: Pooling


class Answers(TypedDict):
    """What was stated of the model's answers; null for what the signature shall tell."""

    task: Annotated[str, Like(Task)] | None
    output: str | None
    pooling: Annotated[str, Like(Pooling)] | None
    settled: Compared | None
    """With what the signature of the latest version tells; null without a version."""


class Tensor(TypedDict):
    """An input or output. Symbolic dimensions are names, fixed ones numbers."""

    name: str
    dtype: str
    """As the Open Inference Protocol writes it: FP32, INT64, ..."""
    shape: list[int | str]


class Signature(TypedDict):
    """What goes in and what comes out."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    batch_axis: int | None
    """0 where requests can be batched."""


class Version(TypedDict):
    """An immutable, numbered artifact of a model."""

    model: str
    version: int
    format: str
    sha256: str
    """Of the bytes that were sent."""
    size_bytes: int
    filename: str
    signature: Signature
    summary: dict[str, Any]
    """What intake found: opsets, operators, precision, sizes."""
    quarantined: str | None
    """Why it is not used again until a person says so."""
    trusted_at: datetime | None
    """Since when jobs may run its code; null for formats that are data."""
    created_by: str | None
    created_at: datetime
    url: str
    page: str


class UploadedVersion(Version):
    """`created` is false where the model already had these bytes."""

    created: bool


class Variant(TypedDict):
    """A servable artifact: the version's own bytes (number 0), or what a recipe made of them."""

    model: str
    version: int
    variant: int
    technique: str | None
    precision: str
    format: str
    sha256: str
    size_bytes: int
    parent: int | None
    """The variant it was made from and is measured against."""
    job: int | None
    verdict: VerdictWord | None
    signature: Signature
    provenance: dict[str, Any]
    created_at: datetime
    url: str
    page: str


class Report(TypedDict):
    """One paired measurement against the parent. `report` says how each number was got."""

    id: int
    job: int | None
    """The job that measured."""
    verdict: VerdictWord
    sentence: str
    created_at: datetime
    report: dict[str, Any]
    cost: Annotated[dict[str, Any], Like(Costs)] | None
    """Of a million items at the `price_per_hour` that was asked with, for one replica that is always busy."""
    url: str
    html: str
    """The address of the same as a file with plots."""


class Import(TypedDict):
    """A version that is fetched from Hugging Face or MLflow."""

    id: int
    model: str
    reference: str
    revision: str | None
    """What the reference was pinned to: a commit, or a version. null until it was looked up."""
    state: ImportState
    code: str | None
    """Of the error that ended it."""
    message: str | None
    """Why it ended, or why it waits."""
    done_bytes: int
    total_bytes: int | None
    """null where the source does not say."""
    version: int | None
    """What came of it; null before, and after that was deleted."""
    created_by: str | None
    created_at: datetime
    finished_at: datetime | None
    url: str


class QueuedImport(Import):
    """`created` is false where an import of the same reference was under way."""

    created: bool


class ImportStateChange(TypedDict):
    """The state that an import was moved to."""

    id: int
    state: ImportState


class Alias(TypedDict):
    """A movable pointer to a variant."""

    alias: str
    version: int
    variant: int
    moved_at: datetime


class Dataset(TypedDict):
    """An npz that fits the model's signature."""

    name: str
    role: DatasetRole
    items: int
    has_labels: bool
    metric: str | None
    """What answers are scored by, such as `top-1`, `f1-macro`, `r2`, `cosine`, `wer` or `map`; null without labels."""
    sha256: str
    size_bytes: int
    summary: dict[str, Any]
    created_at: datetime
