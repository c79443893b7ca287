"""From evidence to a verdict, and the sentence that says it.

Each side (speed, accuracy) has three outcomes, because "not shown" is neither yes nor no: passed, refused,
unclear. Refused here: a verdict from point estimates. A gain counts where the low end of its interval clears
the demand and the gain is larger than three times what the same file shows against itself.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from optimizer.domain.statistics import Estimate, items_needed


class Verdict(StrEnum):
    BETTER = "better"
    FASTER_BUT_INACCURATE = "faster_but_inaccurate"
    NOT_FASTER = "not_faster"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not_measured"
    FAILED = "failed"


class Claim(StrEnum):
    """What may be said about one batch size."""

    GAIN = "gain"
    NO_GAIN = "no_gain"
    LOSS = "loss"
    UNCLEAR = "unclear"


class Outcome(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Basis(StrEnum):
    """Where the answers that were compared come from."""

    LABELS = "labels"
    EVALUATION_SET = "evaluation_set"
    RANDOM_INPUTS = "random_inputs"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is asked of a variant. `max_loss` and `max_disagreement` are shares (0.01 is one point)."""

    min_speedup: float = 1.05
    noise_factor: float = 3.0
    # Two sessions of one file are one draw; below this no spread is believed.
    spread_floor: float = 0.005
    max_loss: float = 0.01
    max_disagreement: float = 0.01

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One batch size. `spread` is that of the A/A control (0.01 is 1 %)."""

    batch_size: int
    parent_ms: float
    variant_ms: float
    speedup: Estimate
    spread: float


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """`loss`: points of `measure` lost where there are labels, or where the task has a measure of agreement with the
    parent; else the share of items that disagree."""

    basis: Basis
    loss: Estimate
    measure: str = "accuracy"

    @property
    def in_points(self) -> bool:
        return self.basis is Basis.LABELS or self.measure != "accuracy"


@dataclass(frozen=True, kw_only=True)
class Judgment:
    verdict: Verdict
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict.value, "sentence": self.sentence}


def claim(speed: Speed, policy: Policy) -> Claim:
    """What this batch size shows. A claim either way needs more than `noise_factor` times the A/A spread."""
    ratio = speed.speedup
    noise = policy.noise_factor * max(speed.spread, policy.spread_floor)
    if ratio.low >= policy.min_speedup and ratio.value - 1 > noise:
        return Claim.GAIN
    if ratio.high < 1 / policy.min_speedup and 1 / ratio.value - 1 > noise:
        return Claim.LOSS
    # "No gain" is a claim as well: the measurement must have been able to see the gain that was asked for.
    if ratio.high < policy.min_speedup and policy.min_speedup - 1 > noise:
        return Claim.NO_GAIN
    return Claim.UNCLEAR


def judge_speed(speeds: Sequence[Speed], policy: Policy) -> Outcome:
    """A loss at one batch size is not paid for by a gain at another, and one that may be there is not overlooked:
    traffic decides which one is used."""
    claims = {claim(speed, policy) for speed in speeds}
    if Claim.LOSS in claims:
        return Outcome.REFUSED
    if Claim.GAIN in claims:
        return Outcome.UNCLEAR if any(_may_lose(speed, policy) for speed in speeds) else Outcome.PASSED
    return Outcome.REFUSED if claims == {Claim.NO_GAIN} else Outcome.UNCLEAR


def _may_lose(speed: Speed, policy: Policy) -> bool:
    return claim(speed, policy) is Claim.UNCLEAR and speed.speedup.low < 1


def loss_limit(fidelity: Fidelity, policy: Policy) -> float:
    return policy.max_loss if fidelity.basis is Basis.LABELS else policy.max_disagreement


def judge_fidelity(fidelity: Fidelity | None, policy: Policy) -> Outcome:
    """Passed and refused at the bound of the interval, never at its middle."""
    if fidelity is None:
        return Outcome.UNCLEAR
    limit = loss_limit(fidelity, policy)
    if fidelity.loss.high <= limit:
        return Outcome.PASSED
    return Outcome.REFUSED if fidelity.loss.low > limit else Outcome.UNCLEAR


def decide(
    *, speeds: Sequence[Speed], fidelity: Fidelity | None, policy: Policy | None = None, failure: str = ""
) -> Judgment:
    """The verdict on a variant. `failure` is a reason for which its outputs cannot be used at all. Without `speeds` it
    did not run here, and `fidelity` is of the model that it was compiled from."""
    policy = policy or Policy()
    if failure:
        return Judgment(verdict=Verdict.FAILED, sentence=f"Failed: {failure}")
    if not speeds:
        return Judgment(verdict=Verdict.NOT_MEASURED, sentence=_unmeasured(fidelity, policy))
    fast, faithful = judge_speed(speeds, policy), judge_fidelity(fidelity, policy)
    match fast, faithful:
        case Outcome.REFUSED, _:
            verdict = Verdict.NOT_FASTER
        case Outcome.PASSED, Outcome.PASSED:
            verdict = Verdict.BETTER
        case Outcome.PASSED, Outcome.REFUSED:
            verdict = Verdict.FASTER_BUT_INACCURATE
        case _:
            verdict = Verdict.INCONCLUSIVE
    return Judgment(verdict=verdict, sentence=_sentence(verdict, fast, faithful, speeds, fidelity, policy))


_LEAD = {
    Verdict.BETTER: "Better",
    Verdict.FASTER_BUT_INACCURATE: "Faster but inaccurate",
    Verdict.NOT_FASTER: "Not faster",
    Verdict.INCONCLUSIVE: "Inconclusive",
}


def _sentence(
    verdict: Verdict,
    fast: Outcome,
    faithful: Outcome,
    speeds: Sequence[Speed],
    fidelity: Fidelity | None,
    policy: Policy,
) -> str:
    unclear = [speed for speed in speeds if claim(speed, policy) is Claim.UNCLEAR]
    speed = _speed_text(speeds, doubtful=[] if fast is Outcome.UNCLEAR else unclear)
    if fast is Outcome.UNCLEAR and faithful is Outcome.REFUSED and fidelity is not None:
        # What is certain comes first: no better look at its speed would let this variant pass.
        certain = f"{_fidelity_text(fidelity)}; {_fidelity_demand(faithful, fidelity, policy)}"
        return f"Inaccurate, speed inconclusive: {certain}; {speed}; {_unclear_text(speeds, policy)}."
    parts = [speed, _fidelity_text(fidelity)]
    if fast is Outcome.REFUSED and not any(claim(each, policy) is Claim.LOSS for each in speeds):
        parts.append(f"at least {policy.min_speedup:.2f}x is asked")
    if fast is Outcome.UNCLEAR:
        parts.append(_unclear_text(speeds, policy))
    if faithful is not Outcome.PASSED and fast is not Outcome.REFUSED and fidelity is not None:
        parts.append(_fidelity_demand(faithful, fidelity, policy))
    return f"{_LEAD[verdict]}: {'; '.join(parts)}."


def _unmeasured(fidelity: Fidelity | None, policy: Policy) -> str:
    """What was compared, if anything was, is not the variant but what it was compiled from."""
    parts = [_fidelity_text(fidelity)]
    if fidelity is not None:
        parts = [f"the model that it was compiled from: {parts[0]}"]
        if judge_fidelity(fidelity, policy) is Outcome.REFUSED:
            parts.append(_fidelity_demand(Outcome.REFUSED, fidelity, policy))
    return f"Not measured: there is no matching hardware here; {'; '.join(parts)}."


def _speed_text(speeds: Sequence[Speed], *, doubtful: Sequence[Speed]) -> str:
    """The `doubtful` are marked: beside others that show something, their figures would look like evidence."""
    *others, last = (
        f"{speed.speedup.value:.2f}x at batch {speed.batch_size} ({_ms(speed.parent_ms)} to {_ms(speed.variant_ms)}"
        f"{'; too close to its noise to count' if speed in doubtful else ''})"
        for speed in speeds
    )
    return f"{', '.join(others)} and {last}" if others else last


def _fidelity_text(fidelity: Fidelity | None) -> str:
    if fidelity is None:
        return "its accuracy could not be measured"
    loss, n = fidelity.loss, f"{fidelity.loss.n:,}"
    if fidelity.basis is Basis.LABELS:
        change = "lost" if loss.value > 0 else "gained"
        measure = fidelity.measure
        moved = f"{measure} {change} {_points(abs(loss.value))}" if loss.value else f"{measure} unchanged"
        return f"{moved} on {n} labelled items (at most {_points(max(0, loss.high))} lost)"
    items = "evaluation items" if fidelity.basis is Basis.EVALUATION_SET else "random inputs"
    if fidelity.in_points:
        least = 1 - min(1, loss.high)
        return f"{fidelity.measure} {1 - loss.value:.4f} on {n} {items} (at least {least:.4f})"
    return f"agrees with the parent on {_percent(1 - loss.value)} of {n} {items}"


def _fidelity_demand(faithful: Outcome, fidelity: Fidelity, policy: Policy) -> str:
    limit = loss_limit(fidelity, policy)
    asked = f"a loss of {_points(limit)}" if fidelity.in_points else f"{_percent(limit)} disagreement"
    if faithful is Outcome.REFUSED:
        return f"more than {asked} is certain"
    needed = items_needed(limit=limit, confidence=fidelity.loss.confidence)
    enough = f" (at least {needed:,})" if fidelity.loss.n < needed else ""
    return f"whether it stays within {asked} takes more items to tell{enough}"


def _unclear_text(speeds: Sequence[Speed], policy: Policy) -> str:
    """A gain that may be paid for elsewhere; else the machine was too noisy to see the gain that is asked for, or
    the interval lies across it."""
    if any(claim(speed, policy) is Claim.GAIN for speed in speeds):
        doubtful = next(speed for speed in speeds if _may_lose(speed, policy))
        return (
            f"whether it is slower at batch {doubtful.batch_size} cannot be told: the interval reaches down to "
            f"{doubtful.speedup.low:.3f}x and the same file against itself differs by {_percent(doubtful.spread)} there"
        )
    widest = max(speed.spread for speed in speeds)
    if policy.noise_factor * widest >= policy.min_speedup - 1:
        return (
            f"the same file against itself differs by {_percent(widest)} on this machine, "
            f"too much to tell a gain of {policy.min_speedup:.2f}x"
        )
    ratio = next(speed.speedup for speed in speeds if claim(speed, policy) is Claim.UNCLEAR)
    return f"the interval from {ratio.low:.3f}x to {ratio.high:.3f}x lies across the {policy.min_speedup:.2f}x asked"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "an unknown amount"
    return f"{f'{100 * share:.2f}'.rstrip('0').rstrip('.')} %"


def _points(share: float) -> str:
    text = f"{100 * share:.2g}"
    return f"{text} {'point' if text == '1' else 'points'}"
