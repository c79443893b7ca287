"""Rollouts by strategy: a canary proves itself or goes back, blue/green switches at once, and a person can hold,
release and promote."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from controlplane.core.errors import Conflict, Forbidden
from deployments import reconciler, rollouts, services
from deployments.models import Deployment, Revision, Rollout
from deployments.telemetry import store
from tests.deployments.traffic import ENOUGH, judged, traffic
from tests.deployments.world import World

pytestmark = pytest.mark.django_db

CANARY = {"strategy": "canary", "steps": [{"weight": 25}, {"weight": 50}]}


def serving(world: World) -> dict[int, int]:
    return {
        revision: world.seen.ready(revision) for revision in {one.revision for one in world.seen.replicas}
    }


def in_step(world: World, rollout: Rollout, index: int) -> Callable[[], bool]:
    def there() -> bool:
        rollout.refresh_from_db()
        return rollout.step.get("index") == index and rollout.step.get("since") is not None

    return there


def begun(world: World, *, replicas: int = 4, policy: dict[str, Any]) -> tuple[Rollout, Revision]:
    world.serve(replicas=replicas)
    revision = world.revision(rollout=policy)
    return world.start(revision), revision


def test_a_canary_takes_its_steps_on_evidence_and_then_all_of_it(world: World) -> None:
    rollout, _ = begun(world, policy=CANARY)
    world.until(in_step(world, rollout, 0))
    assert serving(world) == {1: 3, 2: 1}
    assert "25 % was asked; 1 of 4 replicas takes 25 %" in rollout.step["share"]["sentence"]
    for index in (0, 1):
        world.until(in_step(world, rollout, index))
        judged(world, rollout)
        for revision in (1, 2):
            traffic(world, rollout, revision, p50_ms=20)
        world.step()
        store.Rollup.objects.all().delete()
    assert world.finish(rollout).state == "succeeded"
    assert serving(world) == {2: 4}
    assert set(rollout.evidence["steps"]) == {"0", "1"}
    assert rollout.evidence["steps"]["0"]["state"] == "passed"
    steps = [event.message for event in rollout.events.filter(kind="step")]
    assert [one.split(".")[0] for one in steps] == ["Step 1 passed", "Step 2 passed"]


@pytest.mark.parametrize(
    ("canary", "why"),
    [({"p50_ms": 60}, "times worse at 95 % confidence"), ({"p50_ms": 20, "errors": 900}, "1 point worse")],
)
def test_a_canary_that_is_worse_goes_back_by_itself_and_the_evidence_stays(world, canary, why):
    rollout, _ = begun(world, policy=CANARY)
    world.until(in_step(world, rollout, 0))
    judged(world, rollout)
    traffic(world, rollout, 1, p50_ms=20)
    traffic(world, rollout, 2, **canary)
    assert world.finish(rollout).state == "rolled_back"
    assert why in rollout.message
    assert rollout.evidence["steps"]["0"]["figures"]["canary"]["requests"] == ENOUGH
    assert serving(world) == {1: 4}


def test_a_canary_without_traffic_is_not_late_and_says_what_is_missing(world: World) -> None:
    rollout, _ = begun(world, policy=CANARY)
    world.until(in_step(world, rollout, 0))
    world.make_late(rollout)
    for _ in range(3):
        world.step()
    rollout.refresh_from_db()
    assert rollout.state == "running"
    assert "received no requests" in rollout.evidence["steps"]["0"]["sentence"]


def test_a_canary_that_is_never_decided_stops_for_a_person(world: World) -> None:
    rollout, _ = begun(world, policy=CANARY | {"gate": {"max_wait_s": 60}})
    world.until(in_step(world, rollout, 0))
    step = rollout.step | {"since": (rollout.created_at - timedelta(seconds=90)).isoformat()}
    Rollout.objects.filter(pk=rollout.pk).update(step=step)
    world.step()
    rollout.refresh_from_db()
    assert rollout.state == "paused"
    assert "Not decided after" in rollout.message
    assert serving(world) == {1: 3, 2: 1}
    rollouts.promote(world.owner, rollout)
    world.until(in_step(world, rollout, 1))
    assert serving(world) == {1: 2, 2: 2}


def test_a_paused_rollout_moves_no_further_and_a_resumed_one_does(world: World) -> None:
    rollout, _ = begun(world, policy={})
    world.step()
    with pytest.raises(Forbidden):
        rollouts.pause(world.viewer, rollout)
    rollouts.pause(world.owner, rollout)
    before = serving(world)
    for _ in range(4):
        world.step()
    world.make_late(rollout)
    world.step()
    assert set(serving(world)) == set(before)
    rollout.refresh_from_db()
    assert rollout.state == "paused"
    with pytest.raises(Conflict, match="Only a running rollout"):
        rollouts.pause(world.owner, rollout)
    rollouts.resume(world.owner, rollout)
    assert world.finish(rollout).state == "succeeded"
    with pytest.raises(Conflict, match="Only a paused rollout"):
        rollouts.resume(world.owner, rollout)
    with pytest.raises(Conflict, match="Only a canary"):
        rollouts.promote(world.owner, rollout)


def test_blue_green_moves_all_traffic_at_once_and_keeps_the_old_set_for_its_hold(world: World) -> None:
    rollout, _ = begun(world, replicas=2, policy={"strategy": "blue_green", "hold_s": 60})
    world.until(lambda: serving(world) == {1: 2, 2: 2})
    wish = world.target.desired(world.row.key)
    assert wish is not None
    assert {one.revision: one.weight for one in wish.workloads} in ({1: 100, 2: 0}, {1: 0, 2: 100})
    world.until(in_step(world, rollout, 0))
    for _ in range(3):
        world.step()
    assert serving(world) == {1: 2, 2: 2}
    step = rollout.step | {"since": (rollout.created_at - timedelta(seconds=90)).isoformat()}
    Rollout.objects.filter(pk=rollout.pk).update(step=step)
    assert world.finish(rollout).state == "succeeded"
    assert serving(world) == {2: 2}


def test_going_back_during_the_hold_is_a_switch(world: World) -> None:
    rollout, _ = begun(world, replicas=2, policy={"strategy": "blue_green", "hold_s": 600})
    world.until(in_step(world, rollout, 0))
    services.cancel_rollout(world.owner, Rollout.objects.get(pk=rollout.pk))
    reconciler.reconcile(world.row.pk)
    wish = world.target.desired(world.row.key)
    assert wish is not None
    assert {one.revision: one.weight for one in wish.workloads if one.weight} == {1: 100}
    assert world.finish(rollout).state == "rolled_back"
    assert serving(world) == {1: 2}


def test_recreate_starts_the_new_ones_when_the_old_ones_are_gone(world: World) -> None:
    rollout, _ = begun(world, replicas=2, policy={"strategy": "recreate"})
    together: list[set[int]] = []

    def over() -> bool:
        together.append({one.revision for one in world.seen.replicas})
        rollout.refresh_from_db()
        return rollout.finished_at is not None

    world.until(over)
    assert rollout.state == "succeeded"
    assert {1, 2} not in together
    assert serving(world) == {2: 2}


def test_a_hold_is_no_lateness(world: World) -> None:
    rollout, _ = begun(world, replicas=1, policy={"strategy": "blue_green", "hold_s": 600})
    world.until(in_step(world, rollout, 0))
    Deployment.objects.filter(pk=world.row.pk).update(reconcile_after=F("reconcile_after"))
    world.make_late(rollout)
    for _ in range(3):
        world.step()
    rollout.refresh_from_db()
    assert rollout.state == "running"
