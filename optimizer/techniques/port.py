"""The port every technique stands behind.

A technique is a value: what it takes and gives, what it needs, its parameters as one schema, what the
literature promises, a cheap check, and the dotted path of the function a child process runs. Declaring one
imports no vendor package; only the child function does.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Signature


class Parameters(BaseModel):
    """Base of a technique's parameters. Form, API schema and validation are made from the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A format and a precision. `precision=None` on the giving side: as it came."""

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
    """What a worker has. Read from its inventory."""

    cpu_flags: frozenset[str] = frozenset()
    gpus: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            cpu_flags=frozenset(value.get("cpu_flags", ())), gpus=tuple(map(str, value.get("gpus", ())))
        )


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What intake found in the file. `op_types` counts nodes by operator, such as {"MatMul": 2}.

    `None` means that nobody looked. Intake lists the most frequent operators only: absence can be concluded
    where the list is `complete`, presence always.
    """

    format: str = "onnx"
    precision: str | None = None
    opset: int | None = None
    op_types: Mapping[str, int] = field(default_factory=dict)
    complete: bool = False

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


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the child function gets. It writes `output` and nothing outside `scratch`.

    `calibration` is the set to calibrate with; `calibration_source` says whose it is.
    """

    input: Path
    output: Path
    scratch: Path
    signature: Signature
    calibration: Path | None
    calibration_source: str
    seed: int
    journal: Journal


type Check = Callable[[Mapping[str, Any], ModelSummary, Hardware, Parameters], tuple[Refusal, ...]]


@dataclass(frozen=True, kw_only=True)
class Technique:
    """`entry` is "package.module:function": `function(work: Work, params: Parameters) -> dict` (provenance).
    Where that has `evaluation_items`, indices of the evaluation set that the result was fitted to, those are
    not compared; one that calibrates with `calibration_source == "evaluation_set"` must say so.

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
    check: Check
    entry: str
    needs_calibration: bool = False
