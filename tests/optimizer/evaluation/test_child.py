"""The whole evaluation on real files: what ends in a report, what is refused, and what the report holds."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import Child, Limits
from optimizer.evaluation.report import REPORT_VERSION
from tests.optimizer import onnx_models
from tests.optimizer.evaluation.conftest import Evaluate

LIMITS = Limits(memory_bytes=8 * 2**30, cpu_s=60, wall_s=60, file_bytes=2**30)


def test_the_same_file_twice_is_never_better(tmp_path: Path, report_of: Evaluate) -> None:
    made = onnx_models.mlp(tmp_path / "model.onnx", widths=(64, 256, 10))
    report = report_of(tmp_path / "model.onnx", tmp_path / "model.onnx", made)
    assert report["verdict"] in {"not_faster", "inconclusive"}
    assert report["accuracy"]["agreement"]["value"] == 1


def test_a_report_says_how_every_number_was_got(
    tmp_path: Path, report_of: Evaluate, messages: list[dict[str, Any]]
) -> None:
    made = onnx_models.cnn(tmp_path / "model.onnx")
    report = report_of(tmp_path / "model.onnx", tmp_path / "model.onnx", made, techniques=["int8-static"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["version"] == REPORT_VERSION
    assert report["sentence"]
    assert [row["batch_size"] for row in report["control"]] == [1, 8, 32]
    assert [row["batch_size"] for row in report["timings"]] == [1, 8, 32]
    assert all(row["speedup"]["n"] == row["parent"]["rounds"] >= 5 for row in report["timings"])
    assert [row["batch_size"] for row in report["service_curve"]] == [1, 2, 4, 8, 16, 32]
    assert report["machine"]["cpu_model"]
    clocks = report["method"]["clocks_before"]
    assert bool(clocks["cpu_mhz"]) is bool(clocks["cpu_source"])
    assert report["machine"]["versions"]["onnxruntime"]
    assert report["method"]["variant_runs_by"] == "ONNX Runtime, ORT_ENABLE_ALL without SkipLayerNormFusion"
    assert report["method"]["inputs"].startswith("random inputs")
    assert report["accuracy"]["basis"] == "random_inputs"
    assert report["parent"]["file_bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert report["parent"]["load_ms"] > 0
    assert report["promises"][0]["technique"] == "int8-static"
    steps = [message for message in messages if message["kind"] == "step"]
    assert [(step["index"], step["of"]) for step in steps] == [(index, 4) for index in (1, 2, 3, 4)]


def test_the_process_is_given_back_its_cores(tmp_path: Path, report_of: Evaluate) -> None:
    before = os.sched_getaffinity(0)
    made = onnx_models.scaled(tmp_path / "model.onnx")
    report = report_of(tmp_path / "model.onnx", tmp_path / "model.onnx", made)
    assert os.sched_getaffinity(0) == before
    assert len(report["method"]["cores"]) == 1
    assert set(report["method"]["cores"]) <= before


def test_labels_of_an_evaluation_set_decide(tmp_path: Path, report_of: Evaluate) -> None:
    made = onnx_models.mlp(tmp_path / "model.onnx")
    other = onnx_models.mlp(tmp_path / "other.onnx", seed=1)
    assert other == made
    items = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    from optimizer.workbench.session import open_session

    labels = open_session(tmp_path / "model.onnx").run(None, {"x": items})[0].argmax(1)
    np.savez(tmp_path / "set.npz", x=items, labels=labels)
    report = report_of(
        tmp_path / "model.onnx", tmp_path / "other.onnx", made, evaluation_npz=str(tmp_path / "set.npz")
    )
    assert report["accuracy"]["basis"] == "labels"
    assert report["accuracy"]["parent_accuracy"]["value"] == 1
    assert report["accuracy"]["variant_accuracy"]["value"] < 0.5
    assert report["verdict"] != "better"
    assert "300 labelled items" in report["sentence"]


def test_vectors_below_zero_are_labels_too(tmp_path: Path, report_of: Evaluate) -> None:
    """Only a class number below zero says that nobody knows."""
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "other.onnx", factor=-1)
    items = np.random.default_rng(0).standard_normal((40, *made["inputs"][0]["shape"][1:])).astype(np.float32)
    np.savez(tmp_path / "set.npz", x=items, labels=items)
    report = report_of(
        tmp_path / "model.onnx",
        tmp_path / "other.onnx",
        made,
        evaluation_npz=str(tmp_path / "set.npz"),
        metric="cosine",
    )
    scores = [report["accuracy"][f"{side}_accuracy"]["value"] for side in ("parent", "variant")]
    assert scores == pytest.approx([1, -1])


def test_items_that_the_variant_was_calibrated_on_are_not_compared(
    tmp_path: Path, report_of: Evaluate
) -> None:
    """It answers those as the labels say, and all others wrong."""
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "other.onnx", factor=-1)
    items = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    known = list(range(0, 60, 4))
    labels = items.argmax(1)
    labels[known] = (-items).argmax(1)[known]
    np.savez(tmp_path / "set.npz", x=items, labels=labels)
    files = (tmp_path / "model.onnx", tmp_path / "other.onnx", made)
    report = report_of(*files, evaluation_npz=str(tmp_path / "set.npz"), fitted_to=[*known, 60, -1])
    accuracy = report["accuracy"]
    assert (accuracy["compared"], accuracy["available"]) == (45, 45)
    assert (accuracy["parent_accuracy"]["value"], accuracy["variant_accuracy"]["value"]) == (1, 0)
    assert "45 labelled items" in report["sentence"]
    about = "an evaluation set of 60 labelled items, without the 15 that the variant was calibrated on"
    assert report["method"]["inputs"] == about


def test_a_set_that_was_all_calibrated_on_is_compared_and_the_report_says_so(
    tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    np.savez(tmp_path / "set.npz", x=np.ones((5, 4), np.float32))
    path = tmp_path / "model.onnx"
    report = report_of(path, path, made, evaluation_npz=str(tmp_path / "set.npz"), fitted_to=list(range(5)))
    assert report["accuracy"]["compared"] == 5
    assert "calibrated on every item" in report["notes"][-1]


def test_a_model_without_a_batch_axis_is_timed_one_item_at_a_time(
    tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.signature([("x", "FP32", [1, 4])], [("y", "FP32", [1, 4])])
    path = onnx_models.save(
        tmp_path / "one.onnx",
        nodes=[helper.make_node("Neg", ["x"], ["y"])],
        constants={},
        signature=made,
    )
    report = report_of(path, path, made)
    assert [row["batch_size"] for row in report["timings"]] == [1]
    assert [row["batch_size"] for row in report["service_curve"]] == [1]


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [(([4, 3], [4, 3]), 4), (([1, 4], [1, 4]), 1), (([4, 3], [1, 12]), 1), (([4], [4]), 1)],
)
def test_a_batch_that_is_written_into_the_model_is_named_as_its_size(
    shapes: tuple[list[Any], list[Any]], rows: int, tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.signature([("x", "FP32", shapes[0])], [("y", "FP32", shapes[1])])
    path = onnx_models.save(
        tmp_path / "fixed.onnx",
        nodes=[helper.make_node("Reshape", ["x", "shape"], ["y"])],
        constants={"shape": np.array(shapes[1], dtype=np.int64)},
        signature=made,
    )
    report = report_of(path, path, made, budget_s=0.2)
    assert [row["batch_size"] for row in report["timings"]] == [rows]
    assert [row["batch_size"] for row in report["service_curve"]] == [rows]


def test_a_batch_that_would_take_far_longer_than_the_budget_is_left_out_and_said(
    tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.mlp(tmp_path / "model.onnx", widths=(256, 1024, 1024, 10))
    report = report_of(tmp_path / "model.onnx", tmp_path / "model.onnx", made, budget_s=0.0002)
    assert [row["batch_size"] for row in report["timings"]] == [1]
    assert [row["batch_size"] for row in report["service_curve"]] == [1]
    assert report["notes"][-1].startswith("Batch 8 was not timed: that would take about ")


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_variant_that_answers_no_numbers_fails_without_being_timed(
    factor: float, tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "broken.onnx", factor=factor)
    report = report_of(tmp_path / "model.onnx", tmp_path / "broken.onnx", made)
    assert report["verdict"] == "failed"
    assert report["sentence"] == "Failed: output “y” is NaN or infinite where the parent's is a number."
    assert (report["accuracy"], report["timings"]) == (None, [])


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_variant_that_does_not_open_fails_with_the_runtimes_words(
    content: bytes, tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    (tmp_path / "broken.onnx").write_bytes(content)
    report = report_of(tmp_path / "model.onnx", tmp_path / "broken.onnx", made)
    assert report["verdict"] == "failed"
    assert report["sentence"].startswith("Failed: ONNX Runtime cannot open this model.")
    assert report["variant"]["load_ms"] is None


def test_a_variant_that_opens_but_cannot_run_fails(tmp_path: Path, report_of: Evaluate) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    path = onnx_models.save(
        tmp_path / "broken.onnx",
        nodes=[helper.make_node("Reshape", ["x", "shape"], ["y"])],
        constants={"shape": np.array([7, 11], dtype=np.int64)},
        signature=made | {"outputs": [{"name": "y", "dtype": "FP32", "shape": [7, 11]}]},
    )
    report = report_of(tmp_path / "model.onnx", path, made)
    assert report["verdict"] == "failed"
    assert "the variant cannot run" in report["sentence"]


@pytest.mark.parametrize(
    ("items", "advice"), [(None, "Give an evaluation set (npz)."), ([1, 0], "Leave out of the set")], ids=str
)
def test_a_parent_that_fails_on_an_item_is_no_failure_of_its_variant(
    items: list[int] | None, advice: str, tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.signature([("x", "INT64", ["batch"])], [("y", "INT64", ["batch"])])
    path = onnx_models.save(
        tmp_path / "model.onnx",
        nodes=[helper.make_node("Mod", ["ten", "x"], ["y"])],
        constants={"ten": np.array(10, dtype=np.int64)},
        signature=made,
    )
    given = {}
    if items is not None:
        np.savez(tmp_path / "set.npz", x=np.array(items))
        given["evaluation_npz"] = str(tmp_path / "set.npz")
    with pytest.raises(Unprocessable) as caught:
        report_of(path, path, made, **given)
    assert caught.value.code == "parent_cannot_run"
    assert advice in caught.value.detail


def test_a_set_that_does_not_fit_is_refused_and_no_report_is_made(
    tmp_path: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    np.savez(tmp_path / "set.npz", x=np.zeros((5, 9), np.float32))
    with pytest.raises(Unprocessable) as caught:
        report_of(
            tmp_path / "model.onnx", tmp_path / "model.onnx", made, evaluation_npz=str(tmp_path / "set.npz")
        )
    assert caught.value.code == "dataset_shape"


def test_inside_the_sandbox_a_real_model_is_quantized_and_judged(tmp_path: Path) -> None:
    """The way a worker does it: two children, no network, nothing writable but the scratch folder."""
    parent, scratch = onnx_models.magika_path(), tmp_path / "scratch"
    scratch.mkdir()
    tokens = np.random.default_rng(0).integers(0, 257, (16, 2048), dtype=np.int32)
    np.savez(tmp_path / "set.npz", bytes=tokens)
    technique = {
        "technique": "int8-static",
        "params": {},
        "input_path": str(parent),
        "output_path": str(scratch / "made.onnx"),
        "calibration_npz": None,
        "evaluation_npz": str(tmp_path / "set.npz"),
        "signature": onnx_models.MAGIKA_SIGNATURE,
        "seed": 1,
    }
    made = _in_sandbox(
        "optimizer.techniques.child:run", technique, scratch, readable=[parent, tmp_path / "set.npz"]
    )
    assert made["precision"] == "int8"
    evaluation = {
        "parent_path": str(parent),
        "variant_path": made["output_path"],
        "signature": onnx_models.MAGIKA_SIGNATURE,
        "evaluation_npz": None,
        "threads": 1,
        "budget_s": 1.0,
        "seed": 1,
    }
    report = _in_sandbox("optimizer.evaluation.child:evaluate", evaluation, scratch, readable=[parent])
    assert report["variant"]["file_bytes"] < report["parent"]["file_bytes"] / 3
    assert report["variant"]["memory_bytes"] > 0
    assert report["accuracy"]["agreement"]["value"] > 0.9


def test_a_model_that_never_ends_is_stopped_at_the_wall_limit(tmp_path: Path) -> None:
    """F06 with a real endless Loop."""
    import onnx

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Neg", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", onnx.TensorProto.FLOAT, ["batch", 4]),
        ],
    )
    made = onnx_models.signature([("x", "FP32", ["batch", 4])], [("y", "FP32", ["batch", 4])])
    path = onnx_models.save(
        tmp_path / "endless.onnx",
        nodes=[helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        constants={"yes": np.array(True)},
        signature=made,
    )
    spec = {"parent_path": str(path), "variant_path": str(path), "signature": made, "budget_s": 1, "seed": 0}
    limits = Limits(memory_bytes=LIMITS.memory_bytes, cpu_s=60, wall_s=3, file_bytes=2**20)
    with Child.start(
        entry="optimizer.evaluation.child:evaluate",
        spec=spec,
        scratch=tmp_path,
        limits=limits,
        readable=[path],
    ) as child:
        assert child.outcome().reason == "timeout"


def _in_sandbox(entry: str, spec: dict[str, Any], scratch: Path, *, readable: list[Path]) -> dict[str, Any]:
    with Child.start(entry=entry, spec=spec, scratch=scratch, limits=LIMITS, readable=readable) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome
    return outcome.result
