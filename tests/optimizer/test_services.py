"""The verbs on jobs: who may, what is refused, and that the same request twice is one job."""

from dataclasses import replace

import pytest

from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict, Forbidden, Unprocessable
from controlplane.registry import services as registry
from optimizer import services, transitions
from optimizer.domain.jobs import JobState
from optimizer.domain.recipe import Recipe
from optimizer.models import Job
from tests import factories
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


def recipe(*techniques: str, **params: object) -> list[dict[str, object]]:
    return [{"technique": technique, "params": params} for technique in techniques]


def test_a_job_is_queued_with_its_defaults_written_out_and_an_event(three, version_of):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor), recipe=recipe("int8-dynamic"))
    assert job.state == JobState.QUEUED
    assert job.recipe[0]["params"]["op_types"] == ["MatMul", "Gemm"]
    assert [event.message for event in job.events.all()] == ["Queued: int8-dynamic."]
    assert AuditEvent.objects.get(object_type="job").verb == "queued"


def test_a_viewer_starts_cancels_and_retries_nothing(three, version_of):
    owner, viewer, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    for verb in (
        lambda: jobs.queued(viewer.actor, version),
        lambda: services.cancel_job(viewer.actor, job),
        lambda: services.retry_job(viewer.actor, job),
    ):
        with pytest.raises(Forbidden):
            verb()
    assert Job.objects.count() == 1


def test_f1_a_team_has_so_many_jobs_waiting_and_hinders_no_other(three, version_of, settings):
    owner, _, stranger = three
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_queued_jobs=2)
    version = version_of(owner.actor)
    first = jobs.queued(owner.actor, version, idempotency_key="first")
    jobs.queued(owner.actor, version)
    body = {"model": version.model.name, "version": version.number, "recipe": recipe("onnx-graph")}
    refused = owner.api("POST", "jobs/", body)
    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (429, "queue_full", "60")
    assert jobs.queued(owner.actor, version, idempotency_key="first") == first
    jobs.queued(stranger.actor, version_of(stranger.actor))
    services.cancel_job(owner.actor, first)
    assert owner.api("POST", "jobs/", body).status_code == 202


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (recipe("magic"), "unknown_technique"),
        (recipe("int8-dynamic", op_types=[]), "invalid_parameters"),
        (recipe("int8-dynamic", nonsense=1), "invalid_parameters"),
        (recipe("int8-dynamic", op_types=["Conv"]), "nothing_to_quantize"),
        (recipe("int8-static"), "calibration_missing"),
        (recipe("int8-dynamic", "int8-dynamic"), "wrong_precision"),
        ([], "invalid_recipe"),
        (recipe(*["onnx-graph"] * 9), "invalid_recipe"),
        ("onnx-graph", "invalid_recipe"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_it_is_queued(three, version_of, steps, code):
    owner, _, _ = three
    with pytest.raises(Unprocessable) as error:
        jobs.queued(owner.actor, version_of(owner.actor), recipe=steps)
    assert error.value.code == code
    assert not Job.objects.exists()


def test_a_variant_is_judged_by_its_own_precision(three, version_of):
    """An int8 variant of an fp32 version is int8."""
    owner, _, _ = three
    version = version_of(owner.actor)
    quantized = factories.variant(version)
    with pytest.raises(Unprocessable) as error:
        services.optimize(owner.actor, quantized, recipe=Recipe.from_json(recipe("int8-dynamic")))
    assert error.value.code == "wrong_precision"


def test_what_is_quarantined_or_damaged_is_not_worked_on(three, version_of):
    owner, _, _ = three
    version, other = version_of(owner.actor), version_of(owner.actor)
    registry.quarantine(version, reason="It crashed its worker.")
    registry.mark_damaged(sha256=other.artifact.sha256)
    for broken, code in ((version, "quarantined"), (other, "integrity")):
        broken.refresh_from_db()
        with pytest.raises(Conflict) as error:
            jobs.queued(owner.actor, broken)
        assert error.value.code == code
    assert not Job.objects.exists()


def test_the_same_key_is_the_same_job_and_another_request_under_it_is_refused(three, version_of):
    owner, _, stranger = three
    version = version_of(owner.actor)
    parent = version.variants.get()

    def start(actor, parent, steps):
        return services.optimize(actor, parent, recipe=Recipe.from_json(steps), idempotency_key="k1")

    first, created = start(owner.actor, parent, recipe("onnx-graph"))
    again, created_again = start(owner.actor, parent, recipe("onnx-graph", level="extended"))
    assert (created, created_again, again.pk) == (True, False, first.pk), (
        "defaults written out are no difference"
    )
    with pytest.raises(Conflict) as error:
        start(owner.actor, parent, recipe("onnx-graph", level="basic"))
    assert error.value.code == "idempotency_key_reused"
    other = version_of(stranger.actor).variants.get()
    assert start(stranger.actor, other, recipe("onnx-graph"))[1], "a key is the team's own"


@pytest.mark.parametrize("key", ["", "x" * 101, "a\nb"])
def test_a_key_that_is_none_is_refused(three, version_of, key):
    owner, _, _ = three
    with pytest.raises(Unprocessable):
        jobs.queued(owner.actor, version_of(owner.actor), idempotency_key=key)


def test_cancelling_ends_a_queued_job_and_asks_a_running_one(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    waiting = jobs.queued(owner.actor, version)
    assert services.cancel_job(owner.actor, waiting) == "cancelled"
    with pytest.raises(Conflict) as error:
        services.cancel_job(owner.actor, waiting)
    assert error.value.code == "job_is_over"
    claim = jobs.running(owner.actor, version)
    running = Job.objects.get(pk=claim.job_id)
    assert services.cancel_job(owner.actor, running) == "cancelling"
    assert services.cancel_job(owner.actor, running) == "cancelling", "asking twice changes nothing"
    assert transitions.heartbeat(claim) is True


def test_a_cancel_that_meets_a_job_changing_hands_is_not_lost(three, version_of, monkeypatch):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    really, misses = transitions.cancel, iter([True, False])
    monkeypatch.setattr(transitions, "cancel", lambda row: None if next(misses) else really(row))
    assert services.cancel_job(owner.actor, job) == "cancelled"


def test_a_retry_is_the_same_request_linked_to_the_first(three, version_of, dataset_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version, evaluation_set=dataset_of(version))
    with pytest.raises(Conflict) as error:
        services.retry_job(owner.actor, job)
    assert error.value.code == "job_is_active"
    services.cancel_job(owner.actor, job)
    job.refresh_from_db()
    again, created = services.retry_job(owner.actor, job)
    assert created
    assert (again.retry_of, again.recipe, again.evaluation_set) == (job, job.recipe, job.evaluation_set)


def over(actor, version, **more):
    job = jobs.queued(actor, version, **more)
    services.cancel_job(actor, job)
    job.refresh_from_db()
    return job


def test_a_retry_that_is_asked_for_twice_is_one_job_until_that_is_over(three, version_of):
    owner, _, _ = three
    job = over(owner.actor, version_of(owner.actor))
    first, created = services.retry_job(owner.actor, job)
    again, created_again = services.retry_job(owner.actor, job)
    assert (created, created_again, again.pk) == (True, False, first.pk)
    services.cancel_job(owner.actor, first)
    later, created_later = services.retry_job(owner.actor, job)
    assert created_later
    assert later.pk != first.pk
    assert set(job.retries.values_list("idempotency_key", flat=True)) == {None}, "keys are the clients' own"


def test_a_key_belongs_to_the_request_or_to_its_retry_but_not_to_both(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = over(owner.actor, version, idempotency_key="k1")
    with pytest.raises(Conflict) as error:
        services.retry_job(owner.actor, job, idempotency_key="k1")
    assert error.value.code == "idempotency_key_reused"
    first, _ = services.retry_job(owner.actor, job, idempotency_key="k2")
    again, created = services.retry_job(owner.actor, job, idempotency_key="k2")
    assert (again.pk, created) == (first.pk, False)
    other, created = services.retry_job(owner.actor, job, idempotency_key="k3")
    assert created, "another key is another retry"
    assert other.pk != first.pk
    with pytest.raises(Conflict):
        jobs.queued(owner.actor, version, idempotency_key="k2")


def test_a_retry_without_its_data_set_says_so_instead_of_measuring_something_else(
    three, version_of, dataset_of
):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version, evaluation_set=dataset_of(version))
    services.cancel_job(owner.actor, job)
    job.evaluation_set.delete()
    job.refresh_from_db()
    with pytest.raises(Conflict) as error:
        services.retry_job(owner.actor, job)
    assert error.value.code == "dataset_gone"
