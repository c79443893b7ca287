"""Whatever becomes ready or fails, in whatever order: traffic keeps its replicas, and every rollout arrives."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deployments.domain.rolling import Count
from deployments.domain.spec import CanaryStep, RolloutPolicy, Strategy
from deployments.domain.strategy import Phase, StepState, most_replicas, next_move
from tests.deployments.domain.rollout_world import NEW, STABLE, World

STEADY = [strategy for strategy in Strategy if strategy is not Strategy.RECREATE]
weights = st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(sorted)


@st.composite
def worlds(draw: st.DrawFn, strategies: Sequence[Strategy] = tuple(Strategy), most: int = 9) -> World:
    surge = draw(st.integers(0, 3))
    policy = RolloutPolicy(
        strategy=draw(st.sampled_from(strategies)),
        max_surge=surge,
        max_unavailable=draw(st.integers(0 if surge else 1, 2)),
        steps=tuple(CanaryStep(weight=weight) for weight in draw(weights)),
        hold_s=draw(st.sampled_from([0, 60])),
    )
    wanted = draw(st.integers(1, most))
    return World(
        policy=policy,
        wanted=wanted,
        weighted=draw(st.booleans()),
        counts={STABLE: Count(asked=wanted, ready=wanted, present=wanted)},
    )


def happen(world: World, data: st.DataObject, *, failures: bool = True) -> None:
    """Some replicas become ready, some fail, time passes, and perhaps a gate is passed."""
    if world.counts:
        revision = data.draw(st.sampled_from(sorted(world.counts)))
        one = world.counts[revision]
        low = 0 if failures else one.ready
        world.change({revision: data.draw(st.integers(low, one.asked))})
    world.later(data.draw(st.sampled_from([0.0, 30.0, 60.0])))
    if next_move(world.situation).phase is Phase.JUDGING and data.draw(st.booleans()):
        world.state = world.state.next_step()


def looked_at(world: World) -> Phase:
    """One look, with what must hold of it whatever happened before."""
    total, serving = sum(world.asked.values()), world.serving
    floor = world.wanted - world.policy.max_unavailable
    phase = world.look().phase
    assert sum(world.asked.values()) <= max(total, most_replicas(world.policy, world.wanted))
    if world.policy.strategy is not Strategy.RECREATE:
        assert world.serving >= min(serving, floor)
    if world.traffic is not None:
        assert sum(world.traffic.values()) == 100
    return phase


@given(world=worlds(), data=st.data())
def test_no_look_takes_ready_replicas_from_the_traffic_or_asks_for_too_many(
    world: World, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 25))):
        if data.draw(st.integers(0, 9)) == 0:
            world.back = not world.back
        if data.draw(st.integers(0, 9)) == 0:
            world.wanted = data.draw(st.integers(1, 9))
        looked_at(world)
        happen(world, data)


@given(world=worlds(STEADY, most=60), data=st.data())
def test_without_failures_no_revision_has_more_traffic_than_its_ready_replicas_carry(
    world: World, data: st.DataObject
) -> None:
    turn = data.draw(st.integers(0, 20))
    # Going back at once is worth as much as is allowed to be away.
    away = world.policy.max_unavailable if world.policy.strategy is Strategy.BLUE_GREEN else 0
    for look in range(20):
        world.back = world.back or look == turn
        looked_at(world)
        for revision, weight in (world.traffic or {}).items():
            # Percent are whole, and 1 % is the least.
            assert (weight - 1) * world.wanted <= 100 * (world.ready(revision) + away)
        happen(world, data, failures=False)


@given(world=worlds(most=40))
def test_every_rollout_arrives_when_replicas_become_ready(world: World) -> None:
    world.run()
    assert world.asked == {NEW: world.wanted}
    assert world.traffic is None or world.traffic[NEW] == 100


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_largest_rollout_arrives_too(strategy: Strategy, weighted: bool) -> None:
    policy = RolloutPolicy(strategy=strategy, max_surge=1)
    stable = {STABLE: Count(asked=256, ready=256)}
    world = World(policy=policy, wanted=256, weighted=weighted, counts=stable)
    world.run()
    assert world.asked == {NEW: 256}


@given(world=worlds(), data=st.data())
def test_from_any_point_the_way_back_ends_with_the_stable_revision_in_full(
    world: World, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(0, 25))):
        world.look()
        happen(world, data)
    world.back = True
    for _ in range(400):
        if looked_at(world) is Phase.FINISHED:
            break
        world.all_ready()
    assert world.asked == {STABLE: world.wanted}
    assert world.traffic is None or world.traffic[STABLE] == 100


@given(world=worlds(), data=st.data())
def test_from_any_point_it_still_arrives(world: World, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 25))):
        world.back = data.draw(st.booleans())
        world.wanted = data.draw(st.integers(1, 9))
        world.look()
        happen(world, data)
    world.back = False
    world.run()
    assert world.asked == {NEW: world.wanted}


@given(world=worlds(), data=st.data())
def test_without_a_change_it_comes_to_rest_and_stays_there(world: World, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 25))):
        world.look()
        happen(world, data)
    rest = world.at_rest()
    assert world.look() == rest


@given(world=worlds([Strategy.CANARY]), data=st.data())
def test_a_step_is_judged_only_with_its_replicas_ready_and_its_traffic_routed(
    world: World, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 25))):
        situation = world.situation
        move = world.look()
        if move.phase is Phase.JUDGING:
            step = situation.step
            assert step is not None
            assert move.state.since is not None
            assert world.ready(NEW) >= 1
            if world.weighted and situation.state.since is None:
                assert situation.traffic is not None
                assert situation.traffic[NEW] == step.weight
        happen(world, data)


def counts_of(left: dict[int, tuple[int, int]]) -> dict[int, Count]:
    return {
        revision: Count(asked=asked, ready=min(asked, ready)) for revision, (asked, ready) in left.items()
    }


leftovers = st.dictionaries(
    st.sampled_from([STABLE, NEW, 7]), st.tuples(st.integers(0, 5), st.integers(0, 5))
)


@settings(max_examples=500)
@given(world=worlds(), left=leftovers, back=st.booleans(), step=st.integers(0, 4), data=st.data())
def test_from_whatever_state_one_look_keeps_floor_and_ceiling(
    world: World, left: dict[int, tuple[int, int]], back: bool, step: int, data: st.DataObject
) -> None:
    world.counts, world.back, world.state = counts_of(left), back, StepState(index=step)
    world.weighted = world.weighted and bool(left)
    if world.weighted:
        cuts = sorted(
            data.draw(st.lists(st.integers(0, 100), min_size=len(left) - 1, max_size=len(left) - 1))
        )
        shares = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
        world.traffic = dict(zip(left, shares, strict=True))
    looked_at(world)


@settings(max_examples=300)
@given(world=worlds(STEADY), left=leftovers, back=st.booleans())
def test_whatever_an_earlier_rollout_left_the_next_one_arrives(
    world: World, left: dict[int, tuple[int, int]], back: bool
) -> None:
    world.counts = counts_of(left)
    assume(any(one.ready for one in world.counts.values()))
    world.back = back
    for _ in range(400):
        if looked_at(world) is Phase.FINISHED:
            break
        if next_move(world.situation).phase is Phase.JUDGING:
            world.state = world.state.next_step()
        world.all_ready()
        world.later(60)
    assert world.asked == {STABLE if back else NEW: world.wanted}


@pytest.mark.parametrize("field", ["asked", "ready"])
def test_the_worlds_of_these_tests_really_move(field: str) -> None:
    """A guard for the guards: a canary in eighths is seen at every size."""
    steps = tuple(CanaryStep(weight=weight) for weight in (25, 50, 75))
    world = World(
        policy=RolloutPolicy(strategy=Strategy.CANARY, steps=steps),
        wanted=8,
        weighted=True,
        counts={STABLE: Count(asked=8, ready=8)},
    )
    sizes: set[Any] = set()
    while world.look().phase is not Phase.FINISHED:
        if next_move(world.situation).phase is Phase.JUDGING:
            world.state = world.state.next_step()
        world.all_ready()
        sizes.add(getattr(world.counts[NEW], field))
    assert sizes == set(range(1, 9))
