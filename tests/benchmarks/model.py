"""The model that the serving benchmarks run, and one request for it: an MLP of 5.5 M parameters, a millisecond."""

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

INPUT, HIDDEN, LAYERS, OUTPUT = 256, 1600, 3, 10
SEED = 20261124


@dataclass(frozen=True, kw_only=True)
class Made:
    path: Path
    sha256: str
    signature: dict[str, Any]


def mlp(folder: Path) -> Made:
    """x FP32 [batch, 256] to y FP32 [batch, 10]."""
    rng = np.random.default_rng(SEED)
    nodes, weights = [], []
    sizes = [INPUT, *[HIDDEN] * LAYERS, OUTPUT]
    source = "x"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        last = layer == LAYERS
        matrix = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(rows))
        weights += [
            numpy_helper.from_array(matrix, f"w{layer}"),
            numpy_helper.from_array(np.zeros(columns, dtype=np.float32), f"b{layer}"),
        ]
        made = "y" if last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [source, f"w{layer}", f"b{layer}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"r{layer}"]))
        source = f"r{layer}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", INPUT), ("y", OUTPUT))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content = model.SerializeToString()
    path = folder / "mlp.onnx"
    path.write_bytes(content)
    signature = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", INPUT]}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", OUTPUT]}],
        "batch_axis": 0,
    }
    return Made(path=path, sha256=hashlib.sha256(content).hexdigest(), signature=signature)


def request(rows: int = 1) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one inference with tensors in binary, which costs the generator next to nothing."""
    tensor = np.random.default_rng(SEED).standard_normal((rows, INPUT), dtype=np.float32).tobytes()
    wanted = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, INPUT],
        "parameters": {"binary_data_size": len(tensor)},
    }
    head = json.dumps({"inputs": [wanted], "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return head + tensor, headers
