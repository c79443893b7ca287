"""Conversion to half precision with ONNX Runtime's converter, around what half precision cannot hold.

Refused: the converter of onnxconverter-common, which breaks graphs that hold a Cast.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.techniques.calibration import Calibration
from optimizer.techniques.fp16.technique import HalfParameters
from optimizer.techniques.graph import constants_of, name_nodes, nodes_of, read, sort_nodes
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import exclusions
from optimizer.techniques.writing import write
from optimizer.workbench.journal import Journal

NAMED = 5
LARGEST = float(np.finfo(np.float16).max)
CONVERTERS_LARGEST = 10_000.0
"""The converter cuts constants to this, which spares masks their infinities and ruins weights."""
WEIGHED = frozenset(
    ["BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "InstanceNormalization", "MatMul"]
)


def run(work: Work, params: HalfParameters) -> dict[str, Any]:
    """Writes the converted model to `work.output`.

    Raises Unprocessable: `unknown_nodes`, `nothing_converted`, what the set is refused for. Cost: one run of the float
    model per item.
    """
    from onnx import TensorProto
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = read(work.input)
    if not any(tensor.data_type == TensorProto.FLOAT for tensor in constants_of(model.graph).values()):
        raise _nothing_converted("It has none in single precision.")
    name_nodes(model)
    names = {node.name for node in model.graph.node}
    asked = exclusions(params.exclude_nodes, model=model)
    calibration = Calibration.draw(work, wanted=params.range_items) if work.calibration else None
    largest = _largest(model, calibration=calibration, journal=work.journal) if calibration else {}
    too_large = _too_large(model, largest, above=LARGEST / params.headroom) | _cut(model)
    if too_large:
        work.journal.warning(_kept_in_words(too_large))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of weights that are cut to the range: a mask's lowest float, most often
        converted = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *params.keep_op_types],
            node_block_list=[*asked, *too_large],
        )
    halves = sum(tensor.data_type == TensorProto.FLOAT16 for tensor in constants_of(converted.graph).values())
    if not halves:
        raise _nothing_converted(
            "Every node that has weights is excluded, reaches too large values, or has no half form."
        )
    _mend(converted, own=names)
    write(converted, work.output)
    work.journal.info(
        f"{halves} weights in half precision; {len(asked) + len(too_large)} nodes kept as they were."
    )
    return {
        "half_weights": halves,
        "kept_nodes": asked,
        "too_large": too_large,
        "ranges": calibration.to_json() if calibration else None,
        "evaluation_items": calibration.evaluation_items if calibration else [],
    }


def _nothing_converted(why: str) -> Unprocessable:
    return Unprocessable("nothing_converted", "No weight was converted to half precision.", why)


def _kept_in_words(too_large: Mapping[str, float]) -> str:
    named = ", ".join(f"“{name}”" for name in list(too_large)[:NAMED])
    more = f" and {len(too_large) - NAMED} more" if len(too_large) > NAMED else ""
    return f"In single precision stay {named}{more}: their values reach {max(too_large.values()):.3g}."


def _mend(converted: Any, *, own: set[str]) -> None:
    """Lets what goes from one kept node to another go straight, which the converter sends through a half (an infinite
    one, where that is why they were kept), and puts its casts where they are needed, not last.

    `own`: names of the model's nodes. Its own casts stay: from float to integer and back they round.
    """
    from onnx import TensorProto

    graph = converted.graph
    outputs = {value.name for value in graph.output}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.name not in own]
    down = {node.output[0]: node for node in casts if node.attribute[0].i == TensorProto.FLOAT16}
    straight = {}
    for node in casts:
        if node.attribute[0].i == TensorProto.FLOAT and node.input[0] in down:
            node.input[0] = down[node.input[0]].input[0]
            straight[node.output[0]] = node.input[0]
    for node in nodes_of(graph):
        for index, name in enumerate(node.input):
            node.input[index] = straight.get(name, name)
    used = {name for node in nodes_of(graph) for name in node.input} | outputs
    for node in casts:
        if node.output[0] not in used:
            graph.node.remove(node)
    sort_nodes(graph)


def _largest(model: Any, *, calibration: Calibration, journal: Journal) -> dict[str, float]:
    """The largest finite magnitude that each float tensor between nodes took over the chosen items.

    ONNX Runtime's calibrator finds the same, and needs a minute to prepare a graph of two thousand tensors.
    """
    import onnxruntime

    watched, names = _watched(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    limits = [limit for pair in names.values() for limit in pair]
    largest = dict.fromkeys(names, 0.0)
    for feed in calibration.reader(journal):
        seen = dict(zip(limits, session.run(limits, feed), strict=True))
        for name, pair in names.items():
            largest[name] = max(largest[name], _magnitude(seen[limit] for limit in pair))
    return largest


def _watched(model: Any) -> tuple[Any, dict[str, tuple[str, str]]]:
    """A copy that also answers with the least and the largest of each float tensor, and the names of these two."""
    import onnx
    from onnx import TensorProto, ValueInfoProto, helper

    watched = onnx.shape_inference.infer_shapes(model)
    graph, names = watched.graph, {}
    there = {name for node in graph.node for name in (*node.input, *node.output)}
    there -= {tensor.name for tensor in graph.initializer}
    for value in (
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):  # some tools leave the types of what they took out
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name in there:
            names[value.name] = (f"{value.name}_least", f"{value.name}_largest")
    for name, (least, largest) in names.items():
        graph.node.append(helper.make_node("ReduceMin", [name], [least]))
        graph.node.append(helper.make_node("ReduceMax", [name], [largest]))
        graph.output.extend(ValueInfoProto(name=limit) for limit in (least, largest))
    return watched, names


def _magnitude(limits: Iterable[Any]) -> float:
    """An infinity is a half as well; what it hides is not known."""
    values = np.concatenate([np.ravel(limit) for limit in limits])
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _too_large(model: Any, largest: Mapping[str, float], *, above: float) -> dict[str, float]:
    """Nodes that give or take such a value, with the largest of them."""
    found = {
        node.name: max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        for node in model.graph.node
    }
    return {name: value for name, value in found.items() if value > above}


def _cut(model: Any) -> dict[str, float]:
    """Nodes whose weights the converter would cut, such as a variance of millions, with the largest of them. None of a
    subgraph: the converter cannot keep one there."""
    from onnx import TensorProto, numpy_helper

    weights = {
        name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        for name, tensor in constants_of(model.graph).items()
        if tensor.data_type == TensorProto.FLOAT
    }
    found = {
        node.name: max((weights.get(name, 0.0) for name in node.input), default=0.0)
        for node in model.graph.node
        if node.op_type in WEIGHED
    }
    return {name: value for name, value in found.items() if value > CONVERTERS_LARGEST}
