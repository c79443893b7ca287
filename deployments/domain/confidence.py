"""Intervals that hold at every look at once: for a share, and for the ranks around a percentile.

A canary is looked at every few seconds until something is shown. An interval made for one look (Wilson,
Newcombe, Clopper-Pearson) is wrong far more often than it says when it is looked at until it pleases. These
are confidence sequences: with probability 1 - `miss` the truth is inside at *all* sample sizes, so whoever
looks may look as often as he likes, stop when he likes, and keeps no record of earlier looks.

The formula: of n yes/no draws with share p, k were yes. The mixture of likelihood ratios

    M(k, n; p) = B(a + k, b + n - k) / B(a, b) / (p^k (1 - p)^(n - k))

is a martingale of mean 1 under p (B is the beta function), so by Ville's inequality it ever reaches 1 / miss
with probability `miss` at most. Robbins, Ann. Math. Statist. 41 (1970) 1397; Howard, Ramdas, McAuliffe and
Sekhon, Ann. Statist. 49 (2021) 1055; for percentiles Howard and Ramdas, Bernoulli 28 (2022) 1704. It supposes
independent draws; a and b decide only at which shares it is narrow, never whether it holds.

Refused: a schedule of looks (needs a record of what was looked at, and waits for the next one while the answer
is there), and a share of the error for each look without end (the later ones would see nothing).
"""

import math
from functools import lru_cache
from typing import Final

# Narrowest near a share of 1 %: what a p99 and an error rate have in common.
_A: Final = 0.5
_B: Final = 49.5
_HALVINGS: Final = 50


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


_LOG_PRIOR: Final = _log_beta(_A, _B)


def _against(yes: int, n: int, share: float) -> float:
    """The logarithm of M: how much the draws speak against `share`."""
    likelihood = yes * math.log(share) + (n - yes) * math.log1p(-share)
    return _log_beta(_A + yes, _B + n - yes) - _LOG_PRIOR - likelihood


@lru_cache(maxsize=4096)
def share_interval(yes: int, n: int, *, miss: float) -> tuple[float, float]:
    """Low and high end of the share behind `yes` of `n`; (0, 1) when nothing was drawn."""
    if not 0 <= yes <= n:
        raise ValueError("of n draws between 0 and n are yes")
    if n == 0:
        return 0.0, 1.0
    most, middle = -math.log(miss), yes / n

    def end(outside: float) -> float:
        # M grows on both sides of yes / n, where it is at most 1.
        inside = middle
        for _ in range(_HALVINGS):
            between = (inside + outside) / 2
            if not 0 < between < 1 or _against(yes, n, between) >= most:
                outside = between
            else:
                inside = between
        return outside

    return (end(0.0) if yes else 0.0), (end(1.0) if yes < n else 1.0)


@lru_cache(maxsize=4096)
def above_quantile(n: int, *, q: float, miss: float) -> tuple[int, int]:
    """The fewest and the most of `n` values that lie above their distribution's quantile `q`.

    So with values in rising order, number n - most is not above the quantile, and number n - fewest + 1 is not
    below it, whatever the distribution. Ties do no harm: a value that equals the quantile may be counted on
    either side, and one way of counting is a draw with share 1 - q exactly.
    """
    share, most = 1 - q, -math.log(miss)
    expected = math.floor(n * share)

    def last(inside: int, outside: int) -> int:
        # M is convex in the count, and below 1 / miss where the count is as expected.
        while abs(outside - inside) > 1:
            between = (inside + outside) // 2
            if _against(between, n, share) < most:
                inside = between
            else:
                outside = between
        return inside

    return last(expected, -1), last(expected, n + 1)


@lru_cache(maxsize=64)
def smallest_sample(*, q: float, miss: float) -> int:
    """From how many values on there is an upper bound of the quantile `q`: fewer can all lie below it."""
    low, high = 0, 1
    while above_quantile(high, q=q, miss=miss)[0] == 0:
        low, high = high, 2 * high
    while high - low > 1:
        between = (low + high) // 2
        if above_quantile(between, q=q, miss=miss)[0] == 0:
            low = between
        else:
            high = between
    return high
