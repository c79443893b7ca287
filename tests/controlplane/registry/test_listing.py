"""The list of versions says what the versions themselves say, and to nobody else."""

import pytest
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.core.pagination import Wanted
from controlplane.registry import listing, selectors
from controlplane.registry.models import Version
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def actor() -> Actor:
    return factories.member(factories.team())


def test_a_line_reads_as_the_version_itself_does(actor: Actor) -> None:
    model = factories.model(actor.team, "ranker")
    made = [factories.version(model) for _ in range(3)]
    Version.objects.filter(pk=made[0].pk).update(
        summary={"text": '“ünï”\\ "q" </script>', "n": [1, 2.5, None, True]}, quarantined_reason="It crashed."
    )
    Version.objects.filter(pk=made[1].pk).update(created_by=actor.user)
    client, token = Client(), factories.token(actor)
    headers = {"Authorization": f"Bearer {token}"}
    listed = client.get("/api/v1/models/ranker/versions/", headers=headers).json()
    alone = [
        client.get(f"/api/v1/models/ranker/versions/{number}/", headers=headers).json()
        for number in (3, 2, 1)
    ]
    assert listed == {"items": alone, "next": None}


def test_pages_follow_each_other_without_gap_or_repeat(actor: Actor) -> None:
    model = factories.model(actor.team, "ranker")
    for _ in range(5):
        factories.version(model)
    numbers, cursor = [], None
    while True:
        page = listing.versions(actor, "ranker", Wanted(cursor=cursor, limit=2))
        numbers += [line.number for line in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert numbers == [5, 4, 3, 2, 1]


def test_another_teams_model_of_the_same_name_is_not_there(actor: Actor) -> None:
    factories.version(factories.model(factories.team(), "ranker"))
    assert listing.versions(actor, "ranker", Wanted(cursor=None, limit=50)).rows == []
    answer = Client().get(
        "/api/v1/models/ranker/versions/", headers={"Authorization": f"Bearer {factories.token(actor)}"}
    )
    assert answer.status_code == 404


def test_a_model_without_versions_has_an_empty_page(actor: Actor) -> None:
    factories.model(actor.team, "ranker")
    assert selectors.versions(actor).count() == 0
    answer = Client().get(
        "/api/v1/models/ranker/versions/", headers={"Authorization": f"Bearer {factories.token(actor)}"}
    )
    assert answer.json() == {"items": [], "next": None}
