"""What a job keeps between its attempts is there as long as the job is not over."""

from dataclasses import replace

import pytest

from optimizer import transitions
from optimizer.domain.jobs import FailureReason
from optimizer.worker import scratch
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


def test_a_later_attempt_finds_what_was_kept_and_nobody_does_once_the_job_is_over(
    three, version_of, settings, tmp_path
):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, home=tmp_path)
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    with scratch.folder(claim):
        (scratch.kept(claim.job_id) / "checkpoint").write_text("step 5")
    assert scratch.collect() == 0
    transitions.fail(claim, reason=FailureReason.ERROR, message="It broke.")
    assert scratch.collect() == 0, "it waits for its second attempt"
    second = transitions.claim(claim.job_id, owner="w2@host")
    assert second is not None
    assert (scratch.kept(claim.job_id) / "checkpoint").read_text() == "step 5"
    transitions.fail(second, reason=FailureReason.REFUSED, message="It cannot be done.")
    assert scratch.collect() == 1
    assert not list((tmp_path / "scratch").iterdir())
