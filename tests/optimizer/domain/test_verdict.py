"""Verdicts follow from intervals; noise and small samples are neither a yes nor a no."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.domain.statistics import Estimate, complement, paired_loss, paired_ratio, wilson
from optimizer.domain.verdict import (
    Basis,
    Claim,
    Fidelity,
    Outcome,
    Policy,
    Speed,
    Verdict,
    claim,
    decide,
    judge_fidelity,
)

POLICY = Policy()


def speed(value: float, *, half: float = 0.005, spread: float = 0.004, batch_size: int = 1) -> Speed:
    ratio = Estimate(value=value, low=value - half, high=value + half, n=40, confidence=0.95)
    return Speed(batch_size=batch_size, parent_ms=10.0, variant_ms=10.0 / value, speedup=ratio, spread=spread)


def labelled(*, lost: int, gained: int = 0, n: int = 1000) -> Fidelity:
    return Fidelity(basis=Basis.LABELS, loss=paired_loss(lost=lost, gained=gained, n=n))


def agreeing(same: int, n: int, basis: Basis = Basis.RANDOM_INPUTS) -> Fidelity:
    return Fidelity(basis=basis, loss=complement(wilson(same, n, confidence=0.9)))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (speed(2.4), Claim.GAIN),
        (speed(1.08), Claim.GAIN),
        (speed(1.03), Claim.NO_GAIN),
        (speed(1.00), Claim.NO_GAIN),
        (speed(0.97), Claim.NO_GAIN),
        (speed(0.32), Claim.LOSS),
        # The interval lies across what is asked.
        (speed(1.052, half=0.01), Claim.UNCLEAR),
        # Larger than what is asked, but not than three times the control's spread.
        (speed(1.25, spread=0.09), Claim.UNCLEAR),
        (speed(0.80, spread=0.09), Claim.UNCLEAR),
        # No gain seen, but the machine could not have shown one.
        (speed(1.00, spread=0.02), Claim.UNCLEAR),
        (speed(3.0, spread=math.inf), Claim.UNCLEAR),
    ],
)
def test_what_one_batch_size_shows(row: Speed, expected: Claim) -> None:
    assert claim(row, POLICY) is expected


@pytest.mark.parametrize(
    ("speeds", "fidelity", "expected"),
    [
        ([speed(2.4), speed(2.5, batch_size=8)], labelled(lost=2), Verdict.BETTER),
        ([speed(2.4), speed(1.0, batch_size=8)], labelled(lost=2), Verdict.BETTER),
        ([speed(2.4)], agreeing(512, 512), Verdict.BETTER),
        ([speed(2.4)], labelled(lost=100), Verdict.FASTER_BUT_INACCURATE),
        ([speed(2.4)], agreeing(400, 512), Verdict.FASTER_BUT_INACCURATE),
        ([speed(2.4)], labelled(lost=0, n=50), Verdict.INCONCLUSIVE),
        ([speed(2.4)], labelled(lost=10), Verdict.INCONCLUSIVE),
        ([speed(2.4)], None, Verdict.INCONCLUSIVE),
        ([speed(1.0)], labelled(lost=0), Verdict.NOT_FASTER),
        ([speed(1.0)], labelled(lost=900), Verdict.NOT_FASTER),
        ([speed(0.3)], None, Verdict.NOT_FASTER),
        ([speed(2.4), speed(0.7, batch_size=8)], labelled(lost=0), Verdict.NOT_FASTER),
        # A gain at one batch size, and perhaps a loss at the other.
        ([speed(2.0), speed(0.8, spread=0.1, batch_size=8)], labelled(lost=2), Verdict.INCONCLUSIVE),
        ([speed(2.0), speed(1.0, half=0.06, batch_size=8)], labelled(lost=2), Verdict.INCONCLUSIVE),
        ([speed(0.97, spread=0.05), speed(2.0, batch_size=8)], labelled(lost=2), Verdict.INCONCLUSIVE),
        # Too small a gain to be sure of, but no loss.
        ([speed(2.0), speed(1.2, spread=0.1, batch_size=8)], labelled(lost=2), Verdict.BETTER),
        (
            [speed(2.0), speed(1.2, spread=0.1, batch_size=8)],
            labelled(lost=100),
            Verdict.FASTER_BUT_INACCURATE,
        ),
        ([speed(2.0), speed(0.8, spread=0.1, batch_size=8)], labelled(lost=100), Verdict.INCONCLUSIVE),
        ([speed(1.2, spread=0.1)], labelled(lost=0), Verdict.INCONCLUSIVE),
        ([speed(1.2, spread=0.1)], labelled(lost=900), Verdict.INCONCLUSIVE),
        ([], labelled(lost=0), Verdict.NOT_MEASURED),
    ],
)
def test_the_table_of_verdicts(speeds: list[Speed], fidelity: Fidelity | None, expected: Verdict) -> None:
    assert decide(speeds=speeds, fidelity=fidelity).verdict is expected


@pytest.mark.parametrize(
    ("fidelity", "said"),
    [
        (None, "its accuracy could not be measured"),
        (
            agreeing(512, 512),
            "the model that it was compiled from: agrees with the parent on 100 % of 512 random inputs",
        ),
        (
            agreeing(100, 512),
            "the model that it was compiled from: agrees with the parent on 19.53 % of 512 random inputs; "
            "more than 1 % disagreement is certain",
        ),
    ],
)
def test_what_does_not_run_here_is_judged_by_what_it_was_compiled_from_and_says_so(
    fidelity: Fidelity | None, said: str
) -> None:
    judgment = decide(speeds=[], fidelity=fidelity)
    assert judgment.sentence == f"Not measured: there is no matching hardware here; {said}."


def test_outputs_that_cannot_be_used_fail_however_fast_they_come() -> None:
    judgment = decide(speeds=[speed(9.0)], fidelity=labelled(lost=0), failure="output “y” is NaN.")
    assert judgment.verdict is Verdict.FAILED
    assert judgment.sentence == "Failed: output “y” is NaN."


def test_a_better_accuracy_is_no_loss() -> None:
    assert judge_fidelity(labelled(lost=2, gained=30), POLICY) is Outcome.PASSED


speeds = st.builds(
    lambda value, half, spread, batch_size: speed(
        value, half=half * value, spread=spread, batch_size=batch_size
    ),
    st.floats(0.05, 20),
    st.floats(0, 0.5),
    st.floats(0, 1) | st.just(math.inf),
    st.integers(1, 16),
)
fidelities = st.none() | st.builds(
    lambda lost, extra, basis: Fidelity(basis=basis, loss=paired_loss(lost=lost, gained=0, n=lost + extra)),
    st.integers(0, 50),
    st.integers(1, 2000),
    st.sampled_from(Basis),
)


@given(st.lists(speeds, max_size=3), fidelities, st.sampled_from(["", "it does not open."]))
def test_every_evidence_has_one_verdict_and_a_sentence_without_nonsense(
    rows: list[Speed], fidelity: Fidelity | None, failure: str
) -> None:
    judgment = decide(speeds=rows, fidelity=fidelity, failure=failure)
    assert judgment.sentence.endswith(".")
    assert not {"nan", "inf"} & set(judgment.sentence.lower().replace(".", " ").replace(" %", " ").split())


@given(st.lists(speeds, min_size=1, max_size=3), fidelities)
def test_nothing_is_better_without_a_gain_beyond_three_times_the_noise(
    rows: list[Speed], fidelity: Fidelity | None
) -> None:
    if decide(speeds=rows, fidelity=fidelity).verdict in (Verdict.BETTER, Verdict.FASTER_BUT_INACCURATE):
        assert any(row.speedup.value - 1 > 3 * row.spread and row.speedup.low >= 1.05 for row in rows)


@given(
    st.lists(st.floats(1e-3, 1e-1), min_size=5, max_size=40),
    st.floats(0, 0.3),
    st.integers(0, 1000),
)
def test_the_same_file_twice_is_never_better(seconds: list[float], spread: float, seed: int) -> None:
    """Whatever the machine does, both sides of an A/A pair see it."""
    ratio = paired_ratio(seconds, seconds, seed=seed)
    row = Speed(batch_size=1, parent_ms=1, variant_ms=1, speedup=ratio, spread=spread)
    verdict = decide(speeds=[row], fidelity=agreeing(512, 512)).verdict
    assert verdict in (Verdict.NOT_FASTER, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("speeds", "fidelity", "sentence"),
    [
        (
            [speed(2.5), speed(2.0, batch_size=8)],
            labelled(lost=3, gained=1),
            "Better: 2.50x at batch 1 (10 ms to 4 ms) and 2.00x at batch 8 (10 ms to 5 ms); "
            "accuracy lost 0.2 points on 1,000 labelled items (at most 0.66 points lost).",
        ),
        (
            [speed(2.5), speed(2.0, batch_size=8), speed(1.6, batch_size=32)],
            labelled(lost=0),
            "Better: 2.50x at batch 1 (10 ms to 4 ms), 2.00x at batch 8 (10 ms to 5 ms) and 1.60x at batch 32 "
            "(10 ms to 6.25 ms); accuracy unchanged on 1,000 labelled items (at most 0.27 points lost).",
        ),
        (
            [speed(1.0)],
            agreeing(512, 512),
            "Not faster: 1.00x at batch 1 (10 ms to 10 ms); agrees with the parent on 100 % of 512 random inputs; "
            "at least 1.05x is asked.",
        ),
        (
            [speed(2.0)],
            labelled(lost=0, n=50),
            "Inconclusive: 2.00x at batch 1 (10 ms to 5 ms); accuracy unchanged on 50 labelled items "
            "(at most 5.1 points lost); whether it stays within a loss of 1 point takes more items to tell "
            "(at least 268).",
        ),
        (
            [speed(1.2, spread=0.1)],
            agreeing(990, 1000, Basis.EVALUATION_SET),
            "Inconclusive: 1.20x at batch 1 (10 ms to 8.33 ms); agrees with the parent on 99 % of 1,000 evaluation "
            "items; the same file against itself differs by 10 % on this machine, too much to tell a gain of 1.05x; "
            "whether it stays within 1 % disagreement takes more items to tell.",
        ),
        (
            [speed(2.0), speed(0.8, spread=0.1, batch_size=8)],
            labelled(lost=2),
            "Inconclusive: 2.00x at batch 1 (10 ms to 5 ms) and 0.80x at batch 8 (10 ms to 12.5 ms); accuracy lost "
            "0.2 points on 1,000 labelled items (at most 0.6 points lost); whether it is slower at batch 8 cannot be "
            "told: the interval reaches down to 0.795x and the same file against itself differs by 10 % there.",
        ),
        (
            [speed(1.2, spread=0.1)],
            labelled(lost=530),
            "Inaccurate, speed inconclusive: accuracy lost 53 points on 1,000 labelled items (at most 56 points lost); "
            "more than a loss of 1 point is certain; 1.20x at batch 1 (10 ms to 8.33 ms); the same file against "
            "itself differs by 10 % on this machine, too much to tell a gain of 1.05x.",
        ),
    ],
)
def test_the_sentence_says_the_figures(speeds: list[Speed], fidelity: Fidelity, sentence: str) -> None:
    assert decide(speeds=speeds, fidelity=fidelity).sentence == sentence


def test_a_figure_that_shows_nothing_is_marked_beside_one_that_does() -> None:
    noisy = speed(3.1, spread=2.2, batch_size=8)
    said = decide(speeds=[speed(2.4), noisy], fidelity=agreeing(512, 512)).sentence
    assert said.startswith("Better: 2.40x at batch 1 (10 ms to 4.17 ms) and 3.10x at batch 8")
    assert said.count("too close to its noise to count") == 1
    alone = decide(speeds=[noisy], fidelity=agreeing(512, 512)).sentence
    assert "too close to its noise" not in alone
    assert "differs by 220 %" in alone
