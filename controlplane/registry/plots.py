"""The plots of a report's file as geometry: speed-ups with their intervals, the service curve, answers.

Made for a file that is read without us, so it needs no script and no address; a template turns it into SVG. What a
report lacks has no plot. Refused: a chart library, whose script would weigh more than everything else in the file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.core import formats

WIDTH = 640
LEFT, RIGHT = 110, 190
ROW, AXIS = 34, 26
CURVE_HEIGHT = 240
_STEPS = (1, 2, 2.5, 5, 10)
MOST_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value with its interval on a row of its own. `band` is what counts as no difference: its left end and width."""

    label: str
    text: str
    y: float
    at_x: float
    low_x: float
    high_x: float
    band: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Rows of intervals over one axis. `line_x` is what they are held against; `caption` says what is drawn."""

    title: str
    caption: str
    height: float
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    line_x: float | None
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT

    @property
    def floor(self) -> float:
        return self.height - AXIS

    @property
    def text_x(self) -> int:
        return self.right + 12


@dataclass(frozen=True, kw_only=True)
class Point:
    """`low_y` and `high_y` are of the quartile and the ninetieth percentile."""

    x: float
    y: float
    low_y: float
    high_y: float
    said: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    title: str
    caption: str
    path: str
    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = CURVE_HEIGHT
    left: int = LEFT
    right: int = WIDTH - 20
    floor: int = CURVE_HEIGHT - AXIS


@dataclass(frozen=True, kw_only=True)
class _Shown:
    label: str
    value: float
    low: float | None
    high: float | None
    text: str
    spread: float | None = None


def plots(data: Mapping[str, Any]) -> list[Intervals]:
    """Those of rows and intervals, in the order of the file."""
    return [drawn for drawn in (speedups(data), answers(data)) if drawn is not None]


def speedups(data: Mapping[str, Any]) -> Intervals | None:
    """On a logarithmic axis, so that twice and half as fast are equally far from the parent."""
    rows = [
        _Shown(
            label=f"Batch {timing['batch_size']}",
            value=timing["speedup"]["value"],
            low=timing["speedup"]["low"],
            high=timing["speedup"]["high"],
            text=_between(timing["speedup"], 1.0, "×"),
            spread=timing["spread"],
        )
        for timing in data.get("timings") or ()
    ]
    if not rows:
        return None
    known = [end for row in rows for end in _ends(row) if end > 0]
    bottom, top = min(0.9, *known) / 1.05, max(1.1, *known) * 1.05
    return _intervals(
        rows,
        title="Speed-up",
        caption="How many times as fast as the parent, with the interval. The grey band is the A/A spread: how far "
        "the parent is from itself on this machine.",
        low=math.log(bottom),
        high=math.log(top),
        scale=lambda value: math.log(max(value, 1e-9)),
        ticks=_ratios(bottom, top),
        unit="×",
        line=1.0,
    )


def answers(data: Mapping[str, Any]) -> Intervals | None:
    """What the parent and the variant get right, in percent; without labels, how often they agree."""
    accuracy = data.get("accuracy")
    if not accuracy:
        return None
    shares = {
        "Parent": accuracy.get("parent_accuracy"),
        "Variant": accuracy.get("variant_accuracy"),
        "Agreement": accuracy.get("agreement"),
    }
    rows = [
        _Shown(
            label=label,
            value=100 * share["value"],
            low=_times_100(share["low"]),
            high=_times_100(share["high"]),
            text=_between(share, 100.0, " %"),
        )
        for label, share in shares.items()
        if share
    ]
    if not rows:
        return None
    low = min(min(_ends(row)) for row in rows)
    high = max(max(_ends(row)) for row in rows)
    room = max(0.5, 0.08 * (high - low))
    low, high = low - room, high + room
    return _intervals(
        rows,
        title="Answers",
        caption="Percent of the items, with intervals of 95 %.",
        low=low,
        high=high,
        scale=lambda value: value,
        ticks=_round_values(low, high),
        unit=" %",
        line=None,
    )


def curve(data: Mapping[str, Any]) -> Curve | None:
    """Milliseconds of one request by its number of items. Fewer than two points are no curve."""
    points = sorted(data.get("service_curve") or (), key=lambda point: point["batch_size"])
    if len(points) < 2:
        return None
    top = max(point["p90_ms"] for point in points) * 1.05 or 1.0
    first, last = (math.log2(points[at]["batch_size"]) for at in (0, -1))
    right, floor, head = Curve.right, Curve.floor, 14

    def x(size: float) -> float:
        return round(LEFT + (math.log2(size) - first) / (last - first) * (right - LEFT - 12), 1)

    def y(ms: float) -> float:
        return round(floor - ms / top * (floor - head), 1)

    drawn = tuple(
        Point(
            x=x(point["batch_size"]),
            y=y(point["median_ms"]),
            low_y=y(point["p25_ms"]),
            high_y=y(point["p90_ms"]),
            said=f"{point['batch_size']} items: {formats.quantity(point['median_ms'], 'ms')}, "
            f"p90 {formats.quantity(point['p90_ms'], 'ms')}",
        )
        for point in points
    )
    return Curve(
        title="Service curve",
        caption="What one request of that many items takes the variant on its own, in milliseconds: the median, with a "
        "line from the first quartile to the 90th percentile.",
        path="M" + "L".join(f"{point.x} {point.y}" for point in drawn),
        points=drawn,
        x_ticks=tuple(Tick(at=x(point["batch_size"]), text=str(point["batch_size"])) for point in points),
        y_ticks=tuple(
            Tick(at=y(value), text=formats.significant(value)) for value in _round_values(0.0, top)
        ),
    )


def _intervals(
    rows: Sequence[_Shown],
    *,
    title: str,
    caption: str,
    low: float,
    high: float,
    scale: Callable[[float], float],
    ticks: Sequence[float],
    unit: str,
    line: float | None,
) -> Intervals:
    """`low` and `high` are what `scale` makes of the axis's ends. What lies beyond an end is drawn at it."""

    def x(value: float) -> float:
        share = (scale(value) - low) / (high - low)
        return round(LEFT + min(1.0, max(0.0, share)) * (WIDTH - RIGHT - LEFT), 1)

    marks = []
    for index, row in enumerate(rows):
        least, most = x(min(_ends(row))), WIDTH - RIGHT if row.high is None else x(row.high)
        band = (x(1 / (1 + row.spread)), x(1 + row.spread)) if row.spread is not None else None
        marks.append(
            Mark(
                label=row.label,
                text=row.text,
                y=ROW * (index + 0.5) + 8,
                at_x=x(row.value),
                low_x=least,
                high_x=max(most, least + 0.5),
                band=(band[0], round(band[1] - band[0], 1)) if band else None,
            )
        )
    return Intervals(
        title=title,
        caption=caption,
        height=ROW * len(rows) + 8 + AXIS,
        marks=tuple(marks),
        ticks=tuple(Tick(at=x(value), text=f"{formats.significant(float(value))}{unit}") for value in ticks),
        line_x=None if line is None else x(line),
    )


def _ends(row: _Shown) -> tuple[float, ...]:
    """Those that are known, the value among them: a report has null for infinity."""
    return tuple(end for end in (row.low, row.value, row.high) if end is not None)


def _between(estimate: Mapping[str, Any], factor: float, unit: str) -> str:
    value, low, high = (
        formats.NOTHING if estimate[end] is None else formats.significant(factor * estimate[end])
        for end in ("value", "low", "high")
    )
    return f"{value}{unit} ({low} to {high})"


def _times_100(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _ratios(low: float, high: float) -> list[float]:
    """Fractions and multiples that people read without counting, at most MOST_TICKS of them."""
    above = [1.0, 1.1, 1.25, 1.5, *(2.0**power for power in range(1, 11))]
    between = [
        value for value in (*(1 / value for value in reversed(above[1:])), *above) if low <= value <= high
    ]
    return between[:: math.ceil(len(between) / MOST_TICKS)]


def _round_values(low: float, high: float) -> list[float]:
    """Three to six round values between the ends."""
    step = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(step))
    step = next(size * factor for factor in _STEPS if size * factor >= step)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]
