"""OpenVINO: what it makes of a model, what it refuses, and that it is measured as ONNX Runtime is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from controlplane.core.errors import Unprocessable
from optimizer.domain.recipe import Recipe, Step
from optimizer.evaluation.child import evaluate
from optimizer.evaluation.machine import TELLING_FLAGS, describe
from optimizer.techniques import check_recipe, parameters, refusals, technique, toolchains_of
from optimizer.techniques.openvino.technique import BF16_FLAGS, is_transformer
from optimizer.techniques.port import Hardware, ModelSummary
from tests.optimizer import onnx_models, where_it_runs
from tests.optimizer.techniques.conftest import Made

WIDE = (64, 768, 768, 10)


def items(model: Made) -> dict[str, Any]:
    with np.load(model.calibration) as found:
        return {name: found[name] for name in found}


def test_int8_is_measured_against_onnx_runtime_in_one_process_on_one_core(
    made: Callable[[str], Made],
) -> None:
    model = made("mlp")
    model.signature = onnx_models.mlp(model.path, widths=WIDE)
    onnx_models.calibration(model.calibration, model.signature, items=400)
    asked = {"params": {"repair_rounds": 0}, "calibration_npz": None}
    done = model.optimize("openvino", evaluation_npz=str(model.calibration), **asked)
    assert (done["precision"], len(done["evaluation_items"])) == ("int8", 100)
    spec = {
        "parent_path": str(model.path),
        "variant_path": done["output_path"],
        "variant_format": done["format"],
        "signature": model.signature,
        "evaluation_npz": str(model.calibration),
        "fitted_to": done["evaluation_items"],
        "budget_s": 0.5,
        "seed": 5,
    }
    report = model.child(evaluate, spec, toolchain="openvino")
    method = report["method"]
    assert method["parent_runs_by"].startswith("ONNX Runtime")
    assert method["variant_runs_by"].startswith("OpenVINO")
    assert len(method["cores"]) == 1
    assert report["accuracy"]["compared"] == 300
    assert report["accuracy"]["outputs"][0]["cosine_mean"] > 0.99
    assert [row["batch_size"] for row in report["timings"]] == [1, 8, 32]
    assert report["variant"]["file_bytes"] < 0.3 * report["parent"]["file_bytes"]
    assert min(report["variant"]["load_ms"], report["variant"]["memory_bytes"]) > 0
    assert report["machine"]["versions"]["openvino"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_inputs_and_outputs_keep_their_names_beside_values_that_are_the_same(
    precision: str, made: Callable[[str], Made]
) -> None:
    """OpenVINO gives a port the names of every value that is the same tensor."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    nodes = proto.graph.node
    nodes[0].input[0], nodes[-1].output[0] = "copied", "last"
    nodes.insert(0, helper.make_node("Identity", ["x"], ["copied"]))
    nodes.append(helper.make_node("Identity", ["last"], ["y"]))
    onnx.save(proto, str(model.path))
    done = model.optimize("openvino", params={"precision": precision})
    feed = {"x": np.ones((2, 32), np.float32)}
    (answer,) = model.answers(done, feed)
    (theirs,) = onnxruntime.InferenceSession(str(model.path)).run(["y"], feed)
    np.testing.assert_allclose(answer, theirs, atol=0.05)


def test_with_one_thread_the_asking_thread_computes_and_none_has_another_core(
    made: Callable[[str], Made],
) -> None:
    model = made("mlp")
    model.signature = onnx_models.mlp(model.path, widths=WIDE)
    onnx_models.calibration(model.calibration, model.signature)
    done = model.optimize("openvino", params={"precision": "fp32"})
    spec = {"path": done["output_path"], "format": "openvino", "feed": str(model.calibration), "runs": 4000}
    told = model.child(where_it_runs.who_computes, spec | {"outputs": ["y"]}, toolchain="openvino")
    assert told["mine"] > 10
    assert told["others"] <= 1
    assert told["allowed"] == told["cores"]


def test_bf16_needs_no_items_and_is_what_its_file_says_wherever_it_is_opened(
    made: Callable[[str], Made],
) -> None:
    """Not what OpenVINO would choose here: that is BF16 for every file, on a processor that has it."""
    model = made("mlp")
    fed = items(model)
    if not BF16_FLAGS & set(describe().cpu_flags):
        with pytest.raises(Unprocessable) as caught:
            model.optimize("openvino", params={"precision": "bf16"}, calibration_npz=None)
        assert caught.value.code == "no_bf16"
        return
    done = model.optimize("openvino", params={"precision": "bf16"}, calibration_npz=None)
    assert done["precision"] == "bf16"
    expected = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"]).run(
        None, fed
    )
    assert 1e-5 < np.abs(model.answers(done, fed)[0] - expected[0]).max() < 0.05


def test_an_excluded_node_keeps_its_weights_whatever_it_became(made: Callable[[str], Made]) -> None:
    """A Gemm becomes a multiplication and an addition, and the addition has its name."""
    kept = made("cnn").optimize("openvino", params={"exclude_nodes": ["head"]})["provenance"]
    assert kept["operations"]["Convert"] == 2, "from the integers that the weights of both convolutions are"
    assert kept["kept_nodes"] == ["head"]


@pytest.mark.parametrize(
    ("operator", "shape", "params", "code", "says"),
    [
        ("Det", [2], {"precision": "fp32"}, "not_convertible", "Det-17"),
        ("MatMul", [2, 4, 4], {"exclude_nodes": ["m"]}, "unknown_nodes", "Not found: m."),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_operator_or_the_node(
    operator: str, shape: list[Any], params: dict[str, Any], code: str, says: str, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    model.signature = onnx_models.signature([("x", "FP32", [2, 4, 4])], [("y", "FP32", shape)])
    node = helper.make_node(operator, ["x"] if operator == "Det" else ["x", "w"], ["y"])
    weights = {"w": np.eye(4, dtype=np.float32)}
    onnx_models.save(model.path, nodes=[node], constants=weights, signature=model.signature)
    with pytest.raises(Unprocessable) as caught:
        model.optimize("openvino", params=params)
    assert caught.value.code == code
    assert says in caught.value.detail
    assert not list((model.folder / "out").iterdir())


# What is judged before anything runs.

SUMMARY = ModelSummary(opset=17, op_types={"MatMul": 2}, complete=True)


def reasons(
    *, params: dict[str, Any], hardware: Hardware | None = None, signature: Any = onnx_models.MAGIKA_SIGNATURE
) -> list[str]:
    found = refusals(
        technique("openvino"),
        signature,
        SUMMARY,
        has_calibration=False,
        hardware=hardware,
        params=parameters("openvino", params),
    )
    return [reason.code for reason in found]


@pytest.mark.parametrize(
    ("params", "codes"),
    [({}, ["calibration_missing"]), ({"precision": "fp32"}, []), ({"precision": "bf16"}, [])],
)
def test_only_int8_asks_for_items(params: dict[str, Any], codes: list[str]) -> None:
    assert reasons(params=params) == codes


def test_bf16_is_refused_by_a_processor_that_is_known_not_to_have_it() -> None:
    assert BF16_FLAGS <= TELLING_FLAGS
    flags = [frozenset({"avx2"}), frozenset({"avx2", "avx512_bf16"}), frozenset[str]()]
    workers = [Hardware(cpu_flags=found, toolchains=frozenset({"openvino"})) for found in flags]
    asked = [reasons(params={"precision": "bf16"}, hardware=worker) for worker in workers]
    assert asked == [["no_bf16"], [], []]


def test_text_is_refused() -> None:
    text = onnx_models.signature([("x", "BYTES", ["batch"])], [("y", "FP32", ["batch"])])
    assert reasons(params={"precision": "fp32"}, signature=text) == ["text_tensors"]


@pytest.mark.parametrize(
    ("op_types", "expected"),
    [
        ({"MatMul": 8, "Softmax": 2, "LayerNormalization": 5}, True),
        ({"MatMul": 8, "Softmax": 2, "ReduceMean": 10, "Sqrt": 5}, True),
        ({"Attention": 6}, True),
        ({"MatMul": 3, "Softmax": 1, "Relu": 2}, False),
        ({"Conv": 20, "Softmax": 1, "ReduceMean": 1}, False),
        ({}, False),
    ],
)
def test_a_transformer_is_known_by_its_operators(op_types: dict[str, int], expected: bool) -> None:
    assert is_transformer(op_types) is expected


def test_its_job_waits_for_the_toolchain_and_nothing_comes_after_it() -> None:
    step = Step(technique="openvino", params={"precision": "fp32"})
    assert toolchains_of(Recipe(steps=(step,)), parent_format="onnx") == {"openvino"}
    with pytest.raises(Unprocessable, match="this is an OpenVINO IR model"):
        check_recipe(
            Recipe(steps=(step, Step(technique="int8-dynamic", params={}))),
            signature=onnx_models.MAGIKA_SIGNATURE,
            summary={"precision": "fp32"},
            has_calibration=False,
        )
