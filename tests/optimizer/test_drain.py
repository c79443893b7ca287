"""Draining by an admin: by page and by API, kept apart from a stop, until somebody resumes."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.accounts.models import AuditEvent, Role
from controlplane.core.errors import Conflict
from optimizer import dispatch, fleet, services
from optimizer.models import Job, Worker
from optimizer.worker import announce
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import Person, code
from tests.optimizer import jobs
from tests.optimizer.test_pages import text

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(db: None) -> Person:
    return people.person(factories.member(factories.team(), role=Role.ADMIN))


def test_draining_and_resuming_twice_is_once_and_is_audited(admin) -> None:
    worker = jobs.worker()
    assert [services.drain_worker(admin.actor, worker) for _ in range(2)] == [True, False]
    assert [services.resume_worker(admin.actor, worker) for _ in range(2)] == [True, False]
    assert list(AuditEvent.objects.order_by("id").values_list("verb", "object_name")) == [
        ("drained", worker.name),
        ("resumed", worker.name),
    ]


def test_it_is_for_admins(three) -> None:
    engineer, viewer, stranger = three
    worker = jobs.worker()
    for verb in ("drain", "resume"):
        for person in (engineer, viewer):
            assert person.browser.post(f"/workers/{worker.pk}/{verb}/").status_code == 403
            assert code(person.api("POST", f"workers/{worker.pk}/{verb}/")) == (403, "role_too_low")
        assert stranger.browser.get(f"/workers/{worker.pk}/{verb}/").status_code == 405
        assert stranger.browser.post(f"/workers/999999/{verb}/").status_code == 404
    assert Worker.objects.get().drain_since is None
    assert "Drain w1@host" not in engineer.browser.get("/workers/").content.decode()
    assert "Drain w1@host" in stranger.browser.get("/workers/").content.decode(), "workers are everybody's"


def test_by_button(admin) -> None:
    worker = jobs.worker()
    assert 'aria-label="Drain w1@host"' in admin.browser.get("/workers/").content.decode()
    page = text(admin.browser.post(f"/workers/{worker.pk}/drain/", follow=True))
    assert "w1@host takes no new job." in page
    assert "Drained drained" in page
    page = text(admin.browser.post(f"/workers/{worker.pk}/resume/", follow=True))
    assert "w1@host takes jobs again within seconds." in page
    assert "Idle" in page


def test_by_api(admin) -> None:
    worker = jobs.worker()
    drained = admin.api("POST", f"workers/{worker.pk}/drain/").json()
    assert (drained["state"], drained["draining"]) == ("drained", False)
    assert drained["drain_since"]
    (listed,) = admin.api("GET", "workers/").json()["items"]
    assert (listed["id"], listed["state"]) == (worker.pk, "drained")
    resumed = admin.api("POST", f"workers/{worker.pk}/resume/").json()
    assert (resumed["state"], resumed["drain_since"]) == ("idle", None)


def test_what_runs_no_jobs_is_not_drained(admin) -> None:
    worker = jobs.worker(queues=("rollouts",))
    with pytest.raises(Conflict, match="runs no jobs"):
        services.drain_worker(admin.actor, worker)
    assert code(admin.api("POST", f"workers/{worker.pk}/drain/")) == (409, "not_drainable")
    page = admin.browser.post(f"/workers/{worker.pk}/drain/", follow=True)
    assert "w1@host runs no jobs." in text(page)
    assert "Drain w1@host" not in page.content.decode()


@pytest.mark.parametrize(
    ("more", "busy", "state"),
    [
        ({}, False, "idle"),
        ({}, True, "busy"),
        ({"drain_since": timezone.now()}, True, "draining"),
        ({"drain_since": timezone.now()}, False, "drained"),
        ({"draining": True}, True, "stopping"),
        ({"drain_since": timezone.now(), "draining": True}, False, "stopping"),
        ({"drain_since": timezone.now(), "age_s": 20}, True, "silent"),
        ({"age_s": 90}, True, "offline"),
    ],
)
def test_states(admin, version_of, more: dict[str, Any], busy: bool, state: str) -> None:
    job = Job.objects.get(pk=jobs.running(admin.actor, version_of(admin.actor)).job_id) if busy else None
    worker = jobs.worker(current_job=job, **more)
    assert fleet.worker_state(worker, now=timezone.now()) == state


def test_a_drained_worker_stays_so_when_it_starts_anew_or_is_long_gone(admin) -> None:
    worker = jobs.worker()
    services.drain_worker(admin.actor, worker)
    assert announce.announce(worker.name, queues=["optimize.cpu"], slots=1, tell=False) is False
    assert announce.drained(worker.name)
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(days=3))
    assert dispatch.forget_workers() == 0
    services.resume_worker(admin.actor, worker)
    assert dispatch.forget_workers() == 1
    assert announce.announce(worker.name, queues=["optimize.cpu"], slots=1, tell=False) is True


def test_gpus_toolchains_and_the_step_are_on_the_page(admin, version_of) -> None:
    claim = jobs.running(admin.actor, version_of(admin.actor))
    Job.objects.filter(pk=claim.job_id).update(step="Graph optimization", step_index=2, step_count=4)
    worker = jobs.worker(
        queues=("optimize.cpu", "optimize.gpu", "optimize.gpu.sm_89", "optimize.cpu.torch"),
        current_job=Job.objects.get(pk=claim.job_id),
    )
    gpu = {"uuid": "GPU-1", "name": "NVIDIA L4", "capability": "8.9", "memory_bytes": 24 * 1024**3}
    worker.hardware |= {
        "gpus": [gpu | {"mig": None}, gpu | {"uuid": "GPU-2", "capability": None, "mig": ["1g.6gb"]}],
        "driver": "550.54.15",
        "toolchains": {"torch": {"torch": "2.9.1", "onnxscript": "0.5.6"}},
    }
    worker.load["gpus"] = [{"uuid": "GPU-1", "memory_used_bytes": 1024**3, "utilization_percent": 37}]
    worker.save()
    page = text(admin.browser.get("/workers/"))
    for said in (
        "NVIDIA L4, compute capability 8.9",
        "1.00 GiB of 24.0 GiB · 37 % in use · jobs run on this one · driver 550.54.15",
        "MIG 1g.6gb",
        "PyTorch: torch 2.9.1, onnxscript 0.5.6",
        "also with PyTorch",
        "step 2 of 4: Graph optimization",
    ):
        assert said in page, said
    assert "no GPU" not in page
    assert "optimize.cpu.torch" not in page, "the many names are told shorter"
    form = admin.browser.get(f"/jobs/new/?model={version_of(admin.actor).model.name}&version=1&variant=0")
    assert "A GPU of compute capability 8.9 (NVIDIA L4)" in form.content.decode()


def test_a_machine_without_a_gpu_says_so_and_a_broken_driver_says_what_it_said(admin) -> None:
    worker = jobs.worker()
    assert "no GPU" in text(admin.browser.get("/workers/"))
    worker.hardware["gpu_problem"] = "NVIDIA-SMI has failed."
    worker.save()
    assert "no GPU: NVIDIA-SMI has failed." in text(admin.browser.get("/workers/"))


def test_priority_and_gpu_by_form_and_by_api(admin, version_of) -> None:
    worker = jobs.worker()
    worker.hardware["gpus"] = [
        {"uuid": "GPU-1", "name": "NVIDIA L4", "capability": "8.9", "memory_bytes": None, "mig": None}
    ]
    worker.save()
    version = version_of(admin.actor)
    address = f"/jobs/new/?model={version.model.name}&version=1&variant=0"
    sent = {"technique": "onnx-graph", "priority": "1", "gpu": "8.9"}
    assert admin.browser.post(address, sent).status_code == 302
    job = Job.objects.get()
    assert (job.priority, job.queue) == (Job.Priority.LOW, "optimize.gpu.sm_89.cuda")
    assert "Low" in text(admin.browser.get(f"/jobs/{job.pk}/"))
    body = {"model": version.model.name, "version": 1, "recipe": [{"technique": "onnx-graph"}]}
    made = admin.api("POST", "jobs/", body | {"priority": "high", "gpu": "any"}).json()
    assert (made["priority"], made["queue"]) == ("high", "optimize.gpu.cuda")
    assert (
        "No worker with a GPU and CUDA is online."
        in admin.api("GET", f"jobs/{made['id']}/").json()["waiting"]
    )
    assert admin.api("POST", "jobs/", body).json()["priority"] == "normal"
    assert code(admin.api("POST", "jobs/", body | {"gpu": "fast"})) == (422, "invalid_gpu")
    assert admin.api("POST", "jobs/", body | {"priority": "urgent"}).status_code == 400
