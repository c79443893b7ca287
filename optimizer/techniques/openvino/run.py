"""ONNX to OpenVINO IR, and NNCF's post-training quantization on the way.

Refused: NNCF on the ONNX graph for this purpose: OpenVINO's own graph gives the same accuracy, and kernels for it.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controlplane.core import openvino_ir
from controlplane.core.errors import Unprocessable
from optimizer.techniques.calibration import Calibration
from optimizer.techniques.graph import name_nodes, op_types, read
from optimizer.techniques.openvino.technique import OpenVinoParameters, is_transformer, no_bf16
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import exclusions, layers_of, nothing_quantized
from optimizer.techniques.repair import fitted_to, quantize_within_budget
from optimizer.techniques.writing import write
from optimizer.workbench.openvino import reason
from optimizer.workbench.session import pass_on


def run(work: Work, params: OpenVinoParameters) -> dict[str, Any]:
    """Writes the IR to `work.output`.

    Raises Unprocessable: `not_convertible`, `no_bf16`, `calibration_missing`, what the set is refused for,
    `unknown_nodes`, `nothing_quantized`, and what repairing INT8 raises. Cost of INT8: three runs of the float model
    for each calibration item, in every round.
    """
    import openvino

    model = _converted(work.input)
    if params.precision == "int8":
        return {"precision": "int8", **_quantized(model, work=work, params=params)}
    if params.precision == "bf16":
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise no_bf16().error()
        model.set_rt_info("bf16", list(openvino_ir.PRECISION))
    _save(model, to=work.output, scratch=work.scratch)
    return {"precision": params.precision, "operations": _operations(model)}


def _save(model: Any, *, to: Path, scratch: Path) -> None:
    import openvino

    graph, weights = scratch / openvino_ir.GRAPH, scratch / openvino_ir.WEIGHTS
    openvino.save_model(model, str(graph), compress_to_fp16=False)
    openvino_ir.pack(graph.read_bytes(), weights.read_bytes(), to)


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


def _quantized(model: Any, *, work: Work, params: OpenVinoParameters) -> dict[str, Any]:
    """Writes `work.output`; returns what the provenance says of it."""
    graph = read(work.input)
    name_nodes(graph)
    asked = exclusions(params.exclude_nodes, model=graph)
    parts = _parts(model, graph)
    if folded := [name for name in asked if not parts.get(name)]:
        raise Unprocessable(
            "unknown_nodes",
            "A node to exclude has no counterpart in OpenVINO's graph.",
            f"“{folded[0]}” was folded into its neighbors. Exclude these too, or leave it in.",
        )
    calibration = Calibration.draw(work, wanted=params.calibration_items)
    import nncf  # it takes a second, which nothing refused has to wait for

    nncf.set_log_level("ERROR")
    count = len(calibration.chosen)
    transformer = params.model_type == "transformer" or (
        params.model_type == "auto" and is_transformer(op_types(graph))
    )
    layers = [name for name in layers_of(graph, excluded=asked) if parts[name]]
    others = [name for name in parts if parts[name] and name not in {*layers, *asked}]
    named = work.scratch / "named.onnx"
    write(graph, named)
    del graph  # the largest models have room for one copy less
    work.journal.info(f"Calibrating {'a transformer' if transformer else 'the model'} on {count} items.")
    preset = {
        "performance": nncf.QuantizationPreset.PERFORMANCE,
        "mixed": nncf.QuantizationPreset.MIXED,
    }
    operations: list[dict[str, int]] = []

    def quantize(made: Path, left: Sequence[str]) -> None:
        ignored = sorted({part for name in (*asked, *left) for part in parts[name]})
        with contextlib.redirect_stdout(io.StringIO()):  # it draws bars
            found = nncf.quantize(
                model.clone(),
                nncf.Dataset(calibration.chosen, _feeding(work, calibration)),
                preset=preset[params.preset],
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                subset_size=count,
                ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            )
        operations.append(_operations(found))
        if not operations[-1].get("FakeQuantize"):
            raise nothing_quantized()
        _save(found, to=made, scratch=work.scratch)

    repair = quantize_within_budget(
        work,
        original=named,
        quantize=quantize,
        rounds=params.repair_rounds if layers else 0,
        layers=layers,
        others=others,
        format="openvino",
    )
    made = operations[repair["round"] if repair else 0]
    work.journal.info(f"{made['FakeQuantize']} tensors are quantized.")
    return {
        "operations": made,
        "model_type": "transformer" if transformer else "none",
        "kept_nodes": asked,
        "calibration": calibration.to_json(),
        "repair": repair,
        "evaluation_items": sorted({*calibration.evaluation_items, *fitted_to(repair)}),
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


def _parts(model: Any, graph: Any) -> dict[str, set[str]]:
    """By ONNX node the names of the IR's operations that it became: all between its outputs and its inputs. None of
    one that was folded into its neighbors."""
    makers = {
        name: out.get_node() for node in model.get_ops() for out in node.outputs() for name in out.get_names()
    }
    return {
        node.name: _between(
            [makers[output] for output in node.output if output in makers], starts=set(node.input)
        )
        for node in graph.graph.node
    }


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
