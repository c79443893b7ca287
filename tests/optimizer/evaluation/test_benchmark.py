"""The benchmark on synthetic clocks: what it claims when timings are known, and how it takes them."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from optimizer.domain.statistics import MIN_ROUNDS
from optimizer.domain.verdict import Claim, Policy, Verdict, decide
from optimizer.evaluation.benchmark import Arm, Pace, Timing, compare, rounds, summarize


class Clock:
    """Time that passes only when an arm runs. `slowdown` is what the machine does meanwhile."""

    def __init__(self, slowdown: Callable[[float], float] = lambda now: 1.0, seed: int = 0) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self._slowdown = slowdown
        self._rng = np.random.default_rng(seed)

    def __call__(self) -> float:
        return self.now

    def arm(self, name: str, seconds: float, *, jitter: float = 0.01) -> Arm:
        def run(index: int) -> None:
            self.calls.append((name, index))
            noise = 1 + jitter * abs(self._rng.standard_normal())
            self.now += seconds * noise * self._slowdown(self.now)

        return run


def measured(clock: Clock, *, parent: float, twin: float, variant: float, budget_s: float = 20) -> Timing:
    _, timing = compare(
        parent=clock.arm("parent", parent),
        twin=clock.arm("twin", twin),
        variant=clock.arm("variant", variant),
        batch_size=1,
        budget_s=budget_s,
        seed=3,
        policy=Policy(),
        clock=clock,
    )
    return timing


@pytest.mark.parametrize(
    ("variant_ms", "expected"),
    [(4, Claim.GAIN), (9, Claim.GAIN), (9.9, Claim.NO_GAIN), (10, Claim.NO_GAIN), (30, Claim.LOSS)],
)
def test_on_a_quiet_machine_it_claims_what_is_so(variant_ms: float, expected: Claim) -> None:
    assert measured(Clock(), parent=0.010, twin=0.010, variant=variant_ms / 1000).claim is expected


def storms(now: float) -> float:
    """A neighbour takes three quarters of the core every other half second."""
    return 4.0 if int(now * 2) % 2 else 1.0


def awakening(now: float) -> float:
    """Quiet during the control, then a neighbour comes and stays."""
    return 1.0 if now < 4 else 3.0


@pytest.mark.parametrize("machine", [storms, awakening, lambda now: 1 + now / 10])
def test_a_neighbour_does_not_make_the_same_file_faster_than_itself(
    machine: Callable[[float], float],
) -> None:
    for seed in range(5):
        timing = measured(Clock(machine, seed=seed), parent=0.010, twin=0.010, variant=0.010)
        verdict = decide(speeds=[timing.evidence()], fidelity=None).verdict
        assert timing.claim in (Claim.NO_GAIN, Claim.UNCLEAR)
        assert verdict in (Verdict.NOT_FASTER, Verdict.INCONCLUSIVE)


def test_two_sessions_of_one_file_that_differ_steadily_are_noise() -> None:
    timing = measured(Clock(), parent=0.010, twin=0.0107, variant=0.0092)
    assert timing.spread > 0.05
    assert timing.claim is Claim.UNCLEAR


def test_a_noisy_side_is_marked() -> None:
    seconds = np.array([1.0] * 10 + [1.3] * 15)
    assert summarize(seconds).noisy
    assert not summarize(np.array([1.0] * 15 + [1.3] * 10)).noisy


def test_every_round_runs_every_side_once_in_changing_order_with_the_same_inputs() -> None:
    clock = Clock()
    arms = {name: clock.arm(name, 0.005) for name in ("a", "b", "c")}
    taken = rounds(arms, pace=Pace(warmup=2, min_rounds=30, max_rounds=30), budget_s=1, seed=0, clock=clock)
    timed = clock.calls[2 * 3 + 3 :]
    triples = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert len(triples) == 30
    assert all({name for name, _ in triple} == {"a", "b", "c"} for triple in triples)
    assert all(len({index for _, index in triple}) == 1 for triple in triples)
    assert min(Counter(triple[0][0] for triple in triples).values()) >= 4
    assert {name: len(row) for name, row in taken.items()} == {"a": 30, "b": 30, "c": 30}


def test_warm_up_is_not_counted() -> None:
    clock = Clock(lambda now: 50.0 if now < 1 else 1.0)
    taken = rounds({"a": clock.arm("a", 0.01)}, pace=Pace(warmup=4), budget_s=1, seed=0, clock=clock)
    assert taken["a"].max() < 0.02


def test_a_fast_model_is_repeated_within_a_sample_and_counted_per_request() -> None:
    clock = Clock()
    taken = rounds({"a": clock.arm("a", 0.00002)}, pace=Pace(max_rounds=20), budget_s=1, seed=0, clock=clock)
    assert len(clock.calls) > 20 * 50
    assert np.median(taken["a"]) == pytest.approx(0.00002, rel=0.05)


def test_it_stops_when_the_medians_are_precise_or_the_time_is_up() -> None:
    steady, rough = Clock(), Clock()
    pace = Pace(min_rounds=15, max_rounds=10_000)
    early = rounds({"a": steady.arm("a", 0.01, jitter=0.001)}, pace=pace, budget_s=60, seed=0, clock=steady)
    late = rounds({"a": rough.arm("a", 0.01, jitter=3)}, pace=pace, budget_s=5, seed=0, clock=rough)
    assert len(early["a"]) == 20
    assert 5 <= rough.now < 5.5
    assert len(late["a"]) > 15


def test_a_model_slower_than_its_budget_still_gets_the_rounds_that_an_interval_needs() -> None:
    clock = Clock()
    taken = rounds({"a": clock.arm("a", 60)}, pace=Pace(warmup=1), budget_s=10, seed=0, clock=clock)
    assert len(taken["a"]) == MIN_ROUNDS
