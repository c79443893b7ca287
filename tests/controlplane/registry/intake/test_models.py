"""Models that are accepted, and what is read from them."""

import importlib.resources
import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.controlplane.registry.intake import models
from tests.controlplane.registry.intake.models import WEIGHT_BYTES, external, mlp, zipped


def test_signature_and_summary_of_a_small_model(look):
    found = look(mlp().SerializeToString())
    assert found["signature"] == {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", 3]}],
        "batch_axis": 0,
    }
    summary = found["summary"]
    assert summary["opset"] == {"ai.onnx": 18}
    assert (summary["nodes"], summary["parameters"], summary["parameter_bytes"]) == (2, 12, {"FP32": 48})
    assert summary["operators"] == [["MatMul", 1], ["Relu", 1]]
    assert (summary["producer"], summary["precision"], summary["findings"]) == ("tests", "fp32", [])
    assert summary["run"]["size"] == 1
    assert summary["peak_memory_bytes"] > 10_000_000
    assert not found["repacked"]


def test_free_dimensions_without_a_name_get_one_each(look):
    found = look(mlp(batch=None).SerializeToString())["signature"]
    assert [port["shape"] for port in (*found["inputs"], *found["outputs"])] == [["?0", 4], ["?1", 3]]
    assert found["batch_axis"] == 0


def test_a_fixed_first_dimension_is_no_batch_axis(look):
    found = look(mlp(batch=1).SerializeToString())["signature"]
    assert found["inputs"][0]["shape"] == [1, 4]
    assert found["batch_axis"] is None


def test_a_free_first_dimension_that_does_not_carry_items_is_no_batch_axis(look):
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)]
    found = look(models.model(models.graph_of(nodes, output_shape=[1, 1])).SerializeToString())
    assert found["signature"]["batch_axis"] is None
    assert "batch of 2" in found["summary"]["findings"][0]


def test_weights_that_are_also_inputs_are_not_in_the_signature(look):
    proto = mlp()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    assert [port["name"] for port in look(proto.SerializeToString())["signature"]["inputs"]] == ["x"]


def test_a_model_that_needs_more_than_one_in_its_free_dimensions_is_tried_with_more(look):
    kernel = helper.make_tensor("k", TensorProto.FLOAT, [1, 1, 7, 7], [1.0] * 49)
    nodes = [helper.make_node("Conv", ["x", "k"], ["y"])]
    graph = models.graph_of(
        nodes, inputs={"x": ["n", 1, "h", "w"]}, initializers=[kernel], output_shape=["n", 1, None, None]
    )
    found = look(models.model(graph).SerializeToString())
    assert found["summary"]["run"]["size"] == 8
    assert found["signature"]["batch_axis"] == 0


def test_local_functions_of_an_own_domain_are_accepted(look):
    assert look(models.function_chain(3))["summary"]["functions"] == 3


def test_a_loop_that_ends_by_its_condition_is_accepted_whatever_its_trip_count(look):
    assert look(models.loop(trips=2**62, ends=True))["summary"]["run"]["size"] == 1


def test_graphs_may_be_nested(look):
    assert look(models.nested_graphs(5))["summary"]["nodes"] == 13


def test_text_and_bool_inputs_are_served(look):
    graph = models.graph_of(
        [helper.make_node("Identity", ["t"], ["y"])], output_type=TensorProto.STRING, output_shape=["n"]
    )
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("t", TensorProto.STRING, ["n"]))
    found = look(models.model(graph).SerializeToString())["signature"]
    assert found["inputs"] == [{"name": "t", "dtype": "BYTES", "shape": ["n"]}]


@pytest.mark.skipif(importlib.util.find_spec("magika") is None, reason="magika is not installed")
def test_the_pretrained_classifier_of_the_demo_is_accepted(look):
    file = importlib.resources.files("magika") / "models" / "standard_v3_3" / "model.onnx"
    found = look(Path(str(file)).read_bytes())
    assert found["signature"]["inputs"][0]["dtype"] == "INT32"
    assert found["signature"]["inputs"][0]["shape"][1:] == [2048]
    assert found["signature"]["batch_axis"] == 0
    assert found["summary"]["parameters"] > 700_000


@pytest.mark.parametrize("folder", ["", "bundle/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_external_data_becomes_one_file_that_refers_to_nothing(look, folder, method):
    body = external(location="data/w.bin", offset="8", length="48").SerializeToString()
    members = {
        f"{folder}m.onnx": body,
        f"{folder}data/w.bin": b"\0" * 8 + WEIGHT_BYTES,
        "__MACOSX/._m.onnx": b"x",
    }
    found = look(zipped(members, method=method))
    assert found["repacked"]
    kept = onnx.load_from_string(found["kept"])
    assert not kept.graph.initializer[0].external_data
    assert onnx.numpy_helper.to_array(kept.graph.initializer[0]).tobytes() == WEIGHT_BYTES
    assert found["summary"]["parameters"] == 12


def test_the_same_archive_gives_the_same_file_every_time(look):
    archive = zipped({"m.onnx": external(location="w.bin").SerializeToString(), "w.bin": WEIGHT_BYTES})
    assert look(archive)["kept"] == look(archive)["kept"]


def test_external_data_of_a_constant_node_in_a_function_is_embedded_too(look):
    weight = external(location="w.bin").graph.initializer[0]
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weight),
        helper.make_node("MatMul", ["a", "c"], ["b"]),
    ]
    function = helper.make_function("own", "f", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    graph = models.graph_of([helper.make_node("f", ["x"], ["y"], domain="own")])
    body = models.model(graph, functions=[function], domains=["own"]).SerializeToString()
    found = look(zipped({"m.onnx": body, "w.bin": WEIGHT_BYTES}))
    assert found["signature"]["batch_axis"] == 0


def test_a_quantized_model_is_called_int8(look):
    q = helper.make_tensor("q", TensorProto.INT8, [4, 3], [1] * 12)
    s = helper.make_tensor("s", TensorProto.FLOAT, [], [0.1])
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    found = look(models.model(models.graph_of(nodes, initializers=[q, s])).SerializeToString())
    assert found["summary"]["precision"] == "int8"


def test_half_precision_is_told_by_the_bytes_of_the_weights(look):
    w = onnx.numpy_helper.from_array(np.ones((4, 3), dtype=np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["o"]),
        helper.make_node("Cast", ["o"], ["y"], to=TensorProto.FLOAT),
    ]
    found = look(models.model(models.graph_of(nodes, initializers=[w])).SerializeToString())
    assert found["summary"]["precision"] == "fp16"


def test_a_model_is_not_refused_for_values_that_were_our_choice(look):
    """Whole numbers are often a step, a divisor or a size."""
    nodes = [helper.make_node("Mod", ["n", "x"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.INT64, [8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [models.ints("n", 10)])
    (finding,) = look(models.model(graph).SerializeToString())["summary"]["findings"]
    assert "values that were made up: " in finding
    assert "modulo by zero" in finding


def test_a_model_is_not_refused_for_a_size_that_was_our_choice(look):
    """With free dimensions of 224 its input alone would be more than a look may hold."""
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    inputs = {"x": ["batch", "a", "b", "c", "d"]}
    proto = models.model(
        models.graph_of(nodes, inputs=inputs, initializers=[models.ints("s", 7)], output_shape=[7])
    )
    found = look(proto.SerializeToString())
    (finding,) = [text for text in found["summary"]["findings"] if "could not be run" in text]
    assert "dimensions of 1, 8, 64:" in finding
