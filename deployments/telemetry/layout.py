"""What the series of a page mean, worked out once for as long as a replica prints the same ones.

Reading a page then is picking numbers from known places: 20 us for a page with 110 latency buckets, against
160 for asking each series at each scrape what it is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from deployments.telemetry.exposition import Page, Series
from deployments.telemetry.histogram import Buckets, Histogram
from deployments.telemetry.vocabulary import COUNTERS, GAUGES, PROCESS_START, MetricsMap, Source, Word

_INFINITE: Final = math.inf


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Single:
    """The place of a gauge or a counter."""

    place: int
    text: str
    word: Word
    reason: str
    scale: float


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

    buckets: dict[float, int] = field(default_factory=dict)
    sum: int | None = None

    def done(self, key: str, scale: float) -> _Group:
        finite = sorted(boundary for boundary in self.buckets if boundary < _INFINITE)
        return _Group(
            key=key,
            buckets=Buckets.of(np.array(finite, np.float64)),
            places=np.array([self.buckets[boundary] for boundary in finite], np.intp),
            count=self.buckets.get(_INFINITE),
            sum=self.sum,
            scale=scale,
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where on a page each word stands."""

    series: tuple[Series, ...]
    gauges: tuple[_Single, ...]
    counters: tuple[_Single, ...]
    groups: tuple[_Group, ...]
    process_start: int | None

    @classmethod
    def of(cls, series: tuple[Series, ...], metrics: MetricsMap) -> Self:
        starts = [place for place, one in enumerate(series) if one.name == PROCESS_START]
        return cls(
            series=series,
            gauges=tuple(_singles(series, metrics, GAUGES)),
            counters=tuple(_singles(series, metrics, COUNTERS)),
            groups=tuple(_groups(series, metrics.sources.get(Word.LATENCY))),
            process_start=starts[0] if starts else None,
        )

    def read(self, page: Page) -> Seen:
        """The values of a page that has exactly these series."""
        values = page.values
        gauges: dict[Word, float] = {}
        for one in self.gauges:
            gauges[one.word] = gauges.get(one.word, 0.0) + values[one.place] * one.scale
        array = np.array(values, np.float64) if self.groups else np.empty(0)
        return Seen(
            gauges=gauges,
            counts=[
                Count(text=one.text, word=one.word, reason=one.reason, value=values[one.place] * one.scale)
                for one in self.counters
            ],
            histograms={group.key: group.read(array) for group in self.groups},
            process_start=None if self.process_start is None else values[self.process_start],
        )


def _singles(series: tuple[Series, ...], metrics: MetricsMap, words: frozenset[Word]) -> Iterable[_Single]:
    sources = [(word, metrics.sources[word]) for word in words if word in metrics.sources]
    for place, one in enumerate(series):
        for word, source in sources:
            if source.name == one.name and source.takes(one.labels):
                reason = one.labels.get(source.reason_label, "") if word is Word.ERRORS else ""
                yield _Single(place=place, text=one.text, word=word, reason=reason, scale=source.scale)


def _groups(series: tuple[Series, ...], source: Source | None) -> Iterable[_Group]:
    if source is None:
        return []
    drafts: dict[str, _Draft] = {}
    for place, one in enumerate(series):
        if not one.name.startswith(source.name) or not source.takes(one.labels):
            continue
        part = one.name[len(source.name) :]
        boundary = _boundary(one.labels.get("le", "")) if part == "_bucket" else None
        if part != "_sum" and boundary is None:
            continue
        key = repr(sorted((name, value) for name, value in one.labels.items() if name != "le"))
        draft = drafts.setdefault(key, _Draft())
        if boundary is None:
            draft.sum = place
        else:
            draft.buckets[boundary * source.scale] = place
    return [draft.done(key, source.scale) for key, draft in drafts.items()]


def _boundary(text: str) -> float | None:
    try:
        boundary = float(text)
    except ValueError:
        return None
    return None if math.isnan(boundary) else boundary
