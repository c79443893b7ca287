"""What a cumulative Prometheus histogram counted since the last page, as a sketch.

Two kinds. *Exact*: every boundary is an edge of the sketch's own rule and stands for one bucket of it, empty
ones left out (what our replicas print), so counts map back without loss. *Coarse*: any other boundaries;
their counts are spread and the sketch says so.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from deployments.domain.sketch import EMPTY, SLOTS, Sketch, slot_of_boundary

type Floats = npt.NDArray[np.float64]

# Counts above this are not exact in a float, and no window of ours holds as many.
MAX_COUNT: Final = 2.0**53

# The sketch's top, eleven days: a request that took longer is a broken sum.
_LONGEST_S: Final = 1e6

# Pages repeat their boundaries; finding the slot of one takes a logarithm and an exponential.
_slot_of = lru_cache(maxsize=8192)(slot_of_boundary)


class HistogramReset(Exception):
    """The histogram went back, lost buckets, contradicts itself or holds numbers beyond belief: this page can only
    be a new baseline."""


@dataclass(frozen=True, eq=False)
class Buckets:
    """The finite boundaries of a histogram, ascending, and the sketch's slots for them unless it is
    coarse."""

    boundaries: Floats
    slots: npt.NDArray[np.uint16] | None

    @classmethod
    def of(cls, boundaries: Floats) -> Self:
        slots = [_slot_of(boundary) for boundary in boundaries.tolist()]
        known = [slot for slot in slots if slot is not None]
        return cls(boundaries, np.array(known, np.uint16) if len(known) == len(slots) else None)


@dataclass(frozen=True, eq=False)
class Histogram:
    """One histogram (one set of labels without `le`) as one page shows it: a cumulative count per bucket."""

    buckets: Buckets
    cumulative: Floats
    count: float
    sum: float

    def since(self, last: "Histogram") -> Sketch:
        """What this page counts beyond the last one of its process (`NO_HISTOGRAM` if it had none). Raises
        HistogramReset."""
        grown = self.count - last.count
        if grown == 0 and np.array_equal(self.cumulative, last.cumulative):
            return EMPTY
        total = max(self.sum - last.sum, 0.0)
        if not 0 <= grown <= MAX_COUNT or total > grown * _LONGEST_S:
            raise HistogramReset
        if not (_believable(self.cumulative) and _believable(last.cumulative)):
            raise HistogramReset
        if self.buckets.slots is None:
            return self._coarse_since(last, count=grown, total=total)
        return self._exact_since(last, self.buckets.slots, count=round(grown), total=total)

    def _exact_since(
        self, last: "Histogram", slots: npt.NDArray[np.uint16], *, count: int, total: float
    ) -> Sketch:
        if last.buckets is self.buckets:
            grown: Floats = _steps(self.cumulative - last.cumulative)
        else:
            grown = _steps(self.cumulative)
            grown[_places(last.buckets.boundaries, self.buckets.boundaries)] -= _steps(last.cumulative)
        if (grown < 0).any():
            raise HistogramReset
        used = np.flatnonzero(grown)
        counts = np.rint(grown[used]).astype(np.int64)
        beyond = count - int(counts.sum())
        if beyond < 0:
            raise HistogramReset
        if beyond == 0:
            return Sketch(slots[used], counts, total)
        counted = dict(zip(slots[used].tolist(), counts.tolist(), strict=True))
        counted[SLOTS - 1] = counted.get(SLOTS - 1, 0) + beyond
        return Sketch.from_slots(counted, sum=total, clamped=beyond)

    def _coarse_since(self, last: "Histogram", *, count: float, total: float) -> Sketch:
        grown = self.cumulative
        if last.buckets.boundaries.size:
            if not np.array_equal(last.buckets.boundaries, self.buckets.boundaries):
                raise HistogramReset
            grown = grown - last.cumulative
        if (_steps(grown) < 0).any() or grown[-1] > count:
            raise HistogramReset
        return Sketch.from_coarse(self.buckets.boundaries.tolist(), grown.tolist(), count=count, sum=total)


NO_HISTOGRAM: Final = Histogram(Buckets.of(np.empty(0)), np.empty(0), 0.0, 0.0)


def _believable(cumulative: Floats) -> bool:
    return bool((np.abs(cumulative) <= MAX_COUNT).all())


def _steps(cumulative: Floats) -> Floats:
    steps = cumulative.copy()
    steps[1:] -= cumulative[:-1]
    return steps


def _places(some: Floats, among: Floats) -> npt.NDArray[np.intp]:
    """Where each of `some` stands in `among`; HistogramReset when one does not."""
    places = np.searchsorted(among, some)
    if some.size and (places[-1] >= among.size or not np.array_equal(among[places], some)):
        raise HistogramReset
    return places
