"""Which layers integers harm most: each one beside a twin that takes integers, in one run of the float model.

Refused: ranking by how an activation itself changes, which does not see whether what was lost of it matters; and by the
distance from the float model in the quantized one, where each layer inherits the loss of those before it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optimizer.workbench.signature import Array, Feed

LIMIT_DB = 200.0


def signal_to_noise(
    model: Any, layers: Sequence[str], *, ranges: Mapping[str, tuple[Any, Any]], feeds: Sequence[Feed]
) -> dict[str, float]:
    """By layer: how much larger its answer is than what changes when its input and answer become integers; in decibels,
    infinite for a layer that takes none. `ranges`: scale and zero point by tensor; an input without them gets its own
    in every run. Cost: one run per item without graph optimization, every answer in memory."""
    import onnxruntime

    pairs = _beside(model, set(layers), ranges)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    seen: dict[str, list[float]] = {layer: [] for layer in layers}
    for feed in feeds:
        values: dict[str, Array] = dict(zip(names, session.run(names, feed), strict=True))
        for layer, (float_, integer) in pairs.items():
            seen[layer].append(_decibels(values[float_], values[integer]))
    return {layer: float(np.mean(found)) if found else math.inf for layer, found in seen.items()}


def _decibels(answer: Array, with_integers: Array) -> float:
    """Of the answer's median magnitude over the root mean square of the difference: its norm would be that of a few
    very large values, beside which nothing seems lost (`qdq_loss_debug` of ONNX Runtime takes that)."""
    typical = float(np.median(np.abs(answer.astype(np.float64))))
    noise = float(np.sqrt(np.mean(np.square(answer.astype(np.float64) - with_integers))))
    if not math.isfinite(noise) or not math.isfinite(typical):
        return -LIMIT_DB
    ratio = max(typical, np.finfo(float).tiny) / max(noise, np.finfo(float).tiny)
    return min(LIMIT_DB, max(-LIMIT_DB, 20 * math.log10(ratio)))


def ranges_of(quantized: Any) -> dict[str, tuple[Any, Any]]:
    """Scale and zero point of every tensor that a QDQ model makes integers of."""
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    return {
        node.input[0]: (constants[node.input[1]], constants[node.input[2]])
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear"
        and len(node.input) > 2
        and set(node.input[1:]) <= constants.keys()
    }


def _beside(
    model: Any, layers: set[str], ranges: Mapping[str, tuple[Any, Any]]
) -> dict[str, tuple[str, str]]:
    """Sets beside each layer a twin that takes integers made floats again, and gives such where its answer has a range;
    both answers become outputs, whose names are returned by layer."""
    from onnx import ValueInfoProto, helper

    graph, pairs = model.graph, {}
    constants = {tensor.name for tensor in graph.initializer}

    def restored(name: str, tensor: str) -> str:
        """The value `name` after a round trip through the integers of `tensor`."""
        made, limits = f"{name}_restored", [f"{name}_scale_tried", f"{name}_zero_tried"]
        if tensor in ranges:
            for limit, constant in zip(limits, ranges[tensor], strict=True):
                graph.initializer.add().CopyFrom(constant)
                graph.initializer[-1].name = limit
            graph.node.append(helper.make_node("QuantizeLinear", [name, *limits], [f"{name}_tried"]))
        else:
            graph.node.append(helper.make_node("DynamicQuantizeLinear", [name], [f"{name}_tried", *limits]))
        graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_tried", *limits], [made]))
        return made

    inputs: dict[str, str] = {}
    for node in [node for node in graph.node if node.name in layers]:
        taken, given = node.input[0], node.output[0]
        if taken in constants or not given:
            continue
        if taken not in inputs:
            inputs[taken] = restored(taken, taken)
        twin, answer = graph.node.add(), f"{given}_twin"
        twin.CopyFrom(node)
        twin.name, twin.input[0], twin.output[:] = f"{node.name}_twin", inputs[taken], [answer]
        pairs[node.name] = (given, restored(answer, given) if given in ranges else answer)
    shown = {value.name for value in graph.output}
    graph.output.extend(
        ValueInfoProto(name=name) for pair in pairs.values() for name in pair if name not in shown
    )
    return pairs
