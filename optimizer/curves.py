"""Curves of a job that learns, made from the points in its log: nothing else is stored.

A later attempt says the steps after its checkpoint again; of points with the same step the last one counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.core import drawings
from optimizer.models import JobEvent


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    path: str
    last: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One value of all curves that have it. `rows` are (step, value per line or None), the newest first."""

    name: str
    plot: drawings.Plot
    lines: list[Line]
    rows: list[tuple[int, list[float | None]]]

    @property
    def steps(self) -> int:
        return self.rows[0][0]


def in_words(point: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in point["values"].items())
    return f"{point['curve']}, step {point['step']:,}: {values}"


def recorded(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: point[name] for name in ("curve", "step", "values")}


def charts(points: Iterable[JobEvent]) -> list[Chart]:
    """One for each value that the points have, in the order in which they were first said."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for point in points:
        for name, value in point.data["values"].items():
            found.setdefault(name, {}).setdefault(point.data["curve"], {})[point.data["step"]] = value
    return [_chart(name, curves) for name, curves in found.items()]


def _chart(name: str, curves: Mapping[str, Mapping[int, float]]) -> Chart:
    lines = [sorted(curve.items()) for curve in curves.values()]
    plot = drawings.plot(lines)
    steps = sorted({step for curve in curves.values() for step in curve}, reverse=True)
    return Chart(
        name=name,
        plot=plot,
        lines=[
            Line(name=curve, path=path, last=line[-1][1])
            for curve, path, line in zip(curves, plot.lines, lines, strict=True)
        ],
        rows=[(step, [curve.get(step) for curve in curves.values()]) for step in steps],
    )
