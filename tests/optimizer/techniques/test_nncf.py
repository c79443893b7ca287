"""Static INT8 by NNCF, in the environment that holds it: symmetric and signed, which is what TensorRT takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import MIB, Child, Limits
from optimizer.techniques.child import run
from optimizer.techniques.graph import read
from tests import toolchains
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import SEED, Made


def test_a_model_whose_factors_are_inputs_is_refused(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    ports = [("a", "FP32", ["batch", 4, 4]), ("b", "FP32", ["batch", 4, 4])]
    model.signature = onnx_models.signature(ports, [("y", "FP32", ["batch", 4, 4])])
    product = helper.make_node("MatMul", ["a", "b"], ["y"])
    onnx_models.save(model.path, nodes=[product], constants={}, signature=model.signature)
    onnx_models.calibration(model.calibration, model.signature)
    with pytest.raises(Unprocessable) as caught:
        model.child(run, model.spec("int8-static", params={"tool": "nncf"}), toolchain="openvino")
    assert caught.value.code == "nothing_quantized"


def test_every_zero_point_is_a_signed_zero(made: Callable[[str], Made], tmp_path: Path) -> None:
    model = made("mlp")
    spec = {
        "technique": "int8-static",
        "params": {"tool": "nncf", "calibration_items": 8},
        "input_path": str(model.path),
        "output_path": str(tmp_path / "made.onnx"),
        "calibration_npz": str(model.calibration),
        "evaluation_npz": None,
        "signature": model.signature,
        "seed": SEED,
    }
    with Child.start(
        entry="optimizer.techniques.child:run",
        spec=spec,
        scratch=tmp_path,
        limits=Limits(memory_bytes=4096 * MIB, cpu_s=120, wall_s=240, file_bytes=64 * MIB, processes=256),
        python=toolchains.interpreter("openvino"),
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome.detail
    provenance = outcome.result["provenance"]
    assert {"nncf", "openvino"} <= provenance["versions"].keys()
    graph = read(tmp_path / "made.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    points = [
        constants[node.input[2]]
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert {(point.dtype, int(np.abs(point).max())) for point in points} == {(np.dtype(np.int8), 0)}
