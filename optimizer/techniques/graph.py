"""ONNX graphs as the techniques see them: read, summed up, and made ready for quantization.

The repairs here are exact: they change how a graph is written, not what it computes.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import count
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.port import ModelSummary
from optimizer.techniques.writing import write
from optimizer.workbench.session import first_line, pass_on

# The first opset whose DequantizeLinear takes one scale per channel.
PER_CHANNEL_OPSET = 13
WEIGHTS_ALONE_IR = 4
BIASED = frozenset(["Conv", "ConvTranspose", "Gemm"])
QUANTIZED = frozenset(
    [
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "ConvInteger",
        "QLinearMatMul",
        "QLinearConv",
        "QGemm",
        "MatMulNBits",
        "QAttention",
        "DynamicQuantizeLSTM",
    ]
)


def read(path: Path) -> Any:
    """The model as an `onnx.ModelProto`, its weights separate from its inputs. Raises Unprocessable("not_onnx")."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf and ONNX have no base class in common
        pass_on(error)
        raise Unprocessable("not_onnx", "This file is not an ONNX model.", first_line(error)) from error
    _separate_weights(model)
    return model


def _separate_weights(model: Any) -> None:
    """Before IR version 4 a weight had to be an input as well; tools no longer write it so, and where it still is one,
    they do not take it for a constant."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in weights:
            del graph.input[index]
    model.ir_version = max(model.ir_version, WEIGHTS_ALONE_IR)


def opset_of(model: Any) -> int:
    return next((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)


def op_types(model: Any) -> dict[str, int]:
    """Nodes by operator, those of subgraphs included."""
    return dict(sorted(Counter(node.op_type for node in nodes_of(model.graph)).items()))


def graphs_of(graph: Any) -> Iterator[Any]:
    """The graph and its subgraphs, the inner ones last."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def nodes_of(graph: Any) -> Iterator[Any]:
    """Those of subgraphs included."""
    for each in graphs_of(graph):
        yield from each.node


def constants_of(graph: Any) -> dict[str, Any]:
    """Tensors by name: initializers and what Constant nodes hold, where some exporters put every weight. Those of
    subgraphs included."""
    found = {tensor.name: tensor for each in graphs_of(graph) for tensor in each.initializer}
    return found | {
        node.output[0]: attribute.t
        for node in nodes_of(graph)
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }


def sort_nodes(graph: Any) -> None:
    """Puts every node behind those that it needs, whether by an input or within a subgraph; subgraphs as well."""
    for each in graphs_of(graph):
        makers = {name: place for place, node in enumerate(each.node) for name in node.output if name}
        needs = {
            place: {makers[name] for name in _reads(node) if name in makers}
            for place, node in enumerate(each.node)
        }
        nodes = list(each.node)
        del each.node[:]
        each.node.extend(nodes[place] for place in TopologicalSorter(needs).static_order())


def _reads(node: Any) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from (name for inner in nodes_of(attribute.g) for name in inner.input)
            yield from (value.name for value in attribute.g.output)


def name_nodes(model: Any) -> None:
    """Gives every node that has none a name of its own, so that it can be told apart."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(
                name
                for name in (f"{node.op_type}_{index}{'_' * more}" for more in count())
                if name not in taken
            )
            taken.add(node.name)


def summary_of(model: Any) -> ModelSummary:
    counts = op_types(model)
    return ModelSummary(
        precision=_precision(model, counts), opset=opset_of(model), op_types=counts, complete=True
    )


def _precision(model: Any, counts: dict[str, int]) -> str:
    """By what most of the weights are stored in."""
    from onnx import TensorProto

    weights = constants_of(model.graph).values()
    if QUANTIZED & counts.keys():
        eighths = {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
        return "fp8" if eighths & {tensor.data_type for tensor in weights} else "int8"
    sizes: Counter[int] = Counter()
    for tensor in weights:
        size = 1
        for dimension in tensor.dims:
            size *= dimension
        sizes[tensor.data_type] += size
    names = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.DOUBLE: "fp64"}
    floats = {kind: sizes[kind] for kind in (*names, TensorProto.FLOAT)}
    return names.get(max(floats, key=lambda kind: floats[kind]), "fp32") if any(floats.values()) else "fp32"


def upgrade_opset(model: Any, *, at_least: int) -> Any:
    """The same model at opset `at_least` or above. Raises Unprocessable("opset_too_old") when it cannot be."""
    import onnx

    if opset_of(model) >= at_least:
        return model
    try:
        return onnx.version_converter.convert_version(model, at_least)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own
        pass_on(error)
        raise Unprocessable(
            "opset_too_old",
            f"Opset {opset_of(model)} cannot be brought to {at_least}, which INT8 weights need.",
            f"{first_line(error).rstrip('.')}. Export the model again with opset {at_least} or newer.",
        ) from error


def flatten_biases(model: Any) -> int:
    """Writes Gemm biases of shape [1, n] as [n]; they broadcast the same. Returns how many.

    ONNX Runtime's quantizer counts a bias's channels on its first axis and fails on [1, n]. The old
    initializer is dropped where nothing else uses it.
    """
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    changed: set[str] = set()
    for node in graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3:
            continue
        bias = tensors.get(node.input[2])
        if bias is None or len(bias.dims) != 2 or bias.dims[0] != 1:
            continue
        name = f"{bias.name}_flat"
        if bias.name not in changed:
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(bias).reshape(-1), name))
            changed.add(bias.name)
        node.input[2] = name
    still_used = {name for node in nodes_of(graph) for name in node.input}
    for name in changed - still_used:
        graph.initializer.remove(tensors[name])
    return len(changed)


def separate_biases(model: Any) -> int:
    """Gives every node a bias of its own. Returns how many were copied.

    ONNX Runtime's quantizer does it by putting a number behind the name, also where another value has that name.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in nodes_of(graph) for name in (*node.input, *node.output)} | tensors.keys()
    used: set[str] = set()
    copied = 0
    for node in graph.node:
        if node.op_type not in BIASED or len(node.input) < 3 or node.input[2] not in tensors:
            continue
        name = node.input[2]
        if name in used:
            node.input[2] = next(
                new for new in (f"{name}_own_{more}" for more in count()) if new not in taken
            )
            taken.add(node.input[2])
            own = graph.initializer.add()
            own.CopyFrom(tensors[name])
            own.name = node.input[2]
            copied += 1
        used.add(name)
    return copied


def sort_file(path: Path) -> None:
    """`sort_nodes` where there are subgraphs: ONNX Runtime's quantizers look at the inputs alone."""
    model = read(path)
    if len(list(graphs_of(model.graph))) > 1:
        sort_nodes(model.graph)
        write(model, path)


def _infer_shapes(source: Path, target: Path) -> str:
    """Folds constants, too. Returns how, in words."""
    from onnxruntime.quantization import quant_pre_process

    try:
        quant_pre_process(str(source), str(target))
    except Exception as error:  # noqa: BLE001  it gives up with a bare Exception on what it does not know
        pass_on(error)
    else:
        return "symbolic shape inference"
    gc.collect()  # what failed holds two copies of the model, in circles; the error is gone here
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return "shape inference without symbols"


def prepare(path: Path, *, scratch: Path, at_least: int) -> tuple[Path, list[str]]:
    """A copy of the model ready to be quantized, and what was done to it, in words.

    Shapes are inferred (symbolically where that works), constants folded, the opset raised, biases written
    flat and one for each node. Cost: a few times the file in memory. Raises Unprocessable("opset_too_old").
    """
    done = []
    source, target = scratch / "raised.onnx", scratch / "prepared.onnx"
    model = read(path)
    before = opset_of(model)
    write(upgrade_opset(model, at_least=at_least), source)
    del model  # what comes next holds up to three of its own
    if before < at_least:
        done.append(f"opset raised from {before} to {at_least}")
    done.append(_infer_shapes(source, target))
    prepared = read(target)
    name_nodes(prepared)
    if flattened := flatten_biases(prepared):
        done.append(f"{flattened} biases written flat")
    if copied := separate_biases(prepared):
        done.append(f"{copied} shared biases copied")
    write(prepared, target)
    return target, done
