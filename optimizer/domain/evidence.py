"""Reads from a report's JSON what its verdict was made of. JSON has no infinity: null stands for it."""

import math
from collections.abc import Mapping
from typing import Any

from optimizer.domain.statistics import Estimate
from optimizer.domain.verdict import Basis, Fidelity, Speed


def speeds_of(report: Mapping[str, Any]) -> tuple[Speed, ...]:
    return tuple(
        Speed(
            batch_size=timing["batch_size"],
            parent_ms=timing["parent"]["median_ms"],
            variant_ms=timing["variant"]["median_ms"],
            speedup=_estimate(timing["speedup"]),
            spread=_or_infinite(timing["spread"]),
        )
        for timing in report.get("timings") or ()
    )


def fidelity_of(report: Mapping[str, Any]) -> Fidelity | None:
    accuracy = report.get("accuracy")
    if accuracy is None:
        return None
    return Fidelity(
        basis=Basis(accuracy["basis"]),
        loss=_estimate(accuracy["loss"]),
        measure=accuracy.get("measure", "accuracy"),
    )


def _estimate(value: Mapping[str, Any]) -> Estimate:
    return Estimate(**{**value, "high": _or_infinite(value["high"])})


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
