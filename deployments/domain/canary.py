"""Whether a canary step is passed: p99 and error rate against the stable revision's in the same window.

A pass is evidence that the canary is *not worse than allowed* (the whole interval lies within the allowance),
a failure is evidence that it *is* (the whole interval lies beyond it). In between nothing is shown, and the
step waits; when it has waited as long as it may, it ends undecided, which is not a pass.

Four intervals are made, of two p99 and two error rates, each with a quarter of the error that the confidence
leaves (Bonferroni), and each holding at every look (`confidence`). So with the stated confidence all four hold
from the first look to the last, and then neither verdict can be wrong: a canary within its allowance fails, or
one beyond it passes, in at most 1 - confidence of all steps. The p99 is that of the order statistics of the
merged histogram, widened to the edges of their buckets. All this supposes that requests are drawn
independently. Slow spells that last longer than a request make it too sure, though they mostly hit both sides.

Refused: p99 against p99 without intervals (of 500 requests the p99 is the fifth slowest), a test for a
difference (with enough requests any difference is shown, with few none, and neither is the question), and
Newcombe's interval of the difference of two shares (right for one look alone, and wide of it at ten errors).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from deployments.domain.confidence import above_quantile, share_interval, smallest_sample
from deployments.domain.sketch import RELATIVE_ERROR, SLOTS, VALUES, Sketch
from deployments.domain.spec import CanaryGate
from deployments.domain.wire import Document

P99: Final = 0.99
INTERVALS: Final = 4
MOST_TIMES: Final = 2.0**14
"""With so many times the requests and still no answer, the two lie too close to the allowance."""


class StepOutcome(StrEnum):
    """`waiting` goes on; the other three are final."""

    WAITING = "waiting"
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One revision in the step's window: latencies in seconds, and how many requests there were and failed."""

    latency: Sketch
    requests: int
    errors: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Both sides over the same `window_s`, which begins when the step's traffic does."""

    stable: Side
    canary: Side
    window_s: float


@dataclass(frozen=True, kw_only=True)
class StepVerdict(Document):
    """`figures` is what the sentence was made of, as JSON; it is kept with the rollout."""

    state: StepOutcome
    sentence: str
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """`value` is None and the ends are the widest where nothing was seen."""

    value: float | None
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | None]:
        high = self.high if math.isfinite(self.high) else None
        return {"value": self.value, "low": self.low, "high": high, "n": self.n}


def minimum(gate: CanaryGate, *, min_requests: int = 0) -> int:
    """Requests of each side before a step can pass: what was asked for, or what a p99 needs to be bounded."""
    bounded = smallest_sample(q=P99, miss=_miss(gate)) if gate.p99_ratio is not None else 1
    return max(min_requests, gate.min_requests, bounded)


def judge(evidence: Evidence, *, gate: CanaryGate, min_requests: int = 0, pause_s: float = 0) -> StepVerdict:
    """The verdict of one step. `min_requests` and `pause_s` are the step's own.

    Needs no memory of earlier looks, and may be asked as often as one likes. Errors can fail a step with few
    requests, because each further one would be lost too; a p99 is not looked at before the minimum.
    """
    needed = minimum(gate, min_requests=min_requests)
    seen = _look(evidence, gate, needed)
    overdue = evidence.window_s >= gate.max_wait_s
    more: int | None = 0
    if seen.failed:
        state, sentence = StepOutcome.FAILED, seen.why_failed(evidence)
    elif not seen.passed:
        state = StepOutcome.UNDECIDED if overdue else StepOutcome.WAITING
        sentence, more = _not_shown(evidence, gate, needed, overdue=overdue)
    elif evidence.window_s < pause_s:
        left = _duration(pause_s - evidence.window_s)
        state, sentence = StepOutcome.WAITING, f"{seen.why_passed(evidence)} The step lasts {left} more."
    else:
        state, sentence = StepOutcome.PASSED, seen.why_passed(evidence)
    figures = seen.to_json(evidence) | {"minimum": needed, "more_canary_requests": more}
    return StepVerdict(state=state, sentence=sentence, figures=figures)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """The four intervals. `latency` and `errors` say what is shown, or None where nothing is yet."""

    gate: CanaryGate
    stable_p99: Interval
    canary_p99: Interval
    stable_errors: Interval
    canary_errors: Interval
    enough: bool
    comparable: bool

    @property
    def latency(self) -> StepOutcome | None:
        if self.gate.p99_ratio is None:
            return StepOutcome.PASSED
        if not (self.enough and self.comparable):
            return None
        if self.canary_p99.low > _most_ms(self.stable_p99.high, self.gate):
            return StepOutcome.FAILED
        within = self.canary_p99.high <= _most_ms(self.stable_p99.low, self.gate)
        return StepOutcome.PASSED if within else None

    @property
    def errors(self) -> StepOutcome | None:
        room = self.gate.error_points / 100
        if self.canary_errors.low - self.stable_errors.high > room:
            return StepOutcome.FAILED
        within = self.canary_errors.high - self.stable_errors.low <= room
        return StepOutcome.PASSED if within and self.enough else None

    @property
    def failed(self) -> bool:
        return StepOutcome.FAILED in (self.latency, self.errors)

    @property
    def passed(self) -> bool:
        return self.latency is self.errors is StepOutcome.PASSED

    def why_failed(self, evidence: Evidence) -> str:
        parts = []
        if self.latency is StepOutcome.FAILED:
            more = _allowance(
                self.stable_p99.high, self.gate, "more than {} times worse", "more than {} worse"
            )
            parts.append((self._p99(), more))
        if self.errors is StepOutcome.FAILED:
            parts.append((self._error_rates(), f"more than {_points(self.gate)} worse"))
        return self._sentences(parts, evidence)

    def why_passed(self, evidence: Evidence) -> str:
        parts = []
        if self.gate.p99_ratio is not None:
            most = _allowance(self.stable_p99.low, self.gate, "at most {} times as slow", "at most {} slower")
            parts.append((self._p99(), most))
        parts.append((self._error_rates(), f"at most {_points(self.gate)} worse"))
        return self._sentences(parts, evidence)

    def _sentences(self, parts: Sequence[tuple[str, str]], evidence: Evidence) -> str:
        sure = f"{100 * self.gate.confidence:g} %"
        span = f" in the same {_duration(evidence.window_s)}"
        return " ".join(
            f"Canary {what}{span if place == 0 else ''}: {shown} at {sure} confidence."
            for place, (what, shown) in enumerate(parts)
        )

    def _p99(self) -> str:
        return f"p99 {_of(self.canary_p99, _ms, ' ms')} against {_of(self.stable_p99, _ms, ' ms')}"

    def _error_rates(self) -> str:
        canary, stable = (_of(one, _percent, " %") for one in (self.canary_errors, self.stable_errors))
        return f"errors {canary} against {stable}"

    def to_json(self, evidence: Evidence) -> dict[str, Any]:
        return {
            "window_s": evidence.window_s,
            "gate": self.gate.to_json(),
            "latency": self.latency,
            "errors": self.errors,
            "comparable": self.comparable,
            "stable": _side(evidence.stable, self.stable_p99, self.stable_errors),
            "canary": _side(evidence.canary, self.canary_p99, self.canary_errors),
        }


def _side(side: Side, p99: Interval, errors: Interval) -> dict[str, Any]:
    return {
        "requests": side.requests,
        "errors": side.errors,
        "p99_ms": p99.to_json(),
        "error_rate": errors.to_json(),
    }


def _miss(gate: CanaryGate) -> float:
    return (1 - gate.confidence) / INTERVALS


def _most_ms(stable_ms: float, gate: CanaryGate) -> float:
    """The p99 that is still allowed beside this one."""
    return max(stable_ms * (gate.p99_ratio or 1), stable_ms + gate.p99_allowance_ms)


def _look(evidence: Evidence, gate: CanaryGate, needed: int, *, times: float = 1) -> _Look:
    """`times`: as if there were so many times the requests and all else the same."""
    stable, canary, miss = evidence.stable, evidence.canary, _miss(gate)
    fewest = min(_count(stable, gate), _count(canary, gate))
    return _Look(
        gate=gate,
        stable_p99=p99_ms(stable.latency, miss=miss, times=times),
        canary_p99=p99_ms(canary.latency, miss=miss, times=times),
        stable_errors=error_rate(stable, miss=miss, times=times),
        canary_errors=error_rate(canary, miss=miss, times=times),
        enough=fewest * times >= needed,
        comparable=not (stable.latency.coarse or canary.latency.coarse),
    )


def _count(side: Side, gate: CanaryGate) -> int:
    return side.requests if gate.p99_ratio is None else min(side.requests, side.latency.count)


def p99_ms(latency: Sketch, *, miss: float, times: float = 1) -> Interval:
    """The p99 in milliseconds between the buckets of two ranks: see `confidence.above_quantile`.

    A bucket's value is within 1 % of whatever was counted in it, so its edges are 1 % further out.
    """
    n = round(latency.count * times)
    if not n:
        return Interval(value=None, low=0.0, high=math.inf, n=0)
    fewest, most = above_quantile(n, q=P99, miss=miss)
    running = np.cumsum(latency.counts) * times

    def slot(rank: int) -> int:
        return int(latency.slots[min(int(np.searchsorted(running, rank)), latency.slots.size - 1)])

    low = 1000 * float(VALUES[slot(n - most)]) / (1 + RELATIVE_ERROR) if most < n else 0.0
    top = slot(n - fewest + 1) if fewest else SLOTS - 1
    # What was clamped to the top may be anything above it.
    open_end = not fewest or (top == SLOTS - 1 and latency.clamped > 0)
    high = math.inf if open_end else 1000 * float(VALUES[top]) / (1 - RELATIVE_ERROR)
    value = latency.quantile(P99)
    return Interval(value=None if value is None else 1000 * value, low=low, high=high, n=n)


def error_rate(side: Side, *, miss: float, times: float = 1) -> Interval:
    """The share of requests that failed, between 0 and 1."""
    n = round(side.requests * times)
    failed = min(round(side.errors * times), n)
    low, high = share_interval(failed, n, miss=miss)
    return Interval(value=failed / n if n else None, low=low, high=high, n=n)


def _times_needed(evidence: Evidence, gate: CanaryGate, needed: int, *, least: float) -> float | None:
    """How many times the requests would decide the step, if they turned out as these did. None: not so many."""

    def decides(times: float) -> bool:
        look = _look(evidence, gate, needed, times=times)
        return look.failed or look.passed

    if decides(least):
        return least
    low, high = least, 2 * least
    while not decides(high):
        low, high = high, 2 * high
        if high > MOST_TIMES:
            return None
    for _ in range(4):
        between = (low + high) / 2
        low, high = (low, between) if decides(between) else (between, high)
    return high


def _to_minimum(evidence: Evidence, gate: CanaryGate, needed: int) -> float:
    """How many times the requests make the minimum of each side; 1 where there are enough."""
    return max(1.0, needed / max(1, min(_count(evidence.stable, gate), _count(evidence.canary, gate))))


def _more(canary: Side, times: float) -> int:
    """To two digits: it is a forecast."""
    more = math.ceil(canary.requests * (times - 1))
    size: int = 10 ** max(0, len(str(more)) - 2)
    return math.ceil(more / size) * size


def _not_shown(evidence: Evidence, gate: CanaryGate, needed: int, *, overdue: bool) -> tuple[str, int | None]:
    """Why nothing is shown, and how many more canary requests would show it: None where none would."""
    stable, canary = evidence.stable, evidence.canary
    spent = _duration(evidence.window_s)
    begin = f"Not decided after {spent}" if overdue else f"Not decided yet, after {spent}"
    for name, side in (("canary", canary), ("stable revision", stable)):
        if not side.requests:
            missing = (
                f"{begin}: the {name} received no requests; at least {needed:,} of each side are needed."
            )
            return missing, needed
        if gate.p99_ratio is not None and not side.latency.count:
            return (
                f"{begin}: the {name} reports no latencies, so there is no p99 to compare. {_BY_ERRORS}",
                None,
            )
    have = f"{begin}: {canary.requests:,} canary and {stable.requests:,} stable requests"
    if gate.p99_ratio is not None and (stable.latency.coarse or canary.latency.coarse):
        return f"{have}, but latencies are counted in buckets too wide to compare a p99. {_BY_ERRORS}", None
    least = _to_minimum(evidence, gate, needed)
    found = _times_needed(evidence, gate, needed, least=least)
    times = found or least
    if times == 1:
        return f"{have} lie too close to the allowance; even many more would not tell on which side.", None
    more, time = _more(canary, times), _duration(evidence.window_s * (times - 1))
    about = "about" if found else "at least"
    return (
        f"{have} are not enough: {about} {more:,} more canary requests are needed, {time} at this rate.",
        more,
    )


_BY_ERRORS = "Leave latency out of the gate to decide by errors alone."


def _allowance(stable_ms: float, gate: CanaryGate, times: str, more: str) -> str:
    """In the words of the limit that counts at this p99: the ratio, or the milliseconds."""
    ratio = gate.p99_ratio or 1
    by_ratio = stable_ms * ratio >= stable_ms + gate.p99_allowance_ms
    return times.format(f"{ratio:g}") if by_ratio else more.format(f"{gate.p99_allowance_ms:g} ms")


def _of(interval: Interval, number: Callable[[float], str], unit: str) -> str:
    if interval.value is None:
        return "unknown"
    high = number(interval.high) if math.isfinite(interval.high) else "?"
    return f"{number(interval.value)}{unit} ({number(interval.low)}-{high})"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _percent(share: float) -> str:
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.1g}"


def _points(gate: CanaryGate) -> str:
    return f"{gate.error_points:g} point{'' if gate.error_points == 1 else 's'}"


def _duration(seconds: float) -> str:
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{math.ceil(seconds)} second{'' if math.ceil(seconds) == 1 else 's'}"
