"""Tiny ONNX models whose behavior a test can steer, each with its signature."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model file and what its signature says."""

    path: Path
    signature: dict[str, Any]


def tensor(name: str, dtype: str, shape: list[int | str]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape}


def _info(spec: dict[str, Any]) -> Any:
    return helper.make_tensor_value_info(spec["name"], ONNX_TYPES[spec["dtype"]], spec["shape"])


def _made(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *, batch_axis: int | None = 0,
    initializers: tuple[Any, ...] = (),
) -> Made:  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [_info(one) for one in inputs], [_info(one) for one in outputs], list(initializers)
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save_model(model, str(path))
    return Made(path=path, signature={"inputs": inputs, "outputs": outputs, "batch_axis": batch_axis})


def mlp(path: Path, *, width: int = 16, classes: int = 4) -> Made:
    """x FP32 [batch, width] to y FP32 [batch, classes]."""
    rng = np.random.default_rng(7)
    first = rng.standard_normal((width, 32)).astype(np.float32)
    second = rng.standard_normal((32, classes)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    weights = (numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2"))
    inputs, outputs = [tensor("x", "FP32", ["batch", width])], [tensor("y", "FP32", ["batch", classes])]
    return _made(path, nodes, inputs, outputs, initializers=weights)


def _loop(trips: str, *, result: str) -> Any:
    """Counts to `trips`, an input or initializer; about a microsecond or less a step."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["so_far", "one"], ["further"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so_far", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("further", TensorProto.INT64, []),
        ],
    )
    return helper.make_node("Loop", [trips, "always", "zero"], [result], body=body)


_LOOP_CONSTANTS = (
    numpy_helper.from_array(np.array(True), "always"),
    numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
    numpy_helper.from_array(np.array(1, dtype=np.int64), "one"),
)


def counter(path: Path) -> Made:
    """n INT64 [batch] to y = n, after max(n) steps: the request says how long it takes."""
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["most"], keepdims=0),
        _loop("most", result="counted"),
        helper.make_node("Sub", ["n", "most"], ["less"]),
        helper.make_node("Add", ["less", "counted"], ["y"]),
    ]
    inputs, outputs = [tensor("n", "INT64", ["batch"])], [tensor("y", "INT64", ["batch"])]
    return _made(path, nodes, inputs, outputs, initializers=_LOOP_CONSTANTS)


def slow_starter(path: Path, *, steps: int) -> Made:
    """x INT64 [batch] to y = x + steps, after that many steps whatever x is: warming up takes a while."""
    nodes = [_loop("steps", result="counted"), helper.make_node("Add", ["x", "counted"], ["y"])]
    constants = (*_LOOP_CONSTANTS, numpy_helper.from_array(np.array(steps, dtype=np.int64), "steps"))
    inputs, outputs = [tensor("x", "INT64", ["batch"])], [tensor("y", "INT64", ["batch"])]
    return _made(path, nodes, inputs, outputs, initializers=constants)


def table(path: Path) -> Made:
    """i INT64 [batch] to y = 10 * i for i below 4; any other index fails inside the runtime."""
    values = numpy_helper.from_array(np.array([0, 10, 20, 30], dtype=np.float32), "values")
    nodes = [helper.make_node("Gather", ["values", "i"], ["y"])]
    inputs, outputs = [tensor("i", "INT64", ["batch"])], [tensor("y", "FP32", ["batch"])]
    return _made(path, nodes, inputs, outputs, initializers=(values,))


def zeros_sum(path: Path) -> Made:
    """n INT64 [1] to y FP32 [], the sum of n zeros: the request says how much memory it takes."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0),
    ]
    return _made(path, nodes, [tensor("n", "INT64", [1])], [tensor("y", "FP32", [])], batch_axis=None)


def row_sum(path: Path) -> Made:
    """x FP32 [batch, length] to y FP32 [batch]: requests may differ in their trailing shape."""
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    inputs, outputs = [tensor("x", "FP32", ["batch", "length"])], [tensor("y", "FP32", ["batch"])]
    return _made(path, nodes, inputs, outputs, initializers=(axes,))


def whole_sum(path: Path) -> Made:
    """x FP32 [batch, 3] to y FP32 [1]: declared as batched, and it is not."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Reshape", ["s", "one"], ["y"]),
    ]
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    inputs, outputs = [tensor("x", "FP32", ["batch", 3])], [tensor("y", "FP32", ["batch"])]
    return _made(path, nodes, inputs, outputs, initializers=(one,))


def fixed(path: Path) -> Made:
    """x FP32 [4] to y = 2 x: no batch axis."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return _made(path, nodes, [tensor("x", "FP32", [4])], [tensor("y", "FP32", [4])], batch_axis=None)


def every_dtype(path: Path) -> Made:
    """One input of each dtype, [batch, 2], and the same values as outputs."""
    inputs = [tensor(f"in_{dtype}", dtype, ["batch", 2]) for dtype in ONNX_TYPES]
    outputs = [tensor(f"out_{dtype}", dtype, ["batch", 2]) for dtype in ONNX_TYPES]
    nodes = [helper.make_node("Identity", [f"in_{dtype}"], [f"out_{dtype}"]) for dtype in ONNX_TYPES]
    return _made(path, nodes, inputs, outputs)
