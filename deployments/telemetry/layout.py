"""What the series of a page mean, worked out once for as long as a replica prints the same ones.

Reading a page then is picking numbers from known places: 20 us for a page with 110 latency buckets, against
160 for asking each series at each scrape what it is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from sys import intern
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from deployments.domain.vocabulary import COUNTERS, GAUGES, PROCESS_START, MetricsMap, Source, Word
from deployments.telemetry.exposition import Page, Series
from deployments.telemetry.histogram import Buckets, Histogram

LONGEST_REASON: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A counter's value, in canonical units. `text` is the series; `reason` tells errors apart."""

    text: str
    word: Word
    reason: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One page by what its series mean. Gauges of one word are summed; histograms are keyed by their
    labels."""

    gauges: Mapping[Word, float]
    counts: Sequence[Count]
    histograms: Mapping[str, Histogram]
    process_start: float | None


class _Part(Enum):
    GAUGE = auto()
    COUNTER = auto()
    BUCKET = auto()
    SUM = auto()
    PROCESS_START = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    """What one series is for. `key` is the reason of an error, or the labels of a histogram without `le`."""

    part: _Part
    word: Word = Word.LATENCY
    scale: float = 1.0
    key: str = ""
    boundary: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The places of one histogram's series, its buckets ascending."""

    key: str
    buckets: Buckets
    places: npt.NDArray[np.intp]
    count: int | None
    sum: int | None
    scale: float

    def read(self, values: npt.NDArray[np.float64]) -> Histogram:
        return Histogram(
            self.buckets,
            values[self.places],
            0.0 if self.count is None else float(values[self.count]),
            0.0 if self.sum is None else float(values[self.sum]) * self.scale,
        )


@dataclass(kw_only=True, eq=False)
class _Draft:
    """A histogram's places while they are collected."""

    scale: float
    buckets: dict[float, int] = field(default_factory=dict)
    sum: int | None = None

    def done(self, key: str) -> _Group:
        finite = sorted(boundary for boundary in self.buckets if boundary < math.inf)
        return _Group(
            key=key,
            buckets=Buckets.of(np.array(finite, np.float64)),
            places=np.array([self.buckets[boundary] for boundary in finite], np.intp),
            count=self.buckets.get(math.inf),
            sum=self.sum,
            scale=self.scale,
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where on a page each word stands. A replica's next layout is made `after` the last one: most of its
    series are the same."""

    series: tuple[Series, ...]
    _roles: Mapping[Series, _Role | None]
    _gauges: Sequence[tuple[int, _Role]]
    _counters: Sequence[tuple[int, _Role]]
    _groups: Sequence[_Group]
    _process_start: int | None

    @classmethod
    def of(cls, series: tuple[Series, ...], metrics: MetricsMap, *, after: "Layout | None" = None) -> Self:
        known: Mapping[Series, _Role | None] = after._roles if after is not None else {}
        roles = {one: known[one] if one in known else _role(one, metrics) for one in series}
        placed = [(place, role) for place, one in enumerate(series) if (role := roles[one]) is not None]
        starts = [place for place, role in placed if role.part is _Part.PROCESS_START]
        return cls(
            series=series,
            _roles=roles,
            _gauges=[(place, role) for place, role in placed if role.part is _Part.GAUGE],
            _counters=[(place, role) for place, role in placed if role.part is _Part.COUNTER],
            _groups=_groups(placed),
            _process_start=starts[0] if starts else None,
        )

    def read(self, page: Page) -> Seen:
        """The values of a page that has exactly these series."""
        values = page.values
        gauges: dict[Word, float] = {}
        for place, role in self._gauges:
            gauges[role.word] = gauges.get(role.word, 0.0) + values[place] * role.scale
        array = np.array(values, np.float64) if self._groups else np.empty(0)
        return Seen(
            gauges=gauges,
            counts=[
                Count(
                    text=self.series[place].text,
                    word=role.word,
                    reason=role.key,
                    value=values[place] * role.scale,
                )
                for place, role in self._counters
            ],
            histograms={group.key: group.read(array) for group in self._groups},
            process_start=None if self._process_start is None else values[self._process_start],
        )


def _groups(placed: Iterable[tuple[int, _Role]]) -> list[_Group]:
    drafts: dict[str, _Draft] = {}
    for place, role in placed:
        if role.part is _Part.BUCKET or role.part is _Part.SUM:
            draft = drafts.get(role.key)
            if draft is None:
                draft = drafts[role.key] = _Draft(scale=role.scale)
            if role.part is _Part.SUM:
                draft.sum = place
            else:
                draft.buckets[role.boundary] = place
    return [draft.done(key) for key, draft in drafts.items()]


def _role(series: Series, metrics: MetricsMap) -> _Role | None:
    if series.name == PROCESS_START:
        return _Role(part=_Part.PROCESS_START)
    for word, source in metrics.sources.items():
        if word in COUNTERS | GAUGES and source.name == series.name and source.takes(series.labels):
            part = _Part.COUNTER if word in COUNTERS else _Part.GAUGE
            reason = _reason(series.labels.get(source.reason_label, "")) if word is Word.ERRORS else ""
            return _Role(part=part, word=word, scale=source.scale, key=reason)
    latency = metrics.sources.get(Word.LATENCY)
    return _latency_role(series, latency) if latency is not None and latency.takes(series.labels) else None


def _reason(text: str) -> str:
    """As it may be stored and shown: a user's model may write anything here."""
    shown = text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)
    return shown[:LONGEST_REASON]


def _latency_role(series: Series, source: Source) -> _Role | None:
    key = intern(repr(sorted((name, value) for name, value in series.labels.items() if name != "le")))
    if series.name == f"{source.name}_sum":
        return _Role(part=_Part.SUM, scale=source.scale, key=key)
    boundary = _boundary(series.labels.get("le", ""))
    if series.name != f"{source.name}_bucket" or boundary is None:
        return None
    return _Role(part=_Part.BUCKET, scale=source.scale, key=key, boundary=boundary * source.scale)


def _boundary(text: str) -> float | None:
    try:
        boundary = float(text)
    except ValueError:
        return None
    return None if math.isnan(boundary) else boundary
