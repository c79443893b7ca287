"""ONNX Runtime's offline optimization: a session that writes down what it would have run."""

from typing import Any

from optimizer.techniques.onnx_graph.technique import GraphParameters
from optimizer.techniques.port import Work


def run(work: Work, params: GraphParameters) -> dict[str, Any]:
    """Writes the optimized graph to `work.output` as one file."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
    }[params.level]
    options.optimized_model_filepath = str(work.output)
    onnxruntime.InferenceSession(str(work.input), options, providers=["CPUExecutionProvider"])
    work.journal.info(f"Written at level {params.level}.")
    return {}
