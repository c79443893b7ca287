"""Who is next in the line: nobody starves, nobody waits behind another's thousand, no room is left unused."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from optimizer.domain.line import RISES_AFTER_S, Level, Waiter, next_in_line

QUEUES = ("optimize.cpu", "optimize.cpu.torch", "optimize.gpu.sm_89")


def waiter(
    job_id: int, *, team: int = 1, priority: int = Level.NORMAL, waited_s: float = 0, queue: str = QUEUES[0]
) -> Waiter:
    return Waiter(job_id=job_id, queue=queue, team_id=team, priority=priority, waited_s=waited_s)


@st.composite
def lines(draw: st.DrawFn) -> list[Waiter]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(1, 4),
                st.sampled_from(Level),
                st.floats(0, 4 * RISES_AFTER_S),
                st.sampled_from(QUEUES),
            ),
            max_size=40,
        )
    )
    return [
        waiter(number, team=team, priority=level, waited_s=waited_s, queue=queue)
        for number, (team, level, waited_s, queue) in enumerate(drawn, start=1)
    ]


rooms = st.dictionaries(st.sampled_from(QUEUES), st.integers(-2, 30))
under_way = st.dictionaries(st.integers(1, 4), st.integers(0, 6))


@given(lines(), rooms, under_way, st.integers(0, 5))
def test_room_and_limit_are_kept_and_nothing_is_left_that_would_fit(
    waiting: list[Waiter], room: dict[str, int], busy: dict[int, int], limit: int
) -> None:
    sent = list(next_in_line(waiting, room=room, under_way=busy, limit=limit))
    assert len({one.job_id for one in sent}) == len(sent)
    assert {one.job_id for one in sent} <= {one.job_id for one in waiting}
    taken = Counter(one.queue for one in sent)
    teams = Counter(busy) + Counter(one.team_id for one in sent)
    assert all(taken[queue] <= max(room.get(queue, 0), 0) for queue in QUEUES)
    if limit:
        assert all(teams[one.team_id] <= limit for one in sent)
    for left in {one.job_id: one for one in waiting if one not in sent}.values():
        full = taken[left.queue] >= room.get(left.queue, 0)
        assert full or (limit and teams[left.team_id] >= limit)


@given(lines(), rooms, under_way, st.integers(0, 5))
def test_each_that_is_sent_is_the_best_of_those_that_could_have_been(
    waiting: list[Waiter], room: dict[str, int], busy: dict[int, int], limit: int
) -> None:
    """The rule as it is said, without heaps: priority, then the least busy team, then age."""
    left, places, teams = list(waiting), Counter(room), Counter(busy)
    for sent in next_in_line(waiting, room=room, under_way=busy, limit=limit):
        possible = [
            one for one in left if places[one.queue] > 0 and not (limit and teams[one.team_id] >= limit)
        ]
        assert sent == min(possible, key=lambda one: (-one.level, teams[one.team_id], one.job_id))
        left.remove(sent)
        places[sent.queue] -= 1
        teams[sent.team_id] += 1


@given(st.integers(1, 1000), st.integers(1, 4), st.sampled_from(Level))
def test_a_teams_only_job_does_not_wait_behind_anothers_thousand(
    thousand: int, others: int, level: Level
) -> None:
    """It came last, and goes before the second job of anybody."""
    many = [waiter(number, team=1 + number % others, priority=level) for number in range(1, thousand + 1)]
    only = waiter(thousand + 1, team=99, priority=level)
    order = list(next_in_line([*many, only], room={QUEUES[0]: others + 1}, under_way={}))
    assert only in order


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from(Level)), max_size=6), min_size=1, max_size=12
    ),
    st.integers(1, 3),
    st.integers(0, 8),
    st.sampled_from(Level),
)
def test_nobody_starves(
    arrivals: list[list[tuple[int, Level]]], slots: int, older: int, level: Level
) -> None:
    """However urgent what arrives in every round is, and whoever sends it: once a job has risen to the top, each round
    serves it or an older one. A round ends every job that it began, and is a rise long."""
    last = older + 1
    left = {number: (1 + number % 4, Level.HIGH, 0) for number in range(1, last)} | {last: (1, level, 0)}
    number = last
    for now in range(3 + older):
        waiting = [
            waiter(job, team=team, priority=priority, waited_s=(now - since) * RISES_AFTER_S)
            for job, (team, priority, since) in left.items()
        ]
        sent = list(next_in_line(waiting, room={QUEUES[0]: slots}, under_way={}))
        for one in sent:
            del left[one.job_id]
        if last not in left:
            return
        risen = now >= Level.HIGH - level
        assert not risen or any(one.job_id < last for one in sent)
        for team, priority in arrivals[now % len(arrivals)]:
            number += 1
            left[number] = (team, priority, now + 1)
    raise AssertionError("it was never served")


def test_priority_decides_first_then_who_has_less_and_age_last() -> None:
    rows = [
        waiter(1, team=1, priority=Level.LOW),
        waiter(2, team=1),
        waiter(3, team=1),
        waiter(4, team=2),
        waiter(5, team=1, priority=Level.HIGH),
    ]
    order = [one.job_id for one in next_in_line(rows, room={QUEUES[0]: 9}, under_way={})]
    assert order == [5, 4, 2, 3, 1]
    busy = [one.job_id for one in next_in_line(rows, room={QUEUES[0]: 9}, under_way={2: 5})]
    assert busy == [5, 2, 3, 4, 1]


def test_what_waits_rises() -> None:
    rows = [waiter(1, priority=Level.LOW, waited_s=2 * RISES_AFTER_S), waiter(2, priority=Level.HIGH)]
    assert [one.job_id for one in next_in_line(rows, room={QUEUES[0]: 1}, under_way={})] == [1]
