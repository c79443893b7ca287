"""Watches under faults: whatever is lost, doubled, late or silent, in the end what is followed is what is listed."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployments.targets.kubernetes import errors, following
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.following import Followed
from deployments.targets.kubernetes.kinds import CONFIG_MAP, HPA, SERVICE, Kind
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.target import MINE, SEEN
from deployments.targets.port import Unreachable
from tests.deployments.targets.conftest import free_port
from tests.deployments.targets.kubernetes.fake import RunningFake, Script
from tests.deployments.targets.kubernetes.follower import (
    KINDS,
    NAMESPACE,
    PULSE_S,
    Disturbance,
    Ears,
    Follow,
    Hands,
    following_of,
    outage,
    versions,
)
from tests.deployments.targets.kubernetes.room import Room, cluster_workload, scaled
from tests.deployments.targets.kubernetes.test_target import rolled, wish

STEPS = 150


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningFake]:
    """Its own, because what befalls it befalls everybody. Pauses are short: none of these tests is about time."""
    monkeypatch.setattr(following, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(following, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(errors, "AWAY_S", 0.02)
    running = RunningFake().start()
    yield running
    running.stop()


@pytest.fixture
def hands(fake: RunningFake) -> Hands:
    made = Hands(fake)
    for kind in KINDS:
        made.put("first", kind)
    return made


@pytest.fixture
def follow(hands: Hands) -> Iterator[Follow]:
    made = following_of(hands.fake)
    made.until(lambda: made.equals_list() and made.api.watches >= len(KINDS))
    made.told.clear()
    yield made
    made.stop()


def test_what_comes_moves_and_goes_is_told_and_costs_no_further_list(follow: Follow, hands: Hands) -> None:
    hands.put("a")
    hands.put("a")
    hands.delete("a")
    follow.until(lambda: len(follow.told) == 3 and follow.equals_list())
    assert follow.told == ["a", "a", "a"]
    assert follow.api.lists == len(KINDS)


def test_objects_of_others_are_not_followed(follow: Follow, hands: Hands) -> None:
    metadata = {"name": "theirs", "namespace": NAMESPACE, "labels": {}}
    hands.fake.call(lambda: hands.fake.cluster.put("configmaps", {"metadata": metadata}))
    hands.put("ours")
    follow.until(lambda: "ours" in follow.told)
    assert "theirs" not in follow.told
    assert follow.equals_list()


def test_a_version_that_is_too_old_lists_again(follow: Follow, hands: Hands) -> None:
    hands.fake.call(hands.fake.cluster.expire)
    follow.until(lambda: follow.api.lists >= 2 * len(KINDS))
    hands.put("a")
    hands.delete("first", SERVICE)
    follow.until(follow.equals_list)


def test_versions_that_stay_too_old_are_listed_ever_more_slowly(hands: Hands) -> None:
    hands.fake.script(
        Script(matches=lambda request: "watch" in request.params, status=410, message="too old", times=9)
    )
    follow = following_of(hands.fake)
    follow.until(lambda: follow.equals_list() and len(follow.waits) >= 9)
    follow.stop()
    assert max(follow.waits) >= 2 * following.FIRST_PAUSE_S


def test_what_is_said_twice_is_told_once(follow: Follow, hands: Hands) -> None:
    hands.disturb(lambda event: [event, event, event])
    hands.put("a")
    hands.put("b")
    follow.until(lambda: "b" in follow.told and follow.equals_list())
    assert follow.told == ["a", "b"]
    assert follow.api.lists == len(KINDS)


def test_what_is_said_out_of_its_order_is_a_doubt_and_listed_again(follow: Follow, hands: Hands) -> None:
    late = Disturbance(random.Random(0), ways=("late",))
    hands.disturb(late)
    hands.put("a")
    hands.delete("a")  # said before it came
    follow.until(lambda: follow.api.lists > len(KINDS) and follow.equals_list())
    assert "a" not in versions(follow.items(CONFIG_MAP))


def test_what_was_never_said_is_found_by_the_next_list(hands: Hands) -> None:
    follow = following_of(hands.fake, relist_s=1.0)
    follow.until(lambda: follow.equals_list() and follow.api.watches >= len(KINDS))
    hands.disturb(lambda event: [])
    hands.put("a")
    hands.delete("first", HPA)
    follow.until(lambda: follow.equals_list() and follow.told.count("first") == len(KINDS) + 1)
    assert "a" in follow.told
    follow.stop()


@pytest.mark.parametrize("outage", ["silent", "gone"])
def test_a_cluster_that_goes_away_says_so_and_comes_back_as_it_is_then(
    follow: Follow, hands: Hands, outage: str
) -> None:
    """Its lines stay half open: nothing ever comes on them again, and nothing ends them."""
    hands.fake.call(lambda: hands.fake.cluster.muted.update(hands.fake.cluster.lines))
    with getattr(hands.fake, outage)():
        follow.until(follow.is_away)
        hands.put("a")
        hands.delete("first", SERVICE)
        assert follow.is_away()
    follow.until(follow.equals_list)
    assert {"a", "first"} <= set(follow.told)


def test_a_cluster_that_goes_away_while_its_list_is_told_is_listed_again(hands: Hands) -> None:
    follow, at_first = following_of(hands.fake, starts=False), iter([True])

    def slowly(one: Object) -> None:
        follow._noted(one)
        if next(at_first, False):
            outage(follow, hands, "gone")

    follow.changed = slowly
    follow.start()
    follow.until(lambda: bool(follow.losses) and follow.equals_list())
    follow.stop()


def test_nobody_at_the_address_is_unreachable_and_not_empty() -> None:
    nobody = Api(Connection(server=f"http://127.0.0.1:{free_port()}", token="x"))
    follow = Followed(api=nobody, namespace=NAMESPACE, labels=MINE, kinds=KINDS, pulse_s=PULSE_S).start()
    with pytest.raises(Unreachable):
        follow.items(CONFIG_MAP)
    follow.stop()


def test_a_line_that_breaks_goes_on_where_it_was(follow: Follow, hands: Hands) -> None:
    hands.fake.call(hands.fake.cluster.break_lines)
    hands.put("a")
    follow.until(lambda: "a" in follow.told and follow.equals_list())
    assert follow.told == ["a"]
    assert follow.api.lists == len(KINDS)


def test_a_bookmark_keeps_a_quiet_watch_from_growing_too_old(follow: Follow, hands: Hands) -> None:
    hands.put("last of its time")
    follow.until(lambda: bool(follow.told))
    seen = follow.told.copy()
    hands.fake.call(hands.fake.cluster.bookmark)

    def forget_what_was_before() -> None:
        hands.fake.cluster.oldest_watched = min(
            version for version, kind, _, _ in hands.fake.cluster._changes if kind == "BOOKMARK"
        )

    # One more event of each kind says that its bookmark has arrived.
    for kind in KINDS:
        hands.put("after", kind)
    follow.until(lambda: follow.told.count("after") == len(KINDS))
    hands.fake.call(forget_what_was_before)
    hands.fake.call(hands.fake.cluster.break_lines)
    hands.put("b")
    follow.until(lambda: "b" in follow.told and follow.equals_list())
    assert follow.api.lists == len(KINDS)
    assert follow.told == [*seen, *["after"] * len(KINDS), "b"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_watch_that_is_refused_waits_longer_each_time_and_as_long_as_it_is_told(
    hands: Hands, status: int
) -> None:
    hands.fake.script(
        Script(
            matches=lambda request: "watch" in request.params and str(request.url.path).endswith("/services"),
            status=status,
            message="later",
            headers={"Retry-After": "1"},
            times=3,
        )
    )
    follow = following_of(hands.fake)
    follow.until(lambda: len(follow.waits) >= 3)
    assert follow.waits[:3] == [1.0, 1.0, 1.0]
    hands.put("a", SERVICE)
    follow.until(lambda: "a" in follow.told and follow.equals_list())
    assert follow.api.lists == len(KINDS)
    follow.stop()


def test_refusals_without_a_word_of_when_are_asked_ever_more_slowly(hands: Hands) -> None:
    hands.fake.script(
        Script(
            matches=lambda request: str(request.url.path).endswith("/services"),
            status=500,
            message="x",
            times=5,
        )
    )
    follow = following_of(hands.fake)
    follow.until(lambda: len(follow.waits) >= 5 and follow.equals_list())
    assert follow.waits == sorted(follow.waits)
    assert follow.waits[4] > follow.waits[0]
    follow.stop()


def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop(hands: Hands) -> None:
    class EndsAtOnce(Ears):
        def watch(self, *args: Any, **how: Any) -> Iterator[tuple[str, Object]]:
            self.watches += 1
            yield from ()

    follow = Follow(
        api=EndsAtOnce(hands.fake.connection),
        namespace=NAMESPACE, labels=MINE, kinds=KINDS[:1], pulse_s=PULSE_S,
    )  # fmt: skip
    follow.start()
    follow.until(lambda: len(follow.waits) >= 5)
    assert follow.waits[4] > follow.waits[0]
    assert follow.api.lists == 1
    follow.stop()


def test_nonsense_on_a_watch_ends_the_line_and_not_the_following(follow: Follow, hands: Hands) -> None:
    said = iter([[{"type": "MODIFIED", "object": {"metadata": {}}}]])
    hands.disturb(lambda event: next(said, [event]))
    hands.put("a")
    follow.until(follow.equals_list)
    hands.put("b")
    follow.until(lambda: "b" in follow.told and follow.equals_list())


def test_a_listener_that_fails_ends_nothing(hands: Hands) -> None:
    follow = following_of(hands.fake)

    def fails(one: Object) -> None:
        follow._noted(one)
        raise ZeroDivisionError

    follow.changed = fails
    follow.until(follow.equals_list)
    hands.put("a")
    hands.put("b")
    follow.until(lambda: {"a", "b"} <= set(follow.told) and follow.equals_list())
    follow.stop()


def test_two_follow_the_same_and_neither_takes_from_the_other(follow: Follow, hands: Hands) -> None:
    second = following_of(hands.fake)
    second.until(second.equals_list)
    hands.put("a")
    for one in (follow, second):
        one.until(lambda one=one: "a" in one.told and one.equals_list())
    second.stop()
    hands.put("b")
    follow.until(lambda: "b" in follow.told and follow.equals_list())


def test_a_target_that_is_followed_twice_is_followed_once(fake_room: Room) -> None:
    target = Room(Ears(fake_room.api.connection), namespace="ml").target
    target.follow(lambda key: None)
    first = target._followed
    target.follow(lambda key: None)
    assert target._followed is first
    assert first is not None
    first.stop()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "ways", [("on time", "twice"), ("on time", "twice", "late"), ("on time", "late", "lost")]
)
def test_after_any_schedule_of_faults_the_state_equals_the_list(
    follow: Follow, hands: Hands, ways: tuple[str, ...], seed: int
) -> None:
    """Events that are lost can only be found by a list, so there is one at the end where there were any."""
    chance, schedule, cluster = random.Random(seed), [], hands.fake.cluster
    hands.disturb(Disturbance(random.Random(seed), ways=ways))
    steps: dict[str, Callable[[str, Kind], object]] = {
        "put": hands.put,
        "delete": hands.delete,
        "expire": lambda name, kind: hands.fake.call(cluster.expire),
        "break": lambda name, kind: hands.fake.call(cluster.break_lines),
        "bookmark": lambda name, kind: hands.fake.call(cluster.bookmark),
        "half open": lambda name, kind: outage(follow, hands, "silent"),
        "gone": lambda name, kind: outage(follow, hands, "gone"),
        "429": lambda name, kind: refuse(hands, kind, 429),
        "500": lambda name, kind: refuse(hands, kind, 500),
        "settle": lambda name, kind: len(ways) > 2 or follow.until(follow.equals_list, str(schedule)),
    }
    weights = [40, 15, 3, 6, 6, 1, 1, 3, 3, 4]
    for _ in range(STEPS):
        (step,) = chance.choices(list(steps), weights)
        name, kind = chance.choice("abcd"), chance.choice(KINDS)
        schedule.append(f"{step} {kind.kind} {name}")
        steps[step](name, kind)
    hands.disturb(lambda event: [event])
    if len(ways) > 2:
        schedule.append("expire")
        hands.fake.call(cluster.expire)
    follow.until(follow.equals_list, f"seed {seed}: " + ", ".join(schedule))


def refuse(hands: Hands, kind: Kind, status: int) -> None:
    def meant(request: Any) -> bool:
        return str(request.url.path).endswith(f"/{kind.plural}")

    hands.fake.script(Script(matches=meant, status=status, message="later", headers={"Retry-After": "0"}))


def test_what_a_rollout_does_in_a_cluster_is_followed_to_the_end(room: Room, key: str) -> None:
    follow = Follow(
        api=Ears(room.api.connection), namespace=room.namespace, labels=MINE, kinds=SEEN, pulse_s=PULSE_S
    )
    follow.start()
    room.target.apply(wish(key, scaled(cluster_workload(1, 3))))
    room.until(key, rolled(3))
    follow.until(follow.equals_list)
    room.target.delete(key)
    room.until_gone(key)
    follow.until(follow.equals_list)
    follow.stop()
