"""The ledger: the newest of each kind with its evidence, when that is stale, and building it again."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.accounts.models import AuditEvent
from optimizer import ledger
from optimizer.models import Job, Worker
from tests import factories
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db

OLD, NEW = {"onnxruntime": "1.31.0"}, {"onnxruntime": "1.32.0"}
CPU = "Test CPU"


ENGINE: dict[str, Any] = {
    **{"label": "TensorRT", "version": "1.7", "capabilities": ["8.9"], "flags": []},
    **{"workspace_mib": 1, "layers": 1, "size_bytes": 1, "build_s": 1.0},
    **{"profiles": [], "source_sha256": "", "log_tail": []},
}


def evidence(*, cpu: str = CPU, versions: dict[str, str] = NEW) -> dict[str, Any]:
    return jobs.REPORT | {"machine": {"cpu_model": cpu, "versions": versions}}


def made(job: Job, *, versions: dict[str, str] = NEW, cpu: str = CPU) -> Any:
    """What the job made, with these tools, on this processor."""
    variant = jobs.result(job, data=evidence(cpu=cpu, versions=versions))
    variant.provenance = {"steps": [{"technique": "onnx-graph", "versions": versions}]}
    variant.save()
    Job.objects.filter(pk=job.pk).update(state="succeeded", finished_at=timezone.now())
    return variant


def worker(versions: dict[str, str] = NEW, **more: Any) -> None:
    found = jobs.worker(**more)
    found.versions = versions
    found.save()


def test_evidence_is_stale_where_no_worker_has_what_made_or_measured_it():
    fleet = ledger.Fleet(versions={"onnxruntime": frozenset({"1.32.0"})}, processors=frozenset({CPU}))
    steps = {"steps": [{"versions": OLD | {"numpy": "1.0"}}]}
    assert ledger.stale(steps, evidence(versions=OLD, cpu="Older CPU"), fleet) == (
        "Made with onnxruntime 1.31.0; workers now have 1.32.0.",
        "Measured with onnxruntime 1.31.0; workers now have 1.32.0.",
        "Measured on Older CPU, which no worker has now.",
    )
    assert ledger.stale({"steps": [{"versions": NEW}]}, evidence(), fleet) == ()
    assert ledger.stale({}, {}, fleet) == ()


def test_an_engine_is_stale_where_the_gpu_it_was_built_or_timed_on_has_another_driver():
    """Not where another GPU has: an L4's driver says nothing of what an H100 shows."""
    l4, h100 = ({"name": name, "driver": "550.54.15"} for name in ("NVIDIA L4", "NVIDIA H100"))
    made_of = {"steps": [{"versions": NEW, "engine": ENGINE, "gpu": l4}]}
    timed = evidence()
    timed["method"] = timed["method"] | {"clocks_after": {"cpu_mhz": [], "cpu_source": "", "gpus": [h100]}}

    def fleet(**drivers: str) -> ledger.Fleet:
        rows = [
            Worker(hardware={"gpus": [{"name": f"NVIDIA {name}", "capability": "8.9"}], "driver": driver})
            for name, driver in drivers.items()
        ]
        return ledger.Fleet.of(rows)

    assert ledger.stale(made_of, timed, fleet(L4="550.54.15", H100="550.54.15")) == ()
    assert ledger.stale(made_of, timed, fleet(L4="570.10", H100="580.20")) == (
        "Built on NVIDIA L4 with driver 550.54.15; workers with that GPU now have 570.10.",
        "Measured on NVIDIA H100 with driver 550.54.15; workers with that GPU now have 580.20.",
    )
    assert ledger.stale(made_of, timed, fleet(A100="570.10")) == ()
    assert ledger.stale(made_of, timed, fleet(L4="", H100="")) == ()
    on_the_processor = {"steps": [{"versions": NEW}]}
    assert ledger.stale(on_the_processor, timed, fleet(H100="580.20")) == ()


def test_what_was_measured_on_a_gpu_is_stale_where_no_worker_has_it_whatever_the_processor():
    timed = evidence(cpu="Gone CPU")
    timed["machine"]["gpu"] = "NVIDIA L4"
    has, lacks = (
        ledger.Fleet.of([Worker(hardware={"cpu": CPU, "gpus": [{"name": name, "capability": "8.9"}]})])
        for name in ("NVIDIA L4", "NVIDIA L40S")
    )
    assert ledger.stale({}, timed, has) == ()
    assert ledger.stale({}, timed, lacks) == ("Measured on NVIDIA L4, which no worker has now.",)


def test_an_engine_of_tensorrt_itself_is_not_asked_to_run_on_every_gpu_of_the_fleet():
    """It builds for one, where that is."""
    fleet = ledger.Fleet.of([Worker(hardware={"gpus": [{"name": "NVIDIA L4", "capability": "8.9"}]})])
    own = {"steps": [{"engine": ENGINE | {"backend": "tensorrt", "capabilities": ["9.0"]}}]}
    assert ledger.stale(own, {}, fleet) == ()


def test_nothing_is_stale_while_nobody_was_heard(three, version_of):
    owner, *_ = three
    made(jobs.queued(owner.actor, version_of(owner.actor)), versions=OLD)
    worker(age_s=3600)
    (version,) = ledger.versions(owner.actor, Job.objects.get().version.model.name)
    line = ledger.line(version, ledger.fleet(now=timezone.now()))
    assert [cell.stale for cell in line.cells.values()] == [()]


def test_the_newest_of_a_kind_is_shown_and_the_others_counted(three, version_of):
    owner, viewer, _ = three
    version = version_of(owner.actor)
    first, second = (made(jobs.queued(owner.actor, version)) for _ in range(2))
    elsewhere = made(jobs.queued(owner.actor, version), cpu="Other CPU")
    address = f"/models/{version.model.name}/ledger/"
    page = viewer.browser.get(address).content.decode()
    assert f'href="{second.get_absolute_url()}"' in page
    assert f'href="{first.get_absolute_url()}"' not in page
    assert "1 earlier" in page
    assert "Rebuild" not in page
    answer = viewer.browser.get(f"/api/v1{address}").json()
    (line,) = answer["items"]
    assert {(cell["hardware"], cell["variant"], cell["earlier"]) for cell in line["cells"]} == {
        (CPU, second.number, 1),
        ("Other CPU", elsewhere.number, 0),
    }


def test_the_ledger_is_a_file_too(three, version_of):
    owner, *_ = three
    version = version_of(owner.actor)
    variant = made(jobs.queued(owner.actor, version), versions=OLD)
    report = variant.reports.get()
    report.data["timings"].append(report.data["timings"][0] | {"batch_size": 32})
    report.data["machine"] = jobs.REPORT["machine"] | report.data["machine"]
    report.save()
    worker()
    page = owner.browser.get(f"/models/{version.model.name}/ledger/").content.decode()
    assert all(f"2.00× at batch {size}" in page for size in (1, 8, 32))
    rows = owner.browser.get(variant.get_absolute_url()).content.decode()
    assert "Speed-up, batch 32" in rows
    answer = owner.browser.get(f"/models/{version.model.name}/ledger/?part=csv")
    (row,) = csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode()))
    assert (row["version"], row["technique"], row["hardware"], row["verdict"]) == (
        "1",
        "onnx-graph",
        CPU,
        "better",
    )
    assert (row["speedup_batch_8"], row["speedup_batch_32"]) == ("2.0", "2.0")
    assert row["stale"].startswith("Made with onnxruntime 1.31.0")


def test_an_empty_ledger_leads_to_the_first_job(three, version_of):
    owner, _, stranger = three
    version = version_of(owner.actor)
    address = f"/models/{version.model.name}/ledger/"
    page = owner.browser.get(address).content.decode()
    assert f"{version.get_absolute_url()}#optimize" in page
    assert stranger.browser.get(address).status_code == 404
    assert Client().get(address).status_code == 302


def test_one_action_queues_what_is_stale_once(three, version_of):
    owner, viewer, _ = three
    version = version_of(owner.actor)
    stale = jobs.queued(owner.actor, version)
    made(stale, versions=OLD)
    fresh = jobs.queued(owner.actor, version, recipe=[{"technique": "int8-dynamic"}])
    kept = made(fresh)
    kept.technique = "int8-dynamic"
    kept.save()
    worker()
    address = f"/models/{version.model.name}/ledger/rebuild/"
    assert viewer.browser.post(address).status_code == 403
    for _ in range(2):
        answer = owner.browser.post(address, follow=True)
        assert "Queued: job" in answer.content.decode()
    (again,) = Job.objects.filter(state="queued")
    assert again.retry_of == stale
    assert AuditEvent.objects.filter(verb="queued", object_id=again.pk).exists()
    answer = owner.browser.post(f"/api/v1{address}").json()
    assert [job["id"] for job in answer["jobs"]] == [again.pk]


def test_what_cannot_be_built_again_is_named(three, version_of, dataset_of):
    owner, *_ = three
    version = version_of(owner.actor)
    held = dataset_of(version)
    job = jobs.queued(owner.actor, version, evaluation_set=held)
    variant = made(job, versions=OLD)
    held.delete()
    worker()
    answer = owner.browser.post(f"/api/v1/models/{version.model.name}/ledger/rebuild/").json()
    assert answer == {
        "jobs": [],
        "refused": [f"{variant}: A data set that job {job.pk} used was deleted."],
    }


def test_an_engine_is_built_again_for_every_gpu_type_of_the_fleet(three, version_of):
    owner, *_ = three
    version = version_of(owner.actor)
    asked = [{"technique": "tensorrt", "params": {"capabilities": ["8.9"]}}]
    job = jobs.queued(owner.actor, version, recipe=asked)
    engine = made(job)
    engine.provenance = {"steps": [{"technique": "tensorrt", "versions": NEW, "engine": ENGINE}]}
    engine.save()
    worker()
    address = f"/api/v1/models/{version.model.name}/ledger/"
    assert owner.browser.get(address).json()["items"][0]["cells"][0]["stale"] == []
    gpus = [{"name": f"GPU {capability}", "capability": capability} for capability in ("12.0", "9.0", "8.9")]
    Worker.objects.update(hardware={"cpu": CPU, "gpus": gpus})
    assert owner.browser.get(address).json()["items"][0]["cells"][0]["stale"] == [
        "Built for compute capability 8.9; the fleet also has 12.0."
    ]
    for _ in range(2):
        (queued,) = owner.browser.post(f"{address}rebuild/").json()["jobs"]
        assert queued["recipe"][0]["params"]["capabilities"] == ["8.9", "12.0"]
    assert Job.objects.filter(state="queued").count() == 1


def test_where_nothing_is_stale_nothing_is_queued(three):
    owner, *_ = three
    model = factories.model(owner.actor.team)
    address = f"/models/{model.name}/ledger/rebuild/"
    assert owner.browser.post(f"/api/v1{address}").json() == {"jobs": [], "refused": []}
    assert "Nothing is stale" in owner.browser.post(address, follow=True).content.decode()
    assert not Job.objects.exists()


def test_a_page_of_the_ledger_costs_the_same_for_one_version_and_for_many(
    three, version_of, django_assert_max_num_queries
):
    owner, *_ = three
    version = version_of(owner.actor)
    for number in range(4):
        another = version if not number else factories.version(version.model)
        another.summary = version.summary
        another.save()
        made(jobs.queued(owner.actor, another))
    now = timezone.now() + timedelta(seconds=1)
    with django_assert_max_num_queries(4):
        rows = list(ledger.versions(owner.actor, version.model.name))
        lines = [ledger.line(row, ledger.fleet(now=now)) for row in rows[:1]]
        assert lines[0].cells
        assert all(ledger.line(row, ledger.Fleet(versions={}, processors=frozenset())).cells for row in rows)
