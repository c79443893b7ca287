"""INT8 on real graphs: what is repaired, what is calibrated on, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import flatten_biases, op_types, read, summary_of
from optimizer.workbench.items import digest
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import Made

INT8 = ["int8-dynamic", "int8-static"]


def refused(model: Made, technique: str, **changes: Any) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        model.optimize(technique, **changes)
    assert not list((model.folder / "out").iterdir())
    return caught.value


def answers(model: Any, feed: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


@pytest.mark.parametrize("technique", INT8)
@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_opset_is_raised_to_what_per_channel_weights_need(
    technique: str, opset: int, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    onnx_models.mlp(model.path, opset=opset)
    done = model.optimize(technique)
    assert f"opset raised from {opset} to 13" in done["provenance"]["preparation"]


def test_an_opset_that_cannot_be_raised_is_refused_with_what_to_do(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(model: Any, version: int) -> Any:
        raise RuntimeError("No Adapter From Version 16 for Identity\nat line 3")

    model = made("mlp")
    onnx_models.mlp(model.path, opset=12)
    monkeypatch.setattr(onnx.version_converter, "convert_version", convert)
    error = refused(model, "int8-dynamic")
    assert error.code == "opset_too_old"
    assert (
        error.detail
        == "No Adapter From Version 16 for Identity. Export the model again with opset 13 or newer."
    )


def test_a_bias_written_flat_changes_no_answer(tmp_path: Path) -> None:
    onnx_models.cnn(tmp_path / "cnn.onnx")
    model = read(tmp_path / "cnn.onnx")
    feed = {"image": np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)}
    before = answers(model, feed)
    assert flatten_biases(model) == 1
    assert [list(tensor.dims) for tensor in model.graph.initializer if tensor.name == "b_flat"] == [[5]]
    assert "b" not in {tensor.name for tensor in model.graph.initializer}
    np.testing.assert_array_equal(answers(model, feed), before)
    assert flatten_biases(model) == 0


def test_a_bias_that_others_use_too_stays_for_them(tmp_path: Path) -> None:
    onnx_models.cnn(tmp_path / "cnn.onnx")
    model = read(tmp_path / "cnn.onnx")
    model.graph.node[-1].output[0] = "head_out"
    model.graph.node.append(helper.make_node("Add", ["head_out", "b"], ["scores"]))
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    before = answers(model, feed)
    flatten_biases(model)
    np.testing.assert_array_equal(answers(model, feed), before)


def test_a_bias_that_two_nodes_share_is_not_taken_for_another_value(made: Callable[[str], Made]) -> None:
    """ONNX Runtime's quantizer calls its copy of `shift` `shift0`, which here is what a node gives."""
    model = made("cnn")
    proto = onnx.load(str(model.path))
    channels = next(tensor for tensor in proto.graph.initializer if tensor.name == "k0").dims[0]
    proto.graph.initializer.append(numpy_helper.from_array(np.full(channels, 0.25, np.float32), "shift"))
    first, relu, second, *_ = proto.graph.node
    for node in (first, second):
        node.input.append("shift")
    relu.output[0] = second.input[0] = "shift0"
    onnx.save(proto, str(model.path))
    done = model.optimize("int8-static")
    with np.load(model.calibration) as items:
        feed = {key: items[key] for key in items}
    theirs, ours = answers(proto, feed), answers(onnx.load(done["output_path"]), feed)
    assert np.abs(theirs - ours).max() < 0.1 * np.abs(theirs).max()
    assert "1 shared biases copied" in done["provenance"]["preparation"]


@pytest.mark.parametrize("technique", INT8)
def test_what_a_branch_uses_stands_before_it(technique: str, made: Callable[[str], Made]) -> None:
    model = made("mlp")
    onnx_models.branch_at_the_end(model.path)
    assert model.optimize(technique)["precision"] == "int8"


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_each_way_to_calibrate_gives_a_model_that_opens(method: str, made: Callable[[str], Made]) -> None:
    model = made("cnn")
    done = model.optimize("int8-static", params={"calibration": method})
    used = done["provenance"]["calibration"]
    assert used == {
        "source": "calibration_set",
        "sha256": digest(model.calibration),
        "method": method,
        "items": 16,
    }
    assert [message for message in model.messages if message["kind"] == "progress"][-1] == {
        "kind": "progress",
        "done": 16,
        "total": 16,
    }


def test_items_are_taken_from_the_evaluation_set_when_there_is_no_other(made: Callable[[str], Made]) -> None:
    model = made("cnn")
    done = model.optimize("int8-static", calibration_npz=None, evaluation_npz=str(model.calibration))
    calibration = done["provenance"]["calibration"]
    assert (calibration["source"], calibration["items"]) == ("evaluation_set", 4), "a quarter of it"
    assert len(set(done["evaluation_items"])) == 4
    assert set(done["evaluation_items"]) <= set(range(16))


def test_a_set_of_its_own_leaves_the_evaluation_set_alone(made: Callable[[str], Made]) -> None:
    assert made("cnn").optimize("int8-static")["evaluation_items"] == []


def test_a_pure_conv_net_is_quantized_throughout_and_anything_else_only_where_weights_are(
    made: Callable[[str], Made],
) -> None:
    assert made("cnn").optimize("int8-static")["provenance"]["scope"] == "all"
    assert made("mlp").optimize("int8-static")["provenance"]["scope"] == "weights"


def test_excluded_nodes_stay_in_floating_point(made: Callable[[str], Made]) -> None:
    model = made("cnn")
    whole = model.optimize("int8-static", params={"scope": "weights"})
    part = model.optimize("int8-static", params={"scope": "weights", "exclude_nodes": ["conv_0", "conv_1"]})
    quantized = [done["provenance"]["quantized_nodes"]["DequantizeLinear"] for done in (whole, part)]
    assert 0 < quantized[1] < quantized[0]


@pytest.mark.parametrize("technique", INT8)
def test_excluding_what_is_not_there_or_everything_there_is_is_refused(
    technique: str, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    assert refused(model, technique, params={"exclude_nodes": ["no_such_node"]}).code == "unknown_nodes"
    names = [f"matmul_{index}" for index in range(2)]
    prepared = [name for name in (node.name for node in read(model.path).graph.node) if name in names]
    everything = {"exclude_nodes": prepared, **({"scope": "weights"} if technique == "int8-static" else {})}
    assert refused(model, technique, params=everything).code in {"nothing_quantized", "unknown_nodes"}


@pytest.mark.parametrize("technique", INT8)
def test_a_graph_without_weights_to_quantize_is_refused(technique: str, made: Callable[[str], Made]) -> None:
    model = made("mlp")
    model.signature = onnx_models.scaled(model.path)
    assert refused(model, technique).code == "nothing_to_quantize"


@pytest.mark.parametrize("technique", INT8)
@pytest.mark.parametrize("before", INT8)
def test_a_quantized_model_is_not_quantized_again(
    technique: str, before: str, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    model.path = Path(model.optimize(before)["output_path"]).rename(model.folder / "quantized.onnx")
    assert refused(model, technique).code == "already_quantized"


def test_without_items_the_child_refuses_as_well(made: Callable[[str], Made]) -> None:
    assert refused(made("mlp"), "int8-static", calibration_npz=None).code == "calibration_missing"


def test_a_calibration_set_with_nan_is_refused_with_how_many(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    items = np.zeros((16, 32), dtype=np.float32)
    items[3, :5] = np.nan
    np.savez(model.calibration, x=items)
    error = refused(model, "int8-static")
    assert error.code == "dataset_not_finite"
    assert "5 of 512" in error.detail


def test_a_summary_says_precision_opset_and_operators(tmp_path: Path, made: Callable[[str], Made]) -> None:
    summary = summary_of(read(onnx_models.magika_path()))
    assert (summary.precision, summary.opset, summary.op_types["MatMul"]) == ("fp32", 15, 2)
    done = made("mlp").optimize("int8-static")
    assert summary_of(read(Path(done["output_path"]))).precision == "int8"


def test_operators_of_subgraphs_are_counted(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"])], "then", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = onnx.ModelProto(graph=helper.make_graph([node], "outer", [], []))
    assert op_types(model) == {"If": 1, "Neg": 2}
