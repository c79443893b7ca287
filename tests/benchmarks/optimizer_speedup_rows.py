"""The rows of S5, from the product's reports: three outcomes each, because a noisy machine shows neither yes nor no."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.benchmarks.result import VOID_ABOVE, Row

NOT_WORSE = 0.97
SAME_LOSS = 0.001
"""A tenth of a point."""
NOISE_FACTOR = 3.0
"""A gap that is smaller than so many A/A spreads says nothing, as in the product's verdicts."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """At one batch size: how much faster the second is, with its interval. `noise`: the first against itself."""

    size: int
    first_ms: float
    second_ms: float
    value: float
    low: float
    high: float
    n: int
    noise: float

    @classmethod
    def all_of(cls, report: Mapping[str, Any]) -> dict[int, Self]:
        return {
            timing["batch_size"]: cls(
                size=timing["batch_size"],
                first_ms=timing["parent"]["median_ms"],
                second_ms=timing["variant"]["median_ms"],
                noise=timing["spread"],
                **{name: timing["speedup"][name] for name in ("value", "low", "high", "n")},
            )
            for timing in report["timings"]
        }

    def reaches(self, mark: float) -> bool | None:
        """None where noise decides: on a busy machine only what is far beyond it is an answer."""
        beyond, limit = self.value / mark - 1, NOISE_FACTOR * self.noise
        if self.low >= mark and beyond > limit:
            return True
        if self.high < mark and -beyond > limit:
            return False
        return True if beyond >= 0 and self.noise <= VOID_ABOVE - 1 else None

    def row(self, what: str, *, mark: float | None = None, target: str = "", met: bool | None = None) -> Row:
        """Against `mark`, unless `met` is known already."""
        return Row(
            metric=f"{what}, batch {self.size} (A/A {100 * self.noise:.1f} %)",
            value=self.second_ms,
            unit="ms",
            baseline=self.first_ms,
            ratio=self.value,
            target=target or (f">= {mark:g}x" if mark else ""),
            met=self.reaches(mark) if mark and met is None else met,
            n=self.n,
            spread=(self.low, self.high),
        )


def against_peer(what: str, speed: Speed, accuracy: Mapping[str, Any]) -> Row:
    """Not met at more loss than the peer's. At less loss a slower result is no worse one: that is told, not judged."""
    theirs, ours = (accuracy[f"{side}_accuracy"]["value"] for side in ("parent", "variant"))
    loss = accuracy["loss"]
    what = f"{what}, {accuracy['measure']} {ours:.4f} to its {theirs:.4f}"
    if loss["high"] < -SAME_LOSS and speed.value < NOT_WORSE:
        return speed.row(f"{what}, too far apart to be compared")
    loses_more = loss["low"] > SAME_LOSS
    target = f">= {NOT_WORSE:g}x at the same loss"
    return speed.row(what, mark=NOT_WORSE, target=target, met=False if loses_more else None)


def at_size(what: str, speeds: Mapping[int, Speed], size: int, *, mark: float | None) -> Row:
    """A report leaves out a batch that would take far longer than its budget, on a machine that is busy."""
    if size in speeds:
        return speeds[size].row(what, mark=mark)
    return Row(metric=f"{what}, batch {size}: this machine was too busy to time it", value=None, unit="ms")


def score(what: str, accuracy: Mapping[str, Any], *, mark: float) -> Row:
    found = accuracy["variant_accuracy"]
    return Row(
        metric=what,
        value=found["value"],
        unit="",
        target=f">= {mark:g}",
        met=round(found["value"], 3) >= mark,
        n=found["n"],
        spread=(found["low"], found["high"]),
    )
