"""Measuring a variant again: the same question, another report, one effect for each job."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client

from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict, Forbidden, Unprocessable
from controlplane.registry import services as registry
from controlplane.registry.answers import Answers
from controlplane.registry.engines import Engine, Gpu
from controlplane.registry.models import Artifact, Dataset, Report, Variant
from optimizer import measuring, services, transitions
from optimizer.domain.jobs import JobState
from optimizer.models import Job
from optimizer.worker import attempt, effects, gpus, hardware
from tests import factories
from tests.controlplane.registry.intake import models
from tests.controlplane.registry.people import code
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db

AGAIN = jobs.REPORT["again"]


@pytest.fixture
def measured(three, version_of) -> Variant:
    owner, _, _ = three
    return jobs.result(jobs.queued(owner.actor, version_of(owner.actor)))


def address(variant: Variant) -> str:
    return f"models/{variant.version.model.name}/versions/1/variants/{variant.number}/measure/"


@pytest.fixture
def own_place(settings: Any, tmp_path: Path) -> None:
    """Bytes that are really stored, and a short measurement."""
    settings.STORAGES = settings.STORAGES | {
        "artifacts": settings.STORAGES["artifacts"] | {"OPTIONS": {"location": tmp_path / "artifacts"}}
    }
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, home=tmp_path, measure_budget_s=1.0)


def test_a_variant_is_measured_again_on_the_same_items_with_the_same_seed(three, own_place):
    owner, _, _ = three
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model = factories.model(owner.actor.team)
    body = models.mlp(weights=weights).SerializeToString()
    version, _ = registry.upload_version(owner.actor, model, chunks=[body])
    file, x = io.BytesIO(), np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    np.savez(file, x=x, labels=(x @ weights).argmax(1))
    held = registry.add_dataset(
        owner.actor, model, name="held", role="evaluation", version=version, chunks=[file.getvalue()]
    )
    recipe = [{"technique": "int8-static", "params": {"calibration_items": 8, "repair_rounds": 0}}]
    registry.set_answers(owner.actor, model, Answers(task="classification"), version=version)
    job = jobs.queued(owner.actor, version, recipe=recipe, evaluation_set=held)
    assert attempt.run(job.pk, owner="w1@host") == JobState.SUCCEEDED, Job.objects.get(pk=job.pk).message
    variant = Variant.objects.get(job_id=job.pk)
    registry.set_answers(owner.actor, model, Answers(task="regression"), version=version)
    again, created = services.measure_again(owner.actor, variant)
    assert created
    assert attempt.run(again.pk, owner="w1@host") == JobState.SUCCEEDED, Job.objects.get(pk=again.pk).message

    newest, first = variant.reports.all()
    assert (first.job_id, newest.job_id) == (job.pk, again.pk)
    assert first.data["again"]["fitted_to"]
    assert first.data["again"]["answers"]["task"] == first.data["accuracy"]["task"] == "classification"
    assert newest.data["again"] == first.data["again"]
    for same in ("inputs", "seed", "threads"):
        assert newest.data["method"][same] == first.data["method"][same]
    assert newest.data["accuracy"] == first.data["accuracy"]
    assert newest.data["promises"] == first.data["promises"]
    variant.refresh_from_db()
    assert variant.verdict == newest.verdict
    assert Variant.objects.filter(version=version).count() == 2
    assert AuditEvent.objects.get(verb="measured again").details["job"] == again.pk
    page = owner.browser.get(variant.get_absolute_url()).content.decode()
    assert "2 measurements between" in page
    for row in (first, newest):
        assert f'id="report-{row.pk}"' in page
    older = owner.browser.get(f"{variant.get_absolute_url()}?report={first.pk}").content.decode()
    assert "This is an older measurement." in older
    assert "measure int8-static again" in owner.browser.get(again.get_absolute_url()).content.decode()


def test_it_is_asked_for_by_engineers_of_the_team_on_page_and_api(three, measured):
    owner, viewer, stranger = three
    assert code(viewer.api("POST", address(measured))) == (403, "role_too_low")
    assert code(stranger.api("POST", address(measured))) == (404, "not_found")
    assert Client().post(f"/api/v1/{address(measured)}").status_code == 401
    assert viewer.browser.post(f"/{address(measured)}").status_code == 403
    assert stranger.browser.post(f"/{address(measured)}").status_code == 404
    assert owner.browser.get(f"/{address(measured)}").status_code == 405
    assert "Measure again" not in viewer.browser.get(measured.get_absolute_url()).content.decode()
    assert "Measure again" in owner.browser.get(measured.get_absolute_url()).content.decode()
    with pytest.raises(Forbidden):
        services.measure_again(viewer.actor, measured)
    assert Job.objects.filter(measures=measured).count() == 0
    answer = owner.api("POST", address(measured))
    document = answer.json()
    assert answer.status_code == 202
    assert (document["measures"], document["recipe"], document["parent"]) == (measured.number, [], 0)
    page = owner.browser.post(f"/{address(measured)}", follow=True)
    assert f"It is queued already: job {document['id']}." in page.content.decode()


def test_a_button_pressed_twice_queues_one_and_a_key_names_its_job(three, measured):
    owner, _, _ = three
    first, created = services.measure_again(owner.actor, measured)
    again, created_again = services.measure_again(owner.actor, measured)
    assert (again, created, created_again) == (first, True, False)
    keyed, _ = services.measure_again(owner.actor, measured, idempotency_key="nightly")
    same, new = services.measure_again(owner.actor, measured, idempotency_key="nightly")
    assert (same, new) == (keyed, False)
    assert keyed != first
    with pytest.raises(Conflict, match="came with another request"):
        jobs.queued(owner.actor, measured.version, idempotency_key="nightly")


def test_it_is_cancelled_and_retried_as_other_jobs_are(three, measured):
    owner, _, _ = three
    job, _ = services.measure_again(owner.actor, measured)
    assert services.cancel_job(owner.actor, job) == JobState.CANCELLED
    job.refresh_from_db()
    retried, created = services.retry_job(owner.actor, job)
    assert (created, retried.retry_of, retried.measures, retried.recipe) == (True, job, measured, [])
    page = owner.browser.get(retried.get_absolute_url()).content.decode()
    for said in ("measure onnx-graph again", "No worker for the queue", "Keep the report"):
        assert said in page
    assert "measure onnx-graph again" in owner.browser.get("/jobs/").content.decode()
    with pytest.raises(Conflict, match="in use"):
        registry.delete_version(owner.actor, measured.version)


def test_the_set_is_known_by_its_bytes_and_not_by_its_name(three, measured, dataset_of):
    owner, _, _ = three
    held = dataset_of(measured.version)
    again = AGAIN | {"evaluation_set": {"name": "held", "sha256": held.artifact.sha256}}
    Report.objects.filter(variant=measured).update(data=jobs.REPORT | {"again": again})
    Dataset.objects.update(name="renamed")
    job, _ = services.measure_again(owner.actor, measured)
    assert job.evaluation_set == held
    services.cancel_job(owner.actor, job)
    Dataset.objects.all().delete()
    refused = owner.api("POST", address(measured))
    assert code(refused) == (409, "dataset_gone")
    assert "“held”" in refused.json()["title"]
    page = owner.browser.post(f"/{address(measured)}", follow=True).content.decode()
    assert "Upload the same file again" in page


def test_what_cannot_be_measured_again_is_refused_before_it_is_queued(three, measured):
    owner, _, _ = three
    original = measured.parent
    with pytest.raises(Unprocessable, match="measured against"):
        services.measure_again(owner.actor, original)
    Report.objects.filter(variant=measured).update(data={"version": 1})
    with pytest.raises(Conflict, match="no report that says how"):
        services.measure_again(owner.actor, measured)
    Report.objects.filter(variant=measured).update(data=jobs.REPORT)
    Artifact.objects.filter(pk=measured.artifact_id).update(state="damaged")
    measured.refresh_from_db()
    with pytest.raises(Conflict, match="no longer have their digest"):
        services.measure_again(owner.actor, measured)
    assert Job.objects.filter(measures=measured).count() == 0


ENGINE = {
    "label": "TensorRT for RTX", "version": "1.7.1.116", "capabilities": ["8.6", "8.9"], "flags": [],
    "workspace_mib": 4096, "profiles": [{"x": {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}}], "layers": 2,
    "size_bytes": 147_308, "build_s": 0.06, "source_sha256": "ab" * 32, "log_tail": [],
}  # fmt: skip


def as_engine(variant: Variant) -> Variant:
    variant.format, variant.provenance = "tensorrt", {"steps": [{"technique": "tensorrt", "engine": ENGINE}]}
    variant.save()
    return variant


def test_an_engine_is_measured_again_on_a_gpu_of_the_fleet_that_it_was_built_for(three, measured):
    owner, _, _ = three
    engine = as_engine(measured)
    with pytest.raises(Unprocessable, match="no worker has a GPU that it was built for") as refused:
        services.measure_again(owner.actor, engine)
    assert refused.value.detail == "Those have compute capability 8.6, 8.9."
    worker = jobs.worker()
    worker.hardware["gpus"] = [{"name": "NVIDIA L4", "capability": "8.9"}]
    worker.save()
    job, _ = services.measure_again(owner.actor, engine)
    assert job.queue == "optimize.gpu.sm_89.cuda"
    engine.parent.format = "torch"
    with pytest.raises(Unprocessable, match="nothing runs what it is measured against on a GPU"):
        services.measure_again(owner.actor, engine)


HERE = {"onnxruntime-gpu": "1.31.1", "tensorrt-rtx-cu12": "1.7.1.116"}


@pytest.mark.parametrize(
    ("changes", "gpu", "cuda", "why"),
    [
        ({}, "8.9", HERE, ""),
        ({}, None, None, "This worker has no GPU."),
        ({}, "8.9", None, "CUDA is not installed on this worker."),
        ({}, "7.5", HERE, "It was built for compute capability 8.6 and 8.9; this GPU has 7.5."),
        (
            {},
            "8.9",
            HERE | {"tensorrt-rtx-cu12": "1.8"},
            "It was built by TensorRT for RTX 1.7.1.116; this GPU's worker has 1.8.",
        ),
        (
            {"backend": "tensorrt", "label": "TensorRT"},
            "8.9",
            HERE,
            "TensorRT is not in this worker's CUDA toolchain.",
        ),
        (
            {"profiles": [{"x": {"min": [8, 4], "opt": [8, 4], "max": [8, 4]}}]},
            "8.9",
            HERE,
            "It takes no fewer than 8 items at once, and a report times single ones.",
        ),
    ],
)
def test_a_worker_says_why_it_does_not_measure_an_engine(
    changes: dict[str, Any], gpu: str | None, cuda: dict[str, str] | None, why: str
) -> None:
    engine = Engine.of({"steps": [{"engine": ENGINE | changes}]})
    card = Gpu(capability=gpu) if gpu else None
    assert measuring.why_not_on_gpu("onnx", "tensorrt", engine, gpu=card, cuda=cuda) == why
    assert "a PyTorch program" in measuring.why_not_on_gpu("torch", "tensorrt", engine, gpu=card, cuda=cuda)


def test_what_was_measured_on_a_gpu_that_somebody_chose_is_measured_again_on_such_a_one(three, measured):
    owner, _, _ = three
    first = measured.reports.get()
    first.data = jobs.REPORT | {"again": jobs.REPORT["again"] | {"gpu": "8.9"}}
    first.save()
    assert services.measure_again(owner.actor, measured)[0].queue == "optimize.gpu.sm_89.cuda"


@pytest.mark.parametrize(("gpu", "there"), [("", False), ("8.9", True)])
def test_what_runs_on_both_is_measured_on_the_gpu_only_where_that_was_chosen(
    three, version_of, monkeypatch, own_place, gpu: str, there: bool
):
    owner, _, _ = three
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(attempt, "supervise", lambda **given: asked.append(given) or dict(jobs.REPORT))
    monkeypatch.setattr(gpus, "served", lambda: gpus.Gpu(uuid="GPU-1", name="NVIDIA L4", capability="8.9"))
    monkeypatch.setattr(hardware, "toolchains", lambda: {"cuda": HERE})
    job = jobs.queued(owner.actor, version_of(owner.actor), gpu=gpu)
    file = attempt.Made(path=Path("x"), format="onnx", precision="fp32")
    attempt._measure(
        job,
        inputs=attempt.Inputs(parent=Path("x"), variant=None, evaluation=None, calibration=None),
        stages=[file, file],
        techniques=[],
        engine=None,
        again=measuring.note(seed=1, evaluation_set=None, answers={}, fitted_to=[]),
        hold=None,
        folder=Path("x"),
    )
    assert (asked[0]["spec"]["gpu"], asked[0]["toolchain"]) == (there, "cuda" if there else None)


def test_a_worker_with_the_gpu_measures_an_engine_there_and_any_other_says_why_not(
    three, measured, monkeypatch, own_place
):
    """What the child is asked; what it does with that is `evaluation/test_child.py`'s."""
    owner, _, _ = three
    asked: list[dict[str, Any]] = []

    def supervise(**asking: Any) -> dict[str, Any]:
        asked.append(asking)
        return dict(jobs.REPORT)

    engine = as_engine(measured)
    monkeypatch.setattr(attempt, "supervise", supervise)
    monkeypatch.setattr(attempt, "_verified_inputs", lambda job, own: attempt.Inputs(
        parent=own.work, variant=own.work, evaluation=None, calibration=None
    ))  # fmt: skip
    worker = jobs.worker()
    worker.hardware["gpus"] = [{"name": "NVIDIA L4", "capability": "8.9"}]
    worker.save()
    for gpu in (None, gpus.Gpu(uuid="GPU-1", name="NVIDIA L4", capability="8.9")):
        monkeypatch.setattr(gpus, "served", lambda gpu=gpu: gpu)
        monkeypatch.setattr(hardware, "toolchains", lambda gpu=gpu: {"cuda": HERE} if gpu else {})
        job, _ = services.measure_again(owner.actor, engine)
        assert attempt.run(job.pk, owner="w1@host") == JobState.SUCCEEDED
    without, there = asked
    assert (without["spec"]["gpu"], without["toolchain"]) == (False, None)
    assert without["spec"]["no_gpu"] == "This worker has no GPU."
    assert (there["spec"]["gpu"], there["spec"]["no_gpu"], there["toolchain"]) == (True, "", "cuda")
    assert there["spec"]["largest_batch"] == 32


def test_a_report_lands_once_whatever_is_delivered_twice(three, measured):
    owner, _, _ = three
    job, _ = services.measure_again(owner.actor, measured)
    claim = transitions.claim(job.pk, owner="w1@host")
    assert claim is not None
    hold = attempt.Hold(claim=claim)
    worse = jobs.REPORT | {"verdict": "not_faster", "sentence": "Not faster: 1.00x."}
    for _ in range(2):
        assert effects.finish_again(job, measured, hold=hold, report=worse) == JobState.SUCCEEDED
    assert [row.verdict for row in measured.reports.all()] == ["not_faster", "better"]
    measured.refresh_from_db()
    assert measured.verdict == "not_faster"
    page = owner.browser.get(measured.get_absolute_url()).content.decode()
    assert "The measurements do not agree." in page
    made_by = Job.objects.get(pk=measured.job_id)
    assert "Better" in owner.browser.get(made_by.get_absolute_url()).content.decode()
    assert owner.api("GET", f"jobs/{job.pk}/").json()["variant"].endswith(measured.get_absolute_url())
