"""From readings to windows, and from windows to longer ones: the arithmetic of the charts' memory.

A window holds sums, weighted means and one merged sketch, so windows of the same kind add up without loss: 10
s into 1 min into 15 min. What was not observed is not there: `observed_s` is the time that the counts stand
for, a window without it is a gap, and a rate is counts over observed time.

Each reading is counted at three places: its replica (5 s), its revision and its deployment (10 s). The last
is kept beside the revisions because queue depths of two revisions do not add up from their means.

Refused: splitting an interval's counts over the two windows it touches. It goes whole to the one that holds
its middle, and the rate stays right because its seconds go with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, NamedTuple, Self

from deployments.domain.sketch import Sketch, merge, merge_bytes
from deployments.telemetry.series import Interval, Reading
from deployments.telemetry.signals import DeploymentSignals, SignalName

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution that is stored, and for how long."""

    resolution_s: int
    keep_s: int


REPLICA_LEVEL: Final = Level(resolution_s=5, keep_s=2 * HOUR_S)
DEPLOYMENT_LEVELS: Final = (
    Level(resolution_s=10, keep_s=DAY_S),
    Level(resolution_s=60, keep_s=30 * DAY_S),
    Level(resolution_s=900, keep_s=365 * DAY_S),
)

# As many reasons for errors as a person reads; a model that invents one per request must not fill the table.
MOST_REASONS: Final = 20
OTHER_REASONS: Final = "other"

# A clock that was set back further than this begins again; by less, the open window waits for it.
_CLOCK_SLACK_S: Final = 60


class WindowKey(NamedTuple):
    """Whose time it is: a deployment's, or a revision's of it, or a replica's. `ts` is the start, epoch
    seconds. A tuple, because three are made and looked up for every scrape."""

    ts: int
    resolution_s: int
    deployment: str
    revision: int | None = None
    replica: str | None = None


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How many known levels each mean of a window is made of: what one is not known for, another may be."""

    queue_depth: int = 0
    in_flight: int = 0
    replicas: int = 0

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            queue_depth=self.queue_depth + other.queue_depth,
            in_flight=self.in_flight + other.in_flight,
            replicas=self.replicas + other.replicas,
        )


@dataclass(frozen=True, kw_only=True)
class Window:
    """One row. Means and maxima are None when no level was known."""

    key: WindowKey
    observed_s: float = 0.0
    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: bytes = b""
    levels: Levels = Levels()
    queue_depth_mean: float | None = None
    queue_depth_max: float | None = None
    in_flight_mean: float | None = None
    in_flight_max: float | None = None
    replicas_ready: float | None = None
    scrapes_ok: int = 0
    scrapes_failed: int = 0

    @property
    def throughput(self) -> float | None:
        """Requests per second; None in a gap."""
        return self.requests / self.observed_s if self.observed_s > 0 else None

    @property
    def error_rate(self) -> float | None:
        """Share of requests that failed; None without requests."""
        return min(sum(self.errors.values()) / self.requests, 1.0) if self.requests else None


@dataclass(kw_only=True, eq=False)
class _Mean:
    """A running mean and maximum."""

    count: int = 0
    total: float = 0.0
    highest: float | None = None

    def add(self, value: float | None) -> None:
        if value is not None:
            self.count += 1
            self.total += value
            self.highest = value if self.highest is None else max(self.highest, value)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(kw_only=True, eq=False)
class _Cell:
    """An open window."""

    per_replica: dict[str, tuple[float, float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    sketches: list[Sketch] = field(default_factory=list)
    queue_depth: _Mean = field(default_factory=_Mean)
    in_flight: _Mean = field(default_factory=_Mean)
    ready: _Mean = field(default_factory=_Mean)
    scrapes_ok: int = 0
    scrapes_failed: int = 0

    def count(self, replica: str, interval: Interval) -> None:
        requests, seconds = self.per_replica.get(replica, (0.0, 0.0))
        self.per_replica[replica] = (requests + interval.requests, seconds + interval.seconds)
        _add_errors(self.errors, interval.errors)
        if interval.latency.counts.size:
            self.sketches.append(interval.latency)

    def level(self, *, queue_depth: float | None, in_flight: float | None, ready: int | None) -> None:
        self.queue_depth.add(queue_depth)
        self.in_flight.add(in_flight)
        self.ready.add(ready)

    def window(self, key: WindowKey, *, period_s: float) -> Window:
        return Window(
            key=key,
            observed_s=_observed_s(self.per_replica.values(), period_s=period_s),
            requests=round(sum(requests for requests, _ in self.per_replica.values())),
            errors={reason: round(number) for reason, number in self.errors.items()},
            latency=merge(self.sketches).to_bytes(),
            levels=Levels(
                queue_depth=self.queue_depth.count, in_flight=self.in_flight.count, replicas=self.ready.count
            ),
            queue_depth_mean=self.queue_depth.mean,
            queue_depth_max=self.queue_depth.highest,
            in_flight_mean=self.in_flight.mean,
            in_flight_max=self.in_flight.highest,
            replicas_ready=self.ready.mean,
            scrapes_ok=self.scrapes_ok,
            scrapes_failed=self.scrapes_failed,
        )


def _observed_s(replicas: Iterable[tuple[float, float]], *, period_s: float) -> float:
    """The wall time that these (requests, seconds) of replicas stand for together.

    The rate is the sum of the replicas' own rates. One that was seen for clearly less of the window than the
    others (it came, went, or failed) weighs by its share; one interval more or less is only the phase.
    """
    seen = [(requests, seconds) for requests, seconds in replicas if seconds > 0]
    longest = max((seconds for _, seconds in seen), default=0.0)
    rate = sum(
        requests / (seconds if seconds >= longest - 1.5 * period_s else longest) for requests, seconds in seen
    )
    return sum(requests for requests, _ in seen) / rate if rate else longest


@dataclass(kw_only=True, eq=False)
class Accumulator:
    """Collects readings and signals into open windows and hands out those that are over.

    Times are the collector's wall clock. Nothing is ever added to a window that was handed out: what comes
    late, or while the clock is behind, goes to the next one. After a clock was set back by more than a minute
    keys repeat; the store keeps the first.
    """

    period_s: float = 2.0
    _cells: dict[WindowKey, _Cell] = field(default_factory=dict, repr=False)
    _closed_to: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def grace_s(self) -> float:
        """How long after its end a window still takes what was measured in it."""
        return 2 * self.period_s

    def add(self, reading: Reading) -> None:
        """Counts one reading for its replica, its revision and its deployment."""
        target, interval = reading.target, reading.interval
        half = interval.seconds / 2 if interval is not None else 0.0
        at = reading.at_wall - half
        own = self._cell(at, REPLICA_LEVEL, target.deployment, target.revision, target.replica)
        level = DEPLOYMENT_LEVELS[0]
        revision = self._cell(at, level, target.deployment, target.revision)
        whole = self._cell(at, level, target.deployment)
        if reading.failure is None:
            own.level(queue_depth=reading.queue_depth.larger, in_flight=reading.in_flight.larger, ready=None)
        for cell in (own, revision, whole):
            cell.scrapes_ok += reading.failure is None
            cell.scrapes_failed += reading.failure is not None
            if interval is not None:
                cell.count(target.replica, interval)

    def add_signals(
        self, signals: DeploymentSignals, *, ready: int | None, revision: int | None = None
    ) -> None:
        """Counts the levels of a deployment, or of one revision of it, once per period. None is not known."""
        cell = self._cell(signals.at_wall, DEPLOYMENT_LEVELS[0], signals.deployment, revision)
        cell.level(
            queue_depth=signals[SignalName.QUEUE_DEPTH].value,
            in_flight=signals[SignalName.IN_FLIGHT].value,
            ready=ready,
        )

    def close(self, now_wall: float) -> list[Window]:
        """The windows that are over, with their grace, oldest first. They are forgotten here."""
        done = [key for key in self._cells if key.ts + key.resolution_s + self.grace_s <= now_wall]
        windows = [
            self._cells.pop(key).window(key, period_s=self.period_s) for key in sorted(done, key=_order)
        ]
        for key in done:
            end = key.ts + key.resolution_s
            self._closed_to[key.resolution_s] = max(end, self._closed_to.get(key.resolution_s, end))
        if any(now_wall < end - _CLOCK_SLACK_S for end in self._closed_to.values()):
            self._closed_to.clear()
        return windows

    def close_all(self) -> list[Window]:
        """The open windows too, as they are: for a collector that stops."""
        keys = sorted(self._cells, key=_order)
        return [self._cells.pop(key).window(key, period_s=self.period_s) for key in keys]

    def _cell(
        self,
        at: float,
        level: Level,
        deployment: str,
        revision: int | None = None,
        replica: str | None = None,
    ) -> _Cell:
        step = level.resolution_s
        ts = max(int(at // step) * step, self._closed_to.get(step, 0))
        key = WindowKey(ts=ts, resolution_s=step, deployment=deployment, revision=revision, replica=replica)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell()
        return cell


def _add_errors[Number: (int, float)](errors: dict[str, Number], more: Mapping[str, Number]) -> None:
    for reason, number in more.items():
        name = reason if reason in errors or len(errors) < MOST_REASONS else OTHER_REASONS
        errors[name] = errors.get(name, 0) + number


def _order(key: WindowKey) -> tuple[int, str, int, str]:
    return key.ts, key.deployment, -1 if key.revision is None else key.revision, key.replica or ""


def coarsen(windows: Iterable[Window], *, resolution_s: int) -> list[Window]:
    """The same history in longer windows; one that is so long already stays as it is. `resolution_s` must be a
    multiple of theirs."""

    def longer(window: Window) -> WindowKey:
        key = window.key
        assert resolution_s % key.resolution_s == 0
        return WindowKey(
            ts=key.ts // resolution_s * resolution_s,
            resolution_s=resolution_s,
            deployment=key.deployment,
            revision=key.revision,
            replica=key.replica,
        )

    ordered = sorted(windows, key=lambda window: _order(longer(window)))
    return [_after_each_other(key, list(group)) for key, group in groupby(ordered, key=longer)]


def _after_each_other(key: WindowKey, windows: Sequence[Window]) -> Window:
    if len(windows) == 1 and windows[0].key == key:
        return windows[0]
    errors: dict[str, int] = {}
    for window in windows:
        _add_errors(errors, window.errors)
    return Window(
        key=key,
        observed_s=sum(window.observed_s for window in windows),
        requests=sum(window.requests for window in windows),
        errors=errors,
        latency=merge_bytes(window.latency for window in windows if window.latency).to_bytes(),
        levels=sum((window.levels for window in windows), Levels()),
        queue_depth_mean=_weighted(
            (window.queue_depth_mean, window.levels.queue_depth) for window in windows
        ),
        queue_depth_max=_highest(window.queue_depth_max for window in windows),
        in_flight_mean=_weighted((window.in_flight_mean, window.levels.in_flight) for window in windows),
        in_flight_max=_highest(window.in_flight_max for window in windows),
        replicas_ready=_weighted((window.replicas_ready, window.levels.replicas) for window in windows),
        scrapes_ok=sum(window.scrapes_ok for window in windows),
        scrapes_failed=sum(window.scrapes_failed for window in windows),
    )


def _weighted(pairs: Iterable[tuple[float | None, int]]) -> float | None:
    known = [(mean, weight) for mean, weight in pairs if mean is not None and weight]
    weights = sum(weight for _, weight in known)
    return sum(mean * weight for mean, weight in known) / weights if weights else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
