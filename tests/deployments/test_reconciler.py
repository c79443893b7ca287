"""Rollouts reach their end, never below the floor, whatever fails on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from controlplane.core.errors import Conflict, StorageFull
from deployments import reconciler, selectors, services, transitions
from deployments.domain.cluster_strategy import Part
from deployments.domain.rollouts import RolloutState
from deployments.models import Deployment, Rollout
from deployments.targets.port import StaleGeneration
from tests.deployments.world import World, make

pytestmark = pytest.mark.django_db
LOG = ('{"level":"error","event":"cannot_serve","error":"The model needs an operator that is missing."}',)


def _wished(world: World) -> dict[int, int]:
    live = world.target.desired(world.row.key)
    return {one.revision: one.replicas for one in live.workloads} if live else {}


def test_a_first_rollout_ends_with_its_revision_live(world: World) -> None:
    revision = world.serve(replicas=2)
    assert world.deployment.live_revision == revision
    assert _wished(world) == {1: 2}
    assert selectors.health_of(world.deployment) == "healthy"


@pytest.mark.parametrize(("deadline_s", "start_s"), [(600, 600), (5, 60)])
def test_a_replica_may_take_as_long_to_start_as_its_rollout_waits_for_it(
    world: World, deadline_s: int, start_s: int
) -> None:
    world.serve(rollout={"progress_deadline_s": deadline_s})
    wish = world.target.desired(world.row.key)
    assert wish is not None
    assert [one.start_deadline_s for one in wish.workloads] == [start_s]


@pytest.mark.parametrize(
    ("policy", "floor"),
    [
        ({"max_surge": 1, "max_unavailable": 0}, 4),
        ({"max_surge": 0, "max_unavailable": 1}, 3),
        ({"max_surge": 4, "max_unavailable": 0}, 4),
    ],
)
def test_a_rolling_update_never_goes_below_its_floor(
    world: World, policy: dict[str, int], floor: int
) -> None:
    world.serve(replicas=4)
    world.lowest_ready = world.seen.ready()
    world.serve(replicas=4, rollout=policy)
    assert world.lowest_ready == floor
    assert _wished(world) == {2: 4}


def test_a_rollout_that_cannot_become_ready_goes_back_with_evidence(world: World) -> None:
    world.serve(replicas=3)
    world.lowest_ready = 3
    bad = world.revision()
    world.target.fail(world.row.key, revision=bad.number, reason="exited with code 1", log=LOG)
    rollout = world.start(bad)
    for _ in range(5):
        world.step()
    assert selectors.health_of(world.deployment) == "progressing"
    world.make_late(rollout)
    assert world.finish(rollout).state == "rolled_back"
    assert "exited with code 1: The model needs an operator that is missing" in rollout.message
    assert rollout.evidence["replicas"][0]["log_tail"] == list(LOG)
    assert _wished(world) == {1: 3}
    assert world.lowest_ready == 3
    assert selectors.health_of(world.deployment) == "healthy"
    assert [event.kind for event in rollout.events.all()][:3] == ["pending", "running", "rolling_back"]


def test_a_first_revision_that_never_becomes_ready_has_failed(world: World) -> None:
    bad = world.revision()
    world.target.fail(world.row.key, revision=bad.number, log=LOG)
    rollout = world.start(bad)
    for _ in range(4):
        world.step()
    world.make_late(rollout)
    assert world.finish(rollout).state == "failed"
    assert selectors.health_of(world.deployment) == "failed"
    assert world.deployment.live_revision is None
    assert not sum(_wished(world).values())


def test_a_deadline_counts_from_the_last_replica_that_became_ready(world: World) -> None:
    world.serve(replicas=2)
    rollout = world.start(world.revision())
    world.until(lambda: _wished(world).get(2) == 2)
    world.make_late(rollout)
    world.step(advance_s=2)
    rollout.refresh_from_db()
    assert rollout.evidence["ready"] == 2
    assert rollout.state == "running", "the second replica became ready, so it is not late"


def test_cancelling_gives_the_old_revision_its_replicas_back(world: World) -> None:
    world.serve(replicas=4)
    world.lowest_ready = 4
    rollout = world.start(world.revision())
    for _ in range(5):
        world.step()
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    assert world.finish(rollout).state == "rolled_back"
    assert _wished(world) == {1: 4}
    assert world.lowest_ready == 4
    assert world.deployment.live_revision is not None
    assert world.deployment.live_revision.number == 1


def test_a_slow_way_back_goes_on_as_long_as_replicas_become_ready(world: World) -> None:
    """What became ready on the way there says nothing about the way back."""
    world.serve(replicas=4)
    rollout = world.start(world.revision())
    world.until(lambda: world.seen.ready(2) == 3)
    world.step(advance_s=0)
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    ready = 0
    while not rollout.finished_at:
        world.target.advance(2)
        if world.seen.ready(1) > ready:
            world.make_late(rollout)
        ready = max(ready, world.seen.ready(1))
        world.step(advance_s=0)
        rollout.refresh_from_db()
    assert rollout.state == "rolled_back"


def test_a_way_back_that_fails_takes_nothing_away_that_serves(world: World) -> None:
    world.serve(replicas=2)
    rollout = world.start(world.revision())
    world.until(lambda: world.seen.ready(2) == 2)
    world.target.fail(world.row.key, revision=1, log=LOG)
    for one in world.seen.replicas:
        if one.revision == 1:
            world.target.kill(world.row.key, replica=one.name)
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    world.step()
    world.lowest_ready = world.seen.ready()
    world.make_late(rollout)
    assert world.finish(rollout).state == "failed"
    for _ in range(5):
        world.step()
    assert world.lowest_ready == 2
    world.target.mend(world.row.key, revision=1)
    world.until(lambda: _wished(world) == {1: 2})
    assert world.lowest_ready == 2


def test_cancelling_before_the_first_step_moves_nothing(world: World) -> None:
    world.serve()
    rollout = world.start(world.revision())
    services.cancel_rollout(world.owner, rollout)
    assert rollout.state == "cancelled"
    world.step()
    assert _wished(world) == {1: 1}


def test_cancelling_a_first_rollout_leaves_nothing_running(world: World) -> None:
    rollout = world.start(world.revision())
    world.step()
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    world.until(lambda: not world.seen.replicas)
    assert selectors.health_of(world.deployment) == "pending"


def test_a_rollout_on_its_way_back_cannot_be_cancelled_into_a_jump(world: World) -> None:
    world.serve(replicas=2)
    rollout = world.start(world.revision())
    world.step()
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    with pytest.raises(Conflict, match="rolling back"):
        services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))


def test_a_cancel_that_comes_between_look_and_finish_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.serve()
    second = world.revision()
    rollout = world.start(second)
    move = transitions.move_rollout

    def cancelled_first(row: Rollout, *, to: RolloutState, **rest: Any) -> bool:
        if to == RolloutState.SUCCEEDED:
            monkeypatch.setattr(transitions, "move_rollout", move)
            services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
        return move(row, to=to, **rest)

    monkeypatch.setattr(transitions, "move_rollout", cancelled_first)
    assert world.finish(rollout).state == "rolled_back"
    assert world.deployment.live_revision != second
    assert _wished(world) == {1: 1}


def test_an_unreachable_target_is_shown_and_forgiven(world: World) -> None:
    world.serve(replicas=2)
    rollout = world.start(world.revision())
    world.target.reachable = False
    reconciler.reconcile(world.row.pk)
    assert selectors.health_of(world.deployment) == "unreachable"
    assert world.deployment.observed["replicas"], "the last known state is kept"
    world.make_late(rollout)
    world.target.reachable = True
    assert world.finish(rollout).state == "succeeded", "the deadline does not count an outage"
    assert world.deployment.unreachable_since is None


@pytest.mark.parametrize("since", ["observed_at", "reconcile_after"])
def test_the_deadline_does_not_count_while_nobody_looks_or_steps(world: World, since: str) -> None:
    """A restart of everything, and an outage of the broker while the collector goes on looking."""
    world.serve(replicas=2)
    rollout = world.start(world.revision())
    world.step()
    world.absent(rollout, since=since)
    assert world.finish(rollout).state == "succeeded"


def test_a_replica_that_hangs_is_asked_for_its_lines(world: World) -> None:
    world.serve()
    bad = world.revision()
    world.target.hang(world.row.key, revision=bad.number, log=LOG)
    rollout = world.start(bad)
    for _ in range(3):
        world.step()
    world.make_late(rollout)
    assert world.finish(rollout).state == "rolled_back"
    assert "Not ready within 60 s: The model needs an operator that is missing." in rollout.message
    assert [(one["revision"], one["log_tail"]) for one in rollout.evidence["replicas"]] == [(2, list(LOG))]


def test_only_the_revision_that_was_to_come_is_blamed(world: World) -> None:
    world.serve(replicas=2)
    old = world.seen.replicas[0]
    bad = world.revision()
    world.target.fail(world.row.key, revision=bad.number, log=LOG)
    rollout = world.start(bad)
    world.step()
    world.target.fail(world.row.key, revision=1, reason="killed by signal 15")
    world.target.kill(world.row.key, replica=old.name)
    world.make_late(rollout)
    world.step()
    rollout.refresh_from_db()
    assert rollout.message.startswith("Not ready within 60 s: exited with code 1: The model needs")
    assert {one["revision"] for one in rollout.evidence["replicas"]} == {2}


@pytest.mark.parametrize("live", [False, True])
def test_a_rollout_that_the_target_refuses_ends_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    if live:
        world.serve()
    rollout = world.start(world.revision())
    with monkeypatch.context() as full:
        full.setattr(world.target, "apply", _full)
        world.step()
        world.step()
        refused = [event.message for event in rollout.events.all() if event.kind == "refused"]
        assert refused == ["The node's disk is full. Free some space."]
        world.make_late(rollout)
        world.step()
    assert world.finish(rollout).state == ("rolled_back" if live else "failed")
    assert "Not ready within 60 s: The node's disk is full. Free some space." in rollout.message
    assert _wished(world) == ({1: 1} if live else {})


def test_a_refusal_that_is_over_is_not_what_a_rollout_fails_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = world.revision()
    world.target.hang(world.row.key, revision=revision.number, log=LOG)
    rollout = world.start(revision)
    with monkeypatch.context() as full:
        full.setattr(world.target, "apply", _full)
        world.step()
    world.step()
    world.make_late(rollout)
    assert world.finish(rollout).state == "failed"
    assert rollout.message == "Not ready within 60 s: The model needs an operator that is missing."


def _full(*args: Any, **kwargs: Any) -> None:
    raise StorageFull("node_storage_full", "The node's disk is full.", "Free some space.")


def test_removal_drains_then_deletes_the_rows(world: World) -> None:
    world.serve(replicas=2)
    services.remove_deployment(world.owner, world.deployment)
    assert selectors.health_of(world.deployment) == "removing"
    key, pk = world.row.key, world.row.pk
    for _ in range(5):
        world.target.advance(1)
        reconciler.reconcile(pk)
    assert not Deployment.objects.filter(pk=pk).exists()
    assert key not in {status.key for status in world.target.observe_all()}


def test_removal_ends_a_rollout_under_way(world: World) -> None:
    world.serve()
    rollout = world.start(world.revision())
    world.step()
    services.remove_deployment(world.owner, world.deployment)
    rollout.refresh_from_db()
    assert rollout.state == "cancelled"


def test_a_step_that_finds_everything_as_it_should_be_writes_nothing_to_the_target(world: World) -> None:
    world.serve(replicas=2)
    generation = world.target.desired(world.row.key).generation  # type: ignore[union-attr]
    for _ in range(3):
        world.step()
    assert world.target.desired(world.row.key).generation == generation  # type: ignore[union-attr]


def test_what_somebody_did_to_the_target_by_hand_is_put_back(world: World) -> None:
    world.serve(replicas=2)
    live = world.target.desired(world.row.key)
    assert live is not None
    world.target.scale(world.row.key, revision=1, replicas=5, generation=live.generation + 7)
    world.until(lambda: _wished(world) == {1: 2})


def test_a_reconciler_that_lost_its_turn_writes_nothing(world: World) -> None:
    """F34: the row's generation moved under a paused one; the fence refuses its write."""
    world.serve(replicas=2)
    stale = world.deployment
    Deployment.objects.filter(pk=stale.pk).update(generation=stale.generation + 1)
    before = world.target.desired(world.row.key)
    with pytest.raises(StaleGeneration):
        reconciler._apply_if_different(stale, world.target, [Part(revision=1, replicas=8)])
    assert world.target.desired(world.row.key) == before


class Crash(BaseException):
    """The process is gone: nothing after this line runs."""


WRITES = ("INSERT", "UPDATE", "DELETE")


@dataclass(kw_only=True)
class Writes:
    """Counts writes to the database and the target, and ends the process after the one that is `fatal`."""

    fatal: int
    count: int = 0

    def written(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            raise Crash

    def statement(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        done = execute(sql, params, many, context)
        if sql.startswith(WRITES):
            self.written()
        return done

    def counted(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            done = verb(*args, **kwargs)
            self.written()
            return done

        return call

    @contextmanager
    def of(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patched, connection.execute_wrapper(self.statement):
            patched.setattr(world.target, "apply", self.counted(world.target.apply))
            yield


LAST_WRITE = {"succeeded": 24, "rolled_back": 36}


@pytest.mark.parametrize("ends", ["succeeded", "rolled_back"])
def test_the_crash_points_cover_the_whole_way(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    writes = Writes(fatal=0)
    assert _run(make(monkeypatch), ends=ends, writes=writes, monkeypatch=monkeypatch) == _expected(ends)
    assert 20 < writes.count <= LAST_WRITE[ends], "there are writes after which no crash is tried"


@pytest.mark.parametrize(
    ("ends", "write"), [(ends, write) for ends, last in LAST_WRITE.items() for write in range(1, last + 1)]
)
def test_a_crash_after_any_write_ends_in_the_same_state(
    monkeypatch: pytest.MonkeyPatch, ends: str, write: int
) -> None:
    """F33. A write inside a transaction that is cut off has not happened."""
    writes = Writes(fatal=write)
    assert _run(make(monkeypatch), ends=ends, writes=writes, monkeypatch=monkeypatch) == _expected(ends)


def _expected(ends: str) -> tuple[str, dict[int, int], int, bool]:
    return (ends, {2: 1}, 2, True) if ends == "succeeded" else (ends, {1: 1}, 1, True)


def _run(
    world: World, *, ends: str, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[int, int], int, bool]:
    world.serve()
    second = world.revision()
    if ends == "rolled_back":
        world.target.fail(world.row.key, revision=2, log=LOG)
    rollout = world.start(second)
    world.lowest_ready = 1
    try:
        with writes.of(world, monkeypatch):
            _go_on(world, rollout, ends=ends)
    except Crash:
        _go_on(world, rollout, ends=ends)
    world.step(advance_s=2)
    rollout.refresh_from_db()
    live = world.deployment.live_revision
    assert live is not None
    return rollout.state, _wished(world), live.number, world.lowest_ready >= 1


def _go_on(world: World, rollout: Rollout, *, ends: str) -> None:
    steps = 0

    def over() -> bool:
        nonlocal steps
        steps += 1
        rollout.refresh_from_db()
        if ends == "rolled_back" and steps > 4 and rollout.state == "running":
            world.make_late(rollout)
        return rollout.finished_at is not None

    world.until(over)
