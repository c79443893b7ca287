"""The page of a rollout and its calls: where it is, what its steps have shown, and what a person can do to it."""

import html
from datetime import timedelta
from typing import Any

import pytest

from deployments.models import Rollout, Rollup
from tests.deployments.test_strategies import CANARY, begun, in_step
from tests.deployments.traffic import ENOUGH, judged, traffic
from tests.deployments.world import World

pytestmark = pytest.mark.django_db


def page(world: World, rollout: Rollout) -> str:
    answer = world.browser(world.owner).get(f"/deployments/scorer/rollouts/{rollout.pk}/")
    return html.unescape(answer.content.decode())


def do(world: World, rollout: Rollout, verb: str) -> str:
    url = f"/deployments/scorer/rollouts/{rollout.pk}/{verb}/"
    return html.unescape(world.browser(world.owner).post(url, follow=True).content.decode())


def in_second_step(world: World) -> Rollout:
    """The first one proved itself; what the second has seen so far is too little."""
    rollout, _ = begun(world, policy=CANARY)
    world.until(in_step(world, rollout, 0))
    judged(world, rollout)
    for revision in (1, 2):
        traffic(world, rollout, revision, p50_ms=20)
    world.step()
    Rollup.objects.all().delete()
    world.until(in_step(world, rollout, 1))
    judged(world, rollout)
    world.step()
    rollout.refresh_from_db()
    return rollout


def test_the_page_says_the_strategy_where_it_is_and_what_each_step_has_shown(world: World) -> None:
    rollout = in_second_step(world)
    said = page(world, rollout)
    assert "Canary: 25 % and 50 % of the requests, then all; each step has to show" in said
    assert "at most 1.2 times the p99 and 1 point more errors, at 95 % confidence." in said
    assert "Step 2 of 2, since" in said
    assert "50 % was asked; 2 of 4 replicas take 50 %" in said
    first = rollout.evidence["steps"]["0"]
    assert first["sentence"] in said
    assert f"{ENOUGH:,}" in said
    low, high = (first["figures"]["canary"]["p99_ms"][end] for end in ("low", "high"))
    assert f"({low:.3g} – {high:.3g})" in said
    assert "Passed" in said
    assert "Collecting evidence" in said
    assert "received no requests" in said


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({}, "Rolling: replica by replica, at most 1 more than wanted and never fewer."),
        ({"max_unavailable": 1}, "at most 1 more than wanted and 1 fewer."),
        ({"strategy": "recreate"}, "nothing answers until the new ones are ready"),
        ({"strategy": "blue_green", "hold_s": 60}, "the old replicas stay ready for 60 s after it"),
        ({"strategy": "blue_green", "hold_s": 0}, "at once; without a hold."),
        (CANARY | {"gate": {"p99_ratio": None}}, "each step has to show at most 1 point more errors"),
    ],
)
def test_each_strategy_has_its_sentence(world: World, policy: dict[str, Any], sentence: str) -> None:
    rollout, _ = begun(world, replicas=1, policy=policy)
    assert sentence in page(world, rollout)


def test_a_first_rollout_has_nothing_to_compare_with(world: World) -> None:
    rollout = world.start(world.revision(rollout=CANARY))
    world.step()
    said = page(world, rollout)
    assert "Canary, but nothing served before" in said
    assert "Promote" not in said
    document = world.api(world.viewer, "GET", f"scorer/rollouts/{rollout.pk}/").json()
    assert (document["strategy"], document["steps"]) == ("canary", [])


def test_pausing_resuming_and_promoting_are_buttons(world: World) -> None:
    rollout = in_second_step(world)
    assert "Pause rollout" in page(world, rollout)
    said = do(world, rollout, "pause")
    assert "Paused by" in said
    assert "Resume rollout" in said
    assert "Pause rollout" not in said
    assert "Resumed by" in do(world, rollout, "resume")
    said = do(world, rollout, "promote")
    assert "let step 2 pass without its gate" in said
    assert "All 2 steps passed" in said
    assert "Let pass by a person" in said
    assert "Only a canary that is in one of its steps can be promoted." in do(world, rollout, "promote")
    assert world.finish(rollout).state == "succeeded"
    assert "Only a running rollout can be paused." in do(world, rollout, "pause")


def test_the_page_asks_before_a_step_passes_without_its_gate(world: World) -> None:
    said = page(world, in_second_step(world))
    assert 'data-dialog="promote-rollout"' in said
    assert "nothing has shown yet that it is not worse" in said
    assert said.count("csrfmiddlewaretoken") >= 3, "each button is a post of its own"


def test_a_viewer_has_no_buttons_and_a_stranger_no_page(world: World) -> None:
    rollout = in_second_step(world)
    url = f"/deployments/scorer/rollouts/{rollout.pk}/"
    said = world.browser(world.viewer).get(url).content.decode()
    assert "Step 2 of 2" in said
    assert "Pause rollout" not in said
    assert "Promote step" not in said
    for verb in ("pause", "resume", "promote", "cancel"):
        world.browser(world.viewer).post(f"{url}{verb}/")
        assert world.browser(world.stranger).post(f"{url}{verb}/").status_code == 404
        assert world.api(world.viewer, "POST", f"scorer/rollouts/{rollout.pk}/{verb}/").status_code == 403
        assert world.api(world.stranger, "POST", f"scorer/rollouts/{rollout.pk}/{verb}/").status_code == 404
        assert world.browser(world.owner).get(f"{url}{verb}/").status_code == 405
    rollout.refresh_from_db()
    assert (rollout.state, rollout.step["index"]) == ("running", 1)


def test_the_hold_of_a_blue_green_rollout_says_how_long_it_lasts(world: World) -> None:
    rollout, _ = begun(world, replicas=1, policy={"strategy": "blue_green", "hold_s": 3600})
    world.until(in_step(world, rollout, 0))
    answer = world.browser(world.viewer).get(f"/deployments/scorer/rollouts/{rollout.pk}/")
    assert 3500 < answer.context["hold_left_s"] <= 3600
    assert "Held" in answer.content.decode()
    step = rollout.step | {"since": (rollout.created_at - timedelta(hours=2)).isoformat()}
    Rollout.objects.filter(pk=rollout.pk).update(step=step)
    assert world.finish(rollout).state == "succeeded"
    assert "Held" not in page(world, rollout)


def test_a_rollout_that_went_back_can_be_tried_again_through_its_plan(world: World) -> None:
    rollout = in_second_step(world)
    assert "Try again" not in page(world, rollout)
    do(world, rollout, "cancel")
    assert world.finish(rollout).state == "rolled_back"
    said = page(world, rollout)
    assert "Try again" in said
    assert 'href="/deployments/scorer/revisions/2/plan/"' in said
    assert rollout.evidence["steps"]["0"]["sentence"] in said, "what was shown before it was cancelled"
    world.start(rollout.to_revision)
    assert "Try again" not in page(world, rollout), "while another one is under way"


def test_the_api_says_the_same_and_has_a_call_for_each_button(world: World) -> None:
    rollout = in_second_step(world)
    address = f"scorer/rollouts/{rollout.pk}/"
    document = world.api(world.viewer, "GET", address).json()
    assert document["strategy"] == "canary"
    assert (document["step"]["index"], document["step"]["share"]["asked"]) == (1, 50)
    assert [one["weight"] for one in document["steps"]] == [25, 50]
    assert [one["verdict"]["state"] for one in document["steps"]] == ["passed", "waiting"]
    paused = world.api(world.owner, "POST", f"{address}pause/")
    assert (paused.status_code, paused.json()["state"]) == (202, "paused")
    again = world.api(world.owner, "POST", f"{address}pause/")
    assert (again.status_code, again.json()["code"]) == (409, "rollout_not_paused")
    promoted = world.api(world.owner, "POST", f"{address}promote/").json()
    assert (promoted["state"], promoted["step"]["index"]) == ("running", 2)
    resumed = world.api(world.owner, "POST", f"{address}resume/")
    assert (resumed.status_code, resumed.json()["code"]) == (409, "rollout_not_resumed")
