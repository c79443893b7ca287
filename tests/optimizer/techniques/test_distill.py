"""Distillation: what it refuses, what a student learns from, and that a killed training goes on where it was."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import Child, Limits
from optimizer.techniques.distill.material import FEWEST_ITEMS, Material, answers, shifted
from optimizer.techniques.distill.shapes import image_of, refusals
from optimizer.techniques.port import Work
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Signature
from tests import toolchains
from tests.optimizer import onnx_models

LIMITS = Limits(memory_bytes=8 * 2**30, cpu_s=120, wall_s=120, file_bytes=2**30, processes=256)
ITEMS = 400
SHORT = {"steps": 160, "patience": 0, "width": 24}


def signature(item: list[Any], *, dtype: str = "FP32", answer: tuple[Any, ...] = ("n", 5)) -> dict[str, Any]:
    return onnx_models.signature([("x", dtype, ["n", *item])], [("y", "FP32", list(answer))])


@pytest.mark.parametrize(
    ("asked", "student", "code"),
    [
        (signature([8]), "auto", None),
        (signature([1, 28, 28], dtype="UINT8"), "cnn", None),
        (signature([8], answer=("n", "classes")), "mlp", None),
        (signature([8]), "cnn", "no_image"),
        (signature([2048], dtype="INT32"), "auto", "not_measurements"),
        (signature(["length"]), "auto", "open_dimensions"),
        (signature([8], answer=("n", 1)), "auto", "not_a_classifier"),
        (signature([8], answer=("n", 5, 7)), "auto", "not_a_classifier"),
        (onnx_models.MAGIKA_SIGNATURE, "auto", "not_measurements"),
        (
            onnx_models.signature(
                [("a", "FP32", ["n", 2]), ("b", "FP32", ["n", 2])], [("y", "FP32", ["n", 3])]
            ),
            *("auto", "several_tensors"),
        ),
        (onnx_models.signature([("x", "FP32", [4, 8])], [("y", "FP32", [4, 3])]), "auto", "no_batch_axis"),
    ],
)
def test_what_no_student_can_stand_in_for_is_refused_from_the_signature_alone(
    asked: dict[str, Any], student: str, code: str | None
) -> None:
    assert [reason.code for reason in refusals(asked, student=student)] == ([code] if code else [])


@pytest.mark.parametrize(
    ("item", "layout"),
    [((3, 32, 32), "CHW"), ((32, 32, 3), "HWC"), ((8, 8), "HW"), ((64,), None), ((1, 2, 2), None)],
)
def test_an_image_is_told_by_its_shape(item: tuple[int, ...], layout: str | None) -> None:
    found = image_of(item)
    assert (found.layout if found else None) == layout


@given(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from([(1, 2), (2, 3)]))
def test_a_shifted_image_is_the_same_picture_elsewhere(down: int, right: int, axes: tuple[int, int]) -> None:
    shape = (2, 9, 7, 3) if axes == (1, 2) else (2, 3, 9, 7)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    moved = shifted(images, np.array([[down, right], [0, 0]]), axes=axes)
    assert moved.shape == images.shape
    assert np.array_equal(moved[1], images[1])
    before, after = (np.moveaxis(array, axes, (1, 2))[0] for array in (images, moved))
    assert np.array_equal(after[3 + down : 6 + down, 3 + right : 4 + right], before[3:6, 3:4])


class Desk:
    """A teacher with random weights, a set of items, and a folder that outlives attempts."""

    def __init__(
        self, folder: Path, *, model: str = "mlp", labelled: float = 0.0, items: int = ITEMS
    ) -> None:
        self.folder, self.path, self.set = folder, folder / "teacher.onnx", folder / "set.npz"
        self.signature = {"mlp": onnx_models.mlp, "cnn": onnx_models.cnn}[model](self.path)
        (spec,) = self.signature["inputs"]
        rng = np.random.default_rng(5)
        self.items = rng.standard_normal((items, *spec["shape"][1:])).astype(np.float32)
        arrays: dict[str, Any] = {spec["name"]: self.items}
        if labelled:
            arrays["labels"] = np.where(
                rng.random(items) < labelled, self.answer(self.path).argmax(axis=1), -1
            )
        np.savez(self.set, **arrays)
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.heard: list[dict[str, Any]] = []

    def answer(self, path: Path) -> Any:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {self.signature["inputs"][0]["name"]: self.items})[0]

    @contextmanager
    def child(self, *, role: str = "calibration", **params: Any) -> Iterator[Child]:
        scratch = self.folder / f"work-{len(list(self.folder.glob('work-*')))}"
        scratch.mkdir()
        spec = {
            "technique": "distill",
            "params": SHORT | params,
            "input_path": str(self.path),
            "output_path": str(scratch / "student.onnx"),
            "calibration_npz": str(self.set) if role == "calibration" else None,
            "evaluation_npz": str(self.set) if role == "evaluation" else None,
            "signature": self.signature,
            "seed": 7,
            "kept": str(self.kept),
        }
        with Child.start(
            entry="optimizer.techniques.child:run",
            spec=spec,
            scratch=scratch,
            limits=LIMITS,
            readable=[self.path, self.set],
            writable=[self.kept],
            python=toolchains.interpreter("torch"),
        ) as child:
            yield child

    def run(self, **asked: Any) -> dict[str, Any]:
        """What the child says in the end; what it said before is in `heard`."""
        with self.child(**asked) as child:
            while not child.finished:
                if message := child.poll(1.0):
                    self.heard.append(message)
            outcome = child.outcome()
        assert outcome.result is not None, outcome.detail
        return outcome.result

    def said(self) -> str:
        return "\n".join(message["message"] for message in self.heard if message["kind"] == "log")

    def points(self, curve: str) -> list[int]:
        return [m["step"] for m in self.heard if m["kind"] == "point" and m["curve"] == curve]

    def work(self, *, role: str) -> Work:
        return Work(
            input=self.path,
            output=self.folder / "unused",
            scratch=self.folder,
            signature=Signature.from_json(self.signature),
            calibration=self.set,
            calibration_source=role,
            seed=7,
            journal=Journal(emit=self.heard.append, steps=1),
        )


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., Desk]:
    return lambda **how: Desk(tmp_path, **how)


def test_half_of_an_evaluation_set_is_left_to_be_compared(desk: Callable[..., Desk]) -> None:
    material = Material.draw(desk().work(role="evaluation_set"), copies=4, seed=1)
    used = material.evaluation_items
    assert len(used) == ITEMS // 2 == len(material.item)
    assert set(used) == set(material.item.tolist())
    assert not set(material.item[material.train]) & set(material.item[material.validation])


def test_a_calibration_set_is_used_up_and_nothing_compared_is_touched(desk: Callable[..., Desk]) -> None:
    material = Material.draw(desk(model="cnn").work(role="calibration_set"), copies=2, seed=1)
    assert material.evaluation_items == []
    assert len(set(material.item.tolist())) == ITEMS
    train = len(material.train)
    assert train == 3 * (ITEMS - len(material.validation))
    assert not material.shift[material.validation].any(), "validation items are as they came"
    assert np.abs(material.shift).max() == 1


def test_too_few_items_are_refused_with_how_many_it_takes(desk: Callable[..., Desk]) -> None:
    with pytest.raises(Unprocessable) as caught:
        Material.draw(desk(items=FEWEST_ITEMS).work(role="evaluation_set"), copies=0, seed=1)
    assert caught.value.code == "too_few_items"
    assert f"{FEWEST_ITEMS // 2} of the {FEWEST_ITEMS}" in caught.value.detail


def test_the_teacher_is_asked_once_and_only_for_what_is_missing(desk: Callable[..., Desk]) -> None:
    work = desk(items=1200).work(role="calibration_set")
    kept = work.scratch / "kept"
    material = Material.draw(work, copies=0, seed=1)
    first = answers(work, material, folder=kept)
    assert (first.asked, first.found, first.form) == (1200, 0, "probabilities")
    damaged, lost, *_ = sorted(kept.glob("answers-*/*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    lost.unlink()
    second = answers(work, material, folder=kept)
    assert (second.asked, second.found) == (1024, 176)
    assert np.array_equal(first.logits, second.logits)
    assert answers(work, Material.draw(work, copies=0, seed=2), folder=kept).found == 0, "other examples"


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (
            "one = Constant<value_ints = [1, 3]>() y = Reshape(x, one)",
            "teacher_fails",
            "asked for 32 at once: ",
        ),
        (
            "axis = Constant<value_ints = [0]>() y = ReduceMean(x, axis)",
            "not_a_classifier",
            "] to 32 items",
        ),
        (
            "turned = Transpose(x) y = MatMul(x, turned)",
            "not_a_classifier",
            "[16] per item, and [32] for others",
        ),
    ],
)
def test_a_teacher_that_gives_no_scores_to_each_item_is_refused(
    answer: str, code: str, says: str, desk: Callable[..., Desk]
) -> None:
    work = desk().work(role="calibration_set")
    graph = f'<ir_version: 10, opset_import: ["" : 20]> g (float[n,size] x) => (float[n,k] y) {{ {answer} }}'
    onnx.save(parser.parse_model(graph), work.input)
    with pytest.raises(Unprocessable, match=re.escape(says)) as caught:
        answers(work, Material.draw(work, copies=0, seed=1), folder=work.scratch)
    assert caught.value.code == code


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_student(tmp_path: Path) -> None:
    whole, torn = (
        Desk(tmp_path / name, labelled=0.5) for name in ("whole", "torn") if not (tmp_path / name).mkdir()
    )
    made = whole.run()
    with torn.child() as child:
        while (message := child.poll(60.0)) is not None and message.get("curve") != "control":
            pass
        child.kill()
    again = torn.run()
    assert "400 answers were found from an earlier attempt" in torn.said()
    assert f"Resumed the student from its checkpoint at step {SHORT['steps']}." in torn.said()
    assert "Resumed the control from its checkpoint at step" in torn.said()
    assert torn.points("student") == []
    assert again["provenance"]["output_sha256"] == made["provenance"]["output_sha256"]
    assert json.loads(json.dumps(again["provenance"])) == again["provenance"]
    assert "Resumed" not in whole.said()
    assert whole.points("student")[-1] == whole.points("control")[-1] == SHORT["steps"]
    student, control = (made["provenance"][name] for name in ("student", "control"))
    assert student["agreement"] > 0.75
    assert student["examples"] == 340 > control["examples"]
    assert f"the control that saw {control['examples']} labels and no teacher" in whole.said()
    assert made["provenance"]["data"]["labelled"] < ITEMS
    assert made["provenance"]["teacher"]["sha256"] == made["provenance"]["input_sha256"]
    agreed = whole.answer(whole.path).argmax(1) == whole.answer(
        tmp_path / "whole/work-0/student.onnx"
    ).argmax(1)
    assert agreed.mean() > 0.75


def test_unlabelled_images_of_an_evaluation_set_are_learned_without_a_control(
    desk: Callable[..., Desk],
) -> None:
    images = desk(model="cnn")
    made = images.run(role="evaluation", student="depthwise", shifted_copies=1, steps=20)
    assert made["provenance"]["control"] is None
    assert "No control was trained" in images.said()
    assert len(made["evaluation_items"]) == ITEMS // 2
    student = onnxruntime.InferenceSession(str(images.folder / "work-0/student.onnx"))
    assert [value.name for value in (*student.get_inputs(), *student.get_outputs())] == ["image", "scores"]
    assert student.get_inputs()[0].shape == ["batch", 3, 12, 12]
    assert np.isfinite(images.answer(images.folder / "work-0/student.onnx")).all()
    assert str(Path.cwd()).encode() not in (images.folder / "work-0/student.onnx").read_bytes()
