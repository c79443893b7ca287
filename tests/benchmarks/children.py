"""Techniques and evaluations as a job's children run them, for benchmarks of what the optimizer makes."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.core.sandbox import Child, Limits
from controlplane.settings.environment import read_environment
from optimizer import toolchains
from optimizer.techniques import parameters, technique
from optimizer.workbench.formats import known, opened_by

SEED = 20261124
LIMITS = Limits(memory_bytes=12 * 2**30, cpu_s=3600, wall_s=3600, file_bytes=2**31, processes=256)


class NotMade(Exception):
    """In the product's words, why there is no artifact or no report."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A file in one of the product's formats, with the ports that are looked at."""

    path: Path
    format: str = "onnx"
    signature: Mapping[str, Any]


def interpreter(key: str | None) -> Path | None:
    """None for this one. Raises NotMade where the toolchain is not installed."""
    if key is None:
        return None
    found = toolchains.python(read_environment().toolchains, key)
    if found is None:
        raise NotMade(f"the toolchain {key} is not installed (make toolchains)")
    return found


def apply(
    key: str, params: Mapping[str, Any], model: Model, *, folder: Path, calibration: Path,
    kept: Path | None = None,
) -> tuple[Model, list[str]]:  # fmt: skip
    """What the technique makes of the model, and what was said meanwhile. Raises NotMade."""
    work = Path(tempfile.mkdtemp(dir=folder))
    used = technique(key)
    spec = {
        "technique": key,
        "params": dict(params),
        "input_path": str(model.path),
        "input_format": model.format,
        "output_path": str(work / f"made{known(used.gives.format).suffix}"),
        "calibration_npz": str(calibration),
        "evaluation_npz": None,
        "signature": model.signature,
        "seed": SEED,
        "kept": str(kept) if kept else None,
    }
    made, said = _child(
        "optimizer.techniques.child:run",
        spec,
        scratch=work,
        readable=[model.path, calibration],
        writable=[kept] if kept else [],
        python=interpreter(used.needs(parameters(key, params), format=model.format)),
    )
    return Model(path=Path(made["output_path"]), format=made["format"], signature=model.signature), said


def report(
    parent: Model, variant: Model, *, signature: Mapping[str, Any], evaluation: Path, budget_s: float,
    metric: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The product's own report, on one thread, of the ports that `signature` names.

    Raises NotMade, also where there are no answers to compare.
    """
    toolchain, parents = opened_by(parent.format, variant.format)
    python = interpreter(parents)
    spec = {
        "parent_path": str(parent.path),
        "parent_format": parent.format,
        "parent_python": str(python) if python else None,
        "variant_path": str(variant.path),
        "variant_format": variant.format,
        "signature": dict(signature),
        "evaluation_npz": str(evaluation),
        "metric": metric,
        "threads": 1,
        "budget_s": budget_s,
        "seed": SEED,
    }
    readable = [parent.path, variant.path, evaluation, *([python.parents[1]] if python else [])]
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        found, _ = _child(
            "optimizer.evaluation.child:evaluate",
            spec,
            scratch=Path(scratch),
            readable=readable,
            python=interpreter(toolchain),
        )
    if found["accuracy"] is None:
        raise NotMade(found["sentence"])
    return found


def _child(
    entry: str, spec: Mapping[str, Any], *, scratch: Path, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    said = []
    with Child.start(entry=entry, spec=spec, scratch=scratch, limits=LIMITS, **more) as child:
        while not child.finished:
            message = child.poll(1.0)
            if message and message["kind"] == "log":
                said.append(message["message"])
                print(f"   {message['message']}", file=sys.stderr, flush=True)
        outcome = child.outcome()
    if outcome.result is None:
        raise NotMade(_reason(outcome))
    return outcome.result, said


def _reason(outcome: Any) -> str:
    refused = outcome.refusal
    return f"{refused.title} {refused.detail}".strip() if refused else f"{outcome.reason}: {outcome.detail}"
