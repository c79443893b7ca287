"""Keyset pages: every row once, in order, whatever is added meanwhile; a bad cursor is refused."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.core.errors import InvalidInput
from controlplane.core.pagination import MAX_LIMIT, capped_count, paginate
from controlplane.registry.models import Model
from tests import factories

pytestmark = pytest.mark.django_db


def test_pages_show_every_row_once_and_new_rows_shift_nothing() -> None:
    team = factories.team()
    ids = [factories.model(team).pk for _ in range(7)]
    seen: list[int] = []
    cursor = ""
    for _ in range(10):
        page = paginate(Model.objects.in_team(team), {"limit": "3", "cursor": cursor})
        seen += [row.pk for row in page.rows]
        factories.model(team)
        if page.next_cursor is None:
            break
        cursor = str(page.next_cursor)
    assert seen == sorted(ids, reverse=True)


def test_the_last_page_has_no_next_also_when_it_is_full() -> None:
    team = factories.team()
    for _ in range(3):
        factories.model(team)
    assert paginate(Model.objects.in_team(team), {"limit": "3"}).next_query() is None
    assert paginate(Model.objects.in_team(team), {"limit": "2"}).next_query() is not None


def test_a_page_is_one_query() -> None:
    team = factories.team()
    with CaptureQueriesContext(connection) as queries:
        paginate(Model.objects.in_team(team), {})
    assert len(queries) == 1


@pytest.mark.parametrize("name", ["limit", "cursor"])
@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "abc",
        "1e3",
        "1.5",
        "10" * 15,
        "٣",
        "²",
        " 1",
        "+1",
        "1_0",
        "0" * 19 + "1" + "9" * 5000,
        "9" * 5000,
    ],
)
def test_what_is_no_plain_number_in_range_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        paginate(Model.objects.all(), {name: text})
    assert refused.value.fields.keys() == {name}


def test_the_largest_page_is_bounded() -> None:
    with pytest.raises(InvalidInput):
        paginate(Model.objects.all(), {"limit": str(MAX_LIMIT + 1)})


def test_a_total_is_exact_up_to_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    team = factories.team()
    for _ in range(4):
        factories.model(team)
    assert capped_count(Model.objects.in_team(team)) == "4"
    monkeypatch.setattr("controlplane.core.pagination.COUNT_CAP", 3)
    assert capped_count(Model.objects.in_team(team)) == "3+"
