"""The port every technique stands behind.

A technique is a value: what it takes and gives, what it needs, its parameters as one schema, what the
literature promises, a cheap check, and the dotted path of the function a child process runs. Declaring one
imports no vendor package; only the child function does.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from controlplane.core.errors import Unprocessable
from controlplane.registry.answers import Answers
from optimizer.domain.verdict import Policy
from optimizer.workbench.formats import FORMATS
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Signature


class Parameters(BaseModel):
    """Base of a technique's parameters. Form, API schema and validation are made from the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def toolchain(self) -> str | None:
        """Where these parameters, unlike others of the technique, need one."""
        return None

    @property
    def gpu(self) -> str | None:
        """The compute capability of the GPU that these parameters, unlike others of the technique, need."""
        return None


ExcludedNodes = Annotated[
    tuple[str, ...],
    Field(
        max_length=500,
        title="Nodes to leave alone",
        description="Names of nodes that stay in floating point as they are.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A format and a precision. `precision=None` on the giving side: as it came, or as the parameters say."""

    format: str
    precision: str | None


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What the guide says: speed-up as (low, high), loss in points of accuracy as (low, high)."""

    speedup: tuple[float, float]
    loss_points: tuple[float, float]
    effort: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Device(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a worker has. Read from its inventory; `gpus` are names, `capabilities` such as "8.9"."""

    cpu_flags: frozenset[str] = frozenset()
    gpus: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()
    toolchains: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            cpu_flags=frozenset(value.get("cpu_flags", ())),
            gpus=tuple(str(gpu["name"]) for gpu in value.get("gpus", ())),
            capabilities=frozenset(gpu["capability"] for gpu in value.get("gpus", ()) if gpu["capability"]),
            toolchains=frozenset(value.get("toolchains", ())),
        )


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What intake found in the file. `op_types` counts nodes by operator, such as {"MatMul": 2}. `unsigned`: a step
    before surely quantized it to unsigned integers.

    `None` means that nobody looked. Intake lists the most frequent operators only: absence can be concluded
    where the list is `complete`, presence always.
    """

    format: str = "onnx"
    precision: str | None = None
    opset: int | None = None
    op_types: Mapping[str, int] = field(default_factory=dict)
    complete: bool = False
    unsigned: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads a version's summary: `operators` as pairs, `nodes`, `opset` by domain, `precision`."""
        op_types = {str(name): int(count) for name, count in value.get("operators") or ()}
        return cls(
            format=value.get("format", "onnx"),
            precision=value.get("precision"),
            opset=(value.get("opset") or {}).get("ai.onnx"),
            op_types=op_types,
            complete=bool(op_types) and sum(op_types.values()) == value.get("nodes"),
        )

    def lacks(self, *op_types: str) -> bool:
        """Surely has none of these operators."""
        return self.complete and not any(self.op_types.get(name) for name in op_types)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a technique cannot be used here, and what would help."""

    code: str
    title: str
    detail: str = ""

    def error(self) -> Unprocessable:
        return Unprocessable(self.code, self.title, self.detail)


CALIBRATION_MISSING = Refusal(
    code="calibration_missing",
    title="It needs items to calibrate with.",
    detail="Upload a calibration set, or an evaluation set that it may take items from.",
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the child function gets. It writes `output` and nothing outside `scratch` and `kept`.

    `calibration` is the set to calibrate with; `calibration_source` says whose it is. `evaluation` is what the result
    will be compared on, by `metric`, `answers` and `policy`, but for the items that it says it looked at.
    """

    input: Path
    input_format: str = "onnx"
    output: Path
    scratch: Path
    signature: Signature
    calibration: Path | None
    calibration_source: str
    seed: int
    journal: Journal
    evaluation: Path | None = None
    policy: Policy = field(default_factory=Policy)
    metric: str = ""
    answers: Answers = field(default_factory=Answers)
    kept: Path | None = None
    """For a technique that `resumes`: what an earlier attempt of the same job wrote here is still here."""
    cache: Path | None = None
    """For a technique that `caches`: the file that the last job on the same hardware left, if it did; to write over."""


type Check = Callable[[Mapping[str, Any], ModelSummary, Hardware, Parameters], tuple[Refusal, ...]]


def nothing_against(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    """The check of a technique that takes whatever has its format and precision."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Technique:
    """`entry` is "package.module:function": `function(work: Work, params: Parameters) -> dict` (provenance).
    Where that has `evaluation_items`, indices of the evaluation set that the result was fitted to, those are
    not compared; one that calibrates with `calibration_source == "evaluation_set"` must say so. `precision` there is
    the result's, where `gives` leaves that open.

    `needs_calibration` says whether every use of it needs items; `needs_calibration_for` where that depends on the
    parameters.

    `toolchain` names the environment that the child runs in, None for the worker's own. `stop_grace_s`: how long it
    may take to end when `sandbox.asking.asked_to_stop`; one that never looks there is killed at once.
    For the check of the step after it, `gives_op_types`: operators that its result surely has; `gives_unsigned`:
    whether its integers are unsigned with these parameters.
    `resumes`: its child has a folder that the job's later attempts find again. `caches`: it has a file that the next
    job on the same hardware finds, whatever its model.

    `check(signature, summary, hardware, params)` is pure and imports nothing of a vendor. It may let through
    what the child then refuses with the whole graph before it. `parameters()` without values is valid.
    """

    key: str
    label: str
    description: str
    takes: tuple[Kind, ...]
    gives: Kind
    device: Device
    parameters: type[Parameters]
    promises: Promises
    entry: str
    check: Check = nothing_against
    needs_calibration: bool = False
    needs_calibration_for: Callable[[Any], bool] | None = None
    toolchain: str | None = None
    stop_grace_s: float = 0.0
    gives_op_types: tuple[str, ...] = ()
    gives_unsigned: Callable[[Any], bool] | None = None
    resumes: bool = False
    caches: bool = False

    def calibrates(self, params: Parameters) -> bool:
        """Whether it needs items to calibrate with."""
        asked = self.needs_calibration_for
        return asked(params) if asked is not None else self.needs_calibration

    def needs(self, params: Parameters, *, format: str) -> str | None:
        """The toolchain that the child runs in with these parameters: its own, or what opens a file of that format."""
        opened_by = FORMATS[format].toolchain if format in FORMATS else None
        return params.toolchain or self.toolchain or opened_by
