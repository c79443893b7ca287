"""A rolling update never drops below its floor, never passes its ceiling, and always arrives."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.rolling import Count, finished, next_counts
from deployments.domain.spec import RolloutPolicy

policies = st.builds(
    RolloutPolicy, max_surge=st.integers(0, 3), max_unavailable=st.integers(1, 3)
) | st.builds(RolloutPolicy, max_surge=st.integers(1, 3), max_unavailable=st.just(0))


def test_the_first_rollout_starts_every_replica_at_once() -> None:
    assert next_counts(to=1, wanted=3, counts={}, policy=RolloutPolicy()) == {1: 3}


def test_surge_comes_before_anything_is_taken_down() -> None:
    counts = {1: Count(asked=2, ready=2)}
    assert next_counts(to=2, wanted=2, counts=counts, policy=RolloutPolicy()) == {1: 2, 2: 1}


def test_a_ready_newcomer_pays_for_one_old_replica() -> None:
    counts = {1: Count(asked=2, ready=2), 2: Count(asked=1, ready=1)}
    assert next_counts(to=2, wanted=2, counts=counts, policy=RolloutPolicy()) == {1: 1, 2: 1}


def test_a_newcomer_that_never_gets_ready_costs_nothing() -> None:
    counts = {1: Count(asked=2, ready=2), 2: Count(asked=1, ready=0)}
    assert next_counts(to=2, wanted=2, counts=counts, policy=RolloutPolicy()) == {1: 2, 2: 1}


@given(policy=policies, wanted=st.integers(1, 6), old=st.integers(0, 8), data=st.data())
def test_every_update_arrives_within_floor_and_ceiling(
    policy: RolloutPolicy, wanted: int, old: int, data: st.DataObject
) -> None:
    counts = {1: Count(asked=old, ready=old)} if old else {}
    for _ in range(60):
        if finished(to=2, wanted=wanted, counts=counts):
            break
        before = sum(count.ready for count in counts.values())
        asked = next_counts(to=2, wanted=wanted, counts=counts, policy=policy)
        assert sum(asked.values()) <= max(
            wanted + policy.max_surge, sum(one.asked for one in counts.values())
        )
        kept = {
            revision: min(counts[revision].ready, number)
            for revision, number in asked.items()
            if revision in counts
        }
        assert sum(kept.values()) >= min(before, wanted - policy.max_unavailable)
        # Some of what was asked for becomes ready; at least one, so that something moves.
        starting = asked.get(2, 0) - kept.get(2, 0)
        became = data.draw(st.integers(min(1, starting), starting))
        counts = {
            revision: Count(asked=number, ready=kept.get(revision, 0) + (became if revision == 2 else 0))
            for revision, number in asked.items()
            if number
        }
    assert finished(to=2, wanted=wanted, counts=counts)
