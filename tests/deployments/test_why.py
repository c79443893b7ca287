"""Why there are so many replicas, at any moment: the decision, each start and the traffic, in one sentence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import why
from deployments.dispatch import forget_lives
from deployments.domain import lives as phases
from deployments.domain.workload import ReplicaState, ReplicaStatus, TargetStatus
from deployments.lives import Lives
from deployments.models import Decision, Deployment, ReplicaLife
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
BEGAN = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def pod(**passed: float) -> ReplicaStatus:
    moments = {name: after(seconds) for name, seconds in {"created": 0.0, **passed}.items()}
    return ReplicaStatus(
        name="r7f", revision=1, state=ReplicaState.STARTING, url="", pid=None, restarts=0, started_at=BEGAN,
        ready_at=None, reason="", log_tail=(), node="node-1", phases=moments,
    )  # fmt: skip


def seen(*replicas: ReplicaStatus, at_s: float = 0) -> TargetStatus:
    return TargetStatus(key="d1", generation=1, address=None, replicas=replicas, observed_at=after(at_s))


def decide(row: Deployment, at: datetime, sentence: str, *, before: int, wanted: int) -> None:
    Decision.objects.create(
        deployment=row, at=at, last_at=at, current_replicas=before, desired_replicas=wanted, limited_by="none",
        signals={}, sentence=sentence,
    )  # fmt: skip


def test_a_start_is_told_phase_by_phase_and_outlives_the_pod(world: World) -> None:
    keeper, row = Lives(), world.deployment
    for status in (
        pod(scheduled=0.4),
        pod(scheduled=0.4, pulled=12.4),
        pod(scheduled=0.4, pulled=12.4, started=13.4),
    ):
        keeper.keep(row, seen(status))
    keeper.keep(row, seen(pod(scheduled=0.4, pulled=12.4, started=13.4, ready=44.4)))
    keeper.keep(row, seen(at_s=90))
    life = ReplicaLife.objects.get()
    assert (life.node, life.gone_at) == ("node-1", after(90))
    texts = [one.text for one in why.timeline(row)[0]]
    assert texts == ["r7f: gone.", "r7f on node-1: scheduled 0.4 s, pulled 12 s, started 1.0 s, ready 31 s."]


def test_a_pod_that_flaps_has_started_once(world: World) -> None:
    keeper, row = Lives(), world.deployment
    for ready_s in (5, 60):
        keeper.keep(row, seen(pod(ready=ready_s)))
    Lives().keep(row, seen(pod(ready=90)))
    assert ReplicaLife.objects.get().phases["ready"] == after(5).isoformat()


def test_what_has_not_moved_is_not_written_again(world: World, django_assert_num_queries: Any) -> None:
    keeper, row = Lives(), world.deployment
    keeper.keep(row, seen(pod(ready=5)))
    with django_assert_num_queries(0):
        keeper.keep(row, seen(pod(ready=5)))


def test_a_process_that_was_replaced_under_its_name_is_another_life(world: World) -> None:
    keeper, row = Lives(), world.deployment
    first = replace(pod(), phases={}, ready_at=after(2))
    keeper.keep(row, seen(first))
    keeper.keep(row, seen(replace(first, started_at=after(50), ready_at=after(53)), at_s=50))
    assert ReplicaLife.objects.filter(name="r7f").count() == 2
    assert "r7f on node-1: started 0.0 s, ready 3.0 s." in [one.text for one in why.timeline(row)[0]]


def test_any_moment_answers_with_what_was_true_then(world: World) -> None:
    row = world.deployment
    decide(row, after(-100), "Held at 1: nothing waits.", before=1, wanted=1)
    decide(row, after(0), "Scaled 1 to 2: inference_queue_depth 15 asks for 2.", before=1, wanted=2)
    Lives().keep(row, seen(pod(scheduled=0.4, started=12, ready=31)))
    before = why.answer(row, after(-50))
    assert before.sentence == "0 of 1 replicas ready; Held at 1: nothing waits; traffic not known."
    during = why.answer(row, after(20))
    assert (during.ready, during.wanted) == (0, 2)
    assert "r7f was starting (scheduled 0.4 s, started 12 s)" in during.sentence
    assert "Scaled 1 to 2" in during.sentence
    then = why.answer(row, after(40))
    assert then.ready == 1
    assert "starting" not in then.sentence
    assert "nothing had been decided" in why.answer(row, after(-1000)).sentence


def test_lives_of_replicas_that_are_long_gone_are_forgotten(world: World) -> None:
    now = datetime.now(UTC)
    for name, gone_at in (("old", now - timedelta(days=8)), ("new", now), ("there", None)):
        ReplicaLife.objects.create(
            deployment=world.row, name=name, revision=1, began_at=BEGAN - timedelta(days=99), gone_at=gone_at
        )
    forget_lives()
    assert set(ReplicaLife.objects.values_list("name", flat=True)) == {"new", "there"}


def test_the_page_answers_a_moment_without_javascript(world: World) -> None:
    world.serve()
    decide(world.deployment, after(0), "Scaled 1 to 2: 15 wait.", before=1, wanted=2)
    client = world.browser(world.viewer)
    page = client.get("/deployments/scorer/scaling/").content.decode()
    assert f'href="?at={BEGAN.timestamp():.3f}#h-why"' in page
    asked = client.get(f"/deployments/scorer/scaling/?at={BEGAN.timestamp():.3f}").content.decode()
    assert "0 of 2 replicas ready; Scaled 1 to 2: 15 wait; traffic not known." in asked
    for bad in ("x", "1e99", "nan"):
        assert client.get(f"/deployments/scorer/scaling/?at={bad}").status_code == 200
    assert world.browser(world.stranger).get("/deployments/scorer/scaling/?at=1").status_code == 404


def test_a_target_that_is_away_leaves_a_gap_that_is_said(world: World) -> None:
    world.serve()
    world.target.reachable = False
    points, missing = why.timeline(world.deployment)
    assert missing
    assert "event" not in {one.kind for one in points}


def test_the_api_answers_the_sentence_and_its_parts(world: World) -> None:
    world.serve()
    decide(world.deployment, after(0), "Scaled 1 to 2: 15 wait.", before=1, wanted=2)
    Lives().keep(world.deployment, seen(pod(scheduled=1)))
    found = world.api(world.viewer, "GET", f"scorer/why/?at={after(5).timestamp()}").json()
    assert found["decision"]["sentence"] == "Scaled 1 to 2: 15 wait."
    assert found["replicas"] == [
        {"name": "r7f", "revision": 1, "node": "node-1", "ready": False, "phases_s": {"scheduled": 1.0}}
    ]
    assert found["traffic"] == {"queue_depth": None, "in_flight": None, "requests_per_s": None}
    refused = world.api(world.viewer, "GET", "scorer/why/?at=soon")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_at")


@given(st.dictionaries(st.sampled_from(phases.ORDER), st.floats(-10, 1e6)))
def test_no_phase_takes_less_than_no_time(passed: dict[str, float]) -> None:
    lasted = phases.durations(BEGAN, {name: after(seconds) for name, seconds in passed.items()})
    assert all(seconds >= 0 for seconds in lasted.values())
    assert sum(lasted.values()) <= max([0.0, *passed.values()]) + 1e-3
    assert lasted.keys() == passed.keys() - {"created"}
