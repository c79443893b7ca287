"""The paired benchmark: parent against variant, in one tree of processes, in turns.

What makes a small gain believable (OPTIMISATION.md 2.5): the same file is first measured against itself (the
A/A control), all sides run in every round in a random order with the same inputs, warm-up is thrown away, and
the control keeps running beside the comparison, so that a neighbour who wakes up later widens the noise
instead of becoming a gain. Refused: one side after the other, means, and stopping as soon as it looks good:
the rounds end when the medians are precise or the time is up, whatever they say.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from optimizer.domain.statistics import MIN_ROUNDS, Estimate, control_spread, paired_ratio
from optimizer.domain.verdict import Claim, Policy, Speed, claim

type Arm = Callable[[int], object]


@runtime_checkable
class TimesItself(Protocol):
    """An arm in another process, which knows better how long it took."""

    def timed(self, index: int, repeats: int) -> float:
        """Seconds of so many requests with the inputs of that round."""


type Seconds = NDArray[np.float64]

NOISY = 1.15
# A sample shorter than this mostly times the clock and the interpreter.
SAMPLE_S = 0.002
CONTROL_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When to stop: `precision` is the half-width of a median's 95 % notch, as a fraction of it."""

    warmup: int = 3
    min_rounds: int = 15
    max_rounds: int = 200
    precision: float = 0.004


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Milliseconds per request of one side. `noisy`: the median is far above the lower quartile."""

    median_ms: float
    p25_ms: float
    p90_ms: float
    rounds: int
    noisy: bool


@dataclass(frozen=True, kw_only=True)
class Control:
    """The parent against itself: first alone, then beside the comparison. `spread` is the larger one."""

    batch_size: int
    first: Estimate
    beside: Estimate
    spread: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    batch_size: int
    parent: Distribution
    variant: Distribution
    speedup: Estimate
    spread: float
    claim: Claim
    noisy: bool

    def evidence(self) -> Speed:
        return Speed(
            batch_size=self.batch_size,
            parent_ms=self.parent.median_ms,
            variant_ms=self.variant.median_ms,
            speedup=self.speedup,
            spread=self.spread,
        )


def summarize(seconds: Seconds) -> Distribution:
    p25, median, p90 = (float(value) * 1000 for value in np.quantile(seconds, [0.25, 0.5, 0.9]))
    return Distribution(
        median_ms=median, p25_ms=p25, p90_ms=p90, rounds=seconds.size, noisy=median > NOISY * p25
    )


def rounds(
    arms: Mapping[str, Arm],
    *,
    pace: Pace,
    budget_s: float,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, Seconds]:
    """Seconds per request of every arm, one row per round; arm `i` of a round sees the inputs of that round.

    At least MIN_ROUNDS rounds are made whatever they cost, `pace.min_rounds` unless they take three times the
    budget. Fast arms are repeated within a sample. Cost: the budget.
    """
    rng = np.random.default_rng(seed)
    names = sorted(arms)
    began = clock()
    for index in range(pace.warmup):
        for name in names:
            arms[name](index)
    repeats = {name: _repeats(arms[name], clock=clock) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for index in range(pace.max_rounds):
        for choice in rng.permutation(len(names)):
            name = names[choice]
            seconds = _seconds(arms[name], index, repeats[name], clock=clock)
            taken[name].append(max(seconds, 1e-9) / repeats[name])
        done = index + 1
        on_round(done)
        if _enough(taken, done=done, elapsed_s=clock() - began, budget_s=budget_s, pace=pace):
            break
    return {name: np.array(values) for name, values in taken.items()}


def fewest_runs() -> int:
    """How often each arm runs in a `compare` of two slow sides, at least: the control's rounds and the comparison's."""
    return 2 * (Pace().warmup + 1 + MIN_ROUNDS)


def _seconds(arm: Arm, index: int, repeats: int, *, clock: Callable[[], float]) -> float:
    if isinstance(arm, TimesItself):
        return arm.timed(index, repeats)
    start = clock()
    for _ in range(repeats):
        arm(index)
    return clock() - start


def _repeats(arm: Arm, *, clock: Callable[[], float]) -> int:
    return max(1, min(1000, round(SAMPLE_S / max(_seconds(arm, 0, 1, clock=clock), 1e-7))))


def _enough(
    taken: Mapping[str, Sequence[float]], *, done: int, elapsed_s: float, budget_s: float, pace: Pace
) -> bool:
    if done < pace.min_rounds:
        return done >= MIN_ROUNDS and elapsed_s >= 3 * budget_s
    if elapsed_s >= budget_s:
        return True
    return done % 10 == 0 and all(_notch(values) <= pace.precision for values in taken.values())


def _notch(values: Sequence[float]) -> float:
    """McGill's notch: half the 95 % interval of a median, as a fraction of it."""
    p25, median, p75 = np.quantile(values, [0.25, 0.5, 0.75])
    return float(1.57 * (p75 - p25) / (np.sqrt(len(values)) * median))


def compare(
    *,
    parent: Arm,
    twin: Arm,
    variant: Arm,
    batch_size: int,
    budget_s: float,
    seed: int,
    policy: Policy,
    pace: Pace | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda done: None,
) -> tuple[Control, Timing]:
    """Control first, then the comparison, at one batch size. `twin` is a second session of the parent's file."""
    pace = pace or Pace()
    alone = rounds(
        {"parent": parent, "twin": twin}, pace=pace, budget_s=CONTROL_SHARE * budget_s, seed=seed, clock=clock
    )
    together = rounds(
        {"parent": parent, "twin": twin, "variant": variant},
        pace=pace,
        budget_s=(1 - CONTROL_SHARE) * budget_s,
        seed=seed + 1,
        clock=clock,
        on_round=on_round,
    )
    spread = max(control_spread(taken["parent"], taken["twin"], seed=seed) for taken in (alone, together))
    control = Control(
        batch_size=batch_size,
        first=paired_ratio(alone["parent"], alone["twin"], seed=seed),
        beside=paired_ratio(together["parent"], together["twin"], seed=seed),
        spread=spread,
    )
    sides = summarize(together["parent"]), summarize(together["variant"])
    speedup = paired_ratio(together["parent"], together["variant"], seed=seed)
    speed = Speed(
        batch_size=batch_size,
        parent_ms=sides[0].median_ms,
        variant_ms=sides[1].median_ms,
        speedup=speedup,
        spread=spread,
    )
    timing = Timing(
        batch_size=batch_size,
        parent=sides[0],
        variant=sides[1],
        speedup=speedup,
        spread=spread,
        claim=claim(speed, policy),
        noisy=any(side.noisy for side in sides),
    )
    return control, timing
