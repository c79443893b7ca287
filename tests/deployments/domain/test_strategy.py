"""What each strategy asks for, from the first look to the last, and on the way back."""

from dataclasses import replace

import pytest

from deployments.domain.rolling import Count, next_counts
from deployments.domain.spec import Strategy
from deployments.domain.strategy import Phase, StepState, next_move, steady
from tests.deployments.domain.rollout_world import NEW, STABLE, World, world

STEPS = [{"weight": 25}, {"weight": 50}]


def seen(one: World) -> tuple[dict[int, int], dict[int, int] | None]:
    return one.asked, one.traffic


def canary(*, wanted: int = 4, weighted: bool = True) -> World:
    return world(Strategy.CANARY, wanted=wanted, weighted=weighted, steps=STEPS)


def judged(one: World) -> World:
    """At its first gate."""
    one.at_rest()
    one.all_ready()
    assert one.at_rest().phase is Phase.JUDGING
    return one


def test_rolling_is_the_rolling_update() -> None:
    one = world(Strategy.ROLLING)
    expected = next_counts(to=NEW, wanted=4, counts=one.counts, policy=one.policy)
    move = next_move(one.situation)
    assert (move.counts, move.weights, move.phase) == (expected, None, Phase.MOVING)


def test_recreate_starts_nothing_before_the_last_old_replica_is_gone() -> None:
    one = world(Strategy.RECREATE)
    assert one.look().counts == {STABLE: 0, NEW: 0}
    one.counts = {STABLE: Count(asked=0, ready=0, present=1)}
    assert one.look().counts == {STABLE: 0, NEW: 0}
    assert one.look().counts == {NEW: 4}
    one.all_ready()
    assert one.look().phase is Phase.FINISHED


def test_recreate_goes_back_in_the_same_order() -> None:
    one = world(Strategy.RECREATE)
    one.look()
    one.look()
    one.back = True
    assert one.look().counts == {STABLE: 0, NEW: 0}
    assert one.look().counts == {STABLE: 4}
    one.all_ready()
    assert one.look().phase is Phase.FINISHED


def test_blue_green_moves_all_traffic_at_once_when_the_new_set_is_complete() -> None:
    one = world(Strategy.BLUE_GREEN)
    one.at_rest()
    assert seen(one) == ({STABLE: 4, NEW: 4}, {STABLE: 100, NEW: 0})
    one.change({NEW: 3})
    one.at_rest()
    assert one.traffic == {STABLE: 100, NEW: 0}
    one.all_ready()
    assert one.at_rest().phase is Phase.HOLDING
    assert seen(one) == ({STABLE: 4, NEW: 4}, {STABLE: 0, NEW: 100})


def test_blue_green_keeps_the_old_set_for_the_hold_and_then_lets_it_go() -> None:
    one = world(Strategy.BLUE_GREEN, hold_s=60)
    one.run(until=Phase.HOLDING)
    one.later(59)
    assert one.at_rest().phase is Phase.HOLDING
    one.later(1)
    assert one.at_rest().phase is Phase.FINISHED
    assert seen(one) == ({NEW: 4}, {NEW: 100})


def test_the_old_set_stays_beyond_the_hold_while_the_new_one_is_not_complete() -> None:
    one = world(Strategy.BLUE_GREEN, hold_s=60)
    one.run(until=Phase.HOLDING)
    one.change({NEW: 3})
    one.later(90)
    assert one.at_rest().phase is Phase.MOVING
    assert seen(one) == ({STABLE: 4, NEW: 4}, {STABLE: 0, NEW: 100})


def test_blue_green_goes_back_in_one_look() -> None:
    one = world(Strategy.BLUE_GREEN)
    one.run(until=Phase.HOLDING)
    one.back = True
    one.look()
    assert seen(one) == ({STABLE: 4, NEW: 4}, {STABLE: 100, NEW: 0})
    assert one.at_rest().phase is Phase.FINISHED
    assert seen(one) == ({STABLE: 4}, {STABLE: 100})


def test_traffic_returns_to_the_old_set_when_the_new_one_has_none_left() -> None:
    one = world(Strategy.BLUE_GREEN)
    one.run(until=Phase.HOLDING)
    one.change({NEW: 0})
    assert one.look().weights == {STABLE: 100, NEW: 0}


def test_traffic_stays_where_it_is_while_nothing_is_ready() -> None:
    one = world(Strategy.BLUE_GREEN, wanted=1)
    one.run(until=Phase.HOLDING)
    one.change({STABLE: 0, NEW: 0})
    assert [one.look().weights for _ in range(3)] == [{STABLE: 0, NEW: 100}] * 3


def test_a_canary_by_weight_is_one_replica_more_until_its_share_is_worth_one() -> None:
    one = world(Strategy.CANARY, weighted=True, steps=[{"weight": 5}])
    judged(one)
    assert seen(one) == ({STABLE: 4, NEW: 1}, {STABLE: 95, NEW: 5})


def test_a_canary_takes_traffic_when_it_is_ready_and_replicas_when_it_has_the_traffic() -> None:
    one = canary()
    one.at_rest()
    assert seen(one) == ({STABLE: 4, NEW: 1}, {STABLE: 100, NEW: 0})
    one.all_ready()
    one.look()
    assert seen(one) == ({STABLE: 4, NEW: 1}, {STABLE: 75, NEW: 25})
    assert one.at_rest().phase is Phase.JUDGING
    assert seen(one) == ({STABLE: 3, NEW: 1}, {STABLE: 75, NEW: 25})


def test_only_a_passed_gate_leaves_a_step() -> None:
    one = judged(canary())
    one.later(10**6)
    move = one.at_rest()
    assert (move.phase, one.state.index) == (Phase.JUDGING, 0)
    one.state = one.state.next_step()
    assert one.look().phase is Phase.MOVING
    one.all_ready()
    assert one.at_rest().phase is Phase.JUDGING
    assert seen(one) == ({STABLE: 2, NEW: 2}, {STABLE: 50, NEW: 50})


def test_the_window_of_a_step_begins_with_its_traffic_and_is_kept() -> None:
    one = canary()
    one.at_rest()
    one.later(60)
    assert one.state.since is None
    judged(one)
    began = one.now
    assert one.state == StepState(index=0, since=began)
    one.later(60)
    one.wanted = 8
    one.at_rest()
    one.all_ready()
    assert one.at_rest().state.since == began


def test_after_the_last_step_the_canary_becomes_all_there_is() -> None:
    one = canary()
    one.run()
    assert seen(one) == ({NEW: 4}, {NEW: 100})
    assert one.state.index == len(STEPS)


def test_a_failed_canary_gets_less_traffic_only_as_the_stable_revision_can_take_it() -> None:
    one = judged(canary())
    one.state = one.state.next_step()
    one.all_ready()
    judged(one)
    one.back = True
    one.look()
    assert seen(one) == ({STABLE: 3, NEW: 2}, {STABLE: 50, NEW: 50})
    one.all_ready()
    one.at_rest()
    assert seen(one) == ({STABLE: 4, NEW: 1}, {STABLE: 75, NEW: 25})
    one.all_ready()
    assert one.at_rest().phase is Phase.FINISHED
    assert seen(one) == ({STABLE: 4}, {STABLE: 100})


def test_a_canary_without_a_ready_replica_gets_no_traffic() -> None:
    one = judged(canary())
    one.change({NEW: 0})
    move = one.look()
    assert (move.weights, move.phase) == ({STABLE: 100, NEW: 0}, Phase.MOVING)


def test_autoscaling_goes_on_in_a_step() -> None:
    one = judged(canary())
    for wanted, asked in ((12, {STABLE: 9, NEW: 3}), (8, {STABLE: 6, NEW: 2})):
        one.wanted = wanted
        one.at_rest()
        one.all_ready()
        assert one.at_rest().phase is Phase.JUDGING
        assert seen(one) == (asked, {STABLE: 75, NEW: 25})


def test_when_fewer_are_wanted_the_ready_ones_stay() -> None:
    one = canary(weighted=False)
    one.counts = {STABLE: Count(asked=5, ready=2), NEW: Count(asked=3, ready=3)}
    one.look()
    assert one.asked == {STABLE: 3, NEW: 2}
    assert one.serving == 4


def test_stable_replicas_that_restart_are_not_given_away_for_a_canary_that_is_not_up() -> None:
    one = canary(weighted=False)
    one.change({STABLE: 0})
    one.at_rest()
    assert one.asked == {STABLE: 4, NEW: 1}


@pytest.mark.parametrize(
    ("wanted", "asked", "real", "sentence"),
    [
        (1, {STABLE: 1, NEW: 1}, 50, "25 % was asked; 1 of 2 replicas takes 50 %, because "),
        (3, {STABLE: 2, NEW: 1}, 100 / 3, "25 % was asked; 1 of 3 replicas takes 33 %, because "),
        (4, {STABLE: 3, NEW: 1}, 25, "25 % was asked; 1 of 4 replicas takes 25 %, because "),
        (10, {STABLE: 7, NEW: 3}, 30, "25 % was asked; 3 of 10 replicas take 30 %, because "),
    ],
)
def test_without_weights_the_share_is_what_the_replicas_make_and_is_said(
    wanted: int, asked: dict[int, int], real: float, sentence: str
) -> None:
    one = canary(wanted=wanted, weighted=False)
    for _ in range(8):
        one.at_rest()
        one.all_ready()
    move = one.at_rest()
    assert move.phase is Phase.JUDGING
    assert seen(one) == (asked, None)
    assert move.share is not None
    assert move.share.real == pytest.approx(real)
    assert move.share.sentence.startswith(sentence)


def test_the_first_rollout_has_nothing_to_compare_with() -> None:
    for strategy in Strategy:
        one = replace(world(strategy), counts={}, stable=None)
        assert one.look().counts == {NEW: 4}
        one.all_ready()
        assert one.look().phase is Phase.FINISHED


def test_at_zero_replicas_there_is_nothing_to_judge() -> None:
    for strategy in Strategy:
        one = world(strategy, wanted=0, weighted=True)
        assert one.run(most=5).phase is Phase.FINISHED


@pytest.mark.parametrize("weighted", [True, False])
def test_a_canceled_canary_makes_way_for_the_live_revision(weighted: bool) -> None:
    one = judged(canary(weighted=weighted))
    for _ in range(10):
        move = steady(replace(one.situation, to=STABLE))
        one.carry_out(move)
        one.all_ready()
    assert move.phase is Phase.FINISHED
    assert one.asked == {STABLE: 4}


def test_a_canceled_blue_green_gives_the_traffic_back_before_its_replicas_go() -> None:
    one = world(Strategy.BLUE_GREEN)
    one.run(until=Phase.HOLDING)
    one.carry_out(steady(replace(one.situation, to=STABLE)))
    assert seen(one) == ({STABLE: 4, NEW: 4}, {STABLE: 100, NEW: 0})
    one.carry_out(steady(replace(one.situation, to=STABLE)))
    assert seen(one) == ({STABLE: 4}, {STABLE: 100, NEW: 0})


def test_what_an_earlier_rollout_left_goes_before_traffic_is_moved_at_once() -> None:
    one = world(Strategy.BLUE_GREEN)
    one.counts = {STABLE: Count(asked=2, ready=2), 7: Count(asked=2, ready=2)}
    one.run(until=Phase.HOLDING)
    assert one.asked == {STABLE: 4, NEW: 4}
