"""ONNX to OpenVINO IR, and NNCF's post-training quantization on the way.

Refused: NNCF on the ONNX graph for this purpose: OpenVINO's own graph gives the same accuracy, and kernels for it.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from controlplane.core import openvino_ir
from controlplane.core.errors import Unprocessable
from optimizer.techniques.calibration import Calibration
from optimizer.techniques.graph import name_nodes, op_types, read
from optimizer.techniques.openvino.technique import OpenVinoParameters, is_transformer, no_bf16
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import exclusions, nothing_quantized
from optimizer.workbench.openvino import reason
from optimizer.workbench.session import pass_on


def run(work: Work, params: OpenVinoParameters) -> dict[str, Any]:
    """Writes the IR to `work.output`.

    Raises Unprocessable: `not_convertible`, `no_bf16`, `calibration_missing`, what the set is refused for,
    `unknown_nodes`, `nothing_quantized`. Cost of INT8: three runs of the float model per calibration item.
    """
    import openvino

    model = _converted(work.input)
    about: dict[str, Any] = {}
    if params.precision == "int8":
        model, about = _quantized(model, work=work, params=params)
    if params.precision == "bf16":
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise no_bf16().error()
        model.set_rt_info("bf16", list(openvino_ir.PRECISION))
    graph, weights = work.scratch / openvino_ir.GRAPH, work.scratch / openvino_ir.WEIGHTS
    openvino.save_model(model, str(graph), compress_to_fp16=False)
    openvino_ir.pack(graph.read_bytes(), weights.read_bytes(), work.output)
    return {"precision": params.precision, "operations": _operations(model), **about}


def _converted(path: Path) -> Any:
    """By the reader for ONNX and no other, whatever the file is named. Raises Unprocessable("not_convertible")."""
    from openvino.frontend import FrontEndManager

    try:
        frontend = FrontEndManager().load_by_framework("onnx")
        return frontend.convert(frontend.load(str(path)))
    except Exception as error:  # OpenVINO's errors share no base class but Exception
        pass_on(error)
        raise Unprocessable(
            "not_convertible", "OpenVINO cannot convert this model.", reason(error)
        ) from error


def _quantized(model: Any, *, work: Work, params: OpenVinoParameters) -> tuple[Any, dict[str, Any]]:
    graph = read(work.input)
    name_nodes(graph)
    ignored = _ignored(model, graph, params.exclude_nodes)
    calibration = Calibration.draw(work, wanted=params.calibration_items)
    import nncf  # it takes a second, which nothing refused has to wait for

    nncf.set_log_level("ERROR")
    count = len(calibration.chosen)
    transformer = params.model_type == "transformer" or (
        params.model_type == "auto" and is_transformer(op_types(graph))
    )
    work.journal.info(f"Calibrating {'a transformer' if transformer else 'the model'} on {count} items.")
    preset = {
        "performance": nncf.QuantizationPreset.PERFORMANCE,
        "mixed": nncf.QuantizationPreset.MIXED,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it draws bars
        made = nncf.quantize(
            model,
            nncf.Dataset(calibration.chosen, _feeding(work, calibration)),
            preset=preset[params.preset],
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=count,
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
        )
    quantizers = _operations(made).get("FakeQuantize", 0)
    if not quantizers:
        raise nothing_quantized()
    work.journal.info(f"{quantizers} tensors are quantized.")
    return made, {
        "model_type": "transformer" if transformer else "none",
        "kept_nodes": list(params.exclude_nodes),
        "calibration": calibration.to_json(),
        "evaluation_items": calibration.evaluation_items,
    }


def _feeding(work: Work, calibration: Calibration) -> Callable[[int], Any]:
    """Makes one request of an item; NNCF goes through them several times."""
    position = {index: place for place, index in enumerate(calibration.chosen, start=1)}

    def feed(index: int) -> Any:
        work.journal.progress(position[index], len(position))
        return calibration.items.feed([index])

    return feed


def _operations(model: Any) -> dict[str, int]:
    return dict(sorted(Counter(node.get_type_name() for node in model.get_ops()).items()))


def _ignored(model: Any, graph: Any, names: Iterable[str]) -> list[str]:
    """Names of the IR's operations that these ONNX nodes became: all between a node's outputs and its inputs.

    Raises Unprocessable("unknown_nodes") for names that the ONNX graph lacks, or that left no trace in the IR.
    """
    nodes = {node.name: node for node in graph.graph.node}
    wanted = exclusions(names, model=graph)
    makers = {
        name: out.get_node() for node in model.get_ops() for out in node.outputs() for name in out.get_names()
    }
    found: set[str] = set()
    for name in wanted:
        ends = [makers[output] for output in nodes[name].output if output in makers]
        if not ends:
            raise Unprocessable(
                "unknown_nodes",
                "A node to exclude has no counterpart in OpenVINO's graph.",
                f"“{name}” was folded into its neighbors. Exclude these too, or leave it in.",
            )
        found.update(_between(ends, starts=set(nodes[name].input)))
    return sorted(found)


def _between(ends: list[Any], *, starts: set[str]) -> set[str]:
    """Names of the operations that make the tensors `ends` of those named `starts`."""
    pending, found = list(ends), set()
    while pending:
        node = pending.pop()
        if node.get_friendly_name() in found or node.get_type_name() in {"Constant", "Parameter"}:
            continue
        found.add(node.get_friendly_name())
        sources = (node.input_value(index) for index in range(node.get_input_size()))
        pending.extend(source.get_node() for source in sources if not starts & source.get_names())
    return found
