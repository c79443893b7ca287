"""Optimization ahead of time: by a session that writes down what it would have run, or by a tool of its own."""

import contextlib
import io
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import opset_of, read
from optimizer.techniques.onnx_graph.technique import GraphParameters
from optimizer.techniques.port import Work
from optimizer.techniques.writing import write
from optimizer.workbench.session import first_line, pass_on

NORMALIZATIONS = {"LayerNormFusionL1": 17, "LayerNormFusionL2": 17, "SimplifiedLayerNormFusion": None}
"""ONNX Runtime's fusions whose result stands in ONNX's own domain, and the opset from which ONNX has it as well."""


def run(work: Work, params: GraphParameters) -> dict[str, Any]:
    """Writes the optimized graph to `work.output` as one file."""
    match params.tool:
        case "onnxruntime":
            _by_onnxruntime(work, params)
            work.journal.info(f"Written at level {params.level}.")
        case "onnxslim":
            _by_onnxslim(work)
    return {}


def _by_onnxruntime(work: Work, params: GraphParameters) -> None:
    import onnxruntime

    model, source = read(work.input), work.scratch / "read.onnx"
    write(model, source)
    unwanted = _not_in_onnx(opset_of(model))
    del model  # the session has a copy of its own
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
    }[params.level]
    options.optimized_model_filepath = str(work.output)
    onnxruntime.InferenceSession(
        str(source),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=unwanted,
    )


def _not_in_onnx(opset: int) -> list[str]:
    """Fusions that would write what only ONNX Runtime takes for a model."""
    return [name for name, since in NORMALIZATIONS.items() if since is None or opset < since]


def _by_onnxslim(work: Work) -> None:
    import onnxslim

    model = read(work.input)
    before = len(model.graph.node)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its tables
        try:
            slimmed = onnxslim.slim(model)
        except Exception as error:  # it raises whatever its own code meets
            pass_on(error)
            raise Unprocessable(
                "not_simplified",
                "onnxslim fails on this model.",
                f"{first_line(error).rstrip('.')}. ONNX Runtime's own optimizer may take it.",
            ) from error
    write(slimmed, work.output)
    work.journal.info(f"{before} nodes became {len(slimmed.graph.node)}.")
