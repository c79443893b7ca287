"""Intervals hold what they promise, and never claim certainty from little."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.domain.statistics import (
    MIN_ROUNDS,
    complement,
    control_spread,
    items_needed,
    paired_loss,
    paired_ratio,
    wilson,
)

timings = st.lists(st.floats(1e-6, 10), min_size=MIN_ROUNDS, max_size=60)


@given(timings, st.integers(0, 2**32))
def test_a_side_against_itself_is_exactly_one(seconds: list[float], seed: int) -> None:
    ratio = paired_ratio(seconds, seconds, seed=seed)
    assert (ratio.low, ratio.value, ratio.high) == (1, 1, 1)


@given(timings, st.floats(0.1, 10))
def test_a_side_that_takes_k_times_as_long_in_every_round_is_k_times_slower(
    seconds: list[float], k: float
) -> None:
    ratio = paired_ratio(np.array(seconds) * k, seconds, seed=1)
    assert ratio.low == pytest.approx(k)
    assert ratio.high == pytest.approx(k)


@given(timings, timings, st.integers(0, 1000))
def test_the_interval_holds_the_value_and_turning_the_sides_round_turns_it_round(
    first: list[float], second: list[float], seed: int
) -> None:
    n = min(len(first), len(second))
    forth = paired_ratio(first[:n], second[:n], seed=seed)
    back = paired_ratio(second[:n], first[:n], seed=seed)
    assert forth.low <= forth.value <= forth.high
    assert back.value == pytest.approx(1 / forth.value)
    assert back.low == pytest.approx(1 / forth.high)


@given(timings, timings)
def test_the_same_seed_gives_the_same_interval(first: list[float], second: list[float]) -> None:
    n = min(len(first), len(second))
    assert paired_ratio(first[:n], second[:n], seed=7) == paired_ratio(first[:n], second[:n], seed=7)


def test_a_slow_second_of_the_whole_machine_does_not_move_a_paired_ratio() -> None:
    base = np.linspace(1.0, 1.1, 40)
    storm = np.where(np.arange(40) % 3 == 0, 5.0, 1.0)
    assert paired_ratio(2 * base * storm, base * storm, seed=0).value == pytest.approx(2)


def test_too_few_rounds_tell_nothing() -> None:
    ratio = paired_ratio([3.0, 3.0], [1.0, 1.0], seed=0)
    assert (ratio.low, ratio.high) == (0, math.inf)
    assert control_spread([1.0, 1.0], [1.0, 1.0], seed=0) == math.inf


def test_the_control_spread_counts_a_steady_difference_between_two_sessions_as_noise() -> None:
    seconds = np.random.default_rng(0).normal(1, 0.001, 50)
    assert control_spread(seconds, seconds * 1.04, seed=0) == pytest.approx(0.04, abs=0.002)
    assert control_spread(seconds * 1.04, seconds, seed=0) == pytest.approx(0.04, abs=0.002)


@pytest.mark.parametrize("bad", [[1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_timings_that_are_none_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        paired_ratio(bad, [1.0, 1.0], seed=0)


def test_rows_of_different_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_ratio([1.0, 1.0], [1.0], seed=0)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_inside_its_wilson_interval_and_the_interval_inside_zero_to_one(
    case: tuple[int, int],
) -> None:
    share = wilson(*case)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert share.high > share.low


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_the_published_table(successes: int, n: int, low: float, high: float) -> None:
    share = wilson(successes, n)
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


def test_disagreement_is_agreement_seen_from_the_other_side() -> None:
    agreement = wilson(97, 100)
    other = complement(agreement)
    assert other.value == pytest.approx(0.03)
    assert (other.low, other.high) == (1 - agreement.high, 1 - agreement.low)


flips = st.integers(1, 500).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
        lambda lost: st.tuples(st.just(lost[0]), st.integers(0, n - lost[0]), st.just(n))
    )
)


@given(flips)
def test_a_loss_lies_inside_its_interval_and_swapping_the_sides_negates_it(
    case: tuple[int, int, int],
) -> None:
    lost, gained, n = case
    loss = paired_loss(lost=lost, gained=gained, n=n)
    other = paired_loss(lost=gained, gained=lost, n=n)
    assert -1 <= loss.low <= loss.value <= loss.high <= 1
    assert other.low == pytest.approx(-loss.high, abs=1e-6)


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 0, 44), (9, 12, 44), (3, 1, 1000), (40, 10, 120)])
def test_the_bounds_of_a_loss_are_where_the_score_test_turns(lost: int, gained: int, n: int) -> None:
    """Tango's definition, with the likelihood maximized on a grid instead of by his closed form."""
    loss = paired_loss(lost=lost, gained=gained, n=n, confidence=0.95)
    for bound in (loss.low, loss.high):
        q = np.linspace(max(0, -bound), (1 - bound) / 2, 400_001)[1:-1]
        likelihood = (
            lost * np.log(q + bound) + gained * np.log(q) + (n - lost - gained) * np.log(1 - 2 * q - bound)
        )
        best = q[np.argmax(likelihood)]
        score = (lost - gained - n * bound) / math.sqrt(n * (2 * best + bound - bound**2))
        assert abs(score) == pytest.approx(1.96, abs=0.01)


@given(st.floats(0.001, 0.2))
def test_as_many_items_as_are_said_to_be_needed_suffice_and_one_less_does_not(limit: float) -> None:
    n = items_needed(limit=limit)
    assert paired_loss(lost=0, gained=0, n=n).high <= limit + 1e-9
    assert n == 1 or paired_loss(lost=0, gained=0, n=n - 1).high > limit - 1e-9


def test_no_flip_among_three_hundred_items_shows_a_loss_below_one_point_and_not_much_below() -> None:
    assert 0.008 < paired_loss(lost=0, gained=0, n=300).high < 0.01


@pytest.mark.parametrize(("lost", "gained", "n"), [(-1, 0, 5), (3, 3, 5)])
def test_flips_must_fit_among_the_items(lost: int, gained: int, n: int) -> None:
    with pytest.raises(ValueError, match="flips"):
        paired_loss(lost=lost, gained=gained, n=n)
