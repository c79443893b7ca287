"""Small models made on the spot, and the real one that a package ships."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DTYPES = {
    "BOOL": TensorProto.BOOL,
    "FP32": TensorProto.FLOAT,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
}

MAGIKA_SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "bytes", "dtype": "INT32", "shape": ["unk__214", 2048]}],
    "outputs": [{"name": "target_label", "dtype": "FP32", "shape": ["unk__215", 214]}],
    "batch_axis": 0,
}


def magika_path() -> Path:
    import magika

    return Path(magika.__file__).parent / "models/standard_v3_3/model.onnx"


def signature(
    inputs: Sequence[tuple[str, str, list[Any]]], outputs: Sequence[tuple[str, str, list[Any]]]
) -> dict[str, Any]:
    def specs(rows: Sequence[tuple[str, str, list[Any]]]) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in rows]

    batched = all(isinstance(shape[0], str) for _, _, shape in inputs)
    return {"inputs": specs(inputs), "outputs": specs(outputs), "batch_axis": 0 if batched else None}


def save(
    path: Path,
    *,
    nodes: Sequence[Any],
    constants: Mapping[str, np.ndarray[Any, Any]],
    signature: Mapping[str, Any],
    opset: int = 17,
) -> Path:
    def values(specs: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(spec["name"], DTYPES[spec["dtype"]], spec["shape"])
            for spec in specs
        ]

    graph = helper.make_graph(
        list(nodes),
        "made-for-a-test",
        values(signature["inputs"]),
        values(signature["outputs"]),
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def mlp(
    path: Path, *, widths: Sequence[int] = (32, 64, 10), opset: int = 17, seed: int = 0
) -> dict[str, Any]:
    """A classifier of MatMul, Add and Relu that ends in Softmax. Returns its signature."""
    rng = np.random.default_rng(seed)
    nodes, constants, value = [], {}, "x"
    for index, (before, after) in enumerate(pairwise(widths)):
        constants[f"w{index}"] = (rng.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32)
        constants[f"b{index}"] = rng.standard_normal(after).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [f"m{index}"], name=f"matmul_{index}"))
        nodes.append(helper.make_node("Add", [f"m{index}", f"b{index}"], [f"a{index}"], name=f"add_{index}"))
        nodes.append(helper.make_node("Relu", [f"a{index}"], [f"r{index}"], name=f"relu_{index}"))
        value = f"r{index}"
    nodes[-1] = helper.make_node("Softmax", [nodes[-2].output[0]], ["y"], name="softmax", axis=1)
    made = signature([("x", "FP32", ["batch", widths[0]])], [("y", "FP32", ["batch", widths[-1]])])
    save(path, nodes=nodes, constants=constants, signature=made, opset=opset)
    return made


def cnn(path: Path, *, size: int = 12, channels: int = 8, opset: int = 17, seed: int = 0) -> dict[str, Any]:
    """Two convolutions, a pool and a Gemm whose bias has shape [1, n]."""
    rng = np.random.default_rng(seed)
    constants: dict[str, np.ndarray[Any, Any]] = {
        "k0": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32) / 5,
        "k1": rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 8,
        "w": rng.standard_normal((channels, 5)).astype(np.float32),
        "b": rng.standard_normal((1, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k0"], ["c0"], name="conv_0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu_0"),
        helper.make_node("Conv", ["r0", "k1"], ["c1"], name="conv_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu_1"),
        helper.make_node("GlobalAveragePool", ["r1"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["scores"], name="head"),
    ]
    made = signature([("image", "FP32", ["n", 3, size, size])], [("scores", "FP32", ["n", 5])])
    save(path, nodes=nodes, constants=constants, signature=made, opset=opset)
    return made


def scaled(path: Path, *, factor: float = 2.0, name: str = "x") -> dict[str, Any]:
    """`y = factor * x`: nothing in it can be quantized."""
    made = signature([(name, "FP32", ["batch", 4])], [("y", "FP32", ["batch", 4])])
    save(
        path,
        nodes=[helper.make_node("Mul", [name, "factor"], ["y"], name="mul")],
        constants={"factor": np.array(factor, dtype=np.float32)},
        signature=made,
    )
    return made


def weights_as_inputs(path: Path) -> None:
    """Writes the model as those of 2018 are, which had to name every weight as an input too."""
    model = onnx.load(str(path))
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def branch_at_the_end(path: Path) -> None:
    """Lets the model end in an If that answers as before; what its branches use is no input of it."""
    model = onnx.load(str(path))
    graph = model.graph
    name = graph.output[0].name
    (last,) = (node for node in graph.node if name in node.output)
    last.output[0] = "before"
    branches = {
        f"{which}_branch": helper.make_graph(
            [helper.make_node(op, ["before"], [which])],
            which,
            [],
            [helper.make_tensor_value_info(which, TensorProto.FLOAT, None)],
        )
        for which, op in (("then", "Identity"), ("else", "Neg"))
    }
    graph.initializer.append(numpy_helper.from_array(np.array(0), "none"))
    graph.node.append(helper.make_node("Size", [graph.input[0].name], ["size"], name="size"))
    graph.node.append(helper.make_node("Greater", ["size", "none"], ["which"], name="which"))
    graph.node.append(helper.make_node("If", ["which"], [name], name="if", **branches))
    onnx.save(model, str(path))


def normalized(path: Path, *, centred: bool, opset: int, width: int = 16) -> dict[str, Any]:
    """A layer (or, not `centred`, root mean square) normalization spelled out, as exporters of old opsets do."""
    made = signature([("x", "FP32", ["batch", width])], [("y", "FP32", ["batch", width])])
    spread = "off" if centred else "x"
    centring = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["off"]),
    ]
    nodes = [
        *(centring if centred else []),
        helper.make_node("Pow", [spread, "two"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["deviation"]),
        helper.make_node("Div", [spread, "deviation"], ["unit"]),
        helper.make_node("Mul", ["unit", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["y"]),
    ]
    constants = {
        "two": np.float32(2),
        "least": np.float32(1e-5),
        "scale": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
    }
    save(
        path,
        nodes=nodes,
        constants={key: np.asarray(value) for key, value in constants.items()},
        signature=made,
        opset=opset,
    )
    return made


def embedding(path: Path, *, vocabulary: int = 50) -> dict[str, Any]:
    """Token ids through a Cast into a Gather, beside a mask that is only multiplied."""
    rng = np.random.default_rng(0)
    made = signature(
        [("ids", "INT32", ["batch", "length"]), ("mask", "INT64", ["batch", "length"])],
        [("y", "FP32", ["batch", 6])],
    )
    save(
        path,
        nodes=[
            helper.make_node("Cast", ["ids"], ["long"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "long"], ["rows"], axis=0),
            helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "middle"], ["y"], keepdims=0),
        ],
        constants={
            "table": rng.standard_normal((vocabulary, 6)).astype(np.float32),
            "last": np.array([2], dtype=np.int64),
            "middle": np.array([1], dtype=np.int64),
        },
        signature=made,
    )
    return made


def calibration(path: Path, signature: Mapping[str, Any], *, items: int = 16, seed: int = 0) -> Path:
    """A set of random floats for the inputs of a signature."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        spec["name"]: rng.standard_normal((items, *spec["shape"][1:])).astype(np.float32)
        for spec in signature["inputs"]
    }
    np.savez(path, **arrays)
    return path
