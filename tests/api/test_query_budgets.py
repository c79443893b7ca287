"""How many SQL statements each reading address costs, recorded in query_budgets.json: more of them fail here.

The number is the same for 1, 50 and 200 rows of everything, the token's own query included. When an address
may cost more, or costs less, `pytest tests/api/test_query_budgets.py --record-budgets` writes the file anew, and
its diff says what changed.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.accounts.models import ApiToken, AuditEvent, Membership, Role, User
from controlplane.core.pagination import MAX_LIMIT
from controlplane.registry.models import Alias, Dataset, Import, Model, Report, Variant, Version
from deployments import specs
from deployments.models import Decision, Deployment, Revision, Rollout, RolloutEvent, Target
from optimizer.models import Job, JobEvent, Search, Worker
from tests import factories
from tests.api.routes import Operation, operations
from tests.api.world import RECIPE, World

FILE = Path(__file__).with_name("query_budgets.json")
ROWS = (1, 50, 200)
LISTS_AT_MOST = 3
"""The token, the list, and what it prefetches."""


def _reads() -> list[Operation]:
    return [one for one in operations() if one.method == "GET"]


def _grow(world: World, rows: int) -> None:
    """So many rows of everything that a list can show, each with a person and a parent to be fetched."""
    team, now = world.team, timezone.now()
    people = User.objects.bulk_create(User(username=f"person-{rows}-{n}") for n in range(rows))
    Membership.objects.bulk_create(Membership(team=team, user=one, role=Role.VIEWER) for one in people)
    for one in people:
        ApiToken.objects.issue(user=one, team=team, role=Role.VIEWER, name="t", expiry=timedelta(days=1))
    AuditEvent.objects.bulk_create(
        AuditEvent(team=team, user=one, via="api", verb="did", object_type="x", object_id=1, object_name="x")
        for one in people
    )
    _grow_registry(world, people)
    own = Variant.objects.in_team(team).get(version__model__name="churn", version__number=1, number=0)
    search, there = Search.objects.get(pk=int(world.parameters["search"])), Job.objects.count()
    jobs = Job.objects.bulk_create(
        Job(
            team=team, version=own.version, parent=own, recipe=RECIPE, run_after=now, created_by=one,
            search=search, search_index=there + n, state="succeeded",
        )
        for n, one in enumerate(people)
    )  # fmt: skip
    Search.objects.filter(pk=search.pk).update(plan=[RECIPE] * (there + rows))
    Search.objects.bulk_create(
        Search(team=team, version=own.version, parent=own, plan=[], max_jobs=1, max_minutes=1, created_by=one)
        for one in people
    )
    for row in jobs:
        made = Variant.objects.create(
            version=own.version, number=10_000 + row.pk, parent=own, artifact=own.artifact, technique="x",
            signature=factories.SIGNATURE, job_id=row.pk,
        )  # fmt: skip
        Report.objects.create(variant=made, verdict="better", sentence="x", data={})
    job = Job.objects.get(pk=int(world.parameters["job"]))
    JobEvent.objects.bulk_create(JobEvent(job=job, attempt=0, kind="log", message="x", at=now) for _ in jobs)
    Worker.objects.bulk_create(
        Worker(name=f"worker-{one.pk}", started_at=now, heartbeat_at=now, current_job=row)
        for one, row in zip(people, jobs, strict=True)
    )
    _grow_deployments(world, people, own)


def _grow_registry(world: World, people: list[User]) -> None:
    churn = Model.objects.get(team=world.team, name="churn")
    first = Version.objects.get(model=churn, number=1)
    parent = first.variants.get(number=0)
    for n, person in enumerate(people):
        model = Model.objects.create(team=world.team, name=f"m-{person.pk}", created_by=person)
        Alias.objects.create(model=churn, name=f"a-{person.pk}", variant=parent)
        version = Version.objects.create(
            model=churn, number=100 + person.pk, source_sha256="", source_bytes=1, artifact=first.artifact,
            signature=factories.SIGNATURE, created_by=person,
        )  # fmt: skip
        Variant.objects.create(version=version, artifact=first.artifact, signature=factories.SIGNATURE)
        Alias.objects.create(model=model, name="champion", variant=parent)
        for of in (first, version):
            made = Variant.objects.create(
                version=of, number=100 + person.pk, parent=parent, artifact=first.artifact, technique="x",
                signature=factories.SIGNATURE,
            )  # fmt: skip
            Report.objects.create(variant=made, verdict="better", sentence="x", data={})
        Report.objects.create(variant_id=_measured(world), verdict="better", sentence="x", data={})
        Dataset.objects.create(
            model=churn, name=f"d-{person.pk}", role="evaluation", artifact=first.artifact, items=n
        )
        Import.objects.create(
            model=churn, reference="x", run_after=timezone.now(), version=version, created_by=person
        )


def _measured(world: World) -> int:
    return Report.objects.get(pk=int(world.parameters["report"])).variant_id


def _grow_deployments(world: World, people: list[User], variant: Variant) -> None:
    live = Deployment.objects.get(team=world.team, name="scoring")
    turning = Deployment.objects.get(team=world.team, name="turning")
    spec, now = specs.read_spec({}).to_json(), timezone.now()
    Target.objects.bulk_create(Target(team=world.team, name=f"t-{one.pk}", kind="memory") for one in people)
    for person in people:
        row = Deployment.objects.create(
            team=world.team,
            name=f"e-{person.pk}",
            target=live.target,
            created_by=person,
            observed=live.observed,
        )
        revision = Revision.objects.create(
            deployment=row, number=1, variant=variant, spec=spec, created_by=person
        )
        Deployment.objects.filter(pk=row.pk).update(live_revision=revision)
        Rollout.objects.create(deployment=row, to_revision=revision, progressed_at=now, created_by=person)
        more = Revision.objects.create(
            deployment=live, number=100 + person.pk, variant=variant, spec=spec, created_by=person
        )
        Rollout.objects.create(
            deployment=live, from_revision=live.live_revision, to_revision=more, state="succeeded",
            progressed_at=now, created_by=person,
        )  # fmt: skip
    Decision.objects.bulk_create(
        Decision(
            deployment=live, at=now, last_at=now, current_replicas=1, desired_replicas=2, limited_by="",
            signals={}, sentence="x",
        )
        for _ in people
    )  # fmt: skip
    rollout = turning.rollouts.get()
    RolloutEvent.objects.bulk_create(RolloutEvent(rollout=rollout, kind="x", message="x") for _ in people)


def _statements(world: World, operation: Operation, *, rows: int) -> list[str]:
    listing = "limit" in operation.query_names
    query = f"limit={min(rows + 1, MAX_LIMIT)}" if listing else ""
    with CaptureQueriesContext(connection) as captured:
        response = world.admin.ask("GET", world.path(operation), QUERY_STRING=query)
    assert response.status_code == 200, f"{operation}: {response.content[:200]!r}"
    assert not listing or len(response.json()["items"]) >= rows, f"{operation} does not list what was made"
    return [one["sql"] for one in captured]


def _key(operation: Operation) -> str:
    return operation.route.template.removeprefix("/api/v1")


@pytest.fixture
def costs(world: World) -> dict[str, dict[int, list[str]]]:
    """The statements of each address with so many rows there."""
    found: dict[str, dict[int, list[str]]] = {_key(one): {} for one in _reads()}
    there = 0
    for rows in ROWS:
        _grow(world, rows - there)
        there = rows
        Worker.objects.update(heartbeat_at=timezone.now())  # who fell silent is asked about less
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # or Postgres plans for the empty tables that other tests left
        for operation in _reads():
            found[_key(operation)][rows] = _statements(world, operation, rows=rows)
    return found


def test_reading_costs_what_is_recorded_however_many_rows_there_are(
    costs: dict[str, dict[int, list[str]]], request: pytest.FixtureRequest
) -> None:
    growing = {
        address: {rows: len(found) for rows, found in by_rows.items()}
        for address, by_rows in costs.items()
        if len({len(found) for found in by_rows.values()}) > 1
    }
    assert not growing, f"statements grow with the rows: {growing}"
    measured: dict[str, Any] = {address: len(by_rows[ROWS[0]]) for address, by_rows in sorted(costs.items())}
    if request.config.getoption("--record-budgets", default=False):
        FILE.write_text(json.dumps(measured, indent=2) + "\n")
    recorded = json.loads(FILE.read_text())
    wrong = {
        address: f"{count} statements, {recorded.get(address, 'none')} recorded: {costs[address][ROWS[0]]}"
        for address, count in measured.items()
        if recorded.get(address) != count
    }
    assert not wrong, "\n".join(f"{address}: {what}" for address, what in wrong.items())
    assert recorded.keys() == measured.keys(), "the file names addresses that are gone"


def test_lists_are_cheap() -> None:
    recorded = json.loads(FILE.read_text())
    dear = {
        _key(one): recorded[_key(one)]
        for one in _reads()
        if {"cursor", "limit"} <= one.query_names and not one.route.parameters
        if recorded[_key(one)] > LISTS_AT_MOST
    }
    assert not dear
