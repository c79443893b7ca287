"""The measured inputs of the autoscaler, per deployment, that do not lie.

Queue depth and in-flight are each summed over the replicas (never added to each other), once by their gauges
and once by their time counters, and the larger sum counts. A replica that missed
a scrape stands in the sum with its last value for at most three scrape periods, and the signal is as old as
its oldest member; after that the signal *is an error*: no value, never an old number and never a zero that
stands for "not known" (a horizontal autoscaler keeps its size on an error and scales down on a zero). What
was last known is carried apart in `held` for eyes alone, for 60 s. An idle deployment is a measured 0.

A replica that has just become expected has three periods to be scraped first; meanwhile it counts as nothing
and `reporting` is below `expected`.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self

import orjson

from deployments.domain.sketch import merge
from deployments.telemetry.scrape import Target
from deployments.telemetry.series import Interval, Measured, Reading

STALE_PERIODS: Final = 3
HOLD_S: Final = 60.0
_RECENT_PERIODS: Final = 5
_P99: Final = 0.99


class SignalName(StrEnum):
    QUEUE_DEPTH = "inference_queue_depth"
    IN_FLIGHT = "inference_in_flight"
    REQUEST_RATE = "inference_request_rate"
    P99_LATENCY = "inference_p99_latency"


class SignalError(StrEnum):
    STALE = "stale"
    NO_REPLICAS = "no_replicas"
    NO_REQUESTS = "no_requests"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A value with its age, or an error. Rates are per second, latency is in seconds."""

    value: float | None
    age_s: float | None
    error: SignalError | None = None
    reporting: int = 0
    expected: int = 0
    coarse: bool = False
    held: float | None = None
    held_age_s: float | None = None

    def aged(self, seconds: float, *, stale_after_s: float) -> "Signal":
        """The same signal, read `seconds` later: older, and an error once it is too old."""
        held_age_s = None if self.held_age_s is None else self.held_age_s + seconds
        held = self.held if held_age_s is not None and held_age_s <= HOLD_S else None
        age_s = None if self.age_s is None else self.age_s + seconds
        later = replace(self, age_s=age_s, held=held, held_age_s=held_age_s if held is not None else None)
        if self.value is None or age_s is None or age_s <= stale_after_s:
            return later
        known = age_s <= HOLD_S
        return replace(
            later,
            value=None,
            error=SignalError.STALE,
            held=self.value if known else None,
            held_age_s=age_s if known else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "age_s": None if self.age_s is None else round(self.age_s, 3),
            "error": None if self.error is None else self.error.value,
            "reporting": self.reporting,
            "expected": self.expected,
            "coarse": self.coarse,
            "held": self.held,
            "held_age_s": None if self.held_age_s is None else round(self.held_age_s, 3),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        error = data["error"]
        return cls(**{**data, "error": None if error is None else SignalError(error)})


@dataclass(frozen=True, kw_only=True)
class DeploymentSignals:
    """All signals of one deployment at one moment."""

    deployment: str
    at_wall: float
    period_s: float
    signals: Mapping[SignalName, Signal]

    def __getitem__(self, name: SignalName) -> Signal:
        return self.signals[name]

    def aged(self, seconds: float) -> "DeploymentSignals":
        stale_after_s = STALE_PERIODS * self.period_s
        return replace(
            self,
            signals={
                name: signal.aged(seconds, stale_after_s=stale_after_s)
                for name, signal in self.signals.items()
            },
        )

    def to_json(self) -> bytes:
        return orjson.dumps(
            {
                "v": 1,
                "deployment": self.deployment,
                "at": self.at_wall,
                "period_s": self.period_s,
                "signals": {name.value: signal.to_json() for name, signal in self.signals.items()},
            }
        )

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        data = orjson.loads(body)
        return cls(
            deployment=data["deployment"],
            at_wall=data["at"],
            period_s=data["period_s"],
            signals={SignalName(name): Signal.from_json(one) for name, one in data["signals"].items()},
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one replica. Where it is known in one way only, that stands for both."""

    gauge: float
    counted: float
    at: float

    @classmethod
    def of(cls, measured: Measured, at: float) -> Self | None:
        either = measured.larger
        if either is None:
            return None
        gauge, counted = measured.gauge, measured.counted
        return cls(either if gauge is None else gauge, either if counted is None else counted, at)

    @property
    def larger(self) -> float:
        return max(self.gauge, self.counted)


@dataclass(kw_only=True, eq=False)
class _Replica:
    """What is known of one expected replica. `since` is when it became expected."""

    since: float
    levels: dict[SignalName, _Known] = field(default_factory=dict)
    recent: deque[tuple[float, Interval]] = field(default_factory=lambda: deque(maxlen=_RECENT_PERIODS))

    def known(self, name: SignalName) -> _Known | None:
        """The level, or for what is made of intervals the requests per second, with its time."""
        if name in (SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT):
            return self.levels.get(name)
        if not self.recent:
            return None
        seconds = sum(interval.seconds for _, interval in self.recent)
        rate = sum(interval.requests for _, interval in self.recent) / seconds
        return _Known(rate, rate, self.recent[-1][0])


@dataclass(kw_only=True, eq=False)
class SignalBook:
    """Feed it readings and who is expected; ask it for signals. All times are the collector's monotonic
    clock."""

    period_s: float = 2.0
    _expected: dict[str, dict[Target, _Replica]] = field(default_factory=dict, repr=False)
    _held: dict[tuple[str, SignalName], tuple[float, float]] = field(default_factory=dict, repr=False)

    def expect(self, replicas: Mapping[str, Collection[Target]], *, now: float) -> None:
        """Says which replicas of each deployment should be answering. Those left out are forgotten."""
        before = self._expected
        self._expected = {
            deployment: {
                target: before.get(deployment, {}).get(target) or _Replica(since=now) for target in targets
            }
            for deployment, targets in replicas.items()
        }
        self._held = {key: held for key, held in self._held.items() if key[0] in self._expected}

    def take(self, reading: Reading) -> bool:
        """Takes one reading; of a replica that is not expected, or a failed one, nothing is kept. Returns whether more
        than twice as many wait as at the reading before: a burst, and no jitter of a busy queue."""
        target, at = reading.target, reading.at_monotonic
        replica = self._expected.get(target.deployment, {}).get(target)
        if replica is None or reading.failure is not None:
            return False
        before = replica.levels.get(SignalName.QUEUE_DEPTH)
        for name, measured in (
            (SignalName.QUEUE_DEPTH, reading.queue_depth),
            (SignalName.IN_FLIGHT, reading.in_flight),
        ):
            if (known := _Known.of(measured, at)) is not None:
                replica.levels[name] = known
        if reading.interval is not None:
            replica.recent.append((at, reading.interval))
        return (reading.queue_depth.larger or 0.0) > 2 * (before.larger if before else 0.0)

    def signals(
        self, deployment: str, *, now: float, at_wall: float, revision: int | None = None
    ) -> DeploymentSignals:
        """The signals of a deployment, or of one revision's replicas in it. Unknown deployments have no
        replicas."""
        replicas = [
            replica
            for target, replica in self._expected.get(deployment, {}).items()
            if revision is None or target.revision == revision
        ]
        for replica in replicas:
            while replica.recent and now - replica.recent[0][0] > 2 * _RECENT_PERIODS * self.period_s:
                replica.recent.popleft()
        signals = {name: self._signal(name, replicas, now) for name in SignalName}
        if revision is None:
            signals = {name: self._hold(deployment, name, one, now) for name, one in signals.items()}
        return DeploymentSignals(
            deployment=deployment, at_wall=at_wall, period_s=self.period_s, signals=signals
        )

    def _signal(self, name: SignalName, replicas: Collection[_Replica], now: float) -> Signal:
        if not replicas:
            return Signal(value=None, age_s=None, error=SignalError.NO_REPLICAS)
        stale_after_s = STALE_PERIODS * self.period_s
        found = [replica.known(name) for replica in replicas]
        fresh = [known for known in found if known is not None and now - known.at <= stale_after_s]
        coming = sum(
            known is None and now - replica.since <= stale_after_s
            for known, replica in zip(found, replicas, strict=True)
        )
        oldest = min((known.at for known in found if known is not None), default=None)
        whole = bool(fresh) and len(fresh) + coming == len(replicas)
        signal = Signal(
            value=_sum(fresh) if whole else None,
            age_s=None if oldest is None else now - oldest,
            error=None if whole else SignalError.STALE,
            reporting=len(fresh),
            expected=len(replicas),
        )
        return _with_p99(signal, replicas) if name is SignalName.P99_LATENCY and whole else signal

    def _hold(self, deployment: str, name: SignalName, signal: Signal, now: float) -> Signal:
        key = (deployment, name)
        if signal.value is not None and signal.age_s is not None:
            self._held[key] = signal.value, now - signal.age_s
            return signal
        held, at = self._held.get(key, (None, -math.inf))
        if now - at > HOLD_S or signal.error is not SignalError.STALE:
            return signal
        return replace(signal, held=held, held_age_s=now - at)


def _sum(replicas: Collection[_Known]) -> float:
    return max(sum(known.gauge for known in replicas), sum(known.counted for known in replicas))


def _with_p99(signal: Signal, replicas: Iterable[_Replica]) -> Signal:
    together = merge([interval.latency for replica in replicas for _, interval in replica.recent])
    value = together.quantile(_P99)
    return replace(
        signal,
        value=value,
        error=SignalError.NO_REQUESTS if value is None else None,
        coarse=together.coarse,
    )
