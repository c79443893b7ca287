"""What distillation earns on scikit-learn's digits: speed against its teacher, and points against labels alone.

The teacher is trained here, students come from the product's own technique, and every figure from the product's own
report on 540 images that neither has seen.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.benchmarks.children import Model, apply, report
from tests.benchmarks.digits import Digits, digits
from tests.benchmarks.optimizer_speedup_rows import Speed, at_size
from tests.benchmarks.result import Row

SPEED_UP, LOSS_POINTS, EARNED_POINTS = 15.0, 1.0, 5.0
RUNS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "teacher and labels": ("labelled", {}),
    "labels only": ("labelled", {"alpha": 0.0}),
    "teacher, no labels": ("unlabelled", {"alpha": 1.0}),
    "teacher, 10 % labels": ("tenth", {}),
    "10 % labels only": ("tenth", {"alpha": 0.0}),
}


def run(*, full: bool) -> list[Row]:
    seeds = range(3) if full else range(1)
    with digits() as desk:
        kept = desk.folder / "kept"
        kept.mkdir()
        found: dict[str, list[float]] = {name: [] for name in RUNS}
        reports = []
        for seed in seeds:
            for name, (items, params) in RUNS.items():
                print(f"  {name}, seed {seed}", file=sys.stderr, flush=True)
                asked = {"steps": 2000 if full else 800, "seed": seed} | params
                student, said = apply(
                    "distill",
                    asked,
                    desk.exported,
                    folder=desk.folder,
                    calibration=desk.sets[items],
                    kept=kept,
                )
                judged = _judged(desk, student, budget_s=30.0 if name == "teacher and labels" else 8.0)
                found[name].append(100 * judged["accuracy"]["variant_accuracy"]["value"])
                if name == "teacher and labels":
                    reports.append(judged)
                elif "answers were found" not in "".join(said):
                    raise RuntimeError("the teacher was asked again")
        return [*_speed(reports), *_accuracy(found, teacher=reports[0])]


def _judged(desk: Digits, student: Model, *, budget_s: float) -> dict[str, Any]:
    test, signature = desk.sets["test"], desk.exported.signature
    return report(desk.exported, student, signature=signature, evaluation=test, budget_s=budget_s)


def _speed(reports: list[dict[str, Any]]) -> Iterator[Row]:
    for size in (1, 8):
        runs = [Speed.all_of(report) for report in reports]
        slowest = min(runs, key=lambda speeds: speeds[size].value if size in speeds else 0.0)
        yield at_size("student against its teacher, one thread", slowest, size, mark=SPEED_UP)
    worst = max((report["accuracy"]["loss"] for report in reports), key=lambda found: found["value"])
    yield Row(
        metric="accuracy lost to its teacher",
        value=100 * worst["value"],
        unit="points",
        target=f"<= {LOSS_POINTS:g}",
        met=100 * worst["value"] <= LOSS_POINTS,
        n=worst["n"],
        spread=(100 * worst["low"], 100 * worst["high"]),
    )


def _accuracy(found: Mapping[str, list[float]], *, teacher: dict[str, Any]) -> Iterator[Row]:
    right = teacher["accuracy"]["parent_accuracy"]
    yield Row(metric="accuracy of the teacher", value=100 * right["value"], unit="%", n=right["n"])
    for name, values in found.items():
        yield Row(
            metric=f"accuracy of a student of {name}",
            value=float(np.mean(values)),
            unit="%",
            n=len(values),
            spread=(min(values), max(values)),
        )
    earned = float(np.mean(found["teacher, no labels"])) - float(np.mean(found["10 % labels only"]))
    yield Row(
        metric="earned on unlabelled inputs over 10 % labels",
        value=earned,
        unit="points",
        target=f">= {EARNED_POINTS:g}",
        met=earned >= EARNED_POINTS,
        n=len(found["10 % labels only"]),
    )
