"""How an attempt ends: what a worker writes when its work raises, all of it or nothing."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone

from controlplane.accounts.models import AuditEvent
from controlplane.celery import app
from controlplane.registry import services as registry
from optimizer import services, transitions
from optimizer.domain.jobs import FailureReason, JobState
from optimizer.domain.recipe import MAX_STEPS
from optimizer.models import Job, JobEvent
from optimizer.worker import attempt, supervision
from optimizer.worker.hold import Cancelled, Hold, StepFailed
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db

CRASH = StepFailed(FailureReason.CRASHED, "It crashed with SIGSEGV.")

type Run = Callable[[Job, Exception], str | None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Any) -> Run:
    """One attempt whose work raises."""
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, home=tmp_path)

    def end(job: Job, error: Exception) -> str | None:
        def work(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(attempt, "_work", work)
        Job.objects.filter(pk=job.pk).update(run_after=Now())
        return attempt.run(job.pk, owner="w1@host")

    return end


def test_a_version_that_crashed_its_builder_twice_is_put_away_with_an_audit_row(three, version_of, run):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    assert run(job, CRASH) == JobState.QUEUED
    version.refresh_from_db()
    assert not version.quarantined_reason
    assert run(job, CRASH) == JobState.FAILED
    version.refresh_from_db()
    assert version.quarantined_reason == CRASH.message
    event = AuditEvent.objects.get(verb="quarantined")
    assert (event.team, event.object_id, event.user) == (version.model.team, version.pk, None)
    assert event.details == {"reason": CRASH.message}


def test_one_crash_after_attempts_that_were_lost_puts_no_version_away(three, version_of, run):
    owner, _, _ = three
    version = version_of(owner.actor)
    job = jobs.queued(owner.actor, version)
    Job.objects.filter(pk=job.pk).update(attempt=job.max_attempts - 1)
    assert run(job, CRASH) == JobState.FAILED
    version.refresh_from_db()
    assert not version.quarantined_reason
    assert not AuditEvent.objects.filter(verb="quarantined").exists()


def test_a_job_is_not_over_before_its_version_is_put_away(three, version_of, run, monkeypatch):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    assert run(job, CRASH) == JobState.QUEUED

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(registry, "quarantine", broken)
    with pytest.raises(ZeroDivisionError):
        run(job, CRASH)
    job.refresh_from_db()
    assert job.state == JobState.RUNNING
    assert transitions.ended_for(job.pk, FailureReason.CRASHED) == 1


def test_an_attempt_that_the_worker_stops_for_its_time_is_not_tried_again(three, version_of, run):
    owner, _, _ = three
    job = jobs.queued(owner.actor, version_of(owner.actor))
    assert run(job, SoftTimeLimitExceeded()) == JobState.FAILED
    job.refresh_from_db()
    assert (job.reason, job.attempt) == (FailureReason.TIMEOUT, 1)


def test_a_workers_lines_are_dated_by_the_databases_clock(three, version_of, monkeypatch):  # F35
    owner, _, _ = three
    wrong = timezone.now() + timedelta(minutes=5)
    monkeypatch.setattr(timezone, "now", lambda: wrong)
    claim = jobs.running(owner.actor, version_of(owner.actor))
    hold = Hold(claim=claim)
    hold.say("line 1")
    hold.flush()
    started, line = Job.objects.get(pk=claim.job_id).events.order_by("-pk")[:2][::-1]
    assert line.message == "line 1"
    assert abs(line.at - started.at) < timedelta(minutes=1)


@pytest.mark.parametrize("grace_s", [20.0, 0.0])
def test_a_cancelled_step_that_listens_is_asked_first_and_what_it_says_is_kept(
    grace_s, three, version_of, tmp_path
):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    hold = Hold(claim=claim)
    services.cancel_job(owner.actor, Job.objects.get(pk=claim.job_id))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        supervision.supervise(
            entry="tests.controlplane.core.sandbox_entries:wait_to_be_asked",
            spec={},
            readable=[Path(__file__).parents[1]],
            wall_s=60,
            hold=hold,
            folder=tmp_path,
            stop_grace_s=grace_s,
        )
    assert time.monotonic() - began < 15, "neither waited for in vain"
    with pytest.raises(Cancelled):
        hold.flush()
    heard = JobEvent.objects.filter(job_id=claim.job_id, kind="log").order_by("pk")
    assert ("as you wish" in [event.message for event in heard]) == (grace_s > 0)


def test_the_workers_own_limits_come_after_every_limit_of_a_recipe():
    walls = MAX_STEPS * settings.ENVIRONMENT.technique_wall_s + attempt.MEASURE_WALL_S
    assert walls < app.conf.task_soft_time_limit < app.conf.task_time_limit
    assert app.conf.broker_transport_options["visibility_timeout"] > app.conf.task_time_limit


def test_a_second_reason_to_put_a_version_away_changes_nothing(three, version_of):
    owner, _, _ = three
    version = version_of(owner.actor)
    for reason in ("first", "second"):
        registry.quarantine(version, reason=reason)
    version.refresh_from_db()
    assert version.quarantined_reason == "first"
    assert AuditEvent.objects.filter(verb="quarantined").count() == 1
