"""A list filtered by health finds exactly the rows whose badge says that word."""

from collections import Counter
from itertools import product

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from deployments import selectors
from deployments.domain.rollouts import Health
from deployments.models import Deployment, ImportedFrom, Revision, Rollout
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
SIZES = ((0, 0), (2, 0), (2, 1), (2, 2), (1, 2))
"""Wanted and ready."""


def _replica(state: str) -> dict[str, object]:
    nothing: dict[str, object] = {"ready_at": None, "reason": "", "log_tail": [], "url": "", "pid": 1}
    return nothing | {
        "name": state,
        "revision": 1,
        "state": state,
        "restarts": 0,
        "started_at": "2026-01-01T00:00Z",
    }


def _grow(world: World) -> None:
    """One deployment for every answer to every question that health asks."""
    variant = world.revision().variant
    for number, (removing, away, live, active, failed, imported, (wanted, ready)) in enumerate(
        product(*[(False, True)] * 5, (None, "read_only", "taken"), SIZES)
    ):
        row = Deployment.objects.create(
            team=world.owner.team,
            target=world.row.target,
            name=f"case-{number}",
            replicas=wanted,
            removing=removing,
            unreachable_since=timezone.now() if away else None,
        )
        states = ["ready"] * ready + ["starting"]
        row.observed = {
            "key": row.key,
            "generation": 1,
            "address": None,
            "replicas": [_replica(state) for state in states],
            "observed_at": "2026-01-01T00:00Z",
        }
        revision = Revision.objects.create(deployment=row, number=1, variant=variant, spec={})
        row.live_revision = revision if live else None
        row.save()
        if imported is not None:
            ImportedFrom.objects.create(deployment=row, state=imported, moved_at=Now(), origin={})
        for state in ["failed"] * failed + ["running"] * active:
            Rollout.objects.create(deployment=row, to_revision=revision, state=state, progressed_at=Now())


def test_the_filter_finds_what_the_badge_says_whatever_the_case(world: World) -> None:
    _grow(world)
    rows = selectors.deployments(world.owner)
    said = {row.pk: selectors.health_of(row) for row in rows}
    assert set(said.values()) == set(Health)
    for health in Health:
        found = selectors.search(rows, health=health).values_list("pk", flat=True)
        assert Counter(found) == Counter(pk for pk, word in said.items() if word is health), health


def test_page_and_api_are_asked_in_the_words_of_the_badge(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    page = client.get("/deployments/").content.decode()
    assert '<option value="scaled_to_zero">Scaled to zero</option>' in page
    assert 'href="/deployments/scorer/"' in client.get("/deployments/?health=healthy").content.decode()
    assert "No deployment matches" in client.get("/deployments/?health=degraded").content.decode()
    assert len(world.api(world.viewer, "GET", "?health=healthy").json()["items"]) == 1
    assert world.api(world.viewer, "GET", "?health=degraded").json()["items"] == []
    assert world.api(world.viewer, "GET", "?health=live").status_code == 400
