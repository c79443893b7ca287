"""Jobs survive what happens to the processes that run them: one effect each, no line lost, nothing left behind."""

import base64
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from controlplane.core import bus, storage
from controlplane.embedded import procfs
from controlplane.registry.models import Variant
from optimizer import services
from optimizer.domain.jobs import FailureReason, JobState
from optimizer.models import Job, Worker
from tests.faults import workshop as jobs
from tests.faults.crew import Crew, assert_gone, builders_of, pool_child
from tests.faults.programs import alive, tree
from tests.faults.stage import LEASE_S, PLAIN, Stage
from tests.faults.techniques import FREEZE, HANG, HUNGRY, RESUME, SEGFAULT, SLOW
from tests.faults.waiting import until
from tests.faults.workshop import Workshop

QUEUE = "slipway:optimize.cpu"
UNACKED = "slipway:unacked"
LONG = 30
"""Lines of a build that is caught in the middle: a second and a half of it."""


@pytest.fixture(scope="module")
def dispatched(stands: Stage) -> Stage:
    stands.start("dispatcher")
    return stands


@pytest.fixture(scope="module")
def hired(dispatched: Stage) -> Crew:
    return Crew(stands=dispatched)


@pytest.fixture
def crew(hired: Crew) -> Crew:
    hired.complete()
    return hired


@pytest.fixture
def caught(crew: Crew, workshop: Workshop) -> Job:
    """A job in the middle of its build, with some of its lines written."""
    job = workshop.queue(SLOW, lines=LONG)
    jobs.says(job, "line 10")
    return job


def test_a_job_ends_in_a_variant_with_a_report(dispatched: Stage, workshop: Workshop) -> None:
    """The happy path, on the product's own application."""
    with dispatched.worker_of_its_own("plain", app=PLAIN) as (worker, queue):
        job = workshop.queue("int8-static", to=queue)
        jobs.when(job, JobState.SUCCEEDED)
        jobs.assert_one_effect(job)
        assert jobs.look(job).attempt == 1
        jobs.assert_tidy(dispatched.scratch, [job])
        report = Variant.objects.get(job_id=job.pk).reports.get().data
        calibrating = jobs.ITEMS // 4
        assert report["accuracy"]["available"] == jobs.ITEMS - calibrating
        assert f"without the {calibrating} that" in report["method"]["inputs"]
        worker.terminate(within_s=dispatched.rows["worker-optimize"].grace_s)


def test_F01_a_worker_killed_in_mid_build_is_followed_by_another_that_takes_effect_once(
    dispatched: Stage, crew: Crew, caught: Job
) -> None:
    victim = crew.owner(caught)
    before = jobs.history(caught)
    killed_at = time.monotonic()
    remains = victim.kill_group()
    jobs.says(caught, "Attempt 2 started", within_s=LEASE_S + 5)
    assert time.monotonic() - killed_at <= LEASE_S + 5
    assert_gone(remains, within_s=3)
    jobs.when(caught, JobState.SUCCEEDED)
    jobs.assert_one_effect(caught)
    after = jobs.history(caught)
    assert after[: len(before)] == before
    lines = jobs.history(caught, attempt=1, message__startswith="line ")
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert jobs.starts(caught)[1] != jobs.starts(caught)[0]
    jobs.assert_tidy(dispatched.scratch, [caught])


def test_what_a_killed_attempt_kept_is_found_by_the_next_and_gone_with_the_job(
    dispatched: Stage, crew: Crew, workshop: Workshop
) -> None:
    job = workshop.queue(RESUME, lines=LONG)
    jobs.says(job, "line 10")
    kept = dispatched.scratch / f"kept-{job.pk}"
    assert kept.is_dir()
    crew.owner(job).kill_group()
    jobs.when(job, JobState.SUCCEEDED)
    resumed = jobs.history(job, attempt=2, kind="log")
    (said,) = [line for line in resumed if line.startswith("resumed after line")]
    place = int(said.rpartition(" ")[2])
    assert place >= 10, (
        "what was told had been kept, though the last lines may die unwritten with their worker"
    )
    lines = [line for line in resumed if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(place + 1, LONG + 1)]
    until(lambda: not kept.exists(), within_s=10, what="the removal of what the job kept")


def test_F02_a_killed_pool_child_costs_one_attempt_and_six_seconds(
    dispatched: Stage, workshop: Workshop
) -> None:
    """With a lease that would take a minute to run out, so that it is the worker that speaks up."""
    with dispatched.worker_of_its_own("lasting", SLIPWAY_LEASE_S="60") as (worker, queue):
        job = workshop.queue(SLOW, lines=LONG, to=queue)
        jobs.says(job, "line 10")
        child = pool_child(worker)
        remains = tree(child)
        os.kill(child, signal.SIGKILL)
        jobs.says(job, "Attempt 2 started", within_s=6)
        assert_gone(remains, within_s=3)
        (lost,) = job.events.filter(data__reason="worker_lost")
        assert lost.message.startswith("The worker lost the process")
        jobs.when(job, JobState.SUCCEEDED)
        jobs.assert_one_effect(job)
        assert jobs.look(job).attempt == 2


def test_F03_a_killed_celery_parent_takes_its_build_along(crew: Crew, caught: Job) -> None:
    victim = crew.owner(caught)
    remains = victim.kill()
    assert len(remains) > 2
    assert_gone(remains, within_s=3)
    jobs.when(caught, JobState.SUCCEEDED)
    jobs.assert_one_effect(caught)


def test_F04_a_build_that_runs_out_of_memory_is_tried_twice_and_says_what_it_took(
    dispatched: Stage, workshop: Workshop
) -> None:
    limit = 1024**3
    with dispatched.worker_of_its_own("small", SLIPWAY_JOB_MEMORY_BYTES=str(limit)) as (worker, queue):
        job = workshop.queue(HUNGRY, to=queue)
        failed = jobs.when(job, JobState.FAILED)
        assert (failed.reason, failed.attempt) == (FailureReason.OUT_OF_MEMORY, 2)
        said = (
            r"It ran out of memory: peak ([\d,]+) MB with libraries, limit 1,024 MB without\. "
            r".*SLIPWAY_JOB_MEMORY_BYTES.*"
        )
        told = re.fullmatch(said, failed.message)
        assert told, failed.message
        assert limit / 2 < int(told[1].replace(",", "")) * 1024**2 <= limit * 1.3
        assert jobs.effects(job) == 0
        jobs.assert_tidy(dispatched.scratch, [job])
        following = workshop.queue(SLOW, to=queue)
        jobs.when(following, JobState.SUCCEEDED)
        jobs.assert_one_effect(following)
        assert not type(workshop.version).objects.get(pk=workshop.version.pk).quarantined_reason
        assert worker.running
        assert worker.said().count(" ready.") == 1


def test_F05_a_poison_model_is_tried_twice_and_its_version_put_away(
    crew: Crew, workshop: Workshop, tmp_path: Path
) -> None:
    poisoned = Workshop.open(tmp_path, name="poisoned", actor=workshop.actor)
    poison, other = poisoned.queue(SEGFAULT), workshop.queue(SLOW)
    failed = jobs.when(poison, JobState.FAILED)
    assert (failed.reason, failed.attempt) == (FailureReason.CRASHED, 2)
    until(
        lambda: type(poisoned.version).objects.get(pk=poisoned.version.pk).quarantined_reason,
        within_s=5,
        what="the quarantine",
    )
    assert jobs.effects(poison) == 0
    jobs.when(other, JobState.SUCCEEDED)
    jobs.assert_one_effect(other)
    assert all(worker.running for worker in crew.workers.values())


def test_F06_a_build_that_hangs_is_killed_at_its_wall_limit(dispatched: Stage, workshop: Workshop) -> None:
    with dispatched.worker_of_its_own("hurried", SLIPWAY_TECHNIQUE_WALL_S="5") as (worker, queue):
        job = workshop.queue(HANG, to=queue)
        builders = until(lambda: builders_of(worker), within_s=20, what="the build")
        failed = jobs.when(job, JobState.FAILED)
        assert (failed.reason, failed.attempt) == (FailureReason.TIMEOUT, 1)
        assert "5 s" in failed.message
        assert alive(builders) == []
        following = workshop.queue(SLOW, to=queue)
        jobs.when(following, JobState.SUCCEEDED)
        jobs.assert_one_effect(following)


def test_F07_a_worker_frozen_past_its_lease_stops_itself_when_it_wakes(crew: Crew, caught: Job) -> None:
    sleeper = crew.owner(caught)
    sleeper.freeze()
    jobs.when(caught, JobState.SUCCEEDED)
    builders = builders_of(sleeper)
    ended = jobs.look(caught)
    sleeper.thaw()
    sleeper.says("lease_lost")
    assert_gone(builders, within_s=3)
    jobs.assert_one_effect(caught)
    assert jobs.look(caught).fence == ended.fence
    assert sleeper.running


def test_F07_what_a_frozen_worker_wants_to_finish_late_is_refused(crew: Crew, workshop: Workshop) -> None:
    """It sleeps between its last look at the lease and the write that would make its result visible."""
    job = workshop.queue(FREEZE)
    jobs.when(job, JobState.RUNNING)
    sleeper = crew.owner(job)
    asleep = until(
        lambda: next((pid for pid in sleeper.children() if state(pid) == "T"), 0),
        within_s=30,
        what="the worker stopping before it finishes",
    )
    ended = jobs.when(job, JobState.SUCCEEDED)
    os.kill(asleep, signal.SIGCONT)
    sleeper.says("lease_lost")
    jobs.assert_one_effect(job)
    assert jobs.look(job).fence == ended.fence
    assert crew.owner(job) is crew.other(sleeper)


def state(pid: int) -> str:
    seen = procfs.look(pid)
    return seen.state if seen else ""


def test_F08_repeated_and_replayed_messages_change_nothing(
    dispatched: Stage, crew: Crew, workshop: Workshop
) -> None:
    """The very message, captured while it was being worked on, thrice in the middle and twice at the end."""
    before = refused(crew)
    job = workshop.queue(SLOW, lines=LONG)
    jobs.says(job, "line 1")
    with redis.Redis.from_url(dispatched.values["REDIS_URL"]) as broker:
        message = next(filter(None, (message_for(job, held) for held in broker.hvals(UNACKED))))
        broker.lpush(QUEUE, message, message, message)
        jobs.when(job, JobState.SUCCEEDED)
        until(lambda: refused(crew) >= before + 3, within_s=10, what="three refusals")
        broker.lpush(QUEUE, message, message)
        last = workshop.queue(SLOW)  # both workers take messages in order: what came before it was heard
        jobs.when(last, JobState.SUCCEEDED)
        until(
            lambda: not any(message_for(job, held) for held in broker.hvals(UNACKED)),
            within_s=10,
            what="every message being acknowledged",
        )
    assert refused(crew) >= before + 5
    jobs.assert_one_effect(job)
    assert len(jobs.starts(job)) == 1
    assert jobs.look(job).attempt == 1


def refused(crew: Crew) -> int:
    """How many messages its workers found nothing to do for, as their logs count them."""
    return sum(worker.said().count("claim_refused") for worker in crew.workers.values())


def message_for(job: Job, held: bytes) -> str:
    """The broker's message for a job as it is kept while a worker has it; empty if it is for another job."""
    message, _exchange, _key = json.loads(held)
    args, *_ = json.loads(base64.b64decode(message["body"]))
    return json.dumps(message) if args == [job.pk] else ""


def test_F23_a_job_whose_input_was_changed_on_disk_fails_and_marks_it(
    dispatched: Stage, crew: Crew, workshop: Workshop, tmp_path: Path
) -> None:
    rotten = Workshop.open(tmp_path, name="rotten", actor=workshop.actor, seed=23)
    artifact = rotten.version.artifact
    file = storage.path(artifact.sha256)
    file.chmod(0o600)
    with file.open("r+b") as bytes_:
        bytes_.seek(-1, os.SEEK_END)
        bytes_.write(b"\0")
    job = rotten.queue(SLOW)
    failed = jobs.when(job, JobState.FAILED)
    assert (failed.reason, failed.attempt) == (FailureReason.INTEGRITY, 1)
    artifact.refresh_from_db()
    assert artifact.state == artifact.State.DAMAGED
    assert jobs.effects(job) == 0


def test_the_same_bytes_stored_again_do_not_disturb_the_job_that_reads_them(
    crew: Crew, workshop: Workshop, caught: Job
) -> None:
    """Storing puts a new file in the place of the equal one, which a sandbox that is open by then may not read."""
    path = storage.path(workshop.version.artifact.sha256)
    before = path.stat().st_ino
    storage.put_file(path)
    assert path.stat().st_ino != before
    jobs.when(caught, JobState.SUCCEEDED)
    jobs.assert_one_effect(caught)
    assert len(jobs.starts(caught)) == 1


def test_cancelling_a_running_job_ends_it_within_a_heartbeat_and_its_child_with_it(
    crew: Crew, workshop: Workshop
) -> None:
    job = workshop.queue(SLOW, lines=2000)
    jobs.says(job, "line 1")
    builders = builders_of(crew.owner(job))
    assert builders
    assert services.cancel_job(workshop.actor, job) == JobState.CANCELLING
    jobs.when(job, JobState.CANCELLED, within_s=LEASE_S / 4 + 1)
    assert_gone(builders, within_s=3)
    assert jobs.effects(job) == 0


def test_F44_a_worker_told_to_stop_finishes_what_it_can_and_leaves_then(
    dispatched: Stage, workshop: Workshop
) -> None:
    patience_s = 60
    with dispatched.worker_of_its_own("patient", SLIPWAY_WORKER_FINISH_S=str(patience_s)) as (worker, queue):
        job = workshop.queue(SLOW, lines=LONG, to=queue)
        jobs.says(job, "line 1")
        worker.terminate(within_s=patience_s - 20)
        jobs.assert_one_effect(job)
        assert len(jobs.starts(job)) == 1
        row = Worker.objects.get(name__startswith="patient@")
        assert row.draining


def test_F44_a_worker_told_to_stop_gives_back_what_it_cannot_finish(
    dispatched: Stage, crew: Crew, workshop: Workshop
) -> None:
    job = workshop.queue(SLOW, lines=200)
    jobs.says(job, "line 1")
    worker = crew.owner(job)
    remains = tree(worker.pid)
    worker.terminate(within_s=dispatched.rows["worker-optimize"].grace_s)
    stopped_at = time.monotonic()
    jobs.says(job, "Attempt 2 started", within_s=2)
    assert time.monotonic() - stopped_at < LEASE_S / 2, "it came by the lease's end, not by the worker's hand"
    assert_gone(remains, within_s=1)
    assert "The worker was stopped and gave the job back." in jobs.history(job)
    services.cancel_job(workshop.actor, job)
    jobs.when(job, JobState.CANCELLED)
    assert jobs.effects(job) == 0


@pytest.fixture
def ticks(stands: Stage) -> Iterator[psycopg.Connection]:
    with psycopg.connect(bus.conninfo(), autocommit=True) as listening:
        listening.execute(f"LISTEN {bus.TICKS}")
        yield listening


def shown(ticks: psycopg.Connection, true: Callable[[Worker], bool], *, called: str) -> Worker:
    """What a page that looks when it is told, and only then, sees of a worker once it is as wanted."""
    for tick in ticks.notifies(timeout=20):
        rows = Worker.objects.filter(name__startswith=f"{called}@")
        if "workers" in json.loads(tick.payload)["topics"] and (row := rows.first()) and true(row):
            return row
    raise AssertionError(f"no tick showed it; the rows are {list(rows.values())}")


def test_open_pages_are_told_when_a_worker_comes_works_comes_back_and_goes(
    dispatched: Stage, workshop: Workshop, ticks: psycopg.Connection
) -> None:
    with dispatched.worker_of_its_own("seen") as (worker, queue):
        first = shown(ticks, lambda row: not row.draining, called="seen")
        job = workshop.queue(SLOW, to=queue)
        shown(ticks, lambda row: row.current_job_id == job.pk, called="seen")
        shown(ticks, lambda row: row.current_job_id is None, called="seen")
        worker.kill_group()
    with dispatched.worker_of_its_own("seen") as (worker, queue):
        shown(ticks, lambda row: row.started_at > first.started_at, called="seen")
        worker.terminate(within_s=dispatched.rows["worker-optimize"].grace_s)
        shown(ticks, lambda row: row.draining, called="seen")
