"""What may be concluded from a handful of timings and yes/no answers.

Timings are compared in pairs (same round, same inputs), so that a machine that slows down for a second slows
both sides. Refused: means and standard deviations of timings (one stolen core ruins them), and intervals
that shrink to nothing when no difference was seen (a Wald interval claims certainty after three items).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this many rounds a bootstrap only repeats the few values it has.
MIN_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its two-sided interval. `n` is the number of pairs or items behind it."""

    value: float
    low: float
    high: float
    n: int
    confidence: float


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _positive(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.all(np.isfinite(array)) or np.any(array <= 0):
        raise ValueError("timings are one row of positive, finite numbers")
    return array


def paired_ratio(
    first: ArrayLike, second: ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 1000
) -> Estimate:
    """Median of `first[i] / second[i]` with its percentile bootstrap interval over rounds.

    Above 1 means the second is faster. With fewer than MIN_ROUNDS pairs the interval is (0, inf): nothing
    can be told. Raises ValueError for lengths that differ or values that are not positive.
    Cost: `resamples * n` numbers.
    """
    a, b = _positive(first), _positive(second)
    if a.shape != b.shape or not a.size:
        raise ValueError("a paired ratio needs two rows of one length")
    logs = np.log(a) - np.log(b)
    value = math.exp(float(np.median(logs)))
    if a.size < MIN_ROUNDS:
        return Estimate(value=value, low=0.0, high=math.inf, n=a.size, confidence=confidence)
    drawn = np.random.default_rng(seed).integers(0, a.size, (resamples, a.size))
    medians = np.median(logs[drawn], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    # The quantiles interpolate: with ties they can miss the median itself by a rounding error.
    return Estimate(
        value=value,
        low=min(value, math.exp(float(low))),
        high=max(value, math.exp(float(high))),
        n=a.size,
        confidence=confidence,
    )


def control_spread(first: ArrayLike, second: ArrayLike, *, seed: int) -> float:
    """How far from 1 the same file measured against itself may be, as a fraction (0.01 is 1 %).

    The wider side of the interval of the paired ratio, so it holds both the noise and what differs between
    two sessions of one file. Infinite when there are too few rounds to tell.
    """
    ratio = paired_ratio(first, second, seed=seed)
    if ratio.low == 0:
        return math.inf
    return max(abs(ratio.high - 1), abs(1 / ratio.low - 1))


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval of a proportion; (0, 1) when nothing was looked at."""
    if not 0 <= successes <= n:
        raise ValueError("successes lie between 0 and n")
    if n == 0:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0, confidence=confidence)
    z2 = _z(confidence) ** 2
    share = successes / n
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Estimate(
        value=share,
        low=max(0.0, min(share, center - half)),
        high=min(1.0, max(share, center + half)),
        n=n,
        confidence=confidence,
    )


def complement(share: Estimate) -> Estimate:
    """The same estimate seen from the other side: disagreement from agreement."""
    return Estimate(
        value=1 - share.value,
        low=1 - share.high,
        high=1 - share.low,
        n=share.n,
        confidence=share.confidence,
    )


def _tango_score(delta: float, *, lost: int, gained: int, n: int) -> float:
    """Tango (1998), Statistics in Medicine 17: score of the hypothesis that the true difference is `delta`."""
    a = 2 * n
    b = -lost - gained + (2 * n - lost + gained) * delta
    c = -gained * delta * (1 - delta)
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    distance = lost - gained - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def paired_loss(*, lost: int, gained: int, n: int, confidence: float = 0.90) -> Estimate:
    """Accuracy lost by the variant on the same items, with Tango's score interval.

    `lost`: right before and wrong now; `gained`: the other way round. The default confidence gives one-sided
    95 % bounds, which is what "at most one point worse" asks for; with no flip among n items the upper bound
    is the rule of three's (about 2.7 / n).
    """
    if lost < 0 or gained < 0 or lost + gained > n:
        raise ValueError("flips are counted among n items")
    if n == 0:
        return Estimate(value=0.0, low=-1.0, high=1.0, n=0, confidence=confidence)
    value, z = (lost - gained) / n, _z(confidence)

    def bound(inside: float, outside: float, target: float) -> float:
        # The score falls as delta grows; sixty halvings leave nothing of the interval.
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(_tango_score(middle, lost=lost, gained=gained, n=n)) <= target:
                inside = middle
            else:
                outside = middle
        return inside

    return Estimate(
        value=value, low=bound(value, -1.0, z), high=bound(value, 1.0, z), n=n, confidence=confidence
    )


def items_needed(*, limit: float, confidence: float = 0.90) -> int:
    """How many items without a single flip it takes to show a loss of at most `limit`."""
    return math.ceil(_z(confidence) ** 2 * (1 - limit) / limit)


type Weights = NDArray[np.float64]
type Score = Callable[[Weights], float]
"""From how much each item weighs to one score of all of them."""


def _resampled(n: int, *, seed: int, resamples: int) -> Iterator[Weights]:
    """How often each of `n` items is drawn."""
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class PairedScores:
    parent: Estimate
    variant: Estimate
    loss: Estimate


def bootstrap(
    parent: Score, variant: Score, n: int, *, differing: int, seed: int, resamples: int = 500
) -> PairedScores:
    """Scores of the same `n` items, and what the variant's is below the parent's, with percentile intervals over
    items: each selection of them is scored for both. 95 % for the scores; 90 % for the loss, which gives one-sided 95 %
    bounds, as `paired_loss` does. Cost: `resamples` scores of each.

    A bootstrap sees only what is there: where few items differ it is as sure after three items as after three thousand.
    So with fewer than MIN_ROUNDS that are `differing`, the loss also reaches as far as the share of items that may
    differ (Wilson's upper bound): with none among n items it is known to about 2.7 / n, as for yes and no.
    """
    drawn = np.array(
        [(parent(weights), variant(weights)) for weights in _resampled(n, seed=seed, resamples=resamples)]
    )
    before, after = parent(np.ones(n)), variant(np.ones(n))
    unseen = wilson(differing, n, confidence=0.90).high if differing < MIN_ROUNDS else None
    return PairedScores(
        parent=_percentile(before, drawn[:, 0], n=n, confidence=0.95),
        variant=_percentile(after, drawn[:, 1], n=n, confidence=0.95),
        loss=_percentile(before - after, drawn[:, 0] - drawn[:, 1], n=n, confidence=0.90, reach=unseen),
    )


def _percentile(
    value: float, drawn: NDArray[np.float64], *, n: int, confidence: float, reach: float | None = None
) -> Estimate:
    """`reach`: how far either end lies from 0 at least."""
    low, high = (float(end) for end in np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]))
    if reach is not None:
        low, high = min(low, -reach), max(high, reach)
    return Estimate(value=value, low=min(value, low), high=max(value, high), n=n, confidence=confidence)
