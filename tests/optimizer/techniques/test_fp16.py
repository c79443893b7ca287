"""Half precision: what is halved, what is kept, and what it finds on a data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import constants_of, name_nodes, read
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import Made

BEYOND = 2e5
"""Above the largest half, 65504."""


@pytest.fixture
def hot(made: Callable[[str], Made]) -> Made:
    """Its middle layer's values are beyond a half; its answers are not."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    for tensor in proto.graph.initializer:
        factor = {"w0": BEYOND, "b0": BEYOND, "w1": 1 / BEYOND}.get(tensor.name, 1.0)
        scaled = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.save(proto, str(model.path))
    return model


def weights(path: str | Path) -> dict[str, int]:
    return {name: tensor.data_type for name, tensor in constants_of(onnx.load(str(path)).graph).items()}


def furthest(model: Made, done: dict[str, Any]) -> float:
    """The largest difference between the result's answers and its parent's; infinite where there is none."""
    with np.load(model.calibration) as items:
        feed = {key: items[key] for key in items}
    theirs, ours = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for file in (model.path, done["output_path"])
    )
    return float(np.nan_to_num(np.abs(theirs - ours), nan=np.inf).max())


def test_a_file_is_halved_and_its_inputs_and_outputs_keep_their_types(made: Callable[[str], Made]) -> None:
    model = made("magika")
    done = model.optimize("fp16")
    path = Path(done["output_path"])
    assert path.stat().st_size < 0.6 * model.path.stat().st_size
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {value.type for value in session.get_outputs()} == {"tensor(float)"}
    assert done["precision"] == "fp16"


def test_what_half_precision_cannot_hold_stays_in_single(hot: Made) -> None:
    done = hot.optimize("fp16")
    assert set(done["provenance"]["too_large"]) == {"matmul_0", "add_0", "relu_0", "matmul_1"}
    assert all(value > 65504 for value in done["provenance"]["too_large"].values())
    assert furthest(hot, done) < 0.01
    kinds = weights(done["output_path"])
    assert kinds["w1"] == TensorProto.FLOAT
    said = [message["message"] for message in hot.messages if message["kind"] == "log"]
    assert any(line.startswith("In single precision stay “matmul_0”, “add_0”, ") for line in said)


def test_weights_in_constant_nodes_are_halved_as_well(made: Callable[[str], Made]) -> None:
    """As exporters of PaddlePaddle and TensorFlow write them."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer
    ]
    del proto.graph.initializer[:]
    nodes.extend(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, str(model.path))
    done = model.optimize("fp16")
    assert set(weights(done["output_path"]).values()) == {TensorProto.FLOAT16}
    assert furthest(model, done) < 0.01


def test_a_weight_that_the_converter_would_cut_stays_as_it_is(made: Callable[[str], Made]) -> None:
    """A variance of millions: cut, its channel would come out far too large. No set is needed to see it."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    width = onnx.shape_inference.infer_shapes(proto).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    (answer,) = (node for node in proto.graph.node if proto.graph.output[0].name in node.output)
    name = answer.output[0]
    answer.output[0] = "before"
    ones = np.ones(width, np.float32)
    for part, values in (
        ("scale", 1e3 * ones),
        ("shift", 0 * ones),
        ("mean", 0 * ones),
        ("variance", 4e7 * ones),
    ):
        proto.graph.initializer.append(numpy_helper.from_array(values, part))
    parts = ["before", "scale", "shift", "mean", "variance"]
    proto.graph.node.append(helper.make_node("BatchNormalization", parts, [name], name="norm"))
    onnx.save(proto, str(model.path))
    done = model.optimize("fp16", calibration_npz=None)
    assert done["provenance"]["too_large"] == {"norm": pytest.approx(4e7)}
    assert furthest(model, done) < 0.01


def test_what_a_branch_uses_stands_before_it(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    onnx_models.branch_at_the_end(model.path)
    assert furthest(model, model.optimize("fp16")) < 0.01


def test_large_weights_within_a_branch_leave_a_valid_model(made: Callable[[str], Made]) -> None:
    """Its nodes have no names, and the converter's casts for a node that is kept would stand outside."""
    model = made("mlp")
    onnx_models.branch_at_the_end(model.path)
    proto = onnx.load(str(model.path))
    for branch in (attribute.g for attribute in proto.graph.node[-1].attribute):
        large = np.eye(10, dtype=np.float32) * np.float32(3e4)
        branch.initializer.append(numpy_helper.from_array(large, f"large_{branch.name}"))
        (last,) = branch.node
        last.op_type = "MatMul"
        last.input.append(f"large_{branch.name}")
    onnx.save(proto, str(model.path))
    assert model.optimize("fp16", calibration_npz=None)["provenance"]["too_large"] == {}


def test_the_casts_of_the_model_itself_stay(made: Callable[[str], Made]) -> None:
    """From float to integer and back they round."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    round_it = [
        helper.make_node("Cast", ["a0"], ["whole"], to=TensorProto.INT32, name="down"),
        helper.make_node("Cast", ["whole"], ["rounded"], to=TensorProto.FLOAT, name="up"),
    ]
    nodes = list(proto.graph.node)
    at = next(index for index, node in enumerate(nodes) if node.name == "relu_0")
    nodes[at].input[0] = "rounded"
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[:at], *round_it, *nodes[at:]])
    onnx.save(proto, str(model.path))
    for kept in ([], ["add_0", "down", "up"]):
        assert furthest(model, model.optimize("fp16", params={"exclude_nodes": kept})) < 0.01


def test_between_kept_nodes_nothing_is_cast(hot: Made) -> None:
    nodes = onnx.load(hot.optimize("fp16")["output_path"]).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    kept = {node.name: [makers.get(name) for name in node.input] for node in nodes}
    assert kept["relu_0"] == ["Add"]
    assert kept["matmul_1"] == ["Relu", None]


def test_without_a_set_only_weights_are_looked_at(hot: Made) -> None:
    """And then such a model is spoiled, which the evaluation finds: this is what the set is for."""
    done = hot.optimize("fp16", calibration_npz=None)
    assert (set(done["provenance"]["too_large"]), done["provenance"]["ranges"]) == ({"matmul_0"}, None)
    assert furthest(hot, done) > 0.1


def test_headroom_keeps_what_comes_close(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    assert model.optimize("fp16")["provenance"]["too_large"] == {}
    with pytest.raises(Unprocessable, match="No weight"):
        model.optimize("fp16", params={"headroom": 1e6})


def test_items_of_the_evaluation_set_that_were_looked_at_are_named(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    done = model.optimize("fp16", calibration_npz=None, evaluation_npz=str(model.calibration))
    assert len(done["evaluation_items"]) == 16 // 4
    assert done["provenance"]["ranges"]["source"] == "evaluation_set"
    assert model.optimize("fp16")["evaluation_items"] == []


def test_a_node_that_is_excluded_keeps_its_weights(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    kinds = weights(model.optimize("fp16", params={"exclude_nodes": ["matmul_0"]})["output_path"])
    assert (kinds["w0"], kinds["w1"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    with pytest.raises(Unprocessable) as caught:
        model.optimize("fp16", params={"exclude_nodes": ["matmul_7"]})
    assert caught.value.code == "unknown_nodes"


def test_a_model_of_which_nothing_can_be_halved_is_refused(made: Callable[[str], Made]) -> None:
    with pytest.raises(Unprocessable) as caught:
        made("mlp").optimize("fp16", params={"keep_op_types": ["MatMul", "Add"]})
    assert caught.value.code == "nothing_converted"


def test_a_model_without_weights_in_single_precision_is_refused_as_that(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    model.signature = onnx_models.signature([("x", "BOOL", ["batch", 32])], [("y", "BOOL", ["batch", 32])])
    onnx_models.save(
        model.path, nodes=[helper.make_node("Not", ["x"], ["y"])], constants={}, signature=model.signature
    )
    np.savez(model.calibration, x=np.ones((16, 32), dtype=bool))
    with pytest.raises(Unprocessable) as caught:
        model.optimize("fp16")
    assert (caught.value.code, caught.value.detail) == (
        "nothing_converted",
        "It has none in single precision.",
    )


def test_a_value_of_no_elements_has_no_largest_nor_has_one_that_is_gone(
    made: Callable[[str], Made],
) -> None:
    """As Resize has them for what it is not given, and as tools leave them that took a node out."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "b0_whole" if name == "b0" else name
    empty = numpy_helper.from_array(np.zeros(0, dtype=np.float32))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["empty"], value=empty))
    proto.graph.node.insert(1, helper.make_node("Concat", ["b0", "empty"], ["b0_whole"], axis=0))
    proto.graph.value_info.append(helper.make_tensor_value_info("gone", TensorProto.FLOAT, [4]))
    onnx.save(proto, str(model.path))
    assert furthest(model, model.optimize("fp16")) < 0.01


def test_nodes_without_a_name_get_one_of_their_own(tmp_path: Path) -> None:
    onnx_models.embedding(tmp_path / "embedding.onnx")
    model = read(tmp_path / "embedding.onnx")
    model.graph.node[-1].name = "Cast_0"
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert names[0] == "Cast_0_"
    assert len(set(names)) == len(names)
    assert all(names)
