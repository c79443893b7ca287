"""Mean average precision by a worked example, by what a weight means, and in a report."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import plugins
from controlplane.core.errors import Unprocessable
from controlplane.registry import metrics as known
from controlplane.registry.answers import Answers
from optimizer.domain.verdict import Basis
from optimizer.evaluation import accuracy, detection
from optimizer.workbench.items import StoredItems
from optimizer.workbench.signature import Signature
from tests.optimizer.onnx_models import signature

TRUTH = [
    [[10, 10, 50, 60, 0], [60, 20, 90, 70, 1]],
    [[5, 5, 45, 45, 0], [50, 50, 95, 95, 0], [-1, -1, -1, -1, -1]],
    [[20, 30, 80, 90, 1]],
]
FOUND = [
    [[12, 11, 52, 58, 0.9, 0], [61, 25, 95, 72, 0.6, 1], [10, 12, 40, 60, 0.5, 0]],
    [[5, 5, 44, 46, 0.8, 0], [40, 55, 90, 99, 0.7, 0], [0, 0, 0, 0, 0, 0]],
    [[25, 30, 85, 80, 0.4, 1], [20, 30, 40, 60, 0.95, 1]],
]
PYCOCO = 0.4993399339933993
"""What pycocotools 2.0.11 says of them: COCOeval, “bbox”, its first figure."""


def read(found: Any, truth: Any) -> Any:
    return detection.reads([np.array(found, dtype=np.float32)], np.array(truth, dtype=np.float32))


def scored(*pairs: tuple[Any, Any]) -> float:
    score = detection.over([read(found, truth) for found, truth in pairs])
    assert score is not None
    return score(np.ones(len(pairs)))


def test_the_worked_example_is_scored_as_coco_scores_it() -> None:
    assert scored(*zip(FOUND, TRUTH, strict=True)) == pytest.approx(PYCOCO, abs=1e-9)


def test_one_box_that_overlaps_by_78_percent_is_right_at_six_of_ten_overlaps() -> None:
    found, truth = [[258, 41, 606, 285, 0.5, 0]], [[214, 41, 562, 285, 0]]
    assert scored((found, truth)) == pytest.approx(0.6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.permutations(range(3)))
def test_a_weight_is_how_often_an_image_is_there(drawn: list[int], order: list[int]) -> None:
    reads = [read(FOUND[index], TRUTH[index]) for index in order]
    weighed, repeated = detection.over(reads), detection.over([reads[index] for index in drawn])
    assert weighed is not None
    assert repeated is not None
    weights = np.bincount(drawn, minlength=3).astype(float)
    assert weighed(weights) == pytest.approx(repeated(np.ones(len(drawn))))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(0, 2)), min_size=1, max_size=6))
def test_what_finds_everything_scores_one_and_a_sure_false_alarm_costs(
    boxes: list[tuple[int, int, int]],
) -> None:
    truth = [[low, low, low + size, low + size, kind] for low, size, kind in dict.fromkeys(boxes)]
    exact = [[*row[:4], 0.9, row[4]] for row in truth]
    alarm = [200, 200, 220, 220, 0.95, truth[0][4]]
    assert scored((exact, truth)) == pytest.approx(1)
    assert scored(([*exact, alarm], truth)) < 1


SHAPES: dict[str, Any] = {
    "one": [("output0", "FP32", ["n", 300, 6])],
    "two": [("dets", "FP32", ["n", "k", 5]), ("labels", "INT64", ["n", "k"])],
    "three": [
        ("labels", "INT64", ["n", "k"]),
        ("boxes", "FP32", ["n", "k", 4]),
        ("scores", "FP32", ["n", "k"]),
    ],
}


def answers(found: Any, kind: str) -> dict[str, Any]:
    rows = np.array(found, dtype=np.float32)
    corners, scores, classes = rows[..., :4], rows[..., 4], rows[..., 5]
    match kind:
        case "one":
            return {"output0": rows}
        case "two":
            return {"dets": rows[..., :5], "labels": classes.astype(np.int64)}
    return {"boxes": corners, "scores": scores, "labels": classes.astype(np.int64)}


def compared(kind: str, *, labels: Any = None, stated: str = "") -> accuracy.Accuracy:
    """Ten rounds of the three images; the variant loses the second box of the second image."""
    full = [[*rows, *[[0] * 6] * (3 - len(rows))] for rows in FOUND]
    less = [[row if row[4] != 0.7 else [0] * 6 for row in rows] for rows in full]
    sides = [answers(side * 10, kind) for side in (full, less)]

    def run(side: dict[str, Any]) -> accuracy.Run:
        return lambda feed: {name: array[feed["x"].astype(int)] for name, array in side.items()}

    return accuracy.compare(
        parent=run(sides[0]),
        variant=run(sides[1]),
        items=StoredItems(arrays={"x": np.arange(30, dtype=np.float32)}, labels=labels, batched=True),
        signature=Signature.from_json(signature([("x", "FP32", ["n"])], SHAPES[kind])),
        basis=Basis.EVALUATION_SET,
        budget_s=60,
        seed=1,
        metric="map" if labels is not None else "",
        answers=Answers(task=stated),
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_a_detector_is_scored_against_labels_and_without_them_against_what_its_parent_is_sure_of(
    kind: str,
) -> None:
    padded = np.array([[*rows, *[[-1] * 5] * (3 - len(rows))] for rows in TRUTH] * 10, dtype=np.float32)
    labelled = compared(kind, labels=padded)
    assert (labelled.basis, labelled.metric, labelled.measure) == (Basis.LABELS, "map", "mAP")
    assert labelled.parent_accuracy is not None
    assert labelled.parent_accuracy.value == pytest.approx(PYCOCO)
    assert 0 < labelled.loss.low < labelled.loss.value < labelled.loss.high
    alone = compared(kind, stated="detection" if kind == "one" else "")
    assert (alone.task, alone.metric, alone.measure) == ("detection", "map", "mAP against the parent")
    assert 0.5 < alone.agreement.value < 1


def test_where_there_is_no_box_to_find_values_are_compared() -> None:
    assert detection.over([read(FOUND[0], np.zeros((0, 5)))]) is None


def test_labels_of_boxes_choose_the_metric_where_an_output_has_boxes() -> None:
    labels = {"kind": "vectors", "shape": [7, 5]}
    boxes, vectors = (signature([("x", "FP32", ["n"])], rows) for rows in (SHAPES["three"], SHAPES["one"]))
    assert known.chosen("", labels=labels, signature=boxes) == "map"
    assert known.chosen("", labels=labels, signature=vectors) == "map"
    plain = signature([("x", "FP32", ["n"])], [("y", "FP32", ["n", 7, 3])])
    with pytest.raises(Unprocessable, match="expects an output with boxes as two corners"):
        known.chosen("map", labels=labels, signature=plain)


def test_another_package_can_add_a_metric_but_not_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = replace(known.metric("cosine"), key="their-cosine", label="Theirs")
    monkeypatch.setattr(sys.modules[__name__], "THEIRS", theirs, raising=False)
    points = [
        EntryPoint(name=name, value=f"{__name__}:THEIRS", group="slipway.metrics")
        for name in ("their-cosine", "cosine")
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points)
    known.METRICS.rows()
    monkeypatch.delitem(vars(known.METRICS), "_theirs")
    monkeypatch.setattr(known.METRICS, "_loaded", {})
    shape = signature([("x", "FP32", ["n"])], [("y", "FP32", ["n", 3])])
    labels = {"kind": "vectors", "shape": [3]}
    assert known.chosen("their-cosine", labels=labels, signature=shape) == "their-cosine"
    assert known.chosen("", labels=labels, signature=shape) == "cosine"
    assert known.metric("cosine").label != "Theirs"
    with pytest.raises(Unprocessable, match="There are: top-1, f1-macro, r2, cosine, wer, map, their-cosine"):
        known.metric("gone")
