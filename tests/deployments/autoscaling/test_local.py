"""The local autoscaler decides from signals with an age, writes once, and says why in a sentence that is kept."""

from dataclasses import replace
from typing import Any

import pytest

from deployments import services
from deployments.autoscaling.local import Autoscaler
from deployments.models import Decision
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalError, SignalName
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
NOW = 1_790_000_000.0


@pytest.fixture
def world(world: World) -> World:
    world.serve()
    return world


def _signals(world: World, *, queue: float, in_flight: float, age_s: float = 1.0) -> DeploymentSignals:
    def signal(value: float) -> Signal:
        return Signal(value=value, age_s=age_s, reporting=1, expected=1)

    return DeploymentSignals(
        deployment=world.row.key,
        at_wall=NOW,
        period_s=2.0,
        signals={
            SignalName.QUEUE_DEPTH: signal(queue),
            SignalName.IN_FLIGHT: signal(in_flight),
            SignalName.REQUEST_RATE: signal(50.0),
            SignalName.P99_LATENCY: signal(0.05),
        },
    )


def _sync(world: World, autoscaler: Autoscaler, signals: DeploymentSignals, *, at_s: float = 0) -> Any:
    row = world.deployment
    assert row.live_revision is not None
    now = replace(signals, at_wall=signals.at_wall + at_s)
    return autoscaler.sync(row, row.live_revision, signals=now, seen=world.seen, now_s=NOW + at_s)


def test_load_grows_the_deployment_and_the_reason_is_kept(world: World) -> None:
    _sync(world, Autoscaler(), _signals(world, queue=25, in_flight=30))
    assert world.deployment.replicas == 3
    decision = Decision.objects.get()
    assert (decision.current_replicas, decision.desired_replicas) == (1, 3)
    assert decision.sentence.startswith("Scaled 1 to 3: inference_")
    assert "(1 s old)" in decision.sentence
    assert decision.signals["inference_queue_depth"]["value"] == 25
    assert decision.signals["inference_queue_depth"]["recommendation"] == 3
    world.until(lambda: world.seen.ready() == 3)


def test_equal_decisions_in_a_row_are_one_row(world: World) -> None:
    autoscaler = Autoscaler()
    for at_s in (0, 2, 4):
        _sync(world, autoscaler, _signals(world, queue=0, in_flight=0), at_s=at_s)
    decision = Decision.objects.get()
    assert decision.repeats == 3
    assert (decision.last_at - decision.at).total_seconds() == 4


def test_a_row_does_not_reach_over_a_time_without_decisions(world: World) -> None:
    """A pause, or a database that was away."""
    autoscaler = Autoscaler()
    for at_s in (0, 2, 60, 62):
        _sync(world, autoscaler, _signals(world, queue=0, in_flight=0), at_s=at_s)
    rows = Decision.objects.order_by("at")
    assert [(one.at.timestamp() - NOW, one.last_at.timestamp() - NOW) for one in rows] == [(0, 2), (60, 62)]


def test_a_row_that_was_forgotten_is_not_counted_up(world: World) -> None:
    autoscaler = Autoscaler()
    _sync(world, autoscaler, _signals(world, queue=0, in_flight=0))
    Decision.objects.all().delete()
    _sync(world, autoscaler, _signals(world, queue=0, in_flight=0), at_s=2)
    assert Decision.objects.get().at.timestamp() == NOW + 2


def test_other_values_are_another_row(world: World) -> None:
    autoscaler = Autoscaler()
    _sync(world, autoscaler, _signals(world, queue=1, in_flight=1))
    _sync(world, autoscaler, _signals(world, queue=2, in_flight=2), at_s=2)
    assert Decision.objects.count() == 2


@pytest.mark.parametrize("error", [SignalError.STALE, SignalError.NO_REPLICAS])
def test_a_stale_signal_holds_the_size_and_says_so(world: World, error: SignalError) -> None:
    """F39: never a zero in the place of what is not known, or it would scale down."""
    services.set_replicas(world.deployment, replicas=4)
    world.until(lambda: world.seen.ready() == 4)
    known = _signals(world, queue=0, in_flight=0)
    lost = Signal(value=None, age_s=20, error=error, reporting=0, expected=1)
    blind = replace(
        known, signals={**known.signals, SignalName.QUEUE_DEPTH: lost, SignalName.IN_FLIGHT: lost}
    )
    autoscaler = Autoscaler()
    for at_s in range(0, 1000, 100):
        _sync(world, autoscaler, blind, at_s=at_s)
    assert world.deployment.replicas == 4
    decision = Decision.objects.latest("at")
    assert decision.sentence.startswith("Held at 4: inference_")
    assert "could not be read" in decision.sentence
    assert decision.limited_by == "missing_metric"


def test_one_lost_signal_still_lets_it_grow_but_not_shrink(world: World) -> None:
    known = _signals(world, queue=25, in_flight=0)
    lost = Signal(value=None, age_s=None, error=SignalError.STALE)
    autoscaler = Autoscaler()
    _sync(world, autoscaler, replace(known, signals={**known.signals, SignalName.IN_FLIGHT: lost}))
    assert world.deployment.replicas == 3
    world.until(lambda: world.seen.ready() == 3)
    idle = _signals(world, queue=0, in_flight=0)
    _sync(world, autoscaler, replace(idle, signals={**idle.signals, SignalName.IN_FLIGHT: lost}), at_s=5000)
    assert world.deployment.replicas == 3


def test_shrinking_waits_for_its_window(world: World) -> None:
    autoscaler = Autoscaler()
    _sync(world, autoscaler, _signals(world, queue=25, in_flight=0))
    world.until(lambda: world.seen.ready() == 3)
    idle = _signals(world, queue=0, in_flight=0)
    _sync(world, autoscaler, idle, at_s=200)
    assert world.deployment.replicas == 3
    assert Decision.objects.first().limited_by == "stabilization"  # type: ignore[union-attr]
    _sync(world, autoscaler, idle, at_s=700)
    assert world.deployment.replicas < 3


def test_a_restarted_autoscaler_remembers_its_windows(world: World) -> None:
    _sync(world, Autoscaler(), _signals(world, queue=25, in_flight=0))
    world.until(lambda: world.seen.ready() == 3)
    _sync(world, Autoscaler(), _signals(world, queue=0, in_flight=0), at_s=100)
    assert world.deployment.replicas == 3


def test_a_restart_with_a_clock_that_was_set_back_does_not_wait_for_the_old_time(world: World) -> None:
    busy = _signals(world, queue=10_000, in_flight=0)
    _sync(world, Autoscaler(), busy, at_s=3600)
    assert world.deployment.replicas == 4
    world.until(lambda: world.seen.ready() == 4)
    _sync(world, Autoscaler(), busy)
    assert world.deployment.replicas == 8


def test_a_queue_that_explodes_reaches_the_cap_and_no_further(world: World) -> None:
    """F40, without the clock: 300 % per 15 s from one replica, then the bound."""
    autoscaler = Autoscaler()
    sizes = []
    for at_s in (0, 16, 32):
        _sync(world, autoscaler, _signals(world, queue=10_000, in_flight=10_000), at_s=at_s)
        sizes.append(world.deployment.replicas)
        world.until(lambda: world.seen.ready() == sizes[-1])
    assert sizes == [4, 8, 8]


def test_of_two_deciders_on_one_observation_one_writes(world: World) -> None:
    """The second one's guard sees that the size moved; nothing is scaled or told twice."""
    first = second = world.deployment
    assert first.live_revision is not None
    for autoscaler, row in ((Autoscaler(), first), (Autoscaler(), second)):
        autoscaler.sync(
            row,
            row.live_revision,  # type: ignore[arg-type]
            signals=_signals(world, queue=25, in_flight=0),
            seen=world.seen,
            now_s=NOW,
        )
    assert world.deployment.replicas == 3
    assert services.set_replicas(first, replicas=9) is False
    assert Decision.objects.count() == 1


def test_a_new_live_revision_starts_without_the_old_one_s_memory(world: World) -> None:
    _sync(world, Autoscaler(), _signals(world, queue=25, in_flight=0))
    assert world.deployment.hpa_state
    world.serve()
    assert world.deployment.hpa_state == {}
