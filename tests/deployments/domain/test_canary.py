"""A canary step passes on evidence, fails on evidence, and otherwise says what is missing."""

import json
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.canary import (
    Evidence,
    Side,
    StepOutcome,
    StepVerdict,
    judge,
    minimum,
    p99_ms,
)
from deployments.domain.sketch import EMPTY, SLOTS, Sketch, merge
from deployments.domain.spec import CanaryGate

GATE = CanaryGate(p99_allowance_ms=0)
LOOKS = [round(300 * 1.3**step) for step in range(15)]
"""Canary requests at each look: up to 11,800. The stable revision has four times as many."""
WAITING, PASSED, FAILED, UNDECIDED = StepOutcome


def same(value: float, *, n: int, errors: int = 0) -> Side:
    """`n` requests that all took `value` seconds."""
    return Side(latency=Sketch.from_slots({slot_of(value): n}, sum=value * n), requests=n, errors=errors)


def slot_of(value: float) -> int:
    (slot,) = Sketch.from_values([value]).slots.tolist()
    return int(slot)


def evidence(stable: Side, canary: Side, *, window_s: float = 300) -> Evidence:
    return Evidence(stable=stable, canary=canary, window_s=window_s)


def growing(random: np.random.Generator, *, slower: float, error_rate: float, times: int) -> Iterator[Side]:
    """One side at each look, its requests drawn one after the other."""
    n = LOOKS[-1] * times
    latencies = random.lognormal(-4, 0.4, n) * slower
    failed = np.cumsum(random.random(n) < error_rate)
    parts, before = [EMPTY], 0
    for look in LOOKS:
        seen = look * times
        parts = [merge([*parts, Sketch.from_values(latencies[before:seen])])]
        yield Side(latency=parts[0], requests=seen, errors=int(failed[seen - 1]))
        before = seen


def ends(
    runs: int, *, seed: int, slower: float = 1.0, error_rate: float = 0.002, gate: CanaryGate = GATE
) -> Counter[StepOutcome]:
    """How many of the steps end how, when they are judged at every look until they do."""
    found: Counter[StepOutcome] = Counter()
    for run in range(runs):
        random = np.random.default_rng((seed, run))
        stable = growing(random, slower=1.0, error_rate=0.002, times=4)
        canary = growing(random, slower=slower, error_rate=error_rate, times=1)
        states = (judge(evidence(*sides), gate=gate).state for sides in zip(stable, canary, strict=True))
        found[next((state for state in states if state is not WAITING), WAITING)] += 1
    return found


def test_the_same_model_again_is_hardly_ever_failed_and_passes_in_the_end() -> None:
    found = ends(100, seed=1)
    assert found[FAILED] <= 5
    assert found[PASSED] >= 90


@pytest.mark.parametrize(
    ("slower", "error_rate"), [(GATE.p99_ratio or 0, 0.002), (1.0, 0.002 + GATE.error_points / 100)]
)
def test_at_the_very_border_each_wrong_verdict_is_as_rare_as_stated(slower: float, error_rate: float) -> None:
    """The worst case of either error: exactly as much worse as is allowed."""
    found = ends(60, seed=2, slower=slower, error_rate=error_rate)
    assert found[FAILED] <= 3
    assert found[PASSED] <= 3


@pytest.mark.parametrize(
    ("slower", "error_rate"),
    [pytest.param(1.5, 0.002, id="p99 1.5 times"), pytest.param(1.0, 0.022, id="2 points more errors")],
)
def test_a_regression_is_failed(slower: float, error_rate: float) -> None:
    found = ends(25, seed=3, slower=slower, error_rate=error_rate)
    assert found[PASSED] == 0
    assert found[FAILED] >= 23


def test_an_improvement_passes() -> None:
    assert ends(25, seed=4, slower=0.7, error_rate=0.001)[PASSED] >= 24


def test_errors_alone_fail_a_step_long_before_the_minimum() -> None:
    verdict = judge(evidence(same(0.02, n=2000), same(0.02, n=20, errors=20)), gate=GATE)
    assert verdict.state is FAILED
    assert verdict.sentence.startswith("Canary errors 100 % (")
    assert verdict.sentence.endswith("in the same 5 minutes: more than 1 point worse at 95 % confidence.")


def test_a_slow_start_is_not_judged_before_the_minimum() -> None:
    least = minimum(GATE)
    for n, state in ((least - 1, WAITING), (least, FAILED)):
        assert judge(evidence(same(0.02, n=5000), same(0.2, n=n)), gate=GATE).state is state


def test_the_sentence_of_a_failure_has_both_p99_with_their_intervals() -> None:
    verdict = judge(evidence(same(0.021, n=5000), same(0.034, n=5000)), gate=GATE)
    assert verdict.sentence == (
        "Canary p99 34 ms (33-34) against 21 ms (21-21) in the same 5 minutes: "
        "more than 1.2 times worse at 95 % confidence."
    )


def test_few_milliseconds_are_allowed_whatever_the_ratio() -> None:
    sides = evidence(same(0.001, n=20_000), same(0.003, n=20_000), window_s=90)
    verdict = judge(sides, gate=CanaryGate(p99_allowance_ms=5))
    assert verdict.state is PASSED
    assert verdict.sentence == (
        "Canary p99 3 ms (3-3) against 1 ms (0.99-1) in the same 90 seconds: at most 5 ms slower at 95 % "
        "confidence. Canary errors 0 % (0-0.04) against 0 % (0-0.04): at most 1 point worse at 95 % confidence."
    )
    assert judge(sides, gate=GATE).state is FAILED


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_minimum_follows_from_the_confidence(confidence: float) -> None:
    gate = CanaryGate(confidence=confidence)
    least = minimum(gate)
    enough, short = same(0.02, n=least), same(0.02, n=least - 1)
    assert math.isfinite(p99_ms(enough.latency, miss=(1 - confidence) / 4).high)
    assert math.isinf(p99_ms(short.latency, miss=(1 - confidence) / 4).high)
    assert minimum(gate, min_requests=5000) == 5000


def test_a_step_that_waited_long_enough_ends_undecided_and_says_how_many_more_it_needs() -> None:
    stable, canary = same(0.02, n=2000), same(0.02, n=100)
    waiting = judge(evidence(stable, canary, window_s=GATE.max_wait_s - 1), gate=GATE)
    over = judge(evidence(stable, canary, window_s=GATE.max_wait_s), gate=GATE)
    assert (waiting.state, over.state) == (WAITING, UNDECIDED)
    assert over.sentence == (
        "Not decided after 30 minutes: 100 canary and 2,000 stable requests are not enough: "
        "about 470 more canary requests are needed, 2 hours at this rate."
    )
    assert over.figures["more_canary_requests"] == 470


def test_about_so_many_more_requests_do_decide_it() -> None:
    def at(times: float) -> StepVerdict:
        stable, canary = (
            same(0.02, n=round(1000 * times)),
            same(0.02, n=round(600 * times), errors=round(2 * times)),
        )
        return judge(evidence(stable, canary), gate=GATE)

    times = 1 + at(1).figures["more_canary_requests"] / 600
    assert [at(each).state for each in (1, 0.8 * times, 1.1 * times)] == [WAITING, WAITING, PASSED]


def test_too_close_to_the_allowance_to_be_told_is_said() -> None:
    gate = CanaryGate(p99_ratio=1.2, p99_allowance_ms=0)
    verdict = judge(evidence(same(0.02, n=10**6), same(0.024, n=10**6)), gate=gate)
    assert verdict.state is WAITING
    assert verdict.figures["more_canary_requests"] is None
    assert "too close to the allowance" in verdict.sentence


@pytest.mark.parametrize(
    ("stable", "canary", "said"),
    [
        (same(0.02, n=900), Side(latency=EMPTY, requests=0, errors=0), "the canary received no requests"),
        (
            Side(latency=EMPTY, requests=0, errors=0),
            same(0.02, n=9),
            "the stable revision received no requests",
        ),
        (same(0.02, n=900), Side(latency=EMPTY, requests=900, errors=0), "the canary reports no latencies"),
    ],
)
def test_a_silent_side_is_named(stable: Side, canary: Side, said: str) -> None:
    verdict = judge(evidence(stable, canary, window_s=7200), gate=GATE)
    assert verdict.state is UNDECIDED
    assert said in verdict.sentence


def test_wide_foreign_buckets_never_decide_a_p99_but_errors_alone_can() -> None:
    wide = Sketch.from_coarse([0.01, 0.1], [0, 5000], count=5000, sum=100)
    sides = evidence(*(Side(latency=wide, requests=5000, errors=0) for _ in range(2)))
    verdict = judge(sides, gate=GATE)
    assert verdict.state is WAITING
    assert "too wide to compare a p99" in verdict.sentence
    by_errors = judge(sides, gate=CanaryGate(p99_ratio=None))
    assert by_errors.state is PASSED
    assert "p99" not in by_errors.sentence


def test_a_pass_waits_for_the_pause_of_its_step_and_a_failure_does_not() -> None:
    good = evidence(same(0.02, n=5000), same(0.02, n=5000), window_s=100)
    early = judge(good, gate=GATE, pause_s=400)
    assert early.state is WAITING
    assert early.sentence.endswith("The step lasts 5 minutes more.")
    assert judge(good, gate=GATE, pause_s=100).state is PASSED
    assert judge(evidence(good.stable, same(0.2, n=5000)), gate=GATE, pause_s=400).state is FAILED


def test_a_p99_beyond_the_range_has_no_upper_end() -> None:
    beyond = Sketch.from_slots({SLOTS - 1: 5000}, sum=1.0, clamped=5000)
    assert math.isinf(p99_ms(beyond, miss=0.0125).high)


@given(
    values=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40),
    times=st.integers(1, 60),
    miss=st.sampled_from([0.0125, 0.05]),
)
def test_the_interval_holds_the_p99_that_was_seen(values: list[float], times: int, miss: float) -> None:
    p99 = p99_ms(Sketch.from_values(values * times), miss=miss)
    exact = 1000 * sorted(values * times)[math.floor(0.99 * (len(values) * times - 1))]
    assert p99.low <= exact * (1 + 1e-9)
    assert exact <= p99.high * (1 + 1e-9)


sides = st.builds(
    lambda counts, errors: Side(
        latency=Sketch.from_slots(counts, sum=1.0),
        requests=sum(counts.values()),
        errors=min(errors, sum(counts.values())),
    ),
    st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 5000), max_size=5),
    st.integers(0, 200),
)


@given(stable=sides, canary=sides, window_s=st.floats(0, 10_000), pause_s=st.integers(0, 100))
def test_any_evidence_gives_a_verdict_that_can_be_kept(
    stable: Side, canary: Side, window_s: float, pause_s: int
) -> None:
    verdict = judge(evidence(stable, canary, window_s=window_s), gate=GATE, pause_s=pause_s)
    assert verdict.sentence.endswith(".")
    kept = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert StepVerdict.from_json(kept).to_json() == verdict.to_json()


@given(stable=sides, canary=sides)
def test_no_canary_is_failed_and_passed_at_once_by_a_stricter_gate(stable: Side, canary: Side) -> None:
    """What passes a strict gate passes a lax one; what fails a lax one fails a strict one."""
    strict, lax = CanaryGate(p99_ratio=1.1, error_points=0.5), CanaryGate(p99_ratio=2.0, error_points=3.0)
    by_strict, by_lax = (judge(evidence(stable, canary), gate=gate).state for gate in (strict, lax))
    assert by_strict is not PASSED or by_lax is PASSED
    assert by_lax is not FAILED or by_strict is FAILED
