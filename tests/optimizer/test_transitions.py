"""The job machine: every edge of the table passes, every other pair is refused; lease and fence hold."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from controlplane.core import transitions as kernel
from optimizer import transitions
from optimizer.domain.jobs import EDGES, FailureReason, JobState
from optimizer.models import Job
from tests import factories

pytestmark = pytest.mark.django_db


def queued(**changes: object) -> Job:
    version = factories.version(factories.model(factories.team()))
    return Job.objects.create(
        team=version.model.team,
        version=version,
        parent=version.variants.get(),
        recipe=[{"technique": "onnx-graph", "params": {}}],
        run_after=Now(),
        **changes,
    )


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))


@pytest.mark.parametrize(("start", "end"), list(product(JobState, JobState)))
def test_only_the_edges_of_the_table_can_be_walked(start: JobState, end: JobState) -> None:
    job = queued(state=start)
    assert kernel.move(Job.objects.filter(pk=job.pk), edges=EDGES, to=end) is (end in EDGES[start])


def test_a_claim_takes_a_lease_a_fence_and_an_attempt() -> None:
    job = queued()
    claim = transitions.claim(job.pk, owner="one")
    assert claim is not None
    assert (claim.fence, claim.attempt) == (1, 1)
    job.refresh_from_db()
    assert job.state == JobState.RUNNING
    assert job.lease_until is not None


def test_a_job_is_claimed_once_however_often_its_message_comes() -> None:  # F08
    job = queued()
    assert [transitions.claim(job.pk, owner=name) is not None for name in "abc"] == [True, False, False]


def test_an_expired_lease_can_be_claimed_and_fences_out_the_sleeper() -> None:  # F07
    job = queued()
    sleeper = transitions.claim(job.pk, owner="sleeper")
    assert sleeper is not None
    expire(job)
    waking = transitions.claim(job.pk, owner="second")
    assert waking is not None
    assert waking.fence > sleeper.fence
    with pytest.raises(transitions.LeaseLost):
        transitions.heartbeat(sleeper)
    with pytest.raises(transitions.LeaseLost):
        transitions.succeed(sleeper, message="late")
    assert transitions.heartbeat(waking) is False


def test_an_expired_job_is_taken_back_and_fails_at_its_cap() -> None:
    job = queued(max_attempts=2)
    for expected in (JobState.QUEUED, JobState.FAILED):
        assert transitions.claim(job.pk, owner="x") is not None
        expire(job)
        assert transitions.reap_expired() == 1
        job.refresh_from_db()
        assert job.state == expected
    assert job.reason == FailureReason.ATTEMPTS_EXHAUSTED
    assert transitions.claim(job.pk, owner="x") is None


def test_a_crash_is_tried_twice_whatever_the_cap() -> None:  # F05
    job = queued(max_attempts=5)
    states = []
    for _ in range(2):
        Job.objects.filter(pk=job.pk).update(run_after=Now())
        claim = transitions.claim(job.pk, owner="x")
        assert claim is not None
        states.append(transitions.fail(claim, reason=FailureReason.CRASHED, message="Segmentation fault."))
    assert states == [JobState.QUEUED, JobState.FAILED]


def hand_back(claim: transitions.Claim) -> None:
    transitions.hand_back(claim)


def fall_silent(claim: transitions.Claim) -> None:
    Job.objects.filter(pk=claim.job_id).update(lease_until=Now() - timedelta(seconds=1))
    transitions.reap_expired()


def run_out_of_memory(claim: transitions.Claim) -> None:
    transitions.fail(claim, reason=FailureReason.OUT_OF_MEMORY, message="It ran out of memory.")


@pytest.mark.parametrize("interrupt", [hand_back, fall_silent, run_out_of_memory])
def test_only_what_ended_for_the_same_reason_counts_as_a_repetition(
    interrupt: Callable[[transitions.Claim], None],
) -> None:
    job = queued()
    ends = [interrupt, "crash", "crash"]
    states = []
    for end in ends:
        Job.objects.filter(pk=job.pk).update(run_after=Now())
        claim = transitions.claim(job.pk, owner="x")
        assert claim is not None
        if callable(end):
            end(claim)
        else:
            transitions.fail(claim, reason=FailureReason.CRASHED, message="Segmentation fault.")
        states.append(Job.objects.get(pk=job.pk).state)
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]


@pytest.mark.parametrize("reason", [FailureReason.TIMEOUT, FailureReason.INTEGRITY, FailureReason.REFUSED])
def test_what_would_end_the_same_way_is_not_tried_again(reason: FailureReason) -> None:
    job = queued()
    claim = transitions.claim(job.pk, owner="x")
    assert claim is not None
    assert transitions.fail(claim, reason=reason, message="no") == JobState.FAILED


def test_cancelling_a_queued_job_ends_it_and_a_running_one_within_a_heartbeat() -> None:
    waiting, running = queued(), queued()
    claim = transitions.claim(running.pk, owner="x")
    assert claim is not None
    assert transitions.cancel(waiting) == JobState.CANCELLED
    assert transitions.cancel(running) == JobState.CANCELLING
    assert transitions.heartbeat(claim) is True
    assert transitions.fail(claim, reason=FailureReason.ERROR, message="killed") == JobState.CANCELLED
    assert transitions.cancel(running) is None


def test_a_cancelling_job_whose_worker_is_gone_ends_as_cancelled() -> None:
    job = queued()
    transitions.claim(job.pk, owner="x")
    transitions.cancel(job)
    expire(job)
    transitions.reap_expired()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_a_lost_process_gives_its_job_back_at_once_but_only_its_own() -> None:  # F02
    job = queued()
    transitions.claim(job.pk, owner="mine", message_id="m")
    assert transitions.release_lost(job.pk, owner="other", message_id="m") is False
    assert transitions.release_lost(job.pk, owner="mine", message_id="an older one") is False
    assert transitions.release_lost(job.pk, owner="mine", message_id="m") is True
    assert transitions.claim(job.pk, owner="second") is not None


def test_no_lock_on_a_job_stops_a_worker_that_announces_it() -> None:  # F19
    """A row that refers to the job may be written meanwhile; else that worker and this lock wait for each other."""
    given, silent, lost = queued(), queued(), queued()
    with CaptureQueriesContext(connection) as asked:
        claim = transitions.claim(given.pk, owner="x")
        assert claim is not None
        transitions.hand_back(claim)
        transitions.claim(silent.pk, owner="x")
        expire(silent)
        assert transitions.reap_expired() == 1
        transitions.claim(lost.pk, owner="x", message_id="m")
        assert transitions.release_lost(lost.pk, owner="x", message_id="m")
    locks = [query["sql"] for query in asked if " FOR " in query["sql"]]
    assert len(locks) == 3
    assert all(" FOR NO KEY UPDATE" in lock for lock in locks)


def test_every_edge_leaves_an_event() -> None:
    job = queued()
    claim = transitions.claim(job.pk, owner="x")
    assert claim is not None
    transitions.succeed(claim, message="done")
    assert [event.message for event in job.events.all()] == ["Attempt 1 started on x.", "done"]
