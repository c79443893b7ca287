"""What a cumulative Prometheus histogram counted since the last page, as a sketch.

Two kinds. *Exact*: every boundary is an edge of the sketch's own rule and stands for one bucket of it, empty
ones left out (what our replicas print), so counts map back without loss. *Coarse*: any other boundaries;
their counts are spread and the sketch says so.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from deployments.telemetry.sketch import EMPTY, SLOTS, Sketch, slot_of_boundary

type Floats = npt.NDArray[np.float64]

# Counts above this are not exact in a float, and no window of ours holds as many.
MAX_COUNT: Final = 2.0**53


# Pages repeat their boundaries; finding the slot of one takes a logarithm and an exponential.
_slot_of = lru_cache(maxsize=8192)(slot_of_boundary)


class HistogramReset(Exception):
    """The histogram went back, lost buckets or contradicts itself: this page can only be a new baseline."""


@dataclass(kw_only=True)
class HistogramPage:
    """One histogram (one set of labels without `le`) as one page shows it."""

    buckets: dict[float, float] = field(default_factory=dict)
    count: float = 0.0
    sum: float = 0.0

    def add(self, boundary: float, cumulative: float) -> None:
        if math.isinf(boundary):
            self.count = cumulative
        else:
            self.buckets[boundary] = cumulative


@dataclass(kw_only=True)
class HistogramSeries:
    """Remembers the last page of one histogram. Start it with an empty page for one that is new in a
    process."""

    last: HistogramPage = field(default_factory=HistogramPage)

    def delta(self, page: HistogramPage) -> Sketch:
        """What `page` counts beyond the last one. Raises HistogramReset; changes nothing."""
        grown = page.count - self.last.count
        if grown == 0 and page.sum >= self.last.sum and len(page.buckets) == len(self.last.buckets):
            return EMPTY
        if not 0 <= grown <= MAX_COUNT:
            raise HistogramReset
        total = max(page.sum - self.last.sum, 0.0)
        now, before = _ascending(page), _ascending(self.last)
        if None in map(_slot_of, now):
            return _coarse(now, before, count=grown, total=total)
        return _exact(now, before, count=grown, total=total)


def _ascending(page: HistogramPage) -> dict[float, float]:
    boundaries = list(page.buckets)
    if all(low < high for low, high in pairwise(boundaries)):
        return page.buckets
    return dict(sorted(page.buckets.items()))


def _per_bucket(cumulative: dict[float, float]) -> tuple[Floats, Floats]:
    counts: Floats = np.diff(np.fromiter(cumulative.values(), np.float64), prepend=0.0)
    return np.fromiter(cumulative, np.float64), counts


def _exact(now: dict[float, float], before: dict[float, float], *, count: float, total: float) -> Sketch:
    boundaries, grown = _per_bucket(now)
    if before:
        old_boundaries, old_counts = _per_bucket(before)
        places = np.searchsorted(boundaries, old_boundaries)
        if places[-1] >= boundaries.size or not np.array_equal(boundaries[places], old_boundaries):
            raise HistogramReset
        grown[places] -= old_counts
    if (grown < 0).any():
        raise HistogramReset
    counts = {
        slot: round(grown[place])
        for place in np.flatnonzero(grown)
        if (slot := _slot_of(float(boundaries[place]))) is not None
    }
    beyond = max(round(count) - sum(counts.values()), 0)
    if beyond:
        counts[SLOTS - 1] = counts.get(SLOTS - 1, 0) + beyond
    return Sketch.from_slots(counts, sum=total, clamped=beyond)


def _coarse(now: dict[float, float], before: dict[float, float], *, count: float, total: float) -> Sketch:
    if before and now.keys() != before.keys():
        raise HistogramReset
    grown = np.fromiter(now.values(), np.float64)
    if before:
        grown = grown - np.fromiter(before.values(), np.float64)
    if grown.size and (grown[0] < 0 or (np.diff(grown) < 0).any() or grown[-1] > count):
        raise HistogramReset
    return Sketch.from_coarse(list(now), grown.tolist(), count=count, sum=total)
