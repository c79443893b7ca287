"""A rollout in words: its strategy, the step it is at, and what each step was shown to be. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.domain.canary import StepOutcome
from deployments.domain.rollouts import ACTIVE, RolloutState
from deployments.domain.spec import CanaryGate, CanaryStep, RolloutPolicy, Strategy
from deployments.domain.strategy import StepState

NAMES = {
    Strategy.ROLLING: "Rolling",
    Strategy.RECREATE: "Recreate",
    Strategy.BLUE_GREEN: "Blue/green",
    Strategy.CANARY: "Canary",
}
_STATES = {
    StepOutcome.PASSED: ("Passed", "ok"),
    StepOutcome.FAILED: ("Failed", "failed"),
    StepOutcome.UNDECIDED: ("Undecided", "paused"),
    StepOutcome.WAITING: ("Collecting evidence", "progressing"),
}
_LET_PASS = ("Let pass by a person", "warning")
_BEGINNING = ("Replicas come up", "progressing")
_LEFT = ("Not decided", "unknown")
_LATER = ("Not begun", "unknown")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of a step's evidence: what the new and the serving revision did in the same time."""

    name: str
    canary: str
    stable: str


@dataclass(frozen=True, kw_only=True)
class StepWords:
    """`state` is a label and a tone; `sentence` the last verdict, empty before there was one."""

    number: int
    weight: int
    asks: str
    state: tuple[str, str]
    sentence: str
    window_s: float | None
    figures: tuple[Figure, ...]
    current: bool


def strategy(policy: RolloutPolicy, *, first: bool) -> str:
    """`first`: nothing serves yet, so there is nothing to move traffic away from."""
    if first and policy.strategy in (Strategy.CANARY, Strategy.BLUE_GREEN):
        return f"{NAMES[policy.strategy]}, but nothing served before: it comes up replica by replica."
    match policy.strategy:
        case Strategy.CANARY:
            *before, last = [f"{step.weight} %" for step in policy.steps]
            shares = f"{', '.join(before)} and {last}" if before else last
            return f"Canary: {shares} of the requests, then all; {_gate(policy.gate)}."
        case Strategy.BLUE_GREEN:
            held = (
                f"the old replicas stay ready for {policy.hold_s:,} s after it"
                if policy.hold_s
                else "without a hold"
            )
            return f"Blue/green: a whole second set comes up, then all requests move at once; {held}."
        case Strategy.RECREATE:
            return "Recreate: the old replicas end first, and nothing answers until the new ones are ready."
    less = f"{policy.max_unavailable} fewer" if policy.max_unavailable else "never fewer"
    return f"Rolling: replica by replica, at most {policy.max_surge} more than wanted and {less}."


def _gate(gate: CanaryGate) -> str:
    errors = f"{gate.error_points:g} point{'' if gate.error_points == 1 else 's'} more errors"
    latency = f"{gate.p99_ratio:g} times the p99 and " if gate.p99_ratio is not None else ""
    return f"each step has to show at most {latency}{errors}, at {100 * gate.confidence:g} % confidence"


def place(policy: RolloutPolicy, state: StepState) -> str:
    """“Step 2 of 3”; empty for what has no steps."""
    if policy.strategy is not Strategy.CANARY:
        return ""
    total = len(policy.steps)
    if state.index < total:
        return f"Step {state.index + 1} of {total}"
    return f"All {total} steps passed"


def hold_until(policy: RolloutPolicy, state: StepState, rollout_state: str) -> datetime | None:
    """Until when the old replicas stay ready; None while all traffic has not moved, and once it is over."""
    if policy.strategy is not Strategy.BLUE_GREEN or state.since is None:
        return None
    if rollout_state not in (RolloutState.RUNNING, RolloutState.PAUSED):
        return None
    return state.since + timedelta(seconds=policy.hold_s)


def steps(
    policy: RolloutPolicy, state: StepState, rollout_state: str, verdicts: Mapping[str, Any]
) -> tuple[StepWords, ...]:
    """`verdicts` by the step's index as text, as they are kept with the rollout. Empty for what has no steps."""
    listed: Sequence[CanaryStep] = policy.steps if policy.strategy is Strategy.CANARY else ()
    return tuple(
        _step(place, step, state, rollout_state, verdicts.get(str(place)))
        for place, step in enumerate(listed)
    )


def _step(
    place: int, step: CanaryStep, at: StepState, rollout_state: str, verdict: Mapping[str, Any] | None
) -> StepWords:
    current = place == at.index and rollout_state in ACTIVE
    more = [f"{step.min_requests:,} requests of each side"] * bool(step.min_requests)
    more += [f"{step.pause_s:,} s"] * bool(step.pause_s)
    figures = verdict["figures"] if verdict else {}
    return StepWords(
        number=place + 1,
        weight=step.weight,
        asks=f"at least {' and '.join(more)}" if more else "",
        state=_state(place, at, verdict, current=current),
        sentence=verdict["sentence"] if verdict else "",
        window_s=figures.get("window_s"),
        figures=_figures(figures) if _any_requests(figures) else (),
        current=current,
    )


def _state(place: int, at: StepState, verdict: Mapping[str, Any] | None, *, current: bool) -> tuple[str, str]:
    outcome = StepOutcome(verdict["state"]) if verdict else None
    if place < at.index:
        return _STATES[StepOutcome.PASSED] if outcome is StepOutcome.PASSED else _LET_PASS
    if place > at.index:
        return _LATER
    if outcome is None:
        return _BEGINNING if current else _LATER
    return _STATES[outcome] if current or outcome is not StepOutcome.WAITING else _LEFT


def _any_requests(figures: Mapping[str, Any]) -> bool:
    """A table of zeros says no more than the sentence above it."""
    return any(figures[side]["requests"] for side in ("canary", "stable") if side in figures)


def _figures(figures: Mapping[str, Any]) -> tuple[Figure, ...]:
    sides = [figures["canary"], figures["stable"]]
    rows = [("Requests", [f"{side['requests']:,}" for side in sides])]
    if figures["gate"]["p99_ratio"] is not None:
        rows.append(("p99", [_interval(side["p99_ms"], 1, "ms") for side in sides]))
    rows.append(("Error rate", [_interval(side["error_rate"], 100, "%") for side in sides]))
    rows.append(("Failed requests", [f"{side['errors']:,}" for side in sides]))
    return tuple(Figure(name=name, canary=canary, stable=stable) for name, (canary, stable) in rows)


def _interval(one: Mapping[str, float | None], times: float, unit: str) -> str:
    if one["value"] is None or one["low"] is None:
        return "unknown"
    high = "no upper bound" if one["high"] is None else _digits(one["high"] * times)
    return f"{_digits(one['value'] * times)} {unit} ({_digits(one['low'] * times)} – {high})"


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
