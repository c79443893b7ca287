"""A student learns from what its teacher answered, beside a control that learns from the labels alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.techniques.distill import students, training
from optimizer.techniques.distill.export import export
from optimizer.techniques.distill.material import Answers, Material, answers
from optimizer.techniques.distill.students import Student
from optimizer.techniques.distill.technique import DistillParameters
from optimizer.techniques.distill.training import Lesson, Look, School, Training
from optimizer.techniques.port import Work
from optimizer.workbench.items import digest
from optimizer.workbench.signature import Array

SPREAD_OF = 2048
"""Examples that say how the items spread; all of a large set would not fit in memory as floats."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    student: Student
    best: Look
    examples: int

    def to_json(self, measure: str) -> dict[str, Any]:
        return {
            "parameters": sum(weights.numel() for weights in self.student.parameters()),
            "examples": self.examples,
            "best_step": self.best.step,
            "loss": self.best.loss,
            measure: self.best.accuracy,
        }


def run(work: Work, params: DistillParameters) -> dict[str, Any]:
    """Writes the student to `work.output`.

    Raises Unprocessable: what the items are refused for, `teacher_fails`, `teacher_not_finite`,
    `not_a_classifier`, `labels_missing`, `dataset_labels`. Cost: one run of the teacher per example, and two trainings.
    """
    folder = work.kept or work.scratch
    seed = int(np.random.default_rng([work.seed, params.seed]).integers(2**31))
    material = Material.draw(work, copies=params.shifted_copies, seed=seed)
    taught = answers(work, material, folder=folder)
    again = f"; {taught.found:,} answers were found from an earlier attempt" if taught.found else ""
    work.journal.info(f"The teacher answered {taught.asked:,} examples with {taught.form}{again}.")
    labelled = _labelled(material, taught, needed=params.alpha == 0)
    school = School(
        material=material, answers=taught, params=params, seed=seed, folder=folder, journal=work.journal
    )
    learned = labelled if params.alpha == 0 else material.train
    student = _train(school, Lesson(name="student", train=learned, alpha=params.alpha))
    control = None
    if params.alpha > 0 and len(labelled):
        control = _train(school, Lesson(name="control", train=labelled, alpha=0.0))
    added = round(100 * (student.best.accuracy - control.best.accuracy), 2) if control else None
    work.journal.info(_in_words(school, student, control, added))
    answering = students.Answering(
        student.student, form=taught.form, dtype=work.signature.outputs[0].numpy_dtype
    )
    export(
        answering,
        work.output,
        signature=work.signature,
        example=material.inputs(material.validation[:2]),
    )
    return {
        "teacher": {
            "sha256": digest(work.input),
            "answers": taught.form,
            "examples": len(material.item),
            "accuracy": school.teacher_accuracy,
        },
        "data": material.to_json(),
        "student": student.to_json(school.measure),
        "control": control.to_json(school.measure) if control else None,
        "teacher_added_points": added,
        "evaluation_items": material.evaluation_items,
    }


def _labelled(material: Material, taught: Answers, *, needed: bool) -> Array:
    """Examples to train on whose class is known. Raises Unprocessable("labels_missing", "dataset_labels")."""
    classes = taught.logits.shape[1]
    if (most := int(material.labels.max())) >= classes:
        raise Unprocessable(
            "dataset_labels",
            "The labels are not the teacher's classes.",
            f"A label is {most}; the teacher has the classes 0 to {classes - 1}.",
        )
    known = material.train[material.labels[material.train] >= 0]
    if needed and not len(known):
        raise Unprocessable(
            "labels_missing",
            "Without its teacher a student needs labels.",
            "Choose a share of the teacher above 0, or a set with labels.",
        )
    return known


def _train(school: School, lesson: Lesson) -> Trained:
    """Student and control begin with the same weights."""
    training.settle(school.seed)
    params, material = school.params, school.material
    student = students.build(
        params.student,
        width=params.width,
        image=material.image if params.student != "mlp" else None,
        inputs=material.inputs(material.train[:SPREAD_OF]),
        classes=school.answers.logits.shape[1],
    )
    best = Training(school=school, lesson=lesson, student=student).run()
    return Trained(student=student, best=best, examples=len(lesson.train))


def _in_words(school: School, student: Trained, control: Trained | None, added: float | None) -> str:
    right = "right" if school.measure == "accuracy" else "as the teacher says"
    text = (
        f"Of {len(school.material.validation):,} validation items the student has {student.best.accuracy:.1%} {right}"
        f" (best at step {student.best.step:,})"
    )
    if school.teacher_accuracy is not None:
        text += f", the teacher {school.teacher_accuracy:.1%}"
    if control is None:
        return f"{text}. No control was trained: that takes labels and a share of the teacher."
    return (
        f"{text}, the control that saw {control.examples:,} labels and no teacher {control.best.accuracy:.1%}: "
        f"the teacher added {added:+.1f} points."
    )
