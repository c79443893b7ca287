"""How often the verdict's parts are wrong when the truth is planted: never more than they say.

Each case is many simulated measurements with fixed seeds. What is allowed is the stated error rate plus three standard
errors of as many draws, so that a rate that is really above it shows.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.domain.statistics import Estimate, control_spread, paired_loss, paired_ratio, wilson
from optimizer.domain.verdict import Basis, Claim, Fidelity, Outcome, Policy, Speed, claim, judge_fidelity

type Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]

DRAWS = 400
ROUNDS = 40
POLICY = Policy()


def jitter(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.exp(rng.normal(0, 0.01, n))


def spikes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """One request in ten loses its core for up to several times its length."""
    return jitter(rng, n) * np.where(rng.random(n) < 0.1, 1 + rng.pareto(1.5, n), 1.0)


def storms(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Much noise on every request: a busy neighbour."""
    return np.exp(rng.normal(0, 0.15, n))


each_noise = pytest.mark.parametrize("noise", [jitter, spikes, storms])


def allowed(rate: float, draws: int = DRAWS) -> int:
    """The most wrong answers among so many draws that a true rate of `rate` explains."""
    return math.ceil(draws * rate + 3 * math.sqrt(draws * rate * (1 - rate)))


@cache
def _of_equals(noise: Noise, seed: int) -> tuple[Estimate, float]:
    """One benchmark of equally fast sides, and its A/A spread. The machine's own drift is on all sides of a round, each
    has noise of its own."""
    rng = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, ROUNDS)))
    parent, twin, variant = (drift * noise(rng, ROUNDS) for _ in range(3))
    return paired_ratio(parent, variant, seed=seed), control_spread(parent, twin, seed=seed)


def measurement(noise: Noise, *, speedup: float, seed: int) -> Speed:
    """A side that takes k times as long in every round is k times slower: what was planted moves the whole interval."""
    ratio, spread = _of_equals(noise, seed)
    planted = replace(ratio, value=ratio.value * speedup, low=ratio.low * speedup, high=ratio.high * speedup)
    return Speed(batch_size=1, parent_ms=1.0, variant_ms=1 / speedup, speedup=planted, spread=spread)


def claims(noise: Noise, *, speedup: float) -> list[Claim]:
    return [claim(measurement(noise, speedup=speedup, seed=seed), POLICY) for seed in range(DRAWS)]


@each_noise
def test_a_variant_that_is_not_faster_is_hardly_ever_called_faster_nor_slower(noise: Noise) -> None:
    """Three times the A/A spread is more than the interval asks for: one in a thousand is already much."""
    found = claims(noise, speedup=1.0)
    assert found.count(Claim.GAIN) + found.count(Claim.LOSS) <= allowed(0.001)


@each_noise
def test_a_gain_just_at_what_is_asked_passes_no_oftener_than_the_interval_says(noise: Noise) -> None:
    found = claims(noise, speedup=POLICY.min_speedup)
    assert found.count(Claim.GAIN) <= allowed(0.025)


@each_noise
def test_a_planted_gain_is_never_called_a_loss_nor_a_planted_loss_a_gain(noise: Noise) -> None:
    assert Claim.LOSS not in claims(noise, speedup=1.5)
    assert Claim.GAIN not in claims(noise, speedup=1 / 1.5)


@pytest.mark.parametrize(("noise", "speedup"), [(jitter, 1.1), (jitter, 2.0), (spikes, 1.5), (storms, 2.0)])
def test_a_planted_gain_is_found(noise: Noise, speedup: float) -> None:
    assert claims(noise, speedup=speedup).count(Claim.GAIN) >= 0.95 * DRAWS
    assert claims(noise, speedup=1 / speedup).count(Claim.LOSS) >= 0.95 * DRAWS


@each_noise
def test_the_interval_of_a_speed_up_holds_the_truth_as_often_as_it_says(noise: Noise) -> None:
    ratios = [measurement(noise, speedup=1, seed=seed).speedup for seed in range(DRAWS)]
    missed = sum(not ratio.low <= 1 <= ratio.high for ratio in ratios)
    assert missed <= allowed(0.05)


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.03, 0.02), (0.1, 0.09)])
@pytest.mark.parametrize("n", [300, 3000])
def test_a_loss_just_at_the_limit_passes_no_oftener_than_one_in_twenty(
    n: int, lost: float, gained: float
) -> None:
    rng = np.random.default_rng(n)
    flips = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=DRAWS)
    passed = sum(
        judge_fidelity(
            Fidelity(basis=Basis.LABELS, loss=paired_loss(lost=int(out), gained=int(into), n=n)), POLICY
        )
        is Outcome.PASSED
        for out, into, _ in flips
    )
    assert passed <= allowed(0.05)


@pytest.mark.parametrize(("share", "n"), [(0.99, 300), (0.9, 300), (0.998, 3000), (0.5, 100)])
def test_a_share_is_outside_its_interval_about_as_often_as_it_says(share: float, n: int) -> None:
    """Wilson's interval is right on average over shares, not at each: half as much again is what it is known for."""
    found = np.random.default_rng(7).binomial(n, share, size=DRAWS)
    missed = sum(not (one := wilson(int(count), n)).low <= share <= one.high for count in found)
    assert missed <= allowed(0.075)
