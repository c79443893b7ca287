"""Rollouts on a target that rolls by itself come to their end, whatever becomes ready when, and never leave the main
place short of what was wished for it."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.cluster_strategy import Part, Places, candidates, next_places
from deployments.domain.spec import CanaryStep, RolloutPolicy, Strategy
from deployments.domain.strategy import Phase, StepState

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CANARY = RolloutPolicy(
    strategy=Strategy.CANARY, steps=(CanaryStep(weight=10), CanaryStep(weight=50)), hold_s=60
)


@dataclass
class Toy:
    """A cluster that makes true what it is asked for when it is told to."""

    policy: RolloutPolicy
    wanted: int
    weighted: bool
    main: int | None = 1
    main_ready: int = 0
    settled: bool = True
    beside: Part | None = None
    beside_ready: int = 0
    state: StepState = StepState()  # noqa: RUF009 - a frozen value
    now: datetime = T0
    back: bool = False

    def places(self) -> Places:
        return Places(
            policy=self.policy, to=2, stable=1, wanted=self.wanted, main=self.main, main_ready=self.main_ready,
            settled=self.settled, now=self.now, beside=self.beside, beside_ready=self.beside_ready,
            weighted=self.weighted, state=self.state, back=self.back,
        )  # fmt: skip

    def take(self, parts: tuple[Part, ...]) -> None:
        main = next(one for one in parts if not one.candidate)
        if main.revision != self.main:
            self.main, self.main_ready, self.settled = main.revision, 0, False
        beside = next((one for one in parts if one.candidate), None)
        if (self.beside and self.beside.revision) != (beside and beside.revision):
            self.beside_ready = 0
        self.beside = beside
        self.beside_ready = min(self.beside_ready, beside.replicas if beside else 0)

    def become_ready(self) -> None:
        self.main_ready, self.settled = self.wanted, True
        self.beside_ready = self.beside.replicas if self.beside else 0


policies = st.sampled_from(
    [
        RolloutPolicy(),
        RolloutPolicy(strategy=Strategy.RECREATE),
        RolloutPolicy(strategy=Strategy.BLUE_GREEN, hold_s=60),
        RolloutPolicy(strategy=Strategy.BLUE_GREEN, hold_s=0),
        CANARY,
    ]
)


@given(policies, st.integers(1, 30), st.booleans(), st.lists(st.booleans(), max_size=6), st.booleans())
def test_it_ends_with_the_goal_alone_in_the_main_place(policy, wanted, weighted, readiness, turned):
    toy = Toy(policy, wanted, weighted, main_ready=wanted)
    for step in range(80):
        move = next_places(toy.places())
        assert next_places(replace(toy.places(), state=move.state)).parts == move.parts
        if move.phase is Phase.FINISHED:
            break
        toy.take(move.parts)
        toy.state = move.state.next_step() if move.phase is Phase.JUDGING else move.state
        toy.now += timedelta(seconds=30)
        if step >= len(readiness) or readiness[step]:
            toy.become_ready()
        toy.back = toy.back or (turned and step == 3)
    goal = 1 if toy.back else 2
    assert move.phase is Phase.FINISHED
    assert move.parts == (Part(revision=goal, replicas=wanted),)
    assert (toy.main, toy.beside) == (goal, None)


@given(policies, st.integers(1, 30), st.booleans())
def test_the_main_place_is_always_asked_for_in_full(policy, wanted, weighted):
    toy = Toy(policy, wanted, weighted, main_ready=wanted)
    for _ in range(40):
        move = next_places(toy.places())
        assert [one.replicas for one in move.parts if not one.candidate] == [wanted]
        toy.take(move.parts)
        toy.state = move.state.next_step() if move.phase is Phase.JUDGING else move.state
        toy.now += timedelta(seconds=30)
        toy.become_ready()


def test_a_canary_waits_for_its_gate_and_carries_its_share_until_the_main_place_is_done():
    toy = Toy(CANARY, 9, False, main_ready=9)
    move = next_places(toy.places())
    assert move.parts[1] == Part(revision=2, replicas=1, candidate=True)
    assert move.phase is Phase.MOVING
    assert move.share is not None
    assert "1 of 10 replicas takes 10 %" in move.share.sentence
    toy.take(move.parts)
    toy.become_ready()
    assert next_places(toy.places()).phase is Phase.JUDGING
    toy.state = StepState(index=2)
    move = next_places(toy.places())
    assert move.parts == (Part(revision=2, replicas=9), Part(revision=2, replicas=1, candidate=True))


def test_blue_green_switches_only_when_the_whole_set_is_ready_and_back_at_once():
    toy = Toy(RolloutPolicy(strategy=Strategy.BLUE_GREEN, hold_s=60), 3, False, main_ready=3)
    toy.take(next_places(toy.places()).parts)
    toy.beside_ready = 2
    assert next_places(toy.places()).parts[1].weight == 0
    toy.beside_ready = 3
    toy.take(next_places(toy.places()).parts)
    assert toy.beside is not None
    assert toy.beside.weight == 100
    assert next_places(toy.places()).phase is Phase.HOLDING
    toy.back = True
    assert next_places(toy.places()).parts == (Part(revision=1, replicas=3),)


@given(st.integers(1, 200), st.integers(1, 99))
def test_a_share_by_replicas_is_never_below_what_was_asked(wanted, weight):
    number = candidates(wanted, weight, weighted=False)
    assert number / (number + wanted) >= weight / 100 - 1e-9
    assert number == 1 or (number - 1) / (number - 1 + wanted) < weight / 100


@pytest.mark.parametrize(("wanted", "weight", "number"), [(4, 5, 1), (20, 50, 10), (100, 1, 1)])
def test_a_share_by_weight_needs_replicas_for_its_part_alone(wanted, weight, number):
    assert candidates(wanted, weight, weighted=True) == number
