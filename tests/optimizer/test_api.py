"""The jobs API: each verb by an engineer, a viewer of the team and a stranger."""

import pytest
from django.test import Client

from optimizer.models import Job, JobEvent
from tests.controlplane.registry.people import code
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


def wanted(version, **more):
    return {
        "model": version.model.name,
        "version": version.number,
        "recipe": [{"technique": "onnx-graph"}],
        **more,
    }


def test_a_job_is_queued_by_an_engineer(three, version_of, dataset_of):
    owner, viewer, stranger = three
    version = version_of(owner.actor)
    dataset_of(version)
    made = owner.api("POST", "jobs/", wanted(version, evaluation_set="held"))
    assert made.status_code == 202
    document = made.json()
    assert made.headers["Location"] == document["url"] == f"/api/v1/jobs/{document['id']}/"
    assert (document["state"], document["created"]) == ("queued", True)
    assert code(viewer.api("POST", "jobs/", wanted(version))) == (403, "role_too_low")
    assert code(stranger.api("POST", "jobs/", wanted(version))) == (404, "not_found")
    assert code(owner.api("POST", "jobs/", wanted(version, evaluation_set="other"))) == (404, "not_found")
    assert Client().get("/api/v1/jobs/").status_code == 401
    assert Job.objects.count() == 1


def test_the_same_key_answers_with_the_first_job(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    key = {"Idempotency-Key": "nightly"}
    first = owner.api("POST", "jobs/", wanted(version), **key).json()
    again = owner.api("POST", "jobs/", wanted(version), **key)
    assert (again.status_code, again.json()["id"], again.json()["created"]) == (202, first["id"], False)
    other = owner.api("POST", "jobs/", wanted(version, recipe=[{"technique": "int8-dynamic"}]), **key)
    assert code(other) == (409, "idempotency_key_reused")


def test_a_job_and_its_log_are_read_by_the_team_only(three, version_of):
    owner, viewer, stranger = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    for address in (f"jobs/{job.pk}/", f"jobs/{job.pk}/events/"):
        assert owner.api("GET", address).status_code == 200
        assert viewer.api("GET", address).status_code == 200
        assert code(stranger.api("GET", address)) == (404, "not_found")
    assert [row["id"] for row in viewer.api("GET", "jobs/").json()["items"]] == [job.pk]
    assert stranger.api("GET", "jobs/").json()["items"] == []


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_job_is_moved_by_engineers_of_its_team(three, version_of, verb):
    owner, viewer, stranger = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    address = f"jobs/{job.pk}/{verb}/"
    assert code(viewer.api("POST", address)) == (403, "role_too_low")
    assert code(stranger.api("POST", address)) == (404, "not_found")
    if verb == "cancel":
        assert owner.api("POST", address).json() == {"id": job.pk, "state": "cancelled"}
        assert code(owner.api("POST", address)) == (409, "job_is_over")
    else:
        assert code(owner.api("POST", address)) == (409, "job_is_active")
        owner.api("POST", f"jobs/{job.pk}/cancel/")
        assert owner.api("POST", address).json()["retry_of"] == job.pk


def test_the_log_goes_on_after_any_id_without_gap_or_duplicate(three, version_of):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    at = job.created_at
    JobEvent.objects.bulk_create(
        JobEvent(job=job, attempt=1, kind="log", message=f"line {number}", at=at) for number in range(1200)
    )
    seen, after = [], 0
    while True:
        page = owner.api("GET", f"jobs/{job.pk}/events/?after={after}").json()
        if not page["events"]:
            break
        seen += [event["id"] for event in page["events"]]
        after = page["next"]
    assert seen == list(job.events.order_by("id").values_list("id", flat=True))
    for text in ("-1", "x", "1" * 30, "٣"):
        assert code(owner.api("GET", f"jobs/{job.pk}/events/?after={text}")) == (400, "invalid_after")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"version": "1"}, 400),
        ({"version": True}, 400),
        ({"version": 2**40}, 400),
        ({"version": 9}, 404),
        ({"model": 3}, 400),
        ({"owner": "me"}, 400),
        ({"recipe": "onnx-graph"}, 400),
        ({"recipe": [{"technique": "onnx-graph", "params": {"level": "x"}}]}, 422),
        ({"recipe": [{"technique": "a\u0000"}]}, 400),
        ({"recipe": None}, 400),
    ],
)
def test_a_request_that_makes_no_sense_queues_nothing(three, version_of, changes, status):
    owner, _, _ = three
    answer = owner.api("POST", "jobs/", wanted(version_of(owner.actor)) | changes)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not Job.objects.exists()


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "1" + "0" * 30, "٣"])
def test_b8_a_number_that_is_none_is_not_found(three, number):
    owner, _, _ = three
    assert owner.api("GET", f"jobs/{number}/").status_code == 404


def test_lists_are_filtered_by_state_and_model(three, version_of):
    owner, _, _ = three
    version, other = version_of(owner.actor), version_of(owner.actor)
    first, second = jobs.queued(owner.actor, version), jobs.queued(owner.actor, other)
    owner.api("POST", f"jobs/{first.pk}/cancel/")

    def found(query: str) -> list[int]:
        return [row["id"] for row in owner.api("GET", f"jobs/?{query}").json()["items"]]

    assert found("") == [second.pk, first.pk]
    assert found("state=active") == [second.pk]
    assert found("state=cancelled") == [first.pk]
    assert found(f"model={other.model.name}") == [second.pk]
    assert code(owner.api("GET", "jobs/?state=x")) == (400, "invalid_state")


def test_workers_are_seen_by_all_and_tell_nothing_of_other_teams_jobs(three, version_of):
    owner, _, stranger = three
    version = version_of(owner.actor)
    jobs.worker(current_job=Job.objects.get(pk=jobs.running(owner.actor, version).job_id))
    answer = stranger.api("GET", "workers/")
    (row,) = answer.json()["items"]
    assert row["busy"] is True
    assert not {"current_job", "job"} & set(row)
    assert version.model.name not in answer.content.decode()


def test_techniques_come_with_promises_and_schemas(three):
    _, viewer, _ = three
    rows = {row["key"]: row for row in viewer.api("GET", "techniques/").json()["items"]}
    assert set(rows) >= {"onnx-graph", "int8-dynamic", "int8-static"}
    assert rows["int8-static"]["parameters"]["properties"]["calibration_items"]["minimum"] == 8
    assert rows["int8-static"]["promises"]["speedup"] == [3.0, 6.0]
