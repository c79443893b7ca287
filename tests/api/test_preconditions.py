"""Requests that are sent twice, and requests that were decided on what is no longer so."""

from typing import Any

import pytest

from deployments.models import Deployment, Rollout
from optimizer.models import Job
from tests.api.answers import complaints, nothing_written
from tests.api.routes import ROOT, operations
from tests.api.world import RECIPE, World

JOB = {"model": "churn", "version": 1, "variant": 0, "recipe": RECIPE}
SCORING = f"{ROOT}deployments/scoring/"


def _post(world: World, body: Any, key: str, path: str = f"{ROOT}jobs/") -> Any:
    return world.engineer.ask("POST", path, body, headers={"Idempotency-Key": key})


def test_the_same_key_and_request_is_the_same_job(world: World) -> None:
    first, again = _post(world, JOB, "k-1"), _post(world, JOB, "k-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert (first.json()["created"], again.json()["created"]) == (True, False)
    assert first.json()["id"] == again.json()["id"]
    assert first["Location"] == again["Location"]
    assert Job.objects.filter(idempotency_key="k-1").count() == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"variant": 1},
        {"version": 2},
        {"evaluation_set": "digits"},
        {"recipe": [{"technique": "onnx-graph", "params": {"level": "basic"}}]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_same_key_with_another_request_is_a_conflict(world: World, changed: dict[str, Any]) -> None:
    assert _post(world, JOB, "k-1").status_code == 202
    with complaints() as wrong, nothing_written(wrong, changed):
        response = _post(world, JOB | changed, "k-1")
        wrong.check(changed, response, statuses={409})
        assert response.json()["code"] == "idempotency_key_reused"


def test_a_key_belongs_to_its_team(world: World) -> None:
    assert _post(world, JOB, "k-1").status_code == 202
    foreign = world.stranger.ask("POST", f"{ROOT}jobs/", JOB, headers={"Idempotency-Key": "k-1"})
    assert foreign.status_code == 404


@pytest.mark.parametrize("key", ["", "a" * 101, "a\tb", "\x00", "\x7f"])
def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    with complaints() as wrong, nothing_written(wrong, key):
        wrong.check(repr(key[:9]), _post(world, JOB, key), statuses={422})


def _needing_a_plan() -> list[str]:
    return [
        one.route.name
        for one in operations()
        if any(
            each["name"] == "If-Match" and each.get("required") for each in one.document.get("parameters", ())
        )
    ]


def test_what_starts_a_rollout_needs_its_plan() -> None:
    assert sorted(_needing_a_plan()) == ["rollback", "rollouts"]


@pytest.mark.parametrize("verb", ["rollouts", "rollback"])
def test_a_rollout_without_a_plan_is_told_where_to_get_one(world: World, verb: str) -> None:
    with complaints() as wrong, nothing_written(wrong, verb):
        response = world.engineer.ask("POST", f"{SCORING}{verb}/", {"revision": 2})
        wrong.check(verb, response, statuses={428})
        assert f"{SCORING}revisions/2/plan/" in response.json()["detail"]


@pytest.mark.parametrize("verb", ["rollouts", "rollback"])
@pytest.mark.parametrize(
    "etag", ["", '"', '""', "x", '"x"', 'W/"x"', "0" * 32, "a" * 10_000, "'--", "**", "* *"]
)
def test_a_plan_that_was_never_shown_is_refused(world: World, verb: str, etag: str) -> None:
    with complaints() as wrong, nothing_written(wrong, etag[:20]):
        response = world.engineer.ask(
            "POST", f"{SCORING}{verb}/", {"revision": 2}, headers={"If-Match": etag}
        )
        wrong.check(etag[:20], response, statuses={412})


@pytest.mark.parametrize("weak", [False, True])
def test_the_plan_that_was_shown_is_applied(world: World, weak: bool) -> None:
    etag = world.viewer.ask("GET", f"{SCORING}revisions/2/plan/")["ETag"]
    given = f"W/{etag}" if weak else etag
    response = world.engineer.ask("POST", f"{SCORING}rollouts/", {"revision": 2}, headers={"If-Match": given})
    assert response.status_code == 202


def test_a_plan_made_before_something_else_moved_is_refused(world: World) -> None:
    etag = world.viewer.ask("GET", f"{SCORING}revisions/2/plan/")["ETag"]
    key = Deployment.objects.get(name="scoring").key
    world.target.scale(key, revision=1, replicas=2, generation=9)
    with complaints() as wrong, nothing_written(wrong, "moved"):
        response = world.engineer.ask(
            "POST", f"{SCORING}rollouts/", {"revision": 2}, headers={"If-Match": etag}
        )
        wrong.check("moved", response, statuses={412})


def test_only_one_rollout_at_a_time(world: World) -> None:
    path, headers = f"{ROOT}deployments/turning/rollouts/", {"If-Match": "*"}
    before = Rollout.objects.count()
    response = world.engineer.ask("POST", path, {"revision": 2}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (409, "rollout_active")
    assert Rollout.objects.count() == before


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "revisions/2/plan/", {}),
        ("POST", "rollouts/", {"body": {"revision": 2}, "headers": {"If-Match": "*"}}),
        ("GET", "replicas/r1/log/", {}),
    ],
)
def test_a_target_that_is_away_is_said_to_be_and_when_to_ask_again(
    world: World, method: str, path: str, more: dict[str, Any]
) -> None:
    world.target.reachable = False
    with complaints() as wrong, nothing_written(wrong, "unreachable"):
        response = world.engineer.ask(method, SCORING + path, **more)
        assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json")
        assert int(response["Retry-After"]) > 0
        assert response.json()["detail"]
