"""Good models and hostile ones, made here so that the repository holds no binary of anybody."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(*, batch: int | str | None = "batch", weights: np.ndarray | None = None) -> onnx.ModelProto:
    """Two inputs' worth of weights: x (batch, 4) -> y (batch, 3)."""
    w = np.arange(12, dtype=np.float32).reshape(4, 3) if weights is None else weights
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, w.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, w.shape[1]])],
        [numpy_helper.from_array(w, "w")],
    )
    return model(graph)


def model(
    graph: onnx.GraphProto, *, opset: int = 18, functions: Sequence[Any] = (), **more: Any
) -> onnx.ModelProto:
    imports = [
        helper.make_opsetid("", opset),
        *[helper.make_opsetid(name, 1) for name in more.pop("domains", ())],
    ]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=list(functions), producer_name="tests", **more
    )


def graph_of(
    nodes: Sequence[Any],
    *,
    inputs: Mapping[str, Sequence[int | str | None]] | None = None,
    output: str = "y",
    initializers: Sequence[Any] = (),
    output_type: int = TensorProto.FLOAT,
    output_shape: Sequence[int | str | None] = ("batch", None),
) -> onnx.GraphProto:
    ports = {"x": ["batch", 4]} if inputs is None else inputs
    return helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()],
        [helper.make_tensor_value_info(output, output_type, output_shape)],
        list(initializers),
    )


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def constant_of_shape(*shape: int) -> bytes:
    """The measured 75 bytes: computes gigabytes when it runs."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("ReduceSum", ["c"], ["r"])]
    nodes.append(helper.make_node("Add", ["x", "r"], ["y"]))
    return model(graph_of(nodes, initializers=[ints("s", *shape)])).SerializeToString()


def constant_node_of_shape(*shape: int) -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["s"], value=ints("s", *shape)),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return model(graph_of(nodes)).SerializeToString()


def hidden_constant_of_shape() -> bytes:
    """Its shape is computed, so only running it tells."""
    nodes = [
        helper.make_node("Mul", ["a", "a"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return model(graph_of(nodes, initializers=[ints("a", 60_000, 60_000)])).SerializeToString()


def expand() -> bytes:
    nodes = [helper.make_node("Expand", ["x", "s"], ["y"])]
    return model(
        graph_of(nodes, output_shape=[None] * 3, initializers=[ints("s", 65536, 65536, 1)])
    ).SerializeToString()


def tile() -> bytes:
    nodes = [helper.make_node("Tile", ["x", "s"], ["y"])]
    return model(graph_of(nodes, initializers=[ints("s", 2**20, 2**20)])).SerializeToString()


def range_() -> bytes:
    bounds = [
        numpy_helper.from_array(np.array(v, dtype=np.int64), n) for n, v in (("a", 0), ("b", 2**40), ("d", 1))
    ]
    nodes = [
        helper.make_node("Range", ["a", "b", "d"], ["r"]),
        helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    return model(graph_of(nodes, initializers=bounds)).SerializeToString()


def eye_like() -> bytes:
    nodes = [helper.make_node("EyeLike", ["x"], ["y"])]
    return model(graph_of(nodes, inputs={"x": [65537, 65536]})).SerializeToString()


def sparse(rows: int, columns: int) -> bytes:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("w_i", TensorProto.INT64, [1], [0])
    graph = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [rows, columns]))
    return model(graph).SerializeToString()


def depth_to_space(block: int) -> bytes:
    nodes = [helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=block)]
    ports: dict[str, Any] = {"inputs": {"x": ["batch", 4, 2, 2]}, "output_shape": ["batch", None, None, None]}
    return model(graph_of(nodes, **ports)).SerializeToString()


def loop(*, trips: int | None, ends: bool = False) -> bytes:
    body = helper.make_graph(
        [
            helper.make_node("Less" if ends else "Identity", ["v", "m"] if ends else ["c"], ["c_out"]),
            helper.make_node("Add", ["v", "one"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, []),
        ],
    )
    scalars = [
        numpy_helper.from_array(np.array(True), "t"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        numpy_helper.from_array(np.array(1, dtype=np.float32), "one"),
        numpy_helper.from_array(np.array(3, dtype=np.float32), "m"),
    ]
    if trips is not None:
        scalars.append(numpy_helper.from_array(np.array(trips, dtype=np.int64), "n"))
    nodes = [
        helper.make_node("Loop", ["n" if trips is not None else "", "t", "zero"], ["r"], body=body),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return model(graph_of(nodes, initializers=scalars)).SerializeToString()


def hidden_loop() -> bytes:
    """Its trip count is computed, so only running it tells."""
    proto = onnx.load_from_string(loop(trips=2**31))
    proto.graph.node[0].input[0] = "nn"
    proto.graph.node.insert(0, helper.make_node("Mul", ["n", "n"], ["nn"]))
    return proto.SerializeToString()


def functions_doubling(depth: int) -> bytes:
    """Each calls the one below twice: 2 ** depth nodes in a few kilobytes."""
    functions = []
    for level in range(depth):
        inner = ("Relu", "") if level == 0 else (f"f{level - 1}", "own")
        nodes = [
            helper.make_node(inner[0], ["a"], ["t"], domain=inner[1]),
            helper.make_node(inner[0], ["t"], ["b"], domain=inner[1]),
        ]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], nodes, imports))
    nodes = [helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")]
    return model(graph_of(nodes), functions=functions, domains=["own"]).SerializeToString()


def function_chain(depth: int, *, cyclic: bool = False) -> bytes:
    functions = []
    for level in range(depth):
        below = level - 1 if level else depth - 1
        inner = (f"f{below}", "own") if level or cyclic else ("Relu", "")
        nodes = [helper.make_node(inner[0], ["a"], ["b"], domain=inner[1])]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], nodes, imports))
    nodes = [helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")]
    return model(graph_of(nodes), functions=functions, domains=["own"]).SerializeToString()


def nested_graphs(depth: int) -> bytes:
    def branch(level: int) -> onnx.GraphProto:
        if level == 0:
            nodes = [helper.make_node("Identity", ["x"], ["o"])]
        else:
            inner = branch(level - 1)
            nodes = [helper.make_node("If", ["t"], ["o"], then_branch=inner, else_branch=branch(0))]
        return helper.make_graph(
            nodes, "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, [None, None])]
        )

    nodes = [helper.make_node("If", ["t"], ["y"], then_branch=branch(depth), else_branch=branch(0))]
    condition = numpy_helper.from_array(np.array(True), "t")
    return model(graph_of(nodes, initializers=[condition])).SerializeToString()


def with_weight(**fields: Any) -> bytes:
    """The MLP with its weight tensor changed, field by field."""
    proto = mlp()
    weight = proto.graph.initializer[0]
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(weight, name)[:]
            getattr(weight, name).extend(value)
        elif value is None:
            weight.ClearField(name)
        else:
            setattr(weight, name, value)
    return proto.SerializeToString()


def external(**entries: str) -> onnx.ModelProto:
    """The MLP whose weight is elsewhere."""
    proto = mlp()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return proto


WEIGHT_BYTES = np.arange(12, dtype=np.float32).tobytes()


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def zipped_infos(*members: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)
    return buffer.getvalue()


def zip_member(name: str, *, mode: int = 0, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.compress_type = method
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def overlapping_zip() -> bytes:
    """Two entries of the table point to the same bytes."""
    data = bytearray(zipped({"a.onnx": b"a" * 50, "b.onnx": b"b" * 50}, method=zipfile.ZIP_STORED))
    second = data.rfind(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(data)


def patched_zip(members: Mapping[str, bytes], *, offset: int, value: bytes) -> bytes:
    """A zip whose first entry in the table of members says something else."""
    data = bytearray(zipped(members))
    entry = data.find(b"PK\x01\x02")
    data[entry + offset : entry + offset + len(value)] = value
    return bytes(data)


def npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", *, version: int = 1) -> bytes:
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


class Payload:
    """Would call print if anything unpickled it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def pickled(protocol: int) -> bytes:
    return pickle.dumps(Payload(), protocol=protocol)


def write(folder: Path, body: bytes, name: str = "upload") -> Path:
    path = folder / name
    path.write_bytes(body)
    return path
