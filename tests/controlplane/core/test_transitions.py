"""A state changes by a guarded write or not at all. Tested on the job machine's own table and edges."""

import itertools

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from controlplane.core.transitions import move, sources
from optimizer.domain.jobs import EDGES, JobState
from optimizer.models import Job, JobEvent
from tests import factories

pytestmark = pytest.mark.django_db

STATES = [str(state) for state in JobState]


def a_job(state: str) -> Job:
    team = factories.team()
    version = factories.version(factories.model(team))
    return Job.objects.create(
        team=team, version=version, parent=version.variants.get(), recipe={}, run_after=Now(), state=state
    )


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_a_row_moves_along_an_edge_and_only_along_one(before: str, after: str) -> None:
    job = a_job(before)
    moved = move(Job.objects.filter(pk=job.pk), edges=EDGES, to=after, changes={"message": "moved"})
    job.refresh_from_db()
    assert moved == (after in EDGES.get(before, frozenset()))
    assert (job.state, job.message) == ((after, "moved") if moved else (before, ""))


def test_every_source_of_a_state_has_an_edge_to_it() -> None:
    for target in STATES:
        assert sources(EDGES, target) == {
            state for state in STATES if target in EDGES.get(state, frozenset())
        }


def test_the_event_is_written_if_and_only_if_the_row_moved() -> None:
    job = a_job("queued")

    def record() -> None:
        JobEvent.objects.create(job=job, attempt=0, kind="state", message="x", at=Now())

    assert move(Job.objects.filter(pk=job.pk), edges=EDGES, to="cancelled", record=record)
    assert not move(Job.objects.filter(pk=job.pk), edges=EDGES, to="cancelled", record=record)
    assert JobEvent.objects.count() == 1


def test_a_failed_event_takes_the_move_back() -> None:
    job = a_job("queued")

    def record() -> None:
        raise RuntimeError("no event")

    with pytest.raises(RuntimeError):
        move(Job.objects.filter(pk=job.pk), edges=EDGES, to="running", record=record)
    job.refresh_from_db()
    assert job.state == "queued"


def test_only_from_narrows_the_edges_and_never_widens_them() -> None:
    job = a_job("queued")
    rows = Job.objects.filter(pk=job.pk)
    assert not move(rows, edges=EDGES, to="running", only_from=["succeeded"])
    assert not move(rows, edges=EDGES, to="succeeded", only_from=["queued"])
    assert move(rows, edges=EDGES, to="running", only_from=["queued"])


def test_another_owner_moves_nothing() -> None:
    job = a_job("running")
    Job.objects.filter(pk=job.pk).update(fence=3, owner="worker-b")
    assert not move(Job.objects.filter(pk=job.pk, fence=2, owner="worker-a"), edges=EDGES, to="succeeded")


def test_a_move_is_one_statement_in_its_transaction() -> None:
    job = a_job("queued")
    with CaptureQueriesContext(connection) as queries:
        move(Job.objects.filter(pk=job.pk), edges=EDGES, to="running")
    assert sum(query["sql"].startswith("UPDATE") for query in queries) == 1
    assert not any(query["sql"].startswith("SELECT") for query in queries)
