"""What an evaluation is asked, read from the spec of its child process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from controlplane.registry.answers import Answers
from optimizer.domain.verdict import Policy
from optimizer.techniques import promises_of
from optimizer.workbench.formats import Format, known
from optimizer.workbench.signature import Signature

BATCH_SIZES = (1, 8, 32)


@dataclass(frozen=True, kw_only=True)
class File:
    """`python` is the interpreter that opens it, None for that of this process."""

    path: Path
    format: Format
    python: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """The spec, read. `budget_s` bounds what is measured, not loading files. `answering` is the file whose answers
    are compared: the variant itself, where it runs here. `gpu`: both sides run on the GPU that this process sees;
    `no_gpu` is why not, where that is what the variant needs. `largest_batch` is what the variant takes.
    `exported` is an ONNX model that stood between the two, whose graph says what inputs may hold."""

    parent: File
    variant: File
    answering: File | None
    exported: Path | None
    signature: Signature
    evaluation_npz: Path | None
    metric: str
    answers: Answers
    fitted_to: frozenset[int]
    threads: int
    budget_s: float
    seed: int
    policy: Policy
    promises: tuple[Mapping[str, Any], ...]
    gpu: bool
    no_gpu: str
    largest_batch: int

    @property
    def batch_sizes(self) -> list[int]:
        """Those that are timed; one where the model itself says how many items it takes."""
        taken = [size for size in BATCH_SIZES if size <= self.largest_batch]
        return taken if self.signature.batched else [1]

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        parent, variant, stand_in = (_file(spec, side) for side in ("parent", "variant", "stand_in"))
        assert parent is not None
        assert variant is not None
        gpu = bool(spec.get("gpu"))
        return cls(
            parent=parent,
            variant=variant,
            answering=variant if gpu or variant.format.opener else stand_in,
            exported=Path(spec["exported_path"]) if spec.get("exported_path") else None,
            signature=Signature.from_json(spec["signature"]),
            evaluation_npz=Path(spec["evaluation_npz"]) if spec.get("evaluation_npz") else None,
            metric=str(spec.get("metric", "")),
            answers=Answers.from_json(spec.get("answers", {})),
            fitted_to=frozenset(map(int, spec.get("fitted_to", ()))),
            threads=int(spec.get("threads", 1)),
            budget_s=float(spec.get("budget_s", 40)),
            seed=int(spec.get("seed", 0)),
            policy=Policy(**spec.get("policy", {})),
            promises=tuple(promises_of(spec.get("techniques", ()))),
            gpu=gpu,
            no_gpu=str(spec.get("no_gpu", "")),
            largest_batch=int(spec.get("largest_batch") or max(BATCH_SIZES)),
        )


def _file(spec: Mapping[str, Any], side: str) -> File | None:
    path, python = spec.get(f"{side}_path"), spec.get(f"{side}_python")
    if not path:
        return None
    format = known(spec.get(f"{side}_format", "onnx"))
    return File(path=Path(path), format=format, python=Path(python) if python else None)
