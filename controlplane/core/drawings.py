"""Small pictures as SVG path data, drawn on the server: sparklines, intervals and plots.

Geometry only, in attributes, because a strict policy allows no style attribute and a picture that needs no
script is there when the page is. Refused: a chart library for a line of 60 points.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sparkline:
    """`line` and `area` are path data; gaps in the values are gaps in both. `last` is (x, y) or None."""

    width: int
    height: int
    line: str
    area: str
    last: tuple[float, float] | None
    target_y: float | None


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Positions on a bar of `width`: the parent's line, both ends and the estimate."""

    width: int
    parent_x: float
    low_x: float
    high_x: float
    at_x: float


@dataclass(frozen=True, kw_only=True)
class Plot:
    """`lines` are path data of lines that share both axes: x from 0 to the largest, y from `low` to `high`."""

    width: int
    height: int
    lines: tuple[str, ...]
    low: float
    high: float


def plot(lines: Sequence[Sequence[tuple[float, float]]], *, width: int = 320, height: int = 96) -> Plot:
    """`lines` of (x, y) in order of x, all finite and none negative in x. Lines that never move lie in the middle."""
    points = [point for line in lines for point in line]
    right = max((x for x, _ in points), default=0.0) or 1.0
    low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=0.0)
    pad = 2.0

    def place(x: float, y: float) -> tuple[float, float]:
        share = (y - low) / (high - low) if high > low else 0.5
        return round(pad + x / right * (width - 2 * pad), 1), round(
            height - pad - share * (height - 2 * pad), 1
        )

    drawn = tuple(_line([place(*point) for point in line]) if line else "" for line in lines)
    return Plot(width=width, height=height, lines=drawn, low=low, high=high)


def sparkline(
    values: Sequence[float | None], *, width: int = 96, height: int = 24, target: float | None = None
) -> Sparkline:
    """The scale runs from 0 to the larger of the highest value and the target; a flat zero lies on the floor."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    top = max([*known, target or 0.0], default=0.0) or 1.0
    pad = 2.0

    def y(value: float) -> float:
        return round(height - pad - max(value, 0.0) / top * (height - 2 * pad), 1)

    step = (width - 2 * pad) / max(len(values) - 1, 1)
    points = [
        (round(pad + index * step, 1), None if value is None or not math.isfinite(value) else y(value))
        for index, value in enumerate(values)
    ]
    runs = list(_runs(points))
    floor = height - pad
    return Sparkline(
        width=width,
        height=height,
        line="".join(_line(run) for run in runs),
        area="".join(
            f"{_line(run)}L{run[-1][0]} {floor}L{run[0][0]} {floor}Z" for run in runs if len(run) > 1
        ),
        last=runs[-1][-1] if runs else None,
        target_y=y(target) if target else None,
    )


def interval(*, ratio: float, low: float, high: float, span: float, width: int = 120) -> Interval:
    """A ratio to the parent with its interval, on a logarithmic bar from 1/span to span; 1 lies in the middle.

    Logarithmic, so that twice as fast and half as fast are equally far from the parent.
    """
    reach = math.log(max(span, 1.01))

    def x(value: float) -> float:
        share = math.log(max(value, 1e-9)) / reach
        return round(width / 2 * (1 + min(1.0, max(-1.0, share))), 1)

    return Interval(width=width, parent_x=width / 2, low_x=x(low), high_x=x(high), at_x=x(ratio))


def _runs(points: Iterable[tuple[float, float | None]]) -> Iterable[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None:
            run.append((x, y))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(run: Sequence[tuple[float, float]]) -> str:
    """A lone point is drawn as a short dash, or a gap on both sides would hide it."""
    (x, y), *rest = run
    return f"M{x} {y}" + ("".join(f"L{next_x} {next_y}" for next_x, next_y in rest) or "h0.1")
