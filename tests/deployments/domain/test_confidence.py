"""Intervals that hold at every look at once."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.confidence import above_quantile, share_interval, smallest_sample

LOOKS = [round(30 * 1.15**step) for step in range(40)]
RUNS = 400
MISS = 0.2


def draws(share: float, *, seed: int) -> list[list[tuple[int, int]]]:
    """Of each run, how many were yes at each look."""
    rows = np.random.default_rng(seed).random((RUNS, LOOKS[-1])) < share
    found = np.cumsum(rows, axis=1)[:, [n - 1 for n in LOOKS]]
    return [list(zip(row, LOOKS, strict=True)) for row in found.tolist()]


def wilson(yes: int, n: int) -> tuple[float, float]:
    z2 = NormalDist().inv_cdf(1 - MISS / 2) ** 2
    center = (yes + z2 / 2) / (n + z2)
    half = (z2 * (yes * (n - yes) / n + z2 / 4)) ** 0.5 / (n + z2)
    return center - half, center + half


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1, 0.5])
def test_at_no_look_of_most_runs_is_the_true_share_outside(share: float) -> None:
    runs = draws(share, seed=7)

    def ever_missed(run: list[tuple[int, int]]) -> bool:
        ends = (share_interval(yes, n, miss=MISS) for yes, n in run)
        return any(not low <= share <= high for low, high in ends)

    assert sum(map(ever_missed, runs)) <= MISS * RUNS
    # The same looks with an interval that is made for one of them: this is what the price is paid for.
    one_look = [any(not low <= share <= high for low, high in (wilson(*at) for at in run)) for run in runs]
    assert sum(one_look) > MISS * RUNS


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_at_no_look_of_most_runs_is_the_true_quantile_outside_its_ranks(q: float) -> None:
    def ever_missed(run: list[tuple[int, int]]) -> bool:
        bounds = ((above, above_quantile(n, q=q, miss=MISS)) for above, n in run)
        return any(not fewest <= above <= most for above, (fewest, most) in bounds)

    assert sum(map(ever_missed, draws(1 - q, seed=11))) <= MISS * RUNS


@given(n=st.integers(1, 10**7), data=st.data(), miss=st.floats(0.0005, 0.2))
def test_the_seen_share_lies_inside_and_more_draws_narrow_it(
    n: int, data: st.DataObject, miss: float
) -> None:
    yes = data.draw(st.integers(0, n))
    low, high = share_interval(yes, n, miss=miss)
    assert 0 <= low <= yes / n <= high <= 1
    narrow_low, narrow_high = share_interval(4 * yes, 4 * n, miss=miss)
    assert narrow_high - narrow_low < high - low


@given(yes=st.integers(0, 500), more=st.integers(1, 50))
def test_more_failures_among_as_many_move_both_ends_up(yes: int, more: int) -> None:
    before, after = (share_interval(one, 600, miss=0.0125) for one in (yes, yes + more))
    assert before[0] <= after[0]
    assert before[1] < after[1]


@given(n=st.integers(0, 10**8), q=st.sampled_from([0.5, 0.9, 0.99, 0.999]), miss=st.floats(0.0005, 0.2))
def test_ranks_lie_around_the_expected_one(n: int, q: float, miss: float) -> None:
    fewest, most = above_quantile(n, q=q, miss=miss)
    assert 0 <= fewest <= n * (1 - q) + 1e-6
    assert int(n * (1 - q)) <= most <= n


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_a_p99_has_no_upper_bound_before_the_smallest_sample(confidence: float) -> None:
    miss = 1 - confidence
    least = smallest_sample(q=0.99, miss=miss)
    assert above_quantile(least - 1, q=0.99, miss=miss)[0] == 0
    assert above_quantile(least, q=0.99, miss=miss)[0] == 1
    # The mixture by its product of one-step predictions: none of n above, each foretold with (49.5 + i) / (50 + i).
    betting = np.cumprod([(49.5 + i) / (50 + i) / 0.99 for i in range(least)])
    assert betting[-2] < 1 / miss <= betting[-1]
    # At one look 0.99^n <= miss would do; that the bound holds at all looks costs a little more.
    assert np.log(miss) / np.log(0.99) < least < 1.5 * np.log(miss) / np.log(0.99)


def test_nothing_drawn_is_nothing_known() -> None:
    assert share_interval(0, 0, miss=0.05) == (0.0, 1.0)
    assert above_quantile(0, q=0.99, miss=0.05) == (0, 0)
    with pytest.raises(ValueError, match="between 0 and n"):
        share_interval(3, 2, miss=0.05)
