"""Searches: what is planned, that one job follows another, when it ends, and who may."""

import re
from copy import deepcopy
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict, Forbidden, Unprocessable
from controlplane.registry import services as registry
from controlplane.registry.models import Variant
from optimizer import searches, shortlist, transitions
from optimizer.domain.jobs import FailureReason
from optimizer.models import Job, Search
from optimizer.queues import served
from tests import factories
from tests.controlplane.registry.people import code
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


def text(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def started(person: Any, version: Any, **more: Any) -> Search:
    search, _ = searches.start(person.actor, version.variants.get(number=0), **more)
    return search


def report(speedup: float, *, loss: float = 0.0) -> dict[str, Any]:
    data = deepcopy(jobs.REPORT)
    for timing in data["timings"]:
        timing["speedup"] |= {"value": speedup, "low": speedup - 0.05, "high": speedup + 0.05}
    data["accuracy"]["loss"] |= {"value": loss, "low": loss, "high": loss + 0.005}
    return data


def measured(search: Search, speedup: float, *, size: int = 1_000, loss: float = 0.0) -> Job:
    """The search's next job is queued, run and measured."""
    assert searches.advance(search.pk)
    job = search.jobs.get(state="queued")
    claim = transitions.claim(job.pk, owner="w1@host")
    assert claim is not None
    made = jobs.result(job, data=report(speedup, loss=loss))
    made.artifact = factories.artifact(size)
    made.save()
    transitions.succeed(claim, message="Better.")
    return job


def words(search: Search) -> list[tuple[str, str]]:
    return [(row.words, row.state) for row in shortlist.rows(Search.objects.get(pk=search.pk))]


def test_what_cannot_run_is_left_out_with_the_reason(three, version_of):
    owner, _, _ = three
    search = started(owner, version_of(owner.actor))
    assert [row.words for row in shortlist.rows(search)] == [
        "int8-dynamic", "fp16", "onnx-graph", "onnx-graph (onnxslim)",
        "onnx-graph + int8-dynamic", "onnx-graph (onnxslim) + int8-dynamic",
        "onnx-graph + fp16", "onnx-graph (onnxslim) + fp16",
    ]  # fmt: skip
    reasons = {row["recipe"]: row["reason"] for row in search.left_out}
    assert "It needs items to calibrate with." in reasons["int8-static"]
    jobs.worker()
    planned, left_out = searches._planned(search.parent, gpu="", has_data=True)
    assert "int8-static" in map(shortlist.in_words, planned)
    assert {
        "recipe": "int8-static (nncf)",
        "reason": "No worker listens to optimize.cpu.openvino.",
    } in left_out


def test_one_job_follows_another_and_what_was_measured_worse_is_not_combined(three, version_of):
    owner, _, _ = three
    search = started(owner, version_of(owner.actor))
    first = measured(search, 2.0, loss=0.02)
    assert (first.search_index, first.recipe[0]["technique"]) == (0, "int8-dynamic")
    measured(search, 0.8, size=1_000)  # fp16: slower than the parent, and no smaller
    measured(search, 1.1)
    searches.advance(search.pk)
    assert not searches.advance(search.pk), "while its job is active there is nothing to do"
    assert search.jobs.count() == 4
    slow = search.jobs.get(state="queued")
    claim = transitions.claim(slow.pk, owner="w1@host")
    transitions.fail(claim, reason=FailureReason.REFUSED, message="It cannot be slimmed.")
    measured(search, 2.5, loss=0.02)
    assert searches.advance(search.pk)
    search.refresh_from_db()
    assert (search.state, search.message) == (
        "succeeded",
        "Everything worth trying was measured: 5 of 8 recipes, 3 ruled out by what their parts showed.",
    )
    assert words(search) == [
        ("int8-dynamic", "succeeded"),
        ("fp16", "succeeded"),
        ("onnx-graph", "succeeded"),
        ("onnx-graph (onnxslim)", "failed"),
        ("onnx-graph + int8-dynamic", "succeeded"),
        ("onnx-graph (onnxslim) + int8-dynamic", "skipped"),
        ("onnx-graph + fp16", "skipped"),
        ("onnx-graph (onnxslim) + fp16", "skipped"),
    ]
    best = [row.words for row in shortlist.rows(search) if row.on_front]
    assert best == ["onnx-graph", "onnx-graph + int8-dynamic"]
    assert not searches.advance(search.pk), "it is over"


def test_a_step_that_was_cut_off_after_its_job_was_queued_is_repeated_harmlessly(
    three, version_of, monkeypatch
):
    owner, _, _ = three
    search = started(owner, version_of(owner.actor))

    def cut_off(_search: Search) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(searches, "announce", cut_off)
        with pytest.raises(RuntimeError):
            searches.advance(search.pk)
    assert not search.jobs.exists(), "all of the step or nothing"
    assert searches.advance_all() == 1
    assert searches.advance_all() == 0
    assert search.jobs.count() == 1


def test_it_ends_by_its_budget(three, version_of):
    owner, _, _ = three
    few = started(owner, version_of(owner.actor), max_jobs=1)
    measured(few, 2.0)
    late = started(owner, version_of(owner.actor), max_minutes=5)
    Search.objects.filter(pk=late.pk).update(created_at=timezone.now() - timedelta(minutes=6))
    searches.advance_all()
    assert [Search.objects.get(pk=row.pk).message for row in (few, late)] == [
        "The budget of 1 job is used up; 7 recipes were left.",
        "The budget of 5 minutes is used up; 8 recipes were left.",
    ]


def test_a_job_that_nobody_began_in_time_is_cancelled_and_a_running_one_is_measured_to_its_end(
    three, version_of
):
    owner, _, _ = three
    searches_ = [started(owner, version_of(owner.actor), max_minutes=5) for _ in range(2)]
    searches.advance_all()
    waiting, running = (search.jobs.get() for search in searches_)
    transitions.claim(running.pk, owner="w1@host")
    Search.objects.update(created_at=timezone.now() - timedelta(minutes=6))
    for _ in range(3):
        searches.advance_all()
    assert [Job.objects.get(pk=job.pk).state for job in (waiting, running)] == ["cancelled", "running"]
    assert [Search.objects.get(pk=row.pk).state for row in searches_] == ["failed", "running"]


def test_where_every_job_failed_the_search_has_failed(three, version_of):
    owner, _, _ = three
    search = started(owner, version_of(owner.actor), max_jobs=1)
    searches.advance(search.pk)
    claim = transitions.claim(search.jobs.get().pk, owner="w1@host")
    transitions.fail(claim, reason=FailureReason.REFUSED, message="No.")
    searches.advance(search.pk)
    search.refresh_from_db()
    assert search.state == "failed"
    assert search.message.endswith("None of them could be measured.")


def test_what_is_quarantined_meanwhile_ends_the_search_with_the_reason(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    search = started(owner, version)
    registry.quarantine(version, reason="It crashed its worker.")
    assert searches.advance(search.pk)
    search.refresh_from_db()
    assert (search.state, search.jobs.count()) == ("failed", 0)
    assert "It crashed its worker." in search.message


def test_cancelling_ends_the_search_and_its_job_and_nothing_follows(three, version_of):
    owner, _, _ = three
    search = started(owner, version_of(owner.actor))
    searches.advance(search.pk)
    assert searches.cancel(owner.actor, search) == "cancelled"
    assert search.jobs.get().state == "cancelled"
    assert not searches.advance(search.pk)
    with pytest.raises(Conflict) as error:
        searches.cancel(owner.actor, search)
    assert error.value.code == "search_is_over"
    verbs = AuditEvent.objects.filter(object_type="search").values_list("verb", flat=True)
    assert sorted(verbs) == ["cancelled", "started"]


def test_the_same_request_is_the_same_search_while_it_runs(three, version_of):
    owner, viewer, _ = three
    version = version_of(owner.actor)
    parent = version.variants.get(number=0)
    first, again = (searches.start(owner.actor, parent) for _ in range(2))
    assert (first[1], again[1], first[0].pk) == (True, False, again[0].pk)
    searches.cancel(owner.actor, first[0])
    assert searches.start(owner.actor, parent, idempotency_key="k")[1]
    assert not searches.start(owner.actor, parent, idempotency_key="k")[1]
    with pytest.raises(Conflict):
        searches.start(owner.actor, parent, idempotency_key="k", max_jobs=2)
    with pytest.raises(Forbidden):
        searches.start(viewer.actor, parent)
    with pytest.raises(Unprocessable):
        searches.start(owner.actor, parent, idempotency_key="a\nb")


def test_what_is_not_onnx_is_exported_first_in_every_recipe(three, version_of, dataset_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    version.variants.update(format="transformers")
    search = started(owner, version)
    assert [row.words for row in shortlist.rows(search)][:3] == [
        "onnx-export", "onnx-export + int8-dynamic", "onnx-export + fp16",
    ]  # fmt: skip
    assert "onnx-export + openvino" in [row["recipe"] for row in search.left_out], (
        "it needs a set to calibrate with"
    )
    again = started(owner, version, evaluation_set=dataset_of(version))
    assert "onnx-export + openvino" in [row.words for row in shortlist.rows(again)]
    measured(search, 0.9)
    searches.advance(search.pk)
    assert words(search)[:2] == [("onnx-export", "succeeded"), ("onnx-export + int8-dynamic", "queued")]


def on_the_fleet(capability: str, *toolchains: str) -> None:
    worker = jobs.worker(queues=tuple(served(toolchains=toolchains, gpu=capability)))
    worker.hardware["gpus"] = [{"name": "NVIDIA L4", "capability": capability}]
    worker.save()


def test_on_a_gpu_every_recipe_ends_in_an_engine_for_it_and_is_measured_there(three, version_of, dataset_of):
    owner, _, _ = three
    on_the_fleet("8.9", "cuda", "openvino", "tensorrt")
    version = version_of(owner.actor)
    held = dataset_of(version)
    search = started(owner, version, gpu="8.9", evaluation_set=held)
    assert [row for row, _ in words(search)] == [
        "tensorrt",
        "fp16 + tensorrt",
        "int8-static (nncf) + tensorrt",
    ]
    for speedup, queue in ((1.5, "cuda.tensorrt"), (3.0, "cuda.tensorrt"), (4.0, "cuda.openvino.tensorrt")):
        job = measured(search, speedup)
        assert job.queue == f"optimize.gpu.sm_89.{queue}"
        assert job.recipe[-1]["params"]["capabilities"] == ["8.9"]
    assert not [row for row in words(search) if row[1] == "skipped"], (
        "the engine that all share rules out none"
    )
    assert started(owner, version, gpu="8.9", evaluation_set=held).pk == search.pk
    assert started(owner, version, evaluation_set=held).pk != search.pk
    page = text(owner.browser.get(search.get_absolute_url()))
    assert "Measured on a GPU of compute capability 8.9" in page


def test_a_gpu_of_a_data_centre_gets_engines_of_tensorrt_itself(three, version_of):
    owner, _, _ = three
    on_the_fleet("9.0", "cuda", "openvino", "tensorrt")
    search = started(owner, version_of(owner.actor), gpu="9.0")
    assert {recipe[-1]["params"]["builder"] for recipe in search.plan} == {"tensorrt"}


def test_a_search_on_a_gpu_says_what_it_cannot_measure_there(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    for gpu in ("any", "1.0", "x"):
        with pytest.raises(Unprocessable) as refused:
            started(owner, version, gpu=gpu)
        assert refused.value.code == "invalid_gpu"
    on_the_fleet("8.9", "tensorrt")
    with pytest.raises(Unprocessable, match=r"No worker listens to optimize\.gpu\.sm_89\.cuda\.tensorrt"):
        started(owner, version, gpu="8.9")
    Variant.objects.update(format="torch")
    with pytest.raises(Unprocessable, match="Nothing here runs a PyTorch program on a GPU"):
        started(owner, version, gpu="8.9")


def test_the_form_and_the_api_take_a_gpu_of_the_fleet(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    named = {"model": version.model.name, "version": 1, "variant": 0}
    address = f"/searches/new/?{urlencode(named)}"
    assert "Measure on" not in owner.browser.get(address).content.decode()
    on_the_fleet("8.9", "cuda", "tensorrt")
    assert "A GPU of compute capability 8.9 (NVIDIA L4)" in owner.browser.get(address).content.decode()
    owner.browser.post(address, {"gpu": "8.9", "max_jobs": 3, "max_minutes": 10})
    assert Search.objects.get().gpu == "8.9"
    answer = owner.api("POST", "searches/", named | {"gpu": "8.9", "max_jobs": 2})
    assert (answer.status_code, answer.json()["gpu"]) == (202, "8.9")
    assert code(owner.api("POST", "searches/", named | {"gpu": "any"})) == (422, "invalid_gpu")


def test_the_same_reason_is_said_once(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    version.variants.update(format="transformers")
    jobs.worker()
    with pytest.raises(Unprocessable) as error:
        searches.start(owner.actor, version.variants.get())
    assert error.value.detail.count("No worker listens to optimize.cpu.torch.") == 1


def test_a_variant_on_which_nothing_can_be_tried_is_refused_with_the_reasons(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    made = factories.variant(version)
    made.format = "engine"
    made.save()
    with pytest.raises(Unprocessable) as error:
        searches.start(owner.actor, made)
    assert error.value.code == "nothing_to_try"
    assert "It takes ONNX; this is an ENGINE model." in error.value.detail


def test_the_api_shows_every_recipe_and_the_front(three, version_of):
    owner, viewer, stranger = three
    version = version_of(owner.actor)
    body = {"model": version.model.name, "version": version.number, "max_jobs": 3}
    made = owner.api("POST", "searches/", body)
    assert (made.status_code, made.json()["state"], made.json()["created"]) == (202, "running", True)
    assert code(viewer.api("POST", "searches/", body)) == (403, "role_too_low")
    assert code(stranger.api("POST", "searches/", body)) == (404, "not_found")
    search = Search.objects.get()
    job = measured(search, 2.0)
    address = f"searches/{search.pk}/"
    assert code(stranger.api("GET", address)) == (404, "not_found")
    first, second, *_ = viewer.api("GET", address).json()["plan"]
    assert (first["job"], first["state"], second["state"]) == (job.pk, "succeeded", "pending")
    assert [(point["batch_size"], point["on_front"]) for point in first["points"]] == [(1, True), (8, True)]
    assert first["points"][0]["speedup"] == {"value": 2.0, "low": 1.95, "high": 2.05}
    assert viewer.api("GET", f"jobs/{job.pk}/").json()["search"] == search.pk
    assert code(viewer.api("POST", f"{address}cancel/")) == (403, "role_too_low")
    assert owner.api("POST", f"{address}cancel/").json() == {"id": search.pk, "state": "cancelled"}


def test_the_page_grows_while_jobs_end(three, version_of):
    owner, viewer, stranger = three
    version = version_of(owner.actor)
    assert "No search yet" in text(owner.browser.get("/searches/"))
    new = f"/searches/new/?model={version.model.name}&version={version.number}"
    version.summary |= {"parameters": 1_000, "seconds": 0.1}
    version.save()
    assert new in owner.browser.get(version.get_absolute_url()).content.decode().replace("&amp;", "&")
    assert viewer.browser.get(new).status_code == 403
    refused = owner.browser.post(new, {"max_jobs": 0, "max_minutes": 60})
    assert refused.status_code == 400
    page = owner.browser.post(new, {"max_jobs": 2, "max_minutes": 60}, follow=True)
    assert "Nothing measured yet" in text(page)
    search = Search.objects.get()
    measured(search, 2.0)
    searches.advance(search.pk)
    address = search.get_absolute_url()
    said = text(viewer.browser.get(address))
    assert "1 of 8 recipes measured. Now: job" in said
    assert "int8-dynamic 1 2.00 × 1.95 to 2.05" in said
    assert "Cancel the search" not in said
    assert f"Queued by search {search.pk}" in text(owner.browser.get(search.jobs.first().get_absolute_url()))
    assert stranger.browser.get(address).status_code == 404
    cancelled = text(owner.browser.post(f"{address}cancel/", follow=True))
    assert f"Search {search.pk} is cancelled. What it measured stays." in cancelled
    assert "The search ended before." in cancelled
    late = text(owner.browser.post(f"{address}cancel/", follow=True))
    assert f"Search {search.pk} has already cancelled." in late
    assert f"Search {search.pk}" in text(viewer.browser.get("/searches/"))
    rows = b"".join(viewer.browser.get("/searches/?part=csv").streaming_content).decode()
    assert "cancelled" in rows.splitlines()[1]


def test_what_a_search_needs_is_not_deleted_under_it(three, version_of, dataset_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    held = dataset_of(version)
    search = started(owner, version, evaluation_set=held)
    answer = owner.api("DELETE", f"models/{version.model.name}/datasets/{held.name}/")
    assert answer.status_code == 409
    assert f"search {search.pk} is running" in answer.json()["detail"]
