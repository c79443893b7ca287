"""The pages of jobs and workers: what they say, who may press, and forms made from schemas."""

import csv
import io
import re
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from optimizer import timeline, transitions
from optimizer import views as optimizer_views
from optimizer.domain.jobs import FailureReason
from optimizer.forms import OptimizeForm
from optimizer.models import Job, JobEvent
from optimizer.techniques import TECHNIQUES, technique
from tests import factories
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


def text(response: Any) -> str:
    """What a reader sees, without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def form_address(version: Any, variant: int = 0) -> str:
    return f"/jobs/new/?model={version.model.name}&version={version.number}&variant={variant}"


def started(job: Job, *, seconds_ago: float) -> None:
    Job.objects.filter(pk=job.pk).update(started_at=timezone.now() - timedelta(seconds=seconds_ago))


def test_jobs_are_read_by_the_team_and_by_nobody_else(three, version_of):
    owner, viewer, stranger = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    for address in (f"/jobs/{job.pk}/", f"/jobs/{job.pk}/log.txt"):
        for reader in (owner, viewer):
            answer = reader.browser.get(address)
            assert answer.status_code == 200
            assert b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert stranger.browser.get(address).status_code == 404
        assert Client().get(address).status_code == 302
    assert f"Job {job.pk}" in text(viewer.browser.get("/jobs/"))
    assert f"Job {job.pk}" not in text(stranger.browser.get("/jobs/"))


def test_verbs_are_for_engineers_of_the_team(three, version_of):
    owner, viewer, stranger = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    for address in (f"/jobs/{job.pk}/cancel/", f"/jobs/{job.pk}/retry/", form_address(version)):
        assert viewer.browser.post(address, {"technique": "onnx-graph"}).status_code == 403
        assert stranger.browser.post(address, {"technique": "onnx-graph"}).status_code == 404
    assert viewer.browser.get(form_address(version)).status_code == 403
    page = viewer.browser.get(f"/jobs/{job.pk}/").content.decode()
    assert "Cancel the job" not in page
    assert owner.browser.get(f"/jobs/{job.pk}/cancel/").status_code == 405
    assert Job.objects.get().state == "queued"


def test_cancel_and_retry_by_button(three, version_of):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    answer = owner.browser.post(f"/jobs/{job.pk}/cancel/", follow=True)
    assert f"Job {job.pk} is cancelled." in text(answer)
    assert "Cancelled before it started." in text(answer)
    late = owner.browser.post(f"/jobs/{job.pk}/cancel/", follow=True)
    assert late.redirect_chain == [(f"/jobs/{job.pk}/", 302)], "whoever is too late sees how the job is now"
    assert f"Job {job.pk} has already cancelled. There is nothing to cancel." in text(late)
    again = owner.browser.post(f"/jobs/{job.pk}/retry/", follow=True)
    assert f"Retry of job {job.pk}" in text(again)
    retried = Job.objects.exclude(pk=job.pk).get()
    early = owner.browser.post(f"/jobs/{retried.pk}/retry/", follow=True)
    assert f"Job {retried.pk} is queued. Cancel it first, or wait." in text(early)
    assert f"Retried as job {retried.pk}" in text(owner.browser.get(f"/jobs/{job.pk}/"))


def test_cancelling_is_shown_as_a_state(three, version_of):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    answer = owner.browser.post(f"/jobs/{claim.job_id}/cancel/", follow=True)
    page = text(answer)
    assert page.startswith("Cancelling · Job")
    assert "is being cancelled" in page
    assert "Cancel the job" not in page


def test_steps_have_durations_and_the_current_one_its_progress(three, version_of):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    job = Job.objects.get(pk=claim.job_id)
    jobs.step(job, "Check the input", attempt=1, after_s=0)
    jobs.step(job, "Graph optimization", attempt=1, after_s=2.5, index=2)
    transitions.heartbeat(
        claim, step="Graph optimization", step_index=2, step_count=4, progress_done=3, progress_total=8
    )
    page = owner.browser.get(f"/jobs/{job.pk}/")
    said = text(page)
    assert "Step 2 of 4: Graph optimization" in said
    assert "Check the input 2.50 s" in said
    assert "3 of 8" in said
    assert said.index("Graph optimization") < said.index("Store the variant")
    assert 'aria-current="step"' in page.content.decode()
    assert "no estimate yet" in said


def test_an_earlier_attempt_has_an_address_and_what_it_left_unfinished_failed(three, version_of):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    job = Job.objects.get(pk=claim.job_id)
    jobs.step(job, "Check the input", attempt=1, after_s=0)
    transitions.fail(claim, reason=FailureReason.ERROR, message="It broke.")
    second = transitions.claim(job.pk, owner="w2@host")
    assert second is not None
    jobs.step(job, "Check the input", attempt=2, after_s=1)
    job.refresh_from_db()
    events = list(job.events.exclude(kind="log").order_by("id"))
    first = timeline.steps(job, attempt=1, events=events, now=timezone.now())
    assert [row.state for row in first] == ["failed", "pending", "pending", "pending"]
    assert timeline.steps(job, attempt=2, events=events, now=timezone.now())[0].state == "running"
    page = owner.browser.get(f"/jobs/{job.pk}/?attempt=1").content.decode()
    assert re.search(r'href="\?attempt=1#log-attempt-1"[^>]*aria-current', page)
    assert 'id="log-attempt-1"' in page
    for nonsense in ("0", "9", "x", "٣"):
        assert owner.browser.get(f"/jobs/{job.pk}/?attempt={nonsense}").status_code == 200


def test_the_estimate_is_a_range_of_past_runs_of_the_same_techniques(three, version_of, monkeypatch):
    owner, _, _ = three
    version = version_of(owner.actor)

    def past(took_s: float, technique: str = "onnx-graph") -> None:
        job = jobs.queued(owner.actor, version, recipe=[{"technique": technique}])
        ended = timezone.now()
        Job.objects.filter(pk=job.pk).update(
            state="succeeded", started_at=ended - timedelta(seconds=took_s), finished_at=ended
        )

    job = jobs.queued(owner.actor, version)
    past(20)
    past(900, technique="int8-dynamic")
    assert timeline.estimate(job, Job.objects.all()) is None, "one run is no range"
    past(40)
    found = timeline.estimate(job, Job.objects.all())
    assert found is not None
    assert (found.low_s, found.high_s, found.runs) == (20, 40, 2)
    assert found.left(10) == (10, 30)
    assert found.left(30) == (0, 10)
    assert found.left(50) is None
    assert "took 20.0 s to 40.0 s" in text(owner.browser.get(f"/jobs/{job.pk}/"))
    began = timezone.now()
    Job.objects.filter(pk=job.pk).update(state="running", attempt=1, started_at=began, finished_at=None)
    for after_s, said in (
        (25, "25 s · 0 s to 15 s left"),
        (50, "50 s · longer than the last 2 runs (20 s to 40 s)"),
    ):
        monkeypatch.setattr(
            optimizer_views, "database_now", partial(began.__add__, timedelta(seconds=after_s))
        )
        assert said in text(owner.browser.get(f"/jobs/{job.pk}/"))


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ([], "No worker for the queue “optimize.cpu” is online."),
        ([{"age_s": 200}], "w1@host was last heard 3 min ago."),
        ([{"draining": True}], "No worker for the queue “optimize.cpu” is online."),
        ([{"queues": ("rollouts",)}], "No worker for the queue “optimize.cpu” is online."),
        ([{}], "A worker is free and takes it in a moment."),
        ([{"busy": True}], "The worker of “optimize.cpu” is busy."),
        ([{"busy": True}, {"name": "w2@host", "busy": True}], "All 2 workers of “optimize.cpu” are busy."),
        ([{"busy": True}, {"name": "w2@host"}], "A worker is free and takes it in a moment."),
    ],
)
def test_why_a_job_waits_is_said_in_words(three, version_of, workers, said):
    owner, _, _ = three
    version = version_of(owner.actor)
    for given in workers:
        busy = Job.objects.get(pk=jobs.running(owner.actor, version).job_id) if "busy" in given else None
        jobs.worker(**{name: value for name, value in given.items() if name != "busy"}, current_job=busy)
    job = jobs.queued(owner.actor, version)
    assert said in text(owner.browser.get(f"/jobs/{job.pk}/"))


def test_a_waiting_job_knows_its_place_and_when_it_is_tried_again(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    jobs.worker()
    first, second = jobs.queued(owner.actor, version), jobs.queued(owner.actor, version)
    assert "It is the next one." in text(owner.browser.get(f"/jobs/{first.pk}/"))
    assert "1 job of this queue before it." in text(owner.browser.get(f"/jobs/{second.pk}/"))
    Job.objects.filter(pk=first.pk).update(run_after=timezone.now() + timedelta(seconds=90), attempt=2)
    assert "The next attempt starts in 1 min" in text(owner.browser.get(f"/jobs/{first.pk}/"))
    assert "It is the next one." in text(owner.browser.get(f"/jobs/{second.pk}/"))


def test_the_verdict_stands_on_top_and_the_report_below(three, version_of):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    Job.objects.filter(pk=job.pk).update(state="succeeded", attempt=1)
    made = jobs.result(job)
    page = text(owner.browser.get(f"/jobs/{job.pk}/"))
    assert page.index("Better 2.00x.") < page.index("Measured against the parent")
    assert "−50 % (−52 to −47 %)" in page
    assert f'href="{made.get_absolute_url()}"' in owner.browser.get(f"/jobs/{job.pk}/").content.decode()
    assert "Better" in text(owner.browser.get("/jobs/")).partition("Verdict")[2]


def compared_on(page: Any) -> str:
    return text(page).partition("Compared on ")[2].partition(" Parameters of")[0].partition(" Calibrated")[0]


def test_what_was_compared_is_the_reports_word_however_long_the_set_lives(three, version_of, dataset_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    held = dataset_of(version, name="held")
    job = jobs.queued(owner.actor, version, evaluation_set=held)
    failed = jobs.queued(owner.actor, version, evaluation_set=held)
    address = f"/jobs/{job.pk}/"
    assert compared_on(owner.browser.get(address)) == "held"
    Job.objects.update(state="succeeded", attempt=1)
    Job.objects.filter(pk=failed.pk).update(state="failed")
    jobs.result(job)
    assert compared_on(owner.browser.get(address)) == "held an evaluation set of 200 labelled items"
    held.delete()
    assert compared_on(owner.browser.get(address)) == "an evaluation set of 200 labelled items"
    assert "random inputs" not in text(owner.browser.get(f"/jobs/{failed.pk}/"))
    plain = jobs.queued(owner.actor, version)
    assert compared_on(owner.browser.get(f"/jobs/{plain.pk}/")) == "random inputs"


def test_a_failed_job_says_why(three, version_of):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    transitions.fail(claim, reason=FailureReason.TIMEOUT, message="The step took longer than 30 min.")
    page = text(owner.browser.get(f"/jobs/{claim.job_id}/"))
    assert page.startswith("Failed · Job")
    assert "Failed timeout" in page
    assert "The step took longer than 30 min." in page


def test_the_last_lines_are_in_the_page_and_all_of_them_in_the_download(three, version_of):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    JobEvent.objects.bulk_create(
        JobEvent(job=job, attempt=1, kind="log", message=f"line {number} <b>", at=job.created_at)
        for number in range(600)
    )
    page = owner.browser.get(f"/jobs/{job.pk}/").content.decode()
    assert "line 599 &lt;b&gt;" in page
    assert "line 50 " not in page
    old = JobEvent.objects.get(job=job, message="line 50 <b>")
    around = owner.browser.get(f"/jobs/{job.pk}/?line={old.pk}").content.decode()
    assert f'<li class="log-line" id="log-{old.pk}"' in around
    assert f'href="#log-{old.pk}"' in around
    assert "line 0 &lt;b&gt;" in around
    assert around.count('class="log-line"') == optimizer_views.LOG_LINES
    log = b"".join(owner.browser.get(f"/jobs/{job.pk}/log.txt").streaming_content).decode()
    assert len(log.splitlines()) == 601
    assert "line 0 <b>" in log


def test_the_form_shows_each_technique_with_what_the_literature_promises(three, version_of):
    owner, _, _ = three
    page = owner.browser.get(form_address(version_of(owner.actor)))
    said = text(page)
    assert "The literature: 3 to 6× as fast loses 0.5 to 2 points" in said
    assert "It needs items to calibrate with." in said, "refusals are said before anything is sent"
    html = page.content.decode()
    assert re.search(
        r'name="int8-static\.calibration_items"[^>]*value="128"[^>]*min="8"[^>]*max="1024"', html
    )
    assert re.search(r'<select name="onnx-graph\.level"', html)
    chosen = re.search(r'<input[^>]*name="technique"[^>]*value="([^"]+)"[^>]*checked', html)
    assert chosen
    assert TECHNIQUES.load(chosen[1]).toolchain is None, "every worker can do what is chosen at first"
    assert re.search(r'type="checkbox" name="int8-dynamic\.op_types" value="MatMul"[^>]*checked', html)


def test_a_technique_that_cannot_work_cannot_be_chosen(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    factories.variant(version)
    page = owner.browser.get(form_address(version, variant=1))
    assert "It takes fp32; this model is int8." in text(page)
    for key in ("int8-dynamic", "int8-static"):
        assert re.search(rf'value="{key}"[^>]*disabled', page.content.decode())
    refused = owner.browser.post(form_address(version, variant=1), {"technique": "int8-dynamic"})
    assert refused.status_code == 422
    assert not Job.objects.exists()


def test_a_job_started_by_form_is_the_job_that_the_api_would_start(three, version_of, dataset_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    dataset = dataset_of(version)
    sent = {
        "technique": "int8-static",
        "evaluation_set": dataset.pk,
        "int8-static.scope": "weights",
        "int8-static.calibration": "entropy",
        "int8-static.calibration_items": "64",
        "int8-static.percentile": "",
        "int8-static.reduce_range": "on",
        "int8-static.exclude_nodes": "first\n\n second \n",
        "int8-dynamic.op_types": [],
    }
    answer = owner.browser.post(form_address(version), sent)
    job = Job.objects.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/jobs/{job.pk}/")
    (step,) = job.recipe
    assert step["technique"] == "int8-static"
    assert step["params"] == {
        "tool": "onnxruntime",
        "scope": "weights",
        "calibration": "entropy",
        "calibration_items": 64,
        "percentile": 99.99,
        "per_channel": False,
        "reduce_range": True,
        "exclude_nodes": ["first", "second"],
        "repair_rounds": 4,
    }
    assert (job.evaluation_set, job.calibration_set) == (dataset, None)


def test_what_a_technique_refuses_stands_beside_the_field(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    empty = owner.browser.post(form_address(version), {"technique": "int8-dynamic"})
    assert empty.status_code == 422
    assert 'id="id_int8-dynamic.op_types_error"' in empty.content.decode()
    missing = owner.browser.post(form_address(version), {"technique": "int8-static"})
    assert missing.status_code == 422
    assert "It needs items to calibrate with." in text(missing)
    assert owner.browser.post(form_address(version), {}).status_code == 400
    assert not Job.objects.exists()


def test_a_form_offers_only_the_models_own_data(three, version_of, dataset_of):
    owner, _, stranger = three
    version = version_of(owner.actor)
    foreign = dataset_of(version_of(stranger.actor))
    sent = {"technique": "onnx-graph", "evaluation_set": foreign.pk}
    assert owner.browser.post(form_address(version), sent).status_code == 400
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "query",
    ["", "model=x", "model=x&version=1", "version=1", "model=x&version=9999999999999", "model=x&version=٣"],
)
def test_a_form_for_nothing_is_not_found(three, query):
    owner, _, _ = three
    assert owner.browser.get(f"/jobs/new/?{query}").status_code == 404


def test_the_list_is_filtered_by_address_and_empty_says_which_empty(three, version_of):
    owner, _, _ = three
    assert "No jobs yet" in text(owner.browser.get("/jobs/"))
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    assert f"Job {job.pk}" in text(owner.browser.get(f"/jobs/?state=active&model={version.model.name}"))
    assert f"Job {job.pk}" in text(owner.browser.get(f"/jobs/?model={version.model.name[1:3].upper()}"))
    assert "No job matches" in text(owner.browser.get("/jobs/?state=failed"))
    assert owner.browser.get("/jobs/?state=nonsense").status_code == 200
    assert text(owner.browser.get("/jobs/?part=total")) == "of 1"


def test_a_list_of_fifty_costs_as_many_queries_as_a_list_of_one(
    three, version_of, django_assert_max_num_queries
):
    owner, _, _ = three
    for _ in range(50):
        jobs.result(jobs.queued(owner.actor, version_of(owner.actor)))
    with django_assert_max_num_queries(7):
        owner.browser.get("/jobs/")


def test_the_export_has_the_filters_of_the_page_and_no_formula(three, version_of):
    owner, _, stranger = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    Job.objects.filter(pk=job.pk).update(message="=HYPERLINK(1)", state="failed", reason="error")
    jobs.queued(owner.actor, version)
    jobs.queued(stranger.actor, version_of(stranger.actor))
    answer = owner.browser.get("/jobs/?part=csv&state=failed")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode()))
    assert row["job"] == str(job.pk)
    assert row["state"] == "failed"
    assert row["message"] == "'=HYPERLINK(1)"
    assert row["created_at"].endswith("Z")
    everything = owner.browser.get("/jobs/?part=csv")
    assert len(b"".join(everything.streaming_content).decode().splitlines()) == 3
    queues = owner.browser.get("/workers/?part=queues")
    assert b"".join(queues.streaming_content).decode().splitlines()[1] == "optimize.cpu,0,2,0"


def test_workers_show_age_load_memory_and_only_the_own_teams_job(three, version_of):
    owner, _, stranger = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    jobs.worker(current_job=Job.objects.get(pk=claim.job_id))
    jobs.worker("w2@host", age_s=30)
    jobs.worker("w3@host", age_s=300, queues=("rollouts",))
    mine, theirs = owner.browser.get("/workers/"), stranger.browser.get("/workers/")
    assert f"Job {claim.job_id}" in text(mine)
    assert f"Job {claim.job_id}" not in text(theirs)
    assert "busy for another team" in text(theirs)
    for word in ("Busy", "Silent", "Offline", "Test CPU", "2.00 GiB of 8.00 GiB", "0.500"):
        assert word in text(mine), word
    html = mine.content.decode()
    assert html.count('class="silent"') == 2, "what is old is greyed"


def test_queues_show_what_waits_and_that_nobody_listens(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    jobs.queued(owner.actor, version)
    jobs.queued(owner.actor, version)
    jobs.running(owner.actor, version)
    page = text(owner.browser.get("/workers/"))
    assert "No worker has ever been here" in page
    assert "nobody listens 2 1" in page


def test_every_page_offers_its_verb_by_api_and_has_no_inline_script(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    for address in ("/jobs/", f"/jobs/{job.pk}/", form_address(version), "/workers/"):
        page = owner.browser.get(address).content.decode()
        assert "Bearer $SLIPWAY_TOKEN" in page, address
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|<style", page), address


@pytest.mark.parametrize(
    ("format", "label"), [("torch", "a PyTorch program"), ("transformers", "a Transformers folder")]
)
def test_what_must_be_exported_offers_the_export_and_says_why_not_the_others(
    format, label, three, version_of
):
    owner, _, _ = three
    version = version_of(owner.actor)
    version.format = format
    version.summary = {"precision": "fp32", "parameters": 3, "seconds": 0.1, "operators": []}
    version.save()
    version.variants.update(format=format)
    form = text(owner.browser.get(form_address(version)))
    assert f"It takes ONNX; this is {label}. Run the technique onnx-export" in form
    assert "It takes PyTorch program or" not in form
    page = owner.browser.get(version.get_absolute_url())
    assert page.status_code == 200
    assert "No stack serves this format." in text(page)
    assert "Deploy the original" not in text(page)
    assert "/deployments/new/" not in page.content.decode().split("<main")[1]


def test_the_form_begins_with_what_every_worker_can_run(three, version_of):
    owner, _, _ = three
    form = OptimizeForm(version_of(owner.actor).variants.get(number=0), [])
    assert technique(form.initial["technique"]).toolchain is None
    assert [card.technique.key for card in form.cards() if card.chosen] == [form.initial["technique"]]
