"""What the graph means, looked at after the bounded walk and before any library runs a part of it.

Operators and versions by an allow-list, functions that call each other without end, and the operators that
turn a few bytes into gigabytes or into endless work. Constants are followed one step (initializers and
Constant nodes); what is computed from computed shapes meets the limits of the child instead.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import dense_bytes, quoted
from controlplane.registry.intake.walk import MAX_DENSE_BYTES, too_much_memory

MIN_OPSET = 7
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
PROGRAMS = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "Snpe", "OpenVINO"})
"""Operators of ONNX Runtime that load an engine or a library of a vendor."""
MAX_EXPANDED_NODES = 500_000
MAX_CALL_DEPTH = 64
MAX_TRIPS = 100_000_000
MAX_BLOCK = 4096
MAX_CONSTANT_ELEMENTS = 64
"""Longer constants are no shapes."""

type Constants = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Place:
    """A node with what is known where it stands."""

    node: Any
    constants: Mapping[str, np.ndarray[Any, Any]]

    @property
    def label(self) -> str:
        node = self.node
        name = node.name or (node.output[0] if node.output else "")
        return f"The node {quoted(name)} ({node.op_type})"

    def constant(self, index: int) -> np.ndarray[Any, Any] | None:
        inputs = self.node.input
        return self.constants.get(inputs[index]) if index < len(inputs) else None

    def attribute(self, name: str) -> Any:
        return next((attribute for attribute in self.node.attribute if attribute.name == name), None)


def check(model: Any) -> None:
    """Raises Unprocessable: `unsupported_opset`, `unsupported_operator`, `engine_refused`, `too_complex`,
    `resource_limit`, `no_graph`."""
    functions = {(function.domain, function.name) for function in model.functions}
    _check_opsets(model.opset_import)
    for function in model.functions:
        _check_opsets(function.opset_import)
    for place in places(model):
        _check_operator(place, functions)
        _check_cost(place)
    _check_calls(model)


def places(model: Any) -> Iterator[Place]:
    """Every node of graph, subgraphs and functions."""
    yield from _places(model.graph.node, _initializers(model.graph))
    for function in model.functions:
        yield from _places(function.node, {})


def _places(nodes: Any, constants: Constants) -> Iterator[Place]:
    known = dict(constants)
    for node in nodes:
        yield Place(node, known)
        if node.op_type == "Constant" and node.output:
            value = _constant(node)
            if value is not None:
                known[node.output[0]] = value
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    yield from _places(graph.node, known | _initializers(graph))


def _initializers(graph: Any) -> Constants:
    return {tensor.name: value for tensor in graph.initializer if (value := _small(tensor)) is not None}


def _constant(node: Any) -> np.ndarray[Any, Any] | None:
    for attribute in node.attribute:
        match attribute.name:
            case "value":
                return _small(attribute.t)
            case "value_int":
                return np.array(attribute.i)
            case "value_ints" if len(attribute.ints) <= MAX_CONSTANT_ELEMENTS:
                return np.array(attribute.ints)
            case "value_float":
                return np.array(attribute.f)
    return None


def _small(tensor: Any) -> np.ndarray[Any, Any] | None:
    if math.prod(tensor.dims) > MAX_CONSTANT_ELEMENTS or tensor.data_type == onnx.TensorProto.STRING:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError):
        return None


def _check_opsets(imports: Any) -> None:
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx": onnx.defs.onnx_opset_version(), "ai.onnx.ml": 99}
    for entry in imports:
        if entry.domain not in newest:
            continue
        oldest = 1 if entry.domain == "ai.onnx.ml" else MIN_OPSET
        if not oldest <= entry.version <= newest[entry.domain]:
            raise Unprocessable(
                "unsupported_opset",
                "The model uses a version of the operators that is not supported.",
                f"It asks for opset {entry.version} of {entry.domain or 'ai.onnx'}; {oldest} to "
                f"{newest[entry.domain]} are read. Export it with another opset_version.",
            )


def _check_operator(place: Place, functions: set[tuple[str, str]]) -> None:
    node = place.node
    if node.op_type in PROGRAMS:
        raise Unprocessable(
            "engine_refused",
            "Engines are not accepted: an engine is a program.",
            f"{place.label} carries one. Upload the ONNX model that it was built from.",
        )
    if node.domain not in DOMAINS and (node.domain, node.op_type) not in functions:
        raise Unprocessable(
            "unsupported_operator",
            "The model uses an operator that nothing here can run.",
            f"{place.label} is of the domain {quoted(node.domain)}; known are ai.onnx, ai.onnx.ml and "
            "com.microsoft. Export the model without custom operators.",
        )


def _check_cost(place: Place) -> None:
    match place.node.op_type:
        case "ConstantOfShape":
            value = place.attribute("value")
            _check_size(place, _product(place.constant(0)), value.t.data_type if value is not None else 1)
        case "Expand":
            _check_size(place, _product(place.constant(1)), onnx.TensorProto.UINT8)
        case "Tile":
            _check_size(place, _product(place.constant(1)), onnx.TensorProto.UINT8)
        case "Range":
            _check_size(place, _range_length(place), onnx.TensorProto.INT16)
        case "DepthToSpace" | "SpaceToDepth":
            block = place.attribute("blocksize")
            if block is not None and not 0 < block.i <= MAX_BLOCK:
                raise _limit(f"{place.label} has the block size {block.i}; at most {MAX_BLOCK} is read.")
        case "Loop":
            _check_loop(place)


def _check_size(place: Place, elements: int, data_type: int) -> None:
    size = dense_bytes(data_type, elements) if data_type else elements
    if size > MAX_DENSE_BYTES:
        raise too_much_memory(place.label, size)


def _product(shape: np.ndarray[Any, Any] | None) -> int:
    if shape is None or shape.dtype.kind not in "iu":
        return 0
    return math.prod(abs(int(size)) for size in shape.reshape(-1))


def _range_length(place: Place) -> int:
    start, limit, delta = (place.constant(index) for index in range(3))
    if start is None or limit is None or delta is None or any(v.size != 1 for v in (start, limit, delta)):
        return 0
    step = float(delta.reshape(-1)[0])
    length = (float(limit.reshape(-1)[0]) - float(start.reshape(-1)[0])) / step if step else 0.0
    if not math.isfinite(length):
        raise _limit(f"{place.label} has no end.")
    return max(0, math.ceil(length))


def _check_loop(place: Place) -> None:
    """Refuses a loop that only its trip count ends, if that is missing or larger than any run would wait for.
    Exporters write the largest int64 for "until the condition is false", so the count alone says nothing."""
    body = place.attribute("body")
    if body is None or not _always_continues(place, body.g):
        return
    trips = place.constant(0)
    if not place.node.input or not place.node.input[0]:
        raise _limit(f"{place.label} has neither a trip count nor a condition that can end it.")
    if trips is not None and trips.size == 1 and int(trips.reshape(-1)[0]) > MAX_TRIPS:
        raise _limit(
            f"{place.label} runs {int(trips.reshape(-1)[0]):,} times; at most {MAX_TRIPS:,} are allowed."
        )


def _always_continues(place: Place, body: Any) -> bool:
    inputs = place.node.input
    if len(inputs) > 1 and inputs[1] and not _is_true(place.constant(1)):
        return False
    if len(body.input) < 2 or not body.output:
        return False
    known = dict(place.constants) | _initializers(body)
    made_by = {output: node for node in body.node for output in node.output}
    name = body.output[0].name
    for _ in range(len(body.node) + 1):
        if name == body.input[1].name or _is_true(known.get(name)):
            return True
        node = made_by.get(name)
        if node is None:
            return False
        if node.op_type == "Constant":
            return _is_true(_constant(node))
        if node.op_type != "Identity" or not node.input:
            return False
        name = node.input[0]
    return False


def _is_true(value: np.ndarray[Any, Any] | None) -> bool:
    return value is not None and value.size == 1 and bool(value.reshape(-1)[0])


def _check_calls(model: Any) -> None:
    """Functions are copied into their callers when a model is built: recursion never ends, and a few functions
    that call each other twice become billions of nodes."""
    bodies = {(function.domain, function.name): function for function in model.functions}
    if len(bodies) < len(model.functions) and len({f.overload for f in model.functions}) == 1:
        raise _too_complex("Two of its functions have the same name")
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, *, depth: int, open_: tuple[tuple[str, str], ...]) -> int:
        if depth > MAX_CALL_DEPTH:
            raise _too_complex(f"Its functions call each other more than {MAX_CALL_DEPTH} deep")
        total = 0
        for place in _places(nodes, {}):
            key = (place.node.domain, place.node.op_type)
            if key in open_:
                raise _too_complex(f"Its function {quoted(key[1])} calls itself")
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key].node, depth=depth + 1, open_=(*open_, key))
            total += sizes.get(key, 1)
            if total > MAX_EXPANDED_NODES:
                raise _too_complex(f"Its functions unfold to more than {MAX_EXPANDED_NODES:,} nodes")
        return total

    size(model.graph.node, depth=0, open_=())
    for key, function in bodies.items():
        if key not in sizes:
            sizes[key] = size(function.node, depth=1, open_=(key,))


def _too_complex(problem: str) -> Unprocessable:
    return Unprocessable("too_complex", "The model is too complex to be read safely.", f"{problem}.")


def _limit(detail: str) -> Unprocessable:
    return Unprocessable("resource_limit", "The model would need more time or memory than allowed.", detail)
