"""What is changed in a graph, exactly, so that TensorRT can build it; and quantization that it would misread."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import constants_of, name_nodes, nodes_of

NAMED = 5
LINEAR = ("QuantizeLinear", "DequantizeLinear")


def repair(model: Any) -> list[str]:
    """Changes the model in place; says what was done. The answers stay the same."""
    name_nodes(model)
    done = []
    if renamed := separate_axes(model):
        done.append(
            f"axes that shared the name {', '.join(f'“{name}”' for name in renamed)} got names of their own"
        )
    if biases := write_biases_as_floats(model):
        done.append(f"{biases} quantized biases written as floats")
    return done


def separate_axes(model: Any) -> list[str]:
    """Renames every axis whose name stands twice in one input or output, everywhere; returns those names, sorted.

    TensorRT takes axes of one name for equal, and some exporters call every open axis “?”. Shapes in between are
    dropped: they use the names and TensorRT infers them anyway.
    """
    graph = model.graph
    values = [*graph.input, *graph.output]
    shared = {
        name
        for value in values
        for name, times in Counter(dim.dim_param for dim in value.type.tensor_type.shape.dim).items()
        if name and times > 1
    }
    if not shared:
        return []
    taken = {dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim}
    fresh = (name for name in (f"axis_{number}" for number in count()) if name not in taken)
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in shared:
                dim.dim_param = next(fresh)
    del graph.value_info[:]
    return sorted(shared)


def write_biases_as_floats(model: Any) -> int:
    """A bias that is stored as 32-bit integers with a scale becomes the floats that it stands for."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in tensors
        and tensors[node.input[0]].data_type == TensorProto.INT32
        and node.input[1] in tensors
    ]
    for node in found:
        whole, scale, *zero = (numpy_helper.to_array(tensors[name]) for name in node.input if name in tensors)
        floats = (whole - (zero[0] if zero else 0)) * scale.astype(np.float64)
        graph.initializer.append(numpy_helper.from_array(floats.astype(scale.dtype), node.output[0]))
        graph.node.remove(node)
    return len(found)


def refuse_misread(model: Any) -> None:
    """Raises Unprocessable: `asymmetric_quantization`, also where unsigned integers have a zero point of 0, which
    TensorRT would read as signed ones and cut at 127; `rank_unknown` for an input whose axes nobody counted, which
    it would take for a single number."""
    if found := [f"{node.op_type} “{node.name}” ({why})" for node, why in _asymmetric(model.graph)]:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise Unprocessable(
            "asymmetric_quantization",
            "TensorRT takes symmetric quantization only.",
            f"{', '.join(found[:NAMED])}{more}. Quantize for TensorRT, with signed integers and zero points of 0.",
        )
    for value in model.graph.input:
        if not value.type.tensor_type.HasField("shape"):
            raise Unprocessable(
                "rank_unknown",
                "TensorRT needs to know how many axes an input has.",
                f"“{value.name}” does not say. Export the model with the shapes of its inputs.",
            )


def _asymmetric(graph: Any) -> Iterator[tuple[Any, str]]:
    """Without a zero point, QuantizeLinear gives unsigned integers unless it says otherwise, and DequantizeLinear takes
    what its weight is stored as."""
    from onnx import TensorProto

    tensors = constants_of(graph)
    for node in nodes_of(graph):
        if node.op_type not in LINEAR:
            continue
        point = tensors.get(node.input[2]) if len(node.input) > 2 else None
        if _stored_as(node, point, tensors) == TensorProto.UINT8:
            yield node, "unsigned"
        elif point is not None and point.data_type in (TensorProto.INT8, TensorProto.INT32):
            yield from ((node, f"zero point {value}") for value in _first_that_is_not_zero(point))


def _first_that_is_not_zero(point: Any) -> list[int]:
    from onnx import numpy_helper

    return [int(value) for value in numpy_helper.to_array(point).ravel() if value][:1]


def _stored_as(node: Any, point: Any, tensors: Mapping[str, Any]) -> int | None:
    """The type of the integers, as far as the node and its constants say."""
    from onnx import TensorProto

    if point is not None:
        return int(point.data_type)
    if node.op_type == "DequantizeLinear":
        return int(tensors[node.input[0]].data_type) if node.input[0] in tensors else None
    if len(node.input) > 2 and node.input[2]:
        return None
    named = [attribute.i for attribute in node.attribute if attribute.name == "output_dtype"]
    return int(named[0]) if named and named[0] else TensorProto.UINT8
