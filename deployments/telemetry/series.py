"""From pages to what happened between two of them, for each replica.

Counters only mean something as differences of two pages of one process. The first page is a baseline. When
any counter goes back, the process is a new one (or a counter wrapped, or two processes answer in turn) and
*all* of its series start over; the seconds in between stay unknown. When pages are missing for longer than
`max_gap_s`, the page after them is a baseline too: a gap stays a gap. So a rate is never negative, never
giant, never invented.

Refused: Prometheus' rule that after a reset the new value is the increase. A counter that steps back by one
would then count its whole history again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from deployments.telemetry.exposition import BadPageReason, Sample, Series
from deployments.telemetry.histogram import HistogramPage, HistogramReset, HistogramSeries
from deployments.telemetry.scraper import Failure, Scrape, Target
from deployments.telemetry.sketch import Sketch, merge
from deployments.telemetry.vocabulary import COUNTERS, GAUGES, PROCESS_START, MetricsMap, Word

# No replica serves ten million requests a second, and none holds ten million at once: such a step is a broken
# counter, not load.
_PLAUSIBLE_PER_S: Final = 1e7

# Time counters are sums that are advanced by clocks at each page, and may step back by their rounding.
_ROUNDING_S: Final = 1e-3
_TIMES: Final = frozenset({Word.QUEUE_SECONDS, Word.IN_FLIGHT_SECONDS})

_MAX_SERIES: Final = 50_000


class NoInterval(StrEnum):
    """Why a page says nothing about the time before it."""

    FAILED = "failed"
    BASELINE = "baseline"
    RESET = "reset"
    GAP = "gap"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What one replica did in the `seconds` before a page."""

    seconds: float
    requests: float
    errors: Mapping[str, float] = field(default_factory=dict)
    latency: Sketch = field(default_factory=Sketch)
    queue_depth: float | None = None
    in_flight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One scrape of one replica in canonical words.

    `queue_depth` and `in_flight` are each the larger of the gauge and what the time counter grew per second
    (Little's law: gauges are samples and may be missed, counters move late); None when neither is known.
    """

    target: Target
    at_monotonic: float
    at_wall: float
    failure: Failure | None = None
    no_interval: NoInterval | None = None
    interval: Interval | None = None
    queue_depth: float | None = None
    in_flight: float | None = None


class _Reset(Exception):
    """These counters cannot follow those of the last page."""


@dataclass(kw_only=True)
class _Page:
    """One page by what its series mean."""

    gauges: dict[Word, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, HistogramPage] = field(default_factory=dict)
    process_start: float | None = None

    def histogram(self, key: str) -> HistogramPage:
        if key not in self.histograms:
            self.histograms[key] = HistogramPage()
        return self.histograms[key]


@dataclass(frozen=True, slots=True)
class _Role:
    """What one series of the page is for; worked out once per series."""

    word: Word | None
    part: str = ""
    reason: str = ""
    scale: float = 1.0
    boundary: float = 0.0


_NO_ROLE: Final = _Role(None)


@dataclass(kw_only=True, eq=False)
class ReplicaSeries:
    """The memory of one incarnation of one replica."""

    metrics: MetricsMap
    max_gap_s: float = 6.0
    _roles: dict[str, _Role] = field(default_factory=dict, repr=False)
    _counters: dict[str, float] = field(default_factory=dict, repr=False)
    _histograms: dict[str, HistogramSeries] = field(default_factory=dict, repr=False)
    _process_start: float | None = None
    _at: float | None = None

    def observe(self, scrape: Scrape) -> Reading:
        """Takes the next scrape, in order of time. CPU only."""
        if scrape.failure is not None:
            return _failed(scrape, scrape.failure)
        page = self._sort(scrape.samples)
        if len(self._roles) > _MAX_SERIES:
            self._roles.clear()
            self._start_over(page, None)
            return _failed(scrape, BadPageReason.TOO_MANY_SERIES)
        why, interval = self._since_last(page, scrape.at_monotonic)
        return Reading(
            target=scrape.target,
            at_monotonic=scrape.at_monotonic,
            at_wall=scrape.at_wall,
            no_interval=why,
            interval=interval,
            queue_depth=_larger(
                page.gauges.get(Word.QUEUE_DEPTH), interval.queue_depth if interval else None
            ),
            in_flight=_larger(page.gauges.get(Word.IN_FLIGHT), interval.in_flight if interval else None),
        )

    def _since_last(self, page: _Page, at: float) -> tuple[NoInterval | None, Interval | None]:
        last, seconds = self._at, at - (self._at or at)
        if last is None or seconds <= 0:
            self._start_over(page, at)
            return NoInterval.BASELINE, None
        if seconds > self.max_gap_s:
            self._start_over(page, at)
            return NoInterval.GAP, None
        try:
            interval = self._interval(page, seconds)
        except (_Reset, HistogramReset):
            self._start_over(page, at)
            return NoInterval.RESET, None
        self._remember(page, at)
        return None, interval

    def _interval(self, page: _Page, seconds: float) -> Interval:
        if page.process_start != self._process_start:
            raise _Reset
        grown: dict[Word, float] = {}
        errors: dict[str, float] = {}
        most = _PLAUSIBLE_PER_S * seconds
        for text, value in page.counters.items():
            role, before = self._roles[text], self._counters.get(text, 0.0)
            step = value - before
            if step < (-_ROUNDING_S if role.word in _TIMES else 0) or step > most:
                raise _Reset
            step = max(step, 0.0)
            assert role.word is not None
            grown[role.word] = grown.get(role.word, 0.0) + step
            if role.word is Word.ERRORS and step:
                errors[role.reason] = errors.get(role.reason, 0.0) + step
        latency = merge([self._memory(key).delta(one) for key, one in page.histograms.items()])
        if latency.count > most:
            raise _Reset
        requests = grown.get(Word.REQUESTS, 0.0)
        queue_s, in_flight_s = grown.get(Word.QUEUE_SECONDS), grown.get(Word.IN_FLIGHT_SECONDS)
        return Interval(
            seconds=seconds,
            requests=requests if self.metrics.speaks(Word.REQUESTS) else float(latency.count),
            errors=errors,
            latency=latency,
            queue_depth=None if queue_s is None else queue_s / seconds,
            in_flight=None if in_flight_s is None else in_flight_s / seconds,
        )

    def _memory(self, key: str) -> HistogramSeries:
        return self._histograms.get(key) or HistogramSeries()

    def _remember(self, page: _Page, at: float | None) -> None:
        # Series that this page left out keep their value: when they come back they are not new.
        self._counters.update(page.counters)
        for key, histogram in page.histograms.items():
            self._histograms[key] = HistogramSeries(last=histogram)
        self._process_start, self._at = page.process_start, at

    def _start_over(self, page: _Page, at: float | None) -> None:
        self._counters.clear()
        self._histograms.clear()
        self._remember(page, at)

    def _sort(self, samples: Iterable[Sample]) -> _Page:
        page, roles = _Page(), self._roles
        for series, value in samples:
            role = roles.get(series.text)
            if role is None:
                role = roles[series.text] = _role(series, self.metrics)
            if role.word is None:
                if role.part == PROCESS_START:
                    page.process_start = value
            elif role.part == "gauge":
                page.gauges[role.word] = page.gauges.get(role.word, 0.0) + value * role.scale
            elif role.part == "counter":
                page.counters[series.text] = value * role.scale
            elif role.part == "bucket":
                page.histogram(role.reason).add(role.boundary, value)
            elif role.part == "sum":
                page.histogram(role.reason).sum = value * role.scale
        return page


def _role(series: Series, metrics: MetricsMap) -> _Role:
    if series.name == PROCESS_START:
        return _Role(None, PROCESS_START)
    for word in COUNTERS | GAUGES:
        source = metrics.sources.get(word)
        if source is not None and source.name == series.name and source.takes(series.labels):
            part = "counter" if word in COUNTERS else "gauge"
            return _Role(word, part, series.labels.get(source.reason_label, ""), source.scale)
    source = metrics.sources.get(Word.LATENCY)
    if source is None or not source.takes(series.labels):
        return _NO_ROLE
    group = repr(sorted((name, value) for name, value in series.labels.items() if name != "le"))
    if series.name == f"{source.name}_sum":
        return _Role(Word.LATENCY, "sum", group, source.scale)
    if series.name == f"{source.name}_bucket":
        boundary = _boundary(series.labels.get("le", ""))
        if boundary is not None:
            return _Role(Word.LATENCY, "bucket", group, source.scale, boundary * source.scale)
    return _NO_ROLE


def _boundary(text: str) -> float | None:
    try:
        boundary = float(text)
    except ValueError:
        return None
    return None if boundary != boundary else boundary


def _failed(scrape: Scrape, failure: Failure) -> Reading:
    return Reading(
        target=scrape.target,
        at_monotonic=scrape.at_monotonic,
        at_wall=scrape.at_wall,
        failure=failure,
        no_interval=NoInterval.FAILED,
    )


def _larger(gauge: float | None, derived: float | None) -> float | None:
    known = [max(value, 0.0) for value in (gauge, derived) if value is not None]
    return max(known, default=None)


@dataclass(kw_only=True, eq=False)
class SeriesBook:
    """The memory of all replicas. A replica that was replaced, by another process under its name, starts
    anew."""

    max_gap_s: float = 6.0
    _series: dict[Target, ReplicaSeries] = field(default_factory=dict, repr=False)

    def observe(self, scrape: Scrape) -> Reading:
        series = self._series.get(scrape.target)
        if series is None:
            series = ReplicaSeries(metrics=scrape.target.metrics, max_gap_s=self.max_gap_s)
            self._series[scrape.target] = series
        return series.observe(scrape)

    def keep_only(self, targets: Iterable[Target]) -> None:
        """Forgets replicas that are no longer scraped."""
        kept = set(targets)
        self._series = {target: series for target, series in self._series.items() if target in kept}
