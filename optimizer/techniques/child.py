"""One technique as a child process runs it: a file in, a checked file out, and how it was made."""

import contextlib
import gc
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError, Unprocessable
from controlplane.registry.answers import Answers
from optimizer.domain.verdict import Policy
from optimizer.techniques import parameters, technique
from optimizer.techniques.graph import read, summary_of
from optimizer.techniques.port import Hardware, ModelSummary, Work
from optimizer.techniques.result import check_result, precision_of, versions
from optimizer.workbench.items import digest
from optimizer.workbench.journal import Emit, Journal
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Signature


def run(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Runs `spec["technique"]` on `input_path` and leaves its result at `output_path`.

    Spec: technique, params, input_path, optional input_format, output_path, calibration_npz or null,
    evaluation_npz or null, signature, seed, optional `policy` (fields of Policy), `metric` and
    `answers` (as `evaluation.child` takes them). Returns output_path, format,
    precision, provenance, and `evaluation_items`: which items of the evaluation set the result was fitted to. Raises
    Unprocessable with the technique's reason, or what the check of the result found; then no output is left.
    """
    used = technique(spec["technique"])
    params = parameters(used.key, spec["params"])
    output = Path(spec["output_path"])
    journal = Journal(emit=emit, steps=3)
    journal.step("Read model")
    given = spec.get("input_format", "onnx")
    summary = summary_of(read(Path(spec["input_path"]))) if given == "onnx" else ModelSummary(format=given)
    if reasons := used.check(spec["signature"], summary, Hardware(), params):
        raise reasons[0].error()
    journal.step(used.label)
    try:
        with _scratch(output.parent) as scratch:
            work = _work(spec, scratch=scratch, output=output, journal=journal)
            provenance = dict(_entry(used.entry)(work, params))
        gc.collect()  # PyTorch's programs go round in circles, and hold their weights
        journal.step("Check the result")
        after = check_result(output, made=used.gives.format, work=work)
    except SlipwayError:
        output.unlink(missing_ok=True)
        raise
    except Exception as error:  # a vendor's exceptions share no base class but Exception
        output.unlink(missing_ok=True)
        pass_on(error)
        raise Unprocessable(
            "technique_failed", f"{used.label} could not be applied.", first_line(error)
        ) from error
    return {
        "output_path": str(output),
        "evaluation_items": provenance.pop("evaluation_items", []),
        "format": used.gives.format,
        "precision": provenance.pop("precision", None)
        or used.gives.precision
        or summary.precision
        or precision_of(output, used.gives.format),
        "provenance": {
            "technique": used.key,
            "params": params.model_dump(mode="json"),
            "seed": spec["seed"],
            "versions": versions(used.needs(params, format=given)),
            "input_sha256": digest(work.input),
            "output_sha256": digest(output),
            "nodes_before": dict(summary.op_types),
            "nodes_after": after,
            **provenance,
        },
    }


@contextlib.contextmanager
def _scratch(parent: Path) -> Any:
    """A folder of its own as the current one: quantization tools drop files where they stand."""
    with tempfile.TemporaryDirectory(prefix="technique-", dir=parent) as folder, contextlib.chdir(folder):
        yield Path(folder)


def _work(spec: dict[str, Any], *, scratch: Path, output: Path, journal: Journal) -> Work:
    calibration, evaluation = spec.get("calibration_npz"), spec.get("evaluation_npz")
    chosen = calibration or evaluation
    return Work(
        input=Path(spec["input_path"]),
        input_format=spec.get("input_format", "onnx"),
        output=output,
        scratch=scratch,
        signature=Signature.from_json(spec["signature"]),
        calibration=Path(chosen) if chosen else None,
        calibration_source="calibration_set"
        if calibration and calibration != evaluation
        else "evaluation_set",
        seed=int(spec["seed"]),
        journal=journal,
        evaluation=Path(evaluation) if evaluation else None,
        policy=Policy(**spec.get("policy", {})),
        metric=str(spec.get("metric", "")),
        answers=Answers.from_json(spec.get("answers", {})),
        kept=Path(spec["kept"]) if spec.get("kept") else None,
        cache=Path(spec["cache"]) if spec.get("cache") else None,
    )


def _entry(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
