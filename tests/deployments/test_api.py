"""Each verb of the API for its three people, and what it refuses with which words."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections

from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict
from deployments import services, specs
from deployments.models import Deployment, Load, Rollout
from tests import factories
from tests.deployments.world import World

pytestmark = pytest.mark.django_db


READS = (
    "scorer/",
    "scorer/revisions/",
    "scorer/revisions/1/",
    "scorer/revisions/1/plan/",
    "scorer/rollouts/",
    "scorer/rollouts/{rollout}/",
    "scorer/replicas/",
    "scorer/replicas/{replica}/log/",
    "scorer/series/?range=5m",
    "scorer/decisions/",
    "scorer/why/",
    "scorer/why/?at=1790000000",
    "scorer/load/",
)
NEW = {"model": "scorer", "version": 1, "spec": {}}
WRITES: tuple[tuple[str, str, Any, int], ...] = (
    ("POST", "scorer/revisions/", NEW, 201),
    ("POST", "scorer/rollouts/", {"revision": 1}, 202),
    ("POST", "scorer/rollback/", {"revision": 1}, 202),
    ("POST", "scorer/rollouts/{running}/cancel/", {}, 202),
    ("POST", "scorer/scale/", {"replicas": 2}, 202),
    ("POST", "scorer/key/", None, 201),
    ("PUT", "scorer/autoscaling/", {"paused": True}, 200),
    ("PUT", "scorer/load/", {"rate_per_s": 5, "duration_s": 60}, 200),
    ("DELETE", "scorer/load/", None, 204),
    ("DELETE", "scorer/", None, 202),
)


def _live(world: World) -> dict[str, Any]:
    """A live deployment with one of everything; names to put into addresses."""
    world.serve()
    services.start_load(world.owner, world.deployment, rate_per_s=5, duration_s=60)
    return {"rollout": world.row.rollouts.get().pk, "replica": world.seen.replicas[0].name}


@pytest.mark.parametrize("path", READS)
def test_teammates_read_and_strangers_see_nothing(world: World, path: str) -> None:
    path = path.format(**_live(world))
    assert world.api(world.owner, "GET", path).status_code == 200
    assert world.api(world.viewer, "GET", path).status_code == 200
    assert world.api(world.stranger, "GET", path).status_code == 404


@pytest.mark.parametrize(("method", "path", "body", "status"), WRITES)
def test_engineers_change_viewers_do_not_and_strangers_see_nothing(
    world: World, method: str, path: str, body: Any, status: int
) -> None:
    names = _live(world)
    if "{running}" in path:
        names["running"] = world.start(world.revision()).pk
    path = path.format(**names)
    headers = {"If_Match": "*"}
    assert world.api(world.stranger, method, path, body, **headers).status_code == 404
    refused = world.api(world.viewer, method, path, body, **headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_too_low")
    before = AuditEvent.objects.count()
    assert world.api(world.owner, method, path, body, **headers).status_code == status
    assert AuditEvent.objects.filter(user=world.owner.user).count() > 0
    assert AuditEvent.objects.count() == before + 1, "each mutation is audited once"


def test_only_engineers_create_and_a_key_is_shown_once(world: World) -> None:
    assert world.api(world.viewer, "POST", "", {"name": "other"}).status_code == 403
    made = world.api(world.owner, "POST", "", {"name": "other", "protected": True})
    assert made.status_code == 201, made.content
    assert len(made.json()["api_key"]) > 30
    again = world.api(world.owner, "GET", "other/").json()
    assert not again.get("api_key")
    assert again["protected"] is True
    assert world.api(world.owner, "POST", "", {"name": "other"}).status_code == 409


def test_a_key_is_made_replaced_and_removed_and_reaches_the_replicas(world: World) -> None:
    world.serve()
    services.start_load(world.owner, world.deployment, rate_per_s=5, duration_s=60)
    digests = [None]
    for _ in range(2):
        made = world.api(world.owner, "POST", "scorer/key/")
        assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
        digests.append(hashlib.sha256(made.json()["api_key"].encode()).hexdigest())
        world.step()
        assert _key(world) == digests[-1]
    assert len(set(digests)) == 3
    assert Load.objects.get().until <= datetime.now(UTC), "there is no key here to send it with"
    assert world.api(world.viewer, "DELETE", "scorer/key/").status_code == 403
    assert world.api(world.stranger, "DELETE", "scorer/key/").status_code == 404
    for _ in range(2):
        assert world.api(world.owner, "DELETE", "scorer/key/").status_code == 204
    world.step()
    assert _key(world) is None
    said = AuditEvent.objects.filter(verb__contains="API key").order_by("pk").values_list("verb", flat=True)
    assert list(said) == ["added an API key to", "rotated the API key of", "removed the API key of"]


def _key(world: World) -> str | None:
    wish = world.target.desired(world.row.key)
    assert wish is not None
    return wish.workloads[0].api_key_sha256


def test_of_two_who_replace_a_key_the_second_is_told(world: World) -> None:
    stale = world.deployment
    services.rotate_key(world.owner, world.deployment)
    before = world.deployment.api_key_sha256
    with pytest.raises(Conflict, match="was changed meanwhile"):
        services.rotate_key(world.owner, stale)
    with pytest.raises(Conflict, match="was changed meanwhile"):
        services.remove_key(world.owner, world.deployment, seen=stale.api_key_seen)
    assert world.deployment.api_key_sha256 == before


def test_a_list_holds_the_team_s_own(world: World) -> None:
    names = [row["name"] for row in world.api(world.viewer, "GET", "").json()["items"]]
    assert names == ["scorer"]
    assert world.api(world.stranger, "GET", "").json()["items"] == []


def test_a_rollout_needs_the_plan_it_was_decided_on(world: World) -> None:
    world.revision()
    answer = world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 1})
    assert answer.status_code == 428
    assert "/revisions/1/plan/" in answer.json()["detail"]


def test_the_plan_s_etag_opens_the_rollout_also_when_a_proxy_weakened_it(world: World) -> None:
    world.revision()
    etag = world.api(world.owner, "GET", "scorer/revisions/1/plan/").headers["ETag"]
    answer = world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 1}, If_Match=f"W/{etag}")
    assert answer.status_code == 202


def test_a_plan_of_a_state_that_has_moved_is_refused_with_who_moved_it(world: World) -> None:
    world.serve()
    world.revision()
    etag = world.api(world.owner, "GET", "scorer/revisions/2/plan/").headers["ETag"]
    colleague = factories.member(world.owner.team)
    assert world.finish(world.start(world.revision(), by=colleague)).state == "succeeded"
    answer = world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 2}, If_Match=etag)
    assert answer.status_code == 412
    assert f"{colleague.user} rolled out revision 3" in answer.json()["detail"]


def test_a_second_rollout_is_refused_with_the_first_one_s_owner(world: World) -> None:
    colleague = factories.member(world.owner.team)
    first = world.start(world.revision(), by=colleague)
    world.revision()
    etag = world.api(world.owner, "GET", "scorer/revisions/2/plan/").headers["ETag"]
    answer = world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 2}, If_Match=etag)
    assert answer.status_code == 409
    document = answer.json()
    assert f"{colleague.user} is rolling out revision 1" in document["detail"]
    assert document["rollout"] == first.pk


@pytest.mark.django_db(transaction=True)
def test_of_fifty_rollouts_at_once_exactly_one_wins(world: World) -> None:
    """F32: the others learn who won, and the audit has the winner's name."""
    colleagues = [world.owner, factories.member(world.owner.team)]
    for _ in colleagues:
        world.revision()
    plans = [
        world.api(world.owner, "GET", f"scorer/revisions/{number}/plan/").headers["ETag"] for number in (1, 2)
    ]
    for actor in colleagues:
        world.api(actor, "GET", "scorer/")

    def ask(place: int) -> tuple[int, dict[str, Any]]:
        try:
            which = place % 2
            body = {"revision": which + 1}
            answer = world.api(colleagues[which], "POST", "scorer/rollouts/", body, If_Match=plans[which])
            return answer.status_code, answer.json()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(50)))
    won = [document for status, document in answers if status == 202]
    lost = [(status, document) for status, document in answers if status != 202]
    assert len(won) == 1
    assert {status for status, _ in lost} <= {409, 412}
    winner = won[0]["created_by"]
    assert all(winner in document["detail"] for _, document in lost)
    assert Rollout.objects.filter(deployment=world.row).count() == 1
    assert AuditEvent.objects.filter(verb="started a rollout of", user__username=winner).count() == 1


@pytest.mark.parametrize(
    ("spec", "status", "field"),
    [
        ({"batching": {"max_batch_size": 0}}, 400, "spec.batching.max_batch_size"),
        ({"batching": {"max_batch_size": 2000}}, 422, "spec.batching.max_batch_size"),
        ({"batching": {"preferred_batch_size": [4, 2]}}, 422, "spec.batching.preferred_batch_size"),
        ({"batching": {"max_queue_delay_microseconds": 2_000_000}}, 422, "spec.batching.max_queue_delay_microseconds"),
        ({"batching": {"max_batch": 4}}, 400, "spec.batching.max_batch"),
        ({"threads": 65}, 422, "spec.threads"),
        ({"threads": "two"}, 400, "spec.threads"),
        ({"environment": {"LD_PRELOAD": "x"}}, 400, "spec.environment.LD_PRELOAD"),
        ({"memory_bytes": 1}, 400, "spec.memory_bytes"),
        ({"rollout": {"max_surge": 0}}, 400, "spec.rollout.max_surge"),
        ({"autoscaling": {"maxReplicas": 2}}, 422, "spec.autoscaling"),
        ({"unheard_of": 1}, 400, "spec.unheard_of"),
        ({"stack": "steam"}, 422, None),
        ([], 400, None),
    ],
)  # fmt: skip
def test_a_spec_that_a_replica_would_refuse_is_refused_with_its_field(
    world: World, spec: Any, status: int, field: str | None
) -> None:
    factories.version(factories.model(world.owner.team, "scorer"))
    answer = world.api(
        world.owner, "POST", "scorer/revisions/", {"model": "scorer", "version": 1, "spec": spec}
    )
    document = answer.json()
    assert answer.status_code == status, document
    if field is not None:
        assert [error["field"] for error in document["errors"]] == [field]
        assert document["errors"][0]["messages"][0]


def test_more_replicas_than_a_target_runs_are_refused_when_they_are_asked_for(world: World) -> None:
    factories.version(factories.model(world.owner.team, "scorer"))
    autoscaling = specs.read_spec({}).autoscaling | {"maxReplicas": 257}
    body = {"model": "scorer", "version": 1, "spec": {"autoscaling": autoscaling}}
    answer = world.api(world.owner, "POST", "scorer/revisions/", body)
    assert answer.status_code == 422
    assert "256" in answer.json()["detail"]


def test_a_variant_of_another_team_is_not_there(world: World) -> None:
    factories.version(factories.model(world.stranger.team, "theirs"))
    answer = world.api(
        world.owner, "POST", "scorer/revisions/", {"model": "theirs", "version": 1, "spec": {}}
    )
    assert answer.status_code == 404


def test_the_plan_shows_what_was_decided_and_no_machinery(world: World) -> None:
    world.serve()
    world.revision(batching={"max_batch_size": 16})
    plan = world.api(world.viewer, "GET", "scorer/revisions/2/plan/").json()
    paths = {change["path"] for change in plan["diff"]}
    assert "batching.max_batch_size" in paths
    assert not {
        path for path in paths if path.rsplit(".", 1)[-1] in {"generation", "key", "drain_s", "artifact_path"}
    }
    assert all(change["op"] == "change" for change in plan["diff"] if change["path"].startswith("batching"))
    assert plan["counts"]["change"] == sum(change["op"] == "change" for change in plan["diff"])


def test_scaling_stays_within_the_live_revision_s_bounds(world: World) -> None:
    assert world.api(world.owner, "POST", "scorer/scale/", {"replicas": 2}).json()["code"] == "nothing_live"
    world.serve()
    assert world.api(world.owner, "POST", "scorer/scale/", {"replicas": 9}).status_code == 422
    assert world.api(world.owner, "POST", "scorer/scale/", {"replicas": 3}).status_code == 202
    world.until(lambda: world.seen.ready() == 3)


@pytest.mark.parametrize(
    "body", [{"rate_per_s": 201, "duration_s": 60}, {"rate_per_s": 5, "duration_s": 1801}]
)
def test_a_load_has_a_cap(world: World, body: dict[str, Any]) -> None:
    world.serve()
    assert world.api(world.owner, "PUT", "scorer/load/", body).status_code == 422
    assert not Load.objects.exists()


def test_a_load_can_be_raised_and_stopped_and_keeps_its_count(world: World) -> None:
    world.serve()
    world.api(world.owner, "PUT", "scorer/load/", {"rate_per_s": 5, "duration_s": 60})
    Load.objects.update(sent=100)
    raised = world.api(world.owner, "PUT", "scorer/load/", {"rate_per_s": 10, "duration_s": 60}).json()
    assert (raised["rate_per_s"], raised["sent"]) == (10, 100)
    for _ in range(2):
        assert world.api(world.owner, "DELETE", "scorer/load/").status_code == 204
    assert AuditEvent.objects.filter(verb="stopped the load on").count() == 1
    fresh = world.api(world.owner, "PUT", "scorer/load/", {"rate_per_s": 5, "duration_s": 60}).json()
    assert fresh["sent"] == 0


def test_an_unknown_range_is_refused(world: World) -> None:
    for query in ("range=5y", "from=abc", "from=9&to=5"):
        assert world.api(world.viewer, "GET", f"scorer/series/?{query}").status_code == 400


def test_an_unreachable_target_is_our_operator_s_move_and_not_an_error_of_ours(world: World) -> None:
    world.serve()
    world.target.reachable = False
    assert world.api(world.viewer, "GET", "scorer/revisions/1/plan/").status_code == 503
    assert world.api(world.viewer, "GET", "scorer/").status_code == 200
    assert (
        world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 1}, If_Match="*").status_code == 503
    )


def test_a_rollout_of_a_deployment_that_is_removed_is_refused(world: World) -> None:
    world.revision()
    Deployment.objects.update(removing=True)
    answer = world.api(world.owner, "POST", "scorer/rollouts/", {"revision": 1}, If_Match="*")
    assert (answer.status_code, answer.json()["code"]) == (409, "removing")
