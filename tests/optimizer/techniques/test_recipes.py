"""A recipe is judged before it is queued: parameters, order, and what the model allows."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import onnx_child
from optimizer.domain.recipe import Recipe
from optimizer.techniques import check_recipe, refusals, technique
from optimizer.techniques.graph import read, summary_of
from optimizer.techniques.port import ModelSummary
from tests.optimizer import onnx_models

PLAIN: dict[str, Any] = {
    "precision": "fp32",
    "opset": {"ai.onnx": 17},
    "operators": [["MatMul", 2], ["Conv", 1]],
    "nodes": 3,
}


def check(
    steps: list[dict[str, Any]], *, summary: dict[str, Any] | None = None, has_calibration: bool = True
) -> Recipe:
    return check_recipe(
        Recipe.from_json(steps),
        signature={},
        summary=PLAIN if summary is None else summary,
        has_calibration=has_calibration,
    )


def refusal(steps: list[dict[str, Any]], **asked: Any) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        check(steps, **asked)
    return caught.value


def test_defaults_are_written_out_so_that_equal_requests_have_one_digest() -> None:
    short, long = (
        check([{"technique": "onnx-graph"}]),
        check([{"technique": "onnx-graph", "params": {"tool": "onnxruntime"}}]),
    )
    assert short.digest == long.digest
    assert short.steps[0].params == {"tool": "onnxruntime", "level": "extended"}


def test_steps_may_follow_where_one_takes_what_the_other_gives() -> None:
    assert (
        check([{"technique": "onnx-graph"}, {"technique": "int8-static"}]).name == "onnx-graph + int8-static"
    )


def test_quantizing_twice_is_refused_before_anything_runs() -> None:
    error = refusal([{"technique": "int8-static"}, {"technique": "int8-dynamic"}])
    assert error.code == "wrong_precision"
    assert error.title == "INT8, dynamic: It takes fp32; this model is int8."
    assert error.detail == "Start from the original version."


def test_what_a_step_surely_gives_is_judged_by_the_next_one_before_anything_runs() -> None:
    error = refusal([{"technique": "int8-dynamic"}, {"technique": "tensorrt"}])
    assert error.code == "quantized_for_cpu"
    assert error.title == "TensorRT: The model is quantized in a way that TensorRT cannot read."
    error = refusal([{"technique": "int8-static"}, {"technique": "tensorrt"}])
    assert error.code == "asymmetric_quantization"
    assert error.detail.endswith("Choose NNCF as its tool.")
    symmetric = {"technique": "int8-static", "params": {"tool": "nncf"}}
    assert check([symmetric, {"technique": "tensorrt"}]).name == "int8-static + tensorrt"
    turing = {"technique": "tensorrt", "params": {"capabilities": ["7.5"]}}
    assert refusal([turing]).code == "unsupported_on_capability"
    assert check([{"technique": "fp16"}, turing]).name == "fp16 + tensorrt"


def test_parameters_are_refused_by_field_with_a_reason() -> None:
    error = refusal(
        [{"technique": "int8-static", "params": {"calibration_items": 3, "calibration": "magic"}}]
    )
    assert error.code == "invalid_parameters"
    assert set(error.fields) == {"params.calibration", "params.calibration_items"}
    assert "greater than or equal to 8" in error.fields["params.calibration_items"][0]


def test_static_quantization_without_items_is_refused() -> None:
    error = refusal([{"technique": "int8-static"}], has_calibration=False)
    assert error.code == "calibration_missing"
    assert "Upload a calibration set" in error.detail


@pytest.mark.parametrize(
    ("key", "summary", "code"),
    [
        ("int8-static", {"operators": [["Relu", 3]], "nodes": 3}, "nothing_to_quantize"),
        ("int8-dynamic", {"operators": [["Conv", 9], ["Relu", 9]], "nodes": 18}, "nothing_to_quantize"),
        ("int8-dynamic", {"operators": [["MatMulInteger", 1], ["MatMul", 1]]}, "already_quantized"),
        ("int8-static", {"operators": [["QuantizeLinear", 1], ["Conv", 1]]}, "already_quantized"),
        ("int8-static", {"opset": {"ai.onnx": 6}}, "opset_too_old"),
        ("int8-static", {"precision": "fp16"}, "wrong_precision"),
        ("onnx-graph", {"format": "safetensors"}, "wrong_format"),
    ],
)
def test_a_technique_says_why_it_cannot_be_used_on_a_model(
    key: str, summary: dict[str, Any], code: str
) -> None:
    given = ModelSummary.from_json(PLAIN | summary)
    assert code in [reason.code for reason in refusals(technique(key), {}, given, has_calibration=True)]
    assert refusal([{"technique": key}], summary=PLAIN | summary).code == code


def test_all_reasons_are_told_at_once() -> None:
    error = refusal(
        [{"technique": "int8-static"}], summary=PLAIN | {"operators": [["Relu", 3]]}, has_calibration=False
    )
    assert [reason["code"] for reason in error.extra["refusals"]] == [
        "calibration_missing",
        "nothing_to_quantize",
    ]


def test_a_model_that_nobody_summed_up_is_let_through_to_the_child() -> None:
    assert check([{"technique": "int8-dynamic"}], summary={}).steps


def test_convolutions_are_accepted_for_dynamic_quantization_only_when_asked_for() -> None:
    summary = PLAIN | {"operators": [["Conv", 3]]}
    assert check([{"technique": "int8-dynamic", "params": {"op_types": ["Conv"]}}], summary=summary).steps


def test_an_operator_that_a_cut_list_does_not_show_may_still_be_there() -> None:
    assert check(
        [{"technique": "int8-dynamic"}], summary=PLAIN | {"operators": [["Relu", 9]], "nodes": 50}
    ).steps


def test_what_intake_writes_down_is_what_is_read_here(tmp_path: Path) -> None:
    """The registry's summary of the real model, through the registry's own child."""
    spec = {"path": str(onnx_models.magika_path()), "scratch": str(tmp_path), "total_bytes": 10**9}
    found = onnx_child.inspect(spec, lambda message: None)
    given = ModelSummary.from_json(found["summary"])
    seen = summary_of(read(onnx_models.magika_path()))
    assert (given.opset, given.precision) == (seen.opset, seen.precision)
    assert given.op_types.items() <= seen.op_types.items()
