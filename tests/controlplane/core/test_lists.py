"""Lists that are sorted: every row once in the order that is asked for, on pages, by API and as CSV."""

import csv
import html
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.accounts.models import Role
from controlplane.core.errors import InvalidInput
from controlplane.core.pagination import Order, paginate
from controlplane.registry import selectors
from controlplane.registry.models import Dataset, Model, Version
from tests import factories
from tests.controlplane.registry.people import person
from tests.optimizer.jobs import worker

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def actor() -> Any:
    """An engineer whose team has 23 models: some without a version, many with the same time of upload."""
    source = random.Random(7)
    team = factories.team()
    for number in range(23):
        model = factories.model(team, f"m{source.randrange(10**6)}-{number}")
        if source.random() < 0.7:
            version = factories.version(model)
            uploaded = NOON + timedelta(hours=source.randrange(3))
            Version.objects.filter(pk=version.pk).update(created_at=uploaded)
    return factories.member(team)


def in_order(actor: Any, field: str, *, descending: bool) -> list[int]:
    """What has nothing in the column stands last, equals newest first."""
    rows = sorted(selectors.with_findings(selectors.models(actor)), key=lambda row: -row.pk)
    filled = [row for row in rows if getattr(row, field) is not None]
    empty = [row for row in rows if getattr(row, field) is None]
    filled.sort(key=lambda row: getattr(row, field), reverse=descending)
    return [row.pk for row in [*filled, *empty]]


def walk(rows: Any, order: Order, *, limit: int) -> Iterator[int]:
    place: dict[str, str] = {}
    while True:
        page = paginate(rows, {"limit": str(limit)} | place, order=order)
        yield from (row.pk for row in page.rows)
        if page.next_cursor is None:
            return
        place = {"cursor": str(page.next_cursor)}
        if page.next_after is not None:
            place["after"] = page.next_after


@pytest.mark.parametrize("limit", [1, 2, 7, 23, 200])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("word", selectors.MODEL_SORTS)
def test_pages_show_every_row_once_in_order(actor: Any, word: str, descending: bool, limit: int) -> None:
    field = selectors.MODEL_SORTS[word]
    rows = selectors.with_findings(selectors.models(actor))
    seen = list(walk(rows, Order(field, descending=descending), limit=limit))
    assert seen == in_order(actor, field, descending=descending)


@pytest.mark.parametrize("sort", ["name", "-name", "uploaded", "-uploaded", "-versions"])
def test_page_api_and_csv_agree(actor: Any, sort: str) -> None:
    client = person(actor).browser
    on_pages = list(_names_on_pages(client, f"?sort={sort}&limit=5"))
    by_api = list(_names_by_api(client, f"/api/v1/models/?sort={sort}&limit=5"))
    exported = client.get(f"/models/?sort={sort}&limit=5&part=csv").getvalue().decode()
    assert len(on_pages) == 23
    assert on_pages == by_api == [row["name"] for row in csv.DictReader(exported.splitlines())]


def _names_on_pages(client: Client, query: str) -> Iterator[str]:
    while query:
        page = client.get(f"/models/{query}").content.decode()
        yield from re.findall(r'class="row-link" href="/models/([^/]+)/"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        query = html.unescape(following[1]) if following else ""


def _names_by_api(client: Client, address: str | None) -> Iterator[str]:
    while address:
        page = client.get(address).json()
        yield from (model["name"] for model in page["items"])
        address = page["next"]


@pytest.mark.parametrize(
    ("sort", "after"),
    [
        ("uploaded", "yesterday"),
        ("uploaded", "2026-13-45T00:00:00Z"),
        ("versions", "many"),
        ("versions", "9" * 400),
    ],
)
def test_a_forged_place_is_refused_by_its_field_or_finds_nothing(actor: Any, sort: str, after: str) -> None:
    answer = person(actor).browser.get("/api/v1/models/", {"sort": sort, "cursor": "9", "after": after})
    if sort == "versions" and after.isdigit():
        assert answer.json()["items"] == []
    else:
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == "after"


def test_an_order_that_does_not_exist_is_refused_with_those_that_do(actor: Any) -> None:
    for path in ("/models/", "/api/v1/models/"):
        answer = person(actor).browser.get(f"{path}?sort=secret")
        assert answer.status_code == 400
        assert "name, versions, uploaded" in answer.content.decode()
    with pytest.raises(InvalidInput):
        Order.of({"sort": "--name"}, selectors.MODEL_SORTS)


def test_a_head_says_its_direction_and_turns_it_round(actor: Any) -> None:
    client = person(actor).browser
    by_name = client.get("/models/?search=m&sort=name&cursor=1&after=a").content.decode()
    assert '<th scope="col" aria-sort="ascending"><a class="sort" href="?search=m&amp;sort=-name">' in by_name
    assert 'href="?search=m&amp;sort=-uploaded"' in by_name, "times begin with the latest"
    assert '<input type="hidden" name="sort" value="name">' in by_name, "filtering keeps the order"
    assert "aria-sort" not in client.get("/models/").content.decode()


def test_a_form_that_is_sent_to_a_lists_part_does_what_it_says() -> None:
    admin = factories.member(factories.team(), role=Role.ADMIN)
    answer = person(admin).browser.post(
        "/settings/members/?part=csv", {"username": "grace", "role": "viewer"}
    )
    assert answer.status_code == 201
    assert "grace" in answer.content.decode()


def test_sorting_costs_no_query_more(actor: Any, django_assert_num_queries: Any) -> None:
    rows = Model.objects.in_team(actor.team)
    with django_assert_num_queries(1):
        paginate(rows, {"cursor": "5", "after": "m", "limit": "3"}, order=Order("name"))


def test_versions_data_sets_and_members_can_be_taken_away(actor: Any) -> None:
    client = person(actor).browser
    model = factories.model(actor.team, "ranker")
    for _ in range(3):
        factories.version(model)
    Dataset.objects.create(
        model=model, name="held-out", role="evaluation", artifact=factories.artifact(), items=9
    )
    worker("w1@host")
    second = factories.member(actor.team)

    def table(path: str) -> list[dict[str, str]]:
        answer = client.get(path)
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(answer.getvalue().decode().splitlines()))

    assert [row["version"] for row in table("/models/ranker/?part=csv")] == ["3", "2", "1"]
    assert [row["version"] for row in table("/models/ranker/?part=csv&sort=number")] == ["1", "2", "3"]
    (held_out,) = table("/models/ranker/?part=datasets")
    assert (held_out["name"], held_out["items"], held_out["bytes"]) == ("held-out", "9", "1000")
    (fleet,) = table("/workers/?part=csv")
    assert (fleet["worker"], fleet["state"], fleet["cores"]) == ("w1@host", "idle", "2")
    members = table("/settings/members/?part=csv")
    assert [row["person"] for row in members] == [str(actor.user), str(second.user)]
    assert {row["role"] for row in members} == {"engineer"}
