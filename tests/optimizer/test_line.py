"""The line of waiting jobs as the dispatcher sends from it: how many, whose, in which order; what the page tells."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db.models import F
from django.utils import timezone

from controlplane.core.errors import Unprocessable
from optimizer import dispatch, line, services, techniques, transitions, waiting
from optimizer.models import Job
from optimizer.queues import Needs, served
from optimizer.techniques.port import Device
from tests.controlplane.registry import people
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db
LOW, NORMAL, HIGH = Job.Priority.LOW, Job.Priority.NORMAL, Job.Priority.HIGH


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Publishes, and tells the jobs whose messages went to the broker, in order."""
    messages: list[int] = []
    monkeypatch.setattr(
        "optimizer.dispatch.current_app.send_task", lambda _name, *, args, **_: messages.append(args[0])
    )

    def publish() -> list[int]:
        messages.clear()
        dispatch.publish_jobs()
        return list(messages)

    return publish


def limited(settings: Any, most: int) -> None:
    settings.ENVIRONMENT = replace(django_settings.ENVIRONMENT, max_running_jobs=most)


def said(job: Job) -> str:
    job.refresh_from_db()
    found = waiting.why(job, now=timezone.now())
    assert found is not None
    return f"{found.title} {found.detail}"


def test_a_job_goes_out_at_once_where_a_worker_is_free(three, version_of, sent) -> None:
    owner, _, _ = three
    jobs.worker()
    job = jobs.queued(owner.actor, version_of(owner.actor))
    assert sent() == [job.pk]
    assert sent() == [], "it is stamped"


def test_a_message_is_sent_again_only_when_the_broker_has_lost_it(three, version_of, monkeypatch) -> None:
    """On the real broker: a busy worker leaves it there, and then it is not lost."""
    from controlplane.celery import app

    monkeypatch.setattr(dispatch, "current_app", app)
    owner, _, _ = three
    jobs.worker()
    job = jobs.queued(owner.actor, version_of(owner.actor))
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_purge(job.queue)
        dispatch.publish_jobs()
        Job.objects.update(published_at=F("published_at") - dispatch.REPUBLISH_LOST_AFTER)
        assert dispatch.republish_lost_jobs() == 0
        channel.queue_purge(job.queue)
    assert dispatch.republish_lost_jobs() == 1


def test_only_as_many_go_out_as_workers_can_take_soon(three, version_of, sent) -> None:
    owner, _, _ = three
    version = version_of(owner.actor)
    jobs.worker()
    jobs.worker("drained@host", drain_since=timezone.now())
    jobs.worker("stopping@host", draining=True)
    jobs.worker("silent@host", age_s=20)
    rows = [jobs.queued(owner.actor, version) for _ in range(5)]
    assert sent() == [row.pk for row in rows[:2]], "one to run and one to wait for it"
    assert transitions.claim(rows[0].pk, owner="w1@host") is not None
    assert sent() == []
    claim = transitions.claim(rows[1].pk, owner="w1@host")
    assert claim is not None
    transitions.succeed(claim, message="done")
    assert sent() == [rows[2].pk]


def test_a_worker_with_more_slots_is_given_more(three, version_of, sent) -> None:
    owner, _, _ = three
    worker = jobs.worker()
    worker.hardware["slots"] = 3
    worker.save()
    version = version_of(owner.actor)
    rows = [jobs.queued(owner.actor, version) for _ in range(9)]
    assert sent() == [row.pk for row in rows[:4]]


def test_a_queue_that_nobody_announced_is_tried_and_one_whose_workers_are_drained_is_not(
    three, version_of, sent
) -> None:
    owner, _, _ = three
    version = version_of(owner.actor)
    rows = [jobs.queued(owner.actor, version) for _ in range(4)]
    assert sent() == [row.pk for row in rows[: line.UNSEEN]]
    Job.objects.update(published_at=None)
    jobs.worker(drain_since=timezone.now())
    assert sent() == []


def test_priority_and_fairness_choose_what_goes_out(three, version_of, sent) -> None:
    owner, _, stranger = three
    version, theirs = version_of(owner.actor), version_of(stranger.actor)
    jobs.worker("w1@host")
    jobs.worker("w2@host")
    many = [jobs.queued(owner.actor, version) for _ in range(5)]
    low = jobs.queued(stranger.actor, theirs, priority=LOW)
    only = jobs.queued(stranger.actor, theirs)
    urgent = jobs.queued(owner.actor, version, priority=HIGH)
    assert sent() == [urgent.pk, only.pk, many[0].pk, many[1].pk]
    Job.objects.filter(pk__in=[low.pk]).update(run_after=F("run_after") - timedelta(minutes=30))
    Job.objects.filter(published_at__isnull=False).update(state="succeeded")
    assert sent()[0] == low.pk, "it has risen"


def test_a_team_has_no_more_under_way_than_it_may(three, version_of, sent, settings) -> None:
    owner, _, stranger = three
    limited(settings, 2)
    version, theirs = version_of(owner.actor), version_of(stranger.actor)
    for number in range(4):
        jobs.worker(f"w{number}@host")
    own = [jobs.queued(owner.actor, version) for _ in range(4)]
    other = jobs.queued(stranger.actor, theirs)
    assert sorted(sent()) == [own[0].pk, own[1].pk, other.pk]
    claims = [transitions.claim(row.pk, owner=f"w{number}@host") for number, row in enumerate(own[:2])]
    assert sent() == []
    assert said(own[2]) == (
        "Your team runs 2 jobs, as many as a team may at once. "
        "It can start when one of them ends. 1 job of this queue before it."
    )
    assert claims[0] is not None
    transitions.succeed(claims[0], message="done")
    assert sent() == [own[2].pk]


def test_a_lost_message_is_sent_again_in_its_turn(three, version_of, sent) -> None:
    owner, _, _ = three
    jobs.worker()
    job = jobs.queued(owner.actor, version_of(owner.actor))
    sent()
    Job.objects.update(published_at=F("published_at") - line.REPUBLISH_AFTER)
    assert sent() == [job.pk]


def test_a_drained_worker_takes_no_job_and_costs_it_no_attempt(three, version_of, sent) -> None:
    owner, _, _ = three
    worker = jobs.worker()
    version = version_of(owner.actor)
    running = transitions.claim(jobs.queued(owner.actor, version).pk, owner=worker.name)
    slipped = jobs.queued(owner.actor, version)
    assert sent() == [slipped.pk]
    services.drain_worker(people.admin(owner).actor, worker)
    assert transitions.claim(slipped.pk, owner=worker.name) is None
    slipped.refresh_from_db()
    assert (slipped.state, slipped.attempt, slipped.fence, slipped.published_at) == ("queued", 0, 0, None)
    assert running is not None
    assert transitions.heartbeat(running) is False, "the job it has goes on"
    transitions.succeed(running, message="done")
    assert transitions.claim(slipped.pk, owner="other@host") is not None


def test_a_place_is_told_by_the_rule_that_sends(three, version_of, sent) -> None:
    owner, _, stranger = three
    jobs.worker(current_job=None)
    version = version_of(owner.actor)
    own = [jobs.queued(owner.actor, version) for _ in range(4)]
    sent()
    theirs = jobs.queued(stranger.actor, version_of(stranger.actor))
    urgent = jobs.queued(owner.actor, version, priority=HIGH)
    assert [line.place(Job.objects.get(pk=row.pk)) for row in (own[0], own[1])] == [0, 1]
    places = [(line.place(row), row.pk) for row in (urgent, theirs, own[2], own[3])]
    assert places == sorted(places)
    assert [place for place, _ in places] == [2, 3, 4, 5]


def needing(job: Job, needs: Needs) -> Job:
    Job.objects.filter(pk=job.pk).update(queue=needs.queue)
    return Job.objects.get(pk=job.pk)


TORCH = frozenset({"torch"})


@pytest.mark.parametrize(
    ("workers", "needs", "title"),
    [
        ([{}], Needs(gpu="8.9"), "No worker with a GPU of compute capability 8.9 is online."),
        ([], Needs(gpu="any"), "No worker with a GPU is online."),
        ([{"gpu": "9.0"}], Needs(gpu="8.9"), "No worker with a GPU of compute capability 8.9 is online."),
        ([{}], Needs(toolchains=TORCH), "No worker with PyTorch is online."),
        (
            [{"gpu": "8.9"}],
            Needs(gpu="8.9", toolchains=TORCH),
            "No worker with PyTorch is online.",
        ),
        (
            [{"gpu": "8.9"}, {"toolchains": TORCH}],
            Needs(gpu="8.9", toolchains=TORCH),
            "No worker with a GPU of compute capability 8.9 and PyTorch at once is online.",
        ),
        (
            [{"toolchains": TORCH, "drained": True}],
            Needs(toolchains=TORCH),
            "One worker could, and it is draining.",
        ),
        ([{"drained": True}, {"drained": True}], Needs(), "Two workers could, both are draining."),
        ([{"toolchains": TORCH}], Needs(toolchains=TORCH), "A worker is free and takes it in a moment."),
    ],
)
def test_what_no_worker_has_is_said(three, version_of, workers, needs, title) -> None:
    owner, _, _ = three
    for number, given in enumerate(workers):
        names = served(toolchains=given.get("toolchains", ()), gpu=given.get("gpu"))
        since = timezone.now() if "drained" in given else None
        jobs.worker(f"w{number}@host", queues=tuple(names), drain_since=since)
    job = needing(jobs.queued(owner.actor, version_of(owner.actor)), needs)
    assert said(job).startswith(title)


def test_it_is_said_what_would_help(three, version_of) -> None:
    owner, _, _ = three
    job = needing(jobs.queued(owner.actor, version_of(owner.actor)), Needs(gpu="any", toolchains=TORCH))
    assert "make toolchains" in said(job)
    assert "on a machine that has one" in said(job)
    jobs.worker(queues=(job.queue,), age_s=200)
    assert "w1@host was last heard 3 min ago." in said(job) or "PyTorch" in said(job)


def test_a_job_can_be_asked_onto_a_gpu_and_its_retry_goes_there_too(three, version_of) -> None:
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version, gpu="8.9", priority=LOW)
    assert (job.queue, job.priority) == ("optimize.gpu.sm_89.cuda", LOW), "measured there"
    services.cancel_job(owner.actor, job)
    job.refresh_from_db()
    again, _ = services.retry_job(owner.actor, job)
    assert (again.queue, again.priority) == (job.queue, LOW)
    assert jobs.queued(owner.actor, version).queue == "optimize.cpu"


ENGINE_FOR = {"capabilities": ["8.6", "8.9"]}
HOPPER = {"builder": "tensorrt", "capabilities": ["9.0"]}


@pytest.mark.parametrize(
    ("params", "gpu", "queue"),
    [
        (ENGINE_FOR, "", "optimize.cpu.tensorrt"),
        (ENGINE_FOR, "8.9", "optimize.gpu.sm_89.cuda.tensorrt"),
        (ENGINE_FOR, "any", "optimize.gpu.cuda.tensorrt"),
        (HOPPER, "", "optimize.gpu.sm_90.cuda.tensorrt"),
        (HOPPER, "any", "optimize.gpu.sm_90.cuda.tensorrt"),
    ],
)
def test_an_engine_is_made_and_measured_where_it_runs_if_somebody_asks_for_that_or_it_can_be_built_nowhere_else(
    three, version_of, params: dict[str, Any], gpu: str, queue: str
) -> None:
    owner, _, _ = three
    recipe = [{"technique": "tensorrt", "params": params}]
    job = jobs.queued(owner.actor, version_of(owner.actor), recipe=recipe, gpu=gpu)
    assert job.queue == queue
    services.cancel_job(owner.actor, job)
    job.refresh_from_db()
    assert services.retry_job(owner.actor, job)[0].queue == queue


@pytest.mark.parametrize(("params", "gpu"), [(ENGINE_FOR, "7.5"), (HOPPER, "8.9")])
def test_an_engine_cannot_be_measured_on_a_gpu_that_it_is_not_built_for(
    three, version_of, params: dict[str, Any], gpu: str
) -> None:
    owner, _, _ = three
    recipe = [{"technique": "tensorrt", "params": params}]
    with pytest.raises(Unprocessable, match=f"shall be measured on {gpu}") as refused:
        jobs.queued(owner.actor, version_of(owner.actor), recipe=recipe, gpu=gpu)
    assert refused.value.code == "other_gpu"


def test_a_technique_that_needs_a_gpu_and_a_toolchain_waits_where_both_are(
    three, version_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, _ = three
    version = version_of(owner.actor)
    plain = techniques.technique("onnx-graph")
    made = replace(plain, device=Device.GPU, toolchain="torch")
    monkeypatch.setattr(techniques, "technique", lambda _key: made)
    assert jobs.queued(owner.actor, version).queue == "optimize.gpu.cuda.torch"
    narrowed = jobs.queued(owner.actor, version, gpu="12.0")
    assert narrowed.queue == "optimize.gpu.sm_120.cuda.torch"
    services.cancel_job(owner.actor, narrowed)
    narrowed.refresh_from_db()
    assert services.retry_job(owner.actor, narrowed)[0].queue == narrowed.queue
